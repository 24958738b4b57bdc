//! One busy actor does not starve its neighbours, and one that blocks its arbiter is named. (Bare
//! actix: a neighbour waited for a whole backlog of half a million.)

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rhumb::host::pump::BUDGET;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.Log", class = "control", reply = ())]
struct Log;

#[remote(name = "test.Block", class = "control", reply = ())]
struct Block {
    ms: u64,
}

struct Logger {
    name: String,
    log: Arc<Mutex<Vec<String>>>,
}

#[remote_actor(name = "test.logger", class = "control", accepts(Log, Block), mailbox = 100_000)]
impl Actor for Logger {
    type Context = Context<Self>;
}

impl Handler<Log> for Logger {
    type Result = ();

    fn handle(&mut self, _: Log, _: &mut Context<Self>) {
        self.log.lock().expect("no panic").push(self.name.clone());
    }
}

impl Handler<Block> for Logger {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "to block the arbiter is what is tested")]
    fn handle(&mut self, block: Block, _: &mut Context<Self>) {
        std::thread::sleep(Duration::from_millis(block.ms));
    }
}

fn host(log: &Arc<Mutex<Vec<String>>>) -> Host<Logger> {
    let log = Arc::clone(log);
    Host::new(move |at: &Activation| Logger { name: at.key().to_owned(), log: Arc::clone(&log) })
}

#[test]
fn at_most_the_budget_of_a_backlog_runs_before_a_neighbours_message() {
    run(async {
        let log = Arc::default();
        let mesh = TestMesh::of(["us"]).host(host(&log)).start().await.expect("starts");
        let (busy, neighbour) =
            (mesh.at("us").actor::<Logger>("busy"), mesh.at("us").actor::<Logger>("neighbour"));
        neighbour.ask(Log).await.expect("it is awake");
        busy.ask(Log).await.expect("it is awake");
        log.lock().expect("no panic").clear();
        for _ in 0..20_000 {
            busy.tell(Log).await.expect("there is room");
        }
        let already = log.lock().expect("no panic").len();
        neighbour.ask(Log).await.expect("answered");
        let log = log.lock().expect("no panic");
        let before = log.iter().position(|name| name == "neighbour").expect("it ran") - already;
        assert!(before <= 2 * BUDGET, "{before} of the backlog ran first");
        assert!(log.len() < 20_000, "the backlog is not done");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arbiter_that_is_blocked_is_reported_by_name() {
    let log = Arc::default();
    let mesh = TestMesh::of(["us"]).host(host(&log)).start().await.expect("starts");
    let at = mesh.at("us").clone();
    let hosts = at.hosted().expect("it hosts");
    assert_eq!(hosts.blocked(), []);
    let blocks = tokio::spawn(async move { at.actor::<Logger>("a").ask(Block { ms: 1_000 }).await });
    let named = async {
        loop {
            if let Some(blocked) = hosts.blocked().pop() {
                return blocked;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let blocked = tokio::time::timeout(Duration::from_secs(30), named).await.expect("it is seen");
    assert_eq!(blocked.work, "test.Block in actor test.logger");
    assert!(blocked.arbiter.starts_with("arbiter-"), "{blocked:?}");
    blocks.await.expect("no panic").expect("answered");
    let over = async {
        while !hosts.blocked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.expect("it goes on");
    assert_eq!(hosts.times_blocked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_beside_the_links_runs_on_their_arbiter_and_is_named_when_it_blocks_it() {
    let mesh = TestMesh::of(["us"]).host(host(&Arc::default()).beside_links()).start().await.expect("starts");
    let at = mesh.at("us").clone();
    let hosts = at.hosted().expect("it hosts");
    // Whatever their keys are: no other arbiter ever has one of them.
    for key in ["a", "b", "c", "d"] {
        let at = at.clone();
        let blocks = tokio::spawn(async move { at.actor::<Logger>(key).ask(Block { ms: 400 }).await });
        let named = async {
            loop {
                if let Some(blocked) = hosts.blocked().pop() {
                    return blocked;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let blocked = tokio::time::timeout(Duration::from_secs(30), named).await.expect("it is seen");
        assert_eq!((&*blocked.arbiter, &*blocked.work), ("links", "test.Block in actor test.logger"));
        blocks.await.expect("no panic").expect("answered");
        let over = async {
            while !hosts.blocked().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), over).await.expect("it goes on");
    }
}

/// Blocks its arbiter as it starts.
struct SlowStarter;

#[remote_actor(name = "test.slow-starter", class = "control", accepts(Log))]
impl Actor for SlowStarter {
    type Context = Context<Self>;

    #[expect(clippy::disallowed_methods, reason = "to block the arbiter is what is tested")]
    fn started(&mut self, _: &mut Context<Self>) {
        std::thread::sleep(Duration::from_millis(1_000));
    }
}

impl Handler<Log> for SlowStarter {
    type Result = ();

    fn handle(&mut self, _: Log, _: &mut Context<Self>) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arbiter_that_a_hook_blocks_is_reported_by_name() {
    let starters = Host::new(|_: &Activation| SlowStarter);
    let mesh = TestMesh::of(["us"]).host(starters).start().await.expect("starts");
    let at = mesh.at("us").clone();
    let hosts = at.hosted().expect("it hosts");
    let starts = tokio::spawn(async move { at.actor::<SlowStarter>("a").ask(Log).await });
    let named = async {
        loop {
            if let Some(blocked) = hosts.blocked().pop() {
                return blocked;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let blocked = tokio::time::timeout(Duration::from_secs(30), named).await.expect("it is seen");
    assert_eq!(blocked.work, "a hook (started, stopping, stopped) or a future in actor test.slow-starter");
    starts.await.expect("no panic").expect("answered");
}

#[remote(name = "test.Spawn", class = "control", reply = ())]
struct Spawn;

/// Spawns something on its own context at each message.
struct Spawner(Arc<Mutex<Vec<String>>>);

#[remote_actor(name = "test.spawner", class = "control", accepts(Spawn), mailbox = 100_000)]
impl Actor for Spawner {
    type Context = Context<Self>;
}

impl Handler<Spawn> for Spawner {
    type Result = ();

    fn handle(&mut self, _: Spawn, context: &mut Context<Self>) {
        self.0.lock().expect("no panic").push("spawner".to_owned());
        context.spawn(actix::fut::wrap_future(async {}));
    }
}

#[test]
fn a_handler_that_spawns_on_its_context_has_no_larger_budget() {
    run(async {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let of = Arc::clone(&log);
        let spawners = Host::new(move |_: &_| Spawner(Arc::clone(&of)));
        let mesh = TestMesh::of(["us"]).host(spawners).host(host(&log)).start().await.expect("starts");
        let (busy, neighbour) =
            (mesh.at("us").actor::<Spawner>("a"), mesh.at("us").actor::<Logger>("neighbour"));
        neighbour.ask(Log).await.expect("it is awake");
        busy.ask(Spawn).await.expect("it is awake");
        log.lock().expect("no panic").clear();
        for _ in 0..10_000 {
            busy.tell(Spawn).await.expect("there is room");
        }
        let already = log.lock().expect("no panic").len();
        neighbour.ask(Log).await.expect("answered");
        let log = log.lock().expect("no panic");
        let before = log.iter().position(|name| name == "neighbour").expect("it ran") - already;
        assert!(before <= 2 * BUDGET, "{before} of the backlog ran first");
    });
}
