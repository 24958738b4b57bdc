use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// A writer whose lines a test reads.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    /// What was written, without the moments.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut self.0.lock())).expect("text");
        let without_moment = |line: &str| match line.split_once("Z ") {
            Some((_, rest)) => rest.trim_start().to_owned(),
            None => line.to_owned(),
        };
        text.lines().map(without_moment).collect()
    }
}

fn settings(filter: &str) -> LogSettings {
    let filter = crate::settings::LogFilter::try_from(filter.to_owned()).expect("a filter");
    LogSettings { filter, ..LogSettings::default() }
}

/// Runs with a log under these settings.
fn logged(settings: &LogSettings, run: impl FnOnce(&Log)) -> Vec<String> {
    let paper = Paper::default();
    let log = Log::to(settings, paper.clone());
    let subscriber = tracing_subscriber::registry().with(log.layer(settings));
    tracing::subscriber::with_default(subscriber, || run(&log));
    paper.lines()
}

#[test]
fn fields_named_secret_are_hidden_in_lines_and_in_spans() {
    let lines = logged(&settings("info"), |_| {
        let span =
            tracing::info_span!("sale", customer = "Ada", pool = "concert", hold.key = tracing::field::Empty);
        let _inner = span.enter();
        span.record("hold.key", "k-17");
        let _within = tracing::info_span!("step", n = 1).entered();
        tracing::warn!(token = %"t-99", subject.email = ?"ada@example.org", left = 3, "it was asked");
    });
    let line = "WARN sale{customer=[redacted] pool=\"concert\" hold.key=[redacted]}:step{n=1}: \
                rhumb::telemetry::log::tests: it was asked token=[redacted] subject.email=[redacted] left=3";
    assert_eq!(lines, [line]);
}

#[test]
fn a_hidden_value_is_not_even_formatted() {
    struct Never;
    impl fmt::Debug for Never {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("it was formatted");
        }
    }
    let lines = logged(&settings("info"), |_| tracing::info!(secret = ?Never, "kept"));
    assert_eq!(lines, ["INFO rhumb::telemetry::log::tests: kept secret=[redacted]"]);
}

#[test]
fn what_repeats_is_counted_and_told() {
    let few = LogSettings { burst: 2, ..settings("info") };
    let lines = logged(&few, |log| {
        for turn in 0..5 {
            tracing::info!(turn, "again");
        }
        tracing::info!("once");
        log.end();
    });
    let here = "INFO rhumb::telemetry::log::tests:";
    let want = ["again turn=0", "again turn=1", "once", "again repeated=3"];
    assert_eq!(lines, want.map(|line| format!("{here} {line}")));
}

#[test]
fn each_setting_that_changed_is_named_however_many_did() {
    let few = LogSettings { burst: 2, ..settings("info") };
    let lines = logged(&few, |log| {
        for key in 0..30 {
            tracing::info!(target: EACH, number = key, "a setting changed");
        }
        log.end();
    });
    let want = |key| format!("INFO rhumb::settings: a setting changed number={key}");
    assert_eq!(lines, (0..30).map(want).collect::<Vec<_>>());
}

#[test]
fn form_filter_and_hidden_words_change_while_it_is_written() {
    let lines = logged(&settings("info"), |log| {
        let say = || tracing::debug!(iban = "DE00", "said");
        say();
        let words = vec![crate::settings::FieldWord::try_from("iban".to_owned()).expect("a word")];
        let other = LogSettings { format: LogFormat::Json, redact: words, ..settings("debug") };
        log.configure(&other);
        say();
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(line["message"], "said");
    assert_eq!(line["fields"]["iban"], "[redacted]");
}

#[test]
fn a_line_within_a_trace_names_it() {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    let lines = logged(&settings("info"), |_| {
        let of = SpanContext::new(
            TraceId::from_bytes(0xab_u128.to_be_bytes()),
            SpanId::from_bytes(0xc_u64.to_be_bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let _attached = opentelemetry::Context::new().with_remote_span_context(of).attach();
        tracing::info!("traced");
    });
    let want = "INFO rhumb::telemetry::log::tests: traced trace_id=000000000000000000000000000000ab \
                span_id=000000000000000c";
    assert_eq!(lines, [want]);
}
