//! `rhumb load escrow`: an open-loop load on a pool.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::future::join_all;
use rhumb_actors::escrow::messages::{PoolSpec, Refusal, ShowPool};
use rhumb_actors::remote::Remote;
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::rng::Seed;
use rhumb_core::{PoolName, Region};
use serde::Serialize;

use super::args::{RegionWeight, duration, number, ttl, whole};
use super::connect::Connect;
use super::output::{Done, Failure, Output};
use crate::client::Ask;
use crate::client::directory::Directory;
use crate::load::receipts::LedgerError;
use crate::load::requests::{self, Listed};
use crate::load::{Load, LoadError, Plan, RegionTally, Spacing, Tally};

/// How long calls of unknown outcome are asked again at the end.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How often the end of the load is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Load generators.
#[derive(Debug, Subcommand)]
pub enum LoadCommand {
    /// Let customers come to a pool at a rate, whatever the service does, and keep their receipts.
    Escrow(Escrow),
}

impl LoadCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Escrow(escrow) => escrow.run(output).await,
        }
    }
}

/// Load a pool.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb load escrow concert --rate 100 --for 30s --seed 7 --receipts receipts.jsonl\n  rhumb pool audit concert --receipts receipts.jsonl\n  rhumb load escrow concert --requests requests.csv --receipts receipts.jsonl\n\nA file of requests has the header at_ms,region,user,qty and a request a line, by rising time.\n\nCtrl-C lets no more customers come; those under way go on to their end."
)]
pub struct Escrow {
    /// The pool.
    pool: PoolName,
    /// Customers a second, over all regions.
    #[arg(long, value_parser = number::<u32>(1..=100_000), required_unless_present = "requests")]
    rate: Option<u32>,
    /// For how long they come.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, required_unless_present = "requests")]
    lasts: Option<Duration>,
    /// Requests to make, from a CSV file, in place of a rate: `at_ms,region,user,qty`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "lasts", "mix", "qty"])]
    requests: Option<PathBuf>,
    /// The same seed makes the same customers come at the same times.
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>)]
    seed: u64,
    /// Where their receipts are written: a file that is not there yet.
    #[arg(long, value_name = "FILE")]
    receipts: PathBuf,
    /// How customers are spread over regions; equally unless given.
    #[arg(long, value_name = "REGION=WEIGHT,…", value_delimiter = ',')]
    mix: Vec<RegionWeight>,
    /// Of a hundred customers with a hold, how many leave it to expire: 60 unless given, none of those in
    /// a file of requests.
    #[arg(long, value_name = "PERCENT", value_parser = number::<u8>(0..=100))]
    abandon: Option<u8>,
    /// For how long units are held, 1ms to 1d.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = ttl)]
    ttl: Duration,
    /// Units that each customer asks for.
    #[arg(long, default_value_t = 1, value_parser = number::<u64>(1..=MAX_SUPPLY))]
    qty: u64,
    #[command(flatten)]
    connect: Connect,
}

/// What customers met, as it is printed.
#[derive(Debug, Serialize)]
struct Met {
    came: u64,
    held: u64,
    /// In units; the others here are customers.
    sold: u64,
    refused: BTreeMap<String, u64>,
    unserved: BTreeMap<String, u64>,
    expired: u64,
    broken: u64,
    asked_again: u64,
    lost_holds: u64,
    lost_confirms: u64,
    unknown: u64,
    turned_away: u64,
    hold_p50_ms: Option<f64>,
    hold_p99_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct LoadAnswer {
    pool: PoolName,
    receipts: PathBuf,
    #[serde(flatten)]
    total: Met,
    regions: BTreeMap<Region, Met>,
}

impl Escrow {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = Arc::new(self.connect.client_of_many().await?);
        client.connect_all().await?;
        let pool = known(&*client, client.directory(), &self.pool).await?;
        self.can_hold(&pool)?;
        let load = self.load(client.directory())?;
        let running = load.start(Arc::clone(&client)).map_err(failure)?;
        let mut interrupted = false;
        while !running.is_over() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = tokio::signal::ctrl_c(), if !interrupted => {
                    interrupted = true;
                    running.stop();
                }
            }
        }
        output.note("no more customers come; waiting for those under way");
        let tally = running.settle(SETTLE_WITHIN).await.map_err(failure)?;
        client.close().await;
        let answer = LoadAnswer::new(self.pool, self.receipts, &tally);
        output.answer(&answer, &answer);
        Ok(match (&answer.total, interrupted) {
            (Met { broken: 1.., .. }, _) => Done::False,
            (Met { unknown: 1.., .. }, _) => Done::Unknown,
            (_, true) => Done::Stopped,
            (_, false) => Done::Well,
        })
    }

    /// Fails where every hold would be refused for what it asks.
    fn can_hold(&self, pool: &PoolSpec) -> Result<(), Failure> {
        let PoolSpec { name, supply, debt, per_customer, .. } = pool;
        let most = supply.saturating_add(*debt);
        match per_customer {
            // The units of each request stand in the file, and so do the customers.
            _ if self.requests.is_some() => Ok(()),
            Some(limit) => Err(Failure::Usage(format!(
                "pool {name} counts what each customer has ({limit} at most), and those of --rate have no names: \
                 give the customers in a file, with --requests FILE"
            ))),
            None if self.qty > most => {
                Err(Failure::Usage(format!("--qty {}: pool {name} has {most} units in all", self.qty)))
            }
            None => Ok(()),
        }
    }

    fn load(&self, directory: &Directory) -> Result<Load, Failure> {
        let mix: Vec<(Region, u64)> = if self.mix.is_empty() {
            directory.regions().into_iter().map(|region| (region, 1)).collect()
        } else {
            self.mix.iter().map(|RegionWeight(region, weight)| (region.clone(), *weight)).collect()
        };
        let mut nodes = BTreeMap::new();
        for (region, _) in &mix {
            nodes.insert(region.clone(), directory.nodes_in(Some(region))?);
        }
        let plan = Plan {
            rate: self.rate.unwrap_or(0),
            spacing: Spacing::Exponential,
            burst: None,
            mix,
            abandon_percent: self.abandon.unwrap_or(if self.requests.is_some() { 0 } else { 60 }),
            think: (Duration::from_millis(100), Duration::from_millis(600)),
            qty: self.qty,
            ttl: self.ttl,
        };
        let (pool, seed) = (self.pool.clone(), Seed::new(self.seed).child("customers"));
        let requests = self.requests.as_ref().map(|file| requests(file, directory)).transpose()?;
        let receipts = self.receipts.clone();
        Ok(Load { pool, plan, requests, seed, lasts: self.lasts, nodes, receipts })
    }
}

