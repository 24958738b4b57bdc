//! Splitting: whether a range becomes two without being told to, and before which key.
//!
//! * It decides: when a range's rows are to be walked to learn how large it is; whether it is larger, or busier, than it may be;
//!   the key before which it is split then; why it is not, where it was considered and rejected.
//! * It never does: split before the range's first key or where one side would have nothing of what it is split for; twice within
//!   [`SplitSettings::spacing`], or so soon after the lease was taken or the range was split by anybody; while a split or a move
//!   of it is under way. It changes nothing itself, and names no key in its reasons: keys are data.
//! * Invariant: a range is split for its size only by what a walk of its rows has found, never by an estimate.
//!
//! Each leaseholder begins with nothing: what is known of a range is kept nowhere. [`size`] walks, [`load`] samples.

pub mod load;
pub mod size;

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::rng::Seed;
use rhumb_storage::mvcc::{KeyspaceId, UserKey};

use self::load::{Finder, Touched};
use self::size::{Measure, Part, Size};

/// The load is looked at over no shorter a time than this.
const LOOKED_OVER: Duration = Duration::from_secs(1);
/// Rows are walked again when so many parts of the largest size were written since.
const WALKED_AFTER: u64 = 16;
/// About so many requests a second are sampled.
const SAMPLED: u64 = 300;

/// When ranges are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSettings {
    /// With more bytes of rows than this; none: not for their size.
    pub at: Option<u64>,
    /// With so many requests a second at the leaseholder; none: not for their load.
    pub load: Option<u64>,
    /// Not within this time after a range was split, or after its lease was taken. Requests are sampled for so long.
    pub spacing: Duration,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { at: Some(512 << 20), load: Some(2_500), spacing: Duration::from_secs(10) }
    }
}

impl SplitSettings {
    /// Ranges are split when they are told to, and not otherwise.
    pub const OFF: Self = Self { at: None, load: None, spacing: Duration::from_secs(10) };

    /// Whether ranges are split by themselves at all.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.at.is_none() && self.load.is_none()
    }
}

/// Why a range is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is larger than it may be.
    Size,
    /// It is busier than it may be.
    Load,
}

impl Why {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Load => "load",
        }
    }
}

/// Why a range is not split that is larger or busier than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejected {
    /// All of it is one key's versions.
    OneKey,
    /// Most requests are for one key, which stays on one side.
    HotKey,
    /// Each key that was sampled has less than a quarter of the requests on one side.
    Unbalanced,
    /// Most scans and batches cross each key that was sampled.
    Crossed,
    /// Too few requests were sampled.
    Few,
    /// It was split, or its lease was taken, a moment ago.
    TooSoon,
    /// It is being split, or a replica of it moves.
    UnderWay,
}

impl Rejected {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OneKey => "one_key",
            Self::HotKey => "hot_key",
            Self::Unbalanced => "unbalanced",
            Self::Crossed => "crossed",
            Self::Few => "few",
            Self::TooSoon => "too_soon",
            Self::UnderWay => "under_way",
        }
    }
}

/// A range is to be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Before this key.
    pub at: UserKey,
    /// For this.
    pub why: Why,
    /// In words, for logs.
    pub reason: String,
}

/// What a leaseholder knows of a range's size and load.
#[derive(Debug)]
pub struct Splitting {
    settings: SplitSettings,
    keyspace: KeyspaceId,
    from: UserKey,
    to: Option<UserKey>,
    /// Since when the range is as it is, or was to be split.
    since: HybridTime,
    /// What the last walk found.
    size: Option<Size>,
    /// Bytes that were written since that walk began.
    written: u64,
    /// A walk on its way.
    measure: Option<Measure>,
    /// When how many requests had been counted.
    counted: Option<(HybridTime, u64)>,
    /// Requests a second.
    rate: u64,
    finder: Option<Finder>,
    seed: Seed,
    /// Finders that were begun.
    finders: u64,
    /// Why it waits, as it was said.
    waits: Option<Rejected>,
}

impl Splitting {
    /// Of a range of these keys, whose lease was taken just now.
    #[must_use]
    pub fn begin(
        settings: SplitSettings,
        now: HybridTime,
        keyspace: KeyspaceId,
        (from, to): (UserKey, Option<UserKey>),
        seed: Seed,
    ) -> Self {
        Self {
            settings,
            keyspace,
            from,
            to,
            since: now,
            size: None,
            written: 0,
            measure: None,
            counted: None,
            rate: 0,
            finder: None,
            seed,
            finders: 0,
            waits: None,
        }
    }

    /// The range has these keys: with others than before it was split, and all that was known is of another range.
    pub fn has(&mut self, now: HybridTime, from: &UserKey, to: Option<&UserKey>) {
        if (&self.from, self.to.as_ref()) == (from, to) {
            return;
        }
        let (seed, finders) = (self.seed.clone(), self.finders);
        let keys = (from.clone(), to.cloned());
        *self = Self { finders, ..Self::begin(self.settings, now, self.keyspace, keys, seed) };
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
    }

