//! A whole log in memory, and as the files of `c2sp.org/tlog-tiles`.

use std::convert::Infallible;

use rhumb_verify::Hash;
use rhumb_verify::hash;
use rhumb_verify::proof;
use rhumb_verify::tile::{Tile, Tiled, all, put_entry};

/// The tiles of some entries.
pub(super) struct Tiles<'a> {
    entries: &'a [&'a [u8]],
    /// By level, the hashes of full subtrees.
    levels: Vec<Vec<Hash>>,
}

impl<'a> Tiles<'a> {
    pub(super) fn of(entries: &'a [&'a [u8]]) -> Self {
        let mut levels = vec![entries.iter().map(|entry| hash::leaf(entry)).collect::<Vec<_>>()];
        while levels.last().is_some_and(|level| level.len() >= 256) {
            let below = levels.last().map_or(&[][..], Vec::as_slice);
            levels.push(below.chunks_exact(256).map(hash::root).collect());
        }
        Self { entries, levels }
    }

    fn hashes(&self, tile: Tile) -> Vec<Hash> {
        let first = (tile.number * 256) as usize;
        self.levels[usize::from(tile.level)][first..first + usize::from(tile.width)].to_vec()
    }

    /// The root of all of them.
    pub(super) fn root(&self) -> Hash {
        self.root_of(self.entries.len() as u64)
    }

    /// The root of the first so many.
    pub(super) fn root_of(&self, size: u64) -> Hash {
        let mut tree = Tiled::new(size, |tile| Ok::<_, Infallible>(self.hashes(tile)));
        let Ok(root) = proof::root(&mut tree, size);
        root
    }

    /// Every file but the checkpoint, with its path below the log's prefix.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        all(self.entries.len() as u64).flat_map(|tile| {
            let hashes = self.hashes(tile).iter().flat_map(|hash| hash.0).collect();
            let mut files = vec![(tile.path(), hashes)];
            if tile.level == 0 {
                let (first, mut bundle) = ((tile.number * 256) as usize, Vec::new());
                let entries = &self.entries[first..first + usize::from(tile.width)];
                entries.iter().for_each(|entry| put_entry(&mut bundle, entry));
                files.push((tile.bundle(), bundle));
            }
            files
        })
    }
}

#[cfg(test)]
mod tests {
    use rhumb_actors::audit::Edge;

    use super::*;

    #[test]
    fn tiles_made_at_once_are_those_of_a_log_that_grew() {
        let entries: Vec<Vec<u8>> = (0_u32..66_000).map(|n| n.to_be_bytes().to_vec()).collect();
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let (tiles, mut edge) = (Tiles::of(&entries), Edge::default());
        for (size, entry) in (1..).zip(&entries) {
            let full = edge.push(hash::leaf(entry));
            assert!(full.iter().all(|(tile, hashes)| tiles.hashes(*tile) == *hashes));
            if size % 9_973 == 0 {
                assert_eq!(tiles.root_of(size), edge.root(), "{size}");
            }
        }
        assert_eq!(tiles.root(), edge.root());
        assert_eq!(tiles.files().count(), 258 * 2 + 2 + 1);
        assert_eq!(Tiles::of(&[]).root(), hash::empty());
    }
}
