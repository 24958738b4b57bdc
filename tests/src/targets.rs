//! What hostile bytes are aimed at: actors of every kind of patience.

use std::time::Duration;

use rhumb::prelude::*;

/// How long an actor sits on what it was told.
const SITS: Duration = Duration::from_secs(4);

/// Is heard and forgotten.
#[remote(name = "target.Note", class = "inventory", reply = ())]
pub struct Note {
    /// What.
    pub said: String,
}

/// Is sat on for some seconds.
#[remote(name = "target.Sit", class = "inventory", reply = ())]
pub struct Sit {
    /// What takes up memory meanwhile.
    pub load: Vec<u8>,
}

/// Has an answer of so many bytes.
#[remote(name = "target.Fill", class = "inventory", reply = Vec<u8>, idempotent)]
pub struct Fill {
    /// How many.
    pub bytes: u32,
}

/// Counts once a key.
#[remote(name = "target.Count", class = "inventory", reply = u32, key = key)]
pub struct Count {
    /// The key.
    pub key: String,
    /// What makes another body under the same key.
    pub number: u32,
}

protocol! {
    /// What everybody may call.
    pub Targets = "target", class "inventory": Note, Sit, Fill, Count;
}

/// The actor.
#[derive(Default)]
pub struct Target {
    counted: u32,
}

/// How targets are hosted.
#[must_use]
pub fn targets() -> Host<Target> {
    Host::new(|_| Target::default())
}

#[remote_actor(serves = Targets)]
impl Actor for Target {
    type Context = Context<Self>;
}

impl Handler<Note> for Target {
    type Result = ();

    fn handle(&mut self, _: Note, _: &mut Context<Self>) {}
}

impl Handler<Sit> for Target {
    type Result = Reply<()>;

    fn handle(&mut self, sit: Sit, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(async move {
            tokio::time::sleep(SITS).await;
            drop(sit);
        })
    }
}

impl Handler<Fill> for Target {
    type Result = Vec<u8>;

    fn handle(&mut self, fill: Fill, _: &mut Context<Self>) -> Vec<u8> {
        vec![7; fill.bytes as usize]
    }
}

impl Handler<Count> for Target {
    type Result = u32;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u32 {
        self.counted += 1;
        self.counted
    }
}
