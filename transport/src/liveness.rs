//! Whether a peer is still heard.
//!
//! * It decides: when a peer has been silent for too long. Any authenticated packet counts, not a
//!   message in a queue behind others.
//! * It never does: probe, or say anything of the peer's region: a frozen peer fails calls, no more.
//! * Invariant: time during which *this* process did not run is not counted as the peer's silence.

use std::time::Duration;

use rhumb_core::Mono;

/// Watches a counter of authenticated frames from one peer.
#[derive(Debug)]
pub struct Silence {
    limit: Duration,
    interval: Duration,
    frames: u64,
    heard: Mono,
    looked: Mono,
}

impl Silence {
    /// A watch that is looked at every `interval` and gives up after `limit`.
    #[must_use]
    pub fn new(now: Mono, interval: Duration, limit: Duration) -> Self {
        Self { limit, interval, frames: 0, heard: now, looked: now }
    }

    /// Looks at the counter. `Some` is how long the peer has been silent, when that is too long.
    pub fn look(&mut self, now: Mono, frames: u64) -> Option<Duration> {
        let late = now.since(self.looked).saturating_sub(self.interval * 2);
        self.looked = now;
        self.heard = self.heard.plus(late);
        if frames != self.frames {
            self.frames = frames;
            self.heard = now;
        }
        let silent = now.since(self.heard);
        (silent >= self.limit).then_some(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(300);
    const LIMIT: Duration = Duration::from_millis(1500);

    #[test]
    fn a_peer_that_is_heard_is_never_silent() {
        let mut silence = Silence::new(Mono::default(), INTERVAL, LIMIT);
        for tick in 1..100 {
            assert_eq!(silence.look(Mono::millis(tick * 300), tick / 3), None);
        }
    }

    #[test]
    fn a_peer_that_stops_is_silent_after_the_limit() {
        let mut silence = Silence::new(Mono::default(), INTERVAL, LIMIT);
        assert_eq!(silence.look(Mono::millis(300), 7), None);
        let noticed = (2..20).find(|tick| silence.look(Mono::millis(tick * 300), 7).is_some());
        assert_eq!(noticed, Some(6), "heard last at 300 ms, silent for 1500 ms at 1800 ms");
    }

    #[test]
    fn a_pause_of_this_process_is_not_the_peers_silence() {
        let mut silence = Silence::new(Mono::default(), INTERVAL, LIMIT);
        assert_eq!(silence.look(Mono::millis(300), 7), None);
        assert_eq!(silence.look(Mono::millis(60_300), 7), None, "stopped for a minute, then looks");
        assert_eq!(silence.look(Mono::millis(60_600), 7), None);
        let silent = (3..10).any(|tick| silence.look(Mono::millis(60_000 + tick * 300), 7).is_some());
        assert!(silent, "but a peer that stays silent is noticed");
    }
}
