//! The keeper of a node's clock, as everything shares it that rests on how wrong the clock may be.
//!
//! It is no actor: a strong path needs the judgement of the moment at which it asks, and what comes out of a mailbox is of an
//! earlier one.
//!
//! * It decides nothing: [`ClockKeeper`] does. It counts, and lets a drill shift what the keeper is shown.
//! * It never does: move the wall clock or hybrid time, judge by an older reading than the present one, or go on
//!   with a drill for longer than was asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rhumb_actors::clock::{
    ClockKeeper, ClockReport, Effect, Freeze, Input, Kernel, Out, Reading, ResetRefusal, Sample, Standing,
};
use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Epoch, HybridTime, Mono, NodeId};
use rhumb_storage::Batch;

use crate::metrics::Durations;

/// A keeper that many ask and one steps.
#[derive(Debug)]
pub(crate) struct Keeping {
    keeper: RwLock<ClockKeeper>,
    drill: RwLock<Option<Drill>>,
    /// A reset waits for the times of the present epoch to pass.
    resetting: AtomicBool,
    /// Held by who begins one, or raises the ceiling.
    raising: Mutex<()>,
    freezes: AtomicU64,
    refused: AtomicU64,
    offsets: Durations,
    uncertainty: Durations,
}

/// What the keeper is shown instead of the wall clock, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drill {
    /// By how many milliseconds the wall clock that it is shown is ahead.
    pub(crate) ahead_ms: i64,
    /// When it is over.
    pub(crate) until: Mono,
}

/// What has to be durable before a new epoch begins.
#[derive(Debug)]
pub(crate) struct Reset {
    pub(crate) batch: Batch,
    pub(crate) epoch: Epoch,
}

/// A reset is under way.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Keeping);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.resetting.store(false, Ordering::Relaxed);
    }
}

/// How often strong paths were frozen, and refused, since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) freezes: u64,
    pub(crate) refused: u64,
}

impl Keeping {
    pub(super) fn new(keeper: ClockKeeper) -> Self {
        Self {
            keeper: RwLock::new(keeper),
            drill: RwLock::default(),
            resetting: AtomicBool::default(),
            raising: Mutex::default(),
            freezes: AtomicU64::default(),
            refused: AtomicU64::default(),
            offsets: Durations::default(),
            uncertainty: Durations::default(),
        }
    }

    /// Why strong paths are refused at the moment of this reading, if they are.
    pub(super) fn frozen(&self, now: Reading) -> Option<Freeze> {
        if self.resetting.load(Ordering::Relaxed) {
            return Some(Freeze::Resetting);
        }
        self.keeper.read().frozen(self.shown(now))
    }

