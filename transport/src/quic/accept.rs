//! Inward connections: as many handshakes at once as may be, each with its own verifier and its own
//! deadline, so that one that fails or stalls disturbs nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::{Connection, Incoming};
use rhumb_core::limits::MAX_NODES;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::close::{DUPLICATE, refusal};
use super::greeting::{Greeted, Greeter, turn_away};
use super::slot::{Moved, Slot};
use super::transport::Inner;
use super::{Link, certificate};
use crate::admission::{NotHeard, Place};
use crate::error::ConnectError;
use crate::hello::{HelloRefusal, HelloRefusalKind};
use crate::link::End;

impl Inner {
    /// Accepts until the endpoint is closed.
    pub(crate) async fn accept_all(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let from = incoming.remote_address();
            let of_a_peer = || self.slots.read().values().any(|slot| slot.is_at(from.ip()));
            match self.handshakes.begin(from.ip(), incoming.remote_address_validated(), of_a_peer) {
                Ok(place) => drop(tokio::spawn(Arc::clone(&self).accept(incoming, place))),
                Err(NotHeard::Unproven) if incoming.may_retry() => drop(incoming.retry()),
                Err(_) => {
                    incoming.refuse();
                    let refusal = HelloRefusal::new(HelloRefusalKind::Busy, "as many handshakes as may be");
                    self.node.inbound.refused(from, &ConnectError::Hello(refusal));
                }
            }
        }
    }

    async fn accept(self: Arc<Self>, incoming: Incoming, place: Place) {
        let from = incoming.remote_address();
        let limit = self.node.settings.handshake_timeout;
        let mut silent = None;
        let heard = timeout(limit, self.hear(incoming, &mut silent)).await;
        let heard = heard.unwrap_or_else(|_| {
            let refusal = HelloRefusal::new(HelloRefusalKind::Slow, format!("no HELLO within {limit:?}"));
            silent.iter().for_each(|connection| turn_away(connection, &refusal));
            Err(ConnectError::Timeout(limit))
        });
        drop((place, silent));
        let error = match heard {
            Ok(greeted) => match self.admit(greeted).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if is_turned_away(&error) {
            warn!(%from, %error, "a connection was turned away");
        } else {
            debug!(%from, %error, "a connection did not come to be");
        }
        self.node.inbound.refused(from, &error);
    }

    /// From the first packet to the peer's HELLO. The connection stands in `silent` as soon as it is one.
    async fn hear(
        &self,
        incoming: Incoming,
        silent: &mut Option<Connection>,
    ) -> Result<Greeted, ConnectError> {
        let accepting = self.tls.accepting(self.regions.clone());
        let (config, verdict) = accepting.map_err(|e| ConnectError::Local(e.to_string()))?;
        let lost = |e: quinn::ConnectionError| refusal(&e, &verdict, &self.principal);
        let connection = incoming.accept_with(Arc::new(config)).map_err(lost)?.await.map_err(lost)?;
        *silent = Some(connection.clone());
        let greeter =
            Greeter { own: &self.hello, principal: &self.principal, domain: &self.domain, verdict: &verdict };
        let greeted = greeter.hear(connection).await?;
        if self.node.draining.load(Ordering::Acquire) {
            let refusal = HelloRefusal::new(HelloRefusalKind::Draining, "this node is about to stop");
            turn_away(&greeted.connection, &refusal);
            return Err(ConnectError::Hello(refusal));
        }
        Ok(greeted)
    }

    /// Gives the connection its place, acknowledges its HELLO, and serves it to its end.
    async fn admit(self: &Arc<Self>, greeted: Greeted) -> Result<(), ConnectError> {
        let connection = greeted.connection.clone();
        match greeted.hello.node.clone() {
            Some(peer) => {
                let slot = self.slot(&peer).map_err(|refusal| {
                    turn_away(&connection, &refusal);
                    ConnectError::Hello(refusal)
                })?;
                self.admit_node(&slot, greeted).await
            }
            None => self.admit_client(greeted).await,
        }
    }

    async fn admit_node(self: &Arc<Self>, slot: &Slot, mut greeted: Greeted) -> Result<(), ConnectError> {
        let moved = slot.move_in_heard(&self.own, greeted.hello.boot, |generation| {
            let (hello, principal) = (greeted.hello.clone(), greeted.principal.clone());
            self.link(greeted.connection.clone(), hello, principal, greeted.agreement, generation)
        });
        let Some(Moved { link, old }) = moved else {
            greeted.connection.close(DUPLICATE, b"the other connection stays");
            return Err(ConnectError::Duplicate);
        };
        let acknowledged = self.acknowledge(&link, &mut greeted).await;
        self.close_if_disbelieved(&link);
        if let Some(old) = old {
            tokio::spawn(old.give_way(Arc::clone(&link), false));
        }
        let end = match acknowledged {
            Ok(()) => Arc::clone(&link).run(greeted.send, greeted.receive).await,
            Err(ref error) => {
                let end = End::Lost(error.to_string());
                link.close(&end);
                end
            }
        };
        slot.ended(&link, &end);
        acknowledged
    }

    async fn admit_client(self: &Arc<Self>, mut greeted: Greeted) -> Result<(), ConnectError> {
        let number = self.guest_number.fetch_add(1, Ordering::Relaxed);
        let link = {
            let issuer = certificate::of_peer(&greeted.connection).map(|shown| shown.issuer);
            let mut guests = self.guests.lock();
            if let Err(why) = guests.has_room(&greeted.principal, self.node.settings.max_clients) {
                let refusal = HelloRefusal::new(HelloRefusalKind::Busy, why);
                turn_away(&greeted.connection, &refusal);
                return Err(ConnectError::Hello(refusal));
            }
            let (hello, principal) = (greeted.hello.clone(), greeted.principal.clone());
            let link = self.link(greeted.connection.clone(), hello, principal, greeted.agreement, number);
            guests.come(number, Arc::clone(&link), issuer.unwrap_or_default());
            link
        };
        let acknowledged = self.acknowledge(&link, &mut greeted).await;
        self.close_if_disbelieved(&link);
        match &acknowledged {
            Ok(()) => drop(Arc::clone(&link).run(greeted.send, greeted.receive).await),
            Err(error) => link.close(&End::Lost(error.to_string())),
        }
        self.guests.lock().leave(number);
        acknowledged
    }

    /// Reports the peer and answers its HELLO: from then on it may speak.
    async fn acknowledge(&self, link: &Link, greeted: &mut Greeted) -> Result<(), ConnectError> {
        link.node.inbound.connected(&link.peer);
        let limit = self.node.settings.handshake_timeout;
        let acknowledged = timeout(limit, greeted.acknowledge(&self.hello)).await;
        acknowledged.unwrap_or(Err(ConnectError::Timeout(limit)))
    }

    /// The place of a peer that the settings name, or that shows the same founding list and a valid
    /// certificate before they were read.
    fn slot(&self, peer: &rhumb_core::NodeId) -> Result<Arc<Slot>, HelloRefusal> {
        let mut slots = self.slots.write();
        if let Some(slot) = slots.get(peer) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= MAX_NODES {
            let detail = format!("a mesh has at most {MAX_NODES} nodes");
            return Err(HelloRefusal::new(HelloRefusalKind::Busy, detail));
        }
        let slot = Arc::new(Slot::new(peer.clone()));
        slots.insert(peer.clone(), Arc::clone(&slot));
        Ok(slot)
    }
}

