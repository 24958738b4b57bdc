//! A disk that can lose its power: what it keeps for certain, and what it may keep. Pure.
//!
//! * It decides: which states a power cut may leave, given what was written, synced and renamed.
//! * It never does: keep what POSIX does not promise, unless it is drawn so.
//! * Invariant: what a sync that was done covers is in every state. Of the rest, nothing (the hardest
//!   disk), or an arbitrary part by a seed: of a file's changes the first few with the last torn at any
//!   byte, or any of them, with zeros where a length came through and its bytes did not; of a
//!   directory's changes the first few, for file systems do them in their order, but each directory by
//!   itself and none tied to what the files hold. A rename is whole or not at all.
//!
//! A sync of a file makes its bytes and its length durable, not its name: that takes a sync of the
//! directory (fsync(2), "Notes"). What a sync that failed was to cover is lost for good, whatever is synced
//! later (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use rhumb_core::rng::{Rng, Seed};

use super::image::{Found, FoundNode, Image, Node};
use super::journal::Event;

/// A file or directory of the disk, for ever: the file system uses its numbers again.
type Id = usize;

/// What becomes of what was not synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// An arbitrary part is.
    Drawn(Seed),
}

/// A disk, and what may be lost of it.
#[derive(Debug, Clone)]
pub struct Disk {
    things: Vec<Thing>,
    inodes: HashMap<u64, Id>,
    /// Syncs under way: of what, and how many of its changes they cover.
    syncs: HashMap<u64, (Id, u64)>,
    stopped: Option<u64>,
}

#[derive(Debug, Clone)]
enum Thing {
    File(File),
    Link(String),
    Directory(Directory),
}

/// Changes that are not durable, in their order. `done` counts those before.
#[derive(Debug, Clone)]
struct Pending<C> {
    done: u64,
    changes: Vec<C>,
}

impl<C> Default for Pending<C> {
    fn default() -> Self {
        Self { done: 0, changes: Vec::new() }
    }
}

impl<C> Pending<C> {
    fn next(&self) -> u64 {
        self.done + self.changes.len() as u64
    }

    /// Takes out those before a number.
    fn take_before(&mut self, number: u64) -> Vec<C> {
        let count = number.saturating_sub(self.done).min(self.changes.len() as u64);
        self.done += count;
        self.changes.drain(..count as usize).collect()
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    latest: Vec<u8>,
    pending: Pending<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Directory {
    durable: BTreeMap<String, Id>,
    latest: BTreeMap<String, Id>,
    pending: Pending<Entry>,
}

/// One change of a directory.
#[derive(Debug, Clone, Default)]
struct Entry {
    gone: Option<String>,
    put: Option<(String, Id)>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write { offset, bytes: new } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
        }
    }

    /// The first bytes of a write; a length is whole or not at all.
    fn torn(&self, rng: &mut Rng) -> Option<Self> {
        match self {
            Self::Length(_) => None,
            Self::Write { offset, bytes } => {
                let keep = rng.below(bytes.len() as u64 + 1) as usize;
                Some(Self::Write { offset: *offset, bytes: bytes[..keep].to_vec() })
            }
        }
    }
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, id)) = &self.put {
            names.insert(name.clone(), *id);
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.latest);
        self.pending.changes.push(change);
    }

    fn cut(&self, drawn: Option<&mut Rng>) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let Some(rng) = drawn else { return bytes };
        let changes = &self.pending.changes;
        match rng.below(5) {
            0 => {}
            1 => changes.iter().for_each(|change| change.apply(&mut bytes)),
            2 | 3 => {
                let keep = rng.below(changes.len() as u64 + 1) as usize;
                changes[..keep].iter().for_each(|change| change.apply(&mut bytes));
                if let Some(torn) = changes.get(keep).and_then(|change| change.torn(rng)) {
                    torn.apply(&mut bytes);
                }
            }
            _ => {
                for change in changes {
                    match rng.below(4) {
                        0 | 1 => change.apply(&mut bytes),
                        2 => _ = change.torn(rng).map(|torn| torn.apply(&mut bytes)),
                        _ => {}
                    }
                }
                if bytes.len() < self.latest.len() && rng.chance(0.5) {
                    bytes.resize(self.latest.len(), 0);
                }
            }
        }
        bytes
    }
}

