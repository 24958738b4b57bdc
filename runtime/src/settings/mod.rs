//! Settings in layers: built-in, then `global.toml`, `REGION.toml`, `REGION/ENV.toml`, then
//! `RHUMB__SECTION__KEY` in the environment. A later layer overrides single keys of an earlier one.
//!
//! * It decides: what a node's effective settings are, whether they make sense together, and what of a
//!   change a running node takes up.
//! * It never does: guess, or stop at the first fault. What is not known is refused, and all faults of
//!   all layers are told at once, each with its file, line and column.
//! * Invariant: everything in [`Settings`] is validated; relative paths stand below the folder that the
//!   settings were read from. No secret is in anything that is printed.
//!
//! Every key is declared once, in `keys`: its kind, range, meaning and field.

mod check;
mod draft;
mod fault;
mod identity;
mod key;
mod keys;
mod kind;
mod layer;
mod live;
mod log;
mod reference;
mod rules;
mod source;
pub mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rhumb_actors::audit::AuditSettings;
use rhumb_actors::delivery::DeliverySettings;
use rhumb_actors::escrow::EscrowSettings;
use rhumb_actors::ranges::splitting::SplitSettings;
use rhumb_core::{ClusterId, NodeId};
use rhumb_storage::hot::HotSettings;
use rhumb_storage::rocks::RocksSettings;
use rhumb_topology::Founding;
use rhumb_topology::policy::SignedPolicy;
use rhumb_transport::{TransportSettings, TrustDomain};
use serde::{Deserialize, Serialize};

use crate::mesh::resilience::{ResilienceSettings, Switch};
use crate::supervisor::{CrashSettings, WatchSettings};
use crate::telemetry::TelemetrySettings;

pub use check::{Checked, check};
pub use fault::{Fault, Faults, Place};
pub use identity::{IdentitySettings, IdentitySource};
pub use key::{Key, key_of};
pub use layer::{Entry, Shown};
pub use live::{Difference, Live, Reloaded, differences};
pub use log::{FieldWord, LogFilter, LogFormat, LogSettings};
pub use reference::reference;
pub use source::{Read, Source};

/// What is set, by dotted name.
pub type Entries = BTreeMap<String, Entry>;

/// One node's settings, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which node this is.
    pub me: NodeId,
    /// The mesh it belongs to.
    pub cluster: ClusterId,
    /// The trust domain of all certificates.
    pub trust_domain: TrustDomain,
    /// The founding nodes.
    pub founding: Founding,
    /// Where to dial each peer.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// The greatest clock offset between two nodes.
    pub max_offset: Duration,
    /// Its own addresses and folders.
    pub node: NodeSettings,
    /// The residency policy, signed by whom the settings accept. Without one, all labelled data is
    /// refused.
    pub policy: Option<SignedPolicy>,
    /// What is logged.
    pub log: LogSettings,
    /// How long a starting node waits for a wall clock that lies behind its last life.
    pub catch_up: Duration,
    /// Where the node learns what time it is, besides its own clock.
    pub time: TimeSettings,
    /// How long an ordered stop may take.
    pub stop_within: Duration,
    /// Bounds of the watchdog.
    pub watch: WatchSettings,
    /// When a node that has died too often waits before it starts.
    pub crash: CrashSettings,
    /// Numbers of the transport.
    pub transport: TransportSettings,
    /// Numbers of the escrow machine.
    pub escrow: EscrowSettings,
    /// Numbers of keys, letters and dead letters.
    pub delivery: DeliverySettings,
    /// Bounds of the hot store.
    pub hot: HotSettings,
    /// Sizes of the engine below it.
    pub rocks: RocksSettings,
    /// How long another store's support of this one lasts, without which it keeps no lease.
    pub support: Duration,
    /// When ranges are split by themselves.
    pub splits: SplitSettings,
    /// After how long a replica whose node is away is replaced; none: never.
    pub replace_after: Option<Duration>,
    /// How often the replicas of a range are compared; none: only when an operator wants it.
    pub compare_every: Option<Duration>,
    /// Whether replicas without a vote are fed by nearer ones than the leader.
    pub feeding: Switch,
    /// How the audit log is kept.
    pub audit: AuditSettings,
    /// The folder of the keys that wrap subjects' keys.
    pub audit_keys: PathBuf,
    /// Where traces go, and which.
    pub telemetry: TelemetrySettings,
    /// Where its certificate comes from.
    pub identity: IdentitySettings,
    /// How its calls are retried and held back.
    pub resilience: ResilienceSettings,
    entries: Entries,
}

impl Settings {
    /// What is set, each with its place.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }
}

/// What a node says of the settings that it runs with. No secret is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// Which node.
    pub node: NodeId,
    /// The environment on top of its region, if there is one.
    pub env: Option<String>,
    /// Every key that has a value.
    pub settings: BTreeMap<String, Shown>,
}

/// Where a node learns what time it is, besides its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSettings {
    /// NTP servers. Without any, only other nodes' clocks are compared.
    pub sources: Vec<TimeSource>,
    /// Where the chrony of this machine answers, if there is one.
    pub chrony: SocketAddr,
}

impl Default for TimeSettings {
    fn default() -> Self {
        Self { sources: Vec::new(), chrony: ([127, 0, 0, 1], 323).into() }
    }
}

/// An NTP server: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSource(String);

impl TimeSource {
    /// As it was set.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A node's addresses and folders.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The UDP address it listens on for QUIC.
    pub listen: SocketAddr,
    /// The TCP address of its admin HTTP: liveness, readiness, metrics.
    pub admin: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    /// The folder with its certificate, key and roots.
    pub identity: PathBuf,
}

#[cfg(test)]
mod tests;
