//! The task in front of delivery's machines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::delivery::keys::{Asked, Ended, Stored};
use rhumb_actors::delivery::{Arrived, Effect, Letter, LetterId, Out, Sending, Token, Verdict};
use rhumb_actors::storage::Window;
use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Fault, FaultKind, Mono, NodeId, Now, Ticket};
use rhumb_storage::Batch;
use rhumb_transport::{Answer, Peer, Reply, Request};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::parcel::{Parcel, judge, unsent};
use super::staged::{Above, Staged, Unwritten, Written, put};
use super::{Disk, Recovered};
use crate::mesh::Mesh;
use crate::mesh::dispatch::Incoming;
use crate::telemetry::Span;

/// Batches that may be under way at a time; further ones join.
const WINDOW: usize = 4;
/// Handlers and letters that may be under way at a time.
const UNDER_WAY: usize = 16_384;
/// Inputs that are taken up before their effects are let out.
const TOGETHER: usize = 256;
/// The longest that the task sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Reads something of the machines.
pub(super) type Look = Box<dyn FnOnce(&Recovered) + Send>;

/// What comes in from outside.
pub(super) enum Input {
    Ask { asked: Asked, incoming: Box<Incoming>, came: Instant, span: Option<Span> },
    Tell { letter: Letter, answer: Told },
    Letter { arrived: Arrived, from: Arc<Peer>, request: Request, answer: oneshot::Sender<Verdict> },
    Reached(NodeId),
    Settle { id: LetterId, retry: bool, answer: Told },
    Look(Look),
}

type Told = oneshot::Sender<Result<(), Fault>>;

/// What the desk began, and how it ended.
enum Done {
    Asked { token: Token, outcome: Result<Reply, Fault>, written: Kept },
    Handled { source: NodeId, id: LetterId, outcome: Result<(), Verdict>, written: Kept },
    Sent { id: LetterId, verdict: Verdict },
}

/// What a handler wrote, if it is to be kept.
type Kept = Option<(Written, Above)>;

/// An ask that may have to run.
struct Run {
    from: Option<Arc<Peer>>,
    request: Request,
    came: Instant,
    /// What it is a part of.
    span: Option<Span>,
}

/// Who waits for a token.
enum Waits {
    Asker { answer: Answer, run: Option<Run> },
    Told(Told),
    Sender { answer: oneshot::Sender<Verdict>, run: Option<(Option<Arc<Peer>>, Request)> },
}

pub(super) struct Desk {
    mesh: Mesh,
    disk: Arc<dyn Disk>,
    machines: Recovered,
    unwritten: Arc<Unwritten>,
    full: Arc<Mutex<BTreeSet<NodeId>>>,
    halt: Arc<dyn Fn(String) + Send + Sync>,
    out: Out,
    barrier: Barrier<Effect>,
    window: Window,
    durable: Arc<(AtomicU64, Notify)>,
    /// Rows to be taken off once these tickets are durable.
    laid: VecDeque<(Ticket, Above)>,
    waits: BTreeMap<Token, Waits>,
    last_token: u64,
    done: (mpsc::Sender<Done>, mpsc::Receiver<Done>),
}

