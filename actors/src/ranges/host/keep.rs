//! What a host does again and again: it asks for support, looks after leases, and closes idle ranges.

use std::collections::BTreeMap;
use std::sync::Weak;

use openraft::AsyncRuntime;
use rhumb_core::effects::Release;
use rhumb_core::{Epoch, HybridTime, NodeId, StoreId};

use super::{Host, Inner, Supporting, Word};
use crate::ranges::lease::{Lease, Moment, Permit, RangeRefusal};
use crate::ranges::propose::SideClosed;
use crate::ranges::raft::Group;
use crate::ranges::replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::resting::Rest;
use crate::ranges::support::{Said, SupportMessage};

/// Rounds of the keeper after which something that was proposed and is not settled is overtaken, and after which a node whose clock
/// is frozen, or whose disk stands still, leads no more.
const PATIENCE: u32 = 10;
/// How often within a round of the keeper it looks after ranges whose lease is wanted here: nobody writes to them meanwhile.
const EAGER: u32 = 8;
/// Of so many rounds of the keeper it looks in one after a range that rests.
const SELDOM: u32 = 5;
/// Rounds of the keeper after which it looks again whether something is left to clear.
const SWEEPS: u32 = 100;

/// Leases that are wanted here.
#[derive(Default)]
struct Wanted {
    /// Of these ranges.
    ranges: Vec<RangeId>,
    /// What stores are to support no more for it: by whom, of whom, up to which epoch.
    withdraw: BTreeMap<(StoreId, StoreId), Epoch>,
}

impl<R: AsyncRuntime> Host<R> {
    /// Begins the timers.
    pub(super) fn keep(&self) {
        let (beats, keeps) = (std::sync::Arc::downgrade(&self.0), std::sync::Arc::downgrade(&self.0));
        drop(R::spawn(async move {
            while let Some(host) = of::<R>(&beats) {
                host.beat();
                let wait = host.0.settings.beat;
                drop(host);
                R::sleep(wait).await;
            }
        }));
        drop(R::spawn(async move {
            let (mut waited, mut rounds) = (BTreeMap::new(), 0_u32);
            while let Some(host) = of::<R>(&keeps) {
                rounds = rounds.wrapping_add(1);
                if rounds.is_multiple_of(SWEEPS) {
                    host.sweep();
                }
                let mut wanted = Wanted::default();
                for group in host.groups() {
                    // To one that rests nothing happens.
                    if group.ticks() || rounds.is_multiple_of(SELDOM) {
                        let waited = waited.entry(group.range()).or_insert(0);
                        host.look_after(&group, waited, &mut wanted).await;
                    }
                }
                host.withdraw(&wanted);
                host.close_beside().await;
                let mut wait = host.0.settings.keep;
                drop(host);
                if !wanted.ranges.is_empty() {
                    wait /= EAGER;
                    for _ in 1..EAGER {
                        R::sleep(wait).await;
                        let Some(host) = of::<R>(&keeps) else { return };
                        wanted = host.want_again(&wanted.ranges).await;
                    }
                }
                R::sleep(wait).await;
            }
        }));
    }

    /// Asks all stores for support.
    fn beat(&self) {
        if self.0.world.is_frozen() {
            return;
        }
        let stores: Vec<StoreId> = self.0.stores.lock().keys().copied().collect();
        {
            // Where hybrid time crawls, as the disk is slow, support is to last as long as ever.
            let now = self.passed();
            let Supporting { machine, out, .. } = &mut *self.0.supporting.lock();
            machine.beat(now, stores, out);
        }
        self.flush();
    }

