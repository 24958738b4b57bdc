//! What a host does to find replicas that differ: it proposes comparisons for the ranges it holds, hashes what its own replicas
//! are, and judges what all of them say.
//!
//! * It decides: nothing. [`comparing`](crate::ranges::comparing) says what counts and who is odd.
//! * It never does: hash more rows in one go than a step, or take the next one without a pause, or hash the rows of one range twice at a
//!   time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::{HybridTime, NodeId};
use rhumb_storage::mvcc::ReadError;

use super::keep::of;
use super::quarantine::Noticed;
use super::{Host, NotWritten, Word, World};
use crate::ranges::command::Outcome;
use crate::ranges::comparing::{Digest, Extent, Round, Rounds, Verdict};
use crate::ranges::lease::RangeRefusal;
use crate::ranges::raft::{Disk, Group, NotProposed};
use crate::ranges::replica::{RangeId, RangeReplica, ReplicaId};

/// Bytes of rows that are hashed in one step.
const STEP_BYTES: usize = 256 << 10;
/// Between two steps.
const STEP_EVERY: Duration = Duration::from_millis(10);
/// Rounds of the timer for which answers are waited for before differences are told that no majority decides.
const WAITS: u32 = 60;
/// How often a replica tells what it is: what is told may get lost.
const TELLS: u32 = 4;

/// What a host knows of comparisons.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    rounds: Mutex<Rounds>,
    /// Ranges whose rows are being hashed.
    hashing: Mutex<BTreeMap<RangeId, Hashing>>,
    /// Since when the answers of each range's last comparison are waited for.
    since: Mutex<BTreeMap<RangeId, HybridTime>>,
    /// When each range was compared last, as far as is known in this life.
    last: Mutex<BTreeMap<RangeId, HybridTime>>,
    /// Ranges whose replicas differ while nobody can say which of them is right.
    suspect: Mutex<BTreeSet<RangeId>>,
    /// What was said of each range's last comparison.
    said: Mutex<BTreeMap<RangeId, (u64, Verdict)>>,
}

/// A range's rows that are being hashed.
#[derive(Debug)]
struct Hashing {
    /// At this place of the log.
    index: u64,
    /// What is hashed next.
    next: Option<Extent>,
}

/// What came of a comparison that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The comparison.
    pub round: Round,
    /// What follows.
    pub verdict: Verdict,
}

