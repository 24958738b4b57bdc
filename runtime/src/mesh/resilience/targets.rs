//! The breakers of a mesh: one for each node that is called, and one for each type of actors there.
//!
//! * It decides: what a fault says of the node, and what of the type. That a node cannot be reached is the node's alone;
//!   that a handler is late, breaks down or has no room is the type's alone, so that one type does not shut out another.
//! * It never does: count against anybody how a call ended that never left (but where there was no way to the node), whose asker has gone, or whose asker gave it
//!   less than a second and less than its message's own deadline.
//! * Invariant: as many breakers as there are nodes times types that this build calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::Mutex;
use rhumb_core::{Delivery, Fault, FaultKind, Mono, NodeId, Region};
use rhumb_transport::resilience::balance::{Candidate, Cost, LONGEST_PENALTY, choose};
use rhumb_transport::resilience::breaker::{Breaker, BreakerSettings, Passage, Tripped, Went};
use tokio::time::Instant;

use super::Resilience;

/// Whoever waits for less than this, and for less than the message says, is not counted when it was too short.
const PATIENCE: Duration = Duration::from_secs(1);

/// All breakers of a mesh.
pub(super) struct Targets {
    settings: BreakerSettings,
    /// Whether they hold anything back.
    holds: bool,
    nodes: ArcSwap<HashMap<NodeId, Arc<OfNode>>>,
    tripped: [AtomicU64; TRIPPED.len()],
    refused: [AtomicU64; REFUSED.len()],
}

const TRIPPED: [(Tripped, &str); 3] =
    [(Tripped::Run, "run"), (Tripped::Share, "share"), (Tripped::Probe, "probe")];
/// Whose breaker refused a call.
const REFUSED: [&str; 2] = ["node", "type"];

/// The breakers of one node.
struct OfNode {
    own: Guarded,
    /// The connection with it that was seen last; 0 before the first. Of programs only: nodes are told of new ones.
    generation: AtomicU64,
    types: ArcSwap<BTreeMap<&'static str, Arc<Guarded>>>,
}

/// A breaker, and whether it has to be asked at all.
struct Guarded {
    is_shut: AtomicBool,
    breaker: Mutex<Breaker>,
    /// What asking there costs, where it is one of several equal targets.
    cost: Mutex<Cost>,
}

impl Guarded {
    fn new(settings: BreakerSettings) -> Self {
        Self {
            is_shut: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(settings)),
            cost: Mutex::default(),
        }
    }

    fn passage(&self, now: impl FnOnce() -> Mono) -> Passage {
        if self.is_shut.load(Ordering::Acquire) { self.breaker.lock().passage(now()) } else { Passage::Open }
    }

    fn went(&self, resilience: &Resilience, now: Mono, passage: Passage, went: Option<Went>) {
        let mut breaker = self.breaker.lock();
        let Some(went) = went else { return breaker.said_nothing(now, passage) };
        let tripped = breaker.went(now, passage, went, || resilience.seed.lock().unit());
        self.is_shut.store(!breaker.is_open(), Ordering::Release);
        drop(breaker);
        if let Some(tripped) = tripped {
            let of = TRIPPED.iter().position(|(known, _)| *known == tripped).unwrap_or(0);
            resilience.targets.tripped[of].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reset(&self) {
        let mut breaker = self.breaker.lock();
        breaker.reset();
        self.is_shut.store(false, Ordering::Release);
        drop(breaker);
        self.cost.lock().forget();
    }

    fn would_pass(&self, now: Mono) -> bool {
        !self.is_shut.load(Ordering::Acquire) || self.breaker.lock().would_pass(now)
    }

    fn said_nothing(&self, now: Mono, passage: Passage) {
        self.breaker.lock().said_nothing(now, passage);
    }
}

impl Targets {
    pub(super) fn new(settings: BreakerSettings, holds: bool) -> Self {
        Self {
            settings,
            holds,
            nodes: ArcSwap::default(),
            tripped: Default::default(),
            refused: Default::default(),
        }
    }

    fn node(&self, node: &NodeId) -> Arc<OfNode> {
        if let Some(known) = self.nodes.load().get(node) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(OfNode {
            own: Guarded::new(self.settings),
            generation: AtomicU64::new(0),
            types: ArcSwap::default(),
        });
        self.nodes.rcu(|nodes| {
            let mut more = HashMap::clone(nodes);
            more.entry(node.clone()).or_insert_with(|| Arc::clone(&fresh));
            more
        });
        self.nodes.load().get(node).map_or(fresh, Arc::clone)
    }

    /// A node has connected anew.
    pub(super) fn connected(&self, node: &NodeId) {
        if let Some(of) = self.nodes.load().get(node) {
            of.reset();
        }
    }

    /// This is the connection with a node now.
    pub(super) fn meets(&self, node: &NodeId, generation: u64) {
        let of = self.node(node);
        if of.generation.load(Ordering::Relaxed) != generation
            && of.generation.swap(generation, Ordering::Relaxed) != 0
        {
            of.reset();
        }
    }

    #[cfg(feature = "rocks")]
    pub(super) fn write(&self, page: &mut crate::metrics::exposition::Page) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tripped: Vec<_> =
            TRIPPED.iter().zip(&self.tripped).map(|((_, reason), count)| (*reason, read(count))).collect();
        let help = "Breakers that tripped, by reason: a run of failures, too few successes, a failed probe";
        page.counters("rhumb_outbound_breaker_trips", help, "reason", &tripped);
        let refused: Vec<_> =
            REFUSED.iter().zip(&self.refused).map(|(of, count)| (*of, read(count))).collect();
        let help = "Calls that a breaker held back: that of the whole node, or of a type of actors there";
        page.counters("rhumb_outbound_breaker_refusals", help, "of", &refused);
        let nodes = self.nodes.load();
        let mut shut: Vec<(String, u64)> =
            nodes.iter().map(|(node, of)| (node.to_string(), of.shut())).collect();
        shut.sort_unstable();
        let shut: Vec<(&str, u64)> = shut.iter().map(|(node, shut)| (node.as_str(), *shut)).collect();
        let help = "Breakers of a peer, of itself and of types of actors there, that let no call through, or only a probe";
        page.gauges("rhumb_outbound_breakers_shut", help, "peer", &shut);
    }
}

