//! Names and numbers that identify things. One type an id; each is validated where it is made, so
//! that inside there is nothing left to check.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::MAX_NAME_LEN;

/// A name that does not follow the rules of names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{given:?} is not a valid {kind}: use 1 to {MAX_NAME_LEN} characters of a-z, 0-9, '-' and begin and end with a letter or digit"
)]
pub struct NameError {
    /// What kind of name was asked for.
    pub kind: &'static str,
    /// What was given, cut at 80 characters.
    pub given: String,
}

/// Names are DNS labels in lower case, so that every one can stand in a certificate, a metric label
/// and a file name as it is.
pub(crate) fn validated(kind: &'static str, given: &str) -> Result<Arc<str>, NameError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ok = given.len() <= MAX_NAME_LEN
        && edge(given.chars().next())
        && edge(given.chars().last())
        && given.chars().all(inner);
    if ok { Ok(given.into()) } else { Err(NameError { kind, given: given.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $ty:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $ty(Arc<str>);

        impl $ty {
            /// Parses and validates a name.
            ///
            /// # Errors
            /// [`NameError`] when it is not a lower-case DNS label.
            pub fn new(name: &str) -> Result<Self, NameError> {
                validated($kind, name).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($ty), self.0)
            }
        }

        impl FromStr for $ty {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $ty {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(&s)
            }
        }

        impl From<$ty> for String {
            fn from(name: $ty) -> String {
                name.0.to_string()
            }
        }
    };
}
pub(crate) use name;

name!(
    /// A region's name, such as `us-east`: a place under one operator and one law.
    Region, "region name"
);
name!(
    /// A node's name, unique within its region, such as `n1`.
    NodeName, "node name"
);
name!(
    /// The name of a pool of units for sale.
    PoolName, "pool name"
);

/// A node of the mesh: region and name. It identifies a place in the founding list, not the data on
/// its disk (that is the [`StoreId`]). Ordered by region, then name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// Where the node stands.
    pub region: Region,
    /// Its name there.
    pub name: NodeName,
}

impl NodeId {
    /// A node id of its two parts.
    ///
    /// # Errors
    /// [`NameError`] when either part is not a valid name.
    pub fn new(region: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { region: Region::new(region)?, name: NodeName::new(name)? })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.name)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let bad = || NameError { kind: "node id (REGION/NODE)", given: s.chars().take(80).collect() };
        let (region, name) = s.split_once('/').ok_or_else(bad)?;
        Self::new(region, name)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $ty:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $ty(pub u128);

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($ty))
            }
        }

        impl FromStr for $ty {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                let bad = || NameError { kind: $kind, given: s.chars().take(80).collect() };
                if s.len() != 32 {
                    return Err(bad());
                }
                u128::from_str_radix(s, 16).map(Self).map_err(|_| bad())
            }
        }
    };
}

random_id!(
    /// A mesh's identity, stamped once by `rhumb mesh init` or `rhumb dev`: 128 random bits.
    ClusterId, "cluster id (32 hexadecimal digits)"
);
random_id!(
    /// The identity of the data in one data directory: 128 random bits drawn when it was first made.
    StoreId, "store id (32 hexadecimal digits)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "us-east", "n1", "0", &"a".repeat(MAX_NAME_LEN)] {
            assert!(Region::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", &"a".repeat(MAX_NAME_LEN + 1)] {
            assert!(Region::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn node_ids_read_back_what_they_print() {
        let id = NodeId::new("us-east", "n1").expect("valid");
        assert_eq!(id.to_string().parse::<NodeId>().expect("valid"), id);
        assert!("us-east".parse::<NodeId>().is_err());
        assert!("us-east/n1/x".parse::<NodeId>().is_err());
    }

    #[test]
    fn store_ids_are_32_digits() {
        let id = StoreId(7);
        assert_eq!(id.to_string().parse::<StoreId>().expect("valid"), id);
        assert!("7".parse::<StoreId>().is_err());
    }
}
