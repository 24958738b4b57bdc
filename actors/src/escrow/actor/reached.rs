//! How far the actor's batches are durable: told by the threads of the store, heard by the actor.
//!
//! * It decides: that a failure stays, and that of many tickets the last is enough.
//! * It never does: wake the actor for each of them. Who tells many at once holds wakes back
//!   ([`Wakes`](rhumb_core::wakes::Wakes)), so that all that a sync lets go leaves together.
//! * Invariant: what was told last is heard, once.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rhumb_core::{Ticket, wakes};
use rhumb_storage::CommitNumber;

/// How far this actor's batches are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Committed {
    /// Up to this ticket, whose commit has this number.
    UpTo(Ticket, CommitNumber),
    /// One of them never will be.
    Failed(String),
}

/// What was told, and who waits for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    news: Option<Committed>,
    failed: bool,
    waiting: Option<Waker>,
}

impl Reached {
    /// Tells it, in the order of the tickets.
    pub(super) fn tell(&self, committed: Committed) {
        let waiting = {
            let mut state = self.0.lock();
            if state.failed {
                return;
            }
            state.failed = matches!(committed, Committed::Failed(_));
            state.news = Some(committed);
            state.waiting.take()
        };
        if let Some(waker) = waiting {
            wakes::wake(waker);
        }
    }

    /// What was told and not heard yet.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Committed> {
        let mut state = self.0.lock();
        match state.news.take() {
            Some(news) => Poll::Ready(news),
            None => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::wakes::Wakes;

    use super::*;

    fn up_to(ticket: u64) -> Committed {
        Committed::UpTo(Ticket(ticket), CommitNumber(ticket))
    }

    #[test]
    fn the_last_ticket_is_heard_and_a_failure_stays() {
        let reached = Reached::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(reached.poll(&cx), Poll::Pending);
        let wakes = Wakes::hold();
        reached.tell(up_to(1));
        reached.tell(up_to(2));
        assert!(wakes.are_waiting(), "it waits until all were told");
        drop(wakes);
        assert_eq!((reached.poll(&cx), reached.poll(&cx)), (Poll::Ready(up_to(2)), Poll::Pending));
        let failed = Committed::Failed("the disk is gone".into());
        reached.tell(failed.clone());
        reached.tell(up_to(3));
        assert_eq!((reached.poll(&cx), reached.poll(&cx)), (Poll::Ready(failed), Poll::Pending));
    }
}
