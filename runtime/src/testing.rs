//! A mesh of several regions inside one test: real actors, real gates, real encoding, and a network
//! whose links are cut and delayed and whose nodes freeze when the test says so. No sockets, no RocksDB.
//!
//! In [`run`], time is the test's: it stands still while anything can still be done, and then goes on
//! to the next thing that waits for it. A test lets five minutes pass with
//! `tokio::time::sleep(Duration::from_secs(300)).await`, in no time, and finds the same every time.
//! Outside of it (in a plain `#[tokio::main]`), a mesh runs in real time on threads of its own.
//!
//! * It never does: mock what is tested. What differs from a node is the network's last step and that
//!   what is stored is in memory.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use anyhow::Context as _;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_actors::delivery::DeliverySettings;
use rhumb_actors::failover::messages::{FenceRead, ReadFences};
use rhumb_actors::failover::{FailoverSettings, Fence, Holder, Table};
use rhumb_actors::ranges::catalog;
use rhumb_actors::remote::Hosted;
use rhumb_core::rng::Seed;
use rhumb_core::{
    DataClass, Epoch, Gate, GateRefusal, Incarnation, NodeId, Passage, Principal, Region, Role,
};
use rhumb_storage::MemoryDisk;
use rhumb_topology::Founding;
use rhumb_topology::policy::{Policy, PolicySnapshot};
use rhumb_transport::in_process::{Network, NodeDescription, Port};

use crate::clock::NodeClock;
use crate::delivery::{self, Delivery, Disk, Memory, Recovered};
use crate::host::arbiters::Arbiters;
use crate::host::{Host, HostList, Hosts};
use crate::mesh::owners::Owners;
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::mesh::resilience::ResilienceSettings;
use crate::mesh::{Carrier, Mesh};
use crate::telemetry::sampling::Share;
use crate::telemetry::{Spans, TracedGate, Tracer};
use tokio::task::JoinHandle;

/// The wall clock at the start of every test: 2026-01-01T00:00:00Z.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// How far apart clocks may be.
const MAX_OFFSET: Duration = Duration::from_millis(500);
/// How long one message may keep an arbiter before that is reported.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);
/// How long [`TestMesh::reachable`] and the start wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test in a world of its own: one thread, an actix system, and time that passes only when
/// nothing else can be done.
///
/// # Panics
/// When the operating system gives no event queue.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("an event queue")
    };
    System::with_tokio_rt(runtime).block_on(test)
}

type AddHost = Box<dyn Fn(&mut HostList) + Send + Sync>;

/// A mesh that is about to start.
pub struct Builder {
    nodes: Vec<String>,
    policy: Option<String>,
    hosts: Vec<AddHost>,
    on: BTreeMap<String, Vec<AddHost>>,
    arbiters: usize,
    seed: u64,
    protocol: Option<u16>,
    traced: Option<(Share, Spans)>,
    resilience: Option<ResilienceSettings>,
    fences: Option<Fences>,
}

/// A mesh inside a test.
pub struct TestMesh {
    nodes: BTreeMap<NodeId, Node>,
    network: Network,
    fences: Option<Fences>,
    policy: Arc<ArcSwap<PolicySnapshot>>,
}

/// The policy as a gate, whichever it is by now.
struct Served(Arc<ArcSwap<PolicySnapshot>>);

impl Gate for Served {
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
        self.0.load().check(passage)
    }
}

/// What nodes with ranges keep in the meta range: under which epoch each node acts, and who acts as it.
type Fences = Arc<Mutex<BTreeMap<NodeId, Fence>>>;

struct Node {
    mesh: Mesh,
    hosts: Arc<Hosts>,
    clock: NodeClock,
    port: Port,
    delivery: JoinHandle<()>,
    reads: Option<JoinHandle<()>>,
}

