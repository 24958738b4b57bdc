//! Traces: which calls are watched, what is said of them, and how that leaves the process.
//!
//! A call is looked at where it begins ([`sampling`]): a share of all calls is kept, and every further hop
//! does as was decided there. Of a call that is kept, each part is a [`Span`]; of one that is not,
//! nothing is made but the 25 bytes that go with it. Finished spans go into a bounded queue ([`Spans`]),
//! from which a thread of its own takes them to a collector, or drops and counts them: no call ever waits
//! for that.
//!
//! * It never does: put an actor's key, a field of a message, or the text of a fault into a span. A span
//!   names messages, classes, nodes and times.
//! * Invariant: what is said of a call is of its trace, whichever thread it runs on.
//!
//! [`propagation`] is for the edges: it reads and writes the headers of HTTP.

mod forced;
mod gate;
pub mod names;
pub mod propagation;
mod queue;
pub mod sampling;
mod served;
mod span;

#[cfg(feature = "rocks")]
mod exporter;
#[cfg(feature = "rocks")]
mod file;
#[cfg(feature = "rocks")]
mod layer;
#[cfg(feature = "rocks")]
mod start;

#[cfg(feature = "rocks")]
pub mod log;

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use rhumb_transport::TraceContext;

pub(crate) use gate::TracedGate;
#[cfg(feature = "rocks")]
pub use layer::layer;
pub use queue::{SpanCounts, Spans};
pub(crate) use served::{AtWork, Served};
pub(crate) use span::What;
pub use span::{Span, Tracer};
#[cfg(feature = "rocks")]
pub use start::{Endpoint, Header, Protocol, Telemetry, TelemetrySettings};

/// The trace of what this thread does now: of the innermost span, else of the call under way; none
/// where there is neither.
pub(crate) fn current_trace() -> Option<TraceContext> {
    Context::map_current(trace_of).or_else(|| crate::host::call().and_then(|call| call.trace()))
}

/// The span of a call that leaves from here, and what goes with it. It goes on its parent, or begins a
/// trace; without anything that makes spans, what was there goes on as it is.
pub(crate) fn watch<'a>(
    tracer: Option<&Tracer>,
    parent: Option<TraceContext>,
    remote: bool,
    what: impl FnOnce() -> What<'a>,
) -> (Option<Span>, Option<TraceContext>) {
    let Some(tracer) = tracer else { return (None, parent) };
    match parent {
        None => {
            let (span, trace) = tracer.begin(sampling::Begin::Call, what);
            (span, Some(trace))
        }
        Some(parent) if parent.is_sampled() => {
            let span = tracer.under(parent, remote, what());
            let trace = span.as_ref().map_or(parent, Span::trace);
            (span, Some(trace))
        }
        not_kept => (None, not_kept),
    }
}

/// Works for a span, where there is one, at each step of a future.
pub(crate) async fn within<F: Future>(span: Option<&Span>, future: F) -> F::Output {
    match span {
        Some(span) => future.with_context(span.context()).await,
        None => future.await,
    }
}

/// Works for a span, where there is one.
pub(crate) fn working_for<T>(span: Option<&Span>, work: impl FnOnce() -> T) -> T {
    let _attached = span.map(|span| span.context().attach());
    work()
}

/// Does something that is a part of the span that this thread works for, if it does for one.
pub(crate) fn part<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let part = Span::current().map(|span| span.child(name));
    let done = work();
    drop(part);
    done
}

/// The trace in a context, if there is one.
fn trace_of(context: &Context) -> Option<TraceContext> {
    let span = context.span();
    let is = span.span_context();
    is.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(is.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(is.span_id().to_bytes()),
        flags: is.trace_flags().to_u8(),
    })
}

/// Lets this process log to standard error, and its own `tracing` spans go with those of the runtime
/// where traces go anywhere. Where a program that embeds this has set a subscriber before, that one
/// stands, and the log stays empty.
#[cfg(feature = "rocks")]
#[must_use]
pub fn log_to_stderr(settings: &crate::settings::LogSettings, telemetry: Option<&Telemetry>) -> log::Log {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let log = log::Log::to_stderr(settings);
    // Not behind the log's filter: what is logged and what is traced are two questions.
    let spans = telemetry.map(|telemetry| {
        let log = log.clone();
        layer::layer_hiding(&telemetry.tracer(None), move |name| log.hides(name))
    });
    tracing_subscriber::registry().with(spans).with(log.layer(settings)).try_init().ok();
    log
}
