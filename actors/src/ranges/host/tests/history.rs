//! What clients saw, and whether it could have been: the checker is porcupine-rs, which is not ours.
//!
//! Whatever a client does with some keys is one step: it sees what they are, and makes them something else, all at one moment. So a
//! batch, a scan and a swap are steps as a read and a write are. Keys that no step has together are checked apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

/// One value is never written twice, so a value says which write it is.
pub(super) type Value = u64;

/// Keys, and what each is; none: it is not there.
pub(super) type Keys = Vec<(usize, Option<Value>)>;

/// What a client did with some keys at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) client: u32,
    /// What they were.
    pub(super) saw: Keys,
    /// What it made of them.
    pub(super) wrote: Keys,
    pub(super) call: u64,
    /// None where nobody knows whether it was done.
    pub(super) back: Option<u64>,
}

impl Seen {
    fn keys(&self) -> impl Iterator<Item = usize> {
        self.saw.iter().chain(&self.wrote).map(|(key, _)| *key)
    }
}

/// Keys that are registers, of which several are read and written at one moment. They are told by their places.
#[derive(Debug, Clone)]
struct Registers;

#[derive(Debug, Clone)]
struct Step {
    saw: Keys,
    wrote: Keys,
    /// It may as well never have run: then it is one that runs behind all others.
    may: bool,
}

impl Model for Registers {
    type State = Vec<Option<Value>>;
    type Op = Step;
    type Metadata = ();

    fn init() -> Self::State {
        Vec::new()
    }

    fn step(state: &Self::State, op: &Step) -> (bool, Self::State) {
        let is_so = op.saw.iter().all(|(place, value)| state.get(*place).copied().flatten() == *value);
        let mut after = state.clone();
        if is_so {
            for (place, value) in &op.wrote {
                after.resize(after.len().max(place + 1), None);
                after[*place] = *value;
            }
        }
        // Keys behind the last one that is there are not there, however many were written.
        while after.last() == Some(&None) {
            after.pop();
        }
        (is_so || op.may, after)
    }
}

/// Whether a history is linearizable.
pub(super) fn check(seen: &[Seen]) -> Result<(), String> {
    for keys in groups(seen) {
        let of_keys: Vec<_> = seen.iter().filter(|seen| seen.keys().any(|key| keys.contains(&key))).collect();
        match check_operations_timeout(&steps(&keys, &of_keys), Duration::from_secs(60)) {
            CheckResult::Ok => {}
            CheckResult::Illegal => {
                let told: Vec<_> = of_keys.iter().map(|seen| format!("{seen:?}")).collect();
                return Err(format!("keys {keys:?} are not linearizable:\n{}", told.join("\n")));
            }
            CheckResult::Unknown => return Err(format!("keys {keys:?}: the checker did not come to an end")),
        }
    }
    Ok(())
}

/// Keys that hang together by steps which have several.
fn groups(seen: &[Seen]) -> Vec<Vec<usize>> {
    let mut groups: Vec<BTreeSet<usize>> = Vec::new();
    let all: BTreeSet<BTreeSet<usize>> = seen.iter().map(|seen| seen.keys().collect()).collect();
    for keys in all {
        let (with, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| !group.is_disjoint(&keys));
        groups = apart;
        groups.push(with.into_iter().flatten().chain(keys).collect());
    }
    groups.into_iter().map(|group| group.into_iter().collect()).collect()
}

/// Of what may have been done, what wrote a value that somebody saw was done by the time he had it. What wrote only values that nobody saw
/// is as if it had never been, for whatever followed it did not ask what was there. Deletions stay open-ended: of those nobody can say whose
/// absence he saw.
fn steps(keys: &[usize], seen: &[&Seen]) -> Vec<Operation<Registers>> {
    let mut known: BTreeMap<(usize, Value), u64> = BTreeMap::new();
    for (seen, back) in seen.iter().filter_map(|seen| Some((seen, seen.back?))) {
        for (key, value) in seen.saw.iter().filter_map(|(key, value)| Some((*key, (*value)?))) {
            known.entry((key, value)).and_modify(|first| *first = back.min(*first)).or_insert(back);
        }
    }
    let placed = |of: &Keys| -> Keys {
        of.iter().map(|(key, value)| (keys.binary_search(key).expect("it is one of them"), *value)).collect()
    };
    let step = |seen: &&Seen| {
        let was_seen = seen.wrote.iter().filter_map(|(key, value)| known.get(&(*key, (*value)?)));
        let deletes = seen.wrote.iter().any(|(_, value)| value.is_none());
        let (back, may) = match (seen.back, was_seen.min()) {
            (Some(back), _) => (back, false),
            (None, Some(first)) => ((*first).max(seen.call), false),
            (None, None) if deletes => (i64::MAX as u64, true),
            (None, None) => return None,
        };
        Some(Operation::<Registers> {
            client_id: Some(seen.client),
            call_time: seen.call as i64,
            return_time: back as i64,
            op: Step { saw: placed(&seen.saw), wrote: placed(&seen.wrote), may },
            metadata: None,
        })
    };
    seen.iter().filter_map(step).collect()
}

