//! In which order nodes are asked of which any may answer: the near ones first, and those that are equally near in turn.
//!
//! * It decides: who counts as equally near; who comes last because nothing was heard of it when it was last asked; how long
//!   the first one is asked alone.
//! * It never does: leave anybody out. Who seems unwell may be the only one that is left.

use std::time::Duration;

use rhumb_core::{NodeId, Region};

/// Who is not this part farther than the nearest one ([`SLACK`] besides) is as near: round trips vary by as much.
const AS_NEAR: (u32, u32) = (13, 10);
/// Within a building round trips differ by more than that part, and it bears on nothing.
const SLACK: Duration = Duration::from_millis(1);

/// How long a node is asked alone, where another one may be asked as well, beside it or after it: one that is frozen does not answer.
pub(crate) const ALONE: Duration = Duration::from_secs(1);

/// A node that may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which.
    pub(crate) node: NodeId,
    /// The round trip to it as it is measured; none: it was not, or there is no connection.
    pub(crate) rtt: Option<Duration>,
    /// Whether it can be asked, as far as is known.
    pub(crate) is_well: bool,
}

/// The order in which whoever stands in `region`, on the node `me` if on any, asks these. Those that are as near as the nearest of them
/// follow each other in turn, of its own region before others; where nothing was measured, its own region counts as near and all others as
/// far. Each is named once.
pub(crate) fn order(
    me: Option<&NodeId>,
    region: &Region,
    mut candidates: Vec<Candidate>,
    turn: usize,
) -> Vec<NodeId> {
    candidates.sort_by(|one, other| one.node.cmp(&other.node));
    candidates.dedup_by(|one, other| one.node == other.node);
    let far = |candidate: &Candidate| {
        let unknown = if candidate.node.region == *region { Duration::ZERO } else { Duration::MAX };
        candidate.rtt.unwrap_or(unknown)
    };
    let place = |candidate: &Candidate| {
        (me != Some(&candidate.node), !candidate.is_well && me != Some(&candidate.node), far(candidate))
    };
    candidates.sort_by_key(place);
    let mut ordered = Vec::with_capacity(candidates.len());
    let mut rest = candidates.as_slice();
    while let Some(first) = rest.first() {
        let (is_other, is_unwell, nearest) = place(first);
        let within = nearest.saturating_mul(AS_NEAR.0) / AS_NEAR.1;
        let within = within.saturating_add(SLACK);
        let as_near = |candidate: &&Candidate| {
            let (other, unwell, far) = place(candidate);
            (other, unwell) == (is_other, is_unwell) && (far == nearest || far <= within)
        };
        let (equal, farther) = rest.split_at(rest.iter().take_while(as_near).count());
        rest = farther;
        let (mut own, mut others): (Vec<_>, Vec<_>) =
            equal.iter().map(|candidate| candidate.node.clone()).partition(|node| node.region == *region);
        for equal in [&mut own, &mut others] {
            if !equal.is_empty() {
                let first = turn % equal.len();
                equal.rotate_left(first);
            }
            ordered.append(equal);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidates, for who stands on `eu/n1`: a node, `=` and its round trip in milliseconds where that is known, `!` behind one that is not well.
    fn asked(text: &str, turn: usize) -> String {
        let candidate = |word: &str| {
            let (word, is_well) = word.strip_suffix('!').map_or((word, true), |word| (word, false));
            let (node, rtt) = word.split_once('=').map_or((word, None), |(node, rtt)| (node, Some(rtt)));
            let rtt = rtt.map(|ms| Duration::from_secs_f64(ms.parse::<f64>().expect("a number") / 1e3));
            Candidate { node: node.parse().expect("a node"), rtt, is_well }
        };
        let (me, region) = ("eu/n1".parse().expect("a node"), Region::new("eu").expect("a region"));
        let ordered = order(Some(&me), &region, text.split_whitespace().map(candidate).collect(), turn);
        ordered.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn check(text: &str, wanted: &[&str]) {
        for (turn, wanted) in wanted.iter().enumerate() {
            assert_eq!(asked(text, turn), *wanted, "{text}, turn {turn}");
            let turned: Vec<_> = text.split_whitespace().rev().collect();
            assert_eq!(asked(&turned.join(" "), turn), *wanted, "{text} the other way round, turn {turn}");
        }
    }

    #[test]
    fn the_own_node_is_asked_first_then_the_nearest_and_who_is_unwell_last() {
        for (text, wanted) in [
            ("ap/n1=249 us/n1=91 uk/n1=14", "uk/n1 us/n1 ap/n1"),
            ("uk/n1=14 eu/n1 eu/n2=0.4", "eu/n1 eu/n2 uk/n1"),
            ("eu/n2=0.3! us/n1=91 ap/n1=249", "us/n1 ap/n1 eu/n2"),
            // None is left out.
            ("eu/n2! us/n1=91! ap/n1=249!", "eu/n2 us/n1 ap/n1"),
            // Who asks is there.
            ("us/n1=91 eu/n1!", "eu/n1 us/n1"),
            ("", ""),
        ] {
            check(text, &[wanted; 3]);
        }
    }

    #[test]
    fn those_that_are_as_near_take_turns() {
        // 91 ms and 118 ms differ by less than three tenths, 119 by more.
        check(
            "us/n1=91 us/n2=118 us/n3=119.5",
            &["us/n1 us/n2 us/n3", "us/n2 us/n1 us/n3", "us/n1 us/n2 us/n3"],
        );
        check(
            "us/n1=91 ap/n1=249 us/n2=92 us/n3=93 ap/n2=240",
            &[
                "us/n1 us/n2 us/n3 ap/n2 ap/n1",
                "us/n2 us/n3 us/n1 ap/n1 ap/n2",
                "us/n3 us/n1 us/n2 ap/n2 ap/n1",
                "us/n1 us/n2 us/n3 ap/n1 ap/n2",
            ],
        );
        // In a building a millisecond is nothing, and one's own region is nearer than one that is as near.
        check("uk/n1=0.9 eu/n2=1.0 eu/n3=0.1", &["eu/n3 eu/n2 uk/n1", "eu/n2 eu/n3 uk/n1"]);
    }

    #[test]
    fn where_nothing_is_measured_the_own_region_is_near() {
        check("us/n1 ap/n1=249 eu/n2 eu/n3=0.4", &["eu/n2 eu/n3 ap/n1 us/n1", "eu/n3 eu/n2 ap/n1 us/n1"]);
        check("us/n1 ap/n1 eu/n2", &["eu/n2 ap/n1 us/n1", "eu/n2 us/n1 ap/n1"]);
        // Two ranges on one node are one node to ask.
        check("us/n1=91 us/n1=91 ap/n1=249", &["us/n1 ap/n1"]);
    }
}
