//! The deterministic world: several nodes' escrow machines in one thread, on a network that loses,
//! delays, doubles, reorders and cuts, on disks that forget and tear, under clocks that drift and step,
//! among customers who lose patience.
//!
//! * It decides: whether the promises of the escrow hold in every moment of a seed's story, and
//!   whether everything sells once the world has healed.
//! * It never does: read a real clock, draw real entropy or start a thread.
//! * Invariant: one seed is one story. Its trace hash is the same in every run and every process.
//!
//! In reading order: [`plan`] is what a seed is about; [`agenda`] the heap of events; [`net`],
//! [`clock`] and [`node`] what they happen to; [`customer`] and [`fault`] who makes things happen;
//! [`world`] the loop; [`audit`], [`words`] and [`oracle`] what is checked, and [`foresight`] what is checked
//! before the story begins; [`violation`] and [`trace`] what is
//! told of it.

pub mod agenda;
pub mod audit;
pub mod clock;
mod counter;
pub mod customer;
mod ending;
mod errand;
pub mod fault;
pub mod foresight;
pub mod net;
pub mod node;
pub mod oracle;
pub mod plan;
mod routing;
pub mod seeds;
pub mod trace;
pub mod violation;
pub mod words;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rhumb_core::canary::{self, Canary};
use rhumb_core::rng::Seed;

use self::trace::{Keep, TraceHash};
use self::violation::{Invariant, Violation};
use self::world::World;

/// How many of the last events a failure shows.
pub const LAST_EVENTS: usize = 30;

/// What a run of a seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How many events there were.
    pub events: u64,
    /// The hash over all of them.
    pub hash: TraceHash,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The events kept, as text.
    pub lines: Vec<String>,
}

/// Runs a seed's story, with a known bug let out or none.
#[must_use]
pub fn run(seed: u64, bug: Option<Canary>, keep: Keep) -> Outcome {
    canary::let_out(bug);
    let mut world = World::new(seed, keep);
    seeds::quietly();
    let ended =
        catch_unwind(AssertUnwindSafe(|| foresight::check(&Seed::new(seed)).and_then(|()| world.run())));
    seeds::aloud();
    canary::let_out(None);
    let violation = match ended {
        Ok(checked) => checked.err(),
        Err(panic) => Some(Violation { invariant: Invariant::Assertion, what: seeds::words(&*panic) }),
    };
    let trace = world.into_trace();
    let events = trace.events();
    let (hash, lines) = trace.finish();
    Outcome { seed, events, hash, violation, lines }
}

/// A failure as a person needs it: the promise, the last events, and the command that shows it again.
#[must_use]
pub fn report(seed: u64, bug: Option<Canary>) -> String {
    let outcome = run(seed, bug, Keep::Last(LAST_EVENTS));
    let found = outcome.violation.map_or_else(|| "no promise was broken".to_owned(), |v| v.to_string());
    let canary = bug.map(|bug| format!(" --canary {}", bug.name())).unwrap_or_default();
    format!(
        "seed {seed}: {found}\nthe last of {} events:\n{}\nreplay: cargo run -p rhumb-tests --bin seeds -- --seed {seed}{canary} --trace\n",
        outcome.events,
        outcome.lines.join("\n")
    )
}
