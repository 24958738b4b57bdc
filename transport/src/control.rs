//! What goes over the control stream after HELLO, and faults as they are sent. The only types here
//! that are serialised are the wire's own; they only ever grow at the end.

use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, GateRefusal, Guarantee, Region};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, decode, encode};

/// Bytes of one control message at most (HELLO has a limit of its own).
pub const MAX_CONTROL_BYTES: usize = 64 << 10;
/// Cancellations in one control message at most.
pub const MAX_CANCELS: usize = 4096;
/// Bytes of one text in a fault at most; what is longer is cut.
pub const MAX_FAULT_TEXT: usize = 2048;

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// The sender is about to stop: send it no more calls. Calls under way are still answered.
    GoAway,
    /// Nobody waits for these calls any more.
    Cancel(Vec<u64>),
    /// Everything that came over the lanes, all of which have ended, was taken up.
    LanesDone,
    /// After GOAWAY: the sender has no call under way to the receiver and makes none. The receiver ends
    /// its lanes as soon as its own calls are answered, so that no call crosses the end unseen.
    EndLanes,
    /// Who dialled wants to dial anew, and asks the other to expect it: answered with `Redial`.
    Refresh,
    /// Dial anew: what the sender shows in a handshake may have changed. The new connection takes over from
    /// this one, which then drains.
    Redial,
}

/// A fault as it is sent: the body of a frame of kind `Fault`. A kind of version 1 is sent as version
/// 1, for ever; later kinds as version 2, of which a build that does not know the kind reads the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireFault {
    /// Version 1.
    V1 {
        /// Why: a kind up to [`LAST_OF_V1`].
        kind: WireFaultKind,
        /// What the caller may conclude: 0 not sent, 1 ran, 2 unknown.
        delivery: u8,
        /// When it may make sense to ask again.
        retry_after_ms: Option<u64>,
    },
    /// Version 2.
    V2 {
        /// As in version 1.
        delivery: u8,
        /// As in version 1.
        retry_after_ms: Option<u64>,
        /// The fault in words, for builds that do not know its kind.
        text: String,
        /// A [`WireFaultKind`], encoded, so that one that is not known does not hide the rest.
        kind: Vec<u8>,
    },
}

/// The number of the last kind that version 1 of a fault had.
pub const LAST_OF_V1: u8 = 10;

/// Why a call has no answer, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each mirrors the variant of core::FaultKind of the same name")]
pub enum WireFaultKind {
    Unreachable(String),
    Deadline(String),
    Full(String),
    Draining,
    Gate { class: String, from: String, to: String, reason: String },
    UnknownMessage(String),
    Decode { name: String, reason: String },
    TooLarge { bytes: u64, limit: u64 },
    Unauthorized(String),
    Handler(String),
    Storage(String),
    Cycle(String),
    NotHosted(String),
    Moved(String),
    Failed(String),
    Panicked(String),
    ClassLowered { from: String, to: String },
    Guarantee { required: u8, achieved: u8 },
    Skew { name: String, ours: u32, theirs: u32 },
    WrongEpoch { ours: u64 },
    Abandoned,
    KeyReused(String),
    NotKept(String),
    Overloaded(String),
    Shut(String),
    Unowned(String),
}

impl WireFault {
    /// The bytes of a fault.
    ///
    /// # Errors
    /// [`CodecError`], which does not happen: every text in a fault is cut at [`MAX_FAULT_TEXT`].
    pub fn encode(fault: &Fault) -> Result<Bytes, CodecError> {
        let delivery = match fault.delivery {
            Delivery::NotSent => 0,
            Delivery::Ran => 1,
            Delivery::Unknown => 2,
        };
        let retry_after_ms = fault.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let kind = WireFaultKind::from(fault.kind.clone());
        let encoded = encode(&kind)?;
        let of_v1 = encoded.first().is_some_and(|number| *number <= LAST_OF_V1);
        encode(&if of_v1 {
            Self::V1 { kind, delivery, retry_after_ms }
        } else {
            let (text, kind) = (short(fault.kind.to_string()), encoded.to_vec());
            Self::V2 { delivery, retry_after_ms, text, kind }
        })
    }

