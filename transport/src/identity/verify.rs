//! The two verifiers that stand in the TLS handshake. Each asks webpki first, with everything it
//! checks, and then adds the mesh's own rules. One is made for each connection, so that the exact
//! reason of a refusal is known afterwards and not only its TLS alert.

use std::sync::{Arc, OnceLock};

use rhumb_core::{Principal, Role};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{CredentialsError, IdentityError, Regions, Trust, TrustDomain, principal_of, spiffe};

/// Why this connection's verifier refused, if it did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(Arc<OnceLock<IdentityError>>);

impl Verdict {
    pub(crate) fn refusal(&self) -> Option<IdentityError> {
        self.0.get().cloned()
    }

    /// Keeps webpki's refusal in our own words.
    fn of_webpki<T>(&self, checked: Result<T, Error>) -> Result<T, Error> {
        checked.inspect_err(|error| {
            let _ = self.0.set(in_our_words(error));
        })
    }

    /// Keeps that the peer has not shown to have the certificate's key.
    fn of_signature<T>(&self, checked: Result<T, Error>) -> Result<T, Error> {
        checked.inspect_err(|_| {
            let _ = self.0.set(IdentityError::Invalid("the handshake is not signed with its key".to_owned()));
        })
    }

    /// Keeps a refusal of our own, and gives the TLS error whose alert tells the peer most.
    fn of_ours<T>(&self, checked: Result<T, IdentityError>) -> Result<T, Error> {
        checked.map_err(|refusal| {
            let _ = self.0.set(refusal.clone());
            let certificate = match refusal {
                IdentityError::Region(_) => CertificateError::ApplicationVerificationFailure,
                IdentityError::Name { .. } => CertificateError::NotValidForName,
                _ => CertificateError::Other(rustls::OtherError(Arc::new(refusal))),
            };
            Error::InvalidCertificate(certificate)
        })
    }
}

pub(crate) fn in_our_words(error: &Error) -> IdentityError {
    let Error::InvalidCertificate(certificate) = error else {
        return IdentityError::Invalid(error.to_string());
    };
    match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => IdentityError::UnknownAuthority,
        CertificateError::Revoked => IdentityError::Revoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => IdentityError::RevocationUnknown,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => IdentityError::Expired,
        CertificateError::NotValidForNameContext { expected, presented } => {
            IdentityError::Name { expected: expected.to_str().into_owned(), found: format!("{presented:?}") }
        }
        other => IdentityError::Invalid(other.to_string()),
    }
}

/// Whether peers that believe this would take a chain, leaf first: as that of who dials them, and a node's also
/// as that of who they dial. The verifiers are those that stand in their handshakes.
///
/// # Errors
/// What a peer would say.
pub(super) fn taken_by_peers(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), CredentialsError> {
    let (leaf, rest) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
    let domain = spiffe::domain_of_leaf(leaf)?;
    let verdict = Verdict::default();
    let refused = |error: Error| verdict.refusal().unwrap_or_else(|| in_our_words(&error));
    let named = principal_of(&domain, leaf);
    let regions = Regions::of(named.as_ref().ok().map(|who| who.region.clone()));
    let dials = ClientCheck {
        webpki: trust.client_verifier()?,
        domain: domain.clone(),
        regions: regions.clone(),
        verdict: verdict.clone(),
    };
    dials.verify_client_cert(leaf, rest, now).map_err(refused)?;
    let who = named?;
    if who.role != Role::Node {
        return Ok(());
    }
    let dialled =
        ServerName::try_from(domain.dns_name(&who)).map_err(|e| IdentityError::Invalid(e.to_string()))?;
    let is_dialled = ServerCheck {
        webpki: trust.server_verifier()?,
        domain,
        regions: Some(regions),
        any_node: false,
        verdict: verdict.clone(),
    };
    is_dialled.verify_server_cert(leaf, rest, &dialled, &[], now).map_err(refused)?;
    Ok(())
}

fn region_allowed(regions: Option<&Regions>, who: Principal) -> Result<Principal, IdentityError> {
    match regions {
        Some(regions) if !regions.allow(&who.region) => Err(IdentityError::Region(who.region.to_string())),
        _ => Ok(who),
    }
}

/// Checks the certificate of a node that was dialled.
#[derive(Debug)]
pub(crate) struct ServerCheck {
    pub(crate) webpki: Arc<WebPkiServerVerifier>,
    pub(crate) domain: TrustDomain,
    /// The regions that it may stand in; `None`: any.
    pub(crate) regions: Option<Regions>,
    /// Whether it may be any node, under whatever name its certificate gives it. Otherwise it must be
    /// the one whose name was dialled.
    pub(crate) any_node: bool,
    pub(crate) verdict: Verdict,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Not trusted until webpki has checked the same bytes, under the name that they give.
        let claimed = principal_of(&self.domain, leaf);
        let own_name = claimed.as_ref().ok().map(|who| self.domain.dns_name(who));
        let own_name = own_name.as_deref().and_then(|name| ServerName::try_from(name).ok());
        let name = if self.any_node { own_name.as_ref().unwrap_or(dialled) } else { dialled };
        let webpki = self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let verified = self.verdict.of_webpki(webpki)?;
        self.verdict.of_ours(claimed.and_then(|who| self.may_answer(who, dialled)))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verdict.of_signature(self.webpki.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

impl ServerCheck {
    fn may_answer(&self, who: Principal, dialled: &ServerName<'_>) -> Result<(), IdentityError> {
        if who.role != Role::Node {
            return Err(IdentityError::Role(who.to_string()));
        }
        let name = self.domain.dns_name(&who);
        if !self.any_node && dialled.to_str() != name {
            return Err(IdentityError::Name { expected: dialled.to_str().into_owned(), found: name });
        }
        region_allowed(self.regions.as_ref(), who).map(drop)
    }
}

/// Checks the certificate of whoever dials this node.
#[derive(Debug)]
pub(crate) struct ClientCheck {
    pub(crate) webpki: Arc<dyn ClientCertVerifier>,
    pub(crate) domain: TrustDomain,
    pub(crate) regions: Regions,
    pub(crate) verdict: Verdict,
}

impl ClientCertVerifier for ClientCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let webpki = self.webpki.verify_client_cert(leaf, intermediates, now);
        let verified = self.verdict.of_webpki(webpki)?;
        let who = principal_of(&self.domain, leaf);
        self.verdict.of_ours(who.and_then(|who| region_allowed(Some(&self.regions), who)))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verdict.of_signature(self.webpki.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
