//! The steps of a start, each told with its duration; one that fails names itself.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::notify;

/// How often a step that lasts asks the service manager for more time.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long a step goes on asking. A recovery that takes longer is better looked at.
const ASK_FOR: Duration = Duration::from_secs(15 * 60);

/// A step of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Whose directory it is, the founding list and the policy last served under.
    ControlStore,
    /// The certificate, and that it is this node's.
    Identity,
    /// RocksDB's recovery, and the clock of this life.
    HotStore,
    /// Storage, escrow, and what the program hosts besides.
    Actors,
    /// The sockets, of the admin HTTP and of QUIC, and the peers.
    Transport,
    /// What the admin HTTP serves, and the tasks that keep going.
    Ready,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::ControlStore => "control store",
            Self::Identity => "identity",
            Self::HotStore => "hot store",
            Self::Actors => "actors",
            Self::Transport => "transport",
            Self::Ready => "ready",
        }
    }

    /// Does the step.
    ///
    /// # Errors
    /// Its own, under its name.
    pub(super) async fn take<T>(self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let begun = Instant::now();
        notify::status(&format!("starting: {}", self.name()));
        let done = tokio::select! {
            done = work => done,
            never = self.ask_for_time() => match never {},
        };
        let done = done.with_context(|| format!("starting, at the step {:?}", self.name()))?;
        tracing::info!(step = self.name(), took = ?begun.elapsed(), "started");
        Ok(done)
    }

    /// Asks the service manager for more time, again and again, but not for ever. It does not end.
    async fn ask_for_time(self) -> Infallible {
        let begun = Instant::now();
        while begun.elapsed() < ASK_FOR {
            notify::extend(ASK_EVERY);
            tokio::time::sleep(ASK_EVERY).await;
        }
        tracing::warn!(step = self.name(), lasts = ?ASK_FOR, "this step asks for no more time to start");
        std::future::pending().await
    }
}
