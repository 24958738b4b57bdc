//! What a peer can make a node hold has an end, whatever it sends and however little it reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream};
use rhumb_core::{DataClass, FaultKind, HybridTime, Role};
use rhumb_transport::control::WireFault;
use rhumb_transport::envelope::{Deframer, Frame, FrameKind};
use rhumb_transport::hello::{Hello, VERSIONS};
use rhumb_transport::issue::Authority;
use rhumb_transport::{Client, ConnectError, Expect, HelloRefusalKind, Reply, TransportSettings};

use crate::mesh::{
    CLUSTER, Member, SOON, authority, credentials, hour, identity_of, inventory, node, reply, settings,
};
use crate::raw::{Raw, close_code, hello};

const KIB: usize = 1 << 10;

/// Little room, so that a test fills it.
fn narrow() -> TransportSettings {
    TransportSettings {
        max_frame: 4 * KIB,
        max_large_frame: 64 * KIB,
        in_flight_bytes: 128 * KIB,
        in_flight_bytes_all: 512 * KIB,
        large_buffer: 256 * KIB,
        stall_limit: Duration::from_millis(500),
        ..settings()
    }
}

fn member(authority: &Authority, id: &str, settings: TransportSettings) -> Member {
    let id = node(id);
    Member::with(&credentials(authority, Role::Node, &id, hour()), identity_of(&id), settings)
}

fn call(kind: FrameKind, name: &'static str, id: u64, body: usize) -> Bytes {
    let mut frame = Frame::answer(kind, 1, id, inventory(), vec![0; body].into());
    (frame.name, frame.deadline) = (name.into(), SOON);
    frame.encode()
}

/// A client that permits only so many streams, and so many bytes on each ahead of its reading.
fn permitting(authority: &Authority, streams: u32, window: u32) -> Raw {
    let mut raw = Raw::new(authority, Some("c"), b"rhumb/1");
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(streams.into());
    transport.stream_receive_window(window.into());
    raw.config.transport_config(Arc::new(transport));
    raw
}

/// The answers on the first lane of a node.
struct Answers {
    lane: RecvStream,
    deframer: Deframer,
}

impl Answers {
    async fn of(connection: &Connection) -> Self {
        loop {
            let mut lane = connection.accept_uni().await.expect("a lane");
            let mut head = [0; 2];
            lane.read_exact(&mut head).await.expect("its number");
            if head == [1, 0] {
                return Self { lane, deframer: Deframer::new(1 << 20) };
            }
        }
    }

    async fn next(&mut self) -> Frame {
        let answer = async {
            loop {
                if let Some(bytes) = self.deframer.next_frame().expect("frames") {
                    return Frame::decode(bytes).expect("whole");
                }
                let chunk = self.lane.read_chunk(usize::MAX, true).await.expect("read").expect("more");
                self.deframer.feed(&chunk.bytes);
            }
        };
        tokio::time::timeout(SOON, answer).await.expect("an answer")
    }

    async fn next_fault(&mut self) -> FaultKind {
        let frame = self.next().await;
        assert_eq!(frame.kind, FrameKind::Fault, "{frame:?}");
        WireFault::decode(&frame.body).expect("a fault").kind
    }
}

fn large() -> Reply {
    reply(inventory(), vec![7; 50 * KIB].into(), HybridTime::ZERO)
}

#[tokio::test]
async fn large_answers_that_nobody_reads_are_owed_and_bounded_and_given_up() {
    let authority = authority();
    let a = member(&authority, "us-east/n1", narrow());
    let (connection, _send, _receive) = permitting(&authority, 8, 1 << 20).greet(a.addr(), &a.id).await;
    let mut lane = connection.open_uni().await.expect("opened");
    let asked: Vec<Bytes> = (1..=10).map(|id| call(FrameKind::Ask, "hold", id, 0)).collect();
    lane.write_all(&[&[1, 0][..], &asked.concat()].concat()).await.expect("written");
    a.handlers.until("ten calls", |seen| seen.held.len() == 10).await;
    let mut answers = Answers::of(&connection).await;
    for answer in std::mem::take(&mut a.handlers.seen.lock().held) {
        answer.reply(large());
    }
    // The client permits lanes alone: two large answers wait, which is all there may be.
    for _ in 0..8 {
        let fault = answers.next_fault().await;
        assert!(matches!(&fault, FaultKind::Full(what) if what.contains("has not read")), "{fault}");
    }
    for _ in 0..2 {
        let fault = answers.next_fault().await;
        assert!(matches!(&fault, FaultKind::Deadline(_)), "{fault}");
    }
    // There is room again.
    lane.write_all(&call(FrameKind::Ask, "hold", 11, 0)).await.expect("written");
    a.handlers.until("one more", |seen| seen.held.len() == 1).await;
    a.handlers.seen.lock().held.remove(0).reply(large());
    assert!(matches!(answers.next_fault().await, FaultKind::Deadline(_)));
}

