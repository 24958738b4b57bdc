//! A call that has been made, until it is answered.
//!
//! * It decides: when its caller stops waiting, and what may then be concluded.
//! * Invariant: it ends once, at the latest at its deadline; dropped before, it is given up and leaves
//!   nothing behind.
//!
//! It is small and holds nothing of what was sent: whoever waits is moved about often.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::message::Reply;

/// Where calls are under way.
pub(crate) trait Abandons: Send + Sync {
    /// Nobody waits for a call any more. Says what its caller may conclude; `None` when it was answered
    /// at the same moment.
    fn abandoned(&self, id: u64) -> Option<Delivery>;
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;
type Later = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

pin_project! {
    /// A call that has been made: the future of its answer.
    #[must_use = "a call that nobody waits for is given up"]
    pub struct Asked {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = Stage]
    enum State {
        UnderWay {
            asking: Asking,
            answer: oneshot::Receiver<Result<Reply, Fault>>,
            sending: Option<Sending>,
            expires: Instant,
            #[pin]
            sleep: Option<Sleep>,
        },
        Later { call: Later },
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

/// A call that is waited for. Dropped before its answer, it is given up.
pub(crate) struct Asking {
    link: Arc<dyn Abandons>,
    id: u64,
    ended: bool,
}

impl Asking {
    pub(crate) fn new(link: Arc<dyn Abandons>, id: u64) -> Self {
        Self { link, id, ended: false }
    }

    fn give_up(&mut self) -> Option<Delivery> {
        if std::mem::replace(&mut self.ended, true) { None } else { self.link.abandoned(self.id) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Asked {
    /// A call that waits on a lane.
    pub(crate) fn queued(
        asking: Asking,
        answer: oneshot::Receiver<Result<Reply, Fault>>,
        expires: Instant,
    ) -> Self {
        Self { state: State::UnderWay { asking, answer, sending: None, expires, sleep: None } }
    }

    /// A call that this sends.
    pub(crate) fn sending(
        asking: Asking,
        answer: oneshot::Receiver<Result<Reply, Fault>>,
        expires: Instant,
        sending: Sending,
    ) -> Self {
        Self { state: State::UnderWay { asking, answer, sending: Some(sending), expires, sleep: None } }
    }

    /// A call for which something has to be waited for first, such as a connection.
    pub fn later(call: impl Future<Output = Result<Reply, Fault>> + Send + 'static) -> Self {
        Self { state: State::Later { call: Box::pin(call) } }
    }
}

impl Future for Asked {
    type Output = Result<Reply, Fault>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let (asking, answer, sending, expires, mut sleep) = match self.project().state.project() {
            Stage::Later { call } => return call.as_mut().poll(task),
            Stage::UnderWay { asking, answer, sending, expires, sleep } => {
                (asking, answer, sending, expires, sleep)
            }
        };
        if let Some(at_it) = sending
            && let Poll::Ready(sent) = at_it.as_mut().poll(task)
        {
            *sending = None;
            sent?;
        }
        if let Poll::Ready(answered) = Pin::new(&mut *answer).poll(task) {
            asking.ended = answered.is_ok();
            return Poll::Ready(answered.unwrap_or_else(|_| Err(unanswered())));
        }
        // Most calls are answered before anybody looks at the time.
        if sleep.is_none() {
            sleep.set(Some(sleep_until(*expires)));
        }
        if let Some(sleep) = sleep.as_mut().as_pin_mut() {
            ready!(sleep.poll(task));
        }
        Poll::Ready(match asking.give_up() {
            Some(delivery) => Err(deadline_passed(delivery)),
            // It was answered at the same moment.
            None => answer.try_recv().unwrap_or_else(|_| Err(unanswered())),
        })
    }
}

pub(crate) fn deadline_passed(delivery: Delivery) -> Fault {
    let doing = match delivery {
        Delivery::NotSent => "waiting to be sent",
        Delivery::Ran | Delivery::Unknown => "waiting for the answer",
    };
    Fault { kind: FaultKind::Deadline(doing.to_owned()), delivery, retry_after: None }
}

fn unanswered() -> Fault {
    Fault::unknown(FaultKind::Handler("the call was forgotten by this node".to_owned()))
}
