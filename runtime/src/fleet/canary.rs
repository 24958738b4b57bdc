//! Whether a node does well with its new certificate.
//!
//! * It decides: from what the mesh says of itself again and again, whether the certificate is good, bad (and
//!   why), or not known yet; and which certificate was good before.
//! * It never does: ask, or undo anything; or hold against a certificate what was so before it came, or what has
//!   to do with somebody else's.
//! * Invariant: a certificate is good only when the node uses it and every peer that it was connected with has
//!   a connection on which it was shown; and nothing got worse for as long as the bake lasts.
//!
//! What makes it bad: the node refuses it itself; it is not taken up, or not shown to a peer, in time; a peer
//! turns the node away, or the other way round; more programs than are allowed refuse it; a connection of the node
//! is gone, or the node is not ready, for longer than is allowed; more of its calls end in faults than before and
//! than is allowed.

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
    /// Who dials the node and refuses its certificate, how often.
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

/// The certificate that a node is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its serial number.
    pub serial: String,
    /// Which generation of the node's folder it is.
    pub generation: Option<u64>,
}

/// One node under observation.
#[derive(Debug)]
pub struct Bake {
    given: Given,
    limits: Limits,
    begun: Mono,
    before: Before,
    /// Since when everybody has seen the new certificate.
    seen: Option<Mono>,
    /// Since when something is not as it should be.
    wrong: BTreeMap<Wrong, Mono>,
}

/// What is not as it should be. In words it may change with every look, with numbers and reasons in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Silent,
    NotTaken,
    NotReady,
    /// This peer has not been shown the certificate.
    Unseen(String),
    /// The connection with this peer is gone.
    Gone(String),
}

/// How a node was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    node: String,
    serial: String,
    peers: BTreeSet<String>,
    refused: Option<String>,
    /// Connections, by their two ends, that were turned away over a certificate when they were last tried.
    turned_away: BTreeSet<(String, String)>,
    refusals: u64,
    was_ready: bool,
    calls: u64,
    faults: u64,
}

impl Before {
    /// A node, as the mesh says that it is; none where the node has not answered.
    #[must_use]
    pub fn of(node: &NodeId, mesh: &MeshStatus) -> Option<Self> {
        let name = node.to_string();
        let own = mesh.nodes.iter().find(|status| status.node == name)?;
        Some(Self {
            serial: shown_by(own, mesh),
            peers: own.links.iter().filter(|link| link.up).map(|link| link.node.clone()).collect(),
            refused: own.certificate.refused.clone(),
            turned_away: turned_away(&name, mesh).map(|away| away.ends()).collect(),
            refusals: refusals(own),
            was_ready: own.ready,
            calls: own.calls,
            faults: own.faults,
            node: name,
        })
    }

    /// Which node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The serial number of the certificate that the node's peers had taken.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// The certificate that a node's connections stand on. One that a peer has refused is shown on none: where one
/// connection still goes by another than the node's own, that one is known to do.
fn shown_by(own: &NodeStatus, mesh: &MeshStatus) -> String {
    let links = mesh.nodes.iter().flat_map(|peer| &peer.links);
    let mut shown =
        links.filter(|link| link.up && link.node == own.node).filter_map(|link| link.serial.clone());
    shown.find(|serial| *serial != own.certificate.serial).unwrap_or_else(|| own.certificate.serial.clone())
}

impl Bake {
    /// A node that gets a certificate now.
    #[must_use]
    pub fn begin(before: Before, given: Given, limits: Limits, now: Mono) -> Self {
        Self { given, limits, begun: now, before, seen: None, wrong: BTreeMap::new() }
    }

    /// What the mesh says now; none when nobody answered.
    pub fn look(&mut self, mesh: Option<&MeshStatus>, now: Mono) -> Verdict {
        let own = mesh.and_then(|mesh| mesh.nodes.iter().find(|status| status.node == self.before.node));
        let (Some(mesh), Some(own)) = (mesh, own) else {
            let silent = format!("{} does not answer", self.before.node);
            return self.lasts_too_long(vec![(Wrong::Silent, silent)], now);
        };
        if let Some(bad) = self.plainly_bad(mesh, own) {
            return Verdict::Bad(bad);
        }
        self.forget_what_has_passed(mesh, own);
        let mut wrong = self.unseen(mesh, own);
        if wrong.is_empty() {
            self.seen.get_or_insert(now);
        }
        wrong.extend(self.gone(own));
        if self.before.was_ready && !own.ready {
            let reason = own.reason.as_deref().unwrap_or("no reason");
            wrong.push((Wrong::NotReady, format!("{} is not ready: {reason}", self.before.node)));
        }
        match self.seen {
            Some(seen) if wrong.is_empty() && elapsed(seen, now) >= self.limits.bake => Verdict::Good,
            _ => self.lasts_too_long(wrong, now),
        }
    }