    /// About how many bytes the range has: what the last walk found and what was written since. What was collected since is
    /// still counted.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.size.as_ref().map(|size| size.bytes.saturating_add(self.written))
    }

    /// The part of the range that is walked next, if it is to be walked: nothing is known of its size, or it may be larger by now
    /// than it may be.
    pub fn walks(&mut self) -> Option<Part> {
        let limit = self.settings.at?;
        if self.measure.is_none() {
            let due = match self.bytes() {
                None => true,
                Some(bytes) => bytes > limit && self.written >= (limit / WALKED_AFTER).max(1),
            };
            if !due {
                return None;
            }
            self.measure = Some(Measure::begin(self.from.clone()));
            self.written = 0;
        }
        let from = self.measure.as_ref()?.next().clone();
        Some(Part { keyspace: self.keyspace, from, to: self.to.clone() })
    }

    /// What was found in a part. One that is not the next of this walk is passed over.
    pub fn walked(&mut self, part: &Part, found: size::Found) {
        let Some(measure) = &mut self.measure else { return };
        if *measure.next() != part.from || self.to != part.to {
            return;
        }
        if let Some(size) = measure.met(found) {
            self.size = Some(size);
            self.measure = None;
        }
    }

    /// So many requests had been counted by now.
    pub fn counted(&mut self, now: HybridTime, requests: u64) {
        let Some((then, before)) = self.counted else {
            self.counted = Some((now, requests));
            return;
        };
        let passed = since(then, now);
        if passed < LOOKED_OVER {
            return;
        }
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.rate = requests.saturating_sub(before).saturating_mul(1_000) / passed;
        self.counted = Some((now, requests));
        let busy = self.settings.load.is_some_and(|load| self.rate > load);
        match (busy, &self.finder) {
            (true, None) => self.finds_anew(now),
            (false, Some(_)) => self.finder = None,
            _ => {}
        }
    }

    /// Of how many requests one is sampled; none: no request is.
    #[must_use]
    pub fn samples_one_in(&self) -> Option<u64> {
        self.finder.as_ref().map(|_| (self.rate / SAMPLED).max(1))
    }

    /// A request that was sampled.
    pub fn sampled(&mut self, touched: &Touched<'_>) {
        if let Some(finder) = &mut self.finder {
            finder.record(touched);
        }
    }

    /// Whether the range is split now. None: nothing is to be considered, or nothing new.
    pub fn decide(&mut self, now: HybridTime, under_way: bool) -> Option<Result<Decided, Rejected>> {
        let wait = match () {
            () if since(self.since, now) < self.settings.spacing => Some(Rejected::TooSoon),
            () if under_way => Some(Rejected::UnderWay),
            () => None,
        };
        let Some(found) = self.by_size().or_else(|| self.by_load(now, wait.is_some())) else {
            self.waits = None;
            return None;
        };
        match (found, wait) {
            (Ok(_), Some(wait)) => {
                // A wait is said once, not at each look.
                (self.waits.replace(wait) != Some(wait)).then_some(Err(wait))
            }
            (Ok(decided), None) => {
                self.since = now;
                self.waits = None;
                self.finder = None;
                Some(Ok(decided))
            }
            (Err(rejected), _) => Some(Err(rejected)),
        }
    }

    fn by_size(&mut self) -> Option<Result<Decided, Rejected>> {
        let (limit, size) = (self.settings.at?, self.size.as_mut()?);
        if size.bytes <= limit {
            return None;
        }
        let Some(middle) = &size.middle else {
            // Said once for each walk.
            return (!std::mem::replace(&mut size.told, true)).then_some(Err(Rejected::OneKey));
        };
        let reason = format!(
            "{} bytes in {} versions, more than {limit}; {} of them are before the key",
            size.bytes, size.versions, middle.before
        );
        Some(Ok(Decided { at: middle.key.clone(), why: Why::Size, reason }))
    }

    fn by_load(&mut self, now: HybridTime, waits: bool) -> Option<Result<Decided, Rejected>> {
        let limit = self.settings.load?;
        let finder = self.finder.as_ref().filter(|finder| finder.lasted(now) >= self.settings.spacing)?;
        match finder.best(&self.from) {
            Ok(best) => {
                let (rate, left, right) = (self.rate, best.left, best.right);
                let reason = format!(
                    "{rate} requests a second, more than {limit}; of those sampled {left} are before the key, \
                     {right} behind it and {} cross it",
                    best.crossed
                );
                Some(Ok(Decided { at: best.key, why: Why::Load, reason }))
            }
            // Whoever waits anyway goes on with the sample that it has.
            Err(_) if waits => None,
            Err(rejected) => {
                self.finds_anew(now);
                Some(Err(rejected))
            }
        }
    }

    fn finds_anew(&mut self, now: HybridTime) {
        self.finders += 1;
        let rng = self.seed.child(self.finders.to_be_bytes()).rng();
        self.finder = Some(Finder::begin(now, rng));
    }
}

/// How long it is from one time to a later one.
fn since(then: HybridTime, now: HybridTime) -> Duration {
    Duration::from_millis(now.millis().saturating_sub(then.millis()))
}
