//! A message's bytes under its name, and what is said when they are not one.

use bytes::Bytes;
use rhumb_actors::remote::Remote;
use rhumb_core::wire::{self, Wire, WireError};
use rhumb_core::{Fault, FaultKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a node says of a message in its HELLO: how the reply is laid out, and how the message is. Each
/// half is the mark that stands in front of such bytes.
pub(crate) const fn fingerprint<M: Remote>() -> u64 {
    (wire::prefix::<M::Reply>() as u64) << 32 | wire::prefix::<M>() as u64
}

/// Whether a peer that says this of `M` lays it and its reply out as this build does.
pub(crate) fn alike<M: Remote>(theirs: u64) -> Result<(), FaultKind> {
    let half = |fingerprint: u64, shift: u32| (fingerprint >> shift) as u32;
    let differing =
        [0, 32].into_iter().find(|shift| half(theirs, *shift) != half(fingerprint::<M>(), *shift));
    match differing {
        None => Ok(()),
        Some(shift) => {
            let name = if shift == 0 { M::NAME.to_owned() } else { format!("reply of {}", M::NAME) };
            let (ours, theirs) = (half(fingerprint::<M>(), shift), half(theirs, shift));
            Err(FaultKind::Skew { name, ours, theirs })
        }
    }
}

/// The bytes of a message of this name.
pub(crate) fn pack<T: Wire + Serialize>(name: &str, message: &T) -> Result<Bytes, Fault> {
    wire::encode(message).map_err(|error| {
        Fault::not_sent(FaultKind::Decode { name: name.to_owned(), reason: error.to_string() })
    })
}

/// The message of these bytes.
pub(crate) fn unpack<T: Wire + DeserializeOwned>(name: &str, bytes: &Bytes) -> Result<T, FaultKind> {
    unpack_part(name, bytes, bytes)
}

/// The message of a part of these bytes, all or some of them.
pub(crate) fn unpack_part<T: Wire + DeserializeOwned>(
    name: &str,
    part: &[u8],
    whole: &Bytes,
) -> Result<T, FaultKind> {
    wire::decode_part(part, whole).map_err(|error| match error {
        WireError::Layout { theirs, ours } => FaultKind::Skew { name: name.to_owned(), ours, theirs },
        other => FaultKind::Decode { name: name.to_owned(), reason: other.to_string() },
    })
}

/// The reply to a message of this name. What cannot be decoded is not quoted: the reason would leave
/// with whatever its caller passes on, and without a class.
pub(crate) fn unpack_reply<T: Wire + DeserializeOwned>(name: &str, bytes: &Bytes) -> Result<T, Fault> {
    unpack(name, bytes).map_err(|kind| {
        let of = format!("reply of {name}");
        Fault::ran(match kind {
            FaultKind::Skew { ours, theirs, .. } => FaultKind::Skew { name: of, ours, theirs },
            _ => FaultKind::Decode { name: of, reason: "its bytes are not one".to_owned() },
        })
    })
}
