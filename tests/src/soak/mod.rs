//! A mesh of real processes behind the published round trips, sold from without pause while one fault after the
//! other befalls it; at the end its books, its logs, and what its processes use.
//!
//! * It decides: nothing but when the soak is over. What befalls whom is `schedule`'s, whether it is flat is
//!   `flat`'s (both pure).
//! * It never does: take a node's word for what was sold: the receipts are the customers'.
//! * Invariant: it ends by itself, and leaves no process behind.

pub mod flat;
pub mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rhumb::client::audit::audit;
use rhumb::client::directory::Directory;
use rhumb::client::survey::{Survey, survey};
use rhumb::client::{Ask, MeshClient, now_ms};
use rhumb::dev::{DevMesh, DevOptions, WanChoice};
use rhumb::escrow::{CreatePool, Durability};
use rhumb::http::probe;
use rhumb::load::receipts::Ledger;
use rhumb::load::{Load, Plan, Running, Spacing, Tally};
use rhumb::telemetry::TelemetrySettings;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::REGIONS;
use crate::exposition::{Form, read};
use flat::{Allowed, Flat, Sample};
use schedule::{Act, Fault, Schedule};

/// Units of the pool: never sold out.
const SUPPLY: u64 = 1 << 40;
const TTL: Duration = Duration::from_secs(3);
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const ADMIN_WITHIN: Duration = Duration::from_secs(1);
/// How long calls of unknown outcome are asked again.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const REST_WITHIN: Duration = Duration::from_secs(30);
/// Nothing is done to the nodes in so last a part of the time: they come to rest.
const QUIET: Duration = Duration::from_secs(10);
/// Datagrams of noise a second.
const NOISE: u32 = 2_000;

/// What to soak, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that runs as each node.
    pub program: PathBuf,
    /// A folder that is not there yet.
    pub data: PathBuf,
    /// For how long.
    pub lasts: Duration,
    /// Customers a second over all regions.
    pub rate: u32,
    /// Of the faults and the customers.
    pub seed: u64,
}

/// What a soak found.
#[derive(Debug)]
pub struct Report {
    /// What each node used.
    pub nodes: BTreeMap<NodeId, Result<Flat, flat::Growth>>,
    /// How often each fault befell a node.
    pub faults: BTreeMap<Fault, u32>,
    /// What the customers met.
    pub tally: Tally,
    /// Everything that is not as it should be. Empty when all is well.
    pub wrong: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(fault, times)| format!("{fault:?} {times}")).collect();
        let sum = self.tally.total();
        writeln!(f, "faults: {}", faults.join(", "))?;
        writeln!(
            f,
            "customers: {} came, {} held, {} sold, {} without service, {} of unknown outcome, {} broken",
            sum.came,
            sum.held,
            self.tally.sold,
            sum.unserved.values().sum::<u64>(),
            sum.unknown,
            sum.broken
        )?;
        writeln!(
            f,
            "\n{:<18} {:>14} {:>13} {:>11} {:>13}",
            "node", "resident MiB", "descriptors", "threads", "remembered"
        )?;
        for (node, flat) in &self.nodes {
            let Ok(Flat { early, late }) = flat else { continue };
            let both = |early: u64, late: u64| format!("{early} → {late}");
            writeln!(
                f,
                "{:<18} {:>14} {:>13} {:>11} {:>13}",
                node.to_string(),
                both(early.resident >> 20, late.resident >> 20),
                both(early.descriptors, late.descriptors),
                both(early.threads, late.threads),
                both(early.remembered, late.remembered)
            )?;
        }
        writeln!(f, "(medians of the second quarter of the time and of the last)\n")?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "WRONG: {wrong}"))?;
        write!(f, "{}", if self.wrong.is_empty() { "VERDICT: holds." } else { "VERDICT: DOES NOT HOLD." })
    }
}

/// Soaks a mesh; `tell` gets a line for each thing that happens.
///
/// # Errors
/// What could not be started or read. What goes wrong within the mesh is no error but in the report.
pub async fn run(options: &Options, tell: impl Fn(&str)) -> anyhow::Result<Report> {
    ensure!(!options.data.exists(), "{} is there: give a folder that is not", options.data.display());
    let regions = REGIONS.map(|name| Region::new(name).map(|region| (region, 1)));
    let dev = DevOptions {
        regions: regions.into_iter().collect::<Result<_, _>>()?,
        data: options.data.clone(),
        wan: WanChoice::Published,
        ready_file: None,
        settings: Vec::new(),
        restart: false,
        traces: TelemetrySettings::default(),
    };
    let mesh = DevMesh::start(dev, &options.program).await?;
    let soaked = soak(options, &mesh, &tell).await;
    mesh.stop().await;
    let mut report = soaked?;
    report.wrong.extend(panics(mesh.data(), &report.nodes)?);
    Ok(report)
}

