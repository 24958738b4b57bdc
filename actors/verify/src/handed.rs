//! What proofs to hand to somebody have in common: lines, an empty line, and the checkpoint that they are by, a note.

use thiserror::Error;

use crate::note::{NoNote, Note};

/// Why a text is no proof of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotHanded {
    /// A line is not what it should be.
    #[error("line {line} of the proof is not {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// Its checkpoint is no note.
    #[error(transparent)]
    Note(#[from] NoNote),
}

/// A line is not what it should be.
pub(crate) fn wrong(line: usize, expected: &'static str) -> NotHanded {
    NotHanded::Line { line, expected }
}

/// The lines, each with its number, and the checkpoint.
pub(crate) fn split(text: &str) -> Result<(impl Iterator<Item = (&str, usize)>, Note), NotHanded> {
    let none = wrong(1, "followed by an empty line and a checkpoint");
    let (head, checkpoint) = text.split_once("\n\n").ok_or(none)?;
    Ok((head.split('\n').zip(1..), Note::parse(checkpoint)?))
}
