//! Meshes on this machine, whose program is `bench-node`.

use std::path::Path;

use anyhow::Context;
use rhumb::dev::{DevMesh, DevOptions, WanChoice};
use rhumb::telemetry::TelemetrySettings;

/// Starts a mesh of one node in a folder.
///
/// # Errors
/// It does not become ready.
pub async fn start(dir: &Path) -> anyhow::Result<DevMesh> {
    start_traced(dir, TelemetrySettings::default()).await
}

/// The same, with its traces going there.
///
/// # Errors
/// It does not become ready.
pub async fn start_traced(dir: &Path, traces: TelemetrySettings) -> anyhow::Result<DevMesh> {
    start_of(&["here"], dir, WanChoice::Off, traces, Vec::new()).await
}

/// Starts a mesh of a node in each of these regions, with this between them and these settings.
///
/// # Errors
/// It does not become ready.
pub async fn start_in(
    regions: &[&str],
    dir: &Path,
    wan: WanChoice,
    settings: &[(&str, &str)],
) -> anyhow::Result<DevMesh> {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    start_of(regions, dir, wan, TelemetrySettings::default(), settings).await
}

async fn start_of(
    regions: &[&str],
    dir: &Path,
    wan: WanChoice,
    traces: TelemetrySettings,
    settings: Vec<(String, String)>,
) -> anyhow::Result<DevMesh> {
    let program = std::env::current_exe()?.with_file_name("bench-node");
    anyhow::ensure!(program.exists(), "{} is missing: build it first (make bench does)", program.display());
    let options = DevOptions {
        regions: regions.iter().map(|region| Ok((region.parse()?, 1))).collect::<anyhow::Result<_>>()?,
        data: dir.to_owned(),
        wan,
        ready_file: None,
        settings: settings,
        restart: false,
        traces,
    };
    DevMesh::start(options, &program).await.with_context(|| format!("a mesh of {} nodes", regions.len()))
}
