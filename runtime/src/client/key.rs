//! Idempotency keys, as a client library makes them: home, time of creation, and a random part.

use rhumb_actors::escrow::messages::Key;
use rhumb_core::NodeId;
use rhumb_core::rng::{Rng, Seed};

/// Letters and digits in a key's random part: 62²⁴ is more than 2¹⁴².
const NONCE_LEN: usize = 24;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes keys.
#[derive(Debug)]
pub struct KeyMaker(Rng);

impl KeyMaker {
    /// A maker that draws from this seed. Keys of real customers need [`Seed::from_entropy`]: whoever
    /// can guess a key learns of the hold under it.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self(seed.child("keys").rng())
    }

    /// A new key whose answer the node `home` remembers.
    pub fn make(&mut self, home: NodeId, now_ms: u64) -> Key {
        let letter = |_| char::from(ALPHABET[self.0.below(ALPHABET.len() as u64) as usize]);
        Key::Made { home, created_ms: now_ms, nonce: (0..NONCE_LEN).map(letter).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_what_it_prints_and_no_two_are_equal() {
        let mut maker = KeyMaker::new(&Seed::new(1));
        let home = NodeId::new("us-east", "n1").expect("valid");
        let (one, two) = (maker.make(home.clone(), 7), maker.make(home, 7));
        assert_ne!(one, two);
        assert!(one.to_string().starts_with("k1:us-east/n1:7:"), "{one}");
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
