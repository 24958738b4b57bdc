//! Traces that come from or go to programs outside of the mesh, as text in HTTP headers: W3C Trace
//! Context and B3. Between nodes a trace travels in binary, in the envelope.
//!
//! * It decides: whether headers are a trace.
//! * It never does: fail. Headers that are none, or a broken one, are as if they were not there: the call
//!   begins a trace of its own.
//! * Invariant: what is written reads back.
//!
//! `tracestate` goes on within this process and to whom it calls by HTTP, not between nodes.

use std::str::FromStr;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceState};
use rhumb_transport::TraceContext;

use super::span::{span_context, stated};
use super::trace_of;

/// The one flag that is known here (W3C Trace Context, §3.2.2.3.1).
const SAMPLED: u8 = TraceContext::SAMPLED;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const B3: &str = "b3";
const B3_TRACE: &str = "x-b3-traceid";
const B3_SPAN: &str = "x-b3-spanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";

/// The length of a `traceparent` of version 00.
const TRACEPARENT_LEN: usize = 55;
/// Bytes and members that a `tracestate` may have (W3C Trace Context, §3.3.1).
const TRACESTATE_BYTES: usize = 512;

/// The trace that a `traceparent` header says (W3C Trace Context, §3.2).
#[must_use]
pub fn parse_traceparent(text: &str) -> Option<TraceContext> {
    let version = hex(text.get(..2)?)? as u8;
    let (fields, rest) = text.as_bytes().split_at_checked(TRACEPARENT_LEN)?;
    // A later version may say more, after one more dash; 255 is none.
    let right = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    if !right || [2, 35, 52].iter().any(|at| fields[*at] != b'-') {
        return None;
    }
    let trace_id = hex(text.get(3..35)?)?;
    let span_id = hex(text.get(36..52)?)? as u64;
    // Flags other than *sampled* are not known to mean anything here.
    let flags = hex(text.get(53..55)?)? as u8 & SAMPLED;
    whole(trace_id, span_id, flags)
}

/// A trace as a `traceparent` header.
#[must_use]
pub fn traceparent(trace: TraceContext) -> String {
    format!("00-{:032x}-{:016x}-{:02x}", trace.trace_id, trace.span_id, trace.flags & SAMPLED)
}

/// The trace that a single `b3` header says: `TRACE-SPAN[-STATE[-PARENT]]`.
#[must_use]
pub fn parse_b3(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let flags = parts.next().map_or(Some(0), b3_state)?;
    if let Some(parent) = parts.next() {
        b3_id(parent, &[16])?;
    }
    if parts.next().is_some() {
        return None;
    }
    whole(b3_id(trace, &[16, 32])?, b3_id(span, &[16])? as u64, flags)
}

/// A trace as a single `b3` header.
#[must_use]
pub fn b3(trace: TraceContext) -> String {
    format!("{:032x}-{:016x}-{}", trace.trace_id, trace.span_id, trace.flags & SAMPLED)
}

/// What a state of B3 says: kept, not kept, or *debug*, which is kept too.
fn b3_state(text: &str) -> Option<u8> {
    match text {
        "1" | "d" => Some(SAMPLED),
        "0" => Some(0),
        _ => None,
    }
}

/// As [`b3_state`], of several headers, where programs also write words.
fn b3_multi_state(sampled: Option<&str>, flags: Option<&str>) -> Option<u8> {
    match (sampled, flags) {
        (_, Some("1")) | (Some("1" | "true"), _) => Some(SAMPLED),
        (Some("0" | "false") | None, None | Some("0")) => Some(0),
        _ => None,
    }
}

fn b3_id(text: &str, lengths: &[usize]) -> Option<u128> {
    lengths.contains(&text.len()).then(|| hex(text)).flatten()
}

/// A number in lower-case hexadecimal digits, and nothing else: no sign, no space.
fn hex(text: &str) -> Option<u128> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.bytes().all(digit).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn whole(trace_id: u128, span_id: u64, flags: u8) -> Option<TraceContext> {
    (trace_id != 0 && span_id != 0).then_some(TraceContext { trace_id, span_id, flags })
}

/// `traceparent` and `tracestate`.
#[derive(Debug, Clone, Copy, Default)]
pub struct W3c;

/// B3, as one header or as several. It reads both, and writes what it is told to.
#[derive(Debug, Clone, Copy, Default)]
pub enum B3Headers {
    /// `b3`.
    #[default]
    Single,
    /// `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`.
    Multiple,
}

impl TextMapPropagator for W3c {
    fn inject_context(&self, context: &Context, headers: &mut dyn Injector) {
        let Some(trace) = trace_of(context) else { return };
        headers.set(TRACEPARENT, traceparent(trace));
        let state = context.span().span_context().trace_state().header();
        if !state.is_empty() {
            headers.set(TRACESTATE, state);
        }
    }

