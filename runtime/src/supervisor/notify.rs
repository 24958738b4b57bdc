//! What the service manager is told (`sd_notify(3)`): nothing where there is none.
//!
//! * It never does: fail. A service manager that cannot be told is a line in the log.

use std::time::Duration;

use parking_lot::Mutex;
use sd_notify::NotifyState;

/// What the service manager knows: there is one, for the whole process.
static TOLD: Mutex<Told> = Mutex::new(Told { stands: Stands::Starting, status: String::new() });

struct Told {
    stands: Stands,
    status: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Starting,
    Ready,
    Stopping,
}

/// Whether somebody listens.
pub(super) fn is_heard() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// A life begins.
pub(super) fn starting() {
    TOLD.lock().stands = Stands::Starting;
}

/// The node can serve, unless it stops already.
pub(super) fn ready() {
    let mut told = TOLD.lock();
    if told.stands != Stands::Stopping {
        told.stands = Stands::Ready;
        tell(&[NotifyState::Ready]);
    }
}

/// One line of how it stands.
pub(super) fn status(text: &str) {
    TOLD.lock().status(text);
}

/// The same, unless the ordered stop has begun, which has lines of its own.
pub(super) fn status_until_stop(text: &str) {
    let mut told = TOLD.lock();
    if told.stands != Stands::Stopping {
        told.status(text);
    }
}

impl Told {
    /// Tells the line, unless it was the last.
    fn status(&mut self, text: &str) {
        let text = text.replace('\n', " ");
        if text != self.status {
            tell(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }
}

/// The ordered stop has begun.
pub(super) fn stopping() {
    TOLD.lock().stands = Stands::Stopping;
    tell(&[NotifyState::Stopping]);
}

/// Settings are being read anew; to be followed by [`reloaded`]. A node that has never been ready, or that
/// stops, says nothing: what follows would say that it is ready.
pub(crate) fn reloading() {
    let told = TOLD.lock();
    if told.stands != Stands::Ready {
        return;
    }
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// The settings were read, or refused.
pub(crate) fn reloaded() {
    let told = TOLD.lock();
    if told.stands == Stands::Ready {
        tell(&[NotifyState::Ready]);
    }
}

/// The watchdog is content.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// What is under way takes so much longer.
pub(super) fn extend(by: Duration) {
    let more = by + Duration::from_secs(30);
    tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(more.as_micros()).unwrap_or(u32::MAX))]);
}

/// How often the service manager wants to hear [`alive`].
pub(super) fn wants_alive() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
