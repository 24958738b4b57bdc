//! Tiles: the hashes of a log in files of 256, and its entries in bundles of 256 (`c2sp.org/tlog-tiles`).
//!
//! * It decides: what a tile is called, which tiles a tree of some size has, and what a bundle holds.
//! * It never does: fetch one.

use thiserror::Error;

use crate::hash::{Hash, node};
use crate::proof::Subtrees;

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u64 = 256;
/// Bytes of an entry at most: its length is written in two bytes.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// One tile: so many hashes, number `number` of its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Level 0 are leaves; each hash of level `l` is that of a full tile of level `l - 1`.
    pub level: u8,
    /// Which of its level.
    pub number: u64,
    /// Hashes in it, 1 to 256.
    pub width: u16,
}

impl Tile {
    /// Its path below a log's prefix.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, numbered(self.number, self.width))
    }

    /// The path of the bundle of entries beside a tile of level 0.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("tile/entries/{}", numbered(self.number, self.width))
    }

    /// The tile of a level that has this hash of the level in a tree of this size, as wide as it is there;
    /// `None` where the tree does not have it.
    #[must_use]
    pub fn with(level: u8, hash: u64, size: u64) -> Option<Self> {
        let hashes = of_level(level, size);
        let number = hash / WIDTH;
        let width = hashes.saturating_sub(number * WIDTH).min(WIDTH) as u16;
        (hash < hashes).then_some(Self { level, number, width })
    }
}

/// How many hashes the tiles of a level have in a tree of this size.
#[must_use]
pub fn of_level(level: u8, size: u64) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

/// All tiles of a tree of this size, by level.
pub fn all(size: u64) -> impl Iterator<Item = Tile> {
    (0..8).flat_map(move |level| {
        let last = of_level(level, size);
        (0..last.div_ceil(WIDTH)).filter_map(move |number| Tile::with(level, number * WIDTH, size))
    })
}

/// A number as path elements of three digits, all but the last with an `x` before them.
fn numbered(number: u64, width: u16) -> String {
    let mut path = format!("{:03}", number % 1_000);
    let mut rest = number / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    if u64::from(width) < WIDTH { format!("{path}.p/{width}") } else { path }
}

/// Why a tile or a bundle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoTile {
    /// Not as many bytes as its hashes have.
    #[error("{path} has {got} bytes, not the {want} of its hashes")]
    Length {
        /// Which.
        path: String,
        /// Its bytes.
        got: usize,
        /// What it should have.
        want: usize,
    },
    /// A bundle's lengths do not fit it.
    #[error("{path}: its entries end after {entries}, and it should have {want}")]
    Entries {
        /// Which.
        path: String,
        /// Whole entries in it.
        entries: usize,
        /// How many it should have.
        want: usize,
    },
}

/// The hashes of a tile's bytes.
///
/// # Errors
/// [`NoTile::Length`].
pub fn hashes(tile: Tile, bytes: &[u8]) -> Result<Vec<Hash>, NoTile> {
    let want = usize::from(tile.width) * 32;
    if bytes.len() != want {
        return Err(NoTile::Length { path: tile.path(), got: bytes.len(), want });
    }
    let (hashes, _) = bytes.as_chunks::<32>();
    Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// The entries of a bundle's bytes.
///
/// # Errors
/// [`NoTile::Entries`].
pub fn entries(tile: Tile, bytes: &[u8]) -> Result<Vec<&[u8]>, NoTile> {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    {
        entries.push(entry);
        rest = after;
    }
    let want = usize::from(tile.width);
    if entries.len() == want && rest.is_empty() {
        return Ok(entries);
    }
    Err(NoTile::Entries { path: tile.bundle(), entries: entries.len(), want })
}

/// Appends an entry to a bundle.
///
/// # Panics
/// When it is longer than [`MAX_ENTRY`].
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).expect("an entry has at most 65,535 bytes");
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// A tree of some size whose hashes are in tiles, which somebody fetches.
#[derive(Debug)]
pub struct Tiled<F> {
    size: u64,
    fetch: F,
    /// The tile fetched last of each level: proofs walk down one path, and ask for neighbours.
    last: Vec<Option<(Tile, Vec<Hash>)>>,
}

