//! The client over QUIC: one connection a node, made when first needed and kept.
//!
//! * It decides: nothing but which connection a question takes.
//! * It never does: ask again. Who asks knows whether that is safe ([`MeshClient::ask_any`] and the mesh's addresses do).
//! * It follows the folder of its certificate, as a node does: a renewed certificate, other authorities
//!   and revocations count from the next handshake on.
//! * Invariant: a question ends at its deadline at the latest, the time to connect included. While a
//!   lost connection is dialled again (the transport does that, with backoff), questions fail at once
//!   as not sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use opentelemetry::trace::SpanKind;
use parking_lot::Mutex;
use rhumb_actors::remote::Remote;
use rhumb_core::rng::Seed;
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Principal, Region};
use rhumb_transport::identity::Outcome;
use rhumb_transport::{
    Asked, Client, ConnectError, Credentials, Expect, Gathering, Headers, Peer, Request, TraceContext,
    TransportSettings,
};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::Ask;
use super::directory::Directory;
use crate::clock::now_millis;
use crate::identity::{self, Found, IdentityFault};
use crate::mesh::body::{pack, unpack_reply};
use crate::mesh::near::Candidate;
use crate::mesh::resilience::{Resilience, ResilienceSettings};
use crate::mesh::{Carrier, Mesh};
use crate::secrets::Files;
use crate::telemetry::{self, Tracer, What, current_trace, names};

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The certificate cannot be used.
    #[error("certificate in {path}: {source}")]
    Credentials {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: IdentityFault,
    },
    /// A node cannot be connected.
    #[error("{address} cannot be connected: {source}")]
    Connect {
        /// Which.
        address: String,
        /// Why.
        source: ConnectError,
    },
    /// An address is not one.
    #[error("{address:?} is not an address: {what}; expected HOST:PORT, such as 127.0.0.1:7001")]
    Address {
        /// What was given.
        address: String,
        /// Why.
        what: String,
    },
}

/// A client of a mesh.
#[derive(Debug)]
pub struct MeshClient {
    own: Arc<Own>,
    directory: Directory,
    nodes: Arc<BTreeMap<NodeId, OnceCell<Client>>>,
    tracer: Option<Tracer>,
    trace: Option<TraceContext>,
    resilience: Arc<Resilience>,
    turn: AtomicUsize,
}

/// What the client is certified with, and where that comes from.
#[derive(Debug)]
struct Own {
    folder: PathBuf,
    principal: Principal,
    credentials: ArcSwap<Credentials>,
    looked: Mutex<Instant>,
}

/// Programs begin with one of so many turns: more than there are nodes that are equally near.
const TURNS: u64 = 5_040;

/// How much longer than the first of several nodes each may take to be connected.
const GRACE: Duration = Duration::from_secs(1);

