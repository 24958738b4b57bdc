//! What becomes of a node and of its disk: stopped, started, put back, emptied.

use super::*;

impl World {
    pub(super) fn stop(&mut self, name: &str, power_cut: bool) {
        let id = node_id(name);
        let node = self.nodes.get_mut(&id).expect("a node");
        node.life = None;
        if power_cut {
            node.stalled = false;
            node.disk.crash(&mut Seed::new(1).child("crash").rng());
        }
        self.callers.retain(|(at, _), _| *at != id);
        self.net.retain(|_, (to, _)| *to != id);
        for other in self.others(&id) {
            self.step(&other, Input::PeerDown(id.clone()));
        }
    }

    pub(super) fn start(&mut self, id: &NodeId) {
        let now = self.time(id);
        let node = self.nodes.get_mut(id).expect("a node");
        let store = Store::open(MemoryEngine::open(&node.disk)).expect("the disk is sound");
        let mut records = Vec::new();
        let all = store.scan(Family::Escrow, b"", |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            true
        });
        all.expect("the disk is sound");
        let (founding, settings) = (self.founding.clone(), self.settings.clone());
        let opened = store.durable();
        let book =
            Book::recover(id.clone(), founding, node.store, settings, records.into_iter(), opened, now);
        let book = book.expect("the records are sound");
        let seed = Seed::new(node.store.0 as u64).child(book.life().0.to_be_bytes());
        node.life = Some(Life { book, barrier: Barrier::default(), store, unwritten: VecDeque::new() });
        self.act(id, |book, out| book.start(now, &seed, out));
        for other in self.others(id) {
            if self.nodes[&other].life.is_some() && !self.cut.contains(&(id.clone(), other.clone())) {
                self.step(&other, Input::PeerUp(id.clone()));
                self.step(id, Input::PeerUp(other));
            } else {
                self.step(id, Input::PeerDown(other));
            }
        }
    }

    /// Puts an older copy of a node's disk in place of what it has.
    pub(super) fn restore(&mut self, name: &str, copy: &str) {
        self.stop(name, false);
        self.lost_disk = true;
        let node = self.node(name);
        node.disk.restore(&node.copies[copy]);
        self.start(&node_id(name));
    }

    /// Gives a node a new, empty disk.
    pub(super) fn empty(&mut self, name: &str) {
        self.stop(name, false);
        self.lost_disk = true;
        let node = self.node(name);
        node.disk = MemoryDisk::tearing(Tear::LoseAll);
        node.store = StoreId(node.store.0 + 100);
        self.start(&node_id(name));
    }
}
