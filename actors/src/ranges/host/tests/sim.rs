//! A runtime in which a whole mesh runs on one thread, in time that only passes when nobody has anything to do: real openraft
//! runs in it, as do hosts. What one task does to another is decided by the order of wakes, which one seed decides.
//!
//! Each task belongs to somebody: a node's tasks end with it, in the middle of what they do. Whoever stands still is not polled, and
//! what wakes its tasks meanwhile has to wait.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::net::NOBODY;
use super::watch::SimWatch;

/// Who a task belongs to.
pub(super) type Owner = usize;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Ready = Arc<Mutex<VecDeque<u64>>>;

#[derive(Default)]
struct Exec {
    tasks: BTreeMap<u64, Task>,
    timers: BTreeMap<(u64, u64), Waker>,
    made: u64,
    ready: Ready,
    /// Who stands still, and which tasks of it are to be polled when it goes on.
    still: BTreeMap<Owner, Vec<u64>>,
}

thread_local! {
    static EXEC: RefCell<Exec> = RefCell::default();
    static NOW: Cell<u64> = const { Cell::new(0) };
    static OWNER: Cell<Owner> = const { Cell::new(NOBODY) };
    /// Somebody may be stopped in the middle of this step, and somebody has been.
    static STOPPABLE: Cell<bool> = const { Cell::new(false) };
    static STOPPED: Cell<bool> = const { Cell::new(false) };
    static RNG: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    /// What has happened, in one number.
    static TRACE: Cell<u64> = const { Cell::new(0) };
}

struct Woken {
    task: u64,
    ready: Ready,
    is_ready: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            self.ready.lock().push_back(self.task);
        }
    }
}

struct Task {
    owner: Owner,
    work: Option<Work>,
    woken: Arc<Woken>,
}

/// Begins a world: what was before is gone.
pub(super) fn begin(seed: u64) {
    let before = EXEC.with(|exec| std::mem::take(&mut *exec.borrow_mut()));
    drop(before);
    let after = EXEC.with(|exec| std::mem::take(&mut *exec.borrow_mut()));
    drop(after);
    NOW.set(0);
    OWNER.set(NOBODY);
    STOPPABLE.set(false);
    STOPPED.set(false);
    TRACE.set(0xcbf2_9ce4_8422_2325);
    RNG.with(|rng| *rng.borrow_mut() = Some(SmallRng::seed_from_u64(seed)));
}

/// Microseconds since the world began.
pub(super) fn now() -> u64 {
    NOW.get()
}

/// What has happened so far, in one number.
pub(super) fn trace() -> u64 {
    TRACE.get()
}

/// Adds to what has happened.
pub(super) fn note(what: u64) {
    TRACE.set((TRACE.get() ^ what).wrapping_mul(0x0100_0000_01b3));
}

/// Begins a task of somebody.
pub(super) fn spawn_as(owner: Owner, work: impl Future<Output = ()> + Send + 'static) {
    EXEC.with(|exec| {
        let mut exec = exec.borrow_mut();
        exec.made += 1;
        let id = exec.made;
        let woken = Woken { task: id, ready: Arc::clone(&exec.ready), is_ready: AtomicBool::new(false) };
        let woken = Arc::new(woken);
        exec.tasks.insert(id, Task { owner, work: Some(Box::pin(work)), woken: Arc::clone(&woken) });
        woken.wake();
    });
}

/// Nothing of somebody runs from now on, and no timer of it fires: it does not know that.
pub(super) fn stops(owner: Owner) {
    EXEC.with(|exec| _ = exec.borrow_mut().still.entry(owner).or_default());
}

/// Somebody who stood still goes on: all that was due meanwhile is due at once, in whatever order.
pub(super) fn goes_on(owner: Owner) {
    EXEC.with(|exec| {
        let mut exec = exec.borrow_mut();
        let mut due = exec.still.remove(&owner).unwrap_or_default();
        due.shuffle(&mut SimRuntime::thread_rng());
        exec.ready.lock().extend(due);
    });
}

/// Does work in the middle of whose steps whoever does it may be stopped.
pub(super) async fn stoppable<T>(work: impl Future<Output = T> + Send) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        STOPPABLE.set(true);
        let polled = work.as_mut().poll(cx);
        STOPPABLE.set(false);
        polled
    })
    .await
}

/// Whether what runs at this moment can be stopped in the middle of it: one at a time.
pub(super) fn can_stop() -> bool {
    STOPPABLE.get() && !STOPPED.get()
}

/// Who runs at this moment stops in the middle of what it does, and the rest of the world goes on until then.
pub(super) fn stands_still(until: u64) {
    let me = OWNER.get();
    stops(me);
    STOPPED.set(true);
    run_until(until);
    STOPPED.set(false);
    goes_on(me);
    OWNER.set(me);
}

