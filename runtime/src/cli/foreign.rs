//! Times of other systems' clocks, as somebody types them: `unix-s:1795388024`, `smeared-ms:1483228800250~20ms`.
//!
//! * It decides: what such a text says; what it leaves open belongs to the error of the time.
//! * It never does: give hybrid time. What is read as of such a time is what was there at the earliest moment it can be.

use std::str::FromStr;
use std::time::Duration;

use rhumb_actors::clock::{ForeignTime, LEAPS_KNOWN_UNTIL, SMEAR_MOST, Smeared};

use crate::settings::units;

const SECOND: i64 = 1_000_000;
/// The latest that hybrid time can show: the year 10889.
const LATEST: i64 = (1 << 48) * 1_000;

/// A time of another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    /// When it may have been.
    pub(super) time: ForeignTime,
    /// It may have been smeared for a leap second that this build does not know of.
    pub(super) leap_unknown: bool,
}

impl Foreign {
    /// The moment as of which is read: what is seen was there, whichever moment was meant. In milliseconds of Unix time.
    pub(super) fn read_as_of_ms(self) -> u64 {
        u64::try_from(self.time.earliest().div_euclid(1_000)).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let (scale, rest) = text.split_once(':')?;
        let (clock, unit) = scale.split_once('-')?;
        let (number, error) = match rest.split_once('~') {
            None => (rest, Duration::ZERO),
            Some((number, error)) => (number, units::duration(error)?),
        };
        let unit = match unit {
            "s" => SECOND,
            "ms" => 1_000,
            "us" => 1,
            _ => return None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let at = is_number.then(|| number.parse::<i64>().ok()).flatten()?.checked_mul(unit)?;
        // It was within the unit that begins then: given from its middle.
        let (at, grain) = (at + unit / 2, Duration::from_micros(unit.unsigned_abs() / 2));
        let leap_unknown = clock == "smeared" && at >= LEAPS_KNOWN_UNTIL * SECOND;
        let time = match clock {
            "unix" => Smeared::default().read(at, error + grain),
            "smeared" if leap_unknown => Smeared::default().read(at, error + grain + SMEAR_MOST),
            "smeared" => Smeared::iers().read(at, error + grain),
            _ => return None,
        };
        let fits = time.earliest() >= 0 && time.latest() < LATEST;
        fits.then_some(Self { time, leap_unknown })
    }
}

impl FromStr for Foreign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            format!(
                "{text:?} is no time of another clock; expected SCALE:NUMBER, and ~TIME if its clock may have been off, such as \
                 unix-s:1795388024 or smeared-ms:1483228800250~20ms, of 1970 to 10889; scales are unix-s, unix-ms, unix-us, \
                 smeared-s, smeared-ms and smeared-us"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> (i64, i64) {
        let Foreign { time, .. } = text.parse().expect(text);
        (time.earliest(), time.latest())
    }

    #[test]
    fn what_a_text_leaves_open_is_in_its_span() {
        // A microsecond either way is what taking back a smear may lose.
        assert_eq!(span("unix-s:1795388024"), (1_795_388_023_999_999, 1_795_388_025_000_001));
        assert_eq!(span("unix-ms:1795388024001"), (1_795_388_024_000_999, 1_795_388_024_002_001));
        assert_eq!(span("unix-us:1795388024000001~2ms"), (1_795_388_023_998_000, 1_795_388_024_002_002));
        assert_eq!("unix-ms:2000~1s".parse::<Foreign>().expect("a time").read_as_of_ms(), 999);
    }

    #[test]
    fn a_smear_is_taken_back_where_it_is_known() {
        const MIDNIGHT: i64 = 1_483_228_800 * SECOND;
        // Six hours before the leap second of 2016 a smearing clock was a quarter of a second late; at midnight nobody knows.
        let (early, late) = span(&format!("smeared-us:{}", MIDNIGHT - 21_600 * SECOND - 249_997));
        assert!((early..=late).contains(&(MIDNIGHT - 21_600 * SECOND)), "{early} to {late}");
        let (early, late) = span(&format!("smeared-us:{MIDNIGHT}"));
        assert!(early <= MIDNIGHT - SECOND / 2 && late >= MIDNIGHT + SECOND / 2, "{early} to {late}");
        let later: Foreign = "smeared-s:1798761600".parse().expect("2027");
        assert!(later.leap_unknown);
        assert_eq!(later.time.earliest(), 1_798_761_599_499_999);
        assert!(!"unix-s:1798761600".parse::<Foreign>().expect("2027").leap_unknown);
    }

    #[test]
    fn what_is_no_time_is_said() {
        for text in [
            "",
            "1795388024",
            "unix-s",
            "unix-s:",
            "unix-s:-1",
            "unix-s:+1",
            "unix-s:1.5",
            "unix:5",
            "unix-m:5",
            "tai-s:5",
            "unix-s:1~",
            "unix-s:1~5",
            "unix-s:9223372036854775807",
            "unix-ms:281474976710656",
            "unix-s:1~2s",
        ] {
            let why = text.parse::<Foreign>().expect_err(text);
            assert!(why.contains("expected SCALE:NUMBER"), "{why}");
        }
    }
}
