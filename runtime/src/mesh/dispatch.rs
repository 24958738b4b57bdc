//! From the network into an actor's mailbox.
//!
//! * It decides: whether a message that arrived is for an actor of this node, from someone who may send
//!   it, of this build's layout, under its own class, and rests on what its handler requires.
//! * It never does: pass a message on to another node, or answer with text out of a message: a fault's
//!   text travels without a class.
//! * Invariant: an actor gets a message only on the node that owns it.

use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};

use actix::Handler;
use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;
use rhumb_actors::remote::{Audience, Hosted, Remote};
use rhumb_core::{DataClass, Epoch, Fault, FaultKind, Region, Role};
use rhumb_transport::gathering;
use rhumb_transport::{Answer, Headers, Held, Kind, Peer, Reply, Request};
use tokio::time::{Instant, timeout_at};

use super::address::class_of;
use super::asking::{not_hosted, rests_on_enough};
use super::body::{pack, unpack_part, unpack_reply};
use super::{Mesh, Whereabouts};
use crate::delivery::staged::Staged;
use crate::host::AnyHome;
use crate::host::arbiters::Listed;
use crate::host::call::{Answers, Before, CallState, Called, Later, MAX_CHAIN, Seen, Stage};
use crate::host::cell::Cell;
use crate::host::home::Home;
use crate::host::id::{ActorId, Target, Whom};
use crate::host::owed::{Acknowledgement, Owed};
use crate::host::packed::{Asker, Packed};
use crate::telemetry::{self, Served, Span, Tracer, What, names};

/// Bytes that the name of a caller may have.
const MAX_CALLER: usize = 256;

/// A message that arrived, and who waits for its answer.
pub(crate) struct Incoming {
    /// Who sent it; none when it is this node's own broadcast.
    pub(crate) from: Option<Arc<Peer>>,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
    /// What its handler writes is kept there; none where nothing is kept.
    pub(crate) staged: Option<Staged>,
}

impl Incoming {
    /// The actor's type does not take such messages.
    pub(crate) fn unknown(self) {
        self.answer.fault(Fault::not_sent(FaultKind::UnknownMessage(self.request.name.to_string())));
    }
}

/// Finds the home of a message's target.
pub(super) fn deliver(mesh: &Mesh, incoming: Incoming) {
    let target = incoming.request.headers.target.clone().unwrap_or_default();
    let Some(target) = Target::parse(&target) else {
        let what = FaultKind::NotHosted("the address is not one: TYPE/KEY or TYPE@REGION/KEY".into());
        return incoming.answer.fault(Fault::not_sent(what));
    };
    let Some(home) = mesh.hosted().and_then(|hosts| hosts.home(target.kind).cloned()) else {
        return incoming.answer.fault(not_hosted(mesh, target.kind));
    };
    let Some(audience) = home.audience(&incoming.request.name) else { return incoming.unknown() };
    if let Err(fault) = welcome(audience, incoming.from.as_deref(), &incoming.request.name) {
        return incoming.answer.fault(fault);
    }
    let keyed = incoming.request.kind == Kind::Ask
        && incoming.request.headers.idempotency_key.is_some()
        && home.runs_once(&incoming.request.name);
    let moves = matches!(target.whom, Whom::One(_)) && mesh.moving(home.kind()).is_some();
    if moves && (keyed || incoming.staged.is_some()) {
        return incoming.answer.fault(not_kept(target.kind));
    }
    let once = incoming.request.kind == Kind::Ask
        && incoming.staged.is_none()
        && home.runs_once(&incoming.request.name);
    if let (true, Some(key), Some(delivery)) =
        (once, incoming.request.headers.idempotency_key.clone(), mesh.delivery())
    {
        // It comes back here when it is its turn.
        return delivery.ask(&key, incoming);
    }
    match target.whom {
        Whom::All => match welcome(Audience::Nodes, incoming.from.as_deref(), "a broadcast") {
            Ok(()) => home.remote_all(incoming),
            Err(fault) => incoming.answer.fault(fault),
        },
        Whom::Any => match home.equal() {
            Some(id) => home.remote(id, incoming),
            None => {
                let what = format!("no equal actors of type {} here: say Host::equals", target.kind);
                incoming.answer.fault(Fault::not_sent(FaultKind::NotHosted(what)));
            }
        },
        Whom::One(key) => match target.region.map(Region::new).transpose() {
            Ok(region) => home.remote(ActorId::new(home.kind(), region, key), incoming),
            Err(error) => {
                incoming.answer.fault(Fault::not_sent(FaultKind::NotHosted(error.to_string())));
            }
        },
    }
}

