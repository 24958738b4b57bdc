//! The relay end to end, over loopback. No wall-clock assertion but one kind: a datagram is never
//! *earlier* than its link's delay.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use rhumb_core::rng::Seed;

use super::*;
use crate::relay::{DropReason, LinkPlan, MAX_FLOWS};

const DEADLINE: Duration = Duration::from_secs(20);

fn node(text: &str) -> NodeId {
    text.parse().expect("a node id")
}

fn us() -> NodeId {
    node("us/n1")
}

fn eu() -> NodeId {
    node("eu/n1")
}

/// A socket of a node.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("bound")
}

/// A relay for us→eu, with both directions after one plan.
fn relay(plan: &LinkPlan, target: Option<SocketAddr>) -> (Relay, SocketAddr) {
    let mut wan = Wan::new(&Seed::new(11));
    wan.link(&us(), &eu(), plan.clone()).expect("a link");
    wan.link(&eu(), &us(), plan.clone()).expect("a link");
    let relay = Relay::start(vec![RelayLink { from: us(), to: eu(), target }], wan).expect("a relay");
    let at = relay.address(&us(), &eu()).expect("relayed");
    (relay, at)
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 2048];
    let (bytes, sender) = socket.recv_from(&mut buffer).expect("a datagram before the deadline");
    (String::from_utf8_lossy(&buffer[..bytes]).into_owned(), sender)
}

