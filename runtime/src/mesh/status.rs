//! What nodes tell of themselves when they are asked.
//!
//! The answer is JSON, whose fields only ever grow, and every field that is missing has a default: the
//! mesh is looked at most while two builds of it run, and then a status that only one of them can read
//! is none.

use std::collections::BTreeMap;

use rhumb_actors::remote;
use serde::{Deserialize, Serialize};

/// How do you stand? Answered with a [`NodeStatus`], or with a [`MeshStatus`], as JSON.
#[remote(name = "mesh.Status", class = "control", reply = String, idempotent, deadline = "5s", crate = rhumb_actors)]
pub struct AskStatus {
    /// Also ask all other nodes.
    pub mesh: bool,
    /// How long to wait for each of these.
    pub within_ms: u64,
}

/// The mesh, as one node could gather it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshStatus {
    /// The node that was asked.
    pub asked: String,
    /// Those that answered, it first.
    pub nodes: Vec<NodeStatus>,
    /// Those that did not.
    pub silent: Vec<Silent>,
}

/// A node that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Silent {
    /// Which.
    pub node: String,
    /// Why there is no answer.
    pub why: String,
    /// How long the asked node has had no connection to it; none where it has one.
    pub for_ms: Option<u64>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Which.
    pub node: String,
    /// The mesh it belongs to.
    pub cluster: String,
    /// Whether it can serve.
    pub ready: bool,
    /// Why it cannot.
    pub reason: Option<String>,
    /// The version of its program.
    pub build: String,
    /// The cluster version that it goes by; 0 where its build does not say.
    pub cluster_version: u32,
    /// The newest cluster version that its build knows.
    pub knows_version: u32,
    /// How much it does: `target`, `recovery`, `degraded`, `floor`.
    pub mode: String,
    /// For what sign it does less than all.
    pub mode_for: Option<String>,
    /// Its process.
    pub pid: u32,
    /// How long it has run.
    pub uptime_ms: u64,
    /// Which life of the node on its disk.
    pub incarnation: u64,
    /// The highest durable commit of its disk.
    pub durable_commit: u64,
    /// The last hybrid time that it handed out.
    pub hybrid_time: String,
    /// The policy it serves under; none without one.
    pub policy_version: Option<u64>,
    /// The same on nodes that run with the same settings, `nodes.*` left out.
    pub settings_digest: String,
    /// Its connections to the other nodes.
    pub links: Vec<Link>,
    /// What it hosts.
    pub actors: Actors,
    /// Its disk.
    pub store: StoreStatus,
    /// Its clock.
    pub clock: ClockStatus,
    /// Keyspaces whose replicas there are too far behind, each with how far.
    pub behind_ms: BTreeMap<String, u64>,
    /// Replicas there that are not as they should be, each with its range and what is known of it.
    pub damaged: Vec<String>,
    /// How far its wall clock is ahead of the asked node's, in milliseconds.
    pub offset_ms: Option<i64>,
    /// The most by which that may be wrong.
    pub offset_error_ms: Option<u64>,
    /// Its certificate.
    pub certificate: CertificateStatus,
    /// Connections of clients and operators, by who issued the certificate that they showed.
    pub guests: BTreeMap<String, u64>,
    /// Connections that it turned away since its start, by reason.
    pub turned_away: BTreeMap<String, u64>,
    /// Calls since its start that have ended, those that it served and those that it made.
    pub calls: u64,
    /// Those of them that ended in a fault.
    pub faults: u64,
}

impl NodeStatus {
    /// The same, ready or not.
    #[must_use]
    pub fn with(self, readiness: Result<(), String>) -> Self {
        Self { ready: readiness.is_ok(), reason: readiness.err(), ..self }
    }
}

/// A node's connection to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// The other.
    pub node: String,
    /// Whether it is up and takes calls.
    pub up: bool,
    /// `connecting`, `connected`, `draining`, `down`.
    pub state: String,
    /// Why it is down; or, while it is up, why no new one could take over from it.
    pub why: Option<String>,
    /// If that is a certificate, this side's or the other's: the reason, as in [`NodeStatus::turned_away`].
    pub refused: Option<String>,
    /// The round trip, smoothed.
    pub rtt_ms: Option<f64>,
    /// Packets lost on this connection, by this side.
    pub lost_packets: u64,
    /// Connections so far.
    pub connections: u64,
    /// How long it has been up, or down.
    pub since_ms: u64,
    /// The serial number of the certificate that the other showed on it.
    pub serial: Option<String>,
    /// Who issued that.
    pub issuer: Option<String>,
    /// Who issued those that it showed on connections which have given way to this one, and still end calls.
    pub draining: Vec<String>,
}

/// The actors of a node: Rhumb's own, and those that a program hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actors {
    /// By type.
    pub types: Vec<HostedType>,
    /// Threads that work on one message for too long.
    pub blocked: Vec<Blocked>,
}