    fn extract_with_context(&self, context: &Context, headers: &dyn Extractor) -> Context {
        // More than one is none: nobody knows which was meant.
        let one = headers.get_all(TRACEPARENT).filter(|all| all.len() == 1);
        let Some(trace) = one.and_then(|all| parse_traceparent(all[0])) else { return context.clone() };
        let state = headers.get_all(TRACESTATE).unwrap_or_default().join(",");
        context.with_remote_span_context(stated(trace, true, tracestate(&state)))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 2]> = LazyLock::new(|| [TRACEPARENT, TRACESTATE].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}

/// The state, if it is one; none does not make the trace invalid (§3.3.1.1).
fn tracestate(text: &str) -> TraceState {
    let member = |member: &str| {
        let (key, value) = member.trim_matches([' ', '\t']).split_once('=').unwrap_or_default();
        !key.is_empty() && !value.is_empty() && !value.contains('=')
    };
    let fits = text.len() <= TRACESTATE_BYTES && text.split(',').all(member);
    fits.then(|| TraceState::from_str(text).ok()).flatten().unwrap_or_default()
}

impl TextMapPropagator for B3Headers {
    fn inject_context(&self, context: &Context, headers: &mut dyn Injector) {
        let Some(trace) = trace_of(context) else { return };
        match self {
            Self::Single => headers.set(B3, b3(trace)),
            Self::Multiple => {
                headers.set(B3_TRACE, format!("{:032x}", trace.trace_id));
                headers.set(B3_SPAN, format!("{:016x}", trace.span_id));
                headers.set(B3_SAMPLED, (trace.flags & SAMPLED).to_string());
            }
        }
    }

    fn extract_with_context(&self, context: &Context, headers: &dyn Extractor) -> Context {
        let several = || {
            let trace = b3_id(headers.get(B3_TRACE)?, &[16, 32])?;
            let span = b3_id(headers.get(B3_SPAN)?, &[16])? as u64;
            whole(trace, span, b3_multi_state(headers.get(B3_SAMPLED), headers.get(B3_FLAGS))?)
        };
        // The single header has precedence, if it is one.
        let trace = headers.get(B3).and_then(parse_b3).or_else(several);
        trace.map_or_else(
            || context.clone(),
            |trace| context.with_remote_span_context(span_context(trace, true)),
        )
    }

