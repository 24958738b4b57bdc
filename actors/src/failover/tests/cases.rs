//! What the machines decide, case by case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Epoch, HybridTime, Mono, NodeId, Now};

use crate::failover::acting::{begins, same_until, turn};
use crate::failover::messages::Beat;
use crate::failover::{
    Begins, Coordinator, FailoverSettings, Fence, Holder, Observer, Owner, Permits, Row, State, Table, Turn,
    Whose, Why,
};

fn node(text: &str) -> NodeId {
    text.parse().expect("a node")
}

fn nodes(text: &str) -> Vec<NodeId> {
    text.split_whitespace().map(node).collect()
}

fn now(seconds: f64) -> Now {
    let ms = (seconds * 1e3) as u64;
    Now { hybrid: HybridTime::new(1_000_000 + ms, 0), mono: Mono::millis(ms) }
}

/// The rows of these nodes: as of ones that were never fenced, but for those.
fn known(all: &str, rows: &[(&str, u64, Holder)]) -> BTreeMap<NodeId, Row> {
    let row = |fence| Row { fence, version: Some(HybridTime::new(7, 0)) };
    let all = nodes(all).into_iter().map(|node| (node, row(Fence::default())));
    let those = rows
        .iter()
        .map(|(name, epoch, holder)| (node(name), row(Fence { epoch: Epoch(*epoch), holder: *holder })));
    all.chain(those).collect()
}

/// A coordinator of these nodes that has heard for `seconds` that each of `words` (an observer, then those silent to it) says
/// the same, and knows these fences since it began.
fn coordinator(all: &str, words: &[&str], rows: &[(&str, u64, Holder)], seconds: u64) -> Coordinator {
    let mut coordinator = Coordinator::new(nodes(all), FailoverSettings::default(), now(0.0).mono);
    coordinator.read(now(0.0), None, known(all, rows));
    for second in 0..=seconds {
        let at = now(second as f64).mono;
        for word in words {
            let mut names = nodes(word).into_iter();
            let observer = names.next().expect("who says it");
            coordinator.heard(at, &observer, Beat { silent: names.collect(), settled: true });
        }
        coordinator.look(at);
    }
    coordinator
}

fn decided(coordinator: &Coordinator, seconds: f64) -> String {
    match coordinator.decide(now(seconds)) {
        Some(change) => format!("{}: {:?} {}", change.node, change.to.holder, change.to.epoch),
        None => "nothing".to_owned(),
    }
}

fn check(all: &str, words: &[&str], rows: &[(&str, u64, Holder)], want: &str) {
    let seconds = 3;
    let machine = coordinator(all, words, rows, seconds);
    assert_eq!(decided(&machine, seconds as f64), want, "{words:?} {rows:?}");
}

const THREE: &str = "ap/n1 eu/n1 us/n1";
const FOUR: &str = "ap/n1 eu/n1 us/n1 us/n2";

#[test]
fn a_loss_takes_a_majority_of_all_observers_in_two_regions() {
    check(THREE, &["ap/n1 us/n1", "eu/n1 us/n1"], &[], "us/n1: Nobody 2");
    // A link that is cut one way: one of two hears it.
    check(THREE, &["ap/n1 us/n1", "eu/n1"], &[], "nothing");
    // The other one says nothing: it may hear it.
    check(THREE, &["ap/n1 us/n1"], &[], "nothing");
    check(FOUR, &["ap/n1 us/n1", "eu/n1 us/n1", "us/n2"], &[], "us/n1: Nobody 2");
    check(FOUR, &["ap/n1 us/n1", "us/n2 us/n1", "eu/n1"], &[], "us/n1: Nobody 2");
    check(FOUR, &["ap/n1 us/n1", "us/n2", "eu/n1"], &[], "nothing");
    // Three of four observers, and all of one region: its way out may be what is lost.
    let five = "eu/n1 us/n1 us/n2 us/n3 ap/n1";
    check(five, &["us/n1 ap/n1", "us/n2 ap/n1", "us/n3 ap/n1", "eu/n1"], &[], "nothing");
    check(five, &["us/n1 ap/n1", "us/n2 ap/n1", "us/n3", "eu/n1 ap/n1"], &[], "ap/n1: Nobody 2");
    // Of two nodes neither can tell.
    check("eu/n1 us/n1", &["eu/n1 us/n1"], &[], "nothing");
}

