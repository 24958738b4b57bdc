//! Tells one actor many things, and waits for none of them alone.
//!
//! A [`Teller`] keeps a window of tells that have no answer yet. While there is room in it a tell is put on
//! its way and its sender goes on; tells that are put on their way together travel under one head, and one
//! answer says of all of them which the mailbox took.
//!
//! * It decides: when its sender waits (the window is full), which tells share a head, and what became of
//!   each.
//! * It never does: retry, or send what the call within which it is told may not send.
//! * Invariants: each tell is accounted for once: as the error of [`Teller::tell`], among what was taken, or
//!   with its fault. Tells arrive in the order in which they were told, within one connection.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rhumb_actors::remote::{Accepts, Addressed, Remote};
use rhumb_core::wire::with_encoded;
use rhumb_core::{Fault, FaultKind, Guarantee, NodeId};
use rhumb_transport::gathering::{MAX_GATHERED, Refused};
use rhumb_transport::{Gathering, Kind, Reply, Request, TraceContext};
use tokio::task::yield_now;

use super::address::{MeshAddr, Said, class_of};
use super::asking::{Waits, deadline, headers, here, outgoing, rests_on, understood};
use super::body::pack;
use super::{Carried, Mesh};
use crate::host::call::{self, CallState};
use crate::host::packed::Asker;
use crate::telemetry::{self, current_trace, names};

/// How many tells may be without an answer, unless [`Teller::window`] says otherwise. An actor's mailbox has
/// room for four times as many, unless it says otherwise.
pub const WINDOW: usize = 256;
/// How many faults are kept by themselves until somebody wants to see them. Further ones are only counted.
pub const MAX_LISTED: usize = 1_024;

/// A handle that tells one actor messages `M` without waiting for each. Made by
/// [`MeshAddr::teller`]; say [`Teller::close`] at the end.
///
/// Dropped before, it gives up: what has not left is not sent, and of what has nobody learns the end.
#[must_use = "what it has told is certain only after `close`"]
pub struct Teller<A: Addressed, M: Remote> {
    to: MeshAddr<A>,
    window: usize,
    said: Said,
    sent: VecDeque<Batch>,
    unanswered: usize,
    /// Handed over on this node since this last gave way to others.
    here: usize,
    next: u64,
    told: Told,
    marker: PhantomData<fn(M)>,
}

/// What became of the tells since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a tell that failed is said nowhere else"]
pub struct Told {
    /// How many the actor's mailbox took.
    pub taken: u64,
    /// Those that failed, in the order in which they were told: at most [`MAX_LISTED`].
    pub failed: Vec<Failed>,
    /// How many more failed than are listed.
    pub unlisted: u64,
}

/// A tell that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its number, as [`Teller::tell`] gave it.
    pub number: u64,
    /// Why, and whether its handler may run all the same.
    pub fault: Fault,
}

impl Told {
    /// Whether all were taken.
    ///
    /// # Errors
    /// The first fault, when not.
    pub fn all_taken(self) -> Result<u64, Fault> {
        match self.failed.into_iter().next() {
            None => Ok(self.taken),
            Some(first) => Err(first.fault),
        }
    }

    fn fails(&mut self, number: u64, fault: &Fault) {
        if self.failed.len() < MAX_LISTED {
            self.failed.push(Failed { number, fault: fault.clone() });
        } else {
            self.unlisted += 1;
        }
    }
}

/// Tells under one head, on their way.
struct Batch {
    first: u64,
    count: usize,
    /// The call of all of them, and within which one it was made.
    call: Arc<CallState>,
    within: Option<Arc<CallState>>,
    /// What all of them rest on.
    rests_on: Guarantee,
    trace: Option<TraceContext>,
    /// Where more are put until it leaves. None for one that goes by itself.
    gathering: Option<Arc<Gathering>>,
    answer: Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>,
}

