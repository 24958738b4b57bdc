//! Which handshakes may be under way at once.
//!
//! Half of the places are for whoever comes. Once they are taken, who comes must show that its address is
//! its own (QUIC's Retry, RFC 9000 §8.1.2), and has the other half; of that, one address has half at most. So two
//! addresses can take all of them, and beside them as many again are for the addresses of this node's peers alone.
//!
//! * It decides: whether a connection attempt is heard, must prove its address first, or is refused.
//! * It never does: hold anything against an address that has not been proven, for anybody can claim it.
//! * Invariant: whoever drips or floods handshakes from one address leaves room for others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Why a handshake may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeard {
    /// Not before its address is proven.
    Unproven,
    /// As many as may be are under way.
    Busy,
}

/// The handshakes under way. A handle: clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes(Arc<Mutex<UnderWay>>);

/// A handshake under way. It has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    all: Handshakes,
    kind: Kind,
}

/// Which places a handshake has one of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Unproven,
    Proven(Network),
    Peers,
}

/// What one party is taken to have: an IPv4 address, or 64 bits of an IPv6 address.
type Network = u64;

#[derive(Debug)]
struct UnderWay {
    half: usize,
    unproven: usize,
    proven: usize,
    peers: usize,
    of_each: BTreeMap<Network, usize>,
}

impl Handshakes {
    /// So many at once, rounded up to an even number.
    pub(crate) fn new(places: usize) -> Self {
        let half = places.div_ceil(2).max(1);
        Self(Arc::new(Mutex::new(UnderWay {
            half,
            unproven: 0,
            proven: 0,
            peers: 0,
            of_each: BTreeMap::new(),
        })))
    }

    /// A handshake from this address begins, if it may. Whether the address is a peer's is only asked where it
    /// matters.
    pub(crate) fn begin(
        &self,
        from: IpAddr,
        proven: bool,
        is_peers: impl FnOnce() -> bool,
    ) -> Result<Place, NotHeard> {
        let mut under_way = self.0.lock();
        let kind = if proven {
            under_way.proven(network(from)).or_else(|full| under_way.peers(is_peers()).ok_or(full))
        } else {
            under_way.unproven()
        };
        drop(under_way);
        Ok(Place { all: self.clone(), kind: kind? })
    }
}

impl UnderWay {
    fn unproven(&mut self) -> Result<Kind, NotHeard> {
        if self.unproven >= self.half {
            return Err(NotHeard::Unproven);
        }
        self.unproven += 1;
        Ok(Kind::Unproven)
    }

    fn proven(&mut self, from: Network) -> Result<Kind, NotHeard> {
        let of_this = self.of_each.get(&from).copied().unwrap_or_default();
        if self.proven >= self.half || of_this >= self.half.div_ceil(2) {
            return Err(NotHeard::Busy);
        }
        self.proven += 1;
        self.of_each.insert(from, of_this + 1);
        Ok(Kind::Proven(from))
    }

    fn peers(&mut self, is_peers: bool) -> Option<Kind> {
        let room = is_peers && self.peers < self.half;
        self.peers += usize::from(room);
        room.then_some(Kind::Peers)
    }

    fn ended(&mut self, kind: Kind) {
        let from = match kind {
            Kind::Unproven => return self.unproven -= 1,
            Kind::Peers => return self.peers -= 1,
            Kind::Proven(from) => from,
        };
        self.proven -= 1;
        if let Some(of_this) = self.of_each.get_mut(&from) {
            *of_this -= 1;
            if *of_this == 0 {
                self.of_each.remove(&from);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.0.lock().ended(self.kind);
    }
}

fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // The first 64 bits; no IPv4 address is one of these.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn whoever_comes_is_heard_until_half_is_taken_and_then_proves_its_address() {
        let handshakes = Handshakes::new(8);
        let claimed: Vec<_> =
            (0..4).map(|_| handshakes.begin(ip("192.0.2.1"), false, || false).expect("room")).collect();
        assert_eq!(handshakes.begin(ip("192.0.2.2"), false, || false).err(), Some(NotHeard::Unproven));
        handshakes.begin(ip("192.0.2.1"), true, || false).expect("nothing is held against a claimed address");
        drop(claimed);
        handshakes.begin(ip("192.0.2.2"), false, || false).expect("room again");
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let handshakes = Handshakes::new(8);
        let greedy: Vec<_> =
            (0..2).map(|_| handshakes.begin(ip("192.0.2.1"), true, || false).expect("room")).collect();
        assert_eq!(handshakes.begin(ip("192.0.2.1"), true, || false).err(), Some(NotHeard::Busy));
        let _other = handshakes.begin(ip("192.0.2.2"), true, || false).expect("room for others");
        drop(greedy);
        let _again = handshakes.begin(ip("192.0.2.1"), true, || false).expect("its own have ended");
        assert_eq!(handshakes.0.lock().of_each.len(), 2);
    }

    #[test]
    fn there_is_an_end_to_the_proven_too_and_nothing_is_kept_of_those_that_have_ended() {
        let handshakes = Handshakes::new(8);
        let all: Vec<_> = (0..4)
            .map(|i| handshakes.begin(ip(&format!("192.0.2.{i}")), true, || false).expect("room"))
            .collect();
        assert_eq!(handshakes.begin(ip("192.0.2.9"), true, || false).err(), Some(NotHeard::Busy));
        drop(all);
        assert!(handshakes.0.lock().of_each.is_empty());
        Handshakes::new(1).begin(ip("192.0.2.9"), true, || false).expect("there is always one place");
    }

    #[test]
    fn a_network_of_ipv6_is_one_party_and_an_ipv4_address_is_one_in_either_form() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:2")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_eq!(network(ip("::ffff:192.0.2.1")), network(ip("192.0.2.1")));
    }

    #[test]
    fn two_addresses_that_take_every_place_leave_those_of_peers() {
        let handshakes = Handshakes::new(8);
        let begin = |from: &str, proven| handshakes.begin(ip(from), proven, || from == "192.0.2.9");
        let unproven: Vec<_> = (0..4).map(|_| begin("192.0.2.1", false).expect("room")).collect();
        let proven = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"];
        let proven = proven.map(|from| begin(from, true).expect("room"));
        assert_eq!(begin("192.0.2.3", true).err(), Some(NotHeard::Busy));
        assert_eq!(begin("192.0.2.9", false).err(), Some(NotHeard::Unproven), "anybody can claim it");
        let peers: Vec<_> = (0..4).map(|_| begin("192.0.2.9", true).expect("a peer's own")).collect();
        assert_eq!(begin("192.0.2.9", true).err(), Some(NotHeard::Busy));
        drop((unproven, proven, peers));
        let again: Vec<_> = (0..4).map(|_| begin("192.0.2.9", true).expect("room again")).collect();
        assert_eq!(again.len(), 4);
    }
}
