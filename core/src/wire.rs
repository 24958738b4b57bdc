//! When two builds agree on the bytes of a type, and how a type grows without breaking that.
//!
//! * It decides: the fingerprint of a layout ([`Wire::LAYOUT`]), and what becomes of a field that one
//!   side has and the other lacks ([`Extensions`]).
//! * It never does: decode what the other side laid out differently.
//! * Invariants: a layout of the same fields is the same number on every machine and in every build;
//!   a value is read as what it was written as, or refused by name.
//!
//! What travels under a name begins with the low 32 bits of its layout (big endian), which the reader
//! compares with its own before it decodes anything: [`encode`] and [`decode`].

mod extensions;
mod layouts;

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _, SeqAccess};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::blob;
use crate::codec::{Bincode, Codec, CodecError};

pub use extensions::{Extension, ExtensionError, Extensions};

/// Bytes that stand before a value.
pub const PREFIX_BYTES: usize = 4;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// A type whose layout on the wire is known and has a number.
///
/// Derived (`#[derive(Wire)]` beside serde's two), or written by `#[remote]` and `#[grows]` together
/// with the rest. A recursive type has no layout and does not compile: one level a byte would overflow
/// the stack of whoever decodes it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no layout on the wire",
    note = "a type of your own: `#[derive(Serialize, Deserialize, Wire)]`, or `#[grows]` if fields will be added to it",
    note = "another crate's type in a field: `#[wire(opaque = \"NAME-v1\")]` on the field; the text stands for the layout and must change with it"
)]
pub trait Wire {
    /// A fingerprint of how the codec lays the type out: the names of its fields or variants in order,
    /// with the layouts of their types (FNV-1a, 64 bits).
    const LAYOUT: u64;
}

/// A layout as it is put together. A constant expression, so that the number costs nothing at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout(u64);

impl Layout {
    /// The layout of a kind of thing, with nothing in it yet.
    #[must_use]
    pub const fn of(kind: &str) -> Self {
        Self(FNV_OFFSET).text(kind)
    }

    /// With one more field, element or variant.
    #[must_use]
    pub const fn field(self, name: &str, layout: u64) -> Self {
        self.text(name).number(layout)
    }

    /// With a number that belongs to it.
    #[must_use]
    pub const fn number(self, number: u64) -> Self {
        let bytes = number.to_be_bytes();
        let mut at = 0;
        let mut layout = self;
        while at < bytes.len() {
            layout = layout.byte(bytes[at]);
            at += 1;
        }
        layout
    }

    /// Beside something that is no part of it. Its layout is evaluated all the same, so that a type
    /// that contains itself there does not compile either.
    #[must_use]
    pub const fn aside(self, _layout: u64) -> Self {
        self
    }

    /// The number.
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0
    }

    /// Length first: `ab` and `c` are not `a` and `bc`.
    const fn text(self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut layout = self.number(bytes.len() as u64);
        let mut at = 0;
        while at < bytes.len() {
            layout = layout.byte(bytes[at]);
            at += 1;
        }
        layout
    }

    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(FNV_PRIME))
    }
}

/// The layout of a type whose bytes are another's business: the text stands for them, and changes when
/// they do.
#[must_use]
pub const fn opaque(text: &str) -> u64 {
    Layout::of("opaque").text(text).finish()
}

/// Why bytes from another node are not a value of the type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The sender lays the type out differently. Nothing was decoded.
    #[error(
        "its layout is {theirs:08x} there and {ours:08x} here: fields that both must have differ in name, order or type"
    )]
    Layout {
        /// As the sender said.
        theirs: u32,
        /// As it is here.
        ours: u32,
    },
    /// It is too short to say its layout.
    #[error("{0} bytes are no value: its layout alone takes {PREFIX_BYTES}")]
    Short(usize),
    /// The layouts agree and the bytes are still not a value.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The 32 bits of a type's layout that travel with its values.
#[must_use]
pub const fn prefix<T: Wire>() -> u32 {
    short(T::LAYOUT)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
const fn short(layout: u64) -> u32 {
    layout as u32
}

/// A value as it travels under a name: its layout, then its bytes.
///
/// # Errors
/// As [`Codec::encode`].
pub fn encode<T: Wire + Serialize>(value: &T) -> Result<Bytes, CodecError> {
    Bincode::encode_after(&prefix::<T>().to_be_bytes(), value)
}

/// Has a use for a value as it travels under a name, where the bytes need not be kept.
///
/// # Errors
/// As [`Codec::encode`].
pub fn with_encoded<T: Wire + Serialize, R>(
    value: &T,
    what: impl FnOnce(&[u8]) -> R,
) -> Result<R, CodecError> {
    Bincode::with_encoded(&prefix::<T>().to_be_bytes(), value, what)
}

/// The value of what travelled under a name.
///
/// # Errors
/// [`WireError::Layout`] when it was laid out differently; as [`Codec::decode`].
pub fn decode<T: Wire + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (theirs, body) = bytes.split_first_chunk().ok_or(WireError::Short(bytes.len()))?;
    let (theirs, ours) = (u32::from_be_bytes(*theirs), prefix::<T>());
    if theirs != ours {
        return Err(WireError::Layout { theirs, ours });
    }
    Ok(Bincode::decode(body)?)
}

/// As [`decode`], of a part of bytes that what is decoded may share: see [`Blob`](crate::Blob).
///
/// # Errors
/// As [`decode`].
pub fn decode_part<T: Wire + DeserializeOwned>(part: &[u8], whole: &Bytes) -> Result<T, WireError> {
    blob::within(whole, || decode(part))
}

/// The next element of a sequence of known length, for the code that `#[remote]` and `#[grows]` write.
///
/// # Errors
/// When it is not there, or not a `T`.
pub fn element<'de, T, A>(sequence: &mut A, of: &str) -> Result<T, A::Error>
where
    T: Deserialize<'de>,
    A: SeqAccess<'de>,
{
    sequence.next_element()?.ok_or_else(|| A::Error::custom(format_args!("{of} ends before its last field")))
}

/// The hash of a value, the same in every process of a build: what tells messages apart that may
/// replace each other in a queue. (FNV-1a, 64 bits; it does not withstand someone who looks for
/// collisions.)
#[must_use]
pub fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Fnv(FNV_OFFSET);
    value.hash(&mut hasher);
    hasher.finish()
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
