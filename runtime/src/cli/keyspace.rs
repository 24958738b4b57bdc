//! `rhumb keyspace`: which keyspaces there are.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::placement::messages::{Follows, Placement, Survives};
use rhumb_actors::ranges::lifecycle::{Life, LiveKeyspace, Lived, Step};
use rhumb_actors::ranges::messages::{CreateKeyspace, KeyspaceView, KvRefusal, Lifetimes, ListKeyspaces};
use rhumb_core::DataClass;
use serde::Serialize;

use super::args::{duration, number};
use super::connect::{Connect, ask, ask_in_time};
use super::output::{Done, Failure, Output};
use super::placement::Wanted;
use crate::client::kv::nearest_first;
use crate::settings::units::duration_text;

/// Keyspaces: replicated keys and values.
#[derive(Debug, Subcommand)]
pub enum KeyspaceCommand {
    /// Create a keyspace, within the policy.
    Create(Create),
    /// List the keyspaces.
    Ls(Ls),
    /// Show a keyspace.
    Show(Show),
    /// End the writes of a keyspace; it is still read.
    Archive(Archive),
    /// Delete a keyspace: it can be restored within its retention, and is purged then.
    Delete(Delete),
    /// Have an archived or deleted keyspace read and written again.
    Restore(Restore),
    /// Clear a deleted keyspace from every disk at once: it cannot be brought back.
    Purge(Purge),
}

/// Create a keyspace, within the policy.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb keyspace create profiles --class inventory --replication 3\n\nThe same again is the same answer; another class, replication, placement, retention or TTL under the same name is refused. Replicas stand where `rhumb placement plan --class` says: on nodes of regions that may hold the class, in as many regions as possible."
)]
pub struct Create {
    /// Its name: lowercase letters, digits, '-', '_' and '.'.
    name: String,
    /// The class of its data, as the policy has it.
    #[arg(long)]
    class: DataClass,
    /// How many replicas vote: three, or as many as there may be, unless given.
    #[arg(long, value_parser = number::<u32>(1..=7))]
    replication: Option<u32>,
    /// How far back it can be read what was, such as 1h: a day unless given. Older versions are collected.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    retention: Option<Duration>,
    /// How long values are there that are written without --expires: until they are deleted unless given.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    ttl: Option<Duration>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    connect: Connect,
}

/// List the keyspaces.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb keyspace ls -o json")]
pub struct Ls {
    #[command(flatten)]
    connect: Connect,
}

/// Show a keyspace.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb keyspace show profiles")]
pub struct Show {
    /// Its name.
    name: String,
    #[command(flatten)]
    connect: Connect,
}

/// Which keyspace, and who is asked.
#[derive(Debug, Args)]
struct Which {
    /// Its name.
    name: String,
    #[command(flatten)]
    connect: Connect,
}

/// End the writes of a keyspace; it is still read.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb keyspace archive profiles\n\nWrites are refused as `archived`. Ends with 5 while a node that has a replica has not said that it goes by it (`pending`): the same again asks once more."
)]
pub struct Archive {
    #[command(flatten)]
    which: Which,
}

/// Delete a keyspace: it can be restored within its retention, and is purged then.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb keyspace delete profiles\n\nReads and writes are refused as `deleted`. Until its retention is over, counted from now on, `rhumb keyspace restore` brings it back whole; then it is purged by itself. Ends with 5 while a node has not said that it goes by it."
)]
pub struct Delete {
    #[command(flatten)]
    which: Which,
}

/// Have an archived or deleted keyspace read and written again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb keyspace restore profiles")]
pub struct Restore {
    #[command(flatten)]
    which: Which,
}

/// Clear a deleted keyspace from every disk at once: it cannot be brought back.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb keyspace delete profiles\n  rhumb keyspace purge profiles\n\nA keyspace that is not deleted is refused. Each node clears its rows as soon as it hears of it, one that is away when it is back. The name is free from then on; the number is never used again."
)]
pub struct Purge {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Serialize)]
struct LivedAnswer {
    keyspace: String,
    /// What it is now.
    life: String,
    /// Nodes with a replica that have not said that they go by it.
    pending: Vec<String>,
}

impl fmt::Display for LivedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.keyspace, self.life)?;
        match self.pending.as_slice() {
            [] => Ok(()),
            pending => write!(f, "; {} did not say yet that they go by it", pending.join(", ")),
        }
    }
}

