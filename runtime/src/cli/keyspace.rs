//! `rhumb keyspace`: which keyspaces there are.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{CreateKeyspace, KeyspaceView, KvRefusal, Lifetimes, ListKeyspaces};
use rhumb_core::DataClass;
use serde::Serialize;

use super::args::duration;
use super::connect::{Connect, ask};
use super::output::{Done, Failure, Output};
use super::placement::Wanted;
use crate::client::kv::near;
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
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7))]
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
            ranges: view.ranges,
            replicas: view.nodes.iter().map(ToString::to_string).collect(),
            retention_ms: ms(view.lifetimes.retention()),
            ttl_ms: view.lifetimes.ttl.map(ms),
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
            "{:<24} class {:<14} ranges {:<6} on {}, retention {}",
            self.keyspace,
            self.class.as_str(),
            ranges.join(", "),
            self.replicas.join(", "),
            duration_text(Duration::from_millis(self.retention_ms))
        )?;
        match self.ttl_ms {
            Some(ttl) => write!(f, ", TTL {}", duration_text(Duration::from_millis(ttl))),
            None => Ok(()),
        }
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

async fn listed(connect: &Connect) -> Result<Vec<KeyspaceView>, Failure> {
    let client = connect.client().await?;
    let asked = ask(&client, &near(&client, None), |_| ListKeyspaces {}).await;
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
            placement: self.wanted.placement(),
        };
        let asked = ask(&client, &near(&client, None), |_| message.clone()).await;
        client.close().await;
        let shown = Shown::from(asked.answer??);
        output.answer(&shown, &shown);
        Ok(Done::Well)
    }
}
