//! Founding a mesh, once: its authority, every node's certificate and data directory, a policy and the
//! key that signs it, and the settings. `rhumb mesh init` and `rhumb dev` both do it here.
//!
//! * It decides: what a new mesh consists of, and how its settings are laid out.
//! * It never does: overwrite a key, or anything that is somebody's data. Where there is something
//!   already, it fails.
//! * Invariant: [`MeshFile`] is written last: a folder without it was not founded to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pem::Pem;
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, NodeId, Principal, Region, Role, StoreId};
use rhumb_storage::{DataDir, Expect};
use rhumb_topology::policy::{OperatorKey, OperatorPublicKey};
use rhumb_transport::issue::Validity;
use rhumb_transport::{Certificate, TrustDomain};
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityFolder, Place};
use crate::secrets::{self, Secret};
use crate::telemetry::{Protocol, TelemetrySettings};

/// The file that says what a folder was founded as.
pub const MESH_FILE: &str = "mesh.json";
/// The operator's key, which signs the policy.
pub const POLICY_KEY_FILE: &str = "operator.key";
/// Its public half.
pub const POLICY_PUBLIC_FILE: &str = "operator.pub";

/// What a folder was founded as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshFile {
    /// The mesh's identity.
    pub cluster: String,
    /// Its founding nodes.
    pub nodes: Vec<NodeId>,
}

impl MeshFile {
    /// What a folder was founded as, if it was.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let file = folder.join(MESH_FILE);
        match fs::read(&file) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                read.map(Some).with_context(|| format!("{} is damaged", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Says that the folder is founded.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        Ok(secrets::publish(&folder.join(MESH_FILE), &bytes)?)
    }
}

/// A node of a mesh that is to be founded. Paths are as they will stand in the settings, relative to
/// their folder.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Which.
    pub id: NodeId,
    /// Where peers dial it.
    pub quic: SocketAddr,
    /// Where it listens for them.
    pub listen: SocketAddr,
    /// Where its admin HTTP listens.
    pub admin: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    /// The folder with its certificate.
    pub identity: PathBuf,
    /// Where it dials a peer instead of where that one is dialled by all others.
    pub dial: BTreeMap<String, SocketAddr>,
}

/// A mesh that is to be founded.
#[derive(Debug)]
pub struct Plan {
    /// The command that founds it, as it is named in files.
    pub by: &'static str,
    /// Its identity.
    pub cluster: ClusterId,
    /// Its name in certificates.
    pub domain: TrustDomain,
    /// Its nodes.
    pub seats: Vec<Seat>,
    /// Clients and operators, and the folders for their certificates.
    pub people: Vec<(Principal, PathBuf)>,
    /// The folder for the authority.
    pub authority: PathBuf,
    /// How long the authority is valid; it must outlive the certificates.
    pub authority_valid: Validity,
    /// How long the certificates are.
    pub valid: Validity,
    /// The folder for the settings and the policy.
    pub config: PathBuf,
    /// The folder for the key that signs the policy.
    pub policy_key: PathBuf,
    /// Where the nodes' traces go, and which; as the program has it unless given.
    pub traces: Option<TelemetrySettings>,
    /// Whether the policy has a class of personal data that may go everywhere: for who tries it, on one machine.
    pub personal: bool,
}

/// What founding made.
#[derive(Debug)]
pub struct Founded {
    /// The authority's certificate.
    pub authority: Certificate,
    /// Each node's.
    pub nodes: Vec<(NodeId, Certificate)>,
    /// Each client's and operator's, and its folder.
    pub people: Vec<(PathBuf, Certificate)>,
    /// Who signs the policy.
    pub policy_key: OperatorPublicKey,
}

impl Plan {
    /// Founds the mesh: everything but its settings and its [`MeshFile`].
    ///
    /// # Errors
    /// What could not be made, or was there already.
    pub fn found(&self) -> anyhow::Result<Founded> {
        fs::create_dir_all(&self.config)?;
        let authority = AuthorityFolder::found(&self.authority, self.domain.clone(), self.authority_valid)?;
        let issue = |who: &Principal, into: &Path| authority.issue(who, self.valid, into, Place::New);
        let mut nodes = Vec::new();
        for seat in &self.seats {
            let (region, name) = (seat.id.region.clone(), seat.id.name.to_string());
            let who = Principal { role: Role::Node, region, name };
            nodes.push((seat.id.clone(), issue(&who, &self.config.join(&seat.identity))?));
            let store = StoreId(Seed::from_entropy().rng().u128());
            let expect = Expect { cluster: self.cluster, node: seat.id.clone(), init: Some(store) };
            DataDir::open(&self.config.join(&seat.data), &expect)?;
        }
        let mut people = Vec::new();
        for (who, folder) in &self.people {
            people.push((folder.clone(), issue(who, folder)?));
        }
        let policy_key = self.found_policy()?;
        Ok(Founded { authority: authority.authority().certificate().clone(), nodes, people, policy_key })
    }