    /// Another node tells something.
    pub async fn heard(&self, node: &NodeId, word: Word) {
        match word {
            Word::Support { from, to, said } => {
                // A store's word comes from its own node.
                if to != self.0.store || self.0.stores.lock().get(&from) != Some(node) {
                    return;
                }
                self.supported(from, said);
            }
            Word::Closed(all) => {
                for said in all {
                    let Some(group) = self.group(said.range) else { continue };
                    let mut replica = group.replica().await;
                    let holder = replica.lease().holder;
                    let by = holder.and_then(|holder| replica.descriptor().seat(holder));
                    if by.is_some_and(|seat| seat.node == *node) || replica.lease().seq < said.lease {
                        replica.hear(said);
                        let has_all =
                            replica.lease().seq == said.lease && replica.applied().order >= said.order;
                        let last = group.last().filter(|last| has_all && group.applied() == Some(*last));
                        let mut resting = self.0.resting.lock();
                        resting.entry(said.range).or_default().hears(self.0.world.now(), said.rests, last);
                    }
                }
            }
            Word::Compared { range, replica, index, digest } => {
                self.heard_digest(node, range, (replica, index), digest).await;
            }
            Word::Odd { range, replica, index } => self.heard_odd(node, range, replica, index).await,
            Word::Suspect { range, is, .. } => self.suspects(range, is),
            Word::Quarantined { range, replica } => self.heard_quarantined(node, range, replica).await,
            Word::Doubted { range, replica } => self.heard_doubted(node, range, replica).await,
            Word::MayStop { range, replica } => self.heard_may_stop(node, range, replica).await,
        }
    }

    fn supported(&self, from: StoreId, said: SupportMessage) {
        {
            let now = self.0.world.now();
            let Supporting { machine, out, .. } = &mut *self.0.supporting.lock();
            machine.heard(now, from, said, out);
        }
        self.flush();
    }

