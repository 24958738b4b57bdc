//! The door in front of all actors of a type: how many of its questions are let in at once.
//!
//! * It decides nothing: [`rhumb_transport::resilience::limit`] does. Each type has a door of its own, so that one that is
//!   overrun does not starve another.
//! * It never does: let a question wait. Who is not let in is told at once, and when to come again.
//! * Invariant: what was let in is counted out again, however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Delivery, Fault, FaultKind, Priority};
use rhumb_transport::resilience::limit::{Entry, Limit, LimitSettings, Took};
use tokio::time::Instant;

/// When to ask again at the earliest, and at the latest: half of it is drawn, so that not all come at once.
const AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// The door of one type.
pub(crate) struct Door {
    kind: &'static str,
    inside: Mutex<Inside>,
    admitted: AtomicU64,
    full: AtomicU64,
    too_late: AtomicU64,
}

struct Inside {
    limit: Limit,
    rng: Rng,
}

/// What a door has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admitted {
    /// How many it lets in at once now.
    pub limit: u32,
    /// How many are inside now.
    pub under_way: u32,
    /// Questions that it let in.
    pub admitted: u64,
    /// Those for which there was no room.
    pub full: u64,
    /// Those that could not be done in the time they had.
    pub too_late: u64,
}

impl Door {
    pub(crate) fn new(kind: &'static str, settings: LimitSettings) -> Self {
        let rng = Seed::from_entropy().child("admission").rng();
        Self {
            kind,
            inside: Mutex::new(Inside { limit: Limit::new(settings), rng }),
            admitted: AtomicU64::new(0),
            full: AtomicU64::new(0),
            too_late: AtomicU64::new(0),
        }
    }

    /// Lets in a question that came then and has so much time left.
    pub(crate) fn admit(
        self: &Arc<Self>,
        priority: Priority,
        came: Instant,
        left: Duration,
    ) -> Result<Permit, Fault> {
        let mut inside = self.inside.lock();
        let (count, wait) = match inside.limit.admit(priority, left) {
            Entry::Admitted => {
                self.admitted.fetch_add(1, Ordering::Relaxed);
                return Ok(Permit { door: Arc::clone(self), came, is_inside: true });
            }
            Entry::Full(drains) => (&self.full, drains),
            Entry::TooLate(takes) => (&self.too_late, takes),
        };
        let base = wait.clamp(AGAIN.0, AGAIN.1);
        let again = base / 2 + base.mul_f64(inside.rng.unit());
        count.fetch_add(1, Ordering::Relaxed);
        let fault = Fault::not_sent(FaultKind::Overloaded(format!("actors of type {}", self.kind)));
        Err(Fault { retry_after: Some(again), ..fault })
    }

    pub(crate) fn report(&self) -> Admitted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let inside = self.inside.lock();
        Admitted {
            limit: inside.limit.limit(),
            under_way: inside.limit.under_way(),
            admitted: read(&self.admitted),
            full: read(&self.full),
            too_late: read(&self.too_late),
        }
    }
}

/// A place behind a door. Dropped, it is free again, and nothing is learnt of how long it was taken.
#[must_use = "who was let in is inside for as long as this is kept"]
pub(crate) struct Permit {
    door: Arc<Door>,
    came: Instant,
    is_inside: bool,
}

impl Permit {
    /// The question was answered so.
    pub(crate) fn ended(mut self, fault: Option<&Fault>) {
        // What did not run says nothing of how long it takes.
        if fault.is_none_or(|fault| fault.delivery != Delivery::NotSent) {
            self.is_inside = false;
            let took = self.came.elapsed();
            let cut = fault.is_some_and(|fault| matches!(fault.kind, FaultKind::Deadline(_)));
            let took = if cut { Took::Cut(took) } else { Took::Answered(took) };
            self.door.inside.lock().limit.done(took);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_inside {
            self.door.inside.lock().limit.done(Took::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_was_let_in_leaves_room_however_it_ends_and_the_others_are_told_when_to_come() {
        let settings = LimitSettings { first: 2, least: 2, most: 2, ..LimitSettings::default() };
        let (door, now, long) =
            (Arc::new(Door::new("test", settings)), Instant::now(), Duration::from_secs(9));
        let enter = || door.admit(Priority::High, now, long);
        let (one, two) = (enter().expect("room"), enter().expect("room"));
        let again: Vec<_> = (0..20)
            .map(|_| match enter() {
                Ok(_) => panic!("there is no room"),
                Err(fault) => fault.retry_after.expect("it says when"),
            })
            .collect();
        assert!(again.iter().all(|wait| (5..=15).contains(&wait.as_millis())), "{again:?}");
        assert!(again.iter().any(|wait| *wait != again[0]), "not all at once");
        one.ended(None);
        drop(two);
        let three = enter().expect("room");
        three.ended(Some(&Fault::not_sent(FaultKind::Draining)));
        let report = door.report();
        assert_eq!((report.under_way, report.admitted, report.full), (0, 3, 20));
    }
}