    /// The fault of bytes. A kind of a later build becomes a fault that says so, with the rest as it is.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are no fault of a version that this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Fault, CodecError> {
        let (kind, delivery, retry_after_ms) = match decode::<Self>(bytes)? {
            Self::V1 { kind, delivery, retry_after_ms } => (kind.into(), delivery, retry_after_ms),
            Self::V2 { delivery, retry_after_ms, text, kind } => {
                let kind = decode::<WireFaultKind>(&kind).map_or_else(|_| unknown(&text), FaultKind::from);
                (kind, delivery, retry_after_ms)
            }
        };
        let delivery = match delivery {
            0 => Delivery::NotSent,
            1 => Delivery::Ran,
            _ => Delivery::Unknown,
        };
        Ok(Fault { kind, delivery, retry_after: retry_after_ms.map(Duration::from_millis) })
    }
}

impl From<FaultKind> for WireFaultKind {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Unreachable(what) => Self::Unreachable(short(what)),
            FaultKind::Deadline(what) => Self::Deadline(short(what)),
            FaultKind::Full(what) => Self::Full(short(what)),
            FaultKind::Draining => Self::Draining,
            FaultKind::Gate(refusal) => Self::Gate {
                class: refusal.class.into(),
                from: refusal.from.into(),
                to: refusal.to.into(),
                reason: short(refusal.reason),
            },
            FaultKind::UnknownMessage(name) => Self::UnknownMessage(short(name)),
            FaultKind::Decode { name, reason } => Self::Decode { name: short(name), reason: short(reason) },
            FaultKind::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            FaultKind::Unauthorized(why) => Self::Unauthorized(short(why)),
            FaultKind::Handler(what) => Self::Handler(short(what)),
            FaultKind::Storage(what) => Self::Storage(short(what)),
            FaultKind::Cycle(actor) => Self::Cycle(short(actor)),
            FaultKind::NotHosted(what) => Self::NotHosted(short(what)),
            FaultKind::Moved(where_to) => Self::Moved(short(where_to)),
            FaultKind::Failed(actor) => Self::Failed(short(actor)),
            FaultKind::Panicked(name) => Self::Panicked(short(name)),
            FaultKind::ClassLowered { from, to } => Self::ClassLowered { from: from.into(), to: to.into() },
            FaultKind::Guarantee { required, achieved } => {
                Self::Guarantee { required: required as u8, achieved: achieved as u8 }
            }
            FaultKind::Skew { name, ours, theirs } => Self::Skew { name: short(name), ours, theirs },
            FaultKind::WrongEpoch { ours } => Self::WrongEpoch { ours },
            FaultKind::Abandoned => Self::Abandoned,
            FaultKind::KeyReused(name) => Self::KeyReused(short(name)),
            FaultKind::NotKept(name) => Self::NotKept(short(name)),
            FaultKind::Overloaded(what) => Self::Overloaded(short(what)),
            FaultKind::Shut(what) => Self::Shut(short(what)),
            FaultKind::Unowned(why) => Self::Unowned(short(why)),
        }
    }
}

