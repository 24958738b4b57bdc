//! Founding a mesh on this machine: cluster id, certificates, policy, settings, data directories.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, NodeId, Principal, Region, Role, StoreId};
use rhumb_storage::{DataDir, Expect};
use rhumb_topology::Founding;
use rhumb_topology::policy::OperatorKey;
use rhumb_transport::TrustDomain;
use rhumb_transport::issue::{Authority, Validity};
use serde::{Deserialize, Serialize};

use super::DevOptions;
use super::wan::Wan;

/// How long the certificates of a mesh on this machine are valid.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
const TRUST_DOMAIN: &str = "rhumb.dev";
const MESH_FILE: &str = "mesh.json";

/// What a data directory was founded as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MeshFile {
    cluster: String,
    nodes: Vec<NodeId>,
}

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
    mesh: MeshFile,
    policy_key: String,
}

/// Founds the mesh in an empty data directory, or opens the one that is there.
pub(super) fn found_or_open(options: &DevOptions) -> anyhow::Result<Founded> {
    let nodes = founding_nodes(options)?;
    let file = options.data.join(MESH_FILE);
    let known: Option<MeshFile> = match fs::read(&file) {
        Ok(bytes) => {
            Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
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
    let (mesh, new) = match known {
        Some(mesh) => (mesh, false),
        None => {
            let cluster = ClusterId(Seed::from_entropy().rng().u128());
            (MeshFile { cluster: cluster.to_string(), nodes }, true)
        }
    };
    if new {
        found(options, &mesh, &plan)?;
        // Written last: a founding that was interrupted is begun anew.
        fs::write(&file, serde_json::to_vec_pretty(&mesh)?)?;
    }
    let config = options.data.join("config");
    let policy_key = fs::read_to_string(config.join("operator.pub"))?.trim().to_owned();
    let (client, operator) = (options.data.join("client"), options.data.join("operator"));
    Ok(Founded { config, client, operator, plan, reserved, mesh, policy_key })
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

fn found(options: &DevOptions, mesh: &MeshFile, plan: &[NodePlan]) -> anyhow::Result<()> {
    let cluster: ClusterId = mesh.cluster.parse()?;
    let authority = Authority::create(TrustDomain::new(TRUST_DOMAIN)?, Validity::for_the_next(VALID_FOR))?;
    authority.save(&options.data.join("ca"))?;
    let issue = |role, region: &Region, name: &str, folder: &Path| -> anyhow::Result<()> {
        let principal = Principal { role, region: region.clone(), name: name.to_owned() };
        Ok(authority.issue(&principal, Validity::for_the_next(VALID_FOR))?.save(folder)?)
    };
    for node in plan {
        issue(Role::Node, &node.id.region, node.id.name.as_str(), &node.identity)?;
        // What an earlier, interrupted founding left is nobody's data.
        if node.data.exists() {
            fs::remove_dir_all(&node.data)?;
        }
        let store = StoreId(Seed::from_entropy().rng().u128());
        let expect = Expect { cluster, node: node.id.clone(), init: Some(store) };
        DataDir::open(&node.data, &expect)?;
    }
    let home = &plan.first().context("a mesh has at least one node")?.id.region;
    issue(Role::Client, home, "dev", &options.data.join("client"))?;
    issue(Role::Operator, home, "dev", &options.data.join("operator"))?;
    found_policy(&options.data.join("config"), plan)
}

/// A policy for the mesh's regions, signed by an operator key made for it.
fn found_policy(config: &Path, plan: &[NodePlan]) -> anyhow::Result<()> {
    fs::create_dir_all(config)?;
    let mut rng = Seed::from_entropy().rng();
    let mut secret = [0u8; 32];
    secret.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.u64().to_be_bytes()));
    let key = OperatorKey::from_seed(secret);
    let regions: std::collections::BTreeSet<&Region> = plan.iter().map(|node| &node.id.region).collect();
    let mut text = String::from(
        "# Written and signed by `rhumb dev`. Change it, then: rhumb policy sign --key operator.key policy.toml\n\
         version = 1\n\n[jurisdictions]\n",
    );
    for region in regions {
        writeln!(text, "{region} = [\"{region}\"]")?;
    }
    text.push_str("\n[classes.inventory]\nhold = [\"all\"]\nread = [\"all\"]\ncarry = [\"all\"]\n");
    fs::write(config.join("policy.toml"), &text)?;
    fs::write(config.join("policy.toml.sig"), key.sign(text.as_bytes()))?;
    write_secret(&config.join("operator.key"), &key.to_pkcs8())?;
    fs::write(config.join("operator.pub"), format!("{}\n", key.public()))?;
    Ok(())
}

fn write_secret(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(bytes).with_context(|| format!("cannot write {}", file.display()))
}

#[derive(Serialize)]
struct NodeEntry {
    listen: SocketAddr,
    admin: SocketAddr,
    data: PathBuf,
    identity: PathBuf,
    dial: BTreeMap<String, SocketAddr>,
}

impl Founded {
    /// Writes the settings of all nodes as files, as an operator would.
    pub(super) fn write_settings(&self, wan: Option<&Wan>) -> anyhow::Result<()> {
        let mut global = format!(
            "# Written by `rhumb dev` at each start.\n[mesh]\ncluster = \"{}\"\ntrust_domain = \"{TRUST_DOMAIN}\"\n\n",
            self.mesh.cluster
        );
        for node in &self.plan {
            writeln!(
                global,
                "[[mesh.founding]]\nregion = \"{}\"\nname = \"{}\"\nquic = \"{}\"\n",
                node.id.region, node.id.name, node.quic
            )?;
        }
        write!(global, "[policy]\nfile = \"policy.toml\"\nkeys = [\"{}\"]\n", self.policy_key)?;
        fs::write(self.config.join("global.toml"), global)?;
        let mut regions: BTreeMap<&Region, BTreeMap<String, NodeEntry>> = BTreeMap::new();
        for node in &self.plan {
            let entry = NodeEntry {
                listen: node.quic,
                admin: node.admin,
                data: node.data.clone(),
                identity: node.identity.clone(),
                dial: wan.map(|wan| wan.dials(&node.id)).unwrap_or_default(),
            };
            regions.entry(&node.id.region).or_default().insert(node.id.name.to_string(), entry);
        }
        for (region, nodes) in regions {
            let text = toml::to_string(&BTreeMap::from([("nodes", nodes)]))?;
            fs::write(self.config.join(format!("{region}.toml")), text)?;
        }
        Ok(())
    }
}