impl Desk {
    pub(super) fn new(
        mesh: Mesh,
        disk: Arc<dyn Disk>,
        machines: Recovered,
        unwritten: Arc<Unwritten>,
        full: Arc<Mutex<BTreeSet<NodeId>>>,
        halt: Arc<dyn Fn(String) + Send + Sync>,
    ) -> Self {
        Self {
            mesh,
            disk,
            machines,
            unwritten,
            full,
            halt,
            out: Out::default(),
            barrier: Barrier::default(),
            window: Window::new(WINDOW),
            durable: Arc::default(),
            laid: VecDeque::new(),
            waits: BTreeMap::new(),
            last_token: 0,
            done: mpsc::channel(UNDER_WAY),
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let now = self.mesh.now();
        self.machines.outbox.begin(now, &mut self.out);
        self.flush();
        let durable = Arc::clone(&self.durable);
        let mut tick_at = self.due(now);
        loop {
            // Looked at in each turn: where there is always something to do, no sleep ever ends.
            let now = self.mesh.now();
            if tick_at <= now.mono {
                self.machines.outbox.tick(now, &mut self.out);
                self.machines.keys.tick(now, &mut self.out);
                self.flush();
                tick_at = self.due(now);
            } else {
                tick_at = tick_at.min(self.due(now));
            }
            let due = tick_at.since(now.mono).max(Duration::from_millis(1));
            tokio::select! {
                () = durable.1.notified() => self.durable(Ticket(durable.0.load(Ordering::Acquire))),
                Some(done) = self.done.1.recv() => {
                    self.ended(done);
                    for _ in 1..TOGETHER {
                        let Ok(done) = self.done.1.try_recv() else { break };
                        self.ended(done);
                    }
                }
                input = inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    for _ in 1..TOGETHER {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.take(input);
                    }
                }
                () = tokio::time::sleep(due) => {}
            }
            self.flush();
            *self.full.lock() = self.machines.outbox.full().cloned().collect();
        }
    }

    /// Until when there is nothing to do.
    fn due(&self, now: Now) -> Mono {
        let deadlines = [self.machines.outbox.next_deadline(now), self.machines.keys.next_deadline(now)];
        let longest = now.mono.plus(LONGEST_SLEEP);
        deadlines.into_iter().flatten().min().map_or(longest, |due| due.min(longest))
    }

    fn token(&mut self, waits: Waits) -> Token {
        self.last_token += 1;
        self.waits.insert(Token(self.last_token), waits);
        Token(self.last_token)
    }

    fn take(&mut self, input: Input) {
        let now = self.mesh.now();
        match input {
            Input::Ask { asked, incoming, came, span } => {
                let Incoming { from, request, answer, .. } = *incoming;
                let token = self.token(Waits::Asker { answer, run: Some(Run { from, request, came, span }) });
                self.machines.keys.asked(now, token, asked, &mut self.out);
            }
            Input::Tell { letter, answer } => {
                let token = self.token(Waits::Told(answer));
                self.machines.outbox.tell(now, token, letter, &mut self.out);
            }
            Input::Letter { arrived, from, request, answer } => {
                self.arrives(arrived, Some(from), request, answer);
            }
            Input::Reached(node) => self.machines.outbox.reached(now, &node, &mut self.out),
            Input::Settle { id, retry, answer } => {
                let token = self.token(Waits::Told(answer));
                if retry {
                    self.machines.outbox.retry(now, token, id, &mut self.out);
                } else {
                    self.machines.outbox.drop_dead(token, id, &mut self.out);
                }
            }
            Input::Look(look) => look(&self.machines),
        }
    }

    fn arrives(
        &mut self,
        arrived: Arrived,
        from: Option<Arc<Peer>>,
        request: Request,
        answer: oneshot::Sender<Verdict>,
    ) {
        let token = self.token(Waits::Sender { answer, run: Some((from, request)) });
        self.machines.inbox.arrived(token, arrived, &mut self.out);
    }

    fn ended(&mut self, done: Done) {
        let now = self.mesh.now();
        match done {
            Done::Asked { token, outcome, written } => {
                let (writes, above) = self.kept(written);
                let may_keep = outcome.as_ref().is_ok_and(|reply| self.mesh.may_hold(&reply.class).is_ok());
                let outcome = outcome.map(stored);
                let ended = Ended { outcome, may_keep, writes };
                self.machines.keys.ended(now, token, ended, &mut self.out);
                self.laid(above);
            }
            Done::Handled { source, id, outcome, written } => {
                let (writes, above) = self.kept(written);
                self.machines.inbox.ended(&source, id, outcome, writes, &mut self.out);
                self.laid(above);
            }
            Done::Sent { id, verdict } => self.machines.outbox.answered(now, id, verdict, &mut self.out),
        }
    }

    /// The batch of what a handler wrote: its rows, and its letters.
    fn kept(&mut self, written: Kept) -> (Batch, Option<Above>) {
        let mut batch = Batch::new();
        let Some((written, above)) = written else { return (batch, None) };
        put(&mut batch, written.rows);
        self.machines.outbox.enclose(written.letters, &mut batch);
        (batch, Some(above))
    }

