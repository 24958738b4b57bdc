//! Which types openraft is used with.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::{InlineBatch, OneshotResponder};
use openraft::vote::leader_id_adv::LeaderId;
use openraft::{AnyError, AsyncRuntime, EntryPayload, RaftTypeConfig};

use super::wire;
use crate::ranges::command::{Command, Outcome};
use crate::ranges::replica::Seat;

/// openraft's types over a runtime.
pub(super) struct Types<R>(PhantomData<fn() -> R>);

pub(super) type Leader = LeaderId<u64, u64>;
pub(super) type Id = openraft::LogId<Leader>;
pub(super) type Vote = openraft::Vote<Leader>;
pub(super) type Payload = EntryPayload<Proposal, u64, Seat>;
pub(super) type Entry = openraft::Entry<Leader, Payload>;
pub(super) type Membership = openraft::Membership<u64, Seat>;
pub(super) type StoredMembership = openraft::StoredMembership<Leader, u64, Seat>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<Leader, u64, Seat>;

impl<R: AsyncRuntime> RaftTypeConfig for Types<R> {
    type D = Proposal;
    type R = Option<Outcome>;
    type NodeId = u64;
    type Node = Seat;
    type Term = u64;
    type LeaderId = Leader;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = AnyError;
}

/// A command on its way through the log, and its bytes: they are the same on the disk and on the way to every replica. Its text
/// form shows neither keys nor values: openraft logs it.
#[derive(Clone)]
pub(super) struct Proposal {
    pub(super) command: Arc<Command>,
    pub(super) bytes: Bytes,
}

impl Proposal {
    pub(super) fn of(command: Command) -> Self {
        let bytes = wire::command(&command);
        Self { command: Arc::new(command), bytes }
    }

    pub(super) fn read(bytes: Bytes) -> Result<Self, String> {
        Ok(Self { command: Arc::new(wire::read_command(&bytes)?), bytes })
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {} under lease {}", self.command.order, self.command.lease)
    }
}

// Derived, these would ask the same of the runtime.

impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
