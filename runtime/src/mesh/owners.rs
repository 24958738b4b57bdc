//! Which node acts for actors of types that move, as this node has read the fences.
//!
//! * It decides nothing: [`rhumb_actors::failover`] does. It keeps what was read last, and asks the clocks.
//! * It never does: read the fences (the ranges of a node do, or a test), or keep an owner that they do not name.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::failover::acting::begins;
use rhumb_actors::failover::{Begins, Permits, Table, Whose, Why};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Now};
use tokio::sync::watch;

use super::{Mesh, Whereabouts};
use crate::clock::NodeClock;
use crate::host::Hosts;
use crate::host::id::Shown;

/// How soon instances are let go that may not act any more, at the latest.
const LOOKS: Duration = Duration::from_millis(100);
/// The same where no type moves: one may be hosted at any time.
const RESTS: Duration = Duration::from_secs(1);
/// When to ask again where nobody acts: the next reading of the fences may say otherwise.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);

/// What this node has read of the fences. Clones are one.
#[derive(Clone)]
pub(crate) struct Owners(Arc<Inner>);

struct Inner {
    permits: Mutex<Permits>,
    clock: NodeClock,
    read: watch::Sender<Arc<Table>>,
}

/// The nodes that may hold an actor, in their order of preference, under a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// The version of the policy, and one; zero of none.
    pub(crate) policy: u64,
    pub(crate) nodes: Arc<[NodeId]>,
}

impl Order {
    /// The same, found after another one: where they have the same nodes there is one list of them.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        let same = before.filter(|before| before.nodes == self.nodes);
        Self { nodes: same.map_or(self.nodes, |before| before.nodes), ..self }
    }
}

impl Owners {
    /// None was read yet. A reading lasts for so long.
    pub(crate) fn new(lasts: Duration, clock: NodeClock) -> Self {
        let permits = Mutex::new(Permits::new(lasts));
        Self(Arc::new(Inner { permits, clock, read: watch::Sender::new(Arc::default()) }))
    }

    /// All fences were read strongly: asked for then, and answered now.
    pub(crate) fn read(&self, asked: Now, table: Table) {
        let last = {
            let mut permits = self.0.permits.lock();
            permits.read(asked, self.0.clock.now(), Arc::new(table));
            Arc::clone(permits.last())
        };
        self.0.read.send_if_modified(|known| {
            let newer = *known != last;
            *known = last;
            newer
        });
    }

    /// What this node may act by at this moment. Nothing while its clock is not good enough.
    pub(crate) fn permit(&self) -> Option<Arc<Table>> {
        let clock = &self.0.clock;
        clock.strong_time().ok()?;
        let wall_ms = u64::try_from(clock.wall_micros() / 1_000).unwrap_or(0);
        self.0.permits.lock().at(clock.now(), wall_ms).cloned()
    }

    /// What was read last, whether or not it still counts.
    pub(crate) fn last(&self) -> Arc<Table> {
        Arc::clone(self.0.permits.lock().last())
    }

    /// Each reading that differs from the one before; who does not look in between sees the newest.
    pub(crate) fn readings(&self) -> watch::Receiver<Arc<Table>> {
        self.0.read.subscribe()
    }

    /// Lets go what may not act any more, for as long as there are hosts.
    async fn keep(self, mesh: Mesh, hosts: Weak<Hosts>) {
        let (mut readings, mut looked) = (self.readings(), None);
        let mut every = LOOKS;
        loop {
            tokio::time::timeout(every, readings.changed()).await.ok();
            let now = (self.permit().map(|table| table.changes()), mesh.policy_version());
            let Some(hosts) = hosts.upgrade() else { return };
            every = if hosts.all().any(|home| home.moves()) { LOOKS } else { RESTS };
            if looked != Some(now) {
                looked = Some(now);
                for home in hosts.all() {
                    home.let_go().await;
                }
            }
        }
    }
}

impl Mesh {
    /// From now on actors of types that move are where these say. Must be called within tokio, after [`Mesh::hosts`].
    pub(crate) fn moves_by(&self, owners: Owners, hosts: &Arc<Hosts>) {
        assert!(self.inner.owners.set(owners.clone()).is_ok(), "a mesh is told once who acts for whom");
        tokio::spawn(owners.keep(self.clone(), Arc::downgrade(hosts)));
    }

    /// What was read of the fences, where somebody reads them.
    pub(crate) fn owners(&self) -> Option<&Owners> {
        self.inner.owners.get()
    }

    /// The same, for a type of actors that move, as this node hosts it.
    pub(super) fn moving(&self, kind: &str) -> Option<&Owners> {
        let owners = self.owners()?;
        self.hosted()?.home(kind)?.moves().then_some(owners)
    }

    /// The version of the policy, and one; zero of none.
    pub(crate) fn policy_number(&self) -> u64 {
        self.policy_version().map_or(0, |version| version.saturating_add(1))
    }

    /// The nodes that may hold an actor, in their order of preference.
    pub(crate) fn order(&self, id: &Shown, class: &DataClass) -> Result<Order, Fault> {
        let Whereabouts::Known(places) = &self.inner.places else {
            return Err(super::asking::not_hosted(self, id.kind));
        };
        let policy = self.policy_number();
        Ok(Order { policy, nodes: places.order(id, class)?.into_iter().cloned().collect() })
    }

    /// What this node may begin of an actor that these may hold.
    pub(crate) fn begins(&self, owners: &Owners, order: &Order) -> Begins {
        let Some(me) = self.node() else { return Begins::Nowhere(Why::NoPermit) };
        begins(owners.permit().as_deref(), me, order.nodes.iter())
    }

    /// The node of an actor of a type that moves, as this one has read it last.
    pub(super) fn moved_to(&self, owners: &Owners, id: &Shown, class: &DataClass) -> Result<NodeId, Fault> {
        let order = self.order(id, class)?;
        // Another node may know more.
        if owners.permit().is_none() {
            return Err(unowned(&Why::NoPermit, &order));
        }
        match owners.last().whose(order.nodes.iter()) {
            Whose::Of(node, _) => Ok(node),
            Whose::Nobody(why) => Err(unowned(&why, &order)),
        }
    }
}

/// What this node may begin of an actor, as the answer to a message for it.
pub(crate) fn taken(begins: &Begins, kind: &str, order: &Order) -> Result<(), Fault> {
    match begins {
        Begins::Here(_) => Ok(()),
        Begins::At(node) => {
            let moved = format!("another node owns this actor of type {kind}: {node}");
            Err(Fault { retry_after: Some(AGAIN), ..Fault::not_sent(FaultKind::Moved(moved)) })
        }
        Begins::Nowhere(why) => Err(unowned(why, order)),
    }
}

fn unowned(why: &Why, order: &Order) -> Fault {
    let why = match why {
        Why::Fenced(node) => format!("{node} is fenced until all have stopped that acted as it"),
        Why::NoPermit => {
            "the node that was asked has not read the fences lately, or its clock is not good enough"
                .to_owned()
        }
        Why::AllAway => {
            let regions: BTreeSet<_> = order.nodes.iter().map(|node| node.region.as_str()).collect();
            let regions: Vec<_> = regions.into_iter().collect();
            format!("all nodes that may hold it are away (of {})", regions.join(", "))
        }
    };
    Fault { retry_after: Some(AGAIN), ..Fault::not_sent(FaultKind::Unowned(why)) }
}
