//! Over real links: QUIC through the relay of a wide-area network, between nodes and for a program outside of the mesh.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use rhumb_actors::delivery::DeliverySettings;
use rhumb_actors::{remote, remote_actor};
use rhumb_core::rng::Seed;
use rhumb_core::{
    ClusterId, DataClass, Delivery, Epoch, FaultKind, Gate, Incarnation, NodeId, Principal, Role,
};
use rhumb_storage::MemoryDisk;
use rhumb_topology::Founding;
use rhumb_topology::policy::PolicySnapshot;
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::relay::{Cut, LinkPlan, Relay, RelayLink, Wan};
use rhumb_transport::{Identity, Regions, Transport, TransportSettings, TrustDomain};
use tokio::task::JoinHandle;

use super::*;
use crate::client::MeshClient;
use crate::client::directory::Directory;
use crate::clock::NodeClock;
use crate::delivery::{self, Disk, Memory, Recovered};
use crate::host::arbiters::Arbiters;
use crate::host::{Host, HostList, Hosts, Reply};
use crate::identity::{CA_FILE, IDENTITY_FILE};
use crate::mesh::registry::{Call, Registry};
use crate::mesh::{Carrier, MeshAddr, serve};

const PATIENCE: Duration = Duration::from_secs(20);

#[remote(name = "far.Count", class = "control", reply = u64, idempotent, deadline = "20s", crate = rhumb_actors)]
struct Count {}

/// Counts once a key, and answers when it may.
#[remote(name = "far.Take", class = "control", reply = u64, key = order, deadline = "20s", crate = rhumb_actors)]
struct Take {
    order: String,
}

/// Which node is it?
#[remote(name = "far.Name", class = "control", reply = String, idempotent, deadline = "20s", crate = rhumb_actors)]
struct Name {}

/// What the actors of a test have in common: how often they ran, and whether those that take may answer.
#[derive(Clone)]
struct World {
    runs: Arc<AtomicUsize>,
    answers: tokio::sync::watch::Sender<bool>,
}

impl World {
    fn new() -> Self {
        Self { runs: Arc::default(), answers: tokio::sync::watch::Sender::new(true) }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }
}

struct Counter(World);

#[remote_actor(name = "far.counter", class = "control", accepts(Count, Take), crate = rhumb_actors)]
impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = u64;
    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        self.0.runs.fetch_add(1, Ordering::Relaxed) as u64 + 1
    }
}

impl Handler<Take> for Counter {
    type Result = Reply<u64>;
    fn handle(&mut self, _: Take, _: &mut Context<Self>) -> Self::Result {
        let runs = self.0.runs.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        let mut answers = self.0.answers.subscribe();
        Reply::later(async move {
            answers.wait_for(|answers| *answers).await.expect("the test is there");
            runs
        })
    }
}

struct Node {
    id: NodeId,
    mesh: Mesh,
    transport: Transport,
    hosts: Arc<Hosts>,
    delivery: Option<JoinHandle<()>>,
}

impl Node {
    async fn end(self) {
        self.transport.close().await;
        self.delivery.iter().for_each(JoinHandle::abort);
        self.hosts.close(PATIENCE).await;
        self.hosts.stop();
    }
}

/// Lets a node keep answers to keys, and take letters.
fn deliver(mesh: &Mesh, registry: &mut Registry) -> JoinHandle<()> {
    let disk: Arc<dyn Disk> = Arc::new(Memory::open(&MemoryDisk::new()).expect("opened"));
    let recovered = Recovered::read(&*disk, &DeliverySettings::default(), Incarnation(1)).expect("read");
    let (delivery, task) = delivery::Delivery::start(mesh, disk, recovered, |why| panic!("{why}"));
    mesh.delivers(delivery.clone());
    delivery::parcel::serve(registry, &delivery).expect("served");
    task
}

/// A node of a mesh of its own, whose actors are of this world, and which keeps answers to keys or not.
async fn node(id: &NodeId, founding: &Founding, authority: &Authority, world: &World, keeps: bool) -> Node {
    let policy = Arc::new(PolicySnapshot::none());
    let clock = NodeClock::for_tests(1_767_225_600_000, Duration::from_millis(500));
    let (me, swap) = (id.clone(), Arc::new(ArcSwap::new(Arc::clone(&policy))));
    let mesh = Mesh::new(me.clone(), founding.clone(), swap, clock.clone());
    let (mut list, world) = (HostList::default(), world.clone());
    list.add(Host::new(move |_: &_| Counter(world.clone())));
    let arbiters = Arbiters::threads(1, Duration::from_secs(1)).await.expect("threads");
    let hosts = Hosts::start(list, &mesh, arbiters).expect("hosted");
    mesh.hosts(&hosts, Epoch(1));
    let nobody = Box::new(|_: &rhumb_transport::Peer, _| ());
    let mut registry = Registry::new(clock, tokio::runtime::Handle::current(), nobody);
    registry.hosting(mesh.clone());
    serve(&mut registry, &mesh).expect("served");
    let delivery = keeps.then(|| deliver(&mesh, &mut registry));
    let named = registry.serve(move |_: Call<Name>| {
        let name = me.to_string();
        async move { Ok((name, DataClass::control())) }
    });
    named.expect("served");
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
    Node { id: id.clone(), mesh, transport, hosts, delivery }
}

