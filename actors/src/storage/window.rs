//! How many batches one actor has under way at a time. Further ones join into one, so that an actor
//! never floods the store's queue, and a slow disk makes batches larger, not queues longer.

use std::collections::VecDeque;

use rhumb_core::Ticket;
use rhumb_storage::Batch;

/// Keeps at most so many batches under way; what comes meanwhile is merged into one that waits.
/// Order is kept: a batch is handed over only after every earlier one.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    under_way: VecDeque<Ticket>,
    waiting: Option<(Ticket, Batch)>,
}

impl Window {
    /// A window of at most `limit` batches.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        assert!(limit > 0, "a window without room never moves");
        Self { limit, under_way: VecDeque::new(), waiting: None }
    }

    /// Takes a batch; gives one to hand over now, if there is room.
    pub fn offer(&mut self, ticket: Ticket, batch: Batch) -> Option<(Ticket, Batch)> {
        let joined = match self.waiting.take() {
            None => (ticket, batch),
            Some((_, mut earlier)) => {
                earlier.merge(batch);
                (ticket, earlier)
            }
        };
        self.waiting = Some(joined);
        self.hand_over()
    }

    /// Everything up to this ticket is durable; gives the batch to hand over next, if one waits.
    pub fn durable(&mut self, ticket: Ticket) -> Option<(Ticket, Batch)> {
        while self.under_way.pop_front_if(|t| *t <= ticket).is_some() {}
        self.hand_over()
    }

    /// Batches that are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn hand_over(&mut self) -> Option<(Ticket, Batch)> {
        if self.under_way.len() >= self.limit {
            return None;
        }
        let (ticket, batch) = self.waiting.take()?;
        self.under_way.push_back(ticket);
        Some((ticket, batch))
    }
}

#[cfg(test)]
mod tests {
    use rhumb_storage::Family;

    use super::*;

    fn batch(key: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(Family::Escrow, key.as_bytes(), key.as_bytes());
        batch
    }

    #[test]
    fn what_finds_no_room_joins_and_keeps_its_order() {
        let mut window = Window::new(1);
        assert_eq!(window.offer(Ticket(1), batch("a")), Some((Ticket(1), batch("a"))));
        assert_eq!(window.offer(Ticket(2), batch("b")), None);
        assert_eq!(window.offer(Ticket(3), batch("c")), None);
        let mut both = batch("b");
        both.merge(batch("c"));
        assert_eq!(window.durable(Ticket(1)), Some((Ticket(3), both)), "the join has the later ticket");
        assert_eq!(window.durable(Ticket(3)), None);
        assert_eq!(window.under_way(), 0);
    }
}
