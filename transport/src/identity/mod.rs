//! Who a peer is: X.509 certificates with exactly one SPIFFE URI, and for nodes the DNS name that
//! follows from it.
//!
//! * It decides: whether a certificate is that of a node, client or operator of this mesh, whether the
//!   name dialled is the one presented, and whether its region may connect.
//! * It never does: weaken what webpki checks (chain, validity, purpose, name, revocation); it only adds
//!   to it. Or touch a file: it is given bytes, and gives bytes back.
//! * Invariant: what a peer is called everywhere else comes from here, never from what it says.

mod certificate;
mod credentials;
pub mod issue;
mod renewal;
mod revocation;
mod spiffe;
mod trust;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_core::{Principal, Region, Role};
use thiserror::Error;

pub use certificate::{Age, Certificate, Holder, Serial};
pub(crate) use credentials::provider;
pub use credentials::{Credentials, CredentialsError};
pub use renewal::{Outcome, Reading, Renewal};
pub use revocation::RevocationList;
pub(crate) use spiffe::principal_of;
pub use trust::{Revocations, Trust};
pub(crate) use verify::{ClientCheck, ServerCheck, Verdict, in_our_words};

/// Characters of a trust domain at most, so that `<node>.<region>.<trust domain>` is a DNS name.
pub const MAX_TRUST_DOMAIN_LEN: usize = 120;

