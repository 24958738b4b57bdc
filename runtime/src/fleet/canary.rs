//! Whether a node does well with its new certificate.
//!
//! * It decides: from what the mesh says of itself again and again, whether the certificate is good, bad (and
//!   why), or not known yet.
//! * It never does: ask, or undo anything.
//! * Invariant: a certificate is good only when the node uses it and every peer that it was connected with has
//!   a connection on which it was shown; and nothing got worse for as long as the bake lasts.
//!
//! What makes it bad: the node refuses it itself; it is not taken up, or not shown to a peer, in time; a peer
//! turns the node away, or the other way round; a connection of the node is gone, or the node is not ready, for
//! longer than is allowed; more of its calls end in faults than before and than is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::{Mono, NodeId};

use crate::mesh::status::{MeshStatus, NodeStatus};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long it is looked at once everybody sees it.
    pub bake: Duration,
    /// How long it may take until then, and how long a connection may be gone.
    pub grace: Duration,
    /// Connections that may be turned away over certificates.
    pub turned_away: u64,
    /// Calls in a hundred that may end in a fault, if there are [`ENOUGH`].
    pub faults_percent: u64,
}

/// Fewer calls than this tell nothing.
pub const ENOUGH: u64 = 50;

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// It may stay.
    Good,
    /// It must go, for this reason.
    Bad(String),
}

/// One node under observation.
#[derive(Debug)]
pub struct Bake {
    node: String,
    serial: String,
    limits: Limits,
    begun: Mono,
    before: Before,
    /// Since when everybody has seen the new certificate.
    seen: Option<Mono>,
    /// Since when something is not as it should be, by what it is.
    wrong: BTreeMap<String, Mono>,
}

/// How it was before.
#[derive(Debug)]
struct Before {
    peers: BTreeSet<String>,
    turned_away: BTreeMap<String, u64>,
    was_ready: bool,
    calls: u64,
    faults: u64,
}

impl Bake {
    /// A node that gets a certificate with this serial number now. `before` is what the mesh said last.
    #[must_use]
    pub fn begin(node: &NodeId, serial: String, before: &MeshStatus, limits: Limits, now: Mono) -> Self {
        let name = node.to_string();
        let own = before.nodes.iter().find(|status| status.node == name);
        let up = own.into_iter().flat_map(|own| own.links.iter().filter(|link| link.up));
        let before = Before {
            peers: up.map(|link| link.node.clone()).collect(),
            turned_away: before.nodes.iter().map(|node| (node.node.clone(), turned_away(node))).collect(),
            was_ready: own.is_some_and(|own| own.ready),
            calls: own.map_or(0, |own| own.calls),
            faults: own.map_or(0, |own| own.faults),
        };
        Self { node: name, serial, limits, begun: now, before, seen: None, wrong: BTreeMap::new() }
    }

    /// What the mesh says now; none when nobody answered.
    pub fn look(&mut self, mesh: Option<&MeshStatus>, now: Mono) -> Verdict {
        let own = mesh.and_then(|mesh| mesh.nodes.iter().find(|status| status.node == self.node));
        let (Some(mesh), Some(own)) = (mesh, own) else {
            return self.lasts_too_long(vec![format!("{} does not answer", self.node)], now);
        };
        if let Some(bad) = self.plainly_bad(mesh, own) {
            return Verdict::Bad(bad);
        }
        let unseen = self.unseen(mesh, own);
        let mut wrong = unseen.clone();
        wrong.extend(self.gone(own));
        if self.before.was_ready && !own.ready {
            wrong.push(format!(
                "{} is not ready: {}",
                self.node,
                own.reason.as_deref().unwrap_or("no reason")
            ));
        }
        if unseen.is_empty() {
            self.seen.get_or_insert(now);
        }
        match self.seen {
            Some(seen) if wrong.is_empty() && elapsed(seen, now) >= self.limits.bake => Verdict::Good,
            _ => self.lasts_too_long(wrong, now),
        }
    }

    /// What no time makes better.
    fn plainly_bad(&self, mesh: &MeshStatus, own: &NodeStatus) -> Option<String> {
        if let Some(why) = &own.certificate.refused {
            return Some(format!("{} refuses it: {why}", self.node));
        }
        for node in &mesh.nodes {
            let before = self.before.turned_away.get(&node.node).copied().unwrap_or_default();
            let more = turned_away(node).saturating_sub(before);
            if more > self.limits.turned_away {
                let reasons = over_certificates(node).map(|(reason, _)| reason.as_str()).collect::<Vec<_>>();
                let (node, reasons) = (&node.node, reasons.join(", "));
                let told = self.complaints(mesh);
                return Some(format!("{node} turned away {more} connections since then ({reasons}){told}"));
            }
        }
        let (calls, faults) =
            (own.calls.saturating_sub(self.before.calls), own.faults.saturating_sub(self.before.faults));
        let now_percent = (faults * 100).checked_div(calls).unwrap_or_default();
        let before_percent = (self.before.faults * 100).checked_div(self.before.calls).unwrap_or_default();
        if calls >= ENOUGH && now_percent > self.limits.faults_percent.max(before_percent) {
            return Some(format!("{faults} of {calls} calls of {} ended in a fault since then", self.node));
        }
        None
    }