/// Waits until it is so.
#[expect(clippy::disallowed_methods, reason = "a deadline for a condition")]
fn eventually(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < DEADLINE, "never {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until the counters say so.
fn until(relay: &Relay, what: &str, so: impl Fn(&RelayStats) -> bool) {
    eventually(what, || so(&relay.stats()));
}

/// Waits until nobody has this address. Another test's socket may be given the port for a while.
fn closes(address: SocketAddr) {
    eventually(&format!("closed {address}"), || UdpSocket::bind(address).is_ok());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the lower bound that the relay imposes")]
fn datagrams_arrive_in_order_and_never_before_their_delay() {
    let delay = Duration::from_millis(20);
    let plan = LinkPlan { delay, jitter: Duration::from_millis(5), ..LinkPlan::default() };
    let (here, there) = (socket(), socket());
    let (relay, at) = relay(&plan, Some(address(&there)));
    let mut sent = Vec::new();
    for i in 0..200 {
        sent.push(Instant::now());
        here.send_to(i.to_string().as_bytes(), at).expect("sent");
    }
    for (i, sent) in sent.iter().enumerate() {
        let (text, flow) = receive(&there);
        assert_eq!(text, i.to_string(), "in order");
        assert!(sent.elapsed() >= delay, "{i} came after {:?}", sent.elapsed());
        there.send_to(text.as_bytes(), flow).expect("sent back");
    }
    for (i, sent) in sent.iter().enumerate() {
        let (text, from) = receive(&here);
        assert_eq!((text, from), (i.to_string(), at), "replies come from the address that was dialled");
        assert!(sent.elapsed() >= 2 * delay, "{i} was back after {:?}", sent.elapsed());
    }
    let stats = relay.stats();
    assert!(stats.links.iter().all(|link| link.arrived == 200 && link.under_way == 0), "{stats:?}");
    assert_eq!(stats.flows, FlowStats { opened: 1, ..FlowStats::default() });
}

#[test]
fn a_cut_stops_one_way_until_it_is_healed() {
    let (here, there) = (socket(), socket());
    let (relay, at) = relay(&LinkPlan::default(), Some(address(&there)));
    here.send_to(b"before", at).expect("sent");
    let (_, flow) = receive(&there);
    let cut = Cut::Link(us(), eu());
    relay.cut(cut.clone()).expect("a link");
    for _ in 0..5 {
        here.send_to(b"into the cut", at).expect("sent");
    }
    until(&relay, "cut", |stats| stats.links[0].dropped(DropReason::Cut) == 5);
    there.send_to(b"the other way", flow).expect("sent");
    assert_eq!(receive(&here).0, "the other way");
    assert!(relay.heal(&cut));
    here.send_to(b"after", at).expect("sent");
    assert_eq!(receive(&there).0, "after", "nothing of the cut's time comes later");
}

#[test]
fn what_is_under_way_when_a_cut_comes_is_lost() {
    let plan = LinkPlan { delay: Duration::from_millis(100), ..LinkPlan::default() };
    let (here, there) = (socket(), socket());
    let (relay, at) = relay(&plan, Some(address(&there)));
    here.send_to(b"under way", at).expect("sent");
    until(&relay, "under way", |stats| stats.links[0].sent == 1);
    relay.cut(Cut::Node(eu())).expect("a node");
    until(&relay, "dropped", |stats| stats.links[0].dropped(DropReason::Cut) == 1);
    relay.heal_all();
    here.send_to(b"after", at).expect("sent");
    assert_eq!(receive(&there).0, "after");
}

#[test]
fn a_node_may_come_up_later_and_come_back_elsewhere() {
    let (here, first, second) = (socket(), socket(), socket());
    let (relay, at) = relay(&LinkPlan::default(), None);
    here.send_to(b"nobody there", at).expect("sent");
    until(&relay, "dropped", |stats| stats.links[0].dropped(DropReason::NoReceiver) == 1);
    relay.set_target(&eu(), address(&first)).expect("a pair leads there");
    here.send_to(b"hello", at).expect("sent");
    let (text, flow) = receive(&first);
    assert_eq!(text, "hello");
    relay.set_target(&eu(), address(&second)).expect("a pair leads there");
    first.send_to(b"from the dead", flow).expect("sent");
    until(&relay, "refused", |stats| stats.flows.strangers == 1);
    here.send_to(b"again", at).expect("sent");
    let (text, flow) = receive(&second);
    assert_eq!(text, "again");
    second.send_to(b"from the living", flow).expect("sent");
    assert_eq!(receive(&here).0, "from the living");
}

#[test]
fn each_source_address_is_a_flow_and_flows_are_bounded() {
    let there = socket();
    let (relay, at) = relay(&LinkPlan::default(), Some(address(&there)));
    // Says its name, has it echoed, and gives the address of its flow.
    let echo = |dialler: &UdpSocket| {
        let name = address(dialler).to_string();
        dialler.send_to(name.as_bytes(), at).expect("sent");
        let (text, flow) = receive(&there);
        there.send_to(text.as_bytes(), flow).expect("sent back");
        assert_eq!(receive(dialler).0, name, "its own reply");
        flow
    };
    let diallers: Vec<UdpSocket> = (0..MAX_FLOWS).map(|_| socket()).collect();
    let flows: Vec<SocketAddr> = diallers.iter().map(echo).collect();
    assert_eq!(echo(&diallers[0]), flows[0], "the same dialler keeps its flow");
    let opened = MAX_FLOWS as u64;
    assert_eq!(relay.stats().flows, FlowStats { opened, ..FlowStats::default() });
    echo(&socket());
    assert_eq!(relay.stats().flows, FlowStats { opened: opened + 1, evicted: 1, ..FlowStats::default() });
    assert_eq!(echo(&diallers[0]), flows[0], "the least recently used went, not the oldest");
    closes(flows[1]);
}

#[test]
fn a_relay_that_is_dropped_leaves_nothing_behind() {
    let (here, there) = (socket(), socket());
    let (relay, at) = relay(&LinkPlan::default(), Some(address(&there)));
    here.send_to(b"hello", at).expect("sent");
    let (_, flow) = receive(&there);
    let other = relay.clone();
    drop(relay);
    assert!(UdpSocket::bind(at).is_err(), "another handle keeps it running");
    drop(other);
    closes(at);
    closes(flow);
}

#[test]
fn what_cannot_be_relayed_is_refused() {
    let link = |to: NodeId, target: Option<&str>| RelayLink {
        from: us(),
        to,
        target: target.map(|text| text.parse().expect("an address")),
    };
    let start = |links: Vec<RelayLink>| {
        let mut wan = Wan::new(&Seed::new(1));
        wan.link(&us(), &eu(), LinkPlan::default()).expect("a link");
        wan.link(&eu(), &us(), LinkPlan::default()).expect("a link");
        wan.link(&us(), &node("ap/n1"), LinkPlan::default()).expect("a link");
        Relay::start(links, wan)
    };
    assert!(matches!(start(vec![link(node("ap/n1"), None)]), Err(RelayError::NoPlan(..))), "one way only");
    assert!(matches!(start(vec![link(eu(), Some("[::1]:1"))]), Err(RelayError::NotIpv4(_))));
    assert!(matches!(start(vec![link(eu(), None), link(eu(), None)]), Err(RelayError::Duplicate(..))));
    let relay = start(vec![link(eu(), None)]).expect("a relay");
    let somewhere = "127.0.0.1:1".parse().expect("an address");
    assert!(matches!(relay.set_target(&node("ap/n1"), somewhere), Err(RelayError::UnknownNode(_))));
    assert!(matches!(relay.cut(Cut::Node(node("sa/n1"))), Err(RelayError::NothingToCut(_))));
    assert_eq!(relay.address(&eu(), &us()), None);
}
