//! Issues certificates and revokes them: for `rhumb dev`, tests, and operators who have no authority of
//! their own.
//!
//! * It decides: what stands in a certificate. Validity, serial number, usages and the authority's key
//!   identifier are always set; the defaults of the library underneath are valid until the year 4096.
//! * It never does: keep a leaf's key, which exists only in the [`IssuedCert`]; or issue what outlives
//!   the authority itself.
//! * Invariants: a leaf has exactly one URI name, and the one DNS name that follows from it. No two
//!   authorities share a name: revocation lists are found by it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rhumb_core::rng::Seed;
use rhumb_core::{Principal, Region};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::{Certificate, Credentials, CredentialsError, RevocationList, Serial, Trust, TrustDomain, spiffe};

/// Clocks of peers may differ by this much when a certificate is new: it begins so long before it is issued.
pub const SKEW: Duration = Duration::from_secs(300);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: SystemTime,
    /// To.
    pub not_after: SystemTime,
}

impl Validity {
    /// From now (less five minutes, for clocks that differ) and for so long.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "certificates are issued by shells, in wall-clock time")]
    pub fn for_the_next(ttl: Duration) -> Self {
        let now = SystemTime::now();
        Self { not_before: now - SKEW, not_after: now + ttl }
    }

    /// The same, but to this second since the Unix epoch at most.
    #[must_use]
    pub fn within(self, not_after: i64) -> Self {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.max(0) as u64);
        Self { not_after: self.not_after.min(end), ..self }
    }
}

/// A mesh's certificate authority.
pub struct Authority {
    domain: TrustDomain,
    certificate: String,
    itself: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.domain)
    }
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`].
    pub fn create(domain: TrustDomain, validity: Validity) -> Result<Self, CredentialsError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params("", validity);
        let serial = params.serial_number.as_ref().map(|serial| Serial::from_bytes(serial.as_ref()));
        let short: String = serial.map(|serial| serial.to_string()).unwrap_or_default();
        let name = format!("authority {} of {domain}", &short[..8]);
        params.distinguished_name = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(format!("spiffe://{domain}"))?];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let itself = Certificate::read(certificate.der())?;
        Ok(Self { domain, certificate: certificate.pem(), itself, issuer: Issuer::new(params, key) })
    }

    /// The authority of a PEM text: its certificate, then its key.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, CredentialsError> {
        let wrong = |reason: String| CredentialsError::Pem { what: "authority".to_owned(), reason };
        let text = std::str::from_utf8(text).map_err(|e| wrong(e.to_string()))?;
        let key_at = text.find("-----BEGIN PRIVATE KEY-----");
        let (certificate, key) = text.split_at(
            key_at.ok_or_else(|| wrong("expected a certificate, then its private key".to_owned()))?,
        );
        let key = KeyPair::from_pem(key).map_err(|e| wrong(e.to_string()))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let domain = spiffe::domain_of_authority(&der)?;
        let itself = Certificate::read(&der)?;
        if spiffe::parse(&der)?.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(CredentialsError::KeyMismatch(itself.holder.to_string()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed)?;
        Ok(Self { domain, certificate: certificate.to_owned(), itself, issuer })
    }

    /// The authority as a PEM text: its certificate, then its key. Secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate, self.issuer.key().serialize_pem())
    }

    /// What stands in the authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.itself
    }

    /// The authority's certificate, for peers to believe in.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The mesh's name in certificates.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Whether a revocation list is of this authority.
    #[must_use]
    pub fn has_signed(&self, list: &RevocationList) -> bool {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        der.is_ok_and(|der| list.is_signed_by(&der).unwrap_or(false))
    }

    /// A certificate and a new key for a node, client or operator.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`].
    pub fn issue(&self, who: &Principal, validity: Validity) -> Result<IssuedCert, CredentialsError> {
        self.may_issue(who, validity)?;
        let key = KeyPair::generate().map_err(failed)?;
        let dns = self.domain.dns_name(who);
        let mut params = params(&who.to_string(), validity);
        params.subject_alt_names =
            vec![SanType::DnsName(dns.try_into().map_err(failed)?), uri(self.domain.spiffe_id(who))?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(IssuedCert {
            certificate: Certificate::read(certificate.der())?,
            identity_pem: format!("{}{}", certificate.pem(), key.serialize_pem()),
            authorities_pem: self.certificate.clone(),
        })
    }

    fn may_issue(&self, who: &Principal, validity: Validity) -> Result<(), CredentialsError> {
        let refused = |why: String| Err(CredentialsError::Issue(why));
        if Region::new(&who.name).is_err() {
            return refused(format!(
                "{:?} is no name: use lower-case letters, digits and hyphens, as in a DNS label",
                who.name
            ));
        }
        if OffsetDateTime::from(validity.not_after).unix_timestamp() > self.itself.not_after {
            return refused(format!(
                "it would outlive {}, which ends {}: choose a shorter validity or a new authority",
                self.itself.holder,
                OffsetDateTime::from_unix_timestamp(self.itself.not_after)
                    .map_or_else(|_| self.itself.not_after.to_string(), |at| at.date().to_string())
            ));
        }
        Ok(())
    }

    /// The list, as PEM, of the certificates that this authority has revoked: each serial number with
    /// the second since the Unix epoch in which it was. Later lists have higher numbers.
    ///
    /// The list is valid until the authority ends: it is renewed when something is revoked, not by the
    /// calendar.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`].
    pub fn revocations(
        &self,
        number: u128,
        revoked: &BTreeMap<Serial, i64>,
        now: SystemTime,
    ) -> Result<String, CredentialsError> {
        self.list(number, revoked, now, Duration::MAX)
    }

    /// As [`Authority::revocations`], but valid for so long at most: those who require lists
    /// ([`Revocations::Strict`](super::Revocations)) need the next one before.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`].
    pub fn list(
        &self,
        number: u128,
        revoked: &BTreeMap<Serial, i64>,
        now: SystemTime,
        valid: Duration,
    ) -> Result<String, CredentialsError> {
        let at = |seconds| {
            OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| CredentialsError::Issue(e.to_string()))
        };
        let entry = |(serial, when): (&Serial, &i64)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial.as_bytes()),
                revocation_time: at(*when)?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let this_update = OffsetDateTime::from(now);
        let ends = at(self.itself.not_after)?;
        let next_update =
            this_update.checked_add(time::Duration::try_from(valid).unwrap_or(time::Duration::MAX));
        let list = CertificateRevocationListParams {
            this_update,
            next_update: next_update.map_or(ends, |next| next.min(ends)),
            crl_number: SerialNumber::from_slice(Serial::from_bytes(&number.to_be_bytes()).as_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, CredentialsError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)
    }
}

