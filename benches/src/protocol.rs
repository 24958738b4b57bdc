//! What Rhumb's actor of this bench can be asked and told. Its class is one of the mesh's policy, so that every gate has to
//! judge it: what is of class `control` is let by at once.

use rhumb::prelude::*;

/// Answered with the same bytes.
#[remote(name = "bench.Echo", class = "inventory", reply = Blob)]
pub struct Echo {
    /// The bytes.
    pub body: Blob,
}

/// Counted.
#[remote(name = "bench.Note", class = "inventory", reply = ())]
pub struct Note {
    /// Some bytes.
    pub body: Blob,
}

/// Answered with how many [`Note`]s have been handled.
#[remote(name = "bench.Arrived", class = "inventory", reply = u64)]
pub struct Arrived;

protocol! {
    /// Actors that answer with what they are asked, and count what they are told.
    pub Echoes = "bench.echo", class "inventory": Echo, Note, Arrived;
}

protocol! {
    /// The same on threads of their own, where actors are unless their service says otherwise.
    pub Apart = "bench.apart", class "inventory": Echo, Note, Arrived;
}
