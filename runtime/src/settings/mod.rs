//! Settings in layers: built-in defaults, then `global.toml`, `REGION.toml`, `REGION/ENV.toml`, then
//! `RHUMB__SECTION__KEY` in the environment. A later layer overrides single keys of an earlier one.
//!
//! * It decides: what a node's effective settings are, and whether they make sense together.
//! * It never does: guess. An unknown key or a bad value is refused, naming the file and the key.
//! * Invariant: everything in [`NodeConfig`] is validated; relative paths stand below the folder that
//!   the settings were read from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use rhumb_actors::escrow::{EscrowSettings, LevelPolicy};
use rhumb_core::time::DEFAULT_MAX_OFFSET;
use rhumb_core::{ClusterId, NodeId, NodeName, Region};
use rhumb_topology::Founding;
use rhumb_topology::policy::OperatorPublicKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Settings that cannot be used: which file or key, what was found, and what was expected.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// The settings as they stand in files, all layers merged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What all nodes of the mesh agree on.
    pub mesh: MeshSettings,
    /// This region's nodes, by name.
    #[serde(default)]
    pub nodes: BTreeMap<NodeName, NodeSettings>,
    /// Where the residency policy lies.
    #[serde(default)]
    pub policy: PolicySettings,
    /// How rights are levelled.
    #[serde(default)]
    pub escrow: EscrowSection,
    /// What is logged.
    #[serde(default)]
    pub log: LogSettings,
}

/// What all nodes of the mesh agree on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshSettings {
    /// The cluster id: 32 hexadecimal digits, stamped by `rhumb dev` or `rhumb mesh init`.
    pub cluster: String,
    /// The SPIFFE trust domain of every certificate.
    pub trust_domain: String,
    /// The founding nodes and where they are dialled.
    pub founding: Vec<FoundingNode>,
    /// The greatest clock offset between two nodes, milliseconds.
    #[serde(default = "default_max_offset_ms")]
    pub max_offset_ms: u64,
}

fn default_max_offset_ms() -> u64 {
    DEFAULT_MAX_OFFSET.as_millis() as u64
}

/// One founding node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundingNode {
    /// Its region.
    pub region: Region,
    /// Its name there.
    pub name: NodeName,
    /// Where peers dial it, unless their own settings say another way.
    pub quic: SocketAddr,
}

/// One node of this region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The UDP address it listens on for QUIC.
    pub listen: SocketAddr,
    /// The TCP address of its admin HTTP: liveness, readiness, metrics.
    pub admin: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    /// The folder with its certificate, key and roots.
    pub identity: PathBuf,
    /// Where to dial a peer (`region/name`) instead of the founding list's address.
    #[serde(default)]
    pub dial: BTreeMap<String, SocketAddr>,
}

/// Where the residency policy lies, and whose signature it must carry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// The policy file; its signature lies beside it as `FILE.sig`. Without one, all labelled data is
    /// refused.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Public keys of operators that may sign it, hexadecimal. More than one while a key rotates.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// How rights are levelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EscrowSection {
    /// Below this many units a node, those that remain gather at the pool's home. 0 switches it off.
    pub tail_floor: u64,
    /// Idempotency keys that a node remembers (each for 24 hours, in memory); beyond it new holds are
    /// refused as overloaded.
    pub max_keys: usize,
}

impl Default for EscrowSection {
    fn default() -> Self {
        Self { tail_floor: LevelPolicy::default().tail_floor, max_keys: EscrowSettings::default().max_keys }
    }
}

impl EscrowSection {
    /// The settings of the escrow machine.
    #[must_use]
    pub fn machine(&self, max_offset: Duration) -> EscrowSettings {
        let level = LevelPolicy { tail_floor: self.tail_floor, ..LevelPolicy::default() };
        EscrowSettings { level, max_offset, max_keys: self.max_keys, ..EscrowSettings::default() }
    }
}

/// What is logged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// A `tracing` filter, such as `info` or `rhumb=debug,warn`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}

/// One node's validated settings.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Which node this is.
    pub me: NodeId,
    /// The mesh it belongs to.
    pub cluster: ClusterId,
    /// The trust domain of all certificates.
    pub trust_domain: String,
    /// The founding nodes.
    pub founding: Founding,
    /// Where to dial each peer.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// The greatest clock offset between two nodes.
    pub max_offset: Duration,
    /// Its own addresses and folders.
    pub node: NodeSettings,
    /// The policy file, if there is one.
    pub policy_file: Option<PathBuf>,
    /// Who may sign it.
    pub policy_keys: Vec<OperatorPublicKey>,
    /// How rights are levelled.
    pub escrow: EscrowSection,
    /// What is logged.
    pub log: LogSettings,
}

