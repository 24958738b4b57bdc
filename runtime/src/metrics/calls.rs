//! Calls between nodes and programs: how long each took, by method and outcome.
//!
//! * It decides: under which series a call is counted. A name that nobody serves here is `_other`.
//! * It never does: count a refusal of an actor as an error. A refusal is an answer: `ok`.
//! * Invariant: as many series as this build has messages and kinds of faults, whatever peers send.
//!
//! Method and outcome are `rpc.method` and `rpc.response.status_code` of OpenTelemetry's semantic
//! conventions for RPC; the metrics are their `rpc.server.call.duration` and `rpc.client.call.duration`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_core::{Delivery, Fault, FaultKind};
use rhumb_transport::answer::Times;
use rhumb_transport::identity::IdentityError;
use rhumb_transport::{Answer, ConnectError, HelloRefusalKind, Kind, Request, TraceContext};
use tokio::time::Instant;

use super::durations::Durations;
use crate::client::fault_code;
use crate::clock::now_millis;

/// Every outcome that there is: `ok`, and the codes of faults.
const OUTCOMES: [&str; 27] = [
    "ok",
    "unreachable",
    "deadline",
    "full",
    "draining",
    "gate",
    "unknown_message",
    "decode",
    "too_large",
    "unauthorized",
    "handler",
    "storage",
    "cycle",
    "not_hosted",
    "moved",
    "failed",
    "panicked",
    "class_lowered",
    "guarantee",
    "skew",
    "wrong_epoch",
    "abandoned",
    "key_reused",
    "not_kept",
    "overloaded",
    "shut",
    "unowned",
];
/// Names of messages that are counted by themselves, each side.
const MAX_METHODS: usize = 1_024;
/// All others.
const OTHER: &str = "_other";

/// The position of an outcome.
fn outcome(fault: Option<&Fault>) -> usize {
    let code = fault.map_or("ok", |fault| fault_code(&fault.kind));
    OUTCOMES.iter().position(|known| *known == code).unwrap_or(0)
}

/// A short stable code for why a connection was turned away.
fn reason(why: &ConnectError) -> &'static str {
    match why {
        ConnectError::Identity(IdentityError::Revoked) => "revoked",
        ConnectError::Identity(IdentityError::Expired) => "expired",
        ConnectError::Identity(IdentityError::UnknownAuthority) => "unknown_authority",
        ConnectError::Identity(IdentityError::RevocationUnknown) => "revocation_unknown",
        ConnectError::Identity(IdentityError::NoCertificate) => "no_certificate",
        ConnectError::Identity(IdentityError::Region(_)) => "region",
        ConnectError::Identity(_) => "certificate",
        ConnectError::IdentityRefused(_) => "refused_us",
        ConnectError::Protocol(_) => "protocol",
        ConnectError::Hello(refusal) | ConnectError::HelloRefused(refusal) => match refusal.kind {
            HelloRefusalKind::Draining => "draining",
            HelloRefusalKind::Busy => "busy",
            _ => "hello",
        },
        ConnectError::Duplicate => "duplicate",
        ConnectError::Timeout(_) => "timeout",
        ConnectError::Lost(_) | ConnectError::Dial { .. } | ConnectError::Local(_) => "lost",
    }
}

/// The reason why a connection was turned away, if that is a certificate.
#[cfg(feature = "rocks")]
pub(crate) fn over_a_certificate(why: &ConnectError) -> Option<&'static str> {
    matches!(why, ConnectError::Identity(_) | ConnectError::IdentityRefused(_)).then(|| reason(why))
}

/// One method: a histogram for each outcome that it has had.
#[derive(Debug, Default)]
struct Method {
    outcomes: [OnceLock<Box<Durations>>; OUTCOMES.len()],
}

impl Method {
    fn ended(&self, fault: Option<&Fault>, took: Duration, trace: Option<TraceContext>) {
        let sampled = trace.filter(TraceContext::is_sampled);
        let sampled = sampled.map(|trace| (trace.trace_id, now_millis()));
        self.outcomes[outcome(fault)].get_or_init(Box::default).record(took, sampled);
    }
}

impl Times for Method {
    fn answered(&self, fault: Option<&Fault>, took: Duration, trace: Option<TraceContext>) {
        self.ended(fault, took, trace);
    }
}

/// The methods of one side. Read without waiting; a new name swaps in a new table.
#[derive(Debug, Default)]
struct Methods {
    known: ArcSwap<BTreeMap<Box<str>, Arc<Method>>>,
}

