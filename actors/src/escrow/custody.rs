//! Whether this node's disk may be believed: the restored-disk rule, from both sides.
//!
//! A backup that is put back, or an emptied directory, knows of rights that were spent since. So a
//! node tells its peers how far its disk has come, they remember that durably, and a node that starts
//! spends nothing until they have said that they know of nothing newer.
//!
//! * It decides: this node's standing; what this node answers of others; when to say either.
//! * It never does: believe its own disk without a peer (unless it is the only node there is), or let
//!   what it wrote while it was not believed count in its own favour.
//! * Invariant: a plain beat leaves only when the standing `Proven` is durable, and only toward peers
//!   that have answered in this life. So a peer's record never contains what the present life, not
//!   yet believed there, has written; and an answer above what the disk knew means an older disk.
//! * Limits: a copy younger than the last beat that was written down at a peer passes, unless a peer
//!   has accepted or knows something that the copy does not. A pool of which no other node has ever
//!   heard is lost with the disk that minted it: nobody is left to say that its name was used.

use std::collections::BTreeMap;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Incarnation, Mono, NodeId, Now, StoreId};
use rhumb_storage::{Batch, CommitNumber};

use super::messages::{Beat, Standing, Witnessed};
use super::records::{NodeRow, Proof, Records, WitnessRow};
use super::settings::EscrowSettings;

/// Whether a peer can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reach {
    /// Nobody knows yet: it may well be reachable, and know of something newer.
    #[default]
    Untried,
    Up,
    Down,
}

/// How far a peer has vouched for this node, in this life.
#[derive(Debug, Default)]
struct Voucher {
    reach: Reach,
    answered: bool,
    sent: Option<Mono>,
}

/// What this node knows of a peer's disk.
#[derive(Debug)]
struct Witness {
    row: WitnessRow,
    /// What of it is durable, and since when.
    written: Option<(WitnessRow, Mono)>,
}

/// One node's standing, and what it knows of the others'.
#[derive(Debug)]
pub(crate) struct Custody {
    store: StoreId,
    node: NodeRow,
    /// What to prove: the commit at which the disk was opened, and its last believed life.
    pending: (u64, Incarnation),
    peers: BTreeMap<NodeId, Voucher>,
    witnesses: BTreeMap<NodeId, Witness>,
    durable: u64,
}

impl Custody {
    /// A new life on a disk that was opened at a commit.
    pub(crate) fn recovered(
        store: StoreId,
        before: Option<NodeRow>,
        witnessed: BTreeMap<NodeId, WitnessRow>,
        peers: Vec<NodeId>,
        opened: CommitNumber,
        now: Now,
    ) -> Self {
        let last = before.as_ref().map_or(Incarnation(0), |row| row.life);
        let life = Incarnation(last.next().0.max(now.hybrid.millis()));
        let floor = before.as_ref().and_then(|row| row.floor);
        let keys_from = before.as_ref().map_or(0, |row| row.keys_from);
        let (proof, pending, floor) = match before.map(|row| row.proof) {
            // An interrupted proof is not improved by what was written since.
            Some(Proof::Pending { number, life }) => {
                let number = number.min(opened.0);
                (Proof::Pending { number, life }, (number, life), floor)
            }
            // A restored disk may have been restored once more: what was attested is asked again.
            Some(Proof::Restored) => (Proof::Restored, (opened.0, last), Some(life)),
            Some(Proof::Proven) | None => {
                (Proof::Pending { number: opened.0, life: last }, (opened.0, last), floor)
            }
        };
        let witnesses = witnessed
            .into_iter()
            .map(|(node, row)| (node, Witness { written: Some((row.clone(), now.mono)), row }))
            .collect();
        Self {
            store,
            node: NodeRow { life, proof, floor, keys_from },
            pending,
            peers: peers.into_iter().map(|node| (node, Voucher::default())).collect(),
            witnesses,
            durable: opened.0,
        }
    }

