//! The steps of a node's start, in their order. Each takes what the ones before have made.
//!
//! The actors start before the transport: a peer may call from its first HELLO on, and must find them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use rhumb_actors::audit::AuditHandle;
use rhumb_actors::escrow::book::Book;
use rhumb_actors::escrow::{EscrowHandle, Standing};
use rhumb_actors::failover::FailoverSettings;
use rhumb_core::rng::Seed;
use rhumb_core::{Epoch, Gate, Incarnation, Knows, NodeId, Region, Role};
use rhumb_storage::data_dir::Begun;
use rhumb_storage::{DataDir, DataDirError, Expect, Family, HotStore, RocksEngine, Store};
use rhumb_transport::{Credentials, Identity, LinkState, Peer, Regions, Transport};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinHandle;

use super::actors::Actors;
use super::audit::{Audited, Findings, Served};
use super::halt::Halt;
use super::life::Life;
use super::policy::ServedPolicy;
use super::pulse::{Health, Rounds};
use super::quorum::{self, Quorum};
use super::ranges::{self, Parts, Ranges};
use super::readiness::Readiness;
use super::report::Report;
use super::source::Source;
use super::status::Desk;
use super::steps::Step;
use super::tasks::Tasks;
use super::{
    Supervisor, audit, ceiling, certificate, clock, escrow, footing, mode, pools, reload, remembered, source,
    status,
};
use crate::clock::{NodeClock, now_millis};
use crate::delivery::{self, Delivery, Disk, Hot, Recovered};
use crate::host::arbiters::Arbiters;
use crate::host::{HostList, Hosts};
use crate::http;
use crate::mesh::owners::Owners;
use crate::mesh::registry::Registry;
use crate::mesh::resilience::Switch;
use crate::mesh::{Carrier, Mesh};
use crate::settings::{IdentitySource, Live, Settings};
use crate::telemetry::{Telemetry, TracedGate};

/// How long one message may keep an arbiter before that is reported.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);
/// How long whoever gives the node its certificate may take at the start.
const IDENTITY_WITHIN: Duration = Duration::from_secs(30);
/// How long the store of a node that does not start may take to close.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);
/// How often peers' presence is told anew, so that a notice that was lost does no harm.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);

/// What every step may need.
pub(super) struct Start {
    pub(super) settings: Live,
    pub(super) config: Arc<Settings>,
    pub(super) halt: Halt,
    pub(super) life: Life,
    pub(super) health: Health,
    pub(super) telemetry: Option<Telemetry>,
}

/// The hot store is open.
struct Opened {
    dir: Arc<DataDir>,
    store: HotStore,
    clock: NodeClock,
    book: Book,
    audit: audit::Recovered,
}

/// The actors run.
struct Acting {
    actors: Actors,
    /// Whether the node may spend.
    standing: watch::Receiver<Standing>,
    mesh: Mesh,
    hosts: Arc<Hosts>,
    arbiters: Vec<(String, actix::ArbiterHandle)>,
    delivery: Delivery,
    /// Its task.
    desk: JoinHandle<()>,
    /// The one on whose thread the links are.
    links: actix::ArbiterHandle,
    life: Incarnation,
    audit: Served,
    audited: Audited,
    ranges: Ranges,
    quorum: Quorum,
    store: HotStore,
}

impl Start {
    /// Takes all steps.
    pub(super) async fn run(self, hosts: HostList) -> anyhow::Result<Supervisor> {
        let mut changes = self.settings.subscribe();
        let config = Arc::clone(&changes.borrow_and_update());
        let this = Self { config, ..self };
        let begun = Step::ControlStore.take(this.control_store()).await;
        let (begun, policy) = begun.inspect_err(|error| this.failed_at_home(error))?;
        this.life.begun();
        let started = this.after_control_store(begun, policy, hosts, changes).await;
        started.inspect_err(|error| this.life.failed(&format!("{error:#}")))
    }

    async fn after_control_store(
        &self,
        begun: Begun,
        policy: ServedPolicy,
        hosts: HostList,
        changes: watch::Receiver<Arc<Settings>>,
    ) -> anyhow::Result<Supervisor> {
        let mut source = source::of(&self.config, self.settings.subscribe());
        let credentials = Step::Identity.take(self.identity(&mut *source)).await?;
        let opened = Step::HotStore.take(self.hot_store(begun)).await?;
        let store = opened.store.clone();
        let started = self.after_hot_store(opened, policy, credentials, source, hosts, changes).await;
        if started.is_err() {
            off_the_loop(move || {
                let_go(&store);
                Ok(())
            })
            .await?;
        }
        started
    }