    /// What the ends of the node's connections say is wrong with them.
    fn complaints(&self, mesh: &MeshStatus) -> String {
        let links = mesh.nodes.iter().flat_map(|node| node.links.iter().map(move |link| (&node.node, link)));
        let its = links.filter(|(end, link)| **end == self.node || link.node == self.node);
        let told = its.filter_map(|(end, link)| {
            Some(format!("; {end} says of its connection with {}: {}", link.node, link.why.as_ref()?))
        });
        told.collect()
    }

    /// Who has not seen the new certificate yet, the node itself among them.
    fn unseen(&self, mesh: &MeshStatus, own: &NodeStatus) -> Vec<String> {
        if own.certificate.serial != self.serial {
            return vec![format!("{} runs with {}, not with the new one", self.node, own.certificate.serial)];
        }
        let peers = mesh.nodes.iter().filter(|peer| self.before.peers.contains(&peer.node));
        let shown = |peer: &&NodeStatus| {
            let mut links = peer.links.iter();
            links.any(|link| link.node == self.node && link.serial.as_ref() == Some(&self.serial))
        };
        let blind = peers.filter(|peer| !shown(peer));
        blind
            .map(|peer| {
                let link = own.links.iter().find(|link| link.node == peer.node);
                let why = link.and_then(|link| link.why.as_ref()).map(|why| format!(": {why}"));
                format!("{} has not been shown it by {}{}", peer.node, self.node, why.unwrap_or_default())
            })
            .collect()
    }

    /// Connections that there were and are not.
    fn gone(&self, own: &NodeStatus) -> Vec<String> {
        let down = own.links.iter().filter(|link| !link.up && self.before.peers.contains(&link.node));
        down.map(|link| {
            let why = link.why.as_deref().unwrap_or("no reason");
            format!("the connection of {} with {} is gone: {why}", self.node, link.node)
        })
        .collect()
    }

    /// Whether one of these has lasted for longer than is allowed. Those that have passed are forgotten.
    fn lasts_too_long(&mut self, wrong: Vec<String>, now: Mono) -> Verdict {
        let kept: BTreeMap<String, Mono> = wrong
            .into_iter()
            .map(|what| {
                // From the beginning on where it was never otherwise.
                let since = self.wrong.get(&what).copied();
                let since = since.unwrap_or(if self.seen.is_none() { self.begun } else { now });
                (what, since)
            })
            .collect();
        self.wrong = kept;
        let late = self.wrong.iter().find(|(_, since)| elapsed(**since, now) > self.limits.grace);
        late.map_or(Verdict::Wait, |(what, _)| Verdict::Bad(format!("{what}, for {:?}", self.limits.grace)))
    }
}

fn elapsed(since: Mono, now: Mono) -> Duration {
    now.0.saturating_sub(since.0)
}

/// Reasons for which a connection is turned away that have to do with certificates.
const REASONS: [&str; 6] =
    ["revoked", "expired", "unknown_authority", "certificate", "revocation_unknown", "refused_us"];

fn over_certificates(node: &NodeStatus) -> impl Iterator<Item = (&String, &u64)> {
    node.turned_away.iter().filter(|(reason, _)| REASONS.contains(&reason.as_str()))
}

