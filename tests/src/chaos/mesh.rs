//! The mesh under chaos: four nodes of three regions as processes, founded as an operator does it, and between each two of
//! them a relay with the published round trips, that can be cut one way and lose what it is told to.
//!
//! `rhumb dev` has such a relay too, but cuts it both ways only, and not within a region.
//!
//! * It decides: nothing.
//! * It never does: end a process that it did not start, or start one whose node is still there.
//! * Invariant: dropped, it leaves no process behind, whatever state those were in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::http::probe;
use rhumb_core::NodeId;
use rhumb_core::rng::Seed;
use rhumb_topology::RegionMap;
use rhumb_transport::relay::{Cut, LinkPlan, Relay, RelayLink, Wan};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::schedule::{Act, Fault};
use crate::cluster::{free_port, program, run};

/// Who is in the mesh. One region has two nodes: three replicas leave one free, to move to.
pub const NODES: [&str; 4] = ["us-east/n1", "us-east/n2", "eu-central/n1", "ap-southeast/n1"];

/// As `rhumb dev` has them.
const JITTER: f64 = 0.05;
const LOSS: f64 = 0.001;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a log that are shown of a node that ended by itself.
const LAST_LINES: usize = 6;

struct Node {
    id: NodeId,
    address: SocketAddr,
    /// None while it is down because it was killed.
    child: Mutex<Option<Child>>,
}

/// A link: from where, to where, and how it is when all is well.
type Planned = (NodeId, NodeId, LinkPlan);

