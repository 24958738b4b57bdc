//! The stages of an ordered stop, each with its share of `supervisor.stop_within`.
//!
//! * It decides: the order of the stages, and what is told of one that did not end in time.
//! * It never does: wait longer than the whole may take, or undo anything. What was acknowledged is
//!   durable before the stop begins; what a stage leaves undone fails with a typed fault.
//!
//! Rights stay where they are: a node that restarts has them back within seconds, and a node that moved
//! them would have to fetch them again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::{Supervisor, audit, notify};

/// The stages' times, and what did not end in its own.
struct Stages {
    within: Duration,
    until: Instant,
    undone: Vec<String>,
}

impl Stages {
    fn new(within: Duration) -> Self {
        Self { within, until: Instant::now() + within, undone: Vec::new() }
    }

    /// So many eighths of the whole, but no more than is left of it.
    fn share(&self, eighths: u32) -> Duration {
        (self.within * eighths / 8).min(self.until.saturating_duration_since(Instant::now()))
    }

    /// Runs a stage; it gives what it did not end.
    async fn stage(&mut self, name: &str, within: Duration, work: impl Future<Output = Vec<String>>) {
        let begun = Instant::now();
        notify::status(&format!("stopping: {name}"));
        let undone = tokio::time::timeout(within, work).await;
        let undone = undone.unwrap_or_else(|_| vec![format!("not within {within:?}")]);
        let took = begun.elapsed();
        if undone.is_empty() {
            return tracing::info!(stage = name, ?took, "stopping");
        }
        tracing::warn!(
            stage = name,
            ?took,
            undone = undone.join("; "),
            "stopping: not all of a stage was done"
        );
        self.undone.push(format!("{name}: {}", undone.join("; ")));
    }
}

impl Supervisor {
    /// Refuses new calls, drains, flushes. What did not end in time is in the log, by name.
    ///
    /// # Errors
    /// The last sync failed: what was acknowledged is durable, the store is to be recovered.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut stages = Stages::new(self.settings.now().stop_within);
        self.refuse();
        let drained = self.unless_halted(self.drained(stages.share(3)));
        stages.stage("drain calls", stages.share(4), drained).await;
        let (log, me) = (self.actors.audit(), self.settings.now().me.clone());
        let told = async {
            log.part();
            match log.append(audit::stops(&me), None).await {
                Ok(_) => Vec::new(),
                Err(why) => vec![why.to_string()],
            }
        };
        stages.stage("tell the audit log", stages.share(1), self.unless_halted(told)).await;
        let ended = self.unless_halted(self.hosts.close(stages.share(2)));
        stages.stage("end hosted actors", stages.share(3), ended).await;
        let closed = async {
            self.transport.close().await;
            Vec::new()
        };
        stages.stage("close connections", stages.share(1), closed).await;
        // From here on nothing beats any more.
        self.pulse.take();
        // Before the storage actor that some of them write to.
        self.tasks.end();
        let ended = async {
            self.ranges.stop().await;
            Vec::new()
        };
        stages.stage("end ranges", stages.share(1), self.unless_halted(ended)).await;
        self.hosts.stop();
        self.actors.stop();
        let eighth = stages.within / 8;
        let flushed = self.flushed(stages.share(8).saturating_sub(eighth).max(eighth)).await;
        if let Some(telemetry) = &self.telemetry {
            let within = stages.share(1);
            let closed = async {
                telemetry.close(within).await;
                Vec::new()
            };
            stages.stage("export traces", eighth, closed).await;
        }
        match &flushed {
            Ok(()) => {
                if stages.undone.is_empty() {
                    tracing::info!("stopped");
                }
                self.life.stopped();
            }
            Err(error) => self.life.failed(&format!("stopping: {error:#}")),
        }
        flushed
    }

    /// Nothing new from here on: readiness says so, peers and clients are told.
    fn refuse(&self) {
        self.stopping.store(true, Ordering::Release);
        notify::stopping();
        self.transport.refuse();
        tracing::info!(stage = "refuse new calls", "stopping");
    }

    /// A stage's work, cut short when the node cannot go on: nothing more can be answered then.
    async fn unless_halted(&self, work: impl Future<Output = Vec<String>>) -> Vec<String> {
        tokio::select! {
            undone = work => undone,
            reason = self.halt.asked() => vec![format!("cut short: {reason}")],
        }
    }

    async fn drained(&self, within: Duration) -> Vec<String> {
        let cut_short = self.transport.drain(within).await;
        cut_short.iter().map(|peer| format!("calls with {peer} were under way")).collect()
    }

    async fn flushed(&self, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        let store = self.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close(within)).await?;
        let durable = closed.context("the last sync of the hot store")?;
        tracing::info!(stage = "flush", took = ?begun.elapsed(), durable = durable.0, "stopping");
        Ok(())
    }
}
