//! Reading a log on disk: pages of entries, proofs, and the check of everything.
//!
//! * It decides: what is not sound, and what that is called.
//! * It never does: open a body. Who has the keys does that.
//! * Invariant: what it proves is of the entries on the disk, and a tile that contradicts them is no proof's part
//!   once it was checked.

use rhumb_verify::hash::{self, Hash};
use rhumb_verify::note::{Key, Note};
use rhumb_verify::record::Entry;
use rhumb_verify::tile::{Tile, WIDTH, of_level};
use rhumb_verify::{Checkpoint, proof};

use super::log::{Prunable, root_of, tree};
use super::rows::{self, COUNT, PUBLISHED, Rows, SIGNED, Unsound};

/// An entry and its sealed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub index: u64,
    /// Its bytes, as they are hashed.
    pub entry: Vec<u8>,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
}

/// How many entries there are.
///
/// # Errors
/// [`Unsound`].
pub fn size(rows: &impl Rows) -> Result<u64, Unsound> {
    let Some(count) = rows.row(COUNT)? else { return Ok(0) };
    Ok(u64::from_be_bytes(count.try_into().map_err(|_| Unsound::NoCount)?))
}

/// An entry and its body.
///
/// # Errors
/// [`Unsound::Pruned`] or [`Unsound::Hole`] where there is none.
pub fn stored(rows: &impl Rows, index: u64) -> Result<Stored, Unsound> {
    let entry = rows::entry(rows, index)?;
    Ok(Stored { index, entry, body: rows.row(&rows::body_key(index))?.unwrap_or_default() })
}

/// Proves that an entry is in the tree of the first `size`.
///
/// # Errors
/// [`Unsound`].
///
/// # Panics
/// When the entry is not in that tree.
pub fn inclusion(rows: &impl Rows, index: u64, size: u64) -> Result<Vec<Hash>, Unsound> {
    proof::prove_inclusion(&mut tree(rows, size), index, size)
}

/// Proves by one proof that entries are in the tree of the first `size`.
///
/// # Errors
/// [`Unsound`].
///
/// # Panics
/// When one is not in that tree.
pub fn batch(rows: &impl Rows, indices: &[u64], size: u64) -> Result<Vec<Hash>, Unsound> {
    rhumb_verify::batch::prove(&mut tree(rows, size), indices.iter().copied(), size)
}

/// Proves that the tree of the first `new` entries continues that of the first `old`.
///
/// # Errors
/// [`Unsound`].
///
/// # Panics
/// When `old` is more than `new`.
pub fn consistency(rows: &impl Rows, old: u64, new: u64) -> Result<Vec<Hash>, Unsound> {
    proof::prove_consistency(&mut tree(rows, new), old, new)
}

/// The roots of the bundles that may be pruned and are old enough: one after the other, whole, and each entry of them.
/// What is hashed again here and is not what its tile says is not pruned: it is evidence.
///
/// # Errors
/// [`Unsound`].
pub fn old(rows: &impl Rows, prunable: &Prunable) -> Result<Vec<Hash>, Unsound> {
    let mut roots = Vec::new();
    for bundle in prunable.first..prunable.end {
        // The last one is the youngest, unless somebody has put a clock back: mostly this is all that is read.
        let old = |index| Ok::<_, Unsound>(millis(rows, index)?.is_some_and(|at| at < prunable.before));
        for index in (bundle * WIDTH..(bundle + 1) * WIDTH).rev() {
            if !old(index)? {
                return Ok(roots);
            }
        }
        rows::check_tile(rows, 0, bundle)?;
        roots.push(hash::root(&rows::tile(rows, Tile { level: 0, number: bundle, width: WIDTH as u16 })?));
    }
    Ok(roots)
}

/// When an entry was written, in milliseconds since the Unix epoch; none where it cannot be read.
///
/// # Errors
/// [`Unsound`].
pub fn millis(rows: &impl Rows, index: u64) -> Result<Option<u64>, Unsound> {
    Ok(Entry::decode(&rows::entry(rows, index)?).ok().map(|entry| entry.millis()))
}