/// Whether someone may send a message meant for these.
pub(super) fn welcome(audience: Audience, from: Option<&Peer>, name: &str) -> Result<(), Fault> {
    let Some(from) = from else { return Ok(()) };
    let role = from.principal.role;
    let welcome = match audience {
        Audience::Everyone => true,
        Audience::Nodes => role == Role::Node,
        Audience::Operators => role == Role::Node || role == Role::Operator,
    };
    let refused = || {
        let why = format!("{name} is not for a {role}; {} is one", from.principal);
        Fault::not_sent(FaultKind::Unauthorized(why))
    };
    if welcome { Ok(()) } else { Err(refused()) }
}

/// Actors that move have nothing on the disk of a node: the next one would not know of it.
pub(super) fn not_kept(kind: &str) -> Fault {
    let why = format!(
        "actors of type {kind} move between nodes, and what is kept of a call under a key or a durable tell is on one node's disk: \
         make the message idempotent and send it without"
    );
    Fault::not_sent(FaultKind::NotHosted(why))
}

/// Whether a caller that named an epoch meant this one: the life of the node, or that of an actor that moves.
pub(super) fn epoch_matches(ours: Epoch, said: Option<Epoch>) -> Result<(), Fault> {
    match said {
        Some(epoch) if epoch != ours => Err(Fault::not_sent(FaultKind::WrongEpoch { ours: ours.0 })),
        _ => Ok(()),
    }
}

/// Puts a message of the network into the mailbox of an actor of type `A`.
pub(crate) fn receive<A, M>(home: &Arc<Home<A>>, id: ActorId, work: Listed, incoming: Incoming)
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    let Incoming { from, request, mut answer, staged } = incoming;
    let kind = request.kind;
    let came = answer.came(request.headers.deadline).unwrap_or_else(Instant::now);
    // Before anything is spent on it.
    let permit = match home.door().filter(|_| kind == Kind::Ask) {
        None => None,
        Some(door) => match door.admit(M::PRIORITY, came, request.headers.deadline) {
            Ok(permit) => Some(permit),
            Err(fault) => return answer.fault(fault),
        },
    };
    let cell = home.found(&id);
    if let Err(fault) = owned(home, &id, cell.as_deref()) {
        return answer.fault(fault);
    }
    if kind == Kind::Posts {
        return receive_gathered::<A, M>(home, &id, work, Incoming { from, request, answer, staged }, came);
    }
    let Request { name, class, body, mut headers, .. } = request;
    let key = headers.idempotency_key.take();
    // What is asked is held until it is answered; what is told goes on after that.
    let held = if kind == Kind::Ask { None } else { answer.held() };
    let epoch = epoch_for(home, &id, &headers);
    let opened = Head::judge((&home.mesh, epoch), name, class, from, headers, came, held)
        .and_then(|head| head.open::<A, M>(id, (&body, &body), key, staged.as_ref()));
    let (message, call) = match opened {
        Ok(opened) => opened,
        Err(fault) => return answer.fault(fault),
    };
    let called = Called::Made(Arc::clone(&call));
    if kind == Kind::Ask {
        *call.admitted.lock() = permit;
        let owed = Owed::new(Arc::clone(&call), answer);
        // Where it is not taken, the call says why as the answer is dropped.
        home.put(&call.to, cell, message, called, Asker::There(owed), work, came).ok();
        return;
    }
    match home.put(&call.to, cell, message, called, Asker::Nobody, work, came) {
        Ok(()) => answer.reply(empty_reply(&home.mesh)),
        Err(fault) => answer.fault(fault),
    }
}

