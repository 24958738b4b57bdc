//! Pruning: what is older than the retention goes, from the beginning of the log on.
//!
//! * It decides: which bundles may go, and that the mark rises with each of them in one batch.
//! * It never does: prune a part of a bundle, what the last published checkpoint is not of, or what a log witness has not
//!   cosigned in this life of the node; nor believe one clock alone, its own or a witness's, that entries are old.
//! * Invariant: from the mark on each entry is there, and can be proved under each checkpoint of at least so many
//!   entries; between two such checkpoints it can be proved that the log only grew. What is kept for that says
//!   [`rows`].

use rhumb_core::canary::{self, Canary};
use rhumb_core::effects::Effects;
use rhumb_core::{Mono, Now};
use rhumb_storage::Batch;
use rhumb_verify::Hash;
use rhumb_verify::tile::WIDTH;

use super::{Effect, Log};
use crate::audit::edge::Edge;
use crate::audit::rows;

/// Bundles of 256 entries that are pruned in one go: more of them wait for the next.
pub const MAX_PRUNED: u64 = 16;

/// What a log witness has cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosigned {
    /// Entries.
    pub size: u64,
    /// When, by its own clock, in milliseconds since the Unix epoch.
    pub millis: u64,
    /// When the cosignature was here.
    pub came: Mono,
}

/// What may be pruned: whole bundles of 256 entries, all of which are as old as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prunable {
    /// The first bundle.
    pub first: u64,
    /// The one behind the last.
    pub end: u64,
    /// An entry is old enough that was written before this, in milliseconds since the Unix epoch.
    pub before: u64,
}

impl Log {
    /// What may be pruned now, if its entries are old enough: whole bundles of what the last published checkpoint is of
    /// and every log witness has cosigned, each in this life of the node. None of it is younger than the retention by any
    /// of their clocks or the own one, so no single clock that is wrong has a log pruned. Theirs are known by their last
    /// cosignatures: a log to which nothing is added is not pruned until something is.
    #[must_use]
    pub fn prunable(&self, now: Now) -> Option<Prunable> {
        if self.broken.is_some() {
            return None;
        }
        let (mut covered, mut time) = (self.published, now.hybrid.millis());
        if canary::sings(Canary::PruneUncosigned) {
            covered = self.edge.size();
        } else {
            for (_, watching) in self.watching.values() {
                let cosigned = watching.verified?;
                (covered, time) = (covered.min(cosigned.size), time.min(cosigned.millis));
            }
        }
        let retention = u64::try_from(self.settings.retention.as_millis()).unwrap_or(u64::MAX);
        let (first, before) = (self.left.size() / WIDTH, time.checked_sub(retention)?);
        let end = (covered / WIDTH).min(first + MAX_PRUNED);
        (first < end).then_some(Prunable { first, end, before })
    }

    /// Prunes bundles, of which these are the roots, from the mark on; no more than may be pruned now. The mark rises with
    /// each, in one batch with what goes. Gives how many have gone.
    pub fn prune(&mut self, now: Now, roots: &[Hash], out: &mut Effects<Batch, Effect>) -> u64 {
        let allowed = self.prunable(now).map_or(0, |may| may.end - may.first);
        let mut pruned = 0;
        for root in roots.iter().take(usize::try_from(allowed).unwrap_or(usize::MAX)) {
            let (mut batch, bundle) = (Batch::new(), self.left.size() / WIDTH);
            let ended = self.left.push_tile(*root);
            let left = if canary::sings(Canary::PruneForgetsEdge) { &Edge::default() } else { &self.left };
            rows::prune(&mut batch, bundle, &ended, left);
            out.persist(batch);
            pruned += 1;
        }
        let mark = self.left.size();
        // From what was pruned nothing can be proved any more: such a log witness says itself what it has cosigned.
        for (_, watching) in self.watching.values_mut().filter(|(_, known)| known.size < mark) {
            watching.size = 0;
        }
        if pruned > 0 {
            out.send(Effect::Pruned { mark });
        }
        pruned
    }
}
