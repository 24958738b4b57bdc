//! Idempotency keys: what became of each, for as long as it may be asked again.
//!
//! * It decides: whether a key is new, known, used for something else, or too old.
//! * It never does: run anything. A key that is too old is refused before it is looked up anywhere
//!   else, so forgetting it is safe.
//! * Invariant: a row is kept at least as long as its key would be accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, NodeId};
use sha2::{Digest, Sha256};

use super::messages::{DEFAULT_TTL, Hold, KEY_RETENTION, Key, Refusal};
use super::records::KeyRow;

/// A row outlives the retention of its key by this, for the rounding of times.
const SLACK: Duration = Duration::from_secs(1);

/// The keys that a node remembers.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    rows: BTreeMap<Key, KeyRow>,
    due: BTreeSet<(HybridTime, Key)>,
}

impl Keys {
    pub(crate) fn recovered(rows: BTreeMap<Key, KeyRow>) -> Self {
        let due = rows.iter().map(|(key, row)| (kept_until(key, row), key.clone())).collect();
        Self { rows, due }
    }

    pub(crate) fn insert(&mut self, key: Key, row: KeyRow) {
        self.due.insert((kept_until(&key, &row), key.clone()));
        self.rows.insert(key, row);
    }

    /// What became of a key.
    ///
    /// # Errors
    /// [`Refusal::KeyReused`] when it was used with another body.
    pub(crate) fn recall(&self, key: &Key, body: &[u8; 16]) -> Result<Option<&KeyRow>, Refusal> {
        match self.rows.get(key) {
            Some(row) if row.body != *body => Err(Refusal::KeyReused),
            found => Ok(found),
        }
    }

    /// Forgets a key that is refused by now.
    pub(crate) fn forget_next(&mut self, now: HybridTime) -> Option<Key> {
        if now <= self.due.first()?.0 {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.rows.remove(&key);
        Some(key)
    }

    /// Forgets a key under which nothing was done.
    pub(crate) fn forget(&mut self, key: &Key) {
        if let Some(row) = self.rows.remove(key) {
            self.due.remove(&(kept_until(key, &row), key.clone()));
        }
    }

    pub(crate) fn next_forgotten(&self) -> Option<HybridTime> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn kept_until(key: &Key, row: &KeyRow) -> HybridTime {
    let made = match key {
        Key::Made { created_ms, .. } => *created_ms,
        Key::Raw(_) => 0,
    };
    // A time made up by a client may lie beyond 48 bits; such a key is refused and never stored.
    let from = HybridTime::new(made.min((1 << 48) - 1), 0).max(row.seen);
    from.plus(KEY_RETENTION).plus(SLACK)
}

/// Whether a key that says its age may still be run.
pub(crate) fn check_age(key: &Key, now: HybridTime, max_offset: Duration) -> Result<(), Refusal> {
    let Key::Made { created_ms, .. } = key else { return Ok(()) };
    let ahead = created_ms.saturating_sub(now.millis());
    if u128::from(ahead) > max_offset.as_millis() {
        return Err(Refusal::Invalid(format!(
            "the key says it was made {ahead} ms in the future; set the clock of the machine that made it, or this node's"
        )));
    }
    let age = u128::from(now.millis().saturating_sub(*created_ms));
    if age > KEY_RETENTION.as_millis() && !canary::sings(Canary::ExpiredKeyRunsAgain) {
        return Err(Refusal::KeyExpired);
    }
    Ok(())
}

/// The body of a hold request: what must be the same for the same key.
pub(crate) fn body(hold: &Hold) -> [u8; 16] {
    let ttl = hold.ttl.unwrap_or(DEFAULT_TTL).as_millis();
    let mut text = format!("rhumb-hold-v1\n{}\n{}\n{ttl}\n", hold.pool, hold.qty);
    if let Some(customer) = hold.customer {
        text += &format!("{customer}\n");
    }
    let hash = Sha256::digest(text);
    hash[..16].try_into().expect("16 of 32 bytes")
}

/// The key under which a hold is passed on. A key given by hand is scoped to this region, so beyond
/// it goes under a name that no other region's key can have.
pub(crate) fn abroad(key: &Key, me: &NodeId, seen: HybridTime) -> Key {
    let Key::Raw(text) = key else { return key.clone() };
    let hash = Sha256::digest(format!("rhumb-raw-key-v1\n{}\n{text}", me.region));
    let nonce = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Key::Made { home: me.clone(), created_ms: seen.millis(), nonce }
}

/// A return's key, as the sale that it was used for remembers it.
pub(crate) fn return_key(key: &Key) -> [u8; 16] {
    let hash = Sha256::digest(format!("rhumb-return-v1\n{key}"));
    hash[..16].try_into().expect("16 of 32 bytes")
}
