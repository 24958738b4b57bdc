//! What goes over the control stream after HELLO, and faults as they are sent. The only types here
//! that are serialised are the wire's own; they only ever grow at the end.

use std::time::Duration;

use rhumb_core::{DataClass, Delivery, Fault, FaultKind, GateRefusal, Region};
use serde::{Deserialize, Serialize};

/// Bytes of one control message at most (HELLO has a limit of its own).
pub const MAX_CONTROL_BYTES: usize = 64 << 10;
/// Cancellations in one control message at most.
pub const MAX_CANCELS: usize = 4096;

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// The sender is about to stop: send it no more calls. Calls under way are still answered.
    GoAway,
    /// Nobody waits for these calls any more.
    Cancel(Vec<u64>),
    /// Everything that came over the lanes, all of which have ended, was taken up.
    LanesDone,
}

/// A fault as it is sent: the body of a frame of kind `Fault`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireFault {
    /// Version 1.
    V1 {
        /// Why.
        kind: WireFaultKind,
        /// What the caller may conclude: 0 not sent, 1 ran, 2 unknown.
        delivery: u8,
        /// When it may make sense to ask again.
        retry_after_ms: Option<u64>,
    },
}

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
}

impl From<&Fault> for WireFault {
    fn from(fault: &Fault) -> Self {
        let kind = match fault.kind.clone() {
            FaultKind::Unreachable(what) => WireFaultKind::Unreachable(what),
            FaultKind::Deadline(what) => WireFaultKind::Deadline(what),
            FaultKind::Full(what) => WireFaultKind::Full(what),
            FaultKind::Draining => WireFaultKind::Draining,
            FaultKind::Gate(refusal) => WireFaultKind::Gate {
                class: refusal.class.into(),
                from: refusal.from.into(),
                to: refusal.to.into(),
                reason: refusal.reason,
            },
            FaultKind::UnknownMessage(name) => WireFaultKind::UnknownMessage(name),
            FaultKind::Decode { name, reason } => WireFaultKind::Decode { name, reason },
            FaultKind::TooLarge { bytes, limit } => WireFaultKind::TooLarge { bytes, limit },
            FaultKind::Unauthorized(why) => WireFaultKind::Unauthorized(why),
            FaultKind::Handler(what) => WireFaultKind::Handler(what),
            FaultKind::Storage(what) => WireFaultKind::Storage(what),
        };
        let delivery = match fault.delivery {
            Delivery::NotSent => 0,
            Delivery::Ran => 1,
            Delivery::Unknown => 2,
        };
        let retry_after_ms = fault.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Self::V1 { kind, delivery, retry_after_ms }
    }
}

impl From<WireFault> for Fault {
    fn from(wire: WireFault) -> Self {
        let WireFault::V1 { kind, delivery, retry_after_ms } = wire;
        let delivery = match delivery {
            0 => Delivery::NotSent,
            1 => Delivery::Ran,
            _ => Delivery::Unknown,
        };
        Self { kind: kind.into(), delivery, retry_after: retry_after_ms.map(Duration::from_millis) }
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
        }
    }
}

fn gate(class: &str, from: &str, to: &str, reason: String) -> FaultKind {
    match (DataClass::new(class), Region::new(from), Region::new(to)) {
        (Ok(class), Ok(from), Ok(to)) => FaultKind::Gate(GateRefusal { class, from, to, reason }),
        _ => FaultKind::Handler(format!("the peer's gate refused, in names that are none: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    fn faults() -> Vec<Fault> {
        let refusal = GateRefusal {
            class: DataClass::new("personal").expect("valid"),
            from: Region::new("eu").expect("valid"),
            to: Region::new("us").expect("valid"),
            reason: "stays home".into(),
        };
        let text = || "why".to_owned();
        let kinds = [
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
        ];
        let deliveries = [Delivery::NotSent, Delivery::Ran, Delivery::Unknown].into_iter().cycle();
        let retry_after = Some(Duration::from_millis(1500));
        kinds
            .into_iter()
            .zip(deliveries)
            .map(|(kind, delivery)| Fault { kind, delivery, retry_after })
            .collect()
    }

    #[test]
    fn every_fault_reads_back_as_it_was() {
        for fault in faults() {
            let bytes = encode(&WireFault::from(&fault)).expect("encodes");
            assert_eq!(Fault::from(decode::<WireFault>(&bytes).expect("decodes")), fault);
        }
    }

    #[test]
    fn the_bytes_of_faults_and_control_messages_never_change() {
        let faults: Vec<u8> =
            faults().iter().map(|f| encode(&WireFault::from(f)).expect("encodes")[1]).collect();
        assert_eq!(faults, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "kinds are numbered in order, for ever");
        let draining = encode(&WireFault::from(&Fault::not_sent(FaultKind::Draining))).expect("encodes");
        assert_eq!(draining.as_ref(), [0, 3, 0, 0]);
        assert_eq!(encode(&ControlMessage::GoAway).expect("encodes").as_ref(), [0]);
        assert_eq!(
            encode(&ControlMessage::Cancel(vec![7, 300])).expect("encodes").as_ref(),
            [1, 2, 7, 251, 44, 1]
        );
        assert_eq!(encode(&ControlMessage::LanesDone).expect("encodes").as_ref(), [2]);
    }
}