    /// What no time makes better.
    fn plainly_bad(&self, mesh: &MeshStatus, own: &NodeStatus) -> Option<String> {
        let node = &self.before.node;
        if let Some(why) = self.refuses(own) {
            return Some(format!("{node} refuses it: {why}"));
        }
        let mut away = turned_away(node, mesh);
        if let Some(away) = away.find(|away| !self.before.turned_away.contains(&away.ends())) {
            return Some(away.to_string());
        }
        let more = refusals(own).saturating_sub(self.before.refusals);
        if more > self.limits.turned_away {
            return Some(format!(
                "{more} connections with {node} were turned away since then by who dialled it"
            ));
        }
        let (calls, faults) =
            (own.calls.saturating_sub(self.before.calls), own.faults.saturating_sub(self.before.faults));
        let now_percent = (faults * 100).checked_div(calls).unwrap_or_default();
        let before_percent = (self.before.faults * 100).checked_div(self.before.calls).unwrap_or_default();
        if calls >= ENOUGH && now_percent > self.limits.faults_percent.max(before_percent) {
            return Some(format!("{faults} of {calls} calls of {node} ended in a fault since then"));
        }
        None
    }

    /// Why the node refuses this certificate. What it says until it has looked at it is of an earlier one: it
    /// looks every ten seconds.
    fn refuses<'a>(&self, own: &'a NodeStatus) -> Option<&'a String> {
        let why = own.certificate.refused.as_ref()?;
        let has_looked = match own.certificate.generation {
            Some(looked_at) => Some(looked_at) == self.given.generation,
            // Its folder is kept without generations.
            None => self.before.refused.as_ref() != Some(why),
        };
        has_looked.then_some(why)
    }

    /// What was so before counts again when it comes back.
    fn forget_what_has_passed(&mut self, mesh: &MeshStatus, own: &NodeStatus) {
        let away: BTreeSet<_> = turned_away(&self.before.node, mesh).map(|away| away.ends()).collect();
        let answered = |end: &str| mesh.nodes.iter().any(|node| node.node == end);
        self.before.turned_away.retain(|ends| away.contains(ends) || !answered(&ends.0));
        if own.certificate.refused.is_none() {
            self.before.refused = None;
        }
    }

    /// Who has not seen the new certificate yet, the node itself among them.
    fn unseen(&self, mesh: &MeshStatus, own: &NodeStatus) -> Vec<(Wrong, String)> {
        let node = &self.before.node;
        if own.certificate.serial != self.given.serial {
            let mut what = format!("{node} runs with {}, not with the new one", own.certificate.serial);
            if let Some(why) = &own.certificate.refused {
                what.push_str(&format!(" (it refuses what it has found: {why})"));
            }
            return vec![(Wrong::NotTaken, what)];
        }
        let peers = mesh.nodes.iter().filter(|peer| self.before.peers.contains(&peer.node));
        let shown = |peer: &&NodeStatus| {
            let mut links = peer.links.iter();
            links.any(|link| link.node == *node && link.serial.as_ref() == Some(&self.given.serial))
        };
        let blind = peers.filter(|peer| !shown(peer));
        blind
            .map(|peer| {
                let link = own.links.iter().find(|link| link.node == peer.node);
                let why = link.and_then(|link| link.why.as_ref()).map(|why| format!(": {why}"));
                let what =
                    format!("{} has not been shown it by {node}{}", peer.node, why.unwrap_or_default());
                (Wrong::Unseen(peer.node.clone()), what)
            })
            .collect()
    }

    /// Connections that there were and are not.
    fn gone(&self, own: &NodeStatus) -> Vec<(Wrong, String)> {
        let down = own.links.iter().filter(|link| !link.up && self.before.peers.contains(&link.node));
        down.map(|link| {
            let why = link.why.as_deref().unwrap_or("no reason");
            let what = format!("the connection of {} with {} is gone: {why}", self.before.node, link.node);
            (Wrong::Gone(link.node.clone()), what)
        })
        .collect()
    }

    /// Whether one of these has lasted for longer than is allowed. Those that have passed are forgotten.
    fn lasts_too_long(&mut self, wrong: Vec<(Wrong, String)>, now: Mono) -> Verdict {
        // From the beginning on where it was never otherwise.
        let since = if self.seen.is_none() { self.begun } else { now };
        let known = std::mem::take(&mut self.wrong);
        let mut late = None;
        for (what, in_words) in wrong {
            let since = known.get(&what).copied().unwrap_or(since);
            if elapsed(since, now) > self.limits.grace {
                late.get_or_insert(in_words);
            }
            self.wrong.insert(what, since);
        }
        late.map_or(Verdict::Wait, |what| Verdict::Bad(format!("{what}, for {:?}", self.limits.grace)))
    }
}

