//! Whose signatures suffice (`c2sp.org/tlog-policy`).
//!
//! * It decides: which logs are accepted, and which sets of log witnesses are a quorum.
//! * Invariant: each name stands in one group at most, so no log witness counts twice.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::checkpoint::{Checkpoint, NoCheckpoint};
use crate::note::{Algorithm, Forged, Key, Note};

/// Bytes of a policy at most.
pub const MAX_POLICY: usize = 256 << 10;

/// What cannot be named, for it has a meaning.
const NONE: &str = "none";

/// Which checkpoints are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Key>,
    witnesses: BTreeMap<String, Key>,
    groups: BTreeMap<String, Group>,
    /// `None`: nobody but the log has to have signed.
    quorum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    least: usize,
    members: Vec<String>,
}

/// A line of a policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of the policy: {why}")]
pub struct NoPolicy {
    /// Counted from 1; 0 is the whole file.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

/// Why a checkpoint is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Distrusted {
    /// Its text is none.
    #[error(transparent)]
    NoCheckpoint(#[from] NoCheckpoint),
    /// A known key's signature does not verify.
    #[error(transparent)]
    Forged(#[from] Forged),
    /// No accepted log of that origin has signed it.
    #[error("no accepted log has signed the checkpoint of {0}")]
    NotTheLog(String),
    /// Too few log witnesses.
    #[error("cosigned by {cosigned:?}, which is no quorum by the policy")]
    NoQuorum {
        /// Those who did, by the policy's names.
        cosigned: Vec<String>,
    },
}

/// A checkpoint that a policy trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Who cosigned it, by the policy's names, and when (seconds since the Unix epoch).
    pub cosigned: BTreeMap<String, u64>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`NoPolicy`], of the first line that cannot be.
    pub fn parse(text: &str) -> Result<Self, NoPolicy> {
        if text.len() > MAX_POLICY {
            return Err(NoPolicy { line: 0, why: format!("more than {MAX_POLICY} bytes") });
        }
        let mut reader = Reader::default();
        for (number, line) in text.split('\n').enumerate() {
            reader.line(line).map_err(|why| NoPolicy { line: number + 1, why })?;
        }
        let quorum = reader.quorum.ok_or_else(|| NoPolicy {
            line: 0,
            why: "it says no quorum: `quorum NAME`, or `quorum none`".to_owned(),
        })?;
        let quorum = Some(quorum).filter(|name| name != NONE);
        Ok(Self { logs: reader.logs, witnesses: reader.witnesses, groups: reader.groups, quorum })
    }

    /// The logs that it accepts.
    #[must_use]
    pub fn logs(&self) -> &[Key] {
        &self.logs
    }

    /// Whether a note is a checkpoint that this policy trusts.
    ///
    /// # Errors
    /// [`Distrusted`].
    pub fn trusts(&self, note: &Note) -> Result<Trusted, Distrusted> {
        let checkpoint: Checkpoint = note.text.parse()?;
        let mut by_log = false;
        for log in self.logs.iter().filter(|log| log.name == checkpoint.origin) {
            by_log |= log.verify(note)?.is_some();
        }
        if !by_log {
            return Err(Distrusted::NotTheLog(checkpoint.origin));
        }
        let mut cosigned = BTreeMap::new();
        for (name, witness) in &self.witnesses {
            if let Some(at) = witness.verify(note)?.and_then(|signed| signed.at) {
                cosigned.insert(name.clone(), at);
            }
        }
        let enough = self.quorum.as_ref().is_none_or(|quorum| self.stands(quorum, &cosigned));
        if enough {
            return Ok(Trusted { checkpoint, cosigned });
        }
        Err(Distrusted::NoQuorum { cosigned: cosigned.into_keys().collect() })
    }

    /// Whether a log witness, or enough of a group, has cosigned.
    fn stands(&self, name: &str, cosigned: &BTreeMap<String, u64>) -> bool {
        match self.groups.get(name) {
            None => cosigned.contains_key(name),
            Some(Group { least, members }) => {
                members.iter().filter(|member| self.stands(member, cosigned)).count() >= *least
            }
        }
    }
}

#[derive(Default)]
struct Reader {
    logs: Vec<Key>,
    witnesses: BTreeMap<String, Key>,
    groups: BTreeMap<String, Group>,
    quorum: Option<String>,
    members: BTreeSet<String>,
    keys: BTreeSet<[u8; 32]>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.bytes().any(|byte| byte < b' ' && byte != b'\t') {
            return Err("a control character".to_owned());
        }
        let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match &words[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => {
                let key = self.key(key, Algorithm::Ed25519)?;
                self.logs.push(key);
                Ok(())
            }
            ["witness", name, key] | ["witness", name, key, _] => {
                let key = self.key(key, Algorithm::Cosignature)?;
                self.is_new(name)?;
                self.witnesses.insert((*name).to_owned(), key);
                Ok(())
            }
            ["group", name, least, members @ ..] => self.group(name, least, members),
            ["quorum", name] => {
                if self.quorum.is_some() {
                    return Err("a second quorum".to_owned());
                }
                if *name != NONE {
                    self.is_known(name)?;
                }
                self.quorum = Some((*name).to_owned());
                Ok(())
            }
            _ => Err("one of `log KEY [URL]`, `witness NAME KEY [URL]`, `group NAME all|any|K NAME…`, \
                      `quorum NAME` is expected"
                .to_owned()),
        }
    }

    fn key(&mut self, text: &str, algorithm: Algorithm) -> Result<Key, String> {
        let key: Key = text.parse().map_err(|error| format!("{error}"))?;
        if key.algorithm != algorithm {
            return Err(format!("the key of {} is of another type than is needed here", key.name));
        }
        if !self.keys.insert(key.public) {
            return Err(format!("the key of {} stands in another line too", key.name));
        }
        Ok(key)
    }

    fn group(&mut self, name: &str, least: &str, members: &[&str]) -> Result<(), String> {
        self.is_new(name)?;
        let count = members.len();
        let least = match least {
            "all" => Some(count),
            "any" => Some(1),
            number => number.parse().ok(),
        };
        let least = least.filter(|least| (1..=count).contains(least));
        let least = least.ok_or_else(|| format!("`all`, `any` or 1 to the number of members, {count}"))?;
        for member in members {
            self.is_known(member)?;
            if !self.members.insert((*member).to_owned()) {
                return Err(format!("{member} is a member already: each counts once"));
            }
        }
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.groups.insert(name.to_owned(), Group { least, members });
        Ok(())
    }

    fn is_known(&self, name: &str) -> Result<(), String> {
        let known = self.witnesses.contains_key(name) || self.groups.contains_key(name);
        if known { Ok(()) } else { Err(format!("no line before names a witness or group {name}")) }
    }

    fn is_new(&self, name: &str) -> Result<(), String> {
        if name == NONE {
            return Err(format!("{NONE} is no name of its own"));
        }
        if self.is_known(name).is_ok() { Err(format!("{name} is named twice")) } else { Ok(()) }
    }
}
