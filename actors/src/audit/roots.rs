//! Which checkpoints of other logs are told of in this node's own: a root that its log denies later stands in the
//! others', with its signature.
//!
//! * It decides: when the checkpoint that was cosigned last of a log is told of. A log that has grown by much since it was
//!   told of is told of a minute later, one that has grown by little ten minutes later: telling makes this log grow, which
//!   its log witnesses tell of in theirs, and an idle mesh must not talk to itself.
//! * It never does: keep anything durable. After a start the first is told of as one that was not told of before.
//! * Invariant: of one log at most one a minute is told of, and when the node stops nothing is left untold.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::Mono;

/// The action of an entry that tells of another log's checkpoint. Its record has that in `note`.
pub const COSIGNED: &str = "checkpoint.cosigned";
/// After what time a log that has grown by much is told of again.
pub const SOON: Duration = Duration::from_secs(60);
/// And one that has grown by little.
pub const LATE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When it was told of last, or was first seen.
    since: Mono,
    /// Entries that were told of, and those that were cosigned.
    told: u64,
    cosigned: u64,
}

/// The other logs, as far as they are told of.
#[derive(Debug, Default)]
pub struct Roots {
    of: BTreeMap<String, Seen>,
}

impl Roots {
    /// A checkpoint of a log was cosigned durably.
    pub fn cosigned(&mut self, now: Mono, origin: &str, entries: u64) {
        let fresh = Seen { since: now, told: 0, cosigned: 0 };
        self.of.entry(origin.to_owned()).or_insert(fresh).cosigned = entries;
    }

    /// Logs that are to be told of now, by origin.
    pub fn due(&mut self, now: Mono) -> Vec<String> {
        // What every other node's telling makes a log grow by is little.
        let little = self.of.len() as u64 + 1;
        self.tell(now, |seen| {
            let grown = seen.cosigned.saturating_sub(seen.told);
            grown > 0 && now >= seen.since.plus(if grown > little { SOON } else { LATE })
        })
    }

    /// Logs that have not been told of as they were cosigned last: the node stops.
    pub fn left(&mut self, now: Mono) -> Vec<String> {
        self.tell(now, |seen| seen.cosigned > seen.told)
    }

    fn tell(&mut self, now: Mono, which: impl Fn(&Seen) -> bool) -> Vec<String> {
        let due = self.of.iter_mut().filter(|(_, seen)| which(seen));
        let told = due.map(|(origin, seen)| {
            (seen.since, seen.told) = (now, seen.cosigned);
            origin.clone()
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_of_once_a_minute_or_seldom_when_it_hardly_grows_and_at_the_end() {
        let (mut roots, at) = (Roots::default(), |seconds: u64| Mono::millis(seconds * 1_000));
        let none: [&str; 0] = [];
        roots.cosigned(at(0), "eu", 10);
        roots.cosigned(at(1), "ap", 1);
        assert_eq!(roots.due(at(59)), none);
        assert_eq!(roots.due(at(60)), ["eu"], "the other one has hardly an entry");
        roots.cosigned(at(61), "eu", 14);
        roots.cosigned(at(62), "eu", 30);
        assert_eq!(roots.due(at(119)), none, "once a minute at the most");
        assert_eq!(roots.due(at(120)), ["eu"]);
        roots.cosigned(at(121), "eu", 33);
        assert_eq!(roots.due(at(600)), none, "three entries are what the others' telling comes to");
        assert_eq!(roots.due(at(601)), ["ap"]);
        assert_eq!(roots.due(at(720)), ["eu"]);
        assert_eq!((roots.due(at(9_000)), roots.left(at(9_000))), (vec![], vec![]), "nothing is told twice");
        roots.cosigned(at(9_001), "ap", 2);
        assert_eq!(roots.left(at(9_002)), ["ap"]);
        assert_eq!(roots.left(at(9_003)), none);
    }
}
