//! What traces cost: a node's time on the processors at a fixed rate of asks, with no traces, with 1 % of
//! them kept, and with all of them, each exported by OTLP to a collector in another process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use rhumb::dev::DevMesh;
use rhumb::http::probe;
use rhumb::telemetry::sampling::Share;
use rhumb::telemetry::{Endpoint, TelemetrySettings};

use super::{Effort, Work};
use crate::conditions::versions;
use crate::figures::{by_figure, outcome};
use crate::inside::Measured;
use crate::paced::Pace;
use crate::proc::Cpu;
use crate::process::Side;
use crate::sample::{Load, Outcome, Sample, Unit, Verb};

/// This work.
pub const WORK: Work = Work {
    name: "tracing",
    title: "A node's processor time at 20,000 asks a second: traces off, 1 %, all",
    run: |scope| run(scope.effort).boxed_local(),
};
const NAME: &str = WORK.name;
/// Asks a second.
const RATE: u64 = 20_000;
const PAYLOAD: usize = 64;
/// A round is at least so long: the processor's time is what counts, and it comes in slices.
const AT_LEAST: u64 = 3_000;
/// How often it is looked whether spans still come, ten times a second.
const SETTLES: u32 = 100;

/// A node that is asked, its collector if it has one, and who asks.
struct Watched {
    name: &'static str,
    mesh: DevMesh,
    collector: Option<Side>,
    driver: Side,
}

/// Spans as a node counts them.
#[derive(Debug, Clone, Copy, Default)]
struct Spans {
    exported: f64,
    dropped: f64,
    failed: f64,
}

impl Spans {
    /// All that were made: each has met one of these ends.
    fn made(&self) -> f64 {
        self.exported + self.dropped + self.failed
    }
}

fn part<'a>(words: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Side> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Side::spawn(command.into())
}

impl Watched {
    async fn start(name: &'static str, per_million: Option<u32>, dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut traces = TelemetrySettings::default();
        let mut collector = None;
        if let Some(per_million) = per_million {
            let mut side = part([Path::new("collector")])?;
            let endpoint: String = side.said().await.context("the collector")?;
            traces.endpoint = Some(Endpoint::Collector(endpoint));
            traces.share = Share::per_million(per_million).context("a share")?;
            collector = Some(side);
        }
        let mesh = crate::mesh::start_traced(dir, traces).await?;
        let mut driver = part([Path::new("pace"), dir])?;
        let ready: String = driver.said().await?;
        anyhow::ensure!(ready == "ready", "the driver said {ready:?}");
        Ok(Self { name, mesh, collector, driver })
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.mesh.nodes().first().context("a node")?.pid)
    }

    async fn spans(&self) -> anyhow::Result<Spans> {
        let nodes = self.mesh.nodes();
        let admin = nodes.first().context("a node")?.admin.trim_start_matches("http://").to_owned();
        let admin: SocketAddr = admin.parse()?;
        let (_, page) = probe::get(admin, "/metrics", Duration::from_secs(5)).await?;
        let count = |outcome: &str| {
            let wanted = format!("outcome=\"{outcome}\"");
            let spans = |line: &&str| line.starts_with("rhumb_trace_spans") && line.contains(&wanted);
            let line = page.lines().find(spans);
            line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0.0)
        };
        Ok(Spans { exported: count("exported"), dropped: count("dropped"), failed: count("failed") })
    }

    async fn received(&mut self) -> anyhow::Result<f64> {
        let Some(collector) = &mut self.collector else { return Ok(0.0) };
        collector.tell(&"count").await?;
        Ok(collector.said::<u64>().await? as f64)
    }

    /// What the node counts, and what has been received since: a batch that is under way is counted by neither side, or by one.
    async fn settled(&mut self, before: f64) -> anyhow::Result<(Spans, f64)> {
        let (mut last, mut still) = ((-1.0, -1.0), 0);
        for _ in 0..SETTLES {
            let (now, received) = (self.spans().await?, self.received().await?);
            still = if last == (now.made(), received) { still + 1 } else { 0 };
            if still == 2 {
                return Ok((now, received - before));
            }
            last = (now.made(), received);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("spans go on coming after nobody asks any more")
    }

    async fn round(&mut self, millis: u64) -> anyhow::Result<Measured> {
        let (pid, spans) = (self.pid()?, self.spans().await?);
        let (received, cpu) = (self.received().await?, Cpu::of(pid)?);
        self.driver.tell(&Pace { rate: RATE, payload: PAYLOAD, millis }).await?;
        let sample: Sample = self.driver.said().await?;
        // What waits for its batch belongs to this round: the exporter waits a second at the most.
        tokio::time::sleep(TelemetrySettings::default().delay + Duration::from_millis(300)).await;
        let ran = Cpu::of(pid)?.since(&cpu) as f64;
        let (now, got) = self.settled(received).await?;
        let made = now.made() - spans.made();
        let unseen = made - got - (now.dropped - spans.dropped) - (now.failed - spans.failed);
        anyhow::ensure!(
            unseen.abs() < 0.5,
            "{made} spans were made, {got} received; {unseen} are not accounted for"
        );
        let asks = sample.ops as f64;
        Ok(Measured::of(sample)
            .with("cpu_percent", 100.0 * ran / 1e9 / sample.seconds)
            .with("cpu_us_an_ask", ran / 1e3 / asks)
            .with("spans_made", made)
            .with("spans_unseen", unseen)
            .with("spans_dropped", now.dropped - spans.dropped)
            .with("spans_failed", now.failed - spans.failed)
            .with("spans_received", got))
    }

    async fn stop(self) {
        self.driver.end().await;
        self.mesh.stop().await;
        if let Some(collector) = self.collector {
            collector.end().await;
        }
    }
}

