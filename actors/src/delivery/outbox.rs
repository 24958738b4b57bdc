//! The letters of one node that are on their way, and those that could not be delivered.
//!
//! * Letters to one node are *bound* for it; those of one stream to one actor are a *channel*, in which order holds.
//! * Up to [`CHANNEL_WINDOW`] letters of a channel and [`NODE_WINDOW`] of a node are under way at a time. Each names its
//!   forerunner in the channel while that is not settled; its receiver runs it only after that one.
//! * Channels of a node are served in turn.
//! * A channel whose letter failed rests, longer each time; so does a node that was not reached.
//! * Given up is: what the receiver refuses for good, whose handler has panicked too often, what is too old. It
//!   becomes a dead letter in the same batch. Where there is no room for it, the letter stays, and its channel with it;
//!   nothing more is given up for its age until that channel has rested, or a dead letter is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Fault, FaultKind, HybridTime, Incarnation, Mono, NodeId, Now};
use rhumb_storage::Batch;

use super::letter::{DeadLetter, Letter, LetterId, Verdict};
use super::settings::DeliverySettings;
use super::{Effect, Out, Sending, Token, rows};

/// Letters of one channel under way at a time.
pub const CHANNEL_WINDOW: usize = 8;
/// Letters to one node under way at a time.
pub const NODE_WINDOW: usize = 128;
/// Letters that one tick gives up for their age.
const EXPIRED_AT_ONCE: usize = 256;
/// When to come again to an outbox that is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type ChannelKey = (String, String);

#[derive(Debug)]
struct Entry {
    letter: Arc<Letter>,
    under_way: bool,
    /// How often its handler failed, in this life.
    failures: u32,
}

#[derive(Debug, Default)]
struct Channel {
    /// All its letters, in order.
    queue: VecDeque<LetterId>,
    failures: u32,
    rests_until: Option<Mono>,
}

/// What is bound for one node.
#[derive(Debug, Default)]
struct Bound {
    letters: BTreeSet<LetterId>,
    bytes: usize,
    under_way: usize,
    channels: BTreeMap<ChannelKey, Channel>,
    /// Channels that may have something to send.
    ready: BTreeSet<ChannelKey>,
    /// The channel that was served last: the next one after it is served next, and after the last the first.
    served: Option<ChannelKey>,
    failures: u32,
    rests_until: Option<Mono>,
}

impl Bound {
    /// Takes out the channel whose turn it is: one that always has something to send must not keep others waiting.
    fn next_ready(&mut self) -> Option<ChannelKey> {
        let after = |last| self.ready.range((Excluded(last), Unbounded)).next();
        let key = self.served.as_ref().and_then(after).or_else(|| self.ready.first())?.clone();
        self.ready.take(&key)
    }
}

/// What there is to say of an outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxReport {
    /// Letters that wait or are under way, and their bytes, by node.
    pub bound: BTreeMap<NodeId, (usize, usize)>,
    /// When the oldest of them was written.
    pub oldest: Option<HybridTime>,
    /// Letters taken in this life.
    pub taken: u64,
    /// Letters settled in this life.
    pub settled: u64,
    /// Letters that became dead letters in this life.
    pub died: u64,
    /// Letters refused because there was no room, in this life.
    pub refused: u64,
    /// Dead letters, and their bytes.
    pub dead: (usize, usize),
}

/// The outbox of one node.
#[derive(Debug)]
pub struct Outbox {
    settings: DeliverySettings,
    epoch: Incarnation,
    sequence: u64,
    letters: BTreeMap<LetterId, Entry>,
    by_age: BTreeSet<(HybridTime, LetterId)>,
    bound: BTreeMap<NodeId, Bound>,
    /// What rests, and until when: a node, or one of its channels.
    resting: BTreeSet<(Mono, NodeId, Option<ChannelKey>)>,
    dead: BTreeMap<LetterId, Arc<DeadLetter>>,
    dead_bytes: usize,
    /// Until when nothing is given up for its age: there was no room among the dead letters.
    gives_up_from: Option<Mono>,
    report: OutboxReport,
}