    async fn after_hot_store(
        &self,
        opened: Opened,
        policy: ServedPolicy,
        credentials: Credentials,
        source: Box<dyn Source>,
        hosts: HostList,
        changes: watch::Receiver<Arc<Settings>>,
    ) -> anyhow::Result<Supervisor> {
        let (dir, store, clock) = (Arc::clone(&opened.dir), opened.store.clone(), opened.clock.clone());
        let acting = Step::Actors.take(self.actors(opened, &policy, hosts)).await?;
        let desk = Desk::default();
        let bound = async {
            // A port that somebody else has is found before any peer hears of this node.
            let listener = http::bind(self.config.node.admin).await?;
            let transport = self.transport(&acting, &clock, &policy, &credentials, desk.clone());
            Ok((listener, transport.await?))
        };
        let (listener, transport) = Step::Transport.take(bound).await?;
        let ready = Ready { dir, store, clock, policy, credentials, transport, changes, desk };
        Step::Ready.take(self.ready(acting, listener, ready, source)).await
    }

    /// A start that fails counts, unless the directory is somebody else's.
    fn failed_at_home(&self, error: &anyhow::Error) {
        let not_ours = matches!(
            error.downcast_ref::<DataDirError>(),
            Some(
                DataDirError::NotInitialised(_)
                    | DataDirError::InUse(_)
                    | DataDirError::OtherCluster { .. }
                    | DataDirError::OtherNode { .. }
            )
        );
        if !not_ours {
            self.life.failed_at_home(&format!("{error:#}"));
        }
    }

    async fn control_store(&self) -> anyhow::Result<(Begun, ServedPolicy)> {
        let config = Arc::clone(&self.config);
        off_the_loop(move || {
            let Settings { me, cluster, node, founding, .. } = &*config;
            let expect = Expect { cluster: *cluster, node: me.clone(), init: None };
            let begun = DataDir::begin(&node.data, &expect)
                .with_context(|| format!("data directory {}", node.data.display()))?;
            remembered::version(begun.control(), Knows::here())
                .with_context(|| format!("data directory {}", node.data.display()))?;
            remembered::founding(begun.control(), founding)?;
            let policy = ServedPolicy::begin(&config, begun.control())?;
            Ok((begun, policy))
        })
        .await
    }

    async fn identity(&self, source: &mut dyn Source) -> anyhow::Result<Credentials> {
        let config = &self.config;
        let from = match config.identity.source {
            IdentitySource::Files => config.node.identity.display(),
            IdentitySource::WorkloadApi => config.identity.socket.display(),
        };
        let arrived = tokio::time::timeout(IDENTITY_WITHIN, source.next()).await;
        let arrived = arrived.with_context(|| {
            format!("{from} gave no certificate within {IDENTITY_WITHIN:?}: is there an entry for this node?")
        })?;
        let credentials = arrived.found.credentials(config.identity.revocations)?;
        let (principal, me) = (credentials.principal(), &config.me);
        let mine = principal.role == Role::Node
            && principal.region == me.region
            && principal.name == me.name.as_str();
        anyhow::ensure!(
            mine && *credentials.trust_domain() == config.trust_domain,
            "the certificate in {from} is that of {principal} of {}, but this is node {me} of {}",
            credentials.trust_domain(),
            config.trust_domain
        );
        credentials
            .verify(Duration::from_millis(now_millis()))
            .with_context(|| format!("the certificate in {from}"))?;
        Ok(credentials)
    }

