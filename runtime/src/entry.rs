//! Where bytes from outside come in, for tests that throw some at what is otherwise private. No part of the
//! library: it may change with any build.

use rhumb_core::wire;

use crate::host::id::{ActorId, Shown, Target, Whom};
use crate::mesh::service::{Locate, WatchActor, Watched};

/// Whether a text is the target of a message; what is read writes back the same.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn is_target(text: &str) -> bool {
    let Some(target) = Target::parse(text) else { return false };
    let place = target.region.map(|region| format!("@{region}")).unwrap_or_default();
    let again = match target.whom {
        Whom::All => Target::all(target.kind),
        Whom::Any => format!("{}?", target.kind),
        Whom::One(key) => {
            // Whatever a peer calls a key, it is judged and shown.
            let id = ActorId::new("entry", None, key);
            assert!(id.check().is_err() || Shown::parse(&id.shown().to_string()).is_some(), "{text:?}");
            format!("{}{place}/{key}", target.kind)
        }
    };
    assert_eq!(again, text, "a target reads back as it was written");
    true
}

/// Whether a text names an actor without its key.
#[must_use]
pub fn is_shown(text: &str) -> bool {
    Shown::parse(text).is_some()
}

/// Whether bytes are one of the questions that the mesh asks itself.
#[must_use]
pub fn is_of_the_mesh(bytes: &[u8]) -> [bool; 3] {
    [
        wire::decode::<Locate>(bytes).is_ok(),
        wire::decode::<WatchActor>(bytes).is_ok(),
        wire::decode::<Watched>(bytes).is_ok(),
    ]
}
