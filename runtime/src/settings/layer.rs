//! One layer: a file or the environment, read into values that each know where they stand.
//!
//! * It decides: what is a fault within one layer: syntax, a key that is not known, a value that is not
//!   of its kind or range. All of them are kept, with their places.
//! * It never does: compare layers, or miss a key. What it does not know it refuses.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::Draft;
use super::fault::{Fault, Place};
use super::key::{self, Key, Lookup, PREFIX};
use super::keys::{Section, keys};
use super::kind::{Value, Written};

/// The largest file that is read.
const MAX_BYTES: usize = 1 << 20;

/// A value that is set: by whom, and where.
#[derive(Clone)]
pub struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    /// None for a built-in value.
    pub(super) place: Option<Place>,
    /// The layer: 0 is built in, a higher one overrides a lower one.
    pub(super) rank: usize,
}

impl Entry {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> &'static Key {
        self.key
    }

    /// Its value as it stands in a file; of a secret, a hash.
    #[must_use]
    pub fn shown(&self) -> String {
        self.key.shown(&self.value)
    }

    /// Where it was set; none for a built-in value.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The entry as it may be shown to anybody.
    #[must_use]
    pub fn to_shown(&self) -> Shown {
        Shown { value: self.shown(), from: self.place.as_ref().map(ToString::to_string) }
    }
}

/// A value as it may be shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The value as it stands in a file; of a secret, a hash.
    pub value: String,
    /// Where it was set: a file with line and column, or a variable; none for a built-in value.
    pub from: Option<String>,
}

impl Shown {
    /// Where it was set, in words.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.from.as_deref().unwrap_or("built in")
    }

    /// Whether a variable of the process's environment says so.
    #[must_use]
    pub fn is_of_environment(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.starts_with(PREFIX))
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.key.name, self.shown())
    }
}

/// What one layer says.
#[derive(Default)]
pub(super) struct Layer {
    /// Dotted names and what they are set to.
    pub(super) entries: Vec<(String, Entry)>,
    pub(super) faults: Vec<Fault>,
    /// Dotted names that are set, but not to a value that can be used.
    pub(super) faulty: Vec<String>,
    /// Part of it could not be read at all: what is missing elsewhere may stand there.
    pub(super) unread: bool,
}

impl Layer {
    fn unreadable(place: Place, what: impl Into<String>) -> Self {
        Self { faults: vec![Fault::new(place, what)], unread: true, ..Self::default() }
    }
}

/// Reads a file of the settings' folder. `absent` says what it means that there is none.
pub(super) fn file(sections: &'static [Section], dir: &Path, name: &str, rank: usize, absent: &str) -> Layer {
    let whole = Place::whole(name);
    let bytes = match fs::read(dir.join(name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Layer::unreadable(whole, format!("there is no such file: {absent}"));
        }
        Err(error) => return Layer::unreadable(whole, format!("cannot be read: {error}")),
    };
    if bytes.len() > MAX_BYTES {
        let what = format!("the file has {} bytes: at most {MAX_BYTES} are read", bytes.len());
        return Layer::unreadable(whole, what);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Walk::new(sections, name, text, rank).whole(),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            let place = Place::File { file: name.to_owned(), at: Some((line, 1)) };
            Layer::unreadable(place, "the file is not UTF-8 from here on")
        }
    }
}

/// Reads the environment's variables that are ours.
pub(super) fn variables(
    sections: &'static [Section],
    variables: &[(String, Option<String>)],
    rank: usize,
) -> Layer {
    let mut layer = Layer::default();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        let Some((key, dotted)) = key::of_variable(sections, rest) else {
            layer.faults.push(Fault::new(place, unknown_variable(sections, name)));
            continue;
        };
        let Some(text) = text else {
            layer.faults.push(Fault::new(place, "the value is not UTF-8"));
            layer.faulty.push(dotted);
            continue;
        };
        match judge(key, &dotted, &Written::Variable(text)) {
            Ok(value) => layer.entries.push((dotted, Entry { key, value, place: Some(place), rank })),
            Err(what) => {
                layer.faults.push(Fault::new(place, what));
                layer.faulty.push(dotted);
            }
        }
    }
    layer
}

fn unknown_variable(sections: &'static [Section], name: &str) -> String {
    let known: Vec<String> = keys(sections).map(Key::variable).collect();
    match key::nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("no setting has this name; did you mean {meant}?"),
        None => "no setting has this name; `rhumb config reference` lists all".to_owned(),
    }
}

