//! The messages of the SPIFFE Workload API that a node needs, written by hand after `workload.proto` of the
//! SPIFFE standards (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md>, appendix A).
//! The numbers are those of that file; its service has no package.

use std::collections::HashMap;
use std::fmt;

/// The method: `SpiffeWorkloadAPI.FetchX509SVID`, which answers with a stream.
pub(super) const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Asks for everything that this process is entitled to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct X509SvidRequest {}

/// What this process is entitled to, all of it: it replaces what was sent before.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct X509SvidResponse {
    /// Certificates; the first is the one to use.
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<X509Svid>,
    /// Revocation lists, in DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) crl: Vec<Vec<u8>>,
    /// Bundles of other trust domains, by their name.
    #[prost(map = "string, bytes", tag = "3")]
    pub(super) federated_bundles: HashMap<String, Vec<u8>>,
}

/// One certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509Svid {
    /// The name in it.
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    /// The chain in DER, leaf first, one after the other.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) x509_svid: Vec<u8>,
    /// The key, in DER (PKCS #8).
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x509_svid_key: Vec<u8>,
    /// The authorities of its trust domain, in DER, one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
    /// What the operator calls it.
    #[prost(string, tag = "5")]
    pub(super) hint: String,
}

impl fmt::Debug for X509Svid {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
