//! Power cuts of the real program: a library that is preloaded into it writes down what it does to its
//! data directory, and a [`Disk`] makes of that journal what a power cut could have left.
//!
//! * It decides: nothing but what a disk may forget ([`Disk`]).
//! * It never does: change the program. `tests/shim/shim.c` says how it is watched.
//! * Invariant: the journal explains the directory: with nothing lost, it gives byte for byte what
//!   stands there ([`Watched::explained`]). A change that the shim did not see would show.

mod disk;
mod image;
mod journal;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use disk::{Disk, Loss};
pub use image::{Image, Node};
pub use journal::Event;

/// Room without bounds.
pub const UNBOUNDED: u64 = u64::MAX;

/// A number of the page that the shim and a test share, by its place in `struct control` of the shim.
#[derive(Debug, Clone, Copy)]
enum Word {
    Calls,
    StopAt,
    Refuse,
    Room,
    SyncFails,
    SyncDelay,
    ClockStep,
    Failed,
}

/// A directory that the next process is watched over in.
#[derive(Debug)]
pub struct Watched {
    directory: PathBuf,
    journal: PathBuf,
    page: PathBuf,
    control: File,
    before: Disk,
}

impl Watched {
    /// Watches a directory as it is now; all of it counts as durable. `scratch` is a folder outside of it,
    /// for this watch alone.
    ///
    /// # Errors
    /// A file cannot be read or made.
    pub fn over(directory: &Path, scratch: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let (journal, page) = (scratch.join("journal"), scratch.join("control"));
        fs::create_dir_all(scratch)?;
        File::create(&journal)?;
        let control = File::options().create(true).truncate(true).read(true).write(true).open(&page)?;
        control.set_len(4096)?;
        let before = Disk::of(image::find(&directory)?);
        let watched = Self { directory, journal, page, control, before };
        watched.room(UNBOUNDED)?;
        Ok(watched)
    }

    /// Watches it in the next life of a process that has ended: what was not synced before is not durable now either. Only if
    /// the process was killed from outside, and had no time to write down its last change, does all of it count as durable.
    ///
    /// # Errors
    /// A file cannot be read or made.
    pub fn again(self) -> io::Result<Self> {
        let (kept, stands) = (self.disk()?, Image::read(&self.directory)?);
        let scratch = self.journal.parent().ok_or_else(|| io::Error::other("a journal is in a folder"))?;
        let mut next = Self::over(&self.directory, scratch)?;
        if kept.latest() == stands {
            next.before = kept.lives_on();
        }
        Ok(next)
    }

    /// What the process's environment needs. It must be one process, and no child of it. See also [`dies_with_us`].
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().expect("paths of tests are text").to_owned();
        vec![
            ("LD_PRELOAD", text(shim())),
            ("RHUMB_SHIM_WATCH", text(&self.directory)),
            ("RHUMB_SHIM_JOURNAL", text(&self.journal.canonicalize().expect("it was made"))),
            ("RHUMB_SHIM_CONTROL", text(&self.page.canonicalize().expect("it was made"))),
        ]
    }

    /// How many watched calls there were: changes and syncs.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn calls(&self) -> io::Result<u64> {
        self.word(Word::Calls)
    }

    /// How many calls failed as asked.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn failed(&self) -> io::Result<u64> {
        self.word(Word::Failed)
    }

    /// The process ends itself, as by SIGKILL, before the watched call of this number.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn stop_at(&self, call: u64) -> io::Result<()> {
        self.say(Word::StopAt, call)
    }

    /// Every change fails with this error of the system from now on; none if 0.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn refuse(&self, errno: u64) -> io::Result<()> {
        self.say(Word::Refuse, errno)
    }

    /// Files may grow by so many bytes, then the disk is full.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn room(&self, bytes: u64) -> io::Result<()> {
        self.say(Word::Room, bytes)
    }

    /// The next so many syncs fail with an input/output error.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn fail_syncs(&self, count: u64) -> io::Result<()> {
        self.say(Word::SyncFails, count)
    }

    /// Each sync takes so many milliseconds longer.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn delay_syncs(&self, ms: u64) -> io::Result<()> {
        self.say(Word::SyncDelay, ms)
    }

    /// The wall clock is off by so many milliseconds from now on.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn step_clock(&self, ms: i64) -> io::Result<()> {
        self.say(Word::ClockStep, ms as u64)
    }

    /// The disk with all that the journal says. The process has ended.
    ///
    /// # Errors
    /// The journal cannot be read, or is not one of this directory.
    pub fn disk(&self) -> io::Result<Disk> {
        let mut disk = self.before.clone();
        for event in journal::read(&fs::read(&self.journal)?).map_err(io::Error::other)? {
            disk.happens(event).map_err(io::Error::other)?;
        }
        Ok(disk)
    }

    /// Whether the journal gives exactly what stands in the directory; the differences, a line each.
    /// A process that was killed from outside may differ by the one change that it was about to write down.
    ///
    /// # Errors
    /// Either cannot be read.
    pub fn explained(&self) -> io::Result<Vec<String>> {
        Ok(self.disk()?.latest().differs(&Image::read(&self.directory)?))
    }

    fn word(&self, word: Word) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn say(&self, word: Word, value: u64) -> io::Result<()> {
        self.control.write_all_at(&value.to_ne_bytes(), word as u64 * 8)
    }
}

/// What the environment of a process needs that is to be killed, though it stands still, when the thread that starts it has
/// ended, however it ended.
#[must_use]
pub fn dies_with_us() -> [(&'static str, String); 2] {
    let shim = shim().to_str().expect("paths of tests are text").to_owned();
    [("LD_PRELOAD", shim), ("RHUMB_SHIM_PARENT", std::process::id().to_string())]
}

/// The shim, compiled once a process by the C compiler that RocksDB needs as well.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let beside = std::env::current_exe().expect("a test has a path");
        let library = beside.with_file_name("power-cut-shim.so");
        let fresh = beside.with_file_name(format!("power-cut-shim.{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&fresh)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/shim/shim.c"))
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("there is a C compiler, which RocksDB needs as well");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        fs::rename(&fresh, &library).expect("the shim is put in its place");
        library
    })
}
