//! Where the replicas of a range should stand: a plan, the reason of each seat, and the alternatives that were not taken.
//!
//! * It decides: which nodes vote, which follow without a vote to be read nearby, in which region the lease is best held, and
//!   what the loss of a region then means.
//! * It never does: put a replica where the policy does not let the class be held; answer where there is no policy, or no such
//!   class in it; measure anything. Distances are those of the published matrix, which every node has: the same question has
//!   the same answer everywhere.
//! * Invariant: a plan is a pure function of its ground and its wish, whatever the order of the sites.
//!
//! A mesh's settings know regions and nodes and nothing between them: a *zone* here is one node.

mod plan;
mod stand_in;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use rhumb_core::{DataClass, NodeId, Region};
use thiserror::Error;

use crate::policy::PolicySnapshot;

pub use plan::plan;
pub use stand_in::stand_in;

/// The voters of a range where nobody says how many.
pub const VOTERS: u32 = 3;

/// What the voters are to live through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Survive {
    /// The loss of any one region.
    Region,
    /// The loss of any one node. All voters stand as near to each other as possible.
    Zone,
}

/// Whether there are replicas without a vote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Learners {
    /// There are none.
    #[default]
    None,
    /// One in each region that may hold the class and has no voter.
    Auto,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// How many voters; 0: [`VOTERS`], or as many as there may be.
    pub replication: u32,
    /// What they are to live through; none: as much as possible, and the plan says what that is.
    pub survive: Option<Survive>,
    /// Whether there are replicas without a vote.
    pub learners: Learners,
    /// Where most is written and read strongly; none: it is not known, and all regions count alike.
    pub home: Option<Region>,
}

/// What is known of a node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It is there.
    Known,
    /// The node has not said yet which disk it has.
    Unknown,
    /// The node has not been reached for so long.
    Lost(Duration),
}

/// A node on which a replica might stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub disk: Disk,
    /// The replicas that it has already.
    pub replicas: u32,
}

/// The round trip between two regions; none where it is not known.
pub type Distances<'a> = &'a dyn Fn(&Region, &Region) -> Option<Duration>;

/// What a plan stands on.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// All nodes.
    pub sites: &'a [Site],
    /// How far regions are from each other.
    pub distances: Distances<'a>,
    /// The policy.
    pub policy: &'a PolicySnapshot,
    /// The class of the data.
    pub class: &'a DataClass,
}

/// What a replica is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It votes.
    Voter,
    /// It follows and is read.
    Learner,
    /// It holds the lease.
    Leaseholder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Leaseholder => "leaseholder",
        })
    }
}

/// A seat of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The node.
    pub node: NodeId,
    /// What for.
    pub role: Role,
    /// Why there.
    pub why: String,
}

/// An alternative that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The node.
    pub node: NodeId,
    /// What for.
    pub role: Role,
    /// Why not.
    pub why: String,
}

/// Where replicas should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Those that vote.
    pub voters: Vec<Chosen>,
    /// Those that do not.
    pub learners: Vec<Chosen>,
    /// The voter that best holds the lease.
    pub leaseholder: Chosen,
    /// The regions any one of which may be lost while the others go on writing.
    pub may_lose: Vec<Region>,
    /// In words, what the loss of a region or a node means.
    pub survives: String,
    /// What was not taken.
    pub rejected: Vec<Rejected>,
    /// The version of the policy under which it was made.
    pub policy: u64,
}

/// Why there is no plan: what was wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPlan {
    /// The policy says no, or nothing.
    #[error("{0}")]
    NotAllowed(String),
    /// What is wanted cannot be.
    #[error("{0}")]
    Impossible(String),
}
