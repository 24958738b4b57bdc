//! Which types openraft is used with.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::OneshotSender;
use openraft::impls::InlineBatch;
use openraft::raft::responder::Responder;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{OneshotReceiverOf, OneshotSenderOf};
use openraft::vote::leader_id_adv::LeaderId;
use openraft::{AnyError, AsyncRuntime, EntryPayload, RaftTypeConfig};
use rhumb_core::ClusterVersion;
#[cfg(feature = "canaries")]
use rhumb_core::Knows;
use rhumb_storage::hot::Inside;

use super::wire;
use crate::ranges::command::{Command, Outcome};
use crate::ranges::replica::{ReplicaId, Seat};
use crate::version::formats::readable;
use crate::version::{Formats, UnknownFormat};

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
        = Told<R, T>
    where
        T: Send + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = AnyError;
}

/// Tells a proposal's caller what came of it. What was let in with it is let out then, and not before: that its caller has given up
/// does not end it.
pub(super) struct Told<R: AsyncRuntime, T: Send + 'static> {
    tells: OneshotSenderOf<Types<R>, T>,
    inside: Inside,
}

impl<R: AsyncRuntime, T: Send + 'static> Told<R, T> {
    /// With whom it tells.
    pub(super) fn pair(inside: Inside) -> (Self, OneshotReceiverOf<Types<R>, T>) {
        let (tells, told) = Types::<R>::oneshot();
        (Self { tells, inside }, told)
    }
}

impl<R: AsyncRuntime, T: Send + 'static> Responder<Types<R>, T> for Told<R, T> {
    fn on_complete(self, outcome: T) {
        drop(self.inside);
        // A caller that no longer waits is not owed the outcome.
        self.tells.send(outcome).ok();
    }
}

/// A command on its way through the log, and its bytes: they are the same on the disk and on the way to every replica. Its text
/// form shows neither keys nor values: openraft logs it.
#[derive(Clone)]
pub(super) struct Proposal {
    pub(super) bytes: Bytes,
    read: Result<Arc<Commanded>, UnknownFormat>,
}

/// A command as it was read.
#[derive(Debug)]
pub(super) struct Commanded {
    pub(super) format: ClusterVersion,
    pub(super) command: Command,
    /// What a command says in the format after the last one.
    #[cfg(feature = "canaries")]
    pub(super) by: Option<ReplicaId>,
}

impl Proposal {
    /// A command, in a format that the caller knows all others to read.
    pub(super) fn of(command: Command, format: ClusterVersion, by: ReplicaId) -> Self {
        let bytes = wire::command(&command, format, by);
        #[cfg(feature = "canaries")]
        let by = (format > Knows::RELEASE.newest).then_some(by);
        let read = Commanded {
            format,
            command,
            #[cfg(feature = "canaries")]
            by,
        };
        Self { bytes, read: Ok(Arc::new(read)) }
    }

    /// The command of bytes. One of an unknown format is one all the same, until it is applied: it stands in the log.
    pub(super) fn read(bytes: Bytes) -> Result<Self, String> {
        let read = match readable(COMMAND, &bytes) {
            Ok(format) => Ok(Arc::new(wire::read_command(&bytes, format)?)),
            Err(unknown) => Err(unknown),
        };
        Ok(Self { bytes, read })
    }

    /// The command, for a node that reads by these formats.
    pub(super) fn command(&self, formats: &Formats) -> Result<&Arc<Commanded>, UnknownFormat> {
        let read = self.read.as_ref().map_err(Clone::clone)?;
        formats.reads(COMMAND, read.format)?;
        Ok(read)
    }
}

const COMMAND: &str = "a command of a range";

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.read {
            Ok(read) => write!(f, "command {} under lease {}", read.command.order, read.command.lease),
            Err(unknown) => unknown.fmt(f),
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rhumb_core::{HybridTime, Knows};
    use rhumb_storage::hot::{HotSettings, HotStore};
    use rhumb_storage::{MemoryDisk, MemoryEngine, Store};

    use super::*;
    use crate::ranges::command::Body;
    use crate::ranges::raft::TokioRuntime;

    fn command() -> Command {
        Command {
            lease: 3,
            order: 5,
            closed: HybridTime::from_bits(7),
            body: Body::Threshold(HybridTime::ZERO),
        }
    }

    #[test]
    fn a_command_of_a_later_format_stands_in_the_log_and_is_not_applied() {
        let (first, later_one) = (ClusterVersion::FIRST, ClusterVersion(9));
        let formats = Formats::default();
        let known = Proposal::of(command(), first, ReplicaId(4));
        let again = Proposal::read(known.bytes.clone()).expect("it is sound");
        let read = again.command(&formats).expect("it is known");
        assert_eq!((read.format, &read.command), (first, &command()));
        // What a later release might write.
        let mut bytes = known.bytes.to_vec();
        bytes[0] = 8;
        let later = Proposal::read(bytes.clone().into()).expect("it may stand in the log");
        let unknown = later.command(&formats).expect_err("what it does is not known");
        assert_eq!((unknown.format, unknown.knows), (later_one, Knows::RELEASE));
        assert_eq!(later.bytes, bytes, "and it is passed on as it is");
        bytes[0] = 250;
        assert!(Proposal::read(bytes.into()).is_ok());
        assert!(Proposal::read(known.bytes.slice(..2)).is_err(), "one of a known format is sound or nothing");
    }

    #[cfg(feature = "canaries")]
    #[test]
    fn the_next_build_reads_what_the_old_one_writes_and_not_the_other_way_round() {
        let next = Knows::RELEASE.newest.next();
        let knows = Knows { newest: next, ..Knows::RELEASE };
        let (old_build, next_build) = (Formats::new(Knows::RELEASE), Formats::new(knows));
        for (format, by) in [(Knows::RELEASE.newest, None), (next, Some(ReplicaId(4)))] {
            let written = Proposal::of(command(), format, ReplicaId(4));
            let read = Proposal::read(written.bytes.clone()).expect("it is sound");
            assert_eq!(written.bytes[0] + 1, u8::try_from(format.0).expect("small"));
            for proposal in [&written, &read] {
                let here = proposal.command(&next_build).expect("it knows both");
                assert_eq!((here.format, here.by, &here.command), (format, by, &command()));
                assert_eq!(proposal.command(&old_build).is_ok(), format == Knows::RELEASE.newest);
            }
        }
    }

    #[tokio::test]
    async fn what_was_let_in_is_inside_until_it_has_ended_be_it_that_its_caller_has_given_up() {
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("a sound disk");
        let store =
            HotStore::start(store, HotSettings::default(), |fault| panic!("{fault}")).expect("starts");
        let let_in = store.door(1, Duration::MAX).expect("nothing waits");
        let (told, heard) = Told::<TokioRuntime, u8>::pair(let_in.inside);
        drop(heard);
        assert_eq!(store.stats().inside, 1, "it may still be written");
        told.on_complete(7);
        assert_eq!(store.stats().inside, 0);

        let let_in = store.door(1, Duration::MAX).expect("nothing waits");
        let (told, heard) = Told::<TokioRuntime, u8>::pair(let_in.inside);
        told.on_complete(7);
        assert_eq!(
            (heard.await.ok(), store.stats().inside),
            (Some(7), 0),
            "who is told may come again at once"
        );
    }
}
