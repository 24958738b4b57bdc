//! One node under chaos: its process, on a disk that can lose its power or be full, by a clock that can be off.
//!
//! * It decides: whether a process that ended by itself was right to: only where its disk is full, which it must say.
//! * It never does: end a process that it did not start, or start one whose node is still there.
//! * Invariant: what stands in the data directory at a start is what the disk kept; a process dies with who started it, though
//!   it stands still.
//!
//! How the disk and the clock are made: `tests/shim/shim.c`. What a process that was killed had not synced is not durable under
//! the next one either, unless it was killed in the midst of a change.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use rhumb_core::NodeId;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::mesh::locked;
use crate::cluster::program;
use crate::powercut::{Loss, UNBOUNDED, Watched, dies_with_us};

/// Lines of a log that are shown of a node that ended by itself.
const LAST_LINES: usize = 6;
/// As `contrib/systemd` has it: after so long a node that ended by itself is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So long after there is room again a node may still end for the want of it.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// A power cut comes at a call of the node's, if it makes one so soon.
const CALLS_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The code with which a node ends that cannot go on.
const CANNOT_GO_ON: i32 = 3;

/// What became of a process that nobody ended.
pub(super) enum Ended {
    /// Its disk was full, and it said so. It is started again after a while, as often as it takes.
    ForRoom,
    /// It should not have. Its last words.
    Wrong(String),
}

/// A node.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None while it is down.
    child: Option<Child>,
    /// The disk under the life that is or was last.
    disk: Option<Watched>,
    clock_ms: i64,
    full: bool,
    /// Since when there is room again.
    freed: Option<Instant>,
    /// When it is started again that ended by itself.
    again: Option<Instant>,
    /// Where in the log the words of this life begin.
    log_from: usize,
}

impl Machine {
    /// A node of the mesh in this folder.
    pub(super) fn new(id: NodeId, address: SocketAddr, folder: &Path) -> Self {
        Self { id, address, folder: folder.to_owned(), state: Mutex::default() }
    }

    fn called(&self) -> String {
        format!("{}-{}", self.id.region, self.id.name)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("mesh/nodes").join(self.called()).join("data")
    }

