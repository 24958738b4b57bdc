//! The network inside one process, in virtual time: what the test does to it, and what its nodes
//! conclude, which must be what they conclude over QUIC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{DataClass, Delivery, Direction, Fault, FaultKind, HybridTime, NodeId, Principal, Role};
use rhumb_transport::in_process::{ClientPort, Network, NodeDescription, Port};
use rhumb_transport::{Gathering, Headers, Kind, LinkState, Reply, Request, TransportSettings};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::mesh::{Handlers, Rules, SOON, inventory, node, region, reply, request};

/// In which a cut or frozen peer is noticed.
const NOTICED: Duration = Duration::from_secs(2);

struct Member {
    id: NodeId,
    port: Port,
    handlers: Arc<Handlers>,
    rules: Arc<Rules>,
}

impl Member {
    fn join(network: &Network, id: &str) -> Self {
        Self::living(network, id, 1)
    }

    fn living(network: &Network, id: &str, incarnation: u64) -> Self {
        let (handlers, rules) = (Arc::new(Handlers::default()), Arc::new(Rules::default()));
        let description = NodeDescription { incarnation, ..NodeDescription::new(node(id)) };
        let port = network.join(description, Arc::clone(&rules) as _, Arc::clone(&handlers) as _);
        Self { id: node(id), port, handlers, rules }
    }

    async fn ask(&self, to: &Self, name: &str, body: &[u8]) -> Result<Reply, Fault> {
        self.port.ask(&to.id, 1, request(name, body)).await
    }

    fn asking(&self, to: &Self, name: &'static str) -> JoinHandle<Result<Reply, Fault>> {
        let (port, to) = (self.port.clone(), to.id.clone());
        tokio::spawn(async move { port.ask(&to, 1, request(name, b"")).await })
    }

    async fn until_held(&self, calls: usize) {
        self.handlers.until("the calls", |seen| seen.held.len() == calls).await;
    }

    async fn until_disconnected(&self, times: usize) {
        self.handlers.until("the end", |seen| seen.disconnected.len() == times).await;
    }

    async fn until_connected(&self, times: usize) {
        self.handlers.until("the connection", |seen| seen.connected.len() == times).await;
    }

    fn names(&self) -> Vec<String> {
        self.handlers.seen.lock().requests.iter().map(|(_, request)| request.name.to_string()).collect()
    }
}

async fn pair_in(network: &Network) -> (Member, Member) {
    let (a, b) = (Member::join(network, "us-east/n1"), Member::join(network, "eu-central/n1"));
    assert!(a.port.connected(&b.id, SOON).await && b.port.connected(&a.id, SOON).await);
    (a, b)
}

async fn pair() -> (Network, Member, Member) {
    let network = Network::new(7);
    let (a, b) = pair_in(&network).await;
    (network, a, b)
}

fn unreachable(fault: &Fault, delivery: Delivery) {
    assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
    assert_eq!(fault.delivery(), delivery, "{fault}");
}

