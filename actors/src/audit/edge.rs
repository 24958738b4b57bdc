//! The right edge of a growing tree: all that appending needs, and no more than 256 hashes a level. Of a pruned log the
//! same is kept of the tree of what was pruned: what is left of it in the tree above.
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

    /// The edge of the tree of what was pruned: of so many leaves, all in full tiles, with these hashes, level after
    /// level. None where there are not as many as it has, or it would not end with a tile.
    #[must_use]
    pub fn left_of(mark: u64, hashes: &[Hash]) -> Option<Self> {
        let (mut levels, mut rest) = (Vec::new(), hashes);
        for level in (0..8).take_while(|level| of_level(*level, mark) > 0) {
            let (here, after) = rest.split_at_checked((of_level(level, mark) % WIDTH) as usize)?;
            levels.push(here.to_vec());
            rest = after;
        }
        let whole = rest.is_empty() && mark.is_multiple_of(WIDTH);
        whole.then(|| Self::of(mark, levels))
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
        let complete = self.carry(0, leaf);
        self.size += 1;
        complete
    }

    /// Appends the 256 leaves of a full tile, of which only the root is known. Gives the tiles that it completes, from
    /// level 1 up.
    ///
    /// # Panics
    /// When no tile begins where the tree ends.
    pub fn push_tile(&mut self, root: Hash) -> Vec<(Tile, Vec<Hash>)> {
        assert!(self.size.is_multiple_of(WIDTH), "no tile begins at {}", self.size);
        let complete = self.carry(1, root);
        self.size += WIDTH;
        complete
    }

    fn carry(&mut self, level: u8, hash: Hash) -> Vec<(Tile, Vec<Hash>)> {
        let (mut complete, mut hash) = (Vec::new(), hash);
        for level in level.. {
            while self.levels.len() <= usize::from(level) {
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
        complete
    }

    /// The hash of this number and level, if it is one of those that are here.
    #[must_use]
    pub fn hash(&self, level: u8, number: u64) -> Option<Hash> {
        let first = of_level(level, self.size) / WIDTH * WIDTH;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.levels.get(usize::from(level))?.get(at).copied()
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
