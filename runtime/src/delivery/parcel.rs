//! Letters between nodes: how one travels, and what its receiver says of it.
//!
//! * It decides: which fault means never, which not now, and which that the handler failed.
//! * It never does: let a letter in whose class is not that of its envelope, which the gates have judged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rhumb_actors::delivery::{Arrived, LetterId, Sending, Verdict};
use rhumb_actors::remote::Remote;
use rhumb_actors::{Wire, remote};
use rhumb_core::{DataClass, Delivery as Outcome, Fault, FaultKind, Incarnation};
use rhumb_transport::{Headers, Request};
use serde::{Deserialize, Serialize};

use super::Delivery;
use crate::mesh::registry::{Call, Registry, ServedTwice};

/// How long a verdict may take beyond what the handler may: letters before it in its channel run first.
const BEYOND: Duration = Duration::from_secs(20);
/// When to try a node again that does not know letters yet.
const OLDER_BUILD: Duration = Duration::from_secs(10);
/// The longest that a handler of a letter may take.
const LONGEST: Duration = Duration::from_secs(600);

/// What a node's manifest names where it takes letters, and keeps the answers to keys.
pub(crate) const LETTER: &str = Parcel::NAME;

/// A letter on its way.
#[remote(
    name = "mesh.Letter",
    class = by(class),
    reply = Judged,
    reply_class = "control",
    idempotent,
    deadline = "30s",
    audience = "nodes",
    crate = rhumb_actors
)]
pub(crate) struct Parcel {
    class: DataClass,
    id: (u64, u64),
    floor: (u64, u64),
    after: Option<(u64, u64)>,
    target: String,
    name: String,
    key: Option<String>,
    within_ms: u64,
    body: Vec<u8>,
}

/// What its receiver says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub(crate) enum Judged {
    Settled,
    Never(String),
    Failed(String),
    Order,
    Busy(u64),
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Settled => Self::Settled,
            Verdict::Never(reason) => Self::Never(reason),
            Verdict::Failed(how) => Self::Failed(how),
            Verdict::Order => Self::Order,
            Verdict::Busy(after) => {
                Self::Busy(after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
            }
            Verdict::Unreachable => Self::Busy(0),
        }
    }
}

impl From<Judged> for Verdict {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Settled => Self::Settled,
            Judged::Never(reason) => Self::Never(reason),
            Judged::Failed(how) => Self::Failed(how),
            Judged::Order => Self::Order,
            Judged::Busy(0) => Self::Busy(None),
            Judged::Busy(ms) => Self::Busy(Some(Duration::from_millis(ms))),
        }
    }
}

fn pair(id: LetterId) -> (u64, u64) {
    (id.epoch.0, id.sequence)
}

fn id((epoch, sequence): (u64, u64)) -> LetterId {
    LetterId { epoch: Incarnation(epoch), sequence }
}

impl Parcel {
    pub(super) fn of(sending: &Sending) -> Self {
        let letter = &*sending.letter;
        Self {
            class: letter.class.clone(),
            id: pair(sending.id),
            floor: pair(sending.floor),
            after: sending.after.map(pair),
            target: letter.target.clone(),
            name: letter.name.clone(),
            key: letter.key.clone(),
            within_ms: letter.within_ms,
            body: letter.body.clone(),
        }
    }

    /// How long its sender waits for a verdict.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.within_ms).min(LONGEST) + BEYOND
    }

    /// What it is for its actor: an ask, whose answer nobody wants but to know that there is one.
    pub(super) fn request(self) -> Request {
        let within = Duration::from_millis(self.within_ms).min(LONGEST);
        let headers = Headers {
            target: Some(self.target.into()),
            idempotency_key: self.key,
            ..Headers::within(within)
        };
        Request::ask(self.name, self.class, Bytes::from(self.body), headers)
    }
}

/// What the fault of an attempt to send means, where its receiver did not judge.
pub(super) fn unsent(fault: &Fault) -> Verdict {
    match &fault.kind {
        FaultKind::UnknownMessage(name) if name == Parcel::NAME => Verdict::Busy(Some(OLDER_BUILD)),
        FaultKind::Gate(_) | FaultKind::TooLarge { .. } | FaultKind::UnknownMessage(_) => {
            Verdict::Never(fault.kind.to_string())
        }
        FaultKind::Unreachable(_) => Verdict::Unreachable,
        _ => Verdict::Busy(fault.retry_after),
    }
}

