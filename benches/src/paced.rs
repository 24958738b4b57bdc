//! A driver that asks at a fixed rate, whatever the answers do, and a collector of spans: processes of the
//! work `tracing`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::MeshAddr;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::process::{Orders, say};
use crate::protocol::{Echo, Echoes};
use crate::sample::{Latencies, Sample};

/// Asks that may be under way; one that finds no room is counted as failed.
const MOST: usize = 4_096;
/// How often asks are begun.
const EVERY: Duration = Duration::from_millis(1);

/// So many asks a second, for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Asks a second: whole thousands.
    pub rate: u64,
    /// Bytes of an ask's body.
    pub payload: usize,
    /// How long, in milliseconds.
    pub millis: u64,
}

#[derive(Default)]
struct Tally {
    latencies: Latencies,
    failed: u64,
}

/// Drives the node of the mesh in a folder, as ordered.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path) -> anyhow::Result<()> {
    let client = Arc::new(MeshClient::new(&dir.join("client"), Directory::read(dir)?)?);
    client.connect_all().await?;
    let echo = client.mesh().actor::<Echoes>("bench");
    say(&"ready")?;
    let mut orders = Orders::default();
    while let Some(pace) = orders.next::<Pace>().await? {
        let (echo, paced) = (echo.clone(), pace);
        say(&tokio::spawn(async move { keep(echo, paced).await }).await?)?;
    }
    Ok(())
}

/// Keeps the pace. What could not be begun in time is begun late, all at once.
async fn keep(echo: MeshAddr<Echoes>, pace: Pace) -> Sample {
    let (room, tally) = (Arc::new(Semaphore::new(MOST)), Arc::new(Mutex::new(Tally::default())));
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    for _ in 0..pace.millis {
        ticks.tick().await;
        for _ in 0..pace.rate / 1_000 {
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                tally.lock().failed += 1;
                continue;
            };
            let (echo, tally) = (echo.clone(), Arc::clone(&tally));
            tokio::spawn(async move {
                let at = Instant::now();
                let answered = echo.ask(Echo { body: vec![7; pace.payload].into() }).await.is_ok();
                let took = at.elapsed().as_nanos() as u64;
                let mut tally = tally.lock();
                if answered {
                    tally.latencies.record_many(took, 1)
                } else {
                    tally.failed += 1
                }
                drop(place);
            });
        }
    }
    room.acquire_many(MOST as u32).await.ok();
    let tally = tally.lock();
    tally.latencies.sample(tally.failed, begin.elapsed().as_secs_f64())
}

/// As much of OTLP's `ExportTraceServiceRequest` as it takes to count spans.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

/// `ExportTraceServiceResponse`: everything was taken.
#[derive(Clone, PartialEq, prost::Message)]
struct Taken {}

#[derive(Clone)]
struct Collector(Arc<AtomicU64>);

impl UnaryService<Export> for Collector {
    type Response = Taken;
    type Future = BoxFuture<'static, Result<Response<Taken>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let scopes = request.get_ref().resources.iter().flat_map(|resource| &resource.scopes);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Box::pin(async { Ok(Response::new(Taken {})) })
    }
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        let codec = ProstCodec::default();
        Box::pin(async move { Ok(Grpc::new(codec).unary(collector, request).await) })
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

/// Takes spans over OTLP and gRPC; says where, then, at each line, how many it has taken.
///
/// # Errors
/// It cannot listen.
pub async fn collect() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let spans = Arc::new(AtomicU64::new(0));
    let incoming = tonic::transport::server::TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    let served = Server::builder().add_service(Collector(Arc::clone(&spans))).serve_with_incoming(incoming);
    let served = tokio::spawn(served);
    say(&format!("http://{address}"))?;
    let mut orders = Orders::default();
    while orders.next::<String>().await?.is_some() {
        say(&spans.load(Ordering::Relaxed))?;
    }
    served.abort();
    Ok(())
}