/// A mesh of eu and us, a program in us, and what lies between them: 20 ms to eu, 2 ms within us.
struct Far {
    world: World,
    eu: Node,
    us: Node,
    app: NodeId,
    folder: tempfile::TempDir,
    relay: Relay,
}

impl Far {
    async fn start() -> Self {
        Self::of(true).await
    }

    /// Whose nodes keep answers to keys, or not.
    async fn of(keep: bool) -> Self {
        let domain = TrustDomain::new("mesh.example").expect("a trust domain");
        let two_hours = Validity::for_the_next(Duration::from_secs(7_200));
        let authority = Authority::create(domain, two_hours).expect("an authority");
        let [eu, us, app] = ["eu/n1", "us/n1", "us/app"].map(|id| id.parse::<NodeId>().expect("a node"));
        let founding = Founding::new([eu.clone(), us.clone()]).expect("a list");
        let world = World::new();
        let eu = node(&eu, &founding, &authority, &world, keep).await;
        let us = node(&us, &founding, &authority, &world, keep).await;
        let mut wan = Wan::new(&Seed::new(5));
        let mut links = Vec::new();
        for (from, to, ms) in [(&us.id, &eu, 20), (&app, &eu, 20), (&app, &us, 2)] {
            let delay = Duration::from_millis(ms);
            let plan = LinkPlan { delay, loss: 0.01, ..LinkPlan::default() };
            wan.link(from, &to.id, plan.clone()).expect("planned");
            wan.link(&to.id, from, plan).expect("planned");
            let target = Some(to.transport.local_addr().expect("an address"));
            links.push(RelayLink { from: from.clone(), to: to.id.clone(), target });
        }
        let relay = Relay::start(links, wan).expect("started");
        us.transport.add_peer(eu.id.clone(), relay.address(&us.id, &eu.id).expect("relayed"));
        assert!(us.transport.connected(&eu.id, PATIENCE).await);
        let folder = tempfile::tempdir().expect("a directory");
        let who = Principal { role: Role::Client, region: us.id.region.clone(), name: "app".into() };
        let issued = authority.issue(&who, two_hours).expect("issued");
        let identity = folder.path().join(IDENTITY_FILE);
        std::fs::write(&identity, &issued.identity_pem).expect("writes");
        std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).expect("its owner's");
        std::fs::write(folder.path().join(CA_FILE), authority.certificate_pem()).expect("writes");
        Self { world, eu, us, app, folder, relay }
    }

    /// The program.
    async fn program(&self, settings: ResilienceSettings) -> Arc<MeshClient> {
        let nodes = [&self.eu.id, &self.us.id];
        let listed = nodes.map(|node| (node.clone(), self.relay.address(&self.app, node).expect("relayed")));
        let program = MeshClient::new(self.folder.path(), Directory::of(listed.to_vec())).expect("a client");
        let program = Arc::new(program.resilient(settings, &Seed::new(7)));
        program.connect_all().await.expect("connected");
        program
    }

    fn counter(&self, mesh: &Mesh) -> MeshAddr<Counter> {
        mesh.actor_in::<Counter>(&self.eu.id.region, "a")
    }

    fn cut(&self, node: &Node) {
        self.relay.cut(Cut::Node(node.id.clone())).expect("cut");
    }

    async fn end(self) {
        self.us.end().await;
        self.eu.end().await;
    }
}