    async fn hot_store(&self, begun: Begun) -> anyhow::Result<Opened> {
        let config = Arc::clone(&self.config);
        let (dir, store) = off_the_loop(move || {
            let open = |path: &Path, create| RocksEngine::open(path, &config.rocks, create);
            let (dir, engine) = begun
                .with_engine(open)
                .with_context(|| format!("data directory {}", config.node.data.display()))?;
            Ok((dir, Store::open(engine)?))
        })
        .await?;
        let config = Arc::clone(&self.config);
        let (clock, last) = ceiling::begin(&store, config.max_offset, config.catch_up).await?;
        clock::begin(&clock, &store, &config, last)?;
        let on_poison = self.halt.clone();
        off_the_loop(move || {
            let (opened, records) = (store.written(), escrow_records(&store)?);
            let store = HotStore::start(store, config.hot.clone(), move |fault| {
                on_poison.now(format!("storage: {fault}"));
            })?;
            let recovered = || -> anyhow::Result<_> {
                let book = Book::recover(
                    config.me.clone(),
                    config.founding.clone(),
                    dir.identity().store,
                    config.escrow.clone(),
                    records.into_iter(),
                    opened,
                    clock.now(),
                )?;
                Ok((book, audit::Recovered::of(&config, &store).context("the audit log")?))
            };
            match recovered() {
                Ok((book, audit)) => Ok(Opened { dir: Arc::new(dir), store, clock, book, audit }),
                Err(error) => {
                    let_go(&store);
                    Err(error)
                }
            }
        })
        .await
    }

    async fn actors(&self, opened: Opened, policy: &ServedPolicy, hosts: HostList) -> anyhow::Result<Acting> {
        let Opened { dir, store, clock, book, audit } = opened;
        let store_id = ranges::old_copy::store_id(&store, dir.identity().store)?;
        let Settings { me, founding, .. } = &*self.config;
        let mesh = Mesh::new(me.clone(), founding.clone(), policy.snapshots(), clock.clone());
        mesh.resilient(self.config.resilience.clone(), &Seed::from_entropy());
        if let Some(telemetry) = &self.telemetry {
            mesh.traced(telemetry.tracer(Some(clock.clone())));
        }
        let life = book.life();
        let (halt, at) = (self.halt.clone(), store.clone());
        let standing = watch::Sender::new(book.standing());
        let stands = standing.subscribe();
        let audited = policy.audited();
        let served = Served {
            store: store.clone(),
            me: me.clone(),
            key: audit.signing.log.key().clone(),
            findings: Findings::default(),
            policy: policy.clone(),
            retention: self.config.audit.log.retention,
        };
        let logs = (audit.world(clock.clone(), mesh.clone(), self.halt.clone()), clock.clone());
        let world = escrow::EscrowWorld { clock, mesh: mesh.clone(), halt, store: at, standing };
        let gate: Arc<dyn Gate> = Arc::new(policy.clone());
        let (audit_world, clock) = logs;
        let (tokens, times) = (audit.tokens, clock.clone());
        let actors = Actors::start(
            store.clone(),
            book,
            me.region.clone(),
            gate,
            Arc::new(world),
            (audit, audit_world),
        )
        .await?;
        mesh.audits(actors.audit());
        audited.begins(actors.audit(), clock);
        let threads = Arbiters::threads(arbiters(), BLOCKED_AFTER).await?;
        let (arbiters, links) = (threads.handles(), threads.of_links().handle.clone());
        let of_ranges = runtime_of(threads.of_ranges()).await?;
        let hosts = Hosts::start(hosts, &mesh, threads)?;
        mesh.hosts(&hosts, Epoch(life.0));
        let owners = Owners::new(FailoverSettings::default().permit, times.clone());
        mesh.moves_by(owners.clone(), &hosts);
        let judged = times.clone();
        let ranges = Ranges::new(Parts {
            me: me.clone(),
            store_id,
            cluster: self.config.cluster,
            founding: founding.clone(),
            max_offset: self.config.max_offset,
            support: self.config.support,
            splits: self.config.splits,
            replace_after: self.config.replace_after,
            compare_every: self.config.compare_every,
            feeds: self.config.feeding == Switch::On,
            data: self.config.node.data.clone(),
            tokens,
            store: store.clone(),
            dir: Arc::downgrade(&dir),
            mesh: mesh.clone(),
            owners,
            clock: times.clone(),
            policy: policy.clone(),
            log: actors.audit(),
            halt: self.halt.clone(),
            standing: stands.clone(),
            time_is_good: Arc::new(move || judged.strong_time().is_ok()),
            runtime: of_ranges,
        });
        mesh.keeps(Arc::new(ranges.for_actors()));
        let quorum = Quorum::new(quorum::Parts {
            me: me.clone(),
            founding: founding.clone(),
            settings: self.config.escrow.clone(),
            ranges: ranges.clone(),
            mesh: mesh.clone(),
            clock: times,
            policy: policy.clone(),
            local: actors.escrow(),
            standing: stands.clone(),
            arbiter: actors.arbiters()[0].1.clone(),
        });
        // Begins with what the last life left: letters to actors of this node find them.
        let hot = store.clone();
        let (delivery, desk) = self.delivery(&mesh, Hot { storage: actors.storage(), store }, life).await?;
        Ok(Acting {
            actors,
            standing: stands,
            mesh,
            hosts,
            arbiters,
            delivery,
            desk,
            links,
            life,
            audit: served,
            audited,
            ranges,
            quorum,
            store: hot,
        })
    }

