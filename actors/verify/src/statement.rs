//! Quorum certificates: one statement, signed by several regions, as a signed note that anybody can check.
//!
//! ```text
//! rhumb statement/1
//! MESH                 which mesh
//! KIND SUBJECT         of what: `policy mesh`, `epoch range/7`, `checkpoint ORIGIN`
//! NUMBER               its number within that: a version, an epoch, a size
//! VALUE                what is stated, as a hash
//! PREVIOUS             the hash of the statement before it, or 32 zero bytes
//! ```
//!
//! * It decides: whether enough regions have signed a statement, and whether it follows another.
//! * Invariant: of two certificates with one number and two values, the regions that signed both lied, and
//!   both notes together prove it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::checkpoint::decimal;
use crate::hash::{Hash, sha256};
use crate::note::{Forged, Key, Note, is_name};

const FIRST: &str = "rhumb statement/1";
/// The predecessor of the first statement of a chain.
pub const NOTHING: Hash = Hash([0; 32]);

/// What several regions sign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Which mesh.
    pub mesh: String,
    /// Of what kind.
    pub kind: String,
    /// Of what, within its kind.
    pub subject: String,
    /// Which of its chain: a later one has a higher number.
    pub number: u64,
    /// What is stated.
    pub value: Hash,
    /// [`Statement::hash`] of the one before.
    pub previous: Hash,
}

/// A text that is no statement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of the statement is not {expected}")]
pub struct NoStatement {
    /// Counted from 1.
    pub line: usize,
    /// What should be there.
    pub expected: &'static str,
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotCertified {
    /// Its text is no statement.
    #[error(transparent)]
    NoStatement(#[from] NoStatement),
    /// A known key's signature does not verify.
    #[error(transparent)]
    Forged(#[from] Forged),
    /// Too few signatures.
    #[error("signed by {got} of the {need} regions that it needs: {signed:?}")]
    TooFew {
        /// How many.
        got: usize,
        /// How many it needs.
        need: usize,
        /// Who.
        signed: Vec<String>,
    },
}

/// Why a certificate does not follow another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotNext {
    /// They are not of one chain.
    #[error("it is of another mesh, kind or subject")]
    OtherChain,
    /// Its number is not above the other's.
    #[error("its number {got} is not above {last}")]
    Number {
        /// The last one's.
        last: u64,
        /// Its own.
        got: u64,
    },
    /// It names another predecessor.
    #[error("it follows another statement than the last one")]
    Previous,
    /// One number, two statements: those who signed both lied.
    #[error("two statements with number {number}, both signed by {liars:?}")]
    Forked {
        /// Which.
        number: u64,
        /// Who signed both.
        liars: Vec<String>,
    },
}

/// A statement that enough regions have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What they signed.
    pub statement: Statement,
    /// Who did.
    pub signed: BTreeSet<String>,
    /// As it was read.
    pub note: Note,
}

impl Statement {
    /// The hash of its text: what the next one names as its predecessor.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&[self.to_string().as_bytes()])
    }

    fn chain(&self) -> (&str, &str, &str) {
        (&self.mesh, &self.kind, &self.subject)
    }
}

impl Certificate {
    /// Believes a note that at least so many of the given keys have signed.
    ///
    /// # Errors
    /// [`NotCertified`].
    pub fn check(note: Note, keys: &[Key], need: usize) -> Result<Self, NotCertified> {
        let statement: Statement = note.text.parse()?;
        let mut signed = BTreeSet::new();
        // A key that stands in the list twice, under two names, counts once.
        let mut counted = BTreeSet::new();
        for key in keys {
            if key.verify(&note)?.is_some() && counted.insert(key.public) {
                signed.insert(key.name.clone());
            }
        }
        if need == 0 || counted.len() < need {
            let signed = signed.into_iter().collect();
            return Err(NotCertified::TooFew { got: counted.len(), need: need.max(1), signed });
        }
        Ok(Self { statement, signed, note })
    }

    /// Whether this one follows that one.
    ///
    /// # Errors
    /// [`NotNext`].
    pub fn follows(&self, last: &Self) -> Result<(), NotNext> {
        let (ours, theirs) = (&self.statement, &last.statement);
        if ours.chain() != theirs.chain() {
            return Err(NotNext::OtherChain);
        }
        if ours.number == theirs.number && ours != theirs {
            let liars = self.signed.intersection(&last.signed).cloned().collect();
            return Err(NotNext::Forked { number: ours.number, liars });
        }
        if ours.number <= theirs.number {
            return Err(NotNext::Number { last: theirs.number, got: ours.number });
        }
        if ours.previous != theirs.hash() {
            return Err(NotNext::Previous);
        }
        Ok(())
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}\n{}\n{} {}", self.mesh, self.kind, self.subject)?;
        writeln!(f, "{}\n{}\n{}", self.number, self.value, self.previous)
    }
}

impl FromStr for Statement {
    type Err = NoStatement;

    fn from_str(text: &str) -> Result<Self, NoStatement> {
        let mut lines = text.split('\n');
        let mut at = 0;
        let mut next = |expected| {
            at += 1;
            lines.next().ok_or(NoStatement { line: at, expected }).map(|line| (line, at))
        };
        let wrong = |line, expected| NoStatement { line, expected };
        let (first, at) = next(FIRST)?;
        if first != FIRST {
            return Err(wrong(at, FIRST));
        }
        let named = |(line, at): (&str, usize), expected| {
            if is_name(line) { Ok(line.to_owned()) } else { Err(wrong(at, expected)) }
        };
        let mesh = named(next("a mesh")?, "the name of a mesh")?;
        let (of, at) = next("a kind and a subject")?;
        let (kind, subject) = of.split_once(' ').ok_or(wrong(at, "a kind, a space and a subject"))?;
        let kind = named((kind, at), "the name of a kind")?;
        let subject = named((subject, at), "a subject without spaces")?;
        let (number, at) = next("a number")?;
        let number = decimal(number).ok_or(wrong(at, "a number"))?;
        let hash = |(line, at): (&str, usize)| line.parse().map_err(|_| wrong(at, "a hash in base64"));
        let (value, previous) = (hash(next("a value")?)?, hash(next("a predecessor")?)?);
        match (next("the end"), next("the end")) {
            (Ok(("", _)), Err(_)) => Ok(Self { mesh, kind, subject, number, value, previous }),
            _ => Err(wrong(7, "the end")),
        }
    }
}