/// Puts messages that came under one head into the mailbox of an actor, in order. Their sender is told at
/// once which of them were not taken; but when the last one's turn comes where the mailbox is more than half
/// full, so that who keeps a window of tells goes no faster than the actor.
fn receive_gathered<A, M>(home: &Arc<Home<A>>, id: &ActorId, work: Listed, incoming: Incoming, came: Instant)
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    let Incoming { from, request, mut answer, .. } = incoming;
    let messages = match gathering::messages(&request.body) {
        Ok(messages) => messages,
        Err(reason) => {
            let nonsense = FaultKind::Decode { name: request.name.to_string(), reason };
            return answer.fault(Fault::not_sent(nonsense));
        }
    };
    let Request { name, class, body, headers, .. } = request;
    let epoch = epoch_for(home, id, &headers);
    let head = match Head::judge((&home.mesh, epoch), name, class, from, headers, came, answer.held()) {
        Ok(head) => head,
        Err(fault) => return answer.fault(fault),
    };
    let tells = match Tells::under::<A>(head, id) {
        Ok(tells) => Arc::new(tells),
        Err(fault) => return answer.fault(fault),
    };
    let acknowledged = Acknowledgement::new(home.mesh.clone(), answer);
    let (last, mut cell) = (messages.len() - 1, None);
    for (at, range) in messages.into_iter().enumerate() {
        let outcome = tells.open::<A, M>((&body[range], &body)).and_then(|(message, called)| {
            let found: Option<Arc<Cell<A>>> = cell.take().or_else(|| home.cell(id));
            let held = at == last && found.as_ref().is_some_and(|cell| 2 * cell.waiting() > home.capacity());
            let asker = if held { Asker::HeldBack(Arc::clone(&acknowledged)) } else { Asker::Nobody };
            cell.clone_from(&found);
            home.put(id, found, message, called, asker, work, came)
        });
        if let Err(fault) = outcome {
            acknowledged.refuse(at, fault);
        }
    }
    acknowledged.complete();
}

/// Puts a message of the network into the mailboxes of all actors of type `A` that are awake.
pub(crate) fn receive_all<A, M>(home: &Arc<Home<A>>, work: Listed, incoming: Incoming)
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    let Incoming { from, request, mut answer, .. } = incoming;
    let (mut taken, mut refused, mut why) = (0_u64, 0_u64, None);
    let came = Instant::now();
    let Request { name, class, body, headers, .. } = request;
    let here = (&home.mesh, home.mesh.epoch());
    let head = match Head::judge(here, name, class, from, headers, came, answer.held()) {
        Ok(head) => head,
        Err(fault) => return answer.fault(fault),
    };
    for cell in home.awake() {
        // Each gets a message of its own out of the same bytes.
        let outcome =
            head.open::<A, M>(cell.id.clone(), (&body, &body), None, None).and_then(|(message, call)| {
                let called = Called::Made(Arc::clone(&call));
                home.put(&call.to, Some(cell), message, called, Asker::Nobody, work, came)
            });
        match outcome {
            Ok(()) => taken += 1,
            Err(fault) => {
                refused += 1;
                why = (!of_one_actor(&fault)).then_some(fault).or(why);
            }
        }
    }
    // Nobody took it, and not for a reason of an actor's own: it is the message's.
    if let (0, Some(fault)) = (taken, why) {
        return answer.fault(fault);
    }
    match pack(M::NAME, &(taken, refused)) {
        Ok(body) => answer.reply(Reply { body, ..empty_reply(&home.mesh) }),
        Err(fault) => answer.fault(fault),
    }
}

/// Whether a message is refused for the sake of one actor, and not of the message.
fn of_one_actor(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Full(_) | FaultKind::Failed(_) | FaultKind::Cycle(_))
}

/// Asks an actor of this node whose request stands in an envelope, until then.
pub(super) async fn ask_here(mesh: &Mesh, request: Request, until: Instant) -> Result<Reply, Fault> {
    let (answer, answered) = Answer::here();
    let name = request.name.clone();
    deliver(mesh, Incoming { from: None, request, answer, staged: None });
    let passed = |_| Err(Fault::unknown(FaultKind::Deadline(format!("waiting for an answer to {name}"))));
    timeout_at(until, answered).await.unwrap_or_else(passed)
}

/// This node's own part of a broadcast.
pub(super) async fn broadcast_here(mesh: &Mesh, request: Request) -> Result<(u64, u64), Fault> {
    let (answer, answered) = Answer::here();
    let name = request.name.clone();
    let span = Span::current().map(|span| span.below(What::processed(&name, &request.class)));
    {
        let _within = span.as_ref().map(|span| span.context().attach());
        deliver(mesh, Incoming { from: None, request, answer, staged: None });
    }
    unpack_reply(&name, &answered.await?.body)
}

impl<A: Hosted> Home<A> {
    #[expect(clippy::too_many_arguments, reason = "a message and all that goes with it")]
    fn put<M: Remote>(
        &self,
        id: &ActorId,
        cell: Option<Arc<Cell<A>>>,
        message: M,
        call: Called,
        asker: Asker<M>,
        work: Listed,
        came: Instant,
    ) -> Result<(), Fault>
    where
        A: Handler<M>,
    {
        self.push(id, cell, Box::new(Packed { message, call, asker, work: Some(work) }), came)
    }
}

