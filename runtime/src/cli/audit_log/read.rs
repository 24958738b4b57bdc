//! `rhumb audit tail`, `query` and `checkpoint`.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use rhumb_actors::audit::messages::{AuditView, Mark, ShowAudit};
use rhumb_core::rng::Seed;
use rhumb_verify::checkpoint::nonce_line;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::super::args::{duration, whole};
use super::super::output::{Done, Failure, Output};
use super::follow::{Follower, Place};
use super::{RemoteLog, Shown, Whose};
use crate::client::now_ms;

/// How long a demand is waited for, and how often it is asked after.
const FRESH_WITHIN: Duration = Duration::from_secs(30);
const FRESH_EVERY: Duration = Duration::from_millis(200);

/// Show the last entries.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit tail\n  rhumb audit tail --count 50 --records --node eu-central/n1\n  rhumb audit tail --follow --from 100\n\nWith --follow it goes on with new entries, each when it is durable, until Ctrl-C (130) or until nobody reads its output any more; with -o json each entry is an object on a line of its own. While the node does not answer it waits, and says so. Records (who, to what, from where) are shown to operators of the log's own region, and that they were is in the log. An erased subject's stay shut. What was older than `audit.retention` was pruned: a log begins with its mark."
)]
pub struct Tail {
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20, conflicts_with = "from", value_parser = whole::<u64>)]
    count: u64,
    /// All from this number on, instead of the last ones.
    #[arg(long, value_name = "INDEX", value_parser = whole::<u64>)]
    from: Option<u64>,
    /// Go on with new entries as they become durable.
    #[arg(short, long)]
    follow: bool,
    /// Also what the records say.
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    whose: Whose,
}

/// Show entries by what they are.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit query --action pool.create --last 1h\n  rhumb audit query --subject 'operator us-east/dev' --records\n\nBy a subject only its own region's operators may ask. Unless --from is given it begins where the log does: entries that were pruned are refused."
)]
pub struct Query {
    /// From this number on; from the first one that was not pruned unless given.
    #[arg(long, value_parser = whole::<u64>)]
    from: Option<u64>,
    /// Up to, and without, this one.
    #[arg(long, value_parser = whole::<u64>)]
    to: Option<u64>,
    /// Of this kind; a name that ends with a dot stands for all that begin so.
    #[arg(long)]
    action: Option<String>,
    /// Not older than this.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    last: Option<Duration>,
    /// About this subject.
    #[arg(long, default_value = "")]
    subject: String,
    /// Also what the records say.
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct Entries {
    node: String,
    /// How many entries the log has, with those that were pruned.
    entries: u64,
    /// The first one that was not.
    mark: u64,
    found: Vec<Shown>,
}

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the {} entries of {}", self.found.len(), self.entries, self.node)?;
        if self.mark > 0 {
            write!(f, ", of which those before {} were pruned", self.mark)?;
        }
        self.found.iter().try_for_each(|one| write!(f, "\n{}", one.line()))
    }
}

impl Tail {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let (entries, mark) = (log.view().await?.entries, log.mark().await?.mark);
        let from = self.from.unwrap_or(entries.saturating_sub(self.count).max(mark));
        if self.follow {
            let done = self.follow(&log, from, output).await;
            log.close().await;
            return done;
        }
        let mut found = Vec::new();
        let range = (from, entries);
        log.entries(range, self.records, "", |view| {
            found.push(Shown::of(&view)?);
            Ok(())
        })
        .await?;
        log.close().await;
        let answer = Entries { node: log.node.to_string(), entries, mark, found };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }

    async fn follow(&self, log: &RemoteLog, from: u64, output: &Output) -> Result<Done, Failure> {
        let mut follower = Follower::new(log, output, Place { next: from, last: None }, self.records);
        let mut int = signal(SignalKind::interrupt()).map_err(Failure::local)?;
        let mut gone = pin!(output.gone());
        loop {
            let views = tokio::select! {
                views = follower.next() => views?,
                _ = int.recv() => return Ok(Done::Stopped),
                () = &mut gone => return Ok(Done::Well),
            };
            for view in &views {
                let shown = Shown::of(view)?;
                if output.line(&shown, shown.line()).is_err() {
                    return Ok(Done::Well);
                }
            }
            follower.go_to(follower.place().after(&views));
        }
    }
}

