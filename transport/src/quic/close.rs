//! How connections end: the codes on the wire, and what an end means to this side.

use quinn::{ConnectionError, VarInt};
use rhumb_core::Principal;

use crate::error::ConnectError;
use crate::hello::{HelloRefusal, HelloRefusalKind};
use crate::identity::{IdentityError, Verdict};
use crate::link::End;

/// An orderly end.
pub(crate) const GRACEFUL: VarInt = VarInt::from_u32(0);
/// Both sides dialled; the other connection stays.
pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(1);
/// The peer was silent for too long.
pub(crate) const SILENT: VarInt = VarInt::from_u32(2);
/// The peer's bytes are not this protocol.
pub(crate) const PROTOCOL: VarInt = VarInt::from_u32(3);
/// A newer connection of the same pair took over.
pub(crate) const REPLACED: VarInt = VarInt::from_u32(4);
/// A stream was given up in the middle.
pub(crate) const ABANDONED: VarInt = VarInt::from_u32(5);
/// This side failed.
pub(crate) const INTERNAL: VarInt = VarInt::from_u32(6);

/// The peer's certificate was revoked.
pub(crate) const REVOKED: VarInt = VarInt::from_u32(7);
/// The peer's certificate has expired.
pub(crate) const EXPIRED: VarInt = VarInt::from_u32(8);
/// The peer's authority is not believed any more.
pub(crate) const DISBELIEVED: VarInt = VarInt::from_u32(9);

impl End {
    /// The code with which this side closes.
    pub(crate) fn code(&self) -> VarInt {
        match self {
            Self::Lost(_) | Self::Left => GRACEFUL,
            Self::Silent(_) => SILENT,
            Self::Broken(_) | Self::Protocol(_) | Self::Stalled(_) => PROTOCOL,
            Self::Replaced => REPLACED,
            Self::Revoked => REVOKED,
            Self::Expired => EXPIRED,
            Self::Disbelieved(_) => DISBELIEVED,
            Self::Internal(_) => INTERNAL,
        }
    }

    /// The end of a connection that quinn reports.
    pub(crate) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) if close.error_code == REPLACED => Self::Replaced,
            ConnectionError::ApplicationClosed(close) if close.error_code == GRACEFUL => Self::Left,
            // QUIC's own rules, and this side has seen it.
            ConnectionError::TransportError(broken) => Self::Protocol(broken.to_string()),
            ConnectionError::ApplicationClosed(close) if close.error_code == REVOKED => {
                Self::Lost("the peer says that this side's certificate was revoked".to_owned())
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == EXPIRED => {
                Self::Lost("the peer says that this side's certificate has expired".to_owned())
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == DISBELIEVED => {
                let why = "the peer does not believe this side's authority any more";
                Self::Lost(why.to_owned())
            }
            other => Self::Lost(other.to_string()),
        }
    }
}

/// What the loss of a connection during the handshake means: whose refusal it was, and why.
pub(crate) fn refusal(error: &ConnectionError, verdict: &Verdict, own: &Principal) -> ConnectError {
    match error {
        ConnectionError::TransportError(ours) => {
            let alert = alert(u64::from(ours.code));
            match (verdict.refusal(), alert) {
                (Some(refusal), _) => ConnectError::Identity(refusal),
                (None, Some(CERTIFICATE_REQUIRED)) => ConnectError::Identity(IdentityError::NoCertificate),
                (None, Some(_)) => ConnectError::Protocol(ours.reason.clone()),
                (None, None) => ConnectError::Protocol(ours.to_string()),
            }
        }
        ConnectionError::ConnectionClosed(theirs) => {
            let said = String::from_utf8_lossy(&theirs.reason).into_owned();
            match alert(u64::from(theirs.error_code)) {
                Some(code) => refused_by_peer(code, said, own),
                None => ConnectError::Lost(theirs.to_string()),
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            let detail = String::from_utf8_lossy(&close.reason).into_owned();
            match HelloRefusalKind::of(close.error_code.into_inner()) {
                Some(kind) => ConnectError::HelloRefused(HelloRefusal { kind, detail }),
                None if close.error_code == DUPLICATE => ConnectError::Duplicate,
                None => ConnectError::Lost(error.to_string()),
            }
        }
        ConnectionError::VersionMismatch => ConnectError::Protocol(error.to_string()),
        _ => ConnectError::Lost(error.to_string()),
    }
}

// TLS alerts (RFC 8446 §6.2), which QUIC carries as error 0x100 + alert (RFC 9001 §4.8).
const CERTIFICATE_REVOKED: u64 = 44;
const CERTIFICATE_EXPIRED: u64 = 45;
const UNKNOWN_CA: u64 = 48;
const ACCESS_DENIED: u64 = 49;
const DECRYPT_ERROR: u64 = 51;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

fn alert(code: u64) -> Option<u64> {
    (0x100..0x200).contains(&code).then(|| code - 0x100)
}

/// An alert tells the kind of a refusal; what it is about is this side's own certificate.
fn refused_by_peer(alert: u64, said: String, own: &Principal) -> ConnectError {
    let identity = match alert {
        CERTIFICATE_REVOKED => IdentityError::Revoked,
        CERTIFICATE_EXPIRED => IdentityError::Expired,
        UNKNOWN_CA | DECRYPT_ERROR => IdentityError::UnknownAuthority,
        ACCESS_DENIED => IdentityError::Region(own.region.to_string()),
        CERTIFICATE_REQUIRED => IdentityError::NoCertificate,
        NO_APPLICATION_PROTOCOL => return ConnectError::Protocol(said),
        _ => IdentityError::Invalid(said),
    };
    ConnectError::IdentityRefused(identity)
}
