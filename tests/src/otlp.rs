//! A collector that takes OTLP over gRPC or HTTP, and nothing that OTLP or the semantic conventions
//! forbid. It shares no code with what it checks but the protocol's own definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Wire;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Outcome;
use prost::Message as _;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

/// A span that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// Its parent's; empty for the first of a trace.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its kind, as OTLP names it, without `SPAN_KIND_`.
    pub kind: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// When it began and ended, in nanoseconds since 1970.
    pub times: (u64, u64),
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    ids: BTreeSet<(String, String)>,
    wrong: Vec<String>,
}

/// A collector on a port of this machine. It ends with its guard.
pub struct Collector {
    /// Where it listens, as an endpoint.
    pub endpoint: String,
    taken: Arc<Mutex<Taken>>,
    _runtime: Runtime,
}

impl Collector {
    /// One that takes OTLP over gRPC.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn grpc() -> Self {
        Self::start(|listener, taken| async move {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let service = TraceServiceServer::new(Grpc(taken));
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.ok();
        })
    }

    /// One that takes OTLP over HTTP, in protobuf.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn http() -> Self {
        Self::start(|listener, taken| async move {
            let app = Router::new().route("/v1/traces", post(over_http)).with_state(taken);
            axum::serve(listener, app).await.ok();
        })
    }

    fn start<F>(serve: impl FnOnce(TcpListener, Arc<Mutex<Taken>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let at: SocketAddr = listener.local_addr().expect("bound");
        let taken = Arc::<Mutex<Taken>>::default();
        let serving = {
            let _within = runtime.enter();
            serve(listener, Arc::clone(&taken))
        };
        runtime.spawn(serving);
        Self { endpoint: format!("http://{at}"), taken, _runtime: runtime }
    }

    /// The spans of a trace so far.
    ///
    /// # Panics
    /// When something came that is not allowed.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let taken = self.taken.lock().expect("no panic");
        assert!(taken.wrong.is_empty(), "not allowed: {:#?}", taken.wrong);
        taken.spans.iter().filter(|span| span.trace == id).cloned().collect()
    }

    /// All spans so far.
    ///
    /// # Panics
    /// As [`Collector::trace`].
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().expect("no panic");
        assert!(taken.wrong.is_empty(), "not allowed: {:#?}", taken.wrong);
        taken.spans.clone()
    }
}

/// What a finished trace may not be: without a beginning, or with a parent that nobody knows.
///
/// # Errors
/// What is wrong.
pub fn whole(trace: &[Span]) -> Result<(), String> {
    let ids: BTreeSet<&str> = trace.iter().map(|span| span.id.as_str()).collect();
    let first = trace.iter().filter(|span| span.parent.is_empty()).count();
    if first != 1 {
        return Err(format!("{first} spans without a parent"));
    }
    match trace.iter().find(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_str())) {
        Some(orphan) => Err(format!("nobody knows the parent of {orphan:?}")),
        None => Ok(()),
    }
}

