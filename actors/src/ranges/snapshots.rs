//! Snapshots for operators: what a keyspace was at one time, held against collection until it is removed or ends.
//!
//! * It decides: what may be held for how long; the rows that say so stand in the keyspace's row of the meta range.
//! * It never does: copy anything. The versions are there, and the leaseholders of the keyspace's ranges raise no threshold above
//!   a time that is held.
//! * A time that is held keeps all that was written after it too: collection has one threshold a range.

use std::fmt;
use std::time::Duration;

use rhumb_core::{DataClass, HybridTime, NodeId};
use serde::{Deserialize, Serialize};

use super::catalog::named;
use super::messages::KvRefusal;
use crate::{Wire, remote};

/// Snapshots of a keyspace at once.
pub const MAX_HELD: usize = 32;
/// The longest time that one is kept.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A time that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// What was at this time can be read
    pub at: HybridTime,
    /// until then.
    pub until: HybridTime,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.at.to_bits())
    }
}

/// Hold what a keyspace is now.
#[remote(crate = crate, name = "snapshot.Create", class = "control", audience = "operators",
         reply = Result<SnapshotTaken, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSnapshot {
    /// Which keyspace.
    pub keyspace: String,
    /// The snapshot's name.
    pub name: String,
    /// For how long.
    pub keep: Duration,
}

/// It is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct SnapshotTaken {
    /// The snapshot.
    pub held: Held,
    /// Nodes with replicas that have not said that they go by it.
    pub pending: Vec<NodeId>,
}

/// Hold it no longer.
#[remote(crate = crate, name = "snapshot.Remove", class = "control", audience = "operators", idempotent,
         reply = Result<(), KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSnapshot {
    /// Which keyspace.
    pub keyspace: String,
    /// The snapshot's name.
    pub name: String,
}

/// May it be exported to where the caller stands? It is told of, and then read page by page.
#[remote(crate = crate, name = "snapshot.Export", class = "control", audience = "operators", idempotent,
         reply = Result<Exportable, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSnapshot {
    /// Which keyspace.
    pub keyspace: String,
    /// The snapshot's name.
    pub name: String,
}

/// It may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Exportable {
    /// The keyspace's number.
    pub id: u32,
    /// Its class.
    pub class: DataClass,
    /// The snapshot.
    pub held: Held,
}

/// With one more; none: it is there already. Those that have ended are gone from what is given.
///
/// # Errors
/// It cannot be, and what could.
pub fn with(held: &[Held], one: &Held, now: HybridTime) -> Result<Option<Vec<Held>>, KvRefusal> {
    named(&one.name)?;
    if held.iter().any(|held| held == one) {
        return Ok(None);
    }
    let mut left: Vec<Held> = held.iter().filter(|held| held.until > now).cloned().collect();
    let invalid = |why: String| Err(KvRefusal::Invalid(why));
    if left.iter().any(|held| held.name == one.name) {
        return invalid(format!("there is a snapshot {} already: expected another name", one.name));
    }
    if left.len() >= MAX_HELD {
        return invalid(format!(
            "the keyspace has {MAX_HELD} snapshots, which are as many as there may be: remove one"
        ));
    }
    left.push(one.clone());
    Ok(Some(left))
}

/// Whether something may be held for so long.
///
/// # Errors
/// What would be right.
pub fn may_keep(keep: Duration) -> Result<(), KvRefusal> {
    if keep >= Duration::from_secs(1) && keep <= LONGEST {
        return Ok(());
    }
    Err(KvRefusal::Invalid(format!("a snapshot is kept for 1s to 366d, not for {keep:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, at: u64, until: u64) -> Held {
        Held { name: name.to_owned(), at: HybridTime::new(at, 0), until: HybridTime::new(until, 0) }
    }

    #[test]
    fn names_are_used_once_at_a_time_and_what_has_ended_makes_room() {
        let now = |ms| HybridTime::new(ms, 0);
        let one = held("monday", 5, 100);
        assert_eq!(with(&[], &one, now(5)), Ok(Some(vec![one.clone()])));
        assert_eq!(with(std::slice::from_ref(&one), &one, now(6)), Ok(None), "the same again");
        let again = held("monday", 7, 200);
        assert!(matches!(with(std::slice::from_ref(&one), &again, now(7)), Err(KvRefusal::Invalid(_))));
        assert_eq!(with(&[one], &again, now(100)), Ok(Some(vec![again])), "the first one has ended");
        let many: Vec<Held> = (0..MAX_HELD).map(|number| held(&format!("n{number}"), 1, 50)).collect();
        assert!(with(&many, &held("more", 9, 60), now(9)).is_err());
        assert_eq!(
            with(&many, &held("more", 9, 60), now(50)).map(|left| left.map(|left| left.len())),
            Ok(Some(1))
        );
        assert!(with(&[], &held("No Name", 1, 2), now(1)).is_err());
    }

    #[test]
    fn times_have_bounds() {
        assert!(may_keep(Duration::from_secs(1)).is_ok() && may_keep(LONGEST).is_ok());
        assert!(may_keep(Duration::from_millis(999)).is_err());
        assert!(may_keep(LONGEST + Duration::from_secs(1)).is_err());
    }
}
