//! The same over a wide-area network: delay, loss, overtaking, cuts, and ways that carry little.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rhumb_core::rng::Seed;
use rhumb_core::{Delivery, FaultKind, HybridTime, Role};
use rhumb_transport::relay::{Cut, LinkPlan, Relay, RelayLink, Wan};
use rhumb_transport::{Dialed, Peer, Request, TransportSettings};

use crate::mesh::{
    Member, SOON, authority, credentials, hour, identity_of, inventory, node, reply, request, settings,
};

/// Two nodes that reach each other only through a relay with such links.
struct World {
    relay: Relay,
    low: Member,
    high: Member,
}

impl World {
    fn new(seed: u64, plan: &LinkPlan) -> Self {
        let authority = authority();
        let start = |id: &str| {
            let id = node(id);
            let settings = TransportSettings {
                probe_interval: Duration::from_millis(100),
                silence_limit: Duration::from_millis(600),
                ..settings()
            };
            Member::with(&credentials(&authority, Role::Node, &id, hour()), identity_of(&id), settings)
        };
        let (low, high) = (start("eu-central/n1"), start("us-east/n1"));
        let mut wan = Wan::new(&Seed::new(seed));
        wan.link(&low.id, &high.id, plan.clone()).expect("planned");
        wan.link(&high.id, &low.id, plan.clone()).expect("planned");
        let link = |from: &Member, to: &Member| RelayLink {
            from: from.id.clone(),
            to: to.id.clone(),
            target: Some(to.addr()),
        };
        let relay = Relay::start(vec![link(&low, &high), link(&high, &low)], wan).expect("started");
        Self { relay, low, high }
    }

    fn dial(&self, from: &Member, to: &Member) {
        let address = self.relay.address(&from.id, &to.id).expect("relayed");
        from.transport.add_peer(to.id.clone(), address);
    }

    async fn connected(&self) {
        assert!(self.low.transport.connected(&self.high.id, SOON).await);
        assert!(self.high.transport.connected(&self.low.id, SOON).await);
    }
}

fn far() -> LinkPlan {
    LinkPlan { delay: Duration::from_millis(20), ..LinkPlan::default() }
}

#[tokio::test]
async fn when_two_hellos_cross_the_lower_nodes_connection_stays() {
    for seed in 0..5 {
        // Both dial before either can have heard of the other.
        let world = World::new(seed, &far());
        world.dial(&world.low, &world.high);
        world.dial(&world.high, &world.low);
        world.connected().await;
        world.low.ask(&world.high, "echo", b"").await.expect("answered");
        world.high.ask(&world.low, "echo", b"").await.expect("answered");
        let (at_low, at_high) = (&world.low.transport.links()[0], &world.high.transport.links()[0]);
        assert_eq!((at_low.dialed, at_high.dialed), (Some(Dialed::ByUs), Some(Dialed::ByPeer)));
        assert_eq!((at_low.generation, at_high.generation), (1, 1));
    }
}

#[tokio::test]
async fn order_within_a_pair_holds_over_a_network_that_loses_and_reorders() {
    let plan = LinkPlan {
        jitter: Duration::from_millis(10),
        loss: 0.03,
        overtaking: Duration::from_millis(10),
        ..far()
    };
    let world = World::new(1, &plan);
    world.dial(&world.low, &world.high);
    world.connected().await;
    const COUNT: u32 = 300;
    for number in 0..COUNT {
        for pair in 0..4u64 {
            let body = [pair.to_be_bytes().as_slice(), &number.to_be_bytes(), &[0; 100]].concat();
            world.low.transport.tell(&world.high.id, pair, request("note", &body)).expect("room for all");
        }
    }
    world.high.handlers.until("all", |seen| seen.requests.len() == 4 * COUNT as usize).await;
    let seen = world.high.handlers.seen.lock();
    for pair in 0..4u64 {
        let of_pair = seen.requests.iter().filter(|(_, r)| r.body[..8] == pair.to_be_bytes());
        let numbers: Vec<u32> =
            of_pair.map(|(_, r)| u32::from_be_bytes(r.body[8..12].try_into().expect("four bytes"))).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "pair {pair}");
    }
    let lost: u64 = world
        .relay
        .stats()
        .links
        .iter()
        .map(|link| link.dropped(rhumb_transport::relay::DropReason::Lost))
        .sum();
    assert!(lost > 0, "the network did lose something");
}

