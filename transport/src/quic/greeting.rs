//! From a QUIC connection to one that may be spoken on: HELLO from the dialler, HELLO_ACK from the
//! acceptor. A dialler's `connect` succeeds before the acceptor has looked at its certificate, so
//! nothing counts as connected before HELLO_ACK.

use quinn::{Connection, RecvStream, VarInt};
use rhumb_core::Principal;
use rustls::pki_types::CertificateDer;

use super::close::refusal;
use super::stream::{Outgoing, read_message, write_message};
use crate::error::ConnectError;
use crate::hello::{Agreement, Hello, HelloRefusal, HelloRefusalKind, MAX_HELLO_BYTES, judge};
use crate::identity::{IdentityError, TrustDomain, Verdict, principal_of};
use crate::link::End;

/// A connection whose ends know each other.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) connection: Connection,
    pub(crate) send: Outgoing,
    pub(crate) receive: RecvStream,
    pub(crate) hello: Hello,
    pub(crate) principal: Principal,
    pub(crate) agreement: Agreement,
}

/// What a side brings into a handshake.
pub(crate) struct Greeter<'a> {
    pub(crate) own: &'a Hello,
    pub(crate) principal: &'a Principal,
    pub(crate) domain: &'a TrustDomain,
    pub(crate) verdict: &'a Verdict,
}

impl Greeter<'_> {
    /// The dialler's side: HELLO out, HELLO_ACK in.
    pub(crate) async fn greet(
        &self,
        connection: Connection,
        sent: impl FnOnce(),
    ) -> Result<Greeted, ConnectError> {
        let principal = self.certified(&connection)?;
        let opened = connection.open_bi().await;
        let (send, mut receive) = opened.map_err(|e| refusal(&e, self.verdict, self.principal))?;
        let mut send = Outgoing::new(send);
        // An error here only means that the stream is gone, which the write below reports.
        let _ = send.set_priority(1);
        let hello = self.own.to_bytes().map_err(ConnectError::Hello)?;
        sent();
        let answer = match write_message(&mut send, &hello).await {
            Ok(()) => read_message(&mut receive, MAX_HELLO_BYTES).await,
            Err(end) => Err(end),
        };
        let answer = answer.map_err(|end| self.lost(&connection, end))?;
        let (hello, agreement) = self.judge(&connection, &principal, &answer)?;
        Ok(Greeted { connection, send, receive, hello, principal, agreement })
    }

    /// The acceptor's side, first half: HELLO in. The answer is [`Greeted::acknowledge`].
    pub(crate) async fn hear(&self, connection: Connection) -> Result<Greeted, ConnectError> {
        let principal = self.certified(&connection)?;
        let opened = connection.accept_bi().await;
        let (send, mut receive) = opened.map_err(|e| refusal(&e, self.verdict, self.principal))?;
        let send = Outgoing::new(send);
        let _ = send.set_priority(1);
        let said = read_message(&mut receive, MAX_HELLO_BYTES).await;
        let said = said.map_err(|end| self.lost(&connection, end))?;
        let (hello, agreement) = self.judge(&connection, &principal, &said)?;
        Ok(Greeted { connection, send, receive, hello, principal, agreement })
    }

    fn judge(
        &self,
        connection: &Connection,
        who: &Principal,
        said: &[u8],
    ) -> Result<(Hello, Agreement), ConnectError> {
        let judged = Hello::from_bytes(said)
            .and_then(|hello| judge(self.own, &hello, who).map(|agreement| (hello, agreement)));
        judged.map_err(|refusal| {
            turn_away(connection, &refusal);
            ConnectError::Hello(refusal)
        })
    }

    /// Who the verified certificate names.
    fn certified(&self, connection: &Connection) -> Result<Principal, ConnectError> {
        let identity = connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or(ConnectError::Identity(IdentityError::NoCertificate))?;
        principal_of(self.domain, leaf).map_err(ConnectError::Identity)
    }

    fn lost(&self, connection: &Connection, end: End) -> ConnectError {
        match (connection.close_reason(), end) {
            (Some(reason), _) => refusal(&reason, self.verdict, self.principal),
            (None, End::Protocol(why)) => {
                let refusal = HelloRefusal::new(HelloRefusalKind::Malformed, why);
                turn_away(connection, &refusal);
                ConnectError::Hello(refusal)
            }
            (None, end) => ConnectError::Lost(end.to_string()),
        }
    }
}

impl Greeted {
    /// The acceptor's side, second half: HELLO_ACK, which is its own HELLO.
    pub(crate) async fn acknowledge(&mut self, own: &Hello) -> Result<(), ConnectError> {
        let hello = own.to_bytes().map_err(ConnectError::Hello)?;
        write_message(&mut self.send, &hello).await.map_err(|end| ConnectError::Lost(end.to_string()))
    }
}

/// Closes with a code that tells the kind, and a reason for humans. A message on the stream would be
/// overtaken by the close.
pub(crate) fn turn_away(connection: &Connection, refusal: &HelloRefusal) {
    connection.close(VarInt::from_u32(refusal.kind as u32), refusal.detail.as_bytes());
}