fn turned_away(node: &NodeStatus) -> u64 {
    over_certificates(node).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::status::{CertificateStatus, Link};

    const LIMITS: Limits = Limits {
        bake: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        turned_away: 0,
        faults_percent: 5,
    };

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn link(node: &str, serial: &str) -> Link {
        Link { node: node.into(), up: true, serial: Some(serial.into()), ..Link::default() }
    }

    /// Two nodes; the first runs with this certificate, and the second was shown that one.
    fn mesh(own: &str, shown: &str) -> MeshStatus {
        let node = |name: &str, serial: &str, link: Link| NodeStatus {
            node: name.into(),
            ready: true,
            links: vec![link],
            certificate: CertificateStatus { serial: serial.into(), ..CertificateStatus::default() },
            ..NodeStatus::default()
        };
        let nodes = vec![node("us/n1", own, link("eu/n1", "e")), node("eu/n1", "e", link("us/n1", shown))];
        MeshStatus { nodes, ..MeshStatus::default() }
    }

    fn begun() -> Bake {
        Bake::begin(&"us/n1".parse().expect("a node"), "new".into(), &mesh("old", "old"), LIMITS, at(0))
    }

    fn bad(verdict: Verdict) -> String {
        match verdict {
            Verdict::Bad(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_that_everybody_sees_and_nothing_suffers_from_is_good_after_the_bake() {
        let mut bake = begun();
        assert_eq!(bake.look(Some(&mesh("old", "old")), at(1)), Verdict::Wait);
        assert_eq!(bake.look(Some(&mesh("new", "old")), at(2)), Verdict::Wait);
        for second in 5..65 {
            assert_eq!(bake.look(Some(&mesh("new", "new")), at(second)), Verdict::Wait, "at {second}");
        }
        assert_eq!(bake.look(Some(&mesh("new", "new")), at(65)), Verdict::Good);
    }

    #[test]
    fn one_that_the_node_refuses_is_bad_at_once() {
        let mut refusing = mesh("old", "old");
        refusing.nodes[0].certificate.refused = Some("it was revoked".into());
        assert_eq!(bad(begun().look(Some(&refusing), at(1))), "us/n1 refuses it: it was revoked");
    }

    #[test]
    fn one_that_a_peer_turns_away_is_bad_and_older_refusals_count_for_nothing() {
        let mut before = mesh("old", "old");
        before.nodes[1].turned_away = BTreeMap::from([("expired".into(), 7)]);
        let node = "us/n1".parse().expect("a node");
        let mut bake = Bake::begin(&node, "new".into(), &before, LIMITS, at(0));
        let mut seen = mesh("new", "old");
        seen.nodes[1].turned_away = BTreeMap::from([("expired".into(), 7), ("duplicate".into(), 9)]);
        assert_eq!(bake.look(Some(&seen), at(1)), Verdict::Wait);
        seen.nodes[1].turned_away.insert("unknown_authority".into(), 1);
        seen.nodes[0].links[0].why = Some("the peer refuses".into());
        let why = bad(bake.look(Some(&seen), at(2)));
        assert_eq!(
            why,
            "eu/n1 turned away 1 connections since then (expired, unknown_authority); us/n1 says of its connection with \
             eu/n1: the peer refuses"
        );
    }

    #[test]
    fn what_does_not_come_in_time_is_bad_and_says_what() {
        for (own, shown, what) in [
            ("old", "old", "us/n1 runs with old, not with the new one"),
            ("new", "old", "eu/n1 has not been shown it by us/n1"),
        ] {
            let mut bake = begun();
            assert_eq!(bake.look(Some(&mesh(own, shown)), at(10)), Verdict::Wait);
            let why = bad(bake.look(Some(&mesh(own, shown)), at(11)));
            assert_eq!(why, format!("{what}, for 10s"));
        }
        let mut bake = begun();
        assert_eq!(bake.look(None, at(9)), Verdict::Wait);
        assert_eq!(bad(bake.look(None, at(11))), "us/n1 does not answer, for 10s");
    }

    #[test]
    fn a_connection_may_be_gone_for_a_moment_and_no_longer() {
        let mut bake = begun();
        bake.look(Some(&mesh("new", "new")), at(1));
        let mut cut = mesh("new", "new");
        (cut.nodes[0].links[0].up, cut.nodes[0].links[0].why) = (false, Some("silent".into()));
        assert_eq!(bake.look(Some(&cut), at(20)), Verdict::Wait);
        assert_eq!(bake.look(Some(&mesh("new", "new")), at(25)), Verdict::Wait, "it is back");
        assert_eq!(bake.look(Some(&cut), at(40)), Verdict::Wait);
        let why = bad(bake.look(Some(&cut), at(51)));
        assert_eq!(why, "the connection of us/n1 with eu/n1 is gone: silent, for 10s");
        let mut unready = begun();
        unready.look(Some(&mesh("new", "new")), at(1));
        let mut lame = mesh("new", "new");
        (lame.nodes[0].ready, lame.nodes[0].reason) = (false, Some("certificate: it has expired".into()));
        assert_eq!(unready.look(Some(&lame), at(2)), Verdict::Wait);
        assert!(bad(unready.look(Some(&lame), at(13))).contains("is not ready: certificate"));
    }

    #[test]
    fn more_faults_than_before_and_than_is_allowed_are_bad_if_there_are_enough_calls() {
        let mut before = mesh("old", "old");
        (before.nodes[0].calls, before.nodes[0].faults) = (1_000, 10);
        let node: NodeId = "us/n1".parse().expect("a node");
        for (calls, faults, is_bad) in [(49, 49, false), (100, 5, false), (100, 6, true)] {
            let mut bake = Bake::begin(&node, "new".into(), &before, LIMITS, at(0));
            let mut seen = mesh("new", "new");
            (seen.nodes[0].calls, seen.nodes[0].faults) = (1_000 + calls, 10 + faults);
            let verdict = bake.look(Some(&seen), at(5));
            assert_eq!(matches!(verdict, Verdict::Bad(_)), is_bad, "{calls} {faults}: {verdict:?}");
        }
    }
}