    /// Makes durable what support wants kept, and says what may be said.
    pub(super) fn flush(&self) {
        let (mut kept, mut said) = (Vec::new(), Vec::new());
        {
            let Supporting { out, barrier, .. } = &mut *self.0.supporting.lock();
            barrier.absorb(out, |release| match release {
                Release::Persist(ticket, batch) => kept.push((ticket, batch)),
                Release::Perform(what) => said.push(what),
            });
        }
        self.say(said);
        if kept.is_empty() {
            return;
        }
        let host = self.clone();
        drop(R::spawn(async move {
            for (ticket, batch) in kept {
                let (done, heard) = futures::channel::oneshot::channel();
                let wrote = Box::new(move |outcome| drop(done.send(outcome)));
                host.0.around.disk.durably(batch, wrote).await;
                match heard.await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return host.0.world.halt(format!("support of stores: {error}")),
                    Err(_) => return,
                }
                let mut said = Vec::new();
                host.0.supporting.lock().barrier.durable(ticket, |what| said.push(what));
                host.say(said);
            }
        }));
    }

    fn say(&self, said: Vec<Said>) {
        for (to, said) in said {
            if to == self.0.store {
                self.supported(to, said);
                continue;
            }
            let node = self.0.stores.lock().get(&to).cloned();
            if let Some(node) = node {
                self.0.world.tell(&node, Word::Support { from: self.0.store, to, said });
            }
        }
    }

    /// Has the lease where the leader is, or the leader where the lease is.
    async fn look_after(&self, group: &Group<R>, waited: &mut u32, wanted: &mut Wanted) {
        if let Some(why) = group.stopped() {
            let range = group.range().0;
            // One that was cleared away meanwhile was stopped on purpose.
            if self.group(group.range()).is_none_or(|here| here.id() != group.id()) {
                return;
            }
            if self.stopped_by_damage(group) {
                return;
            }
            return self.0.world.halt(format!("replica {} of range {range} has stopped: {why}", group.id()));
        }
        if !group.leads() {
            *waited = 0;
            return;
        }
        let (descriptor, lease, permit, waits) = self.stands(group).await;
        match permit {
            Ok(_) if waits && *waited >= PATIENCE => {
                *waited = 0;
                self.overtake(group);
            }
            Ok(_) => {
                *waited = if waits { *waited + 1 } else { 0 };
                self.seat(group).await;
            }
            // What was to give the lease away may never come into the log: then it is taken anew.
            Err(RangeRefusal::Transferring) if *waited < PATIENCE => *waited += 1,
            // Leases are taken in the log: who leads and proposes nothing stands in the way of all.
            // Who leads needs no disk for that, and has no lease without one: heartbeats alone keep others from being elected.
            Err(_) if self.0.world.is_frozen() || self.disk_stands() => {
                *waited += 1;
                if *waited >= PATIENCE {
                    *waited = 0;
                    self.hand_over(group, &descriptor, lease.holder).await;
                }
            }
            Err(_) => self.want_lease(group, &descriptor, &lease, wanted).await,
        }
    }

    /// Whether this node's disk has taken nothing for so long that no lease is left to it.
    fn disk_stands(&self) -> bool {
        self.0.supporting.lock().machine.disk_stands(self.0.settings.beat)
    }

    /// How a replica's range and lease stand, whether the lease is in force here, and whether something that was proposed is not settled.
    async fn stands(&self, group: &Group<R>) -> (Descriptor, Lease, Result<Permit, RangeRefusal>, bool) {
        let replica = group.replica().await;
        let descriptor = replica.descriptor().clone();
        let moment = self.moment(&descriptor);
        (descriptor, *replica.lease(), replica.permit(&moment), replica.waits())
    }

    /// Looks again after ranges whose lease is to be taken as soon as its holder is not supported any more.
    async fn want_again(&self, ranges: &[RangeId]) -> Wanted {
        let mut wanted = Wanted::default();
        for group in ranges.iter().filter_map(|range| self.group(*range)) {
            if group.stopped().is_some() || !group.leads() || self.0.world.is_frozen() {
                continue;
            }
            let (descriptor, lease, permit, _) = self.stands(&group).await;
            if permit.is_err_and(|refusal| refusal != RangeRefusal::Transferring) {
                self.want_lease(&group, &descriptor, &lease, &mut wanted).await;
            }
        }
        self.withdraw(&wanted);
        wanted
    }

    /// Asks stores to support others no more.
    fn withdraw(&self, wanted: &Wanted) {
        let ask =
            |(&(by, of), &epoch): (&(StoreId, StoreId), &Epoch)| (by, SupportMessage::Withdraw { of, epoch });
        self.say(wanted.withdraw.iter().map(ask).collect());
    }

    async fn want_lease(
        &self,
        group: &Group<R>,
        descriptor: &Descriptor,
        lease: &Lease,
        wanted: &mut Wanted,
    ) {
        let Lease { holder, store: of, .. } = *lease;
        let witnesses = self.0.supporting.lock().machine.witnesses(of);
        let me = self.0.store;
        let (took, epoch) = {
            let replica = group.replica().await;
            let moment = self.moment(descriptor);
            (replica.take_lease(&moment, me, &witnesses), replica.lease().epoch)
        };
        match took {
            Ok(command) => {
                let group = group.clone();
                // Whoever keeps leases does not wait for consensus.
                drop(R::spawn(async move { group.propose(|_| Ok(command)).await }));
            }
            Err(RangeRefusal::HolderIsSupported) => {
                let promised = self.0.supporting.lock().machine.promised(of);
                let alive = promised.epoch == epoch && promised.until >= self.0.world.now();
                // One that has stopped gives no lease back, however well its store is.
                let alive = alive && holder.is_none_or(|holder| !self.is_out(group.range(), holder));
                match holder {
                    // One that is far behind comes near first: who gives the lead away proposes nothing any more.
                    Some(holder) if alive && holder != group.id() => {
                        if group.is_near(holder) {
                            group.give_lead(holder).await;
                        }
                    }
                    _ => {
                        wanted.ranges.push(group.range());
                        for by in descriptor.stores() {
                            let upto = wanted.withdraw.entry((by, of)).or_insert(epoch);
                            *upto = epoch.max(*upto);
                        }
                    }
                }
            }
            // Consensus takes a replica among its voters before leases do, and lets it go after them.
            Err(RangeRefusal::NoVote | RangeRefusal::Quarantined) => {
                self.hand_over(group, descriptor, holder).await
            }
            Err(_) => {}
        }
    }

    /// Has another replica lead that can hold the lease: whoever holds it, if that one can.
    async fn hand_over(&self, group: &Group<R>, descriptor: &Descriptor, holder: Option<ReplicaId>) {
        let voter = {
            let (now, supporting) = (self.passed(), self.0.supporting.lock());
            let can = |seat: &&Seat| {
                let heard = supporting.machine.promised(seat.store).until >= now;
                let out = self.is_out(group.range(), seat.replica);
                seat.votes && seat.replica != group.id() && heard && !out && group.is_near(seat.replica)
            };
            let voters = descriptor.seats.iter().filter(can);
            voters.max_by_key(|seat| Some(seat.replica) == holder).map(|seat| seat.replica)
        };
        if let Some(voter) = voter {
            group.give_lead(voter).await;
        }
    }

    /// Puts a command into the log that does nothing, so that what came before it is settled.
    fn overtake(&self, group: &Group<R>) {
        let (host, group) = (self.clone(), group.clone());
        drop(R::spawn(async move {
            let proposed = group.propose(|replica| {
                let moment = host.moment(replica.descriptor());
                replica.propose_threshold(&moment, HybridTime::ZERO)
            });
            proposed.await
        }));
    }

    /// Closes ranges beside their logs, and has consensus tick where they do not rest.
    async fn close_beside(&self) {
        let mut closed: BTreeMap<NodeId, Vec<SideClosed>> = BTreeMap::new();
        for group in self.groups() {
            let mut replica = group.replica().await;
            let moment = self.moment(replica.descriptor());
            let rest = self.rests(&group, &replica, &moment);
            group.tick(rest.ticks);
            let Some(said) = replica.close_beside(&moment, rest.says) else { continue };
            let seats = replica.descriptor().seats.iter().filter(|seat| seat.store != self.0.store);
            for seat in seats {
                closed.entry(seat.node.clone()).or_default().push(said);
            }
        }
        for (node, said) in closed {
            self.0.world.tell(&node, Word::Closed(said));
        }
        self.0.resting.lock().retain(|range, _| self.group(*range).is_some());
    }

    /// Whether a replica rests.
    fn rests(&self, group: &Group<R>, replica: &RangeReplica, moment: &Moment) -> Rest {
        let settings = &self.0.settings.rests;
        let mut resting = self.0.resting.lock();
        let resting = resting.entry(group.range()).or_default();
        let awake = Rest { says: false, ticks: true };
        let lease = replica.lease();
        let Some(last) = group.last().filter(|_| !moment.frozen) else {
            resting.wakes();
            return awake;
        };
        if lease.holder == Some(group.id()) {
            // Nobody would be elected in its place.
            if !group.leads() || group.gives_lead() || replica.permit(moment).is_err() {
                resting.wakes();
                return awake;
            }
            let calm =
                || !replica.waits() && self.is_seated(group, replica.descriptor()) && group.all_have(last);
            return resting.holds(settings, moment.now, last, calm);
        }
        let promised = self.0.supporting.lock().machine.promised(lease.store);
        let alive = !group.leads() && promised.epoch == lease.epoch && promised.until >= moment.now;
        let ticks = resting.follows(settings, moment.now, last, alive);
        Rest { says: false, ticks }
    }

    /// How many replicas here rest.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.groups().iter().filter(|group| !group.ticks()).count()
    }
}

pub(super) fn of<R: AsyncRuntime>(weak: &Weak<Inner<R>>) -> Option<Host<R>> {
    weak.upgrade().map(Host)
}
