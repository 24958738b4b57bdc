//! The certificates that a peer showed, and the time by which they are judged.

use std::time::{Duration, SystemTime};

use quinn::Connection;
use rustls::pki_types::CertificateDer;

use crate::identity::Certificate;

/// The chain that the other end of a connection showed, leaf first; it was verified in the handshake.
pub(crate) fn shown(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_identity();
    let chain = chain.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// What stands in the certificate that the other end showed.
pub(crate) fn of_peer(connection: &Connection) -> Option<Certificate> {
    Certificate::read(shown(connection).first()?).ok()
}

/// The last moment, since the Unix epoch, in which all of the other end's chain is valid.
pub(crate) fn valid_until(connection: &Connection) -> Option<Duration> {
    let ends = shown(connection);
    let ends = ends.iter().filter_map(|shown| Certificate::read(shown).ok());
    ends.map(|certificate| Duration::from_secs(certificate.not_after.max(0) as u64)).min()
}

/// The time since the Unix epoch, as the TLS library reads it.
#[expect(clippy::disallowed_methods, reason = "certificates end by the wall clock")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
