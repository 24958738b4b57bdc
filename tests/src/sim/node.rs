//! A node of the simulated world: the shell around the very machine, barrier, window and store that
//! production runs, on a disk in memory.
//!
//! * It decides: nothing. It steps the machine, hands batches to the disk, and says what the machine
//!   wants done once that may be done.
//! * It never does: perform an effect before the barrier lets it out, but for the canary that does.
//! * Invariant: a batch is written at once and durable at the end of a later sync; a crash takes what
//!   was not synced, or a part of it.

use std::collections::{BTreeMap, VecDeque};

use rhumb_actors::escrow::{
    Book, Effect, EscrowSettings, Figures, Input, Out, PeerMessage, Refusal, Request, Token,
};
use rhumb_actors::storage::Window;
use rhumb_core::canary::{self, Canary};
use rhumb_core::effects::Release;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, Incarnation, Mono, NodeId, Now, PoolName, StoreId, Ticket};
use rhumb_storage::memory::DiskImage;
use rhumb_storage::{Batch, CommitNumber, Family, MemoryDisk, MemoryEngine, Store};
use rhumb_topology::Founding;

use super::agenda::Micros;
use super::audit::Counters;
use super::clock::Clock;
use super::violation::{Invariant, Violation};

/// Who waits for an answer of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A customer's or operator's call.
    Outside {
        /// The call.
        call: usize,
        /// The region in which it was made.
        region: usize,
    },
    /// Another node, in the stead of one of its own callers.
    Node {
        /// Which.
        node: usize,
        /// Its life: what a dead one asked for interests nobody.
        life: u32,
        /// Its name for the question.
        forward: u64,
    },
    /// The home of a pool, which adds up its rows.
    Reader {
        /// Which.
        node: usize,
        /// Its life: what a dead one asked for interests nobody.
        life: u32,
        /// Which pool, by number.
        pool: usize,
        /// Its name for the reading.
        number: u64,
    },
}

/// A question that a node has not answered yet.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Who asked.
    pub caller: Caller,
    /// Of which pool, by number.
    pub pool: usize,
    /// Until when the answer is waited for.
    pub until: Micros,
}

/// One life of a node.
#[derive(Debug)]
pub struct Life {
    /// The machine.
    pub book: Book,
    store: Store<MemoryEngine>,
    out: Out,
    barrier: Barrier<Effect>,
    window: Window,
    /// What was handed to the disk and is not durable yet.
    written: VecDeque<(Ticket, CommitNumber)>,
    /// Whether a sync is under way.
    pub syncing: bool,
    /// The machine's rows after each step that wrote something, until that step is durable: its first
    /// and last ticket, and the rows.
    steps: VecDeque<(Ticket, Ticket, Vec<Counters>)>,
    /// Who asked what.
    pub asks: BTreeMap<u64, Asked>,
    last_token: u64,
    /// Questions passed on: for which ask.
    pub forwards: BTreeMap<u64, u64>,
    last_forward: u64,
    /// When the alarm is to ring next.
    pub alarm: Option<Micros>,
    /// For each other node, the life of it to which there is a connection.
    pub links: Vec<Option<u32>>,
    /// For each other node, whether the machine was last told that it can be reached.
    pub told_up: Vec<bool>,
    /// The machine's rows as it took them up.
    pub first_rows: Vec<Counters>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk, which outlives its lives.
    pub disk: MemoryDisk,
    store: StoreId,
    /// The present life; none while it is down.
    pub life: Option<Life>,
    /// How many lives it has begun.
    pub lives: u32,
    /// What the machine called those that are over.
    pub incarnations: Vec<Incarnation>,
    /// It will never come back.
    pub lost: bool,
    /// An old copy of its disk was put back, now or earlier.
    pub was_restored: bool,
    /// It is stopped until then, and goes on as if nothing had been.
    pub stopped_until: Micros,
    /// The last copy of its disk that was taken.
    pub copy: Option<DiskImage>,
    /// The number of the last commit in that copy.
    pub copied: CommitNumber,
    /// Pools that were minted here when it was taken.
    pub copied_pools: Vec<usize>,
}

