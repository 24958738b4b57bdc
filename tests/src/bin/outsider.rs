//! Verifies an exported audit log with other people's code alone: what an outsider may do who trusts neither the node
//! nor Rhumb.
//!
//! ```text
//! outsider EXPORT --key 'ORIGIN+HASH+KEY' [--entry NUMBER]…
//! ```
//!
//! * `ct-merkle` hashes every entry again and comes to the root in the checkpoint. It needs all of them: of a pruned log,
//!   which the file `minimum-index` says, `tlog_tiles` proves each entry that is there from the tiles instead.
//! * `tlog_tiles` reads the checkpoint, authenticates the tiles against it, and proves each entry from them; both
//!   verify the proof.
//! * `ring` verifies the log's Ed25519 signature of the checkpoint, as c2sp.org/signed-note has it.
//!
//! It never uses a line of Rhumb's: what the two have in common are the specifications.
#![expect(clippy::print_stdout, reason = "a program that tells what it found")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Parser;
use ct_merkle::InclusionProof;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2_of_ct_merkle::Sha256;
use tlog_tiles::tile::{Tile, TileHashReader, TileReader};
use tlog_tiles::{checkpoint::Checkpoint, tlog};

const WIDTH: u64 = 256;
/// Levels of the tree in a tile.
const HEIGHT: u8 = 8;

/// Verifies an exported audit log with other people's code alone.
#[derive(Parser)]
struct Outsider {
    /// The folder of `rhumb audit export`.
    export: PathBuf,
    /// The log's key, in c2sp.org/signed-note form. Get it from somewhere else than the log.
    #[arg(long)]
    key: String,
    /// Prove this entry.
    #[arg(long)]
    entry: Vec<u64>,
}

/// Tiles in the export's folder.
struct Tiles<'a>(&'a Path);

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        // Its paths name the tile's height, which c2sp.org/tlog-tiles leaves out.
        let path = |tile: &Tile| tile.path().replacen("tile/8/", "tile/", 1);
        let read = |tile| fs::read(self.0.join(path(tile))).map_err(|_| tlog::Error::InvalidTile);
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The number of the first entry: 0 unless the log was pruned.
fn mark(export: &Path) -> anyhow::Result<u64> {
    let path = export.join("minimum-index");
    if !path.exists() {
        return Ok(0);
    }
    let mark: u64 = fs::read_to_string(&path)?.trim_end().parse().context("minimum-index is a number")?;
    ensure!(mark.is_multiple_of(WIDTH), "minimum-index is a multiple of {WIDTH}");
    Ok(mark)
}

/// The entries' bytes from the mark on, bundle after bundle.
fn entries(export: &Path, mark: u64, size: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    for bundle in mark / WIDTH..size.div_ceil(WIDTH) {
        let width = (size - bundle * WIDTH).min(WIDTH);
        let width = if width == WIDTH { String::new() } else { format!(".p/{width}") };
        ensure!(bundle < 1_000, "this check knows paths of three digits");
        let path = export.join(format!("tile/entries/{bundle:03}{width}"));
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (entry, after) = after.split_at_checked(length).context("a bundle is cut off")?;
            entries.push(entry.to_vec());
            rest = after;
        }
    }
    let all = mark + entries.len() as u64;
    ensure!(all == size, "entries up to {all}, and the checkpoint is of {size}");
    Ok(entries)
}

/// Whether the log has signed the note. A key is NAME+ID+BASE64 of a byte 1 and 32 of the key.
fn signed(note: &str, key: &str) -> anyhow::Result<()> {
    let (text, signatures) = note.split_once("\n\n").context("a note has an empty line")?;
    let (name, rest) = key.split_once('+').context("a key is NAME+ID+KEY")?;
    let (_, key) = rest.split_once('+').context("a key is NAME+ID+KEY")?;
    let key = BASE64_STANDARD.decode(key)?;
    let public = key.strip_prefix(&[1]).context("the key of a log is of type 1, Ed25519")?;
    let line = signatures.lines().find_map(|line| line.strip_prefix(&format!("— {name} ")));
    let signature = BASE64_STANDARD.decode(line.context("the log has not signed it")?)?;
    let signature = signature.get(4..).context("a signature begins with four bytes of its key's hash")?;
    let verified = UnparsedPublicKey::new(&ED25519, public).verify(format!("{text}\n").as_bytes(), signature);
    verified.map_err(|_| anyhow!("the signature of {name} does not verify"))
}

fn main() -> anyhow::Result<()> {
    let Outsider { export, key, entry } = Outsider::parse();
    let note = fs::read_to_string(export.join("checkpoint")).context("the export's checkpoint")?;
    signed(&note, &key)?;
    let checkpoint = Checkpoint::from_reader(&mut note.as_bytes(), false);
    let checkpoint = checkpoint.map_err(|_| anyhow!("tlog_tiles: this is no checkpoint"))?;
    let (origin, size, root) = (checkpoint.origin(), checkpoint.size(), *checkpoint.hash());
    println!("ring: {origin} has signed its checkpoint of {size} entries");

    let mark = mark(&export)?;
    let entries = entries(&export, mark, size)?;
    let tiles = Tiles(&export);
    let reader = TileHashReader::new(size, root, &tiles);
    let proved = |index: u64| {
        let one = index.checked_sub(mark).with_context(|| format!("entry {index} was pruned"))?;
        let one = entries.get(usize::try_from(one)?).with_context(|| format!("there is no entry {index}"))?;
        let leaf = tlog::record_hash(one);
        let proof = tlog::prove_record(size, index, &reader).map_err(|why| anyhow!("tlog_tiles: {why:?}"))?;
        tlog::check_record(&proof, size, root, index, leaf).map_err(|why| anyhow!("tlog_tiles: {why:?}"))?;
        anyhow::Ok((one, proof))
    };
    if mark > 0 {
        (mark..size).try_for_each(|index| proved(index).map(drop))?;
        println!("tlog_tiles: each entry from {mark} on is under its root; those before were pruned");
        for index in entry {
            println!("tlog_tiles: entry {index}, {}, is one of them", action(proved(index)?.0));
        }
        return Ok(());
    }

    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    entries.iter().for_each(|one| tree.push(one.clone()));
    ensure!(
        tree.root().as_bytes()[..] == root.0,
        "ct-merkle: the entries have another root than the checkpoint"
    );
    println!("ct-merkle: all {size} entries, hashed, come to its root");
    for index in entry {
        let (one, proof) = proved(index)?;
        let path = proof.iter().flat_map(|hash| hash.0).collect();
        let path = InclusionProof::<Sha256>::from_bytes(path);
        tree.root().verify_inclusion(one, index, &path).map_err(|why| anyhow!("ct-merkle: {why:?}"))?;
        println!("tlog_tiles, ct-merkle: entry {index}, {}, is one of them", action(one));
    }
    Ok(())
}

/// The name of what was done, which stands in an entry behind 14 bytes and its length.
fn action(entry: &[u8]) -> String {
    let length = entry.get(14).map_or(0, |length| usize::from(*length));
    entry.get(15..15 + length).map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
}
