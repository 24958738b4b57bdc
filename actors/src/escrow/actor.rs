//! The shell of `EscrowRegion`: receives, steps the machine, performs its effects, arms one timer.
//! It has no protocol decision in it.

mod handle;
mod reached;
mod report;
mod trail;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::future::BoxFuture;
use futures::stream;
use rhumb_core::effects::Release;
use rhumb_core::rng::Seed;
use rhumb_core::wakes::Wakes;
use rhumb_core::{
    Barrier, DataClass, Direction, Fault, FaultKind, Gate, Mono, NodeId, Now, Passage, PoolName, Region,
    Ticket,
};
use rhumb_storage::Batch;

pub use self::handle::EscrowHandle;
use self::reached::{Committed, Reached};
pub use self::report::{EscrowReport, PoolReport};
pub use self::trail::Sake;
use self::trail::{Sent, Trail};
use super::book::{Answer, Book, Effect, Input, Out, Request, Token};
use super::messages::{PeerMessage, ReadRow, Refusal, Standing};
use super::settings::EscrowSettings;
use crate::backlog::Backlog;
use crate::span::Span;
use crate::storage::{Done, StorageHandle, Window};

/// How many asks may wait in the mailbox.
const MAILBOX: usize = 8_192;
/// How many asks may be under way in the machine: parked, waiting for the disk, or passed on.
const MAX_ASKS: usize = 16_384;
/// When a caller that found no room may ask again.
const OVERLOADED: Duration = Duration::from_millis(100);
/// How many batches the actor has under way with storage at a time: one that is being synced, and one that
/// goes with the next sync. What comes meanwhile joins into one: more under way would make more hand-overs of
/// the same syncs.
const WINDOW: usize = 2;

/// What the shell needs of the world around it.
pub trait World: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Now;
    /// Tells a peer something. It may be lost: all that peers tell each other is sent again.
    fn tell(&self, to: &NodeId, message: PeerMessage, sake: Option<&Sake>);
    /// Asks another node in the caller's stead.
    fn forward(
        &self,
        to: NodeId,
        request: Request,
        class: DataClass,
        within: Duration,
        sake: Option<&Sake>,
    ) -> BoxFuture<'static, Answered>;
    /// In a completion of a batch: when the sync began that made it durable, and how long it took.
    fn last_sync(&self) -> Option<(Instant, Duration)>;
    /// Whether this node may spend has changed.
    fn standing(&self, standing: Standing);
    /// The machine or the store below it can not go on: stop the process.
    fn halt(&self, reason: String);
}

/// Where the machine's batches become durable: in the order in which they are handed over.
pub trait Keeps: Send + 'static {
    /// Hands a batch over. `done` is called once, when it is durable or never will be.
    ///
    /// # Errors
    /// Why it was not taken: nothing may be sent on the strength of it.
    fn write(&self, batch: Batch, done: Done) -> Result<(), &'static str>;
    /// How many batches it takes at a time. What comes meanwhile joins into one.
    fn window(&self) -> usize;
}

impl Keeps for StorageHandle {
    fn write(&self, batch: Batch, done: Done) -> Result<(), &'static str> {
        Self::write(self, batch, done)
    }

    fn window(&self) -> usize {
        WINDOW
    }
}

/// What an ask ends with.
pub type Outcome = Result<Result<Answer, Refusal>, Fault>;

/// An ask's end, and the class of the data in it.
#[derive(Debug)]
pub struct Answered {
    /// The answer, the refusal or the fault.
    pub outcome: Outcome,
    /// The class of the pool that was asked about; the mesh's own where there is none.
    pub class: DataClass,
}

/// The escrow of one node: its ledgers of all pools.
pub struct EscrowRegion {
    book: Book,
    out: Out,
    barrier: Barrier<Sent>,
    trail: Trail,
    /// As it was last told.
    standing: Standing,
    window: Window,
    storage: Box<dyn Keeps>,
    backlog: Arc<Backlog>,
    world: Arc<dyn World>,
    gate: Arc<dyn Gate>,
    region: Region,
    asks: HashMap<Token, Asked>,
    last_token: u64,
    /// When it goes off, and what stops it.
    timer: Option<(Mono, SpawnHandle)>,
    reached: Reached,
}

/// Takes an answer to whoever waits for it. Dropped instead, it tells that the actor stopped.
type Reply = Box<dyn FnOnce(Answered) + Send>;

/// Somebody waits for an answer.
struct Asked {
    pool: PoolName,
    until: Mono,
    reply: Reply,
    /// Its span, if its trace is kept.
    span: Option<Span>,
}

impl EscrowRegion {
    /// What counts a mailbox of this actor's.
    #[must_use]
    pub fn backlog() -> Arc<Backlog> {
        Arc::new(Backlog::of(MAILBOX))
    }

