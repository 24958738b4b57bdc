//! The folder with a node's, client's or operator's identity.
//!
//! ```text
//! identity.pem   the certificate chain, leaf first, and its key: secret
//! ca.pem         the authorities that others' certificates must chain to; two while one takes over
//! crl.pem        what these have revoked; need not be there
//! ```
//!
//! A folder with [generations](crate::generations) has links of these names to the files of the one in force.
//!
//! * It decides: what is read from where, and what a folder that cannot be used lacks.
//! * Invariants: certificate and key are one file, so that a mismatched pair cannot come about. What is read
//!   together is of one generation.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rhumb_transport::identity::{Reading, Revocations};
use rhumb_transport::{Credentials, CredentialsError, Trust};
use thiserror::Error;

use crate::generations::Generations;
use crate::secrets::{Files, Secret, SecretError, Secrets};

/// The certificate chain and its key.
pub const IDENTITY_FILE: &str = "identity.pem";
/// The authorities that others' certificates must chain to.
pub const CA_FILE: &str = "ca.pem";
/// What these have revoked.
pub const CRL_FILE: &str = "crl.pem";
/// How often a folder is read again whose generation changes meanwhile. Nobody renews so fast.
const READS: usize = 3;

/// Why an identity cannot be used.
#[derive(Debug, Error)]
pub enum IdentityFault {
    /// The key cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another of the files cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What stands in them cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Reads the identity in a folder.
///
/// # Errors
/// [`IdentityFault`] names the file and what is wrong with it.
pub fn load(folder: &Path) -> Result<Credentials, IdentityFault> {
    load_with(&Files::of(folder), folder)
}

/// Reads the identity in a folder, the key from where secrets are had.
///
/// # Errors
/// [`IdentityFault`].
pub fn load_with(secrets: &dyn Secrets, folder: &Path) -> Result<Credentials, IdentityFault> {
    Found::read(secrets, folder).credentials(Revocations::Lenient)
}

/// What a folder holds now.
#[derive(Debug)]
pub struct Found {
    identity: Result<Secret, SecretError>,
    authorities: Result<Vec<u8>, IdentityFault>,
    revocations: Result<Option<Vec<u8>>, IdentityFault>,
}

impl Found {
    /// Reads all of it.
    #[must_use]
    pub fn read(secrets: &dyn Secrets, folder: &Path) -> Self {
        let generations = Generations::of(folder);
        let mut before = generations.current();
        for _ in 0..READS {
            let found = Self::read_once(secrets, folder);
            let now = generations.current();
            if now == before {
                return found;
            }
            before = now;
        }
        Self::read_once(secrets, folder)
    }

    fn read_once(secrets: &dyn Secrets, folder: &Path) -> Self {
        let public = |name| {
            let path = folder.join(name);
            fs::read(&path).map_err(|source| IdentityFault::File { path, source })
        };
        let revocations = match public(CRL_FILE) {
            Err(IdentityFault::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        };
        Self { identity: secrets.read(IDENTITY_FILE), authorities: public(CA_FILE), revocations }
    }

    /// What came from elsewhere: the chain with its key, or why there is none; the authorities; what these have
    /// revoked.
    #[must_use]
    pub fn of(identity: Result<Secret, String>, authorities: Vec<u8>, revocations: Option<Vec<u8>>) -> Self {
        let identity = identity.map_err(|why| SecretError::NotSent { name: IDENTITY_FILE.to_owned(), why });
        Self { identity, authorities: Ok(authorities), revocations: Ok(revocations) }
    }

    /// The credentials that all of it is together.
    ///
    /// # Errors
    /// [`IdentityFault`] names what cannot be used.
    pub fn credentials(self, revocations: Revocations) -> Result<Credentials, IdentityFault> {
        let trust = Trust::from_pem(&self.authorities?, self.revocations?.as_deref())?;
        Ok(Credentials::new(self.identity?.bytes(), trust.with(revocations))?)
    }

    /// The texts, or why one could not be read.
    #[must_use]
    pub fn reading(&self) -> Reading<'_> {
        Reading {
            identity: self.identity.as_ref().map(Secret::bytes).map_err(ToString::to_string),
            authorities: self.authorities.as_deref().map_err(ToString::to_string),
            revocations: self.revocations.as_ref().map(Option::as_deref).map_err(ToString::to_string),
        }
    }
}
