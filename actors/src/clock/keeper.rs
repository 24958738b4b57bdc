//! The machine: samples in, a standing out.

use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::codec::{self, CodecError};
use rhumb_core::{Effects, Epoch, HybridTime, Mono, NodeId};
use rhumb_storage::{Batch, Family};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::drift::Drift;
use super::interval::{Interval, agreed};
use super::peers::Peers;
use super::source::{Sample, Source, growth};
use super::standing::{ClockReport, Doubt, Freeze, PeerReport, SourceReport, Standing, Verdict};
use super::{ClockSettings, Reading, duration, micros};

/// Where the epoch of the clock stands, in the family `Meta`.
pub const EPOCH_KEY: &[u8] = b"clock/epoch";
/// A source that was not heard for so long is called silent. What it said goes on counting, wider and wider.
const SILENT_AFTER: Duration = Duration::from_secs(600);
/// What a clock is reset by is no older: thrice as old as what a source says that is asked each 64 s. Of a time service that is gone
/// nothing counts then.
const LATELY: Duration = Duration::from_secs(200);

/// Where the keeper pushes what it wants done.
pub type Out = Effects<Batch, Effect>;

/// What it wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Its standing changed in kind, or has other kinds of doubts: say so in the log, and raise or end the alarm.
    Became(Standing),
    /// A new epoch is durable: hand it back as [`Input::EpochDurable`].
    EpochDurable(Epoch),
    /// A reset is refused.
    ResetRefused(ResetRefusal),
}

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Whether a time service keeps it in step.
    pub disciplined: bool,
    /// How wrong it is at most.
    pub max_error: Duration,
}

/// What happens to a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A source, by its place in the settings, was asked and answered.
    Sampled(usize, Sample),
    /// Another node was asked for its wall clock.
    Compared(NodeId, Sample),
    /// The kernel was asked.
    Kernel(Kernel),
    /// The monotonic clock stood still for up to this long while true time went on: the machine slept.
    Suspended(Duration),
    /// An operator wants the clock's history forgotten. Every hybrid time of the present epoch lies below this ceiling. The
    /// next epoch is this one, if it is later than the present: that of the other nodes.
    Reset(HybridTime, Epoch),
    /// A new epoch is durable.
    EpochDurable(Epoch),
    /// Time went on.
    Tick,
}

/// Why a clock is not reset. The next step is in the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResetRefusal {
    /// It is not known what time it is.
    #[error(
        "too few sources of time agree that were heard lately, so nobody knows whether the old bound has passed: see to the sources first"
    )]
    NoAgreement,
    /// Times of the present epoch may lie ahead of true time still.
    #[error("times of the present epoch may lie ahead for another {0:?}: try again after that")]
    TooEarly(Duration),
    /// Another one is under way.
    #[error("a reset is under way")]
    UnderWay,
}

/// The epoch of the clock, as it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The epoch.
    pub epoch: Epoch,
    /// No hybrid time of an earlier epoch lies above this.
    pub bound: HybridTime,
}

impl EpochRow {
    /// Reads a row.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

/// The machine. See the module's words.
#[derive(Debug)]
pub struct ClockKeeper {
    settings: ClockSettings,
    sources: Vec<Source>,
    peers: Peers,
    drift: Drift,
    kernel: Option<Kernel>,
    /// What the sources last agreed on, of (true time − monotonic clock), and when.
    held: Option<(Interval, Mono)>,
    /// Whether they agree now.
    agrees: bool,
    /// Whether it was too far off when it was last looked at: it must come nearer than that to stand again.
    was_beyond: bool,
    present: EpochRow,
    next: Option<EpochRow>,
    /// Earlier lives and epochs handed out times below this one.
    floor: HybridTime,
    /// What was told last: the standing, and the kinds of its doubts.
    told: Option<(&'static str, Vec<&'static str>)>,
}

impl ClockKeeper {
    /// A keeper for a new life of a node. `row` is its epoch's, `ceiling` the highest that an earlier life made durable.
    #[must_use]
    pub fn new(settings: ClockSettings, row: Option<EpochRow>, ceiling: HybridTime) -> Self {
        let present = row.unwrap_or_default();
        Self {
            sources: vec![Source::default(); settings.sources.len()],
            settings,
            peers: Peers::default(),
            drift: Drift::default(),
            kernel: None,
            held: None,
            agrees: false,
            was_beyond: false,
            floor: ceiling.max(present.bound),
            present,
            next: None,
            told: None,
        }
    }

