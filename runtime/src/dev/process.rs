//! One node's process.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rhumb_core::NodeId;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::ReadyNode;
use super::founding::NodePlan;
use crate::supervisor::{CrashSettings, pause_ahead};

/// Lines of a node's log that are shown when it could not start.
const LAST_LINES: usize = 12;

/// A node's process: started, killed, stopped, started again.
pub struct NodeProcess {
    program: PathBuf,
    config: PathBuf,
    plan: NodePlan,
    settings: Vec<(String, String)>,
    child: Mutex<Option<Running>>,
    /// Counts the ends that nobody asked for.
    died: watch::Sender<u64>,
}

struct Running {
    pid: u32,
    started: tokio::time::Instant,
    /// Told `true` to kill, dropped to let stop in order.
    kill: Option<tokio::sync::oneshot::Sender<()>>,
    /// Closed when the process has ended.
    ended: watch::Receiver<bool>,
    /// The node stops when this closes.
    stdin: Option<tokio::process::ChildStdin>,
}

impl NodeProcess {
    pub(super) fn new(
        program: PathBuf,
        config: PathBuf,
        plan: NodePlan,
        settings: Vec<(String, String)>,
    ) -> Self {
        Self { program, config, plan, settings, child: Mutex::new(None), died: watch::channel(0).0 }
    }

    /// Which node it is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.plan.id
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.plan.log
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.plan.admin
    }

    pub(super) fn ready(&self) -> ReadyNode {
        ReadyNode {
            region: self.plan.id.region.clone(),
            node: self.plan.id.name.clone(),
            pid: self.child.lock().as_ref().map_or(0, |running| running.pid),
            quic: self.plan.quic,
            admin: format!("http://{}", self.plan.admin),
            data: self.plan.data.clone(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.lock().as_ref().is_some_and(|running| !*running.ended.borrow())
    }

    /// Starts the process.
    pub(super) fn spawn(&self) -> anyhow::Result<()> {
        let log = || OpenOptions::new().create(true).append(true).open(&self.plan.log);
        let mut child = Command::new(&self.program)
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .args(["--region", self.plan.id.region.as_str(), "--node", self.plan.id.name.as_str()])
            .arg("--until-stdin-closes")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log()?)
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = child.id().context("the process ended at once")?;
        let stdin = child.stdin.take();
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (end, ended) = watch::channel(false);
        let running = Running { pid, started: tokio::time::Instant::now(), kill: Some(kill), ended, stdin };
        *self.child.lock() = Some(running);
        let died = self.died.clone();
        tokio::spawn(async move {
            if attend(&mut child, killed).await {
                died.send_modify(|count| *count += 1);
            }
            end.send_replace(true);
        });
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(super) async fn kill(&self) {
        let (kill, ended) = match self.child.lock().as_mut() {
            None => return,
            Some(running) => (running.kill.take(), running.ended.clone()),
        };
        if let Some(kill) = kill {
            kill.send(()).ok();
        }
        wait_end(ended).await;
    }

    /// Lets it stop in order, then kills it.
    pub(super) async fn stop(&self, within: Duration) {
        let ended = match self.child.lock().as_mut() {
            None => return,
            Some(running) => {
                drop(running.stdin.take());
                running.ended.clone()
            }
        };
        if tokio::time::timeout(within, wait_end(ended)).await.is_err() {
            self.kill().await;
        }
    }

    /// The ends that nobody asked for, counted from now on.
    pub(super) fn deaths(&self) -> watch::Receiver<u64> {
        self.died.subscribe()
    }

    /// How long the present or last process has lived.
    pub(super) fn lived(&self) -> Duration {
        self.child.lock().as_ref().map_or(Duration::ZERO, |running| running.started.elapsed())
    }

    /// How long it waits by itself when it is started again, at the most.
    pub(super) fn own_pause(&self) -> Duration {
        pause_ahead(&self.plan.data, &CrashSettings::default())
    }

    /// The end of its log, from its last panic on if it ends with one.
    pub(super) fn last_words(&self) -> String {
        last_words(&std::fs::read_to_string(&self.plan.log).unwrap_or_default())
    }
}

/// A panic's words stand before its backtrace, which may be long.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.len().saturating_sub(LAST_LINES);
    let panic = lines.iter().rposition(|line| line.contains("panicked at")).unwrap_or(end);
    lines[panic.min(end)..].join("\n")
}

/// Waits for the end of a process, or kills it. Whether the end came unasked.
async fn attend(child: &mut Child, killed: tokio::sync::oneshot::Receiver<()>) -> bool {
    let asked = tokio::select! {
        _ = child.wait() => None,
        asked = killed => Some(asked),
    };
    match asked {
        None => true,
        Some(Ok(())) => {
            child.kill().await.ok();
            false
        }
        // The handle was dropped: the process is left to its closed standard input.
        Some(Err(_)) => {
            child.wait().await.ok();
            false
        }
    }
}

async fn wait_end(mut ended: watch::Receiver<bool>) {
    ended.wait_for(|ended| *ended).await.ok();
}

/// How long to wait before a node is started again: doubled each time it dies soon.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    soon: u32,
}

impl Backoff {
    const LONG_LIFE: Duration = Duration::from_secs(30);

    /// The wait after a life of this length, of a node that waits so long by itself when it is started:
    /// both together are 200 ms to 12.8 s, or what the node waits if that is more.
    pub(super) fn after(&mut self, lived: Duration, by_itself: Duration) -> Duration {
        self.soon = if lived >= Self::LONG_LIFE { 0 } else { (self.soon + 1).min(6) };
        (Duration::from_millis(200) * 2u32.pow(self.soon)).saturating_sub(by_itself)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_by_itself_does_not_wait_twice() {
        let mut backoff = Backoff::default();
        let mut waits = |node_waits: &[u64]| -> Vec<u128> {
            let mut after = |ms: &u64| backoff.after(Duration::from_secs(1), Duration::from_millis(*ms));
            node_waits.iter().map(|ms| after(ms).as_millis()).collect()
        };
        assert_eq!(waits(&[0, 0, 1_000, 2_000, 4_000, 60_000]), [400, 800, 600, 1_200, 2_400, 0]);
        assert_eq!(backoff.after(Backoff::LONG_LIFE, Duration::ZERO).as_millis(), 200);
    }

    #[test]
    fn last_words_begin_with_the_panic() {
        let frames: String = (0..40).map(|frame| format!("  {frame}: somewhere\n")).collect();
        let words = last_words(&format!("first\nthread 'main' panicked at here:\nthe reason\n{frames}"));
        assert!(words.starts_with("thread 'main' panicked at here:\nthe reason\n  0:"), "{words}");
        let plain = last_words(&format!("first\n{frames}"));
        assert!(plain.ends_with("39: somewhere") && !plain.contains("first"), "{plain}");
    }
}
