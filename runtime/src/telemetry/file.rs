//! Spans as lines of OTLP JSON: OpenTelemetry's protocol file exporter, one `TracesData` a line.
//!
//! * It decides nothing: it lays out what is there. Ids are hexadecimal and 64-bit numbers text, as
//!   OTLP/JSON has them.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Value as Json, json};

/// One line for these spans, without its end.
pub(super) fn lines(resource: &Resource, spans: &[SpanData]) -> String {
    let of = |(key, value): (&opentelemetry::Key, &Value)| attribute(key.as_str(), value);
    let resource: Vec<Json> = resource.iter().map(of).collect();
    // Spans of one scope stand together.
    let mut scopes: Vec<(&opentelemetry::InstrumentationScope, Vec<Json>)> = Vec::new();
    for data in spans {
        match scopes.iter_mut().find(|(scope, _)| **scope == data.instrumentation_scope) {
            Some((_, of_scope)) => of_scope.push(span(data)),
            None => scopes.push((&data.instrumentation_scope, vec![span(data)])),
        }
    }
    let scopes = scopes.into_iter().map(|(scope, spans)| {
        json!({ "scope": { "name": scope.name(), "version": scope.version().unwrap_or_default() }, "spans": spans })
    });
    let scopes: Vec<Json> = scopes.collect();
    json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": scopes }] }).to_string()
}

fn span(data: &SpanData) -> Json {
    let parent = match data.parent_span_id {
        SpanId::INVALID => String::new(),
        parent => parent.to_string(),
    };
    let (code, message) = match &data.status {
        Status::Unset => (0, ""),
        Status::Ok => (1, ""),
        Status::Error { description } => (2, description.as_ref()),
    };
    let events = data.events.events.iter().map(|event| {
        json!({ "timeUnixNano": nanos(event.timestamp), "name": event.name, "attributes": attributes(&event.attributes) })
    });
    let links = data.links.links.iter().map(|link| {
        json!({ "traceId": link.span_context.trace_id().to_string(), "spanId": link.span_context.span_id().to_string() })
    });
    json!({
        "traceId": data.span_context.trace_id().to_string(),
        "spanId": data.span_context.span_id().to_string(),
        "parentSpanId": parent,
        "name": data.name,
        "kind": kind(&data.span_kind),
        "startTimeUnixNano": nanos(data.start_time),
        "endTimeUnixNano": nanos(data.end_time),
        "attributes": attributes(&data.attributes),
        "events": events.collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "status": { "code": code, "message": message },
    })
}

/// The number that OTLP gives a kind.
fn kind(kind: &SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn attributes(all: &[KeyValue]) -> Vec<Json> {
    all.iter().map(|one| attribute(one.key.as_str(), &one.value)).collect()
}

fn attribute(key: &str, value: &Value) -> Json {
    json!({ "key": key, "value": any(value) })
}

fn any(value: &Value) -> Json {
    let list = |values: Vec<Json>| json!({ "arrayValue": { "values": values } });
    match value {
        Value::Bool(truth) => json!({ "boolValue": truth }),
        Value::I64(number) => json!({ "intValue": number.to_string() }),
        Value::F64(number) => json!({ "doubleValue": number }),
        Value::Array(Array::Bool(all)) => list(all.iter().map(|one| json!({ "boolValue": one })).collect()),
        Value::Array(Array::I64(all)) => {
            list(all.iter().map(|one| json!({ "intValue": one.to_string() })).collect())
        }
        Value::Array(Array::F64(all)) => list(all.iter().map(|one| json!({ "doubleValue": one })).collect()),
        Value::Array(Array::String(all)) => {
            list(all.iter().map(|one| json!({ "stringValue": one.as_str() })).collect())
        }
        other => json!({ "stringValue": other.as_str() }),
    }
}
