//! Rhumb's actors in a real node: `bench-node` hosts them, and a program outside asks the [`Measurer`]
//! what to measure. The call under which it measures has a deadline, a class and a chain, so what it asks
//! meanwhile carries all of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::channel::oneshot;
use rhumb::host::call;
use rhumb::prelude::*;
use rhumb::supervisor::Builder;

use super::drive::{self, Crowd, Other, RUN, Sleepers};
use super::gate::Gate;
use super::{Local, Measured, Order};

static GATE: Gate = Gate::new();
/// The backlog and what is asked behind it.
const BACKLOG: usize = 2_000_000;
/// Longer than anything that is measured.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many keys are tried for an actor on the thread that is wanted.
const KEYS: u64 = 64;

/// Measure something; the order and what comes of it are JSON.
#[remote(name = "bench.Measure", class = "inventory", reply = Result<String, String>)]
pub struct Measure {
    /// An [`Order`].
    pub order: String,
}

/// Answered with the next number.
#[remote(name = "bench.Ask", class = "inventory", reply = u64)]
pub struct Ask {
    /// The number.
    pub number: u64,
}

/// Counted.
#[remote(name = "bench.Tell", class = "inventory", reply = ())]
pub struct Told {
    /// Not looked at.
    pub number: u64,
}

/// Answered with how many were told.
#[remote(name = "bench.Handled", class = "inventory", reply = u64)]
pub struct Handled;

/// Answered with a number that is the thread's.
#[remote(name = "bench.Where", class = "inventory", reply = u64)]
pub struct Where;

/// Counted, after a microsecond of work.
#[remote(name = "bench.Work", class = "inventory", reply = ())]
pub struct Work;

/// Stops the arbiter until the gate is opened.
#[remote(name = "bench.Block", class = "inventory", reply = ())]
pub struct Block;

protocol! {
    /// Measures what is within its node.
    pub Measurers = "bench.measurer", class "inventory": Measure;
}
protocol! {
    /// Are asked and told.
    pub Counters = "bench.counter", class "inventory": Ask, Told, Handled, Where;
}
protocol! {
    /// Have a backlog.
    pub Hogs = "bench.hog", class "inventory": Work, Handled, Where, Block;
}

struct Measurer;

#[derive(Default)]
struct Counter {
    handled: u64,
}

#[derive(Default)]
struct Hog {
    handled: u64,
}

#[remote_actor(serves = Measurers)]
impl Actor for Measurer {
    type Context = Context<Self>;
}

#[remote_actor(serves = Counters, mailbox = 8192)]
impl Actor for Counter {
    type Context = Context<Self>;
}

#[remote_actor(serves = Hogs)]
impl Actor for Hog {
    type Context = Context<Self>;
}

impl Handler<Ask> for Counter {
    type Result = Reply<u64>;

    fn handle(&mut self, ask: Ask, _: &mut Context<Self>) -> Reply<u64> {
        Reply::ready(ask.number + 1)
    }
}

impl Handler<Told> for Counter {
    type Result = ();

    fn handle(&mut self, told: Told, _: &mut Context<Self>) {
        self.handled += 1;
        std::hint::black_box(told.number);
    }
}

impl Handler<Work> for Hog {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Context<Self>) {
        self.handled += 1;
        drive::work();
    }
}

macro_rules! counts {
    ($($actor:ident),*) => { $(
        impl Handler<Handled> for $actor {
            type Result = Reply<u64>;

            fn handle(&mut self, _: Handled, _: &mut Context<Self>) -> Reply<u64> {
                Reply::ready(self.handled)
            }
        }

        impl Handler<Where> for $actor {
            type Result = Reply<u64>;

            fn handle(&mut self, _: Where, _: &mut Context<Self>) -> Reply<u64> {
                Reply::ready(thread())
            }
        }
    )* };
}
counts!(Counter, Hog);

impl Handler<Block> for Hog {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut Context<Self>) {
        GATE.pass();
    }
}

fn thread() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::thread::current().id().hash(&mut hasher);
    hasher.finish()
}

impl Handler<Measure> for Measurer {
    type Result = Reply<Result<String, String>>;

    fn handle(&mut self, measure: Measure, _: &mut Context<Self>) -> Self::Result {
        Reply::later(async move {
            let measured = async {
                let order = serde_json::from_str(&measure.order)?;
                anyhow::Ok(serde_json::to_string(&self::measure(order).await?)?)
            };
            measured.await.map_err(|error| format!("{error:#}"))
        })
    }
}