impl OfNode {
    fn reset(&self) {
        self.own.reset();
        self.types.load().values().for_each(|of| of.reset());
    }

    /// How many of its breakers are not open.
    #[cfg(feature = "rocks")]
    fn shut(&self) -> u64 {
        let shut = |of: &Guarded| u64::from(of.is_shut.load(Ordering::Relaxed));
        shut(&self.own) + self.types.load().values().map(|of| shut(of)).sum::<u64>()
    }

    fn of(&self, kind: &'static str, settings: BreakerSettings) -> Arc<Guarded> {
        if let Some(known) = self.types.load().get(kind) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Guarded::new(settings));
        self.types.rcu(|types| {
            let mut more = BTreeMap::clone(types);
            more.entry(kind).or_insert_with(|| Arc::clone(&fresh));
            more
        });
        self.types.load().get(kind).map_or(fresh, Arc::clone)
    }
}

/// One of several equal targets, while it is asked.
pub(crate) struct Weighed {
    resilience: Arc<Resilience>,
    of: Arc<Guarded>,
    began: Instant,
    ended: bool,
}

impl Weighed {
    /// It was answered, or failed: the faults for which another target had better be asked.
    pub(crate) fn went(mut self, fault: Option<&Fault>) {
        self.ended = true;
        let now = Instant::now();
        let (at, took) = (self.resilience.at(now), now.saturating_duration_since(self.began));
        let mut cost = self.of.cost.lock();
        match fault {
            None => cost.answered(at, took),
            // It will never be able to answer.
            Some(Fault { kind: FaultKind::NotHosted(_) | FaultKind::UnknownMessage(_), .. }) => {
                cost.failed(at, Some(LONGEST_PENALTY));
            }
            Some(Fault { kind: FaultKind::Overloaded(_) | FaultKind::Full(_), retry_after, .. }) => {
                cost.refused(at, *retry_after);
            }
            Some(fault) => cost.failed(at, fault.retry_after),
        }
    }
}

impl Drop for Weighed {
    fn drop(&mut self) {
        if !self.ended {
            // Its asker has gone: it takes at least as long as that.
            let now = Instant::now();
            let took = now.saturating_duration_since(self.began);
            self.of.cost.lock().left(self.resilience.at(now), took);
        }
    }
}

