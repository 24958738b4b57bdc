//! The other end of a question: whoever handles it answers it once, and learns when nobody waits for
//! that any more.
//!
//! * It decides: what a caller is told whose handler was lost.
//! * It never does: know how an answer travels.
//! * Invariant: each answer is given once, at the latest when it is dropped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_core::{Fault, FaultKind};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::message::{Reply, TraceContext};
use crate::shares::Held;

/// Takes answers back to where the questions came from.
pub(crate) trait Returns: fmt::Debug + Send + Sync {
    /// A handler has answered call `id`, which came over `lane` and expires then.
    fn give_back(self: Arc<Self>, id: u64, lane: usize, expires: Instant, answer: Result<Reply, Fault>);
}

/// The obligation to answer one message. Consumed by the answer; dropped without one, the caller
/// learns that the handler was lost.
#[derive(Debug)]
pub struct Answer {
    to: Option<To>,
    cancelled: Cancelled,
    observed: Observed,
    timed: Option<Timed>,
    held: Option<Held>,
}

/// Is told how long each answer took.
pub trait Times: Send + Sync {
    /// A message was answered, with this fault if it is one. `trace` is its caller's.
    fn answered(&self, fault: Option<&Fault>, took: Duration, trace: Option<TraceContext>);
}

/// Who is told how long this answer took.
struct Timed {
    by: Arc<dyn Times>,
    since: Instant,
    trace: Option<TraceContext>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed")
    }
}

/// Is told once how a message ended: with a reply, or with this fault.
pub type Observer = Box<dyn FnOnce(Result<(), &Fault>) + Send + Sync>;

#[derive(Default)]
struct Observed(Option<Observer>);

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "observed" } else { "not observed" })
    }
}

enum To {
    Peer(Owed),
    Here(oneshot::Sender<Result<Reply, Fault>>),
    Then(Then),
}

/// What is called with an answer, where it is given.
pub type Then = Box<dyn FnOnce(Result<Reply, Fault>) + Send + Sync>;

impl fmt::Debug for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(owed) => owed.fmt(f),
            Self::Here(_) => f.write_str("here"),
            Self::Then(_) => f.write_str("then"),
        }
    }
}

/// An answer owed to a peer.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) link: Arc<dyn Returns>,
    pub(crate) id: u64,
    pub(crate) lane: usize,
    /// After this nobody waits.
    pub(crate) expires: Instant,
}

impl Answer {
    /// An answer that goes nowhere: a tell's. Never cancelled.
    #[must_use]
    pub fn to_nobody() -> Self {
        Self {
            to: None,
            cancelled: Cancelled::default(),
            observed: Observed::default(),
            timed: None,
            held: None,
        }
    }

    /// An answer that stays in this process, and the future of it. For messages between actors of one
    /// node, and for tests.
    #[must_use]
    pub fn here() -> (Self, AnswerFuture) {
        let (sender, receiver) = oneshot::channel();
        let cancelled = Cancelled::default();
        let future = AnswerFuture { receiver, cancelled: cancelled.clone() };
        (
            Self {
                to: Some(To::Here(sender)),
                cancelled,
                observed: Observed::default(),
                timed: None,
                held: None,
            },
            future,
        )
    }

    /// An answer that this is called with, on the thread that gives it and before that goes on: answers that are
    /// given one after the other come in that order. It must be quick and must not block. Never cancelled.
    #[must_use]
    pub fn then(then: Then) -> Self {
        let (cancelled, observed) = (Cancelled::default(), Observed::default());
        Self { to: Some(To::Then(then)), cancelled, observed, timed: None, held: None }
    }

    /// An answer to a peer, and what cancels it.
    pub(crate) fn to_peer(owed: Owed) -> (Self, Cancelled) {
        let cancelled = Cancelled { expires: Some(owed.expires), ..Cancelled::default() };
        let to = Some(To::Peer(owed));
        (
            Self { to, cancelled: cancelled.clone(), observed: Observed::default(), timed: None, held: None },
            cancelled,
        )
    }

    /// With what its message makes this node hold: it is given back when the answer is.
    pub(crate) fn holding(mut self, held: Held) -> Self {
        self.held = Some(held);
        self
    }

