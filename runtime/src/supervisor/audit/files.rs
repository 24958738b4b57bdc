//! The secrets of an audit log, in files: what it signs with, and what wraps subjects' keys.
//!
//! ```text
//! IDENTITY/audit.key               what the log signs with, if somebody put it there: Ed25519, PKCS#8 in PEM
//! KEYS/REGION.NODE/audit.key       else it is here; the first start makes it
//! KEYS/REGION.NODE/REGION.NUMBER   wrapping keys, 32 bytes each
//! ```
//!
//! * It never does: make a second key in place of one that is there, or leave one readable by others.
//! * Invariant: what it says was made or destroyed is so after a power cut too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pem::Pem;
use rhumb_actors::audit::seal::{SecretKey, WrappedBy};
use rhumb_core::NodeId;
use rhumb_core::rng::Seed;
use rhumb_topology::policy::OperatorKey;
use zeroize::Zeroizing;

use crate::secrets::{self, Environment, Files, FirstOf, Secret, SecretError, Secrets};

/// The log's signing key.
const SIGNING_FILE: &str = "audit.key";
const BYTES: usize = 32;

/// What the node's log signs with, made where there is none yet.
///
/// # Errors
/// It can be neither read nor made; the file is named.
pub(super) fn signing(identity: &Path, keys: &WrappingKeys) -> anyhow::Result<SecretKey> {
    let path = keys.folder.join(SIGNING_FILE);
    let places: Vec<Box<dyn Secrets>> =
        vec![Box::new(Environment::ours()), Box::new(Files::of(identity)), Box::new(Files::of(&keys.folder))];
    let read = match FirstOf::places(places).read(SIGNING_FILE) {
        Ok(secret) => secret,
        Err(SecretError::Missing { .. }) => {
            let key = OperatorKey::from_seed(*drawn());
            let secret = Secret::from(pem::encode(&Pem::new("PRIVATE KEY", key.to_pkcs8())));
            secrets::replace(&path, &secret)?;
            tracing::info!(file = %path.display(), "made the key that the audit log signs with: keep a copy of it");
            secret
        }
        Err(error) => return Err(error.into()),
    };
    let none = || format!("{SIGNING_FILE} is no Ed25519 key in PKCS#8");
    let der = Secret::new(pem::parse(read.bytes()).with_context(none)?.into_contents());
    // Written out anew, so that the secret stands at the end whatever version it came in.
    let plain = Secret::new(OperatorKey::from_pkcs8(der.bytes()).with_context(none)?.to_pkcs8());
    let secret = plain.bytes().last_chunk::<BYTES>().with_context(none)?;
    Ok(SecretKey::new(*secret))
}

fn drawn() -> Zeroizing<[u8; BYTES]> {
    let (mut rng, mut secret) = (Seed::from_entropy().rng(), Zeroizing::new([0; BYTES]));
    secret.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&rng.u64().to_be_bytes()));
    secret
}

fn folder(path: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| {
        format!(
            "the folder {} of the audit log's keys: set `audit.keys` to one that the node may write",
            path.display()
        )
    })
}

/// The wrapping keys of one node.
#[derive(Debug, Clone)]
pub(super) struct WrappingKeys {
    folder: PathBuf,
}

impl WrappingKeys {
    /// Those in this folder of all nodes' keys.
    ///
    /// # Errors
    /// The node's folder in it cannot be made.
    pub(super) fn of(keys: &Path, me: &NodeId) -> anyhow::Result<Self> {
        let this = Self { folder: keys.join(format!("{}.{}", me.region, me.name)) };
        folder(&this.folder)?;
        Ok(this)
    }