    fn fields(&self) -> FieldIter<'_> {
        static SINGLE: LazyLock<[String; 1]> = LazyLock::new(|| [B3.to_owned()]);
        static MULTIPLE: LazyLock<[String; 3]> =
            LazyLock::new(|| [B3_TRACE, B3_SPAN, B3_SAMPLED].map(str::to_owned));
        match self {
            Self::Single => FieldIter::new(&*SINGLE),
            Self::Multiple => FieldIter::new(&*MULTIPLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn shown(trace: Option<TraceContext>) -> String {
        trace.map_or_else(|| "none".to_owned(), traceparent)
    }

    #[test]
    fn a_traceparent_is_read_as_w3c_says_and_nothing_else_is() {
        // The specification's own examples, and the cases of its test suite (test_traceparent_*).
        let good = format!("00-{TRACE}-{SPAN}-01");
        for (text, want) in [
            (good.clone(), good.as_str()),
            (format!("00-{TRACE}-{SPAN}-00"), &format!("00-{TRACE}-{SPAN}-00")),
            (format!("00-{TRACE}-{SPAN}-ff"), &good),
            (format!("00-{TRACE}-{SPAN}-02"), &format!("00-{TRACE}-{SPAN}-00")),
            // A later version: what is known of it is read.
            (format!("cc-{TRACE}-{SPAN}-01"), &good),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), &good),
            (format!("cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like"), "none"),
            (format!("ff-{TRACE}-{SPAN}-01"), "none"),
            (format!("00-{TRACE}-{SPAN}-01-"), "none"),
            (format!("00-{TRACE}-{SPAN}-01."), "none"),
            (format!("00-{TRACE}-{SPAN}-01-extra"), "none"),
            (format!("0-{TRACE}-{SPAN}-01"), "none"),
            (format!("000-{TRACE}-{SPAN}-01"), "none"),
            (format!(".0-{TRACE}-{SPAN}-01"), "none"),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), "none"),
            (format!("00-{}-{SPAN}-01", ".".repeat(32)), "none"),
            (format!("00-{TRACE}1-{SPAN}-01"), "none"),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), "none"),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), "none"),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), "none"),
            (format!("00-{TRACE}-{SPAN}1-01"), "none"),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), "none"),
            (format!("00-{TRACE}-{SPAN}-1"), "none"),
            (format!("00-{TRACE}-{SPAN}-.1"), "none"),
            (format!("00-{TRACE}-{SPAN}-001"), "none"),
            (format!("00-{TRACE}-{SPAN}-+1"), "none"),
            (format!("00-+{}-{SPAN}-01", &TRACE[1..]), "none"),
            (format!("00_{TRACE}_{SPAN}_01"), "none"),
            (format!(" {good}"), "none"),
            (format!("00-{TRACE}-{SPAN}"), "none"),
            ("00-é".repeat(14), "none"),
            (String::new(), "none"),
        ] {
            assert_eq!(shown(parse_traceparent(&text)), want, "{text}");
        }
    }

    #[test]
    fn a_b3_header_is_read_as_its_specification_says() {
        let half = "a3ce929d0e0e4736";
        let good = format!("00-{TRACE}-{SPAN}-01");
        for (text, want) in [
            (format!("{TRACE}-{SPAN}-1"), good.as_str()),
            (format!("{TRACE}-{SPAN}-d"), &good),
            (format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"), &good),
            (format!("{TRACE}-{SPAN}-0"), &format!("00-{TRACE}-{SPAN}-00")),
            (format!("{TRACE}-{SPAN}"), &format!("00-{TRACE}-{SPAN}-00")),
            (format!("{half}-{SPAN}-1"), &format!("00-{}{half}-{SPAN}-01", "0".repeat(16))),
            ("0".to_owned(), "none"),
            (format!("{TRACE}-{SPAN}-2"), "none"),
            (format!("{TRACE}-{SPAN}-1-short"), "none"),
            (format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-x"), "none"),
            (format!("{}-{SPAN}-1", TRACE.to_uppercase()), "none"),
            (format!("{TRACE}-{}-1", "0".repeat(16)), "none"),
            (format!("{TRACE}-"), "none"),
            (String::new(), "none"),
        ] {
            assert_eq!(shown(parse_b3(&text)), want, "{text}");
        }
    }

    fn extracted(with: &dyn TextMapPropagator, headers: &[(&str, &str)]) -> String {
        let headers: HashMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        shown(trace_of(&with.extract_with_context(&Context::new(), &headers)))
    }

    #[test]
    fn several_b3_headers_are_one_trace_and_the_single_one_goes_before_them() {
        let single = format!("{TRACE}-{SPAN}-1");
        let ids = [(B3_TRACE, TRACE), (B3_SPAN, SPAN)];
        let with = |more: &[(&'static str, &'static str)]| {
            extracted(&B3Headers::Multiple, &[ids.as_slice(), more].concat())
        };
        let (kept, not) = (format!("00-{TRACE}-{SPAN}-01"), format!("00-{TRACE}-{SPAN}-00"));
        for (more, want) in [
            (vec![(B3_SAMPLED, "1")], kept.as_str()),
            (vec![(B3_SAMPLED, "true")], &kept),
            (vec![(B3_FLAGS, "1")], &kept),
            (vec![(B3_SAMPLED, "0")], &not),
            (vec![], &not),
            (vec![(B3_SAMPLED, "yes")], "none"),
        ] {
            assert_eq!(with(&more), want, "{more:?}");
        }
        let other = [(B3, single.as_str()), (B3_TRACE, "0000000000000001"), (B3_SPAN, SPAN)];
        assert_eq!(extracted(&B3Headers::Single, &other), kept);
        assert_eq!(extracted(&B3Headers::Multiple, &[(B3_TRACE, TRACE)]), "none");
    }

    #[test]
    fn what_is_written_reads_back_with_its_state() {
        let headers: HashMap<String, String> = [
            (TRACEPARENT.to_owned(), format!("00-{TRACE}-{SPAN}-01")),
            (TRACESTATE.to_owned(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned()),
        ]
        .into();
        let context = W3c.extract_with_context(&Context::new(), &headers);
        let mut written = HashMap::new();
        W3c.inject_context(&context, &mut written);
        assert_eq!(written, headers);
        for with in [B3Headers::Single, B3Headers::Multiple] {
            let mut written = HashMap::new();
            with.inject_context(&context, &mut written);
            assert_eq!(written.len(), with.fields().count());
            assert_eq!(trace_of(&with.extract_with_context(&Context::new(), &written)), trace_of(&context));
        }
        let mut nothing = HashMap::new();
        W3c.inject_context(&Context::new(), &mut nothing);
        B3Headers::Single.inject_context(&Context::new(), &mut nothing);
        assert!(nothing.is_empty(), "no trace, no headers");
    }

    #[test]
    fn a_bad_state_leaves_the_trace_and_is_left_out() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        for state in ["=", "foo", "foo=1,=2", &"a=1,".repeat(200)] {
            let headers: HashMap<String, String> =
                [(TRACEPARENT.to_owned(), parent.clone()), (TRACESTATE.to_owned(), state.to_owned())].into();
            let context = W3c.extract_with_context(&Context::new(), &headers);
            assert_eq!(shown(trace_of(&context)), parent, "{state}");
            assert!(context.span().span_context().trace_state().header().is_empty(), "{state}");
        }
    }

    #[test]
    fn headers_that_are_no_trace_leave_the_context_as_it_was() {
        let before = Context::new()
            .with_remote_span_context(span_context(TraceContext { trace_id: 1, span_id: 2, flags: 1 }, true));
        let broken: HashMap<String, String> =
            [(TRACEPARENT.to_owned(), "00-x".to_owned()), (B3.to_owned(), "x".to_owned())].into();
        assert_eq!(trace_of(&W3c.extract_with_context(&before, &broken)), trace_of(&before));
        assert_eq!(trace_of(&B3Headers::Single.extract_with_context(&before, &broken)), trace_of(&before));
    }
}
