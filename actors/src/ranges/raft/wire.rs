//! What stands on disk and what goes between replicas: ours, in enums to which versions are only appended, so that another
//! release of openraft reads what this one wrote.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::entry::RaftEntry;
#[cfg(feature = "canaries")]
use rhumb_core::Knows;
use rhumb_core::canary::{self, Canary};
use rhumb_core::codec;
use rhumb_core::{ClusterVersion, HybridTime};
use rhumb_storage::mvcc::{Record, UserKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{self, Commanded, Entry, Payload, Proposal};
use crate::ranges::collect::Part;
use crate::ranges::command::{Body, Command, Condition, Op, Write};
use crate::ranges::lease::Lease;
use crate::ranges::replica::{RangeId, ReplicaId, Seat};

/// An entry's place in the log, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// The term.
    pub term: u64,
    /// The replica that led in it.
    pub leader: u64,
    /// The place.
    pub index: u64,
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// For whom.
    pub replica: u64,
    /// Whether a quorum has given it.
    pub committed: bool,
}

/// Who votes, in one configuration or two, and where all replicas stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Configurations: two while one takes over from the other.
    pub voters: Vec<Vec<u64>>,
    /// All replicas.
    pub seats: Vec<(u64, Seat)>,
}

#[derive(Serialize, Deserialize)]
enum Said {
    Blank,
    Command(Bytes),
    Members(Members),
}

/// An entry of the log.
#[derive(Serialize, Deserialize)]
pub struct Line {
    id: Id,
    said: Said,
}

/// What a snapshot is a snapshot of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The last entry in it.
    pub applied: Option<Id>,
    /// Where the membership in it was said.
    pub members_at: Option<Id>,
    /// The membership.
    pub members: Members,
}

/// What a replica asks another one.
#[derive(Serialize, Deserialize)]
pub enum Asked {
    /// Append these, if what is before them is there.
    Append {
        /// The leader's vote.
        vote: Ballot,
        /// The entry before them.
        previous: Option<Id>,
        /// Entries.
        lines: Vec<Line>,
        /// What is committed.
        commit: Option<Id>,
    },
    /// Vote for me; or: would you?
    Vote {
        /// The vote asked for.
        vote: Ballot,
        /// The asker's last entry.
        last: Option<Id>,
        /// The leader wants it so.
        transfer: bool,
        /// Only whether it would be given.
        pre: bool,
    },
    /// Rows of a snapshot.
    Rows(Part),
    /// The snapshot whose rows came before.
    Snapshot {
        /// The leader's vote.
        vote: Ballot,
        /// Of what.
        standing: Standing,
        /// The state of its replica.
        state: Bytes,
    },
    /// This one is to lead, once it has all up to the last entry; the others stand in its way no more. All are told.
    Lead {
        /// The leader's vote.
        vote: Ballot,
        /// Which replica it is.
        to: u64,
        /// Its last entry.
        last: Option<Id>,
    },
    /// Pass these entries on, which you have or will have in a moment, to a replica without a vote, and say what it answers.
    Feed {
        /// To this one.
        to: u64,
        /// The leader's vote.
        vote: Ballot,
        /// The entry before them.
        previous: Option<Id>,
        /// Which.
        named: Named,
        /// What is committed.
        commit: Option<Id>,
    },
}

/// Entries that stand side by side, by their ids and without what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The first of them, and each that another leader wrote than the one before it. None: there are no entries.
    pub firsts: Vec<Id>,
    /// The place of the last one, or of the one that they would stand behind.
    pub last: u64,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answered {
    /// All was appended.
    Appended,
    /// Up to here was.
    AppendedUpTo(Option<Id>),
    /// What is before them is not there.
    Conflict,
    /// This vote is higher.
    HigherVote(Ballot),
    /// The vote.
    Vote {
        /// The highest vote known.
        vote: Ballot,
        /// Whether the one asked for is given.
        granted: bool,
        /// The last entry.
        last: Option<Id>,
        /// Whether it was only asked whether it would be given.
        pre: bool,
    },
    /// The rows are kept.
    Kept,
    /// The snapshot is installed, or its vote was too low.
    Installed(Ballot),
    /// It stands for election, or in nobody's way.
    Leads,
    /// It does not, and why.
    DoesNotLead(String),
    /// They were not passed on, or not as far as is known, and why.
    NotFed(String),
}