/// How often the folder is looked at, at the most: only while questions are asked. Who dials looks first.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Own {
    fn read(folder: &Path) -> Result<Self, ClientError> {
        let credentials = identity::load(folder)
            .map_err(|source| ClientError::Credentials { path: folder.to_owned(), source })?;
        Ok(Self {
            folder: folder.to_owned(),
            principal: credentials.principal().clone(),
            credentials: ArcSwap::from_pointee(credentials),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// Whether it is time to look; then it is not again for a while.
    fn is_due(&self) -> bool {
        let (mut looked, now) = (self.looked.lock(), Instant::now());
        let due = now.duration_since(*looked) >= LOOK_EVERY;
        if due {
            *looked = now;
        }
        due
    }

    /// What the folder holds now, if that is other than what is in force and may follow it.
    fn renewed(&self) -> Option<Credentials> {
        let found = Found::read(&Files::of(&self.folder), &self.folder);
        let before = self.credentials.load_full();
        let renewal = before.renewed(&found.reading(), Duration::from_millis(now_millis()));
        for outcome in [&renewal.identity, &renewal.trust] {
            if let Outcome::Refused(reason) = outcome {
                tracing::warn!(folder = %self.folder.display(), reason, "what was found is refused; the old stays");
            }
        }
        let taken = renewal.identity == Outcome::Taken || renewal.trust == Outcome::Taken;
        taken.then_some(renewal.credentials)
    }
}

impl MeshClient {
    /// A client of the nodes of a directory, with the certificate in a folder. It connects to a node
    /// when it is first asked.
    ///
    /// # Errors
    /// [`ClientError::Credentials`].
    pub fn new(identity: &Path, directory: Directory) -> Result<Self, ClientError> {
        let nodes = directory.nodes().iter().map(|(node, _)| (node.clone(), OnceCell::new())).collect();
        Ok(Self::of(Own::read(identity)?, directory, nodes))
    }

    /// A client of the nodes at these addresses, whoever they are: their certificates say it. It goes on with those that
    /// can be connected, in the order given; one that takes longer than another one by a second cannot. The directory
    /// says which these are.
    ///
    /// # Errors
    /// [`ClientError`]: the certificate or an address is none, or no node can be connected.
    pub async fn connect(identity: &Path, addresses: &[String]) -> Result<Self, ClientError> {
        let own = Own::read(identity)?;
        let credentials = own.credentials.load_full();
        let greets =
            addresses.iter().enumerate().map(async |(at, address)| (at, greet(&credentials, address).await));
        let mut greets: FuturesUnordered<_> = greets.collect();
        let (mut greeted, mut failed, mut until) = (BTreeMap::new(), BTreeMap::new(), None);
        loop {
            let next = match until {
                Some(until) => timeout_at(until, greets.next()).await,
                None => Ok(greets.next().await),
            };
            match next {
                Ok(None) | Err(_) => break,
                Ok(Some((at, Ok(node)))) => {
                    greeted.insert(at, node);
                    until.get_or_insert_with(|| Instant::now() + GRACE);
                }
                Ok(Some((at, Err(error @ ClientError::Connect { .. })))) => {
                    failed.insert(at, error);
                }
                Ok(Some((_, Err(error)))) => return Err(error),
            }
        }
        drop(greets);
        if greeted.is_empty()
            && let Some((_, error)) = failed.pop_last()
        {
            return Err(error);
        }
        let missed = addresses.iter().enumerate().filter(|(at, _)| !greeted.contains_key(at));
        let missed = missed.map(|(at, address)| match failed.get(&at) {
            Some(error) => error.to_string(),
            None => {
                format!("{address} cannot be connected: it had not answered {GRACE:?} after another node")
            }
        });
        let missed = missed.collect();
        let directory = greeted.values().map(|(node, address, _)| (node.clone(), *address)).collect();
        let nodes = greeted.into_values().map(|(node, _, client)| (node, OnceCell::new_with(Some(client))));
        let nodes = nodes.collect();
        Ok(Self::of(own, Directory::of(directory).without(missed), nodes))
    }

    fn of(own: Own, directory: Directory, nodes: BTreeMap<NodeId, OnceCell<Client>>) -> Self {
        let seed = Seed::from_entropy();
        let turn = AtomicUsize::new(seed.child("turn").rng().below(TURNS) as usize);
        let resilience = Resilience::new(ResilienceSettings::default(), &seed);
        let (own, nodes, resilience) = (Arc::new(own), Arc::new(nodes), Arc::new(resilience));
        Self { own, directory, nodes, tracer: None, trace: None, resilience, turn }
    }

    /// How its questions are made again, held back and spread over nodes; those of its meshes too. What was counted
    /// before is forgotten.
    #[must_use]
    pub fn resilient(self, settings: ResilienceSettings, seed: &Seed) -> Self {
        Self { resilience: Arc::new(Resilience::new(settings, seed)), ..self }
    }

    pub(crate) fn resilience(&self) -> &Arc<Resilience> {
        &self.resilience
    }

    /// Its questions belong to this trace, where there is one and the thread works for no other; and make
    /// spans, where there is something to make them. A trace whose span is 0 begins at the nodes.
    #[must_use]
    pub fn traced(self, tracer: Option<Tracer>, trace: Option<TraceContext>) -> Self {
        Self { tracer, trace, ..self }
    }

    /// Who it is, by its certificate.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.own.principal
    }

    /// Connects to every node that is not connected yet.
    ///
    /// # Errors
    /// [`ClientError::Connect`] names the node.
    pub async fn connect_all(&self) -> Result<(), ClientError> {
        let each = self.directory.nodes().iter().map(|(node, address)| async move {
            let failed =
                |source| ClientError::Connect { address: format!("node {node} at {address}"), source };
            self.client(node, *address).await.map(drop).map_err(failed)
        });
        try_join_all(each).await.map(drop)
    }

    /// The mesh, for calling actors by address: see [`Mesh`](crate::mesh::Mesh).
    #[must_use]
    pub fn mesh(self: &Arc<Self>) -> Mesh {
        let mesh = Mesh::of_program(self.region().clone(), self.nodes(), Carrier::Client(Arc::clone(self)));
        self.tracer.iter().for_each(|tracer| mesh.traced(tracer.clone()));
        mesh.shares(Arc::clone(&self.resilience));
        mesh
    }

    /// The region in which its certificate places it.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.own.principal.region
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.directory.nodes().iter().map(|(node, _)| node.clone()).collect()
    }

    /// What is known of the way to a node; one that was not asked yet may well be there.
    pub(crate) fn candidate(&self, node: &NodeId) -> Candidate {
        let client = self.nodes.get(node).and_then(OnceCell::get);
        let rtt = client.and_then(Client::rtt);
        Candidate { node: node.clone(), rtt, is_well: client.is_none_or(Client::is_connected) }
    }

    /// Whose turn it is of nodes that are equally near: another one each time, and another first one in each program.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A connected node, as its HELLO and certificate describe it.
    pub(crate) fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.nodes.get(node)?.get()?.peer()
    }

    /// Asks a node, until the deadline in the headers; in the order of calls with the same `pair`, within
    /// one connection.
    pub(crate) fn begin(
        self: &Arc<Self>,
        node: &NodeId,
        pair: u64,
        request: Request,
    ) -> Result<Asked, Fault> {
        if let Some(client) = self.nodes.get(node).and_then(OnceCell::get) {
            self.look_if_due();
            return client.begin(pair, request);
        }
        let (this, node) = (Arc::clone(self), node.clone());
        Ok(Asked::later(async move {
            let until = Instant::now() + request.headers.deadline;
            let (client, request) = this.ready(&node, request, until).await?;
            client.ask_in_order(pair, request).await
        }))
    }

    /// Tells a node what gathers until it is sent, where it is connected and knows such messages.
    pub(crate) fn gather(
        &self,
        node: &NodeId,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        let client = self.nodes.get(node).and_then(OnceCell::get);
        let absent = || Fault::not_sent(FaultKind::Unreachable(format!("{node}: not connected yet")));
        client.ok_or_else(absent)?.gather(pair, request, gathering)
    }

    pub(crate) fn gathers(&self, node: &NodeId) -> bool {
        self.nodes.get(node).and_then(OnceCell::get).is_some_and(Client::gathers)
    }

    /// The nodes that it may ask.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Closes all connections, so that the nodes know.
    pub async fn close(&self) {
        let open = self.nodes.values().filter_map(OnceCell::get);
        futures::future::join_all(open.map(Client::close)).await;
    }

    fn look_if_due(&self) {
        if self.own.is_due() {
            drop(self.look());
        }
    }

    /// Looks at the folder in the background, and takes up what is new there.
    fn look(&self) -> JoinHandle<()> {
        let (own, nodes) = (Arc::clone(&self.own), Arc::clone(&self.nodes));
        tokio::task::spawn_blocking(move || {
            let Some(credentials) = own.renewed() else { return };
            let credentials = Arc::new(credentials);
            // First: who connects meanwhile finds them here, or is found below.
            own.credentials.store(Arc::clone(&credentials));
            nodes.values().filter_map(OnceCell::get).for_each(|client| show(client, &credentials));
        })
    }

    async fn client(&self, node: &NodeId, address: SocketAddr) -> Result<&Client, ConnectError> {
        let cell = &self.nodes[node];
        if let Some(client) = cell.get() {
            self.look_if_due();
            return Ok(client);
        }
        if self.own.is_due()
            && let Err(error) = self.look().await
        {
            tracing::error!(%error, "the folder with the certificate was not looked at");
        }
        let expect = Expect::Node(node.clone());
        let shown = self.own.credentials.load_full();
        let dial = || Client::connect(address, expect, &shown, None, TransportSettings::default());
        let client = cell.get_or_try_init(dial).await?;
        // Who renewed while it was dialled did not find it.
        let now = self.own.credentials.load_full();
        if !Arc::ptr_eq(&now, &shown) {
            show(client, &now);
        }
        Ok(client)
    }

    /// The connection to a node, and the request with the time that is left then.
    async fn ready(
        &self,
        node: &NodeId,
        request: Request,
        until: Instant,
    ) -> Result<(&Client, Request), Fault> {
        let unreachable = |why: String| Fault::not_sent(FaultKind::Unreachable(format!("{node}: {why}")));
        let address =
            self.directory.address(node).ok_or_else(|| unreachable("its address is not known".into()))?;
        let connected = timeout_at(until, self.client(node, address)).await;
        let client = match connected {
            Err(_) => {
                return Err(Fault::not_sent(FaultKind::Deadline(format!(
                    "connecting to {node} at {address}"
                ))));
            }
            Ok(Err(error)) => return Err(unreachable(format!("{address}: {error}"))),
            Ok(Ok(client)) => client,
        };
        let headers =
            Headers { deadline: until.saturating_duration_since(Instant::now()), ..request.headers };
        Ok((client, Request { headers, ..request }))
    }
}

