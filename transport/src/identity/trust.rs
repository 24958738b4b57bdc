//! What this side believes: the authorities that certificates must chain to, and what these have
//! revoked.
//!
//! * It decides: whether a chain is to be believed at a moment, and whether one that was believed
//!   before still is.
//! * It never does: weaken webpki's checks; it only feeds it.
//! * Invariant: every revocation list in it is signed by an authority in it, and each authority has at
//!   most one.
//!
//! Two authorities stand here side by side while one takes over from the other. Unless told otherwise
//! ([`Revocations`]), a certificate of an authority without a list is believed: an authority that never revoked
//! anything need not say so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::credentials::{certificates, pem, provider};
use super::revocation::wrong;
use super::{Certificate, CredentialsError, IdentityError, RevocationList, spiffe, verify};

/// What it means that an authority's list of revocations is missing or out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revocations {
    /// Nothing more than is in force is revoked. An authority that is out of reach stops nobody.
    #[default]
    Lenient,
    /// Nobody of that authority is believed. Whoever keeps the authority must sign lists in time.
    Strict,
}

/// Authorities, and what they have revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<RevocationList>,
    revocations: Revocations,
}

impl Trust {
    /// The authorities of a PEM text, with what the lists of another one revoke. A list of an authority
    /// that is not among them says nothing here.
    ///
    /// # Errors
    /// [`CredentialsError`]: something in a text is not what it should be.
    pub fn from_pem(authorities: &[u8], revocations: Option<&[u8]>) -> Result<Self, CredentialsError> {
        let authorities = certificates("authorities", authorities)?;
        for authority in &authorities {
            if !spiffe::parse(authority)?.is_ca() {
                let of = Certificate::read(authority).map(|it| it.holder.to_string());
                let of = of.unwrap_or_else(|_| "an end-entity certificate".to_owned());
                return Err(pem("authorities", format!("{of} is no authority")));
            }
        }
        let mut lists = Vec::new();
        for list in RevocationList::all_of(revocations.unwrap_or_default())? {
            let (mut named, mut signed) = (false, false);
            for authority in &authorities {
                named |= list.speaks_for(authority)?;
                signed |= list.is_signed_by(authority)?;
            }
            match (named, signed) {
                (false, _) => {}
                (true, true) => lists.push(list),
                (true, false) => return Err(wrong(format!("{} has not signed its list", list.issuer_name))),
            }
        }
        let trust = Self { authorities, lists, revocations: Revocations::Lenient };
        trust.roots()?;
        Ok(trust)
    }

    /// The same, with another meaning of a list that is missing or out of date.
    #[must_use]
    pub fn with(self, revocations: Revocations) -> Self {
        Self { revocations, ..self }
    }

