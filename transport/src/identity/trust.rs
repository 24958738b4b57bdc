//! What this side believes: the authorities that certificates must chain to, and what these have
//! revoked.
//!
//! * It decides: whether a chain is to be believed at a moment, and whether one that was believed
//!   before still is.
//! * It never does: weaken webpki's checks; it only feeds it.
//! * Invariant: every revocation list in it is signed by an authority in it, and each authority has at
//!   most one.
//!
//! Two authorities stand here side by side while one takes over from the other. A certificate of an
//! authority without a list is believed: an authority that never revoked anything need not say so.

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

/// Authorities, and what they have revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<RevocationList>,
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
        let trust = Self { authorities, lists };
        trust.roots()?;
        Ok(trust)
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
        let (leaf, rest) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
        let now = UnixTime::since_unix_epoch(now);
        let checked = self.client_verifier()?.verify_client_cert(leaf, rest, now);
        checked.map_err(|e| verify::in_our_words(&e))?;
        Ok(())
    }

    /// Whether the chain of a PEM text, leaf first, is one of these authorities, whatever became of it
    /// since: it may have expired, or be revoked.
    ///
    /// # Errors
    /// [`CredentialsError`]: the text has no certificate that can be read.
    pub fn has_issued(&self, chain: &[u8]) -> Result<bool, CredentialsError> {
        let chain = certificates("certificate chain", chain)?;
        let leaf = Certificate::read(&chain[0])?;
        let without = Self { authorities: self.authorities.clone(), lists: Vec::new() };
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
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider());
        let built = builder.with_crls(self.ders()).allow_unknown_revocation_status().build();
        built.map_err(|e| pem("authorities", e))
    }

    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider());
        let built = builder.with_crls(self.ders()).allow_unknown_revocation_status().build();
        built.map_err(|e| pem("authorities", e))
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
