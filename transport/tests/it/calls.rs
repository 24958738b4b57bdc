//! Calls and their answers.

use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{DataClass, Delivery, Direction, Epoch, Fault, FaultKind, Guarantee, HybridTime, Role};
use rhumb_transport::{Headers, Kind, LinkState, Request, TraceContext};

use crate::mesh::{Member, SOON, authority, client, inventory, pair, request};

#[tokio::test]
async fn two_nodes_ask_each_other_over_one_connection() {
    let (a, b) = pair().await;
    assert_eq!(a.ask(&b, "echo", b"from a").await.expect("answered").body, "from a");
    assert_eq!(b.ask(&a, "echo", b"from b").await.expect("answered").body, "from b");
    let status = &a.transport.links()[0];
    assert_eq!((status.state.clone(), status.generation), (LinkState::Connected, 1));
    assert!(status.rtt.is_some());
    let peer = a.transport.peer(&b.id).expect("connected");
    assert_eq!(
        (peer.principal.role, peer.incarnation, peer.manifest[0].name.as_str()),
        (Role::Node, 1, "echo")
    );
}

#[tokio::test]
async fn everything_a_call_carries_arrives() {
    let (a, b) = pair().await;
    let mut headers = Headers::within(SOON);
    headers.hybrid = HybridTime::new(1_000, 5);
    headers.trace = Some(TraceContext { trace_id: 1 << 100, span_id: 2, flags: 1 });
    headers.guarantee = Guarantee::Snapshot;
    headers.required = Guarantee::Serializable;
    headers.idempotency_key = Some("us-east:key".into());
    headers.epoch = Some(Epoch(12));
    headers.chain = vec!["cart/42".into()];
    headers.target = Some("cart@us-east/42".into());
    let sent = Request::ask("echo", inventory(), Bytes::from_static(b"x"), headers);
    let reply = a.transport.ask(&b.id, 1, sent.clone()).await.expect("answered");
    assert_eq!((reply.hybrid, reply.guarantee), (sent.headers.hybrid, Guarantee::Snapshot));
    let seen = b.handlers.seen.lock();
    let (from, mut received) = seen.requests[0].clone();
    assert_eq!(from.principal.region, a.id.region);
    assert!(received.headers.deadline <= SOON && !received.headers.deadline.is_zero());
    received.headers.deadline = sent.headers.deadline;
    received.arrival = sent.arrival;
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_client_asks_any_node_of_the_mesh() {
    let authority = authority();
    let node = Member::start(&authority, "us-east/n1");
    let client = client(&authority, "us-east/till", &node).await.expect("connected");
    assert_eq!(client.ask(request("echo", b"hi")).await.expect("answered").body, "hi");
    assert_eq!(client.peer().expect("connected").node, Some(node.id.clone()));
    let (from, _) = node.handlers.seen.lock().requests[0].clone();
    assert_eq!(
        (from.principal.role, from.principal.name.as_str(), &from.node),
        (Role::Client, "till", &None)
    );
}

#[tokio::test]
async fn an_unknown_message_is_a_typed_fault_and_the_connection_goes_on() {
    let (a, b) = pair().await;
    let fault = a.ask(&b, "no.such", b"").await.expect_err("unknown");
    assert_eq!(fault.kind, FaultKind::UnknownMessage("no.such".into()));
    assert_eq!(fault.delivery(), Delivery::NotSent);
    a.ask(&b, "echo", b"").await.expect("still connected");
}

#[tokio::test]
async fn a_panic_while_a_message_is_delivered_loses_that_message_alone() {
    let (a, b) = pair().await;
    let fault = a.ask(&b, "panic", b"").await.expect_err("lost");
    assert!(matches!(fault.kind, FaultKind::Handler(_)), "{fault}");
    a.ask(&b, "echo", b"").await.expect("still connected");
    assert_eq!(a.transport.links()[0].generation, 1);
}

#[tokio::test]
async fn a_lost_handler_is_a_typed_fault() {
    let (a, b) = pair().await;
    let fault = a.ask(&b, "drop", b"").await.expect_err("lost");
    assert!(matches!(fault.kind, FaultKind::Handler(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_its_handler_is_told() {
    let (a, b) = pair().await;
    let mut asked = request("hold", b"");
    asked.headers.deadline = Duration::from_millis(200);
    let fault = a.transport.ask(&b.id, 1, asked).await.expect_err("nobody answers");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::Unknown);
    wait_until_cancelled(&b).await;
}

#[tokio::test]
async fn an_abandoned_call_is_cancelled_at_the_callee() {
    let (a, b) = pair().await;
    let transport = a.transport.clone();
    let to = b.id.clone();
    let mut asked = request("hold", b"");
    asked.headers.deadline = 10 * SOON;
    let asking = tokio::spawn(async move { transport.ask(&to, 1, asked).await });
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    assert!(!b.handlers.seen.lock().held[0].is_cancelled());
    asking.abort();
    wait_until_cancelled(&b).await;
    assert!(a.transport.links()[0].state == LinkState::Connected);
}

async fn wait_until_cancelled(member: &Member) {
    let cancelled = async {
        while !member.handlers.seen.lock().held.first().is_some_and(|answer| answer.is_cancelled()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, cancelled).await.expect("the cancellation arrives");
}

#[tokio::test]
async fn a_handler_that_is_running_is_told_when_its_caller_gives_up() {
    for how in ["the asking is dropped", "the connection ends", "the deadline passes"] {
        let (a, b) = pair().await;
        let mut asked = request("hold", b"");
        let passes = how == "the deadline passes";
        asked.headers.deadline = if passes { Duration::from_millis(200) } else { 10 * SOON };
        let (transport, to) = (a.transport.clone(), b.id.clone());
        let asking = tokio::spawn(async move { transport.ask(&to, 1, asked).await });
        b.handlers.until("the call", |seen| seen.held.len() == 1).await;
        let cancelled = b.handlers.seen.lock().held[0].cancelled();
        let handler = tokio::spawn(async move {
            tokio::select! {
                () = cancelled => "dropped",
                () = std::future::pending() => "done",
            }
        });
        match how {
            "the asking is dropped" => asking.abort(),
            "the connection ends" => a.transport.close().await,
            _ => {}
        }
        let ended = tokio::time::timeout(SOON, handler).await;
        assert_eq!(ended.unwrap_or_else(|_| panic!("{how}: not told")).expect("no panic"), "dropped");
    }
}

#[tokio::test]
async fn a_post_waits_for_its_answer_as_an_ask_does() {
    let (a, b) = pair().await;
    let post = |name: &str| Request { kind: Kind::Post, ..request(name, b"x") };
    assert_eq!(a.transport.ask(&b.id, 1, post("echo")).await.expect("answered").body, "x");
    let fault = a.transport.ask(&b.id, 1, post("no.such")).await.expect_err("unknown");
    assert_eq!(fault.kind, FaultKind::UnknownMessage("no.such".into()));
    let kinds: Vec<_> = b.handlers.seen.lock().requests.iter().map(|(_, request)| request.kind).collect();
    assert_eq!(kinds, [Kind::Post, Kind::Post]);
}

#[tokio::test]
async fn a_target_over_its_limit_is_not_sent() {
    let (a, b) = pair().await;
    let mut asked = request("echo", b"");
    asked.headers.target = Some("t".repeat(513).into());
    let fault = a.transport.ask(&b.id, 1, asked).await.expect_err("too long");
    assert_eq!(fault, Fault::not_sent(FaultKind::TooLarge { bytes: 513, limit: 512 }));
}

#[tokio::test]
async fn what_is_dropped_in_silence_is_counted() {
    let (a, b) = pair().await;
    b.rules.refuse("inventory", Direction::Ingress);
    a.transport.tell(&b.id, 1, request("note", b"")).expect("queued");
    // On the same lane, so it has arrived after the tell.
    a.ask(&b, "echo", b"").await.expect_err("refused");
    let counts = b.transport.counts();
    assert_eq!((counts.tells_refused, counts.not_understood), (1, 0));
    let mut hurried = request("note", b"");
    hurried.headers.deadline = Duration::from_nanos(1);
    a.transport.tell(&b.id, 1, hurried).expect("queued");
    a.ask(&b, "echo", b"").await.expect_err("refused");
    assert_eq!((a.transport.counts().tells_expired, b.transport.counts().tells_refused), (1, 1));
    assert_eq!(b.handlers.seen.lock().requests.len(), 0);
}

#[tokio::test]
async fn an_answer_after_the_deadline_does_no_harm() {
    let (a, b) = pair().await;
    let mut asked = request("hold", b"");
    asked.headers.deadline = Duration::from_millis(100);
    a.transport.ask(&b.id, 1, asked).await.expect_err("nobody answers in time");
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    let answer = b.handlers.seen.lock().held.remove(0);
    answer.reply(crate::mesh::reply(inventory(), Bytes::new(), HybridTime::ZERO));
    a.ask(&b, "echo", b"").await.expect("still connected");
    assert_eq!(b.transport.counts().answers_too_late + a.transport.counts().answers_unwanted, 1);
}

#[tokio::test]
async fn a_call_without_time_left_is_not_sent() {
    let (a, b) = pair().await;
    let mut asked = request("echo", b"");
    asked.headers.deadline = Duration::ZERO;
    let fault = a.transport.ask(&b.id, 1, asked).await.expect_err("too late");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    a.ask(&b, "echo", b"").await.expect("the next one has time");
    assert_eq!(b.handlers.seen.lock().requests.len(), 1, "only the second arrived");
}

#[tokio::test]
async fn bodies_too_large_for_a_lane_have_streams_of_their_own() {
    let (a, b) = pair().await;
    let body: Vec<u8> = (0..5 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let reply = a.ask(&b, "echo", &body).await.expect("answered");
    assert!(reply.body == body, "the same five megabytes come back");
    let fault = a.ask(&b, "echo", &vec![0; 17 << 20]).await.expect_err("over the limit");
    assert!(matches!(fault.kind, FaultKind::TooLarge { limit, .. } if limit == 16 << 20), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn tells_arrive_and_a_large_one_too() {
    let (a, b) = pair().await;
    a.transport.tell(&b.id, 1, request("note", b"small")).expect("queued");
    a.transport.tell(&b.id, 1, request("note", &vec![7; 2 << 20])).expect("queued");
    b.handlers.until("both", |seen| seen.requests.len() == 2).await;
    let seen = b.handlers.seen.lock();
    assert!(seen.requests.iter().all(|(_, request)| request.kind == Kind::Tell));
    assert_eq!(seen.requests.iter().map(|(_, request)| request.body.len()).max(), Some(2 << 20));
}

#[tokio::test]
async fn each_gate_refuses_on_its_own() {
    let personal = || DataClass::new("personal").expect("a class");
    let ask = || Request::ask("echo", personal(), Bytes::from_static(b"secret"), Headers::within(SOON));
    for (at_callee, direction, delivery) in [
        (false, Direction::Egress, Delivery::NotSent),
        (true, Direction::Ingress, Delivery::NotSent),
        (true, Direction::Egress, Delivery::Ran),
        (false, Direction::Ingress, Delivery::Ran),
    ] {
        let (a, b) = pair().await;
        let rules = if at_callee { &b.rules } else { &a.rules };
        rules.refuse("personal", direction);
        let fault = a.transport.ask(&b.id, 1, ask()).await.expect_err("refused");
        let FaultKind::Gate(refusal) = &fault.kind else { panic!("{fault}") };
        assert_eq!((&refusal.class, fault.delivery()), (&personal(), delivery), "{at_callee} {direction:?}");
        let ran = b.handlers.seen.lock().requests.len();
        assert_eq!(ran, usize::from(delivery == Delivery::Ran), "{at_callee} {direction:?}");
        a.ask(&b, "echo", b"").await.expect("other classes pass");
    }
}

#[tokio::test]
async fn the_class_of_an_answer_is_gated_as_the_answers_own() {
    let (a, b) = pair().await;
    b.rules.refuse("personal", Direction::Egress);
    let fault = a.ask(&b, "tattle", b"").await.expect_err("refused");
    assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::Ran);
}
