//! What befalls a mesh under chaos: what, whom, when and for how long; several at once.
//!
//! * It decides: all of it, from a seed, before anything begins. A seed has its own kinds of faults: where all befall a mesh
//!   in every story, many combinations never do.
//! * It never does: kill or cut anything, or look at a clock.
//! * Invariant: no more than [`AT_ONCE`] at a time; a process that is killed or frozen is neither again until that is over;
//!   all is over in time.

use std::time::Duration;

use rhumb_core::rng::Seed;

/// Faults at one time.
pub const AT_ONCE: usize = 3;
/// Nothing happens for so long at first.
const FIRST: Duration = Duration::from_secs(1);
/// Of one fault of a node after another of its kind: it has been itself for a moment.
const REST: Duration = Duration::from_millis(300);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL; the node is started again when the fault ends.
    Kill,
    /// SIGSTOP; SIGCONT when the fault ends.
    Freeze,
    /// Nothing goes between the node and all others.
    CutOff,
    /// Nothing reaches the node; what it sends arrives.
    Deaf,
    /// Nothing that the node sends arrives; all reaches it.
    Mute,
    /// Nothing goes from the node to one other.
    OneWay,
    /// Nothing goes between the node's region and all others.
    Partition,
    /// A share of what goes to and from the node is lost.
    Loss,
}

/// What one node can have one of at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Process,
    Ways,
    Loss,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Freeze,
        Self::CutOff,
        Self::Deaf,
        Self::Mute,
        Self::OneWay,
        Self::Partition,
        Self::Loss,
    ];

    /// The least and the most time that it lasts, in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::Kill => (100, 6_000),
            Self::Freeze => (300, 8_000),
            Self::CutOff | Self::Deaf | Self::Mute | Self::OneWay | Self::Partition => (500, 9_000),
            Self::Loss => (2_000, 10_000),
        }
    }

    const fn of(self) -> Of {
        match self {
            Self::Kill | Self::Freeze => Of::Process,
            Self::CutOff | Self::Deaf | Self::Mute | Self::OneWay | Self::Partition => Of::Ways,
            Self::Loss => Of::Loss,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// When it begins.
    pub at: Duration,
    /// What is done.
    pub fault: Fault,
    /// To which node, from 0.
    pub node: usize,
    /// Of [`Fault::OneWay`]: towards which one.
    pub other: usize,
    /// Of [`Fault::Loss`]: how many of a hundred datagrams.
    pub percent: u32,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Act {
    fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// The faults of a story on so many nodes (two at least), in the order of their beginnings; the last one ends before `until`.
#[must_use]
pub fn schedule(seed: &Seed, nodes: usize, until: Duration) -> Vec<Act> {
    debug_assert!(nodes >= 2, "a way leads to somebody");
    let mut rng = seed.child("faults").rng();
    let mut kinds = Fault::ALL.to_vec();
    rng.shuffle(&mut kinds);
    kinds.truncate(2 + usize::try_from(rng.below(kinds.len() as u64 - 1)).unwrap_or(0));
    let (mut acts, mut at) = (Vec::<Act>::new(), FIRST);
    while at < until {
        at += Duration::from_millis(rng.between(200, 3_500));
        let fault = *rng.pick(&kinds).unwrap_or(&Fault::Kill);
        let mut below = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap_or(0);
        let (node, further) = (below(nodes), 1 + below(nodes - 1));
        let percent = 3 + u32::try_from(below(38)).unwrap_or(0);
        let (least, most) = fault.lasts();
        // A short story has short faults.
        let most = most.min(u64::try_from(until.as_millis()).unwrap_or(u64::MAX) / 3).max(least);
        let lasts = Duration::from_millis(rng.between(least, most));
        let act = Act { at, fault, node, other: (node + further) % nodes, percent, lasts };
        let going = || acts.iter().filter(|before| before.ends() + REST > at);
        let taken = going().any(|before| before.node == node && before.fault.of() == fault.of());
        if !taken && going().count() < AT_ONCE && act.ends() < until {
            acts.push(act);
        }
    }
    acts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(90);

    #[test]
    fn faults_overlap_but_not_on_one_process_and_never_too_many() {
        let (mut kinds, mut most, mut mixes) = (BTreeSet::new(), 0, BTreeSet::new());
        for seed in 0..200 {
            let acts = schedule(&Seed::new(seed), 4, LONG);
            assert!(acts.len() >= 8, "seed {seed}: {}", acts.len());
            for (number, act) in acts.iter().enumerate() {
                let going = |other: &&Act| other.at <= act.at && other.ends() > act.at;
                let at_once: Vec<&Act> = acts[..number].iter().filter(going).collect();
                most = most.max(at_once.len() + 1);
                let again = |other: &&Act| other.node == act.node && other.fault.of() == act.fault.of();
                assert!(!at_once.iter().any(again), "seed {seed}: {act:?} {at_once:?}");
                assert!(act.node < 4 && act.other < 4 && act.node != act.other, "seed {seed}: {act:?}");
                assert!(act.ends() < LONG && (3..=40).contains(&act.percent), "seed {seed}: {act:?}");
                assert!(act.lasts <= Duration::from_secs(10), "seed {seed}: {act:?}");
            }
            let of_seed: BTreeSet<Fault> = acts.iter().map(|act| act.fault).collect();
            kinds.extend(of_seed.iter().copied());
            mixes.insert(of_seed.into_iter().collect::<Vec<_>>());
        }
        assert_eq!((kinds.len(), most), (Fault::ALL.len(), AT_ONCE));
        assert!(mixes.len() > 50, "{} mixes", mixes.len());
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        let acts = |seed| schedule(&Seed::new(seed), 4, LONG);
        assert_eq!(acts(7), acts(7));
        assert_ne!(acts(7), acts(8));
    }
}
