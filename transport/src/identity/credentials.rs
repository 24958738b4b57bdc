//! This side's own certificate, its key, and what it believes of others.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::Principal;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::{Certificate, Holder, IdentityError, Trust, TrustDomain};

/// Why credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// A text does not hold what it should.
    #[error("{what}: {reason}")]
    Pem {
        /// Which part.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate: {0}")]
    KeyMismatch(String),
    /// The certificate does not name a member of a mesh, or is not to be believed.
    #[error("own certificate: {0}")]
    Identity(#[from] IdentityError),
    /// It names somebody else than the one whose place it should take.
    #[error("own certificate: it is that of {found}, expected that of {expected}")]
    Somebody {
        /// Whose place it is.
        expected: String,
        /// Whom it names.
        found: String,
    },
    /// A certificate cannot be issued.
    #[error("cannot issue a certificate: {0}")]
    Issue(String),
}

/// A certificate chain with its key, and what is believed of others.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    certificate: Certificate,
    principal: Principal,
    domain: TrustDomain,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("principal", &self.principal)
            .field("domain", &self.domain)
            .field("serial", &self.certificate.serial)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials of a chain with its key, leaf first, as one PEM text.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(identity: &[u8], trust: Trust) -> Result<Self, CredentialsError> {
        let chain = certificates("certificate chain", identity)?;
        let key = PrivateKeyDer::from_pem_slice(identity).map_err(|e| pem("private key", e))?;
        let certificate = Certificate::read(&chain[0])?;
        let Holder::Member(domain, principal) = certificate.holder.clone() else {
            return Err(IdentityError::Usage("it is an authority's".to_owned()).into());
        };
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|e| CredentialsError::KeyMismatch(e.to_string()))?;
        Ok(Self { key: Arc::new(key), trust: Arc::new(trust), certificate, principal, domain })
    }

    /// The same identity, believing something else.
    #[must_use]
    pub fn believing(&self, trust: Trust) -> Self {
        Self { trust: Arc::new(trust), ..self.clone() }
    }

    /// Who the certificate says this side is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The mesh's name in certificates.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// What stands in the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What this side believes of others.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The name in the certificate of a peer to dial.
    #[must_use]
    pub fn dns_name_of(&self, peer: &Principal) -> String {
        self.domain.dns_name(peer)
    }

    /// Checks this side's own certificate as a peer would that believes the same: issued by these
    /// authorities, not revoked, valid at this time (since the Unix epoch). To be asked before a
    /// certificate is put to use.
    ///
    /// # Errors
    /// What a peer would say.
    pub fn verify(&self, now: Duration) -> Result<(), CredentialsError> {
        self.trust.verify(&self.key.cert, now)
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// The one cryptographic provider, always passed explicitly: an implicit default panics as soon as a
/// second one is in the dependency graph.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM text; at least one.
pub(super) fn certificates(
    what: &str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|e| pem(what, e))?;
    if found.is_empty() { Err(pem(what, "there is no CERTIFICATE in it")) } else { Ok(found) }
}

pub(super) fn pem(what: &str, reason: impl fmt::Display) -> CredentialsError {
    CredentialsError::Pem { what: what.to_owned(), reason: reason.to_string() }
}
