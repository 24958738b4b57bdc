//! One sale across regions, followed from the customer to the disks of two regions and back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::trace::SpanKind;
use rhumb_actors::escrow::messages::{Confirm, CreatePool, Durability, Hold, Refusal};
use rhumb_core::rng::Seed;
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use serde::Serialize;
use tokio::time::Instant;

use super::{REST_WITHIN, TICK, split_arrives};
use crate::client::directory::Directory;
use crate::client::key::KeyMaker;
use crate::client::{Ask, MeshClient, now_ms};
use crate::dev::DevMesh;
use crate::telemetry::sampling::{Begin, Share};
use crate::telemetry::{Endpoint, Telemetry, TelemetrySettings, What};

/// The pool whose units are all in one region.
const POOL: &str = "encore";
const SUPPLY: u64 = 400;
/// Where they are, and where one is sold.
const HELD_IN: &str = "us-east";
const SOLD_IN: &str = "eu-central";
/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The trace of that sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedSale {
    /// Its trace.
    pub trace_id: String,
    /// The file with its spans, OTLP JSON.
    pub spans: String,
}

/// Where all nodes and the customer put their spans: none but of this sale.
pub(super) fn settings(data: &Path) -> anyhow::Result<TelemetrySettings> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let file = data.canonicalize()?.join("spans.jsonl");
    let (endpoint, delay) = (Some(Endpoint::File(file)), Duration::from_millis(100));
    Ok(TelemetrySettings { endpoint, share: Share::NONE, delay, ..TelemetrySettings::default() })
}

/// Sells a unit where there is none, with rights from where they all are.
pub(super) async fn sell_across(
    mesh: &DevMesh,
    directory: &Directory,
    data: &Path,
) -> anyhow::Result<TracedSale> {
    let settings = settings(data)?;
    let telemetry = Telemetry::start(&settings, SOLD_IN, "demo")?.context("the demo's spans have a file")?;
    let pool = PoolName::new(POOL)?;
    found(mesh, directory, &pool).await?;
    let tracer = telemetry.tracer(None);
    let class = DataClass::control();
    let sale =
        || What { name: "sale".into(), kind: SpanKind::Internal, class: &class, attributes: Vec::new() };
    let (span, trace) = tracer.begin(Begin::Wanted, sale);
    let client = MeshClient::new(mesh.client_identity(), directory.clone())?;
    let client = client.traced(Some(tracer), Some(trace));
    let sold = sell(&client, &pool).await;
    client.close().await;
    drop((span, client));
    telemetry.close(WITHIN).await;
    sold?;
    let spans = settings.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
    let spans = spans.trim_start_matches("file://").to_owned();
    Ok(TracedSale { trace_id: format!("{:032x}", trace.trace_id), spans })
}

async fn found(mesh: &DevMesh, directory: &Directory, pool: &PoolName) -> anyhow::Result<()> {
    let operator = MeshClient::new(mesh.operator_identity(), directory.clone())?;
    let weights = super::REGIONS
        .map(|(name, _, _)| Region::new(name).map(|region| (region, u64::from(name == HELD_IN))));
    let weights = weights.into_iter().collect::<Result<_, _>>()?;
    let message = CreatePool {
        name: pool.clone(),
        class: DataClass::new("inventory")?,
        supply: SUPPLY,
        weights,
        debt: 0,
        reserve: None,
        per_customer: None,
        durability: Durability::Local,
    };
    let home = NodeId::new(HELD_IN, "n1")?;
    let created = operator.ask(&home, &message, WITHIN).await?;
    let created = created.map_err(|refusal| anyhow::anyhow!("the pool {pool} is refused: {refusal}"))?;
    let arrived = split_arrives(&operator, pool, &created).await;
    operator.close().await;
    arrived
}

/// One customer's hold and sale.
async fn sell(client: &MeshClient, pool: &PoolName) -> anyhow::Result<()> {
    let node = NodeId::new(SOLD_IN, "n1")?;
    let key = KeyMaker::new(&Seed::from_entropy()).make(node.clone(), now_ms());
    let hold = Hold { pool: pool.clone(), qty: 1, ttl: None, key, hops: 0, customer: None };
    let until = Instant::now() + REST_WITHIN;
    let held = loop {
        match client.ask(&node, &hold, WITHIN).await? {
            Ok(held) => break held,
            // Rights may be on their way.
            Err(Refusal::Exhausted { .. }) if Instant::now() < until => tokio::time::sleep(TICK).await,
            Err(refusal) => bail!("a hold of {pool} is refused: {refusal}"),
        }
    };
    let confirmed = client.ask(&node, &Confirm { hold: held.hold }, WITHIN).await?;
    confirmed.map(drop).map_err(|refusal| anyhow::anyhow!("a sale of {pool} is refused: {refusal}"))
}
