//! What Rhumb's actor of this bench can be asked.

use rhumb::prelude::*;

/// Answered with the same bytes.
#[remote(name = "bench.Echo", class = "control", reply = Vec<u8>)]
pub struct Echo {
    /// The bytes.
    pub body: Vec<u8>,
}

protocol! {
    /// Actors that answer with what they are asked.
    pub Echoes = "bench.echo", class "control": Echo;
}
