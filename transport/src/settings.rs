//! The transport's numbers, in one place: each says its unit and its default.

use std::time::Duration;

use rhumb_core::limits::MAX_FRAME_BYTES;
use thiserror::Error;

use crate::codec::MAX_ENCODED_BYTES;

/// Lanes that a node accepts from a peer at most.
pub const MAX_LANES: u16 = 64;

/// Settings of a transport or a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSettings {
    /// Lanes per direction of a connection (8). Both sides use the smaller of their numbers.
    pub lanes: u16,
    /// Bytes a peer may send on one stream ahead of its reader (2 MiB).
    pub stream_window: u32,
    /// Bytes a peer may send on one connection ahead of its readers (32 MiB). At least
    /// (lanes + 2) × stream window, so that no stalled lane stops the others.
    pub connection_window: u32,
    /// Bytes written but not yet acknowledged, per connection (4 MiB).
    pub send_window: u64,
    /// A connection without any packet for this long is gone (15 s).
    pub idle_timeout: Duration,
    /// How often a peer is probed by a QUIC datagram (300 ms).
    pub probe_interval: Duration,
    /// A peer without any authenticated packet for this long is frozen: its calls fail (1.5 s).
    pub silence_limit: Duration,
    /// A peer that is heard but does not read a lane for this long is closed (30 s): its reader hangs. A large
    /// frame of which nothing comes for this long is given up.
    pub stall_limit: Duration,
    /// From the first packet to HELLO_ACK (5 s); then as long again until the lanes are open.
    pub handshake_timeout: Duration,
    /// The first delay between attempts to connect (50 ms).
    pub connect_backoff_min: Duration,
    /// The longest delay between attempts to connect (2 s).
    pub connect_backoff_max: Duration,
    /// Over how long connections are made anew after this node's certificate was renewed (2 s), so that not
    /// all are at once.
    pub refresh_spread: Duration,
    /// Bytes of one frame on a lane, header included (1 MiB). Larger ones, and answers over 64 KiB, have a stream
    /// of their own, behind the lanes.
    pub max_frame: usize,
    /// Bytes of one frame on a stream of its own, header included (16 MiB).
    pub max_large_frame: usize,
    /// Streams of their own that a peer may have open at once (8), and as many again for answers.
    pub large_streams: u16,
    /// Bytes of large frames of which a part has come, from all peers together (256 MiB): of clients and operators
    /// half, of one of them a quarter. At least four large frames.
    pub large_buffer: usize,
    /// Messages waiting on one lane (4096).
    pub lane_queue: usize,
    /// Bytes waiting on one lane (8 MiB).
    pub lane_queue_bytes: usize,
    /// Calls waiting for an answer, and answers owed, per connection and direction (16384).
    pub in_flight: usize,
    /// Bytes of messages that wait to be handled, and of large answers that wait to be read, per principal and
    /// direction (64 MiB). At least one large frame.
    pub in_flight_bytes: usize,
    /// The same of all principals together, per direction (512 MiB): of clients and operators half. At least
    /// twice as much.
    pub in_flight_bytes_all: usize,
    /// Handshakes under way at once (64): half of them of addresses that are not validated; of the rest one
    /// address has half. Half as many again are for the addresses of peers alone.
    pub handshakes: usize,
    /// Connections that wait to be accepted (1024).
    pub max_incoming: usize,
    /// Connections of clients and operators (1024), half of them at most of one. 16 more are for operators alone.
    pub max_clients: usize,
    /// Bytes asked of the operating system for each UDP socket buffer (8 MiB).
    pub socket_buffer: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            lanes: 8,
            stream_window: 2 << 20,
            connection_window: 32 << 20,
            send_window: 4 << 20,
            idle_timeout: Duration::from_secs(15),
            probe_interval: Duration::from_millis(300),
            silence_limit: Duration::from_millis(1500),
            stall_limit: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(5),
            connect_backoff_min: Duration::from_millis(50),
            connect_backoff_max: Duration::from_secs(2),
            refresh_spread: Duration::from_secs(2),
            max_frame: MAX_FRAME_BYTES,
            max_large_frame: MAX_ENCODED_BYTES,
            large_streams: 8,
            large_buffer: 256 << 20,
            lane_queue: 4096,
            lane_queue_bytes: 8 << 20,
            in_flight: 16_384,
            in_flight_bytes: 64 << 20,
            in_flight_bytes_all: 512 << 20,
            handshakes: 64,
            max_incoming: 1024,
            max_clients: 1024,
            socket_buffer: 8 << 20,
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("transport setting {name}: {given} does not do; {wanted}")]
pub struct SettingsError {
    /// The field.
    pub name: &'static str,
    /// Its value.
    pub given: String,
    /// What would do.
    pub wanted: String,
}

