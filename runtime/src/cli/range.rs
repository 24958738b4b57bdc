//! `rhumb range`: which replicas stand where, and where they are to stand.

use std::collections::BTreeMap;
use std::fmt;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{
    CheckRange, KvRefusal, ListKeyspaces, ListRanges, MoveReplica, Moved, RangeChecked, RangeView, SplitDone,
    SplitRange, TransferLease,
};
use rhumb_core::NodeId;
use serde::Serialize;

use super::args::whole;
use super::connect::{Connect, ask, ask_in_time};
use super::kv::bytes::Coded;
use super::output::{Done, Failure, Output};
use crate::client::kv::nearest_first;

/// Ranges and their replicas.
#[derive(Debug, Subcommand)]
pub enum RangeCommand {
    /// List the replicas of all nodes that can be asked.
    Ls(Ls),
    /// Split a range before a key.
    Split(Split),
    /// Move a replica of a range from one node to another one.
    Move(Move),
    /// Give a range's lease to the replica of a node.
    TransferLease(Transfer),
    /// Compare the replicas of a range.
    Check(Check),
}

/// Compare the replicas of a range.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb range check 2\n\nEach replica hashes what it is after one command. One that differs from most voters is quarantined and rebuilt by itself; where no majority is the same, nothing is done. Ends with 0 if all are the same, with 5 if one differs, and with 3 if one has not answered in time. Nodes compare every ranges.compare_every by themselves."
)]
pub struct Check {
    /// The number of the range.
    #[arg(value_parser = whole::<u64>)]
    range: u64,
    #[command(flatten)]
    connect: Connect,
}

/// List the replicas of all nodes that can be asked.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb range ls -o json")]
pub struct Ls {
    #[command(flatten)]
    connect: Connect,
}

/// Split a range before a key.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb range split profiles --at m\n\nThe right-hand range begins with the key, on the same nodes. Batches are atomic within one range."
)]
pub struct Split {
    /// The keyspace.
    keyspace: String,
    /// The first key of the right-hand range.
    #[arg(long)]
    at: String,
    #[command(flatten)]
    coded: Coded,
    #[command(flatten)]
    connect: Connect,
}

/// Move a replica of a range from one node to another one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb range move 2 --from us-east/n1 --to us-west/n1\n\nThe new replica is sent all of the range before the old one leaves it; reads and writes go on. The same again tells how far it is. While it is on its way it may be sent elsewhere instead, or back: from the node to which it moves."
)]
pub struct Move {
    /// The number of the range.
    #[arg(value_parser = whole::<u64>)]
    range: u64,
    /// The node that has a replica.
    #[arg(long)]
    from: NodeId,
    /// The node that is to have one.
    #[arg(long)]
    to: NodeId,
    #[command(flatten)]
    connect: Connect,
}

/// Give a range's lease to the replica of a node.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb range transfer-lease 2 --to eu-central/n1")]
pub struct Transfer {
    /// The number of the range.
    #[arg(value_parser = whole::<u64>)]
    range: u64,
    /// The node whose replica is to have it.
    #[arg(long)]
    to: NodeId,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct WasSplit {
    left: u64,
    right: u64,
}

#[derive(Debug, Serialize)]
struct WasMoved {
    range: u64,
    from: String,
    to: String,
    done: bool,
}

#[derive(Debug, Serialize)]
struct WasGiven {
    range: u64,
    leaseholder: u64,
    node: String,
}

impl fmt::Display for WasSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range {} ends there, and range {} begins", self.left, self.right)
    }
}

impl fmt::Display for WasMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.done {
            true => write!(f, "range {}: its replica on {} is on {} now", self.range, self.from, self.to),
            false => {
                write!(f, "range {}: its replica is on its way from {} to {}", self.range, self.from, self.to)
            }
        }
    }
}

impl fmt::Display for WasGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} on {} holds the lease of range {}", self.leaseholder, self.node, self.range)
    }
}

#[derive(Debug, Serialize)]
struct Compared {
    replica: u64,
    node: String,
    /// None: it has not answered in time.
    digest: Option<String>,
    /// It differs from most voters.
    odd: bool,
}

#[derive(Debug, Serialize)]
struct WasChecked {
    range: u64,
    /// The command after which they were compared.
    index: u64,
    /// Whether all have answered and are the same.
    same: bool,
    /// Whether there are differences, and no majority of the voters is the same.
    undecided: bool,
    replicas: Vec<Compared>,
}

impl WasChecked {
    fn of(range: u64, RangeChecked { index, replicas, odd, undecided }: RangeChecked) -> Self {
        let same = !undecided && odd.is_empty() && replicas.iter().all(|(_, _, digest)| digest.is_some());
        let compared = |(replica, node, digest): (u64, NodeId, Option<String>)| Compared {
            replica,
            node: node.to_string(),
            digest,
            odd: odd.contains(&replica),
        };
        Self { range, index, same, undecided, replicas: replicas.into_iter().map(compared).collect() }
    }
}

