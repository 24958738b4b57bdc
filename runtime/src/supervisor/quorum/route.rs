//! The way of a request to a ledger in a range: to the owner that is asked, at the node that writes its ledger now.
//!
//! * It decides: whose ledger is asked, and how often. All that is asked here may be asked twice: by its key, or by the
//!   name of its hold.
//! * It never does: answer in a ledger's place. Where nobody writes one, that is said: never that all is sold.

use std::sync::Arc;
use std::time::Duration;

use rhumb_actors::escrow::Answered;
use rhumb_actors::escrow::book::{Answer, Request};
use rhumb_actors::escrow::messages::{
    AskLedger, Hold, Key, LEDGER_WORD, LedgerAnswer, LedgerAsk, LedgerWord, PeerMessage, Refusal,
};
use rhumb_core::{DataClass, Delivery, Direction, Fault, FaultKind, Gate, NodeId, Passage, PoolName, Region};
use rhumb_topology::{owner_among, pool_home};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Known, Ledger, Parts, Quorum};
use crate::supervisor::ranges::Acts;

/// After how long a ledger is asked again that nobody wrote, or of which nobody knew who does.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long a ledger elsewhere has to answer before it is looked up again who writes it. A hold waits two seconds for units.
const ATTEMPT: Duration = Duration::from_secs(4);
/// When a hold may be asked again that came by a way that is not open yet.
const NEW: Duration = Duration::from_millis(500);
/// The kind under which keys given by hand have their owner within the region, as with other pools.
const RAW_KEY: &str = "raw-key";
/// The kind under which keys of nodes that have no part in a pool have their owner.
const KEPT_KEY: &str = "quorum-key";

impl Quorum {
    /// Asks, for a caller that stands in this region.
    pub(super) async fn asked(&self, request: Request, from: &Region, within: Duration) -> Answered {
        let pool = request.pool().clone();
        let Some(known) = self.known(&pool) else { return refused(Refusal::NoSuchPool(pool)) };
        if known.owners.is_none() {
            self.read_spec(&pool, &known.class, true);
        }
        let Parts { me, policy, .. } = &self.0.parts;
        let passage = Passage { direction: Direction::Ingress, class: &known.class, from, to: &me.region };
        if let Err(refusal) = policy.check(passage) {
            return faulted(Fault::not_sent(FaultKind::Gate(refusal)));
        }
        let mut answered = match self.ledger_for(&pool, &known, &request) {
            Ok(owner) => self.ask_ledger(&pool, &owner, request, within).await,
            Err(refusal) => refused(refusal),
        };
        answered.class = known.class;
        answered
    }

    /// Whose ledger is asked.
    fn ledger_for(&self, pool: &PoolName, known: &Known, request: &Request) -> Result<NodeId, Refusal> {
        let Parts { me, founding, .. } = &self.0.parts;
        let Some(owners) = &known.owners else {
            // It is being created, or was just now.
            return Err(Refusal::Exhausted { retry_after: NEW });
        };
        let home = pool_home(founding, pool);
        let of_hold = |hold: &rhumb_actors::escrow::HoldId| {
            let known = owners.contains(&hold.owner);
            if known { Ok(hold.owner.clone()) } else { Err(Refusal::NoSuchHold(hold.clone())) }
        };
        match request {
            Request::Hold(hold) => self.keeper(hold, owners),
            Request::Confirm(confirm) => of_hold(&confirm.hold),
            Request::Release(release) => of_hold(&release.hold),
            Request::Return(request) => of_hold(&request.hold),
            Request::Show(_) => Ok(if owners.contains(me) { me } else { home }.clone()),
            Request::ReadRow(_) if owners.contains(me) => Ok(me.clone()),
            Request::ReadRow(read) => Err(Refusal::NoSuchPool(read.pool.clone())),
            Request::Create { .. } => Ok(home.clone()),
            Request::Attest(attest) => Err(Refusal::Invalid(format!(
                "pool {} has durability=quorum: its rows are on a majority of its range's replicas, and there is nothing \
                 to attest",
                attest.pool
            ))),
        }
    }

