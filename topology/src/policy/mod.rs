//! The residency policy: which regions may hold, read or carry which class of data.
//!
//! * It decides: what a well-formed policy file is, whether an operator signed it, and whether data
//!   of a class may pass from one region to another.
//! * It never does: answer "allowed" when it does not know. No policy, an unknown class, a region
//!   that no jurisdiction names: refused, with the rule. It reads no clock; see
//!   [`PolicySnapshot::observe`].
//! * Invariant: a [`PolicySnapshot`] never changes but for its clock, which only rises, so that an
//!   exception that has ended does not come back.
//!
//! # The file
//!
//! ```toml
//! version = 3                     # rises with every change; the higher one wins
//!
//! [jurisdictions]                 # name = the regions under one law; every region used below
//! eu = ["eu-central", "eu-west"]  # stands in at least one
//! us = ["us-east"]
//!
//! [classes.inventory]
//! hold  = ["all"]                 # may keep it: replicas, ledgers, caches, backups
//! read  = ["all"]                 # may see it: replies, messages
//! carry = ["all"]                 # may send it on to a region that may hold or read it
//!
//! [classes.personal]
//! hold  = ["jurisdiction:eu"]
//! read  = ["jurisdiction:eu"]
//! carry = ["jurisdiction:eu", "us-east"]
//! audit_reads = true              # every read goes into the audit log; false unless set
//!
//! [[exceptions]]                  # a way that the rule refuses, for a reason and for a time
//! class   = "personal"
//! from    = "eu-central"          # a region, or "jurisdiction:NAME"
//! to      = "us-east"
//! reason  = "migration 2031-07, approved by the data protection officer"
//! expires = 2031-07-31T00:00:00Z  # RFC 3339, without quotes
//! ```
//!
//! A list names regions, `"jurisdiction:NAME"`, or `"all"` alone: every region that a jurisdiction of
//! this file names. Beside `policy.toml` stands `policy.toml.sig` (see [`OperatorKey::sign`]).
//!
//! # What passes
//!
//! From region A to region B, if A may hold or carry the class and B may hold or read it, or if an
//! exception that has not ended says so. Within one region, if it may hold, read or carry it. The
//! class `control` passes always and cannot be in the file.

mod parse;
mod read;
mod sign;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::{DataClass, Region};
use serde::Serialize;

pub use parse::{MAX_POLICY_BYTES, PolicyError, PolicyErrors};
pub use sign::{
    KeyError, KeyId, OperatorKey, OperatorKeys, OperatorPublicKey, PolicyRejected, SignatureError,
    SignedPolicy,
};
pub use snapshot::{Permit, PolicySnapshot, Use};

/// A policy file that was read and found whole: every selector is resolved to regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its version, from 1; rises with every change.
    pub version: u64,
    /// The jurisdictions and their regions.
    pub jurisdictions: BTreeMap<String, BTreeSet<Region>>,
    /// The classes and where they may be.
    pub classes: BTreeMap<DataClass, ClassRule>,
    /// Ways that the rules refuse but that are open for a time, in the file's order.
    pub exceptions: Vec<Exception>,
}

/// Where a class of data may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassRule {
    /// Regions that may keep it.
    pub hold: BTreeSet<Region>,
    /// Regions that may see it.
    pub read: BTreeSet<Region>,
    /// Regions that may send it on.
    pub carry: BTreeSet<Region>,
    /// Whether each read goes into the audit log.
    pub audit_reads: bool,
}

/// A way that is open for a reason and for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// The class it is about.
    pub class: DataClass,
    /// The regions the data may come from.
    pub from: BTreeSet<Region>,
    /// The regions it may go to.
    pub to: BTreeSet<Region>,
    /// Why.
    pub reason: String,
    /// When it ends, in milliseconds since the Unix epoch: from then on it says nothing.
    pub expires_ms: u64,
}

impl Policy {
    /// Whether a jurisdiction names this region.
    #[must_use]
    pub fn names(&self, region: &Region) -> bool {
        self.jurisdictions.values().any(|regions| regions.contains(region))
    }

    /// Every region that a jurisdiction names.
    #[must_use]
    pub fn regions(&self) -> BTreeSet<&Region> {
        self.jurisdictions.values().flatten().collect()
    }
}

impl Exception {
    /// Whether it has ended at this time.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }
}

/// A time in milliseconds since the Unix epoch as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms after 1970"))
}

#[cfg(test)]
mod tests;