    /// Something happened.
    pub fn step(&mut self, now: Reading, input: Input, out: &mut Out) {
        let ppm = self.ppm();
        match input {
            Input::Sampled(at, sample) => {
                if let Some(source) = self.sources.get_mut(at) {
                    source.sampled(&sample, ppm);
                }
            }
            Input::Compared(peer, sample) => self.peers.compared(peer, &sample, ppm),
            Input::Kernel(kernel) => self.kernel = Some(kernel),
            Input::Suspended(gap) => self.suspended(micros(gap)),
            Input::Reset(ceiling, to) => self.reset(now, ceiling, to, out),
            Input::EpochDurable(epoch) => self.epoch_durable(epoch),
            Input::Tick => {}
        }
        self.agree(now.mono);
        self.was_beyond = self.beyond(now).is_some();
        let standing = self.standing(now);
        let kind = standing.kind();
        if self.told.as_ref() != Some(&kind) {
            self.told = Some(kind);
            out.send_at_once(Effect::Became(standing));
        }
    }

    /// Why strong paths are refused at this moment, if they are. A reading of this very moment: a wall clock that was
    /// stepped since the last sample is seen here.
    #[must_use]
    pub fn frozen(&self, now: Reading) -> Option<Freeze> {
        self.catching_up(now)
            .or_else(|| self.next.map(|_| Freeze::Resetting))
            .or_else(|| self.never_agreed())
            .or_else(|| self.beyond(now))
            .or_else(|| self.off_peers(now))
    }

    /// Whether hybrid time may follow a peer's that far: no node that stands shows more than true time and the rest of
    /// `max_offset`, and whoever followed one that is wrong would have to freeze itself.
    #[must_use]
    pub fn may_take(&self, now: Reading, remote: HybridTime) -> bool {
        remote.millis().saturating_mul(1_000) <= self.may_show(now)
    }

    /// Whether strong paths stand, and what else is to be said.
    #[must_use]
    pub fn standing(&self, now: Reading) -> Standing {
        if let Some(freeze) = self.frozen(now) {
            return Standing::Frozen(freeze);
        }
        let doubts = self.doubts(now);
        if doubts.is_empty() { Standing::Synchronised } else { Standing::Degraded(doubts) }
    }

    /// Between which two moments true time is, in microseconds since the Unix epoch; none without an agreement.
    #[must_use]
    pub fn bounds(&self, now: Mono) -> Option<Interval> {
        Some(self.base(now)?.shifted(micros(now.0)))
    }

    /// The present epoch of the clock.
    #[must_use]
    pub fn epoch(&self) -> EpochRow {
        self.present
    }

    /// What an operator sees.
    #[must_use]
    pub fn report(&self, now: Reading) -> ClockReport {
        let offset = self.bounds(now.mono).map(|bounds| bounds.shifted(now.wall.saturating_neg()));
        let kernel = self.kernel.filter(|kernel| kernel.disciplined).map(|kernel| kernel.max_error);
        let measured = offset.map(|offset| duration(offset.farthest()));
        ClockReport {
            standing: self.standing(now),
            epoch: self.present.epoch,
            offset,
            uncertainty: measured.map(|measured| measured.max(kernel.unwrap_or_default())),
            drift_ppm: self.drift.ppm(),
            sources: (0..self.sources.len()).map(|at| self.source(at, now)).collect(),
            peers: self.peers(now),
            off_peers: self.off(now),
        }
    }

    fn peers(&self, now: Reading) -> Vec<PeerReport> {
        let limit = micros(self.settings.limit());
        let compared = self.peers.offsets(now, self.ppm());
        let report = |(node, offset, at): (&NodeId, Interval, Mono)| PeerReport {
            node: node.clone(),
            offset,
            age: now.mono.since(at),
            off: offset.nearest() > limit,
        };
        compared.map(report).collect()
    }

    fn source(&self, at: usize, now: Reading) -> SourceReport {
        let base = self.sources[at].base(now.mono, self.ppm());
        let offset = base.map(|base| base.shifted(micros(now.mono.0)).shifted(now.wall.saturating_neg()));
        SourceReport {
            name: self.settings.sources[at].clone(),
            verdict: self.verdict(base, now.mono),
            offset,
            age: self.sources[at].heard().map(|heard| now.mono.since(heard)),
        }
    }

