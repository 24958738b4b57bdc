//! The demo: three regions sell one concert, one of them is killed, another cut off, and not one seat
//! is sold twice.
//!
//! * It decides: nothing while it runs but what its script says (`script`: pure) and, at the end, the
//!   verdict (`report`: pure). This file starts the mesh, plays the script, and reads the books.
//! * It never does: take a verdict from a server's word alone, or leave a process behind.
//! * Invariant: the verdict rests on the rows of all nodes read at rest and on the receipts that the
//!   customers wrote, and on nothing else.

pub mod progress;
pub mod report;
pub mod script;
pub mod table;
mod traced;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rhumb_actors::escrow::messages::{CreatePool, Durability, PoolCreated, ReadRow};
use rhumb_core::rng::Seed;
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use traced::TracedSale;

use crate::client::audit::audit;
use crate::client::directory::Directory;
use crate::client::survey::{Survey, survey};
use crate::client::{Ask, MeshClient, now_ms};
use crate::dev::{DevMesh, DevOptions, WanChoice};
use crate::load::receipts::{Ledger, Sums};
use crate::load::{Burst, Load, Plan, Running, Spacing, Tally};
use progress::Progress;
use report::{Cut, DemoReport, Evidence, Kill, ms};
use script::{Act, Script};

/// The regions, their weight in the first split, and their share of the customers.
const REGIONS: [(&str, u64, u64); 3] =
    [("us-east", 50, 20), ("eu-central", 30, 20), ("ap-southeast", 20, 60)];
/// Who is killed.
const KILLED: &str = "ap-southeast";
/// Who is cut off.
const CUT: &str = "eu-central";
/// How long a hold lasts that nobody confirms.
const TTL: Duration = Duration::from_secs(3);
/// How often the script is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long calls of unknown outcome are asked again before the verdict.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How long the books may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(20);

/// What is sold, and how fast.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Seats.
    pub seats: u64,
    /// Customers a second over all regions; twice as many in the first 5 s.
    pub rate: u32,
    /// Of the customers.
    pub seed: u64,
    /// Where everything is kept: a folder that is not there yet.
    pub data: PathBuf,
    /// After so long no more customers come, sold or not.
    pub max_time: Duration,
}

/// How a demo ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was played to its end.
    Played(Box<DemoReport>),
    /// Somebody asked for a stop before.
    Stopped,
}

