//! Outward connections: a peer with an address is dialled, and dialled again, until this node stops.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Principal, Role};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::Link;
use super::close::{DUPLICATE, refusal};
use super::greeting::{Greeted, Greeter};
use super::slot::Slot;
use super::transport::Inner;
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::tiebreak::Dial;

/// A connection that held for so long was not a failure.
const HELD: Duration = Duration::from_secs(1);
/// How long after a connection that was to take over did not come to be, the next is tried.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A peer that asks again and again to be dialled anew is not dialled more often.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Into so many parts the time is cut over which new connections are spread.
const SPREAD_PARTS: u64 = 1_000;

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
                Ok(served) => self.serve(&slot, served).await,
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

    /// Serves a connection to its end, and those that take over from it.
    async fn serve(self: &Arc<Self>, slot: &Arc<Slot>, mut served: Served) {
        let mut again = None;
        loop {
            tokio::select! {
                _ = &mut served.ended => return,
                () = served.link.redial.notified() => {}
                () = after(again) => {}
            }
            let succeeded = tokio::select! {
                _ = &mut served.ended => {
                    slot.dialling(Dial::Idle);
                    return;
                }
                succeeded = self.succeed(slot, &served.link) => succeeded,
            };
            again = match succeeded {
                Ok(next) => {
                    served = next;
                    None
                }
                Err(error) => {
                    warn!(peer = %slot.peer, %error, "no new connection; the old one stays");
                    slot.dial_failed(error);
                    Some(AGAIN_AFTER)
                }
            };
        }
    }

    /// Makes a connection that takes over from another, which then drains.
    async fn succeed(self: &Arc<Self>, slot: &Arc<Slot>, old: &Arc<Link>) -> Result<Served, ConnectError> {
        let settings = &self.node.settings;
        // Not all peers at once.
        let spread = self.seed.child(slot.peer.to_string()).child("refresh").rng().below(SPREAD_PARTS);
        let wait = settings.refresh_spread * spread as u32 / SPREAD_PARTS as u32;
        tokio::time::sleep(wait.max(PAUSE)).await;
        let dialed = timeout(settings.handshake_timeout, self.dial(slot)).await;
        let greeted = dialed.unwrap_or(Err(ConnectError::Timeout(settings.handshake_timeout)))?;
        let served = self.moved_in(slot, greeted, |boot, make| slot.succeed_dialed(old, boot, make))?;
        tokio::spawn(Arc::clone(old).give_way(Arc::clone(&served.link), true));
        Ok(served)
    }

    /// The greeted connection becomes the slot's.
    fn move_in(self: &Arc<Self>, slot: &Arc<Slot>, greeted: Greeted) -> Result<Served, ConnectError> {
        self.moved_in(slot, greeted, |boot, make| slot.move_in_dialed(boot, make))
    }

    fn moved_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        greeted: Greeted,
        move_in: impl FnOnce(u64, &mut dyn FnMut(u64) -> Arc<Link>) -> Option<Arc<Link>>,
    ) -> Result<Served, ConnectError> {
        let Greeted { connection, send, receive, hello, principal, agreement } = greeted;
        let boot = hello.boot;
        let moved = move_in(boot, &mut |generation| {
            self.link(connection.clone(), hello.clone(), principal.clone(), agreement, generation)
        });
        let Some(link) = moved else {
            connection.close(DUPLICATE, b"the other connection stays");
            return Err(ConnectError::Duplicate);
        };
        let (slot, inner, running) = (Arc::clone(slot), Arc::clone(self), Arc::clone(&link));
        let ended = tokio::spawn(async move {
            running.node.inbound.connected(&running.peer);
            inner.close_if_disbelieved(&running);
            let end = Arc::clone(&running).run(send, receive).await;
            slot.ended(&running, &end);
        });
        Ok(Served { link, ended })
    }
}

/// A connection that is being served, to its end.
struct Served {
    link: Arc<Link>,
    ended: JoinHandle<()>,
}

/// Waits so long; for ever where nothing is to be waited for.
pub(super) async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