/// Reads and validates the settings of one node. `node` may be left out where the region has one.
///
/// # Errors
/// [`SettingsError`] names the file or key, what was found and what was expected.
pub fn load(
    dir: &Path,
    region: &Region,
    node: Option<&NodeName>,
    env: Option<&str>,
) -> Result<NodeConfig, SettingsError> {
    let global = dir.join("global.toml");
    if !global.is_file() {
        return Err(SettingsError::new(format!(
            "there is no {}: --config names the folder that holds global.toml and {region}.toml",
            global.display()
        )));
    }
    let mut layers = Figment::new()
        .merge(Toml::file_exact(global))
        .merge(Toml::file_exact(dir.join(format!("{region}.toml"))));
    if let Some(env) = env {
        let file = dir.join(region.as_str()).join(format!("{env}.toml"));
        if !file.is_file() {
            return Err(SettingsError::new(format!("there is no {} for --env {env}", file.display())));
        }
        layers = layers.merge(Toml::file_exact(file));
    }
    let settings: Settings = layers
        .merge(Env::prefixed("RHUMB__").split("__"))
        .extract()
        .map_err(|errors| SettingsError::new(describe(errors)))?;
    validate(dir, region, node, settings)
}

fn describe(errors: figment::Error) -> String {
    let each = errors.into_iter().map(|e| {
        let place = e.metadata.as_ref().map(|m| {
            m.source.as_ref().map_or_else(|| m.name.to_string(), |source| format!("{} ({source})", m.name))
        });
        let key = e.path.join(".");
        format!("settings: {}{}: {}", place.map(|p| p + ": ").unwrap_or_default(), key, e.kind)
    });
    each.collect::<Vec<_>>().join("\n")
}

fn validate(
    dir: &Path,
    region: &Region,
    node: Option<&NodeName>,
    settings: Settings,
) -> Result<NodeConfig, SettingsError> {
    let name = choose(region, node, &settings.nodes)?;
    let me = NodeId { region: region.clone(), name: name.clone() };
    let mut own = settings.nodes[&name].clone();
    own.data = dir.join(&own.data);
    own.identity = dir.join(&own.identity);
    let founding = Founding::new(
        settings.mesh.founding.iter().map(|n| NodeId { region: n.region.clone(), name: n.name.clone() }),
    )
    .map_err(|e| SettingsError::new(format!("settings: mesh.founding: {e}")))?;
    if !founding.contains(&me) {
        return Err(SettingsError::new(format!("settings: mesh.founding does not list this node, {me}")));
    }
    let mut peers = BTreeMap::new();
    for peer in &settings.mesh.founding {
        let id = NodeId { region: peer.region.clone(), name: peer.name.clone() };
        if id != me {
            let address = own.dial.get(&id.to_string()).copied().unwrap_or(peer.quic);
            peers.insert(id, address);
        }
    }
    for dialled in own.dial.keys() {
        let known = dialled.parse::<NodeId>().is_ok_and(|id| peers.contains_key(&id));
        if !known {
            return Err(SettingsError::new(format!(
                "settings: nodes.{name}.dial: {dialled:?} is no peer; expected REGION/NODE of mesh.founding"
            )));
        }
    }
    let cluster = settings
        .mesh
        .cluster
        .parse()
        .map_err(|e| SettingsError::new(format!("settings: mesh.cluster: {e}")))?;
    let policy_keys = settings
        .policy
        .keys
        .iter()
        .map(|k| k.parse().map_err(|e| SettingsError::new(format!("settings: policy.keys: {e}"))))
        .collect::<Result<_, _>>()?;
    if !(10..=60_000).contains(&settings.mesh.max_offset_ms) {
        return Err(SettingsError::new("settings: mesh.max_offset_ms: expected 10 to 60000"));
    }
    if settings.escrow.tail_floor > 1_000_000 {
        return Err(SettingsError::new("settings: escrow.tail_floor: expected 0 to 1000000"));
    }
    Ok(NodeConfig {
        me,
        cluster,
        trust_domain: settings.mesh.trust_domain,
        founding,
        peers,
        max_offset: Duration::from_millis(settings.mesh.max_offset_ms),
        node: own,
        policy_file: settings.policy.file.map(|file| dir.join(file)),
        policy_keys,
        escrow: settings.escrow,
        log: settings.log,
    })
}

fn choose(
    region: &Region,
    node: Option<&NodeName>,
    nodes: &BTreeMap<NodeName, NodeSettings>,
) -> Result<NodeName, SettingsError> {
    let known = || nodes.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    match (node, nodes.len()) {
        (Some(name), _) if nodes.contains_key(name) => Ok(name.clone()),
        (Some(name), _) => Err(SettingsError::new(format!(
            "settings: region {region} has no node {name}; {region}.toml lists: {}",
            known()
        ))),
        (None, 1) => Ok(nodes.keys().next().expect("there is one").clone()),
        (None, 0) => {
            Err(SettingsError::new(format!("settings: {region}.toml lists no node under [nodes.NAME]")))
        }
        (None, _) => Err(SettingsError::new(format!(
            "region {region} has several nodes; say --node, one of: {}",
            known()
        ))),
    }
}

#[cfg(test)]
mod tests;
