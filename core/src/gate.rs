//! The question every message is asked twice: may data of this class go there? Transport knows no
//! policy; it calls a [`Gate`] that the runtime injects, once before bytes leave and once after they
//! arrive, independently.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::class::DataClass;
use crate::ids::Region;

/// What a certificate says its holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A node of the mesh.
    Node,
    /// A program or person that may only call.
    Client,
    /// A person who may also administer.
    Operator,
}

impl Role {
    /// The path segment in a SPIFFE id.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who a verified certificate says the peer is:
/// `spiffe://<trust-domain>/region/<region>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// What it may do.
    pub role: Role,
    /// The region in which its certificate places it.
    pub region: Region,
    /// Its name there (a DNS label).
    pub name: String,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.role, self.region, self.name)
    }
}

/// Which way the bytes go, seen from the node that asks the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// About to leave this node.
    Egress,
    /// Just arrived, not yet handed to anyone.
    Ingress,
}

/// One passage of data between two regions.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// Leaving or arriving.
    pub direction: Direction,
    /// The class of the data.
    pub class: &'a DataClass,
    /// The region the bytes come from; for a peer, what its certificate says.
    pub from: &'a Region,
    /// The region the bytes go to; for a peer, what its certificate says.
    pub to: &'a Region,
}

/// Why a passage was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("policy refuses class {class} from {from} to {to}: {reason}")]
pub struct GateRefusal {
    /// The class of the data.
    pub class: DataClass,
    /// Where it came from.
    pub from: Region,
    /// Where it was to go.
    pub to: Region,
    /// The rule that says no, or that there is none.
    pub reason: String,
}

/// Decides passages. Implementations answer from an immutable snapshot and never block; what they do
/// not know they refuse.
pub trait Gate: Send + Sync + 'static {
    /// Whether the data may pass.
    ///
    /// # Errors
    /// [`GateRefusal`] names the class, the way and the rule.
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal>;
}