    /// All that there are.
    ///
    /// # Errors
    /// The folder or a key in it cannot be read.
    pub(super) fn all(&self) -> anyhow::Result<Vec<(WrappedBy, SecretKey)>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(|| self.folder.display().to_string())? {
            let name = entry?.file_name().into_string().ok();
            let Some(by) = name.as_deref().and_then(parsed) else { continue };
            if let Some(key) = self.read(&by)? {
                keys.push((by, key));
            }
        }
        Ok(keys)
    }

    /// Makes a key, or gives the one that is there.
    ///
    /// # Errors
    /// It can be neither read nor made.
    pub(super) fn make(&self, by: &WrappedBy) -> anyhow::Result<SecretKey> {
        if let Some(key) = self.read(by)? {
            return Ok(key);
        }
        let key = drawn();
        secrets::replace(&self.path(by), &Secret::new(key.to_vec()))?;
        Ok(SecretKey::new(*key))
    }

    /// Destroys a key. One that is not there is destroyed.
    ///
    /// # Errors
    /// Its file can be neither overwritten nor removed.
    pub(super) fn destroy(&self, by: &WrappedBy) -> anyhow::Result<()> {
        let path = self.path(by);
        let gone = || -> io::Result<()> {
            let mut file = match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            // Where the disk writes in place nothing is left of it; `docs/audit.md` says where not.
            file.write_all(&[0; BYTES])?;
            file.sync_all()?;
            fs::remove_file(&path)?;
            File::open(&self.folder)?.sync_all()
        };
        gone().with_context(|| path.display().to_string())
    }

    fn read(&self, by: &WrappedBy) -> anyhow::Result<Option<SecretKey>> {
        match Files::of(&self.folder).read(&name(by)) {
            Err(SecretError::Missing { .. }) => Ok(None),
            read => {
                let secret = read?;
                let bytes = secret.bytes().try_into();
                let wrong = || format!("{}: a wrapping key has {BYTES} bytes", self.path(by).display());
                Ok(Some(SecretKey::new(bytes.with_context(wrong)?)))
            }
        }
    }

    fn path(&self, by: &WrappedBy) -> PathBuf {
        self.folder.join(name(by))
    }
}

fn name(by: &WrappedBy) -> String {
    format!("{}.{}", by.jurisdiction, by.generation)
}

fn parsed(name: &str) -> Option<WrappedBy> {
    let (jurisdiction, generation) = name.rsplit_once('.')?;
    let generation = generation.parse().ok().filter(|generation| *generation > 0)?;
    Some(WrappedBy { jurisdiction: jurisdiction.to_owned(), generation })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn by(generation: u32) -> WrappedBy {
        WrappedBy { jurisdiction: "eu-central".into(), generation }
    }

    #[test]
    fn the_signing_key_is_made_once_and_is_nobody_elses() {
        let place = tempfile::tempdir().expect("a directory");
        let (identity, me) = (place.path().join("identity"), NodeId::new("eu", "n1").expect("valid"));
        let keys = WrappingKeys::of(&place.path().join("audit-keys"), &me).expect("a folder");
        let made = signing(&identity, &keys).expect("made");
        assert!(signing(&identity, &keys).expect("read") == made);
        let file = place.path().join("audit-keys/eu.n1").join(SIGNING_FILE);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(keys.all().expect("listed").is_empty(), "it wraps nothing");
        fs::create_dir(&identity).expect("a folder");
        fs::rename(&file, identity.join(SIGNING_FILE)).expect("moved");
        assert!(signing(&identity, &keys).expect("read") == made, "what was given comes first");
        assert!(!file.exists());
        fs::write(
            identity.join(SIGNING_FILE),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .expect("writes");
        let refused = format!("{:#}", signing(&identity, &keys).expect_err("no key"));
        assert!(refused.contains("audit.key is no Ed25519 key"), "{refused}");
    }

    #[test]
    fn a_wrapping_key_is_made_once_listed_and_destroyed_for_good() {
        let place = tempfile::tempdir().expect("a directory");
        let me = NodeId::new("eu-central", "n1").expect("valid");
        let keys = WrappingKeys::of(place.path(), &me).expect("a folder");
        let first = keys.make(&by(1)).expect("made");
        assert!(keys.make(&by(1)).expect("there") == first, "a second one is not made");
        let second = keys.make(&by(2)).expect("made");
        assert!(first != second);
        fs::write(place.path().join("eu-central.n1/eu-central.3.new"), "half").expect("what a crash left");
        let mut all = keys.all().expect("listed");
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert!(all == [(by(1), first), (by(2), second.clone())]);
        for _ in 0..2 {
            keys.destroy(&by(1)).expect("destroyed");
        }
        assert!(keys.all().expect("listed") == [(by(2), second)]);
        fs::write(place.path().join("eu-central.n1/eu-central.2"), "short").expect("writes");
        let refused = format!("{:#}", keys.all().expect_err("no key"));
        assert!(refused.contains("a wrapping key has 32 bytes"), "{refused}");
    }
}
