//! Distances: a published matrix of round-trip times between places, and which place stands for
//! which region.
//!
//! * It decides: what a well-formed matrix is, and the round trip between two regions.
//! * It never does: measure anything, or guess a distance that is not in the matrix.
//! * Invariant: a matrix is square: every column has exactly one row and every row every column.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::Region;
use thiserror::Error;

/// The longest round trip a matrix may hold: more is a unit mistaken.
const MAX_RTT_MS: f64 = 60_000.0;
/// The most places a matrix may have.
const MAX_COLUMNS: usize = 256;

const PUBLISHED: &str = include_str!("../data/wan-rtt-ibm-cloud-2024-08.csv");

/// Which place of the published matrix stands for which region, unless settings say otherwise.
const DEFAULT_COLUMNS: [(&str, &str); 10] = [
    ("ap-northeast", "tokyo"),
    ("ap-osaka", "osaka"),
    ("ap-southeast", "sydney"),
    ("ca-central", "toronto"),
    ("eu-central", "frankfurt"),
    ("eu-south", "madrid"),
    ("eu-west", "london"),
    ("sa-east", "sao-paulo"),
    ("us-east", "washington-dc"),
    ("us-south", "dallas"),
];

/// A fault in a matrix's text, or a question that it cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// The text is not a matrix.
    #[error("line {line}, field {field}: {what}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// The comma-separated field in it, from 1.
        field: usize,
        /// What was wrong and what would be right.
        what: String,
    },
    /// The matrix has no such place.
    #[error("the latency matrix has no column {column:?}: it has {known}")]
    UnknownColumn {
        /// The place asked for.
        column: String,
        /// Those it has, for the message.
        known: String,
    },
    /// No place stands for this region.
    #[error("region {region} is not in the latency matrix, which has {known}")]
    UnmappedRegion {
        /// The region.
        region: Region,
        /// The regions and places there are, for the message.
        known: String,
    },
}

/// Round-trip times between places, in the direction "row pings column".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyMatrix {
    columns: Vec<String>,
    /// `rows[from][to]`, both by index into `columns`.
    rows: Vec<Vec<Duration>>,
}

impl LatencyMatrix {
    /// The published matrix that comes with Rhumb: average round trips between IBM Cloud regions,
    /// July and August 2024. Its file names its source.
    #[must_use]
    pub fn published() -> Self {
        Self::parse(PUBLISHED).expect("the embedded matrix is well formed; a test reads it")
    }

    /// Parses a matrix: lines that begin with `#` and empty lines are skipped; then a header
    /// `from,A,B,…`; then one line `A,ms,ms,…` for every column, in milliseconds with at most three
    /// decimals. The diagonal is the round trip within the place.
    ///
    /// # Errors
    /// [`MatrixError::Text`] names the first line and field that is wrong.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (line, header) =
            lines.next().ok_or_else(|| wrong(1, 1, "there is no header: write from,A,B,…"))?;
        let columns = parse_header(line, header)?;
        let mut rows: Vec<Option<Vec<Duration>>> = vec![None; columns.len()];
        let mut last = line;
        for (line, row) in lines {
            let (at, cells) = parse_row(line, row, &columns)?;
            if rows[at].replace(cells).is_some() {
                return Err(wrong(line, 1, &format!("{:?} has a row already", columns[at])));
            }
            last = line;
        }
        let rows = rows.into_iter().enumerate().map(|(at, row)| {
            row.ok_or_else(|| wrong(last, 1, &format!("after this line a row is missing: {:?}", columns[at])))
        });
        let rows = rows.collect::<Result<_, _>>()?;
        Ok(Self { columns, rows })
    }

    /// The names of the places.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The round trip of a ping from one place to another.
    ///
    /// # Errors
    /// [`MatrixError::UnknownColumn`] when the matrix lacks either place.
    pub fn rtt(&self, from: &str, to: &str) -> Result<Duration, MatrixError> {
        Ok(self.rows[self.index(from)?][self.index(to)?])
    }

    /// The same in milliseconds.
    ///
    /// # Errors
    /// As [`LatencyMatrix::rtt`].
    pub fn rtt_ms(&self, from: &str, to: &str) -> Result<f64, MatrixError> {
        Ok(self.rtt(from, to)?.as_micros() as f64 / 1e3)
    }

    fn index(&self, column: &str) -> Result<usize, MatrixError> {
        self.columns.iter().position(|known| known == column).ok_or_else(|| MatrixError::UnknownColumn {
            column: column.into(),
            known: self.columns.join(", "),
        })
    }
}

