//! Takes spans out of the queue and to where they are kept, on a thread of its own.
//!
//! * It decides: how many spans go at once, and when what is left is given up.
//! * It never does: run on a thread that serves calls, wait without a bound for a collector, or keep what
//!   a collector did not take.
//! * Invariant: every span that it took out is counted, as exported or as failed.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{
    RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;

use super::file;
use super::queue::Spans;
use super::start::{Endpoint, Protocol, TelemetrySettings};

/// How often a failed export is tried again, within its timeout.
const RETRIES: usize = 2;
/// After so many failures in a row it is said once; and again when it works.
const SAID_AFTER: u32 = 1;

/// The thread that exports.
pub(super) struct Exporter {
    spans: Spans,
    ended: std::sync::Arc<Ended>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Ended {
    now: Mutex<bool>,
    changed: Condvar,
}

/// Where spans go.
enum Way {
    /// OTLP over gRPC, on a runtime of its own.
    Grpc(Runtime, Box<Otlp>),
    /// OTLP over HTTP, with a client that blocks this thread.
    Http(Box<Otlp>),
    /// Lines of OTLP JSON.
    File(File, Resource),
}

impl Exporter {
    /// Starts to export what comes into the queue.
    ///
    /// # Errors
    /// The file cannot be opened, a header is none, or there is no thread to be had. That a collector is
    /// not there is no error: it may come.
    pub(super) fn start(
        settings: &TelemetrySettings,
        to: &Endpoint,
        resource: Resource,
        spans: Spans,
    ) -> anyhow::Result<Self> {
        let way = Way::to(settings, to, resource)?;
        let ended = std::sync::Arc::<Ended>::default();
        let (delay, timeout, queue, over) = (settings.delay, settings.timeout, spans.clone(), ended.clone());
        let run = move || {
            // Said whatever ends the thread.
            let _over = Over(over);
            export(&way, &queue, delay, timeout);
        };
        let thread = thread::Builder::new().name("rhumb-traces".into()).spawn(run)?;
        Ok(Self { spans, ended, thread: Mutex::new(Some(thread)) })
    }

    /// Exports what waits, and ends. What is left after so long is dropped and counted. It blocks.
    #[expect(clippy::disallowed_methods, reason = "a shell: a deadline in real time")]
    pub(super) fn close(&self, within: Duration) {
        self.spans.close();
        let until = Instant::now() + within;
        let mut ended = self.ended.now.lock();
        while !*ended {
            if self.ended.changed.wait_until(&mut ended, until).timed_out() {
                self.spans.abandon();
                return tracing::warn!(?within, "traces: the collector did not take what was left in time");
            }
        }
        drop(ended);
        if let Some(thread) = self.thread.lock().take() {
            thread.join().ok();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // The thread exports what waits, and ends by itself.
        self.spans.close();
    }
}

struct Over(std::sync::Arc<Ended>);

impl Drop for Over {
    fn drop(&mut self) {
        *self.0.now.lock() = true;
        self.0.changed.notify_all();
    }
}

fn export(way: &Way, spans: &Spans, delay: Duration, timeout: Duration) {
    let mut failures = 0_u32;
    while let Some(batch) = spans.next(delay) {
        let count = batch.len();
        match way.send(batch, timeout) {
            Ok(()) => {
                if failures >= SAID_AFTER {
                    tracing::info!("traces: spans are exported again");
                }
                failures = 0;
                spans.exported(count);
            }
            Err(why) => {
                failures += 1;
                if failures == SAID_AFTER {
                    tracing::warn!(
                        why,
                        "traces: spans are not exported; rhumb_trace_spans_total counts them"
                    );
                }
                spans.failed(count);
            }
        }
    }
}

impl Way {
    fn to(settings: &TelemetrySettings, to: &Endpoint, resource: Resource) -> anyhow::Result<Self> {
        let url = match to {
            Endpoint::File(path) => {
                let file = File::options().create(true).append(true).mode(0o600).open(path);
                let file = file.with_context(|| format!("cannot write spans to {}", path.display()))?;
                return Ok(Self::File(file, resource));
            }
            Endpoint::Collector(url) => url,
        };
        let retries = RetryPolicy::recommended().with_max_retries(RETRIES);
        match settings.protocol {
            Protocol::Grpc => {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("rhumb-otlp")
                    .enable_all()
                    .build()?;
                // The channel belongs to the runtime in which it is made.
                let inside = runtime.enter();
                let mut exporter = Otlp::builder()
                    .with_tonic()
                    .with_endpoint(url.as_str())
                    .with_timeout(settings.timeout)
                    .with_metadata(MetadataMap::from_headers(headers(settings)?))
                    .with_retry_policy(retries)
                    .build()?;
                drop(inside);
                exporter.set_resource(&resource);
                Ok(Self::Grpc(runtime, Box::new(exporter)))
            }
            Protocol::Http => {
                let said: HashMap<String, String> = settings
                    .headers
                    .iter()
                    .map(|header| (header.name.clone(), header.value.clone()))
                    .collect();
                headers(settings)?;
                let mut exporter = Otlp::builder()
                    .with_http()
                    .with_endpoint(traces_of(url))
                    .with_timeout(settings.timeout)
                    .with_headers(said)
                    .with_retry_policy(retries)
                    .build()?;
                exporter.set_resource(&resource);
                Ok(Self::Http(Box::new(exporter)))
            }
        }
    }

    /// Sends a batch; it ends within the timeout, or over HTTP within twice that.
    fn send(&self, batch: Vec<SpanData>, timeout: Duration) -> Result<(), String> {
        match self {
            Self::Grpc(runtime, exporter) => runtime.block_on(async {
                let sent = tokio::time::timeout(timeout, exporter.export(batch)).await;
                sent.map_err(|_| format!("the collector took longer than {timeout:?}"))?
                    .map_err(|e| e.to_string())
            }),
            Self::Http(exporter) => {
                futures::executor::block_on(exporter.export(batch)).map_err(|error| error.to_string())
            }
            Self::File(file, resource) => {
                // One write a batch, so that several nodes may write to one file.
                let line = format!("{}\n", file::lines(resource, &batch));
                (&*file).write_all(line.as_bytes()).map_err(|error| error.to_string())
            }
        }
    }
}

/// Where an endpoint takes traces over HTTP: as OTLP says, unless a path is given.
fn traces_of(url: &str) -> String {
    let authority = url.strip_prefix("http://").unwrap_or(url);
    match authority.split_once('/') {
        None => format!("{url}/v1/traces"),
        Some((_, "")) => format!("{url}v1/traces"),
        Some(_) => url.to_owned(),
    }
}

fn headers(settings: &TelemetrySettings) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in &settings.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).context("telemetry.headers: a name")?;
        // A value is a secret: what is wrong with it is said without it.
        let value = HeaderValue::from_str(&header.value);
        let value = value.map_err(|_| anyhow::anyhow!("telemetry.headers: the value of {name} is none"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("spans", &self.spans).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_http_traces_go_where_otlp_says_unless_a_path_is_given() {
        for (given, gone) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("http://otel:4318/in/v1/traces", "http://otel:4318/in/v1/traces"),
        ] {
            assert_eq!(traces_of(given), gone);
        }
    }
}
