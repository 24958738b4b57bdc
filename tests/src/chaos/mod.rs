//! Chaos: clients of three regions read and write a keyspace of real processes while these are killed, frozen, cut off one
//! way or both and lose datagrams, lose their power (one, or all at once) and with it what was not synced, have full disks and
//! wrong clocks, several at once, and ranges are split and moved; then all of it ends, and the mesh must be well again, and
//! what the clients saw must have been linearizable.
//!
//! * It decides: nothing but when a story is over. What befalls whom is `schedule`'s (pure), what may have been is
//!   decided by [`rhumb_histories`] (pure, and no code of ours in the heart of it), what is well is `healing`'s.
//! * It never does: take a node's word for what was written: the history is the clients'.
//! * Invariant: a story ends by itself, and leaves no process behind.

pub mod book;
pub mod clients;
pub mod errands;
pub mod healing;
mod machine;
pub mod mesh;
pub mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rhumb::client::MeshClient;
use rhumb::client::kv::{Kv, create};
use rhumb_core::rng::Seed;
use rhumb_core::{DataClass, Region};
use rhumb_histories::linear::check;
use rhumb_histories::{Did, Operation, Outcome};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use book::{Book, Closed};
use clients::Client;
use errands::{Errand, Errands, KEYSPACE, Operator};
use healing::{Healed, healed};
use mesh::{Mesh, Seen};
use schedule::{Act, Fault, Kinds, schedule};

/// Clients of a region while there is chaos.
const CLIENTS: u32 = 3;
/// Faults are over so long before the clients stop.
const QUIET: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node freezes at once when its clock is stepped beyond the bound; so soon it is seen to have done so.
const FREEZES_WITHIN: Duration = Duration::from_secs(2);
/// How long the checker may think about keys that hang together.
const CHECK_WITHIN: Duration = Duration::from_secs(600);

/// What to tell.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder that is not there yet: the nodes' data and logs.
    pub data: PathBuf,
    /// Where the history goes.
    pub history: PathBuf,
    /// For how long there is chaos.
    pub lasts: Duration,
    /// Of the faults, the errands and the clients.
    pub seed: u64,
    /// Which kinds of faults there are.
    pub kinds: Kinds,
}

/// What a story was, and whether it may be.
#[derive(Debug)]
pub struct Report {
    /// How often each fault befell a node.
    pub faults: BTreeMap<Fault, u32>,
    /// What came of some of them.
    pub seen: BTreeMap<Seen, u32>,
    /// What the operator asked for.
    pub errands: Errands,
    /// Lines of the history by what was done and came of it; those of several keys at one moment are a `batch` or a `scan`.
    pub operations: BTreeMap<(&'static str, &'static str), u32>,
    /// How many regions there were, with a client each once all was over.
    pub regions: usize,
    /// Keys that were read, by how: `strong`, `bounded`, `eventual`, `as of`.
    pub answered: BTreeMap<&'static str, u32>,
    /// What was well when.
    pub healed: Vec<(&'static str, Duration)>,
    /// Everything that must not be. Empty when all is well.
    pub wrong: Vec<String>,
}

impl Report {
    /// How many lines of a kind, such as `write`, were done.
    #[must_use]
    pub fn done(&self, op: &str) -> u32 {
        self.operations.iter().filter(|((what, came), _)| *what == op && *came == "ok").map(|(_, n)| n).sum()
    }

    /// How many splits, moves and transfers were granted.
    #[must_use]
    pub fn granted(&self) -> u32 {
        [Errand::Split, Errand::Move, Errand::Transfer].iter().map(|errand| self.errands.done(*errand)).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(fault, times)| format!("{fault:?} {times}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        let seen: Vec<_> = self.seen.iter().map(|(seen, times)| format!("{seen:?} {times}")).collect();
        writeln!(f, "seen: {}", if seen.is_empty() { "none".to_owned() } else { seen.join(", ") })?;
        writeln!(f, "errands: {}", self.errands)?;
        let ops: BTreeSet<_> = self.operations.keys().map(|(op, _)| *op).collect();
        for op in ops {
            let came = |outcome| self.operations.get(&(op, outcome)).copied().unwrap_or_default();
            let (ok, fail, unknown) = (came("ok"), came("fail"), came("unknown"));
            writeln!(f, "{op:>7}: {ok} ok, {fail} failed, {unknown} of unknown outcome")?;
        }
        let answered: Vec<_> = self.answered.iter().map(|(how, times)| format!("{how} {times}")).collect();
        writeln!(f, "keys read: {}", answered.join(", "))?;
        let healed = self.healed.iter().map(|(what, after)| format!("{what} {:.1} s", after.as_secs_f64()));
        writeln!(f, "well after the last fault: {}", healed.collect::<Vec<_>>().join(", "))?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "WRONG: {wrong}"))?;
        f.write_str(if self.wrong.is_empty() { "VERDICT: holds." } else { "VERDICT: DOES NOT HOLD." })
    }
}