/// What was written before there were checksums.
#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

/// The first byte of what has a checksum: the four bytes behind it are the CRC-32C, big-endian, of all that follows. It differs
/// in four bits from the first byte of what has none.
const CHECKED: u8 = 0xc5;

/// Bytes of a value, with the number of their version and a checksum.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let inner = codec::encode(value).expect("what a range writes is within the codec's limits");
    let mut bytes = Vec::with_capacity(5 + inner.len());
    bytes.push(CHECKED);
    bytes.extend(rhumb_storage::checksum(&inner).to_be_bytes());
    bytes.extend_from_slice(&inner);
    bytes.into()
}

/// The bytes behind their checksum, if it matches; as they are, if they are of before there were checksums.
///
/// # Errors
/// What is wrong with them.
pub fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let Some((&CHECKED, rest)) = bytes.split_first() else { return Ok(bytes) };
    let (sum, inner) = rest.split_at_checked(4).ok_or("it is shorter than its checksum")?;
    if sum != rhumb_storage::checksum(inner).to_be_bytes() {
        return Err("its checksum does not match: it is not what was written".to_owned());
    }
    Ok(inner)
}

/// The value of bytes.
///
/// # Errors
/// What is wrong with them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let inner = checked(bytes)?;
    if inner.len() != bytes.len() {
        return codec::decode(inner).map_err(|error| error.to_string());
    }
    let Versioned::V1(value) = codec::decode(bytes).map_err(|error| error.to_string())?;
    Ok(value)
}

// ---- openraft's types and ours -----------------------------------------------------------------

