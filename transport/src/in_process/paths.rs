//! What the test has said of the network: which ways are cut, how long they take, who is frozen.
//!
//! * It decides: whether bytes can pass from one seat to another, and after how long.
//! * It never does: know what is on its way, or what time it is.
//! * Invariant: of two rules for the same way the later one holds; there is at most one rule for a pair
//!   of places.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rhumb_core::{NodeId, Region};

/// Where a rule holds: a node, or a whole region with its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Every node and client of the region.
    Region(Region),
    /// The node.
    Node(NodeId),
}

impl Place {
    pub(crate) fn covers(&self, seat: &Seat) -> bool {
        match (self, seat) {
            (Self::Region(region), seat) => region == seat.region(),
            (Self::Node(node), Seat::Node(seated)) => node == seated,
            (Self::Node(_), Seat::Client { .. }) => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "region {region}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

macro_rules! place_from {
    ($($ty:ty => $variant:ident),+) => {$(
        impl From<$ty> for Place {
            fn from(place: $ty) -> Self {
                Self::$variant(place)
            }
        }

        impl From<&$ty> for Place {
            fn from(place: &$ty) -> Self {
                Self::$variant(place.clone())
            }
        }
    )+};
}

place_from!(Region => Region, NodeId => Node);

/// Who is connected to the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    Node(NodeId),
    Client { region: Region, number: u64 },
}

impl Seat {
    pub(crate) fn region(&self) -> &Region {
        match self {
            Self::Node(node) => &node.region,
            Self::Client { region, .. } => region,
        }
    }

    pub(crate) fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Client { .. } => None,
        }
    }
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    delays: Rules<Duration>,
    cuts: Rules<bool>,
    frozen: BTreeSet<NodeId>,
    jitter: Duration,
}

impl Paths {
    pub(crate) fn set_delay(&mut self, from: Place, to: Place, delay: Duration) {
        self.delays.set(from, to, delay);
    }

    pub(crate) fn set_cut(&mut self, from: Place, to: Place, cut: bool) {
        self.cuts.set(from, to, cut);
    }

    pub(crate) fn heal_all(&mut self) {
        self.cuts = Rules::default();
    }

    pub(crate) fn set_jitter(&mut self, jitter: Duration) {
        self.jitter = jitter;
    }

    pub(crate) fn set_frozen(&mut self, node: &NodeId, frozen: bool) {
        if frozen {
            self.frozen.insert(node.clone());
        } else {
            self.frozen.remove(node);
        }
    }

    /// How long what is sent takes.
    pub(crate) fn delay(&self, from: &Seat, to: &Seat) -> Duration {
        self.delays.of(from, to).copied().unwrap_or_default()
    }

    /// How much longer it may take.
    pub(crate) fn jitter(&self) -> Duration {
        self.jitter
    }

    pub(crate) fn is_frozen(&self, seat: &Seat) -> bool {
        seat.node().is_some_and(|node| self.frozen.contains(node))
    }

    /// Whether what is on its way may arrive.
    pub(crate) fn lets_arrive(&self, from: &Seat, to: &Seat) -> bool {
        !self.is_cut(from, to) && !self.is_frozen(to)
    }

    /// Whether a peer would be heard now, if it were there.
    pub(crate) fn lets_hear(&self, peer: &Seat, own: &Seat) -> bool {
        !self.is_cut(peer, own) && !self.is_frozen(peer)
    }

    /// Whether two can come to a connection.
    pub(crate) fn lets_connect(&self, one: &Seat, other: &Seat) -> bool {
        let cut = self.is_cut(one, other) || self.is_cut(other, one);
        !cut && !self.is_frozen(one) && !self.is_frozen(other)
    }

    fn is_cut(&self, from: &Seat, to: &Seat) -> bool {
        self.cuts.of(from, to).copied().unwrap_or_default()
    }
}

/// Values for ways from place to place, the latest last.
#[derive(Debug)]
struct Rules<T>(Vec<(Place, Place, T)>);

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Rules<T> {
    fn set(&mut self, from: Place, to: Place, value: T) {
        self.0.retain(|(f, t, _)| (f, t) != (&from, &to));
        self.0.push((from, to, value));
    }

    fn of(&self, from: &Seat, to: &Seat) -> Option<&T> {
        let rule = self.0.iter().rev().find(|(f, t, _)| f.covers(from) && t.covers(to));
        rule.map(|(_, _, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeId {
        id.parse().expect("a node id")
    }

    fn seat(id: &str) -> Seat {
        Seat::Node(node(id))
    }

    #[test]
    fn a_cut_is_one_way_and_a_later_word_on_a_part_of_it_holds() {
        let (us, eu) = (Place::from(node("us/n1").region), Place::from(node("eu/n1").region));
        let mut paths = Paths::default();
        paths.set_cut(us.clone(), eu.clone(), true);
        assert!(!paths.lets_arrive(&seat("us/n1"), &seat("eu/n1")));
        assert!(paths.lets_arrive(&seat("eu/n1"), &seat("us/n1")));
        assert!(!paths.lets_connect(&seat("eu/n1"), &seat("us/n1")), "a handshake needs both ways");
        paths.set_cut(node("us/n1").into(), node("eu/n1").into(), false);
        assert!(paths.lets_arrive(&seat("us/n1"), &seat("eu/n1")));
        assert!(!paths.lets_arrive(&seat("us/n2"), &seat("eu/n1")));
        paths.set_cut(us, eu, true);
        assert!(!paths.lets_arrive(&seat("us/n1"), &seat("eu/n1")), "said again, it is the later word");
        assert_eq!(paths.cuts.0.len(), 2, "and not kept twice");
        paths.heal_all();
        assert!(paths.lets_connect(&seat("us/n1"), &seat("eu/n1")));
    }

    #[test]
    fn nothing_reaches_a_frozen_node_and_it_is_not_heard() {
        let mut paths = Paths::default();
        paths.set_frozen(&node("us/n1"), true);
        let (us, eu) = (seat("us/n1"), seat("eu/n1"));
        assert!(!paths.lets_arrive(&eu, &us) && paths.lets_arrive(&us, &eu), "what it had sent arrives");
        assert!(!paths.lets_hear(&us, &eu) && paths.lets_hear(&eu, &us));
        assert!(!paths.lets_connect(&us, &eu) && !paths.lets_connect(&eu, &us));
        paths.set_frozen(&node("us/n1"), false);
        assert!(paths.lets_connect(&us, &eu));
    }

    #[test]
    fn a_region_has_its_clients_and_a_node_has_none() {
        let region = node("us/n1").region;
        let client = Seat::Client { region: region.clone(), number: 1 };
        let mut paths = Paths::default();
        paths.set_delay(node("us/n1").into(), node("eu/n1").into(), Duration::from_secs(1));
        assert_eq!(paths.delay(&client, &seat("eu/n1")), Duration::ZERO);
        paths.set_delay(region.into(), node("eu/n1").into(), Duration::from_secs(2));
        assert_eq!(paths.delay(&client, &seat("eu/n1")), Duration::from_secs(2));
        assert_eq!(paths.delay(&seat("eu/n1"), &client), Duration::ZERO);
    }
}
