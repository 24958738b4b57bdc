//! `rhumb placement`: where replicas should stand, why, and what was not taken.

use std::fmt;

use clap::{Args, Subcommand, ValueEnum};
use rhumb_actors::placement::messages::{
    ApplyPlacement, Follows, Placement, PlacementView, PlanPlacement, RangePlaces, SeatView, Survives,
};
use rhumb_actors::ranges::messages::{KvRefusal, ListKeyspaces};
use rhumb_core::{DataClass, Region};
use serde::Serialize;

use super::args::number;
use super::connect::{Connect, ask, ask_in_time};
use super::output::{Done, Failure, Output};
use crate::client::MeshClient;
use crate::client::kv::nearest_first;

/// Where replicas stand.
#[derive(Debug, Subcommand)]
pub enum PlacementCommand {
    /// Say where replicas should stand, why, and which alternatives were not taken. Nothing is changed.
    Plan(PlanArgs),
    /// Have a keyspace's replicas stand as planned.
    Apply(Apply),
}

/// In a home's place: there is none.
const NOWHERE: &str = "none";

/// What is wanted of where replicas stand. What is not given stays as it was.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Wanted {
    /// What the voters are to live through: the loss of any one region, or of any one zone, which is a node here. `none`: as much
    /// as possible, as where nothing was said.
    #[arg(long, value_enum)]
    survive: Option<SurviveArg>,
    /// Whether there is a replica that does not vote in each region that may hold the class and has no voter: none unless given.
    #[arg(long, value_enum)]
    learners: Option<LearnersArg>,
    /// Where most is written and read strongly: the lease goes there when it was held elsewhere for 30 s. `none`: nowhere, as where
    /// nothing was said.
    #[arg(long, value_name = "REGION")]
    home: Option<Region>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SurviveArg {
    Region,
    Zone,
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LearnersArg {
    Auto,
    None,
}

impl Wanted {
    /// As it is asked for, and for the rest as it was said before.
    pub(super) fn over(&self, said: Placement) -> Placement {
        Placement {
            survive: match self.survive {
                Some(SurviveArg::Region) => Some(Survives::Region),
                Some(SurviveArg::Zone) => Some(Survives::Zone),
                Some(SurviveArg::None) => None,
                None => said.survive,
            },
            learners: match self.learners {
                Some(LearnersArg::Auto) => Follows::Auto,
                Some(LearnersArg::None) => Follows::None,
                None => said.learners,
            },
            home: self.home.clone().or(said.home).filter(|home| home.as_str() != NOWHERE),
        }
    }

    fn is_said(&self) -> bool {
        self.survive.is_some() || self.learners.is_some() || self.home.is_some()
    }

    /// What a keyspace is to have: what it has where nothing else is said. None: nothing is said.
    async fn of(&self, keyspace: &str, client: &MeshClient) -> Result<Option<Placement>, Failure> {
        if !self.is_said() {
            return Ok(None);
        }
        let listed = ask(client, &nearest_first(client, None), |_| ListKeyspaces {}).await.answer??;
        let space = listed.into_iter().find(|space| space.name == keyspace);
        let space = space.ok_or_else(|| KvRefusal::NoSuchKeyspace(keyspace.to_owned()))?;
        Ok(Some(self.over(space.placement)))
    }
}

/// Say where replicas should stand, why, and which alternatives were not taken.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb placement plan --class inventory --learners auto\n  rhumb placement plan --keyspace profiles\n\nOf a keyspace it is also said how its ranges stand, and which lack a replica. Distances are those of the published latency matrix."
)]
#[group(id = "about", required = true, multiple = false, args = ["class", "keyspace"])]
pub struct PlanArgs {
    /// For data of this class.
    #[arg(long)]
    class: Option<DataClass>,
    /// For this keyspace: what it was created with counts where nothing else is said here.
    #[arg(long)]
    keyspace: Option<String>,
    /// How many replicas vote.
    #[arg(long, value_parser = number::<u32>(1..=7))]
    replication: Option<u32>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    connect: Connect,
}

