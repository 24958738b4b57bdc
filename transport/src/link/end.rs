//! Why a connection ended, whatever carried it.

use std::time::Duration;

use thiserror::Error;

use crate::envelope::Broken;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum End {
    #[error("{0}")]
    Lost(String),
    #[error("the peer closed the connection")]
    Left,
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

/// The end of a link whose peer asks and does not read.
pub(crate) fn unread() -> End {
    End::Protocol("faults wait on a lane, and the peer does not read them".to_owned())
}

impl End {
    /// What an end is counted as, each once.
    pub(crate) const KINDS: [&'static str; 11] = [
        "lost",
        "left",
        "silent",
        "stalled",
        "framing",
        "protocol",
        "replaced",
        "revoked",
        "expired",
        "disbelieved",
        "internal",
    ];

    /// Which of [`End::KINDS`] it is.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Lost(_) => 0,
            Self::Left => 1,
            Self::Silent(_) => 2,
            Self::Stalled(_) => 3,
            Self::Broken(_) => 4,
            Self::Protocol(_) => 5,
            Self::Replaced => 6,
            Self::Revoked => 7,
            Self::Expired => 8,
            Self::Disbelieved(_) => 9,
            Self::Internal(_) => 10,
        }
    }
}
