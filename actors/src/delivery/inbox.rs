//! What arrives from other nodes' outboxes, and what of it is settled.
//!
//! Of each source is kept: a *floor*, below which the source has told that everything is settled or given up, and
//! the letters above it that are settled here. A letter is noted in the same batch as what its handler wrote, so
//! that either both are there after a crash or neither is: then it comes again and runs again.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::NodeId;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::Batch;

use super::letter::{LetterId, Verdict};
use super::{Effect, Out, Token, rows};

/// Letters of one source that may be under way here.
pub const MAX_UNDER_WAY: usize = 1_024;
/// Notes that are kept of one source above its floor. Beyond them only what may move the floor is let in: the letter that
/// is lower than all of them.
pub const MAX_NOTES: usize = 65_536;
/// Notes that one batch forgets.
const FORGOTTEN_AT_ONCE: usize = 256;

/// A letter that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// From whose outbox, by certificate.
    pub source: NodeId,
    /// Which letter.
    pub id: LetterId,
    /// Below this one, all are settled or given up.
    pub floor: LetterId,
    /// Its forerunner in its channel, if one was not settled when it was sent.
    pub after: Option<LetterId>,
}

#[derive(Debug)]
struct UnderWay {
    token: Token,
    after: Option<LetterId>,
    runs: bool,
}

#[derive(Debug)]
struct Source {
    /// As it stands on disk.
    floor: LetterId,
    /// As the source has told; on disk with the next note.
    told: LetterId,
    settled: BTreeSet<LetterId>,
    under_way: BTreeMap<LetterId, UnderWay>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            floor: LetterId::LOWEST,
            told: LetterId::LOWEST,
            settled: BTreeSet::new(),
            under_way: BTreeMap::new(),
        }
    }
}

impl Source {
    fn is_settled(&self, id: LetterId) -> bool {
        id < self.told || self.settled.contains(&id)
    }
}

/// The inbox of one node.
#[derive(Debug, Default)]
pub struct Inbox {
    sources: BTreeMap<NodeId, Source>,
    duplicates: u64,
}

impl Inbox {
    /// A floor that is on disk.
    pub fn recover_floor(&mut self, source: NodeId, floor: LetterId) {
        let source = self.sources.entry(source).or_default();
        (source.floor, source.told) = (floor, floor);
    }

    /// A note that is on disk.
    pub fn recover_settled(&mut self, source: NodeId, id: LetterId) {
        self.sources.entry(source).or_default().settled.insert(id);
    }

    /// A letter has arrived. `token` is the node that waits for the verdict.
    pub fn arrived(&mut self, token: Token, arrived: Arrived, out: &mut Out) {
        let Arrived { source: from, id, floor, after } = arrived;
        let source = self.sources.entry(from.clone()).or_default();
        source.told = source.told.max(floor);
        if source.settled.len() >= MAX_NOTES {
            let mut batch = Batch::new();
            source.forget(&from, &mut batch);
            if !batch.is_empty() {
                out.persist(batch);
            }
        }
        if source.is_settled(id) {
            self.duplicates += 1;
            return out.send(Effect::Answer(token, Verdict::Settled));
        }
        if let Some(under_way) = source.under_way.get_mut(&id) {
            // It was sent again: whoever sent it before waits no more.
            let before = std::mem::replace(&mut under_way.token, token);
            return out.send(Effect::Answer(before, Verdict::Busy(None)));
        }
        let is_lowest = source.settled.first().is_none_or(|lowest| id < *lowest);
        let full = source.settled.len() >= MAX_NOTES && !is_lowest;
        if source.under_way.len() >= MAX_UNDER_WAY || full {
            return out.send(Effect::Answer(token, Verdict::Busy(None)));
        }
        let waits =
            after.filter(|after| !source.is_settled(*after) && !canary::sings(Canary::LetterOutOfOrder));
        match waits {
            Some(after) if !source.under_way.contains_key(&after) => {
                return out.send(Effect::Answer(token, Verdict::Order));
            }
            Some(_) => {}
            None => out.send_at_once(Effect::Deliver(from, id, token)),
        }
        source.under_way.insert(id, UnderWay { token, after: waits, runs: waits.is_none() });
    }

    /// The handler of a letter has ended: well, or with this verdict. `writes` is what it wrote.
    pub fn ended(
        &mut self,
        from: &NodeId,
        id: LetterId,
        outcome: Result<(), Verdict>,
        writes: Batch,
        out: &mut Out,
    ) {
        let Some(source) = self.sources.get_mut(from) else { return };
        let Some(UnderWay { token, .. }) = source.under_way.remove(&id) else { return };
        if let Err(verdict) = outcome {
            out.send(Effect::Answer(token, verdict));
            return self.hold_back(from, id, out);
        }
        source.settle(from, id, writes, out);
        out.send(Effect::Answer(token, Verdict::Settled));
        let next = source.under_way.iter_mut().filter(|(_, next)| !next.runs && next.after == Some(id));
        for (next, under_way) in next {
            under_way.runs = true;
            out.send_at_once(Effect::Deliver(from.clone(), *next, under_way.token));
        }
    }

    /// Letters that came twice, or after they were settled.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Notes that are kept.
    #[must_use]
    pub fn notes(&self) -> usize {
        self.sources.values().map(|source| source.settled.len()).sum()
    }

    /// Sends back whatever waits for a letter that was not settled: its sender begins with that one again.
    fn hold_back(&mut self, from: &NodeId, id: LetterId, out: &mut Out) {
        let Some(source) = self.sources.get_mut(from) else { return };
        let mut behind = vec![id];
        while let Some(before) = behind.pop() {
            let waits = |of: &UnderWay| !of.runs && of.after == Some(before);
            let next: Vec<_> =
                source.under_way.iter().filter(|(_, of)| waits(of)).map(|(id, of)| (*id, of.token)).collect();
            for (id, token) in next {
                source.under_way.remove(&id);
                out.send(Effect::Answer(token, Verdict::Order));
                behind.push(id);
            }
        }
    }
}

impl Source {
    /// Notes a letter, with what its handler wrote, and forgets notes below what the source has told.
    fn settle(&mut self, from: &NodeId, id: LetterId, writes: Batch, out: &mut Out) {
        let mut batch = writes;
        if canary::sings(Canary::NoteApartFromEffect) {
            out.persist(std::mem::take(&mut batch));
        }
        self.settled.insert(id);
        if !canary::sings(Canary::NoteForgotten) {
            rows::put_settled(&mut batch, from, id);
        }
        self.forget(from, &mut batch);
        if !batch.is_empty() {
            out.persist(batch);
        }
    }

    /// Forgets notes below what the source has told.
    fn forget(&mut self, from: &NodeId, batch: &mut Batch) {
        let mut floor = self.told;
        for count in 0.. {
            let Some(below) = self.settled.first().copied().filter(|below| *below < self.told) else { break };
            if count == FORGOTTEN_AT_ONCE {
                floor = below;
                break;
            }
            self.settled.remove(&below);
            rows::delete_settled(batch, from, below);
        }
        if floor > self.floor {
            self.floor = floor;
            rows::put_floor(batch, from, floor);
        }
    }
}