    /// Writes the new life. Alone in the world, a node has nobody to ask.
    pub(crate) fn start(&mut self, batch: &mut Batch) {
        let believed = self.peers.is_empty() || canary::sings(Canary::RestoredDiskSpends);
        if believed && matches!(self.node.proof, Proof::Pending { .. }) {
            self.node.proof = Proof::Proven;
        }
        if canary::sings(Canary::RestoredDiskSpends) {
            self.peers.values_mut().for_each(|peer| peer.answered = true);
        }
        batch.put_node(&self.node);
    }

    /// The highest commit known durable.
    pub(crate) fn durable(&mut self, number: CommitNumber) {
        self.durable = self.durable.max(number.0);
    }

    pub(crate) fn life(&self) -> Incarnation {
        self.node.life
    }

    pub(crate) fn floor(&self) -> Option<Incarnation> {
        self.node.floor
    }

    /// The node's standing for what is not a pool it knows.
    pub(crate) fn standing(&self) -> Standing {
        match self.node.proof {
            Proof::Pending { .. } => Standing::Unproven,
            Proof::Proven => Standing::Proven,
            Proof::Restored if canary::sings(Canary::RestoredDiskSpends) => Standing::Proven,
            Proof::Restored => Standing::Restored,
        }
    }

    /// The node's standing in a pool whose row is whole since a given restoration. A pool that the lost
    /// disk may have known must be attested, also when the node hears of it only later.
    pub(crate) fn standing_in(&self, cleared: Option<Incarnation>) -> Standing {
        if self.standing() == Standing::Unproven || canary::sings(Canary::RestoredDiskSpends) {
            return self.standing();
        }
        let whole = self.node.floor.is_none() || cleared == self.node.floor;
        if whole { Standing::Proven } else { Standing::Restored }
    }

    /// Since which restoration the row of a pool is whole that this node first hears of now. When the
    /// node was last attested, every peer named every pool it knew; so another one is truly new.
    pub(crate) fn clears_new(&self) -> Option<Incarnation> {
        self.node.floor.filter(|_| self.standing() == Standing::Proven)
    }

    /// Whether a key made then may be one that a lost disk knew.
    pub(crate) fn may_have_lost(&self, created_ms: u64) -> bool {
        created_ms < self.node.keys_from
    }

    // ---- proving this node's own disk ----------------------------------------------------------

    /// A peer can be reached, or no longer. Whether that is news.
    pub(crate) fn reachable(&mut self, peer: &NodeId, up: bool, batch: &mut Batch) -> bool {
        let reach = if up { Reach::Up } else { Reach::Down };
        let Some(voucher) = self.peers.get_mut(peer).filter(|voucher| voucher.reach != reach) else {
            return false;
        };
        voucher.reach = reach;
        if up {
            voucher.sent = None;
        }
        self.conclude(batch);
        true
    }

