//! How a body becomes bytes. The codec's number travels with every message, so that another one can
//! take over while nodes of both kinds are in the mesh.
//!
//! bincode is unmaintained (RUSTSEC-2025-0141) and stands only in this file. What is known to bite is
//! fenced in here: a limit on what is decoded, exact consumption, errors as types. Two rules rest on
//! the types that are decoded: no recursive ones (one level a byte overflows the stack and aborts the
//! process) and no elements of size zero (a length alone would cost time). [`Wire`](crate::wire::Wire)
//! keeps both when it compiles; what is decoded without it must see to them itself.

use std::cell::Cell;

use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Bytes that a decoded value may claim, and an encoded one may have.
pub const MAX_ENCODED_BYTES: usize = 16 << 20;

/// Why a value has no bytes, or bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The value cannot be written.
    #[error("cannot be encoded: {0}")]
    Encode(String),
    /// The bytes are not a value of the type.
    #[error("cannot be decoded: {0}")]
    Decode(String),
    /// The bytes hold a value and then something else.
    #[error("{left} bytes are left over after the value: the peer's type has fields that this one lacks")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// More than may be.
    #[error("{bytes} bytes are over the limit of {MAX_ENCODED_BYTES}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
}

/// Values to bytes and back.
pub trait Codec {
    /// The codec's number on the wire.
    const ID: u8;

    /// The bytes of a value.
    ///
    /// # Errors
    /// [`CodecError::Encode`], [`CodecError::TooLarge`].
    fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
        Self::encode_after(&[], value)
    }

    /// The bytes of a value behind a head that is no part of it.
    ///
    /// # Errors
    /// [`CodecError::Encode`], [`CodecError::TooLarge`] (head included).
    fn encode_after<T: Serialize>(head: &[u8], value: &T) -> Result<Bytes, CodecError>;

    /// The value of bytes, all of them.
    ///
    /// # Errors
    /// [`CodecError::Decode`], [`CodecError::Trailing`], [`CodecError::TooLarge`].
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// What is larger than this is not copied out of the buffer in which it was encoded, but takes it along.
const MAX_SCRATCH: usize = 4 << 10;

thread_local! {
    /// Where a thread encodes: most messages are small, and a buffer that grows with each costs more than
    /// its copy.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Codec 1: bincode 2.0.1 in its standard configuration (little endian, variable-length integers).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

impl Codec for Bincode {
    const ID: u8 = 1;

    fn encode_after<T: Serialize>(head: &[u8], value: &T) -> Result<Bytes, CodecError> {
        let bytes = Self::scratch(head, value)?;
        if bytes.len() > MAX_SCRATCH {
            return Ok(bytes.into());
        }
        let exactly = Bytes::copy_from_slice(&bytes);
        SCRATCH.set(bytes);
        Ok(exactly)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        if bytes.len() > MAX_ENCODED_BYTES {
            return Err(CodecError::TooLarge { bytes: bytes.len() });
        }
        let config = bincode::config::standard().with_limit::<MAX_ENCODED_BYTES>();
        // Borrowed, so that a blob may be a part of what it is decoded from.
        let (value, consumed) = bincode::serde::borrow_decode_from_slice(bytes, config).map_err(|error| {
            CodecError::Decode(match error {
                DecodeError::OtherString(said) => said,
                other => other.to_string(),
            })
        })?;
        match bytes.len() - consumed {
            0 => Ok(value),
            left => Err(CodecError::Trailing { left }),
        }
    }
}

impl Bincode {
    /// Has a use for the bytes of a value behind a head that is no part of it, where they need not be kept.
    ///
    /// # Errors
    /// As [`Codec::encode_after`].
    pub fn with_encoded<T: Serialize, R>(
        head: &[u8],
        value: &T,
        what: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, CodecError> {
        let bytes = Self::scratch(head, value)?;
        let done = what(&bytes);
        if bytes.len() <= MAX_SCRATCH {
            SCRATCH.set(bytes);
        }
        Ok(done)
    }

    fn scratch<T: Serialize>(head: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
        // Taken out while it is used: what is encoded may encode something itself.
        let mut bytes = SCRATCH.take();
        bytes.clear();
        bytes.extend_from_slice(head);
        let encoded = bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard());
        encoded.map_err(|error| {
            CodecError::Encode(match error {
                EncodeError::OtherString(said) => said,
                other => other.to_string(),
            })
        })?;
        if bytes.len() > MAX_ENCODED_BYTES {
            return Err(CodecError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }
}

/// Encodes with the mesh's codec.
///
/// # Errors
/// As [`Codec::encode`].
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    Bincode::encode(value)
}

/// Decodes with the mesh's codec.
///
/// # Errors
/// As [`Codec::decode`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Bincode::decode(bytes)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Empty,
        Full { name: String, count: u64, negative: i32, key: Option<u16>, list: Vec<u8> },
    }

    fn full() -> Sample {
        Sample::Full { name: "rhumb".into(), count: 10_000, negative: -3, key: Some(250), list: vec![1, 2] }
    }

    #[test]
    fn the_bytes_of_a_value_never_change() {
        assert_eq!(encode(&Sample::Empty).expect("encodes").as_ref(), [0]);
        let golden = [1, 5, b'r', b'h', b'u', b'm', b'b', 251, 0x10, 0x27, 5, 1, 250, 2, 1, 2];
        assert_eq!(encode(&full()).expect("encodes").as_ref(), golden);
        assert_eq!(decode::<Sample>(&golden).expect("decodes"), full());
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        let mut bytes = encode(&full()).expect("encodes").to_vec();
        bytes.push(0);
        assert_eq!(decode::<Sample>(&bytes), Err(CodecError::Trailing { left: 1 }));
    }

    #[test]
    fn a_cut_value_is_refused_wherever_it_is_cut() {
        let bytes = encode(&full()).expect("encodes");
        for cut in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let mut claim = vec![253];
        claim.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(matches!(decode::<String>(&claim), Err(CodecError::Decode(_))));
        assert!(matches!(decode::<Vec<u64>>(&claim), Err(CodecError::Decode(_))));
    }

    #[test]
    fn a_value_over_the_limit_is_not_sent() {
        let huge = vec![0u8; MAX_ENCODED_BYTES + 1];
        assert!(matches!(encode(&huge), Err(CodecError::TooLarge { .. })));
    }
}
