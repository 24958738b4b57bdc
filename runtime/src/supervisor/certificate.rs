//! Keeps what a running node is certified with, and what it believes of others, as its folder says.
//!
//! * It decides: when to look, and what to say. What is taken up, [`Credentials::renewed`] decides.
//! * It never does: end a connection, but those of certificates that were revoked.
//!
//! The folder is looked at every ten seconds, and at once when settings are reloaded (SIGHUP).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rhumb_transport::identity::{Age, Outcome, Renewal};
use rhumb_transport::{Certificate, Credentials, Transport};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::MissedTickBehavior;

use crate::clock::now_millis;
use crate::identity::Found;
use crate::mesh::Mesh;
use crate::secrets::FirstOf;
use crate::settings::Settings;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks between two warnings about the same: an hour.
const REMIND_AFTER: u32 = 360;

/// A running node's credentials. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Own(Arc<ArcSwap<Credentials>>);

impl Own {
    pub(super) fn of(credentials: Credentials) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(credentials)))
    }

    /// What is in force.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        self.0.load_full()
    }

    /// The certificate in force, and the seconds that it has left.
    pub(super) fn certificate(&self) -> (Certificate, i64) {
        let certificate = self.credentials().certificate().clone();
        let left = certificate.left((now_millis() / 1000) as i64);
        (certificate, left)
    }
}

/// Follows the folder for as long as the node lives.
pub(super) fn follow(
    own: Own,
    folder: PathBuf,
    transport: Transport,
    mut reloads: watch::Receiver<Arc<Settings>>,
    mesh: Mesh,
) -> JoinHandle<()> {
    let secrets = Arc::new(FirstOf::environment_and(&folder));
    let mut watch = Follower { own, transport, mesh, said: (String::new(), String::new()), looks: 0 };
    tokio::spawn(async move {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                changed = reloads.changed() => if changed.is_err() { return },
            }
            let (secrets, folder) = (Arc::clone(&secrets), folder.clone());
            match spawn_blocking(move || Found::read(&*secrets, &folder)).await {
                Ok(found) => watch.look(&found),
                Err(panic) => tracing::error!(%panic, "the certificate's folder was not read"),
            }
        }
    })
}

struct Follower {
    own: Own,
    transport: Transport,
    mesh: Mesh,
    /// Why certificate and trust were refused when they were last looked at.
    said: (String, String),
    looks: u32,
}

impl Follower {
    fn look(&mut self, found: &Found) {
        let now = Duration::from_millis(now_millis());
        let renewal = self.own.credentials().renewed(&found.reading(), now);
        say_once(&mut self.said.0, &renewal.identity, "the certificate found is refused; the old one stays");
        say_once(&mut self.said.1, &renewal.trust, "the authorities or revocations found are refused");
        if renewal.identity == Outcome::Taken || renewal.trust == Outcome::Taken {
            self.take(renewal);
            self.looks = 0;
        }
        if self.looks.is_multiple_of(REMIND_AFTER) {
            self.remind(now);
        }
        self.looks += 1;
    }

    fn take(&self, renewal: Renewal) {
        let closed = match self.transport.renew(&renewal.credentials) {
            Ok(closed) => closed,
            Err(error) => return tracing::error!(%error, "a renewed certificate could not be used"),
        };
        let certificate = renewal.credentials.certificate();
        let trust = renewal.credentials.trust();
        let revoked: usize = trust.lists().iter().map(|list| list.revoked.len()).sum();
        tracing::info!(
            serial = %certificate.serial,
            days_left = certificate.left((now_millis() / 1000) as i64) / (24 * 3600),
            authorities = trust.authorities().count(),
            revoked,
            closed,
            "new handshakes go by what the certificate's folder holds now"
        );
        if let Some(tracer) = self.mesh.tracer() {
            tracer.incident("certificate taken up", Vec::new());
        }
        self.own.0.store(Arc::new(renewal.credentials));
    }

    /// Speaks up while the certificate ends soon, or does not do any more.
    fn remind(&self, now: Duration) {
        let credentials = self.own.credentials();
        let (certificate, left) = self.own.certificate();
        let days_left = left / (24 * 3600);
        if let Err(error) = credentials.verify(now) {
            tracing::error!(serial = %certificate.serial, %error, "peers will refuse this node: renew it now");
        } else if certificate.age(now.as_secs() as i64) == Age::Wearing {
            tracing::warn!(serial = %certificate.serial, days_left, "the certificate ends soon: renew it");
        }
    }
}

/// Says why something was refused, once for each reason.
fn say_once(said: &mut String, outcome: &Outcome, what: &str) {
    let reason = match outcome {
        Outcome::Refused(reason) => reason.as_str(),
        Outcome::Same | Outcome::Taken => "",
    };
    if reason != said && !reason.is_empty() {
        tracing::warn!(reason, "{what}");
    }
    reason.clone_into(said);
}