#[test]
fn who_was_never_there_is_not_missed_and_gets_its_row_when_it_is_heard() {
    let words = ["ap/n1 us/n1", "eu/n1 us/n1"];
    let mut machine = coordinator(THREE, &words, &[], 3);
    machine.read(now(3.0), None, known("ap/n1 eu/n1", &[]));
    assert_eq!(decided(&machine, 3.0), "nothing", "it was never heard");
    let word = Beat { silent: Vec::new(), settled: false };
    machine.heard(now(3.0).mono, &node("us/n1"), word);
    assert_eq!(decided(&machine, 3.0), "us/n1: Itself 1");
}

#[test]
fn words_of_who_has_not_listened_or_is_silent_itself_do_not_count() {
    let words = ["ap/n1 us/n1", "eu/n1 us/n1"];
    let mut machine = coordinator(THREE, &words, &[], 3);
    machine.heard(now(3.0).mono, &node("eu/n1"), Beat { silent: nodes("us/n1"), settled: false });
    assert_eq!(decided(&machine, 3.0), "nothing", "it has not listened for long");
    let machine = coordinator(THREE, &words, &[], 3);
    assert_eq!(decided(&machine, 6.0), "us/n1: Nobody 2", "three seconds old");
    assert_eq!(decided(&machine, 6.1), "nothing", "older");
    let mut slept = coordinator(THREE, &words, &[], 1);
    for word in words {
        let names = nodes(word);
        slept.heard(now(9.0).mono, &names[0], Beat { silent: names[1..].to_vec(), settled: true });
    }
    slept.look(now(9.0).mono);
    assert_eq!(decided(&slept, 9.0), "nothing", "it slept: it has been found silent since now");
}

#[test]
fn a_loss_takes_its_time() {
    let words = ["ap/n1 us/n1", "eu/n1 us/n1"];
    assert_eq!(decided(&coordinator(THREE, &words, &[], 1), 1.0), "nothing");
    let machine = coordinator(THREE, &words, &[], 2);
    assert_eq!(decided(&machine, 2.0), "us/n1: Nobody 2");
    let states: Vec<_> = machine.stands(now(2.0).mono).iter().map(|stands| stands.state).collect();
    assert_eq!(states, [State::Alive, State::Alive, State::Lost]);
    let states: Vec<_> = machine.stands(now(1.0).mono).iter().map(|stands| stands.state).collect();
    assert_eq!(states, [State::Alive, State::Alive, State::Suspected]);
}

#[test]
fn an_epoch_is_given_away_when_the_bound_has_passed_and_not_before() {
    let (lost, back) = (["ap/n1 us/n1", "eu/n1 us/n1"], ["ap/n1", "eu/n1"]);
    let fenced = [("us/n1", 2, Holder::Nobody)];
    for (words, want) in [(lost, "us/n1: Others 2"), (back, "us/n1: Itself 2")] {
        let machine = coordinator(THREE, &words, &fenced, 4);
        assert_eq!(decided(&machine, 4.0), "nothing", "3 s of a permit and twice 500 ms");
        assert_eq!(decided(&machine, 4.1), want);
    }
    // A new lease knows of the fence since it has read it.
    let mut machine = coordinator(THREE, &lost, &fenced, 5);
    machine.deposed();
    assert_eq!(decided(&machine, 5.0), "nothing", "who holds no lease decides nothing");
    machine.read(now(5.0), None, known(THREE, &fenced));
    assert_eq!(decided(&machine, 5.1), "nothing");
}

#[test]
fn who_comes_back_is_fenced_from_those_who_act_for_it_first() {
    let away = [("us/n1", 2, Holder::Others)];
    check(THREE, &["ap/n1", "eu/n1"], &away, "us/n1: Nobody 3");
    check(THREE, &["ap/n1", "eu/n1 us/n1"], &away, "nothing");
    // The only other observer is lost itself: it would stay away as long as that one does.
    check(THREE, &["ap/n1 eu/n1"], &away, "us/n1: Nobody 3");
}

