//! Whether the floors and the peers are as good as they were on a like machine. A floor that is lower than it could be
//! would make everything above it look good, and so would a peer.
//!
//! * It decides: what each of them is compared with.
//! * It never does: judge a machine unlike that one. It says the ratio; a reader judges.

use super::number;
use crate::sample::Outcome;

/// What bare quinn with mutual TLS and messages of 64 bytes did on two virtual processors: work,
/// system, in flight, operations a second.
const REFERENCE: [(&str, &str, usize, f64); 7] = [
    ("remote-ask", "quinn-framed", 1, 13_000.0),
    ("remote-ask", "quinn-framed", 16, 228_000.0),
    ("remote-ask", "quinn-framed", 256, 920_000.0),
    ("remote-ask", "quinn-streams", 1, 17_000.0),
    ("remote-ask", "quinn-streams", 16, 99_000.0),
    ("remote-ask", "quinn-streams", 256, 152_000.0),
    ("remote-tell", "quinn-framed", 256, 4_200_000.0),
];

/// What the peers did on that machine on that day. Redis counted and PostgreSQL changed one row there: less than a hold is.
const PEERS: [(&str, &str, usize, f64); 22] = [
    ("remote-ask", "tonic", 1, 7_000.0),
    ("remote-ask", "tonic", 16, 42_000.0),
    ("remote-ask", "tonic", 256, 63_000.0),
    ("remote-ask", "ractor_cluster", 1, 12_000.0),
    ("remote-ask", "ractor_cluster", 16, 59_000.0),
    ("remote-ask", "ractor_cluster", 256, 155_000.0),
    ("remote-ask", "kameo", 1, 3_000.0),
    ("remote-ask", "kameo", 16, 19_000.0),
    ("remote-ask", "kameo", 256, 33_000.0),
    ("durable-hold", "redis", 1, 5_000.0),
    ("durable-hold", "redis", 16, 43_000.0),
    ("durable-hold", "redis", 256, 209_000.0),
    ("durable-hold", "redis-each", 16, 36_000.0),
    ("durable-hold", "redis-each", 256, 99_000.0),
    ("durable-hold", "postgres", 1, 4_500.0),
    ("durable-hold", "postgres", 16, 3_600.0),
    ("durable-hold", "postgres", 256, 1_400.0),
    ("range-put", "etcd", 1, 970.0),
    ("range-put", "etcd", 16, 2_900.0),
    ("range-put", "etcd", 256, 8_300.0),
    ("range-read", "etcd", 256, 10_200.0),
    ("range-read", "etcd-follower", 256, 11_700.0),
];

/// By how much a floor may differ and count.
const NEAR: f64 = 0.2;

/// A sentence for each floor and each peer among these that has a reference: which of both it is, and how it compares.
#[must_use]
pub fn sentences(outcomes: &[Outcome]) -> Vec<(&'static str, String)> {
    let measured = |o: &&Outcome| (o.payload == 64 || o.work.starts_with("range-")) && o.rounds > 0;
    let told = |o: &Outcome| sentence(o, "Floor", &REFERENCE).or_else(|| sentence(o, "Peer", &PEERS));
    outcomes.iter().filter(measured).filter_map(told).collect()
}

fn sentence(
    o: &Outcome,
    what: &'static str,
    references: &[(&str, &str, usize, f64)],
) -> Option<(&'static str, String)> {
    // On whatever runtime.
    let called = o.system.strip_suffix("-one").unwrap_or(&o.system);
    let same = |(work, system, concurrency, _): &&(&str, &str, usize, f64)| {
        (*work, *system, *concurrency) == (o.work.as_str(), called, o.concurrency)
    };
    let (.., reference) = references.iter().find(same)?;
    let ratio = o.value / reference;
    let judged = match ratio {
        r if r < 1.0 - NEAR && what == "Floor" => {
            "WEAKER than it should be: it does not count as a floor unless the machine is slower"
        }
        r if r < 1.0 - NEAR && o.work == "durable-hold" => "weaker, at work that is more",
        r if r < 1.0 - NEAR => "WEAKER: what Rhumb is ahead of it is too much, unless the machine is slower",
        r if r > 1.0 + NEAR => "stronger",
        _ => "near enough",
    };
    let said = format!(
        "{}, {}, {} in flight: {} is {ratio:.2} of the reference {}: {judged}",
        o.work,
        o.system,
        o.concurrency,
        number(o.value),
        number(*reference)
    );
    Some((what, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn a_weak_floor_is_seen() {
        let said = sentences(&[
            outcome("quinn-framed", 100_000),
            outcome("rhumb", 1),
            outcome("quinn-streams", 99_000),
        ]);
        assert_eq!(said.len(), 2);
        assert!(said[0].1.contains("0.44 of the reference 228,000: WEAKER"), "{}", said[0].1);
        assert!(said[1].1.ends_with("near enough"), "{}", said[1].1);
    }

    #[test]
    fn a_weak_peer_is_seen() {
        let said =
            sentences(&[outcome("tonic", 24_753), outcome("ractor_cluster", 59_000), outcome("coerce", 1)]);
        assert_eq!(said.len(), 2);
        assert!(
            said[0].0 == "Peer" && said[0].1.contains("0.59 of the reference 42,000: WEAKER:"),
            "{}",
            said[0].1
        );
        assert!(said[1].1.ends_with("near enough"), "{}", said[1].1);
        let missing = Outcome { rounds: 0, ..outcome("tonic", 0) };
        assert!(sentences(&[missing]).is_empty());
    }
}
