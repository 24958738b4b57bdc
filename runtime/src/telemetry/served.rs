//! A call that is served here: its own span, its time in the mailbox, and its handler.

use std::sync::OnceLock;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, ContextGuard};
use parking_lot::Mutex;
use rhumb_transport::TraceContext;
use tracing::Level;
use tracing::span::EnteredSpan;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::names;
use super::span::{Span, span_context};

/// What is known of a call while it is served, whether it is kept or not: within its handler, a program's
/// own spans belong to it and to nothing else.
pub(crate) enum Served {
    /// It is kept.
    Kept { span: Span, queued: Mutex<Option<Span>>, handler: OnceLock<Handler> },
    /// It is not: a span of the program within it is not either.
    Not { context: OnceLock<Context>, trace: TraceContext },
}

/// The span of the handler.
pub(crate) enum Handler {
    /// One of `tracing`, so that the events in it are told with it.
    Tracing(tracing::Span),
    /// Nobody exports `tracing` spans in this process: the program's own spans go their own way.
    Own(Context),
}

/// This thread works for a handler, until dropped.
pub(crate) enum AtWork {
    Span { _entered: EnteredSpan },
    Context { _attached: ContextGuard },
}

impl Served {
    /// A call that waits in the mailbox from now on.
    pub(crate) fn kept(span: Span) -> Self {
        let queued = Mutex::new(Some(span.child(names::QUEUE)));
        Self::Kept { span, queued, handler: OnceLock::new() }
    }

    pub(crate) fn not(trace: TraceContext) -> Self {
        Self::Not { context: OnceLock::new(), trace }
    }

    /// Its span, if it is kept.
    pub(crate) fn span(&self) -> Option<&Span> {
        match self {
            Self::Kept { span, .. } => Some(span),
            Self::Not { .. } => None,
        }
    }

    /// What goes on from here.
    pub(crate) fn trace(&self) -> TraceContext {
        match self {
            Self::Kept { span, .. } => span.trace(),
            Self::Not { trace, .. } => *trace,
        }
    }

    /// Its turn has come.
    pub(crate) fn begins(&self) {
        if let Self::Kept { queued, .. } = self {
            queued.lock().take();
        }
    }

    /// Its handler runs on this thread.
    pub(crate) fn enter(&self) -> AtWork {
        match self {
            Self::Not { context, trace } => {
                let context = context
                    .get_or_init(|| Context::new().with_remote_span_context(span_context(*trace, true)));
                AtWork::Context { _attached: context.clone().attach() }
            }
            Self::Kept { span, handler, .. } => match handler.get_or_init(|| Handler::of(span)) {
                Handler::Tracing(span) => AtWork::Span { _entered: span.clone().entered() },
                Handler::Own(context) => AtWork::Context { _attached: context.clone().attach() },
            },
        }
    }
}

impl Handler {
    fn of(served: &Span) -> Self {
        let span = tracing::span!(target: "rhumb::handler", Level::ERROR, "handler");
        // The parent is set before the span is entered: later is too late.
        match span.set_parent(served.context()) {
            Ok(()) => Self::Tracing(span),
            Err(_) => Self::Own(served.child(names::HANDLER).context()),
        }
    }
}
