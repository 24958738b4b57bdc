//! `rhumb dev`: a whole mesh on this machine.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use rhumb_core::Region;
use tokio::signal::unix::{SignalKind, signal};

use crate::dev::{DevMesh, DevOptions, READY_FILE, WanChoice};
use crate::telemetry::sampling::Share;
use crate::telemetry::{Endpoint, TelemetrySettings};

/// Run a whole mesh on this machine, one process a node, until Ctrl-C.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb dev\n  rhumb dev --regions us-east:2,eu-central,ap-southeast --wan off\n  rhumb dev --otlp http://127.0.0.1:4317"
)]
pub struct Dev {
    /// The regions, each with its number of nodes (1 unless given).
    #[arg(
        long,
        value_name = "REGION[:NODES],…",
        value_delimiter = ',',
        default_value = "us-east,eu-central,ap-southeast"
    )]
    pub regions: Vec<RegionNodes>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "./.rhumb/dev", env = "RHUMB_DATA")]
    pub data: PathBuf,
    /// What lies between the regions: `published` (the published matrix of round trips, with jitter
    /// and loss), `off`, or a file with a matrix of the same format.
    #[arg(long, value_name = "FILE|off", default_value = "published")]
    pub wan: WanArg,
    /// The program that runs as each node: one of your own that hosts your actors. Unless given, this one.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Where all nodes send their traces, of which every one is kept: a collector's http://HOST:PORT, or a
    /// file as file:///PATH.
    #[arg(long, value_name = "URL", env = super::traces::ENDPOINT, value_parser = Endpoint::parse)]
    pub otlp: Option<Endpoint>,
    /// Also write the ready file here.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// A region and its number of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionNodes(pub Region, pub usize);

impl FromStr for RegionNodes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (region, count) = s.split_once(':').unwrap_or((s, "1"));
        let nodes: usize = count.parse().map_err(|_| {
            format!("{count:?} is not a number of nodes: expected 1 to 16, such as us-east:3")
        })?;
        if !(1..=16).contains(&nodes) {
            return Err(format!("{nodes} nodes in a region: expected 1 to 16"));
        }
        Ok(Self(Region::new(region).map_err(|e| e.to_string())?, nodes))
    }
}

/// The WAN of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanArg(pub WanChoice);

impl FromStr for WanArg {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(match s {
            "published" => WanChoice::Published,
            "off" => WanChoice::Off,
            file => WanChoice::File(file.into()),
        }))
    }
}

impl Dev {
    /// Runs the mesh until Ctrl-C or SIGTERM.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn run(self) -> anyhow::Result<()> {
        let options = DevOptions {
            regions: self.regions.into_iter().map(|RegionNodes(region, nodes)| (region, nodes)).collect(),
            data: self.data,
            wan: self.wan.0,
            ready_file: self.ready_file,
            settings: Vec::new(),
            restart: true,
            traces: traces(self.otlp),
        };
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let program = self.program.map_or_else(std::env::current_exe, Ok)?;
        let started = DevMesh::start(options, &program);
        let mesh = tokio::select! {
            mesh = started => mesh?,
            // The nodes stop as their standard input closes with this process.
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        };
        print_mesh(&mesh);
        tokio::select! {
            () = mesh.watch() => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        mesh.stop().await;
        Ok(())
    }
}

fn traces(endpoint: Option<Endpoint>) -> TelemetrySettings {
    let protocol = endpoint
        .as_ref()
        .map(|to| super::traces::protocol(&to.to_string(), super::traces::said().as_deref()))
        .unwrap_or_default();
    TelemetrySettings { endpoint, protocol, share: Share::ALL, ..TelemetrySettings::default() }
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn print_mesh(mesh: &DevMesh) {
    for node in mesh.nodes() {
        println!(
            "{:<24} quic {:<22} admin {:<28} pid {}",
            node.id().to_string(),
            node.quic,
            node.admin,
            node.pid
        );
    }
    println!("ready: {}", mesh.data().join(READY_FILE).display());
    println!("try: rhumb pool create concert --supply 100    (Ctrl-C stops the mesh)");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_names_with_an_optional_number_of_nodes() {
        let parsed: RegionNodes = "us-east:2".parse().expect("valid");
        assert_eq!((parsed.0.as_str(), parsed.1), ("us-east", 2));
        assert_eq!("us-east".parse::<RegionNodes>().expect("valid").1, 1);
        for bad in ["us-east:0", "us-east:x", "us-east:17", "US:1", ""] {
            assert!(bad.parse::<RegionNodes>().is_err(), "{bad}");
        }
    }
}
