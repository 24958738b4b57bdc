//! What commands print, and the codes they end with.
//!
//! * It decides: the form of answers, refusals and faults, as text and as JSON.
//! * Invariant: with `-o json` standard output carries exactly one JSON object, whatever happens (but for a command that
//!   goes on: that prints one a line); what
//!   is for people only goes to standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use rhumb_actors::audit::messages::AuditRefusal;
use rhumb_actors::escrow::messages::Refusal;
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_core::{Delivery, Fault, FaultKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::directory::DirectoryError;
use crate::client::kv::KvError;
use crate::client::survey::SurveyError;
use crate::client::{ClientError, fault_code};
use crate::settings::Faults;

/// How often it is looked whether somebody still reads.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object with stable field names (`docs/cli.md`).
    Json,
}

/// A command did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// And all is well.
    Well,
    /// And what was to be checked is false.
    False,
    /// And the outcome of a call is unknown.
    Unknown,
    /// Up to when somebody asked for a stop.
    Stopped,
    /// But for a part of it, which the answer names.
    InPart,
}

/// A command could not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The mesh refused. Nothing was changed.
    Refused(Refusal),
    /// The audit log refused. Nothing was changed.
    NotAudited(AuditRefusal),
    /// A keyspace refused. Nothing was changed.
    NotServed(KvRefusal),
    /// A keyspace refused a batch for one of its writes. Nothing was changed.
    NotWritten {
        /// Which, the first one being 1.
        write: u64,
        /// Of so many.
        of: usize,
        /// Why.
        refusal: KvRefusal,
    },
    /// The command line asks for something that cannot be.
    Usage(String),
    /// The settings have faults.
    Settings(Faults),
    /// There is no answer.
    Fault(Fault),
    /// Something on this side, or on the way.
    Other {
        /// A short stable code.
        kind: &'static str,
        /// In words.
        message: String,
    },
}

impl Failure {
    /// Something on this machine.
    #[must_use]
    pub fn local(error: impl Display) -> Self {
        Self::Other { kind: "local", message: error.to_string() }
    }

    /// In words, where the answer of a command tells it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::NotAudited(refusal) => refusal.to_string(),
            Self::NotServed(refusal) => refusal.to_string(),
            Self::NotWritten { write, of, refusal } => format!("write {write} of {of}: {refusal}"),
            Self::Usage(message) | Self::Other { message, .. } => message.clone(),
            Self::Settings(faults) => faults.to_string(),
            Self::Fault(fault) => fault.to_string(),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::NotAudited(_) | Self::NotServed(_) | Self::NotWritten { .. } => 1,
            Self::Usage(_) | Self::Settings(_) => 2,
            Self::Fault(fault) if fault.delivery() == Delivery::Unknown => 4,
            Self::Fault(_) | Self::Other { .. } => 3,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Refused(refusal) => {
                let retry = refusal.retry_after().map(|after| after.as_millis() as u64);
                json!({"refused": {
                    "code": refusal.code(), "message": refusal.to_string(), "retry_after_ms": retry
                }})
            }
            Self::NotAudited(refusal) => json!({"refused": {
                "code": refusal.code(), "message": refusal.to_string(), "retry_after_ms": refusal.retry_after_ms()
            }}),
            Self::NotServed(refusal) | Self::NotWritten { refusal, .. } => {
                let mut told = json!({
                    "code": refusal.code(), "message": self.message(), "retry_after_ms": refusal.retry_after_ms()
                });
                if let KvRefusal::StalenessBoundViolated { bound_ms, age_ms, .. } = refusal {
                    (told["bound_ms"], told["age_ms"]) = ((*bound_ms).into(), (*age_ms).into());
                }
                json!({ "refused": told })
            }
            Self::Usage(message) => json!({"usage": {"message": message}}),
            Self::Settings(faults) => json!({"settings": {"config": faults.dir, "faults": faults.faults}}),
            Self::Fault(fault) => json!({"fault": {
                "kind": fault_code(&fault.kind),
                "message": fault.kind.to_string(),
                "delivery": delivery_code(fault.delivery()),
            }}),
            Self::Other { kind, message } => {
                json!({"fault": {"kind": kind, "message": message, "delivery": "not_sent"}})
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Refused(refusal) => format!("refused ({}): {refusal}", refusal.code()),
            Self::NotAudited(refusal) => format!("refused ({}): {refusal}", refusal.code()),
            Self::NotServed(refusal) | Self::NotWritten { refusal, .. } => {
                format!("refused ({}): {}", refusal.code(), self.message())
            }
            Self::Usage(message) => format!("error: {message}"),
            Self::Settings(faults) => format!("error: {faults}"),
            Self::Fault(fault) => format!("fault: {fault}"),
            Self::Other { message, .. } => format!("fault: {message}"),
        }
    }
}