/// Which place of a matrix stands for which region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionMap {
    matrix: LatencyMatrix,
    columns: BTreeMap<Region, String>,
}

impl RegionMap {
    /// The usual regions on their places, as far as the matrix has them.
    #[must_use]
    pub fn new(matrix: LatencyMatrix) -> Self {
        let known = |column: &str| matrix.columns.iter().any(|c| c == column);
        let columns = DEFAULT_COLUMNS
            .iter()
            .filter(|(_, column)| known(column))
            .map(|(region, column)| (Region::new(region).expect("a valid name"), (*column).to_owned()))
            .collect();
        Self { matrix, columns }
    }

    /// Puts a region on a place, in stead of where it was.
    ///
    /// # Errors
    /// [`MatrixError::UnknownColumn`] when the matrix lacks the place.
    pub fn map(&mut self, region: Region, column: &str) -> Result<(), MatrixError> {
        self.matrix.index(column)?;
        self.columns.insert(region, column.to_owned());
        Ok(())
    }

    /// The place that stands for a region: the mapped one, or the one of the same name.
    ///
    /// # Errors
    /// [`MatrixError::UnmappedRegion`] when there is none.
    pub fn column(&self, region: &Region) -> Result<&str, MatrixError> {
        let same_name = || self.matrix.columns.iter().find(|column| *column == region.as_str());
        self.columns.get(region).or_else(same_name).map(String::as_str).ok_or_else(|| {
            let regions = self.columns.keys().map(Region::as_str);
            let places =
                self.matrix.columns.iter().filter(|place| !self.columns.values().any(|of| of == *place));
            let known: Vec<_> = regions.chain(places.map(String::as_str)).collect();
            MatrixError::UnmappedRegion { region: region.clone(), known: known.join(", ") }
        })
    }

    /// The round trip of a ping from one region to another; from a region to itself, between two
    /// nodes in it.
    ///
    /// # Errors
    /// [`MatrixError::UnmappedRegion`] when no place stands for either.
    pub fn rtt(&self, from: &Region, to: &Region) -> Result<Duration, MatrixError> {
        self.matrix.rtt(self.column(from)?, self.column(to)?)
    }

    /// The matrix itself.
    #[must_use]
    pub fn matrix(&self) -> &LatencyMatrix {
        &self.matrix
    }
}

impl Default for RegionMap {
    /// The usual regions on the published matrix.
    fn default() -> Self {
        Self::new(LatencyMatrix::published())
    }
}

fn wrong(line: usize, field: usize, what: &str) -> MatrixError {
    MatrixError::Text { line, field, what: what.into() }
}

fn parse_header(line: usize, header: &str) -> Result<Vec<String>, MatrixError> {
    let mut fields = header.split(',').map(str::trim);
    if fields.next() != Some("from") {
        return Err(wrong(line, 1, "the header must begin with \"from\": write from,A,B,…"));
    }
    let mut columns: Vec<String> = Vec::new();
    for (i, name) in fields.enumerate() {
        let field = i + 2;
        if Region::new(name).is_err() {
            let what = format!("{name:?} is not a place's name: use a-z, 0-9 and '-'");
            return Err(wrong(line, field, &what));
        }
        if columns.iter().any(|known| known == name) {
            return Err(wrong(line, field, &format!("column {name:?} stands twice")));
        }
        columns.push(name.into());
    }
    match columns.len() {
        0 => Err(wrong(line, 2, "there is no column: write from,A,B,…")),
        n if n > MAX_COLUMNS => {
            Err(wrong(line, MAX_COLUMNS + 2, &format!("{n} columns: at most {MAX_COLUMNS}")))
        }
        _ => Ok(columns),
    }
}

fn parse_row(line: usize, row: &str, columns: &[String]) -> Result<(usize, Vec<Duration>), MatrixError> {
    let fields: Vec<&str> = row.split(',').map(str::trim).collect();
    let at = columns
        .iter()
        .position(|column| column == fields[0])
        .ok_or_else(|| wrong(line, 1, &format!("row {:?} has no column of that name", fields[0])))?;
    if fields.len() != columns.len() + 1 {
        let what = format!("{} values, but there are {} columns", fields.len() - 1, columns.len());
        return Err(wrong(line, fields.len(), &what));
    }
    let cell = |(i, text): (usize, &&str)| parse_ms(text).map_err(|what| wrong(line, i + 1, &what));
    let cells = fields.iter().enumerate().skip(1).map(cell).collect::<Result<_, _>>()?;
    Ok((at, cells))
}

