//! What the works about ranges have in common: both keepers in turn, each standing anew in every round, alone.

use std::path::Path;

use anyhow::Context;

use super::Scope;
use crate::ranges::Keeper;
use crate::ranges::standing::{How, Standing, versions_of};
use crate::sample::Outcome;

/// What came of one keeper.
pub(super) struct Came<T> {
    pub(super) keeper: Keeper,
    pub(super) rounds: Vec<T>,
    /// Why it is not measured.
    missing: Option<String>,
}

impl<T> Came<T> {
    /// With what a reader must know, and of what it is made.
    pub(super) fn told(&self, outcome: Outcome, note: &str) -> Outcome {
        let note = match &self.missing {
            Some(why) => format!("not measured: {why}"),
            None => format!("{}; {note}", self.keeper.note()),
        };
        Outcome { versions: versions_of(self.keeper), ..outcome.noted(note) }
    }
}

/// Rounds of both in turn. etcd that is not installed, or fails, is said not to be measured; Rhumb has to work.
pub(super) async fn in_turn<T>(
    work: &str,
    scope: &Scope,
    once: impl AsyncFn(Keeper) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<Came<T>>> {
    let asked = Keeper::ALL.into_iter().filter(|keeper| scope.has(keeper.name()));
    let mut came: Vec<_> = asked.map(|keeper| Came { keeper, rounds: Vec::new(), missing: None }).collect();
    for round in 0..scope.effort.rounds {
        for turn in 0..came.len() {
            // Nobody is always the first.
            let at = (turn + round) % came.len();
            let one = &mut came[at];
            if one.missing.is_some() {
                continue;
            }
            match once(one.keeper).await.with_context(|| one.keeper.name()) {
                Ok(measured) => one.rounds.push(measured),
                Err(error) if one.keeper == Keeper::Etcd => {
                    eprintln!("{work}: not measured: {error:#}");
                    one.missing = Some(format!("{error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        eprintln!("{work}: round {} of {}", round + 1, scope.effort.rounds);
    }
    Ok(came)
}

/// Has it stand for as long as this takes, and ends it whatever comes of it.
pub(super) async fn standing<T>(
    keeper: Keeper,
    how: How,
    measure: impl AsyncFnOnce(&mut Standing, &Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let dir = tempfile::tempdir()?;
    let mut standing = Standing::start(keeper, dir.path(), how).await?;
    let measured = measure(&mut standing, dir.path()).await;
    standing.end().await;
    measured
}

/// A figure of every load, in words: `fsyncs a put 3.0 at 1, 0.90 at 16`.
pub(super) fn by_load(name: &str, figures: impl IntoIterator<Item = (usize, f64)>) -> String {
    let each: Vec<_> = figures
        .into_iter()
        .map(|(concurrency, figure)| format!("{} at {concurrency}", crate::report::number(figure)))
        .collect();
    format!("{name} {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_told_of_every_load() {
        assert_eq!(by_load("syncs", [(1, 3.0), (64, 0.25)]), "syncs 3.00 at 1, 0.25 at 64");
    }
}
