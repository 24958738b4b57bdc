//! What the service manager is told (`sd_notify(3)`): nothing where there is none.
//!
//! * It never does: fail. A service manager that cannot be told is a line in the log.

use std::time::Duration;

use sd_notify::NotifyState;

/// Whether somebody listens.
pub(super) fn is_heard() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The node can serve.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// One line of how it stands.
pub(super) fn status(text: &str) {
    tell(&[NotifyState::Status(&text.replace('\n', " "))]);
}

/// The ordered stop has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Settings are being read anew; to be followed by [`ready`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// The settings were read, or refused.
pub(crate) fn reloaded() {
    ready();
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
