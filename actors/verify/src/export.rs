//! A log as static files in the layout of `c2sp.org/tlog-tiles`, whole or pruned: all of it is hashed again.
//!
//! * It decides: whether the files are those that the checkpoint was signed of, and which files such a log has.
//! * It never does: open one. Who calls fetches them.
//! * Invariant: what is accepted has the checkpoint's root, with each entry from the first one on hashed; of those before
//!   it only the hashes in the tiles are believed, and that because the root is made of them too.
//!
//! A pruned log begins with its *minimum index*, a multiple of 256. Bundles and tiles that end at or before it are not
//! there (tlog-tiles, "Pruning"). The specification has no file that says it yet; here it is [`MARK`], a decimal number
//! and a newline, which an unpruned log does not have. Who changes it hides entries, and is found by whoever expects
//! them: an auditor says from where on the log must be there ([`Export::begins_by`]).

use std::convert::Infallible;
use std::fmt;

use thiserror::Error;

use crate::checkpoint::decimal;
use crate::hash::{self, Hash};
use crate::note::{NoNote, Note};
use crate::policy::{Distrusted, Policy, Trusted};
use crate::proof;
use crate::tile::{self, NoTile, Tile, Tiled, WIDTH, all, of_level, put_entry};

/// The file with the last published checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The file with the number of the first entry of a pruned log.
pub const MARK: &str = "minimum-index";

/// Why files are no such log, or not the one that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoExport {
    /// A file is not to be had.
    #[error("{path}: {why}")]
    Missing {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// The checkpoint is no note.
    #[error("{CHECKPOINT}: {0}")]
    Note(#[from] NoNote),
    /// The checkpoint is not to be trusted.
    #[error(transparent)]
    Distrusted(#[from] Distrusted),
    /// The number of the first entry is none.
    #[error(
        "{MARK} is not the number of the first entry, a multiple of 256 that is at most {size}, and a newline"
    )]
    Mark {
        /// Entries under the checkpoint.
        size: u64,
    },
    /// A tile or a bundle cannot be read.
    #[error(transparent)]
    Tile(#[from] NoTile),
    /// A tile says something else than the entries.
    #[error("{0} is not made of the entries beside it")]
    Differs(String),
    /// Entries and tiles come to another root.
    #[error("the checkpoint is of other entries than those that are here")]
    Root,
    /// Entries that must be there were pruned.
    #[error("the log begins with entry {mark}, and must be there from entry {needed} on")]
    Begins {
        /// Its first entry.
        mark: u64,
        /// What was asked for.
        needed: u64,
    },
}

/// The hashes of a log from a mark on, with what is left above it of those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    mark: u64,
    size: u64,
    /// By level, from the first hash of the tile on in which the mark lies.
    levels: Vec<Vec<Hash>>,
}

impl Kept {
    /// The log that begins with entry `mark`, a multiple of 256, and has these. `left` are by level the hashes, before
    /// those of its entries, that the tiles have in which the mark lies: none at level 0. `None` where there are not as
    /// many as there must be.
    #[must_use]
    pub fn of(mark: u64, left: &[Vec<Hash>], entries: &[impl AsRef<[u8]>]) -> Option<Self> {
        let size = mark.checked_add(entries.len() as u64)?;
        let mut levels: Vec<Vec<Hash>> = Vec::new();
        for level in (0..8).take_while(|level| of_level(*level, size) > 0) {
            let mut hashes = left.get(usize::from(level)).cloned().unwrap_or_default();
            if hashes.len() as u64 != of_level(level, mark) % WIDTH {
                return None;
            }
            match levels.last() {
                None => hashes.extend(entries.iter().map(|entry| hash::leaf(entry.as_ref()))),
                Some(below) => hashes.extend(below.chunks_exact(WIDTH as usize).map(hash::root)),
            }
            levels.push(hashes);
        }
        let more = left.iter().skip(levels.len()).any(|level| !level.is_empty());
        (mark.is_multiple_of(WIDTH) && !more).then_some(Self { mark, size, levels })
    }

