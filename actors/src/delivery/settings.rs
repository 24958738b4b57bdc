//! How much delivery keeps, and for how long.

use std::time::Duration;

/// Settings of one node's delivery. Safety rests on none of them; they may differ between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySettings {
    /// Idempotency keys that are kept.
    pub keys: usize,
    /// Bytes of their answers.
    pub key_bytes: usize,
    /// How long a key is kept after it was answered.
    pub keys_kept: Duration,
    /// Letters that wait for one node.
    pub letters: usize,
    /// Bytes of them.
    pub letter_bytes: usize,
    /// A letter that is older than this is given up.
    pub letters_kept: Duration,
    /// How often the handler of a letter may panic before it is given up.
    pub attempts: u32,
    /// How long to wait after a first failure; doubles with each further one.
    pub retry: Duration,
    /// The longest wait between two attempts.
    pub longest_retry: Duration,
    /// Dead letters that are kept.
    pub dead: usize,
    /// Bytes of them.
    pub dead_bytes: usize,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            keys: 100_000,
            key_bytes: 64 << 20,
            keys_kept: Duration::from_secs(24 * 3600),
            letters: 10_000,
            letter_bytes: 64 << 20,
            letters_kept: Duration::from_secs(7 * 24 * 3600),
            attempts: 5,
            retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(10),
            dead: 10_000,
            dead_bytes: 64 << 20,
        }
    }
}
