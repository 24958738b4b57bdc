//! Durable holds, by whatever keeps them: refuse below zero, remember the idempotency key, note the expiry,
//! and answer when all of that would survive a power cut.
//!
//! | system | what it does for one hold |
//! |---|---|
//! | `rhumb` | the whole path: client, QUIC, mutual TLS, gates, `EscrowRegion`, RocksDB, fsync |
//! | `redis` | [`redis::SCRIPT`], with `appendfsync always`, over plain TCP |
//! | `postgres` | [`postgres::SCHEMA`]'s function in a transaction, fsync on, over plain TCP |
//! | `floor` | framed QUIC with mutual TLS into synced RocksDB batches of records of the same sizes |

pub mod floor;
pub mod postgres;
pub mod redis;
pub mod rhumb;
pub mod server;
pub mod window;

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Units in the pool of this bench: none is ever sold out.
pub const SUPPLY: u64 = 1 << 40;
/// How long a hold lasts, in milliseconds, where a server is told.
pub const TTL_MS: u64 = 300_000;

/// How holds are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldLoad {
    /// Holds in flight.
    pub concurrency: usize,
    /// Each on a connection of its own; all on one otherwise.
    pub each: bool,
    /// How long, in milliseconds.
    pub millis: u64,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Holder {
    /// This project's client.
    Rhumb,
    /// Of Redis.
    Redis,
    /// Of PostgreSQL.
    Postgres,
    /// The server of the floor; whoever drives framed streams drives it.
    FloorServer,
}

impl Holder {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb => "rhumb",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::FloorServer => "floor-server",
        }
    }

    /// Does its part until standard input closes.
    ///
    /// # Errors
    /// It cannot.
    pub fn run(self, dir: &Path, address: &str) -> anyhow::Result<()> {
        let one = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        match self {
            Self::Rhumb => one()?.block_on(rhumb::drive(dir)),
            Self::Redis => one()?.block_on(redis::drive(address)),
            Self::Postgres => one()?.block_on(postgres::drive(address)),
            Self::FloorServer => one()?.block_on(floor::serve(dir)),
        }
    }
}

/// A key that was never used: as many random letters as in a key of Rhumb's clients.
#[derive(Debug)]
pub struct Keys {
    run: u64,
    next: u64,
}

impl Default for Keys {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { run: RandomState::new().hash_one(std::process::id()), next: 0 }
    }
}

impl Keys {
    /// The next one, of 24 letters.
    pub fn next(&mut self) -> [u8; 24] {
        self.next += 1;
        let text = format!("{:016x}{:08x}", self.run, self.next);
        text.as_bytes().try_into().expect("24 letters")
    }
}
