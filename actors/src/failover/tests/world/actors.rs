//! Actors that act by permits: messages are sent where a caller's table says, wait at nodes that are frozen, and are taken up by
//! who may. An instance knows how many messages were handled before it, as of when it was made; each handler counts one.
//!
//! What must hold at each message whose handler begins: nobody else may begin one of that actor; its epoch is not lower than
//! that of any before it, and higher than that of any on another node; what it knows is what was handled so far.

use std::collections::BTreeMap;

use rhumb_core::{Epoch, NodeId};

use super::{Event, SECOND, World};
use crate::failover::acting::{begins, turn};
use crate::failover::{Begins, Term, Turn, Whose};

/// How often a caller follows who says that another node is the owner.
const HOPS: u32 = 2;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// For which actor.
    key: usize,
    hops: u32,
    /// When nobody waits for it any more: a call has a deadline.
    until: u64,
}

/// An instance on a node.
struct Instance {
    term: Term,
    /// How many messages were handled, as far as it knows.
    knows: u64,
}

/// What is true of an actor, whoever acts.
#[derive(Default)]
struct Truth {
    handled: u64,
    last: Option<(NodeId, Epoch)>,
}

pub(super) struct Actors {
    /// Which nodes may hold each, in their order of preference.
    orders: Vec<Vec<NodeId>>,
    truth: Vec<Truth>,
    instances: BTreeMap<(usize, usize), Instance>,
}

impl Actors {
    /// One for each node that prefers it, and one that may not leave the region of the last.
    pub(super) fn new(nodes: &[NodeId]) -> Self {
        let turned = |first: usize| -> Vec<NodeId> {
            (0..nodes.len()).map(|at| nodes[(first + at) % nodes.len()].clone()).collect()
        };
        let mut orders: Vec<_> = (0..nodes.len()).map(turned).collect();
        let region = nodes.last().map(|node| node.region.clone());
        orders.push(nodes.iter().filter(|node| Some(&node.region) == region.as_ref()).cloned().collect());
        let truth = orders.iter().map(|_| Truth::default()).collect();
        Self { orders, truth, instances: BTreeMap::new() }
    }

    /// What is in a process is gone with it.
    pub(super) fn died(&mut self, node: usize) {
        self.instances.retain(|(at, _), _| *at != node);
    }
}

