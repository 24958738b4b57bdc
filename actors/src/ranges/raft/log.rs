//! A group's log and vote, on the store.
//!
//! * It never does: say that a vote or an entry is durable before it is, or let one be written before an earlier one.
//! * Invariant: an entry can be read from the moment it is appended; entries on disk have no holes.
//!
//! | key, in the family `Raft` | value |
//! |---|---|
//! | `l` range index | an entry |
//! | `v` range | the vote |
//! | `p` range | the last entry that was cut off in front |
//!
//! What is known to be committed is not kept: what was applied is on the disk, and a leader says the rest again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, OnceLock};

use futures::channel::oneshot;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, LogState, RaftLogReader};
use parking_lot::Mutex;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::{Batch, CommitError, Family};

use super::disk::{BATCH_BYTES, Disk};
use super::types::{self, Entry, Types, Vote};
use super::wire::{self, Ballot, Id, Line, Named};
use super::{Damage, Damages};
use crate::ranges::replica::RangeId;

/// Bytes of entries in one request, roughly: a frame has 1 MiB.
const REQUEST_BYTES: usize = 512 << 10;
/// Bytes of entries that stay in memory when they are written, roughly: most are asked for a moment later, by who applies them
/// and for each follower.
const RECENT_BYTES: usize = 256 << 10;

/// One group's log. Clones are one.
#[derive(Clone)]
pub(super) struct Log {
    range: RangeId,
    disk: Arc<dyn Disk>,
    damages: Damages,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    vote: Option<Vote>,
    purged: Option<types::Id>,
    last: Option<types::Id>,
    /// What was appended last: all that may not be written yet, and some of what is.
    recent: BTreeMap<u64, Recent>,
    recent_bytes: usize,
    /// Who waits for entries that are to come.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Entries that are cut off in one batch: their keys are fewer bytes than [`BATCH_BYTES`].
const CUT_AT_ONCE: u64 = 10_000;

struct Recent {
    entry: Entry,
    /// It can be read from the disk.
    written: bool,
}

impl Known {
    fn append(&mut self, entry: Entry) {
        self.forget(entry.log_id.index);
        self.last = Some(entry.log_id);
        self.recent_bytes += sized(&entry);
        self.recent.insert(entry.log_id.index, Recent { entry, written: false });
    }

    fn forget(&mut self, index: u64) {
        if let Some(gone) = self.recent.remove(&index) {
            self.recent_bytes -= sized(&gone.entry);
        }
    }

    /// These are on the disk, those that another one has not taken the place of.
    fn written(&mut self, all: &[types::Id]) {
        for id in all {
            if let Some(recent) = self.recent.get_mut(&id.index).filter(|there| there.entry.log_id == *id) {
                recent.written = true;
            }
        }
        while self.recent_bytes > RECENT_BYTES
            && let Some((index, Recent { written: true, .. })) = self.recent.first_key_value()
        {
            let index = *index;
            self.forget(index);
        }
    }
}

impl Log {
    /// The log of a range, as it is on disk. What is not what was written is said of the range.
    pub(super) fn open(range: RangeId, disk: Arc<dyn Disk>, damages: Damages) -> Result<Self, String> {
        let found = |why: String| {
            Damage::of_the_log(format!("its log: {why}")).found(range, &damages);
            why
        };
        let fault = |fault: rhumb_storage::StorageFault| fault.to_string();
        let mut known = Known::default();
        if let Some(vote) = disk.get(Family::Raft, &key(b'v', range)).map_err(fault)? {
            known.vote = Some(wire::decode::<Ballot>(&vote).map_err(found)?.into());
        }
        if let Some(purged) = disk.get(Family::Raft, &key(b'p', range)).map_err(fault)? {
            known.purged = Some(wire::decode::<Id>(&purged).map_err(found)?.into());
        }
        known.last = known.purged;
        let mut next = known.purged.map(|id| id.index + 1);
        let (prefix, mut unsound) = (entries(range), None);
        // One after the other: all of them may be more than memory takes.
        disk.walk(Family::Raft, &prefix, &mut |row, line| {
            if !row.starts_with(&prefix) {
                return false;
            }
            match read(line).map(|entry| entry.log_id()) {
                Ok(id) if *row == entry_key(range, id.index) && next.is_none_or(|next| next == id.index) => {
                    (next, known.last) = (Some(id.index + 1), Some(id));
                    return true;
                }
                Ok(id) => unsound = Some(format!("it has entry {} where entry {next:?} should be", id.index)),
                Err(why) => unsound = Some(why),
            }
            false
        })
        .map_err(fault)?;
        if let Some(why) = unsound {
            return Err(found(why));
        }
        Ok(Self { range, disk, damages, known: Arc::new(Mutex::new(known)) })
    }

