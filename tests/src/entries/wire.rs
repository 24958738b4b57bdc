//! What peers send.

use bytes::Bytes;
use rhumb::escrow::{
    AttestPool, Confirm, CreatePool, Held, Hold, ListPools, PeerMessage, PoolAttested, PoolCreated, PoolList,
    PoolView, ReadRow, Refusal, Release, Return, Returned, Row, Settled, ShowPool,
};
use rhumb::mesh::status::{AskStatus, MeshStatus};
use rhumb_core::codec;
use rhumb_core::wire::{self, Wire};
use rhumb_transport::control::{ControlMessage, WireFault};
use rhumb_transport::envelope::{Deframer, FIXED, Frame};
use rhumb_transport::hello::Hello;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The cap of the lane that bytes come over.
const CAP: usize = 1 << 20;
/// Where the checksum of a frame stands.
const CHECKSUM: std::ops::Range<usize> = 68..FIXED;

/// Frames, as they come over a lane in pieces; and one frame whose checksum is made right.
pub(super) fn envelope(bytes: &[u8]) {
    let (mut deframer, mut rest) = (Deframer::new(CAP), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + usize::from(rest[0])));
        deframer.feed(piece);
        rest = after;
        while let Ok(Some(frame)) = deframer.next_frame() {
            assert!(frame.len() <= CAP, "no frame is over its cap");
            one_frame(frame);
        }
    }
    if bytes.len() >= FIXED {
        let mut frame = bytes.to_vec();
        let head = usize::from(u16::from_be_bytes([frame[6], frame[7]])).clamp(FIXED, frame.len());
        let body = u32::try_from(frame.len() - head).expect("an input is small");
        frame[6..8].copy_from_slice(&u16::try_from(head).unwrap_or(u16::MAX).to_be_bytes());
        frame[8..12].copy_from_slice(&body.to_be_bytes());
        frame[CHECKSUM].fill(0);
        let crc = crc32c::crc32c(&frame);
        frame[CHECKSUM].copy_from_slice(&crc.to_be_bytes());
        one_frame(frame.into());
    }
}

fn one_frame(bytes: Bytes) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    if frame.head_len() <= rhumb_transport::envelope::MAX_HEAD {
        assert_eq!(Frame::decode(frame.encode()).as_ref(), Ok(&frame), "what was read writes back");
    }
}

/// A HELLO.
pub(super) fn hello(bytes: &[u8]) {
    let Ok(hello) = Hello::from_bytes(bytes) else { return };
    let again = hello.to_bytes().expect("what was read is small enough to write");
    assert_eq!(Hello::from_bytes(&again).as_ref(), Ok(&hello));
}

/// A message of the control stream, and a fault.
pub(super) fn control(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<ControlMessage>(bytes) {
        let again = codec::encode(&message).expect("what was read can be written");
        assert_eq!(codec::decode::<ControlMessage>(&again).as_ref(), Ok(&message));
    }
    if let Ok(fault) = WireFault::decode(bytes) {
        let again = WireFault::encode(&fault).expect("a fault can always be written");
        WireFault::decode(&again).expect("and read");
    }
}

/// Every message that nodes and programs send, and every reply: the first byte says which, the rest is it.
pub(super) fn message(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    let all: [fn(&[u8]); 20] = [
        one::<CreatePool>,
        one::<Hold>,
        one::<Confirm>,
        one::<Release>,
        one::<Return>,
        one::<ShowPool>,
        one::<ReadRow>,
        one::<AttestPool>,
        one::<ListPools>,
        one::<PeerMessage>,
        one::<Result<PoolCreated, Refusal>>,
        one::<Result<Held, Refusal>>,
        one::<Result<Settled, Refusal>>,
        one::<Result<Returned, Refusal>>,
        one::<Result<PoolView, Refusal>>,
        one::<Result<Row, Refusal>>,
        one::<Result<PoolAttested, Refusal>>,
        one::<Result<PoolList, Refusal>>,
        one::<AskStatus>,
        of_the_mesh,
    ];
    all[usize::from(*which) % all.len()](body);
}

/// A value of one type, after its mark.
fn one<T: Wire + Serialize + DeserializeOwned>(body: &[u8]) {
    let bytes = [&wire::prefix::<T>().to_be_bytes(), body].concat();
    let Ok(value) = wire::decode::<T>(&bytes) else { return };
    let again = wire::encode(&value).expect("what was read can be written");
    let value = wire::decode::<T>(&again).expect("and read again");
    assert_eq!(wire::encode(&value).expect("and written"), again, "as the same bytes");
}

fn of_the_mesh(body: &[u8]) {
    let _ = rhumb::entry::is_of_the_mesh(body);
    let _ = serde_json::from_slice::<MeshStatus>(body);
}
