//! One node in a world that knows true time: sources of which a minority lies, alone or together; ways that are longer
//! there than back; a monotonic clock whose rate wanders, and a wall clock that is stepped; long silences, sleep,
//! crashes, and operators who set clocks and reset them.
//!
//! After every event: true time is within the keeper's bounds; a node whose strong paths stand is within the
//! tolerance, and so is its hybrid clock;
//! no source that is right is called an outlier; no drift within the bound raises the alarm; hybrid times strictly rise,
//! over lives and epochs. In the end everything heals, and strong paths must stand.

use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, Epoch, HybridClock, HybridTime, Mono};
use rhumb_storage::{Family, MemoryDisk, MemoryEngine, Store};

use crate::clock::keeper::EPOCH_KEY;
use crate::clock::{
    ClockKeeper, ClockSettings, Doubt, Effect, EpochRow, Freeze, Input, Out, Reading, Sample, Standing,
    Verdict,
};

const BEGIN: i64 = 1_763_700_000_000_000;
const MS: i64 = 1_000;
const SECOND: i64 = 1_000_000;
/// How far the node's rate wanders, below the bound of 200.
const WANDERS_PPM: u64 = 180;

/// What a source is.
#[derive(Clone, Copy)]
enum Kind {
    /// Its time is wrong by no more than it says.
    Right { error: i64 },
    /// Its time is wrong by this much, and it claims to be exact.
    Wrong { by: i64 },
    /// It says whatever comes.
    Wild,
}

struct World {
    rng: Rng,
    settings: ClockSettings,
    kinds: Vec<Kind>,
    /// True time since the beginning.
    truth: i64,
    mono_ns: i64,
    ppm: i64,
    wrong: i64,
    disk: MemoryDisk,
    store: Store<MemoryEngine>,
    keeper: ClockKeeper,
    out: Out,
    /// None until the node may hand out times in this life and epoch.
    hybrid: Option<HybridClock>,
    /// The last hybrid time of this epoch and life, and of all.
    last: HybridTime,
    highest: HybridTime,
    ceiling: HybridTime,
}

/// Runs a seed's story: the first promise that was broken, if one was.
pub(super) fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(&Seed::new(seed));
    for _ in 0..120 {
        world.event()?;
    }
    world.heal()
}

impl World {
    fn new(seed: &Seed) -> Self {
        let mut rng = seed.child("clock").rng();
        let count = rng.between(3, 6);
        let liars = rng.below(count.div_ceil(2));
        let together = signed(&mut rng, 15 * MS, 120 * MS);
        let kinds = (0..count).map(|at| match rng.below(4) {
            _ if at >= liars => Kind::Right { error: rng.between(100, 40_000) as i64 },
            0 => Kind::Wild,
            1 => Kind::Wrong { by: signed(&mut rng, 50 * MS, 3 * SECOND) },
            _ => Kind::Wrong { by: together },
        });
        let kinds: Vec<_> = kinds.collect();
        let sources = (0..count).map(|at| format!("ntp-{at}")).collect();
        let settings = ClockSettings { sources, ..ClockSettings::default() };
        let disk = MemoryDisk::new();
        let store = Store::open(MemoryEngine::open(&disk)).expect("an empty disk opens");
        Self {
            rng,
            keeper: ClockKeeper::new(settings.clone(), None, HybridTime::ZERO),
            settings,
            kinds,
            truth: 0,
            mono_ns: 0,
            ppm: 0,
            wrong: 0,
            disk,
            store,
            out: Out::default(),
            hybrid: None,
            last: HybridTime::ZERO,
            highest: HybridTime::ZERO,
            ceiling: HybridTime::ZERO,
        }
    }

    fn now(&self) -> Reading {
        let mono = Mono(Duration::from_nanos(self.mono_ns as u64));
        Reading { mono, wall: BEGIN + self.truth + self.wrong, hybrid: self.last }
    }

    fn pass(&mut self, micros: i64) {
        self.truth += micros;
        self.mono_ns += micros * 1_000 + micros * self.ppm / 1_000;
    }

    fn event(&mut self) -> Result<(), String> {
        let wait = match self.rng.below(20) {
            0 => self.rng.between(60, 1_500) * 1_000_000,
            1..8 => self.rng.between(1_000, 10_000_000),
            _ => self.rng.between(10, 500_000),
        };
        self.pass(wait as i64);
        match self.rng.below(40) {
            0..24 => {
                let source = self.rng.below(self.kinds.len() as u64) as usize;
                self.exchange(source)?;
            }
            24..26 => {
                let drift = self.rng.between(0, 2 * WANDERS_PPM) as i64 - WANDERS_PPM as i64;
                self.ppm = drift;
            }
            26..29 => self.wrong += signed(&mut self.rng, MS, 3 * SECOND),
            29..32 => self.wrong = signed(&mut self.rng, 0, 150 * MS),
            32 => self.sleep()?,
            33..35 => self.crash(),
            35..37 => self.step(Input::Reset(self.ceiling, Epoch(0)))?,
            _ => self.step(Input::Tick)?,
        }
        self.hand_out()?;
        self.check()
    }

    fn exchange(&mut self, source: usize) -> Result<(), String> {
        let sent = self.now().mono;
        let way = |rng: &mut Rng| if rng.chance(0.2) { rng.between(20, 250) } else { rng.between(1, 30) };
        let there = way(&mut self.rng) as i64 * MS;
        self.pass(there);
        let (off, error) = match self.kinds[source] {
            Kind::Right { error } => (signed(&mut self.rng, 0, error), error),
            Kind::Wrong { by } => (by, MS),
            Kind::Wild => (signed(&mut self.rng, 0, 5 * SECOND), self.rng.between(0, 50_000) as i64),
        };
        let shown = BEGIN + self.truth + off;
        let back = way(&mut self.rng) as i64 * MS;
        self.pass(back);
        let sample =
            Sample { sent, received: self.now().mono, shown, error: Duration::from_micros(error as u64) };
        if self.rng.chance(0.1) { Ok(()) } else { self.step(Input::Sampled(source, sample)) }
    }

