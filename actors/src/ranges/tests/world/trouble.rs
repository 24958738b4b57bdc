//! What goes wrong in the world, and how it heals.

use rhumb_core::{Barrier, Effects};
use rhumb_storage::mvcc::UserKey;
use rhumb_storage::{Family, keys};

use super::{Event, MS, Node, RANGES, SECOND, SPLIT_AT, TOLERANCE, World, open, seats, settings, store_id};
use crate::ranges::support::Support;
use crate::ranges::{RangeReplica, ReplicaId};

impl World {
    pub(super) fn trouble(&mut self) {
        if self.healed {
            return;
        }
        let (soon, late) = if self.brisk { (1_500, 4_000) } else { (100, 1_500) };
        let wait = self.between(soon * MS, late * MS);
        self.after(wait, Event::Trouble);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let lasts = self.between(if self.brisk { 2_000 } else { 200 } * MS, 5 * SECOND);
        match self.rng.below(10) {
            0..7 if self.brisk => self.nodes[node].cut_until = self.now + lasts,
            0 => self.crash(node, lasts),
            1..3 => self.nodes[node].stopped_until = self.now + lasts,
            3..5 => self.nodes[node].cut_until = self.now + lasts,
            5 => self.nodes[node].disk_slow_until = self.now + 2 * lasts,
            6 => self.nodes[node].off_ms = self.rng.between(0, 4_000) as i64 - 2_000,
            7..9 => {
                let off = self.rng.between(0, 2 * TOLERANCE) as i64 - TOLERANCE as i64;
                self.nodes[node].off_ms = if self.brisk { off.signum() * TOLERANCE as i64 } else { off };
            }
            _ => self.move_or_split(node),
        }
    }

    /// A leaseholder gives its lease away, or splits its range.
    fn move_or_split(&mut self, to: usize) {
        let count = self.nodes.len();
        for node in 0..count {
            let moment = self.moment(node, RANGES[0]);
            let stands = self.nodes[node].up && self.nodes[node].stopped_until <= self.now;
            if !stands || self.nodes[node].replicas[&RANGES[0]].permit(&moment).is_err() {
                continue;
            }
            let epoch = self.nodes[to].support.epoch();
            let is_whole = self.nodes[node].replicas[&RANGES[0]].descriptor().to.is_none();
            let replica = self.nodes[node].replicas.get_mut(&RANGES[0]).expect("all have it");
            let command = if is_whole {
                let at = UserKey::new(SPLIT_AT).expect("short");
                replica.propose_split(&moment, at, RANGES[1], seats(count, 2))
            } else if to < 3 && to != node {
                replica.transfer_lease(&moment, ReplicaId(100 + to as u64), store_id(to), epoch)
            } else {
                continue;
            };
            if let Ok(command) = command {
                self.append(node, RANGES[0], command);
            }
        }
    }

    fn crash(&mut self, node: usize, lasts: u64) {
        if !self.nodes[node].up {
            return;
        }
        let Node { disk, up, .. } = &mut self.nodes[node];
        *up = false;
        disk.crash(&mut self.rng);
        self.tally.crashes += 1;
        self.after(lasts, Event::Start(node));
    }

    pub(super) fn start(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if this.up {
            return;
        }
        (this.up, this.life, this.stopped_until) = (true, this.life + 1, 0);
        this.store = open(&this.disk);
        let mut rows = Vec::new();
        let scanned = this.store.scan(Family::Meta, keys::SUPPORT, |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        });
        scanned.expect("memory scans");
        (this.out, this.barrier) = (Effects::default(), Barrier::default());
        this.support =
            Support::begin(store_id(this.seat), settings().support, rows, &mut this.out).expect("sound");
        this.replicas = RANGES
            .into_iter()
            .filter_map(|range| {
                let row =
                    this.store.get(Family::Raft, &RangeReplica::row_key(range)).expect("memory reads")?;
                Some((range, RangeReplica::recover(settings(), &row).expect("what was written is read")))
            })
            .collect();
        self.recover_progress(node);
        self.flush(node);
    }

    pub(super) fn heal(&mut self) {
        self.healed = true;
        for node in 0..self.nodes.len() {
            let this = &mut self.nodes[node];
            (this.stopped_until, this.disk_slow_until, this.cut_until) = (0, 0, 0);
            this.off_ms = this.off_ms.clamp(-(TOLERANCE as i64), TOLERANCE as i64);
            self.start(node);
        }
    }
}
