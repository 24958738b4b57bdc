//! The traces of one command: `-v` says the id of its trace and has it kept, and
//! `OTEL_EXPORTER_OTLP_ENDPOINT` says where the command's own spans go.
//!
//! Without an endpoint the command has no spans of its own: then its trace begins at the node that it
//! asks, under the id that was said here.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use rhumb_core::DataClass;
use rhumb_transport::TraceContext;

use crate::client::MeshClient;
use crate::telemetry::sampling::{Begin, Share};
use crate::telemetry::{Endpoint, Protocol, Span, Telemetry, TelemetrySettings, Tracer, What};

/// The variable that OpenTelemetry's programs read.
pub(super) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// And the one that says what the collector is spoken to in.
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
/// How long a command waits at its end for its spans to be taken.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The traces of this process's command.
static CURRENT: OnceLock<OfCommand> = OnceLock::new();

struct OfCommand {
    telemetry: Option<Telemetry>,
    wanted: bool,
    trace: OnceLock<(TraceContext, Option<Span>)>,
}

/// The traces of a command, while it runs.
pub(super) struct Traces(());

impl Traces {
    /// Begins. `wanted` is `-v`. Also says why the command has no spans of its own, where it should: the
    /// variable is often set for all programs of a machine, and none of them should end for it.
    pub(super) fn begin(wanted: bool) -> (Self, Option<String>) {
        let telemetry = match std::env::var(ENDPOINT) {
            Err(_) => Ok(None),
            Ok(said) if said.is_empty() => Ok(None),
            Ok(said) => telemetry(&said),
        };
        let (telemetry, why) = telemetry.map_or_else(|why| (None, Some(why)), |telemetry| (telemetry, None));
        CURRENT.get_or_init(|| OfCommand { telemetry, wanted, trace: OnceLock::new() });
        (Self(()), why)
    }

    /// Where spans go, if they go anywhere.
    pub(super) fn telemetry(&self) -> Option<&Telemetry> {
        CURRENT.get()?.telemetry.as_ref()
    }

    /// The command has ended: so does its trace, and what is left of it goes out.
    pub(super) async fn end(self) {
        let Some(watch) = CURRENT.get() else { return };
        if let Some((_, Some(root))) = watch.trace.get() {
            root.end();
        }
        if let Some(telemetry) = &watch.telemetry {
            telemetry.close(END_WITHIN).await;
        }
    }
}

fn telemetry(said: &str) -> Result<Option<Telemetry>, String> {
    let bad = |why: String| {
        let why = if why.is_empty() { "expected http://HOST:PORT".to_owned() } else { why };
        format!("{ENDPOINT}={said}: {why}")
    };
    let endpoint = Endpoint::parse(said).map_err(bad)?;
    let protocol = protocol(said, self::said().as_deref());
    let settings = TelemetrySettings {
        endpoint: Some(endpoint),
        protocol,
        share: Share::ALL,
        ..TelemetrySettings::default()
    };
    Telemetry::start(&settings, "", "rhumb").map_err(|error| format!("{ENDPOINT}={said}: {error:#}"))
}

/// What the environment says that a collector is spoken to in.
pub(super) fn said() -> Option<String> {
    std::env::var(PROTOCOL).ok().filter(|said| !said.is_empty())
}

/// What a collector is spoken to in: as is said, or as its port is known for.
pub(super) fn protocol(endpoint: &str, said: Option<&str>) -> Protocol {
    match said {
        Some("grpc") => Protocol::Grpc,
        Some(_) => Protocol::Http,
        None if endpoint.trim_end_matches('/').ends_with(":4318") => Protocol::Http,
        None => Protocol::Grpc,
    }
}

/// A client whose questions all belong to the trace of this command.
pub(super) fn watched(client: MeshClient) -> MeshClient {
    let Some(watch) = CURRENT.get() else { return client };
    let tracer = tracer(watch, &client, Share::ALL);
    let begun = || match &tracer {
        Some(tracer) => {
            let class = DataClass::control();
            let what = || What {
                name: "rhumb".into(),
                kind: SpanKind::Internal,
                class: &class,
                attributes: Vec::new(),
            };
            let (span, trace) = tracer.begin(Begin::Wanted, what);
            (trace, span)
        }
        None => (TraceContext { span_id: 0, flags: TraceContext::SAMPLED, ..Tracer::not_kept() }, None),
    };
    let trace = (watch.wanted || tracer.is_some()).then(|| watch.trace.get_or_init(begun).0);
    if let (Some(trace), true) = (trace, watch.wanted) {
        say(trace);
    }
    client.traced(tracer, trace)
}

/// A client of whose many questions a share is kept, each in a trace of its own.
pub(super) fn watched_each(client: MeshClient) -> MeshClient {
    let Some(watch) = CURRENT.get() else { return client };
    let tracer = tracer(watch, &client, TelemetrySettings::default().share);
    client.traced(tracer, None)
}

fn tracer(watch: &OfCommand, client: &MeshClient, share: Share) -> Option<Tracer> {
    let telemetry = watch.telemetry.as_ref()?;
    let who = client.principal();
    let node = format!("{}/{}/{}", who.region, who.role, who.name);
    Some(Tracer::new(who.region.as_str(), &node, None, share, telemetry.spans().clone()))
}

#[expect(clippy::print_stderr, reason = "the command line speaks")]
fn say(trace: TraceContext) {
    eprintln!("trace_id: {:032x}", trace.trace_id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_spoken_to_as_is_said_or_as_its_port_is_known_for() {
        for (endpoint, said, right) in [
            ("http://127.0.0.1:4317", None, Protocol::Grpc),
            ("http://127.0.0.1:4318", None, Protocol::Http),
            ("http://127.0.0.1:4318/", None, Protocol::Http),
            ("http://127.0.0.1:4318", Some("grpc"), Protocol::Grpc),
            ("http://127.0.0.1:4317", Some("http/protobuf"), Protocol::Http),
        ] {
            assert_eq!(protocol(endpoint, said), right, "{endpoint} {said:?}");
        }
    }
}
