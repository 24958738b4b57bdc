//! The mesh under chaos: four nodes of three regions, founded as an operator does it, and between each two of them a relay
//! with the published round trips, that can be cut one way and lose what it is told to.
//!
//! `rhumb dev` has such a relay too, but cuts it both ways only, and not within a region.
//!
//! * It decides: nothing.
//! * It never does: touch a node's process, disk or clock by itself: `Machine` does.
//! * Invariant: dropped, it leaves no process behind, whatever state those were in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::machine::{Ended, Machine};
use super::schedule::{Act, Fault};
use crate::cluster::{free_port, run};
use crate::powercut::Loss;

/// Who is in the mesh. One region has two nodes: three replicas leave one free, to move to.
pub const NODES: [&str; 4] = ["us-east/n1", "us-east/n2", "eu-central/n1", "ap-southeast/n1"];

/// As `rhumb dev` has them.
const JITTER: f64 = 0.05;
const LOSS: f64 = 0.001;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came of faults, beyond that they befell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// A disk lost something in a power cut.
    DiskLost,
    /// A node ended, or did not start, because its disk was full, and said so.
    EndedForRoom,
    /// A node whose clock was off by more than it may be froze its strong paths, and said so.
    Froze,
}

/// A link: from where, to where, and how it is when all is well.
type Planned = (NodeId, NodeId, LinkPlan);

