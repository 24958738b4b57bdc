//! A strict reader of pages of metrics, in both forms: OpenMetrics 1.0.0 and Prometheus's text format
//! 0.0.4. It was written from the two specifications, and knows nothing of what writes the pages.
//!
//! * It decides: whether a page is one, and whether its names are what `promtool check metrics` lets pass.
//! * It never does: forgive. What a scraper may read in some way, but the form forbids, is refused.

use std::collections::{BTreeMap, BTreeSet};

/// A form of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Classic,
}

/// The metrics of one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`, …
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// Its samples, in the order of the page.
    pub samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, with its suffix.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
    /// The labels of its exemplar, if it has one.
    pub exemplar: Option<BTreeMap<String, String>>,
}

/// Reads a page.
///
/// # Errors
/// The first line that the form does not allow, and why.
pub fn read(page: &str, form: Form) -> Result<BTreeMap<String, Family>, String> {
    let body = match form {
        Form::Classic => page.strip_suffix('\n').ok_or("the last line does not end")?,
        Form::OpenMetrics => page.strip_suffix("\n# EOF\n").ok_or("it does not end with # EOF")?,
    };
    let mut reader = Reader { form, families: BTreeMap::new(), now: None, series: BTreeSet::new() };
    for (number, line) in body.lines().enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
    }
    for (name, family) in &reader.families {
        whole(name, family, form)?;
    }
    Ok(reader.families)
}

struct Reader {
    form: Form,
    families: BTreeMap<String, Family>,
    /// The family that lines belong to now.
    now: Option<String>,
    series: BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                self.told(what, name, rest)
            }
            (Some("#"), Some("UNIT"), Some(name), Some(unit)) if self.form == Form::OpenMetrics => {
                let right = name.ends_with(&format!("_{unit}")) && self.now.as_deref() == Some(name);
                right.then_some(()).ok_or_else(|| "the unit is not the end of this family's name".to_owned())
            }
            (Some("#"), ..) => Err("no such comment is expected".to_owned()),
            _ => self.sample(line),
        }
    }

    fn told(&mut self, what: &str, name: &str, rest: &str) -> Result<(), String> {
        if !is_name(name, true) {
            return Err("this is no name".to_owned());
        }
        if self.now.as_deref() != Some(name) {
            if self.families.contains_key(name) {
                return Err("the family's lines do not stand together".to_owned());
            }
            self.now = Some(name.to_owned());
        }
        let family = self.families.entry(name.to_owned()).or_default();
        if !family.samples.is_empty() {
            return Err("it comes after the family's samples".to_owned());
        }
        let place = if what == "HELP" { &mut family.help } else { &mut family.kind };
        if !place.is_empty() {
            return Err("it was told before".to_owned());
        }
        let kinds: &[&str] = match self.form {
            Form::OpenMetrics => &["counter", "gauge", "histogram", "info", "stateset", "summary", "unknown"],
            Form::Classic => &["counter", "gauge", "histogram", "summary", "untyped"],
        };
        if what == "TYPE" && !kinds.contains(&rest) {
            return Err("there is no such type".to_owned());
        }
        rest.clone_into(place);
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (name, rest) = line.split_at(line.find(['{', ' ']).ok_or("there is no value")?);
        if !is_name(name, true) {
            return Err("this is no name".to_owned());
        }
        let (labels, rest) = if rest.starts_with('{') { labels(rest)? } else { (BTreeMap::new(), rest) };
        let (plain, exemplar) = match rest.split_once(" # ") {
            Some((plain, exemplar)) => (plain, Some(self.exemplar(name, &labels, exemplar)?)),
            None => (rest, None),
        };
        let value = plain.strip_prefix(' ').ok_or("no space stands before the value")?;
        let value: f64 = value.parse().map_err(|_| "the value is no number".to_owned())?;
        let family = self.now.clone().ok_or("no family has begun")?;
        if !self.series.insert(format!("{name}{labels:?}")) {
            return Err("the same series stands there before".to_owned());
        }
        let known = self.families.get_mut(&family).ok_or("no family has begun")?;
        let suffix = name.strip_prefix(&*family).ok_or("it is not of the family that has begun")?;
        let suffixes: &[&str] = match (known.kind.as_str(), self.form) {
            ("counter", Form::OpenMetrics) => &["_total"],
            ("histogram", _) => &["_bucket", "_count", "_sum"],
            ("info", Form::OpenMetrics) => &["_info"],
            ("counter" | "gauge" | "untyped" | "unknown", _) => &[""],
            _ => return Err("its family has no type".to_owned()),
        };
        if !suffixes.contains(&suffix) {
            return Err(format!("a {} has no sample of this name", known.kind));
        }
        known.samples.push(Sample { name: name.to_owned(), labels, value, exemplar });
        Ok(())
    }

    fn exemplar(
        &self,
        name: &str,
        of: &BTreeMap<String, String>,
        text: &str,
    ) -> Result<BTreeMap<String, String>, String> {
        if self.form == Form::Classic || !(name.ends_with("_bucket") || name.ends_with("_total")) {
            return Err("there is no exemplar here".to_owned());
        }
        let (labels, rest) = labels(text)?;
        let length: usize =
            labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if length > 128 {
            return Err("its exemplar is longer than 128 characters".to_owned());
        }
        let mut numbers = rest.split_whitespace().map(str::parse::<f64>);
        let value = numbers.next().and_then(Result::ok).ok_or("its exemplar has no value")?;
        let bound = of.get("le").and_then(|le| le.parse::<f64>().ok());
        if bound.is_some_and(|bound| value > bound) {
            return Err("its exemplar is not in its bucket".to_owned());
        }
        if numbers.next().is_some_and(|at| at.is_err()) || numbers.next().is_some() {
            return Err("its exemplar has more than a moment".to_owned());
        }
        Ok(labels)
    }
}