    /// What a handler wrote has been handed over.
    fn laid(&mut self, above: Option<Above>) {
        let Some(above) = above else { return };
        let now = self.mesh.now();
        self.machines.outbox.begin(now, &mut self.out);
        self.flush();
        self.laid.push_back((self.barrier.issued(), above));
    }

    fn durable(&mut self, ticket: Ticket) {
        let mut released = Vec::new();
        self.barrier.durable(ticket, |effect| released.push(effect));
        released.into_iter().for_each(|effect| self.perform(effect));
        while let Some((_, above)) = self.laid.pop_front_if(|(at, _)| *at <= ticket) {
            self.unwritten.lift(&above);
        }
        if let Some((ticket, batch)) = self.window.durable(ticket) {
            self.write(ticket, batch);
        }
    }

    fn flush(&mut self) {
        while !self.out.is_empty() {
            let mut released = Vec::new();
            self.barrier.absorb(&mut self.out, |release| released.push(release));
            for release in released {
                match release {
                    Release::Persist(ticket, batch) => {
                        if let Some((ticket, batch)) = self.window.offer(ticket, batch) {
                            self.write(ticket, batch);
                        }
                    }
                    Release::Perform(effect) => self.perform(effect),
                }
            }
        }
    }

    fn write(&self, ticket: Ticket, batch: Batch) {
        let (durable, halt) = (Arc::clone(&self.durable), Arc::clone(&self.halt));
        let done = Box::new(move |written: Result<_, rhumb_storage::CommitError>| match written {
            Ok(_) => {
                durable.0.fetch_max(ticket.0, Ordering::AcqRel);
                durable.1.notify_one();
            }
            Err(error) => halt(format!("delivery: {error}")),
        });
        if let Err(why) = self.disk.write(batch, done) {
            (self.halt)(format!("delivery: {why}"));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Run(token) => self.run_ask(token),
            Effect::Reply(token, stored) => {
                if let Some(Waits::Asker { answer, .. }) = self.waits.remove(&token) {
                    answer.reply(self.reply(&stored));
                }
            }
            Effect::Fault(token, fault) => match self.waits.remove(&token) {
                Some(Waits::Asker { answer, .. }) => answer.fault(fault),
                Some(Waits::Told(answer)) => drop(answer.send(Err(fault))),
                Some(Waits::Sender { .. }) | None => {}
            },
            Effect::Taken(token) => {
                if let Some(Waits::Told(answer)) = self.waits.remove(&token) {
                    // Who told may have gone; the letter is taken.
                    answer.send(Ok(())).ok();
                }
            }
            Effect::Send(sending) => self.send(sending),
            Effect::Deliver(source, id, token) => self.run_letter(source, id, token),
            Effect::Answer(token, verdict) => {
                if let Some(Waits::Sender { answer, .. }) = self.waits.remove(&token) {
                    answer.send(verdict).ok();
                }
            }
            Effect::Died(id, dead) => {
                let (letter, reason) = (&dead.letter, &dead.reason);
                tracing::error!(
                    letter = %id, to = %letter.to, actor = %letter.shown, message = letter.name, reason,
                    "a letter could not be delivered and is a dead letter: see `rhumb dead-letters`"
                );
            }
            Effect::NoRoom(id) => tracing::error!(
                letter = %id,
                "the queue of dead letters is full: what cannot be delivered stays in the outbox and holds up its \
                 channel; see `rhumb dead-letters`"
            ),
        }
    }

    fn permit(&self) -> Option<OwnedPermit<Done>> {
        self.done.0.clone().try_reserve_owned().ok()
    }

