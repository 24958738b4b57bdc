//! Passing calls on: which node is asked first, of several that may answer.
//!
//! * It decides: what is known of the ways to other nodes and of who has not answered; the order is [`near`]'s.
//! * It never does: leave a node out, or ask again what may have been written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::ranges::Seat;
use rhumb_actors::ranges::messages::{KvAnswer, KvRead, KvRefusal};
use rhumb_actors::remote::Remote;
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, NodeId};
use rhumb_transport::LinkState;
use tokio::time::Instant;

use super::route::{AGAIN_AFTER, Outcome};
use super::{Ranges, not_now};
use crate::mesh::near::{self, ALONE, Candidate};

/// How often a call is passed on.
pub(super) const MAX_HOPS: u32 = 4;

/// How long one that has not answered is asked last.
const RESTS: Duration = Duration::from_secs(5);
/// How often connections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The round trips of connections, and whether each takes calls.
type Ways = BTreeMap<NodeId, (Option<Duration>, bool)>;

/// What is known of the ways to other nodes.
#[derive(Debug, Default)]
pub(super) struct Nearness {
    ways: Mutex<Option<(Instant, Ways)>>,
    /// Who has not answered, and until when it is asked last.
    resting: Mutex<BTreeMap<NodeId, Instant>>,
    turn: AtomicUsize,
}

impl Nearness {
    /// A read or a question to a node has ended so, which had so much time. With less than [`ALONE`] nothing is known of a node that has not
    /// answered.
    pub(super) fn went(&self, node: &NodeId, fault: Option<&Fault>, had: Duration, now: Instant) {
        let mut resting = self.resting.lock();
        match fault {
            Some(fault) if fault.delivery() == Delivery::Unknown && had >= ALONE => {
                resting.insert(node.clone(), now + RESTS);
            }
            Some(fault) if fault.delivery() != Delivery::Ran => {}
            _ => {
                resting.remove(node);
            }
        }
    }

    /// What is known of a node.
    fn candidate(&self, node: &NodeId, ways: &Ways, now: Instant) -> Candidate {
        let (rtt, takes_calls) = ways.get(node).copied().unwrap_or_default();
        let rests = self.resting.lock().get(node).is_some_and(|until| now < *until);
        Candidate { node: node.clone(), rtt, is_well: takes_calls && !rests }
    }
}

impl Ranges {
    /// Where replicas stand, the nearest first, by measured round trips; those that are as near take turns, and who is not connected or
    /// has not answered lately comes last.
    pub(super) fn nearest(&self, seats: &[Seat]) -> Vec<NodeId> {
        let (me, now, known) = (&self.0.parts.me, Instant::now(), &self.0.nearness);
        let mut looked = known.ways.lock();
        let (_, ways) = match looked.as_mut() {
            Some(looked) if now.duration_since(looked.0) < LOOK_EVERY => looked,
            _ => looked.insert((now, self.ways())),
        };
        let candidates = seats.iter().map(|seat| known.candidate(&seat.node, ways, now)).collect();
        let turn = known.turn.fetch_add(1, Ordering::Relaxed);
        near::order(Some(me), &me.region, candidates, turn)
    }

    fn ways(&self) -> Ways {
        let links = self.0.parts.mesh.transport().map(|transport| transport.links()).unwrap_or_default();
        links.into_iter().map(|link| (link.peer, (link.rtt, link.state == LinkState::Connected))).collect()
    }

    /// Asks the first of these nodes that can be asked. None: nobody was, and it may be tried again.
    pub(super) async fn pass_on<M, T>(
        &self,
        to: &[NodeId],
        message: &M,
        hops: u32,
        class: &DataClass,
        until: Instant,
    ) -> Option<Outcome<T>>
    where
        M: Remote<Reply = Result<T, KvRefusal>>,
    {
        self.pass_on_within(to, message, hops, class, (until, None)).await
    }

    /// As [`Ranges::pass_on`], of a read: a node does not have all the time of which another one may be asked after it.
    pub(super) async fn pass_read_on(
        &self,
        to: &[NodeId],
        message: &KvRead,
        class: &DataClass,
        until: Instant,
    ) -> Option<Outcome<KvAnswer>> {
        self.pass_on_within(to, message, message.hops - 1, class, (until, Some(ALONE))).await
    }

    async fn pass_on_within<M, T>(
        &self,
        to: &[NodeId],
        message: &M,
        hops: u32,
        class: &DataClass,
        (until, alone): (Instant, Option<Duration>),
    ) -> Option<Outcome<T>>
    where
        M: Remote<Reply = Result<T, KvRefusal>>,
    {
        if hops >= MAX_HOPS {
            return Some(Ok(Err(not_now("the nodes do not agree on who holds the lease"))));
        }
        let others: Vec<&NodeId> = to.iter().filter(|node| **node != self.0.parts.me).collect();
        for (at, node) in others.iter().enumerate() {
            let mut left = until.saturating_duration_since(Instant::now());
            if at + 1 < others.len() {
                left = left.min(alone.unwrap_or(left));
            }
            let asked = self.0.parts.mesh.ask_node(node, message, class.clone(), left).await;
            // A write may wait for others, long, at a node that is well.
            if M::IDEMPOTENT || asked.is_ok() {
                self.0.nearness.went(node, asked.as_ref().err(), left, Instant::now());
            }
            match asked {
                // It said that it did nothing, and the lease may move meanwhile.
                Ok((Err(KvRefusal::NotNow { .. }), _)) if Instant::now() + AGAIN_AFTER < until => {}
                Ok((answer, _)) => return Some(Ok(answer)),
                Err(fault) if fault.delivery() == rhumb_core::Delivery::NotSent => {
                    if matches!(fault.kind, FaultKind::Gate(_)) {
                        return Some(Err(fault));
                    }
                }
                // A read that may have been made is made again.
                Err(_) if M::IDEMPOTENT && Instant::now() < until => {}
                Err(fault) => return Some(Err(fault)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_answered_is_unwell_for_a_while_or_until_it_answers() {
        let (known, begun): (_, Instant) = (Nearness::default(), Instant::now());
        let node: NodeId = "eu/n1".parse().expect("a node");
        let ways = BTreeMap::from([(node.clone(), (Some(Duration::from_millis(3)), true))]);
        let is_well = |at: Duration| known.candidate(&node, &ways, begun + at).is_well;
        assert!(is_well(Duration::ZERO));
        let lost = Fault::unknown(FaultKind::Deadline("waiting".to_owned()));
        known.went(&node, Some(&lost), ALONE / 2, begun);
        assert!(is_well(Duration::ZERO), "it had no time to answer");
        known.went(&node, Some(&lost), ALONE, begun);
        assert!(!is_well(RESTS - Duration::from_millis(1)) && is_well(RESTS), "it is tried again");
        // What was not sent says nothing of whether it answers; that it is not connected its link says.
        known.went(&node, Some(&Fault::not_sent(FaultKind::Draining)), ALONE, begun);
        assert!(!is_well(Duration::ZERO));
        known.went(&node, Some(&Fault::ran(FaultKind::Draining)), ALONE, begun);
        assert!(is_well(Duration::ZERO));
        known.went(&node, Some(&lost), ALONE, begun);
        known.went(&node, None, ALONE, begun);
        assert!(is_well(Duration::ZERO), "it has answered");
        assert!(!known.candidate(&"us/n1".parse().expect("a node"), &ways, begun).is_well, "no connection");
    }
}
