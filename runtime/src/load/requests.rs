//! Requests from a file: who asks where, when, for how many units.
//!
//! * It decides: whether every line is a request, and tells all that are not at once, by line.
//! * It never does: guess. Quotes, other separators, and lines out of order are refused.
//! * Invariant: memory is bounded by [`MOST`] requests and [`LONGEST`] bytes a line, whatever is read;
//!   times never fall.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::time::Duration;

use rhumb_core::Region;
use rhumb_core::limits::MAX_SUPPLY;
use thiserror::Error;

/// The first line.
pub const HEADER: &str = "at_ms,region,user,qty";
/// Requests that a file may have.
pub const MOST: usize = 1_000_000;
/// Bytes that a line may have.
pub const LONGEST: usize = 512;
/// Bytes that a user may have.
const LONGEST_USER: usize = 64;
/// The latest time of a request.
const LATEST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Faults that are told one by one; of the rest there is only the number.
const TOLD: usize = 50;

/// A request of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// How long after the start.
    pub at: Duration,
    /// In which region.
    pub region: Region,
    /// Who asks: the customer, for pools with a limit a customer. Empty in a request that was drawn.
    pub user: Box<str>,
    /// For how many units.
    pub qty: u64,
}

/// A line that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// Why a file of requests was not taken.
#[derive(Debug, Error)]
pub enum RequestsError {
    /// It cannot be read.
    #[error("the requests cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Lines are wrong: all that are, up to a bound.
    #[error("{}", told(.0, *.1))]
    Wrong(Vec<Wrong>, usize),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

fn told(wrong: &[Wrong], all: usize) -> String {
    let mut lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    if all > wrong.len() {
        lines.push(format!("and {} more", all - wrong.len()));
    }
    lines.join("\n")
}

/// Reads requests for these regions; `none` says that a region is none of them, and what would be right.
///
/// # Errors
/// [`RequestsError`]: the file cannot be read, or all faults of it.
pub fn read(
    from: impl BufRead,
    regions: &[Region],
    none: impl Fn(&str) -> String,
) -> Result<Vec<Listed>, RequestsError> {
    let (requests, wrong) = (Vec::new(), Vec::new());
    let mut reading = Reading { regions, none: &none, requests, last: Duration::ZERO, wrong, all: 0 };
    let mut lines = Lines { from, number: 0 };
    match lines.next()? {
        Some(Line::Whole(header)) if header == HEADER => {}
        _ => reading.fault(1, format!("the first line is not the header `{HEADER}`")),
    }
    while let Some(line) = lines.next()? {
        if !reading.line(lines.number, line) {
            break;
        }
    }
    if reading.requests.is_empty() && reading.all == 0 {
        reading.fault(2, "there is no request; expected a line such as `250,us-east,ann,2`".to_owned());
    }
    if reading.all > 0 { Err(RequestsError::Wrong(reading.wrong, reading.all)) } else { Ok(reading.requests) }
}

struct Lines<R> {
    from: R,
    number: usize,
}

enum Line {
    Whole(String),
    /// Too long, or no text.
    Bad(&'static str),
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end. Of one that is too long only the beginning is kept.
    fn next(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        (&mut self.from).take(LONGEST as u64 + 2).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let ended = bytes.pop_if(|last| *last == b'\n').is_some();
        bytes.pop_if(|last| *last == b'\r');
        if bytes.len() > LONGEST {
            if !ended {
                self.from.skip_until(b'\n')?;
            }
            return Ok(Some(Line::Bad("longer than 512 bytes")));
        }
        Ok(Some(String::from_utf8(bytes).map_or(Line::Bad("not text (UTF-8)"), Line::Whole)))
    }
}

struct Reading<'a> {
    regions: &'a [Region],
    none: &'a dyn Fn(&str) -> String,
    requests: Vec<Listed>,
    last: Duration,
    wrong: Vec<Wrong>,
    all: usize,
}

impl Reading<'_> {
    fn fault(&mut self, line: usize, what: String) {
        self.all += 1;
        if self.wrong.len() < TOLD {
            self.wrong.push(Wrong { line, what });
        }
    }

    /// Takes a line. Whether to go on.
    fn line(&mut self, number: usize, line: Line) -> bool {
        if number > MOST + 1 {
            self.fault(number, format!("more than {MOST} requests; split the file"));
            return false;
        }
        let line = match line {
            Line::Whole(line) => line,
            Line::Bad(why) => {
                self.fault(number, why.to_owned());
                return true;
            }
        };
        let fields: Vec<&str> = line.split(',').collect();
        let [at, region, user, qty] = fields[..] else {
            self.fault(number, format!("{} fields; expected four: {HEADER}", fields.len()));
            return true;
        };
        let found = (
            self.at(number, at),
            self.region(number, region),
            self.user(number, user),
            self.qty(number, qty),
        );
        if let (Some(at), Some(region), Some(user), Some(qty)) = found {
            self.requests.push(Listed { at, region, user, qty });
        }
        true
    }

    fn at(&mut self, line: usize, text: &str) -> Option<Duration> {
        let at = digits(text).map(Duration::from_millis).filter(|at| *at <= LATEST);
        let Some(at) = at else {
            let most = LATEST.as_millis();
            self.fault(
                line,
                format!("at_ms {}: expected milliseconds after the start, 0 to {most}", shown(text)),
            );
            return None;
        };
        if at < self.last {
            let last = self.last.as_millis();
            self.fault(line, format!("at_ms {text} comes after {last}: sort the requests by time"));
            return None;
        }
        self.last = at;
        Some(at)
    }