#[tokio::test]
async fn a_large_answer_counts_as_under_way_until_it_is_read() {
    let authority = authority();
    let few = TransportSettings { in_flight: 2, stall_limit: Duration::from_secs(600), ..narrow() };
    let a = member(&authority, "us-east/n1", few);
    let (connection, _send, _receive) = permitting(&authority, 8, 1 << 20).greet(a.addr(), &a.id).await;
    let mut lane = connection.open_uni().await.expect("opened");
    let asked = [1, 2].map(|id| call(FrameKind::Ask, "hold", id, 0)).concat();
    lane.write_all(&[&[1, 0][..], &asked].concat()).await.expect("written");
    a.handlers.until("two calls", |seen| seen.held.len() == 2).await;
    for answer in std::mem::take(&mut a.handlers.seen.lock().held) {
        answer.reply(large());
    }
    lane.write_all(&call(FrameKind::Ask, "echo", 3, 0)).await.expect("written");
    let fault = Answers::of(&connection).await.next_fault().await;
    assert!(matches!(fault, FaultKind::Full(_)), "{fault}");
}

#[tokio::test]
async fn messages_that_wait_to_be_handled_are_bounded_in_bytes_and_nodes_have_room_all_the_same() {
    let authority = authority();
    let (a, b) = (member(&authority, "us-east/n1", narrow()), member(&authority, "eu-central/n1", narrow()));
    b.join(&a).await;
    let (connection, _send, _receive) =
        Raw::new(&authority, Some("c"), b"rhumb/1").greet(a.addr(), &a.id).await;
    let mut lane = connection.open_uni().await.expect("opened");
    let asked: Vec<Bytes> = (1..=40).map(|id| call(FrameKind::Ask, "hold", id, 3 * KIB)).collect();
    lane.write_all(&[&[1, 0][..], &asked.concat()].concat()).await.expect("written");
    a.handlers.until("forty calls", |seen| seen.held.len() == 40).await;
    let more: Vec<Bytes> = (41..=60).map(|id| call(FrameKind::Ask, "hold", id, 3 * KIB)).collect();
    lane.write_all(&more.concat()).await.expect("written");
    let mut answers = Answers::of(&connection).await;
    let fault = answers.next_fault().await;
    assert!(matches!(&fault, FaultKind::Full(what) if what.contains("bytes of calls")), "{fault}");
    assert!(a.handlers.seen.lock().held.len() < 45, "128 KiB hold no more");
    b.ask(&a, "echo", &[0; 3 * KIB]).await.expect("a node's share is its own");
    let held = std::mem::take(&mut a.handlers.seen.lock().held);
    held.into_iter().for_each(|answer| answer.reply(reply(inventory(), Bytes::new(), HybridTime::ZERO)));
    lane.write_all(&call(FrameKind::Ask, "echo", 99, 3 * KIB)).await.expect("written");
    while answers.next().await.id != 99 {}
}

#[tokio::test]
async fn posts_that_were_taken_count_as_under_way_until_a_lane_has_said_so() {
    let authority = authority();
    let a = member(&authority, "us-east/n1", TransportSettings { in_flight: 8, ..narrow() });
    // No frame fits: the writer of the lane stands still with the first.
    let (connection, _send, _receive) = permitting(&authority, 100, 40).greet(a.addr(), &a.id).await;
    let mut lane = connection.open_uni().await.expect("opened");
    lane.write_all(&[1, 0]).await.expect("written");
    let full = || a.transport.refusals().iter().any(|(why, count)| *why == "full" && *count > 0);
    let refused = async {
        for id in 1.. {
            lane.write_all(&call(FrameKind::Post, "taken", id, 0)).await.expect("written");
            if full() {
                return id;
            }
            assert!(id < 5_000, "whoever does not read may post without end");
            tokio::task::yield_now().await;
        }
        unreachable!("it counts for ever");
    };
    tokio::time::timeout(SOON, refused).await.expect("refused");
}