#[test]
fn a_majority_always_acts_for_itself() {
    let words = ["us/n1 eu/n1", "ap/n1 eu/n1 us/n1", "us/n2 eu/n1"];
    check(THREE, &words, &[("us/n1", 2, Holder::Others)], "nothing");
    check(FOUR, &words, &[("us/n1", 2, Holder::Others)], "nothing");
    let five = "ap/n1 eu/n1 us/n1 us/n2 us/n3";
    let words = ["us/n1 eu/n1 us/n3", "ap/n1 eu/n1 us/n1 us/n3", "us/n2 eu/n1 us/n3"];
    check(five, &words, &[("us/n3", 2, Holder::Others)], "eu/n1: Nobody 2");
}

#[test]
fn it_takes_several_beats_in_a_row_to_be_heard_again_and_one_gap_to_be_silent() {
    let me = node("eu/n1");
    let mut observer = Observer::new(&me, nodes("eu/n1 us/n1"), FailoverSettings::default(), Mono::default());
    let mut told = String::new();
    for second in 0..30_u64 {
        let at = Mono::millis(second * 1_000);
        // It beats, but for 6 s, and once more in between.
        if !(12..18).contains(&second) || second == 16 {
            observer.heard(at, &node("us/n1"));
        }
        let word = observer.look(at);
        told.push(match (word.settled, word.silent.is_empty()) {
            (false, _) => '?',
            (true, true) => '.',
            (true, false) => 'x',
        });
    }
    assert_eq!(told, "??????????.....xxxxxxx........");
}

#[test]
fn an_observer_that_did_not_run_blames_nobody() {
    let me = node("eu/n1");
    let mut observer = Observer::new(&me, nodes("us/n1"), FailoverSettings::default(), Mono::default());
    let look = |observer: &mut Observer, ms| {
        let Beat { silent, settled } = observer.look(Mono::millis(ms));
        (silent.len(), settled)
    };
    for second in 0..20 {
        observer.heard(Mono::millis(second * 1_000), &node("us/n1"));
        look(&mut observer, second * 1_000);
    }
    assert_eq!(look(&mut observer, 40_000), (0, false), "it was stopped");
    for second in 41..44 {
        assert_eq!(look(&mut observer, second * 1_000).1, second == 43);
    }
    assert_eq!(look(&mut observer, 44_000), (1, true), "it has listened since, and heard nothing");
}

#[test]
fn a_permit_counts_from_when_it_was_asked_for() {
    let table = |epoch| {
        let fence = Fence { epoch: Epoch(epoch), holder: Holder::Itself };
        Arc::new(Table::new([(node("us/n1"), fence)]))
    };
    let wall = |now: Now| now.hybrid.millis();
    let mut permits = Permits::new(Duration::from_secs(3));
    let at = |permits: &Permits, seconds| permits.at(now(seconds), wall(now(seconds))).cloned();
    assert_eq!(at(&permits, 0.0), None);
    permits.read(now(1.0), now(3.5), table(2));
    assert_eq!((at(&permits, 3.999), at(&permits, 4.0)), (Some(table(2)), None));
    permits.read(now(0.9), now(3.6), table(1));
    assert_eq!(at(&permits, 3.999), Some(table(2)), "an earlier question's answer, which came later");
    // The disk has stopped, and hybrid time with it; the machine has slept, and the monotonic clock with it.
    let stopped = Now { hybrid: now(2.0).hybrid, mono: now(4.0).mono };
    assert_eq!(permits.at(stopped, wall(stopped)), None);
    let slept = Now { hybrid: now(2.0).hybrid, mono: now(2.0).mono };
    assert_eq!(permits.at(slept, wall(now(900.0))), None);
}

#[test]
fn the_first_acts_in_whose_place_no_others_do() {
    let order = nodes(THREE);
    let owner = |holders: [Holder; 3]| {
        let rows = order.iter().zip(holders).zip(5..);
        let rows = rows.map(|((node, holder), epoch)| (node.clone(), Fence { epoch: Epoch(epoch), holder }));
        match Table::new(rows).owner(&order) {
            Owner::Acts(node, epoch) => format!("{node} {epoch}"),
            Owner::Fenced(node) => format!("fenced {node}"),
            Owner::None => "none".to_owned(),
        }
    };
    use Holder::{Itself, Nobody, Others};
    assert_eq!(owner([Itself, Nobody, Others]), "ap/n1 5");
    assert_eq!(owner([Others, Itself, Others]), "eu/n1 6");
    assert_eq!(owner([Others, Nobody, Itself]), "fenced eu/n1");
    assert_eq!(owner([Others, Others, Others]), "none");
    assert_eq!(Table::default().owner(&order), Owner::Fenced(&order[0]), "nobody would miss it");
}

