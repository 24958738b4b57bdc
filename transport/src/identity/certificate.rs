//! A certificate as people and programs ask about it: whose, which, and for how long.
//!
//! * It decides: what a certificate says of itself, and what a moment means to it.
//! * It never does: trust it. Whether it is to be believed is asked of [`super::Trust`].

use std::fmt;
use std::str::FromStr;

use rhumb_core::Principal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::X509Certificate;

use super::credentials::pem;
use super::{CredentialsError, IdentityError, TrustDomain, principal_of, spiffe};

/// Below this part of its life, a certificate is to be renewed: one fifth.
const WEARING: i64 = 5;

/// A certificate's serial number: unique among those of one authority. Written as hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// The number of these bytes, the highest first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }

    /// Its bytes, the highest first and not zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = IdentityError;

    /// Reads hexadecimal digits, with colons between them or without.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError::Serial(text.chars().take(80).collect());
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        // At most 20 bytes (RFC 5280, section 4.1.2.2).
        if digits.is_empty() || digits.len() > 40 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
        let bytes: Result<Vec<u8>, _> =
            (0..even.len()).step_by(2).map(|at| u8::from_str_radix(&even[at..at + 2], 16)).collect();
        Ok(Self::from_bytes(&bytes.map_err(|_| bad())?))
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A node, client or operator of the mesh with this trust domain.
    Member(TrustDomain, Principal),
    /// An authority with this subject, which may sign others.
    Authority(String),
}

impl Holder {
    /// The member, if it is one.
    #[must_use]
    pub fn member(&self) -> Option<&Principal> {
        match self {
            Self::Member(_, principal) => Some(principal),
            Self::Authority(_) => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(_, principal) => principal.fmt(f),
            Self::Authority(subject) => f.write_str(subject),
        }
    }
}

/// What a moment means to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Its time has not come.
    NotYetValid,
    /// Valid.
    Fresh,
    /// Valid, with less than a fifth of its life left: to be renewed.
    Wearing,
    /// Its time has passed.
    Expired,
}

/// What stands in a certificate. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names.
    pub holder: Holder,
    /// Which of its authority's it is.
    pub serial: Serial,
    /// The subject of the authority that issued it.
    pub issuer: String,
    /// Its first second.
    pub not_before: i64,
    /// Its last second.
    pub not_after: i64,
    /// SHA-256 over all of it.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// Reads a certificate, without trusting it.
    ///
    /// # Errors
    /// [`IdentityError`]: it is neither a member's of some mesh nor an authority's.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed = spiffe::parse(der)?;
        let holder = if parsed.is_ca() {
            Holder::Authority(common_name(&parsed))
        } else {
            let domain = spiffe::domain_of_leaf(der)?;
            Holder::Member(domain.clone(), principal_of(&domain, der)?)
        };
        Ok(Self {
            holder,
            serial: Serial::from_bytes(parsed.raw_serial()),
            issuer: name_of(parsed.issuer()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: Sha256::digest(der).into(),
        })
    }

    /// The certificates of a PEM text, in their order; for a chain the leaf is the first.
    ///
    /// # Errors
    /// [`CredentialsError`]: there is none in it, or one that cannot be read.
    pub fn all_of(text: &[u8]) -> Result<Vec<Self>, CredentialsError> {
        let ders = CertificateDer::pem_slice_iter(text);
        let read: Result<Vec<Self>, CredentialsError> =
            ders.map(|der| Ok(Self::read(&der.map_err(|e| pem("certificates", e))?)?)).collect();
        match read? {
            found if found.is_empty() => Err(pem("certificates", "there is no CERTIFICATE in it")),
            found => Ok(found),
        }
    }

    /// What a moment (seconds since the Unix epoch) means to it.
    #[must_use]
    pub fn age(&self, now: i64) -> Age {
        match self.left(now) {
            _ if now < self.not_before => Age::NotYetValid,
            left if left < 0 => Age::Expired,
            left if left < (self.not_after - self.not_before) / WEARING => Age::Wearing,
            _ => Age::Fresh,
        }
    }

    /// The seconds that it has left at a moment; negative once it has expired.
    #[must_use]
    pub fn left(&self, now: i64) -> i64 {
        self.not_after - now
    }

    /// The fingerprint as hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.fingerprint)
    }
}

/// The name of an issuer: its common name, else all of it.
pub(super) fn name_of(name: &x509_parser::x509::X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    common.map_or_else(|| name.to_string(), ToOwned::to_owned)
}

fn common_name(parsed: &X509Certificate<'_>) -> String {
    name_of(parsed.subject())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rhumb_core::{Region, Role};

    use super::*;
    use crate::identity::issue::{Authority, Validity};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn certificate(from: u64, to: u64) -> Certificate {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        let long = Validity { not_before: at(0), not_after: at(2_000_000_000) };
        let authority = Authority::create(domain, long).expect("created");
        let region = Region::new("us-east").expect("valid");
        let who = Principal { role: Role::Node, region, name: "n1".into() };
        let issued = authority.issue(&who, Validity { not_before: at(from), not_after: at(to) });
        let all = Certificate::all_of(issued.expect("issued").identity_pem.as_bytes()).expect("readable");
        all.into_iter().next().expect("a leaf")
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_for_how_long() {
        let certificate = certificate(1_000_000, 2_000_000);
        assert_eq!(certificate.holder.to_string(), "node us-east/n1");
        assert_eq!((certificate.not_before, certificate.not_after), (1_000_000, 2_000_000));
        let issuer = &certificate.issuer;
        assert!(issuer.starts_with("authority ") && issuer.ends_with(" of mesh.example"), "{issuer}");
    }

    #[test]
    fn the_last_fifth_of_a_life_is_for_renewing() {
        let certificate = certificate(1_000_000, 2_000_000);
        for (now, age) in [
            (999_999, Age::NotYetValid),
            (1_000_000, Age::Fresh),
            (1_800_000, Age::Fresh),
            (1_800_001, Age::Wearing),
            (2_000_000, Age::Wearing),
            (2_000_001, Age::Expired),
        ] {
            assert_eq!(certificate.age(now), age, "at {now}");
        }
        assert_eq!(certificate.left(2_000_001), -1);
    }

    #[test]
    fn a_serial_reads_back_with_colons_or_without() {
        let serial = Serial::from_bytes(&[0, 0x4f, 0x0a, 1]);
        assert_eq!(serial.to_string(), "4f0a01");
        for text in ["4f0a01", "4F:0A:01", "04f0a01", "00:4f:0a:01"] {
            assert_eq!(text.parse(), Ok(serial.clone()), "{text}");
        }
        for bad in ["", ":", "xyz", "4f 0a", &"a".repeat(41)] {
            assert!(matches!(bad.parse::<Serial>(), Err(IdentityError::Serial(_))), "{bad}");
        }
    }
}
