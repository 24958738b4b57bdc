//! Which node acts for an actor, by a table of fences, and what a node may begin.
//!
//! * It decides: whose an actor is, of the nodes that may hold it in their order of preference; under which epoch its instance
//!   acts; whether a message's turn may come on a node, and what becomes of the instance that is there.
//! * It never does: say where an actor is by anything but the table (health, load, who was asked last), or stop what has begun.
//! * Invariants: at any moment at most one node may begin anything of an actor, while clocks are within `max_offset` of each
//!   other; an instance that begins on another node than the last one has a higher epoch; an instance that another one has
//!   followed begins nothing any more, also where its node owns the actor again.
//!
//! The epoch is the number of changes that were ever made to any fence. Changes follow each other one by one, for all of them write
//! one key under a condition: so a number names a table, and a table names one owner of each actor at most.

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Epoch, NodeId};

use super::fence::{Fence, Holder, Table};

/// What the instance of an actor on a node acts under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The number of the table by which it was found that it may. Instances of one actor on other nodes have others, and
    /// later ones higher ones: what an instance writes carries it to where it is checked.
    pub epoch: Epoch,
    /// How often the fences were changed of the owner and of all that come before it. While that is so nobody else has acted.
    path: u64,
}

impl Term {
    /// Whether nobody else has acted between this term and a later one of the same actor on the same node.
    #[must_use]
    pub fn goes_on_in(self, later: Self) -> bool {
        self.path == later.path
    }
}

/// Whose an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// This node's, under this term.
    Of(NodeId, Term),
    /// Nobody's for now.
    Nobody(Why),
}

/// Why nobody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is not known yet who acts in place of this node: until all that did have stopped.
    Fenced(NodeId),
    /// All nodes that may hold the actor are away.
    AllAway,
    /// This node has not read the fences lately, or its clock is not good enough: it may begin nothing.
    NoPermit,
}

/// What a node may begin of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// Anything, under this term.
    Here(Term),
    /// Nothing: it is another node's.
    At(NodeId),
    /// Nothing, and nobody else may as far as is known here.
    Nowhere(Why),
}

/// What becomes of an instance, and of what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The instance goes on, or may be made.
    Goes,
    /// The instance ends, and another one may be made under the present term.
    Anew,
    /// The instance ends, and what waits is refused.
    Ends,
}

impl Table {
    /// How many changes have led to this table. A node that has no row was never changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.fences().map(changes).sum()
    }

    /// Whose an actor is that these nodes may hold, in their order of preference.
    pub fn whose<'a>(&self, order: impl IntoIterator<Item = &'a NodeId>) -> Whose {
        let mut path = 0;
        for node in order {
            let fence = self.fence(node);
            path += changes(&fence);
            match fence.holder {
                Holder::Itself => {
                    let of_node = canary::sings(Canary::EpochOfOneNode);
                    let epoch = if of_node { fence.epoch } else { Epoch(1 + self.changes()) };
                    return Whose::Of(node.clone(), Term { epoch, path });
                }
                Holder::Nobody => return Whose::Nobody(Why::Fenced(node.clone())),
                Holder::Others => {}
            }
        }
        Whose::Nobody(Why::AllAway)
    }
}

/// What this node may begin of an actor by what it has a permit for, if it has one.
pub fn begins<'a>(
    permit: Option<&Table>,
    me: &NodeId,
    order: impl IntoIterator<Item = &'a NodeId>,
) -> Begins {
    let Some(table) = permit else { return Begins::Nowhere(Why::NoPermit) };
    match table.whose(order) {
        Whose::Of(node, term) if node == *me => Begins::Here(term),
        Whose::Of(node, _) => Begins::At(node),
        Whose::Nobody(why) => Begins::Nowhere(why),
    }
}

/// Whether two orders of preference have the same nodes up to this one: by both of them the same fences decide whether it acts.
#[must_use]
pub fn same_until(me: &NodeId, one: &[NodeId], other: &[NodeId]) -> bool {
    let until = |order: &[NodeId]| order.iter().position(|node| node == me);
    match (until(one), until(other)) {
        (Some(at), Some(there)) => one[..=at] == other[..=there],
        _ => false,
    }
}

/// A message's turn has come, or the fences were read anew, where an instance acts under this term, or none does.
#[must_use]
pub fn turn(acts: Option<Term>, now: &Begins) -> Turn {
    if acts.is_some() && canary::sings(Canary::OldOwnerActs) {
        return Turn::Goes;
    }
    match (acts, now) {
        (None, Begins::Here(_)) => Turn::Goes,
        (Some(term), Begins::Here(present)) if term.goes_on_in(*present) => Turn::Goes,
        (Some(_), Begins::Here(_)) => Turn::Anew,
        (_, Begins::At(_) | Begins::Nowhere(_)) => Turn::Ends,
    }
}

/// How many changes have led to a fence: one to nobody, one to whoever follows.
fn changes(fence: &Fence) -> u64 {
    let raised = fence.epoch.0.saturating_sub(Fence::default().epoch.0);
    2 * raised - u64::from(raised > 0 && fence.holder == Holder::Nobody)
}
