//! What is measured within one process: actors that ask, tell, wait behind a backlog, or are idle.
//!
//! * Each system runs in a process of its own and is told what to measure by an [`Order`]. Rhumb's is a
//!   real node (`bench-node`); the others' is this program, started again as `bench probe SYSTEM`.
//! * [`drive`] is one and the same loop for all of them; a file a system says what an ask is there.

pub mod actix;
pub mod drive;
pub mod gate;
pub mod hybrid;
pub mod kameo;
pub mod ractor;
pub mod rhumb;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::process::{Orders, say};
use crate::sample::Sample;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Asks or tells between two actors of this process.
    Local(Local),
    /// The time until a neighbour answers that stands on an arbiter behind so many messages.
    Neighbour {
        /// Messages in front of it, of another actor.
        backlog: u64,
    },
    /// Bytes of idle actors, and the time to the first answer of a new one.
    Idle {
        /// How many actors are made before the others are timed.
        actors: u64,
        /// How many are timed, one after the other.
        probes: u64,
    },
    /// Durable appends to an audit log.
    Append {
        /// Appends in flight.
        concurrency: usize,
        /// How long.
        millis: u64,
    },
    /// Proofs of inclusion out of a log.
    Prove {
        /// Its entries.
        entries: u64,
        /// How long they are made; what was made is verified after that.
        millis: u64,
    },
    /// Timestamps of hybrid time.
    Hybrid {
        /// Of another clock's timestamp, rather than of nothing.
        merge: bool,
        /// How many threads share the clock.
        threads: usize,
        /// How long.
        millis: u64,
    },
}

/// Asks or tells between two actors of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Tells rather than asks.
    pub tells: bool,
    /// The two are on two threads.
    pub across: bool,
    /// Asks in flight; bursts in flight where it is told.
    pub concurrency: usize,
    /// How long.
    pub millis: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Rate and latencies.
    pub sample: Sample,
    /// Everything else, by name.
    pub figures: BTreeMap<String, f64>,
}

impl Measured {
    /// A sample and nothing else.
    #[must_use]
    pub fn of(sample: Sample) -> Self {
        Self { sample, figures: BTreeMap::new() }
    }

    /// One more figure.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.figures.insert(name.to_owned(), value);
        self
    }
}

/// Obeys orders until there are no more. `measure` may block: nothing else runs here.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn obey(mut measure: impl FnMut(Order) -> anyhow::Result<Measured>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut orders = Orders::default();
    say(&"ready")?;
    while let Some(order) = runtime.block_on(orders.next::<Order>())? {
        say(&measure(order)?)?;
    }
    Ok(())
}

/// Bytes of this process that are in memory.
///
/// # Errors
/// `/proc` cannot be read.
pub fn resident() -> anyhow::Result<u64> {
    crate::proc::resident(std::process::id())
}
