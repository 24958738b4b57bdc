//! A counter that is the only one of its mesh, in three regions as processes: its node is killed, and frozen and thawed, and it
//! counts on elsewhere, under a higher epoch, and loses nothing that it has said was counted.

#![expect(clippy::disallowed_methods, reason = "how long real processes take is told in real time")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rhumb::client::MeshClient;
use rhumb::mesh::{Because, MeshAddr, Owned};
use rhumb_core::{Delivery, Fault, NodeId};
use rhumb_tests::cluster::{FoundedMesh, REGIONS, Serving, eventually, eventually_or, turn};
use rhumb_tests::counter::{Add, Counted, Counters, KEYSPACE, NotCounted, Who, directory};
use tokio::runtime::Runtime;

/// Three nodes, and what is known of the counter.
struct Story {
    mesh: FoundedMesh,
    nodes: Vec<Option<Serving>>,
    runtime: Runtime,
    client: Arc<MeshClient>,
    /// The last that was said to be counted.
    last: Counted,
    /// What may have been counted besides.
    unknown: u64,
}

fn number(node: &NodeId) -> usize {
    REGIONS.iter().position(|region| *region == node.region.as_str()).expect("one of them")
}

impl Story {
    fn begin() -> Self {
        let mesh = FoundedMesh::of(3);
        let nodes = (0..3).map(|node| Some(serve(&mesh, node))).collect();
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(async { client(&mesh, &[0, 1, 2]) });
        let last = Counted { count: 0, epoch: 0, node: "us-east/n1".parse().expect("a node") };
        let mut story = Self { mesh, nodes, runtime, client, last, unknown: 0 };
        story.nodes.iter_mut().flatten().for_each(Serving::wait_ready);
        let create = ["keyspace", "create", KEYSPACE, "--class", "inventory", "--replication", "3"];
        eventually("there is a keyspace", || story.mesh.ask("operator", &create).code == 0);
        story
    }

    /// Adds one, as often as it takes; says how long that was.
    fn counts(&mut self, what: &str) -> Duration {
        let (client, begun) = (Arc::clone(&self.client), Instant::now());
        let counter: MeshAddr<Counters> = client.mesh().singleton();
        eventually_or(what, || match self.runtime.block_on(async { counter.ask(Add {}).await }) {
            Ok(Ok(counted)) => {
                self.counted(counted);
                Ok(())
            }
            answer => {
                self.missed(&answer);
                Err(format!("{answer:?}"))
            }
        });
        begun.elapsed()
    }

    fn missed(&mut self, answer: &Result<Result<Counted, NotCounted>, Fault>) {
        let unknown = match answer {
            Ok(Err(NotCounted::Unknown(_))) => true,
            Err(fault) => fault.delivery() == Delivery::Unknown,
            Ok(_) => false,
        };
        self.unknown += u64::from(unknown);
    }

    /// Each count is said once, and none is lost that was.
    fn counted(&mut self, now: Counted) {
        let before = &self.last;
        let most = before.count + self.unknown + 1;
        assert!(
            (before.count + 1..=most).contains(&now.count),
            "{now:?} after {before:?}, {} unknown",
            self.unknown
        );
        let rises = now.epoch > before.epoch || now.epoch == before.epoch && now.node == before.node;
        assert!(rises || before.count == 0, "{now:?} after {before:?}");
        (self.last, self.unknown) = (now, 0);
    }
}

fn addresses(mesh: &FoundedMesh, nodes: &[usize]) -> String {
    nodes.iter().map(|node| mesh.address(*node)).collect::<Vec<_>>().join(",")
}

fn serve(mesh: &FoundedMesh, node: usize) -> Serving {
    mesh.serve_with(Path::new(env!("CARGO_BIN_EXE_counter_node")), node, &[])
}

/// A program that knows these nodes.
fn client(mesh: &FoundedMesh, nodes: &[usize]) -> Arc<MeshClient> {
    let identity = mesh.directory().join(format!("mesh/clients/{}-app", REGIONS[nodes[0]]));
    let client = MeshClient::new(&identity, directory(&addresses(mesh, nodes)));
    Arc::new(client.expect("a client's certificate"))
}