impl Query {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let (entries, mark) = (log.view().await?.entries, log.mark().await?.mark);
        let since = self.last.map_or(0, |last| now_ms().saturating_sub(last.as_millis() as u64));
        let mut found = Vec::new();
        let range = (self.from.unwrap_or(mark), self.to.unwrap_or(entries).min(entries));
        log.entries(range, self.records, &self.subject, |view| {
            let shown = Shown::of(&view)?;
            if shown.time_ms >= since
                && self.action.as_ref().is_none_or(|action| is_of(&shown.action, action))
            {
                found.push(shown);
            }
            Ok(())
        })
        .await?;
        log.close().await;
        let answer = Entries { node: log.node.to_string(), entries, mark, found };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

fn is_of(action: &str, wanted: &str) -> bool {
    if wanted.ends_with('.') { action.starts_with(wanted) } else { action == wanted }
}

/// Show how a log stands: its key, its last published checkpoint, and how far it is cosigned.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit checkpoint\n  rhumb audit checkpoint --fresh --node eu-central/n1\n\nWith --fresh it demands that the next checkpoint answers a nonce drawn now, and waits for it: what it shows is not older than the command. Ends with 5 when the log signs nothing any more, or a check found something."
)]
pub struct Checkpoint {
    /// Demand a checkpoint that was made after now.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct Standing {
    node: String,
    key: String,
    policy: String,
    entries: u64,
    signed: u64,
    published: u64,
    /// The first entry that was not pruned.
    mark: u64,
    /// How old an entry is before it is pruned, in seconds.
    retention_s: u64,
    /// What each log witness has cosigned, by the name of its key.
    witnesses: BTreeMap<String, u64>,
    /// What this node has cosigned of others, by origin.
    cosigned: BTreeMap<String, u64>,
    accused: Vec<String>,
    refused: Vec<String>,
    broken: Option<String>,
    subjects: u64,
    lost_keys: u64,
    missed: u64,
    bundles_checked: u64,
    faults: Vec<String>,
    /// The last published checkpoint, a note; empty where there is none.
    checkpoint: String,
    /// The nonce that it answers, in base64, where one was demanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

impl Checkpoint {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let nonce =
            if self.fresh { Seed::from_entropy().rng().u128().to_be_bytes().to_vec() } else { Vec::new() };
        let line = nonce_line(&nonce);
        let until = tokio::time::Instant::now() + FRESH_WITHIN;
        let view = loop {
            let view = log.ask(&ShowAudit { nonce: nonce.clone() }).await?;
            if !self.fresh || view.published_note.contains(&line) {
                break view;
            }
            if view.broken.is_some() || tokio::time::Instant::now() >= until {
                let why = format!("no published checkpoint answered the demand within {FRESH_WITHIN:?}");
                return Err(Failure::local(view.broken.unwrap_or(why)));
            }
            tokio::time::sleep(FRESH_EVERY).await;
        };
        let mark = log.mark().await?;
        log.close().await;
        let well = view.broken.is_none() && view.faults.is_empty() && view.accused.is_empty();
        let nonce = self.fresh.then(|| line.trim_start_matches("nonce ").to_owned());
        let standing = Standing::of(view, &mark, nonce);
        output.answer(&standing, &standing);
        Ok(if well { Done::Well } else { Done::False })
    }
}

impl Standing {
    fn of(view: AuditView, mark: &Mark, nonce: Option<String>) -> Self {
        Self {
            node: view.node,
            key: view.key,
            policy: view.policy,
            entries: view.entries,
            signed: view.signed,
            published: view.published,
            mark: mark.mark,
            retention_s: mark.retention.as_secs(),
            witnesses: view.witnesses,
            cosigned: view.cosigned,
            accused: view.accused,
            refused: view.refused,
            broken: view.broken,
            subjects: view.subjects,
            lost_keys: view.lost_keys,
            missed: view.missed,
            bundles_checked: view.checked,
            faults: view.faults,
            checkpoint: view.published_note,
            nonce,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, entries, signed, published, .. } = self;
        writeln!(f, "{node}: {entries} entries, {signed} signed, {published} published")?;
        if self.mark > 0 {
            let days = self.retention_s / (24 * 3_600);
            writeln!(
                f,
                "begins with entry {}: those before were older than `audit.retention` ({days}d) and were pruned",
                self.mark
            )?;
        }
        writeln!(f, "key {}", self.key)?;
        for (name, size) in &self.witnesses {
            writeln!(f, "cosigned up to {size:>8} by {name}")?;
        }
        for (origin, size) in &self.cosigned {
            writeln!(f, "has cosigned {size:>8} of {origin}")?;
        }
        for origin in &self.accused {
            writeln!(
                f,
                "EVIDENCE against {origin}: it has shown two histories, or not proved that it has one"
            )?;
        }
        for peer in &self.refused {
            writeln!(f, "{peer} shows ANOTHER KEY than the one that was pinned")?;
        }
        for fault in &self.faults {
            writeln!(f, "NOT SOUND: {fault}")?;
        }
        if let Some(why) = &self.broken {
            writeln!(f, "SIGNS NOTHING MORE: {why}")?;
        }
        match self.checkpoint.as_str() {
            "" => write!(f, "nothing is published: too few log witnesses have cosigned"),
            note => write!(f, "\n{}", note.trim_end()),
        }
    }
}
