//! Which keys were counted as demand lately.
//!
//! * It decides: whether a request is new. A buyer who is refused and asks again under the same key wants
//!   no more than before.
//! * It never does: answer for a key. It knows 64-bit hashes; two keys of one hash are one demand.
//! * Invariant: it remembers the last [`MOST`] keys.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::escrow::messages::Key;

/// Keys that are remembered: at a thousand new ones a second, those of the last second.
const MOST: usize = 1_024;

/// The keys that were counted last.
#[derive(Debug, Default)]
pub(crate) struct AskedLately {
    known: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl AskedLately {
    /// Whether a key was not counted lately. From now on it was.
    pub(crate) fn is_new(&mut self, key: &Key) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.known.insert(hash) {
            return false;
        }
        if self.order.len() == MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_once_and_again_when_many_others_were() {
        let mut asked = AskedLately::default();
        let key = |n: usize| Key::Raw(format!("order {n}"));
        assert!(asked.is_new(&key(0)));
        assert!(!asked.is_new(&key(0)));
        assert!((1..MOST).all(|n| asked.is_new(&key(n))));
        assert!(!asked.is_new(&key(0)));
        assert!(asked.is_new(&key(MOST)));
        assert!(asked.is_new(&key(0)), "it is the oldest, and was forgotten");
        assert_eq!((asked.known.len(), asked.order.len()), (MOST, MOST));
    }
}