    /// Takes that over, where the message goes on after the answer.
    #[must_use]
    pub fn held(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// Lets somebody know how the message ends: also when the answer is dropped, and the caller learns
    /// that the handler was lost. Of a tell only a fault is told, if one is given.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observed = Observed(Some(match self.observed.0.take() {
            None => observer,
            Some(first) => Box::new(move |end| {
                first(end);
                observer(end);
            }),
        }));
        self
    }

    /// Lets somebody know how long the answer took, from then on: every answer, at the cost of no box.
    #[must_use]
    pub fn timed(mut self, by: Arc<dyn Times>, since: Instant, trace: Option<TraceContext>) -> Self {
        self.timed = Some(Timed { by, since, trace });
        self
    }

    /// Lets this have the reply before it goes: it gives it back to the answer that it is handed with it, also later, or a
    /// fault instead. Faults go as they are. Who is told how the message ended, or how long that took, is told of
    /// what goes in the end. What its message makes this node hold is held until then.
    #[must_use]
    pub fn through(mut self, through: impl FnOnce(Reply, Self) + Send + Sync + 'static) -> Self {
        let Some(to) = self.to.take() else { return self };
        let onward = Self {
            to: Some(to),
            cancelled: self.cancelled.clone(),
            observed: std::mem::take(&mut self.observed),
            timed: self.timed.take(),
            held: self.held.take(),
        };
        self.to = Some(To::Then(Box::new(move |answer| match answer {
            Ok(reply) => through(reply, onward),
            Err(fault) => onward.fault(fault),
        })));
        self
    }

    /// The handler's answer.
    pub fn reply(mut self, reply: Reply) {
        self.send(Ok(reply));
    }

    /// What happened instead.
    ///
    /// A fault is the mesh's own word: it travels as class `control`, which every gate lets pass, and
    /// its texts go on as they are wherever the caller passes it on to. So its texts **must never quote
    /// a message**: names, sizes, positions and rules, but no field, no key of an actor that is data,
    /// and not the text of a panic. What the caller may know of the message goes into a reply, which
    /// has a class and is gated as that. (The one exception is a request that could not be decoded: the
    /// reason may quote its bytes, because it returns to where they came from.)
    pub fn fault(mut self, fault: Fault) {
        self.send(Err(fault));
    }

    /// Whether the caller has given up: work not yet begun need not be.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Whether the caller has said that it gave up, whatever the time is.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.cancelled.is_raised()
    }

    /// Resolves when the caller has given up, so that a handler that is running can be dropped.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.cancelled.clone().wait()
    }

    /// The same as a handle, to be kept and asked.
    #[must_use]
    pub fn cancellation(&self) -> Cancelled {
        self.cancelled.clone()
    }

    /// Whether somebody waits for it at all.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.to.is_some() && !self.is_cancelled()
    }

    /// When the message came that had so much time, as far as that is known here.
    #[must_use]
    pub fn came(&self, with: Duration) -> Option<Instant> {
        self.cancelled.expires.and_then(|expires| expires.checked_sub(with))
    }

    /// How long somebody still waits; `None` when that is not known here.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.cancelled.expires.map(|expires| expires.saturating_duration_since(Instant::now()))
    }

    fn send(&mut self, answer: Result<Reply, Fault>) {
        if let Some(observer) = self.observed.0.take() {
            observer(answer.as_ref().map(|_| ()));
        }
        if let Some(Timed { by, since, trace }) = self.timed.take() {
            by.answered(answer.as_ref().err(), since.elapsed(), trace);
        }
        match self.to.take() {
            Some(To::Peer(Owed { link, id, lane, expires })) => link.give_back(id, lane, expires, answer),
            // The asker may have gone; then nobody wants to know.
            Some(To::Here(sender)) => drop(sender.send(answer)),
            Some(To::Then(then)) => then(answer),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.to.is_some() {
            self.send(Err(lost()));
        }
    }
}

/// Whether, and when, the caller of one message gave up: it said so, its future was dropped, its
/// connection ended, or its time is over. A handle; clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Cancelled {
    flag: Arc<Flag>,
    expires: Option<Instant>,
}

#[derive(Debug, Default)]
struct Flag {
    raised: AtomicBool,
    changed: Notify,
}

impl Cancelled {
    /// Whether it did.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.is_raised() || self.expires.is_some_and(|expires| expires <= Instant::now())
    }

    /// Whether it was told, whatever the time is.
    pub(crate) fn is_raised(&self) -> bool {
        self.flag.raised.load(Ordering::Acquire)
    }

    /// Waits until it did. For a tell that is never; for an ask at the latest when its time is over.
    pub async fn wait(self) {
        tokio::select! {
            () = self.raised() => {}
            () = expired(self.expires) => {}
        }
    }

    pub(crate) fn cancel(&self) {
        self.flag.raised.store(true, Ordering::Release);
        self.flag.changed.notify_waiters();
    }

    async fn raised(&self) {
        loop {
            let changed = self.flag.changed.notified();
            // Registered before the flag is read, so that no cancellation falls between.
            if self.is_raised() {
                return;
            }
            changed.await;
        }
    }
}

async fn expired(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn lost() -> Fault {
    Fault::unknown(FaultKind::Handler("it was lost before it answered".to_owned()))
}

/// The future of an [`Answer::here`]. Dropping it cancels.
#[derive(Debug)]
pub struct AnswerFuture {
    receiver: oneshot::Receiver<Result<Reply, Fault>>,
    cancelled: Cancelled,
}

impl Future for AnswerFuture {
    type Output = Result<Reply, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let received = Pin::new(&mut self.receiver).poll(context);
        received.map(|received| received.unwrap_or_else(|_| Err(lost())))
    }
}

