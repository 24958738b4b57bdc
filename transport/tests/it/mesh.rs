//! A small mesh for tests: an authority, nodes that echo, and what they saw.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rhumb_core::{
    ClusterId, DataClass, Direction, Fault, FaultKind, Gate, GateRefusal, Guarantee, HybridTime, NodeId,
    Passage, Principal, Region, Role,
};
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::{
    Answer, Client, ConnectError, Credentials, Expect, Headers, Identity, Inbound, ManifestEntry, Peer,
    Regions, Reply, Request, Transport, TransportSettings, TrustDomain,
};
use tokio::sync::watch;

/// Longer than anything takes, shorter than a test runner waits.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

pub(crate) fn node(id: &str) -> NodeId {
    id.parse().expect("a node id")
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).expect("a region")
}

pub(crate) fn inventory() -> DataClass {
    DataClass::new("inventory").expect("a class")
}

pub(crate) fn hour() -> Validity {
    Validity::for_the_next(Duration::from_secs(3600))
}

pub(crate) fn authority() -> Authority {
    let domain = TrustDomain::new("mesh.example").expect("a trust domain");
    // It must outlive what it issues.
    Authority::create(domain, Validity::for_the_next(Duration::from_secs(7200))).expect("created")
}

pub(crate) fn credentials(authority: &Authority, role: Role, id: &NodeId, validity: Validity) -> Credentials {
    let who = Principal { role, region: id.region.clone(), name: id.name.to_string() };
    authority.issue(&who, validity).expect("issued").credentials().expect("usable")
}

/// Settings that give up sooner, so that refusals do not take long.
pub(crate) fn settings() -> TransportSettings {
    TransportSettings {
        connect_backoff_max: Duration::from_millis(200),
        refresh_spread: Duration::ZERO,
        ..TransportSettings::default()
    }
}

pub(crate) fn identity_of(id: &NodeId) -> Identity {
    Identity {
        cluster: CLUSTER,
        node: Some(id.clone()),
        founding_hash: [1; 32],
        manifest: vec![ManifestEntry { name: "echo".into(), version: 1, fingerprint: 3 }],
        public_key: vec![9; 32],
        incarnation: 1,
        build: "test".into(),
    }
}

/// Refuses one class in one direction; lets everything else pass.
#[derive(Default)]
pub(crate) struct Rules(pub(crate) Mutex<BTreeSet<(String, bool)>>);

impl Rules {
    pub(crate) fn refuse(&self, class: &str, direction: Direction) {
        self.0.lock().insert((class.to_owned(), direction == Direction::Egress));
    }
}

impl Gate for Rules {
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
        let rule = (passage.class.to_string(), passage.direction == Direction::Egress);
        if !self.0.lock().contains(&rule) {
            return Ok(());
        }
        let (class, from, to) = (passage.class.clone(), passage.from.clone(), passage.to.clone());
        Err(GateRefusal { class, from, to, reason: format!("{:?} is forbidden", passage.direction) })
    }
}

/// What a node's handlers saw and hold.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<(Arc<Peer>, Request)>,
    pub(crate) held: Vec<Answer>,
    pub(crate) connected: Vec<Arc<Peer>>,
    pub(crate) disconnected: Vec<Arc<Peer>>,
    pub(crate) refused: Vec<ConnectError>,
}

/// Answers `echo` at once, `hold` never (the test does), forgets `drop`, panics at `panic`, knows
/// nothing else.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
}

