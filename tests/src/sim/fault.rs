//! What goes wrong, until the world heals.
//!
//! * It decides: which node, link, clock or disk is struck, and when next.
//! * It never does: strike after healing, or put an old disk back that nobody could know to be old
//!   (a copy younger than the last beat passes, as DESIGN.md says).
//! * Invariant: each kind of trouble draws from a seed of its own.

use rhumb_actors::escrow::{Input, Standing};
use rhumb_core::rng::{Rng, Seed};

use super::agenda::{MS, Micros, SECOND};
use super::audit::Audit;
use super::clock::BEGINNING_MS;
use super::node::Node;
use super::plan::NIGHT;
use super::violation::Checked;
use super::world::{Event, World};

/// A kind of trouble. Each comes again after a while, but for the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A node loses power.
    Crash,
    /// A node that has just come back loses power again.
    Again(usize),
    /// One direction between two nodes is cut.
    OneWay,
    /// A node is cut off from all others.
    Isolation,
    /// A cut is mended.
    Mend {
        /// From this node.
        from: usize,
        /// To this one.
        to: usize,
    },
    /// A wall clock is stepped.
    Step,
    /// A process is stopped for a while.
    Pause,
    /// A connection is lost and comes back.
    Flap,
    /// A backup of every disk is taken.
    Copy,
    /// A node is lost for ever.
    Loss,
    /// An old copy of a node's disk is put back.
    Restore,
    /// A day passes.
    Day,
}

/// The sources of randomness of trouble.
#[derive(Debug)]
pub struct Mischief {
    when: Rng,
    whom: Rng,
    coins: Rng,
    notices: Rng,
    /// When the first disk was to be put back, for which it is worth waiting; and how many are to follow.
    restoring: (Micros, u64),
    restores: Rng,
}

impl Mischief {
    /// Of this seed.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        let rng = |label: &str| seed.child(label).rng();
        Self {
            when: rng("when"),
            whom: rng("whom"),
            coins: rng("coins"),
            notices: rng("notices"),
            restoring: (0, 0),
            restores: rng("restores"),
        }
    }

    /// One of two things.
    pub fn coin(&mut self) -> bool {
        self.coins.chance(0.5)
    }

    /// How long it takes a node to notice that a connection came or went.
    pub fn notices(&mut self, came: bool) -> Micros {
        if came { self.notices.between(5, 400) * MS } else { self.notices.between(50, 2_000) * MS }
    }

    fn wait(&mut self, mean: Micros) -> Micros {
        self.when.exponential(mean as f64) as Micros
    }
}

impl World {
    /// Puts the first trouble of each kind into the agenda.
    pub(super) fn plan_trouble(&mut self) {
        let faults = &self.plan.faults;
        self.mischief.restoring = (faults.restore.unwrap_or(0), faults.restores - 1);
        let mut once = vec![(faults.loss, Trouble::Loss), (faults.restore, Trouble::Restore)];
        once.push((faults.night.then_some(faults.until * 2 / 3), Trouble::Day));
        // Backups are taken early, so that there is something old to put back.
        once.push((faults.restore.map(|_| SECOND), Trouble::Copy));
        for (at, trouble) in once {
            if let Some(at) = at {
                self.agenda.at(at, Event::Trouble(trouble));
            }
        }
        for trouble in [
            Trouble::Crash,
            Trouble::OneWay,
            Trouble::Isolation,
            Trouble::Step,
            Trouble::Pause,
            Trouble::Flap,
        ] {
            self.next_trouble(trouble);
        }
    }

    fn next_trouble(&mut self, trouble: Trouble) {
        let faults = &self.plan.faults;
        let mean = match trouble {
            Trouble::Crash => faults.crash,
            Trouble::OneWay => faults.one_way,
            Trouble::Isolation => faults.isolation,
            Trouble::Step => faults.step,
            Trouble::Pause => faults.pause,
            Trouble::Flap => faults.flap,
            _ => 0,
        };
        if mean > 0 {
            let wait = self.mischief.wait(mean);
            self.agenda.after(wait, Event::Trouble(trouble));
        }
    }

    /// Trouble strikes.
    pub(super) fn trouble(&mut self, trouble: Trouble) -> Checked {
        if self.healed.is_some() {
            return Ok(());
        }
        self.next_trouble(trouble);
        let node = self.mischief.whom.below(self.nodes.len() as u64) as usize;
        let now = self.now();
        self.trace
            .note(now, "trouble", &[node as u64], || format!("{trouble:?} strikes {}", self.nodes[node].id));
        match trouble {
            Trouble::Crash => self.power_cut(node),
            Trouble::Again(node) => self.power_cut(node),
            Trouble::OneWay => self.one_way(node),
            Trouble::Isolation => self.isolate(node),
            Trouble::Mend { from, to } => self.mend(from, to),
            Trouble::Step => self.step_clock(node),
            Trouble::Pause => {
                self.nodes[node].stopped_until = now + self.mischief.whom.between(50, 3_000) * MS
            }
            Trouble::Flap => return self.flap(node),
            Trouble::Copy => {
                // Disks that are put back together are of one backup.
                if self.plan.faults.restores > 1 && self.nodes.iter().any(|node| node.was_restored) {
                    return Ok(());
                }
                self.copy_disks();
                // Mostly the last backup is young, so that the lost disk was hardly ahead of it.
                let wait = self.mischief.wait(SECOND) + 100 * MS;
                self.agenda.after(wait, Event::Trouble(Trouble::Copy));
            }
            Trouble::Loss => self.lose(node),
            Trouble::Restore => self.restore(),
            Trouble::Day => self.day(),
        }
        Ok(())
    }

