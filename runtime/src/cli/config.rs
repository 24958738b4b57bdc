//! `rhumb config check`, `show`, `diff`, `reference`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use rhumb_core::{NodeId, NodeName, Region};
use serde::Serialize;

use super::output::{Done, Failure, Output};
use crate::http::probe;
use crate::settings::{self, Entry, Faults, Running, Settings, Shown, Source};

/// How long a running node may take to say what it runs with.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// The settings: whether they are well, what they come to, how regions differ, what there is to set.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the settings of all regions; every fault is told at once.
    Check(Check),
    /// Show what the settings of a node come to, and where each value was set.
    Show(Show),
    /// Show how the settings of two regions differ, each with all its layers.
    Diff(Diff),
    /// Print the reference of all keys.
    Reference(Reference),
}

impl ConfigCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Check(check) => check.run(output).await,
            Self::Show(show) => show.run(output),
            Self::Diff(diff) => diff.run(output),
            Self::Reference(reference) => reference.run(output),
        }
    }
}

/// Check settings.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb config check --config /etc/rhumb\n  rhumb config check --config /etc/rhumb --against 127.0.0.1:7101"
)]
pub struct Check {
    /// The folder that holds global.toml, REGION.toml and REGION/ENV.toml.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Only these regions; otherwise all that have a file.
    #[arg(long, value_delimiter = ',')]
    region: Vec<Region>,
    /// Only this environment; otherwise every one that has a file.
    #[arg(long)]
    env: Option<String>,
    /// The admin HTTP of a running node: also say what a reload of these files would change there, and
    /// what a start.
    #[arg(long, value_name = "HOST:PORT", value_parser = admin)]
    against: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct CheckAnswer {
    config: PathBuf,
    nodes: Vec<String>,
    files: Vec<String>,
    notes: Vec<String>,
    against: Option<Against>,
}

#[derive(Debug, Serialize)]
struct Against {
    node: NodeId,
    reload: BTreeMap<String, Change>,
    restart: BTreeMap<String, Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    running: Option<String>,
    files: Option<String>,
}

impl Check {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let checked = settings::check(&self.config, &self.region, self.env.as_deref())?;
        let nodes: Vec<String> = checked.nodes.iter().map(ToString::to_string).collect();
        let mut text = format!("the settings of {} are well", nodes.join(", "));
        for note in &checked.notes {
            write!(text, "\nnote: {note}").ok();
        }
        let against = match self.against {
            None => None,
            Some(address) => {
                let against = self.compare(address).await?;
                text = format!("{text}\n{}", against.text());
                Some(against)
            }
        };
        let files = checked.files.into_iter().collect();
        output
            .answer(&CheckAnswer { config: self.config, nodes, files, notes: checked.notes, against }, text);
        Ok(Done::Well)
    }

    /// What these files would change in a running node. What its environment's variables say, no file
    /// changes.
    async fn compare(&self, address: SocketAddr) -> Result<Against, Failure> {
        let asked = || format!("asking {address} what it runs with");
        let (code, body) = probe::get(address, "/settings", ASK_WITHIN).await.with_context(asked)?;
        if code != 200 {
            return Err(Failure::local(format!("{}: it answers {code}", asked())));
        }
        let running: Running = serde_json::from_str(&body).with_context(asked)?;
        let source = Source::new(&self.config, &running.node.region, running.env.as_deref());
        let new = source.with_variables([]).load(Some(&running.node.name))?;
        Ok(Against::new(running, &new))
    }
}

impl Against {
    fn new(running: Running, new: &Settings) -> Self {
        let Running { node, settings: mut old, .. } = running;
        let set_by_variable = old.iter().filter(|(_, shown)| shown.is_of_environment());
        let theirs: BTreeSet<String> = set_by_variable.map(|(name, _)| name.clone()).collect();
        old.retain(|name, _| !theirs.contains(name));
        let (mut reload, mut restart) = (BTreeMap::new(), BTreeMap::new());
        let mut differs = |name: &String, change: Change| {
            let running = settings::key_of(name).is_some_and(settings::Key::changes_while_running);
            let changes = if running { &mut reload } else { &mut restart };
            changes.insert(name.clone(), change);
        };
        for (name, entry) in new.entries().iter().filter(|(name, _)| !theirs.contains(*name)) {
            let (running, files) = (old.remove(name).map(|shown| shown.value), Some(entry.shown()));
            if running != files {
                differs(name, Change { running, files });
            }
        }
        for (name, shown) in &old {
            differs(name, Change { running: Some(shown.value.clone()), files: None });
        }
        Self { node, reload, restart }
    }

    fn text(&self) -> String {
        if self.reload.is_empty() && self.restart.is_empty() {
            return format!("{} runs with these settings", self.node);
        }
        let mut text = String::new();
        for (what, changes) in [("a reload changes", &self.reload), ("only a start changes", &self.restart)] {
            if changes.is_empty() {
                writeln!(text, "{}: {what} nothing", self.node).ok();
                continue;
            }
            writeln!(text, "{}: {what}", self.node).ok();
            for (name, Change { running, files }) in changes {
                let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "not set".to_owned());
                writeln!(text, "  {name}: {} → {}", shown(running), shown(files)).ok();
            }
        }
        text.trim_end().to_owned()
    }
}

