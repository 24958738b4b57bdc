//! `rhumb mesh new-disk`: an empty data directory for a node of a mesh whose disk was lost.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use rhumb_core::rng::Seed;
use rhumb_core::{NodeName, Region, StoreId};
use rhumb_storage::{DataDir, Expect};
use serde::Serialize;

use super::output::{Done, Failure, Output};
use crate::settings::{Live, Settings, Source};

/// Make an empty data directory for a node whose disk was lost.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb mesh new-disk --config /etc/rhumb --region eu-central\n\nThe node then starts as a new incarnation; after `rhumb pool attest` and another start its replicas of ranges are made anew from the others. What only the lost disk had is gone: units of pools with durability=local that the node held, its letters and its audit log. Never for a disk that may come back."
)]
pub struct NewDisk {
    #[command(flatten)]
    of: OfNode,
}

/// A node by its settings, on the machine where its disk is.
#[derive(Debug, Args)]
pub(super) struct OfNode {
    /// The folder that holds global.toml, REGION.toml and REGION/ENV.toml.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// The region of the node.
    #[arg(long)]
    region: Region,
    /// Which of the region's nodes; may be left out where there is one.
    #[arg(long)]
    node: Option<NodeName>,
    /// The environment whose settings come on top.
    #[arg(long)]
    env: Option<String>,
}

impl OfNode {
    pub(super) fn settings(&self) -> Result<Arc<Settings>, Failure> {
        let source = Source::new(&self.config, &self.region, self.env.as_deref());
        Ok(Live::load(source, self.node.as_ref())?.now())
    }
}

/// A store id that no disk has had.
pub(super) fn drawn() -> StoreId {
    StoreId(Seed::from_entropy().rng().u128())
}

#[derive(Debug, Serialize)]
struct Made {
    node: String,
    data: String,
    store: String,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is an empty disk of {}, store {}: start the node", self.data, self.node, self.store)
    }
}

impl NewDisk {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let settings = self.of.settings()?;
        let (path, node) = (&settings.node.data, &settings.me);
        if let Some(identity) = DataDir::identify(path).map_err(Failure::local)? {
            let why = anyhow!(
                "{} holds the data of {} already, store {}: nothing was changed. A disk that is there is not a lost one",
                path.display(),
                identity.node,
                identity.store
            );
            return Err(Failure::from(why));
        }
        let store = drawn();
        let expect = Expect { cluster: settings.cluster, node: node.clone(), init: Some(store) };
        DataDir::open(path, &expect).map_err(Failure::local)?;
        let made =
            Made { node: node.to_string(), data: path.display().to_string(), store: store.to_string() };
        output.answer(&made, &made);
        Ok(Done::Well)
    }
}
