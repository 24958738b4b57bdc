//! What an answer promises. The guarantee of a chain of calls is that of its weakest link.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Consistency levels, weakest first, so that `Ord` is "is at least as strong as".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub enum Guarantee {
    /// Caches, eventual reads, anything unsigned.
    #[default]
    Eventual,
    /// Only from other services' labels.
    ReadCommitted,
    /// As-of and bounded-stale reads; their age is stated.
    Snapshot,
    /// Transactions over ranges.
    Serializable,
    /// A strong read or write within one range.
    StrictSerializable,
}

impl Guarantee {
    /// The strongest level: the identity of [`Guarantee::compose`].
    pub const STRONGEST: Self = Self::StrictSerializable;

    /// Every level, weakest first.
    pub const ALL: [Self; 5] =
        [Self::Eventual, Self::ReadCommitted, Self::Snapshot, Self::Serializable, Self::StrictSerializable];

    /// The guarantee of a result made of two others: the weaker of them. Associative and
    /// commutative, with [`Guarantee::STRONGEST`] as identity.
    #[must_use]
    pub fn compose(self, other: Self) -> Self {
        self.min(other)
    }

    /// Its name in JSON, in traces and in attributes: one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::ReadCommitted => "read_committed",
            Self::Snapshot => "snapshot",
            Self::Serializable => "serializable",
            Self::StrictSerializable => "strict_serializable",
        }
    }

    /// Whether a result at this level meets a requirement.
    #[must_use]
    pub fn meets(self, required: Self) -> bool {
        self >= required
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eventual => "eventual",
            Self::ReadCommitted => "read committed",
            Self::Snapshot => "snapshot",
            Self::Serializable => "serializable",
            Self::StrictSerializable => "strict serializable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Guarantee;

    #[test]
    fn composition_is_associative_commutative_and_has_an_identity() {
        for a in Guarantee::ALL {
            assert_eq!(a.compose(Guarantee::STRONGEST), a);
            for b in Guarantee::ALL {
                assert_eq!(a.compose(b), b.compose(a));
                assert!(a.meets(a.compose(b)) && b.meets(a.compose(b)), "never stronger than a link");
                for c in Guarantee::ALL {
                    assert_eq!(a.compose(b).compose(c), a.compose(b.compose(c)));
                }
            }
        }
    }
}