    /// Its log, all lives of it.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.called()))
    }

    // ---- its process -------------------------------------------------------------------------------

    /// Starts it, unless it is there.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let mut state = locked(&self.state);
        if state.child.is_some() {
            return Ok(());
        }
        let disk = match state.disk.take() {
            Some(before) => before.again()?,
            None => Watched::over(&self.data(), &self.folder.join("watched").join(self.called()))?,
        };
        disk.step_clock(state.clock_ms)?;
        if state.full {
            disk.room(0)?;
        }
        state.log_from = self.log().len();
        let log = || OpenOptions::new().create(true).append(true).open(self.log_file());
        let spawned = Command::new(program())
            .args(["serve", "--config", "mesh/config", "--until-stdin-closes"])
            .args(["--region", self.id.region.as_str(), "--node", self.id.name.as_str()])
            // A node that dies often waits before it starts. Here it is we who kill it.
            .envs([("RHUMB__SUPERVISOR__CRASHES", "64"), ("RHUMB__SUPERVISOR__CRASH_WINDOW", "1s")])
            .envs(disk.variables())
            .envs(dies_with_us())
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(log()?)
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn();
        state.child = Some(spawned.with_context(|| format!("node {} does not start", self.id))?);
        (state.disk, state.again) = (Some(disk), None);
        Ok(())
    }

    /// Takes its process away from who looks after it.
    pub(super) fn take(&self) -> Option<Child> {
        let mut state = locked(&self.state);
        state.again = None;
        state.child.take()
    }

    /// SIGKILL.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Sends it a signal.
    pub(super) async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = locked(&self.state).child.as_ref().and_then(Child::id);
        // One that ended by itself is told of elsewhere.
        let Some(pid) = pid else { return Ok(()) };
        let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().await?;
        ensure!(sent.success(), "process {pid} could not be sent {signal}");
        Ok(())
    }

    /// What became of it, if it has ended though nobody ended it; it is started again.
    pub(super) fn look_after(&self) -> anyhow::Result<Option<Ended>> {
        let mut state = locked(&self.state);
        if state.again.is_some_and(|again| Instant::now() >= again) {
            drop(state);
            self.start()?;
            return Ok(None);
        }
        let ended = state.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let Some(status) = ended else { return Ok(None) };
        state.child = None;
        state.again = Some(Instant::now() + AGAIN_AFTER);
        let log = self.log();
        let said = log.get(state.log_from..).unwrap_or_default().to_lowercase();
        let lacks = state.full || state.freed.is_some_and(|at| at.elapsed() < ENDS_WITHIN);
        let may = lacks && status.code() == Some(CANNOT_GO_ON) && said.contains("no space left");
        Ok(Some(if may { Ended::ForRoom } else { Ended::Wrong(self.last_words(&log, status)) }))
    }

    fn last_words(&self, log: &str, status: ExitStatus) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        format!("node {} ended by itself ({status}):\n  {last}", self.id)
    }

    // ---- its disk ----------------------------------------------------------------------------------

    /// Its power is cut at one of its next calls that change a disk. Whether something was lost.
    pub(super) async fn lose_power(&self, loss: Loss) -> anyhow::Result<bool> {
        let calls = {
            let state = locked(&self.state);
            state.disk.as_ref().map(|disk| disk.calls().and_then(|calls| disk.stop_at(calls + 2))).transpose()
        };
        calls?;
        let mut child = self.take();
        if let Some(child) = &mut child
            && timeout(CALLS_WITHIN, child.wait()).await.is_err()
        {
            child.kill().await?;
        }
        self.keep(loss).await
    }

    /// Its process has ended, and of what it did its disk keeps what it must, and of the rest what is drawn. Whether something
    /// was lost.
    pub(super) async fn keep(&self, loss: Loss) -> anyhow::Result<bool> {
        let Some(disk) = locked(&self.state).disk.take() else { return Ok(false) };
        let data = self.data();
        let kept = tokio::task::spawn_blocking(move || {
            let kept = disk.disk()?;
            // Who is killed from outside may have made one change that is not written down yet.
            if kept.stopped().is_some() {
                let differs = disk.explained()?;
                ensure!(differs.is_empty(), "the journal does not explain the disk: {}", differs.join("; "));
            }
            let image = kept.cut(&loss);
            image.write(&data)?;
            Ok(image != kept.latest())
        });
        kept.await?.with_context(|| format!("the disk of {}", self.id))
    }

    /// There is room for so many bytes and no more.
    pub(super) fn fill(&self, room: u64) -> anyhow::Result<()> {
        let mut state = locked(&self.state);
        state.full = true;
        state.disk.as_ref().map_or(Ok(()), |disk| disk.room(room))?;
        Ok(())
    }

    /// There is room again; who came down for the want of it is started.
    pub(super) fn free(&self) -> anyhow::Result<()> {
        let mut state = locked(&self.state);
        if !std::mem::take(&mut state.full) {
            return Ok(());
        }
        state.freed = Some(Instant::now());
        state.disk.as_ref().map_or(Ok(()), |disk| disk.room(UNBOUNDED))?;
        Ok(())
    }

    // ---- its clock ---------------------------------------------------------------------------------

    /// Its wall clock is off by so many milliseconds from now on, also in later lives.
    pub(super) fn set_clock(&self, ms: i64) -> anyhow::Result<()> {
        let mut state = locked(&self.state);
        state.clock_ms = ms;
        state.disk.as_ref().map_or(Ok(()), |disk| disk.step_clock(ms))?;
        Ok(())
    }

    /// Waits until it says that its strong paths are frozen.
    pub(super) async fn freezes(&self) {
        while !self.frozen().await.unwrap_or(false) {
            sleep(LOOK_EVERY * 10).await;
        }
    }

    /// Whether it says that its strong paths are frozen; none while it does not answer.
    pub(super) async fn frozen(&self) -> Option<bool> {
        let (_, status) =
            rhumb::http::probe::get(self.address, "/status", Duration::from_secs(1)).await.ok()?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        Some(status.get("clock")?.get("standing")? == "frozen")
    }
}
