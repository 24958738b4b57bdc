//! A peer that does not follow the rules: bare quinn, with whatever certificate and bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rhumb_core::{NodeId, Principal, Role};
use rhumb_transport::hello::{Hello, VERSIONS};
use rhumb_transport::issue::Authority;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::mesh::{CLUSTER, hour, node};

pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: quinn::ClientConfig,
}

impl Raw {
    /// A dialler with a client's certificate, or with none.
    pub(crate) fn new(authority: &Authority, with: Option<&str>, alpn: &[u8]) -> Self {
        let client = |name: &str| Principal {
            role: Role::Client,
            region: node("us-east/n1").region,
            name: name.into(),
        };
        Self::being(authority, with.map(client), alpn)
    }

    /// A dialler with anyone's certificate, or with none.
    pub(crate) fn being(authority: &Authority, who: Option<Principal>, alpn: &[u8]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let ca =
            CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("a certificate");
        roots.add(ca).expect("an authority");
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
        let mut tls = match who {
            None => builder.with_no_client_auth(),
            Some(who) => {
                let pem = authority.issue(&who, hour()).expect("issued").identity_pem;
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_early_data = true;
        let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3");
        let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("bound");
        Self { endpoint, config: quinn::ClientConfig::new(Arc::new(crypto)) }
    }

    pub(crate) fn dial(&self, addr: SocketAddr, to: &NodeId) -> quinn::Connecting {
        let name = format!("{}.{}.mesh.example", to.name, to.region);
        self.endpoint.connect_with(self.config.clone(), addr, &name).expect("dialled")
    }

    pub(crate) async fn connect(&self, addr: SocketAddr, to: &NodeId) -> Result<Connection, ConnectionError> {
        self.dial(addr, to).await
    }

    /// Dials, greets, and waits for the answer.
    pub(crate) async fn greet(&self, addr: SocketAddr, to: &NodeId) -> (Connection, SendStream, RecvStream) {
        self.greet_as(hello(), addr, to).await
    }

    pub(crate) async fn greet_as(
        &self,
        hello: Hello,
        addr: SocketAddr,
        to: &NodeId,
    ) -> (Connection, SendStream, RecvStream) {
        let connection = self.connect(addr, to).await.expect("connected");
        let (mut send, mut receive) = connection.open_bi().await.expect("opened");
        say(&mut send, &hello.to_bytes().expect("small")).await;
        let mut length = [0; 4];
        receive.read_exact(&mut length).await.expect("HELLO_ACK");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        receive.read_exact(&mut answer).await.expect("HELLO_ACK");
        Hello::from_bytes(&answer).expect("HELLO_ACK");
        (connection, send, receive)
    }
}

/// A client's HELLO.
pub(crate) fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: Some(CLUSTER),
        node: None,
        founding: None,
        boot: 1,
        codecs: vec![1],
        lanes: 8,
        manifest: Vec::new(),
        public_key: Vec::new(),
        incarnation: 0,
        build: "raw".into(),
    }
}

/// Writes a message of the control stream.
pub(crate) async fn say(stream: &mut SendStream, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("small").to_be_bytes();
    stream.write_all(&[&length, bytes].concat()).await.expect("written");
}

/// The code of an application's close.
pub(crate) fn close_code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// The TLS alert of a refused handshake.
pub(crate) fn alert(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code).checked_sub(0x100),
        _ => None,
    }
}