impl Resilience {
    /// Chooses one of these nodes for a question to equal actors of a type, or under a message's name to equal services;
    /// none of none. It counts as asked from now on. `here` is the asker's region.
    pub(crate) fn choose(
        self: &Arc<Self>,
        here: &Region,
        nodes: &[NodeId],
        kind: &'static str,
    ) -> Option<(usize, Weighed)> {
        let began = Instant::now();
        let now = self.at(began);
        let each: Vec<(Arc<Guarded>, Cost, bool)> = nodes
            .iter()
            .map(|node| {
                let of_node = self.targets.node(node);
                let of = of_node.of(kind, self.targets.settings);
                let is_open = of_node.own.would_pass(now) && of.would_pass(now);
                let cost = of.cost.lock().clone();
                (of, cost, is_open)
            })
            .collect();
        let candidates: Vec<Candidate<'_>> = nodes
            .iter()
            .zip(&each)
            .map(|(node, (_, cost, is_open))| Candidate {
                cost,
                is_near: node.region == *here,
                is_open: *is_open,
            })
            .collect();
        let at = choose(&candidates, now, &mut self.seed.lock())?;
        let of = Arc::clone(&each[at].0);
        of.cost.lock().asked();
        Some((at, Weighed { resilience: Arc::clone(self), of, began, ended: false }))
    }
}

/// A call that breakers have let through: they must hear how it went. Dropped, it says nothing.
pub(crate) struct Passing {
    resilience: Arc<Resilience>,
    node: Arc<OfNode>,
    of: Arc<Guarded>,
    passages: (Passage, Passage),
    patience: Duration,
    /// What it says of the actors that it went well.
    well: Went,
    ended: bool,
}

impl Resilience {
    /// Lets a call to actors of a type at a node pass, or says when to come again. `patience` is how long its message says
    /// to wait, and `well` what it says of the actors where it ends well. One that passes `anyway` is not held back, and
    /// does not count while others are.
    pub(crate) fn pass(
        self: &Arc<Self>,
        to: &NodeId,
        kind: &'static str,
        patience: Duration,
        well: Went,
        anyway: bool,
    ) -> Result<Option<Passing>, Fault> {
        let targets = &self.targets;
        if !targets.holds {
            return Ok(None);
        }
        let now = || self.at(Instant::now());
        let node = targets.node(to);
        let of = node.of(kind, targets.settings);
        let refused = |at: usize, kind: FaultKind, wait| {
            targets.refused[at].fetch_add(1, Ordering::Relaxed);
            Err(Fault { retry_after: Some(wait), ..Fault::not_sent(kind) })
        };
        let mut first = node.own.passage(now);
        if anyway && matches!(first, Passage::Shut(_)) {
            first = Passage::Open;
        }
        if let Passage::Shut(wait) = first {
            return refused(0, FaultKind::Unreachable(format!("{to} could not be reached lately")), wait);
        }
        let mut second = of.passage(now);
        if anyway && matches!(second, Passage::Shut(_)) {
            second = Passage::Open;
        }
        if let Passage::Shut(wait) = second {
            if first == Passage::Probe {
                node.own.said_nothing(now(), first);
            }
            return refused(1, FaultKind::Shut(format!("actors of type {kind} at {to}")), wait);
        }
        let passages = (first, second);
        Ok(Some(Passing {
            resilience: Arc::clone(self),
            node,
            of,
            passages,
            patience: patience.min(PATIENCE),
            well,
            ended: false,
        }))
    }
}

impl Passing {
    /// It ended now, after so long.
    pub(crate) fn went(mut self, now: Instant, took: Duration, fault: Option<&Fault>) {
        let said = match fault {
            None => (Some(Went::Well), Some(self.well)),
            Some(fault) => judge(fault, took >= self.patience),
        };
        self.tell(now, said);
    }

    fn tell(&mut self, now: Instant, (node, of): (Option<Went>, Option<Went>)) {
        self.ended = true;
        let resilience = &self.resilience;
        let now = resilience.at(now);
        self.node.own.went(resilience, now, self.passages.0, node);
        self.of.went(resilience, now, self.passages.1, of);
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let open = self.passages == (Passage::Open, Passage::Open);
        if !self.ended && !open {
            self.tell(Instant::now(), (None, None));
        }
    }
}

