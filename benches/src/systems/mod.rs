//! The systems that are measured, a file each. Each knows how to stand on either side of a connection:
//! it serves, or it drives.

pub mod coerce;
pub mod floor;
pub mod kameo;
pub mod ractor;
pub mod rhumb;
pub mod telepathy;
pub mod tonic;

use std::net::Ipv4Addr;
use std::path::Path;

use crate::caller::{Caller, Pace, closed_loop, freeze, tell_loop};
use crate::process::{Orders, say};
use crate::protocol::{Apart, Echoes};
use crate::sample::{Load, Verb};

/// A system that can be asked by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// This project's.
    Rhumb,
    /// This project's, with its actors on threads of their own.
    RhumbApart,
    /// This project's, each tell of which is waited for alone.
    RhumbAwaited,
    /// One framed quinn stream with mutual TLS, no actor, no task a request.
    QuinnFramed,
    /// A quinn stream a request with mutual TLS, no actor.
    QuinnStreams,
    /// gRPC with mutual TLS.
    Tonic,
    /// ractor_cluster with mutual TLS.
    #[value(name = "ractor_cluster")]
    Ractor,
    /// kameo over libp2p's QUIC.
    Kameo,
    /// gRPC, on a runtime of one thread a side.
    TonicOne,
    /// ractor_cluster, likewise.
    #[value(name = "ractor_cluster-one")]
    RactorOne,
    /// kameo, likewise.
    KameoOne,
    /// coerce, likewise.
    CoerceOne,
    /// actix-telepathy over plain TCP.
    #[value(name = "actix-telepathy")]
    Telepathy,
    /// coerce over plain TCP.
    Coerce,
}

/// Peers on the other kind of runtime: bars count against the better of both.
pub const OTHERWISE: [System; 4] = [System::TonicOne, System::RactorOne, System::KameoOne, System::CoerceOne];

impl System {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb => "rhumb",
            Self::RhumbApart => "rhumb-apart",
            Self::RhumbAwaited => "rhumb-awaited",
            Self::QuinnFramed => "quinn-framed",
            Self::QuinnStreams => "quinn-streams",
            Self::Tonic => "tonic",
            Self::Ractor => "ractor_cluster",
            Self::Kameo => "kameo",
            Self::TonicOne => "tonic-one",
            Self::RactorOne => "ractor_cluster-one",
            Self::KameoOne => "kameo-one",
            Self::CoerceOne => "coerce-one",
            Self::Telepathy => "actix-telepathy",
            Self::Coerce => "coerce",
        }
    }

    /// What a reader must know to compare.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::Rhumb | Self::RhumbAwaited => "QUIC, mutual TLS; gates, deadlines, context, metrics on",
            Self::RhumbApart => {
                "the same, its actors not on the thread of their links, but where they are by default"
            }
            Self::QuinnFramed => "floor: QUIC, mutual TLS, one framed stream, a loop and no actor",
            Self::QuinnStreams => "floor: QUIC, mutual TLS, a stream a request, no actor",
            Self::Tonic => {
                "HTTP/2, mutual TLS, windows of 8 MiB a stream and 32 MiB a connection; no actor, no mailbox"
            }
            Self::Ractor => "TCP, mutual TLS",
            Self::Kameo => "QUIC with libp2p's own identities; limits of streams raised to 1,000,000",
            Self::Telepathy => {
                "PLAIN TCP: nothing is encrypted, Nagle's algorithm on; it has no ask, so that one is two tells"
            }
            Self::Coerce => "PLAIN TCP: nothing is encrypted, Nagle's algorithm on",
            Self::TonicOne | Self::RactorOne | Self::KameoOne | Self::CoerceOne => {
                "the same on a runtime of one thread a side"
            }
        }
    }

    /// Serves until standard input closes; says where, once it does.
    ///
    /// # Errors
    /// It cannot.
    pub fn serve(self, dir: &Path) -> anyhow::Result<()> {
        match self {
            Self::Rhumb | Self::RhumbApart | Self::RhumbAwaited => {
                anyhow::bail!("rhumb is served by bench-node")
            }
            Self::QuinnFramed => current_thread()?.block_on(floor::serve_framed(dir)),
            Self::QuinnStreams => current_thread()?.block_on(floor::serve_streams(dir)),
            Self::Tonic => many_threads()?.block_on(tonic::serve(dir)),
            Self::TonicOne => current_thread()?.block_on(tonic::serve(dir)),
            Self::Ractor => many_threads()?.block_on(ractor::serve(dir)),
            Self::RactorOne => current_thread()?.block_on(ractor::serve(dir)),
            Self::Kameo => many_threads()?.block_on(kameo::serve(dir)),
            Self::KameoOne => current_thread()?.block_on(kameo::serve(dir)),
            Self::Telepathy => actix::System::new().block_on(telepathy::serve(dir)),
            Self::Coerce => many_threads()?.block_on(coerce::serve(dir)),
            Self::CoerceOne => current_thread()?.block_on(coerce::serve(dir)),
        }
    }

    /// Drives what serves at an address, as ordered, until standard input closes.
    ///
    /// # Errors
    /// It cannot.
    pub fn drive(self, dir: &Path, address: &str) -> anyhow::Result<()> {
        match self {
            Self::Rhumb => current_thread()?.block_on(rhumb::drive::<Echoes>(dir, true)),
            Self::RhumbApart => current_thread()?.block_on(rhumb::drive::<Apart>(dir, true)),
            Self::RhumbAwaited => current_thread()?.block_on(rhumb::drive::<Echoes>(dir, false)),
            Self::QuinnFramed => current_thread()?.block_on(floor::drive_framed(dir, address)),
            Self::QuinnStreams => current_thread()?.block_on(floor::drive_streams(dir, address)),
            Self::Tonic => many_threads()?.block_on(tonic::drive(dir, address)),
            Self::TonicOne => current_thread()?.block_on(tonic::drive(dir, address)),
            Self::Ractor => many_threads()?.block_on(ractor::drive(dir, address)),
            Self::RactorOne => current_thread()?.block_on(ractor::drive(dir, address)),
            Self::Kameo => many_threads()?.block_on(kameo::drive(dir, address)),
            Self::KameoOne => current_thread()?.block_on(kameo::drive(dir, address)),
            Self::Telepathy => actix::System::new().block_on(telepathy::drive(dir, address)),
            Self::Coerce => many_threads()?.block_on(coerce::drive(dir, address)),
            Self::CoerceOne => current_thread()?.block_on(coerce::drive(dir, address)),
        }
    }
}

fn current_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn many_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// A port for a system that cannot be given one of the operating system's choice.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Obeys orders with the loops that all systems have in common.
pub(crate) async fn obey<C: Caller>(caller: std::sync::Arc<C>) -> anyhow::Result<()> {
    say(&"ready")?;
    let (mut orders, mut pace) = (Orders::default(), Pace::default());
    while let Some(load) = orders.next::<Load>().await? {
        let caller = std::sync::Arc::clone(&caller);
        let sample = match load.verb {
            Verb::Ask => tokio::spawn(closed_loop(caller, load)).await?,
            Verb::Tell => tell_loop(&caller, load, &mut pace).await?,
            Verb::Freeze { pid } => freeze(&caller, load, pid).await?,
        };
        say(&sample)?;
    }
    Ok(())
}
