//! The cluster version, where it meets the meta range, the control store and the other nodes.
//!
//! * It decides: whom to ask, and how often. When the version is raised is the machine's ([`rhumb_actors::version`]).
//! * It never does: promise what is not in the control store; write a new format before this node has seen that the mesh is there; go
//!   on under a version that this build does not know; raise the version before that is in the audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::catalog::{self, META, VERSION};
use rhumb_actors::ranges::host::NotWritten;
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::ranges::{Condition, Op};
use rhumb_actors::version::messages::{
    Finalize, NodeKnows, SaidVersion, SayVersion, ShowVersion, VersionView,
};
use rhumb_actors::version::{
    Allowed, Formats, Heard, Raise, Said, UnknownVersion, Upgrade, VersionRow, allow,
};
use rhumb_core::{ClusterVersion, DataClass, HybridTime, Knows, NodeId};
use rhumb_storage::mvcc::Record as KvRecord;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::catalog::CreateEnded;
use super::serve::{Answer, control};
use super::{Parts, Ranges, not_now};
use crate::mesh::registry::Call;
use crate::metrics::exposition::Page;
use crate::supervisor::remembered;

/// How often it is looked whether the version is to be raised.
const EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to say what it knows.
const SAYS_WITHIN: Duration = Duration::from_secs(2);
/// How long a change of the row may take. What came of it is read afterwards.
const CHANGE_WITHIN: Duration = Duration::from_secs(4);
/// How often whoever waits for a raise looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What this node knows of the cluster version.
pub(super) struct Version {
    pub(super) formats: Arc<Formats>,
    /// What its replica of the meta range says.
    seen: Mutex<ClusterVersion>,
    /// What its disk remembers, once that was asked. Held while it is written.
    promised: tokio::sync::Mutex<Option<ClusterVersion>>,
    machine: Mutex<Upgrade>,
    /// Raises that this node has written.
    raised: AtomicU64,
}

impl Version {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            formats: Arc::default(),
            seen: Mutex::new(ClusterVersion::FIRST),
            promised: tokio::sync::Mutex::default(),
            machine: Mutex::new(Upgrade::new(parts.founding.nodes().iter().cloned())),
            raised: AtomicU64::new(0),
        }
    }

    /// The meta range here has this row.
    ///
    /// # Errors
    /// It cannot be read, or this build does not know the version.
    pub(super) fn read(&self, row: &[u8]) -> Result<(), String> {
        let VersionRow { active, .. } = catalog::decode(row)?;
        let knows = self.formats.knows();
        if !knows.has(active) {
            return Err(UnknownVersion { version: active, knows }.to_string());
        }
        let mut seen = self.seen.lock();
        *seen = active.max(*seen);
        Ok(())
    }
}

impl Ranges {
    // ---- what this node knows --------------------------------------------------------------------

    /// Goes by the version that the meta range here says: remembered first, for a build that does not know it must not start
    /// on what is written from now on.
    pub(super) async fn follow_version(&self) -> Result<(), String> {
        let Version { formats, seen, .. } = &self.0.version;
        let seen = *seen.lock();
        if seen <= formats.active() {
            return Ok(());
        }
        self.promise(seen).await?;
        formats.saw(seen).map_err(|unknown| unknown.to_string())?;
        tracing::info!(version = %seen, "the mesh is at this cluster version, and its formats are written here");
        Ok(())
    }

    /// Remembers, durably, that this node has to know a version. What it remembers now.
    async fn promise(&self, version: ClusterVersion) -> Result<ClusterVersion, String> {
        let mut promised = self.0.version.promised.lock().await;
        if let Some(promised) = promised.filter(|promised| *promised >= version) {
            return Ok(promised);
        }
        let dir = self.0.parts.dir.upgrade().ok_or("the node has stopped")?;
        let written = tokio::task::spawn_blocking(move || remembered::promise(dir.control(), version)).await;
        let written = written.map_err(|error| error.to_string())?.map_err(|error| format!("{error:#}"))?;
        *promised = Some(written);
        Ok(written)
    }

    /// Another node asks what this one knows, and may want a promise.
    pub(super) async fn says_version(self, call: Call<SayVersion>) -> Answer<SaidVersion> {
        control(self.said(call.message.promise.map(ClusterVersion)).await)
    }

    async fn said(&self, promise: Option<ClusterVersion>) -> Result<SaidVersion, KvRefusal> {
        let Knows { oldest, newest } = self.0.version.formats.knows();
        let promise = promise.filter(|promise| (oldest..=newest).contains(promise));
        match self.promise(promise.unwrap_or(ClusterVersion::FIRST)).await {
            Ok(ClusterVersion(promised)) => Ok(SaidVersion { oldest: oldest.0, newest: newest.0, promised }),
            Err(why) => {
                self.0.parts.halt.now(format!("the control store: {why}"));
                Err(KvRefusal::Unsound(why))
            }
        }
    }

    // ---- the leaseholder of the meta range -------------------------------------------------------

