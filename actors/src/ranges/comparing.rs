//! Replicas that are compared: what each is at one command, as a hash, and what follows where hashes differ.
//!
//! * It decides: what of a replica must be the same on all of them; which of them differs from a majority; whether nobody can say.
//! * It never does: compare what replicas are at different commands, or find for one half of a range against the other.
//! * Invariant: the hashes of two replicas that have applied the same entries are the same, however much each has collected and
//!   by whatever way its rows came to it. Builds that hash otherwise say so, and are not compared with each other.
//!
//! What counts is the state that the log has made (all of it but the replica's number), who takes part in consensus, and the rows of the
//! range that were there after the command. Rows are read later than that, so it is said exactly which ones these are:
//!
//! * versions above the later of what was closed and what was written last by then are not looked at: all that later entries write
//!   is above both (docs/decisions/0040);
//! * versions above the threshold count, each with its bytes, but for a deletion of what is not there: one that was sent rows has such
//!   that stand for what the sender had collected;
//! * of each key the newest version at or below the threshold counts if it was a value then. Older ones, deletions and what had expired
//!   each replica collects at its own pace.
//!
//! The threshold is the one that the log had raised by then, and no step of collection begins while rows are hashed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::mvcc::{ReadError, Record, Rows, VersionKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::collect::Use;
use super::records;
use super::replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use super::span::Span;

/// By which way this build hashes. Another number comes with whatever gives the same replica another hash: other rows that count, another
/// order of them, another form of the state's bytes.
pub const WAY: u16 = 1;

/// A hash of what a replica is. Those of two ways say nothing of each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest {
    /// By which way it was made.
    pub way: u16,
    /// The hash.
    pub hash: [u8; 32],
}

impl Digest {
    /// Whether the two are of two replicas that differ.
    fn differs(&self, other: &Self) -> bool {
        self.way == other.way && self.hash != other.hash
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.way)?;
        self.hash.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a replica was at a command: its rows are still to be hashed. Nothing of them is collected or cleared meanwhile.
#[derive(Debug)]
pub struct Extent {
    /// The replica.
    pub replica: ReplicaId,
    /// The place of the command in the log: the same on all, whatever each has made of the entries before it.
    pub index: u64,
    /// What the range was.
    pub descriptor: Descriptor,
    span: Span,
    threshold: HybridTime,
    upto: HybridTime,
    hash: Sha256,
    /// Where to go on; none: all is hashed.
    next: Option<Vec<u8>>,
    /// The key of which the newest version at or below the threshold was met.
    met: Option<Vec<u8>>,
    /// A deletion above the threshold, which counts if what is older was there.
    deletion: Option<(VersionKey, Vec<u8>, Vec<u8>)>,
    _in_use: Use,
}

impl Extent {
    /// What a replica is now, after the entry at this place of the log. `members` is what consensus knows of who takes part. Whoever
    /// calls holds the replica, and its rows are written.
    #[must_use]
    pub fn of(replica: &RangeReplica, index: u64, members: &[u8]) -> Self {
        let (applied, descriptor) = (replica.applied(), replica.descriptor().clone());
        let state = records::shared(replica);
        let mut hash = Sha256::new_with_prefix(b"rhumb replica\0");
        for part in [state.as_slice(), members] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let span = Span::of_range(&descriptor);
        Self {
            replica: replica.id(),
            index,
            threshold: applied.threshold,
            upto: applied.newest.max(applied.closed).max(applied.threshold),
            hash,
            next: Some(span.first().to_vec()),
            span,
            met: None,
            deletion: None,
            _in_use: replica.in_use().hashes(),
            descriptor,
        }
    }

    /// Hashes rows of about so many bytes. The hash, once all are.
    ///
    /// # Errors
    /// [`ReadError`]: a row is not what was written, or cannot be read.
    pub fn step<R: Rows + ?Sized>(&mut self, rows: &R, bytes: usize) -> Result<Option<Digest>, ReadError> {
        if let Some(from) = self.next.take() {
            let (mut read, mut wrong) = (0, None);
            rows.walk(&from, &mut |row, value| {
                if read >= bytes {
                    self.next = Some(row.to_vec());
                    return false;
                }
                read += row.len() + value.len();
                self.meet(row, value).unwrap_or_else(|error| {
                    wrong = Some(error);
                    false
                })
            })?;
            if let Some(error) = wrong {
                return Err(error);
            }
        }
        Ok(self.next.is_none().then(|| Digest { way: WAY, hash: self.hash.clone().finalize().into() }))
    }