async fn run(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let dir = tempfile::tempdir()?;
    let mut watched = Vec::new();
    for (name, share) in [("rhumb", None), ("rhumb-1%", Some(10_000)), ("rhumb-100%", Some(1_000_000))] {
        watched.push(Watched::start(name, share, &dir.path().join(name)).await?);
    }
    let millis = if effort.is_quick() { effort.millis } else { effort.millis.max(AT_LEAST) };
    let mut measured = vec![Vec::new(); watched.len()];
    for round in 0..effort.rounds {
        for turn in 0..watched.len() {
            let at = (turn + round) % watched.len();
            measured[at].push(watched[at].round(millis).await.with_context(|| watched[at].name)?);
        }
        compare(&mut measured);
        eprintln!("{NAME}: round {} of {}", round + 1, effort.rounds);
    }
    let load = Load { verb: Verb::Ask, concurrency: 0, payload: PAYLOAD, millis };
    let note = |name: &str| match name {
        "rhumb" => "no endpoint: no traces; at a fixed rate, so concurrency says nothing",
        _ => "OTLP over gRPC to a collector in another process, whose processor time is not counted",
    };
    let row = |(watched, measured): (&Watched, &Vec<Measured>)| {
        let outcome = outcome(NAME, watched.name, load, measured, note(watched.name));
        let outcome = by_figure(outcome, measured, "cpu_percent", Unit::Percent);
        Outcome { versions: versions("rhumb"), ..outcome }
    };
    let outcomes = watched.iter().zip(&measured).map(row).collect();
    for each in watched {
        each.stop().await;
    }
    Ok(outcomes)
}

/// What the last round cost more than the same round without traces.
fn compare(measured: &mut [Vec<Measured>]) {
    let cost = |one: &Measured| one.figures["cpu_us_an_ask"];
    let Some(off) = measured[0].last().map(cost) else { return };
    for rounds in &mut measured[1..] {
        let Some(last) = rounds.last_mut() else { continue };
        let (more, spans) = (cost(last) - off, last.figures["spans_made"]);
        last.figures.insert("cpu_more_percent".into(), 100.0 * more / off);
        if spans > 0.0 {
            last.figures.insert("cpu_us_a_span".into(), more * last.sample.ops as f64 / spans);
        }
    }
}
