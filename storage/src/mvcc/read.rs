//! Reads as of a time.
//!
//! * It decides: which version of a key a reader sees: the newest that is not above its time, if that is a value which
//!   has not expired by then.
//! * It never does: read below the threshold of collection, or pass over an intent that might be decided into its past.
//!
//! A point read is one walk of one row. A scan walks over versions that it does not need and seeks past them where a key
//! has many. Between two walks rows may change: only above the time of the read, as long as the caller reads at a time
//! that is closed or that it holds the lease for, and below the threshold, which the caller asks for again afterwards.

use rhumb_core::HybridTime;
use thiserror::Error;

use super::key::{self, KeyspaceId, UserKey, VersionKey};
use super::record::{Intent, Record};
use crate::batch::Family;
use crate::engine::Engine;
use crate::fault::StorageFault;
use crate::store::Store;

/// Rows that are walked over before it is cheaper to seek.
const PASSED_BEFORE_SEEK: usize = 8;

/// Where rows of [`Family::Mvcc`] are.
pub trait Rows {
    /// Gives rows from this one on, in order, until `f` answers `false`.
    ///
    /// # Errors
    /// A fault of reading.
    fn walk(&self, from: &[u8], f: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StorageFault>;
}

impl<E: Engine> Rows for Store<E> {
    fn walk(&self, from: &[u8], f: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StorageFault> {
        Store::walk(self, Family::Mvcc, from, f)
    }
}

/// Why nothing is read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Storage failed.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// A row is not what is written here. The replica is not to be believed.
    #[error("a version in keyspace {} written at {at} cannot be read: {reason}", keyspace.0)]
    Damaged {
        /// In which keyspace.
        keyspace: KeyspaceId,
        /// The version's time, or zero where its key cannot be read either.
        at: HybridTime,
        /// What is wrong.
        reason: String,
    },
    /// Versions below the threshold may be gone.
    #[error("what was at {at} may be collected: {threshold} is the earliest that can be read")]
    BelowThreshold {
        /// The time asked for.
        at: HybridTime,
        /// The earliest that can be read.
        threshold: HybridTime,
    },
    /// A transaction has not decided what a key was at that time.
    #[error("transaction {:032x} has not decided what a key was at that time", .0.0)]
    Undecided(Intent),
}

/// What a key was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Since when.
    pub at: HybridTime,
    /// What it was. Its value is there: deletions and expired values are not given out.
    pub record: Record,
}

/// How much one scan may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// So many rows at most.
    pub rows: usize,
    /// No further row once their keys and values have so many bytes.
    pub bytes: usize,
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in their order, and what they were.
    pub rows: Vec<(UserKey, Version)>,
    /// Where to go on, if the limit was reached.
    pub next: Option<UserKey>,
}

/// A keyspace as of a time.
#[derive(Debug)]
pub struct Snapshot<'a, R: ?Sized> {
    rows: &'a R,
    keyspace: KeyspaceId,
    at: HybridTime,
}

impl<'a, R: Rows + ?Sized> Snapshot<'a, R> {
    /// A keyspace as of a time, where versions below `threshold` may be gone.
    ///
    /// # Errors
    /// [`ReadError::BelowThreshold`].
    pub fn new(
        rows: &'a R,
        keyspace: KeyspaceId,
        at: HybridTime,
        threshold: HybridTime,
    ) -> Result<Self, ReadError> {
        if at < threshold {
            return Err(ReadError::BelowThreshold { at, threshold });
        }
        Ok(Self { rows, keyspace, at })
    }