    /// What asks with keys and durable tells go through, as the last life has left it.
    async fn delivery(
        &self,
        mesh: &Mesh,
        disk: Hot,
        life: Incarnation,
    ) -> anyhow::Result<(Delivery, JoinHandle<()>)> {
        let (disk, settings): (Arc<dyn Disk>, _) = (Arc::new(disk), self.config.delivery.clone());
        let at = Arc::clone(&disk);
        let recovered = off_the_loop(move || Recovered::read(&*at, &settings, life)).await?;
        let halt = self.halt.clone();
        let started = Delivery::start(mesh, disk, recovered, move |reason| halt.now(reason));
        mesh.delivers(started.0.clone());
        Ok(started)
    }

    /// Everything that peers, clients and operators may ask this node.
    fn registry(
        &self,
        acting: &Acting,
        clock: &NodeClock,
        policy: &ServedPolicy,
        regions: &[Region],
        desk: Desk,
    ) -> anyhow::Result<Registry> {
        let (mesh, escrow) = (&acting.mesh, acting.actors.escrow());
        let runtime = tokio::runtime::Handle::current();
        let log = acting.actors.audit();
        let changed = peer_changed(escrow.clone(), acting.delivery.clone(), log.clone());
        let mut registry = Registry::new(clock.clone(), runtime, changed);
        let audited = acting.audited.clone();
        registry.refusing(move |from, why| {
            if let Some(refused) = audit::turned_away(from, why) {
                audited.observe(|| refused);
            }
        });
        registry.hosting(mesh.clone());
        crate::mesh::serve(&mut registry, mesh)?;
        delivery::parcel::serve(&mut registry, &acting.delivery)?;
        crate::mesh::dead_letters::serve(&mut registry, mesh)?;
        let quorum = &acting.quorum;
        let sells = quorum::Desk::new(escrow.clone(), quorum.clone());
        escrow::serve(&mut registry, (&escrow, &sells), &log, policy, regions.to_vec())?;
        quorum::serve(&mut registry, quorum)?;
        audit::serve(&mut registry, &log, &acting.audit)?;
        ranges::serve(&mut registry, &acting.ranges)?;
        pools::serve(&mut registry, (&escrow, quorum), &self.config.me, &self.config.founding)?;
        status::serve(&mut registry, desk)?;
        clock::serve(&mut registry, clock)?;
        let watch = self.clock_watch(acting, clock);
        clock::serve_drills(&mut registry, &watch, &log)?;
        clock::serve_resets(&mut registry, &watch, &log, &acting.store)?;
        Ok(registry)
    }

    fn clock_watch(&self, acting: &Acting, clock: &NodeClock) -> clock::Watch {
        let (mesh, audited) = (acting.mesh.clone(), acting.audited.clone());
        let (me, chrony) = (self.config.me.clone(), self.config.time.chrony);
        clock::Watch { me, clock: clock.clone(), mesh, audited, chrony }
    }

