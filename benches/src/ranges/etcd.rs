//! A client of etcd: its gRPC over HTTP/2 with mutual TLS. The few messages are written by hand, with the field numbers of
//! etcd's `rpc.proto` and `kv.proto`, so that no protobuf compiler is needed; fields that are not read here are skipped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

use super::drive::{Client, obey};
use super::{CONNECTIONS, Verb, key, value};
use crate::tls::{NAME, Tls};

/// Writes under way while keys are filled.
const FILLING: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

struct Member(Channel);

impl Member {
    async fn unary<Q, A>(&self, path: &'static str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}

impl Client for Member {
    async fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let request = PutRequest { key: key.to_vec(), value: value.to_vec() };
        let answer: PutResponse = self.unary("/etcdserverpb.KV/Put", request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        anyhow::ensure!(revision > 0, "a put without a revision");
        Ok(())
    }

    async fn get(&self, key: &[u8], verb: Verb) -> anyhow::Result<usize> {
        let request = RangeRequest { key: key.to_vec(), serializable: verb == Verb::Follower };
        let answer: RangeResponse = self.unary("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.first().context("the key is not there")?.value.len())
    }

    async fn fill(&self, keys: u64, bytes: usize) -> anyhow::Result<()> {
        let put = |n| async move { self.put(&key(n), &value(n, bytes)).await };
        stream::iter(0..keys).map(put).buffer_unordered(FILLING).try_collect().await
    }
}

/// Drives the members at these addresses, separated by commas, with the certificate in a folder.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path, targets: &str) -> anyhow::Result<()> {
    let tls = Tls(dir.to_owned());
    let mut members = Vec::new();
    for _ in 0..CONNECTIONS {
        for address in targets.split(',') {
            let identity = Identity::from_pem(tls.pem("cert.pem")?, tls.pem("key.pem")?);
            let config = ClientTlsConfig::new()
                .identity(identity)
                .ca_certificate(Certificate::from_pem(tls.pem("ca.pem")?))
                .domain_name(NAME);
            let endpoint = Endpoint::from_shared(format!("https://{address}"))?
                .tls_config(config)?
                .connect_timeout(Duration::from_secs(5))
                .tcp_nodelay(true);
            let channel = endpoint.connect().await.with_context(|| format!("etcd at {address}"))?;
            members.push(Arc::new(Member(channel)));
        }
    }
    obey(members).await
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn messages_have_the_bytes_that_etcd_reads() {
        let put = PutRequest { key: b"k".to_vec(), value: b"v".to_vec() };
        assert_eq!(put.encode_to_vec(), [0x0a, 1, b'k', 0x12, 1, b'v']);
        let range = RangeRequest { key: b"k".to_vec(), serializable: true };
        assert_eq!(range.encode_to_vec(), [0x0a, 1, b'k', 0x38, 1]);
        // A header, one key with its revisions, and how many there are.
        let said = [0x0a, 2, 0x18, 9, 0x12, 8, 0x0a, 1, b'k', 0x20, 1, 0x2a, 1, b'v', 0x20, 1];
        let answer = RangeResponse::decode(&said[..]).expect("an answer");
        assert_eq!(answer.kvs, [KeyValue { value: b"v".to_vec() }]);
    }
}
