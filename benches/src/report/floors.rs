//! Whether the floors are as good as they were on a like machine. A floor that is lower than it could be
//! would make everything above it look good.
//!
//! * It decides: what each floor is compared with.
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

/// By how much a floor may differ and count.
const NEAR: f64 = 0.2;

/// A sentence for each floor among these that has a reference.
#[must_use]
pub fn sentences(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().filter(|o| o.payload == 64).filter_map(sentence).collect()
}

fn sentence(o: &Outcome) -> Option<String> {
    let same = |(work, system, concurrency, _): &&(&str, &str, usize, f64)| {
        (*work, *system, *concurrency) == (o.work.as_str(), o.system.as_str(), o.concurrency)
    };
    let (.., reference) = REFERENCE.iter().find(same)?;
    let ratio = o.value / reference;
    let judged = match ratio {
        r if r < 1.0 - NEAR => {
            "WEAKER than it should be: it does not count as a floor unless the machine is slower"
        }
        r if r > 1.0 + NEAR => "stronger",
        _ => "near enough",
    };
    Some(format!(
        "{}, {}, {} in flight: {} is {ratio:.2} of the reference {}: {judged}",
        o.work,
        o.system,
        o.concurrency,
        number(o.value),
        number(*reference)
    ))
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
        assert!(said[0].contains("0.44 of the reference 228,000: WEAKER"), "{}", said[0]);
        assert!(said[1].ends_with("near enough"), "{}", said[1]);
    }
}
