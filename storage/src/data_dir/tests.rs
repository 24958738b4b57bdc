use tempfile::TempDir;

use super::*;
use crate::control::LastSeen;
use crate::memory::{MemoryDisk, MemoryEngine};

/// A directory whose hot store is a memory disk; a file stands for it on the real one.
struct Bench {
    dir: TempDir,
    disk: MemoryDisk,
}

impl Bench {
    fn new() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory"), disk: MemoryDisk::new() }
    }

    fn created() -> Self {
        let bench = Self::new();
        drop(bench.open(&init(7)).expect("creates"));
        bench
    }

    fn open(&self, expect: &Expect) -> Result<(DataDir, MemoryEngine), DataDirError> {
        DataDir::open_with(self.dir.path(), expect, |path, create| self.open_engine(path, create))
    }

    fn open_engine(&self, path: &Path, create: bool) -> Result<MemoryEngine, EngineOpenError> {
        if create {
            fs::create_dir_all(path).expect("creates");
            fs::write(path.join("CURRENT"), "").expect("creates");
        }
        Ok(MemoryEngine::open(&self.disk))
    }

    fn refused(&self, expect: &Expect) -> DataDirError {
        self.open(expect).expect_err("must be refused")
    }
}

fn expect(cluster: u128, node: &str) -> Expect {
    Expect { cluster: ClusterId(cluster), node: node.parse().expect("valid"), init: None }
}

fn mine() -> Expect {
    expect(1, "us-east/n1")
}

fn init(store: u128) -> Expect {
    Expect { init: Some(StoreId(store)), ..mine() }
}

#[test]
fn a_directory_is_created_once_and_opened_again() {
    let bench = Bench::new();
    let (dir, engine) = bench.open(&init(7)).expect("creates");
    assert_eq!((dir.identity().store, dir.incarnation()), (StoreId(7), Incarnation(1)));
    drop((dir, engine));
    let (dir, _engine) = bench.open(&mine()).expect("opens");
    assert_eq!(dir.identity().store, StoreId(7));
    drop((dir, _engine));
    let (dir, _engine) = bench.open(&init(8)).expect("opens");
    assert_eq!(dir.identity().store, StoreId(7), "drawn once");
}

