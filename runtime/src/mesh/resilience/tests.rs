//! Over real links: QUIC through the relay of a wide-area network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use rhumb_actors::{remote, remote_actor};
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, Delivery, Epoch, FaultKind, Gate, NodeId, Principal, Role};
use rhumb_topology::Founding;
use rhumb_topology::policy::PolicySnapshot;
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::relay::{Cut, LinkPlan, Relay, RelayLink, Wan};
use rhumb_transport::{Identity, Regions, Transport, TransportSettings, TrustDomain};

use super::*;
use crate::clock::NodeClock;
use crate::host::arbiters::Arbiters;
use crate::host::{Host, HostList, Hosts};
use crate::mesh::registry::Registry;
use crate::mesh::{Carrier, serve};

const PATIENCE: Duration = Duration::from_secs(20);

#[remote(name = "far.Count", class = "control", reply = u64, idempotent, deadline = "20s", crate = rhumb_actors)]
struct Count {}

struct Counter(Arc<AtomicUsize>);

#[remote_actor(name = "far.counter", class = "control", accepts(Count), crate = rhumb_actors)]
impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = u64;
    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        self.0.fetch_add(1, Ordering::Relaxed) as u64 + 1
    }
}

struct Node {
    mesh: Mesh,
    transport: Transport,
    hosts: Arc<Hosts>,
}

/// A node of a mesh of its own, whose actors count into this.
async fn node(id: &NodeId, founding: &Founding, authority: &Authority, runs: &Arc<AtomicUsize>) -> Node {
    let policy = Arc::new(PolicySnapshot::none());
    let clock = NodeClock::for_tests(1_767_225_600_000, Duration::from_millis(500));
    let (me, swap) = (id.clone(), Arc::new(ArcSwap::new(Arc::clone(&policy))));
    let mesh = Mesh::new(me, founding.clone(), swap, clock.clone());
    let (mut list, runs) = (HostList::default(), Arc::clone(runs));
    list.add(Host::new(move |_: &_| Counter(Arc::clone(&runs))));
    let arbiters = Arbiters::threads(1, Duration::from_secs(1)).await.expect("threads");
    let hosts = Hosts::start(list, &mesh, arbiters).expect("hosted");
    mesh.hosts(&hosts, Epoch(1));
    let nobody = Box::new(|_: &rhumb_transport::Peer, _| ());
    let mut registry = Registry::new(clock, tokio::runtime::Handle::current(), nobody);
    registry.hosting(mesh.clone());
    serve(&mut registry, &mesh).expect("served");
    let hello = Identity {
        cluster: ClusterId(7),
        node: Some(id.clone()),
        founding_hash: founding.hash(),
        manifest: registry.manifest(),
        public_key: Vec::new(),
        incarnation: 1,
        build: "test".into(),
    };
    let who = Principal { role: Role::Node, region: id.region.clone(), name: id.name.to_string() };
    let hour = Validity::for_the_next(Duration::from_secs(3_600));
    let credentials = authority.issue(&who, hour).expect("issued").credentials().expect("usable");
    let settings = TransportSettings {
        probe_interval: Duration::from_millis(50),
        silence_limit: Duration::from_millis(400),
        connect_backoff_max: Duration::from_millis(200),
        ..TransportSettings::default()
    };
    let regions = Regions::of(founding.regions().into_iter().cloned());
    let listen = "127.0.0.1:0".parse().expect("an address");
    let transport = Transport::bind(
        listen,
        &credentials,
        regions,
        hello,
        settings,
        policy as Arc<dyn Gate>,
        Arc::new(registry),
    )
    .expect("bound");
    mesh.bound(Carrier::Quic(transport.clone()));
    Node { mesh, transport, hosts }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_real_link_that_is_cut_what_is_retried_is_answered_once_it_is_healed() {
    let domain = TrustDomain::new("mesh.example").expect("a trust domain");
    let two_hours = Validity::for_the_next(Duration::from_secs(7_200));
    let authority = Authority::create(domain, two_hours).expect("an authority");
    let ids: Vec<NodeId> = ["eu/n1", "us/n1"].iter().map(|id| id.parse().expect("a node")).collect();
    let founding = Founding::new(ids.iter().cloned()).expect("a list");
    let runs = Arc::new(AtomicUsize::new(0));
    let eu = node(&ids[0], &founding, &authority, &runs).await;
    let us = node(&ids[1], &founding, &authority, &runs).await;
    let mut wan = Wan::new(&Seed::new(5));
    let plan = LinkPlan { delay: Duration::from_millis(20), loss: 0.01, ..LinkPlan::default() };
    wan.link(&ids[0], &ids[1], plan.clone()).expect("planned");
    wan.link(&ids[1], &ids[0], plan).expect("planned");
    let target = |node: &Node| Some(node.transport.local_addr().expect("an address"));
    let link =
        |from: usize, to: usize, target| RelayLink { from: ids[from].clone(), to: ids[to].clone(), target };
    let relay = Relay::start(vec![link(0, 1, target(&us)), link(1, 0, target(&eu))], wan).expect("started");
    us.transport.add_peer(ids[0].clone(), relay.address(&ids[1], &ids[0]).expect("relayed"));
    assert!(us.transport.connected(&ids[0], PATIENCE).await);

    let counter = us.mesh.actor_in::<Counter>(&ids[0].region, "a");
    assert_eq!(counter.ask(Count {}).await, Ok(1));
    relay.cut(Cut::Node(ids[0].clone())).expect("cut");
    let fault = counter.ask(Count {}).await.expect_err("the link is found to be cut");
    assert!(
        matches!(fault.kind, FaultKind::Unreachable(_)) && fault.delivery() == Delivery::Unknown,
        "{fault}"
    );
    let before = runs.load(Ordering::Relaxed);
    let (retried, ()) = tokio::join!(async { counter.ask(Count {}).retried().await }, async {
        let made = &us.mesh.resilience().counts.made;
        while made.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        relay.heal_all();
    });
    assert!(retried.is_ok(), "{retried:?}");
    assert_eq!(runs.load(Ordering::Relaxed), before + 1, "what was not sent did not run");
    assert_eq!(us.mesh.resilience().counts.answered.load(Ordering::Relaxed), 1);
    for node in [us, eu] {
        node.transport.close().await;
        node.hosts.close(PATIENCE).await;
        node.hosts.stop();
    }
}
