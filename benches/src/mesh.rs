//! A mesh of one node, whose program is `bench-node`.

use std::path::Path;

use anyhow::Context;
use rhumb::dev::{DevMesh, DevOptions, WanChoice};

/// Starts it in a folder.
///
/// # Errors
/// It does not become ready.
pub async fn start(dir: &Path) -> anyhow::Result<DevMesh> {
    let program = std::env::current_exe()?.with_file_name("bench-node");
    anyhow::ensure!(program.exists(), "{} is missing: build it first (make bench does)", program.display());
    let options = DevOptions {
        regions: vec![("here".parse()?, 1)],
        data: dir.to_owned(),
        wan: WanChoice::Off,
        ready_file: None,
        restart: false,
        traces: rhumb::telemetry::TelemetrySettings::default(),
    };
    DevMesh::start(options, &program).await.context("a mesh of one node")
}
