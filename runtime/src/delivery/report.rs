//! What delivery tells of itself.

use rhumb_actors::delivery::OutboxReport;

use super::Recovered;

/// Counts of the three machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeliveryReport {
    pub(crate) outbox: OutboxReport,
    /// Idempotency keys that are kept or run, and their bytes.
    pub(crate) keys: (usize, usize),
    /// Letters that came after they were settled.
    pub(crate) duplicates: u64,
}

pub(super) fn of(machines: &Recovered) -> DeliveryReport {
    DeliveryReport {
        outbox: machines.outbox.report(),
        keys: (machines.keys.len(), machines.keys.bytes()),
        duplicates: machines.inbox.duplicates(),
    }
}