/// What is seen of whose the counter is, from a program.
fn watched(story: &Story) -> Arc<Mutex<Vec<Owned>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (client, told) = (Arc::clone(&story.client), Arc::clone(&seen));
    story.runtime.spawn(async move {
        let mut watch = client.mesh().singleton::<Counters>().watch_owner().expect("it is in a mesh");
        loop {
            match watch.next().await {
                Ok(Some(owned)) => told.lock().expect("no panic").push(owned),
                Ok(None) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    seen
}

#[test]
fn the_only_counter_counts_on_elsewhere_when_its_node_is_killed_and_moves_back() {
    let _turn = turn();
    let mut story = Story::begin();
    for _ in 0..3 {
        story.counts("it counts");
    }
    let first = story.last.clone();
    let seen = watched(&story);
    eventually("the watcher sees it", || seen.lock().expect("no panic").iter().any(|o| o.node.is_some()));

    let killed = number(&first.node);
    drop(story.nodes[killed].take());
    let took = story.counts("it counts elsewhere");
    println!("counted elsewhere {took:?} after its node was killed");
    let second = story.last.clone();
    assert!(second.node != first.node && second.epoch > first.epoch, "{second:?} after {first:?}");
    // A node that has not read the fences yet says so first.
    let named = seen.lock().expect("no panic").iter().find_map(|owned| owned.node.clone());
    assert_eq!(named.as_ref(), Some(&first.node));
    eventually("the watcher sees nobody, then the other one, and why", || {
        let seen = seen.lock().expect("no panic");
        let nobody = seen.iter().position(|owned| owned.because == Because::Fenced(first.node.clone()));
        let follows = seen.iter().position(|owned| owned.node.as_ref() == Some(&second.node));
        let why = follows.map(|at| seen[at].because.clone());
        nobody < follows && nobody.is_some() && why == Some(Because::InPlaceOf(first.node.clone()))
    });

    story.nodes[killed] = Some(serve(&story.mesh, killed));
    eventually("it is back where it was first", || {
        story.counts("it counts meanwhile");
        story.last.node == first.node
    });
    let third = story.last.clone();
    assert!(third.epoch > second.epoch, "{third:?} after {second:?}");
}

#[test]
fn a_counter_whose_node_was_frozen_answers_nothing_as_its_owner_when_it_goes_on() {
    let _turn = turn();
    let mut story = Story::begin();
    story.counts("it counts");
    let first = story.last.clone();
    let frozen = number(&first.node);
    let stopped = story.nodes[frozen].take().expect("it runs");
    stopped.signal("STOP");
    let took = story.counts("it counts elsewhere");
    println!("counted elsewhere {took:?} after its node was stopped");
    let second = story.last.clone();
    assert!(second.node != first.node && second.epoch > first.epoch, "{second:?} after {first:?}");

    // A program that knows only the thawed one asks it what it believes.
    let there = story.runtime.block_on(async { client(&story.mesh, &[frozen]) });
    stopped.signal("CONT");
    story.nodes[frozen] = Some(stopped);
    let (mut answers, mut refused) = (Vec::new(), 0);
    eventually("it acts again", || {
        let counter: MeshAddr<Counters> = there.mesh().singleton();
        match story.runtime.block_on(async { counter.ask(Who {}).await }) {
            Ok((node, epoch)) => answers.push((node, epoch)),
            Err(_) => refused += 1,
        }
        story.counts("it counts meanwhile");
        story.last.node == first.node
    });
    for (node, epoch) in &answers {
        assert!(*node != first.node || *epoch > second.epoch, "{node} under {epoch}, after {second:?}");
    }
    println!("{} answers and {refused} refusals until it acted again", answers.len());
    assert!(story.last.epoch > second.epoch, "{:?} after {second:?}", story.last);
}
