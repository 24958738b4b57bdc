//! `rhumb mesh new-ranges`: what becomes of the replicas of ranges on a disk that was put back.

use std::fmt;
use std::path::Path;

use clap::Args;
use rhumb_storage::{DataDir, Expect, RocksEngine, Store};
use serde::Serialize;

use super::new_disk::{OfNode, drawn};
use super::output::{Done, Failure, Output};
use crate::supervisor::old_copy;

/// Say what becomes of the replicas of ranges on a disk that was put back, where that disk is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb mesh new-ranges --config /etc/rhumb --region eu-central\n  rhumb mesh new-ranges --config /etc/rhumb --region eu-central --keep\n\nFor a node that was `restored`, whose ranges do not start; it must not run. Its replicas have forgotten how they voted since the copy was made, so they are deleted; when the node starts it has them made anew from the others, each under a new number. Pools, letters and the audit log stay. With --keep they start as they are: only where most replicas of a range were put back or are lost, so that nobody could make them anew. What was acknowledged since the copies were made may then be gone or differ from reader to reader, without a word."
)]
pub struct NewRanges {
    #[command(flatten)]
    of: OfNode,
    /// Delete nothing: the old replicas start as they are.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Serialize)]
struct Became {
    node: String,
    data: String,
    kept: bool,
    rows_deleted: usize,
    store: Option<String>,
}

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, data, rows_deleted, .. } = self;
        match &self.store {
            Some(store) => write!(
                f,
                "{data}: {rows_deleted} rows of old replicas of {node} are deleted; it has them made anew, as store {store}: start the node"
            ),
            None => write!(f, "{data}: the old replicas of {node} start as they are: start the node"),
        }
    }
}

impl NewRanges {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let settings = self.of.settings()?;
        let expect = Expect { cluster: settings.cluster, node: settings.me.clone(), init: None };
        let open = |path: &Path, create| RocksEngine::open(path, &settings.rocks, create);
        let (_dir, engine) =
            DataDir::open_with(&settings.node.data, &expect, open).map_err(Failure::local)?;
        let store = Store::open(engine).map_err(Failure::local)?;
        let mut became = Became {
            node: settings.me.to_string(),
            data: settings.node.data.display().to_string(),
            kept: self.keep,
            rows_deleted: 0,
            store: None,
        };
        if self.keep {
            old_copy::keep(&store)?;
        } else {
            let drawn = drawn();
            became.rows_deleted = old_copy::forget(&store, drawn)?;
            became.store = Some(drawn.to_string());
        }
        output.answer(&became, &became);
        Ok(Done::Well)
    }
}
