//! A store that is pressed, at the node that orders a range's writes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_storage::Family;
use rhumb_storage::mvcc::Record;

use super::behind::{begun, lasts};
use super::clients::key;
use super::net::{self, MS, RANGE, SECOND};
use super::sim;
use crate::ranges::Op;
use crate::ranges::host::{NotWritten, Written};
use crate::ranges::raft::Pressed;

type Ended = Arc<Mutex<Option<Result<Written, NotWritten>>>>;

/// Begins to write a key at a node.
fn writes(net: &net::Shared, node: usize, number: usize) -> Ended {
    let host = net.lock().nodes[node].host.clone().expect("it serves");
    let ended = Ended::default();
    let told = Arc::clone(&ended);
    sim::spawn_as(node, async move {
        let op = Op { key: key(number), condition: None, record: Record::put(7_u64.to_be_bytes()) };
        let written = host.write(RANGE, vec![op]).await;
        *told.lock() = Some(written);
    });
    ended
}

fn passes(micros: u64) {
    sim::run_until(sim::now() + micros);
}

fn is_written(ended: &Ended) -> bool {
    matches!(*ended.lock(), Some(Ok(_)))
}

/// How many entries a node's log has.
fn entries(net: &net::Shared, node: usize) -> usize {
    let host = net.lock().nodes[node].host.clone().expect("it serves");
    host.rows(Family::Raft).iter().filter(|(row, _)| row.starts_with(b"l")).count()
}

/// How many entries are in the log so soon after a write was begun, which comes to its end. One before it sees to it that the range does
/// not rest.
fn proposed_within(net: &net::Shared, leader: usize, micros: u64) -> usize {
    let wakes = writes(net, leader, 20);
    passes(SECOND / 5);
    let before = entries(net, leader);
    let written = writes(net, leader, 21);
    passes(micros);
    let proposed = entries(net, leader) - before;
    passes(SECOND / 10);
    assert!(is_written(&wakes) && is_written(&written), "{:?}, {:?}", wakes.lock(), written.lock());
    proposed
}

#[test]
fn who_orders_writes_slows_them_down_then_refuses_them_and_recovers_by_itself() {
    let net = begun(1, 0);
    let tried = [0, 1, 2].map(|node| writes(&net, node, node));
    lasts(2);
    let leader = tried.iter().position(is_written).expect("one of them orders writes");
    let follower = (leader + 1) % 3;

    let let_in = writes(&net, leader, 10);
    passes(MS / 10);
    for node in [leader, follower] {
        net.lock().nodes[node].pressed_until = sim::now() + 5 * SECOND;
    }
    let refused = writes(&net, leader, 11);
    let elsewhere = writes(&net, follower, 12);
    passes(SECOND);
    assert!(is_written(&let_in), "what was let in comes to its end: {:?}", let_in.lock());
    let (why, retry_after) = ("the story says so".to_owned(), Duration::from_micros(4 * SECOND));
    assert_eq!(*refused.lock(), Some(Err(NotWritten::Pressed(Pressed { why, retry_after }))));
    let leaders = net::node_id(leader);
    assert!(
        matches!(&*elsewhere.lock(), Some(Err(NotWritten::Leaseholder(seat))) if seat.node == leaders),
        "that a follower's store is pressed refuses nothing: {:?}",
        elsewhere.lock()
    );

    // Less pressed, it lets them in a little later.
    passes(3 * SECOND + SECOND / 4);
    assert_eq!(proposed_within(&net, leader, 9 * MS), 0);
    assert!(proposed_within(&net, leader, 11 * MS) > 0);
    lasts(1);
    assert!(proposed_within(&net, leader, 9 * MS) > 0, "nothing presses it any more");
    drop(net);
    sim::begin(0);
}