    /// What a key was, if it was there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn get(&self, key: &UserKey) -> Result<Option<Version>, ReadError> {
        let found = self.newest(key)?.filter(|version| version.record.live(self.at).is_some());
        Ok(found)
    }

    /// The version of a key that counts at that time, a deletion or an expired value too: what a condition on a version
    /// is held against.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn newest(&self, key: &UserKey) -> Result<Option<Version>, ReadError> {
        let prefix = key::prefix(self.keyspace, key);
        let mut found = None;
        self.rows.walk(&key::timed(prefix.clone(), self.at), &mut |row, value| {
            if row.len() == prefix.len() + 8 && row.starts_with(&prefix) {
                found = Some(self.read(row, value));
            }
            false
        })?;
        Ok(found.transpose()?.map(|(_, version)| version))
    }

    /// Keys from `from` on (itself included) to `to` (itself not), and what they were.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn scan(&self, from: &UserKey, to: Option<&UserKey>, limit: Limit) -> Result<Page, ReadError> {
        let mut scan = Scan {
            within: key::of_keyspace(self.keyspace),
            end: to.map(|to| key::prefix(self.keyspace, to)),
            decided: Vec::new(),
            passed: 0,
            bytes: 0,
            limit,
            page: Page::default(),
        };
        let mut seek = key::prefix(self.keyspace, from);
        loop {
            let mut then = Ok(None);
            self.rows.walk(&seek, &mut |row, value| match scan.meet(self, row, value) {
                Ok(Next::Row) => true,
                Ok(Next::Seek(to)) => {
                    then = Ok(Some(to));
                    false
                }
                Ok(Next::Done) => false,
                Err(error) => {
                    then = Err(error);
                    false
                }
            })?;
            match then? {
                Some(to) => seek = to,
                None => return Ok(scan.page),
            }
        }
    }

    fn read(&self, row: &[u8], value: &[u8]) -> Result<(UserKey, Version), ReadError> {
        let (key, at) = decoded(self.keyspace, row)?;
        let record = opened(self.keyspace, at, row, value)?;
        match record.header.intent {
            Some(intent) => Err(ReadError::Undecided(intent)),
            None => Ok((key, Version { at, record })),
        }
    }
}

/// The key and time of a row.
pub(super) fn decoded(keyspace: KeyspaceId, row: &[u8]) -> Result<(UserKey, HybridTime), ReadError> {
    match VersionKey::decode(row) {
        Ok(VersionKey { key, at, .. }) => Ok((key, at)),
        Err(error) => Err(ReadError::Damaged { keyspace, at: HybridTime::ZERO, reason: error.to_string() }),
    }
}

/// The record of a row.
pub(super) fn opened(
    keyspace: KeyspaceId,
    at: HybridTime,
    row: &[u8],
    value: &[u8],
) -> Result<Record, ReadError> {
    Record::decode(row, value).map_err(|error| ReadError::Damaged { keyspace, at, reason: error.to_string() })
}

/// A scan on its way.
struct Scan {
    within: Vec<u8>,
    end: Option<Vec<u8>>,
    /// The key whose version has been found, as a row without its time.
    decided: Vec<u8>,
    passed: usize,
    bytes: usize,
    limit: Limit,
    page: Page,
}

enum Next {
    Row,
    Seek(Vec<u8>),
    Done,
}

impl Scan {
    fn meet<R: Rows + ?Sized>(
        &mut self,
        snapshot: &Snapshot<'_, R>,
        row: &[u8],
        value: &[u8],
    ) -> Result<Next, ReadError> {
        if !row.starts_with(&self.within) || self.end.as_ref().is_some_and(|end| row >= end.as_slice()) {
            return Ok(Next::Done);
        }
        if !self.decided.is_empty() && key::of_row(row) == self.decided {
            return Ok(self.pass(|| key::past(row)));
        }
        let (key, at) = decoded(snapshot.keyspace, row)?;
        if at > snapshot.at {
            return Ok(self.pass(|| key::timed(key::of_row(row).to_vec(), snapshot.at)));
        }
        if self.page.rows.len() >= self.limit.rows || self.bytes >= self.limit.bytes {
            self.page.next = Some(key);
            return Ok(Next::Done);
        }
        self.passed = 0;
        self.decided = key::of_row(row).to_vec();
        let (key, version) = snapshot.read(row, value)?;
        if let Some(live) = version.record.live(snapshot.at) {
            self.bytes += key.as_bytes().len() + live.len();
            self.page.rows.push((key, version));
        }
        Ok(Next::Row)
    }

    fn pass(&mut self, to: impl FnOnce() -> Vec<u8>) -> Next {
        self.passed += 1;
        if self.passed < PASSED_BEFORE_SEEK {
            return Next::Row;
        }
        self.passed = 0;
        Next::Seek(to())
    }
}
