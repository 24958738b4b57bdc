//! What nodes say to each other, and how fast.

use super::{GIB, KIB, MIB, MINUTE, SECOND, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{bytes, count, millis};

pub(super) const TRANSPORT: Section = Section {
    name: "transport",
    what: "Connections to peers, clients and operators.",
    keys: &[
        Key::new(
            "transport.lanes",
            count(1, 64, "lanes"),
            field!(transport.lanes),
            "Ordered streams in each direction of a connection. Both sides use the smaller of their numbers.",
        ),
        Key::new(
            "transport.stream_window",
            bytes(64 * KIB, 64 * MIB),
            field!(transport.stream_window),
            "Bytes that a peer may send on one stream ahead of its reader.",
        ),
        Key::new(
            "transport.connection_window",
            bytes(192 * KIB, GIB),
            field!(transport.connection_window),
            "Bytes that a peer may send on one connection ahead of its readers.",
        ),
        Key::new(
            "transport.send_window",
            bytes(64 * KIB, GIB),
            field!(transport.send_window),
            "Bytes written and not yet acknowledged, each connection.",
        ),
        Key::new(
            "transport.idle_timeout",
            millis(SECOND, 10 * MINUTE),
            field!(transport.idle_timeout),
            "A connection without any packet for this long is gone.",
        ),
        Key::new(
            "transport.probe_interval",
            millis(20, MINUTE),
            field!(transport.probe_interval),
            "How often a peer is probed.",
        ),
        Key::new(
            "transport.silence_limit",
            millis(100, 5 * MINUTE),
            field!(transport.silence_limit),
            "A peer without any authenticated packet for this long is frozen: calls to it fail.",
        ),
        Key::new(
            "transport.stall_limit",
            millis(SECOND, 10 * MINUTE),
            field!(transport.stall_limit),
            "A peer that is heard, but does not read a lane for this long, is disconnected. A large frame of which \
             nothing comes for this long is given up.",
        ),
        Key::new(
            "transport.handshake_timeout",
            millis(500, MINUTE),
            field!(transport.handshake_timeout),
            "From a connection's first packet to the end of its HELLO; then as long again until its lanes are open.",
        ),
        Key::new(
            "transport.connect_backoff_min",
            millis(10, MINUTE),
            field!(transport.connect_backoff_min),
            "The first delay between attempts to connect.",
        ),
        Key::new(
            "transport.connect_backoff_max",
            millis(10, 10 * MINUTE),
            field!(transport.connect_backoff_max),
            "The longest delay between attempts to connect.",
        ),
        Key::new(
            "transport.refresh_spread",
            millis(0, 10 * MINUTE),
            field!(transport.refresh_spread),
            "Over how long connections are made anew after a certificate was renewed.",
        ),
        Key::new(
            "transport.max_frame",
            bytes(KIB, MIB),
            field!(transport.max_frame),
            "The largest frame on a lane. Larger ones, and answers over 64 KiB, have a stream of their own, behind the lanes.",
        ),
        Key::new(
            "transport.max_large_frame",
            bytes(KIB, 16 * MIB),
            field!(transport.max_large_frame),
            "The largest frame on a stream of its own.",
        ),
        Key::new(
            "transport.large_streams",
            count(1, 1_024, "streams"),
            field!(transport.large_streams),
            "Streams of their own that a peer may have open at once, and as many again for answers.",
        ),
        Key::new(
            "transport.large_buffer",
            bytes(KIB, 16 * GIB),
            field!(transport.large_buffer),
            "Bytes of frames on streams of their own that have come in part, from all peers together: of clients and \
             operators half, of one of them a quarter. At least four times the largest frame.",
        ),
        Key::new(
            "transport.lane_queue",
            count(1, 1_000_000, "messages"),
            field!(transport.lane_queue),
            "Messages that may wait on one lane; beyond it calls are refused as full.",
        ),
        Key::new(
            "transport.lane_queue_bytes",
            bytes(KIB, GIB),
            field!(transport.lane_queue_bytes),
            "Bytes that may wait on one lane.",
        ),
        Key::new(
            "transport.in_flight",
            count(1, 1_000_000, "calls"),
            field!(transport.in_flight),
            "Calls that wait for an answer, and answers owed, for each connection and direction.",
        ),
        Key::new(
            "transport.in_flight_bytes",
            bytes(KIB, 16 * GIB),
            field!(transport.in_flight_bytes),
            "Bytes of messages that wait to be handled, and of answers on streams of their own that wait to be read, \
             for each peer and direction; beyond it calls are refused as full.",
        ),
        Key::new(
            "transport.in_flight_bytes_all",
            bytes(2 * KIB, 64 * GIB),
            field!(transport.in_flight_bytes_all),
            "The same of all peers together, for each direction: of clients and operators half. At least twice what \
             each may have.",
        ),
        Key::new(
            "transport.handshakes",
            count(1, 65_536, "handshakes"),
            field!(transport.handshakes),
            "Handshakes under way at once: half of them of addresses that are not validated; of the rest one address \
             has half. Half as many again are for the addresses of other nodes alone.",
        ),
        Key::new(
            "transport.max_incoming",
            count(1, 65_536, "connections"),
            field!(transport.max_incoming),
            "Connections that may wait to be accepted.",
        ),
        Key::new(
            "transport.max_clients",
            count(1, 1_000_000, "connections"),
            field!(transport.max_clients),
            "Connections of clients and operators, half of them at most of one. 16 more are for operators alone.",
        ),
        Key::new(
            "transport.socket_buffer",
            bytes(64 * KIB, GIB),
            field!(transport.socket_buffer),
            "Bytes asked of the operating system for each buffer of the UDP socket.",
        ),
    ],
};
