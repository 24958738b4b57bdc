//! Outward connections: a peer with an address is dialled, and dialled again, until this node stops.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Principal, Role};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::close::{DUPLICATE, refusal};
use super::greeting::{Greeted, Greeter};
use super::slot::Slot;
use super::transport::Inner;
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::tiebreak::Dial;

/// A connection that held for so long was not a failure.
const HELD: Duration = Duration::from_secs(1);

impl Inner {
    /// Keeps a peer connected, from this side or the peer's.
    pub(crate) async fn keep(self: Arc<Self>, slot: Arc<Slot>) {
        let settings = &self.node.settings;
        let rng = self.seed.child(slot.peer.to_string()).rng();
        let mut backoff = Backoff::new(settings.connect_backoff_min, settings.connect_backoff_max, rng);
        let mut stopping = self.stopping.subscribe();
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = slot.until(false) => {}
            }
            let dialed = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = slot.until(true) => {
                    slot.dialling(Dial::Idle);
                    continue;
                }
                dialed = timeout(settings.handshake_timeout, self.dial(&slot)) => dialed,
            };
            let dialed = dialed.unwrap_or(Err(ConnectError::Timeout(settings.handshake_timeout)));
            let begun = Instant::now();
            match dialed.and_then(|greeted| self.move_in(&slot, greeted)) {
                Ok(served) => served.await,
                Err(error) => {
                    debug!(peer = %slot.peer, %error, "not connected");
                    slot.dial_failed(error);
                }
            }
            if begun.elapsed() >= HELD {
                backoff.succeeded();
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = slot.until(true) => {}
                () = tokio::time::sleep(backoff.failed()) => {}
            }
        }
    }

    /// Dials a peer up to its HELLO_ACK. It must be exactly the node that the slot names.
    async fn dial(&self, slot: &Slot) -> Result<Greeted, ConnectError> {
        slot.dialling(Dial::Connecting);
        let Some(addr) = slot.address() else {
            return Err(ConnectError::Local("the peer has no address".to_owned()));
        };
        let (region, name) = (slot.peer.region.clone(), slot.peer.name.to_string());
        let name = self.domain.dns_name(&Principal { role: Role::Node, region, name });
        let dialling = self.tls.dialling(Some(self.regions.clone()), false);
        let (config, verdict) = dialling.map_err(|e| ConnectError::Local(e.to_string()))?;
        let connecting = self.endpoint.connect_with(config, addr, &name);
        let connecting = connecting.map_err(|e| ConnectError::Dial { addr, reason: e.to_string() })?;
        let connection = connecting.await.map_err(|e| refusal(&e, &verdict, &self.principal))?;
        let greeter =
            Greeter { own: &self.hello, principal: &self.principal, domain: &self.domain, verdict: &verdict };
        greeter.greet(connection, || slot.dialling(Dial::HelloSent)).await
    }

    /// The greeted connection becomes the slot's; the future serves it to its end.
    fn move_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        greeted: Greeted,
    ) -> Result<impl Future<Output = ()> + use<>, ConnectError> {
        let Greeted { connection, send, receive, hello, principal, agreement } = greeted;
        let boot = hello.boot;
        let moved = slot.move_in_dialed(boot, |generation| {
            self.link(connection.clone(), hello, principal, agreement, generation)
        });
        let Some(link) = moved else {
            connection.close(DUPLICATE, b"the other connection stays");
            return Err(ConnectError::Duplicate);
        };
        let (slot, inner) = (Arc::clone(slot), Arc::clone(self));
        Ok(async move {
            link.node.inbound.connected(&link.peer);
            inner.close_if_revoked(&link);
            let end = Arc::clone(&link).run(send, receive).await;
            slot.ended(&link, &end);
        })
    }
}
