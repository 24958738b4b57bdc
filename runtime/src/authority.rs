//! The folder of a certificate authority.
//!
//! ```text
//! authority.pem   its certificate and its key: secret
//! ca.pem          the authorities to believe, given out with every certificate
//! crl.pem         what these have revoked, given out likewise
//! issued.jsonl    what was issued, a line each
//! events.jsonl    what was done with certificates, a line each
//! next.pem        the one that takes over, and
//! previous.pem    the one that it took over from: only while the authority is replaced
//! retired.pem     what authorities have revoked that were replaced, so that nobody is certified anew by mistake
//! LOCK            held by whoever changes any of these
//! ```
//!
//! * It decides: what a new certificate's folder holds, and that only what was issued can be revoked.
//! * It never does: overwrite a key unasked, forget what was revoked, or put into a folder what its running
//!   node would not take up.
//! * Invariant: what was issued stands in `issued.jsonl` before anyone can use it.

mod lists;
mod lock;
mod register;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::Principal;
use rhumb_transport::identity::{Holder, Serial};
use rhumb_transport::issue::{Authority, IssuedCert, Validity};
use rhumb_transport::{Certificate, Credentials, CredentialsError, Trust, TrustDomain};
use thiserror::Error;

use crate::clock::now_millis;
use crate::generations::{Content, Generations};
use crate::identity::{CA_FILE, CRL_FILE, IDENTITY_FILE};
use crate::secrets::{self, Files, Secret, SecretError, Secrets};
pub(crate) use lists::revoked_in;
pub use lock::Lock;
pub(crate) use register::append;
pub use register::{Issued, Register};

/// The authority's certificate and its key.
pub const AUTHORITY_FILE: &str = "authority.pem";
/// What was issued.
pub const ISSUED_FILE: &str = "issued.jsonl";
/// The authority that is to take over.
pub const NEXT_FILE: &str = "next.pem";
/// The authority that was taken over from. It still revokes what it had issued.
pub const PREVIOUS_FILE: &str = "previous.pem";
/// What authorities have revoked that are given out no more.
pub const RETIRED_FILE: &str = "retired.pem";

/// Why an authority did not do what was asked.
#[derive(Debug, Error)]
pub enum AuthorityFault {
    /// There is one already.
    #[error("{} is an authority's key already: a key is never overwritten; choose another folder", .0.display())]
    Exists(PathBuf),
    /// The folder for a new certificate has one.
    #[error(
        "{} is there already: to put a new certificate in its place say --renew, else choose another folder",
        .0.display()
    )]
    Identity(PathBuf),
    /// The folder for a renewed certificate has somebody else's, or none.
    #[error("{path} is that of {found}, not of {expected}: nothing is renewed", path = path.display())]
    Somebody {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The present certificate is one of an authority that the new authorities do not have.
    #[error(
        "{path} was issued by {issuer}, which is not in {ca}: its node would not take up a new one, and no list of \
         revocations either. While one authority takes over from another, both stand in that ca.pem; a mesh of \
         another authority wants another folder",
        path = path.display(),
        ca = ca.display()
    )]
    OtherAuthority {
        /// The present certificate.
        path: PathBuf,
        /// Who issued it.
        issuer: String,
        /// The authorities that would be given out.
        ca: PathBuf,
    },
    /// The list of revocations that would be given out is older than the folder's.
    #[error("{path} would take the place of a later list: {source}", path = path.display())]
    Forgets {
        /// The list.
        path: PathBuf,
        /// What would be forgotten.
        source: CredentialsError,
    },
    /// Peers would refuse what was to be put into a folder.
    #[error("{path} stays as it is: peers would refuse the new certificate: {source}", path = path.display())]
    WouldNotDo {
        /// The present certificate.
        path: PathBuf,
        /// What they would say.
        source: CredentialsError,
    },
    /// It did not issue what it should revoke.
    #[error("{}", not_issued(.0))]
    NotIssued(Serial),
    /// It may have issued what it should revoke: not every line can be read.
    #[error(
        "{serial} is not among what was issued here as far as {ISSUED_FILE} can be read ({lines}): mend that file or \
         put it back from a copy"
    )]
    Unreadable {
        /// The serial number.
        serial: Serial,
        /// What is wrong with the others.
        lines: String,
    },
    /// Somebody else is changing its folder.
    #[error(
        "another command is changing {} for more than {:?}: run this again when it has ended", .0.display(), lock::WITHIN
    )]
    Busy(PathBuf),
    /// A secret cannot be read or written.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Something in a file is not what it should be.
    #[error("{path}: {source}", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
    /// A certificate cannot be issued.
    #[error(transparent)]
    Issue(#[from] CredentialsError),
    /// Another file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a folder for a new certificate may hold one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It must not.
    New,
    /// It must, of the same holder in the same mesh, and a running node must be able to follow: that one is
    /// replaced.
    Renewed,
}

