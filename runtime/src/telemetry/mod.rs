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

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use rhumb_transport::TraceContext;

pub(crate) use gate::Watched;
#[cfg(feature = "rocks")]
pub use layer::layer;
pub use queue::{SpanCounts, Spans};
pub(crate) use served::{Served, Within};
pub(crate) use span::What;
pub use span::{Span, Tracer};
#[cfg(feature = "rocks")]
pub use start::{Endpoint, Header, Protocol, Telemetry, TelemetrySettings};

/// The trace of what this thread does now: of the innermost span, else of the call under way; none
/// where there is neither.
pub(crate) fn current_trace() -> Option<TraceContext> {
    Context::map_current(trace_of).or_else(|| crate::host::call().and_then(|call| call.trace()))
}

/// Works for a span, where there is one, at each step of a future.
pub(crate) async fn within<F: Future>(span: Option<&Span>, future: F) -> F::Output {
    match span {
        Some(span) => future.with_context(span.context()).await,
        None => future.await,
    }
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
