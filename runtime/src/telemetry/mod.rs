//! Traces: which calls are watched, what is said of them, and how that leaves the process.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use rhumb_transport::TraceContext;

/// The trace of what this thread does now: of the innermost span, else of the call under way; none
/// where there is neither.
pub(crate) fn current_trace() -> Option<TraceContext> {
    let span = Context::map_current(|context| {
        let span = context.span();
        let is = span.span_context();
        is.is_valid().then(|| TraceContext {
            trace_id: u128::from_be_bytes(is.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(is.span_id().to_bytes()),
            flags: is.trace_flags().to_u8(),
        })
    });
    span.or_else(|| crate::host::call().and_then(|call| call.trace()))
}