/// The value, or what is wrong with what is written.
fn judge(key: &'static Key, dotted: &str, written: &Written<'_>) -> Result<Value, String> {
    let wrong = |reason: String| {
        let expected = match written {
            Written::Toml(_) => key.kind.expected(),
            Written::Variable(_) => key.kind.expected_of_variable(),
        };
        if key.secret {
            return format!("{dotted}: expected {expected}");
        }
        let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
        format!("{dotted}: found {}, expected {expected}{reason}", written.found())
    };
    let value = key.kind.read(written).ok_or_else(|| wrong(String::new()))?;
    let last = dotted.rsplit('.').next().unwrap_or_default();
    (key.field.set)(&mut Draft::default(), last, value.clone()).map_err(wrong)?;
    Ok(value)
}

/// Walks the tables of one file.
struct Walk<'a> {
    sections: &'static [Section],
    name: &'a str,
    text: &'a str,
    rank: usize,
    layer: Layer,
}

impl<'a> Walk<'a> {
    fn new(sections: &'static [Section], name: &'a str, text: &'a str, rank: usize) -> Self {
        Self { sections, name, text, rank, layer: Layer::default() }
    }

    fn whole(mut self) -> Layer {
        let (root, syntax) = DeTable::parse_recoverable(self.text);
        for error in &syntax {
            self.fault(error.span().map_or(0, |span| span.start), error.message().to_owned());
        }
        // What a broken line meant is a guess: its faults are named before anything that follows.
        self.layer.unread = !syntax.is_empty();
        if syntax.is_empty() {
            self.table(&[], root.get_ref());
        }
        self.layer.faults.sort_by(|a, b| a.place.cmp(&b.place));
        self.layer.faults.dedup();
        self.layer
    }

    fn table(&mut self, path: &[&str], table: &DeTable<'_>) {
        for (name, value) in table {
            let here = [path, &[name.get_ref().as_ref()]].concat();
            let dotted = here.join(".");
            match key::lookup(self.sections, &here) {
                Lookup::Key(key) => self.value(key, dotted, value),
                Lookup::Section => match value.get_ref().as_table() {
                    Some(inner) => self.table(&here, inner),
                    None => {
                        self.fault(value.span().start, format!("{dotted}: write a table, such as [{dotted}]"))
                    }
                },
                Lookup::NotANode(why) => self.fault(name.span().start, format!("{dotted}: {why}")),
                Lookup::Unknown => {
                    let what = format!("{dotted} is not known: {}", self.meant(path, name.get_ref()));
                    self.fault(name.span().start, what);
                }
            }
        }
    }

    fn value(&mut self, key: &'static Key, dotted: String, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        match judge(key, &dotted, &Written::Toml(value.get_ref())) {
            Ok(value) => {
                let place = Some(self.place(at));
                self.layer.entries.push((dotted, Entry { key, value, place, rank: self.rank }));
            }
            Err(what) => {
                self.fault(at, what);
                self.layer.faulty.push(dotted);
            }
        }
    }

    /// What somebody may have meant who wrote this name here: a like name here, the same name
    /// elsewhere, or one of those that are known here.
    fn meant(&self, path: &[&str], name: &str) -> String {
        let below = |key: &Key| -> Option<&'static str> {
            let mut parts = key.name.split('.');
            let leads =
                path.iter().all(|part| parts.next().is_some_and(|p| p.starts_with('*') || p == *part));
            leads.then(|| parts.next()).flatten().filter(|part| !part.starts_with('*'))
        };
        let mut here: Vec<&str> = keys(self.sections).filter_map(below).collect();
        here.dedup();
        let dotted = |name: &str| [path, &[name]].concat().join(".");
        if let Some(like) = key::nearest(name, here.iter().copied()) {
            return format!("did you mean {}?", dotted(like));
        }
        let elsewhere = keys(self.sections).find(|key| key.name.rsplit('.').next() == Some(name));
        match elsewhere {
            Some(key) => format!("did you mean {}?", key.name),
            None if path.is_empty() => format!("the sections are {}", here.join(", ")),
            None => format!("known here are {}", here.join(", ")),
        }
    }

    fn fault(&mut self, at: usize, what: String) {
        let place = self.place(at);
        self.layer.faults.push(Fault::new(place, what));
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Place::File { file: self.name.to_owned(), at: Some((line, column)) }
    }
}
