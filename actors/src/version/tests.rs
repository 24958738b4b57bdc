//! When the cluster version is raised, by cases: a story is what is read, heard, promised, and what comes of it.

use std::fmt::Write as _;

use rhumb_core::{ClusterVersion, HybridTime, Knows, NodeId};

use super::{Allowed, Formats, Heard, Raise, Said, Upgrade, VersionRow, allow};

fn node(name: &str) -> NodeId {
    NodeId::new(name, "n1").expect("valid")
}

fn version(text: &str) -> ClusterVersion {
    ClusterVersion(text.parse().expect("a number"))
}

/// Each line is `what -> came of it`. `due` is what follows now: the promise that all are asked for, and the raise.
fn check(story: &str) {
    let mut upgrade = Upgrade::new(["us", "eu", "ap"].map(node));
    let mut row = VersionRow::default();
    let mut at = 0_u64;
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (what, expected) =
            line.split_once("->").map_or((line, ""), |(what, then)| (what.trim(), then.trim()));
        let words: Vec<&str> = what.split_whitespace().collect();
        let mut came = String::new();
        match words.as_slice() {
            ["row", active, allowed] => {
                row = VersionRow { active: version(active), allowed: version(allowed) };
                at += 1;
                upgrade.read(row, Some(HybridTime::from_bits(at)));
            }
            [name, "knows", oldest, newest, "promised", promised] => {
                let knows = Knows { oldest: version(oldest), newest: version(newest) };
                upgrade.heard(node(name), Heard::Said(Said { knows, promised: version(promised) }));
            }
            [name, "is", "silent"] => upgrade.heard(node(name), Heard::Silent("unreachable".to_owned())),
            ["deposed"] => upgrade.deposed(),
            ["due"] => {
                let promise = upgrade.promise().map_or("none".to_owned(), |asked| asked.to_string());
                write!(came, "promise {promise}").expect("text");
                if let Some(Raise { read_at, from, to }) = upgrade.decide() {
                    assert_eq!((from, read_at.map(HybridTime::to_bits)), (row, Some(at)), "{line}");
                    write!(came, ", row {} {}", to.active, to.allowed).expect("text");
                }
            }
            ["allow", rest @ ..] => match allow(row, &upgrade, rest.first().map(|to| version(to))) {
                Ok(Allowed::Already) => came.push_str("already"),
                Ok(Allowed::Becomes(row)) => {
                    write!(came, "row {} {}", row.active, row.allowed).expect("text")
                }
                Err(why) => came.push_str(&why),
            },
            _ => panic!("{line}"),
        }
        assert_eq!(came, expected, "{line}");
    }
}

#[test]
fn the_version_is_raised_when_all_have_promised() {
    check(
        r"
        row 1 1
        us knows 1 2 promised 1
        eu knows 1 2 promised 1
        ap knows 1 2 promised 1
        due                      -> promise none
        row 1 2
        due                      -> promise 2
        us knows 1 2 promised 2
        eu knows 1 2 promised 2
        due                      -> promise 2
        ap knows 1 2 promised 2
        due                      -> promise 2, row 2 2
        row 2 2
        due                      -> promise none",
    );
}

#[test]
fn who_does_not_know_it_or_is_not_heard_holds_it_back() {
    check(
        r"
        row 1 2
        us knows 1 2 promised 1
        eu knows 1 1 promised 1
        due                      -> promise none
        ap knows 1 2 promised 1
        due                      -> promise none
        eu knows 1 2 promised 1
        ap is silent
        due                      -> promise none
        ap knows 1 2 promised 1
        due                      -> promise 2",
    );
}

#[test]
fn a_promise_counts_whatever_runs_there_now_and_silence_does_not() {
    check(
        r"
        row 1 2
        us knows 1 2 promised 2
        eu knows 1 2 promised 2
        ap is silent
        due                      -> promise none
        ap knows 1 1 promised 1
        due                      -> promise none
        ap knows 2 3 promised 2
        due                      -> promise 2, row 2 2",
    );
}

#[test]
fn it_is_raised_one_by_one_and_whoever_is_deposed_raises_nothing() {
    check(
        r"
        row 1 3
        us knows 1 3 promised 3
        eu knows 1 3 promised 3
        ap knows 1 3 promised 3
        due                      -> promise 2, row 2 3
        row 2 3
        due                      -> promise 3, row 3 3
        deposed
        due                      -> promise none
        row 2 3
        due                      -> promise none",
    );
}

#[test]
fn an_operator_allows_what_all_know() {
    check(
        r"
        row 1 1
        us knows 1 2 promised 1
        eu knows 1 1 promised 1
        ap is silent
        allow                    -> not every node knows cluster version 2, so nothing was changed: ap/n1: it does not say what it knows: unreachable; eu/n1: its build knows cluster version 1
        allow 1                  -> already
        allow 0                  -> the mesh is at cluster version 1: it never goes back to 0
        eu knows 1 2 promised 1
        ap knows 1 3 promised 1
        allow                    -> not every node knows cluster version 3, so nothing was changed: eu/n1: its build knows cluster versions 1 to 2; us/n1: its build knows cluster versions 1 to 2
        allow 2                  -> row 1 2
        row 1 2
        allow 2                  -> already",
    );
}

#[test]
fn a_node_writes_by_the_version_that_it_has_seen_and_it_never_falls() {
    let [one, two] = [1, 2].map(ClusterVersion);
    let formats = Formats::new(Knows { oldest: one, newest: two });
    assert_eq!((formats.writes(), formats.active()), (one, one), "it has seen none");
    formats.saw(two).expect("it is known");
    assert_eq!(formats.writes(), two);
    formats.saw(one).expect("it is known");
    assert_eq!(formats.writes(), two, "it never falls");
    let unknown = formats.saw(ClusterVersion(3)).expect_err("it is not known");
    assert_eq!(
        unknown.to_string(),
        "the mesh is at cluster version 3, or this node has promised to know it, and this build knows cluster versions 1 \
         to 2: start a build that knows cluster version 3"
    );
    let old = Formats::new(Knows { oldest: one, newest: one });
    assert!(old.reads("it", one).is_ok());
    let unknown = old.reads("a command of a range", two).expect_err("it is not known");
    assert_eq!(
        unknown.to_string(),
        "a command of a range is of format 2, and this build knows cluster version 1: the mesh was raised above it; start \
         a build that knows cluster version 2"
    );
}
