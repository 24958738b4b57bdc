//! The clock of a node: the only place that reads the operating system's clocks for the machines.
//!
//! * It decides nothing: [`HybridClock`] says what time it is, [`ClockKeeper`] whether strong paths may rest on that.
//! * Invariant: no hybrid time is handed out at or past the ceiling that storage has made durable, and
//!   a new life begins only when the wall clock has passed the last one's ceiling.

#[cfg(feature = "rocks")]
pub mod chrony;
#[cfg(feature = "rocks")]
pub mod discipline;
pub(crate) mod keeping;
#[cfg(feature = "rocks")]
pub mod ntp;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rhumb_actors::clock::{
    ClockKeeper, ClockReport, Freeze, Kernel, Reading, ResetRefusal, Sample, Standing,
};
use rhumb_core::time::ClockRefusal;
use rhumb_core::{Epoch, HybridClock, HybridTime, Mono, NodeId, Now};

use self::keeping::Keeping;

/// The environment variable that offsets this process's wall clock, in milliseconds. For tests only.
pub const TEST_OFFSET: &str = "RHUMB_TEST_CLOCK_OFFSET_MS";

/// How often both clocks are read for one reading, and how near together is near enough.
const READ_AGAIN: usize = 4;
const NEAR: Duration = Duration::from_micros(100);

/// A node's clock. Cloneable; all clones are one clock.
#[derive(Debug, Clone)]
pub struct NodeClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hybrid: HybridClock,
    source: Source,
    offset_ms: AtomicI64,
    refused: AtomicU64,
    /// Until when whoever waits for the wall clock waits at most, in microseconds since the source began.
    turn: AtomicU64,
    keeping: OnceLock<Keeping>,
    max_offset: Duration,
}

#[derive(Debug)]
enum Source {
    /// The operating system's clocks.
    System(Instant),
    /// Tokio's clock, which a test may drive, from this wall time on.
    Tokio { started: tokio::time::Instant, wall_ms: u64 },
}

