//! Which traces are kept.
//!
//! * It decides: whether a trace that begins here is kept, by its id.
//! * It never does: decide a second time. Whoever continues a trace does as it was decided where the
//!   trace began; a decision at each hop would leave traces with holes.
//! * Invariant: with the same ratio every program decides alike for the same id, and whoever keeps a
//!   smaller share keeps a part of what a larger one keeps.

use rhumb_transport::TraceContext;

/// A share of all traces, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Every trace.
    pub const ALL: Self = Self(1_000_000);
    /// None, but for what is always kept.
    pub const NONE: Self = Self(0);

    /// So many of a million; none if that is more than a million.
    #[must_use]
    pub fn per_million(count: u32) -> Option<Self> {
        (count <= Self::ALL.0).then_some(Self(count))
    }

    /// As so many of a million.
    #[must_use]
    pub fn as_per_million(self) -> u32 {
        self.0
    }

    /// Whether a trace with this id is among them: the low 63 bits of the id, as a fraction of 2^63, are
    /// below the share (OpenTelemetry's `TraceIdRatioBased`, as its Rust SDK has it).
    fn holds(self, trace_id: u128) -> bool {
        let position = u128::from(trace_id as u64 >> 1);
        position * 1_000_000 < u128::from(self.0) << 63
    }
}

/// What a trace begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A call: a share of them is kept.
    Call,
    /// What happens seldom and matters to whoever looks for a cause: a restart after a panic, a change of
    /// certificate or standing, a fence. Always kept.
    Incident,
    /// Somebody asked for this trace by name: `-v` of a command. Always kept.
    Wanted,
}

/// Whether a trace is kept: as its parent says; a new one by what it begins with and its id.
#[must_use]
pub fn keeps(share: Share, parent: Option<TraceContext>, begin: Begin, trace_id: u128) -> bool {
    match (parent, begin) {
        (Some(parent), _) => parent.is_sampled(),
        (None, Begin::Incident | Begin::Wanted) => true,
        (None, Begin::Call) => share.holds(trace_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(millionths: u32) -> Share {
        Share::per_million(millionths).expect("at most a million")
    }

    #[test]
    fn a_trace_that_goes_on_is_kept_as_it_was_decided_whatever_the_share() {
        for flags in 0..=3 {
            let parent = Some(TraceContext { trace_id: u128::MAX, span_id: 1, flags });
            for begin in [Begin::Call, Begin::Incident, Begin::Wanted] {
                for share in [Share::NONE, share(10_000), Share::ALL] {
                    assert_eq!(keeps(share, parent, begin, 0), flags & 1 == 1, "{flags} {begin:?} {share:?}");
                }
            }
        }
    }

    #[test]
    fn a_new_trace_is_kept_by_its_id_and_an_incident_always() {
        let half = 1_u128 << 63;
        for (millionths, trace_id, kept) in [
            (0, 0, false),
            (1, 0, true),
            (500_000, half - 1, true),
            (500_000, half, false),
            (999_999, u128::MAX, false),
            (1_000_000, u128::MAX, true),
            // Only the low half counts, as everywhere.
            (500_000, u128::MAX << 64, true),
        ] {
            let share = share(millionths);
            assert_eq!(keeps(share, None, Begin::Call, trace_id), kept, "{millionths} of {trace_id:#x}");
            assert!(
                keeps(share, None, Begin::Incident, trace_id) && keeps(share, None, Begin::Wanted, trace_id)
            );
        }
    }

    #[test]
    fn a_smaller_share_is_a_part_of_a_larger_one_and_about_as_large_as_said() {
        let mut kept = [0_u32; 2];
        for n in 0..100_000_u64 {
            let id = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let both = [share(10_000), share(100_000)].map(|share| keeps(share, None, Begin::Call, id));
            assert!(!both[0] || both[1]);
            kept[0] += u32::from(both[0]);
            kept[1] += u32::from(both[1]);
        }
        assert!((900..1_100).contains(&kept[0]) && (9_800..10_200).contains(&kept[1]), "{kept:?}");
    }

    #[test]
    fn no_share_is_more_than_all() {
        assert_eq!(Share::per_million(1_000_001), None);
    }
}