/// A certificate with its key, and the authority to believe in.
#[derive(Clone)]
pub struct IssuedCert {
    /// What stands in the certificate.
    pub certificate: Certificate,
    /// Certificate, then key. Secret.
    pub identity_pem: String,
    /// The authority's certificate.
    pub authorities_pem: String,
}

impl std::fmt::Debug for IssuedCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuedCert({}, {})", self.certificate.holder, self.certificate.serial)
    }
}

impl IssuedCert {
    /// The credentials, believing in the authority.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::new(
            self.identity_pem.as_bytes(),
            Trust::from_pem(self.authorities_pem.as_bytes(), None)?,
        )
    }
}

/// What every certificate has.
fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    let mut serial = Seed::from_entropy().rng().u128().to_be_bytes();
    // Positive, and never of fewer bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn named(common_name: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    // At most 64 characters (RFC 5280, appendix A.1: ub-common-name).
    name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    name
}

fn uri(text: String) -> Result<SanType, CredentialsError> {
    Ok(SanType::URI(text.try_into().map_err(failed)?))
}

fn failed(error: rcgen::Error) -> CredentialsError {
    CredentialsError::Issue(error.to_string())
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Region, Role};

    use super::super::IdentityError;
    use super::*;

    fn authority() -> Authority {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        Authority::create(domain, Validity::for_the_next(Duration::from_secs(7200))).expect("created")
    }

    fn principal(role: Role, name: &str) -> Principal {
        Principal { role, region: Region::new("us-east").expect("valid"), name: name.into() }
    }

    fn hour() -> Validity {
        Validity::for_the_next(Duration::from_secs(3600))
    }

    /// Within the hour: its beginning lies five minutes back.
    fn now() -> Duration {
        since_1970(hour().not_before + SKEW)
    }

    fn since_1970(at: SystemTime) -> Duration {
        at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970")
    }

    #[test]
    fn issued_certificates_say_who_they_were_issued_to() {
        for role in [Role::Node, Role::Client, Role::Operator] {
            let who = principal(role, "n1");
            let issued = authority().issue(&who, hour()).expect("issued");
            let credentials = issued.credentials().expect("usable");
            assert_eq!(credentials.principal(), &who);
            assert_eq!(credentials.trust_domain().as_str(), "mesh.example");
            credentials.verify(now()).expect("a peer would take it");
        }
    }

    #[test]
    fn a_certificate_ends_when_it_was_told_to() {
        let validity = hour();
        let issued = authority().issue(&principal(Role::Node, "n1"), validity).expect("issued");
        let credentials = issued.credentials().expect("usable");
        let end = since_1970(validity.not_after);
        assert_eq!(credentials.certificate().not_after, i64::try_from(end.as_secs()).expect("small"));
        let late = credentials.verify(end + Duration::from_secs(2));
        assert!(matches!(late, Err(CredentialsError::Identity(IdentityError::Expired))), "{late:?}");
    }

    #[test]
    fn an_authority_read_back_issues_what_its_old_self_believes() {
        let first = authority();
        let again = Authority::from_pem(first.to_pem().as_bytes()).expect("read back");
        assert_eq!(again.certificate(), first.certificate());
        assert_eq!(again.trust_domain(), first.trust_domain());
        let mut issued = again.issue(&principal(Role::Node, "n1"), hour()).expect("issued");
        issued.authorities_pem = first.certificate_pem().to_owned();
        issued.credentials().expect("usable").verify(now()).expect("believed");
    }

    #[test]
    fn a_certificate_of_another_authority_is_not_believed() {
        let mut issued = authority().issue(&principal(Role::Node, "n1"), hour()).expect("issued");
        issued.authorities_pem = authority().certificate_pem().to_owned();
        let refused = issued.credentials().expect("readable").verify(now());
        assert!(matches!(refused, Err(CredentialsError::Identity(IdentityError::UnknownAuthority))));
    }

    #[test]
    fn serial_numbers_differ() {
        let authority = authority();
        let serial = || {
            let issued = authority.issue(&principal(Role::Node, "n1"), hour()).expect("issued");
            let der = CertificateDer::from_pem_slice(issued.identity_pem.as_bytes()).expect("a certificate");
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("X.509");
            parsed.raw_serial().to_vec()
        };
        assert_ne!(serial(), serial());
    }

    #[test]
    fn what_cannot_be_issued_is_refused_with_the_reason() {
        let refused = |who: &Principal, validity| {
            authority().issue(who, validity).expect_err("must be refused").to_string()
        };
        let long = Validity::for_the_next(Duration::from_secs(7300));
        let told = refused(&principal(Role::Node, "n1"), long);
        assert!(told.contains("it would outlive authority "), "{told}");
        let told = refused(&principal(Role::Node, "N 1"), hour());
        assert!(told.contains("\"N 1\" is no name"), "{told}");
    }

    #[test]
    fn an_authority_with_another_ones_key_is_refused() {
        let (one, two) = (authority().to_pem(), authority().to_pem());
        let key_at = |pem: &str| pem.find("-----BEGIN PRIVATE").expect("a key");
        let mixed = format!("{}{}", &one[..key_at(&one)], &two[key_at(&two)..]);
        let refused = Authority::from_pem(mixed.as_bytes());
        assert!(matches!(refused, Err(CredentialsError::KeyMismatch(_))), "{refused:?}");
    }

    #[test]
    fn a_revoked_certificate_is_not_believed_and_its_neighbour_is() {
        let authority = authority();
        let issued = |name| authority.issue(&principal(Role::Node, name), hour()).expect("issued");
        let (one, two) = (issued("n1"), issued("n2"));
        let revoked = BTreeMap::from([(one.certificate.serial.clone(), 1_000_000)]);
        let list = authority.revocations(7, &revoked, hour().not_before).expect("signed");
        let read = RevocationList::all_of(list.as_bytes()).expect("readable");
        assert_eq!((read[0].number, &read[0].revoked), (7, &revoked));
        let trust = Trust::from_pem(authority.certificate_pem().as_bytes(), Some(list.as_bytes()));
        let trust = trust.expect("trust");
        let said = |issued: &IssuedCert| {
            let credentials = Credentials::new(issued.identity_pem.as_bytes(), trust.clone());
            credentials.expect("usable").verify(now())
        };
        assert_eq!(said(&one), Err(CredentialsError::Identity(IdentityError::Revoked)));
        assert_eq!(said(&two), Ok(()));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = authority();
        let one = authority.issue(&principal(Role::Node, "n1"), hour()).expect("issued");
        let two = authority.issue(&principal(Role::Node, "n2"), hour()).expect("issued");
        let key_at = |pem: &str| pem.find("-----BEGIN PRIVATE").expect("a key");
        let mixed = format!(
            "{}{}",
            &one.identity_pem[..key_at(&one.identity_pem)],
            &two.identity_pem[key_at(&two.identity_pem)..]
        );
        let trust = Trust::from_pem(one.authorities_pem.as_bytes(), None).expect("trust");
        let refused = Credentials::new(mixed.as_bytes(), trust);
        assert!(matches!(refused, Err(CredentialsError::KeyMismatch(_))), "{refused:?}");
    }
}