impl TestMesh {
    /// A mesh of these regions, with one node each (`n1`); or of nodes, as `region/node`.
    pub fn of<T: Display>(places: impl IntoIterator<Item = T>) -> Builder {
        let node = |place: T| {
            let place = place.to_string();
            if place.contains('/') { place } else { format!("{place}/n1") }
        };
        let nodes = places.into_iter().map(node).collect();
        Builder {
            nodes,
            policy: None,
            hosts: Vec::new(),
            on: BTreeMap::new(),
            arbiters: 2,
            seed: 1,
            protocol: None,
            traced: None,
            resilience: None,
            fences: None,
        }
    }

    /// The mesh as seen from a region's first node, or from a node given as `region/node`.
    ///
    /// # Panics
    /// When there is no such place: a mistake in the test.
    #[must_use]
    pub fn at(&self, place: &str) -> &Mesh {
        &self.node(place).1.mesh
    }

    /// The mesh as a program in this region sees it that only calls.
    ///
    /// # Panics
    /// When the region's name is none.
    #[must_use]
    pub fn client(&self, region: &str, name: &str) -> Mesh {
        let region = Region::new(region).expect("a region's name");
        let principal = Principal { role: Role::Client, region: region.clone(), name: name.to_owned() };
        // As over QUIC: the nodes' gates decide alone.
        let port = self.network.client(principal, None);
        let nodes = self.nodes.keys().cloned().collect();
        Mesh::of_program(region, nodes, Carrier::InProcessClient(port))
    }

    /// Cuts the links between two places, both ways.
    pub fn cut(&self, a: &str, b: &str) {
        self.each_pair(a, b, |a, b| self.network.cut(a, b));
    }

