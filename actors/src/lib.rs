//! Rhumb's actors. One folder an actor: what it can be asked (`messages.rs`), the machine that
//! decides (pure, named for what it is) and the shell that touches the world (`actor.rs`).
//!
//! Invariant: no machine here reads a clock, draws entropy, awaits, or sees a socket, file or thread.

pub mod audit;
pub mod backlog;
pub mod clock;
pub mod delivery;
pub mod escrow;
pub mod failover;
pub mod placement;
pub mod ranges;
pub mod remote;
pub mod span;
pub mod storage;
pub mod version;

/// A type that contains itself has no layout, however far down and whenever added, and does not compile:
///
/// ```compile_fail,E0391
/// #[rhumb_actors::grows(crate = rhumb_actors)]
/// #[derive(PartialEq)]
/// struct Folder {
///     name: String,
///     #[since(2)]
///     within: Option<Box<Folder>>,
/// }
/// ```
pub use rhumb_core::Wire;
/// A message whose class is not said does not compile:
///
/// ```compile_fail
/// #[rhumb_actors::remote(crate = rhumb_actors, name = "doc.Add", reply = u32)]
/// struct Add {
///     qty: u32,
/// }
/// ```
pub use rhumb_derive::remote;
pub use rhumb_derive::{Wire, grows, protocol, remote_actor};

/// What the expansions of the macros name. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use actix;
    pub use rhumb_core as core;
    pub use serde;

    pub use crate::remote;

    /// The class that a message declares. The macro has checked it.
    #[must_use]
    pub fn class(name: &str) -> core::DataClass {
        core::DataClass::new(name).expect("#[remote] takes only valid classes")
    }

    /// Refuses, when it compiles, two messages of one name in one list.
    pub const fn distinct(names: &[&str]) {
        let mut at = 0;
        while at < names.len() {
            let mut other = at + 1;
            while other < names.len() {
                assert!(
                    !same(names[at], names[other]),
                    "two messages of this list have one name on the wire"
                );
                other += 1;
            }
            at += 1;
        }
    }

    const fn same(a: &str, b: &str) -> bool {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        if a.len() != b.len() {
            return false;
        }
        let mut at = 0;
        while at < a.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len()
    }
}
