//! `rhumb mesh`: found a mesh, once; its cluster version ([`version`](super::version)).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, NodeId, Principal, Region, Role};
use rhumb_topology::Founding;
use rhumb_transport::TrustDomain;
use rhumb_transport::issue::Validity;
use serde::Serialize;

use super::ca::authority_validity;
use super::cert::{Named, Shown, validity};
use super::new_disk::NewDisk;
use super::new_ranges::NewRanges;
use super::output::{Done, Failure, Output};
use super::version::{FinalizeUpgrade, Version};
use crate::founding::{self, Founded, MeshFile, POLICY_KEY_FILE, Plan, Seat};

/// A mesh as a whole.
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Found a mesh: authority, certificates, data directories, policy and settings.
    Init(Init),
    /// Make an empty data directory for a node whose disk was lost.
    NewDisk(NewDisk),
    /// Say what becomes of the replicas of ranges on a disk that was put back, where that disk is.
    NewRanges(NewRanges),
    /// Show the cluster version: where the mesh is, and what holds the next one back.
    Version(Version),
    /// End an upgrade: raise the cluster version. There is no way back to the old build from then on.
    Finalize(FinalizeUpgrade),
}

impl MeshCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Init(init) => init.run(output),
            Self::NewDisk(disk) => disk.run(output),
            Self::NewRanges(ranges) => ranges.run(output),
            Self::Version(version) => version.run(output).await,
            Self::Finalize(finalize) => finalize.run(output).await,
        }
    }
}

/// Found a mesh, in a folder that does not exist or is empty.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb mesh init --nodes us-east/n1=127.0.0.1:7001,eu-central/n1=127.0.0.1:7002 mesh"
)]
pub struct Init {
    /// The folder of the mesh.
    dir: PathBuf,
    /// The founding nodes, each with the address at which the others dial it (UDP). The admin HTTP of a
    /// node listens on the same port (TCP) of its own machine only.
    #[arg(long, value_name = "REGION/NAME=IP:PORT,…", value_delimiter = ',', required = true)]
    nodes: Vec<NodeAt>,
    /// The mesh's name in certificates: a DNS name in lower case.
    #[arg(long, value_name = "NAME", default_value = "rhumb.internal")]
    trust_domain: TrustDomain,
    /// The clients to certify; otherwise `app` in each region.
    #[arg(long, value_name = "REGION/NAME,…", value_delimiter = ',')]
    clients: Vec<Named>,
    /// The operators to certify; otherwise `admin` in each region.
    #[arg(long, value_name = "REGION/NAME,…", value_delimiter = ',')]
    operators: Vec<Named>,
    /// How long the certificates are valid: 24h to 825d.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = validity)]
    valid: Duration,
    /// How long the authority is valid: 30d to 7300d.
    #[arg(long, value_name = "TIME", default_value = "3650d", value_parser = authority_validity)]
    authority_valid: Duration,
    /// Also begin a file of settings for this environment in each region.
    #[arg(long, value_name = "NAME", value_parser = environment)]
    env: Option<String>,
}

/// A node and where it is dialled: `us-east/n1=10.0.0.1:7001`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAt(pub NodeId, pub SocketAddr);

impl FromStr for NodeAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node, at) = text.split_once('=').ok_or_else(|| {
            format!("{text:?} is not REGION/NAME=IP:PORT, such as us-east/n1=10.0.0.1:7001")
        })?;
        let node: NodeId = node.parse().map_err(|e| format!("{e}"))?;
        let address: SocketAddr = at.parse().map_err(|_| {
            format!("{at:?} is not IP:PORT, such as 10.0.0.1:7001; settings name addresses, not hosts")
        })?;
        if address.port() == 0 {
            return Err(format!("{at:?} has port 0: give the port on which {node} is dialled"));
        }
        Ok(Self(node, address))
    }
}

fn environment(text: &str) -> Result<String, String> {
    let named = Region::new(text).map(|name| name.to_string());
    named
        .map_err(|_| format!("{text:?} is no environment's name: use lower-case letters, digits and hyphens"))
}

