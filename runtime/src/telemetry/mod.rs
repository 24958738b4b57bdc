//! Traces: which calls are watched, what is said of them, and how that leaves the process.

#[cfg(feature = "rocks")]
pub mod log;

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

/// Lets this process log to standard error. Where a program that embeds this has set a subscriber
/// before, that one stands, and the log stays empty.
#[cfg(feature = "rocks")]
#[must_use]
pub fn log_to_stderr(settings: &crate::settings::LogSettings) -> log::Log {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let log = log::Log::to_stderr(settings);
    tracing_subscriber::registry().with(log.layer(settings)).try_init().ok();
    log
}