/// Waits until so many retries were made.
async fn retried(resilience: &Resilience, times: u64) {
    while resilience.counts.made.load(Ordering::Relaxed) < times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_real_link_that_is_cut_what_is_retried_is_answered_once_it_is_healed() {
    let far = Far::start().await;
    let counter = far.counter(&far.us.mesh);
    assert_eq!(counter.ask(Count {}).await, Ok(1));
    far.cut(&far.eu);
    let fault = counter.ask(Count {}).await.expect_err("the link is found to be cut");
    assert!(
        matches!(fault.kind, FaultKind::Unreachable(_)) && fault.delivery() == Delivery::Unknown,
        "{fault}"
    );
    let (before, resilience) = (far.world.runs(), far.us.mesh.resilience());
    let (answered, ()) = tokio::join!(async { counter.ask(Count {}).retried().await }, async {
        retried(resilience, 3).await;
        far.relay.heal_all();
    });
    assert!(answered.is_ok(), "{answered:?}");
    assert_eq!(far.world.runs(), before + 1, "what was not sent did not run");
    assert_eq!(resilience.counts.answered.load(Ordering::Relaxed), 1);
    far.end().await;
}

/// Asks under a key; the link is cut when the handler has run, and healed when the question was asked again.
async fn answer_is_lost(far: &Far, mesh: &Mesh) {
    let counter = far.counter(mesh);
    counter.ask(Count {}).await.expect("it is there");
    let before = far.world.runs();
    far.world.answers.send_replace(false);
    let take = || counter.ask(Take { order: "tea".into() });
    let (answered, ()) = tokio::join!(async { take().retried().await }, async {
        while far.world.runs() == before {
            tokio::task::yield_now().await;
        }
        far.cut(&far.eu);
        far.world.answers.send_replace(true);
        retried(mesh.resilience(), 1).await;
        far.relay.heal_all();
    });
    assert_eq!(answered, Ok(before as u64 + 1));
    assert_eq!(take().await, Ok(before as u64 + 1), "the answer is kept");
    assert_eq!(far.world.runs(), before + 1, "it ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_key_runs_once_and_is_answered_though_its_answer_is_lost_on_the_way() {
    let far = Far::start().await;
    answer_is_lost(&far, &far.us.mesh).await;
    let program = far.program(ResilienceSettings::default()).await;
    answer_is_lost(&far, &program.mesh()).await;
    program.close().await;
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_key_is_not_asked_again_of_a_node_that_keeps_no_answers() {
    let far = Far::of(false).await;
    let counter = far.counter(&far.us.mesh);
    counter.ask(Count {}).await.expect("it is there");
    far.world.answers.send_replace(false);
    let take = async { counter.ask(Take { order: "tea".into() }).retried().await };
    let (answered, ()) = tokio::join!(take, async {
        while far.world.runs() == 1 {
            tokio::task::yield_now().await;
        }
        far.cut(&far.eu);
    });
    assert_eq!(answered.expect_err("it would run twice").delivery(), Delivery::Unknown);
    assert_eq!(far.us.mesh.resilience().counts.made.load(Ordering::Relaxed), 0);
    far.world.answers.send_replace(true);
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks_the_near_node_past_it_when_that_is_cut_off_and_it_again_when_it_is_back() {
    let far = Far::start().await;
    let program = far.program(ResilienceSettings::default()).await;
    let ask = async || program.ask_any(&Name {}, PATIENCE).await;
    // Of who was never asked nothing is known; then the near one is the better.
    for _ in 0..20 {
        assert_eq!(ask().await.as_deref(), Ok("us/n1"));
    }
    far.cut(&far.us);
    // The first finds out that it is cut off, and is asked elsewhere; the others are spared that.
    for _ in 0..20 {
        assert_eq!(ask().await.as_deref(), Ok("eu/n1"));
    }
    let (made, cut_off) = (program.resilience().counts.made.load(Ordering::Relaxed), 20);
    assert!((1..=2).contains(&made), "{made} retries of {cut_off}");
    far.relay.heal_all();
    while program.peer(&far.us.id).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask().await.as_deref(), Ok("us/n1"), "what was counted of the lost connection is void");
    program.close().await;
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks_no_more_often_than_its_budget_and_its_deadline_allow() {
    let far = Far::start().await;
    let retries = BudgetSettings { share: 0.0, least: 0 };
    let program = far.program(ResilienceSettings { retries, ..ResilienceSettings::default() }).await;
    far.cut(&far.us);
    let fault = program.ask_any(&Name {}, PATIENCE).await.expect_err("there is no budget to ask elsewhere");
    assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
    assert_eq!(program.resilience().counts.overflowed.load(Ordering::Relaxed), 1);
    program.close().await;

    far.relay.heal_all();
    let program = far.program(ResilienceSettings::default()).await;
    far.cut(&far.us);
    far.cut(&far.eu);
    let asked = program.ask_any(&Name {}, Duration::from_secs(4));
    let asked = tokio::time::timeout(PATIENCE, asked).await.expect("it ends at its deadline");
    assert_eq!(asked.expect_err("nobody is there").delivery(), Delivery::Unknown, "the first may have run");
    assert!(program.resilience().counts.made.load(Ordering::Relaxed) >= 1);
    program.close().await;
    far.end().await;
}