    fn power_cut(&mut self, node: usize) {
        if self.nodes[node].life.is_none() {
            return;
        }
        self.crash(node);
        let down = self.mischief.wait(self.plan.faults.down) + MS;
        self.agenda.after(down, Event::Begin { node });
        if self.mischief.whom.chance(self.plan.faults.again) {
            let soon = down + self.mischief.whom.between(1, 300) * MS;
            self.agenda.after(soon, Event::Trouble(Trouble::Again(node)));
        }
    }

    fn one_way(&mut self, from: usize) {
        let to = self.mischief.whom.below(self.nodes.len() as u64) as usize;
        if from != to {
            self.cut(from, to);
        }
    }

    fn isolate(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.cut(node, peer);
            self.cut(peer, node);
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.net.cut(from, to);
        let wait = self.mischief.wait(self.plan.faults.cut);
        self.agenda.after(wait, Event::Trouble(Trouble::Mend { from, to }));
        self.notice(from, to);
        self.notice(to, from);
    }

    fn mend(&mut self, from: usize, to: usize) {
        self.net.mend(from, to);
        self.notice(from, to);
        self.notice(to, from);
    }

    fn step_clock(&mut self, node: usize) {
        let by = self.mischief.whom.between(1, 2 * self.plan.faults.step_ms) as i64;
        self.nodes[node].clock.step((by - self.plan.faults.step_ms as i64) * 1_000);
    }

    fn flap(&mut self, node: usize) -> Checked {
        let peer = self.mischief.whom.below(self.nodes.len() as u64) as usize;
        let Some(life) = self.nodes[node].life.as_mut().filter(|_| peer != node) else { return Ok(()) };
        if life.links[peer].take().is_some() {
            life.told_up[peer] = false;
            let id = self.nodes[peer].id.clone();
            self.notice(node, peer);
            self.step(node, Input::PeerDown(id))?;
        }
        Ok(())
    }

