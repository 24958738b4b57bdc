//! rustls and quinn, configured: TLS 1.3 only, certificates both ways, no resumption and no early
//! data (neither checks a certificate again), windows and timeouts from the settings.
//!
//! What is certified and believed can be swapped: each handshake takes one snapshot of it, so that it
//! never sees half of the old and half of the new.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, version};

use super::{ALPN, certificate};
use crate::error::BindError;
use crate::identity::{
    ClientCheck, Credentials, CredentialsError, IdentityError, Regions, ServerCheck, TrustDomain, Verdict,
    in_our_words, provider,
};
use crate::link::End;
use crate::settings::TransportSettings;

/// Streams that a dialler may open before its HELLO was accepted: the control stream.
const BEFORE_HELLO: u32 = 1;

/// Everything that makes the configuration of one connection. Each gets a verifier of its own, whose
/// verdict can be asked afterwards.
pub(crate) struct Tls {
    present: ArcSwap<Present>,
    domain: TrustDomain,
    transport: Arc<TransportConfig>,
    server: ServerConfig,
}

/// What is certified and believed at present.
struct Present {
    credentials: Credentials,
    own: Arc<Own>,
    nodes: Arc<WebPkiServerVerifier>,
    callers: Arc<dyn ClientCertVerifier>,
}

impl Present {
    fn new(credentials: &Credentials) -> Result<Self, CredentialsError> {
        Ok(Self {
            own: Arc::new(Own(credentials.certified_key())),
            nodes: credentials.trust().server_verifier()?,
            callers: credentials.trust().client_verifier()?,
            credentials: credentials.clone(),
        })
    }
}

impl Tls {
    pub(crate) fn new(credentials: &Credentials, settings: &TransportSettings) -> Result<Self, BindError> {
        let present = Present::new(credentials)?;
        let domain = credentials.trust_domain().clone();
        let transport = Arc::new(transport(settings));
        let nobody = server_crypto(&present, &domain, Regions::default(), Verdict::default())?;
        let mut server = ServerConfig::with_crypto(nobody);
        server.transport_config(Arc::clone(&transport));
        server.max_incoming(settings.max_incoming);
        Ok(Self { present: ArcSwap::from_pointee(present), domain, transport, server })
    }

    /// From the next handshake on, this is certified and believed. Whether another certificate is shown.
    pub(crate) fn renew(&self, credentials: &Credentials) -> Result<bool, CredentialsError> {
        let before = self.present();
        credentials.may_follow(&before.credentials)?;
        self.present.store(Arc::new(Present::new(credentials)?));
        Ok(before.credentials.chain() != credentials.chain())
    }

    /// Why the certificate that a peer showed is not believed any more, if so.
    pub(crate) fn disbelieves(&self, connection: &Connection) -> Option<End> {
        let (chain, present) = (certificate::shown(connection), self.present());
        let (leaf, rest) = chain.split_first()?;
        let now = UnixTime::since_unix_epoch(certificate::now());
        let error = present.callers.verify_client_cert(leaf, rest, now).err()?;
        Some(match in_our_words(&error) {
            IdentityError::Revoked => End::Revoked,
            IdentityError::Expired => End::Expired,
            other => End::Disbelieved(other.to_string()),
        })
    }

    fn present(&self) -> Arc<Present> {
        self.present.load_full()
    }

    /// The endpoint's own configuration. It lets nobody in: each connection gets its own.
    pub(crate) fn listening(&self) -> ServerConfig {
        self.server.clone()
    }

    /// The configuration of one connection from a peer.
    pub(crate) fn accepting(&self, regions: Regions) -> Result<(ServerConfig, Verdict), BindError> {
        let verdict = Verdict::default();
        let mut server = self.server.clone();
        server.crypto = server_crypto(&self.present(), &self.domain, regions, verdict.clone())?;
        Ok((server, verdict))
    }

    /// The configuration of one connection to a peer.
    pub(crate) fn dialling(
        &self,
        regions: Option<Regions>,
        any_node: bool,
    ) -> Result<(ClientConfig, Verdict), BindError> {
        let (present, verdict) = (self.present(), Verdict::default());
        let check = ServerCheck {
            webpki: Arc::clone(&present.nodes),
            domain: self.domain.clone(),
            regions,
            any_node,
            verdict: verdict.clone(),
        };
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(tls_failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check))
            .with_client_cert_resolver(Arc::clone(&present.own) as _);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        let crypto = QuicClientConfig::try_from(tls).map_err(tls_failed)?;
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::clone(&self.transport));
        Ok((client, verdict))
    }
}

fn server_crypto(
    present: &Present,
    domain: &TrustDomain,
    regions: Regions,
    verdict: Verdict,
) -> Result<Arc<QuicServerConfig>, BindError> {
    let check =
        ClientCheck { webpki: Arc::clone(&present.callers), domain: domain.clone(), regions, verdict };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(tls_failed)?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::clone(&present.own) as _);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    Ok(Arc::new(QuicServerConfig::try_from(tls).map_err(tls_failed)?))
}

fn transport(settings: &TransportSettings) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle =
        IdleTimeout::try_from(settings.idle_timeout).unwrap_or(IdleTimeout::from(VarInt::from_u32(15_000)));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(BEFORE_HELLO))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(settings.stream_window))
        .receive_window(VarInt::from_u32(settings.connection_window))
        .send_window(settings.send_window)
        .max_idle_timeout(Some(idle))
        // Probes are only there to be acknowledged: nobody reads them, the oldest are dropped.
        .datagram_receive_buffer_size(Some(1024))
        // Else a stream that was begun is written until it has nothing more, which a busy lane never comes to.
        .send_fairness(true);
    transport
}

fn tls_failed(error: impl std::fmt::Display) -> BindError {
    BindError::Credentials(CredentialsError::Pem {
        what: "TLS configuration".to_owned(),
        reason: error.to_string(),
    })
}

/// This side's certificate, whoever asks for it.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
