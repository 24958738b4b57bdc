//! The systems that are measured, a file each. Each knows how to stand on either side of a connection:
//! it serves, or it drives.

pub mod floor;
pub mod rhumb;
pub mod tonic;

use std::path::Path;

use crate::caller::{Caller, closed_loop};
use crate::process::{Orders, say};
use crate::sample::{Load, Verb};

/// A system that can be asked by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// This project's.
    Rhumb,
    /// One framed quinn stream with mutual TLS, no actor, no task a request.
    QuinnFramed,
    /// A quinn stream a request with mutual TLS, no actor.
    QuinnStreams,
    /// gRPC with mutual TLS.
    Tonic,
}

impl System {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb => "rhumb",
            Self::QuinnFramed => "quinn-framed",
            Self::QuinnStreams => "quinn-streams",
            Self::Tonic => "tonic",
        }
    }

    /// What a reader must know to compare.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::Rhumb => "QUIC, mutual TLS; gates, deadlines, context, metrics on",
            Self::QuinnFramed => "floor: QUIC, mutual TLS, one framed stream, a loop and no actor",
            Self::QuinnStreams => "floor: QUIC, mutual TLS, a stream a request, no actor",
            Self::Tonic => "HTTP/2, mutual TLS",
        }
    }

    /// Serves until standard input closes; says where, once it does.
    ///
    /// # Errors
    /// It cannot.
    pub fn serve(self, dir: &Path) -> anyhow::Result<()> {
        match self {
            Self::Rhumb => anyhow::bail!("rhumb is served by bench-node"),
            Self::QuinnFramed => current_thread()?.block_on(floor::serve_framed(dir)),
            Self::QuinnStreams => current_thread()?.block_on(floor::serve_streams(dir)),
            Self::Tonic => many_threads()?.block_on(tonic::serve(dir)),
        }
    }

    /// Drives what serves at an address, as ordered, until standard input closes.
    ///
    /// # Errors
    /// It cannot.
    pub fn drive(self, dir: &Path, address: &str) -> anyhow::Result<()> {
        match self {
            Self::Rhumb => current_thread()?.block_on(rhumb::drive(dir)),
            Self::QuinnFramed => current_thread()?.block_on(floor::drive_framed(dir, address)),
            Self::QuinnStreams => current_thread()?.block_on(floor::drive_streams(dir, address)),
            Self::Tonic => many_threads()?.block_on(tonic::drive(dir, address)),
        }
    }
}

fn current_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn many_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Obeys orders with the closed loop.
pub(crate) async fn obey<C: Caller>(caller: std::sync::Arc<C>) -> anyhow::Result<()> {
    say(&"ready")?;
    let mut orders = Orders::default();
    while let Some(load) = orders.next::<Load>().await? {
        anyhow::ensure!(load.verb == Verb::Ask, "this system is asked only");
        let sample = tokio::spawn(closed_loop(std::sync::Arc::clone(&caller), load)).await?;
        say(&sample)?;
    }
    Ok(())
}