    /// The owner whose ledger remembers a hold's key: for ever the same one.
    fn keeper(&self, hold: &Hold, owners: &[NodeId]) -> Result<NodeId, Refusal> {
        let Parts { me, founding, .. } = &self.0.parts;
        if hold.hops > 0 {
            // A node that does not know yet where the pool's rows stand has passed it on; it will know in a moment.
            return Err(Refusal::Exhausted { retry_after: NEW });
        }
        match &hold.key {
            Key::Made { home, .. } if !founding.contains(home) => {
                Err(Refusal::Invalid(format!("the key names {home}, which is not a node of this mesh")))
            }
            Key::Made { home, .. } if owners.contains(home) => Ok(home.clone()),
            key @ Key::Made { .. } => {
                let owner = owner_among(owners, KEPT_KEY, &key.to_string());
                owner.cloned().ok_or_else(|| Refusal::NoSuchPool(hold.pool.clone()))
            }
            Key::Raw(text) => {
                let here = owners.iter().filter(|owner| owner.region == me.region);
                owner_among(here, RAW_KEY, text).cloned().ok_or_else(|| {
                    let regions: Vec<_> = owners.iter().map(|owner| owner.region.to_string()).collect();
                    Refusal::Invalid(format!(
                        "a key given by hand is of the region that is asked, and {} has no part in pool {}: ask in {}, \
                         or leave the key to the client",
                        me.region,
                        hold.pool,
                        regions.join(", ")
                    ))
                })
            }
        }
    }

