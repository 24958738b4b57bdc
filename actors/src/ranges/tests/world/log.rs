//! The log in the world: what is appended, how nodes follow it, what came of its entries; and who wants its lease.

use std::convert::Infallible;

use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Effects, Epoch};
use rhumb_storage::Batch;

use super::{Event, KEYS, MS, Node, RANGES, World, key, store_id};
use crate::ranges::support::SupportMessage;
use crate::ranges::{Body, Command, Outcome, RangeId, Token};

impl World {
    pub(super) fn append(&mut self, node: usize, range: RangeId, command: Command) {
        let lost = self.is_cut(node) || (!self.healed && self.rng.chance(0.05));
        let slow = self.rng.chance(if self.brisk { 0.02 } else { 0.2 }) && !self.healed;
        let wait = self.between(MS, if slow { 900 * MS } else { 60 * MS });
        if !lost {
            self.after(wait, Event::Appended(range, command));
        }
    }

    pub(super) fn follow(&mut self, node: usize) -> Result<(), String> {
        if self.is_cut(node) {
            return Ok(());
        }
        for range in RANGES {
            let Some(replica) = self.nodes[node].replicas.get(&range) else { continue };
            let next = replica.applied().index + 1;
            let known = self.logs[&range].len() as u64;
            let upto = if self.healed || self.brisk {
                known
            } else {
                self.rng.between(next - 1, known.max(next - 1))
            };
            for index in next..=upto {
                self.apply(node, range, index)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, node: usize, range: RangeId, index: u64) -> Result<(), String> {
        let command = self.logs[&range][index as usize - 1].clone();
        let Node { replicas, store, life, .. } = &mut self.nodes[node];
        let (replica, life) = (replicas.get_mut(&range).expect("it follows"), *life);
        let closed = replica.closed();
        let mut out = Effects::<Batch, Infallible>::default();
        let (outcome, right) =
            replica.apply(store, index, &command, &mut out).map_err(|error| error.to_string())?;
        if replica.closed() < closed {
            return Err(format!("what was closed fell from {closed} to {}", replica.closed()));
        }
        let mut all = Batch::new();
        Barrier::<Infallible>::default().absorb(&mut out, |release| {
            let Release::Persist(_, batch) = release;
            all.merge(batch);
        });
        replica.write(&mut all);
        if let Some(right) = right {
            if right.closed() < closed {
                return Err(format!("a split forgot that {closed} was closed: {}", right.closed()));
            }
            right.write(&mut all);
            replicas.insert(RANGES[1], right);
        }
        store.write(&all).expect("memory takes it");
        self.came_of(range, index, &command, &outcome)?;
        if let Outcome::Written(at) = outcome
            && let Some(&(waits, its_life, session, key)) = self.waiting.get(&(range, at))
            && (waits, its_life) == (node, life)
        {
            self.waiting.remove(&(range, at));
            self.acked[key].push((self.now, at));
            self.tally.writes += 1;
            self.saw(session, key, Some(at), Token { epoch: Epoch(0), at });
            self.served.0 += usize::from(self.healed);
        }
        Ok(())
    }

    fn came_of(
        &mut self,
        range: RangeId,
        index: u64,
        command: &Command,
        outcome: &Outcome,
    ) -> Result<(), String> {
        match self.outcomes.get(&(range, index)) {
            Some(before) if before == outcome => Ok(()),
            Some(before) => Err(format!("{before:?} came of entry {index} elsewhere, and here {outcome:?}")),
            None => {
                self.outcomes.insert((range, index), outcome.clone());
                self.tally.leases += usize::from(matches!(outcome, Outcome::Leased(_)));
                self.tally.splits += usize::from(matches!(outcome, Outcome::Split(_)));
                if let (Outcome::Written(at), Body::Write(write)) = (outcome, &command.body) {
                    for op in &write.ops {
                        let number =
                            (0..KEYS.len()).find(|number| key(*number) == op.key).expect("one of ours");
                        self.written[number].push(*at);
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn want_lease(&mut self, node: usize) {
        let wait = self.between(20 * MS, if self.brisk { 60 * MS } else { 900 * MS });
        self.after(wait, Event::WantLease(node));
        if !self.nodes[node].up || node >= 3 || self.frozen(node) {
            return;
        }
        let ranges: Vec<_> = self.nodes[node].replicas.keys().copied().collect();
        for range in ranges {
            let moment = self.moment(node, range);
            let replica = &self.nodes[node].replicas[&range];
            if replica.permit(&moment).is_ok() {
                continue;
            }
            let lease = *replica.lease();
            let witnesses = self.nodes[node].support.witnesses(lease.store);
            match replica.take_lease(&moment, store_id(node), &witnesses) {
                Ok(command) => self.append(node, range, command),
                Err(_) => {
                    let ask = SupportMessage::Withdraw { of: lease.store, epoch: lease.epoch };
                    (0..3).for_each(|voter| self.says(node, (store_id(voter), ask)));
                }
            }
        }
    }

    pub(super) fn close_beside(&mut self, node: usize) {
        self.after(100 * MS, Event::CloseBeside(node));
        if !self.nodes[node].up {
            return;
        }
        let ranges: Vec<_> = self.nodes[node].replicas.keys().copied().collect();
        for range in ranges {
            let moment = self.moment(node, range);
            let replica = self.nodes[node].replicas.get_mut(&range).expect("it is one of its");
            let Some(said) = replica.close_beside(&moment, false) else { continue };
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                if let Some(wait) = self.way(node, to) {
                    self.after(wait, Event::Closed(to, said));
                }
            }
        }
    }
}
