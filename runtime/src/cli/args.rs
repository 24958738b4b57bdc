//! Words of the command line.

use std::str::FromStr;
use std::time::Duration;

use rhumb_core::Region;

use crate::settings::units;

/// A duration with its unit: `250ms`, `3s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| {
        format!("{text:?} is not a duration; expected a number and its unit, such as 250ms, 3s, 5m or 2h")
    })
}

/// A region and its weight: `us-east=50`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegionWeight(pub(super) Region, pub(super) u64);

impl FromStr for RegionWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not REGION=WEIGHT, such as us-east=50");
        let (region, weight) = text.split_once('=').ok_or_else(bad)?;
        Ok(Self(Region::new(region).map_err(|e| e.to_string())?, weight.parse().map_err(|_| bad())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("250ms", 250), ("3s", 3_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in
            ["", "5", "s", "1.5s", "-1s", "5 m", "5d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn weights_are_regions_with_numbers() {
        let weight: RegionWeight = "us-east=50".parse().expect("valid");
        assert_eq!(weight, RegionWeight(Region::new("us-east").expect("valid"), 50));
        for bad in ["us-east", "us-east=", "US=1", "us-east=-1", "=1"] {
            assert!(bad.parse::<RegionWeight>().is_err(), "{bad}");
        }
    }
}