#[test]
fn an_epoch_has_one_holder() {
    use Holder::{Itself, Nobody, Others};
    let fence = |epoch, holder| Fence { epoch: Epoch(epoch), holder };
    let all: Vec<_> = (1..5).flat_map(|epoch| [Itself, Nobody, Others].map(|h| fence(epoch, h))).collect();
    for one in &all {
        let next: Vec<_> = all.iter().filter(|next| one.may_become(**next)).copied().collect();
        let want = match one.holder {
            Nobody => vec![fence(one.epoch.0, Itself), fence(one.epoch.0, Others)],
            Itself | Others if one.epoch.0 < 4 => vec![one.raised()],
            _ => vec![],
        };
        assert_eq!(next, want);
    }
}

/// The first rows of nodes.
fn joined(nodes: &[NodeId]) -> Vec<(NodeId, Fence)> {
    nodes.iter().map(|node| (node.clone(), Fence::default())).collect()
}

/// Whose an actor is that all of these nodes may hold in this order, by fences of these epochs and holders; and what the node
/// `us/n1` may begin with a permit.
fn acts(order: &str, rows: &[(&str, u64, Holder)]) -> String {
    let order = nodes(order);
    let row = |(name, epoch, holder): &(&str, u64, Holder)| {
        (node(name), Fence { epoch: Epoch(*epoch), holder: *holder })
    };
    let table = Table::new(joined(&order).into_iter().chain(rows.iter().map(row)));
    let whose = match table.whose(&order) {
        Whose::Of(node, term) => format!("{node} {}", term.epoch),
        Whose::Nobody(why) => format!("{why:?}"),
    };
    let us = match begins(Some(&table), &node("us/n1"), &order) {
        Begins::Here(_) => "here",
        Begins::At(_) => "there",
        Begins::Nowhere(_) => "nowhere",
    };
    assert_eq!(begins(None, &node("us/n1"), &order), Begins::Nowhere(Why::NoPermit));
    format!("{whose}, {us}")
}

#[test]
fn an_actor_is_of_the_first_in_whose_place_no_others_act_under_the_number_of_the_table() {
    use Holder::{Itself, Nobody, Others};
    for (order, rows, want) in [
        ("us/n1 eu/n1 ap/n1", &[][..], "us/n1 1, here"),
        ("eu/n1 us/n1", &[], "eu/n1 1, there"),
        // Lost: nobody, then the next one, under a higher epoch each; then nobody, and the first again.
        ("us/n1 eu/n1 ap/n1", &[("us/n1", 2, Nobody)], "Fenced(NodeId(us/n1)), nowhere"),
        ("us/n1 eu/n1 ap/n1", &[("us/n1", 2, Others)], "eu/n1 3, there"),
        ("us/n1 eu/n1 ap/n1", &[("us/n1", 3, Nobody)], "Fenced(NodeId(us/n1)), nowhere"),
        ("us/n1 eu/n1 ap/n1", &[("us/n1", 3, Itself)], "us/n1 5, here"),
        // What happens to a node that comes after the owner changes the number, and not the owner.
        ("us/n1 eu/n1 ap/n1", &[("ap/n1", 4, Nobody)], "us/n1 6, here"),
        // Who may not leave its region has no other one.
        ("us/n1", &[("us/n1", 2, Others)], "AllAway, nowhere"),
        ("us/n1 us/n2", &[("us/n1", 2, Others)], "us/n2 3, there"),
        ("", &[], "AllAway, nowhere"),
    ] {
        let want = want.replace("NodeId(us/n1)", &format!("{:?}", node("us/n1")));
        assert_eq!(acts(order, rows), want, "{order} {rows:?}");
    }
}