impl Methods {
    /// The method of this name, if it is one that may be counted by itself.
    fn of(&self, name: &str, is_known: impl FnOnce() -> bool) -> Arc<Method> {
        if let Some(method) = self.known.load().get(name) {
            return Arc::clone(method);
        }
        let name = if self.known.load().len() < MAX_METHODS && is_known() { name } else { OTHER };
        // What nobody serves may be asked often: its place is made once.
        if let Some(method) = self.known.load().get(name) {
            return Arc::clone(method);
        }
        self.known.rcu(|known| {
            let mut more = BTreeMap::clone(known);
            more.entry(name.into()).or_default();
            more
        });
        self.known.load().get(name).map(Arc::clone).unwrap_or_default()
    }
}

/// The calls of one node. What it serves is counted from arrival to answer, what it asks from the asking
/// to the answer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    served: Methods,
    asked: Methods,
    tells_refused: [AtomicU64; OUTCOMES.len()],
    turned_away: Mutex<BTreeMap<&'static str, u64>>,
}

impl Calls {
    /// The answer to a request that has arrived now, with its end to be counted. `is_known` says whether
    /// its name is served here.
    pub(crate) fn arrived(
        self: &Arc<Self>,
        request: &Request,
        answer: Answer,
        is_known: impl FnOnce() -> bool,
    ) -> Answer {
        if request.kind == Kind::Tell {
            let calls = Arc::clone(self);
            return answer.observed(Box::new(move |outcome| calls.told(outcome)));
        }
        let method = self.served.of(&request.name, is_known);
        let since = answer.came(request.headers.deadline).unwrap_or_else(Instant::now);
        answer.timed(method, since, request.headers.trace)
    }

    /// Counts a connection that was turned away.
    pub(crate) fn turned_away(&self, why: &ConnectError) {
        *self.turned_away.lock().entry(reason(why)).or_default() += 1;
    }

    /// Connections that were turned away, by reason.
    #[cfg(feature = "rocks")]
    pub(crate) fn turned_away_so_far(&self) -> BTreeMap<String, u64> {
        self.turned_away.lock().iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    /// Calls that have ended, on both sides, and those of them that ended in a fault.
    #[cfg(feature = "rocks")]
    pub(crate) fn ended_so_far(&self) -> (u64, u64) {
        let (mut all, mut faults) = (0, 0);
        for methods in [&self.served, &self.asked] {
            for method in methods.known.load().values() {
                for (at, counted) in method.outcomes.iter().enumerate() {
                    let count = counted.get().map_or(0, |durations| durations.count());
                    all += count;
                    faults += if at == 0 { 0 } else { count };
                }
            }
        }
        (all, faults)
    }

    fn told(&self, ended: Result<(), &Fault>) {
        if let Err(fault) = ended
            && fault.delivery() == Delivery::NotSent
        {
            self.tells_refused[outcome(Some(fault))].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call to another node that begins now, whose name this build knows.
    pub(crate) fn asking(&self, name: &str, trace: Option<TraceContext>) -> UnderWay {
        UnderWay { method: self.asked.of(name, || true), began: Instant::now(), trace, ended: false }
    }
}

/// A call that is under way. Its caller may stop waiting for it at any time: then it was abandoned.
pub(crate) struct UnderWay {
    method: Arc<Method>,
    began: Instant,
    trace: Option<TraceContext>,
    ended: bool,
}

impl UnderWay {
    /// It has ended, with this fault if it is one.
    /// Says when that is, and how long it took.
    pub(crate) fn end(&mut self, fault: Option<&Fault>) -> (Instant, Duration) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        if !std::mem::replace(&mut self.ended, true) {
            self.method.ended(fault, took, self.trace);
        }
        (now, took)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Some(&Fault::unknown(FaultKind::Abandoned)));
        }
    }
}

#[cfg(feature = "rocks")]
impl Calls {
    /// All calls, as OpenMetrics text.
    pub(crate) fn write(&self, page: &mut super::exposition::Page) {
        let sides = [
            (
                "rhumb_rpc_server_call_duration_seconds",
                "Calls that were served, from their arrival to their answer",
                &self.served,
            ),
            (
                "rhumb_rpc_client_call_duration_seconds",
                "Calls to other nodes, from the asking to the answer",
                &self.asked,
            ),
        ];
        for (name, help, methods) in sides {
            page.histogram(name, help);
            for (method, counted) in methods.known.load().iter() {
                for (outcome, durations) in OUTCOMES.iter().zip(&counted.outcomes) {
                    if let Some(durations) = durations.get() {
                        page.steps(name, &[("method", method), ("outcome", outcome)], &durations.steps());
                    }
                }
            }
        }
        let refused = OUTCOMES.iter().zip(&self.tells_refused);
        let refused = refused.map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)));
        let refused: Vec<_> = refused.filter(|(_, count)| *count > 0).collect();
        let help = "Told messages that arrived and were not taken up, by reason";
        page.counters("rhumb_tells_refused", help, "reason", &refused);
        let turned_away: Vec<_> = self.turned_away.lock().iter().map(|(reason, n)| (*reason, *n)).collect();
        let help = "Connections that were turned away, by reason";
        page.counters("rhumb_connections_turned_away", help, "reason", &turned_away);
    }
}