/// Whether this node owns an actor. What was found out for a cell holds for as long as the policy does.
fn owned<A: Hosted>(home: &Home<A>, id: &ActorId, cell: Option<&Cell<A>>) -> Result<(), Fault> {
    let mesh = &home.mesh;
    if let Some(taken) = home.may_take(id, cell) {
        return taken;
    }
    let Whereabouts::Known(places) = &mesh.inner.places else { return Err(not_hosted(mesh, id.kind)) };
    let policy = places.policy.load().version().map_or(0, |version| version.saturating_add(1));
    if cell.is_some_and(|cell| cell.is_owned_under(policy)) {
        return Ok(());
    }
    if id.is_equal() {
        let permitted = places.equals(&class_of::<A>()?).iter().any(|node| Some(node) == mesh.node());
        let what = || format!("no actors of type {} may be here, by the policy", id.kind);
        return if permitted { Ok(()) } else { Err(Fault::not_sent(FaultKind::NotHosted(what()))) };
    }
    id.check()?;
    let owner = places.owner(&id.shown(), &class_of::<A>()?)?;
    if Some(owner) == mesh.node() {
        if let Some(cell) = cell {
            cell.owned_under(policy);
        }
        return Ok(());
    }
    let moved = format!("another node owns this actor of type {}: {owner}", id.kind);
    Err(Fault::not_sent(FaultKind::Moved(moved)))
}

/// The epoch that is compared with what a message says, which few do.
fn epoch_for<A: Hosted>(home: &Home<A>, id: &ActorId, headers: &Headers) -> Epoch {
    if headers.epoch.is_some() { home.epoch_of(id) } else { home.mesh.epoch() }
}

/// What stands before a message, judged: many messages under one head share it, and what it says costs each of
/// them nothing.
struct Head {
    mesh: Mesh,
    name: ByteString,
    class: DataClass,
    from: Option<Arc<Peer>>,
    headers: Headers,
    came: Instant,
    before: Before,
    held: Option<Arc<Held>>,
}

impl Head {
    /// Whether what it says of callers and epochs is believed of whoever sent it.
    fn judge(
        (mesh, ours): (&Mesh, Epoch),
        name: ByteString,
        class: DataClass,
        from: Option<Arc<Peer>>,
        mut headers: Headers,
        came: Instant,
        held: Option<Held>,
    ) -> Result<Self, Fault> {
        let role = from.as_ref().map(|from| from.principal.role);
        let chain = callers(role, std::mem::take(&mut headers.chain))?;
        epoch_matches(ours, headers.epoch)?;
        let before = if chain.is_empty() { Before::Nobody } else { Before::Elsewhere(chain.into()) };
        Ok(Self { mesh: mesh.clone(), name, class, from, headers, came, before, held: held.map(Arc::new) })
    }

    /// The message of a part of these bytes, and the call in which it runs.
    fn open<A: Hosted, M: Remote>(
        &self,
        to: ActorId,
        (part, whole): (&[u8], &Bytes),
        key: Option<String>,
        staged: Option<&Staged>,
    ) -> Result<(M, Arc<CallState>), Fault> {
        let state = class_of::<A>()?;
        let message: M = self.message(&state, (part, whole))?;
        let call = self.call(to, Answers::to(&message, &state), key, staged);
        if call.cycles() {
            return Err(Fault::not_sent(FaultKind::Cycle(call.to.shown().to_string())));
        }
        // Whoever delivers works for the span of the message.
        call.is_served(Span::current());
        Ok((message, Arc::new(call)))
    }

    /// The message of a part of these bytes, to an actor whose state is of this class.
    fn message<M: Remote>(&self, state: &DataClass, (part, whole): (&[u8], &Bytes)) -> Result<M, Fault> {
        rests_on_enough::<M>(self.headers.guarantee)?;
        let decode = || self.mesh.decoding(|| unpack_part(&self.name, part, whole));
        let message: M = telemetry::part(names::DECODE, decode).map_err(Fault::not_sent)?;
        // The gates judged the envelope: what is in it must be of that class.
        let own = message.class().unwrap_or(state);
        if *own != self.class {
            let (from, to) = (own.clone(), self.class.clone());
            return Err(Fault::not_sent(FaultKind::ClassLowered { from, to }));
        }
        Ok(message)
    }

