//! What was done with certificates, for whoever has to answer for it later: a line of `events.jsonl` beside the
//! authority's key, and a line of the log.
//!
//! The names of events are stable: names are added, never changed.

use std::path::Path;

use rhumb_transport::Certificate;
use serde::Serialize;

use crate::authority::{self, AuthorityFault};
use crate::clock::now_millis;

/// Where they are written down.
pub const EVENTS_FILE: &str = "events.jsonl";

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its stable name.
    pub event: &'static str,
    /// Whose certificate, or which authority.
    pub holder: String,
    /// Its serial number, where it is about one certificate.
    pub serial: Option<String>,
    /// Why, or how far; for people.
    pub detail: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Event {
    /// Something about a certificate.
    #[must_use]
    pub fn of(event: &'static str, certificate: &Certificate) -> Self {
        let (holder, serial) = (certificate.holder.to_string(), Some(certificate.serial.to_string()));
        Self { event, holder, serial, detail: None }
    }

    /// A first certificate was issued.
    #[must_use]
    pub fn issued(certificate: &Certificate) -> Self {
        Self::of("certificate.issued", certificate)
    }

    /// A certificate took the place of another.
    #[must_use]
    pub fn renewed(certificate: &Certificate) -> Self {
        Self::of("certificate.renewed", certificate)
    }

    /// The same, with why or how far.
    #[must_use]
    pub fn because(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

/// Writes down what was done, in an authority's folder and in the log.
///
/// # Errors
/// [`AuthorityFault::File`].
pub fn note(authority: &Path, event: &Event) -> Result<(), AuthorityFault> {
    let Event { event: name, holder, serial, detail } = event;
    tracing::info!(event = name, holder, serial, detail, "certificates");
    authority::append(&authority.join(EVENTS_FILE), &Line { at_ms: now_millis(), event })
}