/// Histories of which we know what they are.
pub(super) fn calibrate() {
    let op = |client, saw: &[(usize, Option<Value>)], wrote: &[(usize, Option<Value>)], call, back| Seen {
        client,
        saw: saw.to_vec(),
        wrote: wrote.to_vec(),
        call,
        back,
    };
    let read = |value, call, back| op(3, &[(0, value)], &[], call, Some(back));
    let sound = vec![
        op(1, &[], &[(0, Some(1))], 0, Some(10)),
        op(2, &[], &[(0, Some(2))], 5, None),
        read(Some(1), 12, 14),
        read(Some(2), 20, 24),
        op(1, &[(0, Some(2))], &[(0, Some(3))], 30, Some(34)),
        read(Some(3), 40, 44),
        // A batch under a condition, and one that may have been written, and was.
        op(1, &[(0, Some(3))], &[(0, Some(4)), (1, Some(5))], 50, Some(60)),
        op(2, &[], &[(0, Some(6)), (1, Some(7))], 61, None),
        op(3, &[(0, Some(4)), (1, Some(5))], &[], 62, Some(64)),
        op(4, &[(1, Some(7))], &[], 66, Some(70)),
        op(3, &[(0, Some(6)), (1, Some(7))], &[], 72, Some(74)),
        // One that nobody has seen, with a deletion that may come at any time; and keys that have nothing to do with these.
        op(5, &[], &[(0, Some(8)), (1, None)], 75, None),
        op(3, &[(0, Some(6)), (1, Some(7))], &[], 76, Some(78)),
        op(6, &[], &[(7, Some(1)), (8, None)], 0, Some(90)),
    ];
    assert_eq!(check(&sound), Ok(()));
    assert_eq!(groups(&sound), [vec![0, 1], vec![7, 8]]);
    let halfway = op(3, &[(0, Some(6)), (1, Some(5))], &[], 62, Some(74));
    let anomalies = [
        ("a lost write", read(Some(1), 45, 48)),
        ("both swap", op(4, &[(0, Some(2))], &[(0, Some(9))], 31, Some(35))),
        ("it goes back", read(Some(2), 45, 48)),
        ("out of nothing", read(Some(99), 45, 48)),
        ("a batch that is read half", halfway),
        ("a batch half of which is gone", read(Some(3), 79, 80)),
        ("of a batch the other half was never written", op(4, &[(1, None)], &[], 61, Some(62))),
        ("a condition that did not hold", op(4, &[(1, Some(5))], &[(0, Some(9))], 80, Some(82))),
        (
            "two batches under conditions on each other's keys",
            op(4, &[(1, None)], &[(0, Some(9)), (1, Some(10))], 51, Some(59)),
        ),
    ];
    for (what, anomaly) in anomalies {
        let mut history = sound.clone();
        history.push(anomaly.clone());
        assert!(check(&history).is_err(), "not seen: {what}: {anomaly:?}");
    }
    // A batch of which half was written, and that half was seen, in whatever order: its other half is missed.
    let half =
        |was: Seen| check(&[sound[0].clone(), op(2, &[], &[(0, Some(2)), (1, Some(3))], 12, None), was]);
    assert!(half(op(3, &[(0, Some(2)), (1, None)], &[], 20, Some(22))).is_err());
    assert_eq!(half(op(3, &[(0, Some(2)), (1, Some(3))], &[], 20, Some(22))), Ok(()));
    // Two reads, each of one key: the second one comes after the first, and the batch between them.
    let apart = [
        sound[0].clone(),
        op(2, &[], &[(0, Some(2)), (1, Some(3))], 12, Some(40)),
        op(3, &[(0, Some(2))], &[], 14, Some(16)),
        op(4, &[(1, None)], &[], 18, Some(20)),
    ];
    assert!(check(&apart).is_err(), "its second half comes after its first");
    // Not one: the write of unknown outcome may come later, if nobody builds on it.
    assert_eq!(check(&[sound[0].clone(), sound[1].clone(), read(Some(1), 20, 24)]), Ok(()));
}