/// A text's bytes as hashes, one behind the other.
#[must_use]
pub fn joined(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Hashes that stand one behind the other; none where a part of one is left.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// Checks a bundle: its entries, and every tile that its last entry completes, with the last one also those that are
/// not complete. Gives what is not sound, and the entries that can be read. A bundle that was pruned, or is while it is
/// looked at, has neither.
///
/// # Errors
/// [`Unsound::Disk`]: nothing can be said.
pub fn check_bundle(rows: &impl Rows, bundle: u64) -> Result<(Vec<Stored>, Vec<String>), Unsound> {
    let entries = size(rows)?;
    let (first, last) = (bundle * WIDTH, ((bundle + 1) * WIDTH).min(entries));
    let (mut read, mut faults) = (Vec::new(), Vec::new());
    for index in first..last {
        if let Some(stored) = noted(stored(rows, index), &mut faults)? {
            if let Err(fault) = Entry::decode(&stored.entry) {
                faults.push(format!("entry {index}: {fault}"));
            }
            read.push(stored);
        }
    }
    let (mut level, mut number) = (0, bundle);
    while of_level(level, entries) >= (number + 1) * WIDTH {
        noted(rows::check_tile(rows, level, number), &mut faults)?;
        if (number + 1) % WIDTH != 0 {
            break;
        }
        (level, number) = (level + 1, number / WIDTH);
    }
    // With the last bundle, what stands above it on the right edge.
    for level in (1..8).take_while(|level| last == entries && of_level(*level, entries) > 0) {
        noted(rows::check_partial(rows, level, of_level(level, entries) / WIDTH), &mut faults)?;
    }
    Ok((read, faults))
}

/// Notes what is not sound. What was pruned meanwhile is none of that.
fn noted<T>(found: Result<T, Unsound>, faults: &mut Vec<String>) -> Result<Option<T>, Unsound> {
    match found {
        Ok(found) => return Ok(Some(found)),
        Err(Unsound::Disk(why)) => return Err(Unsound::Disk(why)),
        Err(Unsound::Pruned { .. }) => {}
        Err(fault) => faults.push(fault.to_string()),
    }
    Ok(None)
}

/// Checks what was signed: that both checkpoints are of this log, signed by it, and of the entries on the disk, and
/// that every cosignature is that of a log witness whose key is, or once was, believed.
///
/// # Errors
/// [`Unsound::Disk`]: nothing can be said.
pub fn check_signed(rows: &impl Rows, key: &Key, witnesses: &[Key]) -> Result<Vec<String>, Unsound> {
    let mut faults = Vec::new();
    for (row, which) in [(SIGNED, "signed"), (PUBLISHED, "published")] {
        let Some(note) = rows.row(row)? else { continue };
        match signed(rows, key, &note) {
            Ok(note) => {
                let faults_of = cosignatures(&note, key, witnesses);
                faults.extend(faults_of.map(|why| format!("the last {which} checkpoint: {why}")));
            }
            Err(Wrong::Disk(why)) => return Err(Unsound::Disk(why)),
            // Another one is there since, and the log was pruned beyond what this one is of.
            Err(Wrong::Past) if rows.row(row)?.as_ref() != Some(&note) => {}
            Err(Wrong::Past) => {
                faults.push(format!("the last {which} checkpoint: it is of entries that were pruned"))
            }
            Err(Wrong::Is(why)) => faults.push(format!("the last {which} checkpoint: {why}")),
        }
    }
    Ok(faults)
}

enum Wrong {
    Disk(String),
    Past,
    Is(String),
}

impl From<Unsound> for Wrong {
    fn from(fault: Unsound) -> Self {
        match fault {
            Unsound::Disk(why) => Self::Disk(why),
            Unsound::Pruned { .. } => Self::Past,
            fault => Self::Is(fault.to_string()),
        }
    }
}

/// What is wrong with the signatures that a log's checkpoint has beside its own.
fn cosignatures<'a>(note: &'a Note, log: &'a Key, witnesses: &'a [Key]) -> impl Iterator<Item = String> + 'a {
    note.signatures.iter().filter_map(move |signature| {
        let named: Vec<_> =
            witnesses.iter().chain([log]).filter(|witness| witness.name == signature.name).collect();
        let Some(witness) = named.iter().find(|witness| witness.id() == signature.id) else {
            let name = &signature.name;
            return Some(match named.is_empty() {
                true => format!("it has a signature of {name}, and no log witness has that name"),
                false => format!("its signature of {name} is of no key of {name} that is believed"),
            });
        };
        witness.verify(note).err().map(|forged| forged.to_string())
    })
}

fn signed(rows: &impl Rows, key: &Key, note: &[u8]) -> Result<Note, Wrong> {
    let is = |why: &dyn std::fmt::Display| Wrong::Is(why.to_string());
    let note = Note::parse(&String::from_utf8_lossy(note)).map_err(|why| is(&why))?;
    let checkpoint: Checkpoint = note.text.parse().map_err(|why| is(&why))?;
    match key.verify(&note) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(is(&"this log has not signed it")),
        Err(forged) => return Err(is(&forged)),
    }
    let have = size(rows)?;
    let same = checkpoint.size <= have && root_of(rows, checkpoint.size)? == checkpoint.root;
    if same { Ok(note) } else { Err(Unsound::NotSigned { size: checkpoint.size, have }.into()) }
}

/// Checks what was cosigned of another log: that its log signed it.
#[must_use]
pub fn check_cosigned(log: &Key, note: &str) -> Option<String> {
    let fault = match Note::parse(note).map(|note| log.verify(&note)) {
        Ok(Ok(Some(_))) => return None,
        Ok(Ok(None)) => "its log has not signed it".to_owned(),
        Ok(Err(forged)) => forged.to_string(),
        Err(why) => why.to_string(),
    };
    Some(format!("what was cosigned of {}: {fault}", log.name))
}
