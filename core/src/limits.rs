//! Limits on everything that comes from outside or grows with use. One place, so that a reader can
//! see them together; each says its unit.

/// Characters in a region, node, pool or class name: a DNS label.
pub const MAX_NAME_LEN: usize = 63;
/// Bytes in one framed message on a lane, header included. Larger payloads have streams of their own.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Bytes in an idempotency key.
pub const MAX_KEY_BYTES: usize = 200;
/// Units a pool may hold. Sums of all nodes' cumulative counters stay far below `u64::MAX`.
pub const MAX_SUPPLY: u64 = 1 << 48;
/// Nodes in one mesh's founding list.
pub const MAX_NODES: usize = 64;
/// Effects one machine step may push before the shell drains them.
pub const MAX_EFFECTS: usize = 65_536;
