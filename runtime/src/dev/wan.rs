//! The wide area between the regions of a mesh on one machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use rhumb_core::rng::Seed;
use rhumb_core::{NodeId, Region};
use rhumb_topology::{LatencyMatrix, RegionMap};
use rhumb_transport::relay::{Cut, LinkPlan, Relay, RelayLink, Wan as Links};

use super::founding::NodePlan;

/// Jitter of each direction, as a share of its delay.
const JITTER: f64 = 0.05;
/// Loss of each direction: one datagram in a thousand.
const LOSS: f64 = 0.001;

/// What lies between the regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WanChoice {
    /// The published matrix of round trips that the repository carries, with jitter and loss.
    Published,
    /// A matrix of the same format from a file.
    File(PathBuf),
    /// Nothing: nodes reach each other directly, and cannot be cut off.
    Off,
}

impl WanChoice {
    /// Where regions stand; none where nothing is between them.
    fn map(&self) -> anyhow::Result<Option<RegionMap>> {
        Ok(match self {
            Self::Off => None,
            Self::Published => Some(RegionMap::default()),
            Self::File(file) => {
                let said = || format!("--wan {}", file.display());
                let text = std::fs::read_to_string(file).with_context(said)?;
                Some(RegionMap::new(LatencyMatrix::parse(&text).with_context(said)?))
            }
        })
    }

    /// Whether all these regions have a place in what was chosen.
    ///
    /// # Errors
    /// The first that has none, and which have one.
    pub(super) fn has(&self, regions: &[(Region, usize)]) -> anyhow::Result<()> {
        // Nothing lies between one and itself.
        let Some(map) = self.map()?.filter(|_| regions.len() > 1) else { return Ok(()) };
        for (region, _) in regions {
            map.column(region).context(
                "--regions: choose regions that the matrix has, give one that has them (--wan FILE), or none (--wan off)",
            )?;
        }
        Ok(())
    }
}

/// A running WAN. Nodes of one region reach each other directly.
pub(super) struct Wan {
    relay: Relay,
    dials: BTreeMap<NodeId, BTreeMap<String, SocketAddr>>,
}

impl Wan {
    /// Starts what was chosen; `None` for none.
    pub(super) async fn start(choice: &WanChoice, plan: &[NodePlan]) -> anyhow::Result<Option<Self>> {
        let Some(map) = choice.map()? else { return Ok(None) };
        let mut links = Links::new(&Seed::from_entropy());
        let mut relayed = Vec::new();
        for from in plan {
            for to in plan.iter().filter(|to| to.id.region != from.id.region) {
                let delay = map.rtt(&from.id.region, &to.id.region)? / 2;
                let link =
                    LinkPlan { delay, jitter: delay.mul_f64(JITTER), loss: LOSS, ..LinkPlan::default() };
                links.link(&from.id, &to.id, link)?;
                relayed.push(RelayLink { from: from.id.clone(), to: to.id.clone(), target: Some(to.quic) });
            }
        }
        let ways: Vec<(NodeId, NodeId)> = relayed.iter().map(|l| (l.from.clone(), l.to.clone())).collect();
        let relay = Relay::start(relayed, links)?;
        let mut dials: BTreeMap<NodeId, BTreeMap<String, SocketAddr>> = BTreeMap::new();
        for (from, to) in ways {
            let address = relay.address(&from, &to).context("every planned link has an address")?;
            dials.entry(from).or_default().insert(to.to_string(), address);
        }
        Ok(Some(Self { relay, dials }))
    }

    /// Where a node dials the peers of other regions.
    pub(super) fn dials(&self, from: &NodeId) -> BTreeMap<String, SocketAddr> {
        self.dials.get(from).cloned().unwrap_or_default()
    }

    /// Cuts a node off from the other regions.
    pub(super) fn cut(&self, node: &NodeId) {
        if let Err(error) = self.relay.cut(Cut::Node(node.clone())) {
            tracing::warn!(%error, "nothing was cut");
        }
    }

    /// Ends the cut.
    pub(super) fn heal(&self, node: &NodeId) {
        self.relay.heal(&Cut::Node(node.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_without_a_place_are_refused_where_something_lies_between_regions() {
        let regions = |names: &[&str]| -> Vec<(Region, usize)> {
            names.iter().map(|name| (Region::new(name).expect("valid"), 1)).collect()
        };
        let refused = WanChoice::Published.has(&regions(&["us-east", "mars"])).expect_err("it has no mars");
        let why = format!("{refused:#}");
        assert!(why.contains("region mars is not in") && why.contains("eu-central"), "{why}");
        assert!(WanChoice::Published.has(&regions(&["us-east", "eu-central"])).is_ok());
        assert!(WanChoice::Published.has(&regions(&["mars"])).is_ok(), "nothing lies between it and itself");
        assert!(WanChoice::Off.has(&regions(&["us-east", "mars"])).is_ok());
    }
}
