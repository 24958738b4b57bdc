//! Entries as syslog messages (RFC 5424), each behind its number of octets (RFC 6587, section 3.4.1; over TLS RFC 5425).
//!
//! * It decides: the bytes of a message.
//! * It never does: put what a record says of somebody into a message, unless it is asked to.
//! * Invariant: a message is printable ASCII, so that no receiver has to guess its encoding or finds a line's end in it.

use std::fmt::Write as _;

use rhumb_actors::audit::messages::EntryView;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_core::{HybridTime, NodeId};
use rhumb_verify::hash::leaf;

use super::super::super::output::Failure;
use super::super::{CHANGED, decoded, rfc3339};

/// "log audit" of RFC 5424, table 1.
const FACILITY: u8 = 13;
/// The structured data's name. Rhumb has no enterprise number of its own; 32473 is the one for documentation (RFC 5612).
const SD_ID: &str = "rhumb@32473";
/// Characters of a HOSTNAME, an APP-NAME and a MSGID at most.
const MAX_HOSTNAME: usize = 255;
const MAX_MSGID: usize = 32;

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    node: NodeId,
    hostname: String,
}

impl Source {
    /// A node, and the name of its log's key: `TRUST-DOMAIN/audit/REGION/NODE`.
    pub(super) fn new(node: &NodeId, origin: &str) -> Self {
        let domain = origin.split('/').next().unwrap_or_default();
        let mut hostname = format!("{}.{}.{domain}", node.name, node.region);
        hostname.retain(|c| c.is_ascii_graphic());
        hostname.truncate(MAX_HOSTNAME);
        Self { node: node.clone(), hostname }
    }

    /// An entry, behind its number of octets. With `texts`, what its record says is the message's text.
    ///
    /// # Errors
    /// The node gave no entry, or a record that its entry does not commit to.
    pub(super) fn frame(&self, view: &EntryView, texts: bool) -> Result<Vec<u8>, Failure> {
        let message = self.message(view, texts)?;
        Ok(format!("{} {message}", message.len()).into_bytes())
    }

    fn message(&self, view: &EntryView, texts: bool) -> Result<String, Failure> {
        let entry = decoded(view)?;
        let record = match view.record.as_slice() {
            [] => None,
            bytes => Some(Record::parse(bytes).map_err(|why| {
                Failure::local(format!("the node gave a record for entry {} that is none: {why}", view.index))
            })?),
        };
        let outcome = record.as_ref().map(|record| record.outcome);
        let priority = FACILITY * 8 + if view.changed { ERROR } else { severity(outcome) };
        let Self { node, hostname } = self;
        let (time, action) = (rfc3339(entry.millis()), &entry.action);
        let msgid = &action[..action.len().min(MAX_MSGID)];
        let mut data = String::new();
        param(&mut data, "node", &node.to_string());
        param(&mut data, "region", node.region.as_str());
        param(&mut data, "index", &view.index.to_string());
        param(&mut data, "leaf", &leaf(&view.entry).to_string());
        param(&mut data, "action", action);
        if let Some(outcome) = outcome {
            param(&mut data, "outcome", name(outcome));
        }
        param(&mut data, "time", &HybridTime::from_bits(entry.time).to_string());
        if let Some(Record { trace, .. }) = record.as_ref().filter(|record| !record.trace.is_empty()) {
            param(&mut data, "trace", trace);
        }
        let text = match &record {
            Some(_) if texts => ascii_json(&String::from_utf8_lossy(&view.record)),
            _ if view.shut => format!("{action} (erased)"),
            _ if view.changed => format!("{action} {CHANGED}"),
            _ => format!("{action} {}", outcome.map_or("", name)).trim_end().to_owned(),
        };
        Ok(format!("<{priority}>1 {time} {hostname} rhumb - {msgid} [{SD_ID}{data}] {text}"))
    }
}

/// RFC 5424, table 2.
const ERROR: u8 = 3;

/// RFC 5424, table 2: error, warning, informational.
fn severity(outcome: Option<Outcome>) -> u8 {
    match outcome {
        Some(Outcome::Failed) => ERROR,
        Some(Outcome::Refused) => 4,
        Some(Outcome::Begun | Outcome::Done) | None => 6,
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Begun => "begun",
        Outcome::Done => "done",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
    }
}

/// A parameter: `"`, `\` and `]` are escaped (section 6.3.3), and what is no printable ASCII is a `?`.
fn param(data: &mut String, name: &str, value: &str) {
    data.push(' ');
    data.push_str(name);
    data.push_str("=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | ']' => data.extend(['\\', c]),
            ' '..='~' => data.push(c),
            _ => data.push('?'),
        }
    }
    data.push('"');
}

