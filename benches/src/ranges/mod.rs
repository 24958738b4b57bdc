//! Replicated keys and values, by whatever keeps them: three nodes, each a process with a disk of its own directory,
//! every write synced by a majority before its answer.
//!
//! | system | what it is |
//! |---|---|
//! | `rhumb` | three regions of one node each (`bench-node`), with the settings that `rhumb serve` has: QUIC, mutual TLS, gates, fsync |
//! | `etcd` | three members with etcd's own settings; TLS with certificates both ways between members and with clients, fsync on |
//!
//! The client is a process of its own with one thread, [`CONNECTIONS`] connections to each node that it asks, and the same
//! loops for both.

pub mod cluster;
pub mod drive;
pub mod etcd;
pub mod gap;
pub mod mesh;
pub mod page;
pub mod relay;
pub mod rhumb;
pub mod standing;

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of a value.
pub const VALUE: usize = 256;
/// Connections of a client to each node that it asks.
pub const CONNECTIONS: usize = 4;
/// Keys that are written over and over, in a scattered order.
pub const KEYS: u64 = 100_000;
/// Keys that are there before any is read.
pub const FILLED: u64 = 10_000;

/// Who keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keeper {
    /// This project's ranges.
    Rhumb,
    /// etcd.
    Etcd,
}

impl Keeper {
    /// All, in the order of results.
    pub const ALL: [Self; 2] = [Self::Rhumb, Self::Etcd];

    /// Its name on the command line and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb => "rhumb",
            Self::Etcd => "etcd",
        }
    }

    /// What a reader must know to compare.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::Rhumb => {
                "three regions of one node; QUIC, mutual TLS, gates, context, metrics, tokens, fsync on"
            }
            Self::Etcd => {
                "three members, HTTP/2, mutual TLS between them and with clients, its own settings, fsync on"
            }
        }
    }

    /// Drives what stands in a folder, as ordered, until standard input closes.
    ///
    /// # Errors
    /// It cannot connect.
    pub fn drive(self, dir: &Path, targets: &str) -> anyhow::Result<()> {
        let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Rhumb => one.block_on(rhumb::drive(dir, targets)),
            Self::Etcd => one.block_on(etcd::drive(dir, targets)),
        }
    }
}

/// What lies between nodes, besides loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// Relays, so that a node can be cut off.
    Relays,
    /// Relays that delay, lose and jitter as the published matrix of round trips has it; of Rhumb's only.
    Wan,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Writes a key.
    Put,
    /// Reads a key: all that was acknowledged before.
    Strong,
    /// Reads a key at a node that is not the one which orders writes: what is there, five seconds old at most.
    Follower,
}

/// What a client is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Writes keys `0..keys`, each once.
    Fill {
        /// How many.
        keys: u64,
        /// Bytes of each value.
        bytes: usize,
    },
    /// Keeps so many under way for so long.
    Load {
        /// What is done.
        verb: Verb,
        /// How many at once.
        concurrency: usize,
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Writes one key after the other, whatever becomes of those before, until writes go on after a fault.
    Probe,
    /// The fault has been made.
    Faulted,
}

/// A key's bytes: 16 of them.
#[must_use]
pub fn key(number: u64) -> Vec<u8> {
    format!("key-{number:012}").into_bytes()
}

/// A value that no compressor makes smaller.
#[must_use]
pub fn value(serial: u64, bytes: usize) -> Vec<u8> {
    let mut word = serial.wrapping_mul(2) | 1;
    let mut value = Vec::with_capacity(bytes + 7);
    while value.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        value.extend_from_slice(&word.to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// The number of the n-th key of a walk over so many in which neighbours are far apart.
#[must_use]
pub fn scattered(n: u64, keys: u64) -> u64 {
    // A prime that divides none of the numbers of keys used here: each key comes once before any comes again.
    n.wrapping_mul(7_919) % keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_comes_by_every_key_once() {
        for keys in [FILLED, KEYS] {
            let mut seen: Vec<u64> = (0..keys).map(|n| scattered(n, keys)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..keys), "{keys}");
        }
        assert_eq!(key(7), b"key-000000000007");
    }

    #[test]
    fn values_are_as_long_as_they_should_be_and_differ() {
        assert_eq!((value(1, VALUE).len(), value(1, 3).len()), (VALUE, 3));
        assert_ne!(value(2, 64), value(3, 64));
    }
}
