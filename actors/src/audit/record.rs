//! What a record says: one line of JSON that an auditor can read with any tool.
//!
//! Its bytes are canonical as RFC 8785 has it: names are sorted, nothing stands between, and all values are
//! text, so that no number has two forms. An entry commits to those bytes, and whoever is shown a record hashes
//! what was shown.
//!
//! * It decides: which fields there are, and that equal records have equal bytes.
//! * It never does: say who somebody is beyond what it was given.

use std::collections::BTreeMap;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};
use rhumb_core::rng::Rng;
use rhumb_verify::record::{MAX_ACTION, MAX_RECORD, SALT};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far something has come. What outlives a process is told twice: before it is done, and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be done; how it ended is told by a later entry, if the node lived to see it.
    Begun,
    /// It was done.
    Done,
    /// It was refused, or not found to be possible.
    Refused,
    /// It failed, or nobody knows how it ended.
    Failed,
}

/// Something that was done, or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What kind of thing, such as `pool.create`; it stands in the entry too.
    pub action: String,
    /// Who did it: a principal as its certificate names it, or a part of the node.
    pub actor: String,
    /// From which address, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// What else there is to say, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    /// How it came out.
    pub outcome: Outcome,
    /// The region whose log this is.
    pub region: String,
    /// To what, as its owner names it: Rhumb does not look into it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// When, as hybrid time; it stands in the entry too.
    pub time: String,
    /// Under which trace, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
}

/// A record that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoRecord {
    /// Its action's name is none.
    #[error("the action {0:?} cannot be: 1 to {MAX_ACTION} of a-z, 0-9, `.`, `_` and `-`")]
    Action(String),
    /// It is too long.
    #[error("the record has {0} bytes, more than {MAX_RECORD}: name less in its details")]
    Long(usize),
    /// It is not in the form.
    #[error("this is no record: {0}")]
    Form(String),
}

impl Record {
    /// A record with nothing but what each has.
    #[must_use]
    pub fn new(action: &str, actor: &str, region: &str, time: HybridTime, outcome: Outcome) -> Self {
        Self {
            action: action.to_owned(),
            actor: actor.to_owned(),
            address: String::new(),
            details: BTreeMap::new(),
            outcome,
            region: region.to_owned(),
            resource: String::new(),
            time: time.to_string(),
            trace: String::new(),
        }
    }

    /// A record that a log is to take, which says when and in which region.
    #[must_use]
    pub fn told(action: &str, actor: impl Into<String>, outcome: Outcome) -> Self {
        Self { actor: actor.into(), ..Self::new(action, "", "", HybridTime::default(), outcome) }
    }

    /// With what was acted on.
    #[must_use]
    pub fn on(self, resource: impl Into<String>) -> Self {
        Self { resource: resource.into(), ..self }
    }

    /// With one more thing to say.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Its canonical bytes.
    ///
    /// # Errors
    /// [`NoRecord`].
    pub fn bytes(&self) -> Result<Vec<u8>, NoRecord> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if !(1..=MAX_ACTION).contains(&self.action.len()) || !self.action.bytes().all(plain) {
            return Err(NoRecord::Action(self.action.clone()));
        }
        let bytes = serde_json::to_vec(self).map_err(|error| NoRecord::Form(error.to_string()))?;
        if bytes.len() > MAX_RECORD { Err(NoRecord::Long(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`NoRecord::Form`]: also when the bytes are not the canonical ones.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoRecord> {
        let record: Self =
            serde_json::from_slice(bytes).map_err(|error| NoRecord::Form(error.to_string()))?;
        if record.bytes()? == bytes {
            Ok(record)
        } else {
            Err(NoRecord::Form("its bytes are not the canonical ones".into()))
        }
    }
}

/// Salts, each for one record: without it nobody can try out what an entry commits to.
#[derive(Debug)]
pub struct Salts(Rng);

impl Salts {
    /// Salts of a generator whose seed nobody else has.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self(rng)
    }

    /// The next salt.
    pub fn draw(&mut self) -> [u8; SALT] {
        let mut salt = [0; SALT];
        if !canary::sings(Canary::SaltReused) {
            salt.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.0.u64().to_be_bytes()));
        }
        salt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record =
            Record::new("pool.create", "operator/us-east/ann", "eu", HybridTime::new(5, 1), Outcome::Done);
        record.resource = "pool \"a/b\"\u{7}é".into();
        record.details =
            BTreeMap::from([("supply".into(), "100".into()), ("class".into(), "inventory".into())]);
        record
    }

    #[test]
    fn a_record_is_canonical_json() {
        let text = String::from_utf8(record().bytes().expect("a record")).expect("text");
        let expected = concat!(
            r#"{"action":"pool.create","actor":"operator/us-east/ann","details":{"class":"inventory","supply":"100"},"#,
            r#""outcome":"done","region":"eu","resource":"pool \"a/b\"\u0007é","time":"#
        );
        assert!(text.starts_with(expected), "{text}");
        let mut names: Vec<String> = Vec::new();
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        names.extend(value.keys().cloned());
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(Record::parse(text.as_bytes()), Ok(record()));
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        let text = String::from_utf8(record().bytes().expect("a record")).expect("text");
        for (changed, why) in [
            (text.replace(r#","outcome""#, r#", "outcome""#), "not the canonical ones"),
            (text.replace("pool.create", "Pool Create"), "cannot be"),
            (text.replace(r#""done""#, r#""undone""#), "unknown variant"),
            (text.replace(r#""region""#, r#""regiom""#), "unknown field"),
            (String::from("{"), "EOF"),
        ] {
            let error = Record::parse(changed.as_bytes()).expect_err(&changed).to_string();
            assert!(error.contains(why), "{error}");
        }
        let long = Record { resource: "x".repeat(70_000), ..record() };
        assert!(matches!(long.bytes(), Err(NoRecord::Long(bytes)) if bytes > 70_000));
    }
}