    pub(crate) fn is_down(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).is_some_and(|voucher| voucher.reach != Reach::Up)
    }

    /// What a peer knows of this node's disk.
    pub(crate) fn answered(&mut self, from: &NodeId, said: &Witnessed, batch: &mut Batch) {
        let Some(voucher) = self.peers.get_mut(from) else { return };
        if said.store != self.store || said.incarnation != self.node.life || voucher.answered {
            return;
        }
        voucher.answered = true;
        let (number, life) = self.pending;
        // Numbers of one life are comparable; what a lost life has reached says nothing of a later one.
        if said.life > life || (said.life == life && said.highest > number) {
            self.restored(batch);
        } else {
            self.conclude(batch);
        }
    }

    /// This node's disk is older than what a peer has seen of it.
    pub(crate) fn restored(&mut self, batch: &mut Batch) {
        if canary::sings(Canary::RestoredDiskSpends) {
            return;
        }
        self.node.proof = Proof::Restored;
        self.node.floor = Some(self.node.life);
        batch.put_node(&self.node);
    }

    /// A restored node turns out to have had a later life than this one is (its clock was set back): it
    /// begins another. Whether it does.
    pub(crate) fn outlived(&mut self, seen: Incarnation, batch: &mut Batch) -> bool {
        if seen < self.node.life {
            return false;
        }
        self.node.life = seen.next();
        self.restored(batch);
        true
    }

    /// A pool was attested at this time: keys made before it may have been lost.
    pub(crate) fn attested_one(&mut self, now: Now, batch: &mut Batch) {
        self.node.keys_from = self.node.keys_from.max(now.hybrid.millis());
        batch.put_node(&self.node);
    }

    /// Every pool was attested, with every peer's answer.
    pub(crate) fn attested_all(&mut self, batch: &mut Batch) {
        self.node.proof = Proof::Proven;
        self.peers.values_mut().for_each(|peer| peer.answered = true);
        batch.put_node(&self.node);
    }

    fn conclude(&mut self, batch: &mut Batch) {
        let asked = matches!(self.node.proof, Proof::Pending { .. });
        let any = self.peers.values().any(|peer| peer.answered);
        let every = self.peers.values().all(|peer| peer.answered || peer.reach == Reach::Down);
        if asked && any && every {
            self.node.proof = Proof::Proven;
            batch.put_node(&self.node);
        }
    }

    // ---- beats ---------------------------------------------------------------------------------

    /// The beats that are due. A peer that has not answered is asked, also when others have: a worse
    /// answer that comes late still counts.
    pub(crate) fn beats(&mut self, now: Mono, settings: &EscrowSettings) -> Vec<(NodeId, Beat)> {
        let proof = self.node.proof;
        let mut beats = Vec::new();
        for (node, peer) in &mut self.peers {
            let Some(every) = spacing(proof, peer, settings) else { continue };
            if peer.sent.is_some_and(|sent| now < sent.plus(every)) {
                continue;
            }
            peer.sent = Some(now);
            let prove = !peer.answered;
            let durable = if prove { self.pending.0 } else { self.durable };
            let beat = Beat { store: self.store, incarnation: self.node.life, durable, prove };
            beats.push((node.clone(), beat));
        }
        beats
    }

    pub(crate) fn next_beat(&self, settings: &EscrowSettings) -> Option<Mono> {
        let due = |peer: &Voucher| {
            let every = spacing(self.node.proof, peer, settings)?;
            Some(peer.sent.map_or(Mono::default(), |sent| sent.plus(every)))
        };
        let written = self.witnesses.values().filter_map(|witness| witness.due(settings));
        self.peers.values().filter_map(due).chain(written).min()
    }

    // ---- vouching for others -------------------------------------------------------------------

    /// A peer says how far its disk has come, or asks what is known of it.
    pub(crate) fn beat(
        &mut self,
        now: Mono,
        from: &NodeId,
        beat: &Beat,
        settings: &EscrowSettings,
        batch: &mut Batch,
    ) -> Option<Witnessed> {
        if beat.prove {
            let row = self.witnesses.get(from).map(|witness| &witness.row);
            return Some(Witnessed {
                store: beat.store,
                incarnation: beat.incarnation,
                highest: row.map_or(0, |row| row.highest),
                life: row.map_or(Incarnation(0), |row| row.life),
            });
        }
        let witness = self.witness(from, beat.store);
        let row = &mut witness.row;
        if beat.incarnation > row.life {
            (row.store, row.life, row.highest) = (beat.store, beat.incarnation, beat.durable);
        } else if beat.incarnation == row.life {
            row.highest = row.highest.max(beat.durable);
        }
        if witness.due(settings).is_some_and(|at| at <= now) {
            witness.write(now, from, batch);
        }
        None
    }

    /// Writes down what was seen of peers and could not be written when it was: at most one write a
    /// beat and peer.
    pub(crate) fn keep_witnesses(&mut self, now: Mono, settings: &EscrowSettings, batch: &mut Batch) {
        for (peer, witness) in &mut self.witnesses {
            if witness.due(settings).is_some_and(|at| at <= now) {
                witness.write(now, peer, batch);
            }
        }
    }

    /// From now on a peer's earlier lives are not believed.
    pub(crate) fn disown(&mut self, now: Mono, from: &NodeId, before: Incarnation, batch: &mut Batch) {
        let store = self.store;
        let witness = self.witness(from, store);
        if witness.row.refuse_before < before {
            witness.row.refuse_before = before;
            witness.write(now, from, batch);
        }
    }

    /// What would be answered of a peer, whatever happens to this node meanwhile.
    pub(crate) fn witnessed(&self, peer: &NodeId) -> Option<(Incarnation, u64)> {
        let (row, _) = self.witnesses.get(peer)?.written.as_ref()?;
        Some((row.life, row.highest))
    }

    /// Whether what this life of a peer granted is refused.
    pub(crate) fn refuses(&self, from: &NodeId, life: Incarnation) -> bool {
        self.witnesses.get(from).is_some_and(|witness| life < witness.row.refuse_before)
    }

    fn witness(&mut self, peer: &NodeId, store: StoreId) -> &mut Witness {
        self.witnesses.entry(peer.clone()).or_insert_with(|| Witness {
            row: WitnessRow { store, life: Incarnation(0), highest: 0, refuse_before: Incarnation(0) },
            written: None,
        })
    }
}