impl From<WireFaultKind> for FaultKind {
    fn from(wire: WireFaultKind) -> Self {
        match wire {
            WireFaultKind::Unreachable(what) => Self::Unreachable(what),
            WireFaultKind::Deadline(what) => Self::Deadline(what),
            WireFaultKind::Full(what) => Self::Full(what),
            WireFaultKind::Draining => Self::Draining,
            WireFaultKind::Gate { class, from, to, reason } => gate(&class, &from, &to, reason),
            WireFaultKind::UnknownMessage(name) => Self::UnknownMessage(name),
            WireFaultKind::Decode { name, reason } => Self::Decode { name, reason },
            WireFaultKind::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            WireFaultKind::Unauthorized(why) => Self::Unauthorized(why),
            WireFaultKind::Handler(what) => Self::Handler(what),
            WireFaultKind::Storage(what) => Self::Storage(what),
            WireFaultKind::Cycle(actor) => Self::Cycle(actor),
            WireFaultKind::NotHosted(what) => Self::NotHosted(what),
            WireFaultKind::Moved(where_to) => Self::Moved(where_to),
            WireFaultKind::Failed(actor) => Self::Failed(actor),
            WireFaultKind::Panicked(name) => Self::Panicked(name),
            WireFaultKind::ClassLowered { from, to } => class_lowered(&from, &to),
            WireFaultKind::Guarantee { required, achieved } => guarantee(required, achieved),
            WireFaultKind::Skew { name, ours, theirs } => Self::Skew { name, ours, theirs },
            WireFaultKind::WrongEpoch { ours } => Self::WrongEpoch { ours },
            WireFaultKind::Abandoned => Self::Abandoned,
            WireFaultKind::KeyReused(name) => Self::KeyReused(name),
            WireFaultKind::NotKept(name) => Self::NotKept(name),
            WireFaultKind::Overloaded(what) => Self::Overloaded(what),
            WireFaultKind::Shut(what) => Self::Shut(what),
            WireFaultKind::Unowned(why) => Self::Unowned(why),
        }
    }
}

/// Text that fits. What is longer is cut: a fault must always fit into a lane's frame.
fn short(mut text: String) -> String {
    if text.len() > MAX_FAULT_TEXT {
        text.truncate(text.floor_char_boundary(MAX_FAULT_TEXT));
    }
    text
}

fn unknown(text: &str) -> FaultKind {
    FaultKind::Handler(format!("a fault that this build does not know: {text}"))
}

fn gate(class: &str, from: &str, to: &str, reason: String) -> FaultKind {
    match (DataClass::new(class), Region::new(from), Region::new(to)) {
        (Ok(class), Ok(from), Ok(to)) => FaultKind::Gate(GateRefusal { class, from, to, reason }),
        _ => FaultKind::Handler(format!("the peer's gate refused, in names that are none: {reason}")),
    }
}

fn class_lowered(from: &str, to: &str) -> FaultKind {
    match (DataClass::new(from), DataClass::new(to)) {
        (Ok(from), Ok(to)) => FaultKind::ClassLowered { from, to },
        _ => unknown("a class was lowered, in names that are none"),
    }
}