/// What the pool is. Fails where no node knows it: a load on it would be nothing but refusals.
async fn known(ask: &impl Ask, directory: &Directory, pool: &PoolName) -> Result<PoolSpec, Failure> {
    let message = ShowPool { pool: pool.clone() };
    let nodes = directory.nodes().iter().map(|(node, _)| node);
    let answers = join_all(nodes.map(|node| ask.ask(node, &message, ShowPool::DEADLINE))).await;
    let mut why = Failure::Refused(Refusal::NoSuchPool(pool.clone()));
    for answer in answers {
        match answer {
            Ok(Ok(view)) => return Ok(view.spec),
            Ok(Err(Refusal::NoSuchPool(_))) => {}
            // This node might know it.
            Ok(Err(refusal)) => why = refusal.into(),
            Err(fault) => why = fault.into(),
        }
    }
    Err(why)
}

/// The requests of a file.
fn requests(file: &Path, directory: &Directory) -> Result<Vec<Listed>, Failure> {
    let regions: Vec<Region> = directory.regions().into_iter().collect();
    let told = |error: &dyn fmt::Display| Failure::Usage(format!("{}: {error}", file.display()));
    let open = File::open(file).map_err(|error| told(&error))?;
    let none = |region: &str| directory.none_in(region);
    requests::read(BufReader::new(open), &regions, none).map_err(|error| told(&error))
}

fn failure(error: LoadError) -> Failure {
    let message = error.to_string();
    match error {
        LoadError::NoLoad | LoadError::NoNode(_) | LoadError::Ledger(LedgerError::Exists(_)) => {
            Failure::Usage(message)
        }
        LoadError::Ledger(_) | LoadError::Died(_) => Failure::local(message),
    }
}

impl Met {
    fn of(tally: &RegionTally) -> Self {
        let percentile =
            |percent| tally.hold_latency.percentile(percent).map(|d| (d.as_secs_f64() * 1e5).round() / 1e2);
        Self {
            came: tally.came,
            held: tally.held,
            sold: tally.bought,
            refused: tally.refused.clone(),
            unserved: tally.unserved.clone(),
            expired: tally.expired(),
            broken: tally.broken,
            asked_again: tally.asked_again,
            lost_holds: tally.lost_holds,
            lost_confirms: tally.lost_confirms,
            unknown: tally.unknown,
            turned_away: tally.turned_away,
            hold_p50_ms: percentile(50),
            hold_p99_ms: percentile(99),
        }
    }
}

impl LoadAnswer {
    fn new(pool: PoolName, receipts: PathBuf, tally: &Tally) -> Self {
        let regions = tally.regions.iter().map(|(region, tally)| (region.clone(), Met::of(tally))).collect();
        Self { pool, receipts, total: Met::of(&tally.total()), regions }
    }
}