impl Outbox {
    /// The outbox that these rows leave, in this life of the node. Lives only rise, and with them the names of letters.
    #[must_use]
    pub fn recover(
        settings: DeliverySettings,
        epoch: Incarnation,
        letters: impl IntoIterator<Item = (LetterId, Letter)>,
        dead: impl IntoIterator<Item = (LetterId, DeadLetter)>,
    ) -> Self {
        let epoch = if canary::sings(Canary::LetterNamesReused) { Incarnation(1) } else { epoch };
        let mut outbox = Self {
            settings,
            epoch,
            sequence: 0,
            letters: BTreeMap::new(),
            by_age: BTreeSet::new(),
            bound: BTreeMap::new(),
            resting: BTreeSet::new(),
            dead: BTreeMap::new(),
            dead_bytes: 0,
            gives_up_from: None,
            report: OutboxReport::default(),
        };
        let mut letters: Vec<_> = letters.into_iter().collect();
        letters.sort_by_key(|(id, _)| *id);
        letters.into_iter().for_each(|(id, letter)| outbox.insert(id, Arc::new(letter)));
        for (id, dead) in dead {
            outbox.dead_bytes += dead.letter.bytes();
            outbox.dead.insert(id, Arc::new(dead));
        }
        outbox
    }

    /// Sends whatever may be sent: when a life begins, and after [`Outbox::enclose`].
    pub fn begin(&mut self, now: Now, out: &mut Out) {
        let nodes: Vec<NodeId> = self.bound.keys().cloned().collect();
        nodes.iter().for_each(|node| self.pump(now, node, out));
    }

    /// Takes a letter; `token` is told when it is durable, or refused.
    pub fn tell(&mut self, now: Now, token: Token, letter: Letter, out: &mut Out) {
        if let Err(full) = self.room(&letter) {
            self.report.refused += 1;
            return out.send(Effect::Fault(token, full));
        }
        self.report.taken += 1;
        let (id, to) = (self.name(), letter.to.clone());
        if canary::sings(Canary::LetterTakenBeforeDurable) {
            out.send_at_once(Effect::Taken(token));
        }
        let mut batch = Batch::new();
        rows::put_letter(&mut batch, id, &letter);
        out.persist(batch);
        if !canary::sings(Canary::LetterTakenBeforeDurable) {
            out.send(Effect::Taken(token));
        }
        self.insert(id, Arc::new(letter));
        self.pump(now, &to, out);
    }

    /// Takes letters that a handler wrote, into the batch of what else it wrote: they are durable together. Once that
    /// is handed over, [`Outbox::begin`] sends them. What a handler was let write is taken, also where the outbox has
    /// become [full](Outbox::full) meanwhile: by what the handlers under way were let write, and no more.
    pub fn enclose(&mut self, letters: Vec<Letter>, batch: &mut Batch) {
        for letter in letters {
            self.report.taken += 1;
            let id = self.name();
            rows::put_letter(batch, id, &letter);
            self.insert(id, Arc::new(letter));
        }
    }

    /// Nodes for which no letter is taken.
    pub fn full(&self) -> impl Iterator<Item = &NodeId> {
        let full = |bound: &Bound| {
            bound.letters.len() >= self.settings.letters || bound.bytes >= self.settings.letter_bytes
        };
        self.bound.iter().filter(move |(_, bound)| full(bound)).map(|(node, _)| node)
    }

    /// What became of an attempt.
    pub fn answered(&mut self, now: Now, id: LetterId, verdict: Verdict, out: &mut Out) {
        let Some(entry) = self.letters.get_mut(&id).filter(|entry| entry.under_way) else { return };
        entry.under_way = false;
        let letter = Arc::clone(&entry.letter);
        let (to, key) = (letter.to.clone(), channel_of(&letter));
        let bound = self.bound.get_mut(&to).expect("a letter is bound for its node");
        bound.under_way -= 1;
        bound.ready.insert(key.clone());
        match verdict {
            Verdict::Settled => {
                (bound.failures, bound.rests_until) = (0, None);
                self.settled(id, out);
            }
            Verdict::Never(reason) => self.bury(now, id, reason, out),
            Verdict::Failed(how) => {
                entry.failures += 1;
                if entry.failures >= self.settings.attempts {
                    let reason = format!("its handler failed {} times: {how}", entry.failures);
                    self.bury(now, id, reason, out);
                } else {
                    self.rest_channel(now, &to, &key, None);
                }
            }
            Verdict::Busy(after) => self.rest_channel(now, &to, &key, after),
            Verdict::Order => {
                let first = bound.channels.get(&key).and_then(|channel| channel.queue.front());
                // Its forerunner has been settled meanwhile, or given up: it goes at once.
                if first != Some(&id) {
                    self.rest_channel(now, &to, &key, Some(self.settings.retry));
                }
            }
            Verdict::Unreachable => self.rest_node(now, &to),
        }
        self.pump(now, &to, out);
    }