    /// The actor around a recovered machine. It says to `backlog` what it takes out of its mailbox.
    #[must_use]
    pub fn new(
        book: Book,
        region: Region,
        storage: impl Keeps,
        backlog: Arc<Backlog>,
        gate: Arc<dyn Gate>,
        world: Arc<dyn World>,
    ) -> Self {
        let standing = book.standing();
        Self {
            book,
            out: Out::default(),
            barrier: Barrier::default(),
            trail: Trail::default(),
            standing,
            window: Window::new(storage.window()),
            storage: Box::new(storage),
            backlog,
            world,
            gate,
            region,
            asks: HashMap::new(),
            last_token: 0,
            timer: None,
            reached: Reached::default(),
        }
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.world.now();
        self.book.step(now, input, &mut self.out);
        self.settle(now, ctx);
    }

    /// Moves what the machine pushed through the barrier, and arms the timer anew.
    fn settle(&mut self, now: Now, ctx: &mut Context<Self>) {
        let mut released = Vec::new();
        let (trail, asks) = (&mut self.trail, &self.asks);
        let note = |effect, waits| trail.note(effect, waits, asks);
        self.barrier.absorb_as(&mut self.out, note, |release| released.push(release));
        for release in released {
            match release {
                Release::Persist(ticket, batch) => {
                    let ready = self.window.offer(ticket, batch);
                    self.hand_over(ready);
                }
                Release::Perform(sent) => self.perform(sent, ctx),
            }
        }
        let standing = self.book.standing();
        if standing != self.standing {
            self.standing = standing;
            self.world.standing(standing);
        }
        self.arm(now, ctx);
    }

    fn hand_over(&mut self, ready: Option<(Ticket, Batch)>) {
        let Some((ticket, batch)) = ready else { return };
        let (reached, world, syncs) =
            (self.reached.clone(), Arc::clone(&self.world), self.trail.syncs.clone());
        let done = move |result: Result<rhumb_storage::CommitNumber, rhumb_storage::CommitError>| {
            if let Some(sync) = world.last_sync() {
                syncs.covered(ticket, sync);
            }
            reached.tell(match result {
                Ok(number) => Committed::UpTo(ticket, number),
                Err(error) => Committed::Failed(error.to_string()),
            });
        };
        if let Err(reason) = self.storage.write(batch, Box::new(done)) {
            self.world.halt(format!("escrow: a batch was not taken: {reason}"));
        }
    }

    fn perform(&mut self, sent: Sent, ctx: &mut Context<Self>) {
        let (effect, sake) = self.trail.performs(sent);
        let sake = sake.as_ref();
        match effect {
            Effect::Reply { token, answer } => self.answer(token, Ok(answer), DataClass::control()),
            Effect::Peer { to, message } => self.world.tell(&to, message, sake),
            Effect::Forward { token, to, request } => self.forward(token, to, request, sake, ctx),
            Effect::Read { pool, to, number, within } => self.read(pool, to, number, within, ctx),
            Effect::Alarm { pool, found } => tracing::error!(
                %pool,
                drift = found.drift,
                violations = ?found.violations,
                "the rows of a pool do not add up to what was minted: see `rhumb pool audit`"
            ),
        }
    }

    fn forward(
        &mut self,
        token: Token,
        to: NodeId,
        request: Request,
        sake: Option<&Sake>,
        ctx: &mut Context<Self>,
    ) {
        let until = self.asks.get(&token).map_or(Mono::default(), |asked| asked.until);
        let within = until.since(self.world.now().mono);
        let class = self.book.class_of(request.pool()).cloned().unwrap_or_else(|| class_of(&request));
        let answered = self.world.forward(to, request, class, within, sake).into_actor(self);
        ctx.spawn(answered.map(move |answered, actor, ctx| {
            let refusal = answered.outcome.as_ref().ok().and_then(|answer| answer.clone().err());
            actor.answer(token, answered.outcome, answered.class);
            actor.step(Input::Forwarded { token, refusal }, ctx);
        }));
    }

    fn read(&mut self, pool: PoolName, to: NodeId, number: u64, within: Duration, ctx: &mut Context<Self>) {
        let class = self.book.class_of(&pool).cloned().unwrap_or_else(DataClass::control);
        let request = Request::ReadRow(ReadRow { pool: pool.clone() });
        let answered = self.world.forward(to.clone(), request, class, within, None).into_actor(self);
        ctx.spawn(answered.map(move |answered, actor, ctx| {
            let answer = answered.outcome.ok();
            actor.step(Input::RowRead { from: to, pool, number, answer }, ctx);
        }));
    }

    /// Answers under the pool's class; under `class` where the pool is not known here.
    fn answer(&mut self, token: Token, outcome: Outcome, class: DataClass) {
        if let Some(asked) = self.asks.remove(&token) {
            let class = self.book.class_of(&asked.pool).cloned().unwrap_or(class);
            // A caller that has gone needs no answer; what it asked for is durable all the same.
            (asked.reply)(Answered { outcome, class });
        }
    }

    /// Sees to it that the machine has its tick in time. A timer that goes off before that is left as it
    /// is: most steps only put the next deadline off, and a timer is not cheap to set.
    fn arm(&mut self, now: Now, ctx: &mut Context<Self>) {
        let Some(deadline) = self.book.next_deadline(now) else { return };
        if self.timer.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let wait = deadline.since(now.mono).max(Duration::from_millis(1));
        let timer = ctx.run_later(wait, |actor, ctx| {
            actor.timer = None;
            actor.woken(ctx);
        });
        self.timer = Some((deadline, timer));
    }

