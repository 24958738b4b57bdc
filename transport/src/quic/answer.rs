//! The other end of a question: whoever handles it answers it once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_core::{Fault, FaultKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::link::Link;
use crate::message::Reply;

/// The obligation to answer one message. Consumed by the answer; dropped without one, the caller
/// learns that the handler was lost.
#[derive(Debug)]
pub struct Answer {
    to: Option<To>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Debug)]
enum To {
    Peer(Owed),
    Here(oneshot::Sender<Result<Reply, Fault>>),
}

/// An answer owed to a peer.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) link: Arc<Link>,
    pub(crate) id: u64,
    pub(crate) lane: usize,
    /// After this nobody waits.
    pub(crate) expires: Instant,
}

impl Answer {
    /// An answer that goes nowhere: a tell's.
    #[must_use]
    pub fn to_nobody() -> Self {
        Self { to: None, cancelled: Arc::default() }
    }

    /// An answer that stays in this process, and the future of it. For messages between actors of one
    /// node, and for tests.
    #[must_use]
    pub fn here() -> (Self, AnswerFuture) {
        let (sender, receiver) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let future = AnswerFuture { receiver, cancelled: Arc::clone(&cancelled) };
        (Self { to: Some(To::Here(sender)), cancelled }, future)
    }

    pub(crate) fn to_peer(owed: Owed, cancelled: Arc<AtomicBool>) -> Self {
        Self { to: Some(To::Peer(owed)), cancelled }
    }

    /// The handler's answer.
    pub fn reply(mut self, reply: Reply) {
        self.send(Ok(reply));
    }

    /// What happened instead.
    pub fn fault(mut self, fault: Fault) {
        self.send(Err(fault));
    }

    /// Whether the caller has given up: work not yet begun need not be.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for it at all.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.to.is_some() && !self.is_cancelled()
    }

    /// How long somebody still waits; `None` when that is not known here.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        match &self.to {
            Some(To::Peer(owed)) => Some(owed.expires.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    fn send(&mut self, answer: Result<Reply, Fault>) {
        match self.to.take() {
            Some(To::Peer(owed)) => Link::answer(owed, answer),
            // The asker may have gone; then nobody wants to know.
            Some(To::Here(sender)) => drop(sender.send(answer)),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.to.is_some() {
            let lost = "it was lost before it answered".to_owned();
            self.send(Err(Fault::unknown(FaultKind::Handler(lost))));
        }
    }
}

/// The future of an [`Answer::here`]. Dropping it cancels.
#[derive(Debug)]
pub struct AnswerFuture {
    receiver: oneshot::Receiver<Result<Reply, Fault>>,
    cancelled: Arc<AtomicBool>,
}

impl Future for AnswerFuture {
    type Output = Result<Reply, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|received| {
            let lost = || Fault::unknown(FaultKind::Handler("it was lost before it answered".to_owned()));
            received.unwrap_or_else(|_| Err(lost()))
        })
    }
}

impl Drop for AnswerFuture {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
