//! The audit log of a node: where `AuditLogger` meets the disk, the mesh and whoever does what is logged.
//!
//! * It decides: what is logged, and who may read it.
//! * It never does: let an operator's action be done whose beginning is not in the log, or be acknowledged
//!   before its end is.

mod check;
mod files;
mod metrics;
mod serve;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_actors::audit::messages::{Cosign, Uncosigned};
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::seal::{SecretKey, WrappedBy};
use rhumb_actors::audit::{AuditHandle, Machines, Observed, Signing, World};
use rhumb_core::{DataClass, Incarnation, NodeId, Now};
use rhumb_storage::HotStore;
use rhumb_transport::ConnectError;
use sha2::{Digest, Sha256};

use self::files::WrappingKeys;
pub(super) use check::{Findings, keep_checking};
pub(super) use metrics::metrics;
pub(super) use serve::{Served, serve};

use super::certificate::Own;
use super::halt::Halt;
use crate::clock::NodeClock;
use crate::mesh::Mesh;
pub(super) use crate::mesh::told::begin;
use crate::settings::Settings;

/// How long a log witness may take to answer.
const COSIGN_WITHIN: Duration = Duration::from_secs(4);

/// What a node's audit log is made of, off one disk.
pub(super) struct Recovered {
    pub(super) machines: Machines,
    pub(super) signing: Signing,
    /// What the node's tokens are signed with: another key, made of the same secret.
    pub(super) tokens: [u8; 32],
    keys: WrappingKeys,
}

impl Recovered {
    /// Reads the keys, makes those that are missing, and recovers the machines.
    ///
    /// # Errors
    /// Something is not sound, and is named.
    pub(super) fn of(settings: &Settings, store: &HotStore) -> anyhow::Result<Self> {
        let Settings { me, founding, trust_domain, audit, audit_keys, node, .. } = settings;
        let domain = trust_domain.to_string();
        let keys = WrappingKeys::of(audit_keys, me)?;
        let secret = files::signing(&node.identity, &keys)?;
        let signing = Signing::of(&secret, &domain, me);
        let tokens = Sha256::new_with_prefix(b"rhumb token key\0").chain_update(secret.bytes()).finalize();
        let nodes = founding.nodes().iter().cloned();
        let machines = Machines::recover(&domain, me, nodes, &signing, keys.all()?, audit.clone(), store)?;
        let lost = machines.keys.lost().len();
        if lost > 0 {
            tracing::warn!(
                lost,
                keys = %audit_keys.display(),
                "keys of subjects are wrapped under keys that are not here: what is sealed under them stays shut. \
                 An erasure destroyed those after this copy of the disk was made, or the folder is not the node's"
            );
        }
        Ok(Self { machines, signing, tokens: tokens.into(), keys })
    }

    /// The world around the log.
    pub(super) fn world(&self, clock: NodeClock, mesh: Mesh, halt: Halt) -> AuditWorld {
        AuditWorld { clock, mesh, halt, keys: self.keys.clone(), runtime: tokio::runtime::Handle::current() }
    }
}

/// The world around the audit log of this node.
pub(super) struct AuditWorld {
    clock: NodeClock,
    mesh: Mesh,
    halt: Halt,
    keys: WrappingKeys,
    runtime: tokio::runtime::Handle,
}

impl AuditWorld {
    fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WrappingKeys) -> anyhow::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, String>> {
        let keys = self.keys.clone();
        let done = self.runtime.spawn_blocking(move || work(&keys));
        async move { done.await.map_err(anyhow::Error::from).flatten().map_err(|error| format!("{error:#}")) }
            .boxed()
    }
}

impl World for AuditWorld {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn cosign(
        &self,
        witness: &NodeId,
        ask: Cosign,
    ) -> BoxFuture<'static, Option<Result<String, Uncosigned>>> {
        let (mesh, witness) = (self.mesh.clone(), witness.clone());
        async move {
            let answer = mesh.ask_node(&witness, &ask, DataClass::control(), COSIGN_WITHIN).await;
            answer
                .map(|(answer, _)| answer)
                .inspect_err(|fault| tracing::debug!(%witness, %fault, "not cosigned"))
                .ok()
        }
        .boxed()
    }

    fn make(&self, by: WrappedBy) -> BoxFuture<'static, Result<SecretKey, String>> {
        self.with_keys(move |keys| keys.make(&by))
    }

    fn destroy(&self, by: WrappedBy) -> BoxFuture<'static, Result<(), String>> {
        self.with_keys(move |keys| keys.destroy(&by))
    }

    fn halt(&self, reason: String) {
        self.halt.now(reason);
    }
}

/// What a node says when it serves: which life, with which certificate, under which policy.
pub(super) fn began(settings: &Settings, life: Incarnation, own: &Own) -> Record {
    let (certificate, _) = own.certificate();
    let policy = settings.policy.as_ref().map_or(0, |signed| signed.policy.version);
    Record::told("node.start", format!("node {}", settings.me), Outcome::Done)
        .with("build", env!("CARGO_PKG_VERSION"))
        .with("incarnation", life.0.to_string())
        .with("certificate", certificate.serial.to_string())
        .with("policy", policy.to_string())
}

/// What a node says when it is asked to stop.
pub(super) fn stops(me: &NodeId) -> Record {
    Record::told("node.stop", format!("node {me}"), Outcome::Begun)
}

/// A connection that was refused; one that only did not come to be is nothing to tell. Addresses are as many as
/// somebody likes, so the port is left out.
pub(super) fn turned_away(from: SocketAddr, why: &ConnectError) -> Option<Observed> {
    let refused =
        matches!(why, ConnectError::Identity(_) | ConnectError::Protocol(_) | ConnectError::Hello(_));
    refused.then(|| Observed::refused("connection.refused", from.ip().to_string(), why.to_string()))
}

/// What every part that logs holds: the log, once there is one. Cloneable; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Audited(Arc<OnceLock<(AuditHandle, NodeClock)>>);

impl fmt::Debug for Audited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audited(..)")
    }
}

impl Audited {
    /// From now on what is seen is logged.
    pub(super) fn begins(&self, log: AuditHandle, clock: NodeClock) {
        self.0.set((log, clock)).ok();
    }

    /// The log, once there is one.
    pub(super) fn log(&self) -> Option<&AuditHandle> {
        self.0.get().map(|(log, _)| log)
    }

    /// Counts something that may happen often.
    pub(super) fn observe(&self, kind: impl FnOnce() -> Observed) {
        if let Some((log, clock)) = self.0.get() {
            log.observe(clock.last(), kind());
        }
    }

    /// Tells of something that was seen.
    pub(super) fn saw(&self, record: impl FnOnce() -> Record) {
        if let Some(log) = self.log() {
            log.saw(record());
        }
    }
}