#[derive(Debug, Serialize)]
struct InitAnswer {
    dir: PathBuf,
    cluster: String,
    trust_domain: String,
    authority: Shown,
    nodes: Vec<Shown>,
    people: Vec<Shown>,
    policy_key: String,
    policy_secret: PathBuf,
    config: PathBuf,
}

impl Init {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let ids = self.nodes.iter().map(|NodeAt(id, _)| id.clone());
        let founding = Founding::new(ids).map_err(|error| Failure::Usage(format!("--nodes: {error}")))?;
        self.check_addresses()?;
        claim(&self.dir)?;
        let plan = self.plan(&founding)?;
        let founded = plan.found()?;
        plan.write_settings(&founded.policy_key.to_string())?;
        self.begin_environment(&plan)?;
        founding::settle(&self.dir)?;
        MeshFile { cluster: plan.cluster.to_string(), nodes: founding.nodes().to_vec() }.write(&self.dir)?;
        let answer = self.answer(&plan, &founded);
        output.answer(&answer, self.told(&answer));
        Ok(Done::Well)
    }

    fn check_addresses(&self) -> Result<(), Failure> {
        let mut taken = BTreeSet::new();
        for NodeAt(id, address) in &self.nodes {
            if !taken.insert(address) {
                return Err(Failure::Usage(format!(
                    "--nodes: {id} has the address of another node, {address}"
                )));
            }
        }
        Ok(())
    }

    fn plan(&self, founding: &Founding) -> anyhow::Result<Plan> {
        let seat = |NodeAt(id, quic): &NodeAt| {
            let folder = PathBuf::from("..").join("nodes").join(format!("{}-{}", id.region, id.name));
            Seat {
                id: id.clone(),
                quic: *quic,
                listen: SocketAddr::new(every_interface(quic.ip()), quic.port()),
                admin: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), quic.port()),
                data: folder.join("data"),
                identity: folder.join("identity"),
                dial: Default::default(),
            }
        };
        let mut people = self.people(founding, &self.clients, Role::Client, "app");
        people.extend(self.people(founding, &self.operators, Role::Operator, "admin"));
        Ok(Plan {
            by: "rhumb mesh init",
            cluster: ClusterId(Seed::from_entropy().rng().u128()),
            domain: self.trust_domain.clone(),
            seats: self.nodes.iter().map(seat).collect(),
            people,
            authority: self.dir.join("ca"),
            authority_valid: Validity::for_the_next(self.authority_valid),
            valid: Validity::for_the_next(self.valid),
            config: self.dir.join("config"),
            policy_key: self.dir.join("policy"),
            traces: None,
            personal: false,
        })
    }

    fn people(
        &self,
        founding: &Founding,
        asked: &[Named],
        role: Role,
        otherwise: &str,
    ) -> Vec<(Principal, PathBuf)> {
        let each = |region: &Region| Principal { role, region: region.clone(), name: otherwise.to_owned() };
        let who: Vec<Principal> = match asked {
            [] => founding.regions().into_iter().map(each).collect(),
            asked => asked.iter().map(|named| named.principal(role)).collect(),
        };
        let folder = self.dir.join(format!("{role}s"));
        who.into_iter()
            .map(|who| (who.clone(), folder.join(format!("{}-{}", who.region, who.name))))
            .collect()
    }

    fn begin_environment(&self, plan: &Plan) -> anyhow::Result<()> {
        let Some(env) = &self.env else { return Ok(()) };
        for region in plan.seats.iter().map(|seat| &seat.id.region).collect::<BTreeSet<_>>() {
            let folder = plan.config.join(region.as_str());
            fs::create_dir_all(&folder)?;
            let text = format!("# What is other in {region} under --env {env} than in ../{region}.toml.\n");
            fs::write(folder.join(format!("{env}.toml")), text)?;
        }
        Ok(())
    }

    fn answer(&self, plan: &Plan, founded: &Founded) -> InitAnswer {
        let node = |(id, certificate): &(NodeId, _)| {
            let folder = format!("nodes/{}-{}/identity", id.region, id.name);
            Shown::of(&self.dir.join(folder), certificate)
        };
        InitAnswer {
            dir: self.dir.clone(),
            cluster: plan.cluster.to_string(),
            trust_domain: plan.domain.to_string(),
            authority: Shown::of(&plan.authority, &founded.authority),
            nodes: founded.nodes.iter().map(node).collect(),
            people: founded.people.iter().map(|(folder, it)| Shown::of(folder, it)).collect(),
            policy_key: founded.policy_key.to_string(),
            policy_secret: plan.policy_key.join(POLICY_KEY_FILE),
            config: plan.config.clone(),
        }
    }

    fn told(&self, answer: &InitAnswer) -> String {
        let mut text = format!(
            "founded mesh {} of {} in {}\n\n",
            answer.cluster,
            answer.trust_domain,
            self.dir.display()
        );
        for shown in [&answer.authority].into_iter().chain(&answer.nodes).chain(&answer.people) {
            writeln!(text, "{}\n  {}  SHA-256 {}", shown.holder, shown.path.display(), shown.fingerprint)
                .ok();
        }
        writeln!(text, "policy key {}\n  {}", answer.policy_key, answer.policy_secret.display()).ok();
        let (dir, config) = (self.dir.display(), answer.config.display());
        let end = answer.nodes.first().map_or_else(String::new, |node| node.not_after.clone());
        writeln!(text, "\ncertificates end {end}: renew them before with rhumb cert issue --renew\n\nnext:")
            .ok();
        writeln!(text, "  keep {dir}/ca and {dir}/policy where few can read them; no node needs them").ok();
        writeln!(text, "  rhumb config check --config {config}").ok();
        writeln!(
            text,
            "  give each machine {config} and, side by side, its node's folder of {dir}/nodes; there:"
        )
        .ok();
        for NodeAt(id, _) in &self.nodes {
            writeln!(text, "  rhumb serve --config {config} --region {} --node {}", id.region, id.name).ok();
        }
        let mut operators = answer.people.iter().filter(|shown| shown.holder.starts_with("operator"));
        if let (Some(NodeAt(_, at)), Some(operator)) = (self.nodes.first(), operators.next()) {
            let identity = operator.path.display();
            write!(text, "  rhumb pool create concert --supply 100 --endpoint {at} --identity {identity}")
                .ok();
        }
        text
    }
}