fn guarantee(required: u8, achieved: u8) -> FaultKind {
    let level = |byte| Guarantee::ALL.into_iter().find(|level| *level as u8 == byte);
    match (level(required), level(achieved)) {
        (Some(required), Some(achieved)) => FaultKind::Guarantee { required, achieved },
        _ => unknown("a guarantee was not met, in levels of another build"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<FaultKind> {
        let class = |name: &str| DataClass::new(name).expect("valid");
        let refusal = GateRefusal {
            class: class("personal"),
            from: Region::new("eu").expect("valid"),
            to: Region::new("us").expect("valid"),
            reason: "stays home".into(),
        };
        let text = || "why".to_owned();
        vec![
            FaultKind::Unreachable(text()),
            FaultKind::Deadline(text()),
            FaultKind::Full(text()),
            FaultKind::Draining,
            FaultKind::Gate(refusal),
            FaultKind::UnknownMessage(text()),
            FaultKind::Decode { name: "n".into(), reason: text() },
            FaultKind::TooLarge { bytes: 2, limit: 1 },
            FaultKind::Unauthorized(text()),
            FaultKind::Handler(text()),
            FaultKind::Storage(text()),
            FaultKind::Cycle(text()),
            FaultKind::NotHosted(text()),
            FaultKind::Moved(text()),
            FaultKind::Failed(text()),
            FaultKind::Panicked(text()),
            FaultKind::ClassLowered { from: class("personal"), to: class("inventory") },
            FaultKind::Guarantee { required: Guarantee::Serializable, achieved: Guarantee::Eventual },
            FaultKind::Skew { name: text(), ours: 1, theirs: u32::MAX },
            FaultKind::WrongEpoch { ours: 300 },
            FaultKind::Abandoned,
            FaultKind::KeyReused(text()),
            FaultKind::NotKept(text()),
            FaultKind::Overloaded(text()),
            FaultKind::Shut(text()),
            FaultKind::Unowned(text()),
        ]
    }

    #[test]
    fn every_fault_reads_back_as_it_was() {
        let deliveries = [Delivery::NotSent, Delivery::Ran, Delivery::Unknown].into_iter().cycle();
        for (kind, delivery) in kinds().into_iter().zip(deliveries) {
            let fault = Fault { kind, delivery, retry_after: Some(Duration::from_millis(1500)) };
            let bytes = WireFault::encode(&fault).expect("encodes");
            assert_eq!(WireFault::decode(&bytes).expect("decodes"), fault);
        }
    }

    #[test]
    fn the_bytes_of_faults_and_control_messages_never_change() {
        let numbers: Vec<u8> =
            kinds().into_iter().map(|kind| encode(&WireFaultKind::from(kind)).expect("encodes")[0]).collect();
        assert_eq!(numbers, (0..=25).collect::<Vec<u8>>(), "kinds are numbered in order, for ever");
        let versions: Vec<u8> = kinds()
            .into_iter()
            .map(|kind| WireFault::encode(&Fault::ran(kind)).expect("encodes")[0])
            .collect();
        assert_eq!(versions, [vec![0; 11], vec![1; 15]].concat());
        let draining = WireFault::encode(&Fault::not_sent(FaultKind::Draining)).expect("encodes");
        assert_eq!(draining.as_ref(), [0, 3, 0, 0]);
        let retry_after = Some(Duration::from_millis(9));
        let moved = Fault { retry_after, ..Fault::not_sent(FaultKind::Moved("a".into())) };
        let mut golden = vec![1, 0, 1, 9, 31];
        golden.extend_from_slice(b"the actor is owned elsewhere: a");
        golden.extend_from_slice(&[3, 13, 1, b'a']);
        assert_eq!(WireFault::encode(&moved).expect("encodes").as_ref(), golden);
        assert_eq!(encode(&ControlMessage::GoAway).expect("encodes").as_ref(), [0]);
        assert_eq!(
            encode(&ControlMessage::Cancel(vec![7, 300])).expect("encodes").as_ref(),
            [1, 2, 7, 251, 44, 1]
        );
        assert_eq!(encode(&ControlMessage::LanesDone).expect("encodes").as_ref(), [2]);
        assert_eq!(encode(&ControlMessage::Refresh).expect("encodes").as_ref(), [4]);
        assert_eq!(encode(&ControlMessage::Redial).expect("encodes").as_ref(), [5]);
    }

    #[test]
    fn a_kind_of_a_later_build_becomes_a_fault_that_says_so_and_keeps_the_rest() {
        // One that there is not yet, and one of today's to which a field was added.
        for kind in [vec![200, 4, 1], vec![19, 7, 1]] {
            let text = "the moon is full".to_owned();
            let later = WireFault::V2 { delivery: 0, retry_after_ms: Some(250), text, kind };
            let fault = WireFault::decode(&encode(&later).expect("encodes")).expect("decodes");
            let said = "a fault that this build does not know: the moon is full".to_owned();
            let retry_after = Some(Duration::from_millis(250));
            assert_eq!(fault, Fault { retry_after, ..Fault::not_sent(FaultKind::Handler(said)) });
        }
    }

    #[test]
    fn a_fault_is_cut_to_what_fits_into_a_frame() {
        let long = "ä".repeat(1 << 20);
        for kind in [FaultKind::Handler(long.clone()), FaultKind::Moved(long)] {
            let bytes = WireFault::encode(&Fault::ran(kind)).expect("encodes");
            assert!(bytes.len() <= 3 * MAX_FAULT_TEXT, "{} bytes", bytes.len());
            WireFault::decode(&bytes).expect("decodes");
        }
    }
}