/// The same JSON in printable ASCII: what is not stands as `\u` and four hexadecimal digits.
fn ascii_json(json: &str) -> String {
    let (mut ascii, mut units) = (String::with_capacity(json.len()), [0; 2]);
    for c in json.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            _ => c.encode_utf16(&mut units).iter().for_each(|unit| {
                // Writing to a text does not fail.
                write!(ascii, "\\u{unit:04x}").ok();
            }),
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use rhumb_verify::record::{Entry, commitment};

    use super::*;

    fn source() -> Source {
        Source::new(&"eu/n1".parse().expect("a node"), "mesh.example/audit/eu/n1")
    }

    fn view(action: &str, outcome: Outcome, trace: &str) -> EntryView {
        let time = HybridTime::new(1_790_000_000_120, 7);
        let record = Record {
            trace: trace.to_owned(),
            ..Record::new(action, "operator eu/änn", "eu", time, outcome)
        };
        let (record, salt) = (record.on("pool \"a]\\b\" 𝄞").bytes().expect("a record"), [5; 32]);
        let commitment = commitment(&salt, &record);
        let entry = Entry { time: time.to_bits(), action: action.to_owned(), commitment };
        EntryView { index: 17, entry: entry.encode(), salt: salt.to_vec(), record, ..EntryView::default() }
    }

    #[test]
    fn an_entry_is_a_message_of_rfc_5424_behind_its_length() {
        let view = view("pool.create", Outcome::Done, "4bf92f3577b34da6a3ce929d0e0e4736");
        let frame = String::from_utf8(source().frame(&view, false).expect("a frame")).expect("text");
        let (length, message) = frame.split_once(' ').expect("a length");
        assert_eq!(length.parse(), Ok(message.len()));
        let leaf = leaf(&view.entry);
        assert_eq!(
            message,
            format!(
                "<110>1 2026-09-21T14:13:20.12Z n1.eu.mesh.example rhumb - pool.create [rhumb@32473 node=\"eu/n1\" \
                 region=\"eu\" index=\"17\" leaf=\"{leaf}\" action=\"pool.create\" outcome=\"done\" \
                 time=\"1790000000120.00007\" trace=\"4bf92f3577b34da6a3ce929d0e0e4736\"] pool.create done"
            )
        );
    }

    #[test]
    fn a_records_text_is_in_it_only_when_asked_for_and_is_the_same_json() {
        let view = view("pool.create", Outcome::Refused, "");
        let without = source().message(&view, false).expect("a message");
        assert!(!without.contains("operator") && without.starts_with("<108>"), "{without}");
        let with = source().message(&view, true).expect("a message");
        assert!(with.is_ascii(), "{with}");
        let (_, json) = with.split_once("] ").expect("a text");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(json).expect("JSON"),
            serde_json::from_slice::<serde_json::Value>(&view.record).expect("JSON")
        );
    }

    #[test]
    fn what_an_embedding_program_says_cannot_end_the_structured_data() {
        let hostile = "x\"] forged \n<0>1 \\";
        let message =
            source().message(&view("till.sell", Outcome::Failed, hostile), false).expect("a message");
        assert!(message.contains(r#"trace="x\"\] forged ?<0>1 \\""#), "{message}");
        assert!(message.starts_with("<107>1 ") && message.ends_with("] till.sell failed"), "{message}");
    }

    #[test]
    fn an_erased_subjects_entry_says_so_and_a_record_of_another_entry_is_refused() {
        let opened = view("till.sell", Outcome::Done, "");
        let shut = EntryView { record: Vec::new(), salt: Vec::new(), shut: true, ..opened.clone() };
        let message = source().message(&shut, true).expect("a message");
        assert!(message.ends_with("] till.sell (erased)") && !message.contains("outcome"), "{message}");
        let changed = EntryView { shut: false, changed: true, ..shut };
        let message = source().message(&changed, true).expect("a message");
        assert!(
            message.starts_with("<107>1 ") && message.contains("] till.sell (changed on the disk"),
            "{message}"
        );
        let other = EntryView { record: view("till.sell", Outcome::Failed, "").record, ..opened };
        assert!(source().message(&other, true).is_err());
    }

    #[test]
    fn a_long_action_is_whole_in_the_structured_data() {
        let action = "a".repeat(64);
        let message = source().message(&view(&action, Outcome::Done, ""), false).expect("a message");
        assert!(message.contains(&format!(" {} [", &action[..32])), "{message}");
        assert!(message.contains(&format!("action=\"{action}\"")), "{message}");
    }
}