    /// The call in which a message runs.
    fn call(&self, to: ActorId, answers: Answers, key: Option<String>, staged: Option<&Staged>) -> CallState {
        let headers = &self.headers;
        CallState {
            mesh: self.mesh.clone(),
            to,
            from: self.from.clone(),
            deadline: self.came + headers.deadline,
            hybrid: OnceLock::from(headers.hybrid),
            trace: headers.trace,
            asked: None,
            served: OnceLock::new(),
            class: self.class.clone(),
            answers,
            required: headers.required,
            key,
            epoch: headers.epoch,
            before: self.before.clone(),
            seen: Mutex::new(Seen { guarantee: headers.guarantee, ..Seen::default() }),
            end: OnceLock::new(),
            stage: AtomicU8::new(Stage::Waiting as u8),
            staged: staged.cloned(),
            admitted: Mutex::default(),
            left: OnceLock::new(),
            held: self.held.clone(),
        }
    }
}

/// Messages under one head for which nobody waits, and what they have in common. The call of each is made when its
/// handler looks at it; at once where a span is kept of it.
struct Tells {
    head: Head,
    to: ActorId,
    /// The class of the actor's state.
    state: DataClass,
    is_kept: bool,
    served: Option<Served>,
}

impl Tells {
    fn under<A: Hosted>(head: Head, to: &ActorId) -> Result<Self, Fault> {
        if head.before.holds(to) {
            return Err(Fault::not_sent(FaultKind::Cycle(to.shown().to_string())));
        }
        let trace = head.headers.trace;
        let served = head.mesh.tracer().map(|_| Served::not(trace.unwrap_or_else(Tracer::not_kept)));
        // Whoever delivers works for the span of the messages.
        let is_kept = Span::current().is_some();
        Ok(Self { head, to: to.clone(), state: class_of::<A>()?, is_kept, served })
    }

    /// The message of a part of these bytes, and its call.
    fn open<A: Hosted, M: Remote>(self: &Arc<Self>, bytes: (&[u8], &Bytes)) -> Result<(M, Called), Fault> {
        if self.is_kept {
            let (message, call) = self.head.open::<A, M>(self.to.clone(), bytes, None, None)?;
            return Ok((message, Called::Made(call)));
        }
        let message = self.head.message(&self.state, bytes)?;
        Ok((message, Called::Later(Arc::clone(self) as Arc<dyn Later>)))
    }
}

impl Later for Tells {
    fn make(&self) -> CallState {
        // Nobody is answered.
        let answers = Answers { declared: self.state.clone(), state: None };
        let call = self.head.call(self.to.clone(), answers, None, None);
        let served = self.served.as_ref().map(|served| OnceLock::from(Served::not(served.trace())));
        let stage = AtomicU8::new(Stage::Handled as u8);
        CallState { served: served.unwrap_or_default(), stage, ..call }
    }

    fn served(&self) -> Option<&Served> {
        self.served.as_ref()
    }
}

/// The callers so far, as a node says them. A program that only calls is nobody's actor.
fn callers(from: Option<Role>, chain: Vec<String>) -> Result<Vec<String>, Fault> {
    if from.is_some_and(|role| role != Role::Node) {
        return Ok(Vec::new());
    }
    if chain.len() < MAX_CHAIN && chain.iter().all(|caller| caller.len() <= MAX_CALLER) {
        return Ok(chain);
    }
    let why = format!("a chain of fewer than {MAX_CHAIN} callers of at most {MAX_CALLER} bytes each");
    Err(Fault::not_sent(FaultKind::Cycle(why)))
}

/// The reply that says nothing but that a message was taken.
pub(crate) fn empty_reply(mesh: &Mesh) -> Reply {
    Reply {
        class: DataClass::control(),
        body: Bytes::new(),
        hybrid: mesh.hybrid(),
        guarantee: rhumb_core::Guarantee::STRONGEST,
        trace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_callers_is_believed_of_nodes_and_within_bounds() {
        let of = |callers: usize, bytes: usize| vec!["x".repeat(bytes); callers];
        for role in [Role::Client, Role::Operator] {
            assert_eq!(callers(Some(role), of(40, 4)), Ok(Vec::new()), "a program is nobody's actor");
        }
        for role in [Some(Role::Node), None] {
            assert_eq!(callers(role, of(MAX_CHAIN - 1, MAX_CALLER)), Ok(of(MAX_CHAIN - 1, MAX_CALLER)));
            for wrong in [of(MAX_CHAIN, 4), of(1, MAX_CALLER + 1)] {
                let fault = callers(role, wrong).expect_err("out of bounds");
                assert!(matches!(fault.kind, FaultKind::Cycle(_)), "{fault}");
            }
        }
    }
}
