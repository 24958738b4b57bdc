//! Whether what clients saw could have been, if the keys were registers, of which several are read and written at one moment.
//!
//! * It decides: whether the operations of keys that hang together by batches and scans have an order in which each stands between
//!   its call and its return ([`check`]; the checker is porcupine-rs, which is not ours), and at which one they no longer have.
//! * It never does: believe what a mesh says of versions and levels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, check_operations_timeout};

use crate::operation::{Did, Operation, Outcome, Value};

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
    for (keys, of_keys) in groups(&all) {
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
        self.lines.iter().filter_map(|line| Some((line.key.as_str(), line.did.writes()?)))
    }

    fn seen(&self) -> impl Iterator<Item = (&str, Value)> {
        self.lines.iter().filter_map(|line| Some((line.key.as_str(), line.did.saw()?)))
    }

    /// By when it was done, of one whose outcome is not known, as somebody had seen what it wrote. Of a deletion nobody can say whose
    /// absence he saw. None: it is as if it had never been.
    fn shown_by(&self, seen: &FirstSeen<'_>) -> Option<u64> {
        let first = self.written().filter_map(|value| seen.get(&value)).min().copied();
        first.or_else(|| self.lines.iter().any(|line| line.did == Did::Delete).then_some(NEVER))
    }
}

/// When somebody had first seen a value of a key.
type FirstSeen<'a> = BTreeMap<(&'a str, Value), u64>;

/// The end of what is open-ended.
const NEVER: u64 = u64::MAX;

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

