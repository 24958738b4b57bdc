//! What befalls a mesh under chaos: what, whom, when and for how long; several at once.
//!
//! * It decides: all of it, from a seed, before anything begins. A seed has its own kinds of faults: where all befall a mesh
//!   in every story, many combinations never do. A story of [`Kinds::Each`] has every kind once before any comes again.
//! * It never does: kill or cut anything, or look at a clock.
//! * Invariant: no more than [`AT_ONCE`] at a time; what ends or freezes a process befalls none that is ended or frozen;
//!   one clock at most is beyond the bound; all is over in time.

use std::time::Duration;

use rhumb_core::rng::{Rng, Seed};

/// Faults at one time.
pub const AT_ONCE: usize = 3;
/// So far ahead a clock may be, in milliseconds, and none is behind: no two differ by the half second that they may.
const SKEW_MS: i64 = 490;
/// So far from all others a clock is at least that is beyond the bound, in milliseconds: what half of the longest round trip
/// leaves of it is still more than 80 % of the bound.
const BEYOND_MS: i64 = 800;
/// So long after a fault of its ways or its process a node has compared its clock with those of others.
const SETTLED: Duration = Duration::from_secs(8);
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
    /// The power of the node is cut: its disk loses what was not synced, or an arbitrary part of it. It is started again when
    /// the fault ends.
    PowerCut,
    /// The power of all nodes is cut at once.
    Blackout,
    /// The node's disk is full: the node ends by itself, and does not come up until there is room again.
    Full,
    /// The node's wall clock is off, by no more than clocks of the mesh may differ.
    Skew,
    /// The node's wall clock is off by more: its strong paths freeze until it is right again.
    Beyond,
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
    Clock,
    Ways,
    Loss,
}