    /// Cuts the way from one place to another, and leaves the way back.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.each_pair(from, to, |from, to| self.network.cut_one_way(from, to));
    }

    /// Heals the links between two places, both ways.
    pub fn heal(&self, a: &str, b: &str) {
        self.each_pair(a, b, |a, b| self.network.heal(a, b));
    }

    /// Delays what goes between two places, each way by this much.
    pub fn delay(&self, a: &str, b: &str, each_way: Duration) {
        self.each_pair(a, b, |a, b| {
            self.network.delay(a, b, each_way);
            self.network.delay(b, a, each_way);
        });
    }

    /// Freezes the nodes of a place: they take in nothing and send nothing, as a stopped process.
    pub fn freeze(&self, place: &str) {
        self.nodes_of(place).for_each(|(node, _)| self.network.freeze(node));
    }

    /// Lets the nodes of a place go on.
    pub fn thaw(&self, place: &str) {
        self.nodes_of(place).for_each(|(node, _)| self.network.thaw(node));
    }

    /// Lets the clocks of a place be this far ahead from now on; negative: behind.
    pub fn skew(&self, place: &str, ms: i64) {
        self.nodes_of(place).for_each(|(_, node)| node.clock.skew(ms));
    }

    /// All nodes go by another residency policy from now on, as its file's text.
    ///
    /// # Panics
    /// When it has faults: a mistake in the test.
    pub fn policy(&self, toml: &str) {
        let founding = Founding::new(self.nodes.keys().cloned()).expect("they have founded a mesh");
        let policy = Policy::parse(toml).expect("a policy without faults");
        self.policy.store(Arc::new(PolicySnapshot::compile(policy, founding.regions(), BEGIN_MS)));
    }

    /// Lets nobody act as the nodes of a place, under their next epoch: as the coordinator does with nodes that are lost, and with
    /// those for which others act and that are back. In a mesh whose actors [move](Builder::moving). Each node learns
    /// it with its next reading, within a second.
    ///
    /// # Panics
    /// When their actors do not move, or nobody acts as them already.
    pub fn fence(&self, place: &str) {
        self.fenced(place, Fence::raised);
    }

    /// Lets others act in the place of nodes that are fenced. The coordinator does so four seconds after it has fenced them: a
    /// test that does it sooner lets two act.
    ///
    /// # Panics
    /// When their actors do not move, or they are not fenced.
    pub fn replace(&self, place: &str) {
        self.fenced(place, |fence| fence.held_by(Holder::Others));
    }

    /// Lets nodes that are fenced act for themselves. See [`TestMesh::replace`].
    ///
    /// # Panics
    /// When their actors do not move, or they are not fenced.
    pub fn restore(&self, place: &str) {
        self.fenced(place, |fence| fence.held_by(Holder::Itself));
    }

    fn fenced(&self, place: &str, change: impl Fn(Fence) -> Fence) {
        let fences = self.fences.as_ref().expect("actors move in this mesh: say Builder::moving");
        let mut fences = fences.lock();
        for (node, _) in self.nodes_of(place) {
            let fence = fences.get_mut(node).expect("each node has a fence");
            let next = change(*fence);
            assert!(fence.may_become(next), "the fence of {node} is {fence:?}: it cannot become {next:?}");
            *fence = next;
        }
    }

    /// Waits until two places reach each other.
    ///
    /// # Panics
    /// When they do not in half a minute.
    pub async fn reachable(&self, a: &str, b: &str) {
        let pairs = self.pairs(a, b);
        let reached = async {
            while !pairs.iter().all(|(a, b)| self.connected(a, b) && self.connected(b, a)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, reached).await.is_ok(), "{a} and {b} do not reach each other");
    }

    fn connected(&self, from: &NodeId, to: &NodeId) -> bool {
        from == to || self.nodes[from].port.peer(to).is_some()
    }

    fn pairs(&self, a: &str, b: &str) -> Vec<(NodeId, NodeId)> {
        let others: Vec<_> = self.nodes_of(b).map(|(node, _)| node.clone()).collect();
        let pair =
            |(node, _): (&NodeId, _)| others.iter().map(|other| (node.clone(), other.clone())).collect();
        self.nodes_of(a).flat_map(|node| -> Vec<_> { pair(node) }).collect()
    }

    fn each_pair(&self, a: &str, b: &str, act: impl Fn(&NodeId, &NodeId)) {
        self.pairs(a, b).iter().filter(|(a, b)| a != b).for_each(|(a, b)| act(a, b));
    }

    fn nodes_of(&self, place: &str) -> impl Iterator<Item = (&NodeId, &Node)> {
        let place = place.to_owned();
        let is = move |node: &NodeId| node.region.as_str() == place || node.to_string() == place;
        self.nodes.iter().filter(move |(node, _)| is(node))
    }

    fn node(&self, place: &str) -> (&NodeId, &Node) {
        let first = self.nodes_of(place).next();
        first.unwrap_or_else(|| panic!("there is no region or node {place:?} in this mesh"))
    }
}

impl Drop for TestMesh {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            node.delivery.abort();
            node.reads.iter().for_each(JoinHandle::abort);
            node.hosts.close_now();
            node.hosts.stop();
        }
    }
}

impl Builder {
    /// Hosts actors of one more type on every node.
    #[must_use]
    pub fn host<A: Hosted>(mut self, host: Host<A>) -> Self {
        self.hosts.push(Box::new(move |list| list.add(host.clone())));
        self
    }

    /// Hosts actors of one more type on the nodes of one place only: a mesh of two builds.
    #[must_use]
    pub fn host_at<A: Hosted>(mut self, place: &str, host: Host<A>) -> Self {
        let add: AddHost = Box::new(move |list| list.add(host.clone()));
        self.on.entry(place.to_owned()).or_default().push(add);
        self
    }

    /// The residency policy, as its file's text. Without one, only class `control` leaves a node.
    #[must_use]
    pub fn policy(mut self, toml: &str) -> Self {
        self.policy = Some(toml.to_owned());
        self
    }

    /// Threads for each node's actors, outside of [`run`]. Two unless set.
    #[must_use]
    pub fn arbiters(mut self, count: usize) -> Self {
        self.arbiters = count;
        self
    }

