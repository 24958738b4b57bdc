//! A list of the certificates that one authority has revoked (RFC 5280, section 5).
//!
//! * It decides: whether a list is its authority's, and which serial numbers stand in it.
//! * It never does: forget a list because it is old. A list says what is revoked until a newer one
//!   takes its place; an outdated one revokes too little, which is better than nothing.

use std::collections::BTreeMap;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::name_of;
use super::credentials::pem;
use super::{CredentialsError, IdentityError, Serial, spiffe};

/// The certificates that one authority has revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// Counts the lists of this authority.
    pub number: u128,
    /// The serial numbers, each with the second since the Unix epoch in which it was revoked.
    pub revoked: BTreeMap<Serial, i64>,
    /// The authority's name as it stands in certificates.
    pub(super) issuer: Vec<u8>,
    pub(super) issuer_name: String,
    pub(super) der: CertificateRevocationListDer<'static>,
}

impl RevocationList {
    /// The lists of a PEM text, one an authority.
    ///
    /// # Errors
    /// [`CredentialsError`]: one cannot be read, or an authority has two.
    pub fn all_of(text: &[u8]) -> Result<Vec<Self>, CredentialsError> {
        let ders = CertificateRevocationListDer::pem_slice_iter(text);
        let mut lists: Vec<Self> = Vec::new();
        for der in ders {
            let list = Self::read(der.map_err(wrong)?)?;
            if lists.iter().any(|other| other.issuer == list.issuer) {
                return Err(wrong(format!("{} has two lists in it: keep the newer one", list.issuer_name)));
            }
            lists.push(list);
        }
        Ok(lists)
    }

    fn read(der: CertificateRevocationListDer<'static>) -> Result<Self, CredentialsError> {
        let (rest, parsed) = CertificateRevocationList::from_der(&der).map_err(wrong)?;
        if !rest.is_empty() {
            return Err(wrong("bytes follow the list"));
        }
        let number = parsed.crl_number().map_or(0, |number| u128::try_from(number).unwrap_or(u128::MAX));
        let revoked = parsed.iter_revoked_certificates();
        let revoked = revoked.map(|r| (Serial::from_bytes(r.raw_serial()), r.revocation_date.timestamp()));
        Ok(Self {
            number,
            revoked: revoked.collect(),
            issuer: parsed.issuer().as_raw().to_vec(),
            issuer_name: name_of(parsed.issuer()),
            der: der.clone(),
        })
    }

    /// The list as it is published.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether another list is of the same authority.
    #[must_use]
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        self.issuer == other.issuer
    }

    /// Who issued it, by name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer_name
    }

    /// Whether the list speaks for an authority of this name.
    pub(super) fn speaks_for(&self, authority: &CertificateDer<'_>) -> Result<bool, CredentialsError> {
        Ok(spiffe::parse(authority)?.subject().as_raw() == self.issuer)
    }

    /// Whether this authority has signed the list.
    pub(super) fn is_signed_by(&self, authority: &CertificateDer<'_>) -> Result<bool, CredentialsError> {
        let authority = spiffe::parse(authority)?;
        let (_, list) = CertificateRevocationList::from_der(&self.der).map_err(wrong)?;
        Ok(list.verify_signature(authority.public_key()).is_ok())
    }

    /// Whether a certificate stands in this list.
    pub(super) fn names(&self, certificate: &CertificateDer<'_>) -> Result<bool, IdentityError> {
        let parsed = spiffe::parse(certificate)?;
        let serial = Serial::from_bytes(parsed.raw_serial());
        Ok(parsed.issuer().as_raw() == self.issuer && self.revoked.contains_key(&serial))
    }
}

pub(super) fn wrong(reason: impl std::fmt::Display) -> CredentialsError {
    pem("revocation lists", reason)
}
