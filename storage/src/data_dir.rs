//! A node's data directory: the control store, the hot store, and a lock.
//!
//! * It decides: whether a directory is this node's, whole, of a format that this program reads, and
//!   whether it may be created.
//! * It never does: create anything without being told to, or repair what disagrees.
//! * Invariant: both stores carry the same identity, stamped once; one directory is open once.
//!
//! ```text
//! DIR/LOCK       held while open
//! DIR/control/   the control store: identity, incarnation; topology, policy and cluster version last seen
//! DIR/hot/       the hot store's engine, stamped with the same identity
//! ```
//!
//! Creation stamps the control store as *creating*, then the hot store, then the control store as
//! *ready*: a creation that was interrupted goes on when creation is allowed again.

mod footing;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use rhumb_core::{ClusterId, Incarnation, NodeId, StoreId};
use thiserror::Error;

pub use self::footing::Footing;
use crate::batch::Family;
use crate::control::{ControlRecord, ControlStore, FORMAT, Identity, Recorded, Stage};
use crate::engine::{Engine, Ops};
use crate::fault::{EngineOpenError, FaultCause, StorageFault};
use crate::keys;
use crate::sled::SledControl;

/// Whose directory it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The mesh that this node is part of.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Given only by a command that founds or extends a mesh: allows to create the directory if there
    /// is none, with this store id, freshly drawn from entropy. Without it, an empty disk is refused.
    pub init: Option<StoreId>,
}

/// Why a data directory was not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DataDirError {
    /// There is nothing, and creating was not asked for.
    #[error(
        "{} holds no data of a node: put its directory back (is the path right, is the disk mounted?). An empty \
         disk never initialises a cluster: `rhumb mesh init` makes the directories of a new mesh, and nothing else \
         does", .0.display()
    )]
    NotInitialised(PathBuf),
    /// Its creation was interrupted, and creating was not asked for.
    #[error("the creation of {} was interrupted: run the command that creates it again", .0.display())]
    Interrupted(PathBuf),
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// It belongs to another mesh.
    #[error("{} belongs to cluster {found}, this node to cluster {expected}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it must be.
        expected: ClusterId,
    },
    /// It belongs to another node.
    #[error("{} belongs to node {found}, this is node {expected}", path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose it must be.
        expected: NodeId,
    },
    /// A newer program wrote it.
    #[error(
        "{} has format {found}, this program reads up to {FORMAT}: start a newer version", path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One of its two stores is not there, or was never stamped.
    #[error(
        "{} has lost its {which} store: the other one is there; restore both from the same moment, or replace \
         the node with an empty directory", path.display()
    )]
    StoreMissing {
        /// The directory.
        path: PathBuf,
        /// `control` or `hot`.
        which: &'static str,
    },
    /// Its two stores belong to different directories.
    #[error(
        "the stores of {} do not belong together: the control store says store {}, node {}, cluster {}; the hot \
         store says store {}, node {}, cluster {}",
        path.display(), control.store, control.node, control.cluster, hot.store, hot.node, hot.cluster
    )]
    StoresDisagree {
        /// The directory.
        path: PathBuf,
        /// What the control store says.
        control: Box<Identity>,
        /// What the hot store says.
        hot: Box<Identity>,
    },
    /// A fault of the disk or of the control store.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// The hot store's engine did not open.
    #[error(transparent)]
    Engine(#[from] EngineOpenError),
}

/// An open data directory. Keep it for as long as its engine: it holds the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    control: Box<dyn ControlStore>,
    record: ControlRecord,
    footing: Footing,
    _lock: File,
}

/// A data directory whose control store is open and whose hot store is not yet. It holds the lock.
#[derive(Debug)]
pub struct Begun {
    path: PathBuf,
    control: Box<dyn ControlStore>,
    record: ControlRecord,
    lock: File,
}

impl Begun {
    /// The control store.
    #[must_use]
    pub fn control(&self) -> &dyn ControlStore {
        &*self.control
    }