/// What came of a step: whether anything was written, and what is to be done now.
#[derive(Debug, Default)]
pub struct Stepped {
    /// The machine wanted something written: its rows may have changed.
    pub persisted: Option<Ticket>,
    /// Something was handed to the disk, which has to be synced.
    pub wrote: bool,
    /// Effects that the barrier let out, in order.
    pub effects: Vec<Effect>,
    /// The asks to which the machine said in this step that all is sold. They hear it when it may be told,
    /// which may be after something has come back.
    pub sold_out: Vec<u64>,
    /// What the machine said of itself in this step, by pool.
    pub said: Vec<(PoolName, Figures)>,
}

/// What a node must know of the world to live.
#[derive(Debug)]
pub struct Surroundings {
    /// The founding list.
    pub founding: Founding,
    /// The machines' settings, by node.
    pub settings: Vec<EscrowSettings>,
    /// Batches under way at once.
    pub window: usize,
}

impl Node {
    /// A node that has not begun to live, with an empty disk.
    #[must_use]
    pub fn new(id: NodeId, drift_ppm: i64, rng: &mut Rng) -> Self {
        Self {
            id,
            clock: Clock::new(drift_ppm),
            disk: MemoryDisk::new(),
            store: StoreId(rng.u128()),
            life: None,
            lives: 0,
            incarnations: Vec::new(),
            lost: false,
            was_restored: false,
            stopped_until: 0,
            copy: None,
            copied: CommitNumber(0),
            copied_pools: Vec::new(),
        }
    }

    /// Begins a life as the node of this number: opens the disk, recovers the machine and starts it.
    ///
    /// # Errors
    /// The machine cannot take up what is on the disk.
    pub fn begin(
        &mut self,
        at: Micros,
        number: usize,
        around: &Surroundings,
        done: &mut Stepped,
    ) -> Result<(), Violation> {
        self.clock.restart(at);
        self.lives += 1;
        let broken = |what: String| Violation { invariant: Invariant::Acknowledged, what };
        let store =
            Store::open(MemoryEngine::open(&self.disk)).map_err(|e| broken(format!("{}: {e}", self.id)))?;
        let mut records = Vec::new();
        store
            .scan(Family::Escrow, b"", |key, value| {
                records.push((key.to_vec(), value.to_vec()));
                true
            })
            .map_err(|e| broken(format!("{}: {e}", self.id)))?;
        let now = self.clock.now(at);
        let book = Book::recover(
            self.id.clone(),
            around.founding.clone(),
            self.store,
            around.settings[number].clone(),
            records.into_iter(),
            store.durable(),
            now,
        )
        .map_err(|e| broken(format!("{} cannot take up its disk: {e}", self.id)))?;
        let links = vec![None; around.founding.nodes().len()];
        self.life = Some(Life::new(book, store, links, around.window));
        let life = self.life.as_mut().expect("it was just begun");
        life.book.start(now, &Seed::new(u64::from(self.lives)).child(self.id.to_string()), &mut life.out);
        life.settle(done);
        Ok(())
    }

    /// The last commit that is known durable.
    #[must_use]
    pub fn durable(&self) -> CommitNumber {
        self.life.as_ref().map_or(CommitNumber(0), |life| life.store.durable())
    }

    /// The power goes.
    pub fn crash(&mut self, rng: &mut Rng) {
        // A life may have been raised above those that peers have seen.
        self.incarnations.extend(self.life.take().map(|life| life.book.life()));
        self.disk.crash(rng);
    }

    /// The present time on its clocks.
    #[must_use]
    pub fn now(&self, at: Micros) -> Now {
        self.clock.now(at)
    }

    /// Steps the machine.
    pub fn step(&mut self, at: Micros, input: Input, done: &mut Stepped) {
        let now = self.clock.now(at);
        if let Some(life) = &mut self.life {
            life.book.step(now, input, &mut life.out);
            life.settle(done);
        }
    }

    /// True time at which the machine next wants to be looked at.
    #[must_use]
    pub fn wants(&self, at: Micros) -> Option<Micros> {
        let life = self.life.as_ref()?;
        let deadline = life.book.next_deadline(self.clock.now(at))?;
        Some(self.clock.when(deadline))
    }
}

