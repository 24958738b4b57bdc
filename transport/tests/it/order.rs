//! Order within a pair, independence between lanes, bounds.

use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{Delivery, FaultKind, Role};
use rhumb_transport::{Headers, Request, TransportSettings};

use crate::mesh::{
    Member, SOON, authority, credentials, hour, identity_of, inventory, node, pair, request, settings,
};

#[tokio::test]
async fn messages_of_one_pair_arrive_in_the_order_in_which_they_were_told() {
    let (a, b) = pair().await;
    const COUNT: u32 = 500;
    const PAIRS: u64 = 20;
    for number in 0..COUNT {
        for pair in 0..PAIRS {
            let body = [pair.to_be_bytes().as_slice(), &number.to_be_bytes()].concat();
            a.transport.tell(&b.id, pair, request("note", &body)).expect("room for all");
        }
        // The lanes are bounded: let them drain.
        if number % 50 == 49 {
            let so_far = (number as usize + 1) * PAIRS as usize;
            b.handlers.until("so many", |seen| seen.requests.len() >= so_far).await;
        }
    }
    let seen = b.handlers.seen.lock();
    for pair in 0..PAIRS {
        let of_pair = seen.requests.iter().filter(|(_, r)| r.body[..8] == pair.to_be_bytes());
        let numbers: Vec<u32> =
            of_pair.map(|(_, r)| u32::from_be_bytes(r.body[8..].try_into().expect("four bytes"))).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "pair {pair}");
    }
}

#[tokio::test]
async fn a_full_lane_refuses_at_once_and_nothing_of_it_is_sent() {
    let authority = authority();
    let start = |id: &str, settings: TransportSettings| {
        Member::with(
            &credentials(&authority, Role::Node, &node(id), hour()),
            identity_of(&node(id)),
            settings,
        )
    };
    let small = TransportSettings { lane_queue: 10, ..settings() };
    let (a, b) = (start("us-east/n1", small), start("eu-central/n1", settings()));
    a.join(&b).await;
    // Nothing is written while this task does not yield: the runtime has one thread.
    let tells: Vec<_> = (0..11).map(|_| a.transport.tell(&b.id, 1, request("note", b""))).collect();
    assert!(tells[..10].iter().all(Result::is_ok));
    let fault = tells[10].clone().expect_err("the lane is full");
    assert!(matches!(fault.kind, FaultKind::Full(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    b.handlers.until("ten", |seen| seen.requests.len() == 10).await;
    a.ask(&b, "echo", b"").await.expect("room again");
}

#[tokio::test]
async fn calls_under_way_are_bounded_on_both_sides() {
    let authority = authority();
    let start = |id: &str, in_flight: usize| {
        let settings = TransportSettings { in_flight, ..settings() };
        Member::with(
            &credentials(&authority, Role::Node, &node(id), hour()),
            identity_of(&node(id)),
            settings,
        )
    };
    for (caller, callee) in [(2, 100), (100, 2)] {
        let (a, b) = (start("us-east/n1", caller), start("eu-central/n1", callee));
        a.join(&b).await;
        let hold = || {
            let (transport, to) = (a.transport.clone(), b.id.clone());
            tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await })
        };
        let _held = [hold(), hold()];
        b.handlers.until("two calls", |seen| seen.held.len() == 2).await;
        let fault = a.ask(&b, "echo", b"").await.expect_err("no third");
        assert!(matches!(fault.kind, FaultKind::Full(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::NotSent);
    }
}

#[tokio::test]
async fn a_handler_that_never_answers_delays_nobody_on_its_lane() {
    let (a, b) = pair().await;
    let (transport, to) = (a.transport.clone(), b.id.clone());
    let _held = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await });
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    a.ask(&b, "echo", b"same lane").await.expect("answered while the other is held");
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_its_lane_is_not_sent() {
    let (a, b) = pair().await;
    // Fill the lane's windows with what takes a while, then ask with hardly any time.
    let body = Bytes::from(vec![0; 900 << 10]);
    for _ in 0..9 {
        let tell = Request::tell("note", inventory(), body.clone(), Headers::within(SOON));
        a.transport.tell(&b.id, 1, tell).expect("room");
    }
    let mut hurried = request("echo", b"");
    hurried.headers.deadline = Duration::from_nanos(1);
    let fault = a.transport.ask(&b.id, 1, hurried).await.expect_err("no time");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    b.handlers.until("nine", |seen| seen.requests.len() == 9).await;
    assert!(b.handlers.seen.lock().requests.iter().all(|(_, request)| request.name == "note"));
}