    /// The machine sleeps: its monotonic clock stands still, its wall clock may go on or not.
    fn sleep(&mut self) -> Result<(), String> {
        let gap = self.rng.between(1_000, 20_000_000) as i64;
        self.truth += gap;
        if self.rng.chance(0.5) {
            self.wrong -= gap;
        }
        self.step(Input::Suspended(Duration::from_micros(gap as u64)))
    }

    fn crash(&mut self) {
        self.disk.crash(&mut self.rng);
        self.store = Store::open(MemoryEngine::open(&self.disk)).expect("what a log leaves opens");
        let row = self.store.get(Family::Meta, EPOCH_KEY).expect("the disk reads");
        let row = row.map(|bytes| EpochRow::read(&bytes).expect("what was written is read"));
        self.keeper = ClockKeeper::new(self.settings.clone(), row, self.ceiling);
        (self.hybrid, self.last, self.mono_ns) = (None, HybridTime::ZERO, 0);
        self.out = Out::default();
    }

    fn step(&mut self, input: Input) -> Result<(), String> {
        let now = self.now();
        self.keeper.step(now, input, &mut self.out);
        let mut barrier = Barrier::default();
        let (mut batches, mut said) = (Vec::new(), Vec::new());
        barrier.absorb(&mut self.out, |release| match release {
            Release::Persist(ticket, batch) => batches.push((ticket, batch)),
            Release::Perform(effect) => said.push(effect),
        });
        for (ticket, batch) in batches {
            self.store.write(&batch).map_err(|fault| fault.to_string())?;
            if self.rng.chance(0.2) {
                self.crash();
                return Ok(());
            }
            self.store.sync().map_err(|fault| fault.to_string())?;
            barrier.durable(ticket, |effect| said.push(effect));
        }
        for effect in said {
            if let Effect::EpochDurable(epoch) = effect {
                self.step(Input::EpochDurable(epoch))?;
                // A new epoch has a new clock.
                (self.hybrid, self.last) = (None, HybridTime::ZERO);
            }
        }
        Ok(())
    }

    /// The node uses its hybrid clock, as soon as it may.
    fn hand_out(&mut self) -> Result<(), String> {
        let wall = (self.now().wall / 1_000) as u64;
        let waits = matches!(self.keeper.frozen(self.now()), Some(Freeze::CatchingUp(_) | Freeze::Resetting));
        if self.hybrid.is_none() && waits {
            return Ok(());
        }
        if self.hybrid.is_none() {
            self.ceiling = self.ceiling.max(HybridTime::new(wall + 250, 0));
            self.hybrid = Some(HybridClock::new(HybridTime::new(wall + 250, 0), self.settings.max_offset));
        }
        let hybrid = self.hybrid.as_ref().expect("it was just made");
        if let Some(wanted) = hybrid.wants_ceiling(wall) {
            self.ceiling = self.ceiling.max(wanted);
            hybrid.raise_ceiling(wanted);
        }
        let time = hybrid.tick(wall).map_err(|refusal| refusal.to_string())?;
        if time <= self.highest {
            return Err(format!("hybrid time went back from {} to {time}", self.highest));
        }
        (self.last, self.highest) = (time, time);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let (now, truth) = (self.now(), BEGIN + self.truth);
        if let Some(bounds) = self.keeper.bounds(now.mono).filter(|bounds| !bounds.contains(truth)) {
            return Err(format!("true time {truth} is not within {bounds:?}"));
        }
        let tolerance = self.settings.tolerance().as_micros() as i64;
        if self.keeper.frozen(now).is_none() && self.wrong.abs() > tolerance {
            return Err(format!("strong paths stand with a clock that is wrong by {} µs", self.wrong));
        }
        let most = (truth + 300 * MS) / 1_000;
        if self.keeper.frozen(now).is_none() && self.last.millis() as i64 > most {
            return Err(format!("strong paths stand, and {} was handed out at {truth} µs", self.last));
        }
        let report = self.keeper.report(now);
        for (source, kind) in report.sources.iter().zip(&self.kinds) {
            if source.verdict == Verdict::Outlier && matches!(kind, Kind::Right { .. }) {
                return Err(format!("{} is right and called an outlier", source.name));
            }
        }
        match report.standing {
            Standing::Degraded(doubts)
                if doubts.iter().any(|doubt| matches!(doubt, Doubt::Drifts { .. })) =>
            {
                Err(format!("a drift of {} ppm is within the bound: {doubts:?}", self.ppm))
            }
            _ => Ok(()),
        }
    }

    /// Everything is well from now on, and must be seen to be.
    fn heal(&mut self) -> Result<(), String> {
        (self.wrong, self.ppm) = (0, 20);
        self.kinds.iter_mut().for_each(|kind| *kind = Kind::Right { error: MS });
        for _ in 0..40 {
            self.pass(SECOND);
            for source in 0..self.kinds.len() {
                self.exchange(source)?;
            }
        }
        self.hand_out()?;
        self.check()?;
        match self.keeper.frozen(self.now()) {
            None => Ok(()),
            Some(freeze) => Err(format!("everything is well, and strong paths are frozen: {freeze}")),
        }
    }
}

/// A number between these two, of either sign.
fn signed(rng: &mut Rng, low: i64, high: i64) -> i64 {
    let size = rng.between(low as u64, high as u64) as i64;
    if rng.chance(0.5) { size } else { -size }
}
