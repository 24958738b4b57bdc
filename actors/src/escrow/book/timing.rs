//! What is due: deadlines of pools and keys, beats, and what follows when a peer or this node's standing
//! changes.

use rhumb_core::{Mono, NodeId, Now, PoolName};
use rhumb_storage::Batch;

use super::{Book, Effect, Out, ROOM, persist};
use crate::escrow::messages::PeerMessage;
use crate::escrow::records::Records;

impl Book {
    pub(super) fn reachable(&mut self, now: Now, node: &NodeId, up: bool, out: &mut Out) {
        let before = self.custody.standing();
        let mut batch = Batch::new();
        if !self.custody.reachable(node, up, &mut batch) {
            return;
        }
        persist(batch, out);
        self.beat(now, out);
        if self.custody.standing() != before {
            self.standing_changed(now, out);
        }
        let shared: Vec<PoolName> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.lines.contains_key(node))
            .map(|(n, _)| n.clone())
            .collect();
        for name in shared {
            if let Some(pool) = self.pools.get_mut(&name).filter(|_| up) {
                pool.tell(node);
            }
            self.wake(&name, now.mono);
        }
        self.tick(now, out);
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Out) {
        let mut batch = Batch::new();
        self.custody.keep_witnesses(now.mono, &self.site.settings, &mut batch);
        persist(batch, out);
        self.beat(now, out);
        self.forget_keys(now, out);
        self.press_rounds(now, out);
        while out.room() > ROOM {
            let Some((at, name)) = self.timers.first().cloned() else { return };
            if at > now.mono {
                return;
            }
            self.timers.pop_first();
            if let Some(pool) = self.pools.get_mut(&name) {
                pool.wake = None;
            }
            let more = self.touch(now, &name, out);
            if more {
                return;
            }
        }
    }

    pub(super) fn beat(&mut self, now: Now, out: &mut Out) {
        for (to, beat) in self.custody.beats(now.mono, &self.site.settings) {
            out.send(Effect::Peer { to, message: PeerMessage::Beat(beat) });
        }
    }

    pub(super) fn forget_keys(&mut self, now: Now, out: &mut Out) {
        let mut batch = Batch::new();
        for _ in 0..self.site.chunk() {
            let Some(key) = self.keys.forget_next(now.hybrid) else { break };
            batch.forget_key(&key);
        }
        persist(batch, out);
    }

    /// The node's standing has changed: every pool's follows, and whoever waits is served or refused.
    pub(super) fn standing_changed(&mut self, now: Now, out: &mut Out) {
        let names: Vec<PoolName> = self.pools.keys().cloned().collect();
        for name in names {
            self.wake(&name, now.mono);
        }
        self.tick(now, out);
    }

    /// Does all that is due in a pool. Whether more of it is due at once.
    pub(super) fn touch(&mut self, now: Now, name: &PoolName, out: &mut Out) -> bool {
        let Some(pool) = self.pools.get_mut(name) else { return false };
        pool.standing = self.custody.standing_in(pool.ledger.counts().cleared);
        for (node, line) in &mut pool.lines {
            line.down = self.custody.is_down(node);
        }
        let more = self.expire(now, name, out);
        self.serve(now, name, out);
        self.level(now, name, out);
        self.reconcile(now, name, out);
        self.rearm(now, name);
        more
    }

    pub(super) fn rearm(&mut self, now: Now, name: &PoolName) {
        let Some(pool) = self.pools.get_mut(name) else { return };
        pool.ledger.assert_whole();
        pool.look_at_tail(&self.site.settings);
        if let Some(at) = pool.wake.take() {
            self.timers.remove(&(at, name.clone()));
        }
        pool.wake = pool.next_wake(now, &self.site.settings);
        if let Some(at) = pool.wake {
            self.timers.insert((at, name.clone()));
        }
    }

    pub(super) fn wake(&mut self, name: &PoolName, at: Mono) {
        let Some(pool) = self.pools.get_mut(name) else { return };
        if pool.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        if let Some(wake) = pool.wake.replace(at) {
            self.timers.remove(&(wake, name.clone()));
        }
        self.timers.insert((at, name.clone()));
    }
}