    /// A policy for the mesh's regions, signed by an operator key made for it.
    fn found_policy(&self) -> anyhow::Result<OperatorPublicKey> {
        fs::create_dir_all(&self.policy_key)?;
        let mut rng = Seed::from_entropy().rng();
        let mut secret = zeroize::Zeroizing::new([0u8; 32]);
        secret.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.u64().to_be_bytes()));
        let key = OperatorKey::from_seed(*secret);
        let pem = pem::encode(&Pem::new("PRIVATE KEY", key.to_pkcs8()));
        let file = self.policy_key.join(POLICY_KEY_FILE);
        secrets::create(&file, &Secret::from(pem))?;
        fs::write(self.policy_key.join(POLICY_PUBLIC_FILE), format!("{}\n", key.public()))?;
        let text = self.policy(&file);
        fs::write(self.config.join("policy.toml"), &text)?;
        fs::write(self.config.join("policy.toml.sig"), key.sign(text.as_bytes()))?;
        Ok(key.public())
    }

    /// Each region a jurisdiction of its own, and one class of data that may go everywhere, or two.
    fn policy(&self, key: &Path) -> String {
        let regions: BTreeSet<&Region> = self.seats.iter().map(|seat| &seat.id.region).collect();
        let mut text = format!(
            "# Written and signed by `{}`. Change it, then: rhumb policy sign --key {} policy.toml\n\
             version = 1\n\n[jurisdictions]\n",
            self.by,
            key.display()
        );
        for region in regions {
            text.push_str(&format!("{region} = [\"{region}\"]\n"));
        }
        let classes = ["inventory", "personal"];
        for class in &classes[..1 + usize::from(self.personal)] {
            text.push_str(&format!(
                "\n[classes.{class}]\nhold = [\"all\"]\nread = [\"all\"]\ncarry = [\"all\"]\n"
            ));
        }
        text
    }

    /// Writes the settings of all nodes as files, as one could by hand: `global.toml` and a file a
    /// region.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_settings(&self, policy_key: &str) -> anyhow::Result<()> {
        let mut global = format!(
            "# Written by `{}`. All keys: rhumb config reference\n[mesh]\ncluster = \"{}\"\ntrust_domain = \"{}\"\n\n\
             [mesh.founding]\n",
            self.by, self.cluster, self.domain
        );
        for seat in &self.seats {
            writeln!(global, "\"{}\" = \"{}\"", seat.id, seat.quic)?;
        }
        write!(global, "\n[policy]\nfile = \"policy.toml\"\nkeys = [\"{policy_key}\"]\n")?;
        if let Some(traces) = &self.traces {
            write!(global, "\n[telemetry]\n{}", written(traces))?;
        }
        fs::write(self.config.join("global.toml"), global)?;
        let mut regions: BTreeMap<&Region, BTreeMap<&str, NodeEntry<'_>>> = BTreeMap::new();
        for seat in &self.seats {
            let entry = NodeEntry {
                listen: seat.listen,
                admin: seat.admin,
                data: &seat.data,
                identity: &seat.identity,
                dial: &seat.dial,
            };
            regions.entry(&seat.id.region).or_default().insert(seat.id.name.as_str(), entry);
        }
        for (region, nodes) in regions {
            let text = toml::to_string(&BTreeMap::from([("nodes", nodes)]))?;
            fs::write(self.config.join(format!("{region}.toml")), text)?;
        }
        Ok(())
    }
}

/// Makes everything in a folder durable, and the folder's own name: what a command says that it founded
/// outlives a power cut after it.
///
/// # Errors
/// Something cannot be read or synced.
pub fn settle(folder: &Path) -> anyhow::Result<()> {
    let folder = folder.canonicalize()?;
    settle_in(&folder)?;
    // The root has no name.
    Ok(folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?)
}

fn settle_in(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            settle_in(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Where traces go, as it stands in a file.
fn written(traces: &TelemetrySettings) -> String {
    let share = f64::from(traces.share.as_per_million()) / 1e6;
    let mut text = format!("sample = {share}\n");
    if let Some(endpoint) = &traces.endpoint {
        let protocol = if traces.protocol == Protocol::Http { "http" } else { "grpc" };
        text.push_str(&format!("endpoint = {:?}\nprotocol = \"{protocol}\"\n", endpoint.to_string()));
    }
    text
}

/// A node in its region's file.
#[derive(Serialize)]
struct NodeEntry<'a> {
    listen: SocketAddr,
    admin: SocketAddr,
    data: &'a Path,
    identity: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dial: &'a BTreeMap<String, SocketAddr>,
}
