//! From a policy file's text to a [`Policy`], or to every fault in it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rhumb_core::{DataClass, Region};
use serde::Serialize;
use thiserror::Error;
use toml::de::DeTable;

use super::read::{Faulty, Reader, Value, start, unix_ms};
use super::{ClassRule, Exception, Policy, rfc3339};

/// The largest policy file that is read.
pub const MAX_POLICY_BYTES: usize = 1 << 20;

const EVERYWHERE: &str = "all";
const JURISDICTION: &str = "jurisdiction:";

/// One fault in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub what: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

/// Every fault found in a policy file, in the file's order; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "the policy has {} fault{s}:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl Policy {
    /// Parses a policy file. Exceptions that have ended are let stand: they say nothing, and a node
    /// that restarts after one ended must still find its policy.
    ///
    /// # Errors
    /// Every fault in the file, with line and column.
    pub fn parse(text: &str) -> Result<Self, PolicyErrors> {
        read(text, None)
    }

    /// Parses a policy file that is about to be signed or checked: an exception that has ended at
    /// this time is a fault too, since whoever writes it expects that it opens a way.
    ///
    /// # Errors
    /// Every fault in the file, with line and column.
    pub fn parse_for_signing(text: &str, now_ms: u64) -> Result<Self, PolicyErrors> {
        read(text, Some(now_ms))
    }
}

fn read(text: &str, now_ms: Option<u64>) -> Result<Policy, PolicyErrors> {
    let mut reader = Reader { text, now_ms, errors: Vec::new(), regions: BTreeMap::new() };
    let mut policy = None;
    if text.len() > MAX_POLICY_BYTES {
        reader.fault(0, format!("the file has {} bytes: at most {MAX_POLICY_BYTES} are read", text.len()));
    } else {
        let (root, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            reader.fault(error.span().map_or(0, |span| span.start), error.message().to_owned());
        }
        // What a broken line meant is a guess: its faults are named before anything that follows.
        if syntax.is_empty() {
            policy = reader.policy(root.get_ref());
        }
    }
    reader.errors.sort();
    reader.errors.dedup();
    match policy {
        Some(policy) if reader.errors.is_empty() => Ok(policy),
        _ => Err(PolicyErrors(reader.errors)),
    }
}

