//! What the audit log keeps on disk, in a family of its own.
//!
//! | key | value |
//! |---|---|
//! | `e` index | an entry, as it is hashed |
//! | `b` index | its body: the record and its salt, sealed; gone when its subject was erased |
//! | `n` | how many entries there are |
//! | `m` | the mark: the number of the first entry that was not pruned, and the edge of the tree of those before it |
//! | `t` level number | a full tile; above level 0 also the last one, as far as it has come |
//! | `c` | this log's last signed checkpoint, a note |
//! | `p` | this log's last published checkpoint, with its cosignatures |
//! | `w` origin | the last checkpoint that was cosigned of another log, a note |
//! | `h` node | the public key of another node's log, as it was first seen ([`super::peers`]) |
//! | `r` node | its keys before that, which operators replaced |
//! | `s` kind, subject | what was stated last with other regions ([`super::statements`]) |
//! | `k`, `g` | keys ([`super::keys`]) |
//! | `x` origin | evidence against a log: the note that was cosigned and the first that contradicts it |
//!
//! Numbers are big-endian, so that the family's order is the log's.
//!
//! * It decides: the bytes.
//! * Invariant: the leaves of a tile are those of the entries beside it; who reads them checks that.
//!
//! What is kept of a pruned log is what C2SP's tlog-tiles asks for ("Pruning"): a bundle or a tile is gone if it ends at
//! or before the mark. So a tile in which the mark lies is kept, with the hashes of what was pruned, and each proof of an
//! entry from the mark on, and between trees of at least so many entries, is made as before. Those hashes can be made of
//! nothing any more; they stand a second time beside the mark, and what is made of entries elsewhere is compared with
//! that.

use rhumb_storage::{Batch, Family, HotStore};
use rhumb_verify::hash::{self, Hash};
use rhumb_verify::tile::{Tile, WIDTH, hashes, of_level};
use thiserror::Error;

use super::edge::Edge;

const FAMILY: Family = Family::Audit;

/// Something of the log on disk that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsound {
    /// The number of entries is none.
    #[error("the number of entries of the audit log cannot be read")]
    NoCount,
    /// An entry is missing.
    #[error("entry {0} of the audit log is missing")]
    Hole(u64),
    /// A tile is missing, or is not one.
    #[error("{0} of the audit log is missing or is no tile")]
    NoTile(String),
    /// A tile says something else than the entries below it.
    #[error(
        "{path} of the audit log says another hash for number {number} of its level than what it is made of"
    )]
    OtherHash {
        /// The tile.
        path: String,
        /// Which hash of its level.
        number: u64,
    },
    /// It was there, and was pruned.
    #[error("what the audit log has begins with entry {mark}: what was before was pruned")]
    Pruned {
        /// The first entry that is there.
        mark: u64,
    },
    /// The mark cannot be.
    #[error(
        "the mark from which on the audit log has its entries cannot be read, or lies beyond what was published"
    )]
    NoMark,
    /// A checkpoint is not a note, or not a checkpoint.
    #[error("the checkpoint of the audit log cannot be read: {0}")]
    Checkpoint(String),
    /// A checkpoint was signed of more, or of other, entries than are there.
    #[error(
        "a checkpoint of {size} entries was signed, and the entries on this disk are not those: {have} are here"
    )]
    NotSigned {
        /// How many it is of.
        size: u64,
        /// How many there are.
        have: u64,
    },
    /// The pinned key of another node's log is none.
    #[error("the key of the log of node {0} cannot be read")]
    PeerKey(String),
    /// A statement that was signed is none.
    #[error("a statement that this node signed cannot be read: {0}")]
    Statement(String),
    /// The disk does not answer.
    #[error("the audit log cannot be read: {0}")]
    Disk(String),
}

/// The log's family, to be read.
pub trait Rows {
    /// The value under a key.
    ///
    /// # Errors
    /// [`Unsound::Disk`].
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unsound>;
}

