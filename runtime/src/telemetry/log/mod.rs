//! The log: what the parts of this process say, one line each, on one writer.
//!
//! * It decides: nothing itself. Which lines are written is the affair of the filter and of `repeats`,
//!   what of them is hidden that of `redact`, what a line looks like that of `line`.
//! * It never does: fail, or show a field whose name says that it is secret or personal.
//! * Invariant: every line that the filter lets pass is written, or counted and told.
//!
//! The layer stands beside others (traces) in one subscriber; its filter is its own.

mod line;
pub(super) mod redact;
mod repeats;

use std::fmt;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;
use time::OffsetDateTime;
use tracing::field::{Field as Column, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, reload};

use self::line::{Field, InSpan, Line, Shown};
use self::redact::Redaction;
use self::repeats::{Limits, Repeated, Repeats, Verdict};
use super::current_trace;
use crate::settings::{LogFormat, LogSettings};

/// How often lines that were held back are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The target of lines of which each says something else and all are wanted: none is held back. Who uses
/// it says a bounded number of them, and only when somebody asked for them.
pub(crate) const EACH: &str = "rhumb::settings";

/// A process's log. Cloneable; all clones are one.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    how: ArcSwap<How>,
    repeats: Mutex<Repeats<Place, Said>>,
    to: Mutex<Box<dyn Write + Send>>,
    began: Instant,
    refilter: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>>,
}

/// What settings say of lines.
struct How {
    format: LogFormat,
    limits: Limits,
    redaction: Redaction,
}

impl How {
    fn of(settings: &LogSettings) -> Self {
        Self {
            format: settings.format,
            limits: Limits { burst: settings.burst, window: settings.window },
            redaction: Redaction::with(&settings.redact),
        }
    }
}

/// A place in the code. All records of the crate `log` come from one of `tracing`'s, so what these say
/// of their own place counts too.
type Place = (tracing::callsite::Identifier, Option<String>);

/// What a line said that was held back.
struct Said {
    level: Level,
    target: String,
    message: String,
}

impl Log {
    /// A log on standard error.
    #[must_use]
    pub fn to_stderr(settings: &LogSettings) -> Self {
        Self::to(settings, std::io::stderr())
    }

    #[expect(clippy::disallowed_methods, reason = "a log has times, and windows of its own")]
    fn to(settings: &LogSettings, to: impl Write + Send + 'static) -> Self {
        let inner = Inner {
            how: ArcSwap::from_pointee(How::of(settings)),
            repeats: Mutex::new(Repeats::new()),
            to: Mutex::new(Box::new(to)),
            began: Instant::now(),
            refilter: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The layer that writes this log, behind the filter of these settings. There is one a log.
    pub fn layer<S>(&self, settings: &LogSettings) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let (filter, handle) = reload::Layer::<EnvFilter, S>::new(settings.filter.filter());
        // A subscriber that has ended has nothing left to filter.
        let refilter = Box::new(move |filter| handle.reload(filter).unwrap_or_default());
        assert!(self.inner.refilter.set(refilter).is_ok(), "a log has one layer");
        Writing { log: self.clone() }.with_filter(filter)
    }

    /// Goes on under other settings.
    pub fn configure(&self, settings: &LogSettings) {
        self.inner.how.store(Arc::new(How::of(settings)));
        if let Some(refilter) = self.inner.refilter.get() {
            refilter(settings.filter.filter());
        }
    }

    /// Whether these settings hide the value of a field of this name.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.inner.how.load().redaction.hides(name)
    }

    /// Tells in time, for as long as the process runs, what was held back.
    pub async fn follow(self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            every.tick().await;
            let (mut told, how) = (Vec::new(), self.inner.how.load());
            self.inner.repeats.lock().due(self.inner.began.elapsed(), how.limits, &mut told);
            self.tell(&how, told);
        }
    }

    /// Tells what was held back so far: the process ends.
    pub fn end(&self) {
        let mut told = Vec::new();
        self.inner.repeats.lock().end(&mut told);
        self.tell(&self.inner.how.load(), told);
    }

    fn tell(&self, how: &How, told: Vec<Repeated<Said>>) {
        for Repeated { times, what } in told {
            let fields = [Field { name: "repeated", value: Shown::Plain(json!(times)) }];
            self.write(
                how,
                &Line {
                    at: now(),
                    level: what.level,
                    target: &what.target,
                    message: &what.message,
                    fields: &fields,
                    spans: &[],
                    trace: None,
                },
            );
        }
    }

    fn write(&self, how: &How, line: &Line<'_>) {
        let line = match how.format {
            LogFormat::Text => line.text(),
            LogFormat::Json => line.json(),
        };
        // A log that cannot be written has nobody to be told.
        self.inner.to.lock().write_all(line.as_bytes()).ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "a line says when it was written")]
fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

/// The layer of a log.
struct Writing {
    log: Log,
}

