//! Many bytes in a message that are not copied out of what came.
//!
//! * It decides: whether decoded bytes are a part of the frame that they came in, which they then keep alive, or a copy: few bytes are, and
//!   those that are less than half of their frame, so that they keep little else alive.
//! * It never does: change how a message is laid out. A field of [`Blob`] and one of `Bytes` or `Vec<u8>` are the same to a peer.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::Wire;

/// Bytes that are shared with the frame that they came in, and not copied: so many and more.
const SHARED_FROM: usize = 32 << 10;

thread_local! {
    /// What this thread decodes; empty where nothing of it may be shared.
    static WHOLE: Cell<Bytes> = const { Cell::new(Bytes::new()) };
}

/// Bytes, as [`Bytes`] are, which a message brings along without a copy if they are many.
///
/// For fields of some ten kilobytes and more that are most of their message: they are not copied where it is decoded, and whoever keeps one keeps the
/// frame that it came in, at most twice as large, in a buffer that may be a few times that.
///
/// ```
/// let blob = rhumb_core::Blob::from(vec![1, 2, 3]);
/// assert_eq!((blob.len(), &blob[..2]), (3, &[1, 2][..]));
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Bytes);

impl Deref for Blob {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl<T: Into<Bytes>> From<T> for Blob {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Wire for Blob {
    const LAYOUT: u64 = Bytes::LAYOUT;
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Taken)
    }
}

/// What is decoded while this runs is a part of these bytes, which it may share.
pub(crate) fn within<T>(whole: &Bytes, decode: impl FnOnce() -> T) -> T {
    /// Whatever ends it: the next one shares nothing of this one.
    struct Until(Bytes);

    impl Drop for Until {
        fn drop(&mut self) {
            WHOLE.set(std::mem::take(&mut self.0));
        }
    }

    if whole.len() < SHARED_FROM {
        return decode();
    }
    let _until = Until(WHOLE.replace(whole.clone()));
    decode()
}

/// The same bytes as a part of what is decoded, if they are one and are many.
fn shared(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < SHARED_FROM {
        return None;
    }
    let whole = WHOLE.take();
    let (all, part) = (whole.as_ptr_range(), bytes.as_ptr_range());
    let is_part = all.start <= part.start && part.end <= all.end;
    let found = (is_part && 2 * bytes.len() >= whole.len()).then(|| whole.slice_ref(bytes));
    WHOLE.set(whole);
    found
}

struct Taken;

impl<'de> Visitor<'de> for Taken {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Blob, E> {
        Ok(Blob(shared(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes))))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes.into()))
    }

    /// As formats for people write them.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Blob, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(Blob(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn many(byte: u8) -> Vec<u8> {
        vec![byte; SHARED_FROM]
    }

    fn is_shared(blob: &Blob, with: &Bytes) -> bool {
        with.as_ptr_range().contains(&blob.as_ptr())
    }

    #[test]
    fn many_bytes_are_a_part_of_what_came_and_few_are_a_copy() {
        let sent = (Blob::from(vec![1; 2 * SHARED_FROM]), Blob::from(vec![2; SHARED_FROM - 1]), 7_u64);
        let came = wire::encode(&sent).expect("it is encoded");
        let (large, small, number): (Blob, Blob, u64) =
            wire::decode_part(&came, &came).expect("it is decoded");
        assert!(is_shared(&large, &came) && !is_shared(&small, &came));
        assert_eq!((large, small, number), sent);
    }

    #[test]
    fn what_is_less_than_half_of_what_came_is_a_copy() {
        let came =
            wire::encode(&(Blob::from(many(1)), Bytes::from(vec![2; 2 * SHARED_FROM]))).expect("encoded");
        let (blob, _): (Blob, Bytes) = wire::decode_part(&came, &came).expect("it is decoded");
        assert!(blob == Blob::from(many(1)) && !is_shared(&blob, &came));
    }

    #[test]
    fn it_is_laid_out_as_other_bytes_are() {
        let (bytes, blob) = (Bytes::from(many(3)), Blob::from(many(3)));
        let encoded = wire::encode(&blob).expect("it is encoded");
        assert_eq!(encoded, wire::encode(&bytes).expect("it is encoded"));
        assert_eq!(wire::decode::<Bytes>(&encoded), Ok(bytes));
        assert_eq!(wire::decode::<Vec<u8>>(&encoded), Ok(many(3)));
        // Decoded where nothing is shared.
        let copied: Blob = wire::decode(&encoded).expect("it is decoded");
        assert!(copied == blob && !is_shared(&copied, &encoded));
    }

    #[test]
    fn what_is_decoded_within_something_else_shares_nothing_that_it_is_no_part_of() {
        let (outer, inner) =
            (Bytes::from(many(4)), wire::encode(&Blob::from(many(5))).expect("it is encoded"));
        let found: Blob = within(&outer, || wire::decode(&inner)).expect("it is decoded");
        assert!(found == Blob::from(many(5)) && !is_shared(&found, &inner));
        let nested: Blob = within(&outer, || wire::decode_part(&inner, &inner)).expect("it is decoded");
        assert!(is_shared(&nested, &inner));
        // Afterwards nothing is shared, neither with what was decoded nor with what a panic has left.
        drop(std::panic::catch_unwind(|| within(&inner, || panic!("on purpose"))));
        let after: Blob = wire::decode(&inner).expect("it is decoded");
        assert!(!is_shared(&after, &inner));
    }

    #[test]
    fn a_blob_that_is_cut_is_refused() {
        let came = wire::encode(&Blob::from(many(6))).expect("it is encoded");
        assert!(wire::decode_part::<Blob>(&came[..came.len() - 1], &came).is_err());
    }
}
