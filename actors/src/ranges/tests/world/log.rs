//! The log in the world: what is appended, how nodes follow it, what came of its entries; and who wants its lease.

use std::convert::Infallible;

use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Effects, Epoch};
use rhumb_storage::Batch;

use super::{Event, KEYS, MS, Node, RANGES, Waits, World, key, store_id};
use crate::ranges::support::SupportMessage;
use crate::ranges::{Body, Command, Op, Outcome, RangeId, Token};

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
            && self.waiting.get(&(range, at)).is_some_and(|waits| (waits.node, waits.life) == (node, life))
            && let Some(Waits { session, keys, .. }) = self.waiting.remove(&(range, at))
        {
            for key in keys {
                self.acked[key].push((self.now, at));
                self.saw(session, key, Some(at), Token { epoch: Epoch(0), at });
            }
            self.tally.writes += 1;
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
                let Body::Write(write) = &command.body else { return Ok(()) };
                let number =
                    |op: &Op| (0..KEYS.len()).find(|number| key(*number) == op.key).expect("one of ours");
                let keys: Vec<usize> = write.ops.iter().map(number).collect();
                match outcome {
                    Outcome::Written(at) => {
                        keys.iter().for_each(|key| self.written[*key].push(*at));
                        if keys.len() > 1 {
                            self.tally.batches += 1;
                            self.batches.insert(*at, keys);
                        }
                    }
                    Outcome::ConditionFailed { .. } => self.tally.not_written += 1,
                    _ => {}
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
