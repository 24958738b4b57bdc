//! `StorageActor`: the one way to a node's hot store.
//!
//! * It decides: nothing but whether there is room; the store groups commits and keeps order.
//! * It never does: answer before the bytes are durable, or go on after a failed write.
//! * Invariant: what was handed over in an order becomes durable in that order.

mod actor;
mod window;

pub use actor::{Done, StorageActor, StorageHandle};
pub use window::Window;
