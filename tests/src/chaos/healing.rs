//! What must be so a while after the last fault.
//!
//! * It decides: whether the mesh is well: every key is read (in the end in each way that there is) and then written, from
//!   every region, what is closed goes on everywhere, strong paths stand everywhere, each range has its replicas and one leaseholder, and nothing is on its way.
//! * It never does: help. It reads, writes and asks, as anybody may.

use std::collections::BTreeSet;
use std::time::Duration;

use rhumb::client::{Ask, MeshClient};
use rhumb::http::probe;
use rhumb_actors::ranges::messages::{KvRefusal, MoveReplica, RangeView};
use rhumb_core::NodeId;
use rhumb_core::rng::Rng;
use tokio::time::{Instant, sleep};

use super::clients::{Client, KEYS};
use super::errands::{KEYSPACE, ranges};
use super::mesh::Mesh;
use crate::exposition::{Form, read};

/// How long it may take until the mesh is well.
pub const WITHIN: Duration = Duration::from_secs(60);
/// How far closed timestamps may be behind, in seconds.
const BEHIND: f64 = 10.0;
/// How old a node's word for it may be, in seconds: it looks so often.
const LOOKED: f64 = 1.5;
const BEHIND_METRIC: &str = "rhumb_range_behind_seconds";
const REPLICAS: usize = 3;
const ASK_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When the mesh was well, since healing began; or what was not in time.
#[derive(Debug, Default)]
pub struct Healed {
    /// What came to be, and when.
    pub after: Vec<(&'static str, Duration)>,
    /// What did not.
    pub not: Vec<String>,
}

/// Waits until the mesh is well. One client a region.
pub async fn healed(mesh: &Mesh, operator: &MeshClient, clients: &[Client<'_>], mut rng: Rng) -> Healed {
    let begun = Instant::now();
    let until = begun + WITHIN;
    let served = async { (served(clients, until).await, begun.elapsed()) };
    let closed = async { (in_time(until, || closed(mesh, begun)).await, begun.elapsed()) };
    let placed = async { (in_time(until, || placed(operator)).await, begun.elapsed()) };
    let stand = async { (in_time(until, || stand(mesh)).await, begun.elapsed()) };
    let (served, closed, placed, stand) = tokio::join!(served, closed, placed, stand);
    let mut told = Healed::default();
    for (what, (ended, after)) in
        [("served", served), ("closed", closed), ("placed", placed), ("standing", stand)]
    {
        match ended {
            Ok(()) => told.after.push((what, after)),
            Err(why) => told.not.push(format!("not within {WITHIN:?} after the last fault: {why}")),
        }
    }
    // What was acknowledged is still there when all has come to rest, and is read in every way.
    for client in clients {
        for key in KEYS {
            if !client.read(key).await {
                told.not.push(format!("{key} is not read when all has come to rest"));
            }
            for needs in client.reads_each_way(key, &mut rng).await {
                told.not.push(format!("{key} is not read as {needs:?} when all has come to rest"));
            }
        }
    }
    told
}

/// Asks until there is nothing to say.
async fn in_time<F: Future<Output = Result<(), String>>>(
    until: Instant,
    well: impl Fn() -> F,
) -> Result<(), String> {
    loop {
        match well().await {
            Err(why) if Instant::now() >= until => return Err(why),
            Err(_) => sleep(LOOK_EVERY).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Every key is read and written by each. All are read before the first one is written: what the last fault took is not covered up.
async fn served(clients: &[Client<'_>], until: Instant) -> Result<(), String> {
    for writes in [false, true] {
        let each = clients.iter().map(|client| async move {
            for key in KEYS {
                while !((!writes || client.write(key).await) && client.read(key).await) {
                    if Instant::now() >= until {
                        let what = if writes { "read and written" } else { "read" };
                        return Err(format!("{key} is not {what} from {}", client.region()));
                    }
                    sleep(LOOK_EVERY).await;
                }
            }
            Ok(())
        });
        futures::future::try_join_all(each).await?;
    }
    Ok(())
}

/// The closed timestamps of all replicas go on: they have passed the last fault. One that stopped then is not far behind yet.
async fn closed(mesh: &Mesh, since: Instant) -> Result<(), String> {
    let mut replicas = 0;
    let passed = since.elapsed().as_secs_f64() - LOOKED;
    for (node, admin) in mesh.admins() {
        let page = probe::get(admin, "/metrics", ASK_WITHIN).await;
        let page = page.map_err(|error| format!("{node} tells no metrics: {error}"))?.1;
        let families = read(&page, Form::Classic).map_err(|why| format!("the metrics of {node}: {why}"))?;
        for sample in families.get(BEHIND_METRIC).map(|family| family.samples.as_slice()).unwrap_or_default()
        {
            let whose = sample.labels.get("keyspace").map_or("", String::as_str);
            if sample.value >= passed.min(BEHIND) {
                return Err(format!("what is closed of {whose} on {node} is {:.1} s ago", sample.value));
            }
            replicas += usize::from(whose == KEYSPACE);
        }
    }
    if replicas < REPLICAS {
        return Err(format!("only {replicas} nodes tell how far their replicas are behind"));
    }
    Ok(())
}

/// No node refuses strong paths for its clock.
async fn stand(mesh: &Mesh) -> Result<(), String> {
    let unwell: Vec<_> = mesh.unwell_clocks().await.iter().map(ToString::to_string).collect();
    if unwell.is_empty() {
        Ok(())
    } else {
        Err(format!("strong paths do not stand on {}", unwell.join(", ")))
    }
}

/// Each range stands on three nodes and no other, has one leaseholder, and nothing moves.
async fn placed(operator: &MeshClient) -> Result<(), String> {
    let ranges = ranges(operator).await;
    if ranges.is_empty() {
        return Err("nobody tells of a range".to_owned());
    }
    for (range, views) in ranges {
        let on: BTreeSet<&NodeId> = views.iter().map(|view| &view.node).collect();
        let told = || {
            let each = views.iter().map(|view| {
                let RangeView { replica, node, leaseholder, applied, nodes, .. } = view;
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                let holds = if *leaseholder { ", leaseholder" } else { "" };
                format!("replica {replica} on {node} (applied {applied}{holds}; knows {})", nodes.join(" "))
            });
            each.collect::<Vec<_>>().join("; ")
        };
        let agree = views.iter().all(|view| view.nodes.iter().collect::<BTreeSet<_>>() == on);
        if on.len() != REPLICAS || views.len() != REPLICAS || !agree {
            return Err(format!("range {range} has not its {REPLICAS} replicas: {}", told()));
        }
        let holders = views.iter().filter(|view| view.leaseholder).count();
        if holders != 1 {
            return Err(format!("range {range} has {holders} leaseholders: {}", told()));
        }
        for node in on {
            rests(operator, range, node).await?;
        }
    }
    Ok(())
}

/// Nothing of a range moves. A move to where a replica is makes no sense, unless one moves already: then it is not the time.
async fn rests(operator: &MeshClient, range: u64, node: &NodeId) -> Result<(), String> {
    let nowhere = MoveReplica { range, from: node.clone(), to: node.clone() };
    match operator.ask(node, &nowhere, ASK_WITHIN).await {
        Ok(Err(KvRefusal::Invalid(_))) => Ok(()),
        Ok(Err(refusal)) => Err(format!("range {range} is not at rest: {refusal}")),
        Ok(Ok(moved)) => Err(format!("range {range}: a move from {node} to itself is {moved:?}")),
        Err(fault) => Err(format!("whether range {range} is at rest is not known by {node}: {fault}")),
    }
}
