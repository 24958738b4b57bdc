//! The machines of one node's audit log together: recovered from one disk, stepped by one shell.

use std::time::Duration;

use rhumb_core::NodeId;
use rhumb_storage::HotStore;
use rhumb_verify::note::{Algorithm, Signer};
use rhumb_verify::policy::NoPolicy;
use ring::signature::Ed25519KeyPair;
use thiserror::Error;

use super::keys::{KeyRows, UnsoundKeys};
use super::log::LogSettings;
use super::rows::{self, Unsound};
use super::seal::{SecretKey, WrappedBy};
use super::statements::Statements;
use super::{Keys, Log, Peers, Witness, peers};

/// How a node keeps its audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// When checkpoints are made and log witnesses asked again.
    pub log: LogSettings,
    /// In how many other regions a node must have cosigned before a checkpoint is published.
    pub quorum: usize,
    /// Subjects whose keys the node keeps.
    pub max_subjects: usize,
    /// The time between two bundles that are checked in the background.
    pub check_every: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        let (quorum, max_subjects) = (1, 1_000_000);
        Self { log: LogSettings::default(), quorum, max_subjects, check_every: Duration::from_secs(10) }
    }
}

/// What a node signs with: its log's name and its log witness's, with one key pair.
#[derive(Debug)]
pub struct Signing {
    /// As the log.
    pub log: Signer,
    /// As a log witness of others.
    pub witness: Signer,
}

impl Signing {
    /// The signers of a node, of 32 secret bytes.
    #[must_use]
    pub fn of(seed: &SecretKey, domain: &str, me: &NodeId) -> Self {
        let pair =
            || Ed25519KeyPair::from_seed_unchecked(seed.bytes()).expect("any 32 bytes are an Ed25519 seed");
        Self {
            log: Signer::new(&peers::origin(domain, me), Algorithm::Ed25519, pair()),
            witness: Signer::new(&peers::witness(domain, me), Algorithm::Cosignature, pair()),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.log.key().public
    }
}

/// A disk from which no audit log can go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unrecovered {
    /// Entries, tiles, checkpoints or pinned keys.
    #[error(transparent)]
    Log(#[from] Unsound),
    /// Subjects' keys.
    #[error(transparent)]
    Keys(#[from] UnsoundKeys),
    /// The names of this mesh are none in a policy of log witnesses.
    #[error(transparent)]
    Policy(#[from] NoPolicy),
}

/// The machines of one node's audit log.
#[derive(Debug)]
pub struct Machines {
    /// Whose.
    pub me: NodeId,
    /// As it was set.
    pub settings: AuditSettings,
    /// Its own log.
    pub log: Log,
    /// What it cosigns.
    pub witness: Witness,
    /// What records are sealed under.
    pub keys: Keys,
    /// Whose signatures it believes.
    pub peers: Peers,
    /// What it states with other regions.
    pub statements: Statements,
    /// The last published checkpoint.
    pub published: Option<String>,
}

impl Machines {
    /// The machines on a disk. `nodes` are those of the mesh, `wrapping` the wrapping keys that exist.
    ///
    /// # Errors
    /// [`Unrecovered`] names what cannot be.
    pub fn recover(
        domain: &str,
        me: &NodeId,
        nodes: impl IntoIterator<Item = NodeId>,
        signing: &Signing,
        wrapping: Vec<(WrappedBy, SecretKey)>,
        settings: AuditSettings,
        store: &HotStore,
    ) -> Result<Self, Unrecovered> {
        let own = (me, signing.public());
        let peers = Peers::recover(domain, own, nodes, rows::with(store, b"h")?)?;
        let peers = peers.after(rows::with(store, b"r")?)?;
        let key = signing.log.key().clone();
        let policy = peers.policy(&key, settings.quorum)?;
        let witnesses: Vec<_> = peers.witnesses().map(|(_, key)| key).collect();
        let log = Log::recover(key, policy, witnesses, settings.log.clone(), store)?;
        let text = |(_, note): (Vec<u8>, Vec<u8>)| String::from_utf8_lossy(&note).into_owned();
        let cosigned = rows::with(store, b"w")?.into_iter().map(text);
        let accused = rows::with(store, b"x")?.into_iter();
        let accused = accused.map(|(origin, _)| String::from_utf8_lossy(&origin).into_owned());
        let logs: Vec<_> = peers.logs().map(|(_, key)| key).collect();
        let witness = Witness::recover(logs, cosigned, accused)?;
        let rows = KeyRows { keys: rows::with(store, b"k")?, turns: rows::with(store, b"g")? };
        let keys = Keys::recover(settings.max_subjects, &rows, wrapping)?;
        let stated = rows::with(store, b"s")?.into_iter().map(|(_, text)| text);
        let statements = Statements::recover(domain, stated)?;
        let published = rows::Rows::row(store, rows::PUBLISHED)?;
        let published = published.map(|note| String::from_utf8_lossy(&note).into_owned());
        Ok(Self { me: me.clone(), settings, log, witness, keys, peers, statements, published })
    }
}
