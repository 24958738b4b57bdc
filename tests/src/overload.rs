//! A service that can be asked for more than it can do, for `make overload` and for the test of a node's modes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rhumb::mesh::resilience::Mode;
use rhumb::prelude::*;
use tokio::time::Instant;

/// What a question burns.
pub const BURNS: Duration = Duration::from_micros(200);

/// Burns.
#[remote(name = "overload.Burn", class = "control", reply = (), idempotent, deadline = "1s")]
pub struct Burn {}

/// What the node's modes were, one after the other, since it was asked first.
#[remote(name = "overload.Heard", class = "control", reply = Vec<String>, idempotent, deadline = "5s")]
pub struct Heard {}

/// Who burns, behind a door.
pub struct Burner;

/// A service that hears of the node's modes.
pub struct Listener {
    heard: Arc<Mutex<Vec<Mode>>>,
}

#[remote_actor(name = "overload.burner", class = "control", accepts(Burn))]
impl Actor for Burner {
    type Context = Context<Self>;
}

#[remote_actor(name = "overload.listener", class = "control", accepts(Heard))]
impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Burn> for Burner {
    type Result = ();
    fn handle(&mut self, _: Burn, _: &mut Context<Self>) {
        let begun = Instant::now();
        while begun.elapsed() < BURNS {
            std::hint::spin_loop();
        }
    }
}

impl Handler<Heard> for Listener {
    type Result = Vec<String>;
    fn handle(&mut self, _: Heard, _: &mut Context<Self>) -> Self::Result {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|mode| mode.name().to_owned())
            .collect()
    }
}

/// How burners are hosted.
#[must_use]
pub fn burners() -> Host<Burner> {
    Host::new(|_: &Activation| Burner).admission(Admission::default())
}

/// How listeners are hosted.
#[must_use]
pub fn listeners() -> Host<Listener> {
    Host::new(|at: &Activation| {
        let (heard, mut modes) = (Arc::<Mutex<Vec<Mode>>>::default(), at.mesh.modes());
        let noted = Arc::clone(&heard);
        tokio::spawn(async move {
            while modes.changed().await.is_ok() {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(*modes.borrow_and_update());
            }
        });
        Listener { heard }
    })
}