    /// Raises the version while this node holds the lease of the meta range, and it is allowed. It does not end.
    pub(super) async fn raises(&self) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let machine = &self.0.version.machine;
            let read = self.version_row().await;
            let due = {
                let mut machine = machine.lock();
                match read {
                    Ok((row, at)) => machine.read(row, at),
                    Err(_) => machine.deposed(),
                }
                machine.next()
            };
            let Some(next) = due else { continue };
            // What they know, and if all know it, their promises.
            for _ in 0..2 {
                self.ask_versions().await;
            }
            let raise = machine.lock().decide();
            match raise {
                Some(raise) => self.raise(raise).await,
                None => {
                    for (node, why) in self.held_back(next) {
                        tracing::warn!(%node, version = %next, why, "it holds the cluster version back");
                    }
                }
            }
        }
    }

    /// Asks all nodes at once what they know, and to promise what all are known to know.
    async fn ask_versions(&self) {
        let promise = self.0.version.machine.lock().promise();
        let nodes = self.0.parts.founding.nodes();
        let heard = join_all(nodes.iter().map(|node| self.ask_version(node, promise))).await;
        let mut machine = self.0.version.machine.lock();
        for (node, heard) in nodes.iter().zip(heard) {
            machine.heard(node.clone(), heard);
        }
    }

    async fn ask_version(&self, node: &NodeId, promise: Option<ClusterVersion>) -> Heard {
        let said = if *node == self.0.parts.me {
            self.said(promise).await
        } else {
            let asks = SayVersion { promise: promise.map(|promise| promise.0) };
            let class = DataClass::control();
            match self.0.parts.mesh.ask_node_untraced(node, &asks, class, SAYS_WITHIN).await {
                Ok((said, _)) => said,
                Err(fault) => return Heard::Silent(fault.to_string()),
            }
        };
        match said {
            Ok(SaidVersion { oldest, newest, promised }) => {
                let knows = Knows { oldest: ClusterVersion(oldest), newest: ClusterVersion(newest) };
                Heard::Said(Said { knows, promised: ClusterVersion(promised) })
            }
            Err(refusal) => Heard::Silent(refusal.to_string()),
        }
    }

    fn held_back(&self, version: ClusterVersion) -> Vec<(NodeId, String)> {
        let machine = self.0.version.machine.lock();
        let held =
            machine.nodes().filter_map(|node| Some((node.clone(), machine.holds_back(node, version)?)));
        held.collect()
    }

    /// The row, as the leaseholder of the meta range reads it, and when it was written.
    async fn version_row(&self) -> Result<(VersionRow, Option<HybridTime>), CreateEnded> {
        let (row, at) = self.strong(&catalog::version_key()).await?;
        let row = row.map(|row| catalog::decode(&row)).transpose();
        let row = row.map_err(|why| CreateEnded::Refused(KvRefusal::Unsound(why)))?;
        Ok((row.unwrap_or_default(), at))
    }

    async fn write_version(&self, row: VersionRow, read_at: Option<HybridTime>) -> Result<(), CreateEnded> {
        let op = Op {
            key: catalog::version_key(),
            condition: Some(read_at.map_or(Condition::Absent, Condition::Version)),
            record: KvRecord::put(catalog::encode(&row)),
        };
        let host = self.host().map_err(CreateEnded::Refused)?;
        match tokio::time::timeout(CHANGE_WITHIN, host.write(META, vec![op])).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(NotWritten::Leaseholder(seat))) => Err(CreateEnded::At(seat.node)),
            Ok(Err(NotWritten::Unknown(why) | NotWritten::Stopped(why))) => Err(CreateEnded::Unknown(why)),
            Ok(Err(_)) => {
                let why = "the cluster version was changed, or the lease moved, meanwhile";
                Err(CreateEnded::Refused(not_now(why)))
            }
            Err(_) => Err(CreateEnded::Unknown("consensus took too long".to_owned())),
        }
    }

    async fn raise(&self, Raise { read_at, from, to }: Raise) {
        let record = Record::told("version.raise", format!("node {}", self.0.parts.me), Outcome::Begun)
            .on("cluster version")
            .with("from", from.active.to_string())
            .with("to", to.active.to_string());
        let log = &self.0.parts.log;
        if let Err(error) = log.append(record.clone(), None).await {
            return tracing::warn!(%error, "the cluster version is not raised: that cannot be logged");
        }
        let (outcome, why) = match self.write_version(to, read_at).await {
            Ok(()) => {
                self.0.version.raised.fetch_add(1, Ordering::Relaxed);
                tracing::info!(from = %from.active, to = %to.active, "the cluster version is raised");
                (Outcome::Done, None)
            }
            Err(CreateEnded::Unknown(why)) => (Outcome::Failed, Some(why)),
            Err(CreateEnded::At(_) | CreateEnded::Refused(_)) => {
                (Outcome::Refused, Some("it was changed, or the lease moved, meanwhile".to_owned()))
            }
        };
        let record = Record { outcome, ..record };
        let record = why.into_iter().fold(record, |record, why| record.with("why", why));
        if let Err(error) = log.append(record, None).await {
            tracing::warn!(%error, "how raising the cluster version ended cannot be logged");
        }
    }

    // ---- operators -------------------------------------------------------------------------------

    pub(super) async fn shows_version(self, call: Call<ShowVersion>) -> Answer<VersionView> {
        // Whoever was asked by a node is the last one who is asked.
        if call.from.node.is_some() {
            return control(self.version_view().await.map_err(elsewhere));
        }
        let until = Instant::now() + call.within.mul_f32(0.95);
        control(self.at_meta(&call.message, || self.version_view(), until).await?)
    }

    pub(super) async fn finalizes(self, call: Call<Finalize>) -> Answer<VersionView> {
        let to = call.message.to.map(ClusterVersion);
        let until = Instant::now() + call.within.mul_f32(0.9);
        if call.from.node.is_some() {
            return control(self.finalized(to, until).await.map_err(elsewhere));
        }
        let named = to.map_or_else(|| "the newest that all know".to_owned(), |to| to.to_string());
        let record =
            Record::told("version.finalize", "", Outcome::Begun).on("cluster version").with("to", named);
        let done = self.at_meta(&call.message, || self.finalized(to, until), until + LOOK_EVERY);
        control(self.told_of(&call.from, record, done).await?)
    }

    /// What each node knows, as the leaseholder of the meta range hears it now.
    async fn version_view(&self) -> Result<VersionView, CreateEnded> {
        let (row, at) = self.version_row().await?;
        self.0.version.machine.lock().read(row, at);
        self.ask_versions().await;
        let machine = self.0.version.machine.lock();
        let said = |node: &NodeId| match machine.of(node) {
            Some(Heard::Said(said)) => Some(*said),
            Some(Heard::Silent(_)) | None => None,
        };
        let newest = machine.nodes().filter_map(|node| said(node).map(|said| said.knows.newest)).max();
        let next = machine.next().or(newest.filter(|newest| *newest > row.active));
        let one = |node: &NodeId| NodeKnows {
            node: node.clone(),
            said: said(node).map(|Said { knows, promised }| SaidVersion {
                oldest: knows.oldest.0,
                newest: knows.newest.0,
                promised: promised.0,
            }),
            holds_back: next.and_then(|next| machine.holds_back(node, next)),
        };
        let nodes = machine.nodes().map(one).collect();
        let me = self.0.parts.me.clone();
        Ok(VersionView { by: me, active: row.active.0, allowed: row.allowed.0, nodes })
    }

    /// Lets the version be raised, and waits for a while until it is.
    async fn finalized(
        &self,
        to: Option<ClusterVersion>,
        until: Instant,
    ) -> Result<VersionView, CreateEnded> {
        let (row, at) = self.version_row().await?;
        self.0.version.machine.lock().read(row, at);
        self.ask_versions().await;
        let allowed = allow(row, &self.0.version.machine.lock(), to);
        match allowed.map_err(|why| CreateEnded::Refused(KvRefusal::NotAllowed(why)))? {
            Allowed::Already => {}
            Allowed::Becomes(row) => self.write_version(row, at).await?,
        }
        while Instant::now() + SAYS_WITHIN + LOOK_EVERY < until {
            let (row, _) = self.version_row().await?;
            if row.active >= row.allowed {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.version_view().await
    }

    // ---- what is told of it ----------------------------------------------------------------------

    /// The version that this node goes by, and what its build knows.
    pub(in crate::supervisor) fn version(&self) -> (ClusterVersion, Knows) {
        let formats = &self.0.version.formats;
        (formats.active(), formats.knows())
    }

    pub(super) fn tell_version(&self, page: &mut Page) {
        let Version { formats, raised, .. } = &self.0.version;
        let help = "The cluster version that this node goes by";
        page.gauge("rhumb_cluster_version", help, f64::from(formats.active().0));
        let Knows { oldest, newest } = formats.knows();
        let known = [("oldest", u64::from(oldest.0)), ("newest", u64::from(newest.0))];
        let help = "The oldest and the newest cluster version that this node's build knows";
        page.gauges("rhumb_cluster_version_known", help, "end", &known);
        let raises = [("raise", raised.load(Ordering::Relaxed))];
        let help = "Raises of the cluster version that this node has written";
        page.counters("rhumb_cluster_version_changes", help, "change", &raises);
        let written: Vec<(String, u64)> =
            formats.written().map(|(format, count)| (format.to_string(), count)).collect();
        let written: Vec<(&str, u64)> =
            written.iter().map(|(format, count)| (format.as_str(), *count)).collect();
        let help =
            "Commands of ranges that were proposed here, by the cluster version that their format came with";
        page.counters("rhumb_range_commands", help, "format", &written);
    }
}

/// What another node is told that asked the wrong one.
fn elsewhere(ended: CreateEnded) -> KvRefusal {
    match ended {
        CreateEnded::Refused(refusal) => refusal,
        CreateEnded::At(node) => not_now(format!("{node} holds the lease of the meta range")),
        CreateEnded::Unknown(why) => not_now(why),
    }
}

/// Whether a key of the meta range is the cluster version's.
pub(super) fn is_version(key: &[u8]) -> bool {
    key == VERSION.as_bytes()
}