impl Ask for MeshClient {
    async fn ask<M: Remote + Sync>(
        &self,
        node: &NodeId,
        message: &M,
        deadline: Duration,
    ) -> Result<M::Reply, Fault> {
        let until = Instant::now() + deadline;
        let class = message.class().cloned().unwrap_or_else(DataClass::control);
        let what = || What::rpc(M::NAME, SpanKind::Client, &class);
        let parent = current_trace().or(self.trace);
        let (span, trace) = telemetry::watch(self.tracer.as_ref(), parent, false, what);
        let asked = telemetry::within(span.as_ref(), async {
            let body = telemetry::part(names::ENCODE, || pack(M::NAME, message))?;
            let headers = Headers { trace, ..Headers::within(deadline) };
            let request = Request::ask(M::NAME, class.clone(), body, headers);
            let (client, request) = self.ready(node, request, until).await?;
            let reply = client.ask(request).await?;
            telemetry::part(names::DECODE, || unpack_reply(M::NAME, &reply.body))
        });
        let asked = asked.await;
        if let Some(span) = span {
            self.peer(node).iter().for_each(|peer| span.reached(peer));
            span.went(asked.as_ref().map(|_| ()));
        }
        asked
    }
}

/// Has a connection made anew with these.
fn show(client: &Client, credentials: &Credentials) {
    if let Err(error) = client.renew(credentials) {
        tracing::warn!(%error, "a renewed certificate could not be used");
    }
}