    /// Takes a row in. Whether more of the range may come.
    fn meet(&mut self, row: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        if !self.span.holds(row) {
            return Ok(false);
        }
        let damaged =
            |at, reason: String| ReadError::Damaged { keyspace: self.descriptor.keyspace, at, reason };
        let version =
            VersionKey::decode(row).map_err(|error| damaged(HybridTime::ZERO, error.to_string()))?;
        let at = version.at;
        let record = Record::decode(row, value).map_err(|error| damaged(at, error.to_string()))?;
        if at > self.upto {
            return Ok(true);
        }
        if let Some((deletion, row, value)) = self.deletion.take()
            && deletion.key == version.key
            && record.live(deletion.at).is_some()
        {
            self.count(&row, &value);
        }
        if at > self.threshold {
            match record.value {
                Some(_) => self.count(row, value),
                None => self.deletion = Some((version, row.to_vec(), value.to_vec())),
            }
        } else if self.met.as_deref() != Some(version.key.as_bytes()) {
            self.met = Some(version.key.as_bytes().to_vec());
            if record.live(self.threshold).is_some() {
                self.count(row, value);
            }
        }
        Ok(true)
    }

    fn count(&mut self, row: &[u8], value: &[u8]) {
        self.hash.update((row.len() as u64).to_be_bytes());
        self.hash.update(row);
        if !canary::sings(Canary::CompareSkipsValues) {
            self.hash.update((value.len() as u64).to_be_bytes());
            self.hash.update(value);
        }
    }
}

/// What is known by now of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Too few have answered.
    Waits,
    /// All that have answered are the same, and most voters have.
    Same,
    /// Most voters are the same, and these, which hash in the same way, are something else.
    Odd(BTreeSet<ReplicaId>),
    /// There are differences, and no majority of the voters is the same.
    Undecided,
}

/// One comparison, as whoever holds the range's lease has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The place in the log of the command after which replicas are compared.
    pub index: u64,
    /// The range's replicas then, once this one has come so far.
    pub seats: Vec<Seat>,
    /// What they are.
    pub answers: BTreeMap<ReplicaId, Digest>,
}

impl Round {
    /// What comes after this command is compared.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self { index, seats: Vec::new(), answers: BTreeMap::new() }
    }

    /// Whether all have answered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.seats.is_empty() && self.seats.iter().all(|seat| self.answers.contains_key(&seat.replica))
    }

    /// What follows from the answers. `over` says that no more of them are waited for.
    #[must_use]
    pub fn verdict(&self, over: bool) -> Verdict {
        let voters: Vec<_> = self.seats.iter().filter(|seat| seat.votes).map(|seat| seat.replica).collect();
        let mut counted: BTreeMap<Digest, usize> = BTreeMap::new();
        for digest in voters.iter().filter_map(|voter| self.answers.get(voter)) {
            *counted.entry(*digest).or_default() += 1;
        }
        let majority =
            counted.iter().find(|(_, count)| **count > voters.len() / 2).map(|(digest, _)| *digest);
        let of_it = |replica: &ReplicaId| self.seats.iter().any(|seat| seat.replica == *replica);
        match majority {
            Some(digest) => {
                let differs =
                    self.answers.iter().filter(|(replica, said)| said.differs(&digest) && of_it(replica));
                let odd: BTreeSet<_> = differs.map(|(replica, _)| *replica).collect();
                if odd.is_empty() { Verdict::Same } else { Verdict::Odd(odd) }
            }
            None if counted.keys().any(|one| counted.keys().any(|other| one.differs(other)))
                && (over || voters.iter().all(|voter| self.answers.contains_key(voter))) =>
            {
                Verdict::Undecided
            }
            None => Verdict::Waits,
        }
    }
}

/// The comparisons of a node's ranges: the last one of each.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<RangeId, Round>);

impl Rounds {
    /// This replica, which holds the lease, has come to the command.
    pub fn begun(&mut self, range: RangeId, index: u64, seats: Vec<Seat>) {
        if let Some(round) = self.at(range, index) {
            round.seats = seats;
        }
    }

    /// A replica says what it is at a command. What is of an earlier one than the last comparison counts for nothing.
    pub fn heard(&mut self, range: RangeId, index: u64, replica: ReplicaId, digest: Digest) {
        if let Some(round) = self.at(range, index) {
            round.answers.insert(replica, digest);
        }
    }

    fn at(&mut self, range: RangeId, index: u64) -> Option<&mut Round> {
        let round = self.0.entry(range).or_insert_with(|| Round::new(index));
        if index > round.index && !canary::sings(Canary::CompareAcrossIndexes) {
            *round = Round::new(index);
        }
        (index == round.index || canary::sings(Canary::CompareAcrossIndexes)).then_some(round)
    }

    /// The last comparison of a range.
    #[must_use]
    pub fn of(&self, range: RangeId) -> Option<&Round> {
        self.0.get(&range)
    }

