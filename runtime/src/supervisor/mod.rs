//! The regional supervisor: starts a node's parts in order, watches them, and stops them in order.
//!
//! Start: control store → identity → hot store → clock → policy → actors → transport → admin HTTP.
//! Stop: refuse new calls, drain, flush, exit. What cannot go on (a failed write, a panic in an actor)
//! asks [`Halt`] for a stop; half-alive is the worst state.
//!
//! * It decides: the order, and when the node is ready.
//! * It never does: start serving before the disk and the identity are proven to be this node's.

mod actors;
mod ceiling;
mod certificate;
mod escrow;
mod halt;
mod hosted;
mod policy;
mod reload;
mod remembered;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rhumb_actors::escrow::book::Book;
use rhumb_actors::remote::Hosted;
use rhumb_core::{Epoch, Gate, Role};
use rhumb_storage::{DataDir, Expect, Family, HotStore, RocksEngine, Store};
use rhumb_transport::{Credentials, Identity, LinkState, Regions, Transport};

use crate::clock::now_millis;
use crate::host::arbiters::Arbiters;
use crate::host::{Host, HostList, Hosts};
use crate::http;
use crate::mesh::registry::Registry;
use crate::mesh::{Carrier, Mesh};
use crate::secrets::FirstOf;
use crate::settings::{Live, Settings};
use crate::telemetry::{Telemetry, Watched};
pub use halt::Halt;
use policy::ServedPolicy;
pub use report::RESTORED;

/// How long one message may keep an arbiter before that is reported.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);
/// How often peers' presence is told anew, so that a notice that was lost does no harm.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);

/// A node that is about to start.
pub struct Builder {
    settings: Live,
    hosts: HostList,
    telemetry: Option<Telemetry>,
}

impl Builder {
    /// Hosts actors of one more type.
    #[must_use]
    pub fn host<A: Hosted>(mut self, host: Host<A>) -> Self {
        self.hosts.add(host);
        self
    }

    /// Exports its traces through what the program has started already, so that the program's own spans
    /// go with them ([`layer`](crate::telemetry::layer)). Unless given, the settings say where to.
    #[must_use]
    pub fn telemetry(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// Why it cannot; among that an actor type that is hosted twice, or needed and not hosted.
    pub async fn start(self) -> anyhow::Result<Supervisor> {
        Supervisor::start(self.settings, self.hosts, self.telemetry, Halt::default()).await
    }

    /// Starts the node and runs it until `stop` resolves or it cannot go on. It follows its settings
    /// meanwhile.
    ///
    /// # Errors
    /// Why it could not start, or why it stopped by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(stop);
        let node = tokio::select! {
            node = self.start() => node?,
            () = &mut stop => return Ok(()),
        };
        node.run(stop).await
    }
}

/// A running node.
pub struct Supervisor {
    settings: Live,
    mesh: Mesh,
    hosts: Arc<Hosts>,
    halt: Halt,
    transport: Transport,
    actors: actors::Actors,
    store: HotStore,
    telemetry: Option<Telemetry>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Its lock is held for as long as the hot store is open.
    _dir: Arc<DataDir>,
}

impl Supervisor {
    /// A node with these settings, which hosts Rhumb's own actors and those that are added.
    #[must_use]
    pub fn builder(settings: Live) -> Builder {
        Builder { settings, hosts: HostList::default(), telemetry: None }
    }

