//! The same world with many more entries, which are soon old enough to be pruned: what may go, and what must stay.

use std::time::Duration;

use rhumb_core::rng::Seed;
use rhumb_verify::hash::Hash;
use rhumb_verify::proof;
use rhumb_verify::record::Entry;
use rhumb_verify::tile::WIDTH;

use super::{EPOCH_MS, Event, Life, NODES, World, others};
use crate::audit::log::Token;
use crate::audit::{read, rows};

/// Lives with many entries that are soon old enough to be pruned, and crashes; heals, and demands that they are.
pub(in crate::audit::tests) fn run_pruning(seed: u64) -> Result<(), String> {
    let mut world = World::pruning(&Seed::new(seed), Duration::from_millis(1_500));
    world.live(6_000);
    world.settle()?;
    // By whose clocks it is so late the log knows when they cosign the next entry.
    (0..NODES).for_each(|node| world.after(0, node, Event::Append));
    world.settle()?;
    world.all_is_pruned()
}

impl World {
    /// What is old must be pruned, in the end.
    fn all_is_pruned(&self) -> Result<(), String> {
        for node in 0..NODES {
            let status = self.nodes[node].life.as_ref().expect("it runs").log.status();
            if status.mark == 0 || status.mark != status.entries / WIDTH * WIDTH {
                return Err(format!("n{node} is not pruned: {status:?}"));
            }
        }
        Ok(())
    }

    /// As the shell does: what is to go is told of first, and goes when that is durable.
    pub(super) fn look_for_old(&mut self, node: usize, life: &mut Life) {
        let wait = 50 + self.rng.below(100);
        self.after(wait, node, Event::Prune);
        let Some(prunable) = life.log.prunable(self.now()) else { return };
        match read::old(&life.disk, &prunable) {
            Err(why) => self.breaks(format!("n{node} cannot look for what is old: {why}")),
            Ok(old) if old.is_empty() => {}
            Ok(old) => {
                self.append(node, life);
                self.known.to_prune.insert(Token(self.last_token), old);
            }
        }
    }

    /// What of a pruned log is not as it must be: its check, and proofs of what is kept.
    pub(super) fn unsound(&self, node: usize, mark: u64) -> Option<String> {
        let disk = &self.nodes[node].life.as_ref()?.disk;
        let size = read::size(disk).expect("the disk is sound");
        for bundle in mark / WIDTH..=size / WIDTH {
            let (_, faults) = read::check_bundle(disk, bundle).expect("the disk is sound");
            if let Some(fault) = faults.first() {
                return Some(format!("n{node}: {fault}"));
            }
        }
        let signed = self.known.signed.range((node, mark, Hash([0; 32]))..(node, size + 1, Hash([0; 32])));
        let signed: Vec<_> = signed.map(|(_, size, root)| (*size, *root)).collect();
        let (newest, root) = *signed.last()?;
        for index in
            [mark, newest.saturating_sub(1)].into_iter().filter(|index| (mark..newest).contains(index))
        {
            let path = read::inclusion(disk, index, newest).expect("it is kept");
            let leaf = rhumb_verify::hash::leaf(&rows::entry(disk, index).expect("it is kept"));
            if let Err(why) = proof::inclusion(&leaf, index, newest, &path, &root) {
                return Some(format!("n{node}: entry {index} under {newest}: {why}"));
            }
        }
        for (old, before) in &signed {
            let path = read::consistency(disk, *old, newest).expect("both are kept");
            if let Err(why) = proof::consistency((*old, before), (newest, &root), &path) {
                return Some(format!("n{node}: from {old} to {newest}: {why}"));
            }
        }
        None
    }

    /// Nothing may be gone that is younger than the retention, is not published, or that a log witness has not cosigned.
    pub(super) fn is_pruned_rightly(&mut self, node: usize, mark: u64) {
        let Some(retention) = self.retention.filter(|_| mark > 0) else { return };
        let before = EPOCH_MS + self.now_ms - retention.as_millis() as u64;
        let gone = self.known.acknowledged.range((node, 0)..(node, mark));
        let young = gone.map(|(at, entry)| (at.1, Entry::decode(entry).expect("an entry").millis()));
        let young = young.clone().find(|(_, written)| *written > before);
        let young = young.map(|(index, _)| format!("n{node} has pruned entry {index}, which is young"));
        let cosigned = |witness: usize| {
            let given = self.known.cosigned.get(&(witness, node)).into_iter().flatten();
            given.map(|(size, _)| *size).max().unwrap_or(0)
        };
        let witness = others(node).find(|witness| cosigned(*witness) < mark);
        let witness =
            witness.map(|witness| format!("n{witness} has not cosigned what n{node} has pruned: {mark}"));
        let published = self.known.published.get(&node).copied().unwrap_or(0) < mark;
        let published = published.then(|| format!("n{node} has pruned what was not published: {mark}"));
        if let Some(broken) = young.or(witness).or(published) {
            self.breaks(broken);
        }
    }
}
