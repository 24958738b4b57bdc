//! What a node sees of other nodes' wall clocks.
//!
//! * It decides: how many peers this node's wall clock is certainly off from, by more than two nodes' clocks may differ;
//!   and for how long what is known of a peer outlasts a sample that says much less: a few slow answers from a loaded
//!   machine must not let a wrong clock go on.
//! * It never does: count what half a round trip, or the drift since, could explain (such a peer counts as near), or
//!   say whose clock is wrong. A node that is off from more than half of its peers stops, and so a minority of wrong
//!   clocks stops only itself (docs/decisions/0037).

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::{Mono, NodeId};

use super::interval::Interval;
use super::source::{Sample, growth};
use super::{Reading, micros};

/// For how long a sample stands against later ones that leave much more open.
const OUTLASTS: Duration = Duration::from_secs(5);

/// What the samples of each peer's wall clock leave, and when that was.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    clocks: BTreeMap<NodeId, (Interval, Mono)>,
}

impl Peers {
    pub(super) fn compared(&mut self, peer: NodeId, sample: &Sample, drift_ppm: u32) {
        let (base, at) = (sample.base(drift_ppm), sample.received);
        if let Some((kept, heard)) = self.clocks.get(&peer)
            && at.since(*heard) < OUTLASTS
            && kept.half_width() < base.half_width() / 2
        {
            return;
        }
        self.clocks.insert(peer, (base, at));
    }

    pub(super) fn suspended(&mut self, gap: i64) {
        for (base, _) in self.clocks.values_mut() {
            *base = Interval::between(base.low(), base.high().saturating_add(gap));
        }
    }

    /// Where (the peer's wall clock − this node's) lies, of each peer that was compared, and when it was. Both clocks drift.
    pub(super) fn offsets(
        &self,
        now: Reading,
        drift_ppm: u32,
    ) -> impl Iterator<Item = (&NodeId, Interval, Mono)> {
        let own = now.wall.saturating_sub(micros(now.mono.0));
        self.clocks.iter().map(move |(peer, (base, at))| {
            let astray = growth(micros(now.mono.since(*at)), drift_ppm.saturating_mul(2));
            (peer, base.grown(astray).shifted(own.saturating_neg()), *at)
        })
    }
}
