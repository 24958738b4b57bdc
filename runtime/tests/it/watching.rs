//! A watcher is told when an actor ends, and told apart from that when nobody can say.

use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.Live", class = "control", reply = u32)]
struct Live {
    how: String,
}

struct Watched;

#[remote_actor(name = "test.watched", class = "control", accepts(Live))]
impl Actor for Watched {
    type Context = Context<Self>;
}

impl Handler<Live> for Watched {
    type Result = u32;

    fn handle(&mut self, live: Live, context: &mut Context<Self>) -> u32 {
        match live.how.as_str() {
            "stop" => context.stop(),
            "panic" => panic!("as asked"),
            _ => {}
        }
        1
    }
}

async fn mesh() -> TestMesh {
    let restarts = Restarts { intensity: 1, ..Restarts::default() };
    let host = Host::new(|_: &_| Watched).restarts(restarts).idle(Duration::from_secs(60));
    TestMesh::of(["us", "eu"]).host(host).start().await.expect("starts")
}

fn watched(mesh: &TestMesh, region: &str) -> MeshAddr<Watched> {
    mesh.at("us").actor_in(&region.parse().expect("a region"), "a")
}

fn live(how: &str) -> Live {
    Live { how: how.to_owned() }
}

#[test]
fn an_end_is_terminal_here_and_across_regions() {
    run(async {
        let mesh = mesh().await;
        for region in ["us", "eu"] {
            let actor = watched(&mesh, region);
            actor.ask(live("on")).await.expect("awake");
            let mut watch = actor.watch().await.expect("watched");
            tokio::time::sleep(Duration::from_secs(300)).await;
            actor.ask(live("on")).await.expect("it fell asleep and woke, and that is no end");
            actor.ask(live("stop")).await.expect("answered");
            assert_eq!(watch.next().await, Some(Seen::Terminal(Ended::Stopped)));
            assert_eq!(watch.next().await, None);

            let mut watch = actor.watch().await.expect("watched");
            actor.ask(live("panic")).await.expect_err("it panicked");
            tokio::time::sleep(Duration::from_secs(1)).await;
            actor.ask(live("on")).await.expect("a panic is no end");
            actor.ask(live("panic")).await.expect_err("one too many");
            assert_eq!(watch.next().await, Some(Seen::Terminal(Ended::Failed)));
        }
    });
}

#[test]
fn a_link_that_is_lost_is_not_an_end_and_an_end_meanwhile_is_told_afterwards() {
    run(async {
        let mesh = mesh().await;
        let actor = watched(&mesh, "eu");
        actor.ask(live("on")).await.expect("awake");
        let mut watch = actor.watch().await.expect("watched");
        // The question that waits for the end is under way when the link is lost.
        tokio::time::sleep(Duration::from_secs(1)).await;
        mesh.cut("us", "eu");
        assert_eq!(watch.next().await, Some(Seen::Unreachable));
        mesh.heal("us", "eu");
        assert_eq!(watch.next().await, Some(Seen::Reachable));

        tokio::time::sleep(Duration::from_secs(1)).await;
        mesh.cut("us", "eu");
        assert_eq!(watch.next().await, Some(Seen::Unreachable));
        let near = mesh.at("eu").actor_in::<Watched>(&"eu".parse().expect("a region"), "a");
        near.ask(live("stop")).await.expect("answered");
        mesh.heal("us", "eu");
        assert_eq!(watch.next().await, Some(Seen::Terminal(Ended::Stopped)));
    });
}

#[test]
fn two_programs_of_one_name_see_each_the_end_of_their_own_actor() {
    run(async {
        let mesh = mesh().await;
        let clients = ["a", "b"].map(|key| (mesh.client("us", "shop"), key));
        let mut watches = Vec::new();
        for (client, key) in &clients {
            let actor = client.actor_in::<Watched>(&"eu".parse().expect("a region"), key);
            actor.ask(live("on")).await.expect("awake");
            watches.push(actor.watch().await.expect("watched"));
        }
        let b = mesh.at("eu").actor_in::<Watched>(&"eu".parse().expect("a region"), "b");
        b.ask(live("stop")).await.expect("answered");
        assert_eq!(watches[1].next().await, Some(Seen::Terminal(Ended::Stopped)));
        let nothing = tokio::time::timeout(Duration::from_secs(60), watches[0].next()).await;
        assert!(nothing.is_err(), "the other lives: {nothing:?}");
    });
}
