//! The other nodes' logs and log witnesses: under which key each signs, as it was first seen.
//!
//! A node's log and its log witness have one key pair, under two names. A peer shows its public key in its
//! HELLO, over mutual TLS; the first that is seen is pinned for good.
//!
//! | key | value |
//! |---|---|
//! | `h` node | the public key of its log, 32 bytes |
//! | `r` node | those that operators replaced, one behind the other |
//!
//! A key is replaced by an operator alone, who says that the node lost it, or that somebody else has it. What was
//! cosigned under the old one stays provable, and binds the log under the new one all the same.
//!
//! * It decides: names, whose keys are believed, and which log witnesses suffice.
//! * It never does: take by itself another key for a node whose key it has. Who could change it could show two histories.
//! * Invariant: no key is used before it is pinned durably, and no key is ever two nodes'. Nodes of one region do not
//!   cosign each other's logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rhumb_core::effects::Effects;
use rhumb_core::{NodeId, Region};
use rhumb_storage::{Batch, Family};
use rhumb_verify::note::{Algorithm, Key};
use rhumb_verify::{Policy, policy::NoPolicy};
use thiserror::Error;

use super::rows::Unsound;

/// Bytes of a public key.
pub const KEY: usize = 32;

/// The name of a node's log: its origin.
#[must_use]
pub fn origin(domain: &str, node: &NodeId) -> String {
    format!("{domain}/audit/{}/{}", node.region, node.name)
}

/// The name of a node as a log witness.
#[must_use]
pub fn witness(domain: &str, node: &NodeId) -> String {
    format!("{}.{}.{domain}/witness", node.name, node.region)
}

/// What peers' keys want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Another key is known, durably.
    Pinned {
        /// Whose.
        node: NodeId,
    },
    /// A key is replaced, durably.
    Replaced {
        /// Whose.
        node: NodeId,
    },
}

/// Why a pinned key is not replaced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotReplaced {
    /// Nothing is pinned for the node.
    #[error("no key of {0} is pinned here: the first that it shows will be")]
    NotPinned(NodeId),
    /// It is the pinned one.
    #[error("that key of {0} is the one that is pinned")]
    Same(NodeId),
    /// It is known as another node's, or was this node's before.
    #[error("that key was seen as the key of {0}, and no key is ever two nodes' or comes back")]
    Taken(NodeId),
    /// It is being replaced.
    #[error("a key of {0} is being replaced: ask again")]
    UnderWay(NodeId),
}

/// What a key that was shown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The first of its node: it is pinned.
    First,
    /// The one that is pinned.
    Same,
    /// Another one than is pinned: it is not believed.
    Other,
    /// No key, or of a node that does not belong to the mesh.
    None,
}

/// The keys of the other nodes.
#[derive(Debug)]
pub struct Peers {
    domain: String,
    me: NodeId,
    /// This node's own.
    own: [u8; KEY],
    nodes: BTreeSet<NodeId>,
    pinned: BTreeMap<NodeId, [u8; KEY]>,
    /// Those that are pinned durably.
    known: BTreeSet<NodeId>,
    /// Nodes that showed another key than theirs, with it. One each is kept.
    refused: BTreeMap<NodeId, [u8; KEY]>,
    /// Keys that operators replaced.
    replaced: BTreeMap<NodeId, Vec<[u8; KEY]>>,
}

fn row(node: &NodeId) -> Vec<u8> {
    format!("h{node}").into_bytes()
}