fn delivery_code(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::NotSent => "not_sent",
        Delivery::Ran => "ran",
        Delivery::Unknown => "unknown",
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<AuditRefusal> for Failure {
    fn from(refusal: AuditRefusal) -> Self {
        Self::NotAudited(refusal)
    }
}

impl From<KvRefusal> for Failure {
    fn from(refusal: KvRefusal) -> Self {
        Self::NotServed(refusal)
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Refused(refusal) => refusal.into(),
            KvError::Weaker { required, achieved } => {
                Fault::ran(FaultKind::Guarantee { required, achieved }).into()
            }
            KvError::Fault(fault) => fault.into(),
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Settings(faults)
    }
}

impl From<Fault> for Failure {
    /// A gate that let nothing through is a refusal like any other; all else is a fault.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault { kind: FaultKind::Gate(said), delivery: Delivery::NotSent, .. } => {
                Self::Refused(Refusal::NotAllowed { class: said.class, region: said.to, reason: said.reason })
            }
            fault => Self::Fault(fault),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other { kind: "local", message: format!("{error:#}") }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Address { .. } => Self::Usage(message),
            ClientError::Credentials { .. } => Self::Other { kind: "local", message },
            ClientError::Connect { .. } => Self::Other { kind: "unreachable", message },
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        let message = error.to_string();
        match error {
            DirectoryError::NoSuchRegion(_) | DirectoryError::WhichRegion { .. } => Self::Usage(message),
            _ => Self::Other { kind: "unreachable", message },
        }
    }
}

impl From<SurveyError> for Failure {
    fn from(error: SurveyError) -> Self {
        let message = error.to_string();
        match error {
            SurveyError::Refused(refusal) => Self::Refused(*refusal),
            SurveyError::Unreachable { .. } | SurveyError::Unknown(_) => {
                Self::Other { kind: "unreachable", message }
            }
        }
    }
}

