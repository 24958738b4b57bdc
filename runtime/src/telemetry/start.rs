//! Traces of one process: their settings, their exporter, and their end.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use super::exporter::Exporter;
use super::queue::Spans;
use super::sampling::Share;
use super::span::Tracer;
use crate::clock::NodeClock;

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Where; nowhere unless set.
    pub endpoint: Option<Endpoint>,
    /// What a collector is spoken to in.
    pub protocol: Protocol,
    /// The share of the traces beginning here that is kept.
    pub share: Share,
    /// How many traces a second programs outside the mesh may have kept, besides the share.
    pub forced: u32,
    /// How many finished spans may wait.
    pub queue: usize,
    /// How long a span may wait for others to go with.
    pub delay: Duration,
    /// How long a collector may take for what is sent at once.
    pub timeout: Duration,
    /// What the spans' service is called.
    pub service: String,
    /// Headers that a collector asks for.
    pub headers: Vec<Header>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Grpc,
            share: Share::per_million(10_000).unwrap_or(Share::NONE),
            forced: 100,
            queue: 8_192,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            service: "rhumb".to_owned(),
            headers: Vec::new(),
        }
    }
}

/// Where spans are taken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A collector: `http://HOST:PORT`, and a path if it has its own.
    Collector(String),
    /// A file to which lines of OTLP JSON are added: `file:///PATH`.
    File(PathBuf),
}

impl Endpoint {
    /// The endpoint that a text says.
    ///
    /// # Errors
    /// What was wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::File(path))
            } else {
                Err("a file is named by its absolute path: file:///var/lib/rhumb/spans.jsonl".to_owned())
            };
        }
        if text.starts_with("https://") {
            let why = "TLS is not spoken to a collector: let one stand beside the node, in its region, at http://127.0.0.1:4317";
            return Err(why.to_owned());
        }
        let uri: Uri = text.parse().map_err(|_| String::new())?;
        let whole = uri.scheme_str() == Some("http") && uri.port_u16().is_some() && uri.query().is_none();
        if whole { Ok(Self::Collector(text.to_owned())) } else { Err(String::new()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collector(url) => f.write_str(url),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// What a collector is spoken to in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC; port 4317 as a rule.
    #[default]
    Grpc,
    /// OTLP over HTTP, in protobuf; port 4318 as a rule.
    Http,
}

/// A header that a collector asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value: a secret.
    pub value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({})", self.name)
    }
}

/// The traces of one process. Cloneable; all clones are one.
#[derive(Debug, Clone)]
pub struct Telemetry {
    spans: Spans,
    share: Share,
    forced: u32,
    region: String,
    node: String,
    exporter: Arc<Exporter>,
}

impl Telemetry {
    /// Starts to export the traces of a node, or of a program; `None` where the settings name no place.
    ///
    /// # Errors
    /// The exporter could not be started. That a collector is not there is no error.
    pub fn start(settings: &TelemetrySettings, region: &str, node: &str) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let spans = Spans::with_capacity(settings.queue);
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", settings.service.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
            KeyValue::new("cloud.region", region.to_owned()),
        ]);
        let exporter = Exporter::start(settings, endpoint, resource.build(), spans.clone())?;
        let (share, forced, exporter) = (settings.share, settings.forced, Arc::new(exporter));
        Ok(Some(Self { spans, share, forced, region: region.to_owned(), node: node.to_owned(), exporter }))
    }

    /// What makes spans, with the clock of the node where there is one.
    #[must_use]
    pub fn tracer(&self, clock: Option<NodeClock>) -> Tracer {
        Tracer::new(&self.region, &self.node, clock, self.share, self.spans.clone()).bounded(self.forced)
    }

    /// What became of spans so far.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Exports what waits, and takes no more. What is left after so long is dropped and counted. The
    /// caller's thread is not blocked.
    pub async fn close(&self, within: Duration) {
        let exporter = Arc::clone(&self.exporter);
        tokio::task::spawn_blocking(move || exporter.close(within)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_collector_beside_the_node_or_a_file() {
        for good in ["http://127.0.0.1:4317", "http://otel:4318/v1/traces", "file:///tmp/spans.jsonl"] {
            assert_eq!(Endpoint::parse(good).expect(good).to_string(), good);
        }
        for bad in ["", "127.0.0.1:4317", "http://127.0.0.1", "http://h:1?x=1", "ftp://h:1", "file://spans"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        let refused = Endpoint::parse("https://collector:4317").expect_err("no TLS");
        assert!(refused.contains("beside the node"), "{refused}");
    }
}
