//! What is wrong with settings, and where.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Where a value or a fault stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file, named from the settings' folder.
    File {
        /// Such as `us-east/staging.toml`.
        file: String,
        /// Line and character in it, both from 1; none for the file as a whole.
        at: Option<(usize, usize)>,
    },
    /// In this environment variable.
    Variable(String),
}

impl Place {
    /// The file as a whole.
    pub(super) fn whole(file: impl Into<String>) -> Self {
        Self::File { file: file.into(), at: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, at: Some((line, column)) } => write!(f, "{file}:{line}:{column}"),
            Self::File { file, at: None } => f.write_str(file),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One fault: where, what was found, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What was found there and what was expected. Never a secret.
    pub what: String,
}

impl Fault {
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self { place, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            file: Option<&'a str>,
            line: Option<usize>,
            column: Option<usize>,
            variable: Option<&'a str>,
            what: &'a str,
        }
        let what = &self.what;
        let flat = match &self.place {
            Place::File { file, at } => {
                let (line, column) = at.unzip();
                Flat { file: Some(file), line, column, variable: None, what }
            }
            Place::Variable(name) => {
                Flat { file: None, line: None, column: None, variable: Some(name), what }
            }
        };
        flat.serialize(serializer)
    }
}

/// Settings that cannot be used: every fault of every layer at once, in the order of the layers; at
/// least one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Faults {
    /// The settings' folder.
    pub dir: PathBuf,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// Takes up more faults, each once.
    pub fn merge(&mut self, more: Self) {
        for fault in more.faults {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.faults.len() == 1 { "" } else { "s" };
        write!(f, "the settings in {} have {} fault{s}:", self.dir.display(), self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