/// One actor type. Counts are since the node's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostedType {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Actors that are awake.
    pub live: u64,
    /// Messages that wait in their mailboxes.
    pub waiting: usize,
    /// Those in the fullest mailbox.
    pub fullest: usize,
    /// Messages for which each mailbox has room.
    pub capacity: usize,
    /// How long the first of all that wait has waited; none where none waits.
    pub oldest_ms: Option<u64>,
    /// Instances made: first ones, woken ones and restarted ones.
    pub activations: u64,
    /// Panics; each but those that gave up is a restart.
    pub panics: u64,
    /// Actors that panicked too often.
    pub gave_up: u64,
    /// Messages that a full mailbox refused or dropped.
    pub overflows: u64,
}

/// A thread that works on one message for too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blocked {
    /// Which.
    pub arbiter: String,
    /// On what.
    pub work: String,
    /// For how long at least.
    pub lasting_ms: u64,
}

/// A node's hot store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// The highest durable commit.
    pub durable_commit: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// 99 of 100 syncs took at most so many microseconds (a power of two).
    pub sync_p99_us: u64,
    /// Batches that wait for the disk.
    pub waiting: usize,
    /// Batches refused under pressure since the start.
    pub refused: u64,
    /// `green`, `yellow`, `orange`, `red`: how hard the engine is pressed.
    pub pressure: String,
}

/// A node's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockStatus {
    /// The wall clock, milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// How far two nodes' clocks may differ.
    pub max_offset_ms: u64,
    /// `synchronised`, `degraded` (strong paths stand, and an operator should look) or `frozen` (they are refused); empty
    /// from a node whose build does not say.
    pub standing: String,
    /// Why strong paths are refused; none where they stand.
    pub frozen: Option<ClockWord>,
    /// What is not as it should be.
    pub doubts: Vec<ClockWord>,
    /// The epoch of this clock. It rises when an operator has its history forgotten.
    pub epoch: u64,
    /// Where (true time − the wall clock) lies, in microseconds: the middle, and what may be wrong with that; none without
    /// sources that agree.
    pub offset_us: Option<i64>,
    /// See there.
    pub offset_error_us: Option<u64>,
    /// How far true time may be from the wall clock, in microseconds.
    pub uncertainty_us: Option<u64>,
    /// Between which two parts per million true time runs faster than this machine's clock.
    pub drift_ppm: Option<(i64, i64)>,
    /// The sources of time, as the settings name them.
    pub sources: Vec<ClockSource>,
    /// The other nodes' wall clocks, as this node has compared them.
    pub peers: Vec<ClockPeer>,
    /// What the kernel says of its clock.
    pub kernel: Option<ClockKernel>,
    /// The drill that is under way.
    pub drill: Option<ClockDrill>,
    /// How often strong paths were frozen since the node started.
    pub freezes: u64,
    /// How often they were asked for and refused.
    pub refused: u64,
    /// 99 of 100 comparisons with other nodes found at most so many microseconds.
    pub offset_p99_us: Option<u64>,
    /// The same of the uncertainty, looked at once a second.
    pub uncertainty_p99_us: Option<u64>,
}

/// A state of a clock, as a stable word and in words for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockWord {
    /// The word.
    pub kind: String,
    /// In words, with what to do.
    pub message: String,
}

/// A source of time, as a node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockSource {
    /// Its name in the settings.
    pub name: String,
    /// `agrees`, `outlier`, `undecided` or `silent`.
    pub verdict: String,
    /// By how many microseconds its time is ahead of the node's wall clock.
    pub offset_us: Option<i64>,
    /// The most by which that may be wrong.
    pub error_us: Option<u64>,
    /// How long ago it was heard.
    pub age_ms: Option<u64>,
}

/// Another node's wall clock, as a node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockPeer {
    /// Which node.
    pub node: String,
    /// By how many microseconds its wall clock is ahead of this node's.
    pub offset_us: i64,
    /// The most by which that may be wrong: half of the round trip, and the drift since.
    pub error_us: u64,
    /// How long ago they were compared.
    pub age_ms: u64,
    /// Whether they certainly differ by more than 80 % of what they may.
    pub off: bool,
}

/// What the kernel says of its clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockKernel {
    /// Whether a time service keeps it in step.
    pub disciplined: bool,
    /// How wrong it is at most, in microseconds.
    pub max_error_us: u64,
    /// By how much its rate is corrected, in parts per billion.
    pub frequency_ppb: i64,
}

/// A drill that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockDrill {
    /// By how many milliseconds the clock that the keeper is shown is ahead.
    pub ahead_ms: i64,
    /// For how long it goes on.
    pub left_ms: u64,
}

/// A node's certificate. Seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateStatus {
    /// Its serial number.
    pub serial: String,
    /// SHA-256.
    pub fingerprint: String,
    /// Who issued it.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Seconds until then; negative after it.
    pub expires_s: i64,
    /// Seconds since its validity began.
    pub age_s: i64,
    /// From when on it is to be renewed.
    pub renew_at: i64,
    /// Why what the node found last was refused; none where it was not.
    pub refused: Option<String>,
    /// Which generation of its folder it is, where that has any.
    pub generation: Option<u64>,
    /// SHA-256 of the authorities that the node believes.
    pub authorities: Vec<String>,
    /// The numbers of their lists of revocations, by the authority's name.
    pub lists: BTreeMap<String, u64>,
}
