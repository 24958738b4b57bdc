//! Nodes of two builds in one mesh: each is stopped at some moment and started with the next build, or with the old one again, until the
//! cluster version is raised. What raises it is the machine of production, which asks nodes over the net of the world.
//!
//! Here stand for the meta range and the control stores: one row that all nodes see sooner or later, and what each node's disk
//! remembers. A build that does not know what is remembered there does not start.

use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::rng::Rng;
use rhumb_core::{ClusterVersion, HybridTime, Knows};

use super::net::{self, NOBODY, node_id};
use super::sim::{self, SimRuntime};
use crate::version::{Formats, Heard, Said, Upgrade, VersionRow};

const OLD: ClusterVersion = Knows::RELEASE.newest;
const NEXT: ClusterVersion = ClusterVersion(Knows::RELEASE.newest.0 + 1);
/// How long whoever raises the version waits for a node.
const WITHIN: Duration = Duration::from_millis(300);

/// What a build knows.
fn knows(newest: ClusterVersion) -> Knows {
    Knows { newest, ..Knows::RELEASE }
}

/// A node's build, and what its disk remembers.
#[derive(Debug, Clone)]
pub(super) struct Build {
    newest: ClusterVersion,
    promised: ClusterVersion,
    /// Its disk is a new one, which has promised nothing: nobody puts the old build there.
    fresh: bool,
    pub(super) formats: Arc<Formats>,
}

impl Default for Build {
    fn default() -> Self {
        Self { newest: OLD, promised: OLD, fresh: false, formats: Arc::new(Formats::new(knows(OLD))) }
    }
}

/// The version of the mesh.
#[derive(Debug)]
pub(super) struct Versions {
    row: VersionRow,
    at: u64,
    /// Nodes that were started with another build than before, and builds that were refused.
    pub(super) changed: usize,
    pub(super) refused: usize,
}

/// A mesh whose nodes are to be upgraded. An operator allows it at this moment, whoever is there.
pub(super) fn begin(net: &net::Shared, allowed_at: u64, mut rng: Rng) {
    net.lock().versions = Some(Versions { row: VersionRow::default(), at: 1, changed: 0, refused: 0 });
    let shared = Arc::clone(net);
    sim::spawn_as(NOBODY, async move {
        let mut upgrade = Upgrade::new((0..shared.lock().nodes.len()).map(node_id));
        loop {
            SimRuntime::sleep(Duration::from_millis(rng.between(100, 400))).await;
            {
                let mut net = shared.lock();
                let versions = net.versions.as_mut().expect("it was begun");
                if sim::now() >= allowed_at && versions.row.allowed < NEXT {
                    (versions.row.allowed, versions.at) = (NEXT, versions.at + 1);
                }
                // The lease moves: what was heard is forgotten, what was promised is not.
                if rng.chance(0.1) {
                    upgrade.deposed();
                }
                upgrade.read(versions.row, Some(HybridTime::from_bits(versions.at)));
            }
            let count = shared.lock().nodes.len();
            let asker = rng.below(count as u64) as usize;
            for node in 0..count {
                let heard = asked(&shared, asker, node, upgrade.promise()).await;
                upgrade.heard(node_id(node), heard);
            }
            let Some(raise) = upgrade.decide() else { continue };
            let mut net = shared.lock();
            let versions = net.versions.as_mut().expect("it was begun");
            if raise.read_at == Some(HybridTime::from_bits(versions.at)) {
                (versions.row, versions.at) = (raise.to, versions.at + 1);
            }
        }
    });
}

