//! What keeps a slow or failing node from taking down who calls it: the asker's side.
//!
//! * It decides nothing: the machines of [`rhumb_transport::resilience`] do. It gives them the time, and calls what they
//!   say.
//! * It never does: touch a call within a node, or what nodes tell each other of themselves.
//! * Invariant: a call that nobody wants retried, to where nothing fails, costs one look at each breaker and one count.

mod again;
mod hedged;
mod targets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Fault, Mono};
use rhumb_transport::backoff::Backoff;
use rhumb_transport::resilience::budget::RetryBudget;
use rhumb_transport::resilience::retry::{Next, Retries};
use tokio::time::Instant;

use super::Mesh;

pub use rhumb_transport::resilience::breaker::BreakerSettings;
pub use rhumb_transport::resilience::budget::BudgetSettings;
pub use rhumb_transport::resilience::mode::{Mode, ModeSettings};

pub(crate) use self::again::Attempts;
pub(super) use self::hedged::hedged;
pub(crate) use self::targets::Passing;
use self::targets::Targets;

/// How an asker keeps itself from harm, and others from it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResilienceSettings {
    /// How many retries there may be.
    pub retries: BudgetSettings,
    /// The shortest pause before a retry (25 ms).
    pub backoff_min: Duration,
    /// The longest (1 s).
    pub backoff_max: Duration,
    /// How many hedges there may be (a twentieth of the questions that may be hedged, and one a second).
    pub hedges: BudgetSettings,
    /// Whether there are breakers.
    pub breakers: Switch,
    /// When they trip.
    pub breaker: BreakerSettings,
    /// When a node does less than all.
    pub mode: ModeSettings,
}

impl Default for ResilienceSettings {
    fn default() -> Self {
        Self {
            retries: BudgetSettings::default(),
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            hedges: BudgetSettings { share: 0.05, least: 1 },
            breakers: Switch::On,
            breaker: BreakerSettings::default(),
            mode: ModeSettings::default(),
        }
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// The asker's side of one mesh.
pub(crate) struct Resilience {
    settings: ResilienceSettings,
    begun: Instant,
    budget: Mutex<RetryBudget>,
    seed: Mutex<Rng>,
    targets: Targets,
    hedges: hedged::OfTypes,
    counts: Counts,
}

/// What became of retries.
#[derive(Default)]
struct Counts {
    made: AtomicU64,
    answered: AtomicU64,
    overflowed: AtomicU64,
    hedged: AtomicU64,
    hedges_won: AtomicU64,
}

impl fmt::Debug for Resilience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resilience").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Resilience {
    pub(crate) fn new(settings: ResilienceSettings, seed: &Seed) -> Self {
        let targets = Targets::new(settings.breaker, settings.breakers == Switch::On);
        Self {
            begun: Instant::now(),
            budget: Mutex::new(RetryBudget::new(settings.retries)),
            seed: Mutex::new(seed.child("resilience").rng()),
            targets,
            hedges: hedged::OfTypes::default(),
            counts: Counts::default(),
            settings,
        }
    }

    fn at(&self, now: Instant) -> Mono {
        Mono(now.saturating_duration_since(self.begun))
    }

    /// A generator of its own, for one call that failed.
    fn rng(&self) -> Rng {
        Seed::new(self.seed.lock().u64()).rng()
    }

    /// A call is made that may be retried.
    pub(crate) fn called(&self) {
        let now = self.at(Instant::now());
        self.budget.lock().called(now);
    }

    fn retries(&self, repeats: bool) -> Retries {
        Retries::new(repeats, self.settings.backoff_min, self.settings.backoff_max, self.rng())
    }

    /// The pauses between looks that send nothing to an actor: no retries.
    pub(super) fn pauses(&self) -> Backoff {
        Backoff::new(self.settings.backoff_min, self.settings.backoff_max, self.rng())
    }

    /// How long to wait before the next attempt.
    fn wait(&self, retries: &mut Retries, fault: Fault, until: Instant) -> Result<Duration, Fault> {
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        match retries.after(self.at(now), fault, left, &mut self.budget.lock()) {
            Next::Again(wait) => {
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                Ok(wait)
            }
            Next::Over(fault) => Err(fault),
            Next::Spent(fault) => {
                self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                Err(fault)
            }
        }
    }

    /// A node has connected anew: what was counted of the old connection is void.
    pub(crate) fn connected(&self, node: &rhumb_core::NodeId) {
        self.targets.connected(node);
    }

    /// A program calls a node over this connection: where it is another one than before, as when one has connected anew.
    pub(crate) fn meets(&self, node: &rhumb_core::NodeId, generation: u64) {
        self.targets.meets(node, generation);
    }

    /// All of it, as OpenMetrics text.
    #[cfg(feature = "rocks")]
    pub(crate) fn write(&self, page: &mut crate::metrics::exposition::Page) {
        let Counts { made, answered, overflowed, hedged, hedges_won } = &self.counts;
        for (name, help, count) in [
            ("rhumb_outbound_hedges", "Questions that were asked a second time, of somebody else", hedged),
            ("rhumb_outbound_hedges_won", "Those of them whose second answer came first", hedges_won),
            ("rhumb_outbound_retry_requests", "Calls that were made again", made),
            ("rhumb_outbound_retry_successes", "Calls that were made again and then answered", answered),
            (
                "rhumb_outbound_retry_overflow",
                "Calls that were not made again: the budget was spent",
                overflowed,
            ),
        ] {
            page.counter(name, help, count.load(Ordering::Relaxed) as f64);
        }
        self.targets.write(page);
    }
}

impl Mesh {
    /// How calls from here are retried and held back. Unless said before the first call, as [`ResilienceSettings`]'s
    /// default says, drawing from the operating system's entropy. The mesh of a [`MeshClient`](crate::client::MeshClient)
    /// has its client's: say it there.
    ///
    /// # Panics
    /// When it was said, or used, before.
    pub fn resilient(&self, settings: ResilienceSettings, seed: &Seed) {
        self.shares(Arc::new(Resilience::new(settings, seed)));
    }

    /// What is counted and held back here is so together with others.
    pub(crate) fn shares(&self, resilience: Arc<Resilience>) {
        assert!(
            self.inner.resilience.set(resilience).is_ok(),
            "how calls are retried is said once, and first"
        );
    }

    pub(crate) fn resilience(&self) -> &Arc<Resilience> {
        let fresh = || Arc::new(Resilience::new(ResilienceSettings::default(), &Seed::from_entropy()));
        self.inner.resilience.get_or_init(fresh)
    }
}
