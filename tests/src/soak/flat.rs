//! Whether a node's memory, descriptors and threads stay as they are.
//!
//! * It decides: from samples of the whole time, by the medians of the second and of the last quarter (the
//!   first is for warming up; a median does not mind what a fault does for a while).
//! * It never does: measure anything.
//! * Invariant: what a node is meant to remember, its keys and holds, may grow with their number, and with
//!   nothing else.

use std::fmt;

/// What one process of a node used at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Bytes resident.
    pub resident: u64,
    /// Descriptors open.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Idempotency keys and holds that it remembers, as it is meant to.
    pub remembered: u64,
}

/// What may grow, and by how much, between the second quarter and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Bytes, whatever happens: tables and buffers that fill once.
    pub resident: u64,
    /// Bytes for each key or hold remembered.
    pub a_remembered: u64,
    /// Descriptors: RocksDB's files come and go.
    pub descriptors: u64,
    /// Threads: those that are made for blocking work end after ten seconds.
    pub threads: u64,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { resident: 16 << 20, a_remembered: 1_024, descriptors: 12, threads: 4 }
    }
}

/// The medians of a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flat {
    /// Of the second quarter.
    pub early: Sample,
    /// Of the last.
    pub late: Sample,
}

/// Why it cannot be told, or what has grown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// Too few samples for quarters.
    TooShort(usize),
    /// More than is allowed.
    Grew {
        /// Of what.
        what: &'static str,
        /// In the second quarter.
        early: u64,
        /// In the last.
        late: u64,
        /// How much it might have grown.
        allowed: u64,
    },
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(samples) => write!(f, "{samples} samples are too few: soak for longer"),
            Self::Grew { what, early, late, allowed } => {
                write!(f, "{what} grew from {early} to {late}, by more than {allowed}")
            }
        }
    }
}

/// Samples of a quarter that are enough for a median.
const ENOUGH: usize = 3;

impl Flat {
    /// The medians of a node's samples, in the order of time.
    ///
    /// # Errors
    /// [`Growth::TooShort`].
    pub fn of(samples: &[Sample]) -> Result<Self, Growth> {
        let quarter = samples.len() / 4;
        if quarter < ENOUGH {
            return Err(Growth::TooShort(samples.len()));
        }
        let last = samples.len() - quarter;
        Ok(Self { early: middle(&samples[quarter..2 * quarter]), late: middle(&samples[last..]) })
    }

    /// What has grown by more than is allowed.
    #[must_use]
    pub fn grown(&self, allowed: &Allowed) -> Vec<Growth> {
        let (early, late) = (self.early, self.late);
        let remembered = late.remembered.saturating_sub(early.remembered);
        let bytes = allowed.resident + remembered * allowed.a_remembered;
        let each = [
            ("resident memory", early.resident, late.resident, bytes),
            ("descriptors", early.descriptors, late.descriptors, allowed.descriptors),
            ("threads", early.threads, late.threads, allowed.threads),
        ];
        let over = each.into_iter().filter(|(_, early, late, by)| late.saturating_sub(*early) > *by);
        over.map(|(what, early, late, allowed)| Growth::Grew { what, early, late, allowed }).collect()
    }
}

fn middle(samples: &[Sample]) -> Sample {
    let of = |part: fn(&Sample) -> u64| {
        let mut all: Vec<u64> = samples.iter().map(part).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Sample {
        resident: of(|sample| sample.resident),
        descriptors: of(|sample| sample.descriptors),
        threads: of(|sample| sample.threads),
        remembered: of(|sample| sample.remembered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred samples, each made from its number.
    fn grown(each: impl Fn(u64) -> Sample) -> Vec<String> {
        let samples: Vec<Sample> = (0..100).map(each).collect();
        let flat = Flat::of(&samples).expect("enough");
        flat.grown(&Allowed::default()).iter().map(ToString::to_string).collect()
    }

    const STEADY: Sample = Sample { resident: 60 << 20, descriptors: 50, threads: 20, remembered: 0 };

    #[test]
    fn what_stays_as_it_is_is_flat_whatever_single_faults_do_to_it() {
        assert_eq!(grown(|_| STEADY), Vec::<String>::new());
        let fault =
            |n: u64| if n % 10 == 3 { Sample { descriptors: 400, threads: 90, ..STEADY } } else { STEADY };
        assert_eq!(grown(fault), Vec::<String>::new());
        let warms = |n: u64| Sample { resident: (60 << 20) + n.min(20) * (4 << 20), ..STEADY };
        assert_eq!(grown(warms), Vec::<String>::new());
    }

    #[test]
    fn a_leak_is_named() {
        let memory = grown(|n| Sample { resident: (60 << 20) + n * (1 << 20), ..STEADY });
        assert!(memory.len() == 1 && memory[0].contains("resident memory"), "{memory:?}");
        let files = grown(|n| Sample { descriptors: 50 + n, ..STEADY });
        assert_eq!(files, ["descriptors grew from 87 to 137, by more than 12"]);
        let threads = grown(|n| Sample { threads: 20 + n / 5, ..STEADY });
        assert_eq!(threads, ["threads grew from 27 to 37, by more than 4"]);
    }

    #[test]
    fn what_is_remembered_may_take_its_place_and_no_more() {
        let at = |bytes: u64| {
            move |n: u64| Sample { resident: (60 << 20) + n * 1_000 * bytes, remembered: n * 1_000, ..STEADY }
        };
        assert_eq!(grown(at(600)), Vec::<String>::new());
        assert_eq!(grown(at(2_048)).len(), 1);
    }

    #[test]
    fn a_soak_that_is_too_short_says_so() {
        assert_eq!(Flat::of(&[STEADY; 11]), Err(Growth::TooShort(11)));
        assert!(Flat::of(&[STEADY; 12]).is_ok());
    }
}