    /// Traces are kept of this share of the calls that begin in the mesh; their spans are put there.
    #[must_use]
    pub fn traced(mut self, share: Share, spans: &Spans) -> Self {
        self.traced = Some((share, spans.clone()));
        self
    }

    /// How calls are retried and held back.
    #[must_use]
    pub fn resilience(mut self, settings: ResilienceSettings) -> Self {
        self.resilience = Some(settings);
        self
    }

    /// Actors of types that [move](Host::moves) do so here as in a mesh whose nodes keep ranges: by fences, which the test
    /// changes ([`TestMesh::fence`]) and each node reads each second from another one. Without this they stay where they are.
    #[must_use]
    pub fn moving(mut self) -> Self {
        self.fences = Some(Fences::default());
        self
    }

    /// The seed of what the network draws.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Its connections are of an older protocol version, as between builds of different ages.
    #[must_use]
    pub fn protocol(mut self, version: u16) -> Self {
        self.protocol = Some(version);
        self
    }

    /// Starts the mesh and waits until its nodes reach each other. Must be called within tokio.
    ///
    /// # Errors
    /// A place that has no name for one, a policy with faults, actor types that cannot be hosted.
    pub async fn start(self) -> anyhow::Result<TestMesh> {
        let nodes: Vec<NodeId> =
            self.nodes.iter().map(|node| Ok(node.parse()?)).collect::<anyhow::Result<_>>()?;
        let founding = Founding::new(nodes.iter().cloned())?;
        let policy = match &self.policy {
            None => PolicySnapshot::none(),
            Some(text) => PolicySnapshot::compile(Policy::parse(text)?, founding.regions(), BEGIN_MS),
        };
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let network = Network::new(self.seed);
        self.protocol.iter().for_each(|version| network.speak(*version));
        let (started, fences) = (BTreeMap::new(), self.fences.clone());
        if let Some(fences) = &fences {
            fences.lock().extend(nodes.iter().map(|node| (node.clone(), Fence::default())));
        }
        let mut mesh = TestMesh { nodes: started, network, fences, policy: Arc::clone(&policy) };
        for node in nodes {
            let started = self.node(&mesh.network, &node, &founding, &policy).await;
            let started = started.with_context(|| format!("node {node}"))?;
            mesh.nodes.insert(node, started);
        }
        for (a, b) in mesh.nodes.keys().flat_map(|a| mesh.nodes.keys().map(move |b| (a, b))) {
            mesh.reachable(&a.to_string(), &b.to_string()).await;
        }
        Ok(mesh)
    }

