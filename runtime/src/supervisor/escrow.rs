//! Where `EscrowRegion` meets the mesh: its messages served here, and its calls carried to others.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use rhumb_actors::audit::AuditHandle;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::escrow::book::{Answer, Request};
use rhumb_actors::escrow::messages::{
    AttestPool, Confirm, CreatePool, Held, Hold, PEER_MESSAGE, PeerMessage, PoolAttested, PoolCreated,
    PoolView, ReadRow, Refusal, Release, Return, Returned, Row, Settled, ShowPool, Standing,
};
use rhumb_actors::escrow::{Answered, EscrowHandle, Sake, World};
use rhumb_actors::remote::Remote;
use rhumb_actors::span::{Span as Theirs, Under};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Now, Region, Role};
use rhumb_storage::HotStore;
use rhumb_topology::policy::Use;
use tokio::sync::{oneshot, watch};

use super::audit;
use super::halt::Halt;
use super::policy::ServedPolicy;
use super::quorum::Desk;
use crate::clock::NodeClock;
use crate::mesh::Mesh;
use crate::mesh::registry::{Answering, Call, Registry, ServedTwice};
use crate::telemetry::{self, Span, What, names};

/// The world around the escrow of this node.
pub(super) struct EscrowWorld {
    pub(super) clock: NodeClock,
    pub(super) mesh: Mesh,
    pub(super) halt: Halt,
    pub(super) store: HotStore,
    /// Told at every change; readiness reads it.
    pub(super) standing: watch::Sender<Standing>,
}

/// A span, as the escrow's shell passes it on.
#[derive(Debug)]
struct Passed(Span);

impl Under for Passed {
    fn part(&self, name: &'static str) -> Theirs {
        Theirs::of(Self(self.0.child(name)))
    }

    fn passed(&self, name: &'static str, began: Instant, took: Duration) {
        self.0.passed(name, began.into(), took);
    }
}

/// The span of the call that this thread works for, for the escrow's shell.
fn current() -> Option<Theirs> {
    Span::current().map(|span| Theirs::of(Passed(span)))
}

fn ours(span: &Theirs) -> Option<&Span> {
    span.is::<Passed>().map(|passed| &passed.0)
}

/// What a peer's message is called in a trace.
fn called(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Level(_) => "escrow.Level",
        PeerMessage::Beat(_) => "escrow.Beat",
        PeerMessage::Witnessed(_) => "escrow.Witnessed",
        PeerMessage::Disown(_) => "escrow.Disown",
        PeerMessage::Disowned(_) => "escrow.Disowned",
    }
}

impl World for EscrowWorld {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn tell(&self, to: &NodeId, message: PeerMessage, sake: Option<&Sake>) {
        let class = message.class();
        let span = sake.and_then(|sake| ours(&sake.span));
        let span = span.map(|span| span.below(What::sent(called(&message), &class)));
        if let (Some(span), Some(sake)) = (&span, sake) {
            sake.others.iter().filter_map(ours).for_each(|other| span.link(other.trace()));
            span.set(KeyValue::new(names::PEER_REGION, to.region.to_string()));
        }
        let _within = span.as_ref().map(|span| span.context().attach());
        if let Err(fault) = self.mesh.tell_node(to, PEER_MESSAGE, &message, class) {
            tracing::trace!(%to, %fault, "not told; it is said again");
        }
    }