#[test]
fn nobody_acts_as_a_node_that_has_no_row_yet_for_nobody_would_miss_it() {
    let order = nodes("us/n1 eu/n1");
    for rows in [&[][..], &order[1..]] {
        let table = Table::new(joined(rows));
        assert_eq!(table.whose(&order), Whose::Nobody(Why::Fenced(order[0].clone())));
        assert_eq!(begins(Some(&table), &order[0], &order), Begins::Nowhere(Why::Fenced(order[0].clone())));
    }
    let table = Table::new(joined(&order[..1]));
    assert!(matches!(begins(Some(&table), &order[0], &order), Begins::Here(_)));
    // A reading of fewer rows was made before one of more.
    let mut permits = Permits::new(Duration::from_secs(3));
    permits.read(now(2.0), now(2.1), Arc::new(Table::new(joined(&order))));
    permits.read(now(1.0), now(2.2), Arc::new(table));
    assert_eq!(**permits.last(), Table::new(joined(&order)));
}

#[test]
fn orders_are_alike_for_a_node_up_to_itself() {
    for (one, other, alike) in [
        ("us/n1 eu/n1", "us/n1 eu/n1", true),
        ("us/n1 eu/n1", "us/n1 ap/n1", true),
        ("eu/n1 us/n1 ap/n1", "eu/n1 us/n1", true),
        ("eu/n1 us/n1", "us/n1", false),
        ("eu/n1 us/n1", "ap/n1 us/n1", false),
        ("us/n1", "eu/n1", false),
        ("eu/n1", "eu/n1", false),
    ] {
        assert_eq!(same_until(&node("us/n1"), &nodes(one), &nodes(other)), alike, "{one}, {other}");
    }
}

#[test]
fn an_instance_goes_on_only_while_nobody_else_has_acted() {
    use Holder::{Itself, Nobody, Others};
    let order = nodes("ap/n1 us/n1 eu/n1");
    let now = |rows: &[(&str, u64, Holder)]| {
        let row = |(name, epoch, holder): &(&str, u64, Holder)| {
            (node(name), Fence { epoch: Epoch(*epoch), holder: *holder })
        };
        let rows = joined(&order).into_iter().chain(rows.iter().map(row));
        begins(Some(&Table::new(rows)), &node("us/n1"), &order)
    };
    let Begins::Here(term) = now(&[("ap/n1", 2, Others)]) else { panic!("it is the second one's") };
    let away = ("ap/n1", 2, Others);
    for (rows, want) in [
        (&[away][..], Turn::Goes),
        // A node after it.
        (&[away, ("eu/n1", 2, Nobody)], Turn::Goes),
        // It was fenced itself in between.
        (&[away, ("us/n1", 3, Itself)], Turn::Anew),
        // The first one was back in between.
        (&[("ap/n1", 4, Others)], Turn::Anew),
        (&[("ap/n1", 3, Nobody)], Turn::Ends),
        (&[("ap/n1", 3, Itself)], Turn::Ends),
        (&[away, ("us/n1", 2, Nobody)], Turn::Ends),
    ] {
        assert_eq!(turn(Some(term), &now(rows)), want, "{rows:?}");
    }
    assert_eq!(turn(Some(term), &Begins::Nowhere(Why::NoPermit)), Turn::Ends);
    assert_eq!(turn(None, &now(&[away])), Turn::Goes);
    assert_eq!(turn(None, &Begins::At(node("eu/n1"))), Turn::Ends);
}

#[test]
fn each_change_of_a_fence_is_one_and_a_newer_reading_that_comes_first_stays() {
    let mut fence = Fence::default();
    for changes in 0..9 {
        assert_eq!(Table::new([(node("us/n1"), fence)]).changes(), changes);
        fence = match fence.holder {
            Holder::Nobody => fence.held_by(Holder::Others),
            Holder::Itself | Holder::Others => fence.raised(),
        };
    }
    let table = |epoch| Arc::new(Table::new([(node("us/n1"), Fence { epoch: Epoch(epoch), ..fence })]));
    let mut permits = Permits::new(Duration::from_secs(3));
    // Asked first and read last; then asked last and read first, so both were read after the second question.
    permits.read(now(1.0), now(3.1), table(9));
    permits.read(now(2.0), now(3.2), table(8));
    let at = |seconds| permits.at(now(seconds), now(seconds).hybrid.millis()).cloned();
    assert_eq!((at(4.9), at(5.0)), (Some(table(9)), None));
}
