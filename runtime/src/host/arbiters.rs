//! The threads on which actors run, and what they are busy with.
//!
//! * It decides: on which arbiter a key lives (always the same; that of the links where its type says
//!   so), and when one has been busy with one
//!   message for so long that its other actors starve.
//! * It never does: interrupt a handler.
//! * Invariant: an actor runs on one arbiter for its whole life.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How often it is looked whether an arbiter still works on the same message.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A kind of message at a kind of actor, as it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The actor's type.
    pub actor: &'static str,
    /// The message's name.
    pub message: &'static str,
}

/// A [`Work`] in the process's list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    number: u64,
}

/// All kinds of work that actors of this process were ever hosted for: as many as types and messages.
static LIST: Mutex<Vec<Work>> = Mutex::new(Vec::new());

impl Listed {
    /// The message's name.
    pub(crate) fn message(self) -> &'static str {
        Work::at(self.number).map_or("a message", |work| work.message)
    }
}

impl Work {
    /// Its place in the list, so that a gauge needs one number.
    pub(crate) fn list(self) -> Listed {
        let mut list = LIST.lock();
        let known = list.iter().position(|work| *work == self);
        let number = known.unwrap_or_else(|| {
            list.push(self);
            list.len() - 1
        });
        Listed { number: number as u64 + 1 }
    }

    fn listed(number: u64) -> String {
        Self::at(number).map_or_else(|| "nothing known".to_owned(), |work| work.to_string())
    }

    fn at(number: u64) -> Option<Self> {
        let place = number.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| LIST.lock().get(place).copied())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in actor {}", self.message, self.actor)
    }
}

/// Work within work that is told apart: an actor's turn, a message in it, its answer in that.
const DEEPEST: usize = 4;

/// What an arbiter does now. Written by the arbiter, read by whoever watches: a few stores a message.
#[derive(Debug)]
pub(crate) struct Gauge {
    name: String,
    /// Odd while there is work; rises whenever some begins or ends, also within other work.
    turn: AtomicU64,
    depth: AtomicUsize,
    works: [AtomicU64; DEEPEST],
}

impl Gauge {
    fn new(name: String) -> Self {
        let (turn, depth) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { name, turn, depth, works: [const { AtomicU64::new(0) }; DEEPEST] }
    }

    pub(crate) fn begin(&self, work: Listed) {
        let depth = self.depth.load(Ordering::Relaxed);
        self.works[depth.min(DEEPEST - 1)].store(work.number, Ordering::Relaxed);
        self.depth.store(depth + 1, Ordering::Relaxed);
        self.turns(if depth == 0 { 1 } else { 2 });
    }

    pub(crate) fn end(&self) {
        let depth = self.depth.load(Ordering::Relaxed).saturating_sub(1);
        self.depth.store(depth, Ordering::Relaxed);
        self.turns(if depth == 0 { 1 } else { 2 });
    }

    /// No addition that others wait for: only the arbiter writes.
    fn turns(&self, by: u64) {
        self.turn.store(self.turn.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
    }

    /// The innermost work that is under way, or the last.
    fn work(&self) -> u64 {
        let depth = self.depth.load(Ordering::Relaxed);
        self.works[depth.saturating_sub(1).min(DEEPEST - 1)].load(Ordering::Relaxed)
    }
}

/// An arbiter that was, or is, busy with one message for longer than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The arbiter.
    pub arbiter: String,
    /// What it works on: the message and the actor's type.
    pub work: String,
    /// For how long at least.
    pub lasting: Duration,
}

/// One arbiter.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) handle: ArbiterHandle,
    pub(crate) gauge: Arc<Gauge>,
}

/// The arbiters of a node.
pub(crate) struct Arbiters {
    workers: Vec<Worker>,
    links: Option<Worker>,
    ranges: Option<ArbiterHandle>,
    system: Option<System>,
    watching: Arc<AtomicBool>,
    blocked: Arc<Mutex<Vec<Blocked>>>,
    times_blocked: Arc<AtomicU64>,
}