#[tokio::test]
async fn a_large_frame_that_drips_is_given_up() {
    let authority = authority();
    let a = member(&authority, "us-east/n1", narrow());
    let (connection, _send, _receive) =
        Raw::new(&authority, Some("c"), b"rhumb/1").greet(a.addr(), &a.id).await;
    let mut stream = connection.open_uni().await.expect("opened");
    let frame = call(FrameKind::Ask, "echo", 1, 60 * KIB);
    stream.write_all(&[&[2][..], &frame[..200]].concat()).await.expect("written");
    let dripped = async {
        for byte in frame[200..].chunks(1) {
            if stream.write_all(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it had ten minutes");
    };
    tokio::time::timeout(SOON, dripped).await.expect("stopped");
    assert!(a.transport.counts().large_abandoned > 0);
}

#[tokio::test]
async fn bytes_after_a_large_frame_end_the_connection() {
    let authority = authority();
    let a = member(&authority, "us-east/n1", narrow());
    let (connection, _send, _receive) =
        Raw::new(&authority, Some("c"), b"rhumb/1").greet(a.addr(), &a.id).await;
    let mut stream = connection.open_uni().await.expect("opened");
    let frame = call(FrameKind::Ask, "echo", 1, 10);
    stream.write_all(&[&[2][..], &frame, b"more"].concat()).await.expect("written");
    let told = tokio::time::timeout(SOON, connection.closed()).await.expect("closed");
    assert_eq!(close_code(&told), Some(3), "{told}");
}

#[tokio::test]
async fn one_program_has_half_of_the_places_and_operators_get_in_where_all_are_taken() {
    let authority = authority();
    let few = TransportSettings { max_clients: 4, ..settings() };
    let a = member(&authority, "us-east/n1", few);
    let connects = async |role, who: &str| {
        let credentials = credentials(&authority, role, &node(who), hour());
        Client::connect(a.addr(), Expect::AnyNode, &credentials, Some(CLUSTER), settings()).await
    };
    let busy = |refused: Result<Client, ConnectError>| match refused {
        Err(ConnectError::HelloRefused(refusal)) => refusal.kind == HelloRefusalKind::Busy,
        _ => false,
    };
    let first = [connects(Role::Client, "us-east/a").await, connects(Role::Client, "us-east/a").await];
    let first = first.map(|client| client.expect("connected"));
    assert!(busy(connects(Role::Client, "us-east/a").await), "half of four are its own");
    let others = [connects(Role::Client, "us-east/b").await, connects(Role::Client, "us-east/c").await];
    let others = others.map(|client| client.expect("connected"));
    assert!(busy(connects(Role::Client, "us-east/d").await), "as many as may be");
    connects(Role::Operator, "us-east/admin").await.expect("an operator has a place");
    drop((first, others));
}

#[tokio::test]
async fn kinds_of_frames_that_were_not_agreed_and_ids_that_are_none_end_the_connection() {
    let authority = authority();
    let a = Member::start(&authority, "us-east/n1");
    let ids =
        |bytes: usize| Frame::answer(FrameKind::Taken, 1, 0, DataClass::control(), vec![0; bytes].into());
    for (versions, frame) in [
        ((1, 1), call(FrameKind::Posts, "taken", 1, 0)),
        ((1, 1), ids(8).encode()),
        (VERSIONS, ids(9).encode()),
        (VERSIONS, ids(100_000).encode()),
    ] {
        let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
        let (connection, _send, _receive) =
            raw.greet_as(Hello { versions, ..hello() }, a.addr(), &a.id).await;
        let mut lane = connection.open_uni().await.expect("opened");
        lane.write_all(&[&[1, 0][..], &frame].concat()).await.expect("written");
        let told = tokio::time::timeout(SOON, connection.closed()).await.expect("closed");
        assert_eq!(close_code(&told), Some(3), "{told}");
    }
}