/// Ends all tasks of somebody.
pub(super) fn kill(owner: Owner) {
    let dead: Vec<_> = EXEC.with(|exec| {
        let mut exec = exec.borrow_mut();
        exec.still.remove(&owner);
        let tasks = &mut exec.tasks;
        let ids: Vec<u64> = tasks.iter().filter(|(_, task)| task.owner == owner).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| tasks.remove(&id)).collect()
    });
    drop(dead);
}

/// Lets the world go on until this time.
pub(super) fn run_until(until: u64) {
    let ready = EXEC.with(|exec| Arc::clone(&exec.borrow().ready));
    loop {
        let next = ready.lock().pop_front();
        if let Some(id) = next {
            poll(id);
            continue;
        }
        let due = EXEC.with(|exec| {
            let timers = &mut exec.borrow_mut().timers;
            let first = timers.first_entry().filter(|first| first.key().0 <= until)?;
            Some(first.remove_entry())
        });
        let Some(((when, _), waker)) = due else { break };
        NOW.set(now().max(when));
        waker.wake();
    }
    NOW.set(now().max(until));
}

fn poll(id: u64) {
    let taken = EXEC.with(|exec| {
        let exec = &mut *exec.borrow_mut();
        let task = exec.tasks.get_mut(&id)?;
        if let Some(due) = exec.still.get_mut(&task.owner) {
            due.push(id);
            return None;
        }
        task.woken.is_ready.store(false, Ordering::Relaxed);
        Some((task.owner, task.work.take()?, Arc::clone(&task.woken)))
    });
    let Some((owner, mut work, woken)) = taken else { return };
    note(id.wrapping_mul(31).wrapping_add(now()));
    OWNER.set(owner);
    let waker = Waker::from(woken);
    let done = work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    OWNER.set(NOBODY);
    let dead = EXEC.with(|exec| {
        let mut exec = exec.borrow_mut();
        match exec.tasks.get_mut(&id) {
            Some(task) if !done => {
                task.work = Some(work);
                None
            }
            _ => {
                let task = exec.tasks.remove(&id);
                Some((task, work))
            }
        }
    });
    drop(dead);
}

/// The runtime.
#[derive(Debug)]
pub(super) struct SimRuntime;

/// An hour: times before the world's begin are asked for, too.
const BEFORE: u64 = 3_600_000_000;

/// A time of it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimInstant(u64);

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

impl Add<Duration> for SimInstant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(us(rhs)))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(us(rhs)))
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, rhs: Duration) {
        *self = *self - rhs;
    }
}

impl Sub<Self> for SimInstant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(rhs.0))
    }
}

impl openraft::Instant for SimInstant {
    fn now() -> Self {
        Self(now() + BEFORE)
    }
}

/// Waits.
#[derive(Debug)]
pub(super) struct SimSleep {
    until: u64,
    /// Whom its timer wakes.
    armed: Option<Waker>,
}

impl SimSleep {
    fn until(until: u64) -> Self {
        Self { until, armed: None }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.until {
            return Poll::Ready(());
        }
        if !self.armed.as_ref().is_some_and(|armed| armed.will_wake(cx.waker())) {
            EXEC.with(|exec| {
                let mut exec = exec.borrow_mut();
                exec.made += 1;
                let key = (self.until, exec.made);
                exec.timers.insert(key, cx.waker().clone());
            });
            self.armed = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Waits no longer than that.
pub(super) struct SimTimeout<F> {
    work: Pin<Box<F>>,
    sleep: SimSleep,
}

/// It was too long.
#[derive(Debug)]
pub(super) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too long")
    }
}

impl<F: Future> Future for SimTimeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.work.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

/// What becomes of a task.
pub(super) struct SimJoin<T>(oneshot::Receiver<T>);

/// Its task was ended.
#[derive(Debug)]
pub(super) struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was ended")
    }
}

impl<T> Future for SimJoin<T> {
    type Output = Result<T, Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|ended| ended.map_err(|_| Ended))
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = Ended;
    type JoinHandle<T: Send + 'static> = SimJoin<T>;
    type Sleep = SimSleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = SimTimeout<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: Send + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> SimJoin<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let (said, heard) = oneshot::channel();
        spawn_as(OWNER.get(), async move {
            said.send(future.await).ok();
        });
        SimJoin(heard)
    }

    fn sleep(duration: Duration) -> SimSleep {
        SimSleep::until(now().saturating_add(us(duration)))
    }

    fn sleep_until(deadline: SimInstant) -> SimSleep {
        SimSleep::until(deadline.0.saturating_sub(BEFORE))
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> SimTimeout<F> {
        SimTimeout { work: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: SimInstant, future: F) -> SimTimeout<F> {
        SimTimeout { work: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &Ended) -> bool {
        false
    }

    fn thread_rng() -> SmallRng {
        RNG.with(|rng| {
            let mut rng = rng.borrow_mut();
            SmallRng::seed_from_u64(rng.as_mut().expect("a world was begun").next_u64())
        })
    }

    fn new(_: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, _: F) -> T
    where
        F: Future<Output = T>,
    {
        unreachable!("the world lets time pass itself")
    }
}