impl fmt::Display for LoadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
            "region", "came", "held", "refused", "unserved", "expired", "units sold", "hold p50", "hold p99"
        )?;
        let rows = self.regions.iter().map(|(region, met)| (region.as_str(), met));
        for (name, met) in rows.chain([("total", &self.total)]) {
            let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
            writeln!(
                f,
                "{name:<14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
                met.came,
                met.held,
                met.refused.values().sum::<u64>(),
                met.unserved.values().sum::<u64>(),
                met.expired,
                met.sold,
                ms(met.hold_p50_ms),
                ms(met.hold_p99_ms),
            )?;
        }
        let reasons = |of: &BTreeMap<String, u64>| {
            of.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ")
        };
        for (what, of) in [("refused", &self.total.refused), ("no service", &self.total.unserved)] {
            if !of.is_empty() {
                writeln!(f, "{what}: {}", reasons(of))?;
            }
        }
        let Met { asked_again, unknown, turned_away, broken, .. } = &self.total;
        writeln!(
            f,
            "asked again {asked_again}, unknown {unknown}, turned away {turned_away}, broken promises {broken}"
        )?;
        write!(f, "receipts: {}", self.receipts.display())
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Fault, FaultKind, NodeId};

    use super::*;
    use crate::load::customer::State;

    #[test]
    fn what_customers_met_has_the_documented_names() {
        let region = Region::new("us-east").expect("valid");
        let mut tally = Tally::default();
        tally.came(&region);
        tally.ended(&region, 1, &State::Refused(Refusal::SoldOut));
        let answer = LoadAnswer::new(PoolName::new("concert").expect("valid"), "r.jsonl".into(), &tally);
        let json = serde_json::to_value(&answer).expect("serialises");
        assert_eq!(json["refused"]["sold_out"], 1);
        assert_eq!(json["regions"]["us-east"]["came"], 1);
        assert_eq!(json["hold_p50_ms"], serde_json::Value::Null);
        assert!(answer.to_string().contains("refused: sold_out 1"), "{answer}");
        let heads = answer.to_string().lines().next().expect("a first line").to_owned();
        assert!(heads.contains("came     held") && heads.contains("units sold"), "{heads}");
    }

    #[test]
    fn a_region_of_the_file_that_no_endpoint_leads_to_is_told_as_that() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("requests.csv");
        std::fs::write(&file, format!("{}\n0,eu,ann,1\n", requests::HEADER)).expect("writes");
        let node = NodeId::new("us", "n1").expect("valid");
        let directory = Directory::of(vec![(node, "127.0.0.1:1".parse().expect("an address"))]);
        let refused = format!("{:?}", super::requests(&file, &directory).expect_err("eu is not given"));
        assert!(
            refused.contains("line 2: no --endpoint leads to region") && refused.contains("us/n1 can be")
        );
    }

    #[test]
    fn a_load_of_nothing_but_refusals_is_refused_with_the_reason() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            escrow: Escrow,
        }
        let check = |line: &str, per_customer: Option<u64>| {
            let line = format!("load fair --receipts r.jsonl {line}");
            let parsed = <Line as clap::Parser>::try_parse_from(line.split(' ')).expect("a sound line");
            let pool = PoolSpec {
                name: PoolName::new("fair").expect("valid"),
                class: rhumb_core::DataClass::new("inventory").expect("valid"),
                supply: 100,
                weights: BTreeMap::new(),
                created: rhumb_core::HybridTime::ZERO,
                debt: 5,
                reserve: None,
                per_customer,
                durability: Default::default(),
            };
            parsed.escrow.can_hold(&pool).map_err(|failure| format!("{failure:?}"))
        };
        let refused = check("--rate 1 --for 1s", Some(4)).expect_err("no customer has a name");
        assert!(refused.contains("4 at most") && refused.contains("--requests FILE"), "{refused}");
        let refused = check("--rate 1 --for 1s --qty 106", None).expect_err("more than there is");
        assert!(refused.contains("--qty 106: pool fair has 105 units in all"), "{refused}");
        assert_eq!(check("--rate 1 --for 1s --qty 105", None), Ok(()));
        assert_eq!(check("--requests r.csv", Some(4)), Ok(()));
    }

    /// Answers for each node, in this order, what is scripted.
    struct Scripted(std::sync::Mutex<Vec<Result<Refusal, Fault>>>);

    impl Ask for Scripted {
        async fn ask<M: Remote + Sync>(&self, _: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
            let refusal = self.0.lock().expect("no panic").remove(0)?;
            let reply: Box<dyn std::any::Any> = Box::new(Err(refusal) as <ShowPool as Remote>::Reply);
            Ok(*reply.downcast().expect("only views are asked for"))
        }
    }

    #[tokio::test]
    async fn a_pool_that_no_node_knows_is_refused_before_anybody_comes() {
        let pool = PoolName::new("concert").expect("valid");
        let nodes = ["us", "eu"].map(|region| NodeId::new(region, "n1").expect("valid"));
        let address = "127.0.0.1:1".parse().expect("an address");
        let directory = Directory::of(nodes.map(|node| (node, address)).to_vec());
        let none = || Ok(Refusal::NoSuchPool(pool.clone()));
        let nobody = Scripted(vec![none(), none()].into());
        let refused = known(&nobody, &directory, &pool).await;
        assert!(matches!(refused, Err(Failure::Refused(Refusal::NoSuchPool(_)))), "{refused:?}");
        let away = Fault::not_sent(FaultKind::Draining);
        let perhaps = Scripted(vec![Err(away.clone()), none()].into());
        let unknown = known(&perhaps, &directory, &pool).await;
        assert!(matches!(&unknown, Err(Failure::Fault(fault)) if *fault == away), "{unknown:?}");
    }
}