impl Directory {
    fn change(&mut self, entry: Entry) {
        entry.apply(&mut self.latest);
        self.pending.changes.push(entry);
    }

    fn cut(&self, drawn: Option<&mut Rng>) -> BTreeMap<String, Id> {
        let mut names = self.durable.clone();
        if let Some(rng) = drawn {
            let all = self.pending.changes.len() as u64;
            let keep = match rng.below(4) {
                0 => 0,
                1 => all,
                _ => rng.below(all + 1),
            };
            self.pending.changes[..keep as usize].iter().for_each(|entry| entry.apply(&mut names));
        }
        names
    }
}

impl Disk {
    /// A disk on which all of this is durable.
    pub(super) fn of(found: Found) -> Self {
        let mut disk =
            Self { things: Vec::new(), inodes: HashMap::new(), syncs: HashMap::new(), stopped: None };
        disk.add(found);
        disk
    }

    fn add(&mut self, found: Found) -> Id {
        let id = self.things.len();
        self.inodes.insert(found.inode, id);
        match found.what {
            FoundNode::File(bytes) => {
                let file = File { durable: bytes.clone(), latest: bytes, pending: Pending::default() };
                self.things.push(Thing::File(file));
            }
            FoundNode::Link(to) => self.things.push(Thing::Link(to)),
            FoundNode::Directory(names) => {
                self.things.push(Thing::Directory(Directory::default()));
                let durable: BTreeMap<_, _> =
                    names.into_iter().map(|(name, found)| (name, self.add(found))).collect();
                let directory = Directory { latest: durable.clone(), durable, pending: Pending::default() };
                self.things[id] = Thing::Directory(directory);
            }
        }
        id
    }

