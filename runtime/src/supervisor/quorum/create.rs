//! Pools are created: their range first, then their units.
//!
//! * It decides: whether a pool may keep its rows in a range at all, and that a name is one pool's, whatever its durability.
//! * It never does: create a pool anywhere but at its home, which alone knows which names are taken; mint (its ledger does).

use std::time::Duration;

use rhumb_actors::escrow::Answered;
use rhumb_actors::escrow::book::{Answer, Request, would_create};
use rhumb_actors::escrow::messages::{CreatePool, Durability, Refusal, ShowPool, Standing};
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_core::{NodeId, PoolName, Region};
use rhumb_topology::policy::Use;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::route::{faulted, refused};
use super::{Known, Parts, Quorum};

/// Nodes that must be allowed to hold the class.
const NODES: usize = 3;
/// How long a node that has just started may take to read which pools have a range.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// When a pool may be asked for again where there are as many as there may be.
const FULL_FOR: Duration = Duration::from_secs(60);
/// How long other nodes may take to say whether there is a catalog.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// When a name may be asked for again that is just being taken.
const AGAIN: Duration = Duration::from_secs(1);

/// A name that is just being given to a pool with a range.
struct Naming<'a>(&'a Quorum, PoolName);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        self.0.0.creating.lock().remove(&self.1);
    }
}

