//! Spans of the runtime itself, and what makes them.
//!
//! They are made of what is known where a call passes by, with their times measured there, and not by
//! `tracing`: a part of a call begins on one thread and ends on another, a program's log filter must not
//! break a trace, and a call that is not kept must cost nothing. A program's own `tracing` spans join
//! them through [`Span::context`].
//!
//! * It decides: nothing. [`sampling`](super::sampling) does.
//! * It never does: exist for a call that is not kept.
//! * Invariant: a span ends once, not before it began, and what it is of knows its parent's id.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use parking_lot::Mutex;
use rhumb_core::{DataClass, Fault, HybridTime};
use rhumb_transport::{Peer, TraceContext};
use tokio::time::Instant;

use super::forced::Allowance;
use super::names;
use super::queue::Spans;
use super::sampling::{Begin, Share, keeps};
use crate::client::fault_code;
use crate::clock::NodeClock;

/// Links that a span may have. What is beyond them is not told.
const MAX_LINKS: usize = 16;

/// What makes the spans of one node, or of one program. Cloneable; all clones are one.
#[derive(Clone, Debug)]
pub struct Tracer {
    inner: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    region: Value,
    node: Value,
    clock: Option<NodeClock>,
    share: Share,
    /// What others may force; all of it, where there is no bound.
    forced: Option<Forced>,
    spans: Spans,
    scope: InstrumentationScope,
}

/// The bound on what others may force, and what it held back.
#[derive(Debug)]
struct Forced {
    allowance: Mutex<Allowance>,
    begun: Instant,
    held_back: AtomicU64,
}

/// What a span is of.
pub(crate) struct What<'a> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: SpanKind,
    pub(crate) class: &'a DataClass,
    pub(crate) attributes: Vec<KeyValue>,
}

impl<'a> What<'a> {
    /// One side of an ask.
    pub(crate) fn rpc(message: &str, kind: SpanKind, class: &'a DataClass) -> Self {
        let method = names::method(message);
        let attributes = vec![
            KeyValue::new(names::RPC_SYSTEM, names::RHUMB),
            KeyValue::new(names::RPC_METHOD, method.clone()),
        ];
        Self { name: method.into(), kind, class, attributes }
    }

    /// The side that tells.
    pub(crate) fn sent(message: &str, class: &'a DataClass) -> Self {
        let attributes = messaging(message, "send", "send");
        Self { name: names::send(message).into(), kind: SpanKind::Producer, class, attributes }
    }

    /// The side that is told.
    pub(crate) fn processed(message: &str, class: &'a DataClass) -> Self {
        let attributes = messaging(message, "process", "process");
        Self { name: names::process(message).into(), kind: SpanKind::Consumer, class, attributes }
    }
}

fn messaging(message: &str, operation: &'static str, kind: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new(names::MESSAGING_SYSTEM, names::RHUMB),
        KeyValue::new(names::MESSAGING_OPERATION, operation),
        KeyValue::new(names::MESSAGING_OPERATION_TYPE, kind),
        KeyValue::new(names::MESSAGING_DESTINATION, message.to_owned()),
    ]
}

impl Tracer {
    /// What makes spans for a node of this region and name, which keeps this share of the traces that
    /// begin there. A program that only calls has no clock in the mesh.
    #[must_use]
    pub fn new(region: &str, node: &str, clock: Option<NodeClock>, share: Share, spans: Spans) -> Self {
        let node = Node {
            region: region.to_owned().into(),
            node: node.to_owned().into(),
            clock,
            share,
            forced: None,
            spans,
            scope: InstrumentationScope::builder(names::RHUMB)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        };
        Self { inner: Arc::new(node) }
    }

