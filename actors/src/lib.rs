//! Rhumb's actors. One folder an actor: what it can be asked (`messages.rs`), the machine that
//! decides (pure, named for what it is) and the shell that touches the world (`actor.rs`).
//!
//! Invariant: no machine here reads a clock, draws entropy, awaits, or sees a socket, file or thread.

pub mod escrow;
pub mod remote;
pub mod storage;

/// What the expansions of the macros name. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use actix;
    pub use rhumb_core as core;
    pub use serde;

    pub use crate::remote;
}