fn parse_ms(text: &str) -> Result<Duration, String> {
    let right = "write milliseconds such as 91 or 2.12, above 0 and at most 60000";
    // `f64::from_str` would also take "inf", "1e3" and "+1".
    if !text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(format!("{text:?} is not a round trip: {right}"));
    }
    let ms: f64 = text.parse().map_err(|_| format!("{text:?} is not a round trip: {right}"))?;
    if !(ms > 0.0 && ms <= MAX_RTT_MS) {
        return Err(format!("{text:?} is not a plausible round trip: {right}"));
    }
    Ok(Duration::from_micros((ms * 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    #[test]
    fn the_published_matrix_is_read_as_it_stands() {
        let matrix = LatencyMatrix::published();
        assert_eq!(matrix.columns().len(), 10);
        for (from, to, ms) in [
            ("washington-dc", "frankfurt", 91.0),
            ("washington-dc", "sydney", 214.0),
            ("frankfurt", "sydney", 250.0),
            ("sydney", "frankfurt", 249.0),
            ("dallas", "dallas", 2.12),
            ("sao-paulo", "madrid", 208.0),
        ] {
            assert_eq!(matrix.rtt_ms(from, to), Ok(ms), "{from} to {to}");
        }
    }

    #[test]
    fn the_usual_regions_have_a_place() {
        let mut map = RegionMap::default();
        for (region_name, column) in DEFAULT_COLUMNS {
            assert_eq!(map.column(&region(region_name)), Ok(column));
        }
        let (us, eu) = (region("us-east"), region("eu-central"));
        assert_eq!(map.rtt(&us, &eu), Ok(Duration::from_millis(91)));
        map.map(us.clone(), "dallas").expect("a column");
        assert_eq!(map.rtt(&us, &eu), Ok(Duration::from_millis(123)));
        assert_eq!(map.column(&region("tokyo")), Ok("tokyo"), "a column's own name is a region too");
    }

    #[test]
    fn what_is_not_in_the_matrix_is_not_guessed() {
        let mut map = RegionMap::default();
        let unmapped = map.rtt(&region("us-east"), &region("moon")).expect_err("no such place");
        assert!(matches!(&unmapped, MatrixError::UnmappedRegion { region, .. } if region.as_str() == "moon"));
        let has = unmapped.to_string();
        assert!(has.contains("eu-central") && has.contains("us-east"), "{has}");
        assert!(!has.contains("tokyo"), "that is ap-northeast: {has}");
        let unknown = map.map(region("moon"), "luna").expect_err("no such column");
        assert!(unknown.to_string().starts_with("the latency matrix has no column \"luna\": it has dallas,"));
    }

    #[test]
    fn a_malformed_matrix_is_refused_by_line_and_field() {
        for (text, want) in [
            ("# only a comment\n", "line 1, field 1: there is no header"),
            ("to,a\na,1", "line 1, field 1: the header must begin with \"from\""),
            ("from\n", "line 1, field 2: there is no column"),
            ("from,a,B\n", "line 1, field 3: \"B\" is not a place's name"),
            ("from,a,a\n", "line 1, field 3: column \"a\" stands twice"),
            ("from,a,b\na,1,2\n\nc,1,2\n", "line 4, field 1: row \"c\" has no column"),
            ("from,a,b\na,1,2\na,1,2\n", "line 3, field 1: \"a\" has a row already"),
            ("from,a,b\na,1,2\n", "line 2, field 1: after this line a row is missing: \"b\""),
            ("from,a,b\na,1\nb,1,2\n", "line 2, field 2: 1 values, but there are 2 columns"),
            ("from,a,b\na,1,2,3\nb,1,2\n", "line 2, field 4: 3 values, but there are 2 columns"),
            ("from,a,b\na,1,x\nb,1,2\n", "line 2, field 3: \"x\" is not a round trip"),
            ("from,a\na,-1\n", "line 2, field 2: \"-1\" is not a round trip"),
            ("from,a\na,inf\n", "line 2, field 2: \"inf\" is not a round trip"),
            ("from,a\na,\n", "line 2, field 2: \"\" is not a round trip"),
            ("from,a\na,0\n", "line 2, field 2: \"0\" is not a plausible round trip"),
            ("from,a\na,60001\n", "line 2, field 2: \"60001\" is not a plausible round trip"),
        ] {
            let error = LatencyMatrix::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(want), "{text:?}: {error}");
        }
    }
}