    /// The mesh, as seen from this node.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Runs until `stop` resolves, and then stops in order; or until the node cannot go on.
    ///
    /// # Errors
    /// Why it stopped by itself, or why its ordered stop failed.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let halt = self.halt.clone();
        tokio::select! {
            () = stop => {
                tracing::info!("stopping");
                self.stop().await
            }
            reason = halt.asked() => {
                self.abandon();
                anyhow::bail!("{reason}")
            }
        }
    }

    async fn start(
        settings: Live,
        hosts: HostList,
        telemetry: Option<Telemetry>,
        halt: Halt,
    ) -> anyhow::Result<Self> {
        let mut changes = settings.subscribe();
        let config = Arc::clone(&changes.borrow_and_update());
        let me = config.me.clone();
        let telemetry = match telemetry {
            Some(telemetry) => Some(telemetry),
            None => Telemetry::start(&config.telemetry, me.region.as_str(), &me.to_string())?,
        };
        // Control store, identity.
        let expect = Expect { cluster: config.cluster, node: me.clone(), init: None };
        let open = |path: &Path, create| RocksEngine::open(path, &config.rocks, create);
        let (dir, engine) = DataDir::open_with(&config.node.data, &expect, open)
            .with_context(|| format!("data directory {}", config.node.data.display()))?;
        remembered::founding(dir.control(), &config.founding)?;
        let credentials = identity(&config)?;
        let policy = ServedPolicy::begin(&config, dir.control())?;

        let dir = Arc::new(dir);

        // Hot store and clock.
        let store = Store::open(engine)?;
        let opened = store.written();
        let clock = ceiling::begin(&store, config.max_offset, config.catch_up).await?;
        let records = escrow_records(&store)?;
        let on_poison = halt.clone();
        let store = HotStore::start(store, config.hot.clone(), move |fault| {
            on_poison.now(format!("storage: {fault}"));
        })?;

        // Actors.
        let mesh = Mesh::new(me.clone(), config.founding.clone(), policy.snapshots(), clock.clone());
        if let Some(telemetry) = &telemetry {
            mesh.traced(telemetry.tracer(Some(clock.clone())));
        }
        let book = Book::recover(
            me.clone(),
            config.founding.clone(),
            dir.identity().store,
            config.escrow.clone(),
            records.into_iter(),
            opened,
            clock.now(),
        )?;
        let life = book.life();
        let world = escrow::EscrowWorld {
            clock: clock.clone(),
            mesh: mesh.clone(),
            halt: halt.clone(),
            store: store.clone(),
        };
        let gate: Arc<dyn Gate> = Arc::new(Watched(Arc::new(policy.clone())));
        let actors =
            actors::Actors::start(store.clone(), book, me.region.clone(), Arc::clone(&gate), Arc::new(world))
                .await?;

        // Transport.
        let escrow = actors.escrow();
        let told = escrow.clone();
        let peer_changed = Box::new(move |peer: &rhumb_transport::Peer, up| {
            if let Some(node) = &peer.node {
                told.peer_changed(node.clone(), up);
            }
        });
        let arbiters = Arbiters::threads(arbiters(), BLOCKED_AFTER).await?;
        let hosts = Hosts::start(hosts, &mesh, arbiters)?;
        mesh.hosts(&hosts, Epoch(life.0));
        let mut registry = Registry::new(clock.clone(), tokio::runtime::Handle::current(), peer_changed);
        registry.hosting(mesh.clone());
        crate::mesh::serve(&mut registry, &mesh)?;
        let regions: Vec<_> = config.founding.regions().into_iter().cloned().collect();
        escrow::serve(&mut registry, &escrow, &policy, regions.clone())?;
        let hello = Identity {
            cluster: config.cluster,
            node: Some(me.clone()),
            founding_hash: config.founding.hash(),
            manifest: registry.manifest(),
            public_key: Vec::new(),
            incarnation: life.0,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let transport = Transport::bind(
            config.node.listen,
            &credentials,
            Regions::of(regions),
            hello,
            config.transport.clone(),
            Arc::clone(&gate),
            Arc::new(registry),
        )
        .with_context(|| format!("QUIC on {}", config.node.listen))?;
        mesh.bound(Carrier::Quic(transport.clone()));
        for (peer, address) in &config.peers {
            transport.add_peer(peer.clone(), *address);
        }

        let own = certificate::Own::of(credentials);
        let folder = config.node.identity.clone();
        let renewed = certificate::follow(own.clone(), folder, transport.clone(), settings.subscribe());

        // Admin HTTP and the tasks that keep going.
        let listener = http::bind(config.node.admin).await?;
        let report = report::Report {
            settings: settings.clone(),
            own: own.clone(),
            escrow: escrow.clone(),
            store: store.clone(),
            transport: transport.clone(),
            hosts: Arc::clone(&hosts),
            clock: clock.clone(),
            mesh: mesh.clone(),
        };
        let tasks = vec![
            ceiling::keep(clock.clone(), store.clone(), halt.clone()),
            presence(transport.clone(), escrow.clone()),
            observe(policy.clone()),
            reload::follow(changes, policy, escrow, Arc::clone(&dir)),
            renewed,
            http::serve(listener, Arc::new(report)),
        ];
        tracing::info!(node = %me, quic = %config.node.listen, admin = %config.node.admin, "serving");
        Ok(Self { settings, mesh, hosts, halt, transport, actors, store, telemetry, tasks, _dir: dir })
    }

    /// Refuses new calls, drains, flushes.
    ///
    /// # Errors
    /// The ordered stop took too long, or the last sync failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        let within = self.settings.now().stop_within;
        let orderly = async {
            self.transport.drain(within / 2).await;
            self.hosts.close(within / 4).await;
            self.transport.close().await;
            self.hosts.stop();
            self.actors.stop();
            self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
            let store = self.store.clone();
            let closed = tokio::task::spawn_blocking(move || store.close(within / 4)).await?;
            closed.map(drop).context("the last sync of the hot store")?;
            if let Some(telemetry) = &self.telemetry {
                telemetry.close(self.settings.now().telemetry.timeout.min(within / 4)).await;
            }
            anyhow::Ok(())
        };
        let stopped = tokio::time::timeout(within, orderly).await;
        stopped.unwrap_or_else(|_| {
            anyhow::bail!(
                "the ordered stop took longer than {within:?} (supervisor.stop_within); what was acknowledged is durable"
            )
        })
    }

    /// Stops at once: nothing more may be sent or written.
    fn abandon(self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.hosts.close_now();
        self.hosts.stop();
        self.actors.stop();
    }
}