    /// The same, which keeps no more than so many traces a second because programs outside the mesh say so,
    /// besides those of its own share. It must be no clone.
    #[must_use]
    pub fn bounded(mut self, a_second: u32) -> Self {
        let allowance = Mutex::new(Allowance::of(a_second));
        let forced = Forced { allowance, begun: Instant::now(), held_back: AtomicU64::new(0) };
        if let Some(node) = Arc::get_mut(&mut self.inner) {
            node.forced = Some(forced);
        }
        self
    }

    /// A trace as a program outside the mesh has it, kept no further if that is more than it may force.
    pub(crate) fn admits(&self, trace: TraceContext) -> TraceContext {
        let Some(forced) = self.inner.forced.as_ref().filter(|_| trace.is_sampled()) else { return trace };
        let ours = keeps(self.inner.share, None, Begin::Call, trace.trace_id);
        if ours || forced.allowance.lock().take(forced.begun.elapsed()) {
            return trace;
        }
        forced.held_back.fetch_add(1, Ordering::Relaxed);
        TraceContext { flags: trace.flags & !TraceContext::SAMPLED, ..trace }
    }

    /// Traces that programs outside the mesh wanted kept, and that were too many.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.inner.forced.as_ref().map_or(0, |forced| forced.held_back.load(Ordering::Relaxed))
    }

    /// What became of its spans.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.inner.spans
    }

    /// A new trace: its first span if it is kept, and what goes with the call either way.
    pub(crate) fn begin<'a>(
        &self,
        begin: Begin,
        what: impl FnOnce() -> What<'a>,
    ) -> (Option<Span>, TraceContext) {
        let not = Self::not_kept();
        if !keeps(self.inner.share, None, begin, not.trace_id) {
            return (None, not);
        }
        let span = self.open(not.trace_id, 0, false, what());
        (Some(span.clone()), span.trace())
    }

    /// A new trace of which nothing is kept: what goes on from it is not kept either.
    pub(crate) fn not_kept() -> TraceContext {
        let ids = RandomIdGenerator::default();
        let trace_id = u128::from_be_bytes(ids.new_trace_id().to_bytes());
        let span_id = u64::from_be_bytes(ids.new_span_id().to_bytes());
        TraceContext { trace_id, span_id, flags: 0 }
    }

    /// A trace that goes on here: a span if it is kept. One whose caller has no span of its own (its id
    /// is 0) begins here.
    pub(crate) fn under(&self, parent: TraceContext, remote: bool, what: What<'_>) -> Option<Span> {
        parent.is_sampled().then(|| self.open(parent.trace_id, parent.span_id, remote, what))
    }

    /// Says what happened, as a trace of its own that is always kept.
    pub(crate) fn incident(&self, name: &'static str, attributes: Vec<KeyValue>) {
        let class = DataClass::control();
        let what = || What { name: name.into(), kind: SpanKind::Internal, class: &class, attributes };
        let (span, _) = self.begin(Begin::Incident, what);
        let Some(span) = span else { return };
        if let Some(open) = &mut *span.0.open.lock() {
            open.incident = true;
        }
    }

    fn open(&self, trace_id: u128, parent: u64, remote: bool, what: What<'_>) -> Span {
        let span_id = u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes());
        let (began, since) = now();
        self.made(
            TraceContext { trace_id, span_id, flags: TraceContext::SAMPLED },
            parent,
            remote,
            what,
            began,
            since,
        )
    }

    fn made(
        &self,
        trace: TraceContext,
        parent: u64,
        remote: bool,
        what: What<'_>,
        began: SystemTime,
        since: Instant,
    ) -> Span {
        let What { name, kind, class, mut attributes } = what;
        attributes.extend(self.common(class, self.hybrid()));
        let open = Open { name, kind, attributes, links: Vec::new(), status: Status::Unset, incident: false };
        let (tracer, class, open) = (self.clone(), class.clone(), Mutex::new(Some(open)));
        Span(Arc::new(Inner { tracer, trace, parent, remote, class, began, since, open }))
    }

    /// The attributes of every span.
    pub(crate) fn common(&self, class: &DataClass, hybrid: HybridTime) -> [KeyValue; 4] {
        [
            KeyValue::new(names::REGION, self.inner.region.clone()),
            KeyValue::new(names::NODE, self.inner.node.clone()),
            KeyValue::new(names::CLASS, class.as_str().to_owned()),
            KeyValue::new(names::HYBRID_TIME, hybrid.to_string()),
        ]
    }

    pub(crate) fn hybrid(&self) -> HybridTime {
        self.inner.clock.as_ref().map_or(HybridTime::ZERO, NodeClock::last)
    }

    pub(crate) fn share(&self) -> Share {
        self.inner.share
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell: a span says when it was, in real time")]
fn now() -> (SystemTime, Instant) {
    (SystemTime::now(), Instant::now())
}

/// A span of a trace that is kept. It ends when the last clone is dropped, or before that by
/// `end`.
#[derive(Clone, Debug)]
pub struct Span(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracer: Tracer,
    trace: TraceContext,
    parent: u64,
    remote: bool,
    class: DataClass,
    began: SystemTime,
    since: Instant,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    status: Status,
    /// It has room in the queue where others have none.
    incident: bool,
}

impl Span {
    /// The innermost span of the runtime that this thread works for.
    pub(crate) fn current() -> Option<Self> {
        Context::map_current(|context| context.get::<Self>().cloned())
    }

    /// What goes on from here with a message.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.0.trace
    }

    /// What makes it the parent of the spans that are begun while this is attached.
    pub(crate) fn context(&self) -> Context {
        Context::new().with_remote_span_context(span_context(self.0.trace, false)).with_value(self.clone())
    }

    /// What every span of its node and class says.
    #[cfg(feature = "rocks")]
    pub(super) fn common(&self) -> [KeyValue; 4] {
        self.0.tracer.common(&self.0.class, self.0.tracer.hybrid())
    }

    /// A part of it, inside this process.
    pub(crate) fn child(&self, name: &'static str) -> Self {
        let what = What {
            name: name.into(),
            kind: SpanKind::Internal,
            class: &self.0.class,
            attributes: Vec::new(),
        };
        self.below(what)
    }

    /// What it causes.
    pub(crate) fn below(&self, what: What<'_>) -> Self {
        self.0.tracer.open(self.0.trace.trace_id, self.0.trace.span_id, false, what)
    }

    /// A part of it that is over: from `began`, for so long.
    pub(crate) fn passed(&self, name: &'static str, began: Instant, took: Duration) {
        let (wall, present) = now();
        let ago = present.saturating_duration_since(began);
        let what = What {
            name: name.into(),
            kind: SpanKind::Internal,
            class: &self.0.class,
            attributes: Vec::new(),
        };
        let ids = RandomIdGenerator::default();
        let span_id = u64::from_be_bytes(ids.new_span_id().to_bytes());
        let trace = TraceContext { span_id, ..self.0.trace };
        let began_at = wall.checked_sub(ago).unwrap_or(wall);
        let span = self.0.tracer.made(trace, self.0.trace.span_id, false, what, began_at, began);
        span.0.finish(took);
    }

    /// Where the other side was reached.
    pub(crate) fn reached(&self, peer: &Peer) {
        self.set(KeyValue::new(names::SERVER_ADDRESS, peer.address.ip().to_string()));
        self.set(KeyValue::new(names::SERVER_PORT, i64::from(peer.address.port())));
        self.set(KeyValue::new(names::PEER_REGION, peer.principal.region.to_string()));
    }

    /// One more attribute.
    pub(crate) fn set(&self, attribute: KeyValue) {
        if let Some(open) = &mut *self.0.open.lock() {
            open.attributes.retain(|held| held.key != attribute.key);
            open.attributes.push(attribute);
        }
    }

    /// It is known better now what it is of.
    pub(crate) fn is_of(&self, message: &str) {
        let mut open = self.0.open.lock();
        if let Some(open) = open.as_mut().filter(|open| open.kind == SpanKind::Consumer) {
            open.name = names::process(message).into();
            open.attributes.retain(|held| held.key.as_str() != names::MESSAGING_DESTINATION);
            open.attributes.push(KeyValue::new(names::MESSAGING_DESTINATION, message.to_owned()));
        }
    }

    /// Another trace has a part in it.
    pub(crate) fn link(&self, other: TraceContext) {
        let mut open = self.0.open.lock();
        if let Some(open) = open.as_mut().filter(|open| open.links.len() < MAX_LINKS) {
            open.links.push(Link::with_context(span_context(other, false)));
        }
    }

    /// How it went. A fault is told by its code: its text may name what is data.
    pub(crate) fn went(&self, outcome: Result<(), &Fault>) {
        let code = outcome.err().map_or("ok", |fault| fault_code(&fault.kind));
        let mut open = self.0.open.lock();
        let Some(open) = open.as_mut() else { return };
        open.attributes.retain(|held| ![names::RPC_STATUS, names::ERROR_TYPE].contains(&held.key.as_str()));
        if matches!(open.kind, SpanKind::Client | SpanKind::Server) {
            open.attributes.push(KeyValue::new(names::RPC_STATUS, code));
        }
        if outcome.is_err() {
            open.attributes.push(KeyValue::new(names::ERROR_TYPE, code));
            open.status = Status::error("");
        }
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.0.finish(self.0.since.elapsed());
    }
}

