//! What Rhumb's actor of this bench can be asked and told.

use rhumb::prelude::*;

/// Answered with the same bytes.
#[remote(name = "bench.Echo", class = "control", reply = Blob)]
pub struct Echo {
    /// The bytes.
    pub body: Blob,
}

/// Counted.
#[remote(name = "bench.Note", class = "control", reply = ())]
pub struct Note {
    /// Some bytes.
    pub body: Blob,
}

/// Answered with how many [`Note`]s have been handled.
#[remote(name = "bench.Arrived", class = "control", reply = u64)]
pub struct Arrived;

protocol! {
    /// Actors that answer with what they are asked, and count what they are told.
    pub Echoes = "bench.echo", class "control": Echo, Note, Arrived;
}

protocol! {
    /// The same on threads of their own, where actors are unless their service says otherwise.
    pub Apart = "bench.apart", class "control": Echo, Note, Arrived;
}
