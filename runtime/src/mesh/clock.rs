//! What nodes ask each other about their clocks, and what an operator may try on one.

use std::time::Duration;

use rhumb_actors::{Wire, remote};
use serde::{Deserialize, Serialize};

/// The longest drill.
pub const LONGEST_DRILL: Duration = Duration::from_secs(60);
/// How far off the clock may be, either way, that a drill shows.
pub const FARTHEST_DRILL: Duration = Duration::from_secs(3_600);

/// What does your wall clock show? Answered in microseconds since the Unix epoch, read when the question is taken up.
#[remote(
    name = "mesh.Wall",
    class = "control",
    reply = i64,
    idempotent,
    deadline = "1s",
    audience = "nodes",
    crate = rhumb_actors
)]
pub struct AskWall {}

/// Show the keeper of your clock another wall clock for a while, and say what came of it. Neither the wall clock nor
/// hybrid time is moved.
#[remote(
    name = "mesh.DrillClock",
    class = "control",
    reply = Result<Drilled, String>,
    deadline = "90s",
    audience = "operators",
    crate = rhumb_actors
)]
pub struct DrillClock {
    /// By how many milliseconds that one is ahead.
    pub ahead_ms: i64,
    /// For how long.
    pub for_ms: u64,
}

/// Forget what you know of your clock, under a new epoch, once all times that you have handed out have passed.
#[remote(
    name = "mesh.ResetClock",
    class = "control",
    reply = Result<ClockReset, String>,
    idempotent,
    deadline = "15s",
    audience = "operators",
    crate = rhumb_actors
)]
pub struct ResetClock {
    /// The epoch that the clock is to have. A node that has it, or a later one, does nothing.
    pub epoch: u64,
}

/// What came of a reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub struct ClockReset {
    /// The epoch before.
    pub before: u64,
    /// The epoch now.
    pub epoch: u64,
    /// For how long strong paths were refused until the new epoch stood, in milliseconds; they are until its sources of time agree anew.
    pub waited_ms: u64,
}

/// What came of a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub struct Drilled {
    /// After how long strong paths were frozen; none where they never were.
    pub froze_after_ms: Option<u64>,
    /// Why.
    pub why: String,
    /// How long after the drill's end they stood again; none where they did not within ten seconds.
    pub stood_after_ms: Option<u64>,
    /// The number of the entry in the audit log that says how it ended.
    pub entry: u64,
}
