//! Issues certificates: for `rhumb dev`, tests, and operators who have no authority of their own.
//!
//! * It decides: what stands in a certificate. Validity, serial number, usages and the authority's key
//!   identifier are always set; the defaults of the library underneath are valid until the year 4096.
//! * It never does: keep a leaf's key, which exists only in the [`IssuedCert`].
//! * Invariant: a leaf has exactly one URI name, and the one DNS name that follows from it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rhumb_core::Principal;
use rhumb_core::rng::Seed;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::credentials::{private, read, write_private, write_public};
use super::{CA_FILE, Credentials, CredentialsError, IDENTITY_FILE, TrustDomain, spiffe};

/// The authority's certificate and key, as one unit.
pub const AUTHORITY_FILE: &str = "authority.pem";

/// Clocks of peers may differ by this much when a certificate is new.
const SKEW: Duration = Duration::from_secs(300);

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
}

/// A mesh's certificate authority.
pub struct Authority {
    domain: TrustDomain,
    certificate: String,
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
        let mut params = params(&format!("{domain} authority"), validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(format!("spiffe://{domain}"))?];
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { domain, certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads [`AUTHORITY_FILE`] of a directory.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn load(dir: &Path) -> Result<Self, CredentialsError> {
        let path = dir.join(AUTHORITY_FILE);
        private(&path)?;
        let wrong = |reason: String| CredentialsError::Pem { what: path.display().to_string(), reason };
        let text = String::from_utf8(read(&path)?).map_err(|e| wrong(e.to_string()))?;
        let (certificate, key) = text
            .split_once("-----BEGIN PRIVATE KEY-----")
            .ok_or_else(|| wrong("expected a certificate, then its private key".to_owned()))?;
        let key = format!("-----BEGIN PRIVATE KEY-----{key}");
        let key = KeyPair::from_pem(&key).map_err(|e| wrong(e.to_string()))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let domain = spiffe::domain_of_authority(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed)?;
        Ok(Self { domain, certificate: certificate.to_owned(), issuer })
    }

    /// Writes [`AUTHORITY_FILE`] (only its owner may read it) and [`CA_FILE`] (anyone may).
    ///
    /// # Errors
    /// [`CredentialsError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        create_dir(dir)?;
        let unit = format!("{}{}", self.certificate, self.issuer.key().serialize_pem());
        write_private(&dir.join(AUTHORITY_FILE), unit.as_bytes())?;
        write_public(&dir.join(CA_FILE), self.certificate.as_bytes())
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

    /// A certificate and a new key for a node, client or operator.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`].
    pub fn issue(&self, who: &Principal, validity: Validity) -> Result<IssuedCert, CredentialsError> {
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
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        let identity_pem = format!("{certificate}{}", key.serialize_pem());
        Ok(IssuedCert { identity_pem, authorities_pem: self.certificate.clone() })
    }
}

/// A certificate with its key, and the authority to believe in.
#[derive(Clone)]
pub struct IssuedCert {
    /// Certificate, then key.
    pub identity_pem: String,
    /// The authority's certificate.
    pub authorities_pem: String,
}

impl std::fmt::Debug for IssuedCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedCert(..)")
    }
}

impl IssuedCert {
    /// Writes [`IDENTITY_FILE`] (only its owner may read it) and [`CA_FILE`], for [`Credentials::load`].
    ///
    /// # Errors
    /// [`CredentialsError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        create_dir(dir)?;
        write_private(&dir.join(IDENTITY_FILE), self.identity_pem.as_bytes())?;
        write_public(&dir.join(CA_FILE), self.authorities_pem.as_bytes())
    }

    /// The credentials, without going through a file.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(self.identity_pem.as_bytes(), self.authorities_pem.as_bytes())
    }
}

/// What every certificate has.
fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    let mut serial = Seed::from_entropy().rng().u128().to_be_bytes();
    // Positive, and never of fewer bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn uri(text: String) -> Result<SanType, CredentialsError> {
    Ok(SanType::URI(text.try_into().map_err(failed)?))
}

fn failed(error: rcgen::Error) -> CredentialsError {
    CredentialsError::Issue(error.to_string())
}

fn create_dir(dir: &Path) -> Result<(), CredentialsError> {
    fs::create_dir_all(dir).map_err(|source| CredentialsError::File { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Region, Role};

    use super::super::IdentityError;
    use super::*;

    fn authority() -> Authority {
        let domain = TrustDomain::new("mesh.example").expect("valid");
        Authority::create(domain, Validity::for_the_next(Duration::from_secs(3600))).expect("created")
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
        assert_eq!(credentials.expires(), i64::try_from(end.as_secs()).expect("small"));
        let late = credentials.verify(end + Duration::from_secs(2));
        assert!(matches!(late, Err(CredentialsError::Identity(IdentityError::Expired))), "{late:?}");
    }

    #[test]
    fn an_authority_saved_and_loaded_issues_what_its_old_self_believes() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = authority();
        first.save(dir.path()).expect("saved");
        let again = Authority::load(dir.path()).expect("loaded");
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

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        authority()
            .issue(&principal(Role::Node, "n1"), hour())
            .expect("issued")
            .save(dir.path())
            .expect("saved");
        Credentials::load(dir.path()).expect("saved with mode 0600");
        let path = dir.path().join(IDENTITY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        let refused = Credentials::load(dir.path()).expect_err("refused");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
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
        let refused = Credentials::from_pem(mixed.as_bytes(), one.authorities_pem.as_bytes());
        assert!(matches!(refused, Err(CredentialsError::KeyMismatch(_))), "{refused:?}");
    }
}