    /// The same for somebody who needs them: a refusal is counted.
    pub(super) fn refuses(&self, now: Reading) -> Option<Freeze> {
        self.frozen(now).inspect(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// What an operator sees.
    pub(super) fn report(&self, now: Reading) -> ClockReport {
        let report = self.keeper.read().report(self.shown(now));
        if self.is_held() {
            return ClockReport { standing: Standing::Frozen(Freeze::Resetting), ..report };
        }
        report
    }

    /// A peer answered with its wall clock.
    pub(super) fn compared(&self, now: Reading, peer: NodeId, sample: Sample) -> Vec<Standing> {
        // What the peer's clock is off from this one, as an exchange leaves it: half of the round trip may be wrong.
        let at = sample.received.0.saturating_sub(sample.received.since(sample.sent) / 2);
        let own = now.wall.saturating_sub(micros(now.mono.0)).saturating_add(micros(at));
        self.offsets.record(Duration::from_micros(sample.shown.abs_diff(own)), None);
        self.step(now, Input::Compared(peer, sample))
    }

    /// A source of time answered.
    pub(super) fn sampled(&self, now: Reading, source: usize, sample: Sample) -> Vec<Standing> {
        self.step(now, Input::Sampled(source, sample))
    }

    /// Whether hybrid time may follow a peer's as far as this. A drill changes nothing of that.
    pub(super) fn may_take(&self, now: Reading, remote: HybridTime) -> bool {
        self.keeper.read().may_take(now, remote)
    }

    /// The kernel was asked.
    pub(super) fn kernel(&self, now: Reading, kernel: Kernel) -> Vec<Standing> {
        self.step(now, Input::Kernel(kernel))
    }

    /// The machine slept for so long.
    pub(super) fn suspended(&self, now: Reading, gap: Duration) -> Vec<Standing> {
        self.step(now, Input::Suspended(gap))
    }

    /// Time went on.
    pub(super) fn tick(&self, now: Reading) -> Vec<Standing> {
        self.step(now, Input::Tick)
    }

    /// How uncertain the clock is by now, for those who watch that over time.
    pub(super) fn measure(&self, now: Reading) {
        if let Some(uncertainty) = self.report(now).uncertainty {
            self.uncertainty.record(uncertainty, None);
        }
    }

    /// Refuses strong paths, and lets no ceiling rise, until what is given is dropped: whatever ceiling is read meanwhile bounds all
    /// times until then. One at a time.
    pub(crate) fn hold(&self) -> Result<Held<'_>, ResetRefusal> {
        let _none_rises = self.raising.lock();
        let other = self.resetting.swap(true, Ordering::Relaxed);
        if other { Err(ResetRefusal::UnderWay) } else { Ok(Held(self)) }
    }

    /// Raises the ceiling, if it is not to stay where it is: one that was on its way to the disk when a reset began comes too late.
    pub(super) fn rises(&self, raise: impl FnOnce()) {
        let _one = self.raising.lock();
        if !self.is_held() {
            raise();
        }
    }

    /// Whether the ceiling is to stay where it is.
    pub(crate) fn is_held(&self) -> bool {
        self.resetting.load(Ordering::Relaxed)
    }

    /// The present epoch of the clock.
    pub(crate) fn epoch(&self) -> Epoch {
        self.keeper.read().epoch().epoch
    }

    /// Begins a new epoch: gives what is to be told, what has to be durable before [`Keeping::has_reset`], and its number.
    pub(super) fn reset(
        &self,
        now: Reading,
        ceiling: HybridTime,
        to: Epoch,
    ) -> (Vec<Standing>, Result<Reset, ResetRefusal>) {
        let (mut out, mut barrier) = (Out::default(), Barrier::default());
        self.keeper.write().step(self.shown(now), Input::Reset(ceiling, to), &mut out);
        let (mut row, mut refused, mut became) = (None, None, Vec::new());
        barrier.absorb(&mut out, |release| match release {
            Release::Persist(ticket, batch) => row = Some((ticket, batch)),
            Release::Perform(Effect::ResetRefused(refusal)) => refused = Some(refusal),
            Release::Perform(Effect::Became(standing)) => became.push(standing),
            Release::Perform(Effect::EpochDurable(_)) => unreachable!("it waits for its row"),
        });
        let freezes = became.iter().filter(|standing| standing.frozen().is_some()).count();
        self.freezes.fetch_add(freezes as u64, Ordering::Relaxed);
        let begun = match (row, refused) {
            (Some((ticket, batch)), _) => {
                let mut epoch = Epoch::default();
                barrier.durable(ticket, |effect| {
                    if let Effect::EpochDurable(next) = effect {
                        epoch = next;
                    }
                });
                Ok(Reset { batch, epoch })
            }
            (None, refusal) => Err(refusal.unwrap_or(ResetRefusal::UnderWay)),
        };
        (became, begun)
    }

    /// The new epoch is durable.
    pub(super) fn has_reset(&self, now: Reading, epoch: Epoch) -> Vec<Standing> {
        self.step(now, Input::EpochDurable(epoch))
    }

    /// Shows the keeper another wall clock from now on. One at a time.
    pub(crate) fn begin(&self, now: Mono, drill: Drill) -> Result<(), Drill> {
        let mut under_way = self.drill.write();
        match *under_way {
            Some(other) if now < other.until => Err(other),
            _ => {
                *under_way = Some(drill);
                Ok(())
            }
        }
    }

    /// The drill that is under way.
    pub(crate) fn drill(&self, now: Mono) -> Option<Drill> {
        (*self.drill.read()).filter(|drill| now < drill.until)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            freezes: self.freezes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// How far other nodes' wall clocks were off from this one, each time that they were compared.
    pub(crate) fn offsets(&self) -> &Durations {
        &self.offsets
    }

    /// How far true time may have been from the wall clock, looked at once a second.
    pub(crate) fn uncertainty(&self) -> &Durations {
        &self.uncertainty
    }

    fn shown(&self, now: Reading) -> Reading {
        let ahead = self.drill(now.mono).map_or(0, |drill| drill.ahead_ms.saturating_mul(1_000));
        Reading { wall: now.wall.saturating_add(ahead), ..now }
    }

    /// Gives each standing that came of it, to be told.
    fn step(&self, now: Reading, input: Input) -> Vec<Standing> {
        let (mut out, mut became) = (Out::default(), Vec::new());
        self.keeper.write().step(self.shown(now), input, &mut out);
        Barrier::default().absorb(&mut out, |release| match release {
            Release::Perform(Effect::Became(standing)) => became.push(standing),
            Release::Perform(Effect::EpochDurable(_) | Effect::ResetRefused(_)) | Release::Persist(..) => {
                unreachable!("only a reset is kept, and that has a way of its own")
            }
        });
        let freezes = became.iter().filter(|standing| standing.frozen().is_some()).count();
        self.freezes.fetch_add(freezes as u64, Ordering::Relaxed);
        became
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rhumb_actors::clock::ClockSettings;

    use super::*;

    const MS: i64 = 1_000;

    fn at(ms: u64) -> Reading {
        let wall = 1_800_000_000_000_000 + ms as i64 * MS;
        Reading { mono: Mono::millis(ms), wall, hybrid: HybridTime::ZERO }
    }

    /// A peer whose clock is ahead by so many milliseconds, asked now, 4 ms there and back.
    fn sample(now: Reading, ahead: i64) -> Sample {
        let sent = Mono(now.mono.0 - Duration::from_millis(4));
        Sample { sent, received: now.mono, shown: now.wall - 2 * MS + ahead * MS, error: Duration::ZERO }
    }

    fn peer(name: &str) -> NodeId {
        NodeId::new("eu", name).expect("valid")
    }

    fn of_three() -> Keeping {
        let settings = ClockSettings { peers: 2, ..ClockSettings::default() };
        let keeping = Keeping::new(ClockKeeper::new(settings, None, HybridTime::ZERO));
        for name in ["n1", "n2"] {
            keeping.compared(at(1_000), peer(name), sample(at(1_000), 3));
        }
        keeping
    }

    #[test]
    fn a_drill_freezes_and_is_over_by_itself() {
        let keeping = of_three();
        assert_eq!(keeping.frozen(at(1_001)), None);
        let drill = Drill { ahead_ms: -450, until: Mono::millis(3_000) };
        keeping.begin(Mono::millis(1_001), drill).expect("there is none");
        assert_eq!(keeping.begin(Mono::millis(2_000), Drill { ahead_ms: 0, ..drill }), Err(drill));
        assert!(matches!(keeping.refuses(at(2_999)), Some(Freeze::OffPeers { off: 2, of: 2, .. })));
        assert!(keeping.report(at(2_999)).peers.iter().all(|peer| peer.off));
        assert_eq!(keeping.refuses(at(3_000)), None, "nobody ended it");
        assert_eq!(keeping.drill(Mono::millis(3_000)), None);
        assert_eq!(keeping.counts(), Counts { freezes: 0, refused: 1 });
        assert!(keeping.begin(Mono::millis(3_000), Drill { until: Mono::millis(9_000), ..drill }).is_ok());
    }

    #[test]
    fn a_freeze_is_told_and_counted_once_and_so_is_its_end() {
        let keeping = of_three();
        let drill = Drill { ahead_ms: 450, until: Mono::millis(2_000) };
        keeping.begin(Mono::millis(1_001), drill).expect("there is none");
        let told: Vec<_> = (1_002..2_010).step_by(7).flat_map(|ms| keeping.tick(at(ms))).collect();
        assert_eq!(told.iter().map(Standing::name).collect::<Vec<_>>(), ["frozen", "degraded"], "{told:?}");
        assert_eq!(keeping.counts(), Counts { freezes: 1, refused: 0 });
    }

    #[test]
    fn offsets_are_measured_from_the_middle_of_the_exchange() {
        let keeping = of_three();
        let steps = keeping.offsets().steps();
        assert!((steps.sum - 0.006).abs() < 1e-9, "two of 3 ms: {}", steps.sum);
    }
}