    /// A node can be reached again: what is bound for it rests no longer.
    pub fn reached(&mut self, now: Now, node: &NodeId, out: &mut Out) {
        if let Some(bound) = self.bound.get_mut(node) {
            (bound.failures, bound.rests_until) = (0, None);
            self.pump(now, node, out);
        }
    }

    /// Time has passed: sends what rested, and gives up what is too old.
    pub fn tick(&mut self, now: Now, out: &mut Out) {
        while let Some((_, node, key)) = self.resting.pop_first_if_due(now.mono) {
            let Some(bound) = self.bound.get_mut(&node) else { continue };
            match key {
                None if bound.rests_until.is_some_and(|until| until <= now.mono) => bound.rests_until = None,
                Some(key) => {
                    if let Some(channel) = bound.channels.get_mut(&key)
                        && channel.rests_until.is_some_and(|until| until <= now.mono)
                    {
                        channel.rests_until = None;
                        bound.ready.insert(key);
                    }
                }
                None => {}
            }
            self.pump(now, &node, out);
        }
        if self.gives_up_from.is_some_and(|from| from > now.mono) {
            return;
        }
        self.gives_up_from = None;
        for _ in 0..EXPIRED_AT_ONCE {
            let old = self.by_age.first().copied();
            let Some((_, id)) = old.filter(|(written, _)| self.ends(*written) <= now.hybrid) else { break };
            let to = self.letters[&id].letter.to.clone();
            let reason = "it is older than delivery.letters_kept; whether it had its effect is not known";
            self.bury(now, id, reason.to_owned(), out);
            self.pump(now, &to, out);
            if self.letters.contains_key(&id) {
                // It is tried again when its channel has rested, or when there is room, and said again no sooner.
                self.gives_up_from = Some(now.mono.plus(self.longest_rest()));
                break;
            }
        }
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Mono> {
        let rested = self.resting.first().map(|(until, ..)| *until);
        let oldest = self.by_age.first().map(|(written, _)| {
            let wait = self.ends(*written).millis().saturating_sub(now.hybrid.millis());
            let due = now.mono.plus(Duration::from_millis(wait).max(self.settings.retry));
            // A full queue of dead letters is tried again, not all the time.
            self.gives_up_from.map_or(due, |from| from.max(due))
        });
        rested.into_iter().chain(oldest).min()
    }

    /// The dead letters.
    pub fn dead(&self) -> impl Iterator<Item = (LetterId, &Arc<DeadLetter>)> {
        self.dead.iter().map(|(id, dead)| (*id, dead))
    }

    /// Sends a dead letter again, as a new one; its name no longer protects from a second effect if it had one.
    pub fn retry(&mut self, now: Now, token: Token, id: LetterId, out: &mut Out) {
        let Some(dead) = self.dead.get(&id) else { return out.send(Effect::Fault(token, no_such(id))) };
        let letter = Letter { written: now.hybrid, ..dead.letter.clone() };
        if let Err(full) = self.room(&letter) {
            return out.send(Effect::Fault(token, full));
        }
        self.forget_dead(id);
        let (new, to) = (self.name(), letter.to.clone());
        let mut batch = Batch::new();
        rows::delete_dead(&mut batch, id);
        rows::put_letter(&mut batch, new, &letter);
        out.persist(batch);
        out.send(Effect::Taken(token));
        self.insert(new, Arc::new(letter));
        self.pump(now, &to, out);
    }

    /// Drops a dead letter for good.
    pub fn drop_dead(&mut self, token: Token, id: LetterId, out: &mut Out) {
        if !self.dead.contains_key(&id) {
            return out.send(Effect::Fault(token, no_such(id)));
        }
        self.forget_dead(id);
        let mut batch = Batch::new();
        rows::delete_dead(&mut batch, id);
        out.persist(batch);
        out.send(Effect::Taken(token));
    }

    /// What there is to say.
    #[must_use]
    pub fn report(&self) -> OutboxReport {
        let bound = self.bound.iter().filter(|(_, bound)| !bound.letters.is_empty());
        OutboxReport {
            bound: bound.map(|(node, bound)| (node.clone(), (bound.letters.len(), bound.bytes))).collect(),
            oldest: self.by_age.first().map(|(written, _)| *written),
            dead: (self.dead.len(), self.dead_bytes),
            ..self.report.clone()
        }
    }

    fn name(&mut self) -> LetterId {
        self.sequence += 1;
        LetterId { epoch: self.epoch, sequence: self.sequence }
    }

    fn insert(&mut self, id: LetterId, letter: Arc<Letter>) {
        let bound = self.bound.entry(letter.to.clone()).or_default();
        bound.letters.insert(id);
        bound.bytes += letter.bytes();
        let key = channel_of(&letter);
        bound.channels.entry(key.clone()).or_default().queue.push_back(id);
        bound.ready.insert(key);
        self.by_age.insert((letter.written, id));
        self.letters.insert(id, Entry { letter, under_way: false, failures: 0 });
    }

    /// Takes a letter out of all but the disk.
    fn take_out(&mut self, id: LetterId) -> Arc<Letter> {
        let Entry { letter, under_way, .. } = self.letters.remove(&id).expect("it was found before");
        self.by_age.remove(&(letter.written, id));
        let bound = self.bound.get_mut(&letter.to).expect("a letter is bound for its node");
        bound.letters.remove(&id);
        bound.bytes -= letter.bytes();
        bound.under_way -= usize::from(under_way);
        let key = channel_of(&letter);
        let channel = bound.channels.get_mut(&key).expect("a letter is in its channel");
        channel.queue.retain(|other| *other != id);
        channel.failures = 0;
        if channel.queue.is_empty() {
            bound.channels.remove(&key);
            bound.ready.remove(&key);
        } else {
            bound.ready.insert(key);
        }
        letter
    }

    fn settled(&mut self, id: LetterId, out: &mut Out) {
        self.take_out(id);
        self.report.settled += 1;
        let mut batch = Batch::new();
        rows::delete_letter(&mut batch, id);
        out.persist(batch);
    }

    /// Makes a letter a dead letter, if there is room for it.
    fn bury(&mut self, now: Now, id: LetterId, reason: String, out: &mut Out) {
        let Entry { letter, failures, .. } = &self.letters[&id];
        let (letter, failures) = (Arc::clone(letter), *failures);
        let room = self.dead.len() < self.settings.dead
            && self.dead_bytes + letter.bytes() <= self.settings.dead_bytes;
        if !room && !canary::sings(Canary::DeadLetterVanishes) {
            out.send(Effect::NoRoom(id));
            let longest = self.longest_rest();
            return self.rest_channel(now, &letter.to, &channel_of(&letter), Some(longest));
        }
        self.take_out(id);
        self.report.died += 1;
        let dead = DeadLetter { letter: (*letter).clone(), reason, died: now.hybrid, failures };
        let mut batch = Batch::new();
        rows::delete_letter(&mut batch, id);
        let dead = Arc::new(dead);
        if !canary::sings(Canary::DeadLetterVanishes) {
            rows::put_dead(&mut batch, id, &dead);
            self.dead_bytes += letter.bytes();
            self.dead.insert(id, Arc::clone(&dead));
        }
        out.persist(batch);
        out.send(Effect::Died(id, dead));
    }

    fn forget_dead(&mut self, id: LetterId) {
        if let Some(dead) = self.dead.remove(&id) {
            self.dead_bytes -= dead.letter.bytes();
            self.gives_up_from = None;
        }
    }

    fn room(&self, letter: &Letter) -> Result<(), Fault> {
        let (letters, bytes) = self.bound.get(&letter.to).map_or((0, 0), |b| (b.letters.len(), b.bytes));
        let fits = letters < self.settings.letters && bytes + letter.bytes() <= self.settings.letter_bytes;
        if fits { Ok(()) } else { Err(full(&letter.to)) }
    }

    fn ends(&self, written: HybridTime) -> HybridTime {
        written.plus(self.settings.letters_kept)
    }

    fn longest_rest(&self) -> Duration {
        self.settings.longest_retry.max(self.settings.retry)
    }

    fn wait(&self, failures: u32) -> Duration {
        let doubled = self.settings.retry.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.settings.longest_retry)
    }

