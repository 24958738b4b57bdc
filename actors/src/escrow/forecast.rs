//! How many units will be asked for here: a forecaster sees the requests of one pool on one node.
//!
//! * It decides: numbers, from the times and sizes of requests. Levelling plans by them.
//! * It never does: read a clock, move a right, or use floats for units.
//! * Invariant: memory is bounded, whatever is asked for; what is forecast is never more than the
//!   largest supply of a pool.

mod asked;
mod ewma;
mod seasonal;

use std::fmt;
use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::limits::MAX_SUPPLY;

pub(crate) use asked::AskedLately;
pub use ewma::Ewma;
pub use seasonal::{MAX_SLOTS, SeasonalNaive};

/// Sees what is asked for, and says what will be.
pub trait Forecaster: fmt::Debug + Send {
    /// So many units were asked for now. Times never fall.
    fn observe(&mut self, now: Mono, units: u64);

    /// Units that will be asked for from now until so much later, rounded to the nearest.
    fn forecast(&mut self, now: Mono, ahead: Duration) -> u64;
}

/// Which forecaster a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// [`Ewma`]: it goes on as it has been lately.
    #[default]
    Ewma,
    /// [`SeasonalNaive`]: it goes as it went a season ago.
    SeasonalNaive,
}

impl Method {
    /// Its name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ewma => "ewma",
            Self::SeasonalNaive => "seasonal-naive",
        }
    }
}

/// Which forecaster, and its season.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Which.
    pub method: Method,
    /// After so long things repeat themselves.
    pub season: Duration,
    /// The season is remembered in slots of this length: at most [`MAX_SLOTS`] of them, or slots are
    /// taken to be longer.
    pub slot: Duration,
}

impl Default for Forecast {
    fn default() -> Self {
        let (season, slot) = (Duration::from_secs(24 * 3_600), Duration::from_secs(300));
        Self { method: Method::default(), season, slot }
    }
}

impl Forecast {
    /// A forecaster that has seen nothing.
    #[must_use]
    pub fn begin(&self) -> Box<dyn Forecaster> {
        match self.method {
            Method::Ewma => Box::new(Ewma::default()),
            Method::SeasonalNaive => Box::new(SeasonalNaive::new(self.season, self.slot)),
        }
    }
}

/// A forecast as a rate: units a second over the time ahead, rounded to the nearest.
pub(crate) fn per_second(forecaster: &mut dyn Forecaster, now: Mono, ahead: Duration) -> u64 {
    let ahead = ahead.max(Duration::from_secs(1));
    let (units, ms) = (u128::from(forecaster.forecast(now, ahead)), ahead.as_millis());
    bounded((units * 1_000 + ms / 2) / ms)
}

fn bounded(units: u128) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX).min(MAX_SUPPLY)
}