impl From<&types::Id> for Id {
    fn from(id: &types::Id) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<Id> for types::Id {
    fn from(Id { term, leader, index }: Id) -> Self {
        Self::new(types::Leader { term, node_id: leader }, index)
    }
}

impl From<&types::Vote> for Ballot {
    fn from(vote: &types::Vote) -> Self {
        Self { term: vote.leader_id.term, replica: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<Ballot> for types::Vote {
    fn from(Ballot { term, replica, committed }: Ballot) -> Self {
        Self { leader_id: types::Leader { term, node_id: replica }, committed }
    }
}

impl From<&types::Membership> for Members {
    fn from(members: &types::Membership) -> Self {
        let voters = members.get_joint_config().iter().map(|config| config.iter().copied().collect());
        let seats = members.nodes().map(|(id, seat)| (*id, seat.clone()));
        Self { voters: voters.collect(), seats: seats.collect() }
    }
}

impl TryFrom<Members> for types::Membership {
    type Error = String;

    fn try_from(Members { voters, seats }: Members) -> Result<Self, String> {
        if voters.is_empty() && seats.is_empty() {
            return Ok(Self::default());
        }
        let voters = voters.into_iter().map(|config| config.into_iter().collect::<BTreeSet<_>>()).collect();
        let seats: BTreeMap<_, _> = seats.into_iter().collect();
        Self::new(voters, seats).map_err(|error| error.to_string())
    }
}

impl Standing {
    pub(super) fn of(applied: Option<types::Id>, members: &types::StoredMembership) -> Self {
        Self {
            applied: applied.as_ref().map(Id::from),
            members_at: members.log_id().as_ref().map(Id::from),
            members: members.membership().into(),
        }
    }

    pub(super) fn membership(&self) -> Result<types::StoredMembership, String> {
        let members = self.members.clone().try_into()?;
        Ok(types::StoredMembership::new(self.members_at.map(Into::into), members))
    }
}

impl Named {
    /// The names of entries that stand behind this one, if there are any.
    pub(super) fn behind(previous: &types::Id, entries: &[Entry]) -> Self {
        Self::of(entries).unwrap_or_else(|| Self { firsts: Vec::new(), last: previous.index })
    }

    /// The names of entries; none where there are none.
    fn of(entries: &[Entry]) -> Option<Self> {
        let mut firsts: Vec<Id> = Vec::new();
        for id in entries.iter().map(|entry| Id::from(&entry.log_id)) {
            if firsts.last().is_none_or(|of| (of.term, of.leader) != (id.term, id.leader)) {
                firsts.push(id);
            }
        }
        Some(Self { firsts, last: entries.last()?.log_id.index })
    }

    /// The place of the first one.
    pub(super) fn first(&self) -> Option<u64> {
        self.firsts.first().map(|id| id.index)
    }

    /// Whether these entries are the ones that are named.
    pub(super) fn are(&self, entries: &[Entry]) -> bool {
        let unchecked = canary::sings(Canary::FedEntriesUnchecked);
        let places = |named: &Self| Some((named.first()?, named.last));
        Self::of(entries).is_some_and(|found| found == *self || unchecked && places(&found) == places(self))
    }
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        let said = match &entry.payload {
            Payload::Blank => Said::Blank,
            Payload::Normal(proposal) => Said::Command(proposal.bytes.clone()),
            Payload::Membership(members) => Said::Members(members.into()),
        };
        Self { id: (&entry.log_id).into(), said }
    }
}

impl TryFrom<Line> for Entry {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let payload = match line.said {
            Said::Blank => Payload::Blank,
            Said::Command(bytes) => Payload::Normal(Proposal::read(bytes)?),
            Said::Members(members) => Payload::Membership(members.try_into()?),
        };
        Ok(Self::new(line.id.into(), payload))
    }
}

// ---- commands ----------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
enum Formatted {
    V1 {
        lease: u64,
        order: u64,
        closed: HybridTime,
        body: Bodied,
    },
    /// What only tests write: who has proposed it is said, too.
    #[cfg(feature = "canaries")]
    Next {
        lease: u64,
        order: u64,
        closed: HybridTime,
        body: Bodied,
        by: ReplicaId,
    },
}

#[derive(Serialize, Deserialize)]
enum Bodied {
    Write { at: HybridTime, ops: Vec<Opped> },
    Lease(Lease),
    Split { at: Vec<u8>, right: RangeId, seats: Vec<Seat> },
    Threshold(HybridTime),
    Reseat(Vec<Seat>),
    Compare,
}

#[derive(Serialize, Deserialize)]
struct Opped {
    key: Vec<u8>,
    condition: Option<Condition>,
    /// As on disk, but under no row's key.
    record: Bytes,
}

/// The bytes of a command, in a format. In the formats of releases it is not said who has proposed it.
pub(super) fn command(command: &Command, format: ClusterVersion, by: ReplicaId) -> Bytes {
    let opped = |op: &Op| Opped {
        key: op.key.as_bytes().to_vec(),
        condition: op.condition,
        record: op.record.encode(op.key.as_bytes()).into(),
    };
    let body = match &command.body {
        Body::Write(write) => Bodied::Write { at: write.at, ops: write.ops.iter().map(opped).collect() },
        Body::Lease(lease) => Bodied::Lease(*lease),
        Body::Split { at, right, seats } => {
            Bodied::Split { at: at.as_bytes().to_vec(), right: *right, seats: seats.clone() }
        }
        Body::Threshold(threshold) => Bodied::Threshold(*threshold),
        Body::Reseat(seats) => Bodied::Reseat(seats.clone()),
        Body::Compare => Bodied::Compare,
    };
    let Command { lease, order, closed, .. } = *command;
    #[cfg(feature = "canaries")]
    if format > Knows::RELEASE.newest {
        let next = Formatted::Next { lease, order, closed, body, by };
        return codec::encode(&next).expect("a command is within the codec's limits");
    }
    let _ = (format, by);
    let formatted = Formatted::V1 { lease, order, closed, body };
    codec::encode(&formatted).expect("a command is within the codec's limits")
}

/// The command of bytes, of a format that this build knows.
pub(super) fn read_command(bytes: &[u8], format: ClusterVersion) -> Result<Commanded, String> {
    #[cfg(feature = "canaries")]
    let (lease, order, closed, body, by) = match codec::decode(bytes).map_err(|error| error.to_string())? {
        Formatted::V1 { lease, order, closed, body } => (lease, order, closed, body, None),
        Formatted::Next { lease, order, closed, body, by } => (lease, order, closed, body, Some(by)),
    };
    #[cfg(not(feature = "canaries"))]
    let Formatted::V1 { lease, order, closed, body } =
        codec::decode(bytes).map_err(|error| error.to_string())?;
    let key = |bytes: Vec<u8>| UserKey::new(bytes).map_err(|error| error.to_string());
    let op = |opped: Opped| {
        let record = Record::decode(&opped.key, &opped.record).map_err(|error| error.to_string())?;
        Ok::<_, String>(Op { key: key(opped.key)?, condition: opped.condition, record })
    };
    let body = match body {
        Bodied::Write { at, ops } => {
            Body::Write(Write { at, ops: ops.into_iter().map(op).collect::<Result<_, _>>()? })
        }
        Bodied::Lease(lease) => Body::Lease(lease),
        Bodied::Split { at, right, seats } => Body::Split { at: key(at)?, right, seats },
        Bodied::Threshold(threshold) => Body::Threshold(threshold),
        Bodied::Reseat(seats) => Body::Reseat(seats),
        Bodied::Compare => Body::Compare,
    };
    Ok(Commanded {
        format,
        command: Command { lease, order, closed, body },
        #[cfg(feature = "canaries")]
        by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blank entries of these terms, each led by the replica of its number, from this place on.
    fn entries(from: u64, terms: &[u64]) -> Vec<Entry> {
        let id = |(term, index): (&u64, u64)| Id { term: *term, leader: *term, index };
        let entry = |id: Id| Entry::new(id.into(), Payload::Blank);
        terms.iter().zip(from..).map(id).map(entry).collect()
    }

    #[test]
    fn only_the_entries_that_are_named_are_passed_on() {
        let wanted = entries(5, &[2, 2, 4, 4, 4]);
        let named = Named::of(&wanted).expect("there are some");
        assert_eq!((named.first(), named.firsts.len(), named.last), (Some(5), 2, 9));
        let read: Asked = decode(&encode(&Asked::Feed {
            to: 73,
            vote: Ballot { term: 4, replica: 4, committed: true },
            previous: None,
            named: named.clone(),
            commit: None,
        }))
        .expect("it is read");
        assert!(matches!(read, Asked::Feed { to: 73, named: read, .. } if read == named));
        assert!(named.are(&wanted));
        for (others, why) in [
            (entries(5, &[2, 2, 4, 4]), "one is missing"),
            (entries(6, &[2, 4, 4, 4]), "the first one is"),
            (entries(5, &[2, 2, 2, 4, 4]), "another term's stands there"),
            (entries(5, &[2, 2, 4, 4, 5]), "the last one is of a later term"),
            (entries(5, &[2, 2, 4, 4, 4, 4]), "one more"),
            (Vec::new(), "nothing"),
        ] {
            assert!(!named.are(&others), "{why}");
        }
        assert_eq!(Named::of(&[]), None);
    }

    #[cfg(feature = "canaries")]
    #[test]
    fn what_would_be_passed_on_unchecked_is_noticed() {
        let named = Named::of(&entries(5, &[2, 2, 4])).expect("there are some");
        canary::let_out(Some(Canary::FedEntriesUnchecked));
        let passed_on = named.are(&entries(5, &[2, 2, 2]));
        canary::let_out(None);
        assert!(passed_on, "the bug is put back, and the test above would see it");
    }

    #[test]
    fn a_bit_that_flips_in_what_is_written_is_noticed_and_what_had_no_checksum_is_read() {
        let ballot = Ballot { term: 300, replica: 71, committed: true };
        let bytes = encode(&ballot);
        assert_eq!(decode::<Ballot>(&bytes), Ok(ballot));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Ballot>(&flipped).is_err(), "bit {bit}");
        }
        assert!(decode::<Ballot>(&bytes[..3]).is_err());
        let before = codec::encode(&Versioned::V1(ballot)).expect("short");
        assert_eq!(decode::<Ballot>(&before), Ok(ballot));
    }
}
