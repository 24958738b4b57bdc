//! Many seeds: those that once failed, those of a range, and the panics among them.
//!
//! * It decides: which seeds are run first.
//! * It never does: forget a seed that failed; the files under `tests/seeds` are kept for ever.

use std::any::Any;
use std::cell::Cell;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use rhumb_core::canary::Canary;

use super::trace::Keep;
use super::{Outcome, run};

/// Seeds that once failed, each with the reason after a `#`.
const KEPT: &str = include_str!("../../seeds/escrow.txt");

/// Seeds that once failed.
///
/// # Panics
/// When the file has a line that is not a number and a comment.
#[must_use]
pub fn kept() -> Vec<u64> {
    let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    KEPT.lines()
        .map(line)
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().expect("tests/seeds/escrow.txt: NUMBER # why"))
        .collect()
}

/// What a batch of seeds came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds run.
    pub seeds: u64,
    /// Events in them.
    pub events: u64,
    /// Those that broke a promise, by seed.
    pub failed: Vec<Outcome>,
}

/// Runs seeds on so many threads, each seed on one, until `next` has none left or `enough` says so.
#[must_use]
pub fn sweep(
    threads: usize,
    bug: Option<Canary>,
    next: impl Fn(u64) -> Option<u64> + Sync,
    enough: impl Fn(&Tally) -> bool + Sync,
) -> Tally {
    let drawn = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough(&tally.lock().expect("no thread panics with it")) {
                    let Some(seed) = next(drawn.fetch_add(1, Ordering::Relaxed)) else { return };
                    let outcome = run(seed, bug, Keep::Nothing);
                    let mut tally = tally.lock().expect("no thread panics with it");
                    tally.seeds += 1;
                    tally.events += outcome.events;
                    tally.failed.extend(outcome.violation.is_some().then_some(outcome));
                }
            });
        }
    });
    let mut tally = tally.into_inner().expect("no thread panics with it");
    tally.failed.sort_by_key(|outcome| outcome.seed);
    tally
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic of this thread prints nothing: it is a finding, and will be reported as one.
pub(super) fn quietly() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            if QUIET.get() { PLACE.set(Some(place)) } else { before(info) }
        }));
    });
    QUIET.set(true);
}

thread_local! {
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Panics of this thread print again.
pub(super) fn aloud() {
    QUIET.set(false);
}

/// What a panic said, and where.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    format!("{said} (at {})", PLACE.take().unwrap_or_default())
}
