//! Which range has a key that is not here, and on which nodes it may be asked for.
//!
//! * It decides: whom to ask where that is, and for how long the answer is believed.
//! * It never does: rest on it. A node that is asked for a key of another range says so.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_actors::ranges::catalog::Keyspace;
use rhumb_actors::ranges::messages::{RangeBounds, WhereIs};
use rhumb_actors::ranges::{RangeId, Seat};
use rhumb_core::NodeId;
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use tokio::time::Instant;

use super::Ranges;

/// How long another node may take to say which range a key is of.
const WHERE_WITHIN: Duration = Duration::from_secs(1);
/// How long that is believed.
const HINT_LASTS: Duration = Duration::from_secs(10);
/// The most of what was said that is kept.
const MAX_HINTS: usize = 10_000;

/// Where ranges are that are not here: by their keyspace and first key.
pub(super) type Hints = BTreeMap<(u32, Vec<u8>), Hint>;

/// Which range it is.
pub(super) struct Hint {
    to: Option<Vec<u8>>,
    range: RangeId,
    until: Instant,
}

impl Ranges {
    /// The range of a key, if a replica of it is here; else nodes that may have one, the nearest first.
    pub(super) async fn locate(
        &self,
        space: &Keyspace,
        key: &UserKey,
        until: Instant,
    ) -> (Option<RangeId>, Vec<NodeId>) {
        let Ok(host) = self.host() else { return (None, Vec::new()) };
        let here = host.range_of(KeyspaceId(space.id), key).filter(|range| host.group(*range).is_some());
        if let Some(range) = here {
            return (Some(range), Vec::new());
        }
        let begun: Vec<_> = space.ranges.iter().filter(|row| row.begun).collect();
        if let [only] = begun.as_slice() {
            return (None, self.nearest(&only.seats));
        }
        // Where the range stands that it was said to be: the catalog here may not have it yet.
        let seated = |range| space.row(range).map(|row| self.nearest(&row.seats));
        if let Some(nodes) = self.hinted(space, key).and_then(seated) {
            return (None, nodes);
        }
        let all: Vec<Seat> = space.seats().cloned().collect();
        let nodes = self.nearest(&all);
        for node in nodes.iter().filter(|node| **node != self.0.parts.me) {
            let asks = WhereIs {
                class: space.class.clone(),
                keyspace: space.name.clone(),
                key: key.as_bytes().to_vec(),
            };
            let left = until.saturating_duration_since(Instant::now()).min(WHERE_WITHIN);
            let told = self.0.parts.mesh.ask_node_untraced(node, &asks, space.class.clone(), left).await;
            self.0.nearness.went(node, told.as_ref().err(), left, Instant::now());
            if let Ok((Ok(bounds), _)) = told {
                let range = RangeId(bounds.range);
                self.hint(space, bounds);
                return (None, seated(range).unwrap_or(nodes));
            }
        }
        (None, nodes)
    }

    fn hinted(&self, space: &Keyspace, key: &UserKey) -> Option<RangeId> {
        let hints = self.0.hints.lock();
        let (_, hint) =
            hints.range((space.id, Vec::new())..=(space.id, key.as_bytes().to_vec())).next_back()?;
        let has = hint.to.as_ref().is_none_or(|to| key.as_bytes() < to.as_slice());
        (has && hint.until > Instant::now()).then_some(hint.range)
    }

    fn hint(&self, space: &Keyspace, RangeBounds { range, from, to }: RangeBounds) {
        let mut hints = self.0.hints.lock();
        if hints.len() >= MAX_HINTS {
            hints.clear();
        }
        let until = Instant::now() + HINT_LASTS;
        hints.insert((space.id, from), Hint { to, range: RangeId(range), until });
    }
}