impl World {
    fn number(&self, id: &NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).expect("it is there")
    }

    fn begins(&mut self, node: usize, key: usize) -> Begins {
        let permit = self.permit(node);
        begins(permit.as_deref(), &self.nodes[node].id, &self.actors.orders[key])
    }

    /// Somebody at a node has a message, for any of them, and sends it where that node's table says, old as it may be.
    pub(super) fn calls(&mut self, from: usize) -> Result<(), String> {
        let wait = self.rng.between(100, 400);
        self.after(wait, Event::Calls(from));
        let key = self.rng.below(self.actors.orders.len() as u64) as usize;
        let whose = self.nodes[from].machines.permits.last().whose(&self.actors.orders[key]);
        let Whose::Of(to, _) = whose else {
            self.tally.refused += 1;
            return Ok(());
        };
        let (to, until) = (self.number(&to), self.now + 5 * SECOND);
        let sent = Sent { key, hops: 0, until };
        if to == from {
            return self.takes(to, sent);
        }
        self.sends(from, to, sent);
        Ok(())
    }

    fn sends(&mut self, from: usize, to: usize, sent: Sent) {
        if self.link(from, to) {
            let wait = self.late();
            self.after(wait, Event::Sent(to, sent));
        }
    }

    /// A message is at a node: it has waited there for as long as the node was frozen.
    pub(super) fn takes(&mut self, node: usize, sent: Sent) -> Result<(), String> {
        let Sent { key, hops, .. } = sent;
        let now = self.begins(node, key);
        let acts = self.actors.instances.get(&(node, key)).map(|instance| instance.term);
        match turn(acts, &now) {
            Turn::Goes => {}
            Turn::Anew => self.ends(node, key),
            Turn::Ends => {
                self.ends(node, key);
                if let (Begins::At(other), true, true) = (now, hops < HOPS, self.now < sent.until) {
                    self.tally.redirected += 1;
                    let other = self.number(&other);
                    self.sends(node, other, Sent { hops: hops + 1, ..sent });
                } else {
                    self.tally.refused += 1;
                }
                return Ok(());
            }
        }
        self.handles(node, key, &now)
    }

    fn ends(&mut self, node: usize, key: usize) {
        self.tally.ended += usize::from(self.actors.instances.remove(&(node, key)).is_some());
    }

    /// The handler of a message begins.
    fn handles(&mut self, node: usize, key: usize, now: &Begins) -> Result<(), String> {
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        for other in others.collect::<Vec<_>>() {
            if let Begins::Here(term) = self.begins(other, key) {
                return Err(format!(
                    "at {} {} handles a message of actor {key} ({now:?}), and {} may under epoch {}",
                    self.now, self.nodes[node].id, self.nodes[other].id, term.epoch
                ));
            }
        }
        let id = self.nodes[node].id.clone();
        let truth = &mut self.actors.truth[key];
        if let (Begins::Here(term), None) = (now, self.actors.instances.get(&(node, key))) {
            let instance = Instance { term: *term, knows: truth.handled };
            self.actors.instances.insert((node, key), instance);
        }
        let Some(instance) = self.actors.instances.get_mut(&(node, key)) else {
            return Err(format!("{id} has no instance of actor {key} that may handle anything"));
        };
        let epoch = instance.term.epoch;
        if let Some((last, before)) = &truth.last {
            let rises = epoch > *before || epoch == *before && *last == id;
            if !rises {
                return Err(format!(
                    "at {} {id} acts for actor {key} under epoch {epoch}, after {last} under {before}",
                    self.now
                ));
            }
            self.tally.moved += usize::from(*last != id);
        }
        if instance.knows != truth.handled {
            return Err(format!(
                "at {} the instance of actor {key} at {id} knows of {} messages, and {} were handled",
                self.now, instance.knows, truth.handled
            ));
        }
        (instance.knows, truth.handled) = (instance.knows + 1, truth.handled + 1);
        truth.last = Some((id, epoch));
        self.tally.handled += 1;
        Ok(())
    }

    /// A node looks at the instances that it has: those end that may not act any more.
    pub(super) fn looks_at_actors(&mut self, node: usize) {
        for key in 0..self.actors.orders.len() {
            let Some(instance) = self.actors.instances.get(&(node, key)) else { continue };
            let term = instance.term;
            let now = self.begins(node, key);
            if turn(Some(term), &now) != Turn::Goes {
                self.ends(node, key);
            }
        }
    }

    /// After all has healed each actor is served, asked from wherever; but of whom all nodes are gone that may hold it.
    pub(super) fn all_are_served(&mut self) -> Result<(), String> {
        for key in 0..self.actors.orders.len() {
            let alive = |id: &NodeId| self.dead_for_ever != Some(self.number(id));
            let first = self.actors.orders[key].iter().find(|id| alive(id)).cloned();
            for from in (0..self.nodes.len()).filter(|from| self.dead_for_ever != Some(*from)) {
                let whose = self.nodes[from].machines.permits.last().whose(&self.actors.orders[key]);
                let found = match whose {
                    Whose::Of(node, _) => Some(node),
                    Whose::Nobody(_) => None,
                };
                if found != first {
                    let from = &self.nodes[from].id;
                    return Err(format!("at the end {from} finds actor {key} at {found:?}, not {first:?}"));
                }
            }
            if let Some(node) = first.map(|first| self.number(&first)) {
                self.takes(node, Sent { key, hops: 0, until: self.now })?;
                if !self.actors.instances.contains_key(&(node, key)) {
                    return Err(format!("at the end actor {key} is not served"));
                }
            }
        }
        Ok(())
    }
}