    fn rest_channel(&mut self, now: Now, to: &NodeId, key: &ChannelKey, after: Option<Duration>) {
        let Some(channel) = self.bound.get_mut(to).and_then(|bound| bound.channels.get_mut(key)) else {
            return;
        };
        if after.is_none() {
            channel.failures += 1;
        }
        let failures = channel.failures;
        let until = now.mono.plus(after.unwrap_or_else(|| self.wait(failures)).max(self.settings.retry));
        let bound = self.bound.get_mut(to).expect("it was found");
        // Those behind the first are sent back sooner than it may be sent again: that shortens no rest.
        if let Some(channel) = bound.channels.get_mut(key)
            && channel.rests_until.is_none_or(|rests| rests < until)
        {
            channel.rests_until = Some(until);
            self.resting.insert((until, to.clone(), Some(key.clone())));
        }
    }

    fn rest_node(&mut self, now: Now, to: &NodeId) {
        let Some(bound) = self.bound.get_mut(to) else { return };
        // All that were under way fail at one time: that is one failure.
        if bound.rests_until.is_some_and(|until| until > now.mono) {
            return;
        }
        bound.failures += 1;
        let failures = bound.failures;
        let until = now.mono.plus(self.wait(failures));
        self.bound.get_mut(to).expect("it was found").rests_until = Some(until);
        self.resting.insert((until, to.clone(), None));
    }

