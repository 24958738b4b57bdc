//! This side's own certificate, its key, and the authorities it believes.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhumb_core::Principal;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::{IdentityError, TrustDomain, principal_of, spiffe};

/// The certificate chain and its key, as one unit, so that a mismatched pair cannot come about.
pub const IDENTITY_FILE: &str = "identity.pem";
/// The authorities that peers' certificates must chain to.
pub const CA_FILE: &str = "ca.pem";

/// Why credentials cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner can read the key.
    #[error("{path} holds a private key and has mode {mode:03o}: run `chmod 600 {path}`", path = path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{what}: {reason}")]
    Pem {
        /// Which file or part.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate: {0}")]
    KeyMismatch(String),
    /// The certificate does not name a member of a mesh.
    #[error("own certificate: {0}")]
    Identity(#[from] IdentityError),
    /// A certificate cannot be issued.
    #[error("cannot issue a certificate: {0}")]
    Issue(String),
}

/// A certificate chain with its key, and the authorities that peers must chain to.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    principal: Principal,
    domain: TrustDomain,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("principal", &self.principal)
            .field("domain", &self.domain)
            .finish()
    }
}

impl Credentials {
    /// Reads [`IDENTITY_FILE`] and [`CA_FILE`] of a directory.
    ///
    /// # Errors
    /// [`CredentialsError`] names the file and what is wrong with it.
    pub fn load(dir: &Path) -> Result<Self, CredentialsError> {
        let identity = dir.join(IDENTITY_FILE);
        private(&identity)?;
        Self::from_pem(&read(&identity)?, &read(&dir.join(CA_FILE))?)
    }

    /// Credentials of a chain with its key, leaf first, and of the authorities' certificates.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_pem(identity: &[u8], authorities: &[u8]) -> Result<Self, CredentialsError> {
        let chain = certificates("certificate chain", identity)?;
        let key = PrivateKeyDer::from_pem_slice(identity).map_err(|e| pem("private key", e))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("authorities", authorities)? {
            roots.add(authority).map_err(|e| pem("authorities", e))?;
        }
        let domain = spiffe::domain_of_leaf(&chain[0])?;
        let principal = principal_of(&domain, &chain[0])?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|e| CredentialsError::KeyMismatch(e.to_string()))?;
        Ok(Self { key: Arc::new(key), roots: Arc::new(roots), principal, domain })
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

    /// The name in the certificate of a peer to dial.
    #[must_use]
    pub fn dns_name_of(&self, peer: &Principal) -> String {
        self.domain.dns_name(peer)
    }

    /// When the certificate ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self) -> i64 {
        let leaf = self.key.end_entity_cert().ok();
        let parsed = leaf.and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
        parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp())
    }

    /// Checks this side's own certificate as a peer would: issued by these authorities, valid at this
    /// time (since the Unix epoch). To be asked before a certificate is put to use.
    ///
    /// # Errors
    /// What a peer would say.
    pub fn verify(&self, now: std::time::Duration) -> Result<(), CredentialsError> {
        let (leaf, rest) = self.key.cert.split_first().ok_or(IdentityError::NoCertificate)?;
        let now = rustls::pki_types::UnixTime::since_unix_epoch(now);
        let checked = self.client_verifier()?.verify_client_cert(leaf, rest, now);
        checked.map_err(|e| super::verify::in_our_words(&e))?;
        Ok(())
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }

    pub(crate) fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, CredentialsError> {
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|e| pem("authorities", e))
    }

    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|e| pem("authorities", e))
    }
}

/// The one cryptographic provider, always passed explicitly: an implicit default panics as soon as a
/// second one is in the dependency graph.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(what: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|e| pem(what, e))?;
    if found.is_empty() { Err(pem(what, "there is no CERTIFICATE in it")) } else { Ok(found) }
}

fn pem(what: &str, reason: impl fmt::Display) -> CredentialsError {
    CredentialsError::Pem { what: what.to_owned(), reason: reason.to_string() }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(|source| CredentialsError::File { path: path.to_owned(), source })
}

/// Refuses a file that others than its owner can read.
#[cfg(unix)]
pub(super) fn private(path: &Path) -> Result<(), CredentialsError> {
    use std::os::unix::fs::PermissionsExt;
    let file = |source| CredentialsError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(CredentialsError::Mode { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
pub(super) fn private(_: &Path) -> Result<(), CredentialsError> {
    Ok(())
}

/// Writes a file that only its owner may read, all of it or nothing: to a new name, then renamed.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CredentialsError> {
    write(path, bytes, true)
}

/// Writes a file that anyone may read, all of it or nothing.
pub(super) fn write_public(path: &Path, bytes: &[u8]) -> Result<(), CredentialsError> {
    write(path, bytes, false)
}

fn write(path: &Path, bytes: &[u8], private: bool) -> Result<(), CredentialsError> {
    use std::io::Write;
    let write = || -> io::Result<()> {
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o644 });
        #[cfg(not(unix))]
        let _ = private;
        let mut file = options.open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| CredentialsError::File { path: path.to_owned(), source })
}