    /// Only those that are still here are kept.
    pub fn retain(&mut self, keep: impl Fn(RangeId) -> bool) {
        self.0.retain(|range, _| keep(*range));
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::StoreId;

    use super::*;

    fn digest(of: u8) -> Digest {
        Digest { way: WAY, hash: [of; 32] }
    }

    fn round(voters: u64, learners: u64, answers: &[(u64, u8)]) -> Verdict {
        let answers: Vec<_> = answers.iter().map(|(replica, of)| (*replica, digest(*of))).collect();
        round_of(voters, learners, &answers)
    }

    fn round_of(voters: u64, learners: u64, answers: &[(u64, Digest)]) -> Verdict {
        let seat = |replica: u64| Seat {
            replica: ReplicaId(replica),
            node: format!("eu/n{replica}").parse().expect("a node"),
            store: StoreId(u128::from(replica)),
            votes: replica <= voters,
        };
        let mut rounds = Rounds::default();
        for (replica, digest) in answers {
            rounds.heard(RangeId(7), 5, ReplicaId(*replica), *digest);
        }
        rounds.begun(RangeId(7), 5, (1..=voters + learners).map(seat).collect());
        rounds.of(RangeId(7)).expect("it is there").verdict(false)
    }

    fn odd(replicas: &[u64]) -> Verdict {
        Verdict::Odd(replicas.iter().copied().map(ReplicaId).collect())
    }

    #[test]
    fn a_majority_of_the_voters_says_who_is_odd() {
        assert_eq!(round(3, 0, &[(1, 1), (2, 1), (3, 1)]), Verdict::Same);
        assert_eq!(round(3, 0, &[(1, 1), (2, 1)]), Verdict::Same, "who is away is compared another time");
        assert_eq!(round(3, 0, &[(1, 1), (2, 2)]), Verdict::Waits, "the third one decides");
        assert_eq!(round(3, 0, &[(1, 1), (2, 2), (3, 1)]), odd(&[2]));
        assert_eq!(round(3, 0, &[(1, 1), (2, 2), (3, 3)]), Verdict::Undecided);
        assert_eq!(round(5, 0, &[(1, 1), (2, 2), (3, 1), (4, 1), (5, 3)]), odd(&[2, 5]));
        assert_eq!(round(2, 0, &[(1, 1), (2, 2)]), Verdict::Undecided, "of two nobody is right");
        assert_eq!(round(1, 0, &[(1, 1)]), Verdict::Same);
    }

    #[test]
    fn learners_are_judged_and_have_no_say() {
        assert_eq!(round(1, 2, &[(1, 1), (2, 2), (3, 2)]), odd(&[2, 3]));
        assert_eq!(round(3, 1, &[(1, 1), (2, 2), (4, 1)]), Verdict::Waits);
        assert_eq!(round(3, 1, &[(1, 1), (2, 1), (3, 1), (4, 2)]), odd(&[4]));
        assert_eq!(round(3, 0, &[(1, 1), (2, 1), (3, 1), (9, 2)]), Verdict::Same, "9 is not of the range");
    }

    #[test]
    fn builds_that_hash_in_two_ways_find_nothing_of_each_other() {
        let other = |of: u8| Digest { way: WAY + 1, hash: [of; 32] };
        let all = |all: &[(u64, Digest)]| round_of(3, 1, all);
        assert_eq!(all(&[(1, digest(1)), (2, digest(1)), (3, other(2))]), Verdict::Same);
        assert_eq!(all(&[(1, digest(1)), (2, digest(1)), (3, other(2)), (4, digest(3))]), odd(&[4]));
        assert_eq!(all(&[(1, digest(1)), (2, other(2)), (3, other(2)), (4, digest(3))]), Verdict::Same);
        assert_eq!(all(&[(1, digest(1)), (2, other(2)), (3, other(3))]), Verdict::Undecided);
        let two = |one, other| round_of(2, 0, &[(1, one), (2, other)]);
        assert_eq!(two(digest(1), other(2)), Verdict::Waits, "nobody knows, and nothing is wrong");
        assert_eq!(two(digest(1), digest(2)), Verdict::Undecided);
    }

    #[test]
    fn what_is_of_another_command_is_not_compared() {
        let mut rounds = Rounds::default();
        let range = RangeId(7);
        rounds.heard(range, 5, ReplicaId(1), digest(1));
        rounds.heard(range, 6, ReplicaId(1), digest(2));
        rounds.heard(range, 5, ReplicaId(2), digest(1));
        let round = rounds.of(range).expect("it is there");
        assert_eq!((round.index, round.answers.len()), (6, 1));
    }
}