    /// Opens the hot store with the engine that `open_engine` opens in the directory given to it, and
    /// may create if told `true`.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn with_engine<E: Engine>(
        self,
        open_engine: impl FnOnce(&Path, bool) -> Result<E, EngineOpenError>,
    ) -> Result<(DataDir, E), DataDirError> {
        let Self { path, control, record, lock } = self;
        let creating = record.stage == Stage::Creating;
        let engine = open_engine(&path.join("hot"), creating)?;
        agree(&path, &engine, &record)?;
        let record = ControlRecord { stage: Stage::Ready, ..record };
        if creating {
            sync_names(&path.join("hot")).map_err(|error| io("sync", &path, &error))?;
            control.stamp(&record)?;
        }
        let footing = Footing::of(&path);
        Ok((DataDir { path, control, record, footing, _lock: lock }, engine))
    }
}

impl DataDir {
    /// Opens (or, if allowed, creates) a directory with its hot store on RocksDB.
    ///
    /// # Errors
    /// [`DataDirError`]; the directory is then as it was.
    #[cfg(feature = "rocks")]
    pub fn open(path: &Path, expect: &Expect) -> Result<(Self, crate::RocksEngine), DataDirError> {
        let settings = crate::rocks::RocksSettings::default();
        Self::open_with(path, expect, |path, create| crate::RocksEngine::open(path, &settings, create))
    }