/// The mesh.
pub struct Mesh {
    folder: PathBuf,
    nodes: Vec<Machine>,
    relay: Relay,
    plans: Vec<Planned>,
    /// How many faults want each cut.
    cuts: Mutex<BTreeMap<Cut, u32>>,
    seen: Mutex<BTreeMap<Seen, u32>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
            nodes.push(Machine::new(name.parse()?, address, folder));
        }
        let listed: Vec<_> = nodes.iter().map(|node| format!("{}={}", node.id, node.address)).collect();
        let ran = run(folder, &["mesh", "init", "--nodes", &listed.join(","), "mesh"]);
        ensure!(ran.code == 0, "rhumb mesh init: {}", ran.text);
        let (relay, plans) = relay(&nodes, seed)?;
        dials(folder, &nodes, &relay)?;
        let (cuts, seen) = (Mutex::default(), Mutex::default());
        let mesh = Self { folder: folder.to_owned(), nodes, relay, plans, cuts, seen };
        mesh.nodes.iter().try_for_each(Machine::start)?;
        mesh.ready().await?;
        Ok(mesh)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        for node in &self.nodes {
            while !matches!(probe::get(node.address, "/readyz", Duration::from_secs(1)).await, Ok((200, _))) {
                let log = node.log();
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
        self.nodes.iter().find(|known| known.id == *node).map(Machine::log).unwrap_or_default()
    }

    /// What came of faults so far, and how often.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<Seen, u32> {
        locked(&self.seen).clone()
    }

    fn saw(&self, seen: Seen) {
        *locked(&self.seen).entry(seen).or_default() += 1;
    }

    // ---- faults ------------------------------------------------------------------------------------

    /// A fault begins.
    ///
    /// # Errors
    /// A process, its disk or its clock cannot be had the better of.
    pub async fn begin(&self, act: &Act) -> anyhow::Result<()> {
        let node = &self.nodes[act.node];
        match act.fault {
            Fault::Kill => node.kill().await?,
            Fault::Freeze => node.signal("STOP").await?,
            Fault::PowerCut => {
                if node.lose_power(loss(act.draw)).await? {
                    self.saw(Seen::DiskLost);
                }
            }
            Fault::Blackout => self.black_out(act.draw).await?,
            Fault::Full => node.fill(act.room)?,
            Fault::Skew | Fault::Beyond => node.set_clock(act.off_ms)?,
            Fault::Loss => self.lose(act.node, Some(f64::from(act.percent) / 100.0))?,
            _ => self.cuts_of(act).into_iter().try_for_each(|cut| self.cut(cut))?,
        }
        Ok(())
    }

    /// A fault goes on, until it is to end. Of [`Fault::Beyond`]: whether the node was seen to freeze.
    pub async fn endures(&self, act: &Act, until: Instant) -> bool {
        let mut froze = false;
        if act.fault == Fault::Beyond {
            froze = timeout_at(until, self.nodes[act.node].freezes()).await.is_ok();
        }
        if froze {
            self.saw(Seen::Froze);
        }
        tokio::time::sleep_until(until).await;
        froze
    }

    /// A fault ends.
    ///
    /// # Errors
    /// A process could not be sent a signal, or not be started.
    pub async fn end(&self, act: &Act) -> anyhow::Result<()> {
        let node = &self.nodes[act.node];
        match act.fault {
            Fault::Kill | Fault::PowerCut => node.start()?,
            Fault::Blackout => self.nodes.iter().try_for_each(Machine::start)?,
            Fault::Freeze => node.signal("CONT").await?,
            Fault::Full => node.free()?,
            Fault::Skew | Fault::Beyond => node.set_clock(0)?,
            Fault::Loss => self.lose(act.node, None)?,
            _ => self.cuts_of(act).iter().for_each(|cut| self.heal(cut)),
        }
        Ok(())
    }

    /// The power of all nodes is cut at one moment.
    async fn black_out(&self, draw: u64) -> anyhow::Result<()> {
        futures::future::try_join_all(self.nodes.iter().map(Machine::kill)).await?;
        let each =
            self.nodes.iter().zip(0..).map(|(node, number)| node.keep(loss(draw.wrapping_add(number))));
        for _ in futures::future::try_join_all(each).await?.into_iter().filter(|lost| *lost) {
            self.saw(Seen::DiskLost);
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
            Fault::Kill
            | Fault::Freeze
            | Fault::PowerCut
            | Fault::Blackout
            | Fault::Full
            | Fault::Skew
            | Fault::Beyond
            | Fault::Loss => Vec::new(),
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

    /// Nodes that have ended though nobody ended them and their disks were not full, and their last words. They are started
    /// again.
    ///
    /// # Errors
    /// One does not start.
    pub fn ended(&self) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        for node in &self.nodes {
            match node.look_after()? {
                Some(Ended::Wrong(words)) => told.push(words),
                Some(Ended::ForRoom) => self.saw(Seen::EndedForRoom),
                None => {}
            }
        }
        Ok(told)
    }

    /// Nodes whose strong paths do not stand, or that do not answer.
    pub async fn unwell_clocks(&self) -> Vec<&NodeId> {
        let mut unwell = Vec::new();
        for node in &self.nodes {
            if node.frozen().await != Some(false) {
                unwell.push(&node.id);
            }
        }
        unwell
    }

    /// Everything is as it should be again: nothing is cut or lost, disks have room, clocks are right, nobody stands still or
    /// is down.
    ///
    /// # Errors
    /// A process does not start, or cannot be sent a signal.
    pub async fn heal_all(&self) -> anyhow::Result<()> {
        locked(&self.cuts).clear();
        self.relay.heal_all();
        for (number, node) in self.nodes.iter().enumerate() {
            self.lose(number, None)?;
            node.free()?;
            node.set_clock(0)?;
            node.signal("CONT").await?;
            node.start()?;
        }
        Ok(())
    }

    /// Stops all nodes in order, and names those that do not stop in time.
    pub async fn stop(&self) -> Vec<String> {
        let children = self.nodes.iter().map(|node| (&node.id, node.take()));
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

/// What becomes of what was not synced: three of ten times it is all lost.
fn loss(draw: u64) -> Loss {
    if draw % 10 < 3 { Loss::All } else { Loss::Drawn(Seed::new(draw)) }
}

/// The relay between all nodes, and how its links are when all is well.
fn relay(nodes: &[Machine], seed: &Seed) -> anyhow::Result<(Relay, Vec<Planned>)> {
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
fn dials(folder: &Path, nodes: &[Machine], relay: &Relay) -> anyhow::Result<()> {
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
