//! Bounds of the hot store.

use std::time::Duration;

/// Bounds of the hot store: how much may wait, and how much one write takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotSettings {
    /// Batches that may wait to be written or synced.
    pub max_waiting: usize,
    /// Bytes of batches that may wait to be written or synced; also the largest batch taken.
    pub max_waiting_bytes: usize,
    /// Bytes after which a write takes no further batch.
    pub max_group_bytes: usize,
    /// How old the engine's word on its pressure may be.
    pub pressure_age: Duration,
    /// When a refused caller is told to try again.
    pub retry_after: Duration,
    /// How long new work waits at the door under *yellow*.
    pub slow_by: Duration,
}

impl Default for HotSettings {
    fn default() -> Self {
        Self {
            max_waiting: 16_384,
            max_waiting_bytes: 64 << 20,
            max_group_bytes: 8 << 20,
            pressure_age: Duration::from_millis(100),
            retry_after: Duration::from_millis(50),
            slow_by: Duration::from_millis(10),
        }
    }
}