/// Whether somebody was refused. A connection that was lost before it was one is none of that: when two
/// nodes dial each other at once, one of them gives its own up, at whatever point it is.
fn is_turned_away(error: &ConnectError) -> bool {
    !matches!(error, ConnectError::Duplicate | ConnectError::Lost(_))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quinn::{ApplicationClose, ConnectionClose, ConnectionError, TransportErrorCode, VarInt};
    use rhumb_core::{Principal, Region, Role};

    use super::super::close::GRACEFUL;
    use super::*;
    use crate::identity::Verdict;

    #[test]
    fn the_losing_half_of_two_dials_is_no_warning_and_a_refusal_is_one() {
        let own =
            Principal { role: Role::Node, region: Region::new("us").expect("valid"), name: "n1".into() };
        let turned_away =
            |error: ConnectionError| is_turned_away(&refusal(&error, &Verdict::default(), &own));
        let closed = |error_code: VarInt| {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason: Bytes::new() })
        };
        let in_the_handshake = |error_code| {
            ConnectionError::ConnectionClosed(ConnectionClose {
                error_code,
                frame_type: None,
                reason: Bytes::new(),
            })
        };
        assert!(!turned_away(closed(DUPLICATE)));
        assert!(!turned_away(closed(GRACEFUL)), "a dial that was dropped");
        assert!(!turned_away(in_the_handshake(TransportErrorCode::APPLICATION_ERROR)), "dropped earlier");
        // TLS alert 48: the peer does not know this side's authority.
        assert!(turned_away(in_the_handshake(TransportErrorCode::crypto(48))));
        assert!(is_turned_away(&ConnectError::Timeout(std::time::Duration::from_secs(1))));
        let busy = HelloRefusal::new(HelloRefusalKind::Busy, "as many clients as may be");
        assert!(is_turned_away(&ConnectError::Hello(busy)));
    }
}
