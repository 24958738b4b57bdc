//! How connections end, and begin again.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, Role};
use rhumb_transport::envelope::{Frame, FrameKind};
use rhumb_transport::{Dialed, LinkState, Reply, TransportSettings};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::mesh::{
    Member, SOON, authority, client, credentials, hour, identity_of, inventory, node, pair, reply, request,
    settings,
};
use crate::raw::{Raw, close_code};

fn hold(from: &Member, at: &Member) -> JoinHandle<Result<Reply, Fault>> {
    let (transport, to) = (from.transport.clone(), at.id.clone());
    tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await })
}

/// Waits until a condition on a node's links holds.
async fn until_links(member: &Member, what: &str, wanted: impl Fn(&rhumb_transport::LinkStatus) -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !member.transport.links().iter().any(&wanted) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: {:?}", member.transport.links()));
}

#[tokio::test]
async fn a_peer_that_closes_fails_what_waits_as_unknown_and_what_comes_as_not_sent() {
    let (a, b) = pair().await;
    let held = hold(&a, &b);
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    b.transport.close().await;
    let fault = held.await.expect("no panic").expect_err("lost");
    assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::Unknown);
    a.handlers.until("the end", |seen| seen.disconnected.len() == 1).await;
    let fault = a.ask(&b, "echo", b"").await.expect_err("not connected");
    assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn a_node_that_is_no_peer_cannot_be_asked() {
    let (a, b) = pair().await;
    let stranger = node("us-east/n9");
    let fault = a.transport.ask(&stranger, 1, request("echo", b"")).await.expect_err("no peer");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    assert!(fault.to_string().contains("not a peer"), "{fault}");
    let fault = a.transport.tell(&stranger, 1, request("echo", b"")).expect_err("no peer");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    drop(b);
}