impl fmt::Display for WasChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match (self.same, self.undecided) {
            (true, _) => "its replicas are the same",
            (_, true) => "its replicas differ, and no majority is the same: nothing is done",
            (_, false) if self.replicas.iter().any(|one| one.odd) => {
                "a replica differs: it is quarantined and rebuilt"
            }
            (_, false) => "not all of its replicas have answered",
        };
        write!(f, "range {} after command {}: {said}", self.range, self.index)?;
        for Compared { replica, node, digest, odd } in &self.replicas {
            let digest = digest.as_deref().unwrap_or("no answer");
            write!(f, "\n{replica:>8} {node:<24} {digest:<18}{}", if *odd { " differs" } else { "" })?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Replica {
    range: u64,
    keyspace: String,
    replica: u64,
    node: String,
    leads: bool,
    leaseholder: bool,
    /// Whether it votes: a learner does not.
    votes: bool,
    applied: u64,
    closed_ms: u64,
    threshold_ms: u64,
    collected: u64,
    /// What is wrong with it; empty: nothing is known to be.
    condition: String,
    /// The replica from which a learner gets its entries; none: from the leader, as all that vote do.
    fed_by: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Listed {
    replicas: Vec<Replica>,
    /// Nodes that could not be asked.
    unreachable: Vec<String>,
}

impl From<RangeView> for Replica {
    fn from(view: RangeView) -> Self {
        let RangeView { range, keyspace, replica, node, leads, leaseholder, votes, applied, .. } = view;
        let closed_ms = view.closed_ms;
        let (threshold_ms, collected, node) = (view.threshold_ms, view.collected, node.to_string());
        Self {
            range,
            keyspace,
            replica,
            node,
            leads,
            leaseholder,
            votes,
            applied,
            closed_ms,
            threshold_ms,
            collected,
            condition: view.condition,
            fed_by: None,
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<7} {:<24} {:>8} {:<24} {:>9} {:<20}",
            "range", "keyspace", "replica", "node", "applied", ""
        )?;
        for replica in &self.replicas {
            let role = match (replica.leads, replica.leaseholder) {
                (true, true) => "leader, leaseholder",
                (true, false) => "leader",
                (false, true) => "leaseholder",
                (false, false) if !replica.votes => "learner",
                (false, false) => "",
            };
            write!(
                f,
                "\n{:<7} {:<24} {:>8} {:<24} {:>9} {role:<20}",
                replica.range, replica.keyspace, replica.replica, replica.node, replica.applied
            )?;
            if let Some(feeder) = replica.fed_by {
                write!(f, " fed by {feeder}")?;
            }
            if !replica.condition.is_empty() {
                write!(f, " {}", replica.condition)?;
            }
        }
        if !self.unreachable.is_empty() {
            write!(f, "\nnot reached: {}", self.unreachable.join(", "))?;
        }
        Ok(())
    }
}

impl RangeCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Ls(ls) => ls.run(output).await,
            Self::Split(split) => split.run(output).await,
            Self::Move(moves) => moves.run(output).await,
            Self::TransferLease(transfer) => transfer.run(output).await,
            Self::Check(check) => check.run(output).await,
        }
    }
}

impl Split {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let at = self.coded.read("--at", &self.at)?;
        let client = self.connect.operator().await?;
        let nodes = nearest_first(&client, None);
        let listed = ask(&client, &nodes, |_| ListKeyspaces {}).await.answer??;
        let space = listed.into_iter().find(|space| space.name == self.keyspace);
        let space = space.ok_or(KvRefusal::NoSuchKeyspace(self.keyspace))?;
        let message = SplitRange { class: space.class, keyspace: space.name, at, hops: 0 };
        let asked = ask(&client, &nodes, |_| message.clone()).await;
        client.close().await;
        let SplitDone { left, right } = asked.answer??;
        let done = WasSplit { left, right };
        output.answer(&done, &done);
        Ok(Done::Well)
    }
}

impl Move {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = MoveReplica { range: self.range, from: self.from.clone(), to: self.to.clone() };
        let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
        client.close().await;
        let done = asked.answer?? == Moved::Done;
        let moved =
            WasMoved { range: self.range, from: self.from.to_string(), to: self.to.to_string(), done };
        output.answer(&moved, &moved);
        Ok(if done { Done::Well } else { Done::InPart })
    }
}

impl Transfer {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = TransferLease { range: self.range, to: self.to.clone(), hops: 0 };
        // What passes in a moment the node that is asked waits for.
        let asked = ask(&client, &nearest_first(&client, None), |_| message.clone()).await;
        client.close().await;
        let given = WasGiven { range: self.range, leaseholder: asked.answer??, node: self.to.to_string() };
        output.answer(&given, &given);
        Ok(Done::Well)
    }
}

impl Check {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = CheckRange { range: self.range, hops: 0 };
        let asked = ask(&client, &nearest_first(&client, None), |_| message.clone()).await;
        client.close().await;
        let checked = WasChecked::of(self.range, asked.answer??);
        output.answer(&checked, &checked);
        let differs = checked.undecided || checked.replicas.iter().any(|one| one.odd);
        Ok(match (checked.same, differs) {
            (true, _) => Done::Well,
            (false, true) => Done::False,
            (false, false) => Done::InPart,
        })
    }
}

impl Ls {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let (mut replicas, mut unreachable) = (Vec::<Replica>::new(), Vec::new());
        let mut feeds = BTreeMap::new();
        for node in nearest_first(&client, None) {
            match ask(&client, std::slice::from_ref(&node), |_| ListRanges {}).await.answer {
                Ok(Ok(views)) => {
                    let fed = |view: &RangeView| {
                        let range = view.range;
                        view.feeds
                            .clone()
                            .into_iter()
                            .map(move |(learner, feeder)| ((range, learner), feeder))
                    };
                    feeds.extend(views.iter().flat_map(fed));
                    replicas.extend(views.into_iter().map(Replica::from));
                }
                Ok(Err(_)) | Err(_) => unreachable.push(node.to_string()),
            }
        }
        client.close().await;
        replicas.sort_by_key(|one| (one.range, one.replica));
        for replica in &mut replicas {
            replica.fed_by = feeds.get(&(replica.range, replica.replica)).copied();
        }
        let all = !unreachable.is_empty();
        let listed = Listed { replicas, unreachable };
        output.answer(&listed, &listed);
        Ok(if all { Done::InPart } else { Done::Well })
    }
}
