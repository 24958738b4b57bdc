//! What a transport dropped without anyone being told, counted.

use std::sync::atomic::{AtomicU64, Ordering};

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
}

macro_rules! counters {
    ($($field:ident),+ $(,)?) => {
        /// The counters behind [`TransportCounts`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: Counter,)+
        }

        impl TransportCounts {
            /// Each count with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }

        impl Counters {
            pub(crate) fn counts(&self) -> TransportCounts {
                TransportCounts { $($field: self.$field.0.load(Ordering::Relaxed),)+ }
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
);

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
