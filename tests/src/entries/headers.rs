//! Short texts that programs and people give: headers of traces, addresses, names.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use rhumb::escrow::{HoldId, Key};
use rhumb::telemetry::propagation::{B3Headers, W3c, b3, parse_b3, parse_traceparent, traceparent};
use rhumb_core::{ClusterId, DataClass, NodeId, NodeName, PoolName, Region, StoreId};
use rhumb_transport::TrustDomain;

struct Headers(HashMap<String, Vec<String>>);

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.0.get(key)?.iter().map(String::as_str).collect())
    }
}

/// Headers as `name: value`, a line each; and each value by itself.
pub(super) fn headers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut headers = Headers(HashMap::new());
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or(("traceparent", line));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if let Some(trace) = parse_traceparent(&value) {
            assert_eq!(parse_traceparent(&traceparent(trace)), Some(trace), "{value:?}");
        }
        if let Some(trace) = parse_b3(&value) {
            assert_eq!(parse_b3(&b3(trace)), Some(trace), "{value:?}");
        }
        headers.0.entry(name).or_default().push(value);
    }
    let _ = W3c.extract(&headers);
    let _ = B3Headers::Single.extract(&headers);
}

/// Addresses of actors, and every name that is written as text.
pub(super) fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for text in text.lines() {
        let _ = rhumb::entry::is_target(text);
        let _ = rhumb::entry::is_shown(text);
        reads_back::<NodeId>(text);
        reads_back::<Region>(text);
        reads_back::<NodeName>(text);
        reads_back::<PoolName>(text);
        reads_back::<DataClass>(text);
        reads_back::<ClusterId>(text);
        reads_back::<StoreId>(text);
        reads_back::<TrustDomain>(text);
        reads_back::<HoldId>(text);
        reads_back::<Key>(text);
    }
}

fn reads_back<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str)
where
    T::Err: std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("what is printed can be read"), value, "{text:?}");
    }
}