impl Life {
    fn new(book: Book, store: Store<MemoryEngine>, links: Vec<Option<u32>>, window: usize) -> Self {
        Self {
            book,
            store,
            out: Out::default(),
            barrier: Barrier::default(),
            window: Window::new(window),
            written: VecDeque::new(),
            syncing: false,
            steps: VecDeque::new(),
            asks: BTreeMap::new(),
            last_token: 0,
            forwards: BTreeMap::new(),
            last_forward: 0,
            alarm: None,
            told_up: vec![false; links.len()],
            links,
            first_rows: Vec::new(),
        }
    }

    /// Takes note of who asks, and gives the input for the machine.
    pub fn asked(&mut self, asked: Asked, request: Request, until: Mono) -> Input {
        self.last_token += 1;
        self.asks.insert(self.last_token, asked);
        Input::Ask { token: Token(self.last_token), request, until }
    }

    /// Takes note that an ask was passed on.
    pub fn forwarded(&mut self, token: u64) -> u64 {
        self.last_forward += 1;
        self.forwards.insert(self.last_forward, token);
        self.last_forward
    }

    /// Whether everything that the machine wanted written is durable.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.written.is_empty() && self.window.under_way() == 0
    }

    /// Keeps the rows as they are after a step, of which this was the first ticket, until the step is
    /// durable.
    pub fn keep_rows(&mut self, first: Ticket, rows: Vec<Counters>) {
        self.steps.push_back((first, self.barrier.issued(), rows));
    }

    /// A sync has ended. Gives the rows that are certainly durable now, if a whole step became so, and
    /// those that perhaps are.
    ///
    /// # Errors
    /// The store failed, which no plan asks of it.
    pub fn synced(&mut self, done: &mut Stepped) -> Result<Durable, Violation> {
        self.syncing = false;
        let number = self.store.sync().map_err(|e| Violation {
            invariant: Invariant::NoHalt,
            what: format!("the store failed: {e}"),
        })?;
        self.book.durable(number);
        let mut upto = None;
        while let Some((ticket, _)) = self.written.pop_front_if(|(_, written)| *written <= number) {
            upto = Some(ticket);
        }
        let mut durable = Durable::default();
        let Some(upto) = upto else { return Ok(durable) };
        while let Some((_, _, rows)) = self.steps.pop_front_if(|(_, last, _)| *last <= upto) {
            durable.certain = Some(rows);
        }
        // The window may have split the next step: then a part of it is durable too.
        let split = self.steps.front().filter(|(first, ..)| *first <= upto);
        durable.perhaps = split.map(|(.., rows)| rows.clone());
        self.barrier.durable(upto, |effect| done.effects.push(effect));
        let ready = self.window.durable(upto);
        self.hand_over(ready, done);
        Ok(durable)
    }

    /// Moves what the machine pushed through the barrier.
    fn settle(&mut self, done: &mut Stepped) {
        let mut batches: VecDeque<(Ticket, Batch)> = VecDeque::new();
        let Stepped { effects, sold_out, said, .. } = done;
        let note = |effect: Effect, _| {
            if let Effect::Reply { token: Token(token), answer: Err(Refusal::SoldOut) } = &effect {
                sold_out.push(*token);
            }
            if let Effect::Peer { message: PeerMessage::Level(level), .. } = &effect {
                said.push((level.spec.name.clone(), level.figures));
            }
            effect
        };
        self.barrier.absorb_as(&mut self.out, note, |release: Release<Batch, Effect>| match release {
            Release::Persist(ticket, batch) => batches.push_back((ticket, batch)),
            Release::Perform(effect) => effects.push(effect),
        });
        done.persisted = done.persisted.or(batches.front().map(|(ticket, _)| *ticket));
        for (ticket, batch) in batches {
            let ready = self.window.offer(ticket, batch);
            self.hand_over(ready, done);
        }
    }

    fn hand_over(&mut self, ready: Option<(Ticket, Batch)>, done: &mut Stepped) {
        let Some((ticket, batch)) = ready else { return };
        let number =
            self.store.write(&batch).expect("a memory disk without injected faults takes every write");
        self.written.push_back((ticket, number));
        done.wrote = true;
        if canary::sings(Canary::SendBeforeSync) {
            self.barrier.durable(ticket, |effect| done.effects.push(effect));
        }
    }
}

/// Rows that became durable.
#[derive(Debug, Default)]
pub struct Durable {
    /// Certainly.
    pub certain: Option<Vec<Counters>>,
    /// Perhaps.
    pub perhaps: Option<Vec<Counters>>,
}
