//! Versions of user keys: how a key, its time and its record become rows of [`Family::Mvcc`](crate::Family::Mvcc), how
//! they are read as of a time, and which of them nobody can need any more.
//!
//! * It decides: the bytes; what a reader as of a time sees; which versions may be deleted below a threshold.
//! * It never does: choose a time (the leaseholder does), look at a clock to see whether a value has expired (the time of
//!   the read says so, so that all replicas answer alike), or put a user's key or value into an error's text.
//! * Invariants: rows stand in the order of user keys, and the newest version of a key first; what is read as of a time at or
//!   above the threshold is the same before and after a collection.
//!
//! In reading order: [`key`] and [`record`] are the bytes; [`read`] reads as of a time; [`gc`] says what may go.
//!
//! A version's key names its keyspace and not its range, so that a split moves no row (docs/decisions/0036).

pub mod gc;
pub mod key;
pub mod read;
pub mod record;

#[cfg(test)]
mod tests;

pub use gc::{Garbage, Protected, Threshold};
pub use key::{KeyError, KeyTooLong, KeyspaceId, UserKey, VersionKey};
pub use read::{Limit, Page, ReadError, Rows, Snapshot, Version};
pub use record::{Header, Intent, Record, RecordError, Sealed, Subject, SubjectTooLong};
