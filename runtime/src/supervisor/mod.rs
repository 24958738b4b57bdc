//! The regional supervisor: starts a node's parts in order, watches them, and stops them in order.
//!
//! Start: control store → identity → hot store → actors → transport → ready; each step is told, and one
//! that fails names itself. A node that died too often lately waits before the first. Stop: refuse new
//! calls, drain, end what is hosted, flush, exit, each with its share of the time. What cannot go on (a
//! failed write, a panic in an actor, a task that died) asks [`Halt`] for a stop; what stands still is the
//! watchdog's; half-alive is the worst state.
//!
//! * It decides: the order, and when the node is ready.
//! * It never does: start serving before the disk and the identity are proven to be this node's.

mod start;
mod steps;
mod stop;

mod actors;
mod announce;
mod audit;
mod ceiling;
mod certificate;
mod clock;
mod crashes;
mod delivery_metrics;
mod escrow;
mod escrow_metrics;
mod footing;
mod halt;
mod hosted;
mod life;
mod mode;
pub(crate) mod notify;
mod policy;
mod pools;
mod pulse;
mod quorum;
mod ranges;
mod readiness;
mod reload;
mod remembered;
mod report;
mod source;
mod status;
mod tasks;
mod watchdog;
mod workload;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rhumb_actors::remote::Hosted;
use rhumb_storage::{DataDir, HotStore};
use rhumb_transport::Transport;

use crate::host::{Host, HostList, Hosts};
use crate::mesh::Mesh;
use crate::settings::Live;
use crate::telemetry::Telemetry;
pub use crashes::{CrashSettings, LastStop, State};
pub use halt::Halt;
pub use life::LAST_STOP_FILE;
use life::Life;
pub(crate) use life::pause_ahead;
pub use pulse::WatchSettings;
pub(crate) use ranges::old_copy;
pub use readiness::RESTORED;
use start::Start;

/// How long a node that cannot go on waits for its last spans to be taken.
const TRACES_WITHIN: Duration = Duration::from_secs(1);
/// Between what cannot be mended and the end of the process: answers that say so leave it.
const LAST_WORDS: Duration = Duration::from_millis(100);

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
        let life = Life::on(&self.settings.now().node.data);
        Supervisor::start(self.settings, self.hosts, self.telemetry, life).await
    }

    /// Starts the node and runs it until `stop` resolves or it cannot go on. It follows its settings
    /// meanwhile.
    ///
    /// # Errors
    /// Why it could not start, or why it stopped by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(stop);
        let life = Life::on(&self.settings.now().node.data);
        let node = tokio::select! {
            node = Supervisor::start(self.settings, self.hosts, self.telemetry, life.clone()) => node?,
            () = &mut stop => {
                tracing::info!("asked to stop before it had started");
                start::settled().await;
                life.stopped();
                return Ok(());
            }
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
    life: Life,
    /// The ordered stop has begun.
    stopping: Arc<AtomicBool>,
    transport: Transport,
    actors: actors::Actors,
    store: HotStore,
    telemetry: Option<Telemetry>,
    ranges: ranges::Ranges,
    tasks: tasks::Tasks,
    pulse: Option<pulse::Pulse>,
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
                self.stop().await
            }
            reason = halt.asked() => {
                self.life.failed(&reason);
                // Whoever waits for what failed is answered: nothing can be acknowledged any more.
                tokio::time::sleep(LAST_WORDS).await;
                let telemetry = self.telemetry.clone();
                if let Some(tracer) = self.mesh.tracer() {
                    tracer.incident("node halts", Vec::new());
                }
                self.abandon();
                if let Some(telemetry) = telemetry {
                    telemetry.close(TRACES_WITHIN).await;
                }
                anyhow::bail!("{reason}")
            }
        }
    }

    async fn start(
        settings: Live,
        hosts: HostList,
        telemetry: Option<Telemetry>,
        life: Life,
    ) -> anyhow::Result<Self> {
        let config = settings.now();
        let (region, node) = (config.me.region.as_str(), config.me.to_string());
        let telemetry = match telemetry {
            Some(telemetry) => Some(telemetry),
            None => Telemetry::start(&config.telemetry, region, &node)?,
        };
        notify::starting();
        life.pause(&config.crash).await;
        let (halt, health) = (Halt::default(), pulse::Health::default());
        Start { settings, config, halt, life, health, telemetry }.run(hosts).await
    }

    /// Stops at once: nothing more may be sent or written.
    fn abandon(self) {
        self.tasks.end();
        self.hosts.close_now();
        self.hosts.stop();
        self.actors.stop();
    }
}
