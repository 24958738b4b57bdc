//! What stands in a certificate, read without trusting it.

use rhumb_core::{Principal, Role};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{IdentityError, TrustDomain};

/// Who a certificate names. Checks what SPIFFE asks of a leaf beyond webpki: exactly one URI name, no
/// right to sign others, and for a node exactly the one DNS name that follows from the URI.
///
/// # Errors
/// The rule that does not hold.
pub(crate) fn principal_of(
    domain: &TrustDomain,
    certificate: &CertificateDer<'_>,
) -> Result<Principal, IdentityError> {
    let parsed = parse(certificate)?;
    let names = names(&parsed)?;
    let principal = domain.parse(one_uri(names)?)?;
    usage(&parsed)?;
    if principal.role == Role::Node {
        let dns: Vec<&str> = names.iter().filter_map(dns).collect();
        let expected = domain.dns_name(&principal);
        if dns != [expected.as_str()] {
            return Err(IdentityError::Name { expected, found: format!("DNS names {dns:?}") });
        }
    }
    Ok(principal)
}

/// The trust domain of an authority's certificate: its one URI is `spiffe://<trust domain>`.
///
/// # Errors
/// The rule that does not hold.
pub(super) fn domain_of_authority(certificate: &CertificateDer<'_>) -> Result<TrustDomain, IdentityError> {
    let parsed = parse(certificate)?;
    let names = names(&parsed)?;
    let uri = one_uri(names)?;
    let domain = uri.strip_prefix("spiffe://").ok_or_else(|| IdentityError::Uri(uri.to_owned()))?;
    TrustDomain::new(domain)
}

/// The trust domain that a leaf's one URI names.
///
/// # Errors
/// The rule that does not hold.
pub(super) fn domain_of_leaf(certificate: &CertificateDer<'_>) -> Result<TrustDomain, IdentityError> {
    let parsed = parse(certificate)?;
    let names = names(&parsed)?;
    let uri = one_uri(names)?;
    let bad = || IdentityError::Uri(uri.to_owned());
    let (domain, _) = uri.strip_prefix("spiffe://").ok_or_else(bad)?.split_once('/').ok_or_else(bad)?;
    TrustDomain::new(domain)
}

/// Reads a certificate's structure.
///
/// # Errors
/// It is none.
pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(IdentityError::Invalid("bytes follow the certificate".to_owned())),
        Err(e) => Err(IdentityError::Invalid(format!("not an X.509 certificate: {e}"))),
    }
}

/// The subject's alternative names.
fn names<'a>(parsed: &'a X509Certificate<'a>) -> Result<&'a [GeneralName<'a>], IdentityError> {
    let names = parsed.subject_alternative_name().map_err(|e| IdentityError::Invalid(e.to_string()))?;
    Ok(names.map(|names| names.value.general_names.as_slice()).unwrap_or_default())
}

fn one_uri<'a>(names: &'a [GeneralName<'a>]) -> Result<&'a str, IdentityError> {
    let uris: Vec<&str> = names.iter().filter_map(uri).collect();
    match uris[..] {
        [one] => Ok(one),
        _ => Err(IdentityError::UriCount(uris.len())),
    }
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name { Some(uri) } else { None }
}

fn dns<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(dns) = name { Some(dns) } else { None }
}

fn usage(certificate: &X509Certificate<'_>) -> Result<(), IdentityError> {
    let wrong = |why: &str| Err(IdentityError::Usage(why.to_owned()));
    if certificate.is_ca() {
        return wrong("it is an authority's");
    }
    let usage = certificate.key_usage().map_err(|e| IdentityError::Invalid(e.to_string()))?;
    match usage.map(|usage| usage.value) {
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => wrong("it may sign certificates"),
        Some(usage) if usage.digital_signature() => Ok(()),
        _ => wrong("it may not sign a handshake (key usage digitalSignature is missing)"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("ASCII"))
    }

    /// Who a certificate with these names, changed like this, is taken for.
    fn taken_for(
        names: Vec<SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Principal, IdentityError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        principal_of(&TrustDomain::new("mesh.example").expect("valid"), certificate.der())
    }

    const NODE: &str = "spiffe://mesh.example/region/us/node/n1";

    #[test]
    fn a_node_has_one_uri_and_the_dns_name_that_follows_from_it() {
        let who = taken_for(vec![uri(NODE), dns("n1.us.mesh.example")], |_| {}).expect("a node");
        assert_eq!(who.to_string(), "node us/n1");
        for names in [
            vec![uri(NODE)],
            vec![uri(NODE), dns("n2.us.mesh.example")],
            vec![uri(NODE), dns("n1.us.mesh.example"), dns("n2.us.mesh.example")],
        ] {
            assert!(matches!(taken_for(names, |_| {}), Err(IdentityError::Name { .. })));
        }
    }

    #[test]
    fn two_uris_or_none_are_refused() {
        let other = "spiffe://mesh.example/region/eu/node/n1";
        let two = taken_for(vec![uri(NODE), uri(other), dns("n1.us.mesh.example")], |_| {});
        assert_eq!(two, Err(IdentityError::UriCount(2)));
        assert_eq!(taken_for(vec![dns("n1.us.mesh.example")], |_| {}), Err(IdentityError::UriCount(0)));
    }

    #[test]
    fn a_certificate_that_may_sign_others_is_no_peers() {
        type Change = fn(&mut CertificateParams);
        let changes: [Change; 3] = [
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            |p| p.key_usages.clear(),
        ];
        for change in changes {
            let taken = taken_for(vec![uri(NODE), dns("n1.us.mesh.example")], change);
            assert!(matches!(taken, Err(IdentityError::Usage(_))), "{taken:?}");
        }
    }
}
