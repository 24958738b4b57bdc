//! Words of the command line.

use std::any::TypeId;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, Command};
use rhumb_actors::escrow::messages::MAX_TTL;
use rhumb_core::{NodeId, Region};

use crate::settings::units;

/// A duration with its unit: `250ms`, `3s`, `5m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| {
        format!("{text:?} is not a duration; expected a number and its unit, such as 250ms, 3s, 5m, 2h or 1d")
    })
}

/// A whole number.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number; expected one such as 17"))
}

/// A whole number of a range.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let found = text.parse().ok().filter(|number| range.contains(number));
        found.ok_or_else(|| {
            format!("{text:?} is not a whole number from {} to {}; expected one", range.start(), range.end())
        })
    }
}

/// A command whose numbers and times may begin with a hyphen: what is wrong with them then is said by those that read them. Else it
/// would be taken for another option.
pub(super) fn with_hyphens(command: Command) -> Command {
    let hyphens = |arg: Arg| match is_counted(&arg) {
        true if arg.is_positional() => arg.allow_negative_numbers(true),
        true => arg.allow_hyphen_values(true),
        false => arg,
    };
    command.mut_args(hyphens).mut_subcommands(with_hyphens)
}

/// Whether its value is a number or a time.
pub(super) fn is_counted(arg: &Arg) -> bool {
    let counted = [
        TypeId::of::<u8>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<f64>(),
        TypeId::of::<Duration>(),
    ];
    let of = arg.get_value_parser().type_id();
    arg.get_action().takes_values() && counted.iter().any(|counted| of == *counted)
}

/// How long a hold may last: `1ms` to `1d`.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = units::duration(text).filter(|ttl| !ttl.is_zero() && *ttl <= MAX_TTL);
    ttl.ok_or_else(|| {
        format!("{text:?} is not how long a hold may last: expected 1ms to 1d, such as 30s or 5m")
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

/// A node, or the only one of a region, and a part of a supply: `us-east=2000`, `us-east/n1=20%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReservePart {
    pub(super) region: Region,
    pub(super) node: Option<NodeId>,
    pub(super) part: Part,
}

/// A part of a supply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Units(u64),
    Percent(u64),
}

impl Part {
    /// In units, rounded down.
    pub(super) fn of(self, supply: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            // A percentage is at most 100, and a supply 2^48.
            Self::Percent(percent) => supply * percent / 100,
        }
    }
}

impl FromStr for ReservePart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is not REGION[/NODE]=UNITS or =SHARE%, such as us-east=2000 or us-east/n1=20%")
        };
        let (place, part) = text.split_once('=').ok_or_else(bad)?;
        let part = match part.strip_suffix('%') {
            Some(percent) => {
                Part::Percent(percent.parse().ok().filter(|percent| *percent <= 100).ok_or_else(bad)?)
            }
            None => Part::Units(part.parse().map_err(|_| bad())?),
        };
        if !place.contains('/') {
            return Ok(Self { region: Region::new(place).map_err(|e| e.to_string())?, node: None, part });
        }
        let node: NodeId = place.parse().map_err(|_| bad())?;
        Ok(Self { region: node.region.clone(), node: Some(node), part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("3s", 3_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in
            ["", "5", "s", "1.5s", "-1s", "5 m", "5w", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_whole_and_of_a_range() {
        let replication = number::<u32>(1..=7);
        assert_eq!((replication("1"), replication("7"), whole::<u64>("0")), (Ok(1), Ok(7), Ok(0)));
        for bad in ["", "abc", "0", "8", "-1", "1.5"] {
            let said = replication(bad).expect_err(bad);
            assert_eq!(said, format!("{bad:?} is not a whole number from 1 to 7; expected one"));
        }
        for bad in ["", "abc", "-1", "1.5", "18446744073709551616"] {
            let said = whole::<u64>(bad).expect_err(bad);
            assert_eq!(said, format!("{bad:?} is not a whole number; expected one such as 17"));
        }
    }

    #[test]
    fn a_hold_lasts_from_a_millisecond_to_a_day() {
        for (text, ms) in [("1ms", 1), ("5m", 300_000), ("1d", 86_400_000), ("24h", 86_400_000)] {
            assert_eq!(ttl(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["0s", "0ms", "25h", "2d", "5", ""] {
            let said = ttl(bad).expect_err(bad);
            assert!(said.contains("expected 1ms to 1d"), "{said}");
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

    #[test]
    fn a_reserve_is_a_place_and_a_part() {
        let reserve: ReservePart = "us-east/n1=20%".parse().expect("valid");
        assert_eq!(
            (reserve.node.map(|node| node.to_string()), reserve.part.of(999)),
            (Some("us-east/n1".into()), 199)
        );
        let reserve: ReservePart = "us-east=2000".parse().expect("valid");
        assert_eq!((reserve.node, reserve.part.of(10)), (None, 2_000));
        for bad in ["us-east", "us-east=", "us-east=101%", "us-east=-1", "us-east/=3", "=3", "us-east=1.5%"] {
            assert!(bad.parse::<ReservePart>().is_err(), "{bad}");
        }
    }
}