/// What a revocation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// What was revoked.
    pub certificate: Issued,
    /// Whether it had been before.
    pub again: bool,
    /// The number of the list that says so.
    pub number: u128,
    /// How many certificates stand in it.
    pub revoked: usize,
}

/// An authority and the folder that it is kept in.
#[derive(Debug)]
pub struct AuthorityFolder {
    folder: PathBuf,
    authority: Authority,
    /// The one that it took over from, while that is still believed.
    previous: Option<Authority>,
    /// Nobody else changes it.
    _lock: Arc<Lock>,
}

impl AuthorityFolder {
    /// Makes a new authority in a folder that has none.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn found(folder: &Path, domain: TrustDomain, validity: Validity) -> Result<Self, AuthorityFault> {
        let key = folder.join(AUTHORITY_FILE);
        if key.exists() {
            return Err(AuthorityFault::Exists(key));
        }
        fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
        let lock = Arc::new(Lock::take(folder)?);
        let authority = Authority::create(domain, validity)?;
        let list = authority.revocations(1, &BTreeMap::new(), validity.not_before)?;
        secrets::create(&key, &Secret::from(authority.to_pem()))?;
        secrets::publish(&folder.join(CRL_FILE), list.as_bytes())?;
        secrets::publish(&folder.join(CA_FILE), authority.certificate_pem().as_bytes())?;
        Ok(Self { folder: folder.to_owned(), authority, previous: None, _lock: lock })
    }

    /// The authority that is kept in a folder, which nobody else changes until this is dropped.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn open(folder: &Path) -> Result<Self, AuthorityFault> {
        // A folder without one is told as such, and left as it is.
        read_authority(folder, AUTHORITY_FILE)?;
        Self::open_under(Arc::new(Lock::take(folder)?), folder)
    }

    /// The same, under a lock that is held already.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub(crate) fn open_under(lock: Arc<Lock>, folder: &Path) -> Result<Self, AuthorityFault> {
        let authority = read_authority(folder, AUTHORITY_FILE)?;
        let previous = match read_authority(folder, PREVIOUS_FILE) {
            Err(AuthorityFault::Secret(SecretError::Missing { .. })) => None,
            read => Some(read?),
        };
        Ok(Self { folder: folder.to_owned(), authority, previous, _lock: lock })
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The last seconds of its certificate, and of that of the authority that it took over from while there is one.
    #[must_use]
    pub fn ends(&self) -> Vec<i64> {
        let all = self.previous.iter().chain([&self.authority]);
        all.map(|authority| authority.certificate().not_after).collect()
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Issues a certificate with a new key, into a folder of its own. One that takes the place of another is
    /// checked as peers would check it before, and becomes a new [generation](crate::generations).
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn issue(
        &self,
        who: &Principal,
        validity: Validity,
        into: &Path,
        place: Place,
    ) -> Result<Certificate, AuthorityFault> {
        let identity = into.join(IDENTITY_FILE);
        self.may_take(&identity, who, place)?;
        let issued = self.authority.issue(who, validity)?;
        if place == Place::Renewed {
            self.would_do(&identity, &issued)?;
        }
        append(&self.folder.join(ISSUED_FILE), &Issued::from(&issued.certificate))?;
        fs::create_dir_all(into).map_err(|source| file(into, source))?;
        let secret = Secret::from(issued.identity_pem);
        match place {
            Place::New => {
                self.give_out(into)?;
                secrets::create(&identity, &secret)?;
            }
            Place::Renewed => {
                let revocations = Some(self.own_file(CRL_FILE)?);
                let content = Content { identity: secret, authorities: self.own_file(CA_FILE)?, revocations };
                Generations::of(into).add(&content)?;
            }
        }
        Ok(issued.certificate)
    }

    /// Copies what is to be believed, and what was revoked, into a certificate's folder.
    ///
    /// # Errors
    /// [`AuthorityFault`].
    pub fn give_out(&self, into: &Path) -> Result<(), AuthorityFault> {
        let generations = Generations::of(into);
        let (list, authorities) = (self.own_file(CRL_FILE)?, self.own_file(CA_FILE)?);
        // Who reads in between must never find an authority without its list.
        let shrinks = fs::read(into.join(CA_FILE)).is_ok_and(|before| before.len() > authorities.len());
        if shrinks {
            generations.publish(CA_FILE, &authorities)?;
            return Ok(generations.publish(CRL_FILE, &list)?);
        }
        generations.publish(CRL_FILE, &list)?;
        Ok(generations.publish(CA_FILE, &authorities)?)
    }

    fn own_file(&self, name: &str) -> Result<Vec<u8>, AuthorityFault> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|source| file(&path, source))
    }

    /// Whether peers that believe what is given out would take a certificate.
    fn would_do(&self, present: &Path, issued: &IssuedCert) -> Result<(), AuthorityFault> {
        let wrong = |source| AuthorityFault::WouldNotDo { path: present.to_owned(), source };
        let next = Credentials::new(issued.identity_pem.as_bytes(), self.gives_out(&self.folder)?);
        next.and_then(|next| next.verify(Duration::from_millis(now_millis()))).map_err(wrong)
    }

    /// What was issued here, the oldest first.
    ///
    /// # Errors
    /// [`AuthorityFault::File`].
    pub fn issued(&self) -> Result<Register, AuthorityFault> {
        Register::read(&self.folder)
    }

    fn may_take(&self, identity: &Path, who: &Principal, place: Place) -> Result<(), AuthorityFault> {
        match place {
            Place::New if identity.exists() => Err(AuthorityFault::Identity(identity.to_owned())),
            Place::New => Ok(()),
            Place::Renewed => self.may_follow(identity, who),
        }
    }

    /// Whether a node that runs with this certificate would take up a new one, and what comes with it.
    fn may_follow(&self, identity: &Path, who: &Principal) -> Result<(), AuthorityFault> {
        let bytes = fs::read(identity).map_err(|source| file(identity, source))?;
        let chain = Certificate::all_of(&bytes).map_err(|source| wrong(identity, source))?;
        let (found, domain) = (&chain[0], self.authority.trust_domain());
        match &found.holder {
            Holder::Member(of, holder) if of == domain && holder == who => {}
            holder => {
                let found = match holder {
                    Holder::Member(of, holder) => format!("{holder} of {of}"),
                    Holder::Authority(subject) => subject.clone(),
                };
                let expected = format!("{who} of {domain}");
                return Err(AuthorityFault::Somebody { path: identity.to_owned(), found, expected });
            }
        }
        let next = self.gives_out(&self.folder)?;
        if !next.has_issued(&bytes).map_err(|source| wrong(identity, source))? {
            let (path, issuer) = (identity.to_owned(), found.issuer.clone());
            return Err(AuthorityFault::OtherAuthority { path, issuer, ca: self.folder.join(CA_FILE) });
        }
        // What nobody can read there any more holds nothing back.
        let before = identity.parent().and_then(|folder| self.gives_out(folder).ok());
        let kept = before.map_or(Ok(()), |before| next.may_follow(&before));
        kept.map_err(|source| AuthorityFault::Forgets { path: self.folder.join(CRL_FILE), source })
    }

    /// What a folder has to be believed.
    fn gives_out(&self, folder: &Path) -> Result<Trust, AuthorityFault> {
        let ca = folder.join(CA_FILE);
        let authorities = fs::read(&ca).map_err(|source| file(&ca, source))?;
        let crl = folder.join(CRL_FILE);
        let revoked = match fs::read(&crl) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|source| file(&crl, source))?),
        };
        Trust::from_pem(&authorities, revoked.as_deref()).map_err(|source| wrong(folder, source))
    }
}

