//! What touches sockets: QUIC by quinn, TLS by rustls. The decisions are made in the pure modules of
//! this room; these files move bytes, keep timers, and hold the handles.
//!
//! One connection between two nodes carries a control stream (HELLO, GOAWAY, cancellations), lanes
//! (long-lived streams of frames, one direction each) and streams of their own for what is too large
//! for a lane. FIN is never the end of a message, and a stream dropped in the middle is reset.

mod accept;
mod certificate;
mod client;
mod close;
mod config;
mod greeting;
mod guests;
mod keep;
mod slot;
mod socket;
mod stream;
mod tasks;
mod thread;
mod transport;
mod wire;

pub use client::{Client, Expect};
pub use transport::Transport;

/// A link over a QUIC connection.
pub(crate) type Link = crate::link::Link<quinn::Connection>;

/// The application protocol in TLS.
pub const ALPN: &[u8] = b"rhumb/1";