    fn run_ask(&mut self, token: Token) {
        let run = match self.waits.get_mut(&token) {
            Some(Waits::Asker { run, .. }) => run.take(),
            _ => None,
        };
        let Some(Run { from, mut request, came, span }) = run else { return };
        let _within = span.as_ref().map(|span| span.context().attach());
        request.headers.deadline = request.headers.deadline.saturating_sub(came.elapsed());
        let permit = self.permit();
        let late = request.headers.deadline.is_zero();
        let Some(permit) = permit.filter(|_| !late) else {
            let why = if late {
                FaultKind::Deadline("waiting for its turn in the idempotency table".to_owned())
            } else {
                FaultKind::Full("this node's delivery".to_owned())
            };
            let outcome = Err(Fault::not_sent(why));
            let ended = Ended { outcome, may_keep: false, writes: Batch::new() };
            let now = self.mesh.now();
            return self.machines.keys.ended(now, token, ended, &mut self.out);
        };
        let staged = Staged::new();
        let (unwritten, slot) = (Arc::clone(&self.unwritten), staged.clone());
        let answer = Answer::then(Box::new(move |outcome: Result<Reply, Fault>| {
            let written = closed(&slot, &unwritten, outcome.is_ok());
            permit.send(Done::Asked { token, outcome, written });
        }));
        self.mesh.deliver_staged(Incoming { from, request, answer, staged: Some(staged) });
    }

    fn run_letter(&mut self, source: NodeId, id: LetterId, token: Token) {
        let run = match self.waits.get_mut(&token) {
            Some(Waits::Sender { run, .. }) => run.take(),
            _ => None,
        };
        let (Some((from, request)), Some(permit)) = (run, self.permit()) else {
            let busy = Err(Verdict::Busy(None));
            return self.machines.inbox.ended(&source, id, busy, Batch::new(), &mut self.out);
        };
        let staged = Staged::new();
        let (unwritten, slot) = (Arc::clone(&self.unwritten), staged.clone());
        let answer = Answer::then(Box::new(move |outcome: Result<Reply, Fault>| {
            let written = closed(&slot, &unwritten, outcome.is_ok());
            let outcome = outcome.map(drop).map_err(|fault| judge(&fault));
            permit.send(Done::Handled { source, id, outcome, written });
        }));
        self.mesh.deliver_staged(Incoming { from, request, answer, staged: Some(staged) });
    }

    fn send(&mut self, sending: Sending) {
        let id = sending.id;
        let Some(permit) = self.permit() else {
            let now = self.mesh.now();
            return self.machines.outbox.answered(now, id, Verdict::Busy(None), &mut self.out);
        };
        let parcel = Parcel::of(&sending);
        if Some(&sending.letter.to) == self.mesh.node() {
            let (answer, answered) = oneshot::channel();
            let Sending { floor, after, .. } = sending;
            let source = sending.letter.to.clone();
            self.arrives(Arrived { source, id, floor, after }, None, parcel.request(), answer);
            tokio::spawn(async move {
                let verdict = answered.await.unwrap_or(Verdict::Busy(None));
                permit.send(Done::Sent { id, verdict });
            });
            return;
        }
        // It has its place in the order of its lane when this returns.
        let (class, within) = (sending.letter.class.clone(), parcel.patience());
        let sent = self.mesh.begin_node(&sending.letter.to, &parcel, class, within);
        tokio::spawn(async move {
            let judged = match sent {
                Ok(sent) => sent.await,
                Err(fault) => Err(fault),
            };
            let verdict = judged.map_or_else(|fault| unsent(&fault), Verdict::from);
            permit.send(Done::Sent { id, verdict });
        });
    }

    fn reply(&self, stored: &Stored) -> Reply {
        Reply {
            class: stored.class.clone(),
            body: bytes::Bytes::copy_from_slice(&stored.body),
            hybrid: self.mesh.hybrid(),
            guarantee: stored.guarantee,
            trace: None,
        }
    }
}

fn stored(reply: Reply) -> Stored {
    Stored { class: reply.class, guarantee: reply.guarantee, body: reply.body.to_vec() }
}

/// A handler has ended: what it wrote is read from now on, if it ended well.
fn closed(staged: &Staged, unwritten: &Unwritten, well: bool) -> Kept {
    let written = staged.close();
    well.then(|| {
        let above = unwritten.lay(&written.rows);
        (written, above)
    })
}
