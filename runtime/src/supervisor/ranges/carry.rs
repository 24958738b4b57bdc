//! How ranges of different nodes reach each other: over the mesh, under the class of their data.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use rhumb_actors::ranges::host::{Found, Noticed, Word, World};
use rhumb_actors::ranges::messages::{Consent, RANGE_WORD, RangeWord};
use rhumb_actors::ranges::raft::Carry;
use rhumb_actors::ranges::splitting::Decided;
use rhumb_actors::ranges::{RangeId, ReplicaId, Seat};
use rhumb_core::codec;
use rhumb_core::{DataClass, Epoch, HybridTime, NodeId};

use super::Inner;
use crate::clock::NodeClock;
use crate::mesh::Mesh;
use crate::supervisor::halt::Halt;

/// The classes of ranges' data.
pub(super) type Classes = Arc<RwLock<BTreeMap<RangeId, DataClass>>>;

/// Whether the node's time is good enough for strong paths.
pub(in crate::supervisor) type TimeIsGood = Arc<dyn Fn() -> bool + Send + Sync>;

/// Carries what replicas ask each other.
pub(super) struct Carrier {
    pub(super) mesh: Mesh,
    pub(super) classes: Classes,
}

impl Carry for Carrier {
    fn ask(
        &self,
        to: &Seat,
        range: RangeId,
        from: ReplicaId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(class) = self.classes.read().get(&range).cloned() else {
            let why = format!("the class of range {} is not known here yet", range.0);
            return futures::future::ready(Err(why)).boxed();
        };
        let message =
            Consent { class: class.clone(), range: range.0, from: from.0, to: to.replica.0, question };
        let (mesh, to) = (self.mesh.clone(), to.node.clone());
        async move {
            let (answer, _) = mesh
                .ask_node_untraced(&to, &message, class, within)
                .await
                .map_err(|fault| fault.to_string())?;
            answer
        }
        .boxed()
    }
}

/// The world around the ranges of this node.
pub(super) struct RangeWorld {
    pub(super) mesh: Mesh,
    pub(super) clock: NodeClock,
    pub(super) halt: Halt,
    pub(super) time_is_good: TimeIsGood,
    pub(super) ranges: Weak<Inner>,
}

impl World for RangeWorld {
    fn now(&self) -> HybridTime {
        self.clock.hybrid()
    }

    fn wall(&self) -> HybridTime {
        HybridTime::new(u64::try_from(self.clock.wall_micros() / 1_000).unwrap_or(0), 0)
    }

    fn is_frozen(&self) -> bool {
        !(self.time_is_good)()
    }

    fn epoch(&self) -> Epoch {
        self.clock.epoch()
    }

    fn tell(&self, to: &NodeId, word: Word) {
        let word = codec::encode(&word).expect("a word is within the codec's limits").to_vec();
        let told = self.mesh.tell_node(to, RANGE_WORD, &RangeWord { word }, DataClass::control());
        if let Err(fault) = told {
            tracing::trace!(%to, %fault, "not told; it is said again");
        }
    }

    fn found(&self, range: RangeId, found: Found) {
        if let Some(ranges) = super::plan::of(&self.ranges) {
            ranges.has_found(range, found);
        }
    }

    fn splits(&self, range: RangeId, decided: Decided) {
        if let Some(ranges) = super::plan::of(&self.ranges) {
            ranges.splits_by_itself(range, decided);
        }
    }

    fn noticed(&self, range: RangeId, noticed: Noticed) {
        if let Some(ranges) = super::plan::of(&self.ranges) {
            ranges.has_noticed(range, noticed);
        }
    }

    fn aside(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }

    fn halt(&self, why: String) {
        self.halt.now(why);
    }
}