/// The address of an admin HTTP, with or without `http://`.
fn admin(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address.parse().map_err(|_| format!("{text:?} is not HOST:PORT, such as 127.0.0.1:7101"))
}

/// Show settings.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb config show --effective --config /etc/rhumb --region eu-central --env production"
)]
pub struct Show {
    /// The folder that holds global.toml, REGION.toml and REGION/ENV.toml.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// The region.
    #[arg(long)]
    region: Region,
    /// Which of its nodes; may be left out where there is one.
    #[arg(long)]
    node: Option<NodeName>,
    /// The environment whose settings come on top.
    #[arg(long)]
    env: Option<String>,
    /// Also what is built in and was not set.
    #[arg(long)]
    effective: bool,
}

impl Show {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let source = Source::new(&self.config, &self.region, self.env.as_deref());
        let settings = source.load(self.node.as_ref())?;
        let entries =
            settings.entries().iter().filter(|(_, entry)| self.effective || entry.place().is_some());
        let shown: BTreeMap<String, Shown> =
            entries.map(|(name, entry)| (name.clone(), entry.to_shown())).collect();
        let rows: Vec<[&str; 3]> =
            shown.iter().map(|(name, shown)| [name, shown.value.as_str(), shown.origin()]).collect();
        let text = aligned(&rows);
        output.answer(&Running { node: settings.me, env: self.env, settings: shown }, text);
        Ok(Done::Well)
    }
}

/// Compare two regions.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb config diff us-east eu-central --config /etc/rhumb --env production"
)]
pub struct Diff {
    /// One region.
    left: Region,
    /// The other.
    right: Region,
    /// The folder that holds global.toml, REGION.toml and REGION/ENV.toml.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// The environment whose settings come on top, in both.
    #[arg(long)]
    env: Option<String>,
}

#[derive(Debug, Serialize)]
struct DiffAnswer {
    left: Region,
    right: Region,
    differences: Vec<Differs>,
}

#[derive(Debug, Serialize)]
struct Differs {
    key: String,
    left: Option<Shown>,
    right: Option<Shown>,
}

impl Diff {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let read = |region: &Region| Source::new(&self.config, region, self.env.as_deref()).read();
        let (left, right) = (read(&self.left), read(&self.right));
        let mut faults = Faults { dir: self.config.clone(), faults: Vec::new() };
        for side in [&left, &right] {
            if let Err(more) = side.check() {
                faults.merge(more);
            }
        }
        if !faults.faults.is_empty() {
            return Err(faults.into());
        }
        let differences = settings::differences(left.entries(), right.entries()).into_iter();
        let shown = |side: Option<Entry>| side.map(|entry| entry.to_shown());
        let differences: Vec<Differs> = differences
            .map(|d| Differs { key: d.name, left: shown(d.left), right: shown(d.right) })
            .collect();
        let text = self.text(&differences);
        output.answer(&DiffAnswer { left: self.left, right: self.right, differences }, text);
        Ok(Done::Well)
    }

    fn text(&self, differences: &[Differs]) -> String {
        if differences.is_empty() {
            return format!("{} and {} do not differ", self.left, self.right);
        }
        let mut rows = Vec::new();
        for differs in differences {
            for (region, side) in [(&self.left, &differs.left), (&self.right, &differs.right)] {
                let (value, origin) =
                    side.as_ref().map_or(("not set", ""), |s| (s.value.as_str(), s.origin()));
                rows.push([differs.key.as_str(), region.as_str(), value, origin]);
            }
        }
        aligned(&rows)
    }
}

/// Print the reference.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb config reference > settings.md")]
pub struct Reference {}

#[derive(Debug, Serialize)]
struct ReferenceAnswer {
    markdown: String,
}

impl Reference {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let markdown = settings::reference();
        let text = markdown.trim_end().to_owned();
        output.answer(&ReferenceAnswer { markdown }, text);
        Ok(Done::Well)
    }
}

/// Rows whose columns begin below each other.
fn aligned<const N: usize>(rows: &[[&str; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let line = |row: &[&str; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_says_what_a_reload_and_a_start_change_or_that_nothing_differs() {
        let node = NodeId::new("us-east", "n1").expect("valid");
        let mut against = Against { node, reload: BTreeMap::new(), restart: BTreeMap::new() };
        assert_eq!(against.text(), "us-east/n1 runs with these settings");
        let change = Change { running: Some("2s".to_owned()), files: None };
        against.restart.insert("clock.catch_up".to_owned(), change);
        let told = "us-east/n1: a reload changes nothing\nus-east/n1: only a start changes\n  clock.catch_up: 2s → not set";
        assert_eq!(against.text(), told);
    }
}