async fn greet(credentials: &Credentials, text: &str) -> Result<(NodeId, SocketAddr, Client), ClientError> {
    let bad = |what: String| ClientError::Address { address: text.to_owned(), what };
    let mut found = tokio::net::lookup_host(text).await.map_err(|e| bad(e.to_string()))?;
    let address = found.next().ok_or_else(|| bad("the name has no address".into()))?;
    let failed = |source| ClientError::Connect { address: text.to_owned(), source };
    let settings = TransportSettings::default();
    let client =
        Client::connect(address, Expect::AnyNode, credentials, None, settings).await.map_err(failed)?;
    let peer = client.peer().and_then(|peer| peer.node.clone());
    let node = peer.ok_or_else(|| failed(ConnectError::Lost("the connection ended at once".into())))?;
    Ok((node, address, client))
}

#[cfg(test)]
mod tests {
    use rhumb_core::gate::{Gate, GateRefusal, Passage};
    use rhumb_core::{ClusterId, Role};
    use rhumb_transport::issue::{Authority, Validity};
    use rhumb_transport::{Answer, Identity, Inbound, Regions, Transport, Trust, TrustDomain};

    use super::*;
    use crate::identity::{CA_FILE, IDENTITY_FILE};

    /// Puts a new certificate of this client into a folder; gives its serial number.
    fn certify(authority: &Authority, name: &str, folder: &Path) -> String {
        use std::os::unix::fs::PermissionsExt;
        let who =
            Principal { role: Role::Client, region: "us".parse().expect("a region"), name: name.into() };
        let hour = Validity::for_the_next(Duration::from_secs(3_600));
        let issued = authority.issue(&who, hour).expect("issued");
        let identity = folder.join(IDENTITY_FILE);
        std::fs::write(&identity, &issued.identity_pem).expect("writes");
        std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).expect("its owner's");
        std::fs::write(folder.join(CA_FILE), authority.certificate_pem()).expect("writes");
        issued.certificate.serial.to_string()
    }

    #[tokio::test]
    async fn a_client_takes_up_a_renewed_certificate_of_its_own_and_no_other() {
        let domain: TrustDomain = "mesh.example".parse().expect("a name");
        let valid = Validity::for_the_next(Duration::from_secs(7_200));
        let authority = Authority::create(domain, valid).expect("an authority");
        let folder = tempfile::tempdir().expect("a directory");
        certify(&authority, "app", folder.path());
        let own = Own::read(folder.path()).expect("an identity");
        assert!(own.renewed().is_none(), "nothing is new");
        let serial = certify(&authority, "app", folder.path());
        let renewed = own.renewed().expect("a renewed certificate");
        assert_eq!(renewed.certificate().serial.to_string(), serial);
        certify(&authority, "somebody", folder.path());
        assert!(own.renewed().is_none(), "somebody else's");
    }

    /// Nobody who comes is given anything.
    struct Nothing;

    impl Inbound for Nothing {
        fn deliver(&self, _: &Arc<Peer>, _: Request, answer: Answer) {
            answer.fault(Fault::not_sent(FaultKind::Handler("there is nothing here".into())));
        }
    }

    impl Gate for Nothing {
        fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
            let (class, from, to) = (passage.class.clone(), passage.from.clone(), passage.to.clone());
            Err(GateRefusal { class, from, to, reason: "nothing may pass".into() })
        }
    }

    /// A node that anyone of its mesh may connect to.
    fn node(authority: &Authority) -> (NodeId, Transport) {
        let id: NodeId = "us/n1".parse().expect("a node");
        let who = Principal { role: Role::Node, region: id.region.clone(), name: id.name.to_string() };
        let hour = Validity::for_the_next(Duration::from_secs(3_600));
        let issued = authority.issue(&who, hour).expect("issued");
        let trust = Trust::from_pem(authority.certificate_pem().as_bytes(), None).expect("trust");
        let credentials = Credentials::new(issued.identity_pem.as_bytes(), trust).expect("credentials");
        let any = "127.0.0.1:0".parse().expect("an address");
        let identity = Identity {
            cluster: ClusterId(1),
            node: Some(id.clone()),
            founding_hash: [0; 32],
            manifest: Vec::new(),
            public_key: Vec::new(),
            incarnation: 1,
            build: String::new(),
        };
        let (regions, settings) = (Regions::of([id.region.clone()]), TransportSettings::default());
        let nothing = Arc::new(Nothing);
        let bound = Transport::bind(
            any,
            &credentials,
            regions,
            identity,
            settings,
            Arc::clone(&nothing) as _,
            nothing,
        );
        (id, bound.expect("bound"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_first_call_to_a_node_after_a_renewal_goes_by_the_new_certificate() {
        let domain: TrustDomain = "mesh.example".parse().expect("a name");
        let valid = Validity::for_the_next(Duration::from_secs(7_200));
        let authority = Authority::create(domain, valid).expect("an authority");
        let folder = tempfile::tempdir().expect("a directory");
        certify(&authority, "app", folder.path());
        let (id, node) = node(&authority);
        let directory = Directory::of(vec![(id.clone(), node.local_addr().expect("bound"))]);
        let client = MeshClient::new(folder.path(), directory).expect("a client");
        let serial = certify(&authority, "app", folder.path());
        // As if it had asked nobody for a while.
        *client.own.looked.lock() -= LOOK_EVERY;
        client.connect_all().await.expect("connected");
        let shown: Vec<String> = node.guests().iter().map(|guest| guest.serial.to_string()).collect();
        assert_eq!(shown, [serial]);
    }
}