/// Arbiters for the actors of the user's types: one a core.
fn arbiters() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn identity(config: &Settings) -> anyhow::Result<Credentials> {
    let folder = &config.node.identity;
    let credentials = crate::identity::load_with(&FirstOf::environment_and(folder), folder)?;
    let principal = credentials.principal();
    let me = &config.me;
    let mine =
        principal.role == Role::Node && principal.region == me.region && principal.name == me.name.as_str();
    anyhow::ensure!(
        mine && *credentials.trust_domain() == config.trust_domain,
        "the certificate in {} is that of {principal} of {}, but this is node {me} of {}",
        config.node.identity.display(),
        credentials.trust_domain(),
        config.trust_domain
    );
    credentials
        .verify(Duration::from_millis(now_millis()))
        .with_context(|| format!("the certificate in {}", config.node.identity.display()))?;
    Ok(credentials)
}

fn escrow_records<E: rhumb_storage::Engine>(store: &Store<E>) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    store.scan(Family::Escrow, b"", |key: &[u8], value: &[u8]| {
        records.push((key.to_vec(), value.to_vec()));
        true
    })?;
    Ok(records)
}

/// Tells the escrow again and again which peers are connected.
fn presence(transport: Transport, escrow: rhumb_actors::escrow::EscrowHandle) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(PRESENCE_EVERY);
        loop {
            every.tick().await;
            // A first dial that is still under way says nothing about its peer yet.
            for link in transport.links().into_iter().filter(|link| link.state != LinkState::Connecting) {
                escrow.peer_changed(link.peer.clone(), link.state == LinkState::Connected);
            }
        }
    })
}

/// Lets the policy's exceptions end.
fn observe(policy: ServedPolicy) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            policy.observe();
        }
    })
}
