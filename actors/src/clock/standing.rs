//! What a keeper says of the node's clock: whether strong paths stand, and why they do not.

use std::fmt;
use std::time::Duration;

use rhumb_core::{Epoch, NodeId};

use super::interval::Interval;

/// Whether strong paths stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The sources agree and the wall clock is near what they agree on.
    Synchronised,
    /// Strong paths stand; an operator should look.
    Degraded(Vec<Doubt>),
    /// Strong paths are refused, with this reason. Reads that need no clock go on.
    Frozen(Freeze),
}

impl Standing {
    /// Why strong paths are refused, if they are.
    #[must_use]
    pub fn frozen(&self) -> Option<&Freeze> {
        match self {
            Self::Frozen(freeze) => Some(freeze),
            Self::Synchronised | Self::Degraded(_) => None,
        }
    }

    /// Its name, and the kinds of what is to be said with it.
    pub(super) fn kind(&self) -> (&'static str, Vec<&'static str>) {
        let kinds = match self {
            Self::Synchronised => Vec::new(),
            Self::Degraded(doubts) => {
                let mut kinds: Vec<_> = doubts.iter().map(Doubt::name).collect();
                kinds.dedup();
                kinds
            }
            Self::Frozen(freeze) => vec![freeze.name()],
        };
        (self.name(), kinds)
    }

    /// Its name in reports and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Synchronised => "synchronised",
            Self::Degraded(_) => "degraded",
            Self::Frozen(_) => "frozen",
        }
    }
}

/// What is not as it should be, although strong paths stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// No source of time is set: only peers say whether this clock is wrong.
    NoSources,
    /// This source contradicts what the others agree on, and is left out.
    Outlier(String),
    /// This source has not been heard.
    Silent(String),
    /// The sources that were heard last do not agree; what they agreed on before still holds, and grows wider.
    HeldOver(Duration),
    /// The node's own clock runs faster or slower than it may.
    Drifts {
        /// Within which its rate certainly lies, in parts per million.
        ppm: (i64, i64),
        /// Within which it may.
        max_ppm: u32,
    },
    /// True time may be further from the wall clock than half of what is tolerated.
    Far(Duration),
    /// The kernel does not vouch for its clock: it may be this wrong, or no time service keeps it in step.
    Kernel(Option<Duration>),
}

impl Doubt {
    /// Its kind in reports and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoSources => "no_sources",
            Self::Outlier(_) => "outlier",
            Self::Silent(_) => "silent",
            Self::HeldOver(_) => "held_over",
            Self::Drifts { .. } => "drifts",
            Self::Far(_) => "far",
            Self::Kernel(_) => "kernel",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSources => {
                f.write_str("no source of time is set: only other nodes say whether this clock is wrong")
            }
            Self::Outlier(name) => write!(f, "{name} contradicts the other sources, and is left out"),
            Self::Silent(name) => write!(f, "{name} is not heard"),
            Self::HeldOver(since) => write!(
                f,
                "the sources do not agree; what they agreed on {}s ago holds still, and grows wider",
                since.as_secs()
            ),
            Self::Drifts { ppm: (low, high), max_ppm } => write!(
                f,
                "this machine's clock is off by {low} to {high} parts in a million, and {max_ppm} is the most: true \
                 time runs {} than it",
                if *low > 0 { "faster" } else { "slower" }
            ),
            Self::Far(off) => write!(f, "true time may be {off:?} from the wall clock"),
            Self::Kernel(None) => f.write_str("no time service keeps the kernel's clock in step"),
            Self::Kernel(Some(error)) => {
                write!(f, "the kernel's clock may be {error:?} wrong, as it says itself")
            }
        }
    }
}

/// Why strong paths are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// The wall clock has not passed the times that an earlier life or epoch of this clock may have handed out, or the
    /// hybrid clock is further ahead of true time than another node's may be behind it. So long.
    CatchingUp(Duration),
    /// A new epoch of this clock is not durable yet.
    Resetting,
    /// Never have enough sources been heard that agree.
    NeverAgreed {
        /// How many were heard.
        heard: usize,
        /// How many must be: one more than may be wrong.
        needed: usize,
    },
    /// True time may be further from the wall clock than is tolerated.
    Beyond {
        /// How far it may be.
        off: Duration,
        /// How far it may be at most.
        tolerance: Duration,
    },
    /// The wall clock certainly differs from those of more than half of the other nodes.
    OffPeers {
        /// From how many.
        off: usize,
        /// Of how many.
        of: usize,
        /// By more than this.
        limit: Duration,
    },
}

impl Freeze {
    /// Its kind in reports and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CatchingUp(_) => "catching_up",
            Self::Resetting => "resetting",
            Self::NeverAgreed { .. } => "never_agreed",
            Self::Beyond { .. } => "beyond",
            Self::OffPeers { .. } => "off_peers",
        }
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatchingUp(behind) => write!(
                f,
                "times that this node may have handed out lie {behind:?} too far ahead: wait, or set the wall clock right if it is behind"
            ),
            Self::Resetting => f.write_str("a new epoch of the clock is being made durable"),
            Self::NeverAgreed { heard, needed } => write!(
                f,
                "{heard} sources of time were heard and at least {needed} must be, and agree: look at which are silent"
            ),
            Self::Beyond { off, tolerance } => write!(
                f,
                "true time may be {off:?} from the wall clock, and {tolerance:?} is tolerated: set the clock right, or see to its sources"
            ),
            Self::OffPeers { off, of, limit } => write!(
                f,
                "the wall clock differs by more than {limit:?} from those of {off} of {of} other nodes: set it right"
            ),
        }
    }
}

/// What became of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It agrees with the majority.
    Agrees,
    /// It contradicts the majority, and is left out.
    Outlier,
    /// It was heard, and no majority agrees.
    Undecided,
    /// It was not heard yet.
    Silent,
}

/// One source, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Where (its time − the wall clock) lies, in microseconds.
    pub offset: Option<Interval>,
    /// How long ago it was heard.
    pub age: Option<Duration>,
}

/// Another node's wall clock, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Which node.
    pub node: NodeId,
    /// Where (its wall clock − this one's) lies, in microseconds.
    pub offset: Interval,
    /// How long ago it was compared.
    pub age: Duration,
    /// Whether it is certainly off, by more than two nodes' clocks may differ.
    pub off: bool,
}

/// The clock of a node, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReport {
    /// Whether strong paths stand.
    pub standing: Standing,
    /// The epoch of the clock.
    pub epoch: Epoch,
    /// Where (true time − the wall clock) lies, in microseconds; none without an agreement.
    pub offset: Option<Interval>,
    /// How far true time may be from the wall clock: by what the sources agree on, or by the kernel's own word where
    /// that is more. It may widen what was measured, never narrow it.
    pub uncertainty: Option<Duration>,
    /// The rate of true time against the node's clock, in parts per million.
    pub drift_ppm: Option<Interval>,
    /// The sources, in the order of the settings.
    pub sources: Vec<SourceReport>,
    /// The other nodes that were compared, by name.
    pub peers: Vec<PeerReport>,
    /// From how many of them the wall clock is certainly off.
    pub off_peers: usize,
}
