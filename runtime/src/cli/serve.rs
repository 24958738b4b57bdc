//! `rhumb serve`: run one node.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rhumb_core::canary::{self, Canary};
use rhumb_core::{NodeName, Region, version};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::{Done, Failure, Format, Output};
use crate::settings::{Live, Source};
use crate::supervisor::{Builder, Supervisor, notify};
use crate::telemetry::log::{EACH, Log};
use crate::telemetry::{self, Telemetry};

/// The environment variable that lets a known bug out in this node, by its name: for tests of the tests.
const TEST_CANARY: &str = "RHUMB_TEST_CANARY";
/// The environment variable that, set to `next`, makes this node one of the next build: for tests of upgrades.
const TEST_NEXT: &str = "RHUMB_TEST_BUILD";

/// Run one node of a region until SIGTERM or Ctrl-C. SIGHUP reads its settings anew.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb serve --config /etc/rhumb --region eu-central --env production")]
pub struct Serve {
    /// The folder that holds global.toml, REGION.toml and REGION/ENV.toml.
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// The region of this node.
    #[arg(long)]
    pub region: Region,
    /// Which of the region's nodes; may be left out where there is one.
    #[arg(long)]
    pub node: Option<NodeName>,
    /// The environment whose settings come on top.
    #[arg(long)]
    pub env: Option<String>,
    /// Also stop when standard input closes: for a parent that must not leave nodes behind.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

impl Serve {
    /// Runs the node.
    ///
    /// # Errors
    /// Why it could not start, or why it stopped by itself.
    pub async fn run(self) -> Result<Done, Failure> {
        self.hosting(|node| node).await
    }

    /// Runs the node, with what is hosted on it besides.
    async fn hosting(self, host: impl FnOnce(Builder) -> Builder) -> Result<Done, Failure> {
        // Heard from the first moment on: a signal that nobody hears would end the process.
        let hangups = signal(SignalKind::hangup()).map_err(Failure::local)?;
        let asked = Stops::heard().map_err(Failure::local)?.asked(self.until_stdin_closes);
        let source = Source::new(&self.config, &self.region, self.env.as_deref());
        let settings = Live::load(source, self.node.as_ref())?;
        let now = settings.now();
        let traces = Telemetry::start(&now.telemetry, now.me.region.as_str(), &now.me.to_string())?;
        let log = telemetry::log_to_stderr(&now.log, traces.as_ref());
        let_out_canary()?;
        become_next_build()?;
        tokio::spawn(log.clone().follow());
        tokio::spawn(reload_at(hangups, settings.clone(), log.clone()));
        let builder = Supervisor::builder(settings);
        let builder = traces.into_iter().fold(builder, Builder::telemetry);
        let ended = host(builder).run(asked).await;
        log.end();
        Ok(ended.map(|()| Done::Well)?)
    }
}

/// A node's own program: what a user builds who hosts actors of their own. Its command line is
/// `PROGRAM serve …`, as `rhumb serve …` has it, so that it runs wherever `rhumb` does:
///
/// ```no_run
/// # async fn main_of_it() -> std::process::ExitCode {
/// rhumb::cli::serve::node_program(|node| node).await
/// # }
/// ```
///
/// It ends with the exit codes of `rhumb`, and says on standard error why.
pub async fn node_program(host: impl FnOnce(Builder) -> Builder) -> ExitCode {
    let NodeProgram { command: OnlyServe::Serve(serve) } = NodeProgram::parse();
    Output::new(Format::Text).end(serve.hosting(host).await)
}

#[derive(Parser)]
#[command(about = "A Rhumb node that hosts actors of its own", long_about = None)]
struct NodeProgram {
    #[command(subcommand)]
    command: OnlyServe,
}

#[derive(Subcommand)]
enum OnlyServe {
    Serve(Serve),
}

/// Lets out the bug that the environment asks for, or refuses: nobody asks for one in earnest.
fn let_out_canary() -> Result<(), Failure> {
    let Some(name) = std::env::var_os(TEST_CANARY) else { return Ok(()) };
    let out = name.to_str().and_then(Canary::named).is_some_and(canary::let_out_everywhere);
    if out {
        tracing::warn!(?name, "a known bug is let out, as a test wants it");
        return Ok(());
    }
    let why = "it names a known bug, and this build has none of that name: unset it";
    Err(Failure::Usage(format!("{TEST_CANARY} is {name:?}: {why}")))
}

/// Has this process know one cluster version more than its release, as the next build would, or refuses: nobody asks for that in
/// earnest.
fn become_next_build() -> Result<(), Failure> {
    let Some(said) = std::env::var_os(TEST_NEXT) else { return Ok(()) };
    if said == "next" && version::become_next_build() {
        tracing::warn!("this process takes itself for the next build, as a test wants it");
        return Ok(());
    }
    let why = "it makes a build of tests take itself for the next one, and this is none, or it says something else than next: unset it";
    Err(Failure::Usage(format!("{TEST_NEXT} is {said:?}: {why}")))
}

/// Reads the settings anew at each signal, and says what came of it.
async fn reload_at(mut hangups: Signal, settings: Live, log: Log) {
    while hangups.recv().await.is_some() {
        notify::reloading();
        let reading = settings.clone();
        match tokio::task::spawn_blocking(move || reading.reload()).await {
            Ok(Ok(reloaded)) => {
                log.configure(&settings.now().log);
                for change in &reloaded.applied {
                    tracing::info!(target: EACH, %change, "a setting changed");
                }
                for change in &reloaded.waiting {
                    tracing::warn!(target: EACH, %change, "this setting changes only when the node is started again");
                }
                tracing::info!(
                    changed = reloaded.applied.len(),
                    waiting = reloaded.waiting.len(),
                    "settings reloaded"
                );
            }
            Ok(Err(faults)) => {
                for fault in &faults.faults {
                    tracing::error!(target: EACH, %fault, "a fault in the settings");
                }
                tracing::error!(faults = faults.faults.len(), "settings not reloaded: nothing was changed");
            }
            Err(error) => tracing::error!(%error, "settings not reloaded: nothing was changed"),
        }
        notify::reloaded();
    }
}

/// The signals that ask for a stop.
struct Stops {
    term: Signal,
    int: Signal,
}

impl Stops {
    /// Heard from here on.
    fn heard() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! { _ = self.term.recv() => {} _ = self.int.recv() => {} }
    }

    /// Resolves at SIGTERM, SIGINT or, if asked for, the end of standard input. A second signal ends the
    /// process at once.
    async fn asked(mut self, stdin: bool) {
        let closed = async {
            if !stdin {
                return std::future::pending().await;
            }
            // A thread of its own: a runtime that ends waits for those that it has lent, and nobody may close this one.
            let (said, heard) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                io::copy(&mut io::stdin(), &mut io::sink()).ok();
                said.send(()).ok();
            });
            heard.await.ok();
        };
        tokio::select! {
            () = self.any() => {}
            () = closed => {}
        }
        tokio::spawn(async move {
            self.any().await;
            tracing::warn!("second signal: stopping at once");
            std::process::exit(130);
        });
    }
}