#[tokio::test]
async fn a_restarted_peer_is_found_again_as_a_new_generation() {
    let authority = authority();
    let (a, b) = (Member::start(&authority, "us-east/n1"), Member::start(&authority, "eu-central/n1"));
    a.join(&b).await;
    b.transport.close().await;
    a.handlers.until("the end", |seen| seen.disconnected.len() == 1).await;
    let again = Member::start(&authority, "eu-central/n1");
    a.transport.add_peer(again.id.clone(), again.addr());
    a.handlers.until("the next generation", |seen| seen.connected.len() == 2).await;
    a.ask(&again, "echo", b"").await.expect("answered");
    let seen = a.handlers.seen.lock();
    assert_eq!(seen.connected.iter().map(|peer| peer.generation).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(seen.disconnected.iter().map(|peer| peer.generation).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_client_finds_its_node_again() {
    let authority = authority();
    let first = Member::start(&authority, "us-east/n1");
    let client = client(&authority, "us-east/till", &first).await.expect("connected");
    let addr = first.addr();
    first.transport.close().await;
    drop(first);
    let lost = async {
        while client.is_connected() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, lost).await.expect("noticed");
    let fault = client.ask(request("echo", b"")).await.expect_err("not connected");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    let _again = restarted_at(&authority, addr).await;
    let found = async {
        while !client.is_connected() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, found).await.expect("found again");
    client.ask(request("echo", b"")).await.expect("answered");
    assert_eq!(client.peer().expect("connected").generation, 2);
}

/// A node on an address that another has just left.
async fn restarted_at(
    authority: &rhumb_transport::issue::Authority,
    addr: std::net::SocketAddr,
) -> rhumb_transport::Transport {
    let id = node("us-east/n1");
    let credentials = credentials(authority, Role::Node, &id, hour());
    let bound = async {
        loop {
            let regions = rhumb_transport::Regions::of(crate::mesh::REGIONS.map(crate::mesh::region));
            let (rules, handlers) = (crate::mesh::Rules::default(), crate::mesh::Handlers::default());
            match rhumb_transport::Transport::bind(
                addr,
                &credentials,
                regions,
                identity_of(&id),
                settings(),
                Arc::new(rules),
                Arc::new(handlers),
            ) {
                Ok(transport) => return transport,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(SOON, bound).await.expect("the address becomes free")
}

#[tokio::test]
async fn of_two_that_dial_each_other_at_once_one_connection_stays_and_both_agree() {
    for _ in 0..10 {
        let authority = authority();
        let (low, high) =
            (Member::start(&authority, "eu-central/n1"), Member::start(&authority, "us-east/n1"));
        low.transport.add_peer(high.id.clone(), high.addr());
        high.transport.add_peer(low.id.clone(), low.addr());
        assert!(low.transport.connected(&high.id, SOON).await);
        assert!(high.transport.connected(&low.id, SOON).await);
        let (_one, _other) = (hold(&low, &high), hold(&high, &low));
        low.handlers.until("a call", |seen| seen.held.len() == 1).await;
        high.handlers.until("a call", |seen| seen.held.len() == 1).await;
        let (at_low, at_high) = (&low.transport.links()[0], &high.transport.links()[0]);
        let expected = match at_low.dialed {
            Some(Dialed::ByUs) => Dialed::ByPeer,
            Some(Dialed::ByPeer) => Dialed::ByUs,
            None => panic!("connected"),
        };
        assert_eq!(at_high.dialed, Some(expected), "it is the same connection");
        assert_eq!((at_low.generation, at_high.generation), (1, 1), "and no other was in its place");
    }
}

#[tokio::test]
async fn a_frozen_peer_fails_its_calls_as_silent_and_is_found_again() {
    let authority = authority();
    let a = Member::start(&authority, "us-east/n1");
    let (thaw, frozen) = mpsc::sync_channel::<()>(1);
    let (started, start) = tokio::sync::oneshot::channel();
    let (freeze, told) = tokio::sync::oneshot::channel::<()>();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    // A runtime of its own, on one thread: blocked, its peer's packets stay in the socket.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let b = Member::start(&authority, "eu-central/n1");
            started.send((b.id.clone(), b.addr())).expect("the test waits");
            told.await.expect("the test tells");
            frozen.recv().expect("the test thaws");
            ended.await.expect("the test ends");
        });
    });
    let (id, addr) = start.await.expect("started");
    a.transport.add_peer(id.clone(), addr);
    assert!(a.transport.connected(&id, SOON).await);
    let (transport, to) = (a.transport.clone(), id.clone());
    let held = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await });
    freeze.send(()).expect("it listens");
    let fault = held.await.expect("no panic").expect_err("the peer is frozen");
    assert!(matches!(&fault.kind, FaultKind::Unreachable(why) if why.contains("silent")), "{fault}");
    let fault = a.transport.ask(&id, 1, request("echo", b"")).await.expect_err("not connected");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    thaw.send(()).expect("it waits");
    let found_again = tokio::time::timeout(SOON, async {
        // Both dial at once: what goes over the connection that gives way is lost with it.
        while a.transport.ask(&id, 1, request("echo", b"")).await.is_err() {
            a.transport.connected(&id, SOON).await;
            tokio::task::yield_now().await;
        }
    });
    found_again.await.expect("answered");
    end.send(()).expect("it waits");
    thread.join().expect("no panic");
}

#[tokio::test]
async fn a_draining_node_answers_what_is_under_way_and_takes_no_more() {
    let (a, b) = pair().await;
    let held = hold(&a, &b);
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    let draining = tokio::spawn({
        let transport = b.transport.clone();
        async move { transport.drain(SOON).await }
    });
    until_links(&a, "GOAWAY", |link| link.state == LinkState::Draining).await;
    let fault = a.ask(&b, "echo", b"").await.expect_err("draining");
    assert_eq!((fault.kind.clone(), fault.delivery()), (FaultKind::Draining, Delivery::NotSent));
    let answer = b.handlers.seen.lock().held.remove(0);
    answer.reply(reply(inventory(), Bytes::from_static(b"at last"), Default::default()));
    assert_eq!(held.await.expect("no panic").expect("answered").body, "at last");
    tokio::time::timeout(SOON, draining).await.expect("drained").expect("no panic");
    until_links(&a, "the end", |link| matches!(link.state, LinkState::Down(_))).await;
}

