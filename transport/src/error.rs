//! Why there is no transport, or no connection.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::hello::HelloRefusal;
use crate::identity::{CredentialsError, IdentityError};
use crate::settings::SettingsError;

/// Why a transport cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("cannot listen on UDP {addr}: {source}")]
    Socket {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate and what the node says of itself do not agree.
    #[error("{0}")]
    Identity(String),
}

/// Why a connection did not come to be, on either side of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// This side refuses the peer's certificate.
    #[error("the peer's certificate is refused: {0}")]
    Identity(IdentityError),
    /// The peer refuses this side's certificate; what it said.
    #[error("the peer refuses this side's certificate: {0}")]
    IdentityRefused(IdentityError),
    /// The peer does not speak `rhumb/1`.
    #[error("the peer does not speak rhumb/1: {0}")]
    Protocol(String),
    /// This side refuses the peer's HELLO.
    #[error("refused: {0}")]
    Hello(HelloRefusal),
    /// The peer refuses this side's HELLO.
    #[error("the peer refuses: {0}")]
    HelloRefused(HelloRefusal),
    /// Both sides dialled at once and the other connection stays.
    #[error("the connection that the peer dialled stays")]
    Duplicate,
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The connection was lost before it was one.
    #[error("lost: {0}")]
    Lost(String),
    /// The address cannot be dialled.
    #[error("cannot dial {addr}: {reason}")]
    Dial {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// This side cannot start.
    #[error("cannot start: {0}")]
    Local(String),
}
