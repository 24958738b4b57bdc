//! The shell around the hot store: receives batches and hands them over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
pub use rhumb_storage::hot::Done;
use rhumb_storage::hot::Left;
use rhumb_storage::{Batch, CommitError, Durability, HotStore, Refusal};

use crate::backlog::{self, Backlog};

/// How many batches may wait in the actor's mailbox.
const MAILBOX: usize = 4_096;

/// Makes batches durable, in the order in which they come. A store that is pressed hard refuses for a
/// while; then batches wait here in their order, and writers feel it by their windows filling up.
pub struct StorageActor {
    store: HotStore,
    backlog: Arc<Backlog>,
    waiting: VecDeque<Waiting>,
    retry: Option<SpawnHandle>,
}

struct Waiting {
    batch: Batch,
    done: Done,
}

impl StorageActor {
    /// What counts a mailbox of this actor's.
    #[must_use]
    pub fn backlog() -> Arc<Backlog> {
        Arc::new(Backlog::of(MAILBOX))
    }

    /// An actor in front of this store. It says to `backlog` what it takes out of its mailbox.
    #[must_use]
    pub fn new(store: HotStore, backlog: Arc<Backlog>) -> Self {
        Self { store, backlog, waiting: VecDeque::new(), retry: None }
    }

    fn drain(&mut self, ctx: &mut Context<Self>) {
        while let Some(Waiting { batch, done }) = self.waiting.pop_front() {
            let Err(left) = self.store.offer(batch, Durability::Durable, done) else { continue };
            let Left { batch, done, why } = *left;
            match why {
                Refusal::Full { retry_after } | Refusal::Pressed { retry_after, .. } => {
                    self.waiting.push_front(Waiting { batch, done });
                    return self.again_after(retry_after, ctx);
                }
                never => done(Err(CommitError::Refused(never))),
            }
        }
    }

    fn again_after(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if self.retry.is_none() {
            self.retry = Some(ctx.run_later(wait, |actor, ctx| {
                actor.retry = None;
                actor.drain(ctx);
            }));
        }
    }
}

impl Actor for StorageActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// Make this batch durable, then call.
#[derive(Message)]
#[rtype(result = "()")]
struct Write {
    batch: Batch,
    done: Done,
}

impl Handler<Write> for StorageActor {
    type Result = ();

    fn handle(&mut self, Write { batch, done }: Write, ctx: &mut Self::Context) {
        self.backlog.taken();
        self.waiting.push_back(Waiting { batch, done });
        if self.retry.is_none() {
            self.drain(ctx);
        }
    }
}

/// The storage actor, as others see it. It keeps one address: a clone of an actix address would have
/// a place of its own in the mailbox, and the bound would be none.
///
/// The batches that wait in the actor are bounded by its writers: each has at most a
/// [`Window`](super::Window) of them under way.
#[derive(Clone)]
pub struct StorageHandle {
    address: Arc<Addr<StorageActor>>,
    backlog: Arc<Backlog>,
}

impl StorageHandle {
    /// A handle on a started actor, which counts its mailbox with this.
    #[must_use]
    pub fn new(address: Addr<StorageActor>, backlog: Arc<Backlog>) -> Self {
        Self { address: Arc::new(address), backlog }
    }

    /// What waits in the mailbox.
    #[must_use]
    pub fn waiting(&self) -> backlog::Waiting {
        self.backlog.waiting()
    }

    /// Hands a batch over. `done` is called once, when it is durable or never will be.
    ///
    /// # Errors
    /// The mailbox is full or the actor is gone: nothing was written, and nothing may be sent on the
    /// strength of this batch.
    pub fn write(&self, batch: Batch, done: Done) -> Result<(), &'static str> {
        self.address.try_send(Write { batch, done }).map_err(|error| match error {
            SendError::Full(_) => "the storage actor's mailbox is full",
            SendError::Closed(_) => "the storage actor is gone",
        })?;
        self.backlog.came();
        Ok(())
    }
}
