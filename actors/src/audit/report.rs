//! What a node counts of its audit log since it started, for its page of metrics.
//!
//! * It decides: how many actions are counted apart.
//! * Invariant: there are as many counts as actions, up to [`MAX_ACTIONS`], and as log witnesses, whoever does what.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::NodeId;

/// Actions that are counted apart; those beyond are one.
pub const MAX_ACTIONS: usize = 64;
/// What further actions are counted as.
pub const OTHER: &str = "_other";

/// How a node's audit log stands, in numbers. What is counted is counted since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries that were appended, by action.
    pub appended: BTreeMap<String, u64>,
    /// Records that are not in the log, by why ([`NotAppended::code`](super::NotAppended::code)).
    pub refused: BTreeMap<&'static str, u64>,
    /// Observations that were told as a count together with others like them.
    pub folded: u64,
    /// Observations for which there was no room: nobody is told of them.
    pub missed: u64,
    /// Entries, durable or about to be, with those that were pruned.
    pub entries: u64,
    /// Entries under the last signed checkpoint.
    pub signed: u64,
    /// Entries under the last one that enough log witnesses have cosigned.
    pub published: u64,
    /// The number of the first entry that was not pruned.
    pub mark: u64,
    /// How old that one is, once it was looked at.
    pub oldest: Option<Duration>,
    /// Since a checkpoint was published last; since the start where none was.
    pub published_age: Duration,
    /// The log witnesses.
    pub witnesses: BTreeMap<NodeId, Watched>,
    /// It signs nothing any more.
    pub broken: bool,
    /// Other logs against which there is evidence.
    pub accused: u64,
    /// Nodes that show another key than the one that is pinned.
    pub disbelieved: u64,
    /// Subjects whose keys are here.
    pub subjects: u64,
    /// Subjects whose keys were destroyed.
    pub erased: u64,
}

/// What is known of a log witness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watched {
    /// Entries of the last signed checkpoint that it has not cosigned.
    pub lag: u64,
    /// Since its last cosignature came; since the start where none has.
    pub silent: Duration,
}

/// Counts by a name, of which there may be many.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounded(BTreeMap<String, u64>);

impl Bounded {
    pub(super) fn count(&mut self, name: &str) {
        let room = self.0.len() < MAX_ACTIONS || self.0.contains_key(name);
        let name = if room { name } else { OTHER };
        match self.0.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(name.to_owned(), 1)),
        }
    }

    pub(super) fn counted(&self) -> BTreeMap<String, u64> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_actions_so_many_are_counted_apart_and_all_are_counted() {
        let mut counts = Bounded::default();
        for number in 0..1_000 {
            counts.count(&format!("till.act{number}"));
            counts.count("till.sell");
        }
        let counted = counts.counted();
        assert_eq!(counted["till.sell"], 1_000);
        assert_eq!((counted.len(), counted.values().sum::<u64>()), (MAX_ACTIONS + 1, 2_000));
        assert!(counted[OTHER] > 900, "{counted:?}");
    }
}
