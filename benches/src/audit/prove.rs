//! Proofs of inclusion in a long log: from the tiles in a node's store, and from a tree that ct-merkle has in memory.
//!
//! Both are of the same leaves, must come to the same root, and give the same hashes. Of the entries only those beyond the last
//! full tile are in the store: nothing else of a proof is made of entries.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use rhumb::seed::Seed;
use rhumb_actors::audit::{Edge, read, rows};
use rhumb_storage::hot::HotSettings;
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, CommitError, Durability, Family, HotStore, RocksEngine, Store};
use rhumb_verify::hash::{Hash, leaf};
use rhumb_verify::proof;
use rhumb_verify::tile::WIDTH;
use sha2_of_ct_merkle::Sha256;

use crate::inside::{Measured, Order, obey};
use crate::sample::Latencies;

/// Tiles in one write.
const AT_ONCE: u64 = 256;
/// Proofs that are verified between two looks at the clock: one takes microseconds.
const RUN: usize = 16;

fn entry(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A tree of which proofs are asked.
trait Tree {
    type Proof;
    fn prove(&self, index: u64) -> anyhow::Result<Self::Proof>;
    fn verify(&self, index: u64, proof: &Self::Proof) -> bool;
    fn bytes(&self, proof: &Self::Proof) -> Vec<u8>;
    fn root(&self) -> Vec<u8>;
}

struct Tiles {
    store: HotStore,
    size: u64,
    root: Hash,
    _dir: tempfile::TempDir,
}

impl Tiles {
    async fn of(size: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let engine = RocksEngine::open(&dir.path().join("hot"), &RocksSettings::default(), true)?;
        let store = HotStore::start(Store::open(engine)?, HotSettings::default(), |fault| panic!("{fault}"))?;
        let put = |batch: &mut Batch, level: u8, number: u64, hashes: &[Hash]| {
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            batch.put(Family::Audit, rows::tile_key(level, number), bytes);
        };
        let (mut edge, mut batch) = (Edge::default(), Batch::new());
        for number in 0..size {
            for (tile, hashes) in edge.push(leaf(&entry(number))) {
                put(&mut batch, tile.level, tile.number, &hashes);
            }
            if (number + 1) % (WIDTH * AT_ONCE) == 0 {
                commit(&store, std::mem::take(&mut batch), Durability::Buffered).await?;
            }
        }
        for number in size - size % WIDTH..size {
            batch.put(Family::Audit, rows::entry_key(number), entry(number));
        }
        // Above level 0 the tile that is not full yet is on the disk too.
        for (level, hashes) in (0_u8..).zip(edge.levels()).skip(1).filter(|(_, hashes)| !hashes.is_empty()) {
            let number = (size >> (8 * u32::from(level))) / WIDTH;
            put(&mut batch, level, number, hashes);
        }
        batch.put(Family::Audit, rows::COUNT, size.to_be_bytes());
        commit(&store, batch, Durability::Durable).await?;
        Ok(Self { store, size, root: edge.root(), _dir: dir })
    }
}

/// A store that is behind with its compactions refuses for a moment.
async fn commit(store: &HotStore, batch: Batch, durability: Durability) -> anyhow::Result<()> {
    loop {
        match store.commit(batch.clone(), durability).await {
            Err(CommitError::Refused(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            done => return Ok(done.map(drop)?),
        }
    }
}

impl Tree for Tiles {
    type Proof = Vec<Hash>;

    fn prove(&self, index: u64) -> anyhow::Result<Vec<Hash>> {
        Ok(read::inclusion(&self.store, index, self.size)?)
    }

    fn verify(&self, index: u64, path: &Vec<Hash>) -> bool {
        proof::inclusion(&leaf(&entry(index)), index, self.size, path, &self.root).is_ok()
    }

    fn bytes(&self, proof: &Vec<Hash>) -> Vec<u8> {
        read::joined(proof)
    }

    fn root(&self) -> Vec<u8> {
        self.root.0.to_vec()
    }
}

struct InMemory {
    tree: MemoryBackedTree<Sha256, [u8; 8]>,
    root: RootHash<Sha256>,
}

impl InMemory {
    fn of(size: u64) -> Self {
        let mut tree = MemoryBackedTree::new();
        (0..size).for_each(|number| tree.push(entry(number)));
        let root = tree.root();
        Self { tree, root }
    }
}

impl Tree for InMemory {
    type Proof = ct_merkle::InclusionProof<Sha256>;

    fn prove(&self, index: u64) -> anyhow::Result<Self::Proof> {
        Ok(self.tree.prove_inclusion(usize::try_from(index)?))
    }

    fn verify(&self, index: u64, proof: &Self::Proof) -> bool {
        self.root.verify_inclusion(&entry(index), index, proof).is_ok()
    }

    fn bytes(&self, proof: &Self::Proof) -> Vec<u8> {
        proof.as_bytes().to_vec()
    }

    fn root(&self) -> Vec<u8> {
        self.root.as_bytes().to_vec()
    }
}

/// Proves random entries for a while, then verifies what was proved. What both systems must agree in is told as a number
/// made of the first proofs and the root.
fn measure<T: Tree>(tree: &T, size: u64, millis: u64) -> anyhow::Result<Measured> {
    let mut drawn = Seed::new(7).rng();
    let (mut proving, mut proofs) = (Latencies::default(), Vec::new());
    let begin = Instant::now();
    let end = begin + Duration::from_millis(millis);
    while Instant::now() < end {
        let index = drawn.u64() % size;
        let at = Instant::now();
        let proof = tree.prove(index)?;
        proving.record(at.elapsed().as_nanos() as u64);
        if proofs.len() < 4_096 {
            proofs.push((index, proof));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let first = proofs.iter().take(8).flat_map(|(_, proof)| tree.bytes(proof));
    let same = first.chain(tree.root()).fold(7_u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(byte));
    let mut verifying = Latencies::default();
    for run in proofs.chunks(RUN) {
        let at = Instant::now();
        for (index, proof) in run {
            anyhow::ensure!(black_box(tree.verify(*index, proof)), "the proof of {index} does not hold");
        }
        verifying.record_many(at.elapsed().as_nanos() as u64 / run.len() as u64, run.len() as u64);
    }
    let (sample, verified) = (proving.sample(0, seconds), verifying.sample(0, 1.0));
    Ok(Measured::of(sample)
        .with("prove_us", sample.p50_us)
        .with("verify_us", verified.p50_us)
        .with("agreed_in", f64::from(same)))
}

fn asked(order: Order) -> anyhow::Result<(u64, u64)> {
    let Order::Prove { entries, millis } = order else { anyhow::bail!("only proofs are measured here") };
    anyhow::ensure!(entries > 0, "a proof is of a log with entries");
    Ok((entries, millis))
}

/// Obeys orders in this process: proofs from tiles.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn ours() -> anyhow::Result<()> {
    let (runtime, mut tiles) = (tokio::runtime::Builder::new_current_thread().enable_all().build()?, None);
    obey(|order| {
        let (size, millis) = asked(order)?;
        if tiles.is_none() {
            tiles = Some(runtime.block_on(Tiles::of(size))?);
        }
        measure(tiles.as_ref().expect("made above"), size, millis)
    })
}

/// Obeys orders in this process: ct-merkle's proofs.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn theirs() -> anyhow::Result<()> {
    let mut tree = None;
    obey(|order| {
        let (size, millis) = asked(order)?;
        measure(tree.get_or_insert_with(|| InMemory::of(size)), size, millis)
    })
}
