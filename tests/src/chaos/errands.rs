//! What an operator does to the keyspace meanwhile: splits, moves of replicas and of leases.
//!
//! * It decides: which, and when, from a seed.
//! * It never does: wait for a move, or mind that it is refused: the mesh is under chaos.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rhumb::client::{Ask, MeshClient};
use rhumb_actors::ranges::messages::{ListRanges, MoveReplica, RangeView, SplitRange, TransferLease};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{DataClass, NodeId};
use tokio::time::{Instant, sleep, timeout_at};

/// The keyspace.
pub const KEYSPACE: &str = "chaos";
/// Where it may be split: between its keys.
const BOUNDS: [&str; 2] = ["m", "t"];
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// A range is split.
    Split,
    /// A replica moves.
    Move,
    /// A lease is given away.
    Transfer,
}

/// How often each was asked for, and how often that was granted.
#[derive(Debug, Default)]
pub struct Errands(BTreeMap<Errand, (u32, u32)>);

impl Errands {
    /// How often this was granted.
    #[must_use]
    pub fn done(&self, errand: Errand) -> u32 {
        self.0.get(&errand).map_or(0, |(_, done)| *done)
    }
}

impl fmt::Display for Errands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let each = self.0.iter().map(|(errand, (asked, done))| format!("{errand:?} {done} of {asked}"));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

/// The replicas of the keyspace on all nodes that can be asked, by range.
pub async fn ranges(operator: &MeshClient) -> BTreeMap<u64, Vec<RangeView>> {
    let nodes = operator.nodes();
    let asked = nodes.iter().map(|node| operator.ask(node, &ListRanges {}, LOOK_WITHIN));
    let mut found: BTreeMap<u64, Vec<RangeView>> = BTreeMap::new();
    for views in futures::future::join_all(asked).await.into_iter().flatten().flatten() {
        for view in views.into_iter().filter(|view| view.keyspace == KEYSPACE) {
            found.entry(view.range).or_default().push(view);
        }
    }
    found
}

/// Who runs errands.
pub struct Operator<'a> {
    client: &'a MeshClient,
    class: DataClass,
    rng: Rng,
    /// Where it is still to be split.
    bounds: Vec<&'static str>,
    every: (u64, u64),
}

impl<'a> Operator<'a> {
    /// An operator of a seed: some split and move without pause, some hardly do anything.
    #[must_use]
    pub fn new(client: &'a MeshClient, class: DataClass, seed: &Seed) -> Self {
        let mut rng = seed.child("errands").rng();
        let mut bounds = BOUNDS.to_vec();
        rng.shuffle(&mut bounds);
        bounds.truncate(usize::try_from(rng.below(3)).unwrap_or(0));
        let least = rng.between(300, 6_000);
        Self { client, class, rng, bounds, every: (least, 2 * least) }
    }

    /// Runs errands until then.
    pub async fn run(&mut self, until: Instant, tell: &impl Fn(&str)) -> Errands {
        let mut told = Errands::default();
        loop {
            let pause = Duration::from_millis(self.rng.between(self.every.0, self.every.1));
            if Instant::now() + pause >= until {
                return told;
            }
            sleep(pause).await;
            // What is under way when the time is over is left to the mesh.
            let Ok(one) = timeout_at(until, self.one(tell)).await else { return told };
            let Some((errand, done)) = one else { continue };
            let (asked, granted) = told.0.entry(errand).or_default();
            *asked += 1;
            *granted += u32::from(done);
        }
    }

    /// One of them; none where nothing can be done.
    async fn one(&mut self, tell: &impl Fn(&str)) -> Option<(Errand, bool)> {
        let ranges = ranges(self.client).await;
        let numbers: Vec<u64> = ranges.keys().copied().collect();
        let range = *self.rng.pick(&numbers)?;
        let stands = ranges[&range].iter().max_by_key(|view| view.applied)?.nodes.clone();
        let free: Vec<NodeId> =
            self.client.nodes().into_iter().filter(|node| !stands.contains(node)).collect();
        let (from, to) = (self.rng.pick(&stands)?.clone(), self.rng.pick(&free).cloned());
        let by = self.rng.pick(&self.client.nodes())?.clone();
        let (errand, what, done) = match (self.rng.below(10), to, self.bounds.last().copied()) {
            (0..4, _, Some(at)) => {
                let (class, keyspace) = (self.class.clone(), KEYSPACE.to_owned());
                let split = SplitRange { class, keyspace, at: at.as_bytes().to_vec(), hops: 0 };
                let asked = self.client.ask(&by, &split, DONE_WITHIN).await;
                let done = matches!(asked, Ok(Ok(_)));
                if done {
                    self.bounds.pop();
                }
                (Errand::Split, format!("at {at}"), done)
            }
            (0..8, Some(to), _) => {
                let what = format!("range {range} from {from} to {to}");
                let asked = self.client.ask(&by, &MoveReplica { range, from, to }, DONE_WITHIN).await;
                (Errand::Move, what, matches!(asked, Ok(Ok(_))))
            }
            _ => {
                let what = format!("range {range} to {from}");
                let asked =
                    self.client.ask(&by, &TransferLease { range, to: from, hops: 0 }, DONE_WITHIN).await;
                (Errand::Transfer, what, matches!(asked, Ok(Ok(_))))
            }
        };
        tell(&format!("{errand:?} {what}: {}", if done { "granted" } else { "not granted" }));
        Some((errand, done))
    }
}