impl Drop for AnswerFuture {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dropped_future_cancels_whoever_waits_for_that() {
        let (answer, future) = Answer::here();
        let cancelled = [answer.cancelled(), answer.cancelled()].map(tokio::spawn);
        tokio::task::yield_now().await;
        assert!(cancelled.iter().all(|waiting| !waiting.is_finished()));
        drop(future);
        for waiting in cancelled {
            waiting.await.expect("told");
        }
        assert!(answer.is_cancelled() && !answer.is_wanted());
        answer.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_never_cancelled() {
        let waited = tokio::time::timeout(Duration::from_secs(3600), Answer::to_nobody().cancelled());
        waited.await.expect_err("nobody can give up");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reply_goes_through_has_it_before_it_goes_and_faults_go_as_they_are() {
        let reply = || Reply {
            class: rhumb_core::DataClass::control(),
            body: bytes::Bytes::from_static(b"answer"),
            hybrid: rhumb_core::HybridTime::ZERO,
            guarantee: rhumb_core::Guarantee::STRONGEST,
            trace: None,
        };
        let lost = || Fault::ran(FaultKind::Storage("not told of".into()));
        // Given back later.
        let (answer, future) = Answer::here();
        let (kept, waiting) = oneshot::channel();
        let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let answer = answer.observed(Box::new(move |end| heard.lock().push(end.is_ok())));
        answer.through(move |reply, onward| drop(kept.send((reply, onward)))).reply(reply());
        let (given, onward) = waiting.await.expect("it goes through");
        assert!(told.lock().is_empty(), "it has not ended");
        onward.reply(given);
        assert_eq!(&*future.await.expect("a reply").body, b"answer");
        assert_eq!(*told.lock(), [true]);
        // What the message makes this node hold is held until the reply goes.
        let everybody = crate::shares::Everybody::new(&crate::settings::TransportSettings::default());
        let region = "eu".parse().expect("a region");
        let who = rhumb_core::Principal { role: rhumb_core::Role::Client, region, name: "a".to_owned() };
        let share = everybody.of(&who);
        let (answer, _future) = Answer::here();
        let answer = answer.holding(share.inward.hold(60).expect("room"));
        let (kept, waiting) = oneshot::channel();
        answer.through(move |reply, onward| drop(kept.send((reply, onward)))).reply(reply());
        let (given, onward) = waiting.await.expect("it goes through");
        assert_eq!(share.inward.held().0, 60);
        onward.reply(given);
        assert_eq!(share.inward.held().0, 0);
        // Refused instead, not given back, and never asked for a fault.
        let (answer, future) = Answer::here();
        answer.through(move |_, onward| onward.fault(lost())).reply(reply());
        assert!(matches!(future.await.expect_err("refused").kind, FaultKind::Storage(_)));
        let (answer, future) = Answer::here();
        answer.through(|_, onward| drop(onward)).reply(reply());
        future.await.expect_err("its asker learns that it was lost");
        let (answer, future) = Answer::here();
        let answer = answer.through(|_, _| panic!("a fault is no reply"));
        assert!(answer.is_wanted());
        answer.fault(lost());
        assert!(matches!(future.await.expect_err("as it is").kind, FaultKind::Storage(_)));
        // Whoever gave up is known of on both sides.
        let (answer, future) = Answer::here();
        let answer = answer.through(|_, _| {});
        drop(future);
        assert!(answer.is_cancelled());
    }

    #[test]
    fn whoever_observes_is_told_once_how_it_ended() {
        let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let observed = |answer: Answer| {
            let told = Arc::clone(&told);
            answer.observed(Box::new(move |end| told.lock().push(end.map_err(|fault| fault.delivery()))))
        };
        observed(Answer::here().0).fault(Fault::not_sent(FaultKind::Draining));
        drop(observed(Answer::here().0));
        drop(observed(Answer::to_nobody()));
        observed(Answer::to_nobody()).fault(Fault::not_sent(FaultKind::Draining));
        use rhumb_core::Delivery::{NotSent, Unknown};
        assert_eq!(*told.lock(), [Err(NotSent), Err(Unknown), Err(NotSent)]);
    }

    #[derive(Debug)]
    struct Nowhere;

    impl Returns for Nowhere {
        fn give_back(self: Arc<Self>, _: u64, _: usize, _: Instant, _: Result<Reply, Fault>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn an_ask_is_cancelled_when_its_time_is_over() {
        let expires = Instant::now() + Duration::from_secs(5);
        let (answer, _) = Answer::to_peer(Owed { link: Arc::new(Nowhere), id: 1, lane: 0, expires });
        assert!(!answer.is_cancelled());
        answer.cancelled().await;
        assert!(answer.is_cancelled() && Instant::now() >= expires);
        assert_eq!(answer.time_left(), Some(Duration::ZERO));
    }
}