    fn copy_disks(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if node.life.is_some() {
                (node.copy, node.copied) = (Some(node.disk.snapshot()), node.durable());
                let minted = |audit: &&Audit| audit.row(number).durable.units.minted > 0;
                node.copied_pools =
                    (0..self.audits.len()).filter(|pool| minted(&&self.audits[*pool])).collect();
            }
        }
    }

    fn lose(&mut self, node: usize) {
        self.crash(node);
        self.nodes[node].lost = true;
    }

    /// Puts an old copy back on some node of which every peer durably knows something newer.
    fn restore(&mut self) {
        let old: Vec<usize> = (0..self.nodes.len()).filter(|node| self.known_to_be_old(*node)).collect();
        // Best is one whose last grants are still under way: a peer may hear of them later.
        let granting = |node: &&usize| {
            let to = 0..self.nodes.len();
            self.audits
                .iter()
                .any(|audit| to.clone().any(|to| to != **node && audit.in_flight(**node, to) > 0))
        };
        let patient = self.now() < self.mischief.restoring.0 + 2 * SECOND;
        let chosen = old.iter().find(granting).copied().or_else(|| {
            let any = self.mischief.whom.pick(&old).copied();
            any.filter(|_| !patient)
        });
        let Some(node) = chosen else {
            return self.agenda.after(20 * MS, Event::Trouble(Trouble::Restore));
        };
        self.crash(node);
        let back = if self.mischief.coin() { 0 } else { -600_000_000 };
        let struck = &mut self.nodes[node];
        let image = struck.copy.take().expect("checked when it was chosen");
        struck.disk.restore(&image);
        struck.was_restored = true;
        struck.clock.forget();
        struck.clock.step(back);
        (0..self.plan.pools.len()).for_each(|pool| self.suspend(pool, node));
        let now = self.now();
        self.trace.note(now, "restore", &[node as u64], || {
            format!("an old disk is put into {}", self.nodes[node].id)
        });
        self.agenda.after(200 * MS, Event::Begin { node });
        for _ in 0..self.mischief.whom.below(4) {
            // Power is lost again before anybody has vouched for the disk.
            let soon = self.mischief.whom.between(210, 1_500) * MS;
            self.agenda.after(soon, Event::Trouble(Trouble::Again(node)));
        }
        self.agenda.after(self.plan.faults.operator, Event::Attest { node });
        self.restore_another();
    }

    /// The disk of another node is put back soon after one: perhaps before that one is attested.
    fn restore_another(&mut self) {
        let (_, more) = self.mischief.restoring;
        if more > 0 {
            let wait = self.mischief.restores.exponential(SECOND as f64) as Micros;
            self.mischief.restoring = (0, more - 1);
            self.agenda.after(wait, Event::Trouble(Trouble::Restore));
        }
    }

    /// From now on a node's rows of a pool mean nothing until an operator attests them.
    pub(super) fn suspend(&mut self, pool: usize, node: usize) {
        self.audits[pool].restored(node);
        self.oracle.restored(pool, node, &self.nodes[node].incarnations);
        self.attested[pool][node] = None;
    }

    /// Whether a node has a copy that every other node, whatever happens next, knows to be old.
    fn known_to_be_old(&self, node: usize) -> bool {
        let Some(_) = &self.nodes[node].copy else { return false };
        if self.nodes[node].was_restored || self.nodes[node].lost {
            return false;
        }
        if !(0..self.plan.pools.len()).all(|pool| self.is_known_elsewhere(node, pool)) {
            return false;
        }
        let id = &self.nodes[node].id;
        let mut peers = self.nodes.iter().enumerate().filter(|(peer, _)| *peer != node);
        peers.all(|(_, peer)| {
            let Some(life) = &peer.life else { return false };
            let witnessed = life.book.witnessed(id).map_or(0, |(_, number)| number);
            witnessed > self.nodes[node].copied.0
                && life.book.standing() != Standing::Unproven
                && life.quiet()
        })
    }

    /// Whether a pool would not be forgotten with a node's disk: nobody has minted it, or the copy or
    /// another node knows it. A pool that only lost disks knew can be created again, and nobody can tell:
    /// that is a limit of `durability=local`.
    fn is_known_elsewhere(&self, node: usize, pool: usize) -> bool {
        let name = &self.plan.pools[pool].bodies[0].name;
        let knows = |other: &Node| {
            other.id != self.nodes[node].id
                && other.life.as_ref().is_some_and(|life| life.book.class_of(name).is_some())
        };
        self.audits[pool].minted().is_none()
            || self.nodes[node].copied_pools.contains(&pool)
            || self.nodes.iter().any(knows)
    }

    fn day(&mut self) {
        let now = self.now();
        self.oracle.day_passed(now);
        self.ahead_ms += NIGHT.as_millis() as u64;
        self.nodes.iter_mut().for_each(|node| node.clock.step(NIGHT.as_micros() as i64));
        self.wake_all();
    }

    /// All wall clocks show the right time.
    pub(super) fn set_clocks(&mut self) {
        let now = self.now();
        let right = BEGINNING_MS + now / MS + self.ahead_ms;
        self.nodes.iter_mut().for_each(|node| node.clock.set(now, right));
    }

    /// Whatever was still held when the world healed expires: six minutes pass on all wall clocks.
    pub(super) fn expire_all(&mut self) -> Checked {
        self.ahead_ms += 360_000;
        self.set_clocks();
        // A hold that was asked for before may still be granted now.
        self.agenda.after(8 * SECOND, Event::Expire);
        self.wake_all();
        Ok(())
    }

    /// The machines' alarms are on the monotonic clock; after a step of all wall clocks everybody is
    /// looked at.
    fn wake_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].life.is_some() {
                self.agenda.after(MS, Event::Wake { node });
            }
        }
    }

    /// Cuts are mended, clocks set right, nodes started, and the weather becomes fine. Then buyers buy
    /// until nothing is left.
    pub(super) fn heal(&mut self) -> Checked {
        let now = self.now();
        self.trace.note(now, "heal", &[], || "everything heals".to_owned());
        self.healed = Some(now);
        self.check_levelled()?;
        self.net.heal();
        // Hybrid time does not go back, so the right time is from now on the latest that any node has
        // seen.
        let latest = self.nodes.iter().map(|node| node.clock.last().millis()).max().unwrap_or(0);
        self.ahead_ms = self.ahead_ms.max(latest.saturating_sub(BEGINNING_MS + now / MS) + 1);
        self.nodes.iter_mut().for_each(|node| node.stopped_until = 0);
        self.set_clocks();
        for node in 0..self.nodes.len() {
            self.agenda.after(10 * MS, Event::Begin { node });
            for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                self.notice(node, peer);
            }
        }
        self.wake_all();
        self.start_afresh();
        for customer in 0..self.customers.len() {
            self.agenda.after(300 * MS, Event::Act { customer });
        }
        self.agenda.after(4 * SECOND, Event::Expire);
        self.agenda.after(4 * SECOND + 200 * MS, Event::Survey);
        Ok(())
    }
}
