//! What Rhumb's actor of this bench can be asked.

use bytes::Bytes;
use rhumb::prelude::*;

/// Answered with the same bytes.
#[remote(name = "bench.Echo", class = "control", reply = Bytes)]
pub struct Echo {
    /// The bytes.
    pub body: Bytes,
}

protocol! {
    /// Actors that answer with what they are asked.
    pub Echoes = "bench.echo", class "control": Echo;
}
