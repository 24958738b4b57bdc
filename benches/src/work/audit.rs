//! Works of the audit log: appends that are durable, beside the same rows without a log; and proofs out of a log of ten
//! million entries, beside ct-merkle's out of memory.

use futures::FutureExt;

use super::inside::{Case, Within, compared, outcomes, rounds};
use super::{Effort, Work};
use crate::inside::Order;
use crate::sample::{Outcome, Unit};

/// Appends in flight.
const IN_FLIGHT: usize = 256;
/// Entries of the log that proofs are out of.
const ENTRIES: u64 = 10_000_000;
/// Bytes of the longest proof in it.
const PROOF: usize = 24 * 32;

const APPENDING: [Within; 2] = [Within::RhumbAudit, Within::Batches];
const PROVING: [Within; 2] = [Within::RhumbTiles, Within::CtMerkle];

/// Appends to the audit log, each durable.
pub const APPEND: Work = Work {
    name: "audit-append",
    title: "Durable appends to the audit log, 256 in flight",
    run: |scope| append(scope.effort).boxed_local(),
};

async fn append(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let order = Order::Append { concurrency: IN_FLIGHT, millis: effort.millis };
    let cases = [Case { concurrency: IN_FLIGHT, order }];
    let measured = rounds(APPEND.name, &APPENDING, &cases, effort.rounds, false).await?;
    Ok(outcomes(APPEND.name, &APPENDING, &cases, &measured))
}

/// Proofs of inclusion: making one, and (the rows with bytes) verifying it.
pub const PROVE: Work = Work {
    name: "audit-prove",
    title: "A proof out of 10,000,000 entries, and its verification",
    run: |scope| prove(scope.effort).boxed_local(),
};

async fn prove(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let entries = if effort.is_quick() { 100_000 } else { ENTRIES };
    let cases = [Case { concurrency: 1, order: Order::Prove { entries, millis: effort.millis } }];
    let mut measured = rounds(PROVE.name, &PROVING, &cases, effort.rounds, false).await?;
    let agreed: Vec<f64> = measured.iter().flatten().flatten().map(|one| one.figures["agreed_in"]).collect();
    anyhow::ensure!(
        agreed.windows(2).all(|two| two[0] == two[1]),
        "the two come to other proofs: {agreed:?}"
    );
    for one in measured.iter_mut().flatten().flatten() {
        one.figures.remove("agreed_in");
    }
    let all = outcomes(PROVE.name, &PROVING, &cases, &measured);
    let with = |bytes: usize| all.iter().map(|one| Outcome { payload: bytes, ..one.clone() }).collect();
    let proved = compared(with(0), &measured, "prove_us", Unit::Micros);
    // Rates and percentiles are those of proving.
    let verified = compared(with(PROOF), &measured, "verify_us", Unit::Micros)
        .into_iter()
        .map(|one| Outcome { ops_per_s: 0.0, p50_us: 0.0, p99_us: 0.0, ..one });
    Ok(proved.into_iter().chain(verified).collect())
}
