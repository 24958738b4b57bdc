//! Which connection stays when both nodes dial at once.
//!
//! * It decides: whether an arriving HELLO becomes the connection of its pair. The connection dialled
//!   by the lower node id wins, and both sides come to that without a word more.
//! * It never does: keep two connections of one pair, or refuse a peer that has restarted.
//! * Invariant: of two HELLOs that cross, exactly one is accepted. The lower side refuses once its
//!   own HELLO is out; the higher side always accepts. A side whose dial is not that far gives it up.

use rhumb_core::NodeId;

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialed {
    /// This node did.
    ByUs,
    /// The peer did.
    ByPeer,
}

/// How far this node's own attempt to dial the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dial {
    /// There is none.
    #[default]
    Idle,
    /// Packets were sent, HELLO was not.
    Connecting,
    /// HELLO was sent, its answer has not come.
    HelloSent,
}

/// The connection that the pair has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// Who opened it.
    pub dialed: Dialed,
    /// The peer's process, as its HELLO named it.
    pub boot: u64,
}

/// What becomes of an arriving HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes the connection; the current one fails first, an own dial is given up.
    Accept,
    /// The other one stays.
    Refuse,
}

/// Judges a HELLO of a peer's process `boot` on a connection that the peer dialled.
#[must_use]
pub fn judge(own: &NodeId, peer: &NodeId, current: Option<Current>, dial: Dial, boot: u64) -> Verdict {
    let we_are_lower = own < peer;
    let keep_ours = match current {
        // Another process: whatever we had with the old one is dead.
        Some(current) if current.boot != boot => false,
        // We are lower and ours is up: the peer's HELLO crossed ours, or the peer lost ours, which
        // we then notice by probing, and the peer dials again.
        Some(Current { dialed: Dialed::ByUs, .. }) => we_are_lower,
        // The peer dials a second time only when it has lost the first.
        Some(Current { dialed: Dialed::ByPeer, .. }) => false,
        None => we_are_lower && dial == Dial::HelloSent,
    };
    if keep_ours { Verdict::Refuse } else { Verdict::Accept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new("us-east", name).expect("valid")
    }

    #[test]
    fn of_two_hellos_that_cross_the_lower_nodes_stays() {
        let (low, high) = (node("a"), node("b"));
        assert_eq!(judge(&low, &high, None, Dial::HelloSent, 1), Verdict::Refuse);
        assert_eq!(judge(&high, &low, None, Dial::HelloSent, 1), Verdict::Accept);
    }

    #[test]
    fn a_dial_that_has_not_spoken_gives_way() {
        for (own, peer) in [(node("a"), node("b")), (node("b"), node("a"))] {
            for dial in [Dial::Idle, Dial::Connecting] {
                assert_eq!(judge(&own, &peer, None, dial, 1), Verdict::Accept);
            }
        }
    }

    #[test]
    fn a_restarted_peer_is_accepted_whoever_dialled_before() {
        for (own, peer) in [(node("a"), node("b")), (node("b"), node("a"))] {
            for dialed in [Dialed::ByUs, Dialed::ByPeer] {
                let current = Some(Current { dialed, boot: 1 });
                assert_eq!(judge(&own, &peer, current, Dial::Idle, 2), Verdict::Accept);
            }
        }
    }

    #[test]
    fn a_late_hello_of_the_higher_node_does_not_undo_the_lowers_connection() {
        let current = Some(Current { dialed: Dialed::ByUs, boot: 1 });
        assert_eq!(judge(&node("a"), &node("b"), current, Dial::Idle, 1), Verdict::Refuse);
        assert_eq!(judge(&node("b"), &node("a"), current, Dial::Idle, 1), Verdict::Accept);
    }

    #[test]
    fn a_peer_that_lost_its_own_connection_gets_another() {
        let current = Some(Current { dialed: Dialed::ByPeer, boot: 1 });
        assert_eq!(judge(&node("a"), &node("b"), current, Dial::Idle, 1), Verdict::Accept);
    }
}
