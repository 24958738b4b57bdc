//! The watchdog's thread, and the beats that it looks at.
//!
//! * It decides nothing: [`Watchdog`] does.
//! * It never does: wait for anything that it watches. What is told (the log, the crash record) is told
//!   by another thread, for a log that is stuck must not stop the watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix::ArbiterHandle;
use parking_lot::Mutex;
use rhumb_core::Mono;
use rhumb_storage::HotStore;
use tokio::task::AbortHandle;

use super::life::Life;
use super::notify;
use super::watchdog::{Notice, Part, Sign, Standstill, Verdict, Watchdog};

/// The environment variable that lets the arbiter of this name stall once it has run for a while. Builds
/// for tests hear it, releases do not.
const TEST_STALL: &str = "RHUMB_TEST_STALL";

/// How often the watchdog looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often what is watched gives a sign.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// Notices that wait to be told; more are dropped, for a stuck log must not stop the watch.
const NOTICES: usize = 32;
/// How long the last words of a process may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bounds of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSettings {
    /// A write or sync of the hot store that lasts so long is told.
    pub slow_sync: Duration,
    /// One that lasts so long is stuck.
    pub stuck_sync: Duration,
    /// An event loop that gives no sign for so long is stuck.
    pub stuck_loop: Duration,
    /// When something has been stuck for so long, the process ends.
    pub end_after: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            slow_sync: Duration::from_secs(1),
            stuck_sync: Duration::from_secs(20),
            stuck_loop: Duration::from_secs(5),
            end_after: Duration::from_secs(30),
        }
    }
}

/// What is stuck now, for readiness. Cloneable; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<Option<Standstill>>>);

impl Health {
    /// What is stuck, the longest of all.
    pub(super) fn stuck(&self) -> Option<Standstill> {
        self.0.lock().clone()
    }
}

/// Something to watch: its part, and how its sign is read.
struct Post {
    part: Part,
    sign: Box<dyn Fn() -> u64 + Send>,
}

/// What is to be watched, before the watch begins.
pub(super) struct Rounds {
    settings: WatchSettings,
    watched: Vec<Post>,
    /// What beats for the runtime: it ends with the watch.
    runtime: Option<AbortHandle>,
}

impl Rounds {
    pub(super) fn new(settings: WatchSettings) -> Self {
        Self { settings, watched: Vec::new(), runtime: None }
    }

    /// Watches the tokio runtime in which this is called.
    pub(super) fn runtime(&mut self) {
        let beat = self.event_loop("the tokio runtime");
        self.runtime = Some(tokio::spawn(beating(beat)).abort_handle());
    }

    /// Watches an arbiter's thread.
    pub(super) fn arbiter(&mut self, name: &str, arbiter: &ArbiterHandle) {
        let beat = self.event_loop(name);
        if !arbiter.spawn(beating(beat)) {
            tracing::error!(name, "the arbiter has ended already");
        }
        if cfg!(debug_assertions) && std::env::var(TEST_STALL).is_ok_and(|stalls| stalls == name) {
            arbiter.spawn(stall());
        }
    }

    /// Watches the threads of the hot store.
    pub(super) fn store(&mut self, store: &HotStore) {
        let WatchSettings { slow_sync: late, stuck_sync: stuck, .. } = self.settings;
        let (writing, syncing) = (store.clone(), store.clone());
        let part = |name: &str| Part { name: name.to_owned(), sign: Sign::Turn, late, stuck };
        self.watched.push(Post {
            part: part("a write of the hot store"),
            sign: Box::new(move || writing.turns().write),
        });
        self.watched.push(Post {
            part: part("a sync of the hot store"),
            sign: Box::new(move || syncing.turns().sync),
        });
    }

    fn event_loop(&mut self, name: &str) -> Arc<AtomicU64> {
        let stuck = self.settings.stuck_loop;
        let part = Part { name: name.to_owned(), sign: Sign::Beat, late: stuck / 2, stuck };
        let beat = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&beat);
        self.watched.push(Post { part, sign: Box::new(move || read.load(Ordering::Relaxed)) });
        beat
    }

    /// Begins the watch.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn begin(self, health: Health, life: Life) -> anyhow::Result<Pulse> {
        let (tell, told) = sync_channel(NOTICES);
        thread::Builder::new().name("rhumb-tell".into()).spawn(move || teller(&told, &life))?;
        let (end, ended) = sync_channel(0);
        let runtime = self.runtime.clone();
        let watchman = Watchman { watch: self, health, tell, ended };
        let thread = thread::Builder::new().name("rhumb-watchdog".into()).spawn(move || watchman.run())?;
        Ok(Pulse { end: Some(end), thread: Some(thread), runtime })
    }
}