/// Tells the story of a seed; `tell` gets a line for each thing that happens.
///
/// # Errors
/// What could not be started or written. What goes wrong within the mesh is no error but in the report.
pub async fn run(options: &Options, tell: impl Fn(&str)) -> anyhow::Result<Report> {
    let seed = Seed::new(options.seed);
    let mesh = Mesh::start(&options.data, &seed.child("relay")).await?;
    let book = Book::of(&options.history)?;
    let told = story(options, &seed, &mesh, &book, &tell).await;
    let not_stopped = mesh.stop().await;
    let (faults, errands, Healed { after, not }, ended) = told?;
    let Closed { history, answered, wrong: answers } = book.close()?;
    tell(&format!("{} operations are checked", history.len()));
    let mut wrong = [ended, answers, not, not_stopped, panics(&mesh)].concat();
    let checked = history.clone();
    let verdict = tokio::task::spawn_blocking(move || check(&checked, CHECK_WITHIN)).await?;
    wrong.extend(verdict.err().map(|anomaly| anomaly.to_string()));
    let operations = counted(&history);
    let regions = regions(&mesh).len();
    Ok(Report { faults, seen: mesh.seen(), errands, operations, regions, answered, healed: after, wrong })
}

type Told = (BTreeMap<Fault, u32>, Errands, Healed, Vec<String>);

async fn story(
    options: &Options,
    seed: &Seed,
    mesh: &Mesh,
    book: &Book,
    tell: &impl Fn(&str),
) -> anyhow::Result<Told> {
    let (through, operator) = (mesh.client("client")?, mesh.client("operator")?);
    let class = DataClass::new("inventory")?;
    create(&operator, KEYSPACE, &class, 0).await.context("the keyspace is not created")?;
    let regions = regions(mesh);
    let (mut busy, mut last) = (Vec::new(), Vec::new());
    for (number, region) in regions.iter().enumerate() {
        let first = u32::try_from(number).unwrap_or(0) * 10;
        for process in first..first + CLIENTS {
            busy.push(client(&through, process, region, book).await?);
        }
        last.push(client(&through, 100 + first, region, book).await?);
    }
    let begun = Instant::now();
    let (calm, ends) = (begun + options.lasts.saturating_sub(QUIET), begun + options.lasts);
    let acts = schedule(seed, mesh.ids().count(), calm - begun, options.kinds);
    ensure!(!acts.is_empty(), "{:?} is too short for a fault: give more", options.lasts);
    let clients = busy
        .iter()
        .enumerate()
        .map(|(number, client)| client.run(seed.child("clients").child(number.to_string()).rng(), ends));
    let mut errands = Operator::new(&operator, class, seed);
    let (faults, told, _, ended) = tokio::join!(
        befall(mesh, book, &acts, begun, tell),
        errands.run(calm, tell),
        futures::future::join_all(clients),
        watch(mesh, sleep_until(ends), tell)
    );
    let ((faults, believed), mut ended) = (faults?, ended?);
    ended.extend(believed);
    mesh.heal_all().await?;
    tell("all faults are over");
    // Whose disk was full a moment ago may still have to end, and to be started again.
    let (over, is_over) = oneshot::channel();
    let healing = async {
        let healed = healed(mesh, &operator, &last, seed.child("healing").rng()).await;
        over.send(()).ok();
        healed
    };
    let (healed, ended_late) = tokio::join!(healing, watch(mesh, is_over, tell));
    ended.extend(ended_late?);
    through.close().await;
    operator.close().await;
    Ok((faults, told, healed, ended))
}

fn regions(mesh: &Mesh) -> BTreeSet<Region> {
    mesh.ids().map(|node| node.region.clone()).collect()
}

