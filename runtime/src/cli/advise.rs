//! `rhumb pool advise`: how many units a node should have for the time in which it must live on them.

use std::fmt;
use std::time::Duration;

use clap::Args;
use rhumb_actors::escrow::advise::{MOST_RATE, enough, exceeds, exceeds_by_normal};
use rhumb_core::limits::MAX_SUPPLY;
use serde::Serialize;

use super::args::{duration, number};
use super::output::{Done, Failure, Output};

/// How many units a region should have.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb pool advise --rate 95 --interval 1s --risk 0.01\n  rhumb pool advise --rate 95 --interval 1s --units 100\n\nThe interval is the time in which a node must live on what it has: until rights from another node arrive. It needs no mesh."
)]
pub struct Advise {
    /// Units that are asked for in one interval, on average.
    #[arg(long, value_parser = rate)]
    rate: f64,
    /// How long that is.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// How often more may be asked for than there is: above 0 and below 1.
    #[arg(long, default_value = "0.01", value_parser = risk)]
    risk: f64,
    /// Also judge this many units: code 5 when they are too few.
    #[arg(long, value_parser = number::<u64>(0..=MAX_SUPPLY))]
    units: Option<u64>,
}

/// So many units, and how often more are asked for.
#[derive(Debug, Serialize)]
struct Units {
    units: u64,
    /// P(X > units) for a Poisson number of requests.
    exceeded: f64,
    /// The same by the normal approximation with continuity correction.
    exceeded_normal: f64,
    /// Beyond the mean.
    margin: f64,
}

/// Settings that follow.
#[derive(Debug, Serialize)]
struct Suits {
    low_water_ms: u64,
    horizon_ms: u64,
    tail_floor: u64,
}

#[derive(Debug, Serialize)]
struct Advice {
    rate: f64,
    interval_ms: u64,
    risk: f64,
    enough: Units,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Units>,
    settings: Suits,
}

impl Advise {
    // Like every other command, so that they are run alike.
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let answer = Advice::new(&self);
        output.answer(&answer, &answer);
        let too_few = answer.asked.as_ref().is_some_and(|asked| asked.exceeded > self.risk);
        Ok(if too_few { Done::False } else { Done::Well })
    }
}

impl Advice {
    fn new(advise: &Advise) -> Self {
        let Advise { rate, interval, risk, units } = *advise;
        let of = |units| Units {
            units,
            exceeded: exceeds(rate, units),
            exceeded_normal: exceeds_by_normal(rate, units),
            margin: units as f64 - rate,
        };
        let enough = enough(rate, risk);
        let interval_ms = interval.as_millis() as u64;
        // As long as that many last at the mean rate.
        let low_water_ms = (interval_ms as f64 * (enough as f64 / rate).max(1.0)).ceil() as u64;
        let settings = Suits { low_water_ms, horizon_ms: 2 * low_water_ms, tail_floor: enough.max(1) };
        Self { rate, interval_ms, risk, enough: of(enough), asked: units.map(of), settings }
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} units: P(X > {}) = {:.4} exactly, {:.4} by the normal approximation; {:+.1} beyond the mean",
            self.units, self.units, self.exceeded, self.exceeded_normal, self.margin
        )
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, interval_ms, risk, enough, settings, .. } = self;
        writeln!(
            f,
            "{rate} units are asked for in {interval_ms} ms on average; at a risk of {risk} it takes"
        )?;
        writeln!(f, "  {enough}")?;
        if let Some(asked) = &self.asked {
            let verdict = if asked.exceeded > *risk { "too few" } else { "enough" };
            writeln!(f, "asked about, {verdict}:\n  {asked}")?;
        }
        writeln!(f, "what follows for a node with this demand:")?;
        writeln!(f, "  its share of the first split: at least {} units", enough.units)?;
        writeln!(
            f,
            "  escrow.low_water   \"{}ms\" or more: it asks while that much is left",
            settings.low_water_ms
        )?;
        writeln!(f, "  escrow.horizon     \"{}ms\" or more: what it asks for", settings.horizon_ms)?;
        write!(
            f,
            "  escrow.tail_floor  {}: below it, what is left gathers at the pool's home",
            settings.tail_floor
        )
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= MOST_RATE);
    rate.ok_or_else(|| format!("{text:?} is not a rate; expected a number above 0, at most {MOST_RATE}"))
}

fn risk(text: &str) -> Result<f64, String> {
    let risk = text.parse().ok().filter(|risk| *risk >= 1e-12 && *risk < 1.0);
    risk.ok_or_else(|| {
        format!("{text:?} is not a risk; expected a number from 1e-12 and below 1, such as 0.01")
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let known = (Duration::from_millis(1)..=Duration::from_secs(24 * 3_600)).contains(&time);
    known.then_some(time).ok_or_else(|| format!("{text:?} is not an interval; expected 1ms to 24h"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_worked_example_is_told_in_words_and_in_json() {
        let second = Duration::from_secs(1);
        let advice = Advice::new(&Advise { rate: 95.0, interval: second, risk: 0.01, units: Some(100) });
        expect![[r#"
            95 units are asked for in 1000 ms on average; at a risk of 0.01 it takes
              118 units: P(X > 118) = 0.0097 exactly, 0.0080 by the normal approximation; +23.0 beyond the mean
            asked about, too few:
              100 units: P(X > 100) = 0.2823 exactly, 0.2863 by the normal approximation; +5.0 beyond the mean
            what follows for a node with this demand:
              its share of the first split: at least 118 units
              escrow.low_water   "1243ms" or more: it asks while that much is left
              escrow.horizon     "2486ms" or more: what it asks for
              escrow.tail_floor  118: below it, what is left gathers at the pool's home"#]].assert_eq(&advice.to_string());
        let json = serde_json::to_value(&advice).expect("serialises");
        assert_eq!((&json["enough"]["units"], &json["asked"]["units"]), (&118.into(), &100.into()));
        assert_eq!(
            json["settings"],
            serde_json::json!({"low_water_ms": 1243, "horizon_ms": 2486, "tail_floor": 118})
        );
    }

    #[test]
    fn what_is_no_number_in_range_is_refused_with_what_is() {
        for bad in ["0", "-1", "nan", "inf", "1e8", "x", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["0", "1", "-0.1", "nan", "1e-13", "1%"] {
            assert!(risk(bad).is_err(), "{bad}");
        }
        assert!(interval("0ms").is_err() && interval("25h").is_err());
        assert_eq!((rate("0.5"), risk("1e-6")), (Ok(0.5), Ok(1e-6)));
    }
}
