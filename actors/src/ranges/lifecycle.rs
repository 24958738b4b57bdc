//! The life of a keyspace: active, archived, deleted, purged.
//!
//! * It decides: which step may follow which, and until when what was deleted can be brought back.
//! * It never does: purge what was not deleted before, or bring back what was purged.
//!
//! | it is | reads | writes | and then |
//! |---|---|---|---|
//! | active | yes | yes | `archive`, `delete` |
//! | archived | yes | refused as `archived` | `restore`, `delete` |
//! | deleted | refused as `deleted` | refused | `restore` within the retention, `purge`; it is purged by itself when the retention is over |
//! | purged | there is no such keyspace | | nothing: its rows are cleared from every disk, its number is never used again, and its name is free |

use std::fmt;

use rhumb_core::{HybridTime, NodeId};
use serde::{Deserialize, Serialize};

use super::messages::{KeyspaceView, KvRefusal, Lifetimes};
use crate::{Wire, remote};

/// Where a keyspace is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Life {
    /// It is read and written.
    #[default]
    Active,
    /// It is read.
    Archived,
    /// It is neither read nor written, and can be brought back.
    Deleted {
        /// From then on it is purged.
        until: HybridTime,
    },
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Deleted { .. } => "deleted",
        })
    }
}

/// What is done to a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Step {
    /// Writes end.
    Archive,
    /// Reads end too.
    Delete,
    /// Reads and writes go on.
    Restore,
    /// Its rows are cleared from every disk.
    Purge,
}

impl Step {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Delete => "delete",
            Self::Restore => "restore",
            Self::Purge => "purge",
        }
    }
}

/// Do this to a keyspace. The same again is the same answer.
#[remote(crate = crate, name = "keyspace.Live", class = "control", audience = "operators", idempotent,
         reply = Result<Lived, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKeyspace {
    /// Which one.
    pub keyspace: String,
    /// What.
    pub step: Step,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Lived {
    /// The keyspace as it is now; none: it is purged.
    pub keyspace: Option<KeyspaceView>,
    /// Nodes with replicas of it that have not said that they go by it.
    pub pending: Vec<NodeId>,
}

/// What becomes of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It is so already.
    Same,
    /// This one.
    Life(Life),
    /// It is purged.
    Purged,
}

impl Life {
    /// What a step makes of it, at this time.
    ///
    /// # Errors
    /// It cannot follow, and what could.
    pub fn step(self, step: Step, at: HybridTime, lifetimes: &Lifetimes) -> Result<Becomes, KvRefusal> {
        let invalid = |why: &str| Err(KvRefusal::Invalid(why.to_owned()));
        Ok(match (self, step) {
            (Self::Active, Step::Restore) | (Self::Archived, Step::Archive) => Becomes::Same,
            (Self::Deleted { .. }, Step::Delete) => Becomes::Same,
            (Self::Active, Step::Archive) => Becomes::Life(Self::Archived),
            (Self::Active | Self::Archived, Step::Delete) => {
                Becomes::Life(Self::Deleted { until: at.plus(lifetimes.retention()) })
            }
            (Self::Archived, Step::Restore) => Becomes::Life(Self::Active),
            (Self::Deleted { until }, Step::Restore) if at < until => Becomes::Life(Self::Active),
            (Self::Deleted { .. }, Step::Purge) => Becomes::Purged,
            (Self::Deleted { .. }, Step::Restore) => {
                return invalid("its retention is over, and it is being purged: it cannot be brought back");
            }
            (Self::Deleted { .. }, Step::Archive) => {
                return invalid("it is deleted: restore it first (`rhumb keyspace restore`)");
            }
            (Self::Active | Self::Archived, Step::Purge) => {
                return invalid("it is not deleted: delete it first (`rhumb keyspace delete`)");
            }
        })
    }

    /// Whether it is read.
    ///
    /// # Errors
    /// [`KvRefusal::NotActive`].
    pub fn reads(self) -> Result<(), KvRefusal> {
        match self {
            Self::Active | Self::Archived => Ok(()),
            Self::Deleted { .. } => Err(KvRefusal::NotActive(self)),
        }
    }

    /// Whether it is written.
    ///
    /// # Errors
    /// [`KvRefusal::NotActive`].
    pub fn writes(self) -> Result<(), KvRefusal> {
        if self == Self::Active { Ok(()) } else { Err(KvRefusal::NotActive(self)) }
    }

    /// Whether it is purged by itself now.
    #[must_use]
    pub fn is_over(self, now: HybridTime) -> bool {
        matches!(self, Self::Deleted { until } if until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What steps, at milliseconds, make of an active keyspace whose retention is a second; and the first refusal.
    fn lives(steps: &str) -> String {
        let lifetimes = Lifetimes { retention: Some(Duration::from_secs(1)), ttl: None };
        let mut life = Life::Active;
        for said in steps.split_whitespace() {
            let (word, at) = said.split_once('@').expect("a step and its time");
            let at = HybridTime::new(at.parse().expect("a number"), 0);
            let all = [Step::Archive, Step::Delete, Step::Restore, Step::Purge];
            let step = all.into_iter().find(|step| step.word() == word).expect("a step");
            match life.step(step, at, &lifetimes) {
                Ok(Becomes::Same) => {}
                Ok(Becomes::Life(next)) => life = next,
                Ok(Becomes::Purged) => return "purged".to_owned(),
                Err(refusal) => return refusal.to_string(),
            }
        }
        let may = |may: Result<(), KvRefusal>| may.map_or_else(|refusal| refusal.code(), |()| "yes");
        format!("{life}: reads {}, writes {}", may(life.reads()), may(life.writes()))
    }

    #[test]
    fn a_keyspace_lives_as_its_operators_say() {
        assert_eq!(lives(""), "active: reads yes, writes yes");
        assert_eq!(lives("archive@5 archive@6"), "archived: reads yes, writes archived");
        assert_eq!(lives("archive@5 restore@6 restore@7"), "active: reads yes, writes yes");
        assert_eq!(lives("archive@5 delete@6 delete@7"), "deleted: reads deleted, writes deleted");
        assert_eq!(lives("delete@6 restore@1005"), "active: reads yes, writes yes");
        let over = "its retention is over, and it is being purged: it cannot be brought back";
        assert_eq!(lives("delete@6 restore@1006"), over);
        assert_eq!(lives("delete@6 delete@900 restore@1006"), over, "deleting again does not begin anew");
        assert_eq!(lives("delete@6 purge@7"), "purged");
        assert_eq!(lives("purge@7"), "it is not deleted: delete it first (`rhumb keyspace delete`)");
        assert_eq!(
            lives("archive@6 purge@7"),
            "it is not deleted: delete it first (`rhumb keyspace delete`)"
        );
        let deleted = "it is deleted: restore it first (`rhumb keyspace restore`)";
        assert_eq!(lives("delete@6 archive@7"), deleted);
    }

    #[test]
    fn what_was_deleted_is_purged_when_its_retention_is_over_and_nothing_else_is() {
        let at = |ms| HybridTime::new(ms, 0);
        let deleted = Life::Deleted { until: at(1_006) };
        assert!(!deleted.is_over(at(1_005)) && deleted.is_over(at(1_006)));
        assert!(!Life::Active.is_over(at(u64::from(u32::MAX))) && !Life::Archived.is_over(at(9_999)));
    }
}
