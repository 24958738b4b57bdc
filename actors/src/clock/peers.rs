//! What a node sees of other nodes' wall clocks.
//!
//! * It decides: how many peers this node's wall clock is certainly off from, by more than two nodes' clocks may differ.
//! * It never does: count what half a round trip, or the drift since, could explain (such a peer counts as near), or
//!   say whose clock is wrong. A node that is off from more than half of its peers stops, and so a minority of wrong
//!   clocks stops only itself (docs/decisions/0037).

use std::collections::BTreeMap;

use rhumb_core::{Mono, NodeId};

use super::interval::Interval;
use super::source::{Sample, growth};
use super::{Reading, micros};

/// The last sample of each peer's wall clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    clocks: BTreeMap<NodeId, (Interval, Mono)>,
}

impl Peers {
    pub(super) fn compared(&mut self, peer: NodeId, sample: &Sample, drift_ppm: u32) {
        self.clocks.insert(peer, (sample.base(drift_ppm), sample.received));
    }

    pub(super) fn suspended(&mut self, gap: i64) {
        for (base, _) in self.clocks.values_mut() {
            *base = Interval::between(base.low(), base.high().saturating_add(gap));
        }
    }

    /// Where (the peer's wall clock − this node's) lies, of each peer that was compared. Both clocks drift.
    pub(super) fn offsets(&self, now: Reading, drift_ppm: u32) -> impl Iterator<Item = (&NodeId, Interval)> {
        let own = now.wall.saturating_sub(micros(now.mono.0));
        self.clocks.iter().map(move |(peer, (base, at))| {
            let astray = growth(micros(now.mono.since(*at)), drift_ppm.saturating_mul(2));
            (peer, base.grown(astray).shifted(own.saturating_neg()))
        })
    }
}