impl Rows for HotStore {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unsound> {
        self.get(FAMILY, key).map_err(|fault| Unsound::Disk(fault.to_string()))
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows whose keys begin with this, each without it.
///
/// # Errors
/// [`Unsound::Disk`].
pub fn with(store: &HotStore, prefix: &[u8]) -> Result<Vec<Row>, Unsound> {
    let mut rows = Vec::new();
    let read = store.scan(FAMILY, prefix, |key, value| {
        rows.push((key[prefix.len()..].to_vec(), value.to_vec()));
        true
    });
    read.map_err(|fault| Unsound::Disk(fault.to_string()))?;
    Ok(rows)
}

/// The key of an entry.
#[must_use]
pub fn entry_key(index: u64) -> Vec<u8> {
    [b"e", &index.to_be_bytes()[..]].concat()
}

/// The key of a body.
#[must_use]
pub fn body_key(index: u64) -> Vec<u8> {
    [b"b", &index.to_be_bytes()[..]].concat()
}

/// The key of a full tile.
#[must_use]
pub fn tile_key(level: u8, number: u64) -> Vec<u8> {
    [b"t", &[level][..], &number.to_be_bytes()].concat()
}

/// The key of the number of entries.
pub const COUNT: &[u8] = b"n";
/// The key of the mark.
pub const MARK: &[u8] = b"m";
/// The key of the last signed checkpoint.
pub const SIGNED: &[u8] = b"c";
/// The key of the last published checkpoint.
pub const PUBLISHED: &[u8] = b"p";

/// The key of what is known of another log.
#[must_use]
pub fn witnessed_key(origin: &str) -> Vec<u8> {
    [b"w", origin.as_bytes()].concat()
}

/// The key of evidence against a log.
#[must_use]
pub fn evidence_key(origin: &str) -> Vec<u8> {
    [b"x", origin.as_bytes()].concat()
}

/// Writes an entry, its body, and the tiles that it completes.
pub fn put_entry(batch: &mut Batch, index: u64, entry: &[u8], body: &[u8], tiles: &[(Tile, Vec<Hash>)]) {
    batch.put(FAMILY, entry_key(index), entry);
    batch.put(FAMILY, COUNT, (index + 1).to_be_bytes());
    if !body.is_empty() {
        batch.put(FAMILY, body_key(index), body);
    }
    for (tile, hashes) in tiles {
        put_tile(batch, tile.level, tile.number, hashes);
    }
}

/// Writes what an entry added to above the tiles that it completed: the tile in which the last one's hash stands, as
/// far as it has come. A proof would have to make it of 255 full ones otherwise.
pub fn put_partial(batch: &mut Batch, edge: &Edge, completed: &[(Tile, Vec<Hash>)]) {
    let Some((last, _)) = completed.last() else { return };
    let level = last.level + 1;
    if let Some(hashes) = edge.levels().get(usize::from(level)) {
        put_tile(batch, level, last.number / WIDTH, hashes);
    }
}

fn put_tile(batch: &mut Batch, level: u8, number: u64, hashes: &[Hash]) {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    batch.put(FAMILY, tile_key(level, number), bytes);
}

/// Deletes a bundle of entries: them, their bodies, their tile and those above that end with it; and writes down that the
/// log begins behind it. `left` is the edge of the tree of all that is pruned then.
pub fn prune(batch: &mut Batch, bundle: u64, ended: &[(Tile, Vec<Hash>)], left: &Edge) {
    for index in bundle * WIDTH..(bundle + 1) * WIDTH {
        batch.delete(FAMILY, entry_key(index)).delete(FAMILY, body_key(index));
    }
    batch.delete(FAMILY, tile_key(0, bundle));
    for (tile, _) in ended {
        batch.delete(FAMILY, tile_key(tile.level, tile.number));
    }
    let mut value = left.size().to_be_bytes().to_vec();
    value.extend(left.levels().iter().flatten().flat_map(|hash| hash.0));
    batch.put(FAMILY, MARK, value);
}

/// The number of the first entry that was not pruned.
///
/// # Errors
/// [`Unsound`].
pub fn mark(rows: &impl Rows) -> Result<u64, Unsound> {
    let Some(value) = rows.row(MARK)? else { return Ok(0) };
    let mark = value.first_chunk::<8>().map(|mark| u64::from_be_bytes(*mark));
    mark.filter(|mark| mark.is_multiple_of(WIDTH)).ok_or(Unsound::NoMark)
}

/// The edge of the tree of what was pruned: its size is the mark.
///
/// # Errors
/// [`Unsound`].
pub fn left(rows: &impl Rows) -> Result<Edge, Unsound> {
    let Some(value) = rows.row(MARK)? else { return Ok(Edge::default()) };
    edge_of(&value).ok_or(Unsound::NoMark)
}

/// A mark and the hashes behind it, as they are written.
fn edge_of(value: &[u8]) -> Option<Edge> {
    let (mark, hashes) = value.split_first_chunk::<8>()?;
    Edge::left_of(u64::from_be_bytes(*mark), &super::read::split(hashes)?)
}

/// The bytes of an entry.
///
/// # Errors
/// [`Unsound::Pruned`] or [`Unsound::Hole`] where there is none.
pub fn entry(rows: &impl Rows, index: u64) -> Result<Vec<u8>, Unsound> {
    match rows.row(&entry_key(index))? {
        Some(entry) => Ok(entry),
        None => Err(gone(rows, index.saturating_add(1), Unsound::Hole(index))),
    }
}

/// Why something is not there that ends before the entry `end`. A bundle goes in one batch with the mark's rise, so what
/// was pruned between two looks is below the mark at the second one.
fn gone(rows: &impl Rows, end: u64, otherwise: Unsound) -> Unsound {
    match mark(rows) {
        Ok(mark) if end <= mark => Unsound::Pruned { mark },
        Ok(_) => otherwise,
        Err(why) => why,
    }
}

/// The entry before which the hash of this number and level ends.
fn end_of(level: u8, number: u64) -> u64 {
    let span = 1_u64.checked_shl(8 * u32::from(level)).unwrap_or(u64::MAX);
    number.saturating_add(1).saturating_mul(span)
}

/// Writes a note.
pub fn put_note(batch: &mut Batch, key: impl Into<Vec<u8>>, note: &str) {
    batch.put(FAMILY, key, note.as_bytes());
}

/// The edge of the log on disk: its size is that of the entries, whose last ones are hashed again, and the
/// rest is read from full tiles, each checked against the one above it, and from beside the mark.
///
/// # Errors
/// [`Unsound`].
pub fn edge(rows: &impl Rows) -> Result<Edge, Unsound> {
    let size = match rows.row(COUNT)? {
        None => 0,
        Some(count) => u64::from_be_bytes(count.try_into().map_err(|_| Unsound::NoCount)?),
    };
    let left = left(rows)?;
    if left.size() > size {
        return Err(Unsound::NoMark);
    }
    let mut levels = Vec::new();
    let mut level = 0;
    while of_level(level, size) > 0 {
        let hashes = of_level(level, size);
        let first = hashes - hashes % WIDTH;
        levels.push((first..hashes).map(|number| of(rows, &left, level, number)).collect::<Result<_, _>>()?);
        level += 1;
    }
    Ok(Edge::of(size, levels))
}

/// A hash of a level, made of what is below it: of an entry, or of a full tile. Where that was pruned it is the one that
/// stands beside the mark.
fn of(rows: &impl Rows, left: &Edge, level: u8, number: u64) -> Result<Hash, Unsound> {
    if level == 0 {
        return entry(rows, number).map(|entry| hash::leaf(&entry));
    }
    if end_of(level, number) <= left.size() {
        return left.hash(level, number).ok_or(Unsound::Pruned { mark: left.size() });
    }
    let below = Tile { level: level - 1, number, width: WIDTH as u16 };
    Ok(hash::root(&tile(rows, below)?))
}

/// A full tile's hashes.
///
/// # Errors
/// [`Unsound`].
pub fn tile(rows: &impl Rows, tile: Tile) -> Result<Vec<Hash>, Unsound> {
    let bytes = rows.row(&tile_key(tile.level, tile.number))?;
    match bytes {
        Some(bytes) => hashes(tile, &bytes).map_err(|_| Unsound::NoTile(tile.path())),
        None => Err(gone(rows, end_of(tile.level + 1, tile.number), Unsound::NoTile(tile.path()))),
    }
}

/// The hashes of a tile of the tree of this size: of a partial one those that the longer one on disk begins with.
///
/// # Errors
/// [`Unsound`].
pub fn any_tile(rows: &impl Rows, wanted: Tile) -> Result<Vec<Hash>, Unsound> {
    if u64::from(wanted.width) < WIDTH {
        let bytes = rows.row(&tile_key(wanted.level, wanted.number))?.unwrap_or_default();
        let begins = bytes.get(..usize::from(wanted.width) * 32);
        return match begins.and_then(|bytes| hashes(wanted, bytes).ok()) {
            Some(hashes) => Ok(hashes),
            None => made_tile(rows, wanted),
        };
    }
    tile(rows, wanted)
}

/// The same, but partial ones are made of what is below them.
///
/// # Errors
/// [`Unsound`].
pub fn made_tile(rows: &impl Rows, wanted: Tile) -> Result<Vec<Hash>, Unsound> {
    if u64::from(wanted.width) == WIDTH {
        return tile(rows, wanted);
    }
    let (first, left) = (wanted.number * WIDTH, left(rows)?);
    (first..first + u64::from(wanted.width)).map(|number| of(rows, &left, wanted.level, number)).collect()
}

/// Hashes everything again that the tile of this level and number is made of, and compares.
///
/// # Errors
/// [`Unsound`], naming what differs.
pub fn check_tile(rows: &impl Rows, level: u8, number: u64) -> Result<(), Unsound> {
    let (full, left) = (Tile { level, number, width: WIDTH as u16 }, left(rows)?);
    for (said, number) in tile(rows, full)?.into_iter().zip(number * WIDTH..) {
        if of(rows, &left, level, number)? != said {
            return Err(Unsound::OtherHash { path: full.path(), number });
        }
    }
    Ok(())
}

/// Hashes everything again that a tile is made of that has not come to its end, and compares. Where none was written
/// there is nothing to compare: it is made where it is needed.
///
/// # Errors
/// [`Unsound`], naming what differs.
pub fn check_partial(rows: &impl Rows, level: u8, number: u64) -> Result<(), Unsound> {
    let Some(bytes) = rows.row(&tile_key(level, number))? else { return Ok(()) };
    let (path, left) = (|width| Tile { level, number, width }.path(), left(rows)?);
    let width = u16::try_from(bytes.len() / 32).unwrap_or(0);
    let said = hashes(Tile { level, number, width }, &bytes);
    let said = said.ok().filter(|said| (1..=WIDTH).contains(&(said.len() as u64)));
    for (said, number) in said.ok_or_else(|| Unsound::NoTile(path(width)))?.into_iter().zip(number * WIDTH..)
    {
        if of(rows, &left, level, number)? != said {
            return Err(Unsound::OtherHash { path: path(width), number });
        }
    }
    Ok(())
}