    /// The number of the first entry.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// How many entries the log has, with those that were pruned.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of all of it.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.of_first(self.size)
    }

    /// The root of its first so many entries; `None` where some of those that it is made of were pruned, or there are not
    /// so many.
    #[must_use]
    pub fn root_of(&self, size: u64) -> Option<Hash> {
        (self.mark..=self.size).contains(&size).then(|| self.of_first(size))
    }

    /// The tiles that it has, in order.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        all(self.size).filter(|tile| tile.number >= of_level(tile.level, self.mark) / WIDTH)
    }

    /// A tile's bytes.
    ///
    /// # Panics
    /// When it is none of [`Kept::tiles`].
    #[must_use]
    pub fn bytes(&self, tile: Tile) -> Vec<u8> {
        self.hashes(tile).iter().flat_map(|hash| hash.0).collect()
    }

    /// Every file but the checkpoint, with its path below the log's prefix. `entries` are those that it was made of.
    pub fn files<'a>(
        &'a self,
        entries: &'a [impl AsRef<[u8]>],
    ) -> impl Iterator<Item = (String, Vec<u8>)> + 'a {
        let mark = (self.mark > 0).then(|| (MARK.to_owned(), format!("{}\n", self.mark).into_bytes()));
        let tiles = self.tiles().flat_map(|tile| {
            let mut files = vec![(tile.path(), self.bytes(tile))];
            if tile.level == 0 {
                let (first, mut bundle) = ((tile.number * WIDTH - self.mark) as usize, Vec::new());
                let entries = &entries[first..first + usize::from(tile.width)];
                entries.iter().for_each(|entry| put_entry(&mut bundle, entry.as_ref()));
                files.push((tile.bundle(), bundle));
            }
            files
        });
        mark.into_iter().chain(tiles)
    }

    fn of_first(&self, size: u64) -> Hash {
        let mut tree = Tiled::new(size, |tile| Ok::<_, Infallible>(self.hashes(tile).to_vec()));
        let Ok(root) = proof::root(&mut tree, size);
        root
    }

    fn hashes(&self, tile: Tile) -> &[Hash] {
        let first = tile.number * WIDTH - of_level(tile.level, self.mark) / WIDTH * WIDTH;
        &self.levels[usize::from(tile.level)][first as usize..first as usize + usize::from(tile.width)]
    }
}

/// A log that was read from files, and is the one that was signed.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its checkpoint, and who cosigned it.
    pub trusted: Trusted,
    /// Its hashes.
    pub kept: Kept,
    /// Its entries, from the mark on.
    pub entries: Vec<Vec<u8>>,
}

impl Export {
    /// Reads a log and hashes all of it again. `fetch` gives a file's bytes by its path below the log's prefix, and `None`
    /// where there is none of that name.
    ///
    /// # Errors
    /// [`NoExport`].
    pub fn read<E: fmt::Display>(
        policy: &Policy,
        mut fetch: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, NoExport> {
        let mut optional = |path: &str| {
            fetch(path).map_err(|why| NoExport::Missing { path: path.to_owned(), why: why.to_string() })
        };
        let missing =
            |path: &str| NoExport::Missing { path: path.to_owned(), why: "it is not there".to_owned() };
        let note = optional(CHECKPOINT)?.ok_or_else(|| missing(CHECKPOINT))?;
        let trusted = policy.trusts(&Note::parse(&String::from_utf8_lossy(&note))?)?;
        let size = trusted.checkpoint.size;
        let mark = match optional(MARK)? {
            None => 0,
            Some(text) => mark_of(&text, size).ok_or(NoExport::Mark { size })?,
        };
        let mut file = |path: &str| optional(path)?.ok_or_else(|| missing(path));
        let mut entries = Vec::new();
        for bundle in mark / WIDTH..size.div_ceil(WIDTH) {
            let tile = Tile::with(0, bundle * WIDTH, size).expect("a bundle of the tree");
            entries.extend(tile::entries(tile, &file(&tile.bundle())?)?.into_iter().map(<[u8]>::to_vec));
        }
        let mut left = Vec::new();
        for level in (0..8).take_while(|level| of_level(*level, mark) > 0) {
            let (before, mut hashes) = (of_level(level, mark), Vec::new());
            if before % WIDTH > 0 {
                // The mark is at most the size, so the tile in which this level has it is there.
                let tile = Tile::with(level, before - 1, size).expect("a tile of the tree");
                hashes = tile::hashes(tile, &file(&tile.path())?)?;
                hashes.truncate((before % WIDTH) as usize);
            }
            left.push(hashes);
        }
        let kept = Kept::of(mark, &left, &entries).ok_or(NoExport::Mark { size })?;
        for tile in kept.tiles() {
            if file(&tile.path())? != kept.bytes(tile) {
                return Err(NoExport::Differs(tile.path()));
            }
        }
        if kept.root() != trusted.checkpoint.root {
            return Err(NoExport::Root);
        }
        Ok(Self { trusted, kept, entries })
    }

    /// Whether it has all entries from this one on.
    ///
    /// # Errors
    /// [`NoExport::Begins`].
    pub fn begins_by(&self, needed: u64) -> Result<(), NoExport> {
        let mark = self.kept.mark();
        if mark <= needed { Ok(()) } else { Err(NoExport::Begins { mark, needed }) }
    }

    /// An entry by its number.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&[u8]> {
        let at = usize::try_from(index.checked_sub(self.kept.mark())?).ok()?;
        self.entries.get(at).map(Vec::as_slice)
    }
}

fn mark_of(text: &[u8], size: u64) -> Option<u64> {
    let mark = decimal(std::str::from_utf8(text).ok()?.strip_suffix('\n')?)?;
    (mark.is_multiple_of(WIDTH) && mark <= size).then_some(mark)
}