impl Quorum {
    /// Creates a pool at its home, which this node is, as far as that is not the node's own escrow's. None: it is.
    pub(super) async fn create(&self, request: &CreatePool, within: Duration) -> Option<Answered> {
        let until = Instant::now() + within.mul_f32(0.9);
        // Who is not proven has read no catalog either, and gives no name to anybody.
        if !self.0.parts.ranges.have_read_pools()
            && let Err(refusal) = self.proven()
        {
            return match self.in_escrow(&request.name, until).await {
                Ok(_) => None,
                Err(Refusal::NoSuchPool(_)) => Some(refused(refusal)),
                Err(refusal) => Some(refused(refusal)),
            };
        }
        let known_by = until.min(Instant::now() + KNOWN_WITHIN);
        // A name that stands in a catalog which this node has not read, for its disk is a new one, is taken. Whoever cannot be asked
        // may have that catalog.
        while self.0.parts.ranges.others_may_know_pools(ASK_WITHIN).await {
            if Instant::now() >= known_by {
                return Some(refused(Refusal::Overloaded { retry_after: AGAIN }));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.look();
        let quorum = request.durability == Durability::Quorum;
        if self.known(&request.name).is_some() {
            if !quorum {
                return Some(refused(self.taken(&request.name, until).await));
            }
        } else {
            if self.0.creating.lock().contains(&request.name) {
                return Some(refused(Refusal::Overloaded { retry_after: AGAIN }));
            }
            if !quorum {
                return self.no_room(&request.name, until).await.map(refused);
            }
            if let Err(answered) = self.give_range(request, until).await {
                return Some(answered);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        let allowed = super::holders(&self.0.parts, &request.class);
        let mint = Request::Create { request: request.clone(), allowed };
        let me = self.0.parts.me.clone();
        let answered = self.ask_ledger(&request.name, &me, mint, left).await;
        if matches!(answered.outcome, Ok(Ok(_))) {
            self.learn(&request.name, &request.class).await;
        }
        Some(answered)
    }

    /// Why a name cannot be that of a pool whose rows are on disks.
    async fn taken(&self, name: &PoolName, until: Instant) -> Refusal {
        let left = until.saturating_duration_since(Instant::now());
        let show = Request::Show(ShowPool { pool: name.clone() });
        let me = self.0.parts.me.clone();
        match self.ask_ledger(name, &me, show, left).await.outcome {
            Ok(Ok(Answer::View(view))) => Refusal::PoolExists(Box::new(view.spec)),
            _ => Refusal::Invalid(format!(
                "a pool {name} with durability=quorum was begun: create it so (`--durability quorum`), or take another name"
            )),
        }
    }

    /// Creates the range of a pool, if there may be one.
    async fn give_range(&self, request: &CreatePool, until: Instant) -> Result<(), Answered> {
        let name = &request.name;
        if !self.0.creating.lock().insert(name.clone()) {
            return Err(refused(Refusal::Overloaded { retry_after: AGAIN }));
        }
        let _naming = Naming(self, name.clone());
        self.may_be(request).map_err(refused)?;
        if self.is_full().await {
            return Err(refused(Refusal::Overloaded { retry_after: FULL_FOR }));
        }
        // What is in the node's escrow now stays there: the name is taken here, and whoever comes after is told so.
        match self.in_escrow(name, until).await {
            Ok(Answer::View(view)) => return Err(refused(Refusal::PoolExists(Box::new(view.spec)))),
            Ok(_) => {}
            Err(Refusal::NoSuchPool(_)) => {}
            Err(refusal) => return Err(refused(refusal)),
        }
        let left = until.saturating_duration_since(Instant::now());
        let made = self.0.parts.ranges.create_pool(name, &request.class, left).await.map_err(faulted)?;
        made.map_err(|refusal| refused(no_range(&refusal)))?;
        let known = Known { class: request.class.clone(), owners: None };
        self.0.known.write().entry(name.clone()).or_insert(known);
        // Its keyspace is known here, or will be in a moment: a look begins to write the home's ledger.
        while !self.0.parts.ranges.pools().iter().any(|(pool, _)| pool == name) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.look();
        Ok(())
    }

    /// Why a pool whose rows would be on this node's disk is not created, if there are as many pools as there may be. One that is there is
    /// the escrow's to answer for.
    async fn no_room(&self, name: &PoolName, until: Instant) -> Option<Refusal> {
        if !self.is_full().await {
            return None;
        }
        match self.in_escrow(name, until).await {
            Ok(_) => None,
            Err(Refusal::NoSuchPool(_)) => Some(Refusal::Overloaded { retry_after: FULL_FOR }),
            Err(refusal) => Some(refusal),
        }
    }

    /// Whether this node knows as many pools as it may: those on its disk, and those with a range, which every node knows.
    async fn is_full(&self) -> bool {
        let on_disk = self.0.parts.local.report().await.map_or(0, |report| report.pools.len());
        self.0.parts.ranges.pools().len() + on_disk >= self.0.parts.settings.max_pools
    }

    async fn in_escrow(&self, name: &PoolName, until: Instant) -> Result<Answer, Refusal> {
        let (answers, answer) = oneshot::channel();
        let show = Request::Show(ShowPool { pool: name.clone() });
        let left = until.saturating_duration_since(Instant::now());
        let from = self.0.parts.me.region.clone();
        self.0.parts.local.ask(show, from, left, None, move |answered| drop(answers.send(answered.outcome)));
        match tokio::time::timeout(left, answer).await {
            Ok(Ok(Ok(answer))) => answer,
            _ => Err(Refusal::Overloaded { retry_after: AGAIN }),
        }
    }

    /// Whether this disk is the one that the mesh knows: names that a lost one knew may be taken.
    fn proven(&self) -> Result<(), Refusal> {
        match *self.0.parts.standing.borrow() {
            Standing::Proven => Ok(()),
            Standing::Unproven => Err(Refusal::Unproven),
            Standing::Restored => Err(Refusal::Restored),
        }
    }

    /// Whether a pool may keep its rows in a range.
    fn may_be(&self, request: &CreatePool) -> Result<(), Refusal> {
        let Parts { me, founding, settings, policy, ranges, .. } = &self.0.parts;
        let CreatePool { class, .. } = request;
        self.proven()?;
        let nodes: Vec<&NodeId> =
            founding.nodes().iter().filter(|node| policy.permits(&node.region, Use::Hold, class)).collect();
        if nodes.len() < NODES {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            let nodes = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
            return Err(Refusal::Invalid(format!(
                "durability=quorum needs {NODES} nodes that may hold class {class}, and the policy lets these: {nodes}; let \
                 more regions hold it, or create the pool with durability=local"
            )));
        }
        if ranges.is_personal(class) {
            return Err(Refusal::Invalid(format!(
                "class {class} is personal, and a ledger's rows are not one person's: create the pool under a class that is \
                 not, or with durability=local"
            )));
        }
        let allowed: Vec<Region> = super::holders(&self.0.parts, class);
        would_create(me, founding, settings, request, &allowed).map(drop)
    }
}

fn no_range(refusal: &KvRefusal) -> Refusal {
    match refusal {
        KvRefusal::Exists { class, .. } => Refusal::Invalid(format!(
            "a pool of this name was begun under class {class}: take that, or another name"
        )),
        refusal => Refusal::Invalid(format!(
            "durability=quorum keeps a pool's rows in a range, and none can be had now: {refusal}"
        )),
    }
}