fn elapsed(since: Mono, now: Mono) -> Duration {
    now.0.saturating_sub(since.0)
}

/// A connection that one end turned away, over the certificate of either.
struct TurnedAway<'a> {
    end: &'a str,
    peer: &'a str,
    reason: &'a str,
    why: Option<&'a str>,
}

impl TurnedAway<'_> {
    fn ends(&self) -> (String, String) {
        (self.end.to_owned(), self.peer.to_owned())
    }
}

impl std::fmt::Display for TurnedAway<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { end, peer, reason, why } = self;
        write!(f, "a connection of {end} with {peer} was turned away ({reason})")?;
        why.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// Connections of a node with other nodes that were turned away when they were last tried.
fn turned_away<'a>(node: &str, mesh: &'a MeshStatus) -> impl Iterator<Item = TurnedAway<'a>> {
    let links = mesh.nodes.iter().flat_map(|end| end.links.iter().map(move |link| (end.node.as_str(), link)));
    links.filter(move |(end, link)| *end == node || link.node == node).filter_map(|(end, link)| {
        let (reason, why) = (link.refused.as_deref()?, link.why.as_deref());
        Some(TurnedAway { end, peer: &link.node, reason, why })
    })
}

/// How often who dialled a node has refused its certificate.
fn refusals(node: &NodeStatus) -> u64 {
    node.turned_away.get("refused_us").copied().unwrap_or_default()
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
        begun_after(&mesh("old", "old"))
    }

    fn begun_after(before: &MeshStatus) -> Bake {
        let node = "us/n1".parse().expect("a node");
        let given = Given { serial: "new".into(), generation: Some(2) };
        Bake::begin(Before::of(&node, before).expect("it answers"), given, LIMITS, at(0))
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
    fn one_that_the_node_refuses_is_bad_as_soon_as_the_node_has_looked_at_it() {
        let says = |why: Option<&str>, generation: Option<u64>| {
            let mut mesh = mesh("old", "old");
            mesh.nodes[0].certificate.refused = why.map(str::to_owned);
            mesh.nodes[0].certificate.generation = generation;
            mesh
        };
        let (mode, revoked) = (Some("mode 644"), Some("it was revoked"));
        // What it said before, what it says then, and of which generation that is.
        for (before, then, generation, is_bad) in [
            (None, revoked, Some(2), true),
            (None, revoked, None, true),
            (mode, mode, Some(1), false),
            (mode, mode, None, false),
            (mode, revoked, None, true),
            (mode, mode, Some(2), true),
            (mode, revoked, Some(1), false),
        ] {
            let mut bake = begun_after(&says(before, Some(1)));
            let verdict = bake.look(Some(&says(then, generation)), at(1));
            let case = format!("{before:?} {then:?} {generation:?}: {verdict:?}");
            assert_eq!(matches!(verdict, Verdict::Bad(_)), is_bad, "{case}");
        }
        let mut bake = begun_after(&says(mode, None));
        assert_eq!(bake.look(Some(&says(None, None)), at(1)), Verdict::Wait);
        assert_eq!(bad(bake.look(Some(&says(mode, None)), at(2))), "us/n1 refuses it: mode 644");
        let why = bad(begun().look(Some(&says(mode, Some(1))), at(11)));
        assert_eq!(
            why,
            "us/n1 runs with old, not with the new one (it refuses what it has found: mode 644), for 10s"
        );
    }

    #[test]
    fn one_that_a_peer_turns_away_is_bad_and_what_was_so_before_counts_for_nothing() {
        let away = |end: usize, refused: Option<&str>| {
            let mut mesh = mesh("new", "old");
            let link = &mut mesh.nodes[end].links[0];
            (link.refused, link.why) =
                (refused.map(str::to_owned), refused.map(|_| "it says why".to_owned()));
            mesh
        };
        for (end, reason, said) in [
            (0, "refused_us", "a connection of us/n1 with eu/n1 was turned away (refused_us): it says why"),
            (
                1,
                "unknown_authority",
                "a connection of eu/n1 with us/n1 was turned away (unknown_authority): it says why",
            ),
        ] {
            assert_eq!(bad(begun().look(Some(&away(end, Some(reason))), at(1))), said);
            let mut bake = begun_after(&away(end, Some(reason)));
            assert_eq!(bake.look(Some(&away(end, Some(reason))), at(1)), Verdict::Wait, "as before");
            assert_eq!(bake.look(Some(&away(end, None)), at(2)), Verdict::Wait);
            assert_eq!(bad(bake.look(Some(&away(end, Some(reason))), at(3))), said, "it has come back");
        }
        // Two others turn each other away: that is not about this node.
        let mut others = mesh("new", "new");
        others.nodes.push(NodeStatus {
            node: "ap/n1".into(),
            links: vec![Link { refused: Some("expired".into()), ..link("eu/n1", "e") }],
            ..NodeStatus::default()
        });
        assert_eq!(begun().look(Some(&others), at(1)), Verdict::Wait);
    }

    #[test]
    fn somebody_with_a_certificate_of_his_own_that_is_no_good_has_no_say() {
        let mut before = mesh("old", "old");
        before.nodes[0].turned_away = BTreeMap::from([("refused_us".into(), 7)]);
        // Of a node that was silent before, nothing is known to be new.
        before.nodes.remove(1);
        let mut bake = begun_after(&before);
        let mut seen = mesh("new", "new");
        let reasons =
            ["expired", "revoked", "unknown_authority", "certificate", "revocation_unknown", "duplicate"];
        for node in &mut seen.nodes {
            node.turned_away = reasons.map(|reason| (reason.to_owned(), 9)).into();
        }
        seen.nodes[0].turned_away.insert("refused_us".into(), 7);
        assert_eq!(bake.look(Some(&seen), at(1)), Verdict::Wait);
        seen.nodes[0].turned_away.insert("refused_us".into(), 8);
        assert_eq!(
            bad(bake.look(Some(&seen), at(2))),
            "1 connections with us/n1 were turned away since then by who dialled it"
        );
    }

    #[test]
    fn the_certificate_of_before_is_the_one_that_its_connections_stand_on() {
        let node: NodeId = "us/n1".parse().expect("a node");
        let before = |own: &str, shown: &str| Before::of(&node, &mesh(own, shown)).expect("it answers");
        assert_eq!(before("one", "one").serial(), "one");
        assert_eq!(before("two", "one").serial(), "one", "its peer has not taken the second");
        let mut cut = mesh("two", "one");
        cut.nodes[1].links[0].up = false;
        assert_eq!(Before::of(&node, &cut).expect("it answers").serial(), "two");
        cut.nodes.remove(0);
        assert_eq!(Before::of(&node, &cut), None, "it does not answer");
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
    }

    #[test]
    fn what_is_wrong_is_the_same_also_when_its_reason_reads_otherwise_every_time() {
        let lame: [fn(&mut MeshStatus, u64); 3] = [
            |mesh, at| {
                let reason = format!("stuck: {at} messages wait, the first for {at}s");
                (mesh.nodes[0].ready, mesh.nodes[0].reason) = (false, Some(reason));
            },
            |mesh, at| {
                let link = &mut mesh.nodes[0].links[0];
                (link.up, link.why) = (false, Some(format!("not for {at}s")));
            },
            |mesh, at| mesh.nodes[0].certificate.serial = format!("another{at}"),
        ];
        for (case, lame) in lame.iter().enumerate() {
            let mut bake = begun();
            assert_eq!(bake.look(Some(&mesh("new", "new")), at(1)), Verdict::Wait);
            for second in 2..=12 {
                let mut mesh = mesh("new", "new");
                lame(&mut mesh, second);
                assert_eq!(bake.look(Some(&mesh), at(second)), Verdict::Wait, "case {case} at {second}");
            }
            let mut mesh = mesh("new", "new");
            lame(&mut mesh, 13);
            assert!(bad(bake.look(Some(&mesh), at(13))).contains("13"), "case {case}: in its last words");
        }
    }

    #[test]
    fn more_faults_than_before_and_than_is_allowed_are_bad_if_there_are_enough_calls() {
        let mut before = mesh("old", "old");
        (before.nodes[0].calls, before.nodes[0].faults) = (1_000, 10);
        for (calls, faults, is_bad) in [(49, 49, false), (100, 5, false), (100, 6, true)] {
            let mut bake = begun_after(&before);
            let mut seen = mesh("new", "new");
            (seen.nodes[0].calls, seen.nodes[0].faults) = (1_000 + calls, 10 + faults);
            let verdict = bake.look(Some(&seen), at(5));
            assert_eq!(matches!(verdict, Verdict::Bad(_)), is_bad, "{calls} {faults}: {verdict:?}");
        }
    }
}
