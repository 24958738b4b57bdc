//! What is done to a mesh that is soaked, to whom, and when.
//!
//! * It decides: the order of faults, from a seed.
//! * It never does: kill or cut anything, or look at a clock.
//! * Invariant: between two of the same kind lie all others, and the first node is never killed: what it
//!   holds at the end it has held from the beginning.

use std::time::Duration;

use rhumb_core::rng::{Rng, Seed};

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL; it is started again when the fault ends.
    Kill,
    /// SIGSTOP, until the fault ends.
    Freeze,
    /// Nothing goes between it and the other regions until the fault ends.
    CutOff,
    /// Datagrams that are none of QUIC's.
    Noise,
    /// Clients that connect, ask and leave.
    Visitors,
    /// SIGHUP: it reads its settings and certificates anew.
    Reload,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Kill, Self::Freeze, Self::CutOff, Self::Noise, Self::Visitors, Self::Reload];

    /// The least and the most time that it lasts, in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::Kill => (1_000, 4_000),
            Self::Freeze => (500, 6_000),
            Self::CutOff => (2_000, 10_000),
            Self::Noise | Self::Visitors => (2_000, 4_000),
            Self::Reload => (0, 1),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// How long nothing is done before it.
    pub after: Duration,
    /// What is done.
    pub fault: Fault,
    /// To which node, from 0.
    pub node: usize,
    /// How long it lasts.
    pub lasts: Duration,
}

/// The faults of a soak, without end.
#[derive(Debug)]
pub struct Schedule {
    nodes: usize,
    rng: Rng,
    round: Vec<Fault>,
}

impl Schedule {
    /// The faults of a mesh of so many nodes, two at least.
    #[must_use]
    pub fn new(nodes: usize, seed: &Seed) -> Self {
        debug_assert!(nodes >= 2, "somebody must be there to be killed");
        Self { nodes, rng: seed.child("faults").rng(), round: Vec::new() }
    }
}

impl Iterator for Schedule {
    type Item = Act;

    fn next(&mut self) -> Option<Act> {
        if self.round.is_empty() {
            self.round = Fault::ALL.to_vec();
            self.rng.shuffle(&mut self.round);
        }
        let fault = self.round.pop()?;
        let spared = u64::from(fault == Fault::Kill);
        let node = spared + self.rng.below(self.nodes as u64 - spared);
        let (least, most) = fault.lasts();
        Some(Act {
            after: Duration::from_millis(self.rng.between(1_000, 6_000)),
            fault,
            node: usize::try_from(node).unwrap_or(0),
            lasts: Duration::from_millis(self.rng.between(least, most)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_round_has_every_fault_once_and_the_first_node_is_never_killed() {
        for seed in 0..50 {
            let acts: Vec<Act> = Schedule::new(3, &Seed::new(seed)).take(60).collect();
            for round in acts.chunks(Fault::ALL.len()) {
                let kinds: BTreeSet<Fault> = round.iter().map(|act| act.fault).collect();
                assert_eq!(kinds.len(), Fault::ALL.len(), "seed {seed}");
            }
            assert!(acts.iter().all(|act| act.fault != Fault::Kill || act.node != 0), "seed {seed}");
            let hit: BTreeSet<usize> = acts.iter().map(|act| act.node).collect();
            assert_eq!(hit, BTreeSet::from([0, 1, 2]), "seed {seed}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        let acts = |seed| Schedule::new(3, &Seed::new(seed)).take(20).collect::<Vec<_>>();
        assert_eq!(acts(7), acts(7));
        assert_ne!(acts(7), acts(8));
    }
}
