//! What happened: a hash of every event, and (when asked for) the events as text.
//!
//! * It decides: whether two runs were the same.
//! * It never does: format anything unless somebody reads it; a run that fails is run again to be read.
//! * Invariant: the hash covers each event's time, kind, place and content, in order.

use std::collections::VecDeque;
use std::fmt;

use sha2::{Digest, Sha256};

use super::agenda::Micros;

/// How much text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// None.
    #[default]
    Nothing,
    /// The last so many events.
    Last(usize),
    /// All.
    All,
}

/// SHA-256 over all events of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceHash(pub [u8; 32]);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceHash({self})")
    }
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: Sha256,
    pending: Vec<u8>,
    keep: Keep,
    lines: VecDeque<String>,
    events: u64,
}

const FLUSH_AT: usize = 4_096;

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self {
            hash: Sha256::new(),
            pending: Vec::with_capacity(FLUSH_AT + 512),
            keep,
            lines: VecDeque::new(),
            events: 0,
        }
    }

    /// Notes an event: its numbers for the hash, its text for a reader.
    pub fn note(&mut self, at: Micros, kind: &str, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.pending.extend_from_slice(&at.to_be_bytes());
        self.pending.extend_from_slice(kind.as_bytes());
        for number in numbers {
            self.pending.extend_from_slice(&number.to_be_bytes());
        }
        if self.pending.len() >= FLUSH_AT {
            self.hash.update(&self.pending);
            self.pending.clear();
        }
        let limit = match self.keep {
            Keep::Nothing => return,
            Keep::Last(limit) => limit,
            Keep::All => usize::MAX,
        };
        if self.lines.len() >= limit {
            self.lines.pop_front();
        }
        let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
        self.lines.push_back(format!("{seconds:>4}.{micros:06} {kind:<8} {}", text()));
    }

    /// How many events were noted.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Ends the trace: the hash and the text kept.
    #[must_use]
    pub fn finish(mut self) -> (TraceHash, Vec<String>) {
        self.hash.update(&self.pending);
        (TraceHash(self.hash.finalize().into()), self.lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(notes: &[(Micros, &str, &[u64])], keep: Keep) -> (TraceHash, Vec<String>) {
        let mut trace = Trace::new(keep);
        for (at, kind, numbers) in notes {
            trace.note(*at, kind, numbers, || format!("{numbers:?}"));
        }
        trace.finish()
    }

    #[test]
    fn time_kind_content_and_order_are_all_in_the_hash() {
        let base = of(&[(1, "a", &[7]), (2, "b", &[])], Keep::Nothing).0;
        assert_eq!(base, of(&[(1, "a", &[7]), (2, "b", &[])], Keep::All).0, "reading changes nothing");
        let others: [&[(Micros, &str, &[u64])]; 4] = [
            &[(1, "a", &[8]), (2, "b", &[])],
            &[(3, "a", &[7]), (2, "b", &[])],
            &[(1, "c", &[7]), (2, "b", &[])],
            &[(2, "b", &[]), (1, "a", &[7])],
        ];
        for other in others {
            assert_ne!(base, of(other, Keep::Nothing).0, "{other:?}");
        }
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let (_, lines) = of(&[(1, "a", &[]), (2, "b", &[]), (3, "c", &[])], Keep::Last(2));
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("0.000003 c"), "{}", lines[1]);
    }
}
