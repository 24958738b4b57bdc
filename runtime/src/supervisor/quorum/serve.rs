//! Where requests come in: each goes to the node's own escrow, or to the ledgers in ranges.

use std::time::Duration;

use rhumb_actors::escrow::book::{Answer, Request};
use rhumb_actors::escrow::messages::{
    AskLedger, Durability, LEDGER_WORD, LedgerAnswer, LedgerAsk, LedgerWord, Refusal,
};
use rhumb_actors::escrow::{Answered, EscrowHandle};
use rhumb_actors::span::Span;
use rhumb_core::{Fault, FaultKind, Region};
use rhumb_topology::pool_home;
use tokio::time::Instant;

use super::Quorum;
use crate::mesh::registry::{Call, Registry, ServedTwice};

/// For how long a node that does not know all pools with a range waits to know them before it says so: other nodes may know.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
/// After how long it is looked again whether all pools with a range are known.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// All pools of this node, whatever their durability.
#[derive(Clone)]
pub(in crate::supervisor) struct Desk {
    escrow: EscrowHandle,
    quorum: Quorum,
}

impl Desk {
    pub(in crate::supervisor) fn new(escrow: EscrowHandle, quorum: Quorum) -> Self {
        Self { escrow, quorum }
    }

    /// As [`EscrowHandle::ask`].
    pub(in crate::supervisor) fn ask(
        &self,
        request: Request,
        from: Region,
        within: Duration,
        span: Option<Span>,
        then: impl FnOnce(Answered) + Send + 'static,
    ) {
        let quorum = &self.quorum;
        let creates = match &request {
            Request::Create { request, .. } => {
                let home = *pool_home(&quorum.0.parts.founding, &request.name) == quorum.0.parts.me;
                // What is asked of the escrow at once needs no other thread. It counts the pools on its disk alone.
                let plain = request.durability == Durability::Local
                    && quorum.0.parts.ranges.have_read_pools()
                    && quorum.0.parts.ranges.pools().is_empty();
                let free = quorum.known(&request.name).is_none()
                    && !quorum.0.creating.lock().contains(&request.name);
                if home && !(plain && free) { Some(request.clone()) } else { None }
            }
            request if quorum.known(request.pool()).is_none() => None,
            _ => {
                let quorum = self.quorum.clone();
                let asks = async move { then(quorum.asked(request, &from, within).await) };
                drop(self.quorum.0.parts.ranges.spawn(asks));
                return;
            }
        };
        let settles = matches!(request, Request::Confirm(_) | Request::Release(_) | Request::Return(_));
        let Some(create) = creates else {
            if !settles || quorum.0.parts.ranges.sees_all_pools() {
                return self.escrow.ask(request, from, within, span, then);
            }
            let (desk, until) = (self.clone(), Instant::now() + within.mul_f32(0.9));
            let of = (request.clone(), from.clone());
            let then = move |answered: Answered| match answered.outcome {
                Ok(Err(Refusal::NoSuchHold(_) | Refusal::NoSuchPool(_))) => {
                    desk.settle_when_known(of, answered, until, then);
                }
                _ => then(answered),
            };
            return self.escrow.ask(request, from, within, span, then);
        };
        let (quorum, escrow) = (self.quorum.clone(), self.escrow.clone());
        drop(self.quorum.0.parts.ranges.spawn(async move {
            match quorum.create(&create, within).await {
                Some(answered) => then(Answered { class: create.class, ..answered }),
                None => escrow.ask(request, from, within, None, then),
            }
        }));
    }

    /// A node that has just started does not know yet which pools have a range: that its own escrow has no such hold
    /// says nothing of those. It is denied as soon as they are known, or asked of the ledger that made it.
    fn settle_when_known(
        &self,
        (request, from): (Request, Region),
        denied: Answered,
        until: Instant,
        then: impl FnOnce(Answered) + Send + 'static,
    ) {
        let quorum = self.quorum.clone();
        drop(self.quorum.0.parts.ranges.spawn(async move {
            let known_by = until.min(Instant::now() + KNOWN_WITHIN);
            while !quorum.0.parts.ranges.sees_all_pools() && Instant::now() < known_by {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // How far it is known, before it is looked at.
            let all = quorum.0.parts.ranges.sees_all_pools();
            if quorum.known(request.pool()).is_some() {
                let left = until.saturating_duration_since(Instant::now());
                then(quorum.asked(request, &from, left).await);
            } else if all {
                then(denied);
            } else {
                let why = "this node has started and does not know yet which pools have a range: ask another one, \
                           or again";
                let fault = Fault::not_sent(FaultKind::Unreachable(why.to_owned()));
                let fault = Fault { retry_after: Some(KNOWN_WITHIN), ..fault };
                then(Answered { outcome: Err(fault), ..denied });
            }
        }));
    }
}

/// Serves what nodes ask and tell each other of ledgers.
pub(in crate::supervisor) fn serve(registry: &mut Registry, quorum: &Quorum) -> Result<(), ServedTwice> {
    let here = quorum.clone();
    registry.serve(move |call: Call<AskLedger>| {
        let here = here.clone();
        async move {
            let AskLedger { class, ledger, asks } = call.message;
            let request = match asks {
                LedgerAsk::Hold(hold) => Request::Hold(hold),
                LedgerAsk::Confirm(confirm) => Request::Confirm(confirm),
                LedgerAsk::Release(release) => Request::Release(release),
                LedgerAsk::Return(request) => Request::Return(request),
                LedgerAsk::Show(show) => Request::Show(show),
                LedgerAsk::ReadRow(read) => Request::ReadRow(read),
            };
            let pool = request.pool().clone();
            match here.known(&pool) {
                Some(known) if known.class == class => {}
                Some(known) => {
                    let kind = FaultKind::ClassLowered { from: known.class, to: class };
                    return Err(Fault::not_sent(kind));
                }
                None => {
                    let why = format!("pool {pool} is not known here to have a range");
                    return Err(Fault::not_sent(FaultKind::Moved(why)));
                }
            }
            let answered = here.ask_here(&pool, &ledger, request, call.within.mul_f32(0.95)).await;
            let answer: Result<LedgerAnswer, Refusal> = match answered.outcome? {
                Ok(Answer::Held(held)) => Ok(LedgerAnswer::Held(held)),
                Ok(Answer::Settled(settled)) => Ok(LedgerAnswer::Settled(settled)),
                Ok(Answer::Returned(returned)) => Ok(LedgerAnswer::Returned(returned)),
                Ok(Answer::View(view)) => Ok(LedgerAnswer::View(*view)),
                Ok(Answer::Row(row)) => Ok(LedgerAnswer::Row(*row)),
                Ok(Answer::Created(_) | Answer::Attested(_)) => {
                    return Err(Fault::ran(FaultKind::Handler(
                        "a ledger answered something else".to_owned(),
                    )));
                }
                Err(refusal) => Err(refusal),
            };
            Ok((answer, class))
        }
    })?;
    let here = quorum.clone();
    registry.hear(LEDGER_WORD, move |call: Call<LedgerWord>| {
        let own = call.message.message.class();
        if own != call.class {
            tracing::warn!(from = %call.from.principal, "a ledger's word came under another class; dropped");
            return Err(Fault::not_sent(FaultKind::ClassLowered { from: own, to: call.class }));
        }
        if call.from.node.is_some() {
            here.heard(call.message);
        }
        Ok(())
    })
}
