//! Keeps what a running node is certified with, and what it believes of others, as its source says.
//!
//! * It decides: what to say, and what is remembered of it. What is taken up, [`Credentials::renewed`] decides.
//! * It never does: end a connection, but those of certificates that are not believed any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_actors::audit::record::{self, Record};
use rhumb_transport::identity::{Age, Outcome, Renewal};
use rhumb_transport::{Certificate, Credentials, Transport};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::audit::Audited;
use super::source::{Arrived, Source};
use crate::clock::now_millis;
use crate::fleet::renew_at;
use crate::mesh::Mesh;

/// How often the same is said of a certificate that ends soon.
const REMIND_EVERY: Duration = Duration::from_secs(3600);

/// What happens to a node's certificate. The names are stable: names are added, never changed.
pub(super) const EVENTS: [&str; 6] = [
    "certificate.due",
    "certificate.refused",
    "certificate.renewed",
    "certificate.rolled_back",
    "connection.closed",
    "trust.changed",
];

/// A running node's credentials. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Own(Arc<Held>);

struct Held {
    credentials: ArcSwap<Credentials>,
    told: Mutex<Told>,
    changed: Notify,
}

/// What is told of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Why what was found last was refused.
    pub(super) refused: Option<String>,
    /// Which generation of its folder it is.
    pub(super) generation: Option<u64>,
    /// How often each of [`EVENTS`] has happened.
    pub(super) events: BTreeMap<&'static str, u64>,
}

impl Own {
    pub(super) fn of(credentials: Credentials) -> Self {
        let credentials = ArcSwap::from_pointee(credentials);
        Self(Arc::new(Held { credentials, told: Mutex::default(), changed: Notify::new() }))
    }

    /// What is in force.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        self.0.credentials.load_full()
    }

    /// The certificate in force, and the seconds that it has left.
    pub(super) fn certificate(&self) -> (Certificate, i64) {
        let certificate = self.credentials().certificate().clone();
        let left = certificate.left(now_s());
        (certificate, left)
    }

    /// What is told of it.
    pub(super) fn told(&self) -> Told {
        self.0.told.lock().clone()
    }

    fn count(&self, event: &'static str, by: u64) {
        *self.0.told.lock().events.entry(event).or_default() += by;
    }
}

/// Follows the source for as long as the node lives.
pub(super) fn follow(
    own: Own,
    mut source: Box<dyn Source>,
    transport: Transport,
    mesh: Mesh,
    audited: Audited,
) -> JoinHandle<()> {
    let mut follower =
        Follower { own: own.clone(), transport, mesh, audited, said: (String::new(), String::new()) };
    tokio::spawn(async move {
        let follow = async {
            loop {
                follower.look(&source.next().await);
            }
        };
        tokio::join!(follow, remind(&own));
    })
}

struct Follower {
    own: Own,
    transport: Transport,
    mesh: Mesh,
    audited: Audited,
    /// Why certificate and trust were refused when they were last looked at.
    said: (String, String),
}

impl Follower {
    fn look(&mut self, arrived: &Arrived) {
        let now = Duration::from_millis(now_millis());
        let renewal = self.own.credentials().renewed(&arrived.found.reading(), now);
        let what = [
            "the certificate found is refused; the old one stays",
            "the authorities or revocations found are refused",
        ];
        let refused = [(&mut self.said.0, &renewal.identity), (&mut self.said.1, &renewal.trust)];
        for ((said, outcome), what) in refused.into_iter().zip(what) {
            if say_once(said, outcome, what) {
                self.own.count("certificate.refused", 1);
                self.audited
                    .saw(|| told("certificate.refused", record::Outcome::Refused).with("why", said.as_str()));
            }
        }
        let before = {
            let mut told = self.own.0.told.lock();
            let reasons = [&self.said.0, &self.said.1].into_iter().filter(|reason| !reason.is_empty());
            told.refused = reasons.cloned().reduce(|all, one| format!("{all}; {one}"));
            std::mem::replace(&mut told.generation, arrived.generation)
        };
        if renewal.identity == Outcome::Taken || renewal.trust == Outcome::Taken {
            let back = before.zip(arrived.generation).is_some_and(|(before, now)| now < before);
            self.take(renewal, arrived.why.as_deref().filter(|_| back), back);
        }
    }

    fn take(&self, renewal: Renewal, why: Option<&str>, back: bool) {
        let closed = match self.transport.renew(&renewal.credentials) {
            Ok(closed) => closed,
            Err(error) => return tracing::error!(%error, "a renewed certificate could not be used"),
        };
        let event = match (&renewal.identity, back) {
            (Outcome::Taken, true) => "certificate.rolled_back",
            (Outcome::Taken, false) => "certificate.renewed",
            _ => "trust.changed",
        };
        let certificate = renewal.credentials.certificate();
        let trust = renewal.credentials.trust();
        let revoked: usize = trust.lists().iter().map(|list| list.revoked.len()).sum();
        tracing::info!(
            event,
            serial = %certificate.serial,
            days_left = certificate.left(now_s()) / (24 * 3600),
            authorities = trust.authorities().count(),
            revoked,
            closed,
            why,
            "new handshakes go by what the certificate's source says now"
        );
        self.own.count(event, 1);
        self.audited.saw(|| {
            told(event, record::Outcome::Done)
                .on(format!("certificate {}", certificate.serial))
                .with("authorities", trust.authorities().count().to_string())
                .with("revoked", revoked.to_string())
                .with("closed", closed.to_string())
        });
        if closed > 0 {
            self.own.count("connection.closed", closed as u64);
        }
        if let Some(tracer) = self.mesh.tracer() {
            tracer.incident("certificate taken up", Vec::new());
        }
        self.own.0.credentials.store(Arc::new(renewal.credentials));
        self.own.0.changed.notify_one();
    }
}

/// Speaks up while the certificate is due to be renewed, ends soon, or does not do any more: who issues one is
/// somebody else.
async fn remind(own: &Own) {
    loop {
        let (credentials, now) = (own.credentials(), now_s());
        let (certificate, left) = own.certificate();
        let days_left = left / (24 * 3600);
        if let Err(error) = credentials.verify(Duration::from_millis(now_millis())) {
            tracing::error!(serial = %certificate.serial, %error, "peers will refuse this node: renew it now");
        } else if certificate.age(now) == Age::Wearing {
            tracing::warn!(event = "certificate.due", serial = %certificate.serial, days_left, "the certificate ends soon: renew it");
            own.count("certificate.due", 1);
        } else if now >= renew_at(&certificate) {
            tracing::warn!(event = "certificate.due", serial = %certificate.serial, days_left, "the certificate is due to be renewed");
            own.count("certificate.due", 1);
        }
        let until_due = Duration::from_secs(u64::try_from(renew_at(&certificate) - now).unwrap_or_default());
        let wait = if until_due.is_zero() { REMIND_EVERY } else { until_due.min(REMIND_EVERY) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = own.0.changed.notified() => {}
        }
    }
}

fn told(event: &str, outcome: record::Outcome) -> Record {
    Record::told(event, "the certificate's source", outcome)
}

fn now_s() -> i64 {
    (now_millis() / 1000) as i64
}

/// Says why something was refused, once for each reason. Whether it was said now.
fn say_once(said: &mut String, outcome: &Outcome, what: &str) -> bool {
    let reason = match outcome {
        Outcome::Refused(reason) => reason.as_str(),
        Outcome::Same | Outcome::Taken => "",
    };
    let is_new = reason != said && !reason.is_empty();
    if is_new {
        tracing::warn!(event = "certificate.refused", reason, "{what}");
    }
    reason.clone_into(said);
    is_new
}