impl Reader<'_> {
    fn policy(&mut self, root: &DeTable<'_>) -> Option<Policy> {
        self.only("", root, &["version", "jurisdictions", "classes", "exceptions"]);
        let version = self.version(root);
        self.jurisdictions(root);
        let classes = self.classes(root);
        let exceptions = self.exceptions(root, &classes);
        let classes = classes.into_iter().filter_map(|(name, rule)| Some((name, rule?))).collect();
        let jurisdictions = std::mem::take(&mut self.regions);
        Some(Policy { version: version.ok()?, jurisdictions, classes, exceptions })
    }

    fn version(&mut self, root: &DeTable<'_>) -> Result<u64, Faulty> {
        let value = self.required("", root, 0, "version")?;
        let number = value.get_ref().as_integer().filter(|number| number.radix() == 10);
        match number.and_then(|number| number.as_str().parse::<u64>().ok()) {
            Some(version @ 1..) => Ok(version),
            _ => Err(self.fault(start(value), "version: write a whole number from 1, such as 1".into())),
        }
    }

    fn jurisdictions(&mut self, root: &DeTable<'_>) {
        let Ok(value) = self.required("", root, 0, "jurisdictions") else { return };
        let Ok(table) = self.table("jurisdictions", value) else { return };
        if table.is_empty() {
            self.fault(
                start(value),
                "jurisdictions: name at least one, such as eu = [\"eu-central\"]".into(),
            );
        }
        for (name, value) in table {
            let path = format!("jurisdictions.{}", name.get_ref());
            if Region::new(name.get_ref()).is_err() || name.get_ref() == EVERYWHERE {
                let what = format!("{path}: use a-z, 0-9 and '-' for its name, and not {EVERYWHERE:?}");
                self.fault(name.span().start, what);
            }
            let mut regions = BTreeSet::new();
            for (at, text) in self.strings(&path, value) {
                match Region::new(&text) {
                    Err(error) => drop(self.fault(at, format!("{path}: {error}"))),
                    Ok(_) if text == EVERYWHERE => {
                        self.fault(
                            at,
                            format!("{path}: {EVERYWHERE:?} would mean every region: name it otherwise"),
                        );
                    }
                    Ok(region) if regions.contains(&region) => {
                        self.fault(at, format!("{path}: region {text:?} stands twice"));
                    }
                    Ok(region) => drop(regions.insert(region)),
                }
            }
            self.regions.insert(name.get_ref().to_string(), regions);
        }
    }

    /// The classes; one that has a fault is in the answer without its rule, so that an exception
    /// for it is not reported as naming an unknown class.
    fn classes(&mut self, root: &DeTable<'_>) -> BTreeMap<DataClass, Option<ClassRule>> {
        let mut classes = BTreeMap::new();
        let Some(value) = root.get("classes") else { return classes };
        let Ok(table) = self.table("classes", value) else { return classes };
        for (name, value) in table {
            let path = format!("classes.{}", name.get_ref());
            match DataClass::new(name.get_ref()) {
                Err(error) => drop(self.fault(name.span().start, format!("{path}: {error}"))),
                Ok(class) if class.is_control() => {
                    let what = "the mesh's own class is always allowed and has no rule: take it out";
                    self.fault(name.span().start, format!("{path}: {what}"));
                }
                Ok(class) => drop(classes.insert(class, self.class(&path, value).ok())),
            }
        }
        classes
    }

    fn class(&mut self, path: &str, value: &Value<'_>) -> Result<ClassRule, Faulty> {
        let table = self.table(path, value)?;
        self.only(path, table, &["hold", "read", "carry", "audit_reads"]);
        let [hold, read, carry] =
            ["hold", "read", "carry"].map(|key| self.selection(path, table, start(value), key));
        let audit_reads = match table.get("audit_reads") {
            None => Ok(false),
            Some(value) => value
                .get_ref()
                .as_bool()
                .ok_or_else(|| self.fault(start(value), format!("{path}.audit_reads: write true or false"))),
        };
        Ok(ClassRule { hold: hold?, read: read?, carry: carry?, audit_reads: audit_reads? })
    }

    fn exceptions(
        &mut self,
        root: &DeTable<'_>,
        classes: &BTreeMap<DataClass, Option<ClassRule>>,
    ) -> Vec<Exception> {
        let Some(value) = root.get("exceptions") else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.fault(start(value), "exceptions: write each as a table under [[exceptions]]".into());
            return Vec::new();
        };
        let mut kept: Vec<Exception> = Vec::new();
        for (i, value) in array.iter().enumerate() {
            let path = format!("exceptions[{i}]");
            let Ok(exception) = self.exception(&path, value, classes) else { continue };
            let same = |other: &Exception| {
                other.class == exception.class && other.from == exception.from && other.to == exception.to
            };
            if let Some(first) = kept.iter().position(same) {
                let what = format!("{path}: class, from and to are those of exceptions[{first}]: keep one");
                self.fault(start(value), what);
            }
            kept.push(exception);
        }
        kept
    }

    fn exception(
        &mut self,
        path: &str,
        value: &Value<'_>,
        classes: &BTreeMap<DataClass, Option<ClassRule>>,
    ) -> Result<Exception, Faulty> {
        let table = self.table(path, value)?;
        self.only(path, table, &["class", "from", "to", "reason", "expires"]);
        let at = start(value);
        let class = self.exception_class(path, table, at, classes);
        let [from, to] = ["from", "to"].map(|key| {
            let (at, text) = self.string(path, table, at, key)?;
            let mut regions = BTreeSet::new();
            self.select(&format!("{path}.{key}"), at, &text, &mut regions)?;
            Ok(regions)
        });
        let reason = self.string(path, table, at, "reason").and_then(|(at, reason)| {
            if reason.trim().is_empty() {
                return Err(self.fault(at, format!("{path}.reason: say why the way is open")));
            }
            Ok(reason)
        });
        let expires_ms = self.expiry(path, table, at);
        Ok(Exception { class: class?, from: from?, to: to?, reason: reason?, expires_ms: expires_ms? })
    }

    fn exception_class(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        at: usize,
        classes: &BTreeMap<DataClass, Option<ClassRule>>,
    ) -> Result<DataClass, Faulty> {
        let (at, text) = self.string(path, table, at, "class")?;
        match DataClass::new(&text) {
            Ok(class) if classes.contains_key(&class) => Ok(class),
            Ok(_) => {
                let what = format!("{path}.class: there is no [classes.{text}] in this file");
                Err(self.fault(at, what))
            }
            Err(error) => Err(self.fault(at, format!("{path}.class: {error}"))),
        }
    }

    fn expiry(&mut self, path: &str, table: &DeTable<'_>, at: usize) -> Result<u64, Faulty> {
        let right = "write an RFC 3339 date-time with its offset and without quotes, such as \
                     2031-07-31T00:00:00Z";
        let value = self.required(path, table, at, "expires")?;
        let Some(ms) = value.get_ref().as_datetime().and_then(unix_ms) else {
            return Err(self.fault(start(value), format!("{path}.expires: {right}")));
        };
        match self.now_ms {
            Some(now) if now >= ms => {
                let (end, now) = (rfc3339(ms), rfc3339(now));
                let what =
                    format!("{path}.expires: ended at {end}, and it is {now}: renew it or take it out");
                Err(self.fault(start(value), what))
            }
            _ => Ok(ms),
        }
    }

    /// The regions of a class's list of selectors.
    fn selection(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        at: usize,
        key: &str,
    ) -> Result<BTreeSet<Region>, Faulty> {
        let value = self.required(path, table, at, key)?;
        let path = format!("{path}.{key}");
        let before = self.errors.len();
        let selectors = self.strings(&path, value);
        let mut regions = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for (at, text) in &selectors {
            if !seen.insert(text) {
                self.fault(*at, format!("{path}: {text:?} stands twice"));
            } else if text != EVERYWHERE {
                // A fault is kept by `select`; the next selectors are looked at all the same.
                let _kept = self.select(&path, *at, text, &mut regions);
            } else if selectors.len() > 1 {
                self.fault(*at, format!("{path}: {EVERYWHERE:?} stands alone or not at all"));
            } else {
                regions.extend(self.regions.values().flatten().cloned());
            }
        }
        if self.errors.len() > before { Err(Faulty) } else { Ok(regions) }
    }

    /// Adds the regions of one selector: a region, or `jurisdiction:NAME`.
    fn select(
        &mut self,
        path: &str,
        at: usize,
        text: &str,
        regions: &mut BTreeSet<Region>,
    ) -> Result<(), Faulty> {
        if let Some(name) = text.strip_prefix(JURISDICTION) {
            let Some(found) = self.regions.get(name) else {
                let known = self.regions.keys().cloned().collect::<Vec<_>>().join(", ");
                let what = format!("{path}: there is no jurisdiction {name:?}: the file has {known}");
                return Err(self.fault(at, what));
            };
            regions.extend(found.iter().cloned());
            return Ok(());
        }
        match Region::new(text) {
            Ok(region) if self.regions.values().any(|known| known.contains(&region)) => {
                regions.insert(region);
                Ok(())
            }
            Ok(region) => {
                let what = format!("{path}: region {region} stands in no jurisdiction: add it to one");
                Err(self.fault(at, what))
            }
            Err(error) => Err(self.fault(at, format!("{path}: {error}"))),
        }
    }
}