impl Which {
    async fn step(self, step: Step, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = LiveKeyspace { keyspace: self.name.clone(), step };
        let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
        client.close().await;
        let Lived { keyspace, pending } = asked.answer??;
        let life = keyspace.map_or_else(|| "purged".to_owned(), |view| view.life.to_string());
        let pending = pending.iter().map(ToString::to_string).collect();
        let answer = LivedAnswer { keyspace: self.name, life, pending };
        output.answer(&answer, &answer);
        Ok(if answer.pending.is_empty() { Done::Well } else { Done::False })
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    keyspace: String,
    id: u32,
    class: DataClass,
    /// None where it was not said.
    replication: Option<u32>,
    ranges: Vec<u64>,
    replicas: Vec<String>,
    retention_ms: u64,
    /// None where values are there until they are deleted.
    ttl_ms: Option<u64>,
    /// Where it is in its life.
    life: String,
    /// When a deleted one is purged, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    purged_at_ms: Option<u64>,
    /// What is wanted of where its replicas stand.
    placement: Wished,
}

/// As it was said; null where it was not.
#[derive(Debug, Serialize)]
struct Wished {
    survive: Option<&'static str>,
    learners: &'static str,
    home: Option<String>,
}

impl From<&Placement> for Wished {
    fn from(said: &Placement) -> Self {
        Self {
            survive: said.survive.map(|survive| match survive {
                Survives::Region => "region",
                Survives::Zone => "zone",
            }),
            learners: match said.learners {
                Follows::None => "none",
                Follows::Auto => "auto",
            },
            home: said.home.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    keyspaces: Vec<Shown>,
}

impl From<KeyspaceView> for Shown {
    fn from(view: KeyspaceView) -> Self {
        Self {
            keyspace: view.name,
            id: view.id,
            class: view.class,
            replication: Some(view.replication).filter(|count| *count > 0),
            placement: Wished::from(&view.placement),
            ranges: view.ranges,
            replicas: view.nodes.iter().map(ToString::to_string).collect(),
            retention_ms: ms(view.lifetimes.retention()),
            ttl_ms: view.lifetimes.ttl.map(ms),
            life: view.life.to_string(),
            purged_at_ms: match view.life {
                Life::Deleted { until } => Some(until.millis()),
                Life::Active | Life::Archived => None,
            },
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{:<24} class {:<14} {:<10} on {}, retention {}",
            self.keyspace,
            self.class.as_str(),
            match ranges.as_slice() {
                [only] => format!("range {only}"),
                all => format!("ranges {}", all.join(", ")),
            },
            self.replicas.join(", "),
            duration_text(Duration::from_millis(self.retention_ms))
        )?;
        if let Some(ttl) = self.ttl_ms {
            write!(f, ", TTL {}", duration_text(Duration::from_millis(ttl)))?;
        }
        if let Some(home) = &self.placement.home {
            write!(f, ", home {home}")?;
        }
        if self.life == Life::Active.to_string() { Ok(()) } else { write!(f, ", {}", self.life) }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keyspaces.is_empty() {
            return f.write_str("there is no keyspace");
        }
        let lines: Vec<String> = self.keyspaces.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl KeyspaceCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Create(create) => create.run(output).await,
            Self::Archive(Archive { which }) => which.step(Step::Archive, output).await,
            Self::Delete(Delete { which }) => which.step(Step::Delete, output).await,
            Self::Restore(Restore { which }) => which.step(Step::Restore, output).await,
            Self::Purge(Purge { which }) => which.step(Step::Purge, output).await,
            Self::Ls(ls) => {
                let keyspaces = listed(&ls.connect).await?;
                let all = Listed { keyspaces: keyspaces.into_iter().map(Shown::from).collect() };
                output.answer(&all, &all);
                Ok(Done::Well)
            }
            Self::Show(show) => {
                let found = listed(&show.connect).await?.into_iter().find(|space| space.name == show.name);
                let found = found.ok_or(KvRefusal::NoSuchKeyspace(show.name))?;
                let shown = Shown::from(found);
                output.answer(&shown, &shown);
                Ok(Done::Well)
            }
        }
    }
}

pub(super) async fn listed(connect: &Connect) -> Result<Vec<KeyspaceView>, Failure> {
    let client = connect.client().await?;
    let asked = ask(&client, &nearest_first(&client, None), |_| ListKeyspaces {}).await;
    client.close().await;
    Ok(asked.answer??)
}

impl Create {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = CreateKeyspace {
            name: self.name,
            class: self.class,
            replication: self.replication.unwrap_or_default(),
            lifetimes: Lifetimes { retention: self.retention, ttl: self.ttl },
            placement: self.wanted.over(Placement::default()),
        };
        let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
        client.close().await;
        let shown = Shown::from(asked.answer??);
        output.answer(&shown, &shown);
        Ok(Done::Well)
    }
}