    /// [`DataDir::open`] with the engine that `open_engine` opens in the directory given to it, and may
    /// create if told `true`.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open_with<E: Engine>(
        path: &Path,
        expect: &Expect,
        open_engine: impl FnOnce(&Path, bool) -> Result<E, EngineOpenError>,
    ) -> Result<(Self, E), DataDirError> {
        Self::begin(path, expect)?.with_engine(open_engine)
    }

    /// Takes the directory's lock, opens its control store and judges whether it is this node's. The hot
    /// store is opened after that, by [`Begun::with_engine`]: a node may have to refuse before.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn begin(path: &Path, expect: &Expect) -> Result<Begun, DataDirError> {
        let (control_path, hot_path) = (path.join("control"), path.join("hot"));
        if expect.init.is_none() && !filled(&control_path)? && !filled(&hot_path)? {
            return Err(DataDirError::NotInitialised(path.into()));
        }
        fs::create_dir_all(path).map_err(|error| io("create", path, &error))?;
        let lock = lock(path)?;
        if expect.init.is_some() {
            sync_names(path).map_err(|error| io("sync", path, &error))?;
        }
        let hot_there = filled(&hot_path)?;
        if hot_there && !filled(&control_path)? {
            return Err(DataDirError::StoreMissing { path: path.into(), which: "control" });
        }
        let control = SledControl::open(&control_path)?;
        let record = judge(path, control.record()?, hot_there, expect)?;
        if record.stage == Stage::Creating {
            control.stamp(&record)?;
        }
        Ok(Begun { path: path.into(), control: Box::new(control), record, lock })
    }

    /// Whose directory this is, without opening its hot store; `None` where none was created yet.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn identify(path: &Path) -> Result<Option<Identity>, DataDirError> {
        let control_path = path.join("control");
        if !filled(&control_path)? {
            return Ok(None);
        }
        let _lock = lock(path)?;
        match SledControl::open(&control_path)?.record()? {
            None => Ok(None),
            Some(Recorded::Known(record)) => Ok(Some(record.identity)),
            Some(Recorded::Newer { format }) => {
                Err(DataDirError::NewerFormat { path: path.into(), found: format })
            }
        }
    }

    /// Begins a new life of this node on this disk, as after its data was attested, and makes it durable.
    ///
    /// # Errors
    /// A fault of the control store.
    pub fn raise_incarnation(&mut self) -> Result<Incarnation, StorageFault> {
        let raised = ControlRecord { incarnation: self.record.incarnation.next(), ..self.record.clone() };
        self.control.stamp(&raised)?;
        self.record = raised;
        Ok(self.record.incarnation)
    }

    /// Whose directory this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.record.identity
    }

    /// Which life of the node on this disk.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.record.incarnation
    }

    /// The control store.
    #[must_use]
    pub fn control(&self) -> &dyn ControlStore {
        &*self.control
    }

    /// What of it must stay where it is while it is open.
    #[must_use]
    pub fn footing(&self) -> Footing {
        self.footing.clone()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the control store's word allows to go on, and with what record. Pure.
fn judge(
    path: &Path,
    found: Option<Recorded>,
    hot_there: bool,
    expect: &Expect,
) -> Result<ControlRecord, DataDirError> {
    let path = || path.to_path_buf();
    let record = match found {
        None if hot_there => return Err(DataDirError::StoreMissing { path: path(), which: "control" }),
        None => {
            let store = expect.init.ok_or_else(|| DataDirError::NotInitialised(path()))?;
            let (cluster, node) = (expect.cluster, expect.node.clone());
            return Ok(ControlRecord {
                identity: Identity { format: FORMAT, cluster, store, node },
                incarnation: Incarnation(1),
                stage: Stage::Creating,
            });
        }
        Some(Recorded::Newer { format }) => {
            return Err(DataDirError::NewerFormat { path: path(), found: format });
        }
        Some(Recorded::Known(record)) => record,
    };
    let Identity { cluster, node, .. } = &record.identity;
    if *cluster != expect.cluster {
        return Err(DataDirError::OtherCluster { path: path(), found: *cluster, expected: expect.cluster });
    }
    if *node != expect.node {
        let (found, expected) = (node.clone(), expect.node.clone());
        return Err(DataDirError::OtherNode { path: path(), found, expected });
    }
    match record.stage {
        Stage::Creating if expect.init.is_none() => Err(DataDirError::Interrupted(path())),
        Stage::Ready if !hot_there => Err(DataDirError::StoreMissing { path: path(), which: "hot" }),
        _ => Ok(record),
    }
}

/// Checks that the engine carries the same identity, and stamps it when it is being created.
fn agree<E: Engine>(path: &Path, engine: &E, record: &ControlRecord) -> Result<(), DataDirError> {
    let missing = || DataDirError::StoreMissing { path: path.into(), which: "hot" };
    match engine.get(Family::Meta, keys::STORE)? {
        Some(bytes) => match ControlRecord::decode(&bytes) {
            Some(Recorded::Known(hot)) if hot.identity == record.identity => Ok(()),
            Some(Recorded::Known(hot)) => Err(DataDirError::StoresDisagree {
                path: path.into(),
                control: Box::new(record.identity.clone()),
                hot: Box::new(hot.identity),
            }),
            Some(Recorded::Newer { format }) => {
                Err(DataDirError::NewerFormat { path: path.into(), found: format })
            }
            None => {
                let detail = "the checksum of its identity does not match";
                Err(StorageFault::new(FaultCause::Corrupt, "read the hot store", detail).into())
            }
        },
        None if record.stage == Stage::Ready => Err(missing()),
        // Commits without a stamp are someone else's.
        None if engine.get(Family::Meta, keys::COMMIT)?.is_some() => Err(missing()),
        None => {
            let stamp = ControlRecord { stage: Stage::Ready, ..record.clone() }.encode();
            engine.write(Ops::new().put(Family::Meta, keys::STORE, &stamp))?;
            Ok(engine.sync()?)
        }
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = File::options().create(true).truncate(false).write(true).open(path.join("LOCK"));
    let file = file.map_err(|error| io("lock", path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.into())),
        Err(TryLockError::Error(error)) => Err(io("lock", path, &error)),
    }
}

/// Makes the names in a directory, and its own name, durable.
pub(crate) fn sync_names(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()?;
    // The root has no name, and a relative path of one part stands in the working directory.
    let parent =
        directory.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Whether there is anything in a directory.
fn filled(path: &Path) -> Result<bool, DataDirError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("read", path, &error)),
    }
}

fn io(what: &str, path: &Path, error: &std::io::Error) -> DataDirError {
    StorageFault::io(format!("{what} the data directory {}", path.display()), error).into()
}

#[cfg(test)]
mod tests;