/// The name of a mesh in certificates, such as `mesh.example`: a DNS name in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses and validates a trust domain.
    ///
    /// # Errors
    /// [`IdentityError::TrustDomain`].
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        let label = |label: &str| Region::new(label).is_ok();
        if name.len() <= MAX_TRUST_DOMAIN_LEN && name.split('.').all(label) {
            Ok(Self(name.into()))
        } else {
            Err(IdentityError::TrustDomain(name.chars().take(160).collect()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<name>.<region>.<trust domain>`.
    #[must_use]
    pub fn dns_name(&self, principal: &Principal) -> String {
        format!("{}.{}.{}", principal.name, principal.region, self.0)
    }

    /// `spiffe://<trust domain>/region/<region>/<role>/<name>`.
    #[must_use]
    pub fn spiffe_id(&self, principal: &Principal) -> String {
        format!("spiffe://{}/region/{}/{}/{}", self.0, principal.region, principal.role, principal.name)
    }

    /// Reads a SPIFFE id of this trust domain.
    ///
    /// # Errors
    /// [`IdentityError::Uri`] or [`IdentityError::ForeignDomain`].
    pub fn parse(&self, uri: &str) -> Result<Principal, IdentityError> {
        let bad = || IdentityError::Uri(uri.chars().take(300).collect());
        let rest = uri.strip_prefix("spiffe://").ok_or_else(bad)?;
        let (domain, path) = rest.split_once('/').ok_or_else(bad)?;
        if domain != self.as_str() {
            return Err(IdentityError::ForeignDomain {
                expected: self.to_string(),
                found: domain.to_owned(),
            });
        }
        let parts: Vec<&str> = path.split('/').collect();
        let ["region", region, role, name] = parts[..] else { return Err(bad()) };
        let roles = [Role::Node, Role::Client, Role::Operator];
        let role = roles.into_iter().find(|r| r.as_str() == role).ok_or_else(bad)?;
        let region = Region::new(region).map_err(|_| bad())?;
        // Every name is a DNS label, whatever its role.
        let name = Region::new(name).map_err(|_| bad())?.to_string();
        Ok(Principal { role, region, name })
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;
    fn from_str(s: &str) -> Result<Self, IdentityError> {
        Self::new(s)
    }
}

/// The regions whose certificates may connect. Shared: a change holds for every later handshake.
#[derive(Debug, Clone, Default)]
pub struct Regions(Arc<RwLock<BTreeSet<Region>>>);

impl Regions {
    /// These regions.
    pub fn of(regions: impl IntoIterator<Item = Region>) -> Self {
        Self(Arc::new(RwLock::new(regions.into_iter().collect())))
    }

    /// Replaces them.
    pub fn replace(&self, regions: impl IntoIterator<Item = Region>) {
        *self.0.write() = regions.into_iter().collect();
    }

    /// Whether a region may connect.
    #[must_use]
    pub fn allow(&self, region: &Region) -> bool {
        self.0.read().contains(region)
    }
}

/// Why a certificate does not say who its holder is, or says someone who may not connect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// There is none.
    #[error("no certificate was presented")]
    NoCertificate,
    /// It does not chain to a known authority.
    #[error("it was not issued by this mesh's authority")]
    UnknownAuthority,
    /// Its time has passed, or has not come.
    #[error("it is not valid now: expired, or not valid yet")]
    Expired,
    /// It was revoked.
    #[error("it was revoked")]
    Revoked,
    /// Whether it was revoked is not known, and it must be.
    #[error("whether it was revoked is not known: its authority's list is missing or out of date")]
    RevocationUnknown,
    /// Its region is not among those that may connect.
    #[error("region {0} is not among those that may connect")]
    Region(String),
    /// The name presented is not the one dialled.
    #[error("expected {expected}, found {found}")]
    Name {
        /// Who was dialled.
        expected: String,
        /// Who answered.
        found: String,
    },
    /// Another role than is needed here.
    #[error("expected a node, found {0}")]
    Role(String),
    /// Not exactly one SPIFFE URI.
    #[error("it has {0} URI names, expected exactly one")]
    UriCount(usize),
    /// The URI does not follow the pattern.
    #[error("{0:?} is not spiffe://TRUST-DOMAIN/region/REGION/node|client|operator/NAME")]
    Uri(String),
    /// Another mesh's trust domain.
    #[error("trust domain {found}, expected {expected}")]
    ForeignDomain {
        /// Ours.
        expected: String,
        /// Its.
        found: String,
    },
    /// A trust domain that is none.
    #[error(
        "{0:?} is not a trust domain: use a DNS name in lower case of at most {MAX_TRUST_DOMAIN_LEN} characters"
    )]
    TrustDomain(String),
    /// A serial number that is none.
    #[error(
        "{0:?} is not a serial number: use up to 40 hexadecimal digits, as `rhumb cert status` prints them"
    )]
    Serial(String),
    /// A certificate that may sign others, or may not sign a handshake.
    #[error("it is not an end-entity certificate: {0}")]
    Usage(String),
    /// Anything else that is wrong with it.
    #[error("{0}")]
    Invalid(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("mesh.example").expect("valid")
    }

    #[test]
    fn trust_domains_are_dns_names() {
        for good in ["mesh.example", "rhumb", "a-b.c1"] {
            assert!(TrustDomain::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "A.b", "a_b", "a/b", "a.b.", &"a".repeat(64), &"a.".repeat(100)] {
            assert!(TrustDomain::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_spiffe_id_reads_back_who_it_names() {
        for role in [Role::Node, Role::Client, Role::Operator] {
            let region = Region::new("us-east").expect("valid");
            let principal = Principal { role, region, name: "n1".into() };
            assert_eq!(domain().parse(&domain().spiffe_id(&principal)), Ok(principal));
        }
    }

    #[test]
    fn uris_that_only_look_like_it_are_refused() {
        for bad in [
            "spiffe://mesh.example/region/us/node/",
            "spiffe://mesh.example/region/us/node/n1/x",
            "spiffe://mesh.example/region/us/chief/n1",
            "spiffe://mesh.example/zone/us/node/n1",
            "spiffe://mesh.example/region/US/node/n1",
            "spiffe://mesh.example/region/us/node/n1.evil",
            "spiffe://mesh.example/region/us/node/n1?x",
            "https://mesh.example/region/us/node/n1",
            "spiffe://mesh.example",
        ] {
            assert!(matches!(domain().parse(bad), Err(IdentityError::Uri(_))), "{bad}");
        }
        let foreign = domain().parse("spiffe://mesh.example.evil/region/us/node/n1");
        assert!(matches!(foreign, Err(IdentityError::ForeignDomain { .. })));
    }
}