    fn region(&mut self, line: usize, text: &str) -> Option<Region> {
        let found = self.regions.iter().find(|region| region.as_str() == text).cloned();
        if found.is_none() {
            self.fault(line, (self.none)(&shown(text)));
        }
        found
    }

    fn user(&mut self, line: usize, text: &str) -> Option<Box<str>> {
        let plain = !text.is_empty()
            && text.len() <= LONGEST_USER
            && !text.chars().any(|c| c.is_control() || c == '"');
        if !plain {
            let what =
                format!("user {}: expected 1 to {LONGEST_USER} bytes of text without quotes", shown(text));
            self.fault(line, what);
        }
        plain.then(|| text.into())
    }

    fn qty(&mut self, line: usize, text: &str) -> Option<u64> {
        let qty = digits(text).filter(|qty| (1..=MAX_SUPPLY).contains(qty));
        if qty.is_none() {
            self.fault(
                line,
                format!("qty {}: expected a whole number of units, 1 to {MAX_SUPPLY}", shown(text)),
            );
        }
        qty
    }
}

/// A number of digits alone: no sign, no space.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn regions() -> Vec<Region> {
        ["eu", "us"].map(|name| Region::new(name).expect("valid")).into()
    }

    fn none(region: &str) -> String {
        format!("region {region} has no node here; there are eu, us")
    }

    fn check(text: &str, want: Expect) {
        let told = match read(text.as_bytes(), &regions(), none) {
            Ok(requests) => {
                let one = |r: &Listed| format!("{} {} {} {}", r.at.as_millis(), r.region, r.user, r.qty);
                requests.iter().map(one).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        want.assert_eq(&told);
    }

    #[test]
    fn a_file_is_a_header_and_a_request_a_line() {
        check(
            "at_ms,region,user,qty\n0,us,ann,1\n250,eu,bob,2\n250,us,ann,3\n",
            expect![[r#"
                0 us ann 1
                250 eu bob 2
                250 us ann 3"#]],
        );
        check("at_ms,region,user,qty\r\n0,us,ann,1\r\n250,eu,bob,2", expect!["0 us ann 1\n250 eu bob 2"]);
    }

    #[test]
    fn the_example_is_such_a_file() {
        let regions = ["ap-southeast", "eu-central", "us-east"].map(|name| Region::new(name).expect("valid"));
        let text = include_str!("../../../examples/requests.csv");
        let requests = read(text.as_bytes(), &regions, none).expect("it is one");
        assert_eq!((requests.len(), requests.iter().map(|r| r.qty).sum::<u64>()), (10, 18));
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        check(
            "at_ms,region,user,qty\n100,us,ann,1\n50,us,ann,1\n200,moon,,-1\n+3,us,ann,0\n\n1,us\n200,us,\"ann\",1\n300,us,ann,1,9\n300,us,ann, 1\n300,us,ann,1",
            expect![[r#"
                line 3: at_ms 50 comes after 100: sort the requests by time
                line 4: region "moon" has no node here; there are eu, us
                line 4: user "": expected 1 to 64 bytes of text without quotes
                line 4: qty "-1": expected a whole number of units, 1 to 281474976710656
                line 5: at_ms "+3": expected milliseconds after the start, 0 to 604800000
                line 5: qty "0": expected a whole number of units, 1 to 281474976710656
                line 6: 1 fields; expected four: at_ms,region,user,qty
                line 7: 2 fields; expected four: at_ms,region,user,qty
                line 8: user "\"ann\"": expected 1 to 64 bytes of text without quotes
                line 9: 5 fields; expected four: at_ms,region,user,qty
                line 10: qty " 1": expected a whole number of units, 1 to 281474976710656"#]],
        );
    }

    #[test]
    fn a_file_without_header_or_request_is_refused() {
        check("", expect!["line 1: the first line is not the header `at_ms,region,user,qty`"]);
        check("0,us,ann,1\n", expect!["line 1: the first line is not the header `at_ms,region,user,qty`"]);
        check(
            "at_ms,region,user,qty\n",
            expect!["line 2: there is no request; expected a line such as `250,us-east,ann,2`"],
        );
    }

    #[test]
    fn what_is_read_is_bounded() {
        let long = format!("{HEADER}\n0,us,{},1\n1,us,ann,1\n", "x".repeat(100_000));
        check(&long, expect!["line 2: longer than 512 bytes"]);
        let bad = format!("{HEADER}\n{}", "x\n".repeat(200));
        let error = read(bad.as_bytes(), &regions(), none).expect_err("no line is a request");
        let RequestsError::Wrong(wrong, all) = &error else { panic!("{error}") };
        assert_eq!((wrong.len(), *all), (TOLD, 200));
        assert!(error.to_string().ends_with("and 150 more"), "{error}");
        let many = io::Cursor::new(format!("{HEADER}\n"))
            .chain(io::repeat(0).take(0))
            .chain(Endless(b"0,us,a,1\n", 0));
        let error = read(io::BufReader::new(many), &regions(), none).expect_err("it never ends");
        assert_eq!(error.to_string(), "line 1000002: more than 1000000 requests; split the file");
    }

    /// The same line for ever.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            for byte in into.iter_mut() {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(into.len())
        }
    }
}