impl NodeClock {
    /// A clock under a durable ceiling. The wall clock must have passed every earlier one.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the shell that reads the clocks")]
    pub fn new(ceiling: HybridTime, max_offset: Duration) -> Self {
        let inner = Inner {
            hybrid: HybridClock::new(ceiling, max_offset),
            source: Source::System(Instant::now()),
            offset_ms: offset().into(),
            refused: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            keeping: OnceLock::new(),
            max_offset,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Hands out no time at or below this any more: earlier lives may have.
    pub(crate) fn begin_above(&self, floor: HybridTime) {
        self.inner.hybrid.begin_above(floor);
    }

    /// A clock for users' tests: it goes as tokio's does, so a test drives it by letting tokio's time
    /// pass, and it can be skewed. It has no ceiling, since nothing survives a test.
    #[must_use]
    pub fn for_tests(wall_ms: u64, max_offset: Duration) -> Self {
        let inner = Inner {
            hybrid: HybridClock::new(HybridTime::new((1 << 48) - 1, 0), max_offset),
            source: Source::Tokio { started: tokio::time::Instant::now(), wall_ms },
            offset_ms: AtomicI64::new(0),
            refused: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            keeping: OnceLock::new(),
            max_offset,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets a test's clock be this far ahead of (or behind) tokio's from now on.
    pub(crate) fn skew(&self, ms: i64) {
        self.inner.offset_ms.store(ms, Ordering::Relaxed);
    }

    /// From now on this keeper says whether strong paths may rest on this clock.
    pub(crate) fn kept_by(&self, keeper: ClockKeeper) {
        self.inner.keeping.set(Keeping::new(keeper)).expect("a clock has one keeper");
    }

    /// The present hybrid time, for what is right only while the clocks of the mesh differ by no more than
    /// `max_offset`: a lease, a strong read or write. A clock without a keeper (in a test's mesh) is believed.
    ///
    /// # Errors
    /// Why this node's clock is not good enough at this moment. It recovers by itself: ask another node, or later.
    pub fn strong_time(&self) -> Result<HybridTime, Freeze> {
        let time = self.hybrid();
        match self.inner.keeping.get().and_then(|keeping| keeping.refuses(self.reading())) {
            None => Ok(time),
            Some(freeze) => Err(freeze),
        }
    }

    /// Why strong paths are refused at this moment, if they are.
    #[must_use]
    pub fn frozen(&self) -> Option<Freeze> {
        self.inner.keeping.get()?.frozen(self.reading())
    }

    /// What the keeper knows of this clock, if there is one.
    #[must_use]
    pub fn report(&self) -> Option<ClockReport> {
        Some(self.inner.keeping.get()?.report(self.reading()))
    }

    /// This node's wall clock as it is now, in microseconds since the Unix epoch, as it tells it to others.
    #[must_use]
    pub fn wall_micros(&self) -> i64 {
        self.reading().wall
    }

    pub(crate) fn keeping(&self) -> Option<&Keeping> {
        self.inner.keeping.get()
    }

    /// A peer answered with its wall clock. Gives what is to be told of this node's standing.
    pub(crate) fn compared(&self, peer: NodeId, sample: Sample) -> Vec<Standing> {
        self.stepped(|keeping, now| keeping.compared(now, peer, sample))
    }

    /// A source, by its place in the settings, answered. Gives what is to be told.
    pub(crate) fn sampled(&self, source: usize, sample: Sample) -> Vec<Standing> {
        self.stepped(|keeping, now| keeping.sampled(now, source, sample))
    }

    /// How far clocks of the mesh may be apart.
    pub(crate) fn max_offset(&self) -> Duration {
        self.inner.max_offset
    }

    /// The epoch of the clock: a later one once it was reset.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.keeping.get().map_or_else(Epoch::default, Keeping::epoch)
    }

    /// Begins a new epoch of the clock.
    pub(crate) fn reset(&self, to: Epoch) -> (Vec<Standing>, Result<keeping::Reset, ResetRefusal>) {
        match self.inner.keeping.get() {
            Some(keeping) => keeping.reset(self.reading(), self.inner.hybrid.ceiling(), to),
            None => (Vec::new(), Err(ResetRefusal::NoAgreement)),
        }
    }

    /// The new epoch is durable. Gives what is to be told.
    pub(crate) fn has_reset(&self, epoch: Epoch) -> Vec<Standing> {
        self.stepped(|keeping, now| keeping.has_reset(now, epoch))
    }

    /// The kernel was asked. Gives what is to be told.
    pub(crate) fn disciplined(&self, kernel: Kernel) -> Vec<Standing> {
        self.stepped(|keeping, now| keeping.kernel(now, kernel))
    }

    /// The machine slept for so long, and its monotonic clock with it. Gives what is to be told.
    pub(crate) fn slept(&self, gap: Duration) -> Vec<Standing> {
        self.stepped(|keeping, now| keeping.suspended(now, gap))
    }

    /// Time went on. Gives what is to be told.
    pub(crate) fn looked(&self) -> Vec<Standing> {
        self.stepped(Keeping::tick)
    }

    /// Counts how uncertain the clock is.
    pub(crate) fn measured(&self) {
        if let Some(keeping) = self.inner.keeping.get() {
            keeping.measure(self.reading());
        }
    }

    fn stepped(&self, step: impl FnOnce(&Keeping, Reading) -> Vec<Standing>) -> Vec<Standing> {
        self.inner.keeping.get().map_or_else(Vec::new, |keeping| step(keeping, self.reading()))
    }

    /// All clocks at one moment.
    fn reading(&self) -> Reading {
        let (mono, wall) = self.inner.source.together();
        let offset = self.inner.offset_ms.load(Ordering::Relaxed).saturating_mul(1_000);
        Reading { mono: Mono(mono), wall: wall.saturating_add(offset), hybrid: self.inner.hybrid.last() }
    }

    /// Monotonic time alone.
    #[must_use]
    pub(crate) fn mono(&self) -> Mono {
        Mono(self.inner.source.elapsed())
    }

    /// The present time, for a machine. Hybrid time stands still (it never goes back) in the rare case
    /// that its ceiling is used up before a higher one is durable.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { hybrid: self.hybrid(), mono: Mono(self.inner.source.elapsed()) }
    }

    /// The present hybrid time alone.
    #[must_use]
    pub fn hybrid(&self) -> HybridTime {
        let wall = self.wall_millis();
        let time = self.inner.hybrid.tick(wall).unwrap_or_else(|_| self.inner.hybrid.last());
        self.not_faster(time, wall);
        time
    }

    /// Takes a peer's time into account: what is handed out from now on is later. But for a time at or above the durable ceiling (250 ms
    /// ahead of the wall clock at most), which nothing may reach: that is left, and nothing is wrong with the peer.
    ///
    /// # Errors
    /// [`ClockRefusal::TooFarAhead`] when the peer's clock is further ahead than clocks may differ.
    pub fn merge(&self, remote: HybridTime) -> Result<(), ClockRefusal> {
        let wall = self.wall_millis();
        let refused = |ahead: Duration, max_offset: Duration| {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
            Err(ClockRefusal::TooFarAhead { ahead, max_offset })
        };
        // Who has sources of time knows more than its wall clock, and does not follow a node whose clock is wrong as far
        // ahead as it would freeze itself.
        let ahead = Duration::from_millis(remote.millis().saturating_sub(wall));
        if let Some(keeping) = self.inner.keeping.get()
            && ahead > self.inner.max_offset / 5
            && !keeping.may_take(self.reading(), remote)
        {
            return refused(ahead, self.inner.max_offset);
        }
        match self.inner.hybrid.merge(wall, remote) {
            Err(ClockRefusal::TooFarAhead { ahead, max_offset }) => refused(ahead, max_offset),
            Ok(()) | Err(ClockRefusal::CeilingReached) => Ok(()),
        }
    }

    /// How many times of peers were refused as too far ahead.
    #[must_use]
    pub fn merges_refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// The ceiling to make durable next, if it is time.
    #[must_use]
    pub fn wants_ceiling(&self) -> Option<HybridTime> {
        if self.inner.keeping.get().is_some_and(Keeping::is_held) {
            return None;
        }
        self.inner.hybrid.wants_ceiling(self.wall_millis())
    }

    /// A higher ceiling is durable. While the clock is being reset it counts for nothing.
    pub fn raise_ceiling(&self, ceiling: HybridTime) {
        let raise = || self.inner.hybrid.raise_ceiling(ceiling);
        match self.inner.keeping.get() {
            Some(keeping) => keeping.rises(raise),
            None => raise(),
        }
    }

    /// The last hybrid time handed out.
    #[must_use]
    pub fn last(&self) -> HybridTime {
        self.inner.hybrid.last()
    }

    /// Whoever gets the first timestamp of a millisecond that the wall clock has not reached waits for it, and no
    /// longer than a millisecond after who waits before it: a millisecond has 65,536 timestamps, and whoever takes more a
    /// millisecond would run ahead of all clocks of the mesh. So the clock is ahead by at most a millisecond for each thread,
    /// besides what a peer is ahead.
    #[inline]
    fn not_faster(&self, time: HybridTime, wall: u64) {
        if time.counter() == 0 && time.millis() > wall {
            self.wait_for(time.millis());
        }
    }

    #[cold]
    fn wait_for(&self, millis: u64) {
        // A clock that a test drives stands still meanwhile.
        let Source::System(since) = &self.inner.source else { return };
        let elapsed = || since.elapsed().as_micros() as u64;
        let after = |before: u64| before.max(elapsed()) + 1_000;
        let before =
            self.inner.turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(after(before)));
        let turn = after(before.unwrap_or_default());
        let offset = self.inner.offset_ms.load(Ordering::Relaxed);
        while shifted(exact_millis(), offset) < millis && elapsed() < turn {
            std::hint::spin_loop();
        }
    }

    fn wall_millis(&self) -> u64 {
        shifted(self.inner.source.wall_millis(), self.inner.offset_ms.load(Ordering::Relaxed))
    }
}

impl Source {
    fn elapsed(&self) -> Duration {
        match self {
            Self::System(started) => started.elapsed(),
            Self::Tokio { started, .. } => started.elapsed(),
        }
    }