/// The labels in braces at the start of a text, and what comes after them.
fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut rest = text.strip_prefix('{').ok_or("no labels stand there")?;
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        if !labels.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma stands between two labels")?;
        }
        let (name, after) = rest.split_once("=\"").ok_or("a label has no value")?;
        if !is_name(name, false) {
            return Err(format!("{name:?} is no name of a label"));
        }
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in after.char_indices() {
            match (escaped, c) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(c),
                (true, _) => return Err(format!("\\{c} is no escape")),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, c) => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} stands there twice"));
        }
        rest = &after[end.ok_or("a label's value does not end")? + 1..];
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// What only a whole family shows: its histograms, and its name.
fn whole(name: &str, family: &Family, form: Form) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{name}: {why}"));
    if family.help.is_empty() || family.kind.is_empty() {
        return wrong("it has no help, or no type");
    }
    // As promtool has it: base units, and suffixes that mean something used for nothing else.
    let words: Vec<&str> = name.split('_').collect();
    let units =
        ["milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "ms", "kilobytes"];
    if let Some(unit) = units.iter().find(|unit| words.contains(unit)) {
        return wrong(&format!("{unit} is no base unit"));
    }
    let total = name.ends_with("_total");
    if total != (family.kind == "counter" && form == Form::Classic) {
        return wrong("_total is the end of a counter's name, and of no other");
    }
    if ["_count", "_sum", "_bucket", "_info"].iter().any(|suffix| name.ends_with(suffix)) {
        return wrong("its suffix is a histogram's");
    }
    if words.iter().any(|word| ["gauge", "counter", "histogram", "summary"].contains(word)) {
        return wrong("its type stands in its name");
    }
    let mut histograms: BTreeMap<_, Vec<&Sample>> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        histograms.entry(labels).or_default().push(sample);
    }
    if family.kind != "histogram" {
        return Ok(());
    }
    for samples in histograms.values() {
        let of = |suffix: &str| -> Vec<&Sample> {
            samples.iter().copied().filter(|sample| sample.name.ends_with(suffix)).collect()
        };
        let bound = |sample: &Sample| sample.labels.get("le").and_then(|le| le.parse::<f64>().ok());
        let bounds: Vec<f64> = of("_bucket").into_iter().filter_map(bound).collect();
        let counts: Vec<f64> = of("_bucket").iter().map(|sample| sample.value).collect();
        if bounds.len() != counts.len() || bounds.last() != Some(&f64::INFINITY) || !rises(&bounds, true) {
            return wrong("the bounds of its buckets do not rise to +Inf");
        }
        if !rises(&counts, false) {
            return wrong("its buckets are not cumulative");
        }
        let counted: Vec<f64> = of("_count").iter().map(|sample| sample.value).collect();
        if counted != counts[counts.len() - 1..] || of("_sum").len() != 1 {
            return wrong("its count is not that of its last bucket, or it has no sum");
        }
    }
    Ok(())
}

