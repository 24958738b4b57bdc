//! One authority and two certificates for the systems that have none of their own: mutual TLS 1.3 with
//! ring, as Rhumb's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in the certificates.
pub const NAME: &str = "bench.internal";

/// The folder with `ca.pem`, `cert.pem` and `key.pem`.
#[derive(Debug, Clone)]
pub struct Tls(pub PathBuf);

impl Tls {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority_key = KeyPair::generate()?;
        let authority_cert = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        // By address, too: etcd's members dial each other so.
        let mut leaf = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])?;
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = leaf.signed_by(&key, &issuer)?;
        std::fs::write(folder.join("ca.pem"), authority_cert.pem())?;
        std::fs::write(folder.join("cert.pem"), cert.pem())?;
        std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
        Ok(Self(folder.to_owned()))
    }

    /// One of the files.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pem(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.0.join(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    fn chain(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let cert = CertificateDer::from_pem_slice(&self.pem("cert.pem")?)?;
        Ok((vec![cert], PrivateKeyDer::from_pem_slice(&self.pem("key.pem")?)?))
    }

    fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem("ca.pem")?)?)?;
        Ok(Arc::new(roots))
    }

    /// Mutual TLS 1.3 of a server.
    ///
    /// # Errors
    /// The files are not what they should be.
    pub fn server(&self, alpn: &str) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider)).build()?;
        let (chain, key) = self.chain()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Ok(config)
    }

    /// Mutual TLS 1.3 of a client.
    ///
    /// # Errors
    /// The files are not what they should be.
    pub fn client(&self, alpn: &str) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self.chain()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Ok(config)
    }
}
