//! Reads whose level is part of their type, and the gate by which a weaker one becomes a strong one.
//!
//! * It decides: which level a read has in its type: that which was asked for. An answer that says less of itself is an
//!   error.
//! * It never does: call a value strong that the leaseholder has not just said. [`Kv::upgrade`] reads it again, and where it
//!   was written meanwhile it says so, with both versions.
//! * What is read within an actor's call makes that call rest on it, as an answer to an ask does.
//!
//! ```
//! use rhumb::client::kv::{Kv, NotUpgraded};
//! use rhumb::consistent::{Consistent, StrictSerializable};
//!
//! /// Nobody is charged by what a balance was.
//! fn charge(balance: Consistent<u64, StrictSerializable>, cents: u64) -> Option<u64> {
//!     balance.into_value().checked_sub(cents)
//! }
//!
//! async fn pays(kv: &Kv<'_>) -> Result<(), NotUpgraded> {
//!     // Shown at once, from a replica nearby.
//!     let shown = kv.eventual(b"balance/ann").await?;
//!     // Before money moves it is read again; if it is another one by now, whoever saw it is asked again.
//!     let balance = kv.upgrade(shown).await?;
//!     let cents = |bytes: Option<&[u8]>| u64::from_str_radix(std::str::from_utf8(bytes?).ok()?, 10).ok();
//!     let left = charge(balance.map(|found| cents(found.bytes()).unwrap_or(0)), 300);
//!     # let _ = left;
//!     // And it is written on condition that it is still that version: see `Kv::put_if`.
//!     Ok(())
//! }
//! ```
//!
//! Without the gate it does not compile:
//!
//! ```compile_fail,E0308
//! use rhumb::client::kv::{Kv, KvError};
//! use rhumb::consistent::{Consistent, StrictSerializable};
//!
//! fn charge(balance: Consistent<u64, StrictSerializable>) {}
//!
//! async fn pays(kv: &Kv<'_>) -> Result<(), KvError> {
//!     charge(kv.eventual(b"balance/ann").await?.map(|_| 500));
//!     Ok(())
//! }
//! ```

use std::time::Duration;

use rhumb_actors::ranges::messages::{KvAnswer, KvRow, Needs};
use rhumb_core::consistent::{Consistent, Eventual, Level, Snapshot, StrictSerializable};
use rhumb_core::{Guarantee, HybridTime, Region};
use thiserror::Error;

use super::kv::{Kv, KvError};

/// What was found under a key, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvFound {
    /// The key.
    pub key: Vec<u8>,
    /// Its row, if it was there.
    pub row: Option<KvRow>,
    /// What the answer says of itself: the level in its type, or a better one.
    pub level: Guarantee,
    /// As of when.
    pub at: HybridTime,
    /// How old it may have been.
    pub age: Duration,
    /// In which region it was read.
    pub region: Region,
    /// Whether a nearer replica could not answer.
    pub fallback: bool,
}

impl KvFound {
    fn of(key: &[u8], answer: KvAnswer) -> Self {
        let KvAnswer { rows, level, at, age, region, fallback, .. } = answer;
        Self { key: key.to_vec(), row: rows.into_iter().next(), level, at, age, region, fallback }
    }

    /// When it was written; none where it is not there.
    #[must_use]
    pub fn version(&self) -> Option<HybridTime> {
        self.row.as_ref().map(|row| row.version)
    }

    /// Its value; none where it is not there.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.row.as_ref().map(|row| row.value.as_slice())
    }
}

/// A value was written, or deleted, after it was read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} was read, and now it is {}: decide anew by what it is now", told(had.version()), told(now.value().version()))]
pub struct Conflict {
    /// What had been read.
    pub had: KvFound,
    /// What is so now: good for the next attempt.
    pub now: Consistent<KvFound, StrictSerializable>,
}

fn told(version: Option<HybridTime>) -> String {
    version.map_or_else(|| "no value".to_owned(), |version| format!("version {}", version.to_bits()))
}

/// Why a value was not upgraded.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum NotUpgraded {
    /// It is another one by now.
    #[error("conflict: {0}")]
    Conflict(Box<Conflict>),
    /// It could not be read again.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl Kv<'_> {
    /// What is under a key now: with all that was acknowledged before this call.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn strong(&self, key: &[u8]) -> Result<Consistent<KvFound, StrictSerializable>, KvError> {
        self.found(key, Needs::Strong).await
    }

    /// What was under a key no longer ago than `bound`, read nearby where that is possible.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn bounded(
        &self,
        key: &[u8],
        bound: Duration,
    ) -> Result<Consistent<KvFound, Snapshot>, KvError> {
        self.found(key, Needs::Bounded(bound)).await
    }

    /// What was under a key at a time.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn as_of(
        &self,
        key: &[u8],
        time: HybridTime,
    ) -> Result<Consistent<KvFound, Snapshot>, KvError> {
        self.found(key, Needs::AsOf(time)).await
    }

    /// What some replica has under a key; all that this handle has seen is in it.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn eventual(&self, key: &[u8]) -> Result<Consistent<KvFound, Eventual>, KvError> {
        self.found(key, Needs::Eventual).await
    }

    /// The gate from any level to the strongest: reads the key again, strongly, and gives that if it is still the version
    /// that was read. It was so when it was read again; what is written by it says so (`Kv::put_if`).
    ///
    /// # Errors
    /// [`NotUpgraded::Conflict`], with both versions.
    pub async fn upgrade<L: Level>(
        &self,
        had: Consistent<KvFound, L>,
    ) -> Result<Consistent<KvFound, StrictSerializable>, NotUpgraded> {
        let now = self.strong(&had.value().key).await?;
        if now.value().version() == had.value().version() {
            return Ok(now);
        }
        Err(NotUpgraded::Conflict(Box::new(Conflict { had: had.into_value(), now })))
    }

    async fn found<L: Level>(&self, key: &[u8], needs: Needs) -> Result<Consistent<KvFound, L>, KvError> {
        let found = KvFound::of(key, self.get(key, needs).await?);
        let said = found.level;
        Consistent::at_least(found, said)
            .map_err(|weaker| KvError::Weaker { required: weaker.required, achieved: weaker.achieved })
    }
}