impl Handlers {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Waits until what was seen is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&mut Seen) -> bool) {
        let mut changes = self.changed.subscribe();
        let waited = tokio::time::timeout(SOON, async {
            while !wanted(&mut self.seen.lock()) {
                changes.changed().await.expect("the sender lives");
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what} did not happen"));
    }
}

impl Inbound for Handlers {
    fn deliver(&self, from: &Arc<Peer>, request: Request, answer: Answer) {
        let (name, class, body) = (request.name.clone(), request.class.clone(), request.body.clone());
        let hybrid = request.headers.hybrid;
        self.note(|seen| seen.requests.push((Arc::clone(from), request)));
        match &*name {
            "echo" => answer.reply(reply(class, body, hybrid)),
            "taken" => {
                let blank = reply(DataClass::control(), Bytes::new(), hybrid);
                answer.reply(Reply { guarantee: Guarantee::STRONGEST, ..blank });
            }
            "tattle" => answer.reply(reply(DataClass::new("personal").expect("a class"), body, hybrid)),
            "hold" => self.note(|seen| seen.held.push(answer)),
            "drop" => drop(answer),
            "panic" => panic!("a handler's bug"),
            _ => answer.fault(Fault::not_sent(FaultKind::UnknownMessage(name.to_string()))),
        }
    }

    fn connected(&self, peer: &Arc<Peer>) {
        self.note(|seen| seen.connected.push(Arc::clone(peer)));
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        self.note(|seen| seen.disconnected.push(Arc::clone(peer)));
    }

    fn refused(&self, _: SocketAddr, why: &ConnectError) {
        self.note(|seen| seen.refused.push(why.clone()));
    }
}

pub(crate) fn reply(class: DataClass, body: Bytes, hybrid: HybridTime) -> Reply {
    Reply { class, body, hybrid, guarantee: Guarantee::Snapshot, trace: None }
}

/// A node under test.
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) transport: Transport,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) rules: Arc<Rules>,
}

impl Member {
    pub(crate) fn start(authority: &Authority, id: &str) -> Self {
        let id = node(id);
        Self::with(&credentials(authority, Role::Node, &id, hour()), identity_of(&id), settings())
    }

    pub(crate) fn with(credentials: &Credentials, identity: Identity, settings: TransportSettings) -> Self {
        let regions = Regions::of(REGIONS.map(region));
        Self::allowing(regions, credentials, identity, settings)
    }

    pub(crate) fn allowing(
        regions: Regions,
        credentials: &Credentials,
        identity: Identity,
        settings: TransportSettings,
    ) -> Self {
        let (handlers, rules) = (Arc::new(Handlers::default()), Arc::new(Rules::default()));
        let id = identity.node.clone().expect("a node");
        let any = "127.0.0.1:0".parse().expect("an address");
        let transport = Transport::bind(
            any,
            credentials,
            regions,
            identity,
            settings,
            Arc::clone(&rules) as _,
            Arc::clone(&handlers) as _,
        );
        Self { id, transport: transport.expect("bound"), handlers, rules }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.transport.local_addr().expect("bound")
    }

    /// Dials another and waits until both say that they are connected.
    pub(crate) async fn join(&self, other: &Self) {
        self.transport.add_peer(other.id.clone(), other.addr());
        assert!(self.transport.connected(&other.id, SOON).await, "{} reaches {}", self.id, other.id);
        self.handlers.until("connected", |seen| !seen.connected.is_empty()).await;
        other.handlers.until("connected", |seen| !seen.connected.is_empty()).await;
    }

    pub(crate) async fn ask(&self, to: &Self, name: &str, body: &[u8]) -> Result<Reply, Fault> {
        self.transport.ask(&to.id, 1, request(name, body)).await
    }
}

pub(crate) fn request(name: &str, body: &[u8]) -> Request {
    Request::ask(name, inventory(), Bytes::copy_from_slice(body), Headers::within(SOON))
}

/// Two nodes of one mesh, connected.
pub(crate) async fn pair() -> (Member, Member) {
    let authority = authority();
    let (a, b) = (Member::start(&authority, "us-east/n1"), Member::start(&authority, "eu-central/n1"));
    a.join(&b).await;
    (a, b)
}

/// A client of a region, connected to a node.
pub(crate) async fn client(authority: &Authority, of: &str, to: &Member) -> Result<Client, ConnectError> {
    let credentials = credentials(authority, Role::Client, &node(of), hour());
    Client::connect(to.addr(), Expect::AnyNode, &credentials, Some(CLUSTER), settings()).await
}