    /// Asks a ledger, wherever it is written, as long as there is time.
    pub(super) async fn ask_ledger(
        &self,
        pool: &PoolName,
        owner: &NodeId,
        request: Request,
        within: Duration,
    ) -> Answered {
        let until = Instant::now() + within.mul_f32(0.95);
        let Some(known) = self.known(pool) else { return refused(Refusal::NoSuchPool(pool.clone())) };
        let nobody = || {
            let why =
                format!("nobody writes the ledger of {owner} in pool {pool} now: it is lost, or was fenced");
            Fault::not_sent(FaultKind::Unreachable(why))
        };
        let (mut last, mut unknown) = (None, false);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answered = match self.writer(owner, &known) {
                Acts::Nobody => None,
                Acts::This(node) if node == self.0.parts.me => {
                    Some(self.ask_here(pool, owner, request.clone(), left).await)
                }
                Acts::This(node) => {
                    Some(self.ask_there(&node, &known.class, owner, request.clone(), left.min(ATTEMPT)).await)
                }
            };
            match answered {
                Some(answered) if !may_pass(&answered) => return answered,
                Some(Answered { outcome: Err(fault), .. }) => {
                    unknown |= fault.delivery() == Delivery::Unknown;
                    last = Some(fault);
                }
                _ => {}
            }
            if Instant::now() + AGAIN_AFTER >= until {
                let fault = last.unwrap_or_else(nobody);
                // One who was asked before, and did not answer, may have done it.
                let delivery = if unknown { Delivery::Unknown } else { fault.delivery() };
                return faulted(Fault { delivery, ..fault });
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    fn writer(&self, owner: &NodeId, known: &Known) -> Acts {
        match &known.owners {
            Some(owners) => self.0.parts.ranges.acts(&self.order(owner, owners, &known.class)),
            None => self.0.parts.ranges.acts(std::slice::from_ref(owner)),
        }
    }

    /// Asks a ledger that is written here.
    pub(super) async fn ask_here(
        &self,
        pool: &PoolName,
        owner: &NodeId,
        request: Request,
        within: Duration,
    ) -> Answered {
        let of = (pool.clone(), owner.clone());
        let open = |ledger: &Ledger| (ledger.handle.clone(), Arc::clone(&ledger.refused));
        let (handle, refused) = self.0.ledgers.lock().get(&of).map(open).unwrap_or_default();
        let refusal = || {
            let why = refused.get()?;
            Some(FaultKind::Storage(format!(
                "the range of pool {pool} does not take the ledger of {owner}: {why}"
            )))
        };
        let Some(handle) = handle else {
            if let Some(refusal) = refusal() {
                return faulted(Fault::not_sent(refusal));
            }
            let why = format!("the ledger of {owner} in pool {pool} is not written by {}", self.0.parts.me);
            return faulted(Fault::not_sent(FaultKind::Moved(why)));
        };
        let (answers, answer) = oneshot::channel();
        let from = self.0.parts.me.region.clone();
        handle.ask(request, from, within, None, move |answered| drop(answers.send(answered)));
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => faulted(Fault::unknown(refusal().unwrap_or_else(|| {
                FaultKind::Moved(format!(
                    "the ledger of {owner} in pool {pool} was taken over while it was asked"
                ))
            }))),
            Err(_) => {
                let why = format!("waiting for the ledger of {owner} in pool {pool}");
                faulted(Fault::unknown(FaultKind::Deadline(why)))
            }
        }
    }

    async fn ask_there(
        &self,
        node: &NodeId,
        class: &DataClass,
        owner: &NodeId,
        request: Request,
        within: Duration,
    ) -> Answered {
        let asks = match request {
            Request::Hold(hold) => LedgerAsk::Hold(hold),
            Request::Confirm(confirm) => LedgerAsk::Confirm(confirm),
            Request::Release(release) => LedgerAsk::Release(release),
            Request::Return(request) => LedgerAsk::Return(request),
            Request::Show(show) => LedgerAsk::Show(show),
            Request::ReadRow(read) => LedgerAsk::ReadRow(read),
            Request::Create { .. } | Request::Attest(_) => {
                let why = "a pool is created at its home alone".to_owned();
                return faulted(Fault::not_sent(FaultKind::Moved(why)));
            }
        };
        let ask = AskLedger { class: class.clone(), ledger: owner.clone(), asks };
        match self.0.parts.mesh.ask_node(node, &ask, class.clone(), within).await {
            Ok((answer, class)) => Answered { outcome: Ok(answer.map(told)), class },
            Err(fault) => faulted(fault),
        }
    }

    /// Says something in an owner's name to another owner's ledger. It may be lost.
    pub(super) fn says(
        &self,
        pool: &PoolName,
        class: &DataClass,
        from: &NodeId,
        to: &NodeId,
        message: PeerMessage,
    ) {
        let Some(known) = self.known(pool) else { return };
        let Acts::This(node) = self.writer(to, &known) else { return };
        if node == self.0.parts.me {
            return self.heard(LedgerWord { from: from.clone(), to: to.clone(), message });
        }
        let word = LedgerWord { from: from.clone(), to: to.clone(), message };
        if let Err(fault) = self.0.parts.mesh.tell_node(&node, LEDGER_WORD, &word, class.clone()) {
            tracing::trace!(to = %node, %fault, "not told; it is said again");
        }
    }

    /// A ledger says something to one that is written here.
    pub(super) fn heard(&self, word: LedgerWord) {
        let LedgerWord { from, to, message } = word;
        let PeerMessage::Level(level) = &message else { return };
        let known = self.known(&level.spec.name);
        if let Some(Known { class, owners: None }) = &known {
            self.read_spec(&level.spec.name, class, true);
        }
        let of = (level.spec.name.clone(), to);
        let handle = self.0.ledgers.lock().get(&of).and_then(|ledger| ledger.handle.clone());
        if let Some(handle) = handle {
            handle.peer(from, message, None);
        }
    }
}

/// Whether it may go well if the ledger is asked again: nobody wrote it, or nobody knows.
fn may_pass(answered: &Answered) -> bool {
    let Err(fault) = &answered.outcome else { return false };
    let moved = matches!(
        fault.kind,
        FaultKind::Moved(_) | FaultKind::Unreachable(_) | FaultKind::Draining | FaultKind::Deadline(_)
    );
    let stays = matches!(fault.kind, FaultKind::Gate(_) | FaultKind::Storage(_));
    moved || (fault.delivery() == Delivery::NotSent && !stays)
}

fn told(answer: LedgerAnswer) -> Answer {
    match answer {
        LedgerAnswer::Held(held) => Answer::Held(held),
        LedgerAnswer::Settled(settled) => Answer::Settled(settled),
        LedgerAnswer::Returned(returned) => Answer::Returned(returned),
        LedgerAnswer::View(view) => Answer::View(Box::new(view)),
        LedgerAnswer::Row(row) => Answer::Row(Box::new(row)),
    }
}

pub(super) fn refused(refusal: Refusal) -> Answered {
    Answered { outcome: Ok(Err(refusal)), class: DataClass::control() }
}

pub(super) fn faulted(fault: Fault) -> Answered {
    Answered { outcome: Err(fault), class: DataClass::control() }
}
