//! Tells that share one head, and answers that are for many calls.

use std::sync::Arc;

use bytes::Bytes;
use rhumb_core::{DataClass, Direction, FaultKind};
use rhumb_transport::envelope::{Deframer, Frame, FrameKind};
use rhumb_transport::gathering::messages;
use rhumb_transport::hello::{Hello, VERSIONS};
use rhumb_transport::{Gathering, Kind};

use crate::mesh::{Member, SOON, authority, inventory, pair, request};
use crate::raw::{Raw, hello};

fn of(messages: &[&str]) -> Arc<Gathering> {
    let gathering = Arc::new(Gathering::default());
    assert!(messages.iter().all(|message| gathering.push(message.as_bytes())));
    gathering
}

#[tokio::test]
async fn what_has_gathered_until_the_lane_is_written_arrives_as_one_message() {
    let (a, b) = pair().await;
    assert!(a.transport.gathers(&b.id));
    let gathering = of(&["one", "two"]);
    let asked = a.transport.gather(&b.id, 1, request("echo", b""), &gathering).expect("queued");
    // The link's thread may have taken it already; who gathers is told.
    let late = gathering.push(b"three");
    let reply = asked.await.expect("answered");
    assert!(!gathering.push(b"four"), "it has left");
    let all = messages(&reply.body).expect("whole");
    let all: Vec<_> = all.into_iter().map(|range| reply.body.slice(range)).collect();
    assert_eq!(all, if late { vec!["one", "two", "three"] } else { vec!["one", "two"] });
    let seen = b.handlers.seen.lock();
    assert_eq!(seen.requests.iter().map(|(_, request)| request.kind).collect::<Vec<_>>(), [Kind::Posts]);
}

#[tokio::test]
async fn what_came_after_it_on_its_lane_is_not_overtaken_by_what_gathers_later() {
    let (a, b) = pair().await;
    for _ in 0..20 {
        let gathering = of(&["one"]);
        let first = a.transport.gather(&b.id, 1, request("echo", b""), &gathering).expect("queued");
        let second = a.transport.begin(&b.id, 1, request("echo", b"between")).expect("queued");
        assert!(!gathering.push(b"late"), "something has come after it");
        first.await.expect("answered");
        second.await.expect("answered");
    }
    let seen = b.handlers.seen.lock();
    let kinds: Vec<_> = seen.requests.iter().map(|(_, request)| request.kind).collect();
    assert_eq!(kinds, [Kind::Posts, Kind::Ask].repeat(20));
}

#[tokio::test]
async fn the_gates_judge_what_has_gathered_by_its_head() {
    let (a, b) = pair().await;
    b.rules.refuse("inventory", Direction::Ingress);
    let asked = a.transport.gather(&b.id, 1, request("echo", b""), &of(&["one"])).expect("queued");
    assert!(matches!(asked.await.expect_err("refused").kind, FaultKind::Gate(_)));
    a.rules.refuse("inventory", Direction::Egress);
    let refused = a.transport.gather(&b.id, 1, request("echo", b""), &of(&["one"]));
    assert!(matches!(refused.expect_err("refused").kind, FaultKind::Gate(_)));
    assert!(b.handlers.seen.lock().requests.is_empty());
}

/// What a node answers to three posts in one packet, of a peer that speaks these versions: the kinds of its
/// frames, and the calls that they are about.
async fn answers_to(versions: (u16, u16)) -> Vec<(FrameKind, Vec<u64>)> {
    let authority = authority();
    let a = Member::start(&authority, "us-east/n1");
    let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
    let (connection, _send, _receive) = raw.greet_as(Hello { versions, ..hello() }, a.addr(), &a.id).await;
    let mut bytes = vec![1, 0];
    for id in [7, 8, 9] {
        let mut frame = Frame::answer(FrameKind::Post, 1, id, inventory(), Bytes::new());
        (frame.name, frame.deadline) = ("taken".into(), SOON);
        bytes.extend_from_slice(&frame.encode());
    }
    let mut lane = connection.open_uni().await.expect("opened");
    lane.write_all(&bytes).await.expect("written");
    let (mut answered, mut told) = (Vec::new(), 0);
    while told < 3 {
        let mut stream = connection.accept_uni().await.expect("a lane");
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.expect("its number");
        if head != [1, 0] {
            continue;
        }
        let mut deframer = Deframer::new(1 << 20);
        while told < 3 {
            let chunk = stream.read_chunk(usize::MAX, true).await.expect("read").expect("more");
            deframer.feed(&chunk.bytes);
            while let Some(bytes) = deframer.next_frame().expect("frames") {
                let frame = Frame::decode(bytes).expect("whole");
                let ids: Vec<u64> = match frame.kind {
                    FrameKind::Taken => {
                        let ids = frame.body.chunks_exact(8);
                        ids.map(|id| u64::from_be_bytes(id.try_into().expect("eight bytes"))).collect()
                    }
                    _ => vec![frame.id],
                };
                assert_eq!(frame.class, DataClass::control());
                told += ids.len();
                answered.push((frame.kind, ids));
            }
        }
    }
    answered
}

#[tokio::test]
async fn posts_that_were_taken_are_answered_together_where_the_peer_knows_it() {
    let together = tokio::time::timeout(SOON, answers_to(VERSIONS)).await.expect("answered");
    assert!(together.iter().all(|(kind, _)| *kind == FrameKind::Taken), "{together:?}");
    let ids: Vec<u64> = together.iter().flat_map(|(_, ids)| ids.clone()).collect();
    assert_eq!(ids, [7, 8, 9]);
    let alone = tokio::time::timeout(SOON, answers_to((1, 1))).await.expect("answered");
    assert_eq!(alone, [7, 8, 9].map(|id| (FrameKind::Reply, vec![id])));
}