#[test]
fn an_empty_disk_never_initialises_a_cluster() {
    let bench = Bench::new();
    let refused = bench.refused(&mine());
    assert!(matches!(refused, DataDirError::NotInitialised(_)), "{refused}");
    let told = refused.to_string();
    let (first, then) = (told.find("put its directory back"), told.find("rhumb mesh init"));
    assert!(first.is_some() && first < then, "its data first, a new mesh last: {told}");
    assert!(!filled(bench.dir.path()).expect("reads"), "nothing was left there");
    let absent = bench.dir.path().join("absent");
    let opened = DataDir::open_with(&absent, &mine(), |path, create| bench.open_engine(path, create));
    assert!(matches!(opened, Err(DataDirError::NotInitialised(_))));
    assert!(!absent.exists());
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused() {
    let bench = Bench::created();
    let refused = bench.refused(&expect(2, "us-east/n1")).to_string();
    assert!(refused.contains(&ClusterId(1).to_string()) && refused.contains(&ClusterId(2).to_string()));
    let refused = bench.refused(&expect(1, "us-east/n2")).to_string();
    assert!(refused.contains("us-east/n1") && refused.contains("us-east/n2"), "{refused}");
    assert!(bench.open(&mine()).is_ok(), "and is as it was");
}

#[test]
fn a_directory_in_use_is_refused() {
    let bench = Bench::new();
    let held = bench.open(&init(7)).expect("creates");
    assert_eq!(bench.refused(&mine()), DataDirError::InUse(bench.dir.path().into()));
    assert!(matches!(DataDir::identify(bench.dir.path()), Err(DataDirError::InUse(_))));
    drop(held);
    assert!(bench.open(&mine()).is_ok());
}

#[test]
fn one_store_missing_is_refused_by_name() {
    let bench = Bench::created();
    fs::rename(bench.dir.path().join("hot"), bench.dir.path().join("away")).expect("renames");
    let missing = |which| DataDirError::StoreMissing { path: bench.dir.path().into(), which };
    assert_eq!(bench.refused(&init(8)), missing("hot"));
    fs::rename(bench.dir.path().join("away"), bench.dir.path().join("hot")).expect("renames");
    fs::rename(bench.dir.path().join("control"), bench.dir.path().join("away")).expect("renames");
    assert_eq!(bench.refused(&mine()), missing("control"));
    assert_eq!(bench.refused(&init(8)), missing("control"));
    fs::create_dir(bench.dir.path().join("control")).expect("creates");
    assert_eq!(bench.refused(&init(8)), missing("control"), "an empty one is none");
}

#[test]
fn stores_that_do_not_belong_together_are_refused() {
    let mut bench = Bench::created();
    let other = Bench::new();
    drop(other.open(&init(8)).expect("creates"));
    bench.disk = other.disk.clone();
    let refused = bench.refused(&mine());
    assert!(matches!(refused, DataDirError::StoresDisagree { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains(&StoreId(7).to_string()) && said.contains(&StoreId(8).to_string()), "{said}");
    bench.disk = MemoryDisk::new();
    let refused = bench.refused(&mine());
    assert!(matches!(refused, DataDirError::StoreMissing { which: "hot", .. }), "an emptied one: {refused}");
}

#[test]
fn a_newer_format_is_refused_in_either_store() {
    let bench = Bench::created();
    let (dir, engine) = bench.open(&mine()).expect("opens");
    let newer = ControlRecord {
        identity: Identity { format: FORMAT + 1, ..dir.identity().clone() },
        ..dir.record.clone()
    };
    engine.write(Ops::new().put(Family::Meta, keys::STORE, &newer.encode())).expect("writes");
    drop((dir, engine));
    let expected = DataDirError::NewerFormat { path: bench.dir.path().into(), found: FORMAT + 1 };
    assert_eq!(bench.refused(&mine()), expected);
    SledControl::open(&bench.dir.path().join("control")).and_then(|c| c.stamp(&newer)).expect("stamps");
    assert_eq!(bench.refused(&mine()), expected);
    assert_eq!(DataDir::identify(bench.dir.path()), Err(expected));
}

#[test]
fn an_interrupted_creation_goes_on_when_creation_is_allowed() {
    let bench = Bench::new();
    let failed = DataDir::open_with(bench.dir.path(), &init(7), |_, _| -> Result<MemoryEngine, _> {
        Err(StorageFault::new(FaultCause::NoSpace, "create", "full").into())
    });
    assert!(matches!(failed, Err(DataDirError::Engine(_))));
    assert_eq!(bench.refused(&mine()), DataDirError::Interrupted(bench.dir.path().into()));
    let (dir, engine) = bench.open(&init(8)).expect("goes on");
    assert_eq!(dir.identity().store, StoreId(7), "with the id drawn first");
    drop((dir, engine));
    assert!(bench.open(&mine()).is_ok());
}

#[test]
fn a_hot_store_that_was_used_is_never_taken_over_by_a_creation() {
    let bench = Bench::new();
    let store = crate::Store::open(MemoryEngine::open(&bench.disk)).expect("opens");
    store.write(&crate::Batch::new()).expect("writes");
    let refused = bench.refused(&init(7));
    assert!(matches!(refused, DataDirError::StoreMissing { which: "hot", .. }), "{refused}");
}

#[test]
fn what_was_seen_last_and_the_incarnation_are_remembered() {
    let bench = Bench::created();
    let (mut dir, engine) = bench.open(&mine()).expect("opens");
    dir.control().remember(LastSeen::Policy, b"policy 3").expect("remembers");
    assert_eq!(dir.raise_incarnation(), Ok(Incarnation(2)));
    drop((dir, engine));
    let (dir, _engine) = bench.open(&mine()).expect("opens");
    assert_eq!(dir.control().last_seen(LastSeen::Policy), Ok(Some(b"policy 3".to_vec())));
    assert_eq!(dir.control().last_seen(LastSeen::Topology), Ok(None));
    assert_eq!(dir.incarnation(), Incarnation(2));
}

#[test]
fn a_directory_can_be_identified_without_its_hot_store() {
    let bench = Bench::new();
    assert_eq!(DataDir::identify(bench.dir.path()), Ok(None));
    drop(bench.open(&init(7)).expect("creates"));
    let identity = DataDir::identify(bench.dir.path()).expect("reads").expect("is stamped");
    assert_eq!((identity.cluster, identity.store), (ClusterId(1), StoreId(7)));
}

/// Every file below a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("reads").map(|entry| entry.expect("reads").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_damaged_control_store_never_gives_another_identity() {
    let mut refused = 0;
    let control = |bench: &Bench| bench.dir.path().join("control");
    let sample = Bench::created();
    for file in files(&control(&sample)) {
        let whole = fs::read(&file).expect("reads");
        let name = file.strip_prefix(sample.dir.path()).expect("below it");
        let used = whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
        for at in (0..used).step_by(used.div_ceil(40).max(1)) {
            // Each damage has a directory of its own: sled's threads may outlive its handle for a while.
            let bench = Bench::created();
            let damaged = bench.dir.path().join(name);
            let Some(mut bytes) = fs::read(&damaged).ok().filter(|bytes| bytes.len() > at) else { continue };
            bytes[at] ^= 0x41;
            fs::write(&damaged, &bytes).expect("writes");
            match bench.open(&mine()) {
                Ok((dir, _engine)) => assert_eq!(dir.identity().store, StoreId(7), "{name:?} at {at}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0, "some damage must be seen");
}

#[cfg(feature = "rocks")]
#[test]
fn a_whole_directory_on_rocksdb_starts_stops_and_refuses() {
    use std::time::Duration;

    use crate::{Batch, CommitNumber, Durability, HotStore, Store, hot::HotSettings};

    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("node");
    let (held, engine) = DataDir::open(&path, &init(7)).expect("creates");
    let store = Store::open(engine).expect("opens");
    let hot = HotStore::start(store, HotSettings::default(), |_| ()).expect("starts");
    let mut batch = Batch::new();
    batch.put(Family::Escrow, "k", "v");
    let number = futures::executor::block_on(hot.commit(batch, Durability::Durable));
    assert_eq!(number, Ok(CommitNumber(1)));
    assert_eq!(DataDir::open(&path, &mine()).map(drop), Err(DataDirError::InUse(path.clone())));
    let last = hot.close(Duration::from_secs(30)).expect("closes");
    drop((hot, held));
    let (held, engine) = DataDir::open(&path, &mine()).expect("opens again at once");
    let store = Store::open(engine).expect("opens");
    assert_eq!(store.durable(), last);
    assert_eq!(store.get(Family::Escrow, b"k"), Ok(Some(b"v".to_vec())));
    drop((store, held));
    fs::remove_file(path.join("hot/CURRENT")).expect("removes");
    let refused = DataDir::open(&path, &mine()).map(drop);
    assert!(matches!(refused, Err(DataDirError::Engine(_))), "{refused:?}");
    fs::remove_dir_all(path.join("hot")).expect("removes");
    let refused = DataDir::open(&path, &init(9)).map(drop);
    assert_eq!(refused, Err(DataDirError::StoreMissing { path, which: "hot" }));
}

#[test]
fn a_part_that_is_removed_or_replaced_under_an_open_directory_is_named() {
    let place = TempDir::new().expect("a temporary directory");
    let path = place.path().join("node");
    for part in ["", "LOCK", "control/db", "hot/IDENTITY"] {
        for parent in ["control", "hot"] {
            fs::create_dir_all(path.join(parent)).expect("creates");
        }
        for file in ["LOCK", "control/db", "hot/IDENTITY", "hot/000004.log"] {
            fs::write(path.join(file), "as it was").expect("writes");
        }
        let footing = super::Footing::of(&path);
        fs::remove_file(path.join("hot/000004.log")).expect("the engine removes its own files");
        assert_eq!(footing.check(), Ok(()));
        let lost = if part.is_empty() { path.clone() } else { path.join(part) };
        let away = place.path().join("away");
        fs::rename(&lost, &away).expect("renames");
        let gone = footing.check().expect_err("it is gone").to_string();
        assert!(gone.contains(&format!("{} is not what", lost.display())), "{gone}");
        assert!(gone.contains("it was removed"), "{gone}");
        if part.is_empty() {
            fs::create_dir(&lost).expect("creates");
        } else {
            fs::copy(&away, &lost).expect("copies");
        }
        let other = footing.check().expect_err("another one").to_string();
        assert!(other.contains("something else stands in its place"), "{other}");
        fs::remove_dir_all(&path).expect("removes");
        if part.is_empty() { fs::remove_dir_all(&away) } else { fs::remove_file(&away) }.expect("removes");
    }
}
