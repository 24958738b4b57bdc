//! What others hold of `EscrowRegion`: a handle that asks within a time, and never waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use rhumb_core::{Fault, FaultKind, NodeId, Region};
use tokio::sync::oneshot;

use super::report::Tell;
use super::{Answered, Ask, Configure, EscrowRegion, EscrowReport, FromPeer, Stop, Traced, faulted};
use crate::backlog::{Backlog, Waiting};
use crate::escrow::book::{Input, Request};
use crate::escrow::messages::PeerMessage;
use crate::escrow::settings::EscrowSettings;
use crate::span::Span;

/// How long a report may take.
const REPORT_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take until other settings are taken up.
const CONFIGURE_WITHIN: Duration = Duration::from_secs(10);

/// `EscrowRegion`, as others see it.
#[derive(Clone)]
pub struct EscrowHandle {
    address: Arc<Addr<EscrowRegion>>,
    backlog: Arc<Backlog>,
    /// Words of peers for which the mailbox had no room.
    dropped: Arc<AtomicU64>,
}

impl EscrowHandle {
    /// A handle on a started actor, which counts its mailbox with this.
    #[must_use]
    pub fn new(address: Addr<EscrowRegion>, backlog: Arc<Backlog>) -> Self {
        Self { address: Arc::new(address), backlog, dropped: Arc::default() }
    }

    /// What waits in the mailbox: asks, and words of peers.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.backlog.waiting()
    }

    /// Asks, for a caller that stands in region `from` and waits so long. The request is in the mailbox
    /// when this returns, so that calls keep their order. `then` is run with the answer on the thread on
    /// which it is given, and must not block; it is dropped if the actor stops before. `span` is the call's,
    /// if its trace is kept.
    pub fn ask(
        &self,
        request: Request,
        from: Region,
        within: Duration,
        span: Option<Span>,
        then: impl FnOnce(Answered) + Send + 'static,
    ) {
        let (reply, watched) = (Box::new(then), span.map(Traced::of));
        match self.address.try_send(Ask { request, from, within, reply, watched }) {
            Ok(()) => self.backlog.came(),
            Err(SendError::Full(ask)) => {
                (ask.reply)(faulted(Fault::not_sent(FaultKind::Full("the escrow mailbox".into()))));
            }
            Err(SendError::Closed(ask)) => (ask.reply)(faulted(Fault::not_sent(FaultKind::Draining))),
        }
    }

    /// What the node's escrow knows of itself; `None` if it does not say within a second.
    pub async fn report(&self) -> Option<EscrowReport> {
        let (reply, report) = oneshot::channel();
        self.address.try_send(Tell(reply)).ok()?;
        let report = tokio::time::timeout(REPORT_WITHIN, report).await.ok()?.ok()?;
        Some(EscrowReport { dropped: self.dropped.load(Ordering::Relaxed), ..report })
    }

    /// Goes on under other settings. Whether they were taken up: not when the actor is gone, or has no
    /// room in its mailbox for long.
    pub async fn configure(&self, settings: EscrowSettings) -> bool {
        let taken = self.address.send(Configure(settings));
        matches!(tokio::time::timeout(CONFIGURE_WITHIN, taken).await, Ok(Ok(())))
    }

    /// Ends the actor. Whoever waits, or asks from now on, is told so.
    pub async fn stop(&self) {
        let stopped = self.address.send(Stop);
        // Who does not hear it in time is gone, or hears it later.
        tokio::time::timeout(CONFIGURE_WITHIN, stopped).await.ok();
    }

    /// Hands over what a peer said. When the mailbox is full it is dropped: peers say it again.
    /// `span` is the message's, if its trace is kept.
    pub fn peer(&self, from: NodeId, message: PeerMessage, span: Option<Span>) {
        self.hand_over(Input::Peer { from, message }, span);
    }

    /// A peer's connection came up or went down.
    pub fn peer_changed(&self, peer: NodeId, up: bool) {
        let input = if up { Input::PeerUp(peer) } else { Input::PeerDown(peer) };
        if !self.hand_over(input, None) {
            tracing::warn!("the escrow mailbox is full: a peer's coming or going was not noticed");
        }
    }

    fn hand_over(&self, input: Input, span: Option<Span>) -> bool {
        let taken = self.address.try_send(FromPeer(input, span.map(Traced::of))).is_ok();
        if taken {
            self.backlog.came();
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}
