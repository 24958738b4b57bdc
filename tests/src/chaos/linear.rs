//! Whether what clients saw could have been, if the keys were registers, of which several are read and written at one moment.
//!
//! * It decides: whether the operations of keys that hang together by batches and scans have an order in which each stands between
//!   its call and its return ([`check`]; the checker is porcupine-rs, which is not ours), and at which one they no longer have.
//! * It never does: believe what a mesh says of versions and levels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, check_operations_timeout};

use super::history::{Did, Operation, Outcome, Value};

/// Why a history cannot have been, or is not known to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// The operations of some keys have no order.
    NoOrder {
        /// Which keys: one, or those that hang together.
        keys: Vec<String>,
        /// Until this one returned they had one. A batch has several lines.
        shown_by: Vec<Operation>,
        /// The last ones of the keys before it, in the order of their calls.
        before: Vec<Operation>,
    },
    /// A value was written twice: nothing can be said.
    Twice {
        /// Of which key.
        key: String,
        /// Which.
        value: Value,
    },
    /// The checker did not come to an end.
    NotKnown {
        /// With which keys.
        keys: Vec<String>,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrder { keys, shown_by, before } => {
                write!(f, "not linearizable: {}. Before:", keys.join(", "))?;
                before.iter().try_for_each(|one| write!(f, "\n  {one}"))?;
                f.write_str("\nand then this cannot be:")?;
                shown_by.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
            Self::Twice { key, value } => write!(f, "value {value} of key {key} was written twice"),
            Self::NotKnown { keys } => write!(f, "the checker came to no end with {}", keys.join(", ")),
        }
    }
}

/// Whether keys are registers.
///
/// # Errors
/// [`Anomaly`], of the first keys that have one.
pub fn check(history: &[Operation], within: Duration) -> Result<(), Anomaly> {
    let all = wholes(history);
    for keys in groups(&all) {
        let of_keys: Vec<_> = all.iter().filter(|one| keys.contains(&one.lines[0].key)).collect();
        if let Some((key, value)) = twice(&of_keys) {
            return Err(Anomaly::Twice { key, value });
        }
        match verdict(&keys, &of_keys, u64::MAX, within) {
            CheckResult::Ok => {}
            CheckResult::Unknown => return Err(Anomaly::NotKnown { keys }),
            CheckResult::Illegal => {
                let (shown_by, before) = first_wrong(&keys, &of_keys, within);
                return Err(Anomaly::NoOrder { keys, shown_by, before });
            }
        }
    }
    Ok(())
}

/// What was done at one moment: the lines of a batch, or one alone.
#[derive(Debug)]
struct Whole<'a> {
    lines: Vec<&'a Operation>,
}

impl Whole<'_> {
    fn call(&self) -> u64 {
        self.lines[0].call_ns
    }

    /// When it had been done for sure, if that was by then.
    fn ended(&self, until: u64) -> Option<u64> {
        let one = self.lines[0];
        one.return_ns.filter(|back| *back <= until && one.outcome == Outcome::Ok)
    }

    fn failed(&self) -> bool {
        self.lines[0].outcome == Outcome::Fail
    }

    fn written(&self) -> impl Iterator<Item = (&str, Value)> {
        self.lines.iter().filter_map(|line| Some((line.key.as_str(), line.writes()?)))
    }

    fn seen(&self) -> impl Iterator<Item = (&str, Value)> {
        self.lines.iter().filter_map(|line| Some((line.key.as_str(), line.saw()?)))
    }
}

fn wholes(history: &[Operation]) -> Vec<Whole<'_>> {
    let mut batches: BTreeMap<u64, usize> = BTreeMap::new();
    let mut all: Vec<Whole<'_>> = Vec::new();
    for line in history {
        let place = line.batch.map_or(all.len(), |batch| *batches.entry(batch).or_insert(all.len()));
        match all.get_mut(place) {
            Some(whole) => whole.lines.push(line),
            None => all.push(Whole { lines: vec![line] }),
        }
    }
    all
}

