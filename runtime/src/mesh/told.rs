//! What operators do, told twice in the audit log: before it is done, and before it is acknowledged.
//!
//! * It decides: what of a caller stands in such a record.
//! * It never does: let something begin whose beginning is not durable, or end well when its end is not.

use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::{AuditHandle, NotAppended};
use rhumb_core::{Delivery, Fault, FaultKind};
#[cfg(feature = "rocks")]
use rhumb_core::{NodeId, Role};
use rhumb_transport::Peer;

use crate::telemetry::current_trace;

/// An action that is told twice: that it begins is in the log, durably.
pub(crate) struct Begun {
    log: AuditHandle,
    record: Record,
    subject: String,
}

/// Tells that somebody begins something. The record is about whoever does it.
///
/// # Errors
/// It is not in the log, and must not be done.
pub(crate) async fn begin(log: &AuditHandle, from: &Peer, record: Record) -> Result<Begun, Fault> {
    let subject = from.principal.to_string();
    let record = of(from, record);
    let begun = Record { outcome: Outcome::Begun, ..record.clone() };
    log.append(begun, Some(&subject)).await.map_err(|why| not_logged(&why, Delivery::NotSent))?;
    Ok(Begun { log: log.clone(), record, subject })
}

/// What is told once, because it is done when it is told: a reading, a signature.
#[cfg(feature = "rocks")]
pub(crate) fn once(action: &str, from: &Peer) -> Record {
    of(from, Record::told(action, "", Outcome::Done))
}

/// As [`once`], of what this node does itself.
#[cfg(feature = "rocks")]
pub(crate) fn once_here(action: &str, me: &NodeId) -> Record {
    let record = Record::told(action, format!("{} {me}", Role::Node), Outcome::Done);
    Record { trace: trace(), ..record }
}

/// The record says who does it, from where, in which trace.
fn of(from: &Peer, record: Record) -> Record {
    Record { actor: from.principal.to_string(), address: from.address.to_string(), trace: trace(), ..record }
}

/// The trace of what this thread works for, where it is kept.
fn trace() -> String {
    let trace = current_trace().filter(|trace| trace.is_sampled());
    trace.map(|trace| format!("{:032x}", trace.trace_id)).unwrap_or_default()
}

impl Begun {
    /// With something that is known only now, for when it ends.
    pub(crate) fn with(self, name: &str, value: impl Into<String>) -> Self {
        Self { record: self.record.with(name, value), ..self }
    }

    /// Tells how it ended. Gives the number of that entry.
    ///
    /// # Errors
    /// It was done, and is not in the log: it must not be acknowledged.
    pub(crate) async fn ended(self, outcome: Outcome, why: Option<String>) -> Result<u64, Fault> {
        let mut record = Record { outcome, ..self.record };
        if let Some(why) = why {
            record = record.with("why", why);
        }
        let told = self.log.append(record, Some(&self.subject)).await;
        told.map_err(|why| not_logged(&why, Delivery::Unknown))
    }
}

/// Something that must be in the log is not.
pub(crate) fn not_logged(why: &NotAppended, delivery: Delivery) -> Fault {
    let kind = FaultKind::Storage(format!("the audit log: {why}"));
    match delivery {
        Delivery::NotSent => Fault::not_sent(kind),
        _ => Fault::unknown(kind),
    }
}