#[cfg(all(test, feature = "rocks"))]
mod tests {
    use rhumb_core::DataClass;
    use rhumb_transport::Headers;

    use super::super::exposition::Page;
    use super::*;

    fn request(name: &str, kind: Kind) -> Request {
        let headers = Headers::within(Duration::from_secs(1));
        let request = Request::ask(name, DataClass::control(), bytes::Bytes::new(), headers);
        Request { kind, ..request }
    }

    fn series(calls: &Calls) -> Vec<String> {
        let mut page = Page::default();
        calls.write(&mut page);
        let lines = page.finish();
        let counts = lines.lines().filter(|line| line.contains("_count{") || line.contains("_total{"));
        counts.map(str::to_owned).collect()
    }

    #[test]
    fn a_call_is_counted_once_under_its_method_and_outcome_however_it_ends() {
        let calls = Arc::new(Calls::default());
        let arrive = |name: &str| calls.arrived(&request(name, Kind::Ask), Answer::here().0, || true);
        arrive("shop.Add").fault(Fault::not_sent(FaultKind::Draining));
        drop(arrive("shop.Add"));
        let lost = Fault::unknown(FaultKind::Deadline("waiting".into()));
        calls.asking("shop.Take", None).end(Some(&lost));
        drop(calls.asking("shop.Take", None));
        assert_eq!(
            series(&calls),
            [
                "rhumb_rpc_server_call_duration_seconds_count{method=\"shop.Add\",outcome=\"draining\"} 1",
                "rhumb_rpc_server_call_duration_seconds_count{method=\"shop.Add\",outcome=\"handler\"} 1",
                "rhumb_rpc_client_call_duration_seconds_count{method=\"shop.Take\",outcome=\"deadline\"} 1",
                "rhumb_rpc_client_call_duration_seconds_count{method=\"shop.Take\",outcome=\"abandoned\"} 1",
            ]
        );
    }

    #[test]
    fn names_that_nobody_serves_are_one_series_together() {
        let calls = Arc::new(Calls::default());
        for i in 0..2_000 {
            drop(calls.arrived(&request(&format!("made.Up{i}"), Kind::Ask), Answer::here().0, || false));
        }
        let only = "rhumb_rpc_server_call_duration_seconds_count{method=\"_other\",outcome=\"handler\"} 2000";
        assert_eq!(series(&calls), [only]);
        for i in 0..2_000 {
            drop(calls.arrived(&request(&format!("real.Name{i}"), Kind::Ask), Answer::here().0, || true));
        }
        assert_eq!(series(&calls).len(), MAX_METHODS, "and there is an end to those that are served");
    }

    #[test]
    fn of_told_messages_those_that_were_not_taken_up_are_counted() {
        let calls = Arc::new(Calls::default());
        let tell = || calls.arrived(&request("shop.Tell", Kind::Tell), Answer::to_nobody(), || true);
        tell().fault(Fault::not_sent(FaultKind::UnknownMessage("shop.Tell".into())));
        tell().fault(Fault::ran(FaultKind::Draining));
        drop(tell());
        assert_eq!(series(&calls), ["rhumb_tells_refused_total{reason=\"unknown_message\"} 1"]);
    }

    #[test]
    fn connections_that_were_turned_away_are_counted_by_reason() {
        let calls = Calls::default();
        calls.turned_away(&ConnectError::Identity(IdentityError::Revoked));
        calls.turned_away(&ConnectError::Identity(IdentityError::Revoked));
        calls.turned_away(&ConnectError::Duplicate);
        let want = [("duplicate", 1), ("revoked", 2)];
        let want = want.map(|(of, n)| format!("rhumb_connections_turned_away_total{{reason=\"{of}\"}} {n}"));
        assert_eq!(series(&calls), want);
    }

    #[test]
    fn every_fault_has_an_outcome_of_its_own() {
        let known = include_str!("../client/mod.rs");
        let codes = known.split("pub fn fault_code").nth(1).expect("it is there");
        let codes = codes.split("\n}").next().expect("it ends");
        let codes: Vec<&str> = codes.split('"').skip(1).step_by(2).collect();
        assert_eq!(codes, OUTCOMES[1..]);
    }
}
