//! gRPC by tonic: a unary call with a `bytes` field each way, over HTTP/2 with mutual TLS. The service
//! is written by hand as tonic's generator would write it, so that no protobuf compiler is needed.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::obey;
use crate::caller::Caller;
use crate::process::{Orders, say};
use crate::tls::{NAME, Tls};

#[derive(Clone, PartialEq, prost::Message)]
struct Echo {
    #[prost(bytes = "bytes", tag = "1")]
    body: bytes::Bytes,
}

#[derive(Clone)]
struct EchoServer;

struct Method;

impl UnaryService<Echo> for Method {
    type Response = Echo;
    type Future = BoxFuture<'static, Result<Response<Echo>, Status>>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(Method, request).await) })
    }
}

impl NamedService for EchoServer {
    const NAME: &'static str = "bench.Echo";
}

/// Serves.
///
/// # Errors
/// It cannot.
pub async fn serve(dir: &Path) -> anyhow::Result<()> {
    let tls = Tls(dir.to_owned());
    let identity = Identity::from_pem(tls.pem("cert.pem")?, tls.pem("key.pem")?);
    let config =
        ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(tls.pem("ca.pem")?));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    drop(listener);
    let served = Server::builder().tls_config(config)?.tcp_nodelay(true).add_service(EchoServer);
    say(&address.to_string())?;
    tokio::select! {
        ended = served.serve(address) => Ok(ended?),
        closed = Orders::default().until_closed() => closed,
    }
}

struct Client(Channel);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await?;
        let echo = Echo { body: vec![7_u8; payload].into() };
        let path = PathAndQuery::from_static("/bench.Echo/Ask");
        let codec = ProstCodec::<Echo, Echo>::default();
        let answer = grpc.unary(Request::new(echo), path, codec).await?.into_inner();
        anyhow::ensure!(answer.body.len() == payload, "an answer of {} bytes", answer.body.len());
        Ok(())
    }
}

/// Drives.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path, address: &str) -> anyhow::Result<()> {
    let tls = Tls(dir.to_owned());
    let identity = Identity::from_pem(tls.pem("cert.pem")?, tls.pem("key.pem")?);
    let config = ClientTlsConfig::new()
        .identity(identity)
        .ca_certificate(Certificate::from_pem(tls.pem("ca.pem")?))
        .domain_name(NAME);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(config)?.tcp_nodelay(true);
    let channel = connect(endpoint).await?;
    obey(Arc::new(Client(channel))).await
}

/// The server says its address a moment before it listens.
async fn connect(endpoint: Endpoint) -> anyhow::Result<Channel> {
    for _ in 0..50 {
        if let Ok(channel) = endpoint.connect().await {
            return Ok(channel);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(endpoint.connect().await?)
}
