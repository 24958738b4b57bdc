//! A mesh of one node, whose program is `bench-node`.

use std::path::Path;

use anyhow::Context;
use rhumb::dev::{DevMesh, DevOptions, WanChoice};
use rhumb::telemetry::TelemetrySettings;

/// Starts it in a folder.
///
/// # Errors
/// It does not become ready.
pub async fn start(dir: &Path) -> anyhow::Result<DevMesh> {
    start_traced(dir, TelemetrySettings::default()).await
}

/// Starts it in a folder, with its traces going there.
///
/// # Errors
/// It does not become ready.
pub async fn start_traced(dir: &Path, traces: TelemetrySettings) -> anyhow::Result<DevMesh> {
    let program = std::env::current_exe()?.with_file_name("bench-node");
    anyhow::ensure!(program.exists(), "{} is missing: build it first (make bench does)", program.display());
    let options = DevOptions {
        regions: vec![("here".parse()?, 1)],
        data: dir.to_owned(),
        wan: WanChoice::Off,
        ready_file: None,
        restart: false,
        traces,
    };
    DevMesh::start(options, &program).await.context("a mesh of one node")
}