    /// Sends what may be sent to a node.
    fn pump(&mut self, now: Now, to: &NodeId, out: &mut Out) {
        let Some(bound) = self.bound.get_mut(to) else { return };
        let rests = |until: &Option<Mono>| until.is_some_and(|until| until > now.mono);
        while bound.under_way < NODE_WINDOW && !rests(&bound.rests_until) {
            let Some(key) = bound.next_ready() else { break };
            let Some(channel) = bound.channels.get(&key).filter(|channel| !rests(&channel.rests_until))
            else {
                continue;
            };
            let first = channel.queue.iter().take(CHANNEL_WINDOW).position(|id| !self.letters[id].under_way);
            let Some(at) = first else { continue };
            let (id, after) = (channel.queue[at], at.checked_sub(1).map(|before| channel.queue[before]));
            let entry = self.letters.get_mut(&id).expect("what is queued is there");
            entry.under_way = true;
            bound.under_way += 1;
            let floor = bound.letters.first().copied().unwrap_or(id);
            out.send(Effect::Send(Sending { id, letter: Arc::clone(&entry.letter), floor, after }));
            bound.served = Some(key.clone());
            bound.ready.insert(key);
        }
    }
}

/// Takes the first of what rests, if its time has come.
trait PopDue {
    fn pop_first_if_due(&mut self, now: Mono) -> Option<(Mono, NodeId, Option<ChannelKey>)>;
}

impl PopDue for BTreeSet<(Mono, NodeId, Option<ChannelKey>)> {
    fn pop_first_if_due(&mut self, now: Mono) -> Option<(Mono, NodeId, Option<ChannelKey>)> {
        if self.first()?.0 <= now { self.pop_first() } else { None }
    }
}

fn channel_of(letter: &Letter) -> ChannelKey {
    (letter.target.clone(), letter.stream.clone())
}

/// An outbox that is full.
#[must_use]
pub fn full(to: &NodeId) -> Fault {
    let full = Fault::not_sent(FaultKind::Full(format!("the outbox for {to}")));
    Fault { retry_after: Some(RETRY_AFTER), ..full }
}

fn no_such(id: LetterId) -> Fault {
    Fault::not_sent(FaultKind::Handler(format!(
        "there is no dead letter {id} here: see `rhumb dead-letters list`"
    )))
}