async fn client<'a>(
    through: &'a MeshClient,
    process: u32,
    region: &Region,
    book: &'a Book,
) -> anyhow::Result<Client<'a>> {
    let kv = Kv::open(through, KEYSPACE, Some(region)).await.context("the keyspace is not found")?;
    Ok(Client::new(process, region.clone(), kv, book))
}

/// All faults, each in its time: how often each kind, and clocks beyond the bound that nodes went on to believe.
async fn befall(
    mesh: &Mesh,
    book: &Book,
    acts: &[Act],
    begun: Instant,
    tell: &impl Fn(&str),
) -> anyhow::Result<(BTreeMap<Fault, u32>, Vec<String>)> {
    let ids: Vec<_> = mesh.ids().collect();
    let each = acts.iter().map(|act| {
        let (node, other) = (ids[act.node], ids[act.other]);
        async move {
            sleep_until(begun + act.at).await;
            let more = match act.fault {
                Fault::OneWay => format!(" towards {other}"),
                Fault::Loss => format!(", {} %", act.percent),
                Fault::Skew | Fault::Beyond => format!(", {} ms", act.off_ms),
                Fault::Full => format!(", {} bytes left", act.room),
                _ => String::new(),
            };
            let whom = if act.fault == Fault::Blackout { "all".to_owned() } else { node.to_string() };
            tell(&format!("{:?} {whom}{more} for {:.1} s", act.fault, act.lasts.as_secs_f64()));
            let what = || format!("{:?} {whom}", act.fault);
            if act.fault == Fault::Beyond {
                book.beyond(act.off_ms, false);
            }
            mesh.begin(act).await.with_context(what)?;
            let froze = mesh.endures(act, Instant::now() + act.lasts).await;
            mesh.end(act).await.with_context(what)?;
            if act.fault == Fault::Beyond {
                book.beyond(act.off_ms, true);
            }
            let must = act.fault == Fault::Beyond && act.lasts >= FREEZES_WITHIN && act.undisturbed(acts);
            let believed = must && !froze;
            anyhow::Ok(believed.then(|| {
                let (off, lasted) = (act.off_ms, act.lasts);
                format!("{node} did not freeze though its clock was off by {off} ms for {lasted:?}")
            }))
        }
    });
    let believed = futures::future::try_join_all(each).await?.into_iter().flatten().collect();
    let mut faults = BTreeMap::new();
    acts.iter().for_each(|act| *faults.entry(act.fault).or_default() += 1);
    Ok((faults, believed))
}

/// Sees to it that no node is down that should not be, until then, and tells of those that were.
async fn watch<T>(
    mesh: &Mesh,
    until: impl Future<Output = T>,
    tell: &impl Fn(&str),
) -> anyhow::Result<Vec<String>> {
    let mut until = std::pin::pin!(until);
    let mut all = Vec::new();
    loop {
        tokio::select! {
            _ = &mut until => return Ok(all),
            () = sleep(LOOK_EVERY) => {}
        }
        let ended = mesh.ended()?;
        ended.iter().for_each(|words| tell(words));
        all.extend(ended);
    }
}

fn counted(history: &[Operation]) -> BTreeMap<(&'static str, &'static str), u32> {
    let mut counted = BTreeMap::new();
    for one in history {
        let outcome = match one.outcome {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Unknown => "unknown",
        };
        let what = match (one.batch, one.did) {
            (None, did) => did.op(),
            (Some(_), Did::Read(_)) => "scan",
            (Some(_), _) => "batch",
        };
        *counted.entry((what, outcome)).or_default() += 1;
    }
    counted
}

/// Lines of the nodes' logs that tell of a panic.
fn panics(mesh: &Mesh) -> Vec<String> {
    let of = |node| {
        let log = mesh.log(node);
        log.lines().filter(|line| line.contains("panicked")).map(|line| format!("{node}: {line}")).collect()
    };
    mesh.ids().flat_map(|node| -> Vec<String> { of(node) }).collect()
}

/// Where a story's history and its nodes' data and logs are kept in a folder, by its seed.
#[must_use]
pub fn places(folder: &Path, seed: u64) -> (PathBuf, PathBuf) {
    (folder.join(format!("{seed}.jsonl")), folder.join(seed.to_string()))
}