/// Which kinds of faults a story has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Two of them at least, drawn from the seed.
    Drawn,
    /// Each one, before any comes a second time; each for a shorter time.
    Each,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Freeze,
        Self::PowerCut,
        Self::Blackout,
        Self::Full,
        Self::Skew,
        Self::Beyond,
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
            Self::Kill | Self::PowerCut => (100, 6_000),
            Self::Blackout => (100, 3_000),
            Self::Freeze => (300, 8_000),
            Self::Full => (1_500, 8_000),
            Self::Skew => (1_000, 10_000),
            Self::Beyond => (2_500, 9_000),
            Self::CutOff | Self::Deaf | Self::Mute | Self::OneWay | Self::Partition => (500, 9_000),
            Self::Loss => (2_000, 10_000),
        }
    }

    const fn of(self) -> Of {
        match self {
            Self::Kill | Self::Freeze | Self::PowerCut | Self::Blackout | Self::Full => Of::Process,
            Self::Skew | Self::Beyond => Of::Clock,
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
    /// Of [`Fault::Skew`] and [`Fault::Beyond`]: by how many milliseconds the clock is off.
    pub off_ms: i64,
    /// Of [`Fault::Full`]: how many bytes there is still room for.
    pub room: u64,
    /// Of power cuts: of what the disk keeps.
    pub draw: u64,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Act {
    fn ends(&self) -> Duration {
        self.at + self.lasts
    }

    /// Whether the two must not be at one time.
    fn clashes(&self, other: &Self) -> bool {
        let same = self.fault.of() == other.fault.of() && self.node == other.node;
        let beyond = self.fault == Fault::Beyond && other.fault == Fault::Beyond;
        let of_all = |one: &Self, two: &Self| one.fault == Fault::Blackout && two.fault.of() == Of::Process;
        same || beyond || of_all(self, other) || of_all(other, self)
    }

    /// Whether the node of this one can have heard and done what it has to: no other fault has to do with its process, nor
    /// with its ways, from some time before on.
    #[must_use]
    pub fn undisturbed(&self, all: &[Self]) -> bool {
        let hits = |one: &Self| match one.fault {
            Fault::Blackout | Fault::Partition => true,
            Fault::OneWay => one.node == self.node || one.other == self.node,
            Fault::Skew | Fault::Beyond | Fault::Loss => false,
            _ => one.node == self.node,
        };
        let near = |one: &&Self| one.at < self.ends() && one.ends() + SETTLED > self.at;
        !all.iter().filter(near).any(hits)
    }
}

/// The faults of a story on so many nodes (two at least), in the order of their beginnings; the last one ends before `until`.
#[must_use]
pub fn schedule(seed: &Seed, nodes: usize, until: Duration, of: Kinds) -> Vec<Act> {
    debug_assert!(nodes >= 2, "a way leads to somebody");
    let mut rng = seed.child("faults").rng();
    let mut kinds = Fault::ALL.to_vec();
    rng.shuffle(&mut kinds);
    let drawn = 2 + usize::try_from(rng.below(kinds.len() as u64 - 1)).unwrap_or(0);
    // A short story has short faults.
    let (pause, share) = match of {
        Kinds::Drawn => {
            kinds.truncate(drawn);
            (3_500, 3)
        }
        Kinds::Each => (800, 8),
    };
    let longest = u64::try_from(until.as_millis()).unwrap_or(u64::MAX) / share;
    let (mut acts, mut at, mut to_come) = (Vec::<Act>::new(), FIRST, kinds.clone());
    while at < until {
        at += Duration::from_millis(rng.between(200, pause));
        let fault = match of {
            Kinds::Drawn => *rng.pick(&kinds).unwrap_or(&Fault::Kill),
            Kinds::Each => *rng.pick(&to_come).unwrap_or(&Fault::Kill),
        };
        let act = drawn_act(&mut rng, at, fault, nodes, longest);
        let going = || acts.iter().filter(|before| before.ends() + REST > at);
        let taken = going().any(|before| before.clashes(&act));
        if !taken && going().count() < AT_ONCE && act.ends() < until {
            acts.push(act);
            to_come.retain(|kind| *kind != fault);
            if to_come.is_empty() {
                to_come.clone_from(&kinds);
            }
        }
    }
    acts
}

fn drawn_act(rng: &mut Rng, at: Duration, fault: Fault, nodes: usize, longest: u64) -> Act {
    let mut below = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap_or(0);
    let (node, further) = (below(nodes), 1 + below(nodes - 1));
    let percent = 3 + u32::try_from(below(38)).unwrap_or(0);
    let (least, most) = fault.lasts();
    let lasts = Duration::from_millis(rng.between(least, most.min(longest).max(least)));
    let (behind, off) = (rng.chance(0.5), i64::try_from(rng.between(0, 1_700)).unwrap_or(0));
    let off_ms = match (fault, behind) {
        (Fault::Beyond, true) => -BEYOND_MS - off,
        (Fault::Beyond, false) => SKEW_MS + BEYOND_MS + off,
        _ => off % (SKEW_MS + 1),
    };
    // So little that a node which hardly writes comes to the end of it too.
    let (room, draw) = (rng.below(256), rng.u64());
    Act { at, fault, node, other: (node + further) % nodes, percent, off_ms, room, draw, lasts }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(90);

    #[test]
    fn faults_overlap_but_not_on_one_process_and_never_too_many() {
        let (mut kinds, mut most, mut mixes, mut undisturbed) = (BTreeSet::new(), 0, BTreeSet::new(), 0);
        for seed in 0..200 {
            let acts = schedule(&Seed::new(seed), 4, LONG, Kinds::Drawn);
            assert!(acts.len() >= 8, "seed {seed}: {}", acts.len());
            for (number, act) in acts.iter().enumerate() {
                let at_once = at_once(&acts[..number], act);
                most = most.max(at_once.len() + 1);
                sound(seed, act, &at_once);
                assert!(act.ends() < LONG, "seed {seed}: {act:?}");
            }
            let of_seed: BTreeSet<Fault> = acts.iter().map(|act| act.fault).collect();
            kinds.extend(of_seed.iter().copied());
            mixes.insert(of_seed.into_iter().collect::<Vec<_>>());
            undisturbed +=
                acts.iter().filter(|act| act.fault == Fault::Beyond && act.undisturbed(&acts)).count();
        }
        assert_eq!((kinds.len(), most), (Fault::ALL.len(), AT_ONCE));
        assert!(mixes.len() > 50, "{} mixes", mixes.len());
        assert!(undisturbed > 50, "{undisturbed} clocks beyond the bound must be seen to freeze their nodes");
    }

    fn at_once<'a>(before: &'a [Act], act: &Act) -> Vec<&'a Act> {
        before.iter().filter(|other| other.at <= act.at && other.ends() > act.at).collect()
    }

    fn sound(seed: u64, act: &Act, at_once: &[&Act]) {
        let is_process = |act: &Act| act.fault.of() == Of::Process;
        let again = |other: &Act| match (act.fault, other.fault) {
            (Fault::Blackout, _) if is_process(other) => true,
            (_, Fault::Blackout) if is_process(act) => true,
            (Fault::Beyond, Fault::Beyond) => true,
            _ => other.node == act.node && other.fault.of() == act.fault.of(),
        };
        assert!(!at_once.iter().any(|other| again(other)), "seed {seed}: {act:?} {at_once:?}");
        assert!(act.node < 4 && act.other < 4 && act.node != act.other, "seed {seed}: {act:?}");
        assert!((3..=40).contains(&act.percent), "seed {seed}: {act:?}");
        assert!(act.lasts <= Duration::from_secs(10), "seed {seed}: {act:?}");
        let off = match act.fault {
            Fault::Beyond => act.off_ms <= -800 || act.off_ms >= 1_290,
            _ => (0..500).contains(&act.off_ms),
        };
        assert!(off, "seed {seed}: {act:?}");
    }

    #[test]
    fn a_story_of_each_kind_has_each_kind() {
        let (short, mut at_one_time) = (Duration::from_secs(27), 0);
        for seed in 0..200 {
            let acts = schedule(&Seed::new(seed), 4, short, Kinds::Each);
            let kinds: BTreeSet<Fault> = acts.iter().map(|act| act.fault).collect();
            assert_eq!(kinds.len(), Fault::ALL.len(), "seed {seed}: {acts:?}");
            for (number, act) in acts.iter().enumerate() {
                let at_once = at_once(&acts[..number], act);
                at_one_time = at_one_time.max(at_once.len() + 1);
                sound(seed, act, &at_once);
            }
        }
        assert_eq!(at_one_time, AT_ONCE);
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        let acts = |seed| schedule(&Seed::new(seed), 4, LONG, Kinds::Drawn);
        assert_eq!(acts(7), acts(7));
        assert_ne!(acts(7), acts(8));
    }
}