impl Peers {
    /// The keys on a disk: rows that begin with `h`, without it. `nodes` are those of the mesh.
    ///
    /// # Errors
    /// [`Unsound::PeerKey`]: a node that has forgotten whom it believed must not believe anew.
    pub fn recover(
        domain: &str,
        (me, own): (&NodeId, [u8; KEY]),
        nodes: impl IntoIterator<Item = NodeId>,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, Unsound> {
        let mut pinned = BTreeMap::new();
        for (node, key) in rows {
            let read = std::str::from_utf8(&node).ok().and_then(|node| node.parse::<NodeId>().ok());
            let read = read.zip(<[u8; KEY]>::try_from(key).ok());
            let (node, key) =
                read.ok_or_else(|| Unsound::PeerKey(String::from_utf8_lossy(&node).into_owned()))?;
            pinned.insert(node, key);
        }
        let known = pinned.keys().cloned().collect();
        let nodes = nodes.into_iter().filter(|node| node != me).collect();
        let (domain, refused, replaced) = (domain.to_owned(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { domain, me: me.clone(), own, nodes, pinned, known, refused, replaced })
    }

    /// The same, with the keys that were replaced: rows that begin with `r`, without it.
    ///
    /// # Errors
    /// [`Unsound::PeerKey`].
    pub fn after(mut self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, Unsound> {
        for (node, keys) in rows {
            let read = std::str::from_utf8(&node).ok().and_then(|node| node.parse::<NodeId>().ok());
            let (keys, rest) = keys.as_chunks::<KEY>();
            let read = read.filter(|_| rest.is_empty());
            let node = read.ok_or_else(|| Unsound::PeerKey(String::from_utf8_lossy(&node).into_owned()))?;
            self.replaced.insert(node, keys.to_vec());
        }
        Ok(self)
    }

    /// A peer showed this key.
    pub fn shown(&mut self, node: &NodeId, key: &[u8], out: &mut Effects<Batch, Effect>) -> Seen {
        let Some(key) = <[u8; KEY]>::try_from(key).ok().filter(|_| self.nodes.contains(node)) else {
            return Seen::None;
        };
        match self.pinned.get(node) {
            Some(pinned) if *pinned == key => {
                self.refused.remove(node);
                Seen::Same
            }
            Some(_) => self.refuses(node, key),
            // Who shows another's key could not sign with it, and one key never counts as two.
            None if self.owner(&key).is_some() => self.refuses(node, key),
            None => {
                self.pinned.insert(node.clone(), key);
                let mut batch = Batch::new();
                batch.put(Family::Audit, row(node), key);
                out.persist(batch);
                out.send(Effect::Pinned { node: node.clone() });
                Seen::First
            }
        }
    }

    /// Whose key it is or was.
    fn owner(&self, key: &[u8; KEY]) -> Option<&NodeId> {
        let pinned = self.pinned.iter().find(|(_, pinned)| *pinned == key);
        let replaced = self.replaced.iter().find(|(_, keys)| keys.contains(key));
        let own = (*key == self.own).then_some(&self.me);
        own.or(pinned.map(|(node, _)| node)).or(replaced.map(|(node, _)| node))
    }

    /// An operator says that this is a node's key from now on.
    ///
    /// # Errors
    /// [`NotReplaced`]: nothing has changed.
    pub fn replace(
        &mut self,
        node: &NodeId,
        key: [u8; KEY],
        out: &mut Effects<Batch, Effect>,
    ) -> Result<(), NotReplaced> {
        let Some(before) = self.pinned.get(node).copied() else {
            return Err(NotReplaced::NotPinned(node.clone()));
        };
        if before == key {
            return Err(NotReplaced::Same(node.clone()));
        }
        let shown = self.refused.iter().find(|(other, shown)| *other != node && **shown == key);
        if let Some(other) = self.owner(&key).or(shown.map(|(other, _)| other)) {
            return Err(NotReplaced::Taken(other.clone()));
        }
        let replaced = self.replaced.entry(node.clone()).or_default();
        replaced.push(before);
        let mut batch = Batch::new();
        batch.put(Family::Audit, row(node), key);
        batch.put(Family::Audit, format!("r{node}").into_bytes(), replaced.concat());
        self.pinned.insert(node.clone(), key);
        // Until it is durable nobody is believed.
        self.known.remove(node);
        self.refused.remove(node);
        out.persist(batch);
        out.send(Effect::Replaced { node: node.clone() });
        Ok(())
    }

    /// The log witness of a node, as it is believed now.
    #[must_use]
    pub fn witness_of(&self, node: &NodeId) -> Option<Key> {
        self.witnesses().find(|(other, _)| *other == node).map(|(_, key)| key)
    }

    /// The log of a node, as it is believed now.
    #[must_use]
    pub fn log_of(&self, node: &NodeId) -> Option<Key> {
        self.logs().find(|(other, _)| *other == node).map(|(_, key)| key)
    }

    /// The keys of logs, those that were replaced among them.
    #[must_use]
    pub fn all_logs(&self) -> Vec<Key> {
        let replaced =
            |(node, public)| Key { name: origin(&self.domain, node), algorithm: Algorithm::Ed25519, public };
        self.logs().map(|(_, key)| key).chain(self.before().map(replaced)).collect()
    }

    /// The keys of log witnesses, those that were replaced among them.
    #[must_use]
    pub fn all_witnesses(&self) -> Vec<Key> {
        let replaced = |(node, public)| Key {
            name: witness(&self.domain, node),
            algorithm: Algorithm::Cosignature,
            public,
        };
        self.witnesses().map(|(_, key)| key).chain(self.before().map(replaced)).collect()
    }

    fn before(&self) -> impl Iterator<Item = (&NodeId, [u8; KEY])> {
        self.replaced.iter().flat_map(|(node, keys)| keys.iter().map(move |key| (node, *key)))
    }

    fn refuses(&mut self, node: &NodeId, key: [u8; KEY]) -> Seen {
        self.refused.insert(node.clone(), key);
        Seen::Other
    }

    /// A pin is durable: its key may be used.
    pub fn pinned(&mut self, node: &NodeId) {
        self.known.insert(node.clone());
    }

    /// Nodes whose log shows another key than the pinned one.
    pub fn refused(&self) -> impl Iterator<Item = &NodeId> {
        self.refused.keys()
    }

    /// The logs that this node watches, with their nodes.
    pub fn logs(&self) -> impl Iterator<Item = (&NodeId, Key)> {
        self.others().map(|(node, public)| {
            let (name, algorithm) = (origin(&self.domain, node), Algorithm::Ed25519);
            (node, Key { name, algorithm, public })
        })
    }

    /// The log witnesses of this node's log, with their nodes.
    pub fn witnesses(&self) -> impl Iterator<Item = (&NodeId, Key)> {
        self.others().map(|(node, public)| {
            let (name, algorithm) = (witness(&self.domain, node), Algorithm::Cosignature);
            (node, Key { name, algorithm, public })
        })
    }

    /// The node of a log witness.
    #[must_use]
    pub fn of_witness(&self, name: &str) -> Option<NodeId> {
        self.others().find(|(node, _)| witness(&self.domain, node) == name).map(|(node, _)| node.clone())
    }

    /// By whom a checkpoint of this log must be cosigned: by one node in each of `quorum` other regions, or in
    /// all others where there are fewer. As text in `c2sp.org/tlog-policy`; none while too few are known.
    #[must_use]
    pub fn policy_text(&self, log: &Key, quorum: usize) -> Option<String> {
        let other = |node: &&NodeId| node.region != self.me.region;
        let regions: BTreeSet<&Region> = self.nodes.iter().filter(other).map(|node| &node.region).collect();
        let quorum = quorum.min(regions.len());
        let mut text = format!("log {log}\n");
        let mut members: BTreeMap<&Region, Vec<&str>> = BTreeMap::new();
        for (node, key) in self.witnesses() {
            writeln!(text, "witness {}/{} {key}", node.region, node.name).ok();
            members.entry(&node.region).or_default().push(node.name.as_str());
        }
        if quorum == 0 {
            text.push_str("quorum none\n");
            return Some(text);
        }
        if members.len() < quorum {
            return None;
        }
        for (region, names) in &members {
            let names: Vec<_> = names.iter().map(|name| format!("{region}/{name}")).collect();
            writeln!(text, "group {region}/* any {}", names.join(" ")).ok();
        }
        let names: Vec<_> = members.keys().map(|region| format!("{region}/*")).collect();
        writeln!(text, "group */{quorum} {quorum} {}\nquorum */{quorum}", names.join(" ")).ok();
        Some(text)
    }

    /// [`Peers::policy_text`], read.
    ///
    /// # Errors
    /// [`NoPolicy`]: a name of this mesh is none in a policy.
    pub fn policy(&self, log: &Key, quorum: usize) -> Result<Option<Policy>, NoPolicy> {
        self.policy_text(log, quorum).as_deref().map(Policy::parse).transpose()
    }

    /// Nodes of other regions whose keys are pinned durably.
    fn others(&self) -> impl Iterator<Item = (&NodeId, [u8; KEY])> {
        let known =
            self.known.iter().filter(|node| node.region != self.me.region && self.nodes.contains(*node));
        known.filter_map(|node| Some((node, *self.pinned.get(node)?)))
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::Barrier;
    use rhumb_core::effects::Release;

    use super::*;

    fn node(text: &str) -> NodeId {
        text.parse().expect("a node")
    }

    fn peers(rows: Vec<(Vec<u8>, Vec<u8>)>) -> Peers {
        let nodes = ["us/n1", "us/n2", "eu/n1", "eu/n2", "ap/n1"].map(node);
        Peers::recover("mesh.example", (&node("us/n1"), [1; 32]), nodes, rows).expect("sound rows")
    }

    fn log() -> Key {
        Key { name: origin("mesh.example", &node("us/n1")), algorithm: Algorithm::Ed25519, public: [1; 32] }
    }

    #[test]
    fn the_first_key_of_a_node_is_its_key_for_good() {
        let (mut peers, mut out, mut barrier) = (peers(Vec::new()), Effects::default(), Barrier::default());
        assert_eq!(peers.shown(&node("eu/n1"), &[2; 32], &mut out), Seen::First);
        assert_eq!(peers.witnesses().count(), 0, "not before it is durable");
        let mut rows = Vec::new();
        barrier.absorb(&mut out, |release| {
            if let Release::Persist(_, batch) = release {
                rows.push(batch);
            }
        });
        assert_eq!(rows.len(), 1);
        peers.pinned(&node("eu/n1"));
        assert_eq!(peers.witnesses().count(), 1);
        assert_eq!(peers.shown(&node("eu/n1"), &[2; 32], &mut out), Seen::Same);
        assert_eq!(peers.shown(&node("eu/n1"), &[3; 32], &mut out), Seen::Other);
        assert_eq!(peers.refused().collect::<Vec<_>>(), [&node("eu/n1")]);
        assert_eq!(peers.witnesses().next().expect("one").1.public, [2; 32]);
        for taken in [[2; 32], [1; 32]] {
            assert_eq!(peers.shown(&node("ap/n1"), &taken, &mut out), Seen::Other, "it is another's");
        }
        for (who, key) in [("eu/n9", &[2; 32][..]), ("us/n1", &[2; 32]), ("eu/n2", &[2; 31]), ("eu/n2", &[])]
        {
            assert_eq!(peers.shown(&node(who), key, &mut out), Seen::None, "{who}");
        }
    }

    #[test]
    fn an_operator_replaces_a_key_by_one_that_was_never_seen() {
        let rows = ["eu/n1", "ap/n1"].map(|node| (node.as_bytes().to_vec(), vec![node.as_bytes()[0]; KEY]));
        let (mut peers, mut out) = (peers(rows.to_vec()), Effects::default());
        let (eu, ap) = (node("eu/n1"), node("ap/n1"));
        let mut replace = |peers: &mut Peers, of: &NodeId, key| peers.replace(of, [key; KEY], &mut out);
        assert_eq!(replace(&mut peers, &node("eu/n2"), 9), Err(NotReplaced::NotPinned(node("eu/n2"))));
        assert_eq!(replace(&mut peers, &eu, b'e'), Err(NotReplaced::Same(eu.clone())));
        assert_eq!(replace(&mut peers, &eu, b'a'), Err(NotReplaced::Taken(ap.clone())));
        assert_eq!(replace(&mut peers, &eu, 1), Err(NotReplaced::Taken(node("us/n1"))), "this node's own");
        assert_eq!(peers.shown(&ap, &[8; KEY], &mut Effects::default()), Seen::Other);
        assert_eq!(
            replace(&mut peers, &eu, 8),
            Err(NotReplaced::Taken(ap.clone())),
            "the other one showed it"
        );
        assert_eq!(peers.shown(&eu, &[9; KEY], &mut Effects::default()), Seen::Other);
        assert_eq!(replace(&mut peers, &eu, 9), Ok(()));
        assert_eq!(peers.log_of(&eu), None, "not before it is durable");
        peers.pinned(&eu);
        assert_eq!(peers.log_of(&eu).map(|key| key.public), Some([9; KEY]));
        assert_eq!(peers.shown(&eu, &[9; KEY], &mut Effects::default()), Seen::Same);
        assert_eq!(replace(&mut peers, &eu, b'e'), Err(NotReplaced::Taken(eu.clone())), "none comes back");
        assert_eq!(replace(&mut peers, &ap, b'e'), Err(NotReplaced::Taken(eu.clone())));
        assert_eq!(peers.all_witnesses().len(), 3, "what it cosigned before stays provable");
    }

    #[test]
    fn what_was_replaced_is_known_after_a_start() {
        let (eu, mut out, mut barrier) = (node("eu/n1"), Effects::default(), Barrier::default());
        let mut first = peers(vec![(b"eu/n1".to_vec(), vec![2; KEY])]);
        first.replace(&eu, [3; KEY], &mut out).expect("replaced");
        let mut written = Vec::new();
        barrier.absorb(&mut out, |release| {
            if let Release::Persist(_, batch) = release {
                written.push(batch);
            }
        });
        assert_eq!(written.len(), 1, "both rows in one batch");
        let again = peers(vec![(b"eu/n1".to_vec(), vec![3; KEY])]);
        let again = again.after([(b"eu/n1".to_vec(), vec![2; KEY])]).expect("sound rows");
        assert_eq!(again.all_logs().iter().map(|key| key.public[0]).collect::<Vec<_>>(), [3, 2]);
        let cut = peers(Vec::new()).after([(b"eu/n1".to_vec(), vec![2; KEY + 1])]);
        assert_eq!(cut.err(), Some(Unsound::PeerKey("eu/n1".into())));
    }

    #[test]
    fn one_node_in_each_of_so_many_other_regions_must_have_cosigned() {
        let pinned = |nodes: &[&str]| {
            peers(
                nodes
                    .iter()
                    .map(|n| (n.as_bytes().to_vec(), vec![n.len() as u8 + n.as_bytes()[1]; 32]))
                    .collect(),
            )
        };
        assert_eq!(pinned(&["us/n2"]).policy(&log(), 1), Ok(None), "nodes of one region are no witnesses");
        assert_eq!(pinned(&["eu/n1"]).policy(&log(), 2), Ok(None), "too few are known");
        assert!(pinned(&["eu/n1", "ap/n1"]).policy(&log(), 2).expect("a policy").is_some());
        let all = pinned(&["eu/n1", "ap/n1"]).policy(&log(), 9).expect("a policy");
        assert!(all.is_some(), "no more are asked for than there are");
        let text = pinned(&["eu/n1", "ap/n1"]).policy_text(&log(), 1).expect("enough");
        assert!(text.contains("group */1 1 ap/* eu/*\nquorum */1\n"), "{text}");
        assert!(pinned(&[]).policy(&log(), 0).expect("a policy").is_some());
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let read = |key: &[u8], value: usize| {
            let rows = vec![(key.to_vec(), vec![7; value])];
            Peers::recover("mesh.example", (&node("us/n1"), [1; 32]), [node("eu/n1")], rows).err()
        };
        assert_eq!(read(b"eu/n1", 31), Some(Unsound::PeerKey("eu/n1".into())));
        assert_eq!(read(b"eu", 32), Some(Unsound::PeerKey("eu".into())));
        assert_eq!(read(b"eu/n1", 32), None);
    }
}
