//! The calls of one connection that wait for an answer.
//!
//! * It decides: what an interrupted call may conclude. It is marked before its first byte is handed
//!   to the stream, so "not sent" is never said of a call that might have arrived.
//! * It never does: wait, or know what a waiter is.
//! * Invariant: each call is taken out exactly once: by its answer, by its caller giving up, or by the
//!   end of the connection. Once it is closed none is taken in.

use hashbrown::HashMap;
use rhumb_core::Delivery;

/// Why a call was not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// As many as may be are waiting.
    Full,
    /// The connection is ending or has ended.
    Ended(String),
}

/// Calls by id. `T` is whoever waits.
#[derive(Debug)]
pub struct Pending<T> {
    calls: HashMap<u64, Call<T>>,
    capacity: usize,
    closed: Option<String>,
}

#[derive(Debug)]
struct Call<T> {
    waiter: T,
    written: bool,
}

impl<T> Call<T> {
    fn delivery(&self) -> Delivery {
        if self.written { Delivery::Unknown } else { Delivery::NotSent }
    }
}

impl<T> Pending<T> {
    /// Room for so many calls.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { calls: HashMap::new(), capacity, closed: None }
    }

    /// Takes a call in.
    ///
    /// # Errors
    /// [`NotTaken`], and then nothing of it may be sent.
    pub fn insert(&mut self, id: u64, waiter: T) -> Result<(), NotTaken> {
        if let Some(reason) = &self.closed {
            return Err(NotTaken::Ended(reason.clone()));
        }
        if self.calls.len() >= self.capacity {
            return Err(NotTaken::Full);
        }
        let replaced = self.calls.insert(id, Call { waiter, written: false });
        debug_assert!(replaced.is_none(), "an id is used once");
        Ok(())
    }

    /// The call is about to be written. False when nobody waits any more: then it must not be.
    pub fn writing(&mut self, id: u64) -> bool {
        self.calls.get_mut(&id).map(|call| call.written = true).is_some()
    }

    /// An answer has come. `None` when nobody waits any more.
    pub fn answered(&mut self, id: u64) -> Option<T> {
        self.calls.remove(&id).map(|call| call.waiter)
    }

    /// The caller gives up. Says whether the call may have been sent; `None` when it has ended.
    pub fn abandon(&mut self, id: u64) -> Option<Delivery> {
        self.calls.remove(&id).map(|call| call.delivery())
    }

    /// Takes no more calls in; those that wait go on waiting.
    pub fn close(&mut self, reason: &str) {
        self.closed.get_or_insert_with(|| reason.to_owned());
    }

    /// The connection has ended: everything that waits, and what each may conclude.
    pub fn end(&mut self, reason: &str) -> Vec<(T, Delivery)> {
        self.close(reason);
        self.calls
            .drain()
            .map(|(_, call)| {
                let delivery = call.delivery();
                (call.waiter, delivery)
            })
            .collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending<&'static str> {
        let mut pending = Pending::with_capacity(2);
        pending.insert(1, "written").expect("room");
        pending.insert(2, "queued").expect("room");
        assert!(pending.writing(1));
        pending
    }

    #[test]
    fn the_end_tells_apart_what_may_have_arrived_from_what_never_left() {
        let mut ended = pending().end("lost");
        ended.sort_by_key(|(waiter, _)| *waiter);
        assert_eq!(ended, [("queued", Delivery::NotSent), ("written", Delivery::Unknown)]);
    }

    #[test]
    fn after_the_end_no_call_is_taken_in() {
        let mut pending = pending();
        pending.end("lost");
        assert_eq!(pending.insert(3, "late"), Err(NotTaken::Ended("lost".into())));
        assert!(pending.end("again").is_empty());
    }

    #[test]
    fn what_is_closed_takes_no_call_in_and_those_that_wait_are_answered() {
        let mut pending = pending();
        pending.close("closing");
        assert_eq!(pending.insert(3, "late"), Err(NotTaken::Ended("closing".into())));
        assert_eq!((pending.answered(1), pending.len()), (Some("written"), 1));
        assert_eq!(pending.end("lost"), [("queued", Delivery::NotSent)]);
    }

    #[test]
    fn an_abandoned_call_is_not_written_and_leaves_nothing_behind() {
        let mut pending = pending();
        assert_eq!(pending.abandon(2), Some(Delivery::NotSent));
        assert!(!pending.writing(2));
        assert_eq!(pending.abandon(1), Some(Delivery::Unknown));
        assert_eq!((pending.answered(1), pending.len()), (None, 0));
    }

    #[test]
    fn the_table_is_bounded() {
        assert_eq!(pending().insert(3, "more"), Err(NotTaken::Full));
    }
}