/// What a fault says of the node, and of the type of actors there; `patient` where its asker waited long enough for its
/// deadline to say something.
fn judge(fault: &Fault, patient: bool) -> (Option<Went>, Option<Went>) {
    match (&fault.kind, fault.delivery) {
        (FaultKind::Unreachable(_), _) => (Some(Went::Badly), None),
        // It could not even be sent: the node takes nothing.
        (FaultKind::Deadline(_), Delivery::NotSent) => (patient.then_some(Went::Badly), None),
        (FaultKind::Deadline(_), _) => (None, patient.then_some(Went::Badly)),
        (FaultKind::Panicked(_) | FaultKind::Handler(_) | FaultKind::Storage(_), _) => {
            (Some(Went::Well), Some(Went::Badly))
        }
        // Turned away at the door: it is there, and lets in what it can. Nobody else needs to hold calls back for it.
        (FaultKind::Overloaded(_), _) => (Some(Went::Well), None),
        (FaultKind::Full(_), _) => (None, Some(Went::Refused)),
        // What the node itself has said of this call alone.
        (
            FaultKind::Failed(_)
            | FaultKind::Moved(_)
            | FaultKind::Unowned(_)
            | FaultKind::NotHosted(_)
            | FaultKind::WrongEpoch { .. }
            | FaultKind::Unauthorized(_),
            _,
        ) => (Some(Went::Well), Some(Went::Well)),
        // What this side may have said.
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_against_whom_it_speaks_of() {
        let (well, badly, refused) = (Some(Went::Well), Some(Went::Badly), Some(Went::Refused));
        let text = || "x".to_owned();
        for (fault, patient, want) in [
            (Fault::unknown(FaultKind::Unreachable(text())), false, (badly, None)),
            (Fault::unknown(FaultKind::Deadline(text())), true, (None, badly)),
            (Fault::unknown(FaultKind::Deadline(text())), false, (None, None)),
            (Fault::not_sent(FaultKind::Deadline(text())), true, (badly, None)),
            (Fault::ran(FaultKind::Panicked(text())), false, (well, badly)),
            (Fault::not_sent(FaultKind::Full(text())), false, (None, refused)),
            (Fault::not_sent(FaultKind::Overloaded(text())), false, (well, None)),
            (Fault::not_sent(FaultKind::Failed(text())), false, (well, well)),
            (Fault::not_sent(FaultKind::Cycle(text())), false, (None, None)),
            (Fault::not_sent(FaultKind::Draining), false, (None, None)),
        ] {
            assert_eq!(judge(&fault, patient), want, "{fault}");
        }
    }

    #[test]
    fn what_never_left_counts_against_nobody_and_that_there_is_no_way_does() {
        use rhumb_core::rng::Seed;

        use super::super::ResilienceSettings;
        use crate::mesh::passed;

        let node: NodeId = "eu/n1".parse().expect("a node");
        let full = || FaultKind::Full("lane 1 to eu/n1".to_owned());
        let gone = || FaultKind::Unreachable("eu/n1".to_owned());
        for (kind, holds) in [(full as fn() -> FaultKind, false), (gone, true)] {
            let resilience = Arc::new(Resilience::new(ResilienceSettings::default(), &Seed::new(1)));
            let pass = || resilience.pass(&node, "t", PATIENCE, Went::Well, false);
            for _ in 0..200 {
                let Ok(passing) = pass() else { break };
                let sent = passed(passing, Err(Fault::not_sent(kind())));
                assert_eq!(sent.err().map(|fault| fault.kind), Some(kind()), "the asker hears of it");
            }
            assert_eq!(pass().is_err(), holds, "{}", kind());
        }
    }

    #[cfg(feature = "rocks")]
    #[test]
    fn an_operator_reads_of_each_peer_how_many_breakers_are_shut() {
        use rhumb_core::rng::Seed;

        use super::super::ResilienceSettings;

        let resilience = Arc::new(Resilience::new(ResilienceSettings::default(), &Seed::new(1)));
        let panicked = Fault::ran(FaultKind::Panicked("x".to_owned()));
        for (node, fault) in [("us/n1", None), ("eu/n1", Some(&panicked))] {
            for _ in 0..7 {
                let node = node.parse().expect("a node");
                let passing = resilience.pass(&node, "t", PATIENCE, Went::Well, false);
                let passing = passing.expect("let through").expect("counted");
                passing.went(Instant::now(), PATIENCE, fault);
            }
        }
        let mut page = crate::metrics::exposition::Page::default();
        resilience.write(&mut page);
        let page = page.finish();
        let shut: Vec<_> =
            page.lines().filter(|line| line.starts_with("rhumb_outbound_breakers_shut")).collect();
        let want = [
            "rhumb_outbound_breakers_shut{peer=\"eu/n1\"} 1",
            "rhumb_outbound_breakers_shut{peer=\"us/n1\"} 0",
        ];
        assert_eq!(shut, want);
    }
}