struct Grpc(Arc<Mutex<Taken>>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        take(&self.0, request.into_inner()).map_err(Status::invalid_argument)?;
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

async fn over_http(
    State(taken): State<Arc<Mutex<Taken>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, (StatusCode, String)> {
    let refused = |why: String| {
        taken.lock().expect("no panic").wrong.push(why.clone());
        (StatusCode::BAD_REQUEST, why)
    };
    if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(refused("the content is not application/x-protobuf".into()));
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|error| refused(error.to_string()))?;
    take(&taken, request).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    Ok(ExportTraceServiceResponse { partial_success: None }.encode_to_vec())
}

/// Takes all of a request, or nothing.
fn take(taken: &Mutex<Taken>, request: ExportTraceServiceRequest) -> Result<(), String> {
    let mut taken = taken.lock().expect("no panic");
    let read = read(request, &taken.ids);
    match read {
        Ok(spans) => {
            taken.ids.extend(spans.iter().map(|span| (span.trace.clone(), span.id.clone())));
            taken.spans.extend(spans);
            Ok(())
        }
        Err(why) => {
            taken.wrong.push(why.clone());
            Err(why)
        }
    }
}

fn read(request: ExportTraceServiceRequest, known: &BTreeSet<(String, String)>) -> Result<Vec<Span>, String> {
    let mut spans: Vec<Span> = Vec::new();
    for resource in request.resource_spans {
        let of = resource.resource.ok_or("spans of no resource")?;
        let of = attributes(&of.attributes)?;
        for key in ["service.name", "service.instance.id", "cloud.region"] {
            if !of.contains_key(key) {
                return Err(format!("a resource without {key}: {of:?}"));
            }
        }
        for scope in resource.scope_spans {
            let name = scope.scope.map(|scope| scope.name).unwrap_or_default();
            for wire in scope.spans {
                let span = span(wire, name == "rhumb")?;
                let id = (span.trace.clone(), span.id.clone());
                if known.contains(&id) || spans.iter().any(|other| other.trace == id.0 && other.id == id.1) {
                    return Err(format!("twice: {span:?}"));
                }
                spans.push(span);
            }
        }
    }
    Ok(spans)
}

fn span(wire: Wire, ours: bool) -> Result<Span, String> {
    let shown = format!("{wire:?}");
    let wrong = |what: &str| Err(format!("{what}: {shown}"));
    let id = |bytes: &[u8], length: usize| bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    if !id(&wire.trace_id, 16) || !id(&wire.span_id, 8) {
        return wrong("an id that is none");
    }
    if !wire.parent_span_id.is_empty() && !id(&wire.parent_span_id, 8) {
        return wrong("a parent that is none");
    }
    if wire.parent_span_id == wire.span_id {
        return wrong("its own parent");
    }
    if wire.name.is_empty() {
        return wrong("no name");
    }
    if wire.start_time_unix_nano == 0 || wire.end_time_unix_nano < wire.start_time_unix_nano {
        return wrong("it ends before it begins");
    }
    if wire.flags & !0x3ff != 0 {
        return wrong("flags that are reserved");
    }
    let status = wire.status.clone().unwrap_or_default();
    let failed = status.code == Outcome::Error as i32;
    if !failed && !status.message.is_empty() {
        return wrong("a message with a status that takes none");
    }
    for event in &wire.events {
        attributes(&event.attributes)?;
        if event.name.is_empty() || event.time_unix_nano == 0 {
            return wrong("an event without a name or a time");
        }
    }
    if wire.links.iter().any(|link| !id(&link.trace_id, 16) || !id(&link.span_id, 8)) {
        return wrong("a link to nothing");
    }
    let kind = SpanKind::try_from(wire.kind).unwrap_or(SpanKind::Unspecified);
    let attributes = attributes(&wire.attributes)?;
    if let Some(missing) = required(kind, ours, failed).find(|key| !attributes.contains_key(*key)) {
        return wrong(&format!("{missing} is missing"));
    }
    if kind == SpanKind::Unspecified {
        return wrong("no kind");
    }
    Ok(Span {
        trace: hex(&wire.trace_id),
        id: hex(&wire.span_id),
        parent: hex(&wire.parent_span_id),
        name: wire.name,
        kind: kind.as_str_name().trim_start_matches("SPAN_KIND_").to_owned(),
        attributes,
        times: (wire.start_time_unix_nano, wire.end_time_unix_nano),
    })
}

/// What the conventions and `docs/tracing.md` ask of a span.
fn required(kind: SpanKind, ours: bool, failed: bool) -> impl Iterator<Item = &'static str> {
    const ALL: [&str; 4] = ["rhumb.region", "rhumb.node", "rhumb.data.class", "rhumb.hybrid_time"];
    let by_kind: &[&str] = match kind {
        SpanKind::Client | SpanKind::Server if ours => {
            &["rpc.system.name", "rpc.method", "rpc.response.status_code"]
        }
        SpanKind::Producer | SpanKind::Consumer if ours => &[
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
        ],
        _ => &[],
    };
    let failed = (ours && failed).then_some("error.type");
    ALL.into_iter().chain(by_kind.iter().copied()).chain(failed)
}

fn attributes(all: &[KeyValue]) -> Result<BTreeMap<String, String>, String> {
    let mut read = BTreeMap::new();
    for KeyValue { key, value, .. } in all {
        let value = value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(truth)) => truth.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        if key.is_empty() || value.is_none() || read.insert(key.clone(), text).is_some() {
            return Err(format!("an attribute without a key or a value, or twice: {key:?}"));
        }
    }
    Ok(read)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Wire {
        let text = |key: &str, value: &str| KeyValue {
            key: key.to_owned(),
            value: Some(opentelemetry_proto::tonic::common::v1::AnyValue {
                value: Some(Value::StringValue(value.to_owned())),
            }),
            ..KeyValue::default()
        };
        let keys = [
            "rhumb.region",
            "rhumb.node",
            "rhumb.data.class",
            "rhumb.hybrid_time",
            "rpc.system.name",
            "rpc.method",
            "rpc.response.status_code",
        ];
        Wire {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "a".to_owned(),
            kind: SpanKind::Server as i32,
            start_time_unix_nano: 5,
            end_time_unix_nano: 5,
            attributes: keys.map(|key| text(key, "x")).to_vec(),
            ..Wire::default()
        }
    }

    #[test]
    fn what_is_not_allowed_is_not_taken() {
        assert!(span(good(), true).is_ok());
        let breaks: [fn(&mut Wire); 10] = [
            |span| span.trace_id = vec![0; 16],
            |span| span.trace_id = vec![1; 8],
            |span| span.span_id = vec![0; 8],
            |span| span.parent_span_id = vec![0; 8],
            |span| span.parent_span_id = span.span_id.clone(),
            |span| span.name = String::new(),
            |span| span.end_time_unix_nano = 4,
            |span| span.kind = 0,
            |span| drop(span.attributes.pop()),
            |span| span.attributes.push(span.attributes[0].clone()),
        ];
        for (at, breaks) in breaks.iter().enumerate() {
            let mut broken = good();
            breaks(&mut broken);
            assert!(span(broken, true).is_err(), "{at}");
        }
    }

    #[test]
    fn a_trace_with_a_hole_is_not_whole() {
        let first = span(good(), true).expect("allowed");
        let below = Span { id: "b".into(), parent: first.id.clone(), ..first.clone() };
        assert_eq!(whole(&[first.clone(), below.clone()]), Ok(()));
        assert!(whole(std::slice::from_ref(&below)).is_err());
        let orphan = Span { id: "c".into(), parent: "gone".into(), ..below };
        assert!(whole(&[first, orphan]).is_err());
    }
}
