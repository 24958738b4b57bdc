//! A counter that is the only one of its mesh, and moves: what it counts stands in a keyspace, beside the epoch under which it was
//! counted.
//!
//! * It decides: that it counts nothing before it has put its epoch where the count is, on condition that no later one is there.
//! * It never does: count on by what it has in memory when a write of its own has not been seen to be done.
//!
//! A counter that goes on where its node was frozen writes on a condition that does not hold any more: that of the row as it
//! was before its successor put its own epoch there.

use std::sync::Arc;

use rhumb::Wire;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{Kv, KvCondition, KvError};
use rhumb::prelude::*;
use rhumb_core::HybridTime;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The keyspace that it writes to.
pub const KEYSPACE: &str = "counts";
/// The row there.
const ROW: &[u8] = b"counter";

/// Counts one more.
#[remote(name = "test.counter.Add", class = "inventory", reply = Result<Counted, NotCounted>, deadline = "8s")]
pub struct Add {}

/// Who counts, and under which epoch; nothing is written.
#[remote(name = "test.counter.Who", class = "inventory", reply = (NodeId, u64), idempotent, deadline = "2s")]
pub struct Who {}

protocol! {
    /// The only counter.
    pub Counters = "test.counter", class "inventory": Add, Who;
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub struct Counted {
    /// Together with all before.
    pub count: u64,
    /// Under which epoch.
    pub epoch: u64,
    /// By which node.
    pub node: NodeId,
}

/// Why nothing is known to have been counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub enum NotCounted {
    /// The row is of a later epoch: this counter is not the one any more.
    Superseded {
        /// That one.
        by: u64,
    },
    /// The keyspace did not take it; nothing was counted.
    Refused(String),
    /// It may have been counted.
    Unknown(String),
}

/// Where the count stands.
#[derive(Debug, Clone, Copy)]
struct Row {
    count: u64,
    version: HybridTime,
}

/// The counter's part that its handlers share, one after the other.
struct Book {
    mesh: Mesh,
    epoch: u64,
    node: NodeId,
    /// As this counter has left it. None: it is not known to be its own.
    row: Mutex<Option<Row>>,
}

/// The counter.
pub struct Counter(Arc<Book>);

/// How it is hosted.
#[must_use]
pub fn counters() -> Host<Counter> {
    let made = |at: &Activation| {
        let node = at.mesh.node().expect("a node hosts it").clone();
        let (mesh, epoch, row) = (at.mesh.clone(), at.epoch.0, Mutex::new(None));
        Counter(Arc::new(Book { mesh, epoch, node, row }))
    };
    Host::new(made).moves()
}

#[remote_actor(serves = Counters)]
impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Add> for Counter {
    type Result = Reply<Result<Counted, NotCounted>>;

    fn handle(&mut self, _: Add, _: &mut Context<Self>) -> Self::Result {
        let book = Arc::clone(&self.0);
        Reply::later(async move { book.add().await }).finish()
    }
}

impl Handler<Who> for Counter {
    type Result = Reply<(NodeId, u64)>;

    fn handle(&mut self, _: Who, _: &mut Context<Self>) -> Self::Result {
        Reply::ready((self.0.node.clone(), self.0.epoch))
    }
}

impl Book {
    async fn add(&self) -> Result<Counted, NotCounted> {
        let mut row = self.row.lock().await;
        let store = Kv::here(&self.mesh, KEYSPACE).await.map_err(not_counted)?;
        let known = match row.take() {
            Some(known) => known,
            None => self.claims(&store).await?,
        };
        let counted = self.writes(&store, known.count + 1, KvCondition::Version(known.version)).await?;
        *row = Some(counted);
        Ok(Counted { count: counted.count, epoch: self.epoch, node: self.node.clone() })
    }

    /// Puts this counter's epoch where the count is. From then on nobody writes there that has read it before.
    async fn claims(&self, store: &Kv<'_>) -> Result<Row, NotCounted> {
        let found = store.strong(ROW).await.map_err(not_counted)?;
        let Some(version) = found.value().version() else {
            return self.writes(store, 0, KvCondition::Absent).await;
        };
        let (epoch, count) = read(found.value().bytes().unwrap_or_default());
        if epoch > self.epoch {
            return Err(NotCounted::Superseded { by: epoch });
        }
        self.writes(store, count, KvCondition::Version(version)).await
    }

    async fn writes(&self, store: &Kv<'_>, count: u64, condition: KvCondition) -> Result<Row, NotCounted> {
        let written = store.put_if(ROW, written(self.epoch, count).as_bytes(), condition).await;
        Ok(Row { count, version: written.map_err(not_counted)?.version })
    }
}

fn written(epoch: u64, count: u64) -> String {
    format!("{epoch} {count}")
}

/// The epoch and the count of a row.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn read(row: &[u8]) -> (u64, u64) {
    let text = std::str::from_utf8(row).expect("text");
    let (epoch, count) = text.split_once(' ').expect("an epoch and a count");
    (epoch.parse().expect("an epoch"), count.parse().expect("a count"))
}

fn not_counted(error: KvError) -> NotCounted {
    match error {
        KvError::Refused(refusal) => NotCounted::Refused(refusal.to_string()),
        KvError::Fault(fault) if fault.delivery() != Delivery::NotSent => {
            NotCounted::Unknown(fault.to_string())
        }
        other => NotCounted::Refused(other.to_string()),
    }
}

/// The nodes of a list, as `region/node=address` with commas.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn directory(list: &str) -> Directory {
    let one = |said: &str| {
        let (node, address) = said.split_once('=').expect("a node and its address");
        (node.parse().expect("a node"), address.parse().expect("an address"))
    };
    Directory::of(list.split(',').map(one).collect())
}
