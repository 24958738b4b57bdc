//! `rhumb serve`: run one node.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rhumb_core::{NodeName, Region};
use tokio::signal::unix::{SignalKind, signal};

use crate::settings;
use crate::supervisor::{Builder, Supervisor};

/// Run one node of a region until SIGTERM or Ctrl-C.
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
    pub async fn run(self) -> anyhow::Result<()> {
        self.hosting(|node| node).await
    }

    /// Runs the node, with what is hosted on it besides.
    async fn hosting(self, host: impl FnOnce(Builder) -> Builder) -> anyhow::Result<()> {
        let config = settings::load(&self.config, &self.region, self.node.as_ref(), self.env.as_deref())?;
        log_to_stderr(&config.log);
        let stdin = self.until_stdin_closes;
        host(Supervisor::builder(config)).run(asked_to_stop(stdin)).await
    }
}

/// A node's own program: what a user builds who hosts actors of their own. Its command line is
/// `PROGRAM serve …`, as `rhumb serve …` has it, so that it runs wherever `rhumb` does:
///
/// ```no_run
/// # async fn main_of_it() -> anyhow::Result<()> {
/// rhumb::cli::serve::node_program(|node| node).await
/// # }
/// ```
///
/// # Errors
/// Why the node could not start, or why it stopped by itself.
pub async fn node_program(host: impl FnOnce(Builder) -> Builder) -> anyhow::Result<()> {
    let NodeProgram { command: OnlyServe::Serve(serve) } = NodeProgram::parse();
    serve.hosting(host).await
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

fn log_to_stderr(log: &settings::LogSettings) {
    let filter = tracing_subscriber::EnvFilter::new(&log.filter);
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Somebody who embeds this may have set a subscriber before: then theirs stands.
    let set = if log.json { builder.json().try_init() } else { builder.try_init() };
    set.ok();
}

/// Resolves at SIGTERM, SIGINT or, if asked for, the end of standard input. A second signal ends the
/// process at once.
async fn asked_to_stop(stdin: bool) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard; stopping");
        return;
    };
    let closed = async {
        if !stdin {
            return std::future::pending().await;
        }
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok())
            .await
            .ok();
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = closed => {}
    }
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        tracing::warn!("second signal: stopping at once");
        std::process::exit(130);
    });
}