/// Keys that hang together, each group in its order.
fn groups(all: &[Whole<'_>]) -> Vec<Vec<String>> {
    let together: BTreeSet<BTreeSet<&String>> =
        all.iter().map(|one| one.lines.iter().map(|line| &line.key).collect()).collect();
    let mut groups: Vec<BTreeSet<&String>> = Vec::new();
    for keys in together {
        let (with, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| !group.is_disjoint(&keys));
        groups = apart;
        groups.push(with.into_iter().flatten().chain(keys).collect());
    }
    groups.into_iter().map(|group| group.into_iter().cloned().collect()).collect()
}

fn twice(of_keys: &[&Whole<'_>]) -> Option<(String, Value)> {
    let mut written: Vec<_> = of_keys.iter().flat_map(|one| one.written()).collect();
    written.sort_unstable();
    written.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| (pair[0].0.to_owned(), pair[0].1))
}

/// Registers, told by their places, and what is done to them for sure.
#[derive(Debug, Clone)]
struct Registers;

#[derive(Debug, Clone, Copy)]
enum Step {
    Read(Option<Value>),
    Set(Option<Value>),
    Cas(Option<Value>, Value),
}

/// What is done at one moment, key by key.
#[derive(Debug, Clone)]
struct Steps {
    each: Vec<(usize, Step)>,
    /// It may as well never have run: then it is one that runs behind all others.
    may: bool,
}

impl Model for Registers {
    type State = Vec<Option<Value>>;
    type Op = Steps;
    type Metadata = ();

    fn init() -> Self::State {
        Vec::new()
    }

    fn step(state: &Self::State, op: &Steps) -> (bool, Self::State) {
        let is_so = op.each.iter().all(|(place, step)| match step {
            Step::Read(value) | Step::Cas(value, _) => state.get(*place).copied().flatten() == *value,
            Step::Set(_) => true,
        });
        let mut after = state.clone();
        for (place, step) in op.each.iter().filter(|_| is_so) {
            after.resize(after.len().max(place + 1), None);
            match *step {
                Step::Read(_) => {}
                Step::Set(value) => after[*place] = value,
                Step::Cas(_, new) => after[*place] = Some(new),
            }
        }
        // What is behind the last one that is there is not there, however often it was looked at.
        while after.last() == Some(&None) {
            after.pop();
        }
        (is_so || op.may, after)
    }
}

/// Whether what the clients of some keys had seen by a time has an order.
///
/// Of what may have been done, what wrote a value that somebody saw was done before he had it: by then it is done. What wrote only
/// values that nobody saw is as if it had never been, for whatever followed it did not ask what was there. So only deletions stay
/// open-ended, of which nobody can say whose absence he saw: one that never ran is one that runs behind all others.
fn verdict(keys: &[String], of_keys: &[&Whole<'_>], until: u64, within: Duration) -> CheckResult {
    let mut seen: BTreeMap<(&str, Value), u64> = BTreeMap::new();
    for one in of_keys {
        for value in one.seen() {
            if let Some(back) = one.ended(until) {
                seen.entry(value).and_modify(|first| *first = back.min(*first)).or_insert(back);
            }
        }
    }
    let steps = of_keys.iter().filter(|one| !one.failed() && one.call() <= until);
    let steps = steps.filter_map(|one| {
        let was_seen = one.written().filter_map(|value| seen.get(&value)).min();
        let deletes = one.lines.iter().any(|line| line.did == Did::Delete);
        let (back, may) = match (one.ended(until), was_seen) {
            (Some(back), _) => (back, false),
            (None, Some(first)) => ((*first).max(one.call()), false),
            (None, None) if deletes => (u64::MAX, true),
            (None, None) => return None,
        };
        let step = |line: &&Operation| {
            let step = match line.did {
                Did::Read(value) => Step::Read(value),
                Did::Write(value) => Step::Set(Some(value)),
                Did::Cas { expected, new } => Step::Cas(expected, new),
                Did::Delete => Step::Set(None),
            };
            (keys.binary_search(&line.key).expect("it is one of them"), step)
        };
        let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        Some(porcupine_rs::Operation::<Registers> {
            client_id: Some(one.lines[0].process),
            call_time: time(one.call()),
            return_time: time(back),
            op: Steps { each: one.lines.iter().map(step).collect(), may },
            metadata: None,
        })
    });
    check_operations_timeout(&steps.collect::<Vec<_>>(), within)
}

/// Operations that are shown before the one that is wrong.
const SHOWN: usize = 12;

/// The operation until whose return the others had an order, and the last ones before. What has an order has one at each
/// earlier time, so halving finds it.
fn first_wrong(
    keys: &[String],
    of_keys: &[&Whole<'_>],
    within: Duration,
) -> (Vec<Operation>, Vec<Operation>) {
    let mut ends: Vec<&Whole<'_>> =
        of_keys.iter().copied().filter(|one| one.ended(u64::MAX).is_some()).collect();
    let until = |one: &Whole<'_>| one.ended(u64::MAX).unwrap_or(u64::MAX);
    ends.sort_by_key(|one| until(one));
    let sound =
        ends.partition_point(|one| verdict(keys, of_keys, until(one), within) != CheckResult::Illegal);
    let wrong = ends[sound.min(ends.len() - 1)];
    // Whatever wrote what was seen is shown too, however long ago, or though it was refused.
    let source = |one: &Whole<'_>| one.written().any(|value| wrong.seen().any(|seen| seen == value));
    let mut before: Vec<&Whole<'_>> = of_keys
        .iter()
        .copied()
        .filter(|one| one.call() <= until(wrong) && !std::ptr::eq(*one, wrong))
        .filter(|one| !one.failed() || source(one))
        .collect();
    before.sort_by_key(|one| one.call());
    let skipped = before.len().saturating_sub(SHOWN);
    let shown = before.iter().enumerate().filter(|(number, one)| *number >= skipped || source(one));
    let lines = |one: &Whole<'_>| one.lines.iter().map(|line| (*line).clone()).collect::<Vec<_>>();
    (lines(wrong), shown.flat_map(|(_, one)| lines(one)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::history::sound::{both, history as sound, on, op, refused, swap, unknown};
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn what_may_be_is_found_to_be_so() {
        assert_eq!(check(&sound(), LONG), Ok(()));
        let keys = |all: &[&str]| all.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(groups(&wholes(&sound())), [keys(&["k"]), keys(&["l", "m"])]);
    }

    /// The sound history, and after it what must not be.
    fn anomaly(more: &[Operation]) -> Anomaly {
        let all: Vec<_> = sound().into_iter().chain(more.iter().cloned()).collect();
        check(&all, LONG).expect_err(&format!("not seen: {more:?}"))
    }

    #[test]
    fn each_anomaly_is_refused_and_the_operation_that_shows_it_is_named() {
        // Each last one cannot be after those before it.
        let stale_read = vec![op(1, Did::Write(10), 100, 110), op(2, Did::Read(Some(7)), 120, 130)];
        let lost_write = vec![op(1, Did::Write(10), 100, 110), op(2, swap(Some(7), 11), 120, 130)];
        let after_its_refusal =
            vec![refused(op(1, Did::Write(10), 100, 110)), op(2, Did::Read(Some(10)), 120, 130)];
        let goes_back = vec![
            unknown(op(1, Did::Write(10), 100, 0)),
            op(2, Did::Read(Some(10)), 110, 120),
            op(2, Did::Read(Some(7)), 130, 140),
        ];
        let both_swap = vec![op(1, swap(Some(7), 10), 100, 110), op(2, swap(Some(7), 11), 100, 112)];
        let before_it_was_written =
            vec![op(2, Did::Read(Some(10)), 100, 110), op(1, Did::Write(10), 120, 130)];
        let out_of_nothing = vec![op(2, Did::Read(Some(99)), 100, 110)];
        // The one deletion that may have been was seen already.
        let comes_and_goes = vec![op(1, Did::Read(None), 100, 110), op(1, Did::Read(Some(7)), 120, 130)];
        let shown = [
            (stale_read, 1),
            (lost_write, 1),
            (after_its_refusal, 1),
            (goes_back, 2),
            (both_swap, 1),
            (before_it_was_written, 0),
            (out_of_nothing, 0),
            (comes_and_goes, 0),
        ];
        for (more, wrong) in shown {
            match anomaly(&more) {
                Anomaly::NoOrder { shown_by, .. } => assert_eq!(shown_by, [more[wrong].clone()], "{more:?}"),
                other => panic!("{other}"),
            }
        }
        let twice = anomaly(&[op(1, Did::Write(7), 100, 110)]);
        assert_eq!(twice, Anomaly::Twice { key: "k".to_owned(), value: 7 });
    }

    /// What must not be of two keys, though each by itself may be so: all lines without their batch are sound.
    fn of_both(what: &str, more: Vec<Operation>) {
        let Anomaly::NoOrder { keys, shown_by, .. } = anomaly(&more) else {
            panic!("{what}: another anomaly")
        };
        assert_eq!(keys, ["l", "m"], "{what}");
        assert!(shown_by.iter().all(|line| more.contains(line)), "{what}: {shown_by:?}");
        let apart: Vec<_> =
            sound().into_iter().chain(more).map(|line| Operation { batch: None, ..line }).collect();
        assert_eq!(check(&apart, LONG), Ok(()), "{what}, key by key");
    }

    #[test]
    fn a_batch_that_is_applied_or_read_half_is_found() {
        let written = |process| both(20, process, [Did::Write(20), Did::Write(21)], 100, 130);
        let halves = |l, m, call, back| both(21, 3, [Did::Read(Some(l)), Did::Read(Some(m))], call, back);
        of_both("a batch is read half", [written(1), halves(20, 4, 110, 120)].concat());
        of_both("a batch is read half, the other way round", [written(1), halves(3, 21, 110, 120)].concat());
        let one_by_one =
            [on("l", 3, Did::Read(Some(20)), 105, 110), on("m", 4, Did::Read(Some(4)), 115, 120)];
        of_both("its second half comes after its first", [written(1).to_vec(), one_by_one.to_vec()].concat());
        let open = written(1).map(unknown);
        let half = [
            halves(20, 4, 140, 150),
            halves(20, 4, 160, 170).map(|line| Operation { batch: Some(22), ..line }),
        ];
        of_both("half of it was never applied", [open.to_vec(), half.concat()].concat());
        let crossed = [
            both(23, 1, [Did::Write(30), Did::Write(31)], 200, 230),
            both(24, 2, [Did::Write(32), Did::Write(33)], 200, 230),
            both(25, 3, [Did::Read(Some(30)), Did::Read(Some(33))], 240, 250),
        ];
        of_both("of two batches each is the last one by half", crossed.concat());
        let stands = [
            both(26, 1, [swap(Some(3), 40), Did::Write(41)], 300, 330),
            both(27, 2, [Did::Write(42), swap(Some(4), 43)], 300, 330),
            both(28, 3, [Did::Read(Some(42)), Did::Read(Some(41))], 340, 350),
        ];
        of_both("the conditions of both held, and each was first", stands.concat());
    }

    #[test]
    fn keys_are_apart_and_many_open_ends_are_no_burden() {
        let mut all = sound();
        let other = |one: Operation| Operation { key: format!("other {}", one.key), batch: None, ..one };
        all.extend(sound().into_iter().map(other));
        for n in 0..400 {
            all.push(unknown(op(9, Did::Write(1_000 + n), 200 + n, 0)));
            let dids = [Did::Write(1_000 + n), Did::Write(1_000 + n)];
            all.extend(both(1_000 + n, 9, dids, 200 + n, 0).map(unknown));
        }
        for n in 0..8 {
            all.push(unknown(op(8, Did::Delete, 300 + n, 0)));
        }
        all.push(op(1, Did::Read(Some(1_020)), 700, 710));
        all.push(op(1, Did::Read(None), 711, 720));
        all.extend(both(2_000, 1, [Did::Read(Some(1_030)), Did::Read(Some(1_030))], 721, 730));
        assert_eq!(check(&all, LONG), Ok(()));
        all.push(op(1, Did::Read(Some(1_020)), 721, 730));
        let Err(Anomaly::NoOrder { keys, before, .. }) = check(&all, LONG) else { panic!("not seen") };
        assert_eq!(keys, ["k"]);
        assert!(before.iter().any(|one| one.did == Did::Write(1_020)), "{before:?}");
    }
}