/// Asks again and again until a call is turned away; every call ends with its answer or as not sent.
async fn ask_until_turned_away(client: rhumb_transport::Client) -> Result<u32, Fault> {
    let mut answered = 0;
    loop {
        match client.ask(request("echo", b"")).await {
            Ok(_) => answered += 1,
            Err(fault) if fault.delivery() == Delivery::NotSent => return Ok(answered),
            Err(fault) => return Err(fault),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_crosses_the_end_of_a_drained_connection_unseen() {
    let authority = authority();
    let node = Member::start(&authority, "us-east/n1");
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..4 {
        let client = client(&authority, &format!("us-east/c{number}"), &node).await.expect("connected");
        for _ in 0..16 {
            asking.spawn(ask_until_turned_away(client.clone()));
        }
    }
    node.handlers.until("calls", |seen| seen.requests.len() > 500).await;
    let cut_short = node.transport.drain(SOON).await;
    assert!(cut_short.is_empty(), "{cut_short:?}");
    let mut answered = 0;
    while let Some(asked) = asking.join_next().await {
        answered += asked.expect("no panic").expect("no outcome is unknown");
    }
    assert!(answered > 400, "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_on_asking_while_it_drains_comes_to_its_end() {
    let (a, b) = pair().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (transport, to) = (a.transport.clone(), b.id.clone());
        asking.spawn(async move {
            loop {
                // Each at times of its own: a timer would have all of them ask at once and rest together.
                let next = Instant::now() + Duration::from_micros(200 + 50 * number);
                while Instant::now() < next {
                    tokio::task::yield_now().await;
                }
                let asked = transport.ask(&to, 1, request("echo", b"")).await;
                if let Some(fault) = asked.err() {
                    return fault.delivery();
                }
            }
        });
    }
    b.handlers.until("calls", |seen| seen.requests.len() > 100).await;
    let cut_short = a.transport.drain(SOON).await;
    assert!(cut_short.is_empty(), "{cut_short:?}");
    while let Some(ended) = asking.join_next().await {
        assert_eq!(ended.expect("no panic"), Delivery::NotSent);
    }
}

#[tokio::test]
async fn what_was_told_before_a_drain_arrives_before_the_connection_ends() {
    let (a, b) = pair().await;
    for number in 0..2000u32 {
        a.transport.tell(&b.id, u64::from(number), request("note", &number.to_be_bytes())).expect("room");
    }
    a.transport.drain(SOON).await;
    b.handlers.until("the end", |seen| !seen.disconnected.is_empty()).await;
    assert_eq!(b.handlers.seen.lock().requests.len(), 2000);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let (a, b) = pair().await;
    let held = hold(&a, &b);
    b.handlers.until("the call", |seen| seen.held.len() == 1).await;
    b.transport.drain(Duration::from_millis(100)).await;
    let fault = held.await.expect("no panic").expect_err("never answered");
    assert_eq!(fault.delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_their_connection_and_no_other() {
    let authority = authority();
    let (a, b) = (Member::start(&authority, "us-east/n1"), Member::start(&authority, "eu-central/n1"));
    b.join(&a).await;
    for bytes in [
        b"\x01\x00GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: something that is long enough for a header\r\n"
            .to_vec(),
        vec![1, 99],
        vec![77],
        [&[1, 0][..], &oversized()].concat(),
    ] {
        let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
        let (connection, _send, _receive) = raw.greet(a.addr(), &a.id).await;
        let mut lane = connection.open_uni().await.expect("opened");
        lane.write_all(&bytes).await.expect("written");
        let told = tokio::time::timeout(SOON, connection.closed()).await.expect("closed");
        assert_eq!(close_code(&told), Some(3), "{told}");
    }
    b.ask(&a, "echo", b"").await.expect("undisturbed");
    assert_eq!(b.transport.links()[0].generation, 1);
}

/// The head of a frame that claims more than a lane's frame may have.
fn oversized() -> Vec<u8> {
    let frame = Frame::answer(FrameKind::Tell, 1, 1, DataClass::control(), vec![0; 2 << 20].into());
    frame.encode()[..200].to_vec()
}

#[tokio::test]
async fn a_message_that_says_nonsense_is_a_fault_and_the_lane_goes_on() {
    let authority = authority();
    let a = Member::start(&authority, "us-east/n1");
    let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
    let (connection, _send, _receive) = raw.greet(a.addr(), &a.id).await;
    let mut lane = connection.open_uni().await.expect("opened");
    lane.write_all(&[1, 0]).await.expect("written");
    // A call without a name, one in a codec that was not agreed, and one that is in order.
    let mut frame = Frame::answer(FrameKind::Ask, 1, 1, inventory(), Bytes::new());
    frame.deadline = SOON;
    lane.write_all(&frame.encode()).await.expect("written");
    (frame.name, frame.codec, frame.id) = ("echo".into(), 200, 2);
    lane.write_all(&frame.encode()).await.expect("written");
    (frame.codec, frame.id) = (1, 3);
    lane.write_all(&frame.encode()).await.expect("written");
    a.handlers.until("the one in order", |seen| seen.requests.len() == 1).await;
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn a_message_cut_in_half_is_never_delivered() {
    let authority = authority();
    let a = Member::start(&authority, "us-east/n1");
    let raw = Raw::new(&authority, Some("c"), b"rhumb/1");
    let (connection, _send, _receive) = raw.greet(a.addr(), &a.id).await;
    let mut frame = Frame::answer(FrameKind::Tell, 1, 1, inventory(), vec![7; 2 << 20].into());
    (frame.name, frame.deadline) = ("note".into(), SOON);
    let bytes = frame.encode();
    // A large one that is finished in the middle, as a dropped stream would be: nothing happens.
    let mut large = connection.open_uni().await.expect("opened");
    large.write_all(&[&[2], &bytes[..bytes.len() / 2]].concat()).await.expect("written");
    large.finish().expect("finished");
    let mut whole = connection.open_uni().await.expect("opened");
    whole.write_all(&[&[2], &bytes[..]].concat()).await.expect("written");
    a.handlers.until("the whole one", |seen| !seen.requests.is_empty()).await;
    assert_eq!(a.handlers.seen.lock().requests.len(), 1);
    // On a lane it ends the connection: what follows could not be read.
    let mut lane = connection.open_uni().await.expect("opened");
    lane.write_all(&[&[1, 0], &bytes[..100]].concat()).await.expect("written");
    lane.finish().expect("finished");
    let told = tokio::time::timeout(SOON, connection.closed()).await.expect("closed");
    assert_eq!(close_code(&told), Some(3), "{told}");
    assert_eq!(a.handlers.seen.lock().requests.len(), 1);
}

/// A node that follows the protocol but reads nothing, or permits no lanes.
async fn deaf(
    authority: &rhumb_transport::issue::Authority,
    at: &Member,
    lanes: u32,
) -> (Raw, quinn::Connection) {
    let id = node("eu-central/n7");
    let who =
        rhumb_core::Principal { role: Role::Node, region: id.region.clone(), name: id.name.to_string() };
    let mut raw = Raw::being(authority, Some(who), b"rhumb/1");
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(lanes.into());
    // The windows of a node.
    let windows = TransportSettings::default();
    transport.stream_receive_window(windows.stream_window.into());
    transport.receive_window(windows.connection_window.into());
    raw.config.transport_config(Arc::new(transport));
    let hello =
        rhumb_transport::hello::Hello { node: Some(id), founding: Some([1; 32]), ..crate::raw::hello() };
    let (connection, send, receive) = raw.greet_as(hello, at.addr(), &at.id).await;
    // The control stream stays open.
    tokio::spawn(async move {
        let _streams = (send, receive);
        std::future::pending::<()>().await;
    });
    (raw, connection)
}

#[tokio::test]
async fn a_peer_that_is_heard_but_does_not_read_is_closed() {
    let authority = authority();
    let id = node("us-east/n1");
    let credentials = credentials(&authority, Role::Node, &id, hour());
    let limited = rhumb_transport::TransportSettings {
        stall_limit: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(700),
        ..settings()
    };
    for (lanes, tells, expected) in [(100, 8, "did not read lane"), (2, 0, "was not permitted")] {
        let a = Member::with(&credentials, identity_of(&id), limited.clone());
        let (_raw, connection) = deaf(&authority, &a, lanes).await;
        let to = node("eu-central/n7");
        // More than any window, so that the lane's writer waits for the reader.
        for _ in 0..tells {
            a.transport.tell(&to, 1, request("note", &vec![0; 1_000_000])).expect("room");
        }
        let told = tokio::time::timeout(SOON, connection.closed()).await.expect("closed");
        assert!(told.to_string().contains(expected), "{told}");
    }
}

/// Reads so many bytes of a lane.
async fn read(lane: &mut quinn::RecvStream, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        let chunk = lane.read_chunk(1 << 16, true).await.expect("it goes on").expect("it has not ended");
        read += chunk.bytes.len();
    }
}

#[tokio::test]
async fn a_stopped_reader_stalls_only_its_own_lanes() {
    const LANES: u16 = 8;
    // Four windows' worth, so that the lanes that are read must be given room again and again.
    let (notes, bytes) = (8, 1_000_000);
    for stopped in [1, LANES - 1] {
        let authority = authority();
        let a = Member::start(&authority, "us-east/n1");
        let (_raw, connection) = deaf(&authority, &a, 100).await;
        let mut lanes = std::collections::BTreeMap::new();
        while lanes.len() < usize::from(LANES) {
            let mut lane = connection.accept_uni().await.expect("opened");
            let mut head = [0; 2];
            lane.read_exact(&mut head).await.expect("its number");
            lanes.insert(u16::from(head[1]), lane);
        }
        let to = node("eu-central/n7");
        for lane in 0..LANES {
            let is_it = |pair: &u64| rhumb_transport::lanes::lane_of(*pair, LANES) == usize::from(lane);
            let pair = (0..).find(is_it).expect("every lane has pairs");
            for _ in 0..notes {
                a.transport.tell(&to, pair, request("note", &vec![0; bytes])).expect("room");
            }
        }
        let going_on = lanes.iter_mut().filter(|(number, _)| **number >= stopped);
        let all = futures_of(going_on.map(|(_, lane)| read(lane, notes * bytes)));
        tokio::time::timeout(SOON, all).await.expect("they are not stalled");
        let waits = a.transport.links()[0].waiting.bytes;
        assert!(waits >= bytes * usize::from(stopped), "the others do wait: {waits} bytes");
        // Nothing was lost: they go on where they stopped.
        let late = lanes.iter_mut().filter(|(number, _)| **number < stopped);
        let all = futures_of(late.map(|(_, lane)| read(lane, notes * bytes)));
        tokio::time::timeout(SOON, all).await.expect("they go on");
    }
}

/// All of them, one beside the other.
async fn futures_of(each: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut each: Vec<_> = each.map(Box::pin).collect();
    std::future::poll_fn(|task| {
        each.retain_mut(|one| one.as_mut().poll(task).is_pending());
        if each.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_fails_at_once_tells_of_the_attempt_before_it_and_not_of_its_own_waiting() {
    let (authority, id) = (authority(), node("us-east/n1"));
    let credentials = credentials(&authority, Role::Node, &id, hour());
    let hasty = TransportSettings { handshake_timeout: Duration::from_millis(50), ..settings() };
    let a = Member::with(&credentials, identity_of(&id), hasty);
    // It is there and says nothing.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = node("eu-central/n1");
    a.transport.add_peer(to.clone(), mute.local_addr().expect("bound"));
    until_links(&a, "the first attempt has failed", |link| matches!(link.state, LinkState::Down(_))).await;
    let fault = a.transport.ask(&to, 1, request("echo", b"")).await.expect_err("not connected");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    let told = fault.to_string();
    assert!(told.contains("not connected; the last attempt ended so: no answer within 50ms"), "{told}");
}
