//! `rhumb doctor`: whether this machine is fit for a node.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use rhumb_core::{NodeName, Region};
use serde::Serialize;

use super::output::{Done, Failure, Output};
use crate::doctor::{Asked, Check, Facts, Verdict};

/// Look whether this machine is fit for a node, and say what to do where it is not.
///
/// Without --config it looks at the machine alone. Ends with 5 when a check fails.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb doctor\n  rhumb doctor --config /etc/rhumb --region eu-central\n  rhumb doctor --data /var/lib/rhumb -o json"
)]
pub struct Doctor {
    /// The folder with the settings of a node of this machine.
    #[arg(long, value_name = "DIR", requires = "region")]
    config: Option<PathBuf>,
    /// The region of that node.
    #[arg(long, requires = "config")]
    region: Option<Region>,
    /// Which of the region's nodes; may be left out where there is one.
    #[arg(long, requires = "config")]
    node: Option<NodeName>,
    /// The environment whose settings come on top.
    #[arg(long, requires = "config")]
    env: Option<String>,
    /// The folder whose disk is measured, where no settings say it.
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with = "config")]
    data: PathBuf,
}

#[derive(Debug, Serialize)]
struct DoctorAnswer {
    well: bool,
    checks: Vec<Check>,
}

impl Doctor {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let node = self.config.zip(self.region).map(|(dir, region)| (dir, region, self.node, self.env));
        let asked = Asked { node, data: self.data };
        let facts = tokio::task::spawn_blocking(move || Facts::gather(&asked)).await;
        let checks = facts.map_err(Failure::local)?.judge();
        let well = checks.iter().all(|check| check.verdict < Verdict::Fail);
        let text = text(&checks);
        output.answer(&DoctorAnswer { well, checks }, text);
        Ok(if well { Done::Well } else { Done::False })
    }
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, verdict, found, right, advice } in checks {
        let word = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        writeln!(text, "{word}  {name:<width$}  {found}").ok();
        if let Some(advice) = advice {
            let indent = " ".repeat(width + 8);
            writeln!(text, "{indent}right: {right}\n{indent}do:    {advice}").ok();
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    write!(
        text,
        "{} checks: {} failed, {} warnings",
        checks.len(),
        count(Verdict::Fail),
        count(Verdict::Warn)
    )
    .ok();
    text
}