fn rises(numbers: &[f64], strictly: bool) -> bool {
    numbers.windows(2).all(|pair| if strictly { pair[0] < pair[1] } else { pair[0] <= pair[1] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "# HELP c Made.\n# TYPE c counter\nc_total{a=\"x\\\"}\"} 3 # {trace_id=\"ab\"} 1 2.5\n\
                        # HELP h_seconds Took.\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n\
                        h_seconds_bucket{le=\"0.5\"} 1 # {trace_id=\"cd\"} 0.25\nh_seconds_bucket{le=\"+Inf\"} 2\n\
                        h_seconds_count 2\nh_seconds_sum 1.5\n# EOF\n";
    const CLASSIC: &str = "# HELP c_total Made.\n# TYPE c_total counter\nc_total{a=\"b\"} 3\n# HELP g Warm.\n\
                           # TYPE g gauge\ng NaN\n";

    #[test]
    fn both_forms_are_read() {
        let open = read(OPEN, Form::OpenMetrics).expect("a page");
        assert_eq!(open["c"].samples[0].labels["a"], "x\"}");
        let exemplar = open["h_seconds"].samples[0].exemplar.as_ref().expect("there is one");
        assert_eq!(exemplar["trace_id"], "cd");
        let classic = read(CLASSIC, Form::Classic).expect("a page");
        assert_eq!((classic["c_total"].kind.as_str(), classic["c_total"].samples[0].value), ("counter", 3.0));
        read(OPEN, Form::Classic).expect_err("one form is not the other");
        read(CLASSIC, Form::OpenMetrics).expect_err("one form is not the other");
    }

    #[test]
    fn what_a_form_forbids_is_refused() {
        for (form, page, old, new) in [
            (Form::OpenMetrics, OPEN, "# EOF\n", ""),
            (Form::OpenMetrics, OPEN, "c_total{", "c{"),
            (Form::OpenMetrics, OPEN, "le=\"0.5\"} 1", "le=\"0.5\"} 3"),
            (Form::OpenMetrics, OPEN, "h_seconds_count 2", "h_seconds_count 3"),
            (Form::OpenMetrics, OPEN, "\"} 0.25", "\"} 0.75"),
            (Form::OpenMetrics, OPEN, "le=\"+Inf\"", "le=\"0.4\""),
            (Form::OpenMetrics, OPEN, "# UNIT h_seconds seconds", "# UNIT h_seconds bytes"),
            (Form::OpenMetrics, OPEN, "# TYPE c counter", "# TYPE c gauge"),
            (Form::OpenMetrics, OPEN, "# HELP c Made.\n", ""),
            (Form::OpenMetrics, OPEN, "h_seconds", "h_milliseconds"),
            (Form::Classic, CLASSIC, "g NaN", "g NaN # {} 1"),
            (Form::Classic, CLASSIC, "g NaN", "g NaN\ng 1"),
            (Form::Classic, CLASSIC, "g NaN", "g x"),
            (Form::Classic, CLASSIC, "g NaN", "g NaN\nc_total{a=\"c\"} 4"),
            (Form::Classic, CLASSIC, "{a=\"b\"}", "{a=\"b\",a=\"c\"}"),
            (Form::Classic, CLASSIC, "{a=\"b\"}", "{a=\"\\b\"}"),
            (Form::Classic, CLASSIC, "{a=\"b\"}", "{1a=\"b\"}"),
            (Form::Classic, CLASSIC, "c_total", "c"),
            (Form::Classic, CLASSIC, "# TYPE g gauge", "# TYPE g unknown"),
        ] {
            assert!(page.contains(old), "{old}");
            let changed = page.replace(old, new);
            assert!(read(&changed, form).is_err(), "{old} → {new}");
        }
    }
}
