//! A program's own `tracing` spans, exported with those of the runtime.
//!
//! * It decides: which of them are kept. One that belongs to a call is kept as the call is; one outside
//!   of any call begins a trace, of which the same share is kept.
//! * It never does: take up the spans of the libraries with which spans are exported: that would not end;
//!   or tell the value of a field that the log hides by its name.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState, TracerProvider};
use opentelemetry::{KeyValue, trace::Span as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
};
use rhumb_core::DataClass;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::log::redact::{REDACTED, Redaction};
use super::sampling::{Begin, Share, keeps};
use super::span::Tracer;
use super::trace_of;

/// Libraries below the runtime: their spans tell nothing that its own do not, and some of them export.
const BELOW: [&str; 12] = [
    "h2",
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "reqwest",
    "quinn",
    "quinn_proto",
    "rustls",
    "actix",
    "tokio",
    "opentelemetry",
];

/// The runtime's own rooms.
const OWN: [&str; 6] =
    ["rhumb", "rhumb_actors", "rhumb_core", "rhumb_storage", "rhumb_topology", "rhumb_transport"];

/// A layer for a program's subscriber that hands the program's own spans, of level `info` and above, to
/// where this tracer's go. The program's log filter does not concern them.
///
/// It must not stand below a reloading layer: then a call's handler cannot be found from it.
///
/// Of the runtime's own log it takes nothing: a line may have the text of a fault in it.
pub fn layer<S>(tracer: &Tracer) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let always = Redaction::with(&[]);
    layer_hiding(tracer, move |name| always.hides(name))
}

/// The same, with the fields hidden that somebody else says.
pub(super) fn layer_hiding<S, F>(tracer: &Tracer, hides: F) -> impl Layer<S> + Send + Sync + use<S, F>
where
    F: Fn(&str) -> bool + Send + Sync + 'static,
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let provider = SdkTracerProvider::builder()
        .with_sampler(AsTheCall(tracer.share()))
        .with_span_processor(Joined { tracer: tracer.clone(), hides: Box::new(hides) })
        .with_resource(Resource::builder_empty().build())
        .build();
    let taken = |metadata: &Metadata<'_>| {
        let room = metadata.target().split("::").next().unwrap_or_default();
        let own_line = metadata.is_event() && OWN.contains(&room);
        *metadata.level() <= Level::INFO && !BELOW.contains(&room) && !own_line
    };
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tracing"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(taken).with_max_level_hint(LevelFilter::INFO))
}

/// As [`keeps`] says.
#[derive(Clone, Debug)]
struct AsTheCall(Share);

impl ShouldSample for AsTheCall {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|context| context.has_active_span());
        let trace_id = u128::from_be_bytes(trace_id.to_bytes());
        let kept = keeps(self.0, parent.and_then(trace_of), Begin::Call, trace_id);
        let state = parent
            .map_or_else(TraceState::default, |parent| parent.span().span_context().trace_state().clone());
        SamplingResult {
            decision: if kept { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: state,
        }
    }
}

/// Finished spans join those of the runtime.
struct Joined {
    tracer: Tracer,
    hides: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("tracer", &self.tracer).finish_non_exhaustive()
    }
}

impl SpanProcessor for Joined {
    fn on_start(&self, span: &mut Span, context: &Context) {
        // The innermost span of the runtime knows the node and the class; a test has several nodes.
        if let Some(within) = context.get::<super::Span>() {
            return span.set_attributes(within.common());
        }
        span.set_attributes(self.tracer.common(&DataClass::control(), self.tracer.hybrid()));
    }

    fn on_end(&self, mut span: SpanData) {
        let events = span.events.events.iter_mut().flat_map(|event| &mut event.attributes);
        for attribute in span.attributes.iter_mut().chain(events) {
            if (self.hides)(attribute.key.as_str()) {
                attribute.value = REDACTED.into();
            }
        }
        self.tracer.spans().push(span, false);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::Spans;
    use super::*;

    #[test]
    fn what_the_log_hides_is_hidden_and_the_runtimes_own_lines_stay_out() {
        let spans = Spans::with_capacity(16);
        let tracer = Tracer::new("us", "us/n1", None, Share::ALL, spans.clone());
        let hides = |name: &str| name == "iban";
        let subscriber = tracing_subscriber::registry().with(layer_hiding(&tracer, hides));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(target: "shop", "pay", iban = "DE00", article = "tea");
            span.in_scope(|| {
                tracing::info!(target: "shop", iban = "DE01", "paid");
                tracing::warn!(target: "rhumb::mesh", "a fault's text");
            });
        });
        let told = format!("{:?}", spans.take());
        assert!(told.contains("tea") && told.contains("paid") && told.contains(REDACTED), "{told}");
        assert!(!told.contains("DE00") && !told.contains("DE01"), "{told}");
        assert!(!told.contains("a fault's text"), "{told}");
    }
}
