//! What befalls processes and disks in some stories of [`world`](super::world), beside all else that goes wrong there: a process is
//! stopped and goes on (SIGSTOP), a disk stands still, and a disk is full.
//!
//! Who stands still does not know it. None of its tasks runs and none of its timers fires; what it has sent is under way, and what it is
//! sent waits, as much of it as there is room for. When it goes on all that was due is due at once, its clocks tell the time, and what it
//! believes is as old as that. It is stopped between two steps of its tasks, or in the middle of one: when it has looked whether it may
//! read for a client, and has not read yet.
//!
//! A disk that stands still takes writes, and no sync for a while: nothing becomes durable there, nor is the ceiling of the node's hybrid
//! time raised, which crawls below it.
//!
//! A full disk takes no write any more. The first one that fails ends the node, a moment later: meanwhile it can neither read nor write.
//! It comes back when there is room, with all that was synced and a part of the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::rng::{Rng, Seed};
use rhumb_storage::memory::Injection;

use super::clients::Telling;
use super::net::{self, MS, NOBODY, SECOND};
use super::sim::{self, SimRuntime};
use super::world::STORY;

/// So long a node whose disk is full has for its last words at most.
const LAST_WORDS: u64 = 200 * MS;
/// How often it is looked whether a node that stands still can end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The faults of a story.
pub(super) struct Faults {
    rng: Rng,
    stops: bool,
    fills: bool,
    /// Those of disks that stand still: what else is drawn does not hang on them.
    disks: Rng,
    stands: bool,
}

impl Faults {
    /// Those of a seed: some have neither.
    pub(super) fn of(seed: &Seed) -> Self {
        let mut rng = seed.child("processes").rng();
        let (stops, fills) = (rng.chance(0.6), rng.chance(0.5));
        let mut disks = seed.child("disks").rng();
        let stands = disks.chance(0.3);
        Self { rng, stops, fills, disks, stands }
    }

    /// One of them befalls a node, or none does.
    pub(super) fn befall(&mut self, net: &net::Shared, told: &Telling) {
        let count = net.lock().nodes.len() as u64;
        if self.stands && self.disks.chance(0.05) {
            // Some are over before support is, and some long after.
            let (node, lasts) = (self.disks.below(count) as usize, self.disks.between(SECOND, 9 * SECOND));
            if net::is_running(net, node) {
                net::disk_stands(net, node, (sim::now() + lasts).min(STORY));
                told.lock().tally.disks_stood += 1;
            }
        }
        let node = self.rng.below(count) as usize;
        match self.rng.below(20) {
            0..4 if self.stops && net::is_running(net, node) => {
                // A hiccup; about as long as support lasts; several times that.
                let lasts = match self.rng.below(4) {
                    0 => self.rng.between(10 * MS, 200 * MS),
                    3 => self.rng.between(2 * SECOND, 7 * SECOND),
                    _ => self.rng.between(200 * MS, 2 * SECOND),
                };
                if self.rng.chance(0.4) {
                    net.lock().nodes[node].stops_for.store(lasts, Ordering::Relaxed);
                } else {
                    stops(net, node, lasts);
                    told.lock().tally.still.0 += 1;
                }
            }
            4 if self.fills && net::is_running(net, node) => {
                let node = &mut net.lock().nodes[node];
                node.full = true;
                node.disk.inject(Injection::Full);
            }
            _ => {}
        }
    }
}

/// A process is stopped, and goes on by then at the latest.
fn stops(net: &net::Shared, me: usize, lasts: u64) {
    let until = (sim::now() + lasts).min(STORY);
    let life = {
        let node = &mut net.lock().nodes[me];
        node.still_until = Some(until);
        node.life
    };
    sim::stops(me);
    let net = Arc::clone(net);
    sim::spawn_as(NOBODY, async move {
        SimRuntime::sleep(Duration::from_micros(until.saturating_sub(sim::now()))).await;
        let is_it = {
            let node = &net.lock().nodes[me];
            node.life == life && node.still_until == Some(until)
        };
        if is_it {
            goes_on(&net, me);
        }
    });
}

fn goes_on(net: &net::Shared, me: usize) {
    net.lock().nodes[me].stood_still();
    sim::goes_on(me);
}

/// A write found no room: the node ends, and is started again when there is some.
pub(super) fn ends_for_room(net: &net::Shared, me: usize) {
    let (life, words, away) = {
        let mut net = net.lock();
        let (words, away) = (net.rng.between(0, LAST_WORDS), net.rng.between(100 * MS, 4 * SECOND));
        (net.nodes[me].life, Duration::from_micros(words), Duration::from_micros(away))
    };
    let net = Arc::clone(net);
    sim::spawn_as(NOBODY, async move {
        SimRuntime::sleep(words).await;
        // Who stands still does not end by itself.
        while net.lock().nodes[me].still_until.is_some() {
            SimRuntime::sleep(LOOK_EVERY).await;
        }
        let is_it = {
            let node = &net.lock().nodes[me];
            node.up && node.life == life
        };
        if !is_it {
            return;
        }
        net::crash(&net, me);
        net.lock().ended_for_room += 1;
        SimRuntime::sleep(away).await;
        if !net.lock().nodes[me].up {
            let raft = net.lock().raft;
            net::start(&net, me, raft);
        }
    });
}

/// All of it is over: who stands still goes on, and nodes without room have some, and have to be started.
pub(super) fn over(net: &net::Shared) {
    let count = net.lock().nodes.len();
    for me in 0..count {
        let (is_still, is_full) = {
            let node = &mut net.lock().nodes[me];
            node.stops_for.store(0, Ordering::Relaxed);
            (node.still_until.is_some(), node.up && node.full)
        };
        if is_still {
            goes_on(net, me);
        }
        if is_full {
            net::crash(net, me);
        }
    }
}
