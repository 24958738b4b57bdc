//! How many bytes peers may make this node hold, each of them and all together.
//!
//! What is counted is what a peer can make wait here: its messages until they are handled, large answers until
//! it has read them, and large frames of which a part has come. A share is a principal's, over however many
//! connections it has.
//!
//! * It decides: whether so many bytes more may be held for somebody.
//! * It never does: wait, or hold anything itself.
//! * Invariants: what was taken is given back once, at the latest when it is dropped; clients and operators
//!   together have at most half, so that nodes always have the other; one message fits where nothing is held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rhumb_core::{Principal, Role};

use crate::settings::TransportSettings;

/// Bytes that are held for everybody.
#[derive(Debug)]
struct Total {
    limit: usize,
    all: AtomicUsize,
    guests: AtomicUsize,
}

impl Total {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, all: AtomicUsize::new(0), guests: AtomicUsize::new(0) })
    }
}

/// Bytes that are held for one principal.
#[derive(Debug)]
pub(crate) struct Share {
    limit: usize,
    guest: bool,
    bytes: AtomicUsize,
    of: Arc<Total>,
}

impl Share {
    fn new(limit: usize, guest: bool, of: &Arc<Total>) -> Arc<Self> {
        Arc::new(Self { limit, guest, bytes: AtomicUsize::new(0), of: Arc::clone(of) })
    }

    /// Holds nothing yet.
    pub(crate) fn nothing(self: &Arc<Self>) -> Held {
        Held { of: Arc::clone(self), bytes: 0 }
    }

    /// Holds so many bytes more, if there is room.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut held = self.nothing();
        held.and(bytes).then_some(held)
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.of.all.load(Ordering::Relaxed))
    }

    fn add(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all = self.of.all.fetch_add(bytes, Ordering::Relaxed);
        let guests = if self.guest { self.of.guests.fetch_add(bytes, Ordering::Relaxed) } else { 0 };
        let own = before == 0 || before + bytes <= self.limit;
        let fits =
            own && all + bytes <= self.of.limit && (!self.guest || guests + bytes <= self.of.limit / 2);
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of.all.fetch_sub(bytes, Ordering::Relaxed);
        if self.guest {
            self.of.guests.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes that are held for a peer. They are given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    of: Arc<Share>,
    bytes: usize,
}

impl Held {
    /// So many more, if there is room.
    pub(crate) fn and(&mut self, more: usize) -> bool {
        let fits = self.of.add(more);
        self.bytes += if fits { more } else { 0 };
        fits
    }

    /// So many in all, if there is room, or more where it is more already.
    pub(crate) fn up_to(&mut self, bytes: usize) -> bool {
        bytes <= self.bytes || self.and(bytes - self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.give_back(self.bytes);
    }
}

/// The shares of one principal.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Of its messages, until they are handled.
    pub(crate) inward: Arc<Share>,
    /// Of large answers to it, until it has them.
    pub(crate) outward: Arc<Share>,
    /// Of its large frames, until they are whole.
    pub(crate) large: Arc<Share>,
}

/// Everybody's shares.
#[derive(Debug)]
pub(crate) struct Everybody {
    each: usize,
    large: Arc<Total>,
    inward: Arc<Total>,
    outward: Arc<Total>,
    /// Those of principals that have a connection, or for whom something is held still.
    known: Mutex<HashMap<Principal, Weak<Shares>>>,
}

impl Everybody {
    pub(crate) fn new(settings: &TransportSettings) -> Self {
        let all = || Total::new(settings.in_flight_bytes_all);
        Self {
            each: settings.in_flight_bytes,
            large: Total::new(settings.large_buffer),
            inward: all(),
            outward: all(),
            known: Mutex::default(),
        }
    }

    /// The shares of a principal: the same for each of its connections.
    pub(crate) fn of(&self, principal: &Principal) -> Arc<Shares> {
        let mut known = self.known.lock();
        if let Some(shares) = known.get(principal).and_then(Weak::upgrade) {
            return shares;
        }
        known.retain(|_, shares| shares.strong_count() > 0);
        let guest = principal.role != Role::Node;
        let large = self.large.limit / if guest { 4 } else { 2 };
        let shares = Arc::new(Shares {
            inward: Share::new(self.each, guest, &self.inward),
            outward: Share::new(self.each, guest, &self.outward),
            large: Share::new(large, guest, &self.large),
        });
        known.insert(principal.clone(), Arc::downgrade(&shares));
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everybody() -> Everybody {
        let settings = TransportSettings {
            in_flight_bytes: 100,
            in_flight_bytes_all: 300,
            large_buffer: 400,
            ..TransportSettings::default()
        };
        Everybody::new(&settings)
    }

    fn who(role: Role, name: &str) -> Principal {
        Principal { role, region: "eu".parse().expect("a region"), name: name.to_owned() }
    }

    #[test]
    fn a_principal_has_one_share_over_all_its_connections_and_gets_back_what_it_gives_back() {
        let everybody = everybody();
        let (first, second) = (everybody.of(&who(Role::Client, "a")), everybody.of(&who(Role::Client, "a")));
        let held = first.inward.hold(60).expect("room");
        assert!(second.inward.hold(60).is_none(), "it is the same share");
        assert_eq!(second.inward.held(), (60, 60), "what was refused is not held");
        drop(held);
        assert!(second.inward.hold(60).is_some());
        assert_eq!(second.inward.held(), (0, 0));
        assert!(second.inward.hold(120).is_some(), "one message fits where nothing is held");
    }

    #[test]
    fn clients_together_have_half_and_nodes_have_room_all_the_same() {
        let everybody = everybody();
        let client = |name: &str| everybody.of(&who(Role::Client, name)).inward.clone();
        let held: Vec<_> = ["a", "b"].iter().filter_map(|name| client(name).hold(75)).collect();
        assert_eq!(held.len(), 2);
        assert!(client("c").hold(1).is_none(), "half of 300 is taken");
        let node = everybody.of(&who(Role::Node, "n1"));
        assert!(node.inward.hold(100).is_some());
        assert!(everybody.of(&who(Role::Client, "c")).outward.hold(75).is_some(), "another direction");
    }

    #[test]
    fn what_comes_in_parts_is_held_in_parts() {
        let shares = everybody().of(&who(Role::Client, "a"));
        let mut held = shares.large.nothing();
        assert!(held.and(60) && held.and(40));
        assert!(!held.and(1), "a quarter of 400 a client");
        drop(held);
        assert_eq!(shares.large.held(), (0, 0));
    }
}
