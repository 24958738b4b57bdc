//! Settings of the escrow machine: how long it waits, and how much it remembers.
//!
//! * It decides: nothing. Which values are in range is decided where they are read.
//! * It never does: bear on what is durable. All but `max_offset` may change while a node runs.
//! * Invariant: safety rests on none of them; they may differ between nodes.

use std::time::Duration;

use rhumb_core::time::DEFAULT_MAX_OFFSET;

use super::forecast::Forecast;
use super::policy::LevelPolicy;

/// Settings of the escrow machine of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscrowSettings {
    /// How rights are levelled.
    pub level: LevelPolicy,
    /// How demand is forecast.
    pub forecast: Forecast,
    /// How often a pool's home adds up the rows of all its nodes.
    pub reconcile: Duration,
    /// What is not acknowledged is said again after this.
    pub resend: Duration,
    /// Changed figures are told to peers after this.
    pub gossip: Duration,
    /// The same while the pool's home owns the tail.
    pub tail_gossip: Duration,
    /// A pool in which nothing changes is still spoken of after this.
    pub idle_gossip: Duration,
    /// A peer's figures younger than this are believed to be its present ones.
    pub fresh: Duration,
    /// The home's word that it has nothing is believed for this long in tail mode.
    pub tail_word: Duration,
    /// The longest a hold waits here for rights to arrive.
    pub park: Duration,
    /// Holds of one pool that may wait here.
    pub max_parked: usize,
    /// Holds of one pool that may be on their way to its home.
    pub max_forwards: usize,
    /// Pools this node may know.
    pub max_pools: usize,
    /// Idempotency keys this node may remember.
    pub max_keys: usize,
    /// Holds this node may remember, sales among them: each stays for 24 hours after its end, and a sale
    /// for as long as it may be returned besides.
    pub max_holds: usize,
    /// A node says how far its disk has come this often.
    pub beat: Duration,
    /// A node that is not proven asks again after this.
    pub prove: Duration,
    /// How far the clocks of two nodes may differ: a key made further in the future is refused.
    pub max_offset: Duration,
    /// How long after its sale a unit may be returned.
    pub returns: Duration,
}

impl Default for EscrowSettings {
    fn default() -> Self {
        Self {
            level: LevelPolicy::default(),
            forecast: Forecast::default(),
            reconcile: Duration::from_secs(30),
            resend: Duration::from_secs(1),
            gossip: Duration::from_secs(1),
            tail_gossip: Duration::from_millis(250),
            idle_gossip: Duration::from_secs(10),
            fresh: Duration::from_millis(1_500),
            tail_word: Duration::from_millis(250),
            park: Duration::from_secs(2),
            max_parked: 1_024,
            max_forwards: 256,
            max_pools: 4_096,
            max_keys: 2_000_000,
            max_holds: 4_000_000,
            beat: Duration::from_secs(1),
            prove: Duration::from_millis(200),
            max_offset: DEFAULT_MAX_OFFSET,
            returns: Duration::from_secs(24 * 3_600),
        }
    }
}