impl Witness {
    /// When what is known and not written is to be written: a new life at once, a higher number at most
    /// once a beat.
    fn due(&self, settings: &EscrowSettings) -> Option<Mono> {
        match &self.written {
            None => Some(Mono::default()),
            Some((written, _)) if *written == self.row => None,
            Some((written, _)) if written.life != self.row.life => Some(Mono::default()),
            Some((_, at)) => Some(at.plus(settings.beat)),
        }
    }

    fn write(&mut self, now: Mono, peer: &NodeId, batch: &mut Batch) {
        batch.put_witness(peer, &self.row);
        self.written = Some((self.row.clone(), now));
    }
}

/// How often a peer is told or asked; `None`: not at all.
fn spacing(proof: Proof, peer: &Voucher, settings: &EscrowSettings) -> Option<std::time::Duration> {
    match proof {
        Proof::Pending { .. } => (!peer.answered).then_some(settings.prove),
        Proof::Proven => Some(settings.beat),
        // What a restored disk has to say is of no use to anybody until it is attested.
        Proof::Restored => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(region: &str) -> NodeId {
        NodeId::new(region, "n1").expect("valid")
    }

    fn started() -> Custody {
        let peers = vec![node("eu"), node("us")];
        let mut custody =
            Custody::recovered(StoreId(1), None, BTreeMap::new(), peers, CommitNumber(50), Now::default());
        custody.start(&mut Batch::new());
        custody
    }

    fn answer(custody: &mut Custody, from: &str, highest: u64) {
        let (life, store) = (custody.life(), StoreId(1));
        let said = Witnessed { store, incarnation: life, highest, life: Incarnation(0) };
        custody.answered(&node(from), &said, &mut Batch::new());
    }

    #[test]
    fn a_peer_that_nobody_has_tried_to_reach_yet_may_know_better() {
        let mut custody = started();
        assert!(custody.reachable(&node("eu"), true, &mut Batch::new()));
        answer(&mut custody, "eu", 50);
        assert_eq!(custody.standing(), Standing::Unproven, "us has not been tried");
        assert!(custody.reachable(&node("us"), true, &mut Batch::new()));
        answer(&mut custody, "us", 51);
        assert_eq!(custody.standing(), Standing::Restored, "us has seen a later disk");
    }

    #[test]
    fn a_peer_that_was_tried_and_cannot_be_reached_is_not_waited_for() {
        let mut custody = started();
        assert!(custody.reachable(&node("eu"), true, &mut Batch::new()));
        answer(&mut custody, "eu", 50);
        assert!(custody.reachable(&node("us"), false, &mut Batch::new()));
        assert_eq!(custody.standing(), Standing::Proven);
        assert!(!custody.reachable(&node("us"), false, &mut Batch::new()), "told again, it is no news");
    }
}