/// What the fault of a handler means.
pub(super) fn judge(fault: &Fault) -> Verdict {
    match (&fault.kind, fault.delivery) {
        (
            FaultKind::Full(_)
            | FaultKind::Overloaded(_)
            | FaultKind::Shut(_)
            | FaultKind::Draining
            | FaultKind::Failed(_)
            | FaultKind::Unreachable(_)
            | FaultKind::Abandoned,
            _,
        )
        | (FaultKind::Deadline(_), Outcome::NotSent) => Verdict::Busy(fault.retry_after),
        // Its reason may quote the letter's bytes, and a dead letter's does not.
        (FaultKind::Decode { .. }, Outcome::NotSent) => Verdict::Never("its bytes are not one".to_owned()),
        (_, Outcome::NotSent) => Verdict::Never(fault.kind.to_string()),
        _ => Verdict::Failed(fault.kind.to_string()),
    }
}

/// Serves [`Parcel`].
///
/// # Errors
/// [`ServedTwice`].
pub(crate) fn serve(registry: &mut Registry, delivery: &Delivery) -> Result<(), ServedTwice> {
    let delivery = delivery.clone();
    registry.serve(move |call: Call<Parcel>| {
        let judged = take(&delivery, call);
        async move { Ok((judged?.await.unwrap_or(Verdict::Busy(None)).into(), DataClass::control())) }
    })
}

/// Hands a letter in before it returns: letters keep their order.
fn take(delivery: &Delivery, call: Call<Parcel>) -> Result<tokio::sync::oneshot::Receiver<Verdict>, Fault> {
    let Some(source) = call.from.node.clone() else {
        let why = "letters are of nodes: a program has no outbox".to_owned();
        return Err(Fault::not_sent(FaultKind::Unauthorized(why)));
    };
    let parcel = call.message;
    if parcel.class != call.class {
        let (from, to) = (parcel.class, call.class);
        return Err(Fault::not_sent(FaultKind::ClassLowered { from, to }));
    }
    let arrived = Arrived { source, id: id(parcel.id), floor: id(parcel.floor), after: parcel.after.map(id) };
    Ok(delivery.arrives(arrived, Arc::clone(&call.from), parcel.request()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_means_never_or_not_now_or_that_the_handler_failed() {
        let text = || "x".to_owned();
        let panicked = Fault::ran(FaultKind::Panicked(text()));
        assert!(matches!(judge(&panicked), Verdict::Failed(_)));
        assert!(matches!(judge(&Fault::unknown(FaultKind::Deadline(text()))), Verdict::Failed(_)));
        for kind in [
            FaultKind::UnknownMessage(text()),
            FaultKind::NotHosted(text()),
            FaultKind::Decode { name: text(), reason: text() },
            FaultKind::Unauthorized(text()),
        ] {
            assert!(matches!(judge(&Fault::not_sent(kind)), Verdict::Never(_)));
        }
        for kind in [
            FaultKind::Full(text()),
            FaultKind::Overloaded(text()),
            FaultKind::Shut(text()),
            FaultKind::Draining,
            FaultKind::Failed(text()),
        ] {
            let after = Some(Duration::from_millis(7));
            let fault = Fault { retry_after: after, ..Fault::not_sent(kind) };
            assert_eq!(judge(&fault), Verdict::Busy(after));
        }
        assert_eq!(judge(&Fault::not_sent(FaultKind::Deadline(text()))), Verdict::Busy(None));
        assert_eq!(unsent(&Fault::unknown(FaultKind::Unreachable(text()))), Verdict::Unreachable);
        let older = Fault::not_sent(FaultKind::UnknownMessage(Parcel::NAME.to_owned()));
        assert_eq!(unsent(&older), Verdict::Busy(Some(OLDER_BUILD)));
        assert_eq!(unsent(&Fault::unknown(FaultKind::Deadline(text()))), Verdict::Busy(None));
    }
}
