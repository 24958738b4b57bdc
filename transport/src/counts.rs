//! What a transport dropped without anyone being told, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use rhumb_core::FaultKind;

use crate::link::End;

/// What was dropped in silence since the transport began, because nobody waits for an answer to it.
/// Whatever somebody does wait for ends in a fault instead and is not counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransportCounts {
    /// Frames of a peer that say nonsense or are of an unknown kind, and that nobody is told of.
    pub not_understood: u64,
    /// Control messages of a peer that were not understood.
    pub control_not_understood: u64,
    /// Tells of a peer that were turned away: by the ingress gate, by their codec, or while draining.
    pub tells_refused: u64,
    /// Messages lost by a panic while they were handed over.
    pub deliveries_panicked: u64,
    /// Own tells whose time was over before they were sent.
    pub tells_expired: u64,
    /// Own tells that were not sent, or not wholly, when their connection ended.
    pub tells_lost: u64,
    /// Answers of a peer to calls that nobody waits for any more.
    pub answers_unwanted: u64,
    /// Own answers to callers who have given up or whose connection has ended.
    pub answers_too_late: u64,
    /// Cancellations that were not said because too many waited to be.
    pub cancels_dropped: u64,
    /// Large frames of a peer that were cut short, took too long, or came when too much of them waited.
    pub large_abandoned: u64,
}

/// A number of times that something happened, by its kind.
pub type Counted = Vec<(&'static str, u64)>;

macro_rules! counters {
    ($($field:ident),+ $(,)?) => {
        /// The counters behind [`TransportCounts`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: Counter,)+
            /// Connections that have ended, by [`End::KINDS`].
            pub(crate) ended: [Counter; End::KINDS.len()],
            /// Asked calls of peers that did not come so far as a handler, by [`REFUSED`].
            pub(crate) refused: [Counter; REFUSED.len()],
        }

        impl TransportCounts {
            /// Each count with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }

        impl Counters {
            pub(crate) fn counts(&self) -> TransportCounts {
                TransportCounts { $($field: self.$field.count(),)+ }
            }
        }
    };
}

counters!(
    not_understood,
    control_not_understood,
    tells_refused,
    deliveries_panicked,
    tells_expired,
    tells_lost,
    answers_unwanted,
    answers_too_late,
    cancels_dropped,
    large_abandoned,
);

/// Why calls of peers are refused before they come to a handler.
const REFUSED: [&str; 4] = ["gate", "decode", "full", "draining"];

impl Counters {
    /// A call of a peer is refused.
    pub(crate) fn refused_for(&self, why: &FaultKind) {
        let kind = match why {
            FaultKind::Gate(_) => 0,
            FaultKind::Full(_) => 2,
            FaultKind::Draining => 3,
            _ => 1,
        };
        self.refused[kind].one();
    }

    /// Connections that have ended, by how.
    pub(crate) fn ends(&self) -> Counted {
        End::KINDS.into_iter().zip(self.ended.iter().map(Counter::count)).collect()
    }

    /// Asked calls of peers that did not come so far as a handler, by why.
    pub(crate) fn refusals(&self) -> Counted {
        REFUSED.into_iter().zip(self.refused.iter().map(Counter::count)).collect()
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
