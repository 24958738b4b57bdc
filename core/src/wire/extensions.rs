//! Fields that a type has got since its first version. They follow the others as a list, each with its
//! number, so that a build without them sees what it lacks and says so.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::short;
use crate::codec::{self, CodecError};

/// A field that came later, as its type declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The type it belongs to: a message's name on the wire, or a struct's own.
    pub of: &'static str,
    /// The field.
    pub field: &'static str,
    /// Its place among all that came later, from 1. For ever.
    pub number: u16,
    /// The version that brought it.
    pub since: u16,
    /// Whether a build without it may go on as if it were not there.
    pub may_drop: bool,
    /// The layout of its name and type.
    pub layout: u64,
}

/// Why a type's later fields are not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtensionError {
    /// The sender is newer, and what it says may not be dropped.
    #[error(
        "{of} carries its extension {number}, since {since}, which this build lacks and may not drop: upgrade this node, or declare the field `may_drop` there"
    )]
    Unknown {
        /// The type.
        of: &'static str,
        /// The field's number among those that came later.
        number: u16,
        /// The version that brought it.
        since: u16,
    },
    /// Two builds gave one number to different fields.
    #[error(
        "extension {number} of {of} is {field:?} since {ours} here and another field, since {since}, there: one number was given to two fields"
    )]
    Another {
        /// The type.
        of: &'static str,
        /// The field's number among those that came later.
        number: u16,
        /// The field that has this number here.
        field: &'static str,
        /// Since when, here.
        ours: u16,
        /// Since when, there.
        since: u16,
    },
    /// It is the field that this build has, and its bytes are not a value.
    #[error("{of}.{field} (extension {number}): {source}")]
    Value {
        /// The type.
        of: &'static str,
        /// The field.
        field: &'static str,
        /// Its number among those that came later.
        number: u16,
        /// What was wrong.
        source: CodecError,
    },
}

/// The later fields of one value, as they travel: by rising numbers, only those that are not their
/// default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Written>")]
pub struct Extensions(Vec<Written>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    number: u16,
    since: u16,
    may_drop: bool,
    layout: [u8; 4],
    #[serde(serialize_with = "write_blob", deserialize_with = "read_blob")]
    value: Bytes,
}

impl Extensions {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a field unless it is its default.
    ///
    /// # Errors
    /// As [`codec::encode`].
    ///
    /// # Panics
    /// When fields are not added by rising numbers, as a type's own code does.
    pub fn put<T>(&mut self, extension: &Extension, value: &T) -> Result<(), CodecError>
    where
        T: Serialize + Default + PartialEq,
    {
        if *value == T::default() {
            return Ok(());
        }
        let rises = self.0.last().is_none_or(|last| last.number < extension.number);
        assert!(rises, "{}.{} is written out of turn", extension.of, extension.field);
        self.0.push(Written {
            number: extension.number,
            since: extension.since,
            may_drop: extension.may_drop,
            layout: short(extension.layout).to_be_bytes(),
            value: codec::encode(value)?,
        });
        Ok(())
    }

    /// Takes a field out; its default if it is not there.
    ///
    /// # Errors
    /// [`ExtensionError::Another`], [`ExtensionError::Value`].
    pub fn take<T>(&mut self, extension: &Extension) -> Result<T, ExtensionError>
    where
        T: DeserializeOwned + Default,
    {
        let &Extension { of, field, number, since, layout, .. } = extension;
        let Ok(at) = self.0.binary_search_by_key(&number, |written| written.number) else {
            return Ok(T::default());
        };
        let written = self.0.remove(at);
        if written.layout != short(layout).to_be_bytes() {
            return Err(ExtensionError::Another { of, number, field, ours: since, since: written.since });
        }
        codec::decode(&written.value).map_err(|source| ExtensionError::Value { of, field, number, source })
    }

    /// Ends the reading of a value: what is left is not known here.
    ///
    /// # Errors
    /// [`ExtensionError::Unknown`] for the first that may not be dropped.
    pub fn finish(self, of: &'static str) -> Result<(), ExtensionError> {
        match self.0.into_iter().find(|written| !written.may_drop) {
            None => Ok(()),
            Some(Written { number, since, .. }) => Err(ExtensionError::Unknown { of, number, since }),
        }
    }
}

impl TryFrom<Vec<Written>> for Extensions {
    type Error = &'static str;

    fn try_from(written: Vec<Written>) -> Result<Self, Self::Error> {
        if written.is_sorted_by(|a, b| a.number < b.number) {
            Ok(Self(written))
        } else {
            Err("its extensions do not stand by rising numbers")
        }
    }
}

fn write_blob<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(value)
}

fn read_blob<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    struct Taken;
    impl de::Visitor<'_> for Taken {
        type Value = Bytes;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the bytes of a field")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }
        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(bytes.into())
        }
    }
    deserializer.deserialize_byte_buf(Taken)
}