/// A moment in milliseconds since the Unix epoch, as RFC 3339 writes it.
pub(super) fn rfc3339(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Output of a format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether standard output carries JSON, and nothing else.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints an answer.
    pub fn answer(&self, json: &impl Serialize, text: impl Display) {
        match self.format {
            Format::Text => print(&text.to_string()),
            Format::Json => print(&to_json(json)),
        }
    }

    /// Prints one of many answers, each a line; as JSON an object on a line.
    ///
    /// # Errors
    /// Nobody reads them any more.
    pub fn line(&self, json: &impl Serialize, text: impl Display) -> io::Result<()> {
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Text => writeln!(out, "{text}")?,
            Format::Json => {
                let json = serde_json::to_string(json).map_err(io::Error::other)?;
                writeln!(out, "{json}")?;
            }
        }
        out.flush()
    }

    /// Waits until nobody reads standard output any more: the other end of the pipe is closed. For ever where it is a file.
    pub async fn gone(&self) {
        let closed = PollFlags::ERR | PollFlags::HUP;
        loop {
            let out = std::io::stdout();
            let mut out = [PollFd::new(&out, PollFlags::empty())];
            let looked = poll(&mut out, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            if looked.is_ok() && out[0].revents().intersects(closed) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Says to people, on standard error, what the JSON says by itself.
    pub fn aside(&self, text: impl Display) {
        if self.format == Format::Text {
            self.note(text);
        }
    }

    /// Says something to people, on standard error.
    pub fn note(&self, text: impl Display) {
        writeln!(std::io::stderr(), "{text}").ok();
    }

    /// Tells how the command ended, and gives the code for it.
    #[must_use]
    pub fn end(&self, ended: Result<Done, Failure>) -> ExitCode {
        let code = match &ended {
            Ok(Done::Well) => 0,
            Ok(Done::InPart) => 3,
            Ok(Done::Unknown) => 4,
            Ok(Done::False) => 5,
            Ok(Done::Stopped) => 130,
            Err(failure) => {
                match self.format {
                    Format::Json => print(&failure.json().to_string()),
                    Format::Text => {
                        // Nobody is left to tell that nobody is left to tell.
                        writeln!(std::io::stderr(), "{}", failure.text()).ok();
                    }
                }
                failure.code()
            }
        };
        ExitCode::from(code)
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("answers have text keys and finite numbers")
}

/// Prints a line. A reader who has gone away (a closed pipe) is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use rhumb_core::NodeId;

    use super::*;

    fn check(failure: Failure, want: Expect) {
        want.assert_eq(&format!("{} {}\n{}", failure.code(), failure.json(), failure.text()));
    }

    #[test]
    fn failures_have_codes_and_stable_names() {
        check(
            Refusal::Exhausted { retry_after: Duration::from_millis(250) }.into(),
            expect![[r#"
                1 {"refused":{"code":"exhausted","message":"nothing to hold here now; ask again in 250 ms","retry_after_ms":250}}
                refused (exhausted): nothing to hold here now; ask again in 250 ms"#]],
        );
        check(
            Refusal::SoldOut.into(),
            expect![[r#"
                1 {"refused":{"code":"sold_out","message":"sold out","retry_after_ms":null}}
                refused (sold_out): sold out"#]],
        );
        check(
            Fault::not_sent(FaultKind::Unreachable("us-east/n1".into())).into(),
            expect![[r#"
                3 {"fault":{"delivery":"not_sent","kind":"unreachable","message":"unreachable: us-east/n1"}}
                fault: unreachable: us-east/n1 (outcome: not sent)"#]],
        );
        check(
            Fault::unknown(FaultKind::Deadline("waiting for the answer".into())).into(),
            expect![[r#"
                4 {"fault":{"delivery":"unknown","kind":"deadline","message":"deadline passed while waiting for the answer"}}
                fault: deadline passed while waiting for the answer (outcome: unknown)"#]],
        );
        check(
            DirectoryError::NoSuchRegion("region moon has no node here; there are us-east".into()).into(),
            expect![[r#"
                2 {"usage":{"message":"region moon has no node here; there are us-east"}}
                error: region moon has no node here; there are us-east"#]],
        );
        check(
            KvRefusal::StalenessBoundViolated {
                bound_ms: 1_000,
                age_ms: 4_200,
                retry_after: Some(Duration::from_millis(200)),
            }
            .into(),
            expect![[r#"
                1 {"refused":{"age_ms":4200,"bound_ms":1000,"code":"staleness_bound_violated","message":"what is at hand may be 4200 ms old and 1000 ms were asked for, and the leaseholder was not reached: ask again in 200ms, or ask for more","retry_after_ms":200}}
                refused (staleness_bound_violated): what is at hand may be 4200 ms old and 1000 ms were asked for, and the leaseholder was not reached: ask again in 200ms, or ask for more"#]],
        );
        let absent = || KvRefusal::Condition { op: 1, found: None };
        check(
            absent().into(),
            expect![[r#"
                1 {"refused":{"code":"condition_failed","message":"the key is not there; nothing was written","retry_after_ms":null}}
                refused (condition_failed): the key is not there; nothing was written"#]],
        );
        check(
            Failure::NotWritten { write: 2, of: 3, refusal: absent() },
            expect![[r#"
                1 {"refused":{"code":"condition_failed","message":"write 2 of 3: the key is not there; nothing was written","retry_after_ms":null}}
                refused (condition_failed): write 2 of 3: the key is not there; nothing was written"#]],
        );
        let node = NodeId::new("eu", "n1").expect("valid");
        let fault = Box::new(Fault::not_sent(FaultKind::Draining));
        check(
            SurveyError::Unreachable { node, fault }.into(),
            expect![[r#"
                3 {"fault":{"delivery":"not_sent","kind":"unreachable","message":"node eu/n1 has no answer, and an audit needs every node: the peer is draining (outcome: not sent)"}}
                fault: node eu/n1 has no answer, and an audit needs every node: the peer is draining (outcome: not sent)"#]],
        );
    }
}