/// Runs the demo to its end, or until `stop` resolves. No process is left when it returns.
///
/// # Errors
/// What could not be started or read. A sale that went wrong is no error but a false verdict.
pub async fn run(
    options: &DemoOptions,
    progress: &mut Progress,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Outcome> {
    tokio::pin!(stop);
    progress.event(
        None,
        "starting three regions as three processes, with the published round trips between them",
    );
    let began = Instant::now();
    let program = std::env::current_exe()?;
    let mesh = tokio::select! {
        mesh = DevMesh::start(dev_options(&options.data)?, &program) => Arc::new(mesh?),
        () = &mut stop => return Ok(Outcome::Stopped),
    };
    for node in mesh.nodes() {
        progress.event(
            None,
            &format!("  {:<16} process {}, QUIC at {}", node.id().to_string(), node.pid, node.quic),
        );
    }
    progress.event(None, &format!("ready after {:.1} s", began.elapsed().as_secs_f64()));
    let outcome = tokio::select! {
        report = sell(options, &mesh, progress) => report.map(|report| Outcome::Played(Box::new(report))),
        () = &mut stop => Ok(Outcome::Stopped),
    };
    progress.clear();
    mesh.stop().await;
    outcome
}

fn dev_options(data: &Path) -> anyhow::Result<DevOptions> {
    let regions = REGIONS.map(|(name, _, _)| Region::new(name).map(|region| (region, 1)));
    let regions = regions.into_iter().collect::<Result<_, _>>()?;
    Ok(DevOptions {
        regions,
        data: data.to_owned(),
        wan: WanChoice::Published,
        ready_file: None,
        settings: Vec::new(),
        restart: false,
        traces: traced::settings(data)?,
    })
}

async fn sell(
    options: &DemoOptions,
    mesh: &Arc<DevMesh>,
    progress: &mut Progress,
) -> anyhow::Result<DemoReport> {
    let directory = Directory::of(mesh.nodes().iter().map(|node| (node.id(), node.quic)).collect());
    let client = Arc::new(MeshClient::new(mesh.client_identity(), directory.clone())?);
    client.connect_all().await?;
    let pool = PoolName::new("concert")?;
    let created = create(options.seats, &pool, mesh, &directory).await?;
    split_arrives(&*client, &pool, &created).await?;
    let shares = created.shares.iter().map(|(node, units)| format!("{} {units}", node.region));
    progress.event(
        None,
        &format!(
            "{} seats of {pool} minted at {} and split: {}",
            options.seats,
            created.home,
            shares.collect::<Vec<_>>().join(", ")
        ),
    );
    let trace = traced::sell_across(mesh, &directory, &options.data).await?;
    progress.event(
        None,
        &format!(
            "one unit sold in eu-central with rights from us-east is one trace: {} in {}",
            trace.trace_id, trace.spans
        ),
    );
    let receipts = options.data.join("receipts.jsonl");
    let running = load(options, &pool, &directory, &receipts)?.start(Arc::clone(&client))?;
    let mut stage = Stage::new(options.seats, mesh, progress)?;
    let out_of_time = stage.play(&running, options.max_time).await?;
    if out_of_time {
        stage.progress.event(Some(stage.began.elapsed()), "out of time: no more customers come");
    }
    let began = stage.began;
    let (kill, cut) = stage.end(&running).await?;
    let tally = running.settle(SETTLE_WITHIN).await?;
    let lasted = began.elapsed();
    progress.event(Some(lasted), "every story has ended; reading the books of all nodes and the receipts");
    let books = at_rest(&*client, &directory, &pool).await?;
    let sums = read_receipts(receipts).await?;
    client.close().await;
    let report = DemoReport::new(Evidence {
        seats: options.seats,
        shares: &created.shares,
        home: &created.home,
        tally: &tally,
        audit: audit(&books.rows, Some(&sums)),
        rows: &books.rows,
        exact: books.exact,
        kill,
        cut,
        lasted,
    });
    Ok(DemoReport { trace: Some(trace), ..report })
}

fn load(
    options: &DemoOptions,
    pool: &PoolName,
    directory: &Directory,
    receipts: &Path,
) -> anyhow::Result<Load> {
    let mut nodes = BTreeMap::new();
    let mut mix = Vec::new();
    for (name, _, customers) in REGIONS {
        let region = Region::new(name)?;
        nodes.insert(region.clone(), directory.nodes_in(Some(&region))?);
        mix.push((region, customers));
    }
    let plan = Plan {
        rate: options.rate,
        spacing: Spacing::Exponential,
        burst: Some(Burst { factor: 2, lasts: Duration::from_secs(5) }),
        mix,
        abandon_percent: 60,
        think: (Duration::from_millis(100), Duration::from_millis(600)),
        qty: 1,
        ttl: TTL,
    };
    let seed = Seed::new(options.seed).child("customers");
    Ok(Load {
        pool: pool.clone(),
        plan,
        requests: None,
        seed,
        lasts: None,
        nodes,
        receipts: receipts.to_owned(),
    })
}

async fn create(
    seats: u64,
    pool: &PoolName,
    mesh: &DevMesh,
    directory: &Directory,
) -> anyhow::Result<PoolCreated> {
    let operator = MeshClient::new(mesh.operator_identity(), directory.clone())?;
    let weights = REGIONS.map(|(name, weight, _)| Region::new(name).map(|region| (region, weight)));
    let weights = weights.into_iter().collect::<Result<_, _>>()?;
    let message = CreatePool {
        name: pool.clone(),
        class: DataClass::new("inventory")?,
        supply: seats,
        weights,
        debt: 0,
        reserve: None,
        per_customer: None,
        durability: Durability::Local,
    };
    let node = &directory.nodes().first().context("a mesh has a node")?.0;
    let created = operator.ask(node, &message, Duration::from_secs(10)).await?;
    operator.close().await;
    created.map_err(|refusal| anyhow::anyhow!("the pool is refused: {refusal}"))
}

/// Waits until every node has its part of the first split.
async fn split_arrives(ask: &impl Ask, pool: &PoolName, created: &PoolCreated) -> anyhow::Result<()> {
    let until = Instant::now() + REST_WITHIN;
    for (node, share) in &created.shares {
        let message = ReadRow { pool: pool.clone() };
        loop {
            let row = ask.ask(node, &message, Duration::from_secs(5)).await?;
            if row.is_ok_and(|row| row.available == *share) {
                break;
            }
            if Instant::now() > until {
                bail!("{node} did not get its {share} seats within {REST_WITHIN:?}");
            }
            tokio::time::sleep(TICK).await;
        }
    }
    Ok(())
}

/// Reads the books until nothing is held and nothing on its way, or gives what they say by then.
async fn at_rest(ask: &impl Ask, directory: &Directory, pool: &PoolName) -> anyhow::Result<Survey> {
    let until = Instant::now() + REST_WITHIN;
    loop {
        let books = survey(ask, directory, pool).await?;
        let report = audit(&books.rows, None);
        let rests = books.exact && report.held == 0 && report.in_flight == 0;
        if rests || Instant::now() > until {
            return Ok(books);
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn read_receipts(path: PathBuf) -> anyhow::Result<Sums> {
    let now = now_ms();
    let read = move || anyhow::Ok(Ledger::read(&path)?.sums(now..=now).map_err(anyhow::Error::msg)?);
    tokio::task::spawn_blocking(read).await?
}

/// Where the script is played.
struct Stage<'a> {
    mesh: &'a Arc<DevMesh>,
    progress: &'a mut Progress,
    script: Script,
    seats: u64,
    began: Instant,
    killed: NodeId,
    cut: NodeId,
    kill: Option<Down>,
    starting: Option<JoinHandle<anyhow::Result<()>>>,
    cut_off: Option<(Cut, Instant)>,
}

/// The killed region, on its way back.
struct Down {
    kill: Kill,
    killed: Instant,
    started: Option<Instant>,
    serves: Option<oneshot::Receiver<Instant>>,
}

impl<'a> Stage<'a> {
    fn new(seats: u64, mesh: &'a Arc<DevMesh>, progress: &'a mut Progress) -> anyhow::Result<Self> {
        Ok(Self {
            mesh,
            progress,
            script: Script::new(seats),
            seats,
            began: Instant::now(),
            killed: NodeId::new(KILLED, "n1")?,
            cut: NodeId::new(CUT, "n1")?,
            kill: None,
            starting: None,
            cut_off: None,
        })
    }

    /// Plays until everything is sold; whether time ran out before.
    async fn play(&mut self, running: &Running, max_time: Duration) -> anyhow::Result<bool> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let now = self.began.elapsed();
            let sold = running.look(|tally| tally.sold);
            running.look(|tally| self.progress.stands(now, tally));
            while let Some(act) = self.script.step(now, sold) {
                self.act(act, running).await?;
            }
            self.look_for_service();
            if sold >= self.seats || now >= max_time || running.is_over() {
                return Ok(sold < self.seats);
            }
        }
    }

    /// Plays what is left of the script, so that no region stays down or cut off.
    async fn end(mut self, running: &Running) -> anyhow::Result<(Option<Kill>, Option<Cut>)> {
        running.stop();
        while self.script.is_under_way() {
            tokio::time::sleep(TICK).await;
            while let Some(act) = self.script.step(self.began.elapsed(), 0) {
                self.act(act, running).await?;
            }
        }
        if let Some(starting) = self.starting.take() {
            starting.await??;
        }
        self.look_for_service();
        Ok((self.kill.map(|down| down.kill), self.cut_off.map(|(cut, _)| cut)))
    }

    async fn act(&mut self, act: Act, running: &Running) -> anyhow::Result<()> {
        let now = Instant::now();
        let at = self.began.elapsed();
        match act {
            Act::Kill => {
                self.mesh.kill(&self.killed).await?;
                let region = self.killed.region.clone();
                let kill =
                    Kill { region, at_ms: ms(at), serving_after_kill_ms: None, serving_after_start_ms: None };
                self.kill = Some(Down { kill, killed: now, started: None, serves: None });
                self.progress.event(Some(at), &format!("{} is killed with SIGKILL", self.killed));
            }
            Act::StartAgain => {
                let (mesh, node) = (Arc::clone(self.mesh), self.killed.clone());
                if let Some(down) = &mut self.kill {
                    down.started = Some(now);
                    down.serves = Some(running.next_hold_in(node.region.clone()));
                }
                self.progress.event(Some(at), &format!("{node} is started again"));
                self.starting = Some(tokio::spawn(async move { mesh.start_again(&node).await }));
            }
            Act::CutOff => {
                self.mesh.cut_off(&self.cut)?;
                let (sold, held) = running.look(|tally| self.by_cut(tally));
                let cut = Cut { region: self.cut.region.clone(), at_ms: ms(at), for_ms: 0, sold, held };
                self.cut_off = Some((cut, now));
                self.progress.event(Some(at), &format!("{} is cut off from the other regions", self.cut));
            }
            Act::Heal => {
                let (sold, held) = running.look(|tally| self.by_cut(tally));
                self.mesh.heal(&self.cut)?;
                if let Some((cut, since)) = &mut self.cut_off {
                    cut.for_ms = ms(since.elapsed());
                    cut.sold = sold - cut.sold;
                    cut.held = held - cut.held;
                    let what = format!("{} is reached again; it sold {} meanwhile", self.cut, cut.sold);
                    self.progress.event(Some(at), &what);
                }
            }
        }
        Ok(())
    }

    fn by_cut(&self, tally: &Tally) -> (u64, u64) {
        (tally.sold_in(&self.cut.region), tally.held_in(&self.cut.region))
    }

    /// Notes when the killed region serves its first hold again.
    fn look_for_service(&mut self) {
        let Some(down) = &mut self.kill else { return };
        let (Some(started), Some(serves)) = (down.started, &mut down.serves) else { return };
        let Ok(at) = serves.try_recv() else { return };
        down.serves = None;
        down.kill.serving_after_kill_ms = Some(ms(at - down.killed));
        down.kill.serving_after_start_ms = Some(ms(at - started));
        let after = (at - started).as_secs_f64();
        let what = format!("{} serves holds again, {after:.2} s after its start", self.killed);
        self.progress.event(Some(at - self.began), &what);
    }
}