#[tokio::test]
async fn a_cut_in_either_direction_fails_calls_and_healed_a_new_generation_begins() {
    let world = World::new(2, &far());
    world.dial(&world.low, &world.high);
    world.dial(&world.high, &world.low);
    world.connected().await;
    let mut generation = 1;
    for cut in [
        Cut::Node(world.low.id.clone()),
        Cut::Link(world.low.id.clone(), world.high.id.clone()),
        Cut::Link(world.high.id.clone(), world.low.id.clone()),
    ] {
        let (transport, to) = (world.low.transport.clone(), world.high.id.clone());
        let held = tokio::spawn(async move { transport.ask(&to, 1, request("hold", b"")).await });
        let calls = generation as usize;
        world.high.handlers.until("the call", |seen| seen.held.len() == calls).await;
        world.relay.cut(cut.clone()).expect("cut");
        let fault = held.await.expect("no panic").expect_err("cut off");
        assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{cut:?}: {fault}");
        assert_eq!(fault.delivery(), Delivery::Unknown, "{cut:?}");
        world.high.handlers.until("both notice", |seen| seen.disconnected.len() == calls).await;
        world.relay.heal_all();
        generation += 1;
        world.connected().await;
        let again = world.low.ask(&world.high, "echo", b"").await;
        again.unwrap_or_else(|fault| panic!("healed after {cut:?}: {fault}"));
        assert_eq!(world.low.transport.links()[0].generation, generation, "{cut:?}");
    }
}

/// A far way that carries some hundred kilobytes a second.
fn thin() -> LinkPlan {
    LinkPlan { loss: 0.01, ..far() }
}

const BULK: usize = 200 << 10;

#[tokio::test]
async fn large_answers_hold_up_nothing_that_goes_over_lanes() {
    const COUNT: usize = 8;
    let world = World::new(3, &thin());
    world.dial(&world.low, &world.high);
    world.connected().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let bulk: Vec<_> = (0..COUNT as u64)
        .map(|pair| {
            let (transport, to) = (world.low.transport.clone(), world.high.id.clone());
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let answer = transport.ask(&to, pair, request("hold", b"")).await.expect("answered");
                answered.fetch_add(1, Ordering::Relaxed);
                answer.body.len()
            })
        })
        .collect();
    world.high.handlers.until("the calls", |seen| seen.held.len() == COUNT).await;
    for answer in std::mem::take(&mut world.high.handlers.seen.lock().held) {
        answer.reply(reply(inventory(), vec![7; BULK].into(), HybridTime::ZERO));
    }
    for pair in 0..COUNT as u64 {
        world.low.transport.ask(&world.high.id, pair, request("echo", b"")).await.expect("answered");
        assert_eq!(answered.load(Ordering::Relaxed), 0, "a small answer waited for large ones");
    }
    for large in bulk {
        assert_eq!(large.await.expect("no panic"), BULK);
    }
}

#[tokio::test]
async fn a_lane_that_always_has_something_to_send_leaves_the_others_their_part_of_the_way() {
    const COUNT: usize = 16;
    let world = World::new(4, &thin());
    world.dial(&world.low, &world.high);
    world.connected().await;
    let tell = |pair, body: &[u8]| {
        world.low.transport.tell(&world.high.id, pair, request("note", body)).expect("room for all");
    };
    for _ in 0..COUNT {
        tell(0, &[7; BULK]);
    }
    tell(1, b"small");
    world.high.handlers.until("the small one", |seen| seen.requests.iter().any(is_small)).await;
    let before = world.high.handlers.seen.lock().requests.len() - 1;
    assert!(before < COUNT / 2, "it waited for {before} of {COUNT} on another lane");
}

#[tokio::test]
async fn a_large_answer_comes_though_lanes_always_have_something_to_send() {
    const LANES: u64 = 8;
    let world = World::new(5, &thin());
    world.dial(&world.low, &world.high);
    world.connected().await;
    // Whoever answers fills every lane of the way back, and goes on.
    let (fills, to) = (world.high.transport.clone(), world.low.id.clone());
    let busy = tokio::spawn(async move {
        loop {
            for pair in 0..LANES {
                while fills.tell(&to, pair, request("note", &[7; BULK])).is_ok() {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    world.low.handlers.until("what fills the way", |seen| seen.requests.len() > 4).await;
    let asked = tokio::spawn({
        let (transport, to) = (world.low.transport.clone(), world.high.id.clone());
        async move { transport.ask(&to, 0, request("hold", b"")).await }
    });
    world.high.handlers.until("the call", |seen| seen.held.len() == 1).await;
    let held = world.high.handlers.seen.lock().held.pop().expect("there is one");
    held.reply(reply(inventory(), vec![7; BULK].into(), HybridTime::ZERO));
    let answer = asked.await.expect("no panic").expect("it comes long before the call ends");
    assert_eq!(answer.body.len(), BULK);
    assert!(!busy.is_finished(), "the lanes were kept full");
    busy.abort();
}

fn is_small((_, request): &(Arc<Peer>, Request)) -> bool {
    request.body.len() < BULK
}