/// Keys that hang together, each group in its order, and what was done with them.
fn groups<'a, 'b>(all: &'b [Whole<'a>]) -> Vec<(Vec<String>, Vec<&'b Whole<'a>>)> {
    let together: BTreeSet<BTreeSet<&String>> =
        all.iter().map(|one| one.lines.iter().map(|line| &line.key).collect()).collect();
    let mut groups: Vec<BTreeSet<&String>> = Vec::new();
    for keys in together {
        let (with, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| !group.is_disjoint(&keys));
        groups = apart;
        groups.push(with.into_iter().flatten().chain(keys).collect());
    }
    let mut places: BTreeMap<&String, usize> = BTreeMap::new();
    for (place, keys) in groups.iter().enumerate() {
        places.extend(keys.iter().map(|key| (*key, place)));
    }
    let mut found: Vec<(Vec<String>, Vec<&Whole<'_>>)> =
        groups.into_iter().map(|keys| (keys.into_iter().cloned().collect(), Vec::new())).collect();
    all.iter().for_each(|one| found[places[&one.lines[0].key]].1.push(one));
    found
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
    let seen = first_seen(of_keys, until);
    let steps = of_keys.iter().filter(|one| !one.failed() && one.call() <= until);
    let steps = steps.filter_map(|one| {
        let (back, may) = match one.ended(until) {
            Some(back) => (back, false),
            None => match one.shown_by(&seen)? {
                NEVER => (NEVER, true),
                first => (first.max(one.call()), false),
            },
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

/// When values had first been seen, of what had ended by a time: by whoever was told, or by whoever built on them and was seen himself.
fn first_seen<'a>(of_keys: &[&'a Whole<'_>], until: u64) -> FirstSeen<'a> {
    let mut all = FirstSeen::new();
    let begun = of_keys.iter().copied().filter(|one| !one.failed() && one.call() <= until);
    let (ended, open): (Vec<&Whole<'_>>, Vec<&Whole<'_>>) = begun.partition(|one| one.ended(until).is_some());
    for one in ended {
        let by = one.ended(until).unwrap_or(NEVER);
        for value in one.seen() {
            learns(&mut all, value, by);
        }
    }
    let mut is_seen = |one: &&'a Whole<'_>| {
        let by = one.shown_by(&all);
        by.is_some_and(|by| one.seen().any(|value| learns(&mut all, value, by)))
    };
    while open.iter().any(&mut is_seen) {}
    all
}

/// Somebody had seen a value by then: whether that is news.
fn learns<'a>(all: &mut FirstSeen<'a>, value: (&'a str, Value), by: u64) -> bool {
    let is_news = all.get(&value).is_none_or(|known| *known > by);
    if is_news {
        all.insert(value, by);
    }
    is_news
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
    use super::*;
    use crate::sound::{both, history as sound, on, op, refused, swap, unknown};

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_may_be_is_found_to_be_so() {
        assert_eq!(check(&sound(), LONG), Ok(()));
        let keys = |all: &[&str]| all.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let all = sound();
        let groups: Vec<_> = groups(&wholes(&all)).into_iter().map(|(keys, of)| (keys, of.len())).collect();
        let of_one = all.iter().filter(|line| line.key == "k").count();
        assert_eq!(groups, [(keys(&["k"]), of_one), (keys(&["l", "m"]), 8)]);
    }

    #[test]
    fn what_may_have_been_done_may_have_been_built_on() {
        // Of each only the last one was seen. may have been done one built on the other, and only the last one was seen.
        let chain = [
            unknown(op(1, Did::Write(1), 0, 0)),
            unknown(op(2, swap(Some(1), 2), 5, 0)),
            unknown(op(4, swap(Some(2), 3), 7, 0)),
            op(3, Did::Read(Some(3)), 10, 12),
        ];
        assert_eq!(check(&chain, LONG), Ok(()));
        assert!(check(&chain[1..], LONG).is_err(), "what was there nobody wrote");
        let deletes = both(1, 2, [swap(Some(1), 2), Did::Delete], 10, 0).map(unknown);
        let seen = [on("m", 3, Did::Read(None), 12, 14), on("l", 3, Did::Read(Some(9)), 1, 2)];
        let wrote = [on("m", 1, Did::Write(8), 0, 4), on("l", 1, Did::Write(9), 0, 4)];
        let written = unknown(on("l", 1, Did::Write(1), 5, 0));
        let all = [wrote.to_vec(), vec![written], deletes.to_vec(), seen.to_vec()].concat();
        assert_eq!(check(&all, LONG), Ok(()));
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

    /// What was done at one moment.
    fn step(process: u32, dids: &[(&str, Did)], call: u64, back: Option<u64>) -> Vec<Operation> {
        // No two of one process begin together.
        let batch = (dids.len() > 1).then_some(u64::from(process) << 32 | call);
        let line = |(key, did): &(&str, Did)| Operation { batch, ..on(key, process, *did, call, call) };
        let outcome = if back.is_some() { Outcome::Ok } else { Outcome::Unknown };
        dids.iter().map(|did| Operation { return_ns: back, outcome, ..line(did) }).collect()
    }

    #[test]
    fn a_step_that_cannot_be_among_others_that_may_is_found() {
        let write = Did::Write;
        let read = |value| Did::Read(Some(value));
        let reads = |value, call, back| step(3, &[("0", read(value))], call, Some(back));
        let scan = |a, b, call, back| step(3, &[("0", read(a)), ("1", read(b))], call, Some(back));
        let first = step(1, &[("0", write(1))], 0, Some(10));
        let open = step(2, &[("0", write(2))], 5, None);
        let sound = [
            first.clone(),
            open.clone(),
            reads(1, 12, 14),
            reads(2, 20, 24),
            step(1, &[("0", swap(Some(2), 3))], 30, Some(34)),
            reads(3, 40, 44),
            // A batch under a condition, and one that may have been written, and was.
            step(1, &[("0", swap(Some(3), 4)), ("1", write(5))], 50, Some(60)),
            step(2, &[("0", write(6)), ("1", write(7))], 61, None),
            scan(4, 5, 62, 64),
            step(4, &[("1", read(7))], 66, Some(70)),
            scan(6, 7, 72, 74),
            // One that nobody has seen, with a deletion that may come at any time; and keys that have nothing to do with these.
            step(5, &[("0", write(8)), ("1", Did::Delete)], 75, None),
            scan(6, 7, 76, 78),
            step(6, &[("7", write(1)), ("8", Did::Delete)], 0, Some(90)),
        ]
        .concat();
        assert_eq!(check(&sound, LONG), Ok(()));
        let keys: Vec<_> = groups(&wholes(&sound)).into_iter().map(|(keys, _)| keys.concat()).collect();
        assert_eq!(keys, ["01", "78"]);
        let none = Did::Read(None);
        let anomalies = [
            ("a lost write", reads(1, 45, 48)),
            ("both swap", step(4, &[("0", swap(Some(2), 9))], 31, Some(35))),
            ("it goes back", reads(2, 45, 48)),
            ("out of nothing", reads(99, 45, 48)),
            ("a batch that is read half", scan(6, 5, 63, 74)),
            ("a batch half of which is gone", reads(3, 79, 80)),
            ("of a batch the other half was never written", step(4, &[("1", none)], 61, Some(62))),
            ("a condition that did not hold", step(4, &[("1", read(5)), ("0", write(9))], 80, Some(82))),
            (
                "two batches under conditions on each other's keys",
                step(4, &[("1", swap(None, 10)), ("0", write(9))], 51, Some(59)),
            ),
        ];
        for (what, anomaly) in anomalies {
            let history = [sound.clone(), anomaly.clone()].concat();
            let found = check(&history, LONG);
            assert!(matches!(found, Err(Anomaly::NoOrder { .. })), "{what}: {anomaly:?}: {found:?}");
        }
        // A batch of which half was written, and that half was seen, in whatever order: its other half is missed.
        let batch = [("0", write(2)), ("1", write(3))];
        let half = |was| check(&[first.clone(), step(2, &batch, 12, None), was].concat(), LONG);
        assert!(half(step(3, &[("0", read(2)), ("1", none)], 20, Some(22))).is_err());
        assert_eq!(half(step(3, &[("0", read(2)), ("1", read(3))], 20, Some(22))), Ok(()));
        // Two reads, each of one key: the second one comes after the first, and the batch between them.
        let late = [step(3, &[("0", read(2))], 14, Some(16)), step(4, &[("1", none)], 18, Some(20))];
        let apart = [first.clone(), step(2, &batch, 12, Some(40)), late.concat()].concat();
        assert!(check(&apart, LONG).is_err(), "its second half comes after its first");
        // Not one: the write of unknown outcome may come later, if nobody builds on it.
        assert_eq!(check(&[first, open, reads(1, 20, 24)].concat(), LONG), Ok(()));
    }
}