impl<A, M> Teller<A, M>
where
    A: Addressed + Accepts<M>,
    M: Remote,
{
    pub(super) fn new(to: MeshAddr<A>) -> Self {
        Self {
            to,
            window: WINDOW,
            said: Said::default(),
            sent: VecDeque::new(),
            unanswered: 0,
            here: 0,
            next: 0,
            told: Told::default(),
            marker: PhantomData,
        }
    }

    /// So many tells, at least one, may be without an answer. While an actor's mailbox is more than half
    /// full, answers wait until the messages' turn comes; so tellers whose windows together are half of it
    /// are never refused there with [`FaultKind::Full`].
    pub fn window(mut self, tells: usize) -> Self {
        self.window = tells.max(1);
        self
    }

    /// A tell fails that is not in the mailbox within this time, counted from when the first of those was
    /// told with which it shares a head. Without it, the time that the message declares.
    pub fn within(mut self, limit: Duration) -> Self {
        self.said.within = Some(limit);
        self
    }

    /// Tells: returns the tell's number (they count from 0) once it is on its way, which takes no waiting
    /// while there is room in the window. On the actor's own node it goes straight into the mailbox. Dropped
    /// before, it has not been told.
    ///
    /// # Errors
    /// A fault of this tell alone, which was not sent; it has no number.
    pub async fn tell(&mut self, message: M) -> Result<u64, Fault> {
        while self.unanswered >= self.window {
            self.answered().await;
        }
        if self.is_share() || self.here >= self.share() {
            // What has gathered leaves while more is told; what was handed over here has its turn.
            self.here = 0;
            yield_now().await;
        }
        if !self.joins(&message)? {
            self.begin(message).await?;
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// Waits until each tell so far has its answer, at the latest until its time is over, and says what
    /// became of those since the last time. Dropped before, nothing is lost: ask again.
    pub async fn flush(&mut self) -> Told {
        while !self.sent.is_empty() {
            self.answered().await;
        }
        std::mem::take(&mut self.told)
    }

    /// As [`Teller::flush`], for the last time.
    pub async fn close(mut self) -> Told {
        self.flush().await
    }

    /// How many tells have no answer yet, as far as has been looked.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether the last batch is as large as one may be: a part of the window, so that one is answered while
    /// the next is told.
    fn is_share(&self) -> bool {
        self.sent.back().is_some_and(|batch| batch.gathering.is_some() && batch.count >= self.share())
    }

    fn share(&self) -> usize {
        (self.window / 4).clamp(1, MAX_GATHERED)
    }

    /// Puts a message under the head of those before it, where it may stand there. False when not.
    fn joins(&mut self, message: &M) -> Result<bool, Fault> {
        if self.is_share() {
            return Ok(false);
        }
        let Some(batch) = self.sent.back_mut() else { return Ok(false) };
        let Some(gathering) = &batch.gathering else { return Ok(false) };
        let state = class_of::<A>()?;
        let class = message.class().unwrap_or(&state);
        let within = call::within();
        let alike = *class == batch.call.class
            && within.as_ref().map(Arc::as_ptr) == batch.within.as_ref().map(Arc::as_ptr)
            && rests_on(within.as_deref()) == batch.rests_on
            && current_trace() == batch.trace
            && message.idempotency_key().is_none();
        if !alike {
            return Ok(false);
        }
        if let Some(caller) = &within {
            caller.may_send(class)?;
        }
        let joined = with_encoded(message, |bytes| gathering.push(bytes)).map_err(not_encoded::<M>)?;
        if joined {
            batch.count += 1;
            self.unanswered += 1;
        }
        Ok(joined)
    }

    /// Begins a batch with a message, or hands it over here.
    async fn begin(&mut self, message: M) -> Result<(), Fault> {
        let within = call::within();
        let (mesh, owner) = self.to.found(deadline::<M>(&self.said, within.as_deref())).await?;
        let (said, until) = (self.said.clone(), deadline::<M>(&self.said, None));
        let (trace, rests_on) = (current_trace(), rests_on(within.as_deref()));
        let call = outgoing::<A, M>(&mesh, self.to.id(), &message, said, within.clone(), until, Waits::No)?;
        if Some(&owner) == mesh.node() {
            let taken = here::<A, M>(&mesh, message, &call, Asker::Nobody).map(drop);
            call.went(taken.as_ref().copied());
            taken?;
            self.told.taken += 1;
            self.here += 1;
            return Ok(());
        }
        let sent = telemetry::working_for(call.asked.as_ref(), || send(&mesh, &owner, &call, &message));
        let (gathering, carried) = sent.inspect_err(|fault| {
            call.went(Err(fault));
            self.to.doubt(fault);
        })?;
        let answer = Box::pin(carried.answer());
        self.sent.push_back(Batch {
            first: self.next,
            count: 1,
            call,
            within,
            rests_on,
            trace,
            gathering,
            answer,
        });
        self.unanswered += 1;
        Ok(())
    }

    /// Waits for the answer to the oldest batch.
    async fn answered(&mut self) {
        let Some(batch) = self.sent.front_mut() else { return };
        let answer = batch.answer.as_mut().await;
        let Some(batch) = self.sent.pop_front() else { return };
        self.unanswered -= batch.count;
        let outcome = answer.and_then(|reply| {
            let body = batch.call.mesh.received(&reply);
            if batch.gathering.is_some() {
                Refused::decode(body, batch.count)
            } else {
                Ok(Refused::default())
            }
        });
        batch.call.went(outcome.as_ref().map(|_| ()));
        self.settle(batch.first, batch.count, outcome);
    }

    fn settle(&mut self, first: u64, count: usize, outcome: Result<Refused, Fault>) {
        match outcome {
            Ok(refused) => {
                let mut failed = 0;
                for (at, fault) in refused.each() {
                    failed += 1;
                    self.told.fails(first + at as u64, fault);
                }
                self.told.taken += (count - failed) as u64;
            }
            Err(fault) => {
                self.to.doubt(&fault);
                (0..count as u64).for_each(|at| self.told.fails(first + at, &fault));
            }
        }
    }
}

/// Puts a message on its way to another node: under a head that others may join, where that is possible.
fn send<M: Remote>(
    mesh: &Mesh,
    owner: &NodeId,
    call: &CallState,
    message: &M,
) -> Result<(Option<Arc<Gathering>>, Carried), Fault> {
    understood::<M>(mesh, owner)?;
    let body = telemetry::part(names::ENCODE, || pack(M::NAME, message))?;
    let request = |body| Request::post(M::NAME, call.class.clone(), body, headers(call));
    if call.key.is_some() || !Gathering::fits(body.len()) || !mesh.carrier(owner)?.gathers(owner) {
        return Ok((None, mesh.carry_to::<M>(owner, &call.to, request(body), Waits::No)?));
    }
    let gathering = Arc::new(Gathering::default());
    assert!(gathering.push(&body), "an empty one takes what fits");
    let request = Request { kind: Kind::Posts, ..request(Bytes::new()) };
    let carried = mesh.carry_gathered::<M>(owner, &call.to, request, &gathering)?;
    Ok((Some(gathering), carried))
}

fn not_encoded<M: Remote>(error: rhumb_core::codec::CodecError) -> Fault {
    Fault::not_sent(FaultKind::Decode { name: M::NAME.to_owned(), reason: error.to_string() })
}