    /// Monotonic time, and the wall clock in microseconds, read so near to each other as can be had in a few tries: a
    /// thread may be interrupted between the two, and would take that for a step of the wall clock.
    fn together(&self) -> (Duration, i64) {
        let mut best: Option<(Duration, Duration, i64)> = None;
        for _ in 0..READ_AGAIN {
            let (before, wall) = (self.elapsed(), self.wall_micros());
            let took = self.elapsed().saturating_sub(before);
            if best.is_none_or(|(least, ..)| took < least) {
                best = Some((took, before + took / 2, wall));
            }
            if took < NEAR {
                break;
            }
        }
        best.map_or((Duration::ZERO, 0), |(_, mono, wall)| (mono, wall))
    }

    fn wall_micros(&self) -> i64 {
        match self {
            Self::System(_) => exact_micros(),
            Self::Tokio { .. } => self.wall_millis() as i64 * 1_000,
        }
    }

    fn wall_millis(&self) -> u64 {
        match self {
            Self::System(_) => wall_millis(),
            Self::Tokio { started, wall_ms } => wall_ms + started.elapsed().as_millis() as u64,
        }
    }
}

/// This process's wall clock, milliseconds since the Unix epoch, with the test offset.
#[must_use]
pub fn now_millis() -> u64 {
    shifted(wall_millis(), offset())
}

/// The wall clock as the kernel last set it, at its timer's tick: up to 10 ms behind (4 ms at 250 Hz),
/// never ahead, for less than half of what an exact reading takes. Every timestamp reads it, and nodes
/// may differ by more anyway.
///
/// It is asked of the C library, which what is preloaded into a process stands before: tests step a node's
/// clock so.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix asks the kernel past the C library")]
fn wall_millis() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that lives for the call.
    let state = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    debug_assert_eq!(state, 0, "every Linux has this clock");
    u64::try_from(now.tv_sec).map_or(0, |seconds| seconds * 1_000 + now.tv_nsec as u64 / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn wall_millis() -> u64 {
    exact_millis()
}

/// The wall clock as it is now.
fn exact_millis() -> u64 {
    (exact_micros() / 1_000) as u64
}

#[expect(clippy::disallowed_methods, reason = "this is the shell that reads the clocks")]
fn exact_micros() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

fn shifted(millis: u64, by: i64) -> u64 {
    millis.saturating_add_signed(by)
}

fn offset() -> i64 {
    std::env::var(TEST_OFFSET).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_rises_and_a_peer_far_ahead_is_refused() {
        let far = HybridTime::new((1 << 48) - 1, 0);
        let clock = NodeClock::new(far, Duration::from_millis(500));
        let (a, b) = (clock.now(), clock.now());
        assert!(a.hybrid < b.hybrid && a.mono <= b.mono);
        assert!(clock.merge(b.hybrid.plus(Duration::from_secs(60))).is_err());
        assert!(clock.merge(b.hybrid).is_ok());
        assert_eq!(clock.merges_refused(), 1);
    }

    #[test]
    fn a_ceiling_that_was_on_its_way_when_a_reset_began_is_not_raised() {
        let now = now_millis();
        let (low, high) = (HybridTime::new(now + 250, 0), HybridTime::new(now + 3_600_000, 0));
        let clock = NodeClock::new(low, Duration::from_millis(500));
        let settings = rhumb_actors::clock::ClockSettings::default();
        clock.kept_by(ClockKeeper::new(settings, None, HybridTime::ZERO));
        let held = clock.keeping().expect("it has a keeper").hold().expect("nobody else resets it");
        // Made durable before the reset began, as far as the disk is concerned.
        clock.raise_ceiling(high);
        assert_eq!(clock.inner.hybrid.ceiling(), low, "what bounds the epoch stays");
        assert_eq!(clock.wants_ceiling(), None);
        drop(held);
        clock.raise_ceiling(high);
        assert_eq!(clock.inner.hybrid.ceiling(), high);
    }

    /// A clock that is 30 s ahead of the wall clock, as a peer is: nobody waits for that, and a machine that stands still
    /// for a moment does not catch up with it. And its last time.
    fn ahead() -> (NodeClock, HybridTime) {
        let far = HybridTime::new((1 << 48) - 1, 0);
        let clock = NodeClock::new(far, Duration::from_secs(60));
        let ahead = clock.now().hybrid.plus(Duration::from_secs(30));
        clock.merge(ahead).expect("within the offset");
        (clock, ahead)
    }

    /// As if all timestamps of a millisecond were taken at once.
    fn takes_a_millisecond(clock: &NodeClock) {
        clock.merge(HybridTime::new(clock.last().millis(), u16::MAX)).expect("within the offset");
        let _ = clock.hybrid();
    }

    #[test]
    fn who_takes_more_timestamps_than_a_millisecond_has_does_not_run_ahead() {
        let (clock, ahead) = ahead();
        let begun = clock.now().mono;
        (0..5).for_each(|_| takes_a_millisecond(&clock));
        let (went, took) = (clock.last().millis() - ahead.millis(), clock.now().mono.since(begun));
        assert_eq!(went, 5, "each time the last timestamp of a millisecond was taken");
        assert!(took >= Duration::from_millis(5), "{went} ms of timestamps in {took:?}");
    }

    #[test]
    fn threads_that_take_them_together_do_not_run_ahead_either() {
        let (clock, ahead) = ahead();
        let begun = clock.now().mono;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| takes_a_millisecond(&clock)));
            }
        });
        let (went, took) = (clock.last().millis() - ahead.millis(), clock.now().mono.since(begun));
        assert!(
            took + Duration::from_millis(1) >= Duration::from_millis(went),
            "{went} ms of timestamps in {took:?}"
        );
    }
}
