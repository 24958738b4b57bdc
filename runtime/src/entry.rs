//! Where bytes from outside come in, for tests that throw some at what is otherwise private. No part of the
//! library: it may change with any build.

use rhumb_actors::remote::Remote;
use rhumb_core::wire::{self, Wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::delivery::parcel::{Judged, Parcel};
use crate::host::id::{ActorId, Shown, Target, Whom};
use crate::mesh::dead_letters::{ListDeadLetters, SettleDeadLetter, ShowDeadLetter, Shown as DeadLetter};
use crate::mesh::service::{Locate, WatchActor, Watched};
use crate::mesh::whose::{Owned, WhoseIs};

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

/// Whether bytes are a message of this kind: what is read writes back.
pub type Reads = fn(&[u8]) -> bool;

/// The questions that the mesh asks itself, by name.
#[must_use]
pub fn questions_of_the_mesh() -> [(&'static str, Reads); 7] {
    fn read<M: Remote>() -> (&'static str, Reads) {
        (M::NAME, reads::<M>)
    }
    [
        read::<Locate>(),
        read::<WatchActor>(),
        read::<Parcel>(),
        read::<ListDeadLetters>(),
        read::<ShowDeadLetter>(),
        read::<SettleDeadLetter>(),
        read::<WhoseIs>(),
    ]
}

/// Whether bytes are one of the answers to these.
#[must_use]
pub fn is_an_answer_of_the_mesh(bytes: &[u8]) -> [bool; 4] {
    [
        reads::<Watched>(bytes),
        reads::<Judged>(bytes),
        reads::<Result<DeadLetter, String>>(bytes),
        reads::<Owned>(bytes),
    ]
}

/// # Panics
/// When what was read does not write back.
fn reads<T: Wire + Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = wire::decode::<T>(bytes) else { return false };
    let again = wire::encode(&value).expect("what was read can be written");
    wire::decode::<T>(&again).is_ok_and(|read| wire::encode(&read).is_ok_and(|twice| twice == again))
}