/// Have a keyspace's replicas stand as planned.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb placement apply profiles --learners auto\n\nLearners come, are promoted and demoted, and voters move, one at a time; reads and writes go on. It goes on by itself: `rhumb placement plan --keyspace` shows how far it is."
)]
pub struct Apply {
    /// The keyspace.
    keyspace: String,
    /// How many replicas vote: what it has unless given.
    #[arg(long, value_parser = number::<u32>(1..=7))]
    replication: Option<u32>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct Seat {
    node: String,
    role: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Range {
    range: u64,
    voters: Vec<String>,
    learners: Vec<String>,
    as_planned: bool,
    missing: Vec<Seat>,
}

#[derive(Debug, Serialize)]
struct Planned {
    class: DataClass,
    keyspace: Option<String>,
    policy: u64,
    /// Who made it: which nodes are away is what that one sees.
    by: String,
    seats: Vec<Seat>,
    leaseholder: Seat,
    /// The regions any one of which may be lost.
    may_lose: Vec<String>,
    survives: String,
    rejected: Vec<Seat>,
    ranges: Vec<Range>,
}

fn names<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

impl From<SeatView> for Seat {
    fn from(SeatView { node, role, why }: SeatView) -> Self {
        Self { node: node.to_string(), role, why }
    }
}

impl From<RangePlaces> for Range {
    fn from(view: RangePlaces) -> Self {
        let RangePlaces { range, voters, learners, as_planned, missing } = view;
        let missing = missing.into_iter().map(Seat::from).collect();
        Self { range, voters: names(&voters), learners: names(&learners), as_planned, missing }
    }
}

impl From<PlacementView> for Planned {
    fn from(view: PlacementView) -> Self {
        let seats = |all: Vec<SeatView>| all.into_iter().map(Seat::from).collect();
        Self {
            class: view.class,
            keyspace: view.keyspace,
            policy: view.policy,
            by: view.node.to_string(),
            seats: seats(view.seats),
            leaseholder: view.leaseholder.into(),
            may_lose: names(&view.may_lose),
            survives: view.survives,
            rejected: seats(view.rejected),
            ranges: view.ranges.into_iter().map(Range::from).collect(),
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:<24} {}", self.role, self.node, self.why)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range {}: voters on {}", self.range, self.voters.join(", "))?;
        if !self.learners.is_empty() {
            write!(f, ", learners on {}", self.learners.join(", "))?;
        }
        f.write_str(if self.as_planned { "; as planned" } else { "; not as planned, or on its way" })?;
        for seat in &self.missing {
            write!(f, "\n  under-replicated: {} on {}: {}", seat.role, seat.node, seat.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.keyspace.as_ref().map(|name| format!(" of keyspace {name}")).unwrap_or_default();
        write!(f, "class {}{of}, policy version {}, by {}", self.class, self.policy, self.by)?;
        for seat in self.seats.iter().chain([&self.leaseholder]) {
            write!(f, "\n{seat}")?;
        }
        write!(f, "\n{}", self.survives)?;
        if !self.rejected.is_empty() {
            f.write_str("\nnot taken:")?;
        }
        for seat in &self.rejected {
            write!(f, "\n{seat}")?;
        }
        for range in &self.ranges {
            write!(f, "\n{range}")?;
        }
        Ok(())
    }
}

impl PlacementCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let (client, asked) = match self {
            Self::Plan(plan) => {
                let client = plan.connect.operator().await?;
                let placement = match &plan.keyspace {
                    Some(keyspace) => plan.wanted.of(keyspace, &client).await?,
                    // Of a class nothing else is known than what is said here.
                    None => plan.wanted.is_said().then(|| plan.wanted.over(Placement::default())),
                };
                let message = PlanPlacement {
                    about: plan.class,
                    keyspace: plan.keyspace,
                    replication: plan.replication.unwrap_or_default(),
                    placement,
                };
                let answer = ask_in_time(&client, &nearest_first(&client, None), &message).await.answer;
                (client, answer)
            }
            Self::Apply(apply) => {
                let client = apply.connect.operator().await?;
                let placement = apply.wanted.of(&apply.keyspace, &client).await?;
                let replication = apply.replication.unwrap_or_default();
                let message = ApplyPlacement { keyspace: apply.keyspace, replication, placement };
                let answer = ask_in_time(&client, &nearest_first(&client, None), &message).await.answer;
                (client, answer)
            }
        };
        client.close().await;
        let planned = Planned::from(asked??);
        output.answer(&planned, &planned);
        Ok(Done::Well)
    }
}