    async fn transport(
        &self,
        acting: &Acting,
        clock: &NodeClock,
        policy: &ServedPolicy,
        credentials: &Credentials,
        desk: Desk,
    ) -> anyhow::Result<Transport> {
        let (config, mesh) = (&self.config, &acting.mesh);
        let regions: Vec<Region> = config.founding.regions().into_iter().cloned().collect();
        let registry = self.registry(acting, clock, policy, &regions, desk)?;
        let hello = Identity {
            cluster: config.cluster,
            node: Some(config.me.clone()),
            founding_hash: config.founding.hash(),
            manifest: registry.manifest(),
            public_key: acting.audit.key.public.to_vec(),
            incarnation: acting.life.0,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (bound, binding) = tokio::sync::oneshot::channel();
        let (config_there, credentials) = (Arc::clone(config), credentials.clone());
        let gate = Arc::new(TracedGate(Arc::new(policy.clone())));
        acting.links.spawn_fn(move || {
            let (listen, settings) = (config_there.node.listen, config_there.transport.clone());
            let regions = Regions::of(regions);
            let transport =
                Transport::bind(listen, &credentials, regions, hello, settings, gate, Arc::new(registry));
            // Who waits for it may have been told to stop.
            bound.send(transport).ok();
        });
        let transport = binding.await?.with_context(|| format!("QUIC on {}", config.node.listen))?;
        mesh.bound(Carrier::Quic(transport.clone()));
        for (peer, address) in &config.peers {
            transport.add_peer(peer.clone(), *address);
        }
        Ok(transport)
    }

    /// Admin HTTP, the tasks that keep going, and the watch over all of it.
    async fn ready(
        &self,
        acting: Acting,
        listener: TcpListener,
        ready: Ready,
        source: Box<dyn Source>,
    ) -> anyhow::Result<Supervisor> {
        let config = &self.config;
        let own = certificate::Own::of(ready.credentials.clone());
        let report = Arc::new(self.report(&acting, &ready, &own));
        ready.desk.open(Arc::clone(&report));
        let pulse = self.watch(&acting.actors, &ready.store, &acting.arbiters)?;
        let readiness = report.readiness.clone();
        let admin = http::serve(listener, Arc::<Report>::clone(&report));
        acting.actors.audit().saw(audit::began(config, acting.life, &own));
        let mut tasks = self.tasks(&ready, &acting, &report, admin, source);
        tasks.keep("delivers letters", acting.desk);
        tracing::info!(node = %config.me, quic = %config.node.listen, admin = %config.node.admin, "serving");
        Ok(Supervisor {
            settings: self.settings.clone(),
            mesh: acting.mesh,
            hosts: acting.hosts,
            halt: self.halt.clone(),
            life: self.life.clone(),
            stopping: readiness.stopping,
            transport: ready.transport,
            actors: acting.actors,
            store: ready.store,
            telemetry: self.telemetry.clone(),
            ranges: acting.ranges,
            tasks,
            pulse: Some(pulse),
            _dir: ready.dir,
        })
    }

    fn report(&self, acting: &Acting, ready: &Ready, own: &certificate::Own) -> Report {
        let escrow = acting.actors.escrow();
        let readiness = Readiness {
            escrow: escrow.clone(),
            standing: acting.standing.clone(),
            store: ready.store.clone(),
            own: own.clone(),
            health: self.health.clone(),
            stopping: Arc::new(AtomicBool::new(false)),
        };
        Report {
            settings: self.settings.clone(),
            own: own.clone(),
            escrow,
            storage: acting.actors.storage(),
            audit: acting.actors.audit(),
            findings: acting.audit.findings.clone(),
            store: ready.store.clone(),
            transport: ready.transport.clone(),
            hosts: Arc::clone(&acting.hosts),
            clock: ready.clock.clone(),
            ranges: acting.ranges.clone(),
            readiness,
            policy: ready.policy.clone(),
            mesh: acting.mesh.clone(),
            incarnation: acting.life,
            begun: tokio::time::Instant::now(),
        }
    }

    fn tasks(
        &self,
        ready: &Ready,
        acting: &Acting,
        report: &Report,
        admin: JoinHandle<()>,
        source: Box<dyn Source>,
    ) -> Tasks {
        let Ready { dir, store, clock, policy, transport, changes, .. } = ready;
        let Report { own, escrow, mesh, readiness, .. } = report;
        let halt = &self.halt;
        let ceiling = ceiling::keep(clock.clone(), store.clone(), halt.clone());
        let renewed =
            certificate::follow(own.clone(), source, transport.clone(), mesh.clone(), acting.audited.clone());
        let mut tasks = Tasks::new(halt.clone());
        let Served { store: reads, key, findings, .. } = acting.audit.clone();
        let (log, every) = (acting.actors.audit(), self.config.audit.check_every);
        let checks = audit::keep_checking(log, reads, key, every, findings);
        tasks.keep("checks the audit log", checks);
        tasks.keep("serves ranges", acting.ranges.spawned());
        tasks.keep("writes ledgers in ranges", acting.quorum.spawned());
        tasks.keep("raises the clock's ceiling", ceiling);
        let clocks = self.clock_watch(acting, clock);
        for (at, source) in self.config.time.sources.iter().enumerate() {
            tasks.keep("asks a source of time", clocks.clone().ask(at, source.clone()));
        }
        tasks.keep("compares clocks", clocks.keep(transport.clone()));
        tasks.keep("tells of peers", presence(transport.clone(), escrow.clone()));
        tasks.keep("lets exceptions end", observe(policy.clone()));
        let (changes, dir_of_policy) = (changes.clone(), Arc::clone(dir));
        let reloads = reload::follow(changes, policy.clone(), escrow.clone(), dir_of_policy, halt.clone());
        tasks.keep("follows the settings", reloads);
        tasks.keep("follows the certificate", renewed);
        tasks.keep("watches the data directory", footing::watch(dir.footing(), store.clone()));
        let watched = mode::Watched {
            mesh: mesh.clone(),
            hosts: Arc::clone(&report.hosts),
            store: store.clone(),
            transport: transport.clone(),
        };
        tasks.keep("says how much the node does", mode::keep(watched, self.config.resilience.mode));
        tasks.keep("serves the admin HTTP", admin);
        tasks.keep("tells the service manager", super::announce::keep(readiness.clone()));
        tasks
    }

    fn watch(
        &self,
        actors: &Actors,
        store: &HotStore,
        hosting: &[(String, actix::ArbiterHandle)],
    ) -> anyhow::Result<super::pulse::Pulse> {
        let mut watch = Rounds::new(self.config.watch.clone());
        watch.runtime();
        watch.store(store);
        for (name, arbiter) in actors.arbiters() {
            watch.arbiter(name, arbiter);
        }
        for (name, arbiter) in hosting {
            watch.arbiter(name, arbiter);
        }
        watch.begin(self.health.clone(), self.life.clone())
    }
}

/// What the last step takes.
struct Ready {
    dir: Arc<DataDir>,
    store: HotStore,
    clock: NodeClock,
    policy: ServedPolicy,
    credentials: Credentials,
    transport: Transport,
    changes: watch::Receiver<Arc<Settings>>,
    desk: Desk,
}

/// Does what may take long (a recovery, a scan) on a thread of its own, so that a stop is heard meanwhile.
async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let busy = BUSY.read().await;
    // What it made is dropped before the guard, also where nobody waits for it any more.
    tokio::task::spawn_blocking(move || (work(), busy)).await?.0
}