async fn soak(options: &Options, mesh: &DevMesh, tell: &impl Fn(&str)) -> anyhow::Result<Report> {
    let directory = Directory::of(mesh.nodes().iter().map(|node| (node.id(), node.quic)).collect());
    let client = Arc::new(MeshClient::new(mesh.client_identity(), directory.clone())?);
    client.connect_all().await?;
    let pool = PoolName::new("soak")?;
    create(mesh, &directory, &pool).await?;
    let seed = Seed::new(options.seed);
    let receipts = options.data.join("receipts.jsonl");
    let running = load(options, &seed, &pool, &directory, &receipts)?.start(Arc::clone(&client))?;

    let ends = Instant::now() + options.lasts;
    let mut faults =
        Faults { mesh, directory: &directory, rng: seed.child("noise").rng(), told: BTreeMap::new() };
    let (samples, befell) =
        tokio::join!(sample(mesh, ends, &running, tell), faults.befall(&seed, ends - QUIET, tell));
    befell?;
    let befell = faults.told;

    let tally = running.settle(SETTLE_WITHIN).await?;
    let books = at_rest(&*client, &directory, &pool).await?;
    let now = now_ms();
    let sums = Ledger::read(&receipts)?.sums(now..=now).map_err(anyhow::Error::msg)?;
    client.close().await;

    let mut wrong = Vec::new();
    if !books.exact {
        wrong.push("the books do not come to rest".to_owned());
    }
    wrong.extend(audit(&books.rows, Some(&sums)).violations);
    let sum = tally.total();
    if sum.broken > 0 || sum.unknown > 0 {
        wrong.push(format!("{} promises were broken, {} stories have no end", sum.broken, sum.unknown));
    }
    if sum.held == 0 {
        wrong.push("nothing was held: nothing was soaked".to_owned());
    }
    let nodes: BTreeMap<_, _> =
        samples.iter().map(|(node, samples)| (node.clone(), Flat::of(samples))).collect();
    for (node, flat) in &nodes {
        let grown =
            flat.as_ref().map_or_else(|short| vec![short.clone()], |flat| flat.grown(&Allowed::default()));
        wrong.extend(grown.iter().map(|grown| format!("{node}: {grown}")));
    }
    Ok(Report { nodes, faults: befell, tally, wrong })
}

async fn create(mesh: &DevMesh, directory: &Directory, pool: &PoolName) -> anyhow::Result<()> {
    let operator = MeshClient::new(mesh.operator_identity(), directory.clone())?;
    let message = CreatePool {
        name: pool.clone(),
        class: DataClass::new("inventory")?,
        supply: SUPPLY,
        weights: BTreeMap::new(),
        debt: 0,
        reserve: None,
        per_customer: None,
        durability: Durability::Local,
    };
    let node = &directory.nodes().first().context("a mesh has a node")?.0;
    let created = operator.ask(node, &message, Duration::from_secs(10)).await?;
    operator.close().await;
    created.map(drop).map_err(|refusal| anyhow::anyhow!("the pool is refused: {refusal}"))
}

fn load(
    options: &Options,
    seed: &Seed,
    pool: &PoolName,
    directory: &Directory,
    receipts: &Path,
) -> anyhow::Result<Load> {
    let mut nodes = BTreeMap::new();
    for region in directory.regions() {
        nodes.insert(region.clone(), directory.nodes_in(Some(&region))?);
    }
    let plan = Plan {
        rate: options.rate,
        spacing: Spacing::Exponential,
        burst: None,
        mix: nodes.keys().map(|region| (region.clone(), 1)).collect(),
        abandon_percent: 30,
        think: (Duration::from_millis(100), Duration::from_millis(600)),
        qty: 1,
        ttl: TTL,
    };
    let (pool, seed, receipts) = (pool.clone(), seed.child("customers"), receipts.to_owned());
    Ok(Load { pool, plan, requests: None, seed, lasts: None, nodes, receipts })
}

