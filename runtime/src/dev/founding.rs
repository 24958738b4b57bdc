//! Founding a mesh on this machine: its places, and what lies there from before.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, NodeId, Principal, Region, Role};
use rhumb_topology::Founding;
use rhumb_transport::TrustDomain;
use rhumb_transport::issue::Validity;

use super::DevOptions;
use super::wan::Wan;
use crate::founding::{MeshFile, POLICY_KEY_FILE, POLICY_PUBLIC_FILE, Plan, Seat};

/// How long the certificates of a mesh on this machine are valid.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
const TRUST_DOMAIN: &str = "rhumb.dev";

/// One node's place.
#[derive(Debug, Clone)]
pub(super) struct NodePlan {
    pub(super) id: NodeId,
    pub(super) quic: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) identity: PathBuf,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
}

/// A founded mesh: where everything lies.
pub(super) struct Founded {
    pub(super) config: PathBuf,
    pub(super) client: PathBuf,
    pub(super) operator: PathBuf,
    pub(super) plan: Vec<NodePlan>,
    /// Keeps the nodes' ports until they are started, so that nobody else is given one meanwhile.
    pub(super) reserved: Vec<(UdpSocket, TcpListener)>,
    all: Plan,
    policy_key: String,
}

/// Founds the mesh in an empty data directory, or opens the one that is there.
pub(super) fn found_or_open(options: &DevOptions) -> anyhow::Result<Founded> {
    let nodes = founding_nodes(options)?;
    let known = MeshFile::read(&options.data)?;
    if let Some(known) = &known {
        anyhow::ensure!(
            known.nodes == nodes,
            "{} holds a mesh of {}, not of {}: give those regions, or another --data",
            options.data.display(),
            listed(&known.nodes),
            listed(&nodes)
        );
    }
    let mut reserved = Vec::new();
    let plan =
        nodes.iter().map(|id| place(&options.data, id, &mut reserved)).collect::<anyhow::Result<Vec<_>>>()?;
    let (cluster, new) = match &known {
        Some(mesh) => (mesh.cluster.parse()?, false),
        None => (ClusterId(Seed::from_entropy().rng().u128()), true),
    };
    let all = whole(options, cluster, &plan)?;
    if new {
        clear(&all)?;
        all.found()?;
        MeshFile { cluster: cluster.to_string(), nodes }.write(&options.data)?;
    }
    let policy_key = fs::read_to_string(all.policy_key.join(POLICY_PUBLIC_FILE))?.trim().to_owned();
    let (client, operator) = (options.data.join("client"), options.data.join("operator"));
    Ok(Founded { config: all.config.clone(), client, operator, plan, reserved, all, policy_key })
}

fn founding_nodes(options: &DevOptions) -> anyhow::Result<Vec<NodeId>> {
    let mut nodes = Vec::new();
    for (region, count) in &options.regions {
        anyhow::ensure!(*count > 0, "region {region} has no node; give at least 1");
        for number in 1..=*count {
            nodes.push(NodeId::new(region.as_str(), &format!("n{number}"))?);
        }
    }
    Ok(Founding::new(nodes)?.nodes().to_vec())
}

fn listed(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Gives a node its folders, and ports that are free now and stay reserved.
fn place(data: &Path, id: &NodeId, reserved: &mut Vec<(UdpSocket, TcpListener)>) -> anyhow::Result<NodePlan> {
    let folder = data.join("nodes").join(format!("{}-{}", id.region, id.name));
    fs::create_dir_all(&folder)?;
    let (quic, admin) =
        (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    let (quic_address, admin_address) = (quic.local_addr()?, admin.local_addr()?);
    reserved.push((quic, admin));
    Ok(NodePlan {
        id: id.clone(),
        quic: quic_address,
        admin: admin_address,
        identity: folder.join("identity"),
        data: folder.join("data"),
        log: folder.join("log"),
    })
}

/// The mesh as a whole.
fn whole(options: &DevOptions, cluster: ClusterId, plan: &[NodePlan]) -> anyhow::Result<Plan> {
    let home: &Region = &plan.first().context("a mesh has at least one node")?.id.region;
    let person = |role: Role| {
        let who = Principal { role, region: home.clone(), name: "dev".to_owned() };
        (who, options.data.join(role.as_str()))
    };
    let seat = |node: &NodePlan| Seat {
        id: node.id.clone(),
        quic: node.quic,
        listen: node.quic,
        admin: node.admin,
        data: node.data.clone(),
        identity: node.identity.clone(),
        dial: Default::default(),
    };
    let config = options.data.join("config");
    Ok(Plan {
        by: "rhumb dev",
        cluster,
        domain: TrustDomain::new(TRUST_DOMAIN)?,
        seats: plan.iter().map(seat).collect(),
        people: vec![person(Role::Client), person(Role::Operator)],
        authority: options.data.join("ca"),
        authority_valid: Validity::for_the_next(2 * VALID_FOR),
        valid: Validity::for_the_next(VALID_FOR),
        policy_key: config.clone(),
        config,
        traces: Some(options.traces.clone()),
        personal: true,
    })
}

/// Removes what an earlier founding left that was interrupted: it is nobody's.
fn clear(all: &Plan) -> anyhow::Result<()> {
    let seats = all.seats.iter().flat_map(|seat| [&seat.data, &seat.identity]);
    let people = all.people.iter().map(|(_, folder)| folder);
    let key = all.policy_key.join(POLICY_KEY_FILE);
    for left in seats.chain(people).chain([&all.authority, &key]) {
        let removed = if left.is_dir() { fs::remove_dir_all(left) } else { fs::remove_file(left) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", left.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Founded {
    /// Writes the settings of all nodes, whose ports and ways to each other are new at each start.
    pub(super) fn write_settings(&mut self, wan: Option<&Wan>) -> anyhow::Result<()> {
        for seat in &mut self.all.seats {
            seat.dial = wan.map(|wan| wan.dials(&seat.id)).unwrap_or_default();
        }
        self.all.write_settings(&self.policy_key)
    }
}