/// Adds all that is measured to a node.
#[must_use]
pub fn hosted(node: Builder) -> Builder {
    node.host(Host::new(|_: &Activation| Measurer))
        .host(Host::new(|_: &Activation| Counter::default()))
        .host(Host::new(|_: &Activation| Hog::default()).mailbox(BACKLOG))
}

async fn measure(order: Order) -> anyhow::Result<Measured> {
    let mesh = call().ok_or_else(|| anyhow::anyhow!("no call is under way"))?.mesh().clone();
    match order {
        Order::Local(order) => local(&mesh, order).await,
        Order::Neighbour { backlog } => {
            // From a thread of its own: every arbiter may stand still.
            elsewhere(async move {
                let two = Two::find(&mesh).await?;
                drive::neighbour(&two, &GATE, backlog).await
            })
            .await
        }
        Order::Idle { actors, probes } => {
            elsewhere(async move { drive::idle(&mut Many(mesh), actors, probes).await }).await
        }
        _ => anyhow::bail!("that is measured without a node"),
    }
}

/// Runs a future on a thread of its own, as a program would that embeds the node.
async fn elsewhere<F>(measuring: F) -> anyhow::Result<Measured>
where
    F: Future<Output = anyhow::Result<Measured>> + Send + 'static,
{
    let (done, measured) = oneshot::channel();
    std::thread::Builder::new().name("bench-measure".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        done.send(runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(measuring))).ok();
    })?;
    measured.await?
}

struct Addressed(MeshAddr<Counters>);

impl Other for Addressed {
    async fn ask(&self, number: u64) -> anyhow::Result<u64> {
        Ok(self.0.ask(Ask { number }).await?)
    }

    async fn tell(&self, number: u64) -> anyhow::Result<()> {
        Ok(self.0.tell(Told { number }).await?)
    }
}

/// This runs on the measurer's arbiter: the other actor is one that is there too, or not.
async fn local(mesh: &Mesh, order: Local) -> anyhow::Result<Measured> {
    let here = thread();
    for key in 0..KEYS {
        let other = mesh.actor::<Counters>(format!("local-{key}"));
        if (other.ask(Where).await? != here) == order.across {
            return Ok(Measured::of(drive::local(&Addressed(other), order).await));
        }
    }
    anyhow::bail!("no actor was found there: does this machine have one core only?")
}

/// An actor with a backlog, and one on its arbiter.
struct Two {
    hog: MeshAddr<Hogs>,
    neighbour: MeshAddr<Counters>,
}

impl Two {
    async fn find(mesh: &Mesh) -> anyhow::Result<Self> {
        let hog = mesh.actor::<Hogs>("hog");
        let there = hog.ask(Where).await?;
        for key in 0..KEYS {
            let neighbour = mesh.actor::<Counters>(format!("neighbour-{key}"));
            if neighbour.ask(Where).await? == there {
                return Ok(Self { hog, neighbour });
            }
        }
        anyhow::bail!("no neighbour was found")
    }
}

impl Crowd for Two {
    async fn block(&self) -> anyhow::Result<()> {
        Ok(self.hog.tell(Block).await?)
    }

    async fn pile(&self) -> anyhow::Result<()> {
        Ok(self.hog.tell(Work).await?)
    }

    async fn handled(&self) -> anyhow::Result<u64> {
        Ok(self.hog.ask(Handled).within(PATIENCE).await?)
    }

    async fn neighbour(&self) -> anyhow::Result<u64> {
        Ok(self.neighbour.ask(Ask { number: 0 }).within(PATIENCE).await?)
    }
}

/// Actors by key.
struct Many(Mesh);

impl Many {
    async fn one(&self, number: u64) -> anyhow::Result<()> {
        self.0.actor::<Counters>(format!("idle-{number}")).ask(Ask { number }).await?;
        Ok(())
    }
}

impl Sleepers for Many {
    async fn rouse(&mut self, number: u64) -> anyhow::Result<()> {
        self.one(number).await
    }

    async fn rouse_all(&mut self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        for number in numbers.clone().step_by(RUN) {
            let upto = (number + RUN as u64).min(numbers.end);
            futures::future::try_join_all((number..upto).map(|number| self.one(number))).await?;
        }
        Ok(())
    }
}
