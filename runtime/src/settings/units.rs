//! Durations and sizes as people write them: a whole number and its unit.
//!
//! * It decides: `250ms`, `3s`, `5m`, `2h`, `1d`; `512B`, `64KiB`, `8MiB`, `1GiB`. What is printed reads back.
//! * It never does: take a bare number, or a fraction, for either.

use std::time::Duration;

/// Units of time in milliseconds, the largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size in bytes, the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The duration that a text such as `250ms` or `5m` says.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_millis)
}

/// The bytes that a text such as `64KiB` says.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// A duration of whole milliseconds, in the largest unit that says it exactly.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    print(duration.as_millis() as u64, &TIMES)
}

/// A size in the largest unit that says it exactly.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    print(bytes, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, each) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*each)
}

fn print(amount: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().find(|(_, each)| amount >= *each && amount.is_multiple_of(*each));
    let (unit, each) = exact.copied().unwrap_or(units[units.len() - 1]);
    format!("{}{unit}", amount / each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_in_the_largest_exact_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("1500ms", 1_500),
            ("2s", 2_000),
            ("90s", 90_000),
            ("2h", 7_200_000),
            ("36h", 129_600_000),
            ("2d", 172_800_000),
        ] {
            let given = Duration::from_millis(ms);
            assert_eq!((duration(text), duration_text(given).as_str()), (Some(given), text));
        }
        for (text, bytes) in
            [("0B", 0), ("1023B", 1_023), ("1KiB", 1_024), ("3MiB", 3 << 20), ("5GiB", 5 << 30)]
        {
            assert_eq!((size(text), size_text(bytes).as_str()), (Some(bytes), text));
        }
    }

    #[test]
    fn a_bare_number_a_fraction_and_a_strange_unit_say_nothing() {
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "5w", "5S", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for bad in ["", "5", "MiB", "5MB", "5mib", "1.5GiB", "17179869184GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