impl Arbiters {
    /// This many threads under an actix system of their own, so that it works from any program.
    pub(crate) async fn threads(count: usize, blocked_after: Duration) -> anyhow::Result<Self> {
        let (started, ready) = oneshot::channel();
        thread::Builder::new().name("rhumb-actors".into()).spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let handles: Vec<_> = (0..count.max(1)).map(|_| Arbiter::new().handle()).collect();
                let others = [(); 2].map(|()| Arbiter::new().handle());
                started.send((handles, others, System::current())).ok();
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actors' system ended");
            }
        })?;
        let (handles, [links, ranges], system) = ready.await?;
        let links = Worker { handle: links, gauge: Arc::new(Gauge::new("links".to_owned())) };
        Ok(Self::of(handles, Some((links, ranges)), Some(system), blocked_after))
    }

    /// The arbiter of the actix system in which this is called: one thread for everything, so that a
    /// test is in charge of its time.
    pub(crate) fn here(blocked_after: Duration) -> anyhow::Result<Self> {
        let system = System::try_current()
            .ok_or_else(|| anyhow::anyhow!("no actix system runs here: use rhumb::testing::run"))?;
        Ok(Self::of(vec![system.arbiter().clone()], None, None, blocked_after))
    }

    fn of(
        handles: Vec<ArbiterHandle>,
        others: Option<(Worker, ArbiterHandle)>,
        system: Option<System>,
        blocked_after: Duration,
    ) -> Self {
        let named =
            |(number, handle)| Worker { handle, gauge: Arc::new(Gauge::new(format!("arbiter-{number}"))) };
        let workers: Vec<_> = handles.into_iter().enumerate().map(named).collect();
        let (links, ranges) = others.unzip();
        let arbiters = Self {
            workers,
            links,
            ranges,
            system,
            watching: Arc::new(AtomicBool::new(true)),
            blocked: Arc::default(),
            times_blocked: Arc::default(),
        };
        arbiters.watch(blocked_after);
        arbiters
    }

    /// The arbiter of a key.
    pub(crate) fn of_key(&self, hash: u64) -> &Worker {
        &self.workers[(hash % self.workers.len() as u64) as usize]
    }

    /// The arbiter on whose thread the node's links are. Where they are on none, it is the first.
    pub(crate) fn of_links(&self) -> &Worker {
        self.links.as_ref().unwrap_or(&self.workers[0])
    }

    /// The arbiter on whose thread the node's ranges are. Where they have none, it is the first.
    #[cfg(feature = "rocks")]
    pub(crate) fn of_ranges(&self) -> &ArbiterHandle {
        self.ranges.as_ref().unwrap_or(&self.workers[0].handle)
    }

    /// All threads, by name.
    #[cfg(feature = "rocks")]
    pub(crate) fn handles(&self) -> Vec<(String, ArbiterHandle)> {
        let named = |worker: &Worker| (worker.gauge.name.clone(), worker.handle.clone());
        let ranges = self.ranges.iter().map(|handle| ("ranges".to_owned(), handle.clone()));
        self.workers.iter().chain(&self.links).map(named).chain(ranges).collect()
    }

    /// Arbiters that work on one message for too long, now.
    pub(crate) fn blocked(&self) -> Vec<Blocked> {
        self.blocked.lock().clone()
    }

    /// How often an arbiter was found blocked, since the start.
    pub(crate) fn times_blocked(&self) -> u64 {
        self.times_blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.watching.store(false, Ordering::Relaxed);
        if let Some(system) = &self.system {
            system.stop();
        }
    }

    /// A thread that looks at the gauges. It cannot be an actor: it must see an arbiter that is stuck.
    #[expect(clippy::disallowed_methods, reason = "it watches real threads in real time")]
    fn watch(&self, after: Duration) {
        let workers = self.workers.iter().chain(&self.links);
        let gauges: Vec<_> = workers.map(|worker| Arc::clone(&worker.gauge)).collect();
        let (watching, blocked) = (Arc::clone(&self.watching), Arc::clone(&self.blocked));
        let times = Arc::clone(&self.times_blocked);
        let watch = move || {
            let mut looks: Vec<Look> = gauges.iter().map(|_| Look::default()).collect();
            while watching.load(Ordering::Relaxed) {
                let works = |gauge: &Arc<Gauge>| !gauge.turn.load(Ordering::Acquire).is_multiple_of(2);
                // Where nobody works it is looked less often.
                thread::sleep(if gauges.iter().any(works) { LOOK_EVERY } else { LOOK_EVERY * 4 });
                let mut now = Vec::new();
                for (gauge, look) in gauges.iter().zip(&mut looks) {
                    now.extend(look.at(gauge, after, &times));
                }
                *blocked.lock() = now;
            }
        };
        if let Err(error) = thread::Builder::new().name("rhumb-watch".into()).spawn(watch) {
            tracing::error!(%error, "nobody watches for blocked arbiters");
        }
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What was seen of one arbiter.
#[derive(Default)]
struct Look {
    turn: u64,
    seen: u32,
    reported: bool,
}

impl Look {
    fn at(&mut self, gauge: &Gauge, after: Duration, times: &AtomicU64) -> Option<Blocked> {
        let turn = gauge.turn.load(Ordering::Acquire);
        if turn != self.turn || turn.is_multiple_of(2) {
            if self.reported {
                let lasted = LOOK_EVERY * self.seen;
                tracing::warn!(arbiter = gauge.name, ?lasted, "the arbiter goes on");
            }
            *self = Self { turn, ..Self::default() };
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        let lasting = LOOK_EVERY * self.seen;
        if lasting < after {
            return None;
        }
        let work = Work::listed(gauge.work());
        if !self.reported {
            self.reported = true;
            times.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                arbiter = gauge.name,
                work,
                ?lasting,
                "an arbiter is blocked: all its other actors wait; move long work off it"
            );
        }
        Some(Blocked { arbiter: gauge.name.clone(), work, lasting })
    }
}