    fn verdict(&self, base: Option<Interval>, now: Mono) -> Verdict {
        match (base, self.base(now).filter(|_| self.agrees)) {
            (None, _) => Verdict::Silent,
            (Some(_), None) => Verdict::Undecided,
            (Some(base), Some(agreed)) if base.meet(agreed).is_some() => Verdict::Agrees,
            (Some(_), Some(_)) => Verdict::Outlier,
        }
    }

    /// What enough of the sources agree on that were heard no longer ago than this; none: whenever that was.
    fn agreement(&self, now: Mono, within: Option<Duration>) -> Option<Interval> {
        let ppm = self.ppm();
        let counts = |source: &&Source| {
            within.is_none_or(|within| source.heard().is_some_and(|heard| now.since(heard) < within))
        };
        let counted = self.sources.iter().filter(counts);
        let bases: Vec<_> = counted.filter_map(|source| source.base(now, ppm)).collect();
        // Of those that were heard so many may be wrong as of all: what is silent is not known to be the liar.
        let faulty = match bases.len() {
            heard if canary::sings(Canary::MinorityBelieved) => heard.saturating_sub(1) / 2,
            _ => self.settings.faulty(),
        };
        let right = bases.len().checked_sub(faulty).filter(|right| *right > 0)?;
        agreed(&bases, right)
    }

    fn agree(&mut self, now: Mono) {
        let found = self.agreement(now, None);
        self.agrees = found.is_some();
        if let Some(base) = found {
            self.held = Some((base, now));
            self.drift.agreed(base, now);
        }
    }

    /// Where (true time − monotonic clock) lies now.
    fn base(&self, now: Mono) -> Option<Interval> {
        let (base, at) = self.held?;
        Some(base.grown(growth(micros(now.since(at)), self.ppm())))
    }

    fn ppm(&self) -> u32 {
        self.drift.effective(self.settings.max_drift_ppm)
    }

    fn suspended(&mut self, gap: i64) {
        self.sources.iter_mut().for_each(|source| source.suspended(gap));
        self.peers.suspended(gap);
        self.drift.forget();
        if let Some((base, _)) = &mut self.held {
            *base = Interval::between(base.low(), base.high().saturating_add(gap));
        }
    }

    // ---- why strong paths do not stand ---------------------------------------------------------

    fn catching_up(&self, now: Reading) -> Option<Freeze> {
        let wall = u64::try_from(now.wall / 1_000).unwrap_or(0);
        let floor = if self.floor == HybridTime::ZERO || canary::sings(Canary::CeilingIgnored) {
            0
        } else {
            self.floor.millis() + 1
        };
        let behind = floor.saturating_sub(wall).saturating_mul(1_000);
        let ahead = now.hybrid.millis().saturating_mul(1_000).saturating_sub(self.may_show(now));
        let waits = behind.max(ahead);
        (waits > 0).then(|| Freeze::CatchingUp(Duration::from_micros(waits)))
    }

    /// How far hybrid time may have come, in microseconds since the Unix epoch. A node that stands shows no less than true
    /// time − tolerance; so that two of them differ by `max_offset` at most, none may show more than true time and the rest.
    /// Where true time is not known, a hybrid clock is as far from the wall clock as a merge may take it.
    fn may_show(&self, now: Reading) -> u64 {
        let max_offset = micros(self.settings.max_offset);
        let rest = max_offset - micros(self.settings.tolerance());
        let most = self.bounds(now.mono).map(|bounds| bounds.low().saturating_add(rest));
        u64::try_from(most.unwrap_or(now.wall.saturating_add(max_offset))).unwrap_or(0)
    }

    fn never_agreed(&self) -> Option<Freeze> {
        let heard = self.sources.iter().filter(|source| source.heard().is_some()).count();
        let lacks = !self.sources.is_empty() && self.held.is_none();
        lacks.then(|| Freeze::NeverAgreed { heard, needed: self.settings.faulty() + 1 })
    }

    fn beyond(&self, now: Reading) -> Option<Freeze> {
        let off = self.bounds(now.mono)?.shifted(now.wall.saturating_neg()).farthest();
        let tolerance = micros(self.settings.tolerance());
        let limit = if self.was_beyond { tolerance * 3 / 4 } else { tolerance };
        (off > limit).then(|| Freeze::Beyond { off: duration(off), tolerance: self.settings.tolerance() })
    }

