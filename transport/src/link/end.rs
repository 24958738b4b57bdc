//! Why a connection ended, whatever carried it.

use std::time::Duration;

use thiserror::Error;

use crate::envelope::Broken;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum End {
    #[error("{0}")]
    Lost(String),
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    #[error("the peer did not read lane {0} for too long")]
    Stalled(usize),
    #[error("the peer broke the framing: {0}")]
    Broken(#[from] Broken),
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    #[error("a newer connection took over")]
    Replaced,
    #[error("the peer's certificate was revoked")]
    Revoked,
    #[error("the peer's certificate has expired")]
    Expired,
    #[error("the peer's certificate is not believed any more: {0}")]
    Disbelieved(String),
    #[error("this node failed: {0}")]
    Internal(String),
}
