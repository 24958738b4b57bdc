//! What the demo shows while it runs: on a terminal a bar that is drawn again and lines that stay, else
//! a line every two seconds. On standard error, so that standard output has the report alone.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::thousands;
use crate::load::Tally;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The live display.
pub struct Progress {
    bar: Option<ProgressBar>,
    next_line: Duration,
}

impl Progress {
    /// A display for a sale of so many seats.
    #[must_use]
    pub fn new(seats: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(seats), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("[{bar:40}] {human_pos} of {human_len} sold\n{msg}");
            bar.with_style(style.expect("a valid template").progress_chars("=> "))
        });
        Self { bar, next_line: Duration::ZERO }
    }

    /// Something happened: a line that stays.
    pub fn event(&self, at: Option<Duration>, what: &str) {
        let line = match at {
            Some(at) => format!("{:6.1} s  {what}", at.as_secs_f64()),
            None => what.to_owned(),
        };
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(&line),
        }
    }

    /// How the sale stands.
    pub fn stands(&mut self, at: Duration, tally: &Tally) {
        if let Some(bar) = &self.bar {
            bar.set_position(tally.sold);
            bar.set_message(line(tally));
        } else if at >= self.next_line {
            self.next_line = at + LINE_EVERY;
            say(&format!(
                "{:6.1} s  {} sold  {}",
                at.as_secs_f64(),
                thousands(tally.sold.into()),
                line(tally)
            ));
        }
    }

    /// The sale is over: what stays is the lines.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(tally: &Tally) -> String {
    let regions = tally.regions.keys().map(|region| format!("{region} {}", tally.sold_in(region)));
    let all = tally.total();
    let percentile = |percent| match all.hold_latency.percentile(percent) {
        Some(latency) => format!("{:.0} ms", latency.as_secs_f64() * 1e3),
        None => "-".into(),
    };
    format!("{}  hold p50 {} p99 {}", regions.collect::<Vec<_>>().join("  "), percentile(50), percentile(99))
}

/// A display that cannot be written to is no reason to stop a sale.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}