/// The fields of a span, as they may be shown.
struct Fields(Vec<Field>);

impl<S> Layer<S> for Writing
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let how = self.log.inner.how.load();
        let mut seen = Seen::by(&how.redaction);
        attributes.record(&mut seen);
        span.extensions_mut().replace(Fields(seen.fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let how = self.log.inner.how.load();
        let mut seen = Seen::by(&how.redaction);
        values.record(&mut seen);
        if let Some(Fields(fields)) = span.extensions_mut().get_mut() {
            fields.retain(|old| seen.fields.iter().all(|new| new.name != old.name));
            fields.append(&mut seen.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let inner = &self.log.inner;
        let how = inner.how.load();
        let mut seen = Seen::by(&how.redaction);
        event.record(&mut seen);
        let (metadata, mut told) = (event.metadata(), Vec::new());
        let mut wants = || {
            inner.repeats.lock().wants(
                inner.began.elapsed(),
                (metadata.callsite(), seen.log_place()),
                *metadata.level() == Level::ERROR,
                how.limits,
                || seen.said(metadata),
                &mut told,
            )
        };
        let verdict = if metadata.target() == EACH { Verdict::Write } else { wants() };
        self.log.tell(&how, told);
        if verdict == Verdict::Hold {
            return;
        }
        let spans: Vec<InSpan> = context.event_scope(event).map(spans_of).unwrap_or_default();
        self.log.write(
            &how,
            &Line {
                at: now(),
                level: *metadata.level(),
                target: seen.target(metadata),
                message: &seen.message,
                fields: &seen.fields,
                spans: &spans,
                trace: current_trace(),
            },
        );
    }
}

fn spans_of<'a, S: LookupSpan<'a>>(scope: tracing_subscriber::registry::Scope<'a, S>) -> Vec<InSpan> {
    let within = |span: tracing_subscriber::registry::SpanRef<'a, S>| {
        let fields = span.extensions().get().map_or_else(Vec::new, |Fields(fields)| fields.clone());
        InSpan { name: span.name(), fields }
    };
    scope.from_root().map(within).collect()
}

/// What an event or a span says, as far as it may be shown.
struct Seen<'a> {
    redaction: &'a Redaction,
    /// The text: the first that is called `message`.
    message: String,
    fields: Vec<Field>,
    /// Where a record of the crate `log` comes from: its target and its line.
    log: (Option<String>, Option<u64>),
}

impl<'a> Seen<'a> {
    fn by(redaction: &'a Redaction) -> Self {
        Self { redaction, message: String::new(), fields: Vec::new(), log: (None, None) }
    }

    fn add(&mut self, column: &Column, value: impl FnOnce() -> Shown) {
        let name = column.name();
        // What the bridge from the crate `log` says of a record's place.
        if name.starts_with("log.") {
            return;
        }
        let hidden = self.redaction.hides(name);
        self.fields.push(Field { name, value: if hidden { Shown::Hidden } else { value() } });
    }

    fn target<'m>(&'m self, metadata: &'m Metadata<'_>) -> &'m str {
        self.log.0.as_deref().unwrap_or_else(|| metadata.target())
    }

    fn log_place(&self) -> Option<String> {
        let (target, line) = &self.log;
        target.as_ref().map(|target| format!("{target}:{}", line.unwrap_or_default()))
    }

    fn said(&self, metadata: &Metadata<'_>) -> Said {
        let target = self.target(metadata).to_owned();
        Said { level: *metadata.level(), target, message: self.message.clone() }
    }
}

impl Visit for Seen<'_> {
    fn record_debug(&mut self, column: &Column, value: &dyn fmt::Debug) {
        let written = || Shown::cut(format!("{value:?}"));
        if column.name() == "message" && self.message.is_empty() {
            self.message = written();
        } else {
            self.add(column, || Shown::Written(written()));
        }
    }

    fn record_str(&mut self, column: &Column, value: &str) {
        match column.name() {
            "log.target" => self.log.0 = Some(value.to_owned()),
            "message" if self.message.is_empty() => self.message = Shown::cut(value.to_owned()),
            _ => self.add(column, || Shown::Text(Shown::cut(value.to_owned()))),
        }
    }

    fn record_u64(&mut self, column: &Column, value: u64) {
        if column.name() == "log.line" {
            self.log.1 = Some(value);
        }
        self.add(column, || Shown::Plain(json!(value)));
    }

    fn record_i64(&mut self, column: &Column, value: i64) {
        self.add(column, || Shown::Plain(json!(value)));
    }

    fn record_f64(&mut self, column: &Column, value: f64) {
        self.add(column, || Shown::Plain(json!(value)));
    }

    fn record_bool(&mut self, column: &Column, value: bool) {
        self.add(column, || Shown::Plain(json!(value)));
    }
}

#[cfg(test)]
mod tests;