impl Inner {
    fn finish(&self, lasted: Duration) {
        let Some(open) = self.open.lock().take() else { return };
        let mut links = SpanLinks::default();
        links.links = open.links;
        let span = SpanData {
            span_context: span_context(self.trace, false),
            parent_span_id: SpanId::from_bytes(self.parent.to_be_bytes()),
            parent_span_is_remote: self.remote,
            span_kind: open.kind,
            name: open.name,
            start_time: self.began,
            end_time: self.began + lasted,
            attributes: open.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: open.status,
            instrumentation_scope: self.tracer.inner.scope.clone(),
        };
        self.tracer.inner.spans.push(span, open.incident);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish(self.since.elapsed());
    }
}

/// A trace as OpenTelemetry's API has it.
pub(crate) fn span_context(trace: TraceContext, remote: bool) -> SpanContext {
    stated(trace, remote, TraceState::default())
}

/// The same, with what other systems added to it.
pub(super) fn stated(trace: TraceContext, remote: bool, state: TraceState) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id.to_be_bytes()),
        SpanId::from_bytes(trace.span_id.to_be_bytes()),
        TraceFlags::new(trace.flags),
        remote,
        state,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_force_so_many_traces_a_second_and_the_share_of_the_node_is_its_own() {
        let tenth = Share::per_million(100_000).expect("a share");
        let tracer = Tracer::new("us", "us/n1", None, tenth, Spans::with_capacity(64)).bounded(2);
        let wanted = |trace_id| TraceContext { trace_id, span_id: 7, flags: TraceContext::SAMPLED };
        let foreign = wanted(u128::from(u64::MAX));
        let kept: Vec<bool> = (0..4).map(|_| tracer.admits(foreign).is_sampled()).collect();
        assert_eq!(kept, [true, true, false, false]);
        assert_eq!(tracer.held_back(), 2);
        assert!(tracer.admits(wanted(1)).is_sampled(), "it is of the node's own share");
        assert_eq!(tracer.admits(TraceContext { flags: 0, ..foreign }).flags, 0);
        assert_eq!(tracer.held_back(), 2, "what nobody wanted is not held back");
        let unbounded = Tracer::new("us", "us/n1", None, tenth, Spans::with_capacity(64));
        assert!((0..1_000).all(|_| unbounded.admits(foreign).is_sampled()));
    }
}
