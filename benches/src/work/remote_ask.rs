//! Asks between two processes on one machine, over mutual TLS.

use super::{Effort, interleaved};
use crate::sample::{Load, Outcome, Verb};
use crate::systems::System;

/// Its name.
pub const NAME: &str = "remote-ask";

/// Measures it.
///
/// # Errors
/// A system does not start, or ends early.
pub async fn run(effort: Effort, only: &[System]) -> anyhow::Result<Vec<Outcome>> {
    let all = [System::Rhumb, System::QuinnFramed, System::QuinnStreams, System::Tonic];
    let systems: Vec<_> = all.into_iter().filter(|s| only.is_empty() || only.contains(s)).collect();
    let load = |concurrency| Load { verb: Verb::Ask, concurrency, payload: 64, millis: effort.millis };
    let conc: Vec<usize> = std::env::var("CONC").map_or(vec![1, 16, 256], |c| c.split(',').filter_map(|n| n.parse().ok()).collect());
    let loads: Vec<_> = conc.into_iter().map(load).collect();
    interleaved(NAME, &systems, &loads, effort.rounds).await
}
