//! What can be asked of the placement of replicas, and the answers: the public face, versioned. All are class `control`, and hold no
//! key and no value.

use std::fmt;

use rhumb_core::{DataClass, NodeId, Region};
use rhumb_topology::placement::{Learners, Survive, Wish};
use serde::{Deserialize, Serialize};

use crate::ranges::messages::KvRefusal;
use crate::{Wire, remote};

/// What voters are to live through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Survives {
    /// The loss of any one region.
    Region,
    /// The loss of any one node.
    Zone,
}

/// Whether there are replicas that do not vote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Follows {
    /// There are none.
    #[default]
    None,
    /// One in each region that may hold the class and has no voter.
    Auto,
}

/// What is wanted of a keyspace's replicas, besides how many vote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Placement {
    /// What they are to live through; none: as much as possible.
    pub survive: Option<Survives>,
    /// Whether there are replicas that do not vote.
    pub learners: Follows,
    /// Where most is written; none: it was not said.
    pub home: Option<Region>,
}

impl Placement {
    /// What the planner is asked for.
    #[must_use]
    pub fn wish(&self, replication: u32) -> Wish {
        Wish {
            replication,
            survive: self.survive.map(|survive| match survive {
                Survives::Region => Survive::Region,
                Survives::Zone => Survive::Zone,
            }),
            learners: match self.learners {
                Follows::None => Learners::None,
                Follows::Auto => Learners::Auto,
            },
            home: self.home.clone(),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survive = match self.survive {
            None => "none",
            Some(Survives::Region) => "region",
            Some(Survives::Zone) => "zone",
        };
        let learners = match self.learners {
            Follows::None => "none",
            Follows::Auto => "auto",
        };
        let home = self.home.as_ref().map_or("none", Region::as_str);
        write!(f, "--survive {survive}, --learners {learners} and --home {home}")
    }
}

/// Where should replicas of this class, or of this keyspace, stand? One of the two is asked about.
#[remote(crate = crate, name = "placement.Plan", class = "control", audience = "operators", idempotent,
         reply = Result<PlacementView, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanPlacement {
    /// The class; of a keyspace its own.
    pub about: Option<DataClass>,
    /// The keyspace.
    pub keyspace: Option<String>,
    /// How many replicas are to vote; 0: what the keyspace has, or three, or as many as there may be.
    pub replication: u32,
    /// What is wanted besides; none: what the keyspace has.
    pub placement: Option<Placement>,
}

/// Has the replicas of a keyspace stand as the planner says. It goes on by itself: the same again is the same answer.
#[remote(crate = crate, name = "placement.Apply", class = "control", audience = "operators", idempotent,
         reply = Result<PlacementView, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyPlacement {
    /// The keyspace.
    pub keyspace: String,
    /// How many replicas are to vote; 0: what the keyspace has.
    pub replication: u32,
    /// What is wanted besides; none: what the keyspace has.
    pub placement: Option<Placement>,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PlacementView {
    /// Who made it. Which nodes are lost is what that one sees.
    pub node: NodeId,
    /// For this class.
    pub class: DataClass,
    /// For this keyspace.
    pub keyspace: Option<String>,
    /// Under this version of the policy.
    pub policy: u64,
    /// The seats, voters first.
    pub seats: Vec<SeatView>,
    /// Where the lease is best held.
    pub leaseholder: SeatView,
    /// The regions any one of which may be lost.
    pub may_lose: Vec<Region>,
    /// What the loss of a region or node means.
    pub survives: String,
    /// What was not taken.
    pub rejected: Vec<SeatView>,
    /// Of a keyspace: its ranges as they stand.
    pub ranges: Vec<RangePlaces>,
}

/// A seat, or one that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct SeatView {
    /// The node.
    pub node: NodeId,
    /// `voter`, `learner` or `leaseholder`.
    pub role: String,
    /// Why, or why not.
    pub why: String,
}

/// How a range stands beside its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct RangePlaces {
    /// The range.
    pub range: u64,
    /// The nodes of its voters.
    pub voters: Vec<NodeId>,
    /// The nodes of its learners.
    pub learners: Vec<NodeId>,
    /// Whether it stands as planned.
    pub as_planned: bool,
    /// Replicas that cannot be counted on, and what becomes of each: under-replication.
    pub missing: Vec<SeatView>,
}
