//! What clients saw, and whether it could have been: the checker is porcupine-rs, which is not ours.

use std::collections::BTreeSet;
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

/// One value is never written twice, so a value says which write it is.
pub(super) type Value = u64;

/// What a client did, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Did {
    /// It read this.
    Read(Option<Value>),
    /// It wrote this, or deleted.
    Wrote(Option<Value>),
    /// It wrote the second one where the first one was.
    Swapped(Option<Value>, Value),
    /// It did not, as something else was there.
    NotSwapped(Option<Value>),
    /// It may have written this.
    Maybe(Option<Value>),
    /// It may have written the second one where the first one was.
    MaybeSwapped(Option<Value>, Value),
}

/// One operation on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) client: u32,
    pub(super) key: usize,
    pub(super) did: Did,
    pub(super) call: u64,
    /// None where nobody knows.
    pub(super) back: Option<u64>,
}

/// One key is a register.
#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Option<Value>;
    type Op = Did;
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(state: &Self::State, op: &Did) -> (bool, Self::State) {
        match op {
            Did::Read(value) => (state == value, *state),
            Did::Wrote(value) => (true, *value),
            Did::Swapped(before, after) => (state == before, Some(*after)),
            Did::NotSwapped(before) => (state != before, *state),
            // One that never ran is one that runs behind all others.
            Did::Maybe(value) => (true, *value),
            Did::MaybeSwapped(before, after) => (true, if state == before { Some(*after) } else { *state }),
        }
    }
}

/// Whether one key's history is linearizable.
pub(super) fn check(seen: &[Seen]) -> Result<(), String> {
    let keys: BTreeSet<usize> = seen.iter().map(|seen| seen.key).collect();
    for key in keys {
        let of_key: Vec<_> = seen.iter().filter(|seen| seen.key == key).collect();
        let operation = |seen: &&Seen| Operation::<Register> {
            client_id: Some(seen.client),
            call_time: seen.call as i64,
            return_time: seen.back.map_or(i64::MAX, |back| back as i64),
            op: seen.did.clone(),
            metadata: None,
        };
        let history: Vec<_> = of_key.iter().map(operation).collect();
        match check_operations_timeout(&history, Duration::from_secs(60)) {
            CheckResult::Ok => {}
            CheckResult::Illegal => {
                let told: Vec<_> = of_key.iter().map(|seen| format!("{seen:?}")).collect();
                return Err(format!("key {key} is not linearizable:\n{}", told.join("\n")));
            }
            CheckResult::Unknown => return Err(format!("key {key}: the checker did not come to an end")),
        }
    }
    Ok(())
}

/// Histories of which we know what they are.
pub(super) fn calibrate() {
    let op = |client, did, call, back| Seen { client, key: 0, did, call, back };
    let sound = vec![
        op(1, Did::Wrote(Some(1)), 0, Some(10)),
        op(2, Did::Maybe(Some(2)), 5, None),
        op(3, Did::Read(Some(1)), 12, Some(14)),
        op(3, Did::Read(Some(2)), 20, Some(24)),
        op(1, Did::Swapped(Some(2), 3), 30, Some(34)),
        op(2, Did::NotSwapped(Some(2)), 36, Some(38)),
        op(3, Did::Read(Some(3)), 40, Some(44)),
    ];
    assert_eq!(check(&sound), Ok(()));
    let stale = Seen { did: Did::Read(Some(1)), ..sound[3].clone() };
    let lost_write = op(3, Did::Read(Some(1)), 50, Some(52));
    let both_swap = op(4, Did::Swapped(Some(2), 9), 31, Some(35));
    let goes_back = op(3, Did::Read(Some(2)), 50, Some(52));
    for anomaly in [lost_write, both_swap, goes_back] {
        let mut history = sound.clone();
        history.push(anomaly.clone());
        assert!(check(&history).is_err(), "not seen: {anomaly:?}");
    }
    // Not one: the write of unknown outcome may come later, if nobody builds on it.
    assert_eq!(check(&[sound[0].clone(), sound[1].clone(), stale]), Ok(()));
}
