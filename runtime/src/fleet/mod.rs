//! The certificates of a whole mesh, as an operator keeps them: the authority's folder and everybody's identity
//! folders.
//!
//! ```text
//! mesh.json  ca/  nodes/REGION-NAME/identity  clients/*  operators/*      of `rhumb mesh init`
//! mesh.json  ca/  nodes/REGION-NAME/identity  client  operator            of `rhumb dev`
//! ```
//!
//! * It decides: who belongs to the mesh, and what is told of what was done.
//! * It never does: reach a node. A node follows its own folder; where that is on another machine, a program
//!   of the operator's takes the folder there ([`Delivery`]).

mod canary;
mod delivery;
mod events;
mod reached;
mod rollback;
mod rotation;
mod rotor;
mod schedule;
mod strays;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rhumb_core::NodeId;
use rhumb_transport::identity::Holder;
use rhumb_transport::issue::Validity;
use rhumb_transport::{Certificate, Trust};

use crate::authority::{AuthorityFolder, Issued, Place};
use crate::founding::MeshFile;
use crate::identity::{CA_FILE, IDENTITY_FILE};
pub use canary::{Bake, Before, ENOUGH, Given, Limits, Verdict};
pub use delivery::{Delivery, Missed, told as told_of_missed};
pub use events::{EVENTS_FILE, Event, note};
pub use reached::{activated_everywhere, prepared_everywhere, retired_everywhere};
pub use rollback::{RolledBack, roll_back, roll_back_to};
pub use rotation::{Folder, Move, NotYet, Out, Stage, Stand, next_move};
pub use rotor::{PassedOver, Rotor};
pub use schedule::{next_life, renew_at};
pub use strays::Stray;

/// Somebody's identity folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node; none for clients and operators.
    pub node: Option<NodeId>,
    /// Where its certificate lies.
    pub folder: PathBuf,
}

impl Member {
    /// The certificate that lies there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn certificate(&self) -> anyhow::Result<Certificate> {
        let path = self.folder.join(IDENTITY_FILE);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut chain = Certificate::all_of(&bytes).with_context(|| path.display().to_string())?;
        Ok(chain.swap_remove(0))
    }

    /// Whose it is, as far as that is known.
    #[must_use]
    pub fn holder(&self) -> String {
        match (self.certificate(), &self.node) {
            (Ok(certificate), _) => certificate.holder.to_string(),
            (Err(_), Some(node)) => format!("node {node}"),
            (Err(_), None) => self.folder.display().to_string(),
        }
    }
}

/// A mesh, as its operator has it.
#[derive(Debug, Clone)]
pub struct Fleet {
    dir: PathBuf,
    members: Vec<Member>,
    delivery: Delivery,
}

impl Fleet {
    /// The mesh in a folder.
    ///
    /// # Errors
    /// It holds none, or cannot be read.
    pub fn open(dir: &Path, delivery: Delivery) -> anyhow::Result<Self> {
        let mesh = MeshFile::read(dir)?;
        let mesh = mesh.with_context(|| {
            format!(
                "{} holds no mesh: give the folder of `rhumb mesh init`, or the data of `rhumb dev`",
                dir.display()
            )
        })?;
        let node = |id: &NodeId| Member {
            node: Some(id.clone()),
            folder: dir.join("nodes").join(format!("{}-{}", id.region, id.name)).join("identity"),
        };
        let mut members: Vec<Member> = mesh.nodes.iter().map(node).collect();
        let mut people = vec![dir.join("client"), dir.join("operator")];
        for group in ["clients", "operators"] {
            people.extend(folders_in(&dir.join(group))?);
        }
        let people = people.into_iter().filter(|folder| folder.join(IDENTITY_FILE).exists());
        members.extend(people.map(|folder| Member { node: None, folder }));
        Ok(Self { dir: dir.to_owned(), members, delivery })
    }

    /// The folder of its authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca")
    }

    /// Nodes first, then clients and operators.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.members.iter().filter_map(|member| member.node.as_ref())
    }

    /// One of its nodes.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node.as_ref() == Some(id))
    }

    /// Why a member's certificate is believed no more, so that only whoever names him has it renewed; none where it is.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn out(&self, authority: &AuthorityFolder, member: &Member) -> anyhow::Result<Option<Out>> {
        let present = member.certificate()?;
        if authority.revoked()?.contains(&present.serial.to_string()) {
            return Ok(Some(Out::Revoked));
        }
        let path = self.authority().join(CA_FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let trust = Trust::from_pem(&text, None).with_context(|| path.display().to_string())?;
        let is_of = |by: Certificate| by.holder.to_string() == present.issuer;
        Ok(if trust.authorities().any(is_of) { None } else { Some(Out::Disbelieved) })
    }

    /// Renews a member's certificate, for [as long](next_life) as its present one was issued for unless told
    /// otherwise, but never longer than the authority is. It is not delivered yet. While the authority's folder is
    /// held, what was [seen](Fleet::out) of the member still holds.
    ///
    /// # Errors
    /// It would not do, or cannot be written.
    pub fn renew(
        &self,
        authority: &AuthorityFolder,
        member: &Member,
        valid: Option<Duration>,
    ) -> anyhow::Result<Certificate> {
        let present = member.certificate()?;
        let Holder::Member(_, who) = &present.holder else {
            anyhow::bail!("{} is an authority's certificate", member.folder.display())
        };
        let life = || -> anyhow::Result<Duration> {
            let issued = authority.issued()?.all;
            Ok(next_life(&Issued::from(&present), &issued, &authority.ends()))
        };
        let mut validity = Validity::for_the_next(valid.map_or_else(life, Ok)?);
        if valid.is_none() {
            validity = validity.within(authority.authority().certificate().not_after);
        }
        let issued = authority.issue(who, validity, &member.folder, Place::Renewed)?;
        note(&self.authority(), &Event::renewed(&issued))?;
        Ok(issued)
    }

    /// Where its nodes are dialled, as the settings beside it say.
    ///
    /// # Errors
    /// There are no settings, or they name no address.
    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let path = self.dir.join("config").join("global.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let settings: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        let founding =
            settings.get("mesh").and_then(|mesh| mesh.get("founding")).and_then(toml::Value::as_table);
        let addresses = founding.into_iter().flat_map(|founding| founding.values());
        let addresses: Vec<String> = addresses.filter_map(|at| Some(at.as_str()?.to_owned())).collect();
        anyhow::ensure!(!addresses.is_empty(), "{} has no mesh.founding", path.display());
        Ok(addresses)
    }

    /// The folder of an operator's certificate.
    #[must_use]
    pub fn operator(&self) -> Option<&Path> {
        let people = self.members.iter().filter(|member| member.node.is_none());
        let mut operators = people.filter(|member| {
            let parts: Vec<_> = member.folder.iter().rev().take(2).collect();
            parts.iter().any(|part| *part == "operator" || *part == "operators")
        });
        operators.next().map(|member| member.folder.as_path())
    }
}

fn folders_in(group: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", group.display()))?,
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}