/// The running watch. It ends when this is dropped.
pub(super) struct Pulse {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    runtime: Option<AbortHandle>,
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.end.take());
        self.runtime.iter().for_each(AbortHandle::abort);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the watchdog panicked");
        }
    }
}

struct Watchman {
    watch: Rounds,
    health: Health,
    tell: SyncSender<Tell>,
    /// Closed when the watch is over.
    ended: Receiver<()>,
}

/// What another thread tells.
enum Tell {
    Notice(Notice),
    /// The process ends; answers when that is told.
    End(String, SyncSender<()>),
}

impl Watchman {
    #[expect(clippy::disallowed_methods, reason = "it watches real threads in real time")]
    fn run(self) {
        let parts = self.watch.watched.iter().map(|watched| watched.part.clone()).collect();
        let mut watchdog = Watchdog::new(parts, LOOK_EVERY, self.watch.settings.end_after);
        let (begun, mut notices) = (Instant::now(), Vec::new());
        // The service manager hears it four times as often as it must: from the last time on the watch has
        // three quarters of what it waits, to end the process and say why.
        let alive_every = notify::wants_alive().map(|wanted| wanted / 4);
        let mut alive: Option<Duration> = None;
        while self.ended.recv_timeout(LOOK_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let now = begun.elapsed();
            let signs: Vec<u64> = self.watch.watched.iter().map(|watched| (watched.sign)()).collect();
            let verdict = watchdog.look(Mono(now), &signs, &mut notices);
            for notice in notices.drain(..) {
                // A full queue: the log is stuck, and these notices with it.
                self.tell.try_send(Tell::Notice(notice)).ok();
            }
            if verdict == Verdict::Content
                && alive_every.is_some_and(|every| alive.is_none_or(|last| now - last >= every))
            {
                alive = Some(now);
                notify::alive();
            }
            self.judge(verdict);
        }
    }

    fn judge(&self, verdict: Verdict) {
        *self.health.0.lock() = match verdict {
            Verdict::Content => None,
            Verdict::Stuck(standstill) => Some(standstill),
            Verdict::End(standstill) => self.end(&standstill),
        };
    }

    /// Ends the process: at once, without the destructors that might wait for what is stuck.
    fn end(&self, standstill: &Standstill) -> ! {
        let (told, done) = sync_channel(1);
        if self.tell.try_send(Tell::End(format!("watchdog: {standstill}"), told)).is_ok() {
            done.recv_timeout(LAST_WORDS).ok();
        }
        std::process::abort()
    }
}

/// Tells what the watchdog saw, until the watch is over.
fn teller(told: &Receiver<Tell>, life: &Life) {
    while let Ok(tell) = told.recv() {
        match tell {
            Tell::Notice(Notice::Late(still)) => tracing::warn!(%still, "a part of this node is slow"),
            Tell::Notice(Notice::Stuck(still)) => {
                tracing::error!(%still, "a part of this node is stuck: it is not ready");
                notify::status_until_stop(&format!("stuck: {still}"));
            }
            Tell::Notice(Notice::GoesOn(Standstill { part, lasting })) => {
                tracing::warn!(part, lasted = ?lasting, "a part of this node goes on");
                // Until the next look at readiness says how the node stands.
                notify::status_until_stop(&format!("goes on after {lasting:.1?}: {part}"));
            }
            Tell::End(reason, done) => {
                tracing::error!(%reason, "the process ends at once");
                // Last, for it writes to the disk that may be what is stuck.
                life.failed(&reason);
                // The watchdog may have waited long enough.
                done.try_send(()).ok();
            }
        }
    }
}

/// Gives a sign, again and again.
async fn beating(beat: Arc<AtomicU64>) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        beat.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps its thread for ever, after a while in which the node becomes ready.
#[expect(clippy::disallowed_methods, reason = "it stalls a real thread, in a test")]
async fn stall() {
    tokio::time::sleep(Duration::from_secs(2)).await;
    tracing::warn!("stalls, as the test wants it");
    thread::sleep(Duration::from_secs(3_600));
}
