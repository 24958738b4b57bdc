//! The right edge of a growing tree: all that appending needs, and no more than 256 hashes a level.
//!
//! * It decides: the tiles that an entry completes, and the root.
//! * Invariant: what it holds are the partial tiles of a tree of its size, as `rhumb_verify::tile` defines
//!   them.

use std::convert::Infallible;

use rhumb_verify::Hash;
use rhumb_verify::hash;
use rhumb_verify::proof::{self, Subtrees};
use rhumb_verify::tile::{Tile, WIDTH, of_level};

/// The partial tiles of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// By level, each shorter than a full tile.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of this size whose partial tiles are these, by level.
    ///
    /// # Panics
    /// When a tile has not as many hashes as it has in such a tree.
    #[must_use]
    pub fn of(size: u64, levels: Vec<Vec<Hash>>) -> Self {
        for (level, hashes) in (0..).zip(&levels) {
            assert_eq!(hashes.len() as u64, of_level(level, size) % WIDTH, "the edge of level {level}");
        }
        let rest = u8::try_from(levels.len()).map_or(0, |level| of_level(level, size));
        assert_eq!(rest, 0, "an edge has all levels of its tree");
        Self { size, levels }
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its partial tiles, by level.
    #[must_use]
    pub fn levels(&self) -> &[Vec<Hash>] {
        &self.levels
    }

    /// Appends a leaf. Gives the tiles that it completes, from level 0 up.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Tile, Vec<Hash>)> {
        let (mut complete, mut hash) = (Vec::new(), leaf);
        for level in 0.. {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::new());
            }
            let tile = &mut self.levels[usize::from(level)];
            tile.push(hash);
            if (tile.len() as u64) < WIDTH {
                break;
            }
            let hashes = std::mem::take(tile);
            hash = hash::root(&hashes);
            let number = of_level(level + 1, self.size);
            complete.push((Tile { level, number, width: WIDTH as u16 }, hashes));
        }
        self.size += 1;
        complete
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let Ok(root) = proof::root(&mut Peaks(self), self.size);
        root
    }
}

/// The complete subtrees on the edge: those that RFC 6962 combines into the root.
struct Peaks<'a>(&'a Edge);

impl Subtrees for Peaks<'_> {
    type Error = Infallible;

    fn subtree(&mut self, level: u32, number: u64) -> Result<Hash, Infallible> {
        let (row, height) = ((level / 8) as usize, level % 8);
        let first = ((number << height) % WIDTH) as usize;
        Ok(hash::root(&self.0.levels[row][first..first + (1 << height)]))
    }
}