    /// What it means that a list is missing or out of date.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revocations
    }

    /// Whether one of the authorities has revoked a certificate.
    #[must_use]
    pub fn revokes(&self, certificate: &CertificateDer<'_>) -> bool {
        // What cannot be read was never believed.
        self.lists.iter().any(|list| list.names(certificate).unwrap_or(false))
    }

    /// Checks a chain, leaf first, at a time since the Unix epoch, as a peer would.
    ///
    /// # Errors
    /// What a peer would say.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Duration) -> Result<(), CredentialsError> {
        verify::taken_by_peers(self, chain, UnixTime::since_unix_epoch(now))
    }

    /// Whether the chain of a PEM text, leaf first, is one of these authorities, whatever became of it
    /// since: it may have expired, or be revoked.
    ///
    /// # Errors
    /// [`CredentialsError`]: the text has no certificate that can be read.
    pub fn has_issued(&self, chain: &[u8]) -> Result<bool, CredentialsError> {
        let chain = certificates("certificate chain", chain)?;
        let leaf = Certificate::read(&chain[0])?;
        let authorities = self.authorities.clone();
        let without = Self { authorities, lists: Vec::new(), revocations: Revocations::Lenient };
        let ends = [leaf.not_after, leaf.not_before].map(|at| Duration::from_secs(at.max(0) as u64));
        Ok(ends.iter().any(|at| without.verify(&chain, *at).is_ok()))
    }

    /// Why this may not take the place of what was believed before: it would forget what an authority
    /// that stays has revoked.
    ///
    /// # Errors
    /// Names the authority.
    pub fn may_follow(&self, before: &Self) -> Result<(), CredentialsError> {
        for old in &before.lists {
            let stays = self.authorities.iter().any(|authority| old.is_signed_by(authority).unwrap_or(false));
            let new = self.lists.iter().find(|list| list.issuer == old.issuer).map(|list| list.number);
            if stays && new.is_none_or(|new| new < old.number) {
                let found = new.map_or("none".to_owned(), |number| format!("number {number}"));
                return Err(wrong(format!(
                    "number {} of {} is in force, and here is {found}: what is revoked is not forgotten",
                    old.number, old.issuer_name
                )));
            }
        }
        Ok(())
    }

    /// The authorities, as they describe themselves.
    pub fn authorities(&self) -> impl Iterator<Item = Certificate> + '_ {
        self.authorities.iter().filter_map(|authority| Certificate::read(authority).ok())
    }

    /// The lists of revoked certificates.
    #[must_use]
    pub fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    pub(crate) fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, CredentialsError> {
        self.has_a_list()?;
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider());
        let builder = builder.with_crls(self.ders());
        let builder = match self.revocations {
            Revocations::Lenient => builder.allow_unknown_revocation_status(),
            Revocations::Strict => builder.enforce_revocation_expiration(),
        };
        builder.build().map_err(|e| pem("authorities", e))
    }

    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
        self.has_a_list()?;
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider());
        let builder = builder.with_crls(self.ders());
        let builder = match self.revocations {
            Revocations::Lenient => builder.allow_unknown_revocation_status(),
            Revocations::Strict => builder.enforce_revocation_expiration(),
        };
        builder.build().map_err(|e| pem("authorities", e))
    }

    /// webpki looks for no revocation at all where it is given no list.
    fn has_a_list(&self) -> Result<(), IdentityError> {
        match self.revocations {
            Revocations::Strict if self.lists.is_empty() => Err(IdentityError::RevocationUnknown),
            _ => Ok(()),
        }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|e| pem("authorities", e))?;
        }
        Ok(Arc::new(roots))
    }

    fn ders(&self) -> impl Iterator<Item = CertificateRevocationListDer<'static>> + '_ {
        self.lists.iter().map(|list| list.der.clone())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.authorities().map(|authority| authority.holder.to_string()).collect();
        let revoked: usize = self.lists.iter().map(|list| list.revoked.len()).sum();
        f.debug_struct("Trust").field("authorities", &names).field("revoked", &revoked).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use rhumb_core::{Principal, Region, Role};

    use super::super::TrustDomain;
    use super::super::issue::{Authority, IssuedCert, Validity};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Duration = Duration::from_secs(1_000_000);

    fn at(offset: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.as_secs().saturating_add_signed(offset))
    }

    fn issued() -> (Authority, IssuedCert) {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let long = Validity { not_before: at(-3600), not_after: at(7200) };
        let authority = Authority::create(domain, long).expect("created");
        let who =
            Principal { role: Role::Node, region: Region::new("us").expect("valid"), name: "n1".into() };
        let issued = authority.issue(&who, long).expect("issued");
        (authority, issued)
    }

    fn said(authority: &Authority, issued: &IssuedCert, list: Option<&str>, after: Duration) -> [String; 2] {
        let text = authority.certificate_pem().as_bytes();
        [Revocations::Lenient, Revocations::Strict].map(|revocations| {
            let trust = Trust::from_pem(text, list.map(str::as_bytes)).expect("trust").with(revocations);
            let chain = certificates("chain", issued.identity_pem.as_bytes()).expect("a chain");
            trust.verify(&chain, NOW + after).map_or_else(|e| e.to_string(), |()| "ok".to_owned())
        })
    }

    #[test]
    fn a_missing_or_outdated_list_stops_nobody_unless_lists_are_required() {
        let (authority, issued) = issued();
        let list = authority.list(1, &BTreeMap::new(), at(0), HOUR).expect("signed");
        let now = Duration::ZERO;
        assert_eq!(said(&authority, &issued, Some(&list), now), ["ok", "ok"]);
        let unknown = "own certificate: whether it was revoked is not known: its authority's list is missing or \
                       out of date";
        assert_eq!(said(&authority, &issued, None, now), ["ok", unknown]);
        assert_eq!(said(&authority, &issued, Some(&list), HOUR + Duration::from_secs(2)), ["ok", unknown]);
        let revoked = BTreeMap::from([(issued.certificate.serial.clone(), 0)]);
        let list = authority.list(2, &revoked, at(0), HOUR).expect("signed");
        let told = said(&authority, &issued, Some(&list), now);
        assert!(told.iter().all(|told| told.ends_with("it was revoked")), "{told:?}");
    }
}