/// The authority of a file.
pub(crate) fn read_authority(folder: &Path, name: &str) -> Result<Authority, AuthorityFault> {
    let key = Files::of(folder).read(name)?;
    Authority::from_pem(key.bytes()).map_err(|source| wrong(&folder.join(name), source))
}

/// That no certificate with this serial number was issued.
pub(crate) fn not_issued(serial: &(impl fmt::Display + ?Sized)) -> String {
    format!("{serial} was not issued here: {ISSUED_FILE} lists what was")
}

fn wrong(path: &Path, source: CredentialsError) -> AuthorityFault {
    AuthorityFault::Credentials { path: path.to_owned(), source }
}

pub(crate) fn file(path: &Path, source: io::Error) -> AuthorityFault {
    AuthorityFault::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Region, Role};
    use tempfile::TempDir;

    use super::*;
    use crate::identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn founded() -> (TempDir, AuthorityFolder) {
        let folder = tempfile::tempdir().expect("a directory");
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let validity = Validity::for_the_next(10 * DAY);
        let authority = AuthorityFolder::found(&folder.path().join("ca"), domain, validity).expect("founded");
        (folder, authority)
    }

    fn who(name: &str) -> Principal {
        Principal { role: Role::Node, region: Region::new("us-east").expect("valid"), name: name.into() }
    }

    fn day() -> Validity {
        Validity::for_the_next(DAY)
    }

    #[test]
    fn an_authority_is_not_overwritten() {
        let (folder, _) = founded();
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let again = AuthorityFolder::found(&folder.path().join("ca"), domain, day());
        let refused = again.expect_err("refused").to_string();
        assert!(refused.contains("ca/authority.pem") && refused.contains("never overwritten"), "{refused}");
    }

    #[test]
    fn a_certificate_is_renewed_only_in_its_own_place() {
        let (folder, authority) = founded();
        let into = folder.path().join("n1");
        let first = authority.issue(&who("n1"), day(), &into, Place::New).expect("issued");
        let refused = authority.issue(&who("n1"), day(), &into, Place::New);
        assert!(matches!(refused, Err(AuthorityFault::Identity(_))), "{refused:?}");
        let refused = authority.issue(&who("n2"), day(), &into, Place::Renewed);
        assert!(matches!(refused, Err(AuthorityFault::Somebody { .. })), "{refused:?}");
        assert_eq!(identity::load(&into).expect("usable").certificate(), &first);
        let second = authority.issue(&who("n1"), day(), &into, Place::Renewed).expect("renewed");
        assert_eq!(identity::load(&into).expect("usable").certificate(), &second);
        let listed: Vec<String> =
            authority.issued().expect("listed").all.into_iter().map(|issued| issued.serial).collect();
        assert_eq!(listed, [first.serial.to_string(), second.serial.to_string()]);
    }

    /// Another authority, which nobody's folder knows.
    fn beside(folder: &TempDir, domain: &str) -> AuthorityFolder {
        let domain = TrustDomain::new(domain).expect("valid");
        let validity = Validity::for_the_next(10 * DAY);
        AuthorityFolder::found(&folder.path().join("new"), domain, validity).expect("founded")
    }

    /// What a refused renewal says; the folder is as it was.
    fn refused(by: &AuthorityFolder, into: &Path) -> String {
        let files =
            || [IDENTITY_FILE, CA_FILE, CRL_FILE].map(|name| fs::read(into.join(name)).expect("there"));
        let (before, issued) = (files(), by.issued().expect("listed").all.len());
        let refused = by.issue(&who("n1"), day(), into, Place::Renewed).expect_err("refused");
        assert_eq!(
            (files(), by.issued().expect("listed").all.len()),
            (before, issued),
            "nothing was touched"
        );
        refused.to_string()
    }

    #[test]
    fn a_certificate_of_another_mesh_or_authority_is_not_replaced() {
        let (folder, old) = founded();
        let into = folder.path().join("n1");
        old.issue(&who("n1"), day(), &into, Place::New).expect("issued");
        let said = refused(&beside(&folder, "other.example"), &into);
        assert!(
            said.contains("that of node us-east/n1 of mesh.example, not of node us-east/n1 of other.example")
        );

        let (folder, old) = founded();
        let into = folder.path().join("n1");
        old.issue(&who("n1"), day(), &into, Place::New).expect("issued");
        let new = beside(&folder, "mesh.example");
        let said = refused(&new, &into);
        assert!(said.contains("which is not in") && said.contains("new/ca.pem"), "{said}");
        // The documented way: both stand in the new authority's files.
        for name in [CA_FILE, CRL_FILE] {
            let of = |authority: &str| folder.path().join(authority).join(name);
            let both = [fs::read(of("ca")).expect("there"), fs::read(of("new")).expect("there")].concat();
            fs::write(of("new"), both).expect("writes");
        }
        new.issue(&who("n1"), day(), &into, Place::Renewed).expect("renewed");
    }

    #[test]
    fn a_certificate_that_has_expired_or_was_revoked_is_renewed() {
        let (folder, authority) = founded();
        let into = folder.path().join("n1");
        let at = |days: u64| {
            std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(now_millis()) - days as u32 * DAY
        };
        let past = Validity { not_before: at(4), not_after: at(3) };
        let expired = authority.issue(&who("n1"), past, &into, Place::New).expect("issued");
        let renewed = authority.issue(&who("n1"), day(), &into, Place::Renewed).expect("renewed");
        assert_ne!(expired.serial, renewed.serial);
        authority.revoke(&renewed.serial).expect("revoked");
        authority.issue(&who("n1"), day(), &into, Place::Renewed).expect("renewed");
    }

    #[test]
    fn a_renewal_does_not_bring_an_older_list_of_revocations() {
        let (folder, authority) = founded();
        let into = folder.path().join("n1");
        let issued = authority.issue(&who("n1"), day(), &into, Place::New).expect("issued");
        let crl = folder.path().join("ca").join(CRL_FILE);
        let older = fs::read(&crl).expect("there");
        authority.revoke(&issued.serial).expect("revoked");
        authority.give_out(&into).expect("copied");
        fs::write(&crl, older).expect("a copy of the authority was put back");
        let said = refused(&authority, &into);
        assert!(said.contains("ca/crl.pem would take the place of a later list"), "{said}");
    }

    #[test]
    fn only_what_was_issued_here_is_revoked_and_it_stays_revoked() {
        let (folder, authority) = founded();
        let into = |name: &str| folder.path().join(name);
        let issue = |name| authority.issue(&who(name), day(), &into(name), Place::New).expect("issued");
        let (one, two) = (issue("n1"), issue("n2"));
        let stranger: Serial = "1234".parse().expect("valid");
        assert!(matches!(authority.revoke(&stranger), Err(AuthorityFault::NotIssued(_))));
        let first = authority.revoke(&one.serial).expect("revoked");
        assert_eq!(
            (first.certificate.holder.as_str(), first.number, first.revoked),
            ("node us-east/n1", 2, 1)
        );
        let again = authority.revoke(&one.serial).expect("revoked before");
        assert_eq!((again.again, again.number), (true, 2));
        drop(authority);
        let authority = AuthorityFolder::open(&into("ca")).expect("opened");
        let second = authority.revoke(&two.serial).expect("revoked");
        assert_eq!((second.number, second.revoked), (3, 2));
        let now = Duration::from_millis(now_millis());
        identity::load(&into("n1")).expect("usable").verify(now).expect("it has the list of before");
        authority.give_out(&into("n1")).expect("copied");
        let said = identity::load(&into("n1")).expect("usable").verify(now).expect_err("revoked").to_string();
        assert!(said.contains("revoked"), "{said}");
    }

    #[test]
    fn what_is_revoked_at_one_time_all_stands_in_the_list() {
        let (folder, authority) = founded();
        let into = |name: &str| folder.path().join(name);
        let issue = |name: &str| authority.issue(&who(name), day(), &into(name), Place::New).expect("issued");
        let all: Vec<Certificate> = (0..8).map(|n| issue(&format!("n{n}"))).collect();
        drop(authority);
        let begin = std::sync::Barrier::new(all.len());
        let revoke = |certificate: &Certificate| {
            begin.wait();
            AuthorityFolder::open(&into("ca")).expect("opened").revoke(&certificate.serial).expect("revoked");
        };
        std::thread::scope(|scope| all.iter().for_each(|one| drop(scope.spawn(|| revoke(one)))));
        let authority = AuthorityFolder::open(&into("ca")).expect("opened");
        let list = authority.lists().expect("readable").swap_remove(0);
        assert_eq!((list.number, list.revoked.len()), (1 + 8, 8));
    }

    #[test]
    fn another_authoritys_list_is_kept_beside_ones_own() {
        let (folder, old) = founded();
        let new = folder.path().join("new");
        let domain = TrustDomain::new("mesh.example").expect("valid");
        AuthorityFolder::found(&new, domain, day()).expect("founded");
        let (crl, other) = (folder.path().join("ca").join(CRL_FILE), new.join(CRL_FILE));
        let both = [fs::read(&crl).expect("there"), fs::read(&other).expect("there")].concat();
        fs::write(&crl, both).expect("writes");
        let issued = old.issue(&who("n1"), day(), &folder.path().join("n1"), Place::New).expect("issued");
        old.revoke(&issued.serial).expect("revoked");
        let numbers: Vec<u128> = old.lists().expect("readable").iter().map(|list| list.number).collect();
        assert_eq!(numbers, [2, 1]);
    }
}
