//! `rhumb range`: which replicas stand where, and how.

use std::fmt;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{ListRanges, RangeView};
use serde::Serialize;

use super::connect::{Connect, ask};
use super::output::{Done, Failure, Output};
use crate::client::kv::near;

/// Ranges and their replicas.
#[derive(Debug, Subcommand)]
pub enum RangeCommand {
    /// List the replicas of all nodes that can be asked.
    Ls(Ls),
}

/// List the replicas of all nodes that can be asked.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb range ls -o json")]
pub struct Ls {
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct Replica {
    range: u64,
    keyspace: String,
    replica: u64,
    node: String,
    leads: bool,
    leaseholder: bool,
    applied: u64,
    closed_ms: u64,
    threshold_ms: u64,
    collected: u64,
}

#[derive(Debug, Serialize)]
struct Listed {
    replicas: Vec<Replica>,
    /// Nodes that could not be asked.
    unreachable: Vec<String>,
}

impl From<RangeView> for Replica {
    fn from(view: RangeView) -> Self {
        let RangeView { range, keyspace, replica, node, leads, leaseholder, applied, closed_ms, .. } = view;
        let (threshold_ms, collected, node) = (view.threshold_ms, view.collected, node.to_string());
        Self {
            range,
            keyspace,
            replica,
            node,
            leads,
            leaseholder,
            applied,
            closed_ms,
            threshold_ms,
            collected,
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
                (false, false) => "",
            };
            write!(
                f,
                "\n{:<7} {:<24} {:>8} {:<24} {:>9} {role:<20}",
                replica.range, replica.keyspace, replica.replica, replica.node, replica.applied
            )?;
        }
        if !self.unreachable.is_empty() {
            write!(f, "\nnot reached: {}", self.unreachable.join(", "))?;
        }
        Ok(())
    }
}

impl RangeCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let Self::Ls(ls) = self;
        let client = ls.connect.operator().await?;
        let (mut replicas, mut unreachable) = (Vec::new(), Vec::new());
        for node in near(&client, None) {
            match ask(&client, std::slice::from_ref(&node), |_| ListRanges {}).await.answer {
                Ok(Ok(views)) => replicas.extend(views.into_iter().map(Replica::from)),
                Ok(Err(_)) | Err(_) => unreachable.push(node.to_string()),
            }
        }
        client.close().await;
        replicas.sort_by_key(|one| (one.range, one.replica));
        let all = !unreachable.is_empty();
        let listed = Listed { replicas, unreachable };
        output.answer(&listed, &listed);
        Ok(if all { Done::InPart } else { Done::Well })
    }
}