/// The mesh.
pub struct Mesh {
    folder: PathBuf,
    nodes: Vec<Node>,
    relay: Relay,
    plans: Vec<Planned>,
    /// How many faults want each cut.
    cuts: Mutex<BTreeMap<Cut, u32>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mesh {
    /// Founds a mesh in a folder that is not there yet, and starts it; all nodes are ready when this returns. The relay draws
    /// jitter and loss from the seed.
    ///
    /// # Errors
    /// What could not be founded or started.
    pub async fn start(folder: &Path, seed: &Seed) -> anyhow::Result<Self> {
        ensure!(!folder.exists(), "{} is there: remove it, or give another folder", folder.display());
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut nodes = Vec::new();
        for name in NODES {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            nodes.push(Node { id: name.parse()?, address, child: Mutex::default() });
        }
        let listed: Vec<_> = nodes.iter().map(|node| format!("{}={}", node.id, node.address)).collect();
        let ran = run(folder, &["mesh", "init", "--nodes", &listed.join(","), "mesh"]);
        ensure!(ran.code == 0, "rhumb mesh init: {}", ran.text);
        let (relay, plans) = relay(&nodes, seed)?;
        dials(folder, &nodes, &relay)?;
        let mesh = Self { folder: folder.to_owned(), nodes, relay, plans, cuts: Mutex::default() };
        for node in 0..mesh.nodes.len() {
            mesh.spawn(node)?;
        }
        mesh.ready().await?;
        Ok(mesh)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        for node in &self.nodes {
            while !matches!(probe::get(node.address, "/readyz", Duration::from_secs(1)).await, Ok((200, _))) {
                let log = self.log(&node.id);
                ensure!(Instant::now() < until, "{} is not ready within {READY_WITHIN:?}:\n{log}", node.id);
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// A client of all nodes, as `client` or `operator`; it reaches them without the relay.
    ///
    /// # Errors
    /// There is no certificate.
    pub fn client(&self, role: &str) -> anyhow::Result<MeshClient> {
        let name = if role == "client" { "app" } else { "admin" };
        let directory = self.nodes.iter().map(|node| (node.id.clone(), node.address)).collect();
        let identity = self.folder.join(format!("mesh/{role}s/us-east-{name}"));
        Ok(MeshClient::new(&identity, Directory::of(directory))?)
    }

    /// The names of its nodes.
    pub fn ids(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().map(|node| &node.id)
    }

    /// Where a node's admin HTTP listens.
    pub fn admins(&self) -> impl Iterator<Item = (&NodeId, SocketAddr)> {
        self.nodes.iter().map(|node| (&node.id, node.address))
    }

    /// A node's log, all lives of it.
    #[must_use]
    pub fn log(&self, node: &NodeId) -> String {
        fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    fn log_file(&self, node: &NodeId) -> PathBuf {
        self.folder.join(format!("{}-{}.log", node.region, node.name))
    }

    // ---- faults ------------------------------------------------------------------------------------

    /// A fault begins.
    ///
    /// # Errors
    /// A process could not be sent a signal.
    pub async fn begin(&self, act: &Act) -> anyhow::Result<()> {
        match act.fault {
            Fault::Kill => self.kill(act.node).await?,
            Fault::Freeze => self.signal(act.node, "STOP").await?,
            Fault::Loss => self.lose(act.node, Some(f64::from(act.percent) / 100.0))?,
            _ => self.cuts_of(act).into_iter().try_for_each(|cut| self.cut(cut))?,
        }
        Ok(())
    }

    /// A fault ends.
    ///
    /// # Errors
    /// A process could not be sent a signal, or not be started.
    pub async fn end(&self, act: &Act) -> anyhow::Result<()> {
        match act.fault {
            Fault::Kill => self.spawn(act.node)?,
            Fault::Freeze => self.signal(act.node, "CONT").await?,
            Fault::Loss => self.lose(act.node, None)?,
            _ => self.cuts_of(act).iter().for_each(|cut| self.heal(cut)),
        }
        Ok(())
    }

    /// What a fault cuts.
    fn cuts_of(&self, act: &Act) -> Vec<Cut> {
        let id = |node: usize| self.nodes[node].id.clone();
        let others = || (0..self.nodes.len()).filter(|other| *other != act.node);
        match act.fault {
            Fault::CutOff => vec![Cut::Node(id(act.node))],
            Fault::Deaf => others().map(|other| Cut::Link(id(other), id(act.node))).collect(),
            Fault::Mute => others().map(|other| Cut::Link(id(act.node), id(other))).collect(),
            Fault::OneWay => vec![Cut::Link(id(act.node), id(act.other))],
            Fault::Partition => vec![Cut::Region(id(act.node).region)],
            Fault::Kill | Fault::Freeze | Fault::Loss => Vec::new(),
        }
    }

    fn cut(&self, cut: Cut) -> anyhow::Result<()> {
        self.relay.cut(cut.clone())?;
        *locked(&self.cuts).entry(cut).or_default() += 1;
        Ok(())
    }

    fn heal(&self, cut: &Cut) {
        let mut cuts = locked(&self.cuts);
        let Some(wanted) = cuts.get_mut(cut) else { return };
        *wanted -= 1;
        if *wanted == 0 {
            cuts.remove(cut);
            self.relay.heal(cut);
        }
    }

    /// The links of a node lose so much, or as little as they always do.
    fn lose(&self, node: usize, loss: Option<f64>) -> anyhow::Result<()> {
        let id = &self.nodes[node].id;
        let of_it = self.plans.iter().filter(|(from, to, _)| from == id || to == id);
        self.relay.with_wan(|wan| {
            for (from, to, plan) in of_it {
                let link = wan.id(from, to).context("every planned link is there")?;
                let plan = LinkPlan { loss: loss.unwrap_or(plan.loss), ..plan.clone() };
                wan.replan(link, plan)?;
            }
            Ok(())
        })
    }

    // ---- processes ---------------------------------------------------------------------------------

    fn spawn(&self, node: usize) -> anyhow::Result<()> {
        let Node { id, child, .. } = &self.nodes[node];
        let mut child = locked(child);
        if child.is_some() {
            return Ok(());
        }
        let log = || OpenOptions::new().create(true).append(true).open(self.log_file(id));
        let spawned = Command::new(program())
            .args(["serve", "--config", "mesh/config", "--until-stdin-closes"])
            .args(["--region", id.region.as_str(), "--node", id.name.as_str()])
            // A node that dies often waits before it starts. Here it is we who kill it.
            .envs([("RHUMB__SUPERVISOR__CRASHES", "64"), ("RHUMB__SUPERVISOR__CRASH_WINDOW", "1s")])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(log()?)
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn();
        *child = Some(spawned.with_context(|| format!("node {id} does not start"))?);
        Ok(())
    }

    async fn kill(&self, node: usize) -> anyhow::Result<()> {
        let child = locked(&self.nodes[node].child).take();
        if let Some(mut child) = child {
            child.kill().await?;
        }
        Ok(())
    }

    async fn signal(&self, node: usize, signal: &str) -> anyhow::Result<()> {
        let pid = locked(&self.nodes[node].child).as_ref().and_then(Child::id);
        // One that ended by itself is told of elsewhere.
        let Some(pid) = pid else { return Ok(()) };
        let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().await?;
        ensure!(sent.success(), "process {pid} could not be sent {signal}");
        Ok(())
    }

    /// Nodes that have ended though nobody killed them, and their last words. They are started again.
    ///
    /// # Errors
    /// One does not start.
    pub fn ended(&self) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let mut child = locked(&node.child);
            let Some(status) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) else {
                continue;
            };
            *child = None;
            drop(child);
            told.push(self.last_words(&node.id, status));
            self.spawn(number)?;
        }
        Ok(told)
    }

    fn last_words(&self, node: &NodeId, status: ExitStatus) -> String {
        let log = self.log(node);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        format!("node {node} ended by itself ({status}):\n  {last}")
    }

    /// Everything is as it should be again: nothing is cut or lost, nobody stands still or is down.
    ///
    /// # Errors
    /// A process does not start, or cannot be sent a signal.
    pub async fn heal_all(&self) -> anyhow::Result<()> {
        locked(&self.cuts).clear();
        self.relay.heal_all();
        for node in 0..self.nodes.len() {
            self.lose(node, None)?;
            self.signal(node, "CONT").await?;
            self.spawn(node)?;
        }
        Ok(())
    }

    /// Stops all nodes in order, and names those that do not stop in time.
    pub async fn stop(&self) -> Vec<String> {
        let children = self.nodes.iter().map(|node| (&node.id, locked(&node.child).take()));
        let each = children.filter_map(|(id, child)| child.map(|child| (id, child)));
        let stopped = futures::future::join_all(each.map(|(id, mut child)| async move {
            drop(child.stdin.take());
            match timeout(STOP_WITHIN, child.wait()).await {
                Ok(_) => None,
                Err(_) => {
                    child.kill().await.ok();
                    Some(format!("node {id} did not stop within {STOP_WITHIN:?} of being asked to"))
                }
            }
        }));
        stopped.await.into_iter().flatten().collect()
    }
}

/// The relay between all nodes, and how its links are when all is well.
fn relay(nodes: &[Node], seed: &Seed) -> anyhow::Result<(Relay, Vec<Planned>)> {
    let map = RegionMap::default();
    let (mut wan, mut pairs, mut plans) = (Wan::new(seed), Vec::new(), Vec::new());
    for from in nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            let delay = map.rtt(&from.id.region, &to.id.region)? / 2;
            let plan = LinkPlan { delay, jitter: delay.mul_f64(JITTER), loss: LOSS, ..LinkPlan::default() };
            wan.link(&from.id, &to.id, plan.clone())?;
            pairs.push(RelayLink { from: from.id.clone(), to: to.id.clone(), target: Some(to.address) });
            plans.push((from.id.clone(), to.id.clone(), plan));
        }
    }
    Ok((Relay::start(pairs, wan)?, plans))
}

/// Writes into the settings of each node that it dials the others through the relay.
fn dials(folder: &Path, nodes: &[Node], relay: &Relay) -> anyhow::Result<()> {
    for from in nodes {
        let file = folder.join(format!("mesh/config/{}.toml", from.id.region));
        let mut text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        write!(text, "\n[nodes.{}.dial]\n", from.id.name)?;
        for to in nodes.iter().filter(|to| to.id != from.id) {
            let address = relay.address(&from.id, &to.id).context("every pair has an address")?;
            writeln!(text, "\"{}\" = \"{address}\"", to.id)?;
        }
        fs::write(&file, text)?;
    }
    Ok(())
}