impl<R: AsyncRuntime> Host<R> {
    /// Begins the timer of comparisons.
    pub(super) fn compare(&self) {
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            while let Some(host) = of::<R>(&weak) {
                let now = host.0.world.now();
                for group in host.groups() {
                    host.quarantine_damaged(&group);
                    if host.under_way(group.range()).is_none() && host.is_due(group.range(), now) {
                        host.propose_comparison(&group).await;
                    }
                    if !host.is_settled(group.range()) {
                        host.judge(group.range()).await;
                    }
                    host.is_rebuilt(&group).await;
                    host.asks_to_stop(&group).await;
                    host.forgets_silent(&group).await;
                }
                host.announce_quarantines();
                host.forget_doubts();
                host.forget_quarantines().await;
                host.0.comparing.rounds.lock().retain(|range| host.group(range).is_some());
                host.0.comparing.suspect.lock().retain(|range| host.group(*range).is_some());
                let wait = host.0.settings.collect;
                drop(host);
                R::sleep(wait).await;
            }
        }));
    }

    /// Whether the replicas of a range were not compared for as long as they may be.
    fn is_due(&self, range: RangeId, now: HybridTime) -> bool {
        let Some(every) = self.0.settings.compare_every else { return false };
        // In the first life of which this node knows, ranges do not all come at once.
        let part = u32::try_from(range.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).unwrap_or_default();
        let first = || before(now, every / 256 * part);
        self.0.comparing.last.lock().entry(range).or_insert_with(first).plus(every) <= now
    }

    /// Whether nothing more follows from the last comparison of a range.
    fn is_settled(&self, range: RangeId) -> bool {
        let rounds = self.0.comparing.rounds.lock();
        let Some(round) = rounds.of(range) else { return true };
        let said = self.0.comparing.said.lock();
        round.is_whole() && said.get(&range).is_some_and(|said| *said == (round.index, Verdict::Same))
    }

    /// Proposes a comparison, if the lease is held here.
    async fn propose_comparison(&self, group: &Group<R>) {
        {
            let replica = group.replica().await;
            let moment = self.moment(replica.descriptor());
            if replica.permit(&moment).is_err() {
                return;
            }
            self.0.comparing.last.lock().insert(group.range(), moment.now);
        }
        let (host, group) = (self.clone(), group.clone());
        // Whoever looks after comparisons does not wait for consensus.
        drop(R::spawn(async move {
            let proposed =
                group.propose(|replica| replica.propose_compare(&host.moment(replica.descriptor())));
            if let Err(why) = proposed.await {
                tracing::debug!(range = group.range().0, %why, "not compared; it is tried again");
            }
        }));
    }

    /// This is what a replica here is at a command: its rows are hashed, and whoever holds the lease is told. One after the other of a
    /// range: of those that come meanwhile only the last one is.
    pub(super) fn hashes(&self, range: RangeId, extent: Extent) {
        self.0.comparing.last.lock().insert(range, self.0.world.now());
        let mut first = {
            let mut hashing = self.0.comparing.hashing.lock();
            if let Some(under_way) = hashing.get_mut(&range) {
                under_way.next = Some(extent);
                return;
            }
            hashing.insert(range, Hashing { index: extent.index, next: None });
            Some(extent)
        };
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            while let Some(extent) = first.take() {
                let (index, replica) = (extent.index, extent.replica);
                let (disk, world) = match of::<R>(&weak) {
                    Some(host) => (Arc::clone(&host.0.around.disk), Arc::clone(&host.0.world)),
                    None => return,
                };
                let hashed = hashed::<R>(disk, world, extent).await;
                let Some(host) = of::<R>(&weak) else { return };
                match hashed {
                    Ok(digest) => host.will_tell(range, replica, index, digest),
                    Err(Some(error)) => {
                        host.read_damage(range, replica, &error);
                    }
                    Err(None) => {}
                }
                let mut hashing = host.0.comparing.hashing.lock();
                first = hashing.get_mut(&range).and_then(|under_way| under_way.next.take());
                match &first {
                    Some(next) => drop(hashing.insert(range, Hashing { index: next.index, next: None })),
                    None => drop(hashing.remove(&range)),
                }
            }
        }));
    }

    /// Tells whoever holds the lease what a replica here is, and a few times again.
    fn will_tell(&self, range: RangeId, replica: ReplicaId, index: u64, digest: Digest) {
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            for _ in 0..TELLS {
                let Some(host) = of::<R>(&weak) else { return };
                if !host.tells(range, replica, index, digest).await {
                    return;
                }
                let wait = host.0.settings.collect * 2;
                drop(host);
                R::sleep(wait).await;
            }
        }));
    }

    /// The comparison of a range that is under way here, if its rows are being hashed.
    pub(super) fn under_way(&self, range: RangeId) -> Option<u64> {
        self.0.comparing.hashing.lock().get(&range).map(|hashing| hashing.index)
    }

    /// Tells whoever holds the lease what a replica here is. Whether it may have to be told again.
    async fn tells(&self, range: RangeId, replica: ReplicaId, index: u64, digest: Digest) -> bool {
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else { return false };
        let (holder, seats) = {
            let there = group.replica().await;
            let seats = there.descriptor().seats.clone();
            (there.lease().holder.and_then(|holder| there.descriptor().seat(holder)).cloned(), seats)
        };
        let Some(holder) = holder else { return true };
        if holder.replica != replica {
            self.0.world.tell(&holder.node, Word::Compared { range, replica, index, digest });
            return true;
        }
        {
            let mut rounds = self.0.comparing.rounds.lock();
            rounds.begun(range, index, seats);
            self.0.comparing.since.lock().insert(range, self.0.world.now());
            rounds.heard(range, index, replica, digest);
        }
        self.judge(range).await;
        false
    }

    /// A replica of another node says what it is.
    pub(super) async fn heard_digest(
        &self,
        node: &NodeId,
        range: RangeId,
        (replica, index): (ReplicaId, u64),
        digest: Digest,
    ) {
        let Some(group) = self.group(range) else { return };
        let is_there =
            group.replica().await.descriptor().seat(replica).is_some_and(|seat| seat.node == *node);
        if is_there {
            self.0.comparing.rounds.lock().heard(range, index, replica, digest);
            self.judge(range).await;
        }
    }

    /// What follows from what replicas have said. Whoever is odd is told so again until it is gone.
    async fn judge(&self, range: RangeId) {
        let Some(group) = self.group(range) else { return };
        let Some(round) = self.0.comparing.rounds.lock().of(range).cloned() else { return };
        let (here, seats) = {
            let replica = group.replica().await;
            if replica.lease().holder != Some(group.id()) {
                return;
            }
            (group.id(), replica.descriptor().seats.clone())
        };
        let since = self.0.comparing.since.lock().get(&range).copied();
        let over =
            since.is_some_and(|since| since.plus(self.0.settings.collect * WAITS) < self.0.world.now());
        let verdict = round.verdict(over);
        let is_news = {
            let mut said = self.0.comparing.said.lock();
            let news = Some((round.index, verdict.clone()));
            verdict != Verdict::Waits && said.insert(range, (round.index, verdict.clone())) != news
        };
        if is_news {
            let (range, compared) = (range, Checked { round: round.clone(), verdict: verdict.clone() });
            self.0.world.noticed(range, Noticed::Compared(compared));
        }
        let none = BTreeSet::new();
        let odd = match &verdict {
            Verdict::Odd(odd) => Some(odd),
            Verdict::Same => Some(&none),
            Verdict::Waits | Verdict::Undecided => None,
        };
        if let Some(odd) = odd {
            let same = round.answers.keys().filter(|replica| !odd.contains(replica));
            self.are_the_same(range, round.index, same.copied());
        }
        match &verdict {
            Verdict::Odd(odd) => {
                for replica in odd {
                    let seat = seats.iter().find(|seat| seat.replica == *replica);
                    match seat {
                        Some(seat) if *replica == here => {
                            self.quarantine(range, seat.replica, odd_at(round.index));
                        }
                        Some(seat) => {
                            let word = Word::Odd { range, replica: *replica, index: round.index };
                            self.0.world.tell(&seat.node, word);
                        }
                        None => {}
                    }
                }
            }
            Verdict::Undecided | Verdict::Same if is_news => {
                let is = verdict == Verdict::Undecided;
                self.suspects(range, is);
                for seat in seats.iter().filter(|seat| seat.replica != here) {
                    self.0.world.tell(&seat.node, Word::Suspect { range, index: round.index, is });
                }
            }
            _ => {}
        }
    }

    pub(super) fn suspects(&self, range: RangeId, is: bool) {
        let mut suspect = self.0.comparing.suspect.lock();
        if is {
            suspect.insert(range)
        } else {
            suspect.remove(&range)
        };
    }

    /// Whether the replicas of a range differ, and nobody can say which of them is right.
    #[must_use]
    pub fn is_suspect(&self, range: RangeId) -> bool {
        self.0.comparing.suspect.lock().contains(&range)
    }

    /// Has the replicas of a range compared whose lease is held here, and waits for what they say: for all of them, or as long as
    /// that.
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn check(&self, range: RangeId, within: Duration) -> Result<Checked, NotWritten> {
        let group = self.group(range).ok_or(NotWritten::NoReplica)?;
        let under_way = self.under_way(range).filter(|_| group.leads());
        let holds = under_way.is_some() && self.holds(range).await;
        // Whoever asks while one is under way hears of that one.
        let proposed = async {
            match under_way.filter(|_| holds) {
                Some(index) => Ok(Outcome::Compared(index)),
                None => {
                    let made = |replica: &mut RangeReplica| {
                        replica.propose_compare(&self.moment(replica.descriptor()))
                    };
                    group.propose(made).await
                }
            }
        };
        let index = match proposed.await {
            Ok(Outcome::Compared(index)) => index,
            Ok(_) => return Err(NotWritten::Void),
            Err(NotProposed::Refused(RangeRefusal::NotLeaseholder(Some(holder)))) => {
                return Err(self.at(range, Some(holder)).await);
            }
            Err(NotProposed::NotLeader(_)) => {
                let holder = self.leaseholder(range).await.map(|seat| seat.replica);
                return Err(self.at(range, holder).await);
            }
            Err(NotProposed::Refused(refusal)) => return Err(NotWritten::Refused(refusal)),
            Err(NotProposed::Unknown(why)) => return Err(NotWritten::Unknown(why)),
            Err(NotProposed::Stopped(why)) => return Err(NotWritten::Stopped(why)),
        };
        let (pause, mut waited) = (Duration::from_millis(20), Duration::ZERO);
        loop {
            let round =
                self.0.comparing.rounds.lock().of(range).filter(|round| round.index == index).cloned();
            let is_whole = round.as_ref().is_some_and(Round::is_whole);
            if is_whole || waited >= within {
                let round = round.unwrap_or_else(|| Round::new(index));
                let verdict = round.verdict(true);
                return Ok(Checked { round, verdict });
            }
            R::sleep(pause).await;
            waited += pause;
        }
    }
}

/// Hashes the rows of an extent, a part at a time; no error: nobody is there any more.
async fn hashed<R: AsyncRuntime>(
    disk: Arc<dyn Disk>,
    world: Arc<dyn World>,
    extent: Extent,
) -> Result<Digest, Option<ReadError>> {
    let mut extent = extent;
    loop {
        let (said, heard) = futures::channel::oneshot::channel();
        let disk: Arc<dyn Disk> = Arc::clone(&disk);
        world.aside(Box::new(move || {
            let stepped = extent.step(&*disk, STEP_BYTES);
            drop(said.send((extent, stepped)));
        }));
        let (part, stepped) = heard.await.map_err(|_| None)?;
        match stepped {
            Ok(Some(digest)) => return Ok(digest),
            Ok(None) => extent = part,
            Err(error) => return Err(Some(error)),
        }
        R::sleep(STEP_EVERY).await;
    }
}

/// What is said of a replica that was odd.
pub(super) fn odd_at(index: u64) -> String {
    format!("at command {index} it was another thing than most of the range's replicas")
}

fn before(now: HybridTime, by: Duration) -> HybridTime {
    let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    HybridTime::new(now.millis().saturating_sub(ms), 0)
}
