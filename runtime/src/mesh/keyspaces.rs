//! A node's keyspaces, as its own actors reach them.

use std::time::Duration;

use futures::future::BoxFuture;
use rhumb_actors::ranges::messages::{KeyspaceView, KvAnswer, KvRead, KvRefusal, KvWrite, KvWritten};
use rhumb_core::Fault;

/// What came of a question, as over the mesh.
pub(crate) type Asked<T> = BoxFuture<'static, Result<Result<T, KvRefusal>, Fault>>;

/// What reads and writes keyspaces at this node. It goes on to other nodes by itself.
pub(crate) trait Keyspaces: Send + Sync {
    /// All that are known here.
    fn list(&self) -> Result<Vec<KeyspaceView>, KvRefusal>;

    /// Reads, for the actor of this name, where one is at work.
    fn read(&self, message: KvRead, by: Option<String>, within: Duration) -> Asked<KvAnswer>;

    /// Writes.
    fn write(&self, message: KvWrite, within: Duration) -> Asked<KvWritten>;
}