#[tokio::test(start_paused = true)]
async fn every_node_is_connected_with_every_other_and_everything_a_call_carries_arrives() {
    let (network, a, b) = pair().await;
    let c = Member::join(&network, "ap-southeast/n1");
    assert!(c.port.connected(&a.id, SOON).await && c.port.connected(&b.id, SOON).await);
    let mut sent = request("echo", b"hello");
    sent.kind = Kind::Post;
    sent.headers.chain = vec!["cart/42".into()];
    sent.headers.target = Some("cart@eu-central/42".into());
    sent.headers.idempotency_key = Some("us-east:key".into());
    assert_eq!(c.port.ask(&b.id, 1, sent.clone()).await.expect("answered").body, "hello");
    let (from, received) = b.handlers.seen.lock().requests[0].clone();
    assert_eq!((from.node.as_ref(), from.principal.role, received), (Some(&c.id), Role::Node, sent));
    let links = a.port.links();
    let peers: Vec<_> = links.iter().map(|link| (link.peer.to_string(), link.state.clone())).collect();
    let connected = |peer: &str| (peer.to_owned(), LinkState::Connected);
    assert_eq!(peers, [connected("ap-southeast/n1"), connected("eu-central/n1")]);
    assert_eq!(network.nodes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_as_long_as_the_way_there_and_back() {
    let (network, a, b) = pair().await;
    network.delay(&a.id.region, &b.id.region, Duration::from_millis(30));
    network.delay(&b.id, &a.id, Duration::from_millis(50));
    let begun = Instant::now();
    a.ask(&b, "echo", b"").await.expect("answered");
    assert_eq!(begun.elapsed(), Duration::from_millis(80));
    assert_eq!(a.port.links()[0].rtt, Some(Duration::from_millis(80)));
    network.delay_between(&a.id, &b.id, Duration::from_millis(5));
    let begun = Instant::now();
    b.ask(&a, "echo", b"").await.expect("answered");
    assert_eq!(begun.elapsed(), Duration::from_millis(10));
}

/// Tells on many pairs under jitter; the bodies as they arrived, and when.
async fn told_under_jitter(seed: u64) -> (Vec<Vec<u8>>, Duration) {
    let network = Network::new(seed);
    let (a, b) = pair_in(&network).await;
    let begun = Instant::now();
    network.jitter(Duration::from_millis(40));
    for number in 0..50u8 {
        for pair in 0..10u8 {
            a.port.tell(&b.id, pair.into(), request("note", &[pair, number])).expect("room");
        }
        // Each by itself, so that each is delayed by itself.
        sleep(Duration::from_millis(1)).await;
    }
    b.handlers.until("all", |seen| seen.requests.len() == 500).await;
    let seen = b.handlers.seen.lock();
    (seen.requests.iter().map(|(_, request)| request.body.to_vec()).collect(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_pair_keep_their_order_and_others_need_not() {
    let (bodies, _) = told_under_jitter(7).await;
    for pair in 0..10 {
        let of_pair = bodies.iter().filter(|body| body[0] == pair).map(|body| body[1]);
        assert!(of_pair.eq(0..50), "pair {pair}");
    }
    assert!(!bodies.is_sorted_by_key(|body| body[1]), "lanes overtake each other");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let (first, again, other) =
        (told_under_jitter(7).await, told_under_jitter(7).await, told_under_jitter(8).await);
    assert!(first == again);
    assert!(first.0 != other.0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_what_is_under_way_as_unknown_and_later_calls_as_not_sent() {
    let (network, a, b) = pair().await;
    let held = a.asking(&b, "hold");
    b.until_held(1).await;
    let token = b.handlers.seen.lock().held[0].cancellation();
    network.cut(&a.id.region, &b.id.region);
    let begun = Instant::now();
    let lost = a.ask(&b, "echo", b"into the cut").await.expect_err("cut");
    unreachable(&lost, Delivery::Unknown);
    assert!(lost.to_string().contains("silent"), "{lost}");
    unreachable(&held.await.expect("no panic").expect_err("cut"), Delivery::Unknown);
    assert!(begun.elapsed() <= NOTICED, "after {:?}", begun.elapsed());
    unreachable(&a.ask(&b, "echo", b"").await.expect_err("not connected"), Delivery::NotSent);
    assert_eq!(a.port.tell(&b.id, 1, request("note", b"")).expect_err("none").delivery(), Delivery::NotSent);
    a.until_disconnected(1).await;
    b.until_disconnected(1).await;
    assert!(token.is_cancelled(), "and the handler is told");
    assert_eq!(b.names(), ["hold"]);
    assert!(matches!(&a.port.links()[0].state, LinkState::Down(why) if why.contains("silent")));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_handed_over_is_not_sent() {
    // One batch fills a lane's window; the next waits for it to be taken up.
    let network = Network::with(7, TransportSettings { stream_window: 1, ..TransportSettings::default() });
    let (a, b) = pair_in(&network).await;
    network.cut(&a.id, &b.id);
    let handed_over = a.asking(&b, "echo");
    sleep(Duration::from_millis(1)).await;
    let waiting = a.asking(&b, "echo");
    unreachable(&handed_over.await.expect("no panic").expect_err("cut"), Delivery::Unknown);
    unreachable(&waiting.await.expect("no panic").expect_err("cut"), Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_only_delays() {
    let (network, a, b) = pair().await;
    network.cut(&a.id, &b.id);
    let asking = a.asking(&b, "echo");
    sleep(Duration::from_secs(1)).await;
    assert!(b.names().is_empty());
    network.heal(&a.id, &b.id);
    asking.await.expect("no panic").expect("answered");
    sleep(NOTICED).await;
    assert_eq!((a.port.links()[0].generation, a.handlers.seen.lock().disconnected.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_healing_a_new_generation_begins_when_the_old_one_has_failed() {
    let (network, a, b) = pair().await;
    network.cut(&a.id, &b.id);
    a.until_disconnected(1).await;
    sleep(Duration::from_secs(60)).await;
    network.heal_all();
    assert!(a.port.connected(&b.id, SOON).await);
    a.ask(&b, "echo", b"").await.expect("answered");
    for member in [&a, &b] {
        let seen = member.handlers.seen.lock();
        assert_eq!(seen.connected.iter().map(|peer| peer.generation).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(seen.disconnected.iter().map(|peer| peer.generation).collect::<Vec<_>>(), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_one_way_cut_both_sides_learn_and_the_caller_does_not_know_more() {
    for (there, ran) in [(true, 0), (false, 1)] {
        let (network, a, b) = pair().await;
        if there {
            network.cut_one_way(&a.id, &b.id);
        } else {
            network.cut_one_way(&b.id, &a.id);
        }
        let begun = Instant::now();
        let fault = a.ask(&b, "echo", b"").await.expect_err("cut");
        unreachable(&fault, Delivery::Unknown);
        assert_eq!(b.names().len(), ran);
        a.until_disconnected(1).await;
        b.until_disconnected(1).await;
        assert!(begun.elapsed() <= NOTICED, "after {:?}", begun.elapsed());
        sleep(NOTICED).await;
        assert!(a.port.peer(&b.id).is_none(), "a handshake needs both ways");
        network.heal(&a.id, &b.id);
        assert!(a.port.connected(&b.id, SOON).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_between_places_and_nobody_elses() {
    let network = Network::new(7);
    let (a, b) = pair_in(&network).await;
    let (c, d) = (Member::join(&network, "us-east/n2"), Member::join(&network, "ap-southeast/n1"));
    network.cut(region("us-east"), region("eu-central"));
    let late = Member::join(&network, "eu-central/n2");
    for cut in [&a, &c] {
        cut.handlers.until("the cut", |_| cut.port.peer(&b.id).is_none()).await;
    }
    sleep(NOTICED).await;
    let reaches = |from: &Member, to: &Member| from.port.peer(&to.id).is_some();
    assert!(!reaches(&a, &b) && !reaches(&c, &b) && !reaches(&late, &a), "who joins later, too");
    assert!(reaches(&a, &c) && reaches(&a, &d) && reaches(&d, &b) && reaches(&late, &b));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nobody of region us-est has ever joined")]
async fn a_cut_that_cuts_nothing_is_a_mistake() {
    let (network, _a, b) = pair().await;
    network.cut(region("us-est"), &b.id);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_a_frozen_node_waits_and_its_own_calls_do_too() {
    let (network, a, b) = pair().await;
    let held = a.asking(&b, "hold");
    b.until_held(1).await;
    network.freeze(&b.id);
    let (to_it, of_it) = (a.asking(&b, "echo"), b.asking(&a, "echo"));
    let answer = b.handlers.seen.lock().held.remove(0);
    answer.reply(reply(inventory(), Bytes::from_static(b"late"), HybridTime::ZERO));
    sleep(Duration::from_secs(1)).await;
    assert!(!held.is_finished() && !to_it.is_finished() && !of_it.is_finished());
    assert_eq!((b.names(), a.names()), (vec!["hold".to_owned()], vec![]), "nothing in, nothing out");
    network.thaw(&b.id);
    assert_eq!(held.await.expect("no panic").expect("answered").body, "late");
    to_it.await.expect("no panic").expect("answered");
    of_it.await.expect("no panic").expect("answered");
    // The time that its call waited has gone from its deadline.
    let left = a.handlers.seen.lock().requests[0].1.headers.deadline;
    assert_eq!(left, SOON - Duration::from_secs(1));
    assert_eq!(a.port.links()[0].generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_frozen_is_silent_and_learns_of_it_when_it_thaws() {
    let (network, a, b) = pair().await;
    network.freeze(&b.id);
    let begun = Instant::now();
    unreachable(&a.ask(&b, "echo", b"").await.expect_err("frozen"), Delivery::Unknown);
    assert!(begun.elapsed() <= NOTICED);
    let mut hurried = request("echo", b"");
    hurried.headers.deadline = Duration::from_secs(1);
    let fault = b.port.ask(&a.id, 1, hurried).await.expect_err("frozen");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent, "it never left");
    sleep(Duration::from_secs(60)).await;
    assert!(b.handlers.seen.lock().disconnected.is_empty(), "it has not heard of it");
    assert!(a.port.peer(&b.id).is_none());
    network.thaw(&b.id);
    b.until_connected(2).await;
    assert_eq!(b.handlers.seen.lock().disconnected.len(), 1);
    a.ask(&b, "echo", b"").await.expect("answered");
    assert_eq!(
        b.names(),
        ["echo", "echo"],
        "what its caller no longer waits for ran, too: unknown is unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn each_gate_refuses_on_its_own() {
    let personal = || DataClass::new("personal").expect("a class");
    let ask = || Request::ask("echo", personal(), Bytes::from_static(b"secret"), Headers::within(SOON));
    for (at_callee, direction, delivery) in [
        (false, Direction::Egress, Delivery::NotSent),
        (true, Direction::Ingress, Delivery::NotSent),
        (true, Direction::Egress, Delivery::Ran),
        (false, Direction::Ingress, Delivery::Ran),
    ] {
        let (_network, a, b) = pair().await;
        let rules = if at_callee { &b.rules } else { &a.rules };
        rules.refuse("personal", direction);
        let fault = a.port.ask(&b.id, 1, ask()).await.expect_err("refused");
        let FaultKind::Gate(refusal) = &fault.kind else { panic!("{fault}") };
        assert_eq!((&refusal.class, fault.delivery()), (&personal(), delivery), "{at_callee} {direction:?}");
        assert_eq!(b.names().len(), usize::from(delivery == Delivery::Ran), "{at_callee} {direction:?}");
        a.ask(&b, "echo", b"").await.expect("other classes pass");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_gated_as_its_own_class_and_a_refused_tell_is_counted() {
    let (_network, a, b) = pair().await;
    b.rules.refuse("personal", Direction::Egress);
    let fault = a.ask(&b, "tattle", b"").await.expect_err("refused");
    assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::Ran);
    b.rules.refuse("inventory", Direction::Ingress);
    a.port.tell(&b.id, 1, request("note", b"")).expect("queued");
    a.ask(&b, "echo", b"").await.expect_err("refused");
    assert_eq!(b.port.counts().tells_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_is_cancelled_at_the_callee() {
    let (network, a, b) = pair().await;
    network.delay_between(&a.id, &b.id, Duration::from_millis(10));
    let asking = a.asking(&b, "hold");
    b.until_held(1).await;
    let token = b.handlers.seen.lock().held[0].cancellation();
    assert!(!token.is_cancelled());
    let begun = Instant::now();
    asking.abort();
    token.wait().await;
    assert_eq!(begun.elapsed(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline() {
    let (_network, a, b) = pair().await;
    let mut asked = request("hold", b"");
    asked.headers.deadline = Duration::from_secs(3);
    let begun = Instant::now();
    let fault = a.port.ask(&b.id, 1, asked).await.expect_err("nobody answers");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!((fault.delivery(), begun.elapsed()), (Delivery::Unknown, Duration::from_secs(3)));
    let mut patient = request("echo", b"");
    patient.headers.deadline = Duration::MAX;
    a.port.ask(&b.id, 1, patient).await.expect("a deadline beyond all clocks is none too long");
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_are_bounded_and_so_is_a_lane() {
    let settings = TransportSettings { in_flight: 2, lane_queue: 10, ..TransportSettings::default() };
    let network = Network::with(7, settings);
    let (a, b) = pair_in(&network).await;
    let _held = [a.asking(&b, "hold"), a.asking(&b, "hold")];
    b.until_held(2).await;
    let fault = a.ask(&b, "echo", b"").await.expect_err("no third");
    assert!(matches!(fault.kind, FaultKind::Full(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    // Nothing is sent while this task does not yield: the runtime has one thread.
    let told: Vec<_> = (0..11).map(|_| a.port.tell(&b.id, 1, request("note", b""))).collect();
    assert!(told[..10].iter().all(Result::is_ok));
    assert!(matches!(told[10].as_ref().expect_err("full").kind, FaultKind::Full(_)));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_frozen_node_is_bounded() {
    let (window, queue) = (64 << 10, 16);
    let settings =
        TransportSettings { stream_window: window, lane_queue: queue, ..TransportSettings::default() };
    let network = Network::with(7, settings);
    let (a, b) = pair_in(&network).await;
    network.freeze(&b.id);
    let mut taken = 0;
    while a.port.tell(&b.id, 1, request("note", &[0; 1024])).is_ok() {
        taken += 1;
        assert!(taken < 1_000, "a lane and its window are bounded");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    assert!(taken > queue, "the window took some");
    network.thaw(&b.id);
    b.handlers.until("all", |seen| seen.requests.len() == taken).await;
}

#[tokio::test(start_paused = true)]
async fn bodies_too_large_for_a_lane_pass_and_wait_as_others_do() {
    let (network, a, b) = pair().await;
    let body: Vec<u8> = (0..5 << 20).map(|i: u32| i as u8).collect();
    assert!(a.ask(&b, "echo", &body).await.expect("answered").body == body);
    let fault = a.ask(&b, "echo", &vec![0; 17 << 20]).await.expect_err("over the limit");
    assert!(matches!(fault.kind, FaultKind::TooLarge { .. }), "{fault}");
    a.port.tell(&b.id, 1, request("note", &body)).expect("queued");
    b.handlers.until("the tell", |seen| seen.requests.len() == 2).await;
    network.cut(&a.id, &b.id);
    unreachable(&a.ask(&b, "echo", &body).await.expect_err("cut"), Delivery::Unknown);
    unreachable(&a.ask(&b, "echo", &body).await.expect_err("not connected"), Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_gone_at_once_and_joins_again_in_its_next_life() {
    let (network, a, b) = pair().await;
    let held = a.asking(&b, "hold");
    b.until_held(1).await;
    let begun = Instant::now();
    b.port.leave().await;
    unreachable(&held.await.expect("no panic").expect_err("gone"), Delivery::Unknown);
    a.until_disconnected(1).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "it said so");
    unreachable(&a.ask(&b, "echo", b"").await.expect_err("gone"), Delivery::NotSent);
    unreachable(&b.ask(&a, "echo", b"").await.expect_err("it has left"), Delivery::NotSent);
    let again = Member::living(&network, "eu-central/n1", 2);
    assert!(a.port.connected(&b.id, SOON).await);
    let peer = a.port.peer(&b.id).expect("connected");
    assert_eq!((peer.incarnation, peer.generation), (2, 2));
    a.ask(&again, "echo", b"").await.expect("answered");
    assert_eq!(again.handlers.seen.lock().connected[0].generation, 1, "its own first");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_frozen_says_nothing_as_if_it_were_killed() {
    let (network, a, b) = pair().await;
    network.freeze(&b.id);
    b.port.leave().await;
    sleep(Duration::from_millis(500)).await;
    assert!(a.port.peer(&b.id).is_some(), "nobody has told it");
    a.until_disconnected(1).await;
    // Back before it was missed, it takes the place of its former life.
    let again = Member::living(&network, "eu-central/n1", 2);
    assert!(a.port.connected(&b.id, SOON).await);
    network.freeze(&b.id);
    again.port.leave().await;
    let third = Member::living(&network, "eu-central/n1", 3);
    third.until_connected(1).await;
    a.ask(&third, "echo", b"").await.expect("answered");
    let seen = a.handlers.seen.lock();
    assert_eq!(seen.connected.iter().map(|peer| peer.incarnation).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(seen.disconnected.iter().map(|peer| peer.incarnation).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_answers_what_is_under_way_and_takes_no_more() {
    let (network, a, b) = pair().await;
    network.delay_between(&a.id, &b.id, Duration::from_millis(10));
    let held = a.asking(&b, "hold");
    b.until_held(1).await;
    let port = b.port.clone();
    let draining = tokio::spawn(async move { port.drain(SOON).await });
    sleep(Duration::from_millis(20)).await;
    let fault = a.ask(&b, "echo", b"").await.expect_err("draining");
    assert_eq!(fault, Fault::not_sent(FaultKind::Draining));
    let answer = b.handlers.seen.lock().held.remove(0);
    answer.reply(reply(inventory(), Bytes::from_static(b"at last"), HybridTime::ZERO));
    assert_eq!(held.await.expect("no panic").expect("answered").body, "at last");
    let begun = Instant::now();
    draining.await.expect("no panic");
    assert!(begun.elapsed() < Duration::from_secs(1), "it did not wait for its deadline");
    a.until_disconnected(1).await;
    sleep(NOTICED).await;
    assert!(a.port.peer(&b.id).is_none(), "and is not connected again");
}

fn client(network: &Network, role: Role, at: &str) -> ClientPort {
    let principal = Principal { role, region: region(at), name: "till".into() };
    network.client(principal, None)
}

#[tokio::test(start_paused = true)]
async fn a_client_asks_every_node_as_who_it_is() {
    let (network, a, b) = pair().await;
    network.delay_between(region("us-east"), region("eu-central"), Duration::from_millis(40));
    for role in [Role::Client, Role::Operator] {
        let client = client(&network, role, "us-east");
        assert_eq!(client.ask(&a.id, request("echo", b"near")).await.expect("answered").body, "near");
        assert_eq!(client.ask(&b.id, request("echo", b"far")).await.expect("answered").body, "far");
        let (from, received) = b.handlers.seen.lock().requests.last().cloned().expect("it came");
        assert_eq!((from.principal.role, from.node.is_none()), (role, true));
        assert_eq!(received.headers.deadline, SOON - Duration::from_millis(80), "it waited for a handshake");
    }
    let client = client(&network, Role::Client, "us-east");
    unreachable(
        &client.ask(&node("eu-central/n9"), request("echo", b"")).await.expect_err("none"),
        Delivery::NotSent,
    );
    let late = Member::join(&network, "ap-southeast/n1");
    client.ask(&late.id, request("echo", b"")).await.expect("answered");
    b.rules.refuse("inventory", Direction::Egress);
    client.ask(&b.id, request("echo", b"")).await.expect_err("the node's gate decides");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_connect_has_sent_nothing_and_one_that_is_dropped_is_gone() {
    let (network, a, b) = pair().await;
    network.cut(region("us-east"), &b.id);
    let client = client(&network, Role::Client, "us-east");
    let fault = client.ask(&b.id, request("echo", b"")).await.expect_err("cut");
    assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
    assert_eq!(fault.delivery(), Delivery::NotSent);
    client.ask(&a.id, request("echo", b"")).await.expect("answered");
    let of_client = |seen: &crate::mesh::Seen| seen.disconnected.iter().any(|peer| peer.node.is_none());
    assert!(!of_client(&a.handlers.seen.lock()));
    drop(client);
    a.handlers.until("its end", |seen| of_client(seen)).await;
}

#[tokio::test(start_paused = true)]
async fn what_gathered_for_a_connection_that_has_ended_takes_no_more_in() {
    let (network, a, b) = pair().await;
    network.freeze(&b.id);
    // As much as may be on its way, so that what comes after it waits on its lane.
    let body = vec![0; 900 << 10];
    let _fill: Vec<_> =
        (0..4).map(|_| a.port.begin(&b.id, 1, request("echo", &body)).expect("room")).collect();
    sleep(Duration::from_millis(1)).await;
    let gathering = Arc::new(Gathering::default());
    assert!(gathering.push(b"one"));
    let asked = a.port.gather(&b.id, 1, request("echo", b""), &gathering).expect("queued");
    assert!(gathering.push(b"two"), "it waits");
    let fault = asked.await.expect_err("the peer is silent");
    unreachable(&fault, Delivery::NotSent);
    assert!(!gathering.push(b"three"), "it would never leave");
}