    fn forward(
        &self,
        to: NodeId,
        request: Request,
        class: DataClass,
        within: Duration,
        sake: Option<&Sake>,
    ) -> BoxFuture<'static, Answered> {
        let mesh = self.mesh.clone();
        let span = sake.and_then(|sake| ours(&sake.span)).cloned();
        let forwarded = async move {
            macro_rules! pass {
                ($message:expr, $wrap:expr) => {
                    match mesh.ask_node(&to, &$message, class, within).await {
                        Ok((answer, class)) => Answered { outcome: Ok(answer.map($wrap)), class },
                        Err(fault) => Answered { outcome: Err(fault), class: DataClass::control() },
                    }
                };
            }
            match request {
                Request::Create { request, .. } => pass!(request, Answer::Created),
                Request::Hold(hold) => pass!(hold, Answer::Held),
                Request::Confirm(confirm) => pass!(confirm, Answer::Settled),
                Request::Release(release) => pass!(release, Answer::Settled),
                Request::Return(request) => pass!(request, Answer::Returned),
                Request::Show(show) => pass!(show, |view| Answer::View(Box::new(view))),
                Request::ReadRow(read) => pass!(read, |row| Answer::Row(Box::new(row))),
                Request::Attest(attest) => pass!(attest, |done| Answer::Attested(Box::new(done))),
            }
        };
        async move { telemetry::within(span.as_ref(), forwarded).await }.boxed()
    }

    fn last_sync(&self) -> Option<(Instant, Duration)> {
        self.store.last_sync()
    }

    fn standing(&self, standing: Standing) {
        self.standing.send_replace(standing);
        if let Some(tracer) = self.mesh.tracer() {
            let standing = match standing {
                Standing::Proven => "proven",
                Standing::Unproven => "unproven",
                Standing::Restored => "restored",
            };
            tracer.incident("standing changed", vec![KeyValue::new(names::STANDING, standing)]);
        }
    }

    fn halt(&self, reason: String) {
        self.halt.now(reason);
    }
}

/// Serves the messages of `EscrowRegion` on this node.
pub(super) fn serve(
    registry: &mut Registry,
    (escrow, desk): (&EscrowHandle, &Desk),
    log: &AuditHandle,
    policy: &ServedPolicy,
    regions: Vec<Region>,
) -> Result<(), ServedTwice> {
    // Only a node passes holds on; whoever else says so is asked to begin at the beginning.
    let hold =
        |hold: Hold, role| Request::Hold(if role == Role::Node { hold } else { Hold { hops: 0, ..hold } });
    one::<Hold, Held>(registry, desk, hold, |a| if let Answer::Held(held) = a { Some(held) } else { None })?;
    one::<Confirm, Settled>(registry, desk, |m, _| Request::Confirm(m), settled)?;
    one::<Release, Settled>(registry, desk, |m, _| Request::Release(m), settled)?;
    one::<Return, Returned>(
        registry,
        desk,
        |m, _| Request::Return(m),
        |a| {
            if let Answer::Returned(returned) = a { Some(returned) } else { None }
        },
    )?;
    one::<ShowPool, PoolView>(
        registry,
        desk,
        |m, _| Request::Show(m),
        |a| {
            if let Answer::View(view) = a { Some(*view) } else { None }
        },
    )?;
    one::<ReadRow, Row>(
        registry,
        desk,
        |m, _| Request::ReadRow(m),
        |a| {
            if let Answer::Row(row) = a { Some(*row) } else { None }
        },
    )?;
    operated::<AttestPool, PoolAttested>(
        registry,
        (desk, log),
        |m| Record::told("pool.attest", "", Outcome::Begun).on(format!("pool {}", m.pool)),
        Request::Attest,
        |a| {
            if let Answer::Attested(attested) = a { Some(*attested) } else { None }
        },
    )?;
    let policy = policy.clone();
    let create = move |request: CreatePool| {
        let holds = |region: &&Region| policy.permits(region, Use::Hold, &request.class);
        let allowed: Vec<Region> = regions.iter().filter(holds).cloned().collect();
        Request::Create { request, allowed }
    };
    let told = |m: &CreatePool| {
        let record = Record::told("pool.create", "", Outcome::Begun).on(format!("pool {}", m.name));
        record.with("class", m.class.as_str()).with("supply", m.supply.to_string())
    };
    operated::<CreatePool, PoolCreated>(registry, (desk, log), told, create, |a| {
        if let Answer::Created(created) = a { Some(created) } else { None }
    })?;
    let escrow = escrow.clone();
    registry.hear(PEER_MESSAGE, move |call: Call<PeerMessage>| {
        // The class is what the pool says, not what the envelope says: the gate judged the envelope.
        let own = call.message.class();
        if own != call.class {
            tracing::warn!(from = %call.from.principal, "a peer's message came under another class; dropped");
            return Err(Fault::not_sent(FaultKind::ClassLowered { from: own, to: call.class }));
        }
        if let Some(node) = &call.from.node {
            if let Some(span) = Span::current() {
                span.is_of(called(&call.message));
            }
            escrow.peer(node.clone(), call.message, current());
        }
        Ok(())
    })
}