    /// Makes a batch durable and waits for it.
    async fn durably(&self, batch: Batch) -> io::Result<()> {
        let (said, heard) = oneshot::channel();
        self.disk.durably(batch, Box::new(move |outcome| drop(said.send(outcome)))).await;
        let outcome = heard.await.map_err(|_| io::Error::other("the batch was not taken"))?;
        outcome.map(drop).map_err(io::Error::other)
    }

    /// What deletes these entries.
    fn without(&self, gone: Range<u64>) -> Batch {
        let mut batch = Batch::new();
        for index in gone {
            batch.delete(Family::Raft, entry_key(self.range, index));
        }
        batch
    }

    fn entry(&self, index: u64) -> io::Result<Option<Entry>> {
        if let Some(recent) = self.known.lock().recent.get(&index) {
            return Ok(Some(recent.entry.clone()));
        }
        let line = self.disk.get(Family::Raft, &entry_key(self.range, index)).map_err(io::Error::other)?;
        let entry = line.map(|line| read(&line)).transpose();
        entry.map_err(|why| {
            let damage = Damage::of_the_log(format!("entry {index} of its log: {why}"));
            damage.found(self.range, &self.damages);
            io::Error::other(why)
        })
    }

    fn entries(&self, from: u64, to: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut size = 0;
        for index in from..to {
            let Some(entry) = self.entry(index)? else { break };
            size += sized(&entry);
            if size > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The entries of these names, once all of them are here: whoever waits gives up by himself. Others that stand where they are to
    /// be may have to go first.
    ///
    /// # Errors
    /// They were cut off, or are more than one request takes, or cannot be read.
    pub(super) async fn named(&self, named: &Named) -> Result<Vec<Entry>, String> {
        let Some(first) = named.first() else { return Ok(Vec::new()) };
        loop {
            let (says, comes) = oneshot::channel();
            let (purged, last) = {
                let mut known = self.known.lock();
                known.waiting.retain(|waits| !waits.is_canceled());
                known.waiting.push(says);
                (known.purged, known.last)
            };
            if purged.is_some_and(|purged| first <= purged.index) {
                return Err(format!("entry {first} was cut off here"));
            }
            if last.is_some_and(|last| named.last <= last.index) {
                let entries = self.entries(first, named.last.saturating_add(1), REQUEST_BYTES);
                let entries = entries.map_err(|error| error.to_string())?;
                if named.are(&entries) {
                    return Ok(entries);
                }
            }
            // Whoever says it lives as long as the log.
            comes.await.ok();
        }
    }
}

fn key(kind: u8, range: RangeId) -> Vec<u8> {
    [[kind].as_slice(), &range.0.to_be_bytes()].concat()
}

fn entry_key(range: RangeId, index: u64) -> Vec<u8> {
    [key(b'l', range).as_slice(), &index.to_be_bytes()].concat()
}

/// A log that begins behind this place.
pub(super) fn begin(range: RangeId, place: &types::Id, batch: &mut Batch) {
    batch.put(Family::Raft, key(b'p', range), wire::encode(&Id::from(place)));
}

/// The keys of all that is not entries.
pub(super) fn keys(range: RangeId) -> [Vec<u8>; 2] {
    [key(b'v', range), key(b'p', range)]
}

/// Before the keys of entries.
pub(super) fn entries(range: RangeId) -> Vec<u8> {
    key(b'l', range)
}

fn read(line: &[u8]) -> Result<Entry, String> {
    wire::decode::<Line>(line)?.try_into()
}

/// Bytes of an entry, roughly.
pub(super) fn sized(entry: &Entry) -> usize {
    let openraft::EntryPayload::Normal(proposal) = &entry.payload else { return 256 };
    proposal.bytes.len() + 64
}

impl<R: AsyncRuntime> RaftLogReader<Types<R>> for Log {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: B,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, REQUEST_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.known.lock().vote)
    }
}

impl<R: AsyncRuntime> RaftLogStorage<Types<R>> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let known = self.known.lock();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.known.lock().vote = Some(*vote);
        let mut batch = Batch::new();
        batch.put(Family::Raft, key(b'v', self.range), wire::encode(&Ballot::from(vote)));
        if canary::sings(Canary::VoteNotSynced) {
            return self.disk.visibly(batch).await.map_err(io::Error::other);
        }
        self.durably(batch).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        // Entries are appended together, however many there are and of whatever size.
        let (mut batch, mut appended, mut before) = (Batch::new(), Vec::new(), Vec::new());
        {
            let mut known = self.known.lock();
            for entry in entries {
                let id = entry.log_id();
                if batch.bytes() >= BATCH_BYTES {
                    before.push((std::mem::take(&mut batch), std::mem::take(&mut appended)));
                }
                batch.put(Family::Raft, entry_key(self.range, id.index), wire::encode(&Line::from(&entry)));
                known.append(entry);
                appended.push(id);
            }
            for waits in known.waiting.drain(..) {
                waits.send(()).ok();
            }
        }
        let failed = Arc::new(OnceLock::new());
        for (batch, appended) in before {
            let (known, fails) = (Arc::clone(&self.known), Arc::clone(&failed));
            let done = move |outcome: Result<_, CommitError>| {
                known.lock().written(&appended);
                if let Err(why) = outcome {
                    fails.set(why).ok();
                }
            };
            self.disk.durably(batch, Box::new(done)).await;
            // What comes behind it would stand behind a hole.
            if let Some(why) = failed.get() {
                callback.io_completed(Err(io::Error::other(why.clone())));
                return Ok(());
            }
        }
        let known = Arc::clone(&self.known);
        // Batches are durable in the order in which they were taken: those before this one are.
        let done = move |outcome: Result<_, CommitError>| {
            known.lock().written(&appended);
            let outcome = failed.get().cloned().map_or(outcome.map(drop), Err);
            callback.io_completed(outcome.map_err(io::Error::other));
        };
        if canary::sings(Canary::EntriesNotSynced) {
            self.disk.visibly(batch).await.map_err(io::Error::other)?;
            done(Ok(rhumb_storage::CommitNumber(0)));
            return Ok(());
        }
        self.disk.durably(batch, Box::new(done)).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<types::Id>) -> io::Result<()> {
        let start = last.map_or(0, |id| id.index + 1);
        let mut end = {
            let mut known = self.known.lock();
            let end = known.last.map_or(0, |id| id.index + 1);
            (start..end).for_each(|index| known.forget(index));
            known.last = last;
            end
        };
        // From behind: whatever was done when the node dies, what is left has no hole.
        while start < end {
            let from = end.saturating_sub(CUT_AT_ONCE).max(start);
            self.durably(self.without(from..end)).await?;
            end = from;
        }
        Ok(())
    }

    async fn purge(&mut self, upto: types::Id) -> io::Result<()> {
        loop {
            let (from, end) = {
                let known = self.known.lock();
                let end = known.last.map_or(0, |id| id.index + 1).min(upto.index + 1);
                (known.purged.map_or(0, |id| id.index + 1), end)
            };
            // Each batch says where the log begins after it.
            let next = match from + CUT_AT_ONCE < end {
                true => self.entry(from + CUT_AT_ONCE - 1)?.map_or(upto, |entry| entry.log_id()),
                false => upto,
            };
            let gone = from..end.min(next.index + 1);
            {
                let mut known = self.known.lock();
                gone.clone().for_each(|index| known.forget(index));
                known.purged = Some(next);
                known.last = known.last.max(Some(next));
            }
            let mut batch = self.without(gone);
            batch.put(Family::Raft, key(b'p', self.range), wire::encode(&Id::from(&next)));
            self.durably(batch).await?;
            if next == upto {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::storage::RaftLogStorageExt;
    use rhumb_storage::hot::{HotSettings, HotStore};
    use rhumb_storage::{MemoryDisk, MemoryEngine, Store};

    use super::*;
    use crate::ranges::raft::TokioRuntime;
    use crate::ranges::raft::disk::{self, HotDisk};

    type Raft = Types<TokioRuntime>;

    /// A log on a store that takes so many bytes at once.
    fn log(max_waiting_bytes: usize) -> Log {
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("a sound disk");
        let settings = HotSettings { max_waiting_bytes, ..HotSettings::default() };
        let hot = HotStore::start(store, settings, |fault| panic!("{fault}")).expect("it starts");
        Log::open(RangeId(7), Arc::new(HotDisk::new(hot)), Damages::default()).expect("sound")
    }

    fn id(index: u64) -> types::Id {
        types::Id::new(types::Leader { term: 1, node_id: 1 }, index)
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        // Of a later build's format: as long as it only stands in the log, it may be anything.
        let proposal = types::Proposal::read(vec![250; bytes].into()).expect("it may stand there");
        Entry { log_id: id(index), payload: types::Payload::Normal(proposal) }
    }

    fn on_disk(log: &Log) -> Vec<u64> {
        let rows = disk::rows(&*log.disk, Family::Raft, &entries(log.range)).expect("they can be read");
        rows.iter().map(|(_, line)| read(line).expect("an entry").log_id.index).collect()
    }

    #[tokio::test]
    async fn entries_that_come_at_once_may_be_more_than_a_store_takes_at_once() {
        let mut log = log(1 << 20);
        let all = (0..16).map(|index| entry(index, 256 << 10));
        let appended = RaftLogStorageExt::<Raft>::blocking_append(&mut log, all);
        appended.await.expect("all of it is durable");
        assert_eq!(on_disk(&log), Vec::from_iter(0..16));
    }

    #[tokio::test]
    async fn what_comes_behind_entries_that_were_not_written_is_not_written_and_all_of_it_has_failed() {
        let mut log = log(300 << 10);
        let all = [entry(0, 256 << 10), entry(1, 256 << 10), entry(2, 100)];
        let appended = RaftLogStorageExt::<Raft>::blocking_append(&mut log, all).await;
        assert!(appended.is_err() && on_disk(&log).is_empty(), "{appended:?}");
    }

    #[tokio::test]
    async fn a_log_of_any_length_is_cut_at_either_end() {
        let (mut log, count) = (log(1 << 20), 3 * CUT_AT_ONCE + 5);
        let all = (0..count).map(|index| entry(index, 8));
        RaftLogStorageExt::<Raft>::blocking_append(&mut log, all).await.expect("it is durable");
        RaftLogStorage::<Raft>::truncate_after(&mut log, Some(id(count - 3))).await.expect("behind");
        RaftLogStorage::<Raft>::purge(&mut log, id(4)).await.expect("a few in front");
        assert_eq!(on_disk(&log), Vec::from_iter(5..count - 2));
        RaftLogStorage::<Raft>::truncate_after(&mut log, Some(id(count - CUT_AT_ONCE))).await.expect("more");
        RaftLogStorage::<Raft>::purge(&mut log, id(2 * CUT_AT_ONCE)).await.expect("and more");
        let (first, last) = (2 * CUT_AT_ONCE + 1, count - CUT_AT_ONCE);
        assert_eq!(on_disk(&log), Vec::from_iter(first..=last));
        // Beyond its end, as when all of a state has come.
        RaftLogStorage::<Raft>::purge(&mut log, id(10 * count)).await.expect("all");
        assert!(on_disk(&log).is_empty());
        let again = Log::open(log.range, Arc::clone(&log.disk), Damages::default()).expect("sound");
        let known = again.known.lock();
        assert_eq!((known.purged, known.last), (Some(id(10 * count)), Some(id(10 * count))));
    }
}
