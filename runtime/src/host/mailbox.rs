//! The queue in front of an actor.
//!
//! * It decides: who gets in, and who gives way when it is full.
//! * It never does: hold more than its capacity. (A bare actix mailbox of capacity 2 took ten thousand
//!   asks: every clone of an address owns a free slot.)
//! * Invariant: what is pushed comes out in the order in which it was pushed, or is handed back to
//!   whoever pushed; nothing vanishes.

use std::collections::VecDeque;

use rhumb_actors::remote::Overflow;
use tokio::time::Instant;

/// Something that can wait.
pub(crate) trait Waits {
    /// Two that wait and coalesce under the same key are one: the newer takes the older's place.
    fn coalesces(&self) -> Option<u64>;
}

/// What became of something pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    /// It waits.
    Taken,
    /// It waits, and this older one gave way to it.
    Instead(T),
    /// There was no room.
    Refused(T),
}

/// A bounded queue with a declared policy for when it is full.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    /// Each with the time since which its place is taken.
    waiting: VecDeque<(Instant, T)>,
    capacity: usize,
    overflow: Overflow,
}

impl<T: Waits> Mailbox<T> {
    /// Room for so many, at least one. Nothing is allocated until something waits.
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self { waiting: VecDeque::new(), capacity: capacity.max(1), overflow }
    }

    /// Lets it wait at the end, or does what the policy says. `busy` of the places are taken by what
    /// has left the queue and is still under way.
    pub(crate) fn push(&mut self, item: T, busy: usize, now: Instant) -> Pushed<T> {
        if self.overflow == Overflow::Coalesce
            && let Some(older) = self.same(&item)
        {
            return Pushed::Instead(std::mem::replace(older, item));
        }
        if self.waiting.len() + busy < self.capacity {
            if self.waiting.capacity() == 0 {
                // Most actors never have two messages waiting: a queue's own first room is for four.
                self.waiting.reserve_exact(1);
            }
            self.waiting.push_back((now, item));
            return Pushed::Taken;
        }
        match self.overflow {
            Overflow::Refuse | Overflow::Coalesce => Pushed::Refused(item),
            Overflow::DropOldest => match self.waiting.pop_front() {
                Some((_, oldest)) => {
                    self.waiting.push_back((now, item));
                    Pushed::Instead(oldest)
                }
                None => Pushed::Refused(item),
            },
        }
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|(_, item)| item)
    }

    /// Gives back the room that nothing needs now.
    pub(crate) fn slim(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// All that wait.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, item)| item).collect()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the one has waited that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since)
    }

    /// One that waits and coalesces with this one.
    fn same(&mut self, item: &T) -> Option<&mut T> {
        let key = item.coalesces()?;
        self.waiting.iter_mut().map(|(_, waiting)| waiting).find(|waiting| waiting.coalesces() == Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    struct Item(u32, Option<u64>);

    impl Waits for Item {
        fn coalesces(&self) -> Option<u64> {
            self.1
        }
    }

    /// Pushes numbers (`7` or `7k2`: coalesces under 2) into a mailbox of two places and says what is
    /// left and who gave way.
    fn check(overflow: Overflow, pushes: &str, left: &str, gave_way: &str) {
        let (mut mailbox, now) = (Mailbox::new(2, overflow), Instant::now());
        let mut out = Vec::new();
        for word in pushes.split(' ') {
            let (number, key) = word.split_once('k').map_or((word, None), |(n, k)| (n, k.parse().ok()));
            match mailbox.push(Item(number.parse().expect("a number"), key), 0, now) {
                Pushed::Taken => {}
                Pushed::Instead(item) | Pushed::Refused(item) => out.push(item.0.to_string()),
            }
            assert!(mailbox.len() <= 2, "never more than its capacity");
        }
        let waiting: Vec<_> = std::iter::from_fn(|| mailbox.pop()).map(|item| item.0.to_string()).collect();
        assert_eq!((waiting.join(" ").as_str(), out.join(" ").as_str()), (left, gave_way));
    }

    #[test]
    fn a_full_mailbox_does_what_it_declares() {
        check(Overflow::Refuse, "1 2 3 4", "1 2", "3 4");
        check(Overflow::DropOldest, "1 2 3 4", "3 4", "1 2");
        check(Overflow::Coalesce, "1k1 2k1 3k2 4k1 5k9", "4 3", "1 2 5");
        check(Overflow::Coalesce, "1 2 3", "1 2", "3");
    }

    #[test]
    fn the_oldest_is_the_one_that_has_waited_longest() {
        let (mut mailbox, now) = (Mailbox::new(2, Overflow::Coalesce), Instant::now());
        let later = now + std::time::Duration::from_secs(1);
        assert_eq!(mailbox.oldest(), None);
        assert_eq!(mailbox.push(Item(1, Some(1)), 0, now), Pushed::Taken);
        assert_eq!(mailbox.push(Item(2, Some(2)), 0, later), Pushed::Taken);
        assert_eq!(mailbox.push(Item(3, Some(1)), 0, later), Pushed::Instead(Item(1, Some(1))));
        assert_eq!(mailbox.oldest(), Some(now), "a place keeps its time");
        mailbox.pop();
        assert_eq!(mailbox.oldest(), Some(later));
    }

    #[test]
    fn what_is_under_way_takes_a_place() {
        let (mut mailbox, now) = (Mailbox::new(2, Overflow::Refuse), Instant::now());
        assert_eq!(mailbox.push(Item(1, None), 1, now), Pushed::Taken);
        assert_eq!(mailbox.push(Item(2, None), 1, now), Pushed::Refused(Item(2, None)));
        let mut newest = Mailbox::new(2, Overflow::DropOldest);
        assert_eq!(
            newest.push(Item(1, None), 2, now),
            Pushed::Refused(Item(1, None)),
            "nobody there to give way"
        );
    }
}
