//! A stand-in for a SPIRE agent: it speaks the Workload API over a Unix socket, and gives what the test puts
//! there. Its messages are written down a second time here, after the public specification, so that it shares
//! nothing with what it checks.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

/// What is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Ask {}

/// What is answered: `X509SVIDResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Entitled {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// The agent. It ends with its guard.
pub struct Agent {
    gives: watch::Sender<Option<Entitled>>,
    _runtime: Runtime,
}

impl Agent {
    /// Listens on a socket. It gives nothing yet.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let gives = watch::Sender::new(None);
        let api = Api { gives: gives.clone() };
        let listener = {
            let _on_it = runtime.enter();
            UnixListener::bind(socket).expect("a socket")
        };
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        runtime.spawn(
            tonic::transport::Server::builder().add_service(api).serve_with_incoming(incoming.boxed()),
        );
        Self { gives, _runtime: runtime }
    }

    /// From now on, everybody who asks has the identity in a folder; who has asked is sent it.
    ///
    /// # Panics
    /// When the folder holds none.
    pub fn give(&self, folder: &Path) {
        let read = |name: &str| std::fs::read(folder.join(name)).expect("a file");
        let parts = |name: &str, tag: &str| {
            let all = pem::parse_many(read(name)).expect("PEM");
            let of = all.into_iter().filter(|part| part.tag() == tag);
            of.map(|part| part.into_contents()).collect::<Vec<Vec<u8>>>()
        };
        let svid = Svid {
            spiffe_id: String::new(),
            chain: parts("identity.pem", "CERTIFICATE").concat(),
            key: parts("identity.pem", "PRIVATE KEY").concat(),
            bundle: parts("ca.pem", "CERTIFICATE").concat(),
        };
        self.gives.send_replace(Some(Entitled { svids: vec![svid], crl: parts("crl.pem", "X509 CRL") }));
    }
}

#[derive(Clone)]
struct Api {
    gives: watch::Sender<Option<Entitled>>,
}

impl NamedService for Api {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tonic::codegen::Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fetch = Fetch(Arc::new(self.gives.subscribe()));
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("this stand-in gives X.509 certificates only").into_http());
            }
            let codec = tonic_prost::ProstCodec::<Entitled, Ask>::default();
            Ok(Grpc::new(codec).server_streaming(fetch, request).await)
        })
    }
}

struct Fetch(Arc<watch::Receiver<Option<Entitled>>>);

impl ServerStreamingService<Ask> for Fetch {
    type Response = Entitled;
    type ResponseStream = BoxStream<'static, Result<Entitled, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let gives = (*self.0).clone();
        Box::pin(async move {
            // Section 3.1 of the Workload Endpoint's specification: without it nothing may be answered.
            if request.metadata().get("workload.spiffe.io").is_none_or(|said| said != "true") {
                return Err(Status::invalid_argument("workload.spiffe.io: true is missing"));
            }
            let all = futures::stream::unfold((gives, true), |(mut gives, is_first)| async move {
                if !is_first {
                    gives.changed().await.ok()?;
                }
                let now = gives.wait_for(Option::is_some).await.ok()?.clone()?;
                Some((Ok(now), (gives, false)))
            });
            Ok(Response::new(all.boxed()))
        })
    }
}