fn settled(answer: Answer) -> Option<Settled> {
    if let Answer::Settled(settled) = answer { Some(settled) } else { None }
}

fn one<M, T>(
    registry: &mut Registry,
    escrow: &Desk,
    request: impl Fn(M, Role) -> Request + Send + Sync + 'static,
    wanted: fn(Answer) -> Option<T>,
) -> Result<(), ServedTwice>
where
    M: Remote<Reply = Result<T, Refusal>>,
    T: Send + 'static,
{
    let escrow = escrow.clone();
    registry.answer(move |call: Call<M>, answering: Answering<M>| {
        let region = call.region().clone();
        let role = call.from.principal.role;
        let then = move |answered| answering.give(replied::<M, T>(answered, wanted));
        escrow.ask(request(call.message, role), region, call.within, current(), then);
    })
}

/// What an answer of the escrow is to who asked `M`.
fn replied<M, T>(
    answered: Answered,
    wanted: fn(Answer) -> Option<T>,
) -> Result<(Result<T, Refusal>, DataClass), Fault>
where
    M: Remote<Reply = Result<T, Refusal>>,
{
    let reply = match answered.outcome? {
        Err(refusal) => Err(refusal),
        Ok(answer) => Ok(wanted(answer).ok_or_else(|| {
            Fault::ran(FaultKind::Handler(format!("{} was answered with something else", M::NAME)))
        })?),
    };
    Ok((reply, answered.class))
}

/// Serves what operators do: it is in the audit log before it is done, and how it ended before it is answered.
fn operated<M, T>(
    registry: &mut Registry,
    (escrow, log): (&Desk, &AuditHandle),
    told: impl Fn(&M) -> Record + Send + Sync + 'static,
    request: impl Fn(M) -> Request + Send + Sync + 'static,
    wanted: fn(Answer) -> Option<T>,
) -> Result<(), ServedTwice>
where
    M: Remote<Reply = Result<T, Refusal>>,
    T: Send + 'static,
{
    let (escrow, log) = (escrow.clone(), log.clone());
    registry.serve(move |call: Call<M>| {
        let (region, within, record) = (call.region().clone(), call.within, told(&call.message));
        let (escrow, log, span) = (escrow.clone(), log.clone(), current());
        let (from, request) = (call.from, request(call.message));
        let operates = async move {
            let begun = audit::begin(&log, &from, record).await?;
            let (answers, answer) = oneshot::channel();
            // Who waited may have gone: how it ended is told all the same.
            escrow.ask(request, region, within, span, move |answered| drop(answers.send(answered)));
            let answered = answer.await.map_err(|_| Fault::unknown(FaultKind::Draining));
            let (outcome, why) = match &answered {
                Ok(Answered { outcome: Ok(Ok(_)), .. }) => (Outcome::Done, None),
                Ok(Answered { outcome: Ok(Err(refusal)), .. }) => {
                    (Outcome::Refused, Some(refusal.to_string()))
                }
                Ok(Answered { outcome: Err(fault), .. }) | Err(fault) => {
                    (Outcome::Failed, Some(fault.to_string()))
                }
            };
            begun.ended(outcome, why).await?;
            replied::<M, T>(answered?, wanted)
        };
        // In a task: the deadline of who asked does not end it between what is done and what is told.
        async move {
            tokio::spawn(operates)
                .await
                .unwrap_or_else(|panic| Err(Fault::unknown(FaultKind::Panicked(panic.to_string()))))
        }
    })
}