/// Ends a store whose node does not start: a process that exits under RocksDB aborts.
fn let_go(store: &HotStore) {
    if let Err(error) = store.close(LET_GO_WITHIN) {
        tracing::warn!(%error, "the hot store did not close in time");
    }
}

/// Held while work is off the loop.
static BUSY: RwLock<()> = RwLock::const_new(());

/// Waits for what a start that was given up has begun: a process that exits under RocksDB aborts.
pub(super) async fn settled() {
    drop(BUSY.write().await);
}

/// Arbiters for the actors of the user's types: one a core.
/// The runtime of an arbiter's thread.
async fn runtime_of(arbiter: &actix::ArbiterHandle) -> anyhow::Result<tokio::runtime::Handle> {
    let (says, said) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(|| drop(says.send(tokio::runtime::Handle::current())));
    said.await.context("a thread for ranges has ended")
}

fn arbiters() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn peer_changed(
    escrow: EscrowHandle,
    delivery: Delivery,
    audit: AuditHandle,
) -> crate::mesh::registry::PeerChanged {
    Box::new(move |peer: &Peer, up| {
        let node: Option<NodeId> = peer.node.clone();
        if let Some(node) = node {
            if up {
                audit.shown(&node, &peer.public_key);
                delivery.reached(node.clone());
            }
            escrow.peer_changed(node, up);
        }
    })
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
fn presence(transport: Transport, escrow: EscrowHandle) -> JoinHandle<()> {
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
fn observe(policy: ServedPolicy) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            policy.observe();
        }
    })
}