    /// The timer went off: for a deadline that has come, or for one that was put off since.
    fn woken(&mut self, ctx: &mut Context<Self>) {
        let now = self.world.now();
        match self.book.next_deadline(now) {
            Some(deadline) if deadline <= now.mono => self.step(Input::Tick, ctx),
            _ => self.arm(now, ctx),
        }
    }
}

impl Drop for EscrowRegion {
    /// A machine that has panicked is not asked again: the process stops and recovers from its disk.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.halt("the escrow actor panicked; its log says why".into());
        }
    }
}

impl Actor for EscrowRegion {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let reached = self.reached.clone();
        ctx.add_stream(stream::poll_fn(move |cx| reached.poll(cx).map(Some)));
        let now = self.world.now();
        self.book.start(now, &Seed::from_entropy(), &mut self.out);
        self.settle(now, ctx);
    }
}

impl StreamHandler<Committed> for EscrowRegion {
    fn handle(&mut self, state: Committed, ctx: &mut Self::Context) {
        match state {
            Committed::Failed(reason) => self.world.halt(format!("escrow: storage failed: {reason}")),
            Committed::UpTo(ticket, number) => {
                self.book.durable(number);
                // All that a sync lets go leaves together.
                let _wakes = Wakes::hold();
                let mut performed = Vec::new();
                self.barrier.durable(ticket, |sent| performed.push(sent));
                for sent in performed {
                    self.perform(sent, ctx);
                }
                let ready = self.window.durable(ticket);
                self.hand_over(ready);
            }
        }
    }
}

/// Ask the machine something.
#[derive(Message)]
#[rtype(result = "()")]
struct Ask {
    request: Request,
    from: Region,
    within: Duration,
    reply: Reply,
    watched: Option<Traced>,
}

/// A message in the mailbox whose trace is kept: its span, and that of its waiting there.
struct Traced {
    span: Span,
    queued: Span,
}

impl Traced {
    fn of(span: Span) -> Self {
        Self { queued: span.part("queue"), span }
    }

    /// Its turn has come: its span, and that of what is done now.
    fn turn(self) -> (Span, Span) {
        drop(self.queued);
        let handled = self.span.part("handler");
        (self.span, handled)
    }
}

impl Handler<Ask> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Self::Context) {
        self.backlog.taken();
        let pool = ask.request.pool().clone();
        if self.asks.len() >= MAX_ASKS {
            let outcome = Ok(Err(Refusal::Overloaded { retry_after: OVERLOADED }));
            return (ask.reply)(Answered { outcome, class: DataClass::control() });
        }
        if let Some(class) = self.book.class_of(&pool) {
            // The caller did not say the class; the pool has one, so the gate is asked here.
            let passage = Passage { direction: Direction::Ingress, class, from: &ask.from, to: &self.region };
            if let Err(refusal) = self.gate.check(passage) {
                return (ask.reply)(faulted(Fault::not_sent(FaultKind::Gate(refusal))));
            }
        }
        self.last_token += 1;
        let token = Token(self.last_token);
        let until = self.world.now().mono.plus(ask.within);
        let (span, _handled) = ask.watched.map(Traced::turn).unzip();
        if let (Some(span), Request::Hold(_)) = (&span, &ask.request) {
            self.trail.asks(token, &pool, span);
        }
        self.asks.insert(token, Asked { pool, until, reply: ask.reply, span });
        self.step(Input::Ask { token, request: ask.request, until }, ctx);
        self.trail.asked(token);
    }
}

/// Something from or about a peer.
#[derive(Message)]
#[rtype(result = "()")]
struct FromPeer(Input, Option<Traced>);

impl Handler<FromPeer> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, FromPeer(input, watched): FromPeer, ctx: &mut Self::Context) {
        self.backlog.taken();
        let (span, _handled) = watched.map(Traced::turn).unzip();
        if let (Some(span), Input::Peer { from, message }) = (&span, &input) {
            self.trail.hears(from, message, span);
        }
        self.step(input, ctx);
        self.trail.heard();
    }
}

/// Stop: whoever waits is told that nobody answers.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Self::Context) {
        self.asks.clear();
        ctx.stop();
    }
}

/// Go on under other settings.
#[derive(Message)]
#[rtype(result = "()")]
struct Configure(EscrowSettings);

impl Handler<Configure> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, Configure(settings): Configure, ctx: &mut Self::Context) {
        self.book.configure(settings);
        // What was due by the old settings may be due sooner by the new ones.
        self.arm(self.world.now(), ctx);
    }
}

/// The class that a request names itself, where it does: a pool's creation. What asks about a pool that
/// is not known here carries no data of it but its name.
fn class_of(request: &Request) -> DataClass {
    match request {
        Request::Create { request, .. } => request.class.clone(),
        _ => DataClass::control(),
    }
}

fn faulted(fault: Fault) -> Answered {
    Answered { outcome: Err(fault), class: DataClass::control() }
}