    fn off(&self, now: Reading) -> usize {
        let limit = micros(self.settings.limit());
        let ppm = self.ppm();
        self.peers.offsets(now, ppm).filter(|(_, offset, _)| offset.nearest() > limit).count()
    }

    fn off_peers(&self, now: Reading) -> Option<Freeze> {
        let (off, of) = (self.off(now), self.settings.peers);
        (off * 2 > of).then(|| Freeze::OffPeers { off, of, limit: self.settings.limit() })
    }

    fn doubts(&self, now: Reading) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        if self.sources.is_empty() {
            doubts.push(Doubt::NoSources);
        }
        for (source, name) in self.sources.iter().zip(&self.settings.sources) {
            let base = source.base(now.mono, self.ppm());
            let fresh = source.heard().is_some_and(|heard| now.mono.since(heard) < SILENT_AFTER);
            if self.verdict(base, now.mono) == Verdict::Outlier {
                doubts.push(Doubt::Outlier(name.clone()));
            } else if !fresh {
                doubts.push(Doubt::Silent(name.clone()));
            }
        }
        if let Some((_, at)) = self.held.filter(|_| !self.agrees) {
            doubts.push(Doubt::HeldOver(now.mono.since(at)));
        }
        let max_ppm = self.settings.max_drift_ppm;
        if let Some(rate) = self.drift.ppm().filter(|rate| rate.nearest() > i64::from(max_ppm)) {
            doubts.push(Doubt::Drifts { ppm: (rate.low(), rate.high()), max_ppm });
        }
        let off = self.bounds(now.mono).map(|bounds| bounds.shifted(now.wall.saturating_neg()).farthest());
        if let Some(off) = off.filter(|off| *off > micros(self.settings.tolerance()) / 2) {
            doubts.push(Doubt::Far(duration(off)));
        }
        match self.kernel {
            Some(kernel) if !kernel.disciplined => doubts.push(Doubt::Kernel(None)),
            Some(kernel) if kernel.max_error > self.settings.tolerance() => {
                doubts.push(Doubt::Kernel(Some(kernel.max_error)));
            }
            _ => {}
        }
        doubts
    }

    // ---- resets --------------------------------------------------------------------------------

    fn reset(&mut self, now: Reading, ceiling: HybridTime, to: Epoch, out: &mut Out) {
        match self.may_reset(now, ceiling, to) {
            Ok(row) => {
                self.next = Some(row);
                let mut batch = Batch::new();
                let bytes = codec::encode(&row).expect("two numbers are within the codec's limits");
                batch.put(Family::Meta, EPOCH_KEY, bytes);
                out.persist(batch);
                out.send(Effect::EpochDurable(row.epoch));
            }
            Err(refusal) => out.send_at_once(Effect::ResetRefused(refusal)),
        }
    }

    fn may_reset(&self, now: Reading, ceiling: HybridTime, to: Epoch) -> Result<EpochRow, ResetRefusal> {
        if self.next.is_some() {
            return Err(ResetRefusal::UnderWay);
        }
        let bounds = self.bounds(now.mono).filter(|_| self.agrees).ok_or(ResetRefusal::NoAgreement)?;
        let lately = self.agreement(now.mono, Some(LATELY)).ok_or(ResetRefusal::NoAgreement)?;
        let earliest = bounds.low().min(lately.shifted(micros(now.mono.0)).low());
        let bound = ceiling.max(now.hybrid).max(self.floor).plus(self.settings.max_offset);
        let passes = i64::try_from(bound.millis() + 1).unwrap_or(i64::MAX).saturating_mul(1_000);
        if earliest < passes && !canary::sings(Canary::ResetBeforeBound) {
            return Err(ResetRefusal::TooEarly(duration(passes - earliest)));
        }
        Ok(EpochRow { epoch: self.present.epoch.next().max(to), bound })
    }

    fn epoch_durable(&mut self, epoch: Epoch) {
        let Some(row) = self.next.take_if(|row| row.epoch == epoch) else { return };
        self.present = row;
        if !canary::sings(Canary::ResetBeforeBound) {
            self.floor = row.bound;
        }
        self.sources.iter_mut().for_each(Source::forget);
        self.peers = Peers::default();
        self.drift.forget();
        (self.held, self.agrees, self.was_beyond) = (None, false, false);
    }
}