impl TransportSettings {
    /// Checks what must hold between the numbers.
    ///
    /// # Errors
    /// [`SettingsError`] names the first field that does not do, and what would.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let check = |ok: bool, name, given: String, wanted: String| {
            if ok { Ok(()) } else { Err(SettingsError { name, given, wanted }) }
        };
        check(
            (1..=MAX_LANES).contains(&self.lanes),
            "lanes",
            self.lanes.to_string(),
            format!("use 1 to {MAX_LANES}"),
        )?;
        let needed = (u64::from(self.lanes) + 2) * u64::from(self.stream_window);
        check(
            needed <= u64::from(self.connection_window) && self.stream_window > 0,
            "connection_window",
            self.connection_window.to_string(),
            format!("use at least (lanes + 2) × stream_window = {needed}, or stalled lanes stop the others"),
        )?;
        check(
            (1024..=MAX_FRAME_BYTES).contains(&self.max_frame),
            "max_frame",
            self.max_frame.to_string(),
            format!("use 1024 to {MAX_FRAME_BYTES} bytes"),
        )?;
        check(
            (self.max_frame..=MAX_ENCODED_BYTES).contains(&self.max_large_frame),
            "max_large_frame",
            self.max_large_frame.to_string(),
            format!("use max_frame to {MAX_ENCODED_BYTES} bytes"),
        )?;
        check(
            self.large_buffer >= 4 * self.max_large_frame,
            "large_buffer",
            self.large_buffer.to_string(),
            format!("use at least 4 × max_large_frame = {} bytes", 4 * self.max_large_frame),
        )?;
        check(
            self.in_flight_bytes >= self.max_large_frame,
            "in_flight_bytes",
            self.in_flight_bytes.to_string(),
            format!("use at least max_large_frame = {} bytes", self.max_large_frame),
        )?;
        check(
            self.in_flight_bytes_all / 2 >= self.in_flight_bytes,
            "in_flight_bytes_all",
            self.in_flight_bytes_all.to_string(),
            format!("use at least 2 × in_flight_bytes = {} bytes", self.in_flight_bytes.saturating_mul(2)),
        )?;
        check(
            !self.probe_interval.is_zero() && self.probe_interval * 3 <= self.silence_limit,
            "silence_limit",
            format!("{:?}", self.silence_limit),
            format!("use at least three probe intervals of {:?}", self.probe_interval),
        )?;
        check(
            self.silence_limit < self.idle_timeout,
            "idle_timeout",
            format!("{:?}", self.idle_timeout),
            format!("use more than the silence limit of {:?}", self.silence_limit),
        )?;
        let bounds = [self.lane_queue, self.lane_queue_bytes, self.in_flight, self.handshakes];
        let more = [self.max_incoming, self.max_clients, usize::from(self.large_streams)];
        let none = || "0".to_owned();
        check(
            bounds.iter().chain(&more).all(|bound| *bound > 0),
            "lane_queue, lane_queue_bytes, in_flight, handshakes, max_incoming, max_clients, large_streams",
            none(),
            "each must be at least 1".to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut TransportSettings)) -> &'static str {
        let mut settings = TransportSettings::default();
        change(&mut settings);
        settings.validate().expect_err("must be refused").name
    }

    #[test]
    fn the_defaults_hold_together() {
        TransportSettings::default().validate().expect("the defaults are valid");
    }

    #[test]
    fn windows_that_would_let_a_stalled_lane_stop_the_others_are_refused() {
        assert_eq!(refused(|s| s.lanes = 15), "connection_window");
        let mut exact = TransportSettings { lanes: 14, ..TransportSettings::default() };
        exact.validate().expect("(14 + 2) × 2 MiB is 32 MiB");
        exact.connection_window -= 1;
        assert!(exact.validate().is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        assert_eq!(refused(|s| s.lanes = 0), "lanes");
        assert_eq!(refused(|s| s.max_frame = MAX_FRAME_BYTES + 1), "max_frame");
        assert_eq!(refused(|s| s.max_large_frame = 10), "max_large_frame");
        assert_eq!(refused(|s| s.large_buffer = 63 << 20), "large_buffer");
        assert_eq!(refused(|s| s.in_flight_bytes = 15 << 20), "in_flight_bytes");
        assert_eq!(refused(|s| s.in_flight_bytes_all = 127 << 20), "in_flight_bytes_all");
        assert_eq!(refused(|s| s.probe_interval = Duration::from_secs(1)), "silence_limit");
        assert_eq!(refused(|s| s.idle_timeout = Duration::from_secs(1)), "idle_timeout");
        assert!(refused(|s| s.in_flight = 0).contains("in_flight"));
    }
}
