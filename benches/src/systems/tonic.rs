//! gRPC by tonic: a unary call with a `bytes` field each way, over HTTP/2 with mutual TLS; tells are the
//! messages of client streams: a sender has one of 16, which it shares with every sixteenth other. The service is written by hand as tonic's generator would
//! write it, so that no protobuf compiler is needed.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{ClientStreamingService, Grpc, NamedService, UnaryService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::obey;
use crate::caller::Caller;
use crate::process::{Orders, say};
use crate::tls::{NAME, Tls};

/// The largest message; tonic's own limit is 4 MiB.
const LARGEST: usize = 16 << 20;
/// So that neither side waits for flow control: four times Rhumb's window of a stream, and its window of a connection.
const WINDOW: u32 = 8 << 20;
/// Messages of a stream that wait to be sent.
const WAITING: usize = 1_024;
/// Streams that senders of tells share.
const STREAMS: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct Echo {
    #[prost(bytes = "bytes", tag = "1")]
    body: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint64, tag = "1")]
    arrived: u64,
}

#[derive(Clone, Default)]
struct EchoServer {
    arrived: Arc<AtomicU64>,
}

struct Ask;

impl UnaryService<Echo> for Ask {
    type Response = Echo;
    type Future = BoxFuture<'static, Result<Response<Echo>, Status>>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

struct Arrived(Arc<AtomicU64>);

impl UnaryService<Count> for Arrived {
    type Response = Count;
    type Future = BoxFuture<'static, Result<Response<Count>, Status>>;

    fn call(&mut self, _: Request<Count>) -> Self::Future {
        let arrived = self.0.load(Relaxed);
        Box::pin(async move { Ok(Response::new(Count { arrived })) })
    }
}

struct Tell(Arc<AtomicU64>);

impl ClientStreamingService<Echo> for Tell {
    type Response = Count;
    type Future = BoxFuture<'static, Result<Response<Count>, Status>>;

    fn call(&mut self, request: Request<Streaming<Echo>>) -> Self::Future {
        let count = Arc::clone(&self.0);
        Box::pin(async move {
            let mut told = request.into_inner();
            while told.message().await?.is_some() {
                count.fetch_add(1, Relaxed);
            }
            Ok(Response::new(Count { arrived: count.load(Relaxed) }))
        })
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
        let arrived = Arc::clone(&self.arrived);
        Box::pin(async move {
            let mut echo = Grpc::new(ProstCodec::<Echo, Echo>::default()).max_decoding_message_size(LARGEST);
            Ok(match request.uri().path() {
                "/bench.Echo/Ask" => echo.unary(Ask, request).await,
                "/bench.Echo/Tell" => {
                    let mut grpc = Grpc::new(ProstCodec::<Count, Echo>::default());
                    grpc.client_streaming(Tell(arrived), request).await
                }
                _ => Grpc::new(ProstCodec::<Count, Count>::default()).unary(Arrived(arrived), request).await,
            })
        })
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
    let served = Server::builder()
        .tls_config(config)?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .add_service(EchoServer::default());
    say(&address.to_string())?;
    tokio::select! {
        ended = served.serve(address) => Ok(ended?),
        closed = Orders::default().until_closed() => closed,
    }
}

struct Client {
    channel: Channel,
    /// The streams that are told; opened when they are first needed.
    streams: Arc<[OnceLock<mpsc::Sender<Echo>>]>,
    /// The one that this sender tells on.
    told: Option<mpsc::Sender<Echo>>,
}

impl Client {
    fn new(channel: Channel) -> Self {
        let streams = std::iter::repeat_with(OnceLock::new).take(STREAMS).collect();
        Self { channel, streams, told: None }
    }

    /// Opens a stream of tells.
    fn stream(&self) -> mpsc::Sender<Echo> {
        let (send, mut waiting) = mpsc::channel(WAITING);
        let told = futures::stream::poll_fn(move |context| waiting.poll_recv(context));
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        tokio::spawn(async move {
            grpc.ready().await?;
            let path = PathAndQuery::from_static("/bench.Echo/Tell");
            let codec = ProstCodec::<Echo, Count>::default();
            grpc.client_streaming(Request::new(told), path, codec).await?;
            anyhow::Ok(())
        });
        send
    }
}

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        grpc.ready().await?;
        let echo = Echo { body: vec![7_u8; payload].into() };
        let path = PathAndQuery::from_static("/bench.Echo/Ask");
        let codec = ProstCodec::<Echo, Echo>::default();
        let answer = grpc.unary(Request::new(echo), path, codec).await?.into_inner();
        anyhow::ensure!(answer.body.len() == payload, "an answer of {} bytes", answer.body.len());
        Ok(())
    }

    fn is_fault(error: &anyhow::Error) -> bool {
        error.is::<Status>()
    }

    fn sender(self: &Arc<Self>, number: u64) -> Arc<Self> {
        let told = self.streams[number as usize % STREAMS].get_or_init(|| self.stream()).clone();
        Arc::new(Self { channel: self.channel.clone(), streams: Arc::clone(&self.streams), told: Some(told) })
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        let told = self.told.as_ref().context("a sender that has no stream")?;
        told.send(Echo { body: vec![7_u8; payload].into() }).await?;
        Ok(())
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let path = PathAndQuery::from_static("/bench.Echo/Arrived");
        let codec = ProstCodec::<Count, Count>::default();
        Ok(grpc.unary(Request::new(Count::default()), path, codec).await?.into_inner().arrived)
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
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(config)?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    let channel = connect(endpoint).await?;
    obey(Arc::new(Client::new(channel))).await
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