impl<E, F: FnMut(Tile) -> Result<Vec<Hash>, E>> Tiled<F> {
    /// The tree of this size. `fetch` gives a tile's hashes, as many as its width says ([`hashes`] sees to
    /// that); a proof panics where it does not.
    pub fn new(size: u64, fetch: F) -> Self {
        Self { size, fetch, last: vec![None; 8] }
    }

    fn tile(&mut self, tile: Tile) -> Result<&[Hash], E> {
        let place = &mut self.last[usize::from(tile.level)];
        if place.as_ref().is_none_or(|(fetched, _)| *fetched != tile) {
            let hashes = (self.fetch)(tile)?;
            assert_eq!(
                hashes.len(),
                usize::from(tile.width),
                "{} has as many hashes as it says",
                tile.path()
            );
            *place = Some((tile, hashes));
        }
        Ok(&place.as_ref().expect("it was put there").1)
    }
}

impl<E, F: FnMut(Tile) -> Result<Vec<Hash>, E>> Subtrees for Tiled<F> {
    type Error = E;

    fn subtree(&mut self, level: u32, number: u64) -> Result<Hash, E> {
        // A tile has eight levels of the tree, of which it holds the lowest.
        let (row, height) = ((level / 8) as u8, level % 8);
        let first = number << height;
        let tile = Tile::with(row, first, self.size).expect("a complete subtree of the tree");
        let at = (first % WIDTH) as usize;
        let mut hashes = self.tile(tile)?[at..at + (1 << height)].to_vec();
        while let [_, _, ..] = &hashes[..] {
            hashes = hashes.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
        }
        Ok(hashes[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_called_as_the_specification_calls_them() {
        let tile = |level, number, width| Tile { level, number, width };
        assert_eq!(tile(0, 1_234_067, 256).path(), "tile/0/x001/x234/067");
        assert_eq!(tile(2, 0, 1).path(), "tile/2/000.p/1");
        assert_eq!(tile(0, 273, 112).bundle(), "tile/entries/273.p/112");
        assert_eq!(tile(0, 1_000, 256).path(), "tile/0/x001/000");
    }

    #[test]
    fn a_tree_of_seventy_thousand_has_the_tiles_that_the_specification_lists() {
        let tiles: Vec<_> = all(70_000).collect();
        let full = |level| tiles.iter().filter(|t| t.level == level && u64::from(t.width) == WIDTH).count();
        let partial: Vec<_> =
            tiles.iter().filter(|t| u64::from(t.width) < WIDTH).map(|t| (t.level, t.width)).collect();
        assert_eq!((full(0), full(1), partial), (273, 1, vec![(0, 112), (1, 17), (2, 1)]));
        assert_eq!(
            all(256).collect::<Vec<_>>(),
            [Tile { level: 0, number: 0, width: 256 }, Tile { level: 1, number: 0, width: 1 }]
        );
        assert_eq!(all(0).count(), 0);
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written_and_no_other_way() {
        let tile = Tile { level: 0, number: 0, width: 3 };
        let mut bundle = Vec::new();
        for entry in [&b""[..], b"one", &[7; MAX_ENTRY]] {
            put_entry(&mut bundle, entry);
        }
        assert_eq!(entries(tile, &bundle).expect("whole"), [&b""[..], b"one", &[7; MAX_ENTRY]]);
        for cut in [0, 1, 2, 3, bundle.len() - 1] {
            assert!(entries(tile, &bundle[..cut]).is_err(), "cut at {cut}");
        }
        bundle.push(0);
        assert!(entries(tile, &bundle).is_err(), "a byte too many");
    }
}