    async fn node(
        &self,
        network: &Network,
        id: &NodeId,
        founding: &Founding,
        policy: &Arc<ArcSwap<PolicySnapshot>>,
    ) -> anyhow::Result<Node> {
        let clock = NodeClock::for_tests(BEGIN_MS, MAX_OFFSET);
        let mesh = Mesh::new(id.clone(), founding.clone(), Arc::clone(policy), clock.clone());
        let resilience = self.resilience.clone().unwrap_or_default();
        mesh.resilient(resilience, &Seed::new(self.seed).child(id.to_string()));
        if let Some((share, spans)) = &self.traced {
            let (region, name) = (id.region.as_str(), id.to_string());
            mesh.traced(Tracer::new(region, &name, Some(clock.clone()), *share, spans.clone()));
        }
        let mut list = HostList::default();
        let here = |place: &&String| ***place == *id.region.as_str() || ***place == id.to_string();
        let only_here = self.on.iter().filter(|(place, _)| here(place)).flat_map(|(_, hosts)| hosts);
        self.hosts.iter().chain(only_here).for_each(|add| add(&mut list));
        let arbiters = match System::try_current() {
            Some(_) => Arbiters::here(BLOCKED_AFTER)?,
            None => Arbiters::threads(self.arbiters, BLOCKED_AFTER).await?,
        };
        let hosts = Hosts::start(list, &mesh, arbiters)?;
        mesh.hosts(&hosts, Epoch(1));
        let (delivery, task) = self.delivery(&mesh)?;
        mesh.delivers(delivery.clone());
        let nobody = Box::new(|_: &rhumb_transport::Peer, _| ());
        let mut registry = Registry::new(clock.clone(), tokio::runtime::Handle::current(), nobody);
        registry.hosting(mesh.clone());
        crate::mesh::serve(&mut registry, &mesh)?;
        delivery::parcel::serve(&mut registry, &delivery)?;
        crate::mesh::dead_letters::serve(&mut registry, &mesh)?;
        let reads = match &self.fences {
            Some(fences) => {
                serve_fences(&mut registry, fences)?;
                let owners = Owners::new(FailoverSettings::default().permit, clock.clone());
                mesh.moves_by(owners.clone(), &hosts);
                Some(tokio::spawn(read_fences(mesh.clone(), clock.clone(), owners, founding.clone())))
            }
            None => None,
        };
        let member = NodeDescription { manifest: registry.manifest(), ..NodeDescription::new(id.clone()) };
        let gate: Arc<dyn Gate> = Arc::new(TracedGate(Arc::new(Served(Arc::clone(policy)))));
        let port = network.join(member, gate, Arc::new(registry));
        mesh.bound(Carrier::InProcess(port.clone()));
        Ok(Node { mesh, hosts, clock, port, delivery: task, reads })
    }

    fn delivery(&self, mesh: &Mesh) -> anyhow::Result<(Delivery, JoinHandle<()>)> {
        let disk: Arc<dyn Disk> = Arc::new(Memory::open(&MemoryDisk::new())?);
        let recovered = Recovered::read(&*disk, &DeliverySettings::default(), Incarnation(1))?;
        Ok(Delivery::start(mesh, disk, recovered, |why| tracing::error!(why, "a disk in memory failed")))
    }
}

/// Serves the fences to the other nodes, as the leaseholder of the meta range does.
fn serve_fences(registry: &mut Registry, fences: &Fences) -> Result<(), ServedTwice> {
    let fences = Arc::clone(fences);
    registry.serve(move |_: Call<ReadFences>| {
        let row =
            |(node, fence): (&NodeId, &Fence)| FenceRead { node: node.clone(), row: catalog::encode(fence) };
        let rows: Vec<FenceRead> = fences.lock().iter().map(row).collect();
        async move { Ok((Ok(rows), DataClass::control())) }
    })
}

/// Reads the fences each second, from whichever other node answers first.
async fn read_fences(mesh: Mesh, clock: NodeClock, owners: Owners, founding: Founding) {
    let others = founding.nodes().iter().filter(|node| mesh.node() != Some(*node));
    let others: Vec<NodeId> = others.cloned().collect();
    let ask = async |node: &NodeId| {
        let within = Duration::from_secs(2);
        let asked = mesh.ask_node(node, &ReadFences {}, DataClass::control(), within).await;
        asked.ok().and_then(|(rows, _)| rows.ok()).ok_or(())
    };
    loop {
        let asked = clock.now();
        let each = others.iter().map(|node| Box::pin(ask(node)));
        // A mesh of one node has nobody to ask, and nobody who could act for it.
        let rows = if others.is_empty() {
            let row =
                |node: &NodeId| FenceRead { node: node.clone(), row: catalog::encode(&Fence::default()) };
            Ok(mesh.node().into_iter().map(row).collect())
        } else {
            futures::future::select_ok(each).await.map(|(rows, _)| rows)
        };
        if let Ok(rows) = rows {
            let fence = |said: FenceRead| Some((said.node, catalog::decode::<Fence>(&said.row).ok()?));
            owners.read(asked, Table::new(rows.into_iter().filter_map(fence)));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