/// Where a node listens that is dialled at this address: there on one machine, else everywhere, for
/// the address that others see need not be one of the machine's own.
fn every_interface(dialled: IpAddr) -> IpAddr {
    match dialled {
        own if own.is_loopback() => own,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Makes the folder, or takes an empty one.
fn claim(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if let Some(known) = MeshFile::read(dir)? {
        return Err(Failure::Usage(format!(
            "{} holds mesh {} already: a mesh is founded once; choose another folder",
            dir.display(),
            known.cluster
        )));
    }
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!(
            "{} is not empty, and holds no mesh that was founded to the end: choose another folder",
            dir.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_with_its_address() {
        let node: NodeAt = "us-east/n1=10.0.0.1:7001".parse().expect("valid");
        assert_eq!((node.0.to_string().as_str(), node.1.port()), ("us-east/n1", 7001));
        "us-east/n1=[::1]:7001".parse::<NodeAt>().expect("valid");
        for bad in [
            "us-east/n1",
            "us-east=10.0.0.1:7001",
            "us-east/n1=10.0.0.1",
            "us-east/n1=node.example:7001",
            "us-east/n1=10.0.0.1:0",
            "=10.0.0.1:7001",
        ] {
            assert!(bad.parse::<NodeAt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_listens_everywhere_unless_all_is_on_one_machine() {
        let listens = |dialled: &str| every_interface(dialled.parse().expect("an address")).to_string();
        assert_eq!(listens("127.0.0.1"), "127.0.0.1");
        assert_eq!(listens("203.0.113.7"), "0.0.0.0");
        assert_eq!(listens("2001:db8::1"), "::");
    }
}
