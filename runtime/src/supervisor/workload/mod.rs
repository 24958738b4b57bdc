//! Certificates from a SPIFFE Workload API, such as a SPIRE agent's: a stream over a Unix socket, on which the
//! agent sends a new certificate whenever it has renewed one.
//!
//! * It decides: which of the certificates sent is this node's (the first, as the specification says of a
//!   workload that asks for none by its hint), and when the stream is asked for again.
//! * It never does: trust more than what came with the certificate: its own trust domain's bundle. Federated
//!   bundles are left out, for a mesh has one trust domain.
//! * Invariant: a key is held in memory only; it is never written to a file.

mod proto;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use pem::Pem;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

use super::source::{Arrived, Source};
use crate::identity::Found;
use crate::secrets::Secret;
use proto::{FETCH, X509SvidRequest, X509SvidResponse};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The first and the longest pause before the agent is asked again. It gives certificates well before they are
/// needed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The Workload API at a socket.
pub(super) struct WorkloadApi {
    socket: PathBuf,
    stream: Option<Streaming<X509SvidResponse>>,
    pause: Duration,
}

impl WorkloadApi {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket, stream: None, pause: PAUSES.0 }
    }

    /// The next message of the stream.
    async fn receive(&mut self) -> Result<X509SvidResponse, Status> {
        if self.stream.is_none() {
            self.stream = Some(open(self.socket.clone()).await?);
        }
        let Some(stream) = &mut self.stream else { return Err(Status::internal("it was opened above")) };
        stream.message().await?.ok_or_else(|| Status::unavailable("the agent has ended the stream"))
    }
}

impl Source for WorkloadApi {
    fn next(&mut self) -> BoxFuture<'_, Arrived> {
        async move {
            loop {
                match self.receive().await {
                    Ok(response) => {
                        self.pause = PAUSES.0;
                        return Arrived { found: found(response), generation: None, why: None };
                    }
                    Err(status) => {
                        self.stream = None;
                        let (socket, wait) = (self.socket.display(), self.pause);
                        let (code, why) = (status.code(), status.message());
                        tracing::warn!(%socket, ?code, why, ?wait, "the Workload API gives no certificate; it is asked again");
                        tokio::time::sleep(wait).await;
                        self.pause = (2 * wait).min(PAUSES.1);
                    }
                }
            }
        }
        .boxed()
    }
}

async fn open(socket: PathBuf) -> Result<Streaming<X509SvidResponse>, Status> {
    let unreachable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    // The address is only there because HTTP/2 wants one.
    let endpoint = Endpoint::from_static("http://workload.invalid").connect_timeout(CONNECT_WITHIN);
    let channel: Channel = endpoint.connect_with_connector(connect).await.map_err(|e| {
        let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
        unreachable(&format!("{e}: {cause}"))
    })?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| unreachable(&e))?;
    let mut request = Request::new(X509SvidRequest {});
    // SPIFFE Workload Endpoint, section 3.1: who is tricked into asking for another does not send it.
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let codec = tonic_prost::ProstCodec::<X509SvidRequest, X509SvidResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(FETCH);
    Ok(client.server_streaming(request, path, codec).await?.into_inner())
}

/// What a message says, in the form that files have.
fn found(mut response: X509SvidResponse) -> Found {
    if response.svids.is_empty() {
        return Found::of(Err("the Workload API sent no certificate".to_owned()), Vec::new(), None);
    }
    let svid = response.svids.swap_remove(0);
    let certificates = |ders: &[u8]| one_by_one(ders, "CERTIFICATE");
    let identity = certificates(&svid.x509_svid).map(|chain| {
        let key = Pem::new("PRIVATE KEY", svid.x509_svid_key.clone());
        Secret::from(format!("{chain}{}", pem::encode(&key)))
    });
    let authorities = certificates(&svid.bundle).unwrap_or_default().into_bytes();
    let lists: String =
        response.crl.iter().map(|list| pem::encode(&Pem::new("X509 CRL", list.as_slice()))).collect();
    let revocations = (!lists.is_empty()).then(|| lists.into_bytes());
    Found::of(identity, authorities, revocations)
}

/// DER texts that follow each other without anything between, as PEM.
fn one_by_one(mut ders: &[u8], tag: &str) -> Result<String, String> {
    let mut text = String::new();
    while !ders.is_empty() {
        let length = der_length(ders).ok_or("what the Workload API sent is no chain of DER certificates")?;
        let (one, rest) = ders.split_at(length);
        text.push_str(&pem::encode(&Pem::new(tag, one)));
        ders = rest;
    }
    Ok(text)
}

/// The length of the first DER sequence, its head included; none where there is no whole one (X.690, section 8.1).
fn der_length(bytes: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    let (&SEQUENCE, rest) = bytes.split_first()? else { return None };
    let (&first, rest) = rest.split_first()?;
    let (head, body) = match usize::from(first) {
        short @ 0..=0x7f => (2, short),
        long => {
            let count = long & 0x7f;
            let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
            (2 + count, digits.iter().fold(0_usize, |all, digit| all << 8 | usize::from(*digit)))
        }
    };
    head.checked_add(body).filter(|length| *length <= bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_follow_each_other_are_told_apart() {
        let short = [&[0x30, 3][..], b"abc"].concat();
        let long = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        let text = one_by_one(&[short.clone(), long.clone()].concat(), "X").expect("two");
        let read = pem::parse_many(text).expect("PEM");
        assert_eq!(read.iter().map(|one| one.contents().to_vec()).collect::<Vec<_>>(), [short, long]);
        for bad in
            [&[0x30, 4, 1, 2, 3][..], &[0x31, 0], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 0, 0, 0, 0, 1, 9]]
        {
            assert!(one_by_one(bad, "X").is_err(), "{bad:?}");
        }
        assert_eq!(one_by_one(&[], "X"), Ok(String::new()));
    }
}