/// Reads the books until nothing is held and nothing on its way, or gives what they say by then.
async fn at_rest(ask: &impl Ask, directory: &Directory, pool: &PoolName) -> anyhow::Result<Survey> {
    let until = Instant::now() + REST_WITHIN;
    loop {
        let books = survey(ask, directory, pool).await?;
        let report = audit(&books.rows, None);
        if books.exact && report.held == 0 && report.in_flight == 0 || Instant::now() > until {
            return Ok(books);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What each node uses, until the end; a node that is down or stands still has no sample then.
async fn sample(
    mesh: &DevMesh,
    ends: Instant,
    running: &Running,
    tell: &impl Fn(&str),
) -> BTreeMap<NodeId, Vec<Sample>> {
    let mut samples: BTreeMap<NodeId, Vec<Sample>> =
        mesh.nodes().iter().map(|node| (node.id(), Vec::new())).collect();
    let (mut next, mut told) = (Instant::now(), Instant::now());
    while next < ends {
        sleep_until(next).await;
        next += SAMPLE_EVERY;
        for node in mesh.nodes() {
            let Some(sample) = used(&node.admin).await else { continue };
            samples.entry(node.id()).or_default().push(sample);
        }
        if Instant::now() >= told {
            told += Duration::from_secs(60);
            tell(&line(&samples, running));
        }
    }
    samples
}

fn line(samples: &BTreeMap<NodeId, Vec<Sample>>, running: &Running) -> String {
    let each = samples.iter().filter_map(|(node, samples)| {
        let Sample { resident, descriptors, threads, remembered } = samples.last()?;
        let mib = resident >> 20;
        Some(format!("{node} {mib} MiB {descriptors} fds {threads} threads {remembered} remembered"))
    });
    let (came, sold) = running.look(|tally| (tally.total().came, tally.sold));
    format!("{came} came, {sold} sold; {}", each.collect::<Vec<_>>().join("; "))
}

async fn used(admin: &str) -> Option<Sample> {
    let address: SocketAddr = admin.strip_prefix("http://")?.parse().ok()?;
    let (code, page) = probe::get(address, "/metrics", ADMIN_WITHIN).await.ok()?;
    let families = read(&page, Form::Classic).ok().filter(|_| code == 200)?;
    let value = |name: &str| -> Option<u64> {
        let value = families.get(name)?.samples.first()?.value;
        Some(value as u64)
    };
    Some(Sample {
        resident: value("process_resident_memory_bytes")?,
        descriptors: value("process_open_fds")?,
        threads: value("process_threads")?,
        remembered: value("rhumb_escrow_keys")? + value("rhumb_escrow_holds")?,
    })
}

/// Lets faults befall nodes.
struct Faults<'a> {
    mesh: &'a DevMesh,
    directory: &'a Directory,
    rng: Rng,
    told: BTreeMap<Fault, u32>,
}

impl Faults<'_> {
    async fn befall(&mut self, seed: &Seed, until: Instant, tell: &impl Fn(&str)) -> anyhow::Result<()> {
        let nodes = self.mesh.nodes();
        for Act { after, fault, node, lasts } in Schedule::new(nodes.len(), seed) {
            if Instant::now() + after + lasts >= until {
                return Ok(());
            }
            sleep(after).await;
            let node = nodes[node].id();
            tell(&format!("{fault:?} {node} for {:.1} s", lasts.as_secs_f64()));
            self.one(fault, &node, lasts).await.with_context(|| format!("{fault:?} {node}"))?;
            *self.told.entry(fault).or_default() += 1;
        }
        Ok(())
    }

    async fn one(&mut self, fault: Fault, node: &NodeId, lasts: Duration) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => {
                self.mesh.kill(node).await?;
                sleep(lasts).await;
                self.mesh.start_again(node).await?;
            }
            Fault::Freeze => {
                self.signal(node, "STOP")?;
                sleep(lasts).await;
                self.signal(node, "CONT")?;
            }
            Fault::CutOff => {
                self.mesh.cut_off(node)?;
                sleep(lasts).await;
                self.mesh.heal(node)?;
            }
            Fault::Noise => self.noise(node, Instant::now() + lasts).await?,
            Fault::Visitors => self.visitors(Instant::now() + lasts).await?,
            Fault::Reload => self.signal(node, "HUP")?,
        }
        Ok(())
    }

    fn signal(&self, node: &NodeId, signal: &str) -> anyhow::Result<()> {
        let nodes = self.mesh.nodes();
        let pid = nodes.iter().find(|known| known.id() == *node).context("no such node")?.pid.to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status()?;
        ensure!(sent.success(), "process {pid} could not be sent {signal}");
        Ok(())
    }

    async fn noise(&mut self, node: &NodeId, until: Instant) -> anyhow::Result<()> {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let to = self.directory.address(node).context("no such node")?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / NOISE);
        while Instant::now() < until {
            ticks.tick().await;
            let length = self.rng.between(0, 1_500);
            let datagram: Vec<u8> = (0..length).map(|_| self.rng.u64().to_le_bytes()[0]).collect();
            // The socket of a node that has just ended refuses; that is no fault of the noise.
            socket.send_to(&datagram, to).await.ok();
        }
        Ok(())
    }

    async fn visitors(&self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            let visitor = MeshClient::new(self.mesh.client_identity(), self.directory.clone())?;
            visitor.connect_all().await?;
            visitor.close().await;
        }
        Ok(())
    }
}

/// Lines of the nodes' logs that tell of a panic.
fn panics<T>(data: &Path, nodes: &BTreeMap<NodeId, T>) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for node in nodes.keys() {
        let log = data.join("nodes").join(format!("{}-{}", node.region, node.name)).join("log");
        let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let told = text.lines().filter(|line| line.contains("panicked"));
        found.extend(told.map(|line| format!("{node}: {line}")));
    }
    Ok(found)
}