/// Asks a node, which may be down, cut off, or answer too late.
async fn asked(net: &net::Shared, asker: usize, node: usize, promise: Option<ClusterVersion>) -> Heard {
    let silent = |why: &str| Heard::Silent(why.to_owned());
    let Some(there) = net.lock().way(asker, node) else { return silent("the question is lost") };
    SimRuntime::sleep(there).await;
    let (said, back) = {
        let mut net = net.lock();
        if !net.nodes[node].up || net.nodes[node].still_until.is_some() {
            return silent("it is down, or stands still");
        }
        let build = &mut net.nodes[node].build;
        let knows = knows(build.newest);
        if let Some(promise) = promise.filter(|promise| knows.has(*promise)) {
            build.promised = build.promised.max(promise);
            build.fresh = false;
        }
        let said = Said { knows, promised: build.promised };
        (said, net.way(node, asker))
    };
    match back.filter(|back| there + *back < WITHIN) {
        Some(back) => {
            SimRuntime::sleep(back).await;
            Heard::Said(said)
        }
        None => silent("the answer is lost"),
    }
}

/// A node looks at the row, and may see an older one.
pub(super) fn look(net: &mut net::Net, node: usize) {
    let Some(active) = net.versions.as_ref().map(|versions| versions.row.active) else { return };
    if !net.rng.chance(0.3) {
        return;
    }
    let build = &mut net.nodes[node].build;
    build.promised = build.promised.max(active);
    if let Err(unknown) = build.formats.saw(active) {
        net.nodes[node].halted.get_or_insert(unknown.to_string());
    }
}

/// A node is started: whoever does so may have put another build there.
pub(super) fn starts(net: &net::Shared, node: usize, rng: &mut Rng) {
    let mut net = net.lock();
    if net.versions.is_none() {
        return;
    }
    let newest = if rng.chance(0.75) { NEXT } else { OLD };
    puts(&mut net, node, newest);
}

fn puts(net: &mut net::Net, node: usize, newest: ClusterVersion) {
    let build = &mut net.nodes[node].build;
    // The control store is asked before anything else is opened.
    let refused = !knows(newest).has(build.promised) || (build.fresh && newest < build.newest);
    let changed = !refused && newest != build.newest;
    if changed {
        build.newest = newest;
    }
    let versions = net.versions.as_mut().expect("it was begun");
    versions.refused += usize::from(refused);
    versions.changed += usize::from(changed);
}

/// What a node that starts reads and writes by: it has seen nothing yet.
pub(super) fn formats(net: &mut net::Net, node: usize) -> Arc<Formats> {
    let build = &mut net.nodes[node].build;
    build.formats = Arc::new(Formats::new(knows(build.newest)));
    Arc::clone(&build.formats)
}

/// A node's disk is gone, and with it what it had promised. Whoever has allowed the next version puts no older build on the new one.
pub(super) fn lost_disk(net: &net::Shared, node: usize) {
    let mut net = net.lock();
    let Some(allowed) = net.versions.as_ref().map(|versions| versions.row.allowed) else { return };
    let build = &mut net.nodes[node].build;
    (build.promised, build.fresh) = (OLD, true);
    build.newest = build.newest.max(allowed);
}

/// Everything is well: every node runs the next build in the end. Those that do not are stopped, to be started with it.
pub(super) fn completed(net: &net::Shared) {
    if net.lock().versions.is_none() {
        return;
    }
    let count = net.lock().nodes.len();
    for node in (0..count).filter(|node| net.lock().nodes[*node].build.newest < NEXT) {
        if net.lock().nodes[node].up {
            net::crash(net, node);
        }
        puts(&mut net.lock(), node, NEXT);
    }
}

/// In the end the version was raised, all have seen it, and its format is written. How many nodes had been upgraded so far.
pub(super) fn raised(net: &net::Net) -> Result<(usize, usize), String> {
    let Some(versions) = &net.versions else { return Ok((0, 0)) };
    if versions.row.active != NEXT {
        return Err(format!(
            "in the end all nodes know version {NEXT}, and the mesh is at {:?}",
            versions.row
        ));
    }
    let mut written = 0;
    for (number, node) in net.nodes.iter().enumerate() {
        let formats = &node.build.formats;
        if formats.active() != NEXT {
            return Err(format!("in the end node {number} has seen version {}", formats.active()));
        }
        written +=
            formats.written().filter(|(format, _)| *format == NEXT).map(|(_, count)| count).sum::<u64>();
    }
    if written == 0 {
        return Err("in the end nobody writes the new format".to_owned());
    }
    Ok((versions.changed, versions.refused))
}
