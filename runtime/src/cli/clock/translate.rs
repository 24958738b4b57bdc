//! `rhumb clock translate`: what a time of another clock may have meant. No node is asked.

use std::fmt;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::foreign::Foreign;
use crate::cli::output::{Done, Output};

/// Say what a time of another clock may have meant: of systems that do not speak hybrid time, or smear leap seconds.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb clock translate unix-s:1795388024\n  rhumb clock translate smeared-ms:1483228800250~20ms -o json\n\nScales: unix-s, unix-ms, unix-us; smeared-s, smeared-ms, smeared-us (of clocks that smear leap seconds evenly from noon to noon UTC). ~TIME says how far the clock may have been off. The answer is a span of UTC; reads take such times too (`rhumb kv get --as-of`), and see what was there at its beginning. Nothing is written or held by them. No node is asked."
)]
pub struct Translate {
    /// The time: SCALE:NUMBER, or SCALE:NUMBER~TIME.
    #[arg(value_name = "TIME")]
    time: Foreign,
}

#[derive(Debug, Serialize)]
struct TranslateAnswer {
    earliest: String,
    latest: String,
    earliest_us: i64,
    latest_us: i64,
    /// Half a second either way is in it, since it is not known whether there is a leap second.
    leap_unknown: bool,
}

impl fmt::Display for TranslateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.earliest, self.latest)?;
        if self.leap_unknown {
            write!(
                f,
                "\nwhether a leap second is near is not known to this build: half a second either way is in it"
            )?;
        }
        Ok(())
    }
}

impl Translate {
    pub(super) fn run(&self, output: &Output) -> Done {
        let Foreign { time, leap_unknown } = self.time;
        let (earliest_us, latest_us) = (time.earliest(), time.latest());
        let (earliest, latest) = (rfc3339(earliest_us), rfc3339(latest_us));
        let answer = TranslateAnswer { earliest, latest, earliest_us, latest_us, leap_unknown };
        output.answer(&answer, &answer);
        Done::Well
    }
}

fn rfc3339(us: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{us} us"))
}