    /// Lets this happen.
    ///
    /// # Errors
    /// What cannot have happened on this disk: the journal is not of this directory, or has a hole.
    pub fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Created { inode, directory, name, is_directory } => {
                let new = self.things.len();
                self.things.push(if is_directory {
                    Thing::Directory(Directory::default())
                } else {
                    Thing::File(File::default())
                });
                self.inodes.insert(inode, new);
                self.directory(directory)?.change(Entry { gone: None, put: Some((name, new)) });
            }
            // Its bytes are there as soon as its name is: file systems keep both in one place, or write them in order.
            Event::Pointed { inode, directory, name, to } => {
                let new = self.things.len();
                self.things.push(Thing::Link(to));
                self.inodes.insert(inode, new);
                self.directory(directory)?.change(Entry { gone: None, put: Some((name, new)) });
            }
            Event::Linked { inode, directory, name } => {
                let id = self.id(inode)?;
                self.directory(directory)?.change(Entry { gone: None, put: Some((name, id)) });
            }
            Event::Wrote { inode, offset, bytes } => {
                let offset = usize::try_from(offset).map_err(|_| "an offset beyond memory")?;
                self.file(inode)?.change(Change::Write { offset, bytes });
            }
            Event::Sized { inode, length } => {
                let length = usize::try_from(length).map_err(|_| "a length beyond memory")?;
                self.file(inode)?.change(Change::Length(length));
            }
            Event::SyncBegan { inode, token } => self.sync_begins(inode, token)?,
            Event::Synced { token } => self.sync_ends(token, true)?,
            Event::SyncFailed { token } => self.sync_ends(token, false)?,
            Event::Removed { directory, name } => {
                self.directory(directory)?.change(Entry { gone: Some(name), put: None });
            }
            Event::Renamed { from, to } => self.renamed(from, to)?,
            Event::Stopped { call } => self.stopped = Some(call),
        }
        Ok(())
    }

    /// The same disk under the next process: syncs that were under way are over, and what they were to cover is as it was.
    pub(super) fn lives_on(self) -> Self {
        Self { syncs: HashMap::new(), stopped: None, ..self }
    }

    fn renamed(&mut self, from: (u64, String), to: (u64, String)) -> Result<(), String> {
        if from.0 != to.0 {
            return Err(format!("{} is renamed into another directory, which is not modelled", from.1));
        }
        let directory = self.directory(from.0)?;
        let id = *directory.latest.get(&from.1).ok_or_else(|| format!("there is no {} to rename", from.1))?;
        directory.change(Entry { gone: Some(from.1), put: Some((to.1, id)) });
        Ok(())
    }

    fn sync_begins(&mut self, inode: u64, token: u64) -> Result<(), String> {
        let id = self.id(inode)?;
        let covers = match &self.things[id] {
            Thing::File(file) => file.pending.next(),
            Thing::Directory(directory) => directory.pending.next(),
            Thing::Link(_) => return Err(format!("{inode} is a link, which nobody syncs")),
        };
        self.syncs.insert(token, (id, covers));
        Ok(())
    }

    fn sync_ends(&mut self, token: u64, well: bool) -> Result<(), String> {
        let (id, covers) = self.syncs.remove(&token).ok_or("a sync ends that never began")?;
        match &mut self.things[id] {
            Thing::File(file) => {
                let covered = file.pending.take_before(covers);
                if well {
                    covered.iter().for_each(|change| change.apply(&mut file.durable));
                }
            }
            Thing::Directory(directory) => {
                let covered = directory.pending.take_before(covers);
                if well {
                    covered.iter().for_each(|entry| entry.apply(&mut directory.durable));
                }
            }
            Thing::Link(_) => {}
        }
        Ok(())
    }

    /// The number of the call before which its process was ended, if it was ended so.
    #[must_use]
    pub fn stopped(&self) -> Option<u64> {
        self.stopped
    }

    /// What stands there as long as the power stays on.
    #[must_use]
    pub fn latest(&self) -> Image {
        self.image(0, &mut |directory| directory.latest.clone(), &mut |file| file.latest.clone())
    }

    /// What stands there after a power cut.
    #[must_use]
    pub fn cut(&self, loss: &Loss) -> Image {
        let drawn = RefCell::new(match loss {
            Loss::All => None,
            Loss::Drawn(seed) => Some(seed.rng()),
        });
        let mut names = |directory: &Directory| directory.cut(drawn.borrow_mut().as_mut());
        self.image(0, &mut names, &mut |file| file.cut(drawn.borrow_mut().as_mut()))
    }

    fn image(
        &self,
        id: Id,
        names: &mut dyn FnMut(&Directory) -> BTreeMap<String, Id>,
        bytes: &mut dyn FnMut(&File) -> Vec<u8>,
    ) -> Image {
        let Thing::Directory(directory) = &self.things[id] else { return Image::default() };
        let mut image = Image::default();
        for (name, id) in names(directory) {
            let node = match &self.things[id] {
                Thing::File(file) => Node::File(bytes(file)),
                Thing::Link(to) => Node::Link(to.clone()),
                Thing::Directory(_) => Node::Directory(self.image(id, names, bytes)),
            };
            image.0.insert(name, node);
        }
        image
    }

    fn id(&self, inode: u64) -> Result<Id, String> {
        self.inodes.get(&inode).copied().ok_or_else(|| format!("no file of this disk has the number {inode}"))
    }

    fn file(&mut self, inode: u64) -> Result<&mut File, String> {
        let id = self.id(inode)?;
        match &mut self.things[id] {
            Thing::File(file) => Ok(file),
            _ => Err(format!("{inode} is no file")),
        }
    }

    fn directory(&mut self, inode: u64) -> Result<&mut Directory, String> {
        let id = self.id(inode)?;
        match &mut self.things[id] {
            Thing::Directory(directory) => Ok(directory),
            _ => Err(format!("{inode} is no directory")),
        }
    }
}

#[cfg(test)]
mod tests;
