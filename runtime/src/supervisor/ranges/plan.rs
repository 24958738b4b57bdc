//! Where replicas of ranges are wanted: moves, and leases that are given away. What is planned for a split is said here too.
//!
//! * It decides: who is asked. A keyspace's row in the meta range says what is wanted; the leaseholder of each range brings it
//!   about by itself, whoever asked for it.
//! * It never does: move data to a region that the policy does not let hold it.

use std::sync::Weak;
use std::time::Duration;

use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::catalog::{self, Change, Keyspace, META, Next};
use rhumb_actors::ranges::host::{Found, NotWritten};
use rhumb_actors::ranges::messages::{
    KvRefusal, MoveReplica, Moved, PlanRange, RangeBounds, TransferLease, WhereIs,
};
use rhumb_actors::ranges::{RangeId, RangeRefusal, Seat};
use rhumb_actors::remote::Remote;
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, NodeId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::catalog::{CreateEnded, next_key};
use super::{Inner, Ranges, not_now};
use crate::mesh::registry::Call;
use crate::supervisor::audit;

/// How long a change of the meta range is tried that no caller waits for.
pub(super) const PLAN_WITHIN: Duration = Duration::from_secs(4);
/// How long something is waited for that will be well in a moment.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often a call is passed on.
const MAX_HOPS: u32 = 4;

pub(super) type Ended<T> = Result<Result<T, KvRefusal>, Fault>;

impl Ranges {
    /// Does something to the meta range: here, or on the node that holds its lease.
    pub(super) async fn at_meta<M, T, H>(&self, message: &M, here: impl Fn() -> H, until: Instant) -> Ended<T>
    where
        M: Remote<Reply = Result<T, KvRefusal>>,
        H: Future<Output = Result<T, CreateEnded>>,
    {
        loop {
            let Ok(ended) = tokio::time::timeout_at(until, here()).await else {
                let why = "whether it was done is not known: the meta range did not answer in time";
                return Err(Fault::unknown(FaultKind::Deadline(why.to_owned())));
            };
            let refusal = match ended {
                Ok(done) => return Ok(Ok(done)),
                Err(CreateEnded::Unknown(why)) => return Err(Fault::unknown(FaultKind::Deadline(why))),
                Err(CreateEnded::Refused(refusal)) => refusal,
                // What is not sent is not done later by one that only stood still.
                Err(CreateEnded::At(node)) if !self.hears_of(&node).await => {
                    not_now(format!("{node} holds the lease of the meta range, and is not heard here"))
                }
                Err(CreateEnded::At(node)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    match self.0.parts.mesh.ask_node(&node, message, DataClass::control(), left).await {
                        // It said that it did nothing.
                        Ok((Err(refusal @ KvRefusal::NotNow { .. }), _)) => refusal,
                        Ok((answer, _)) => return Ok(answer),
                        Err(fault) if fault.delivery() == Delivery::NotSent => {
                            not_now(format!("{node} cannot be reached, and may hold the lease"))
                        }
                        Err(fault) => return Err(fault),
                    }
                }
            };
            if !matches!(refusal, KvRefusal::NotNow { .. }) || Instant::now() + AGAIN_AFTER >= until {
                return Ok(Err(refusal));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Whether a node that holds the lease of the meta range is heard of.
    async fn hears_of(&self, node: &NodeId) -> bool {
        match self.host() {
            Ok(host) => host.hears(META, node).await,
            Err(_) => true,
        }
    }

    /// Changes a keyspace's row. The answer is the row, in its bytes. It is tried as long as whoever asked waits: after nodes
    /// have started, or have been lost, nobody holds the lease of the meta range for some seconds.
    pub(super) async fn plan(&self, keyspace: &str, change: &Change, until: Instant) -> Ended<Vec<u8>> {
        let message = PlanRange { keyspace: keyspace.to_owned(), change: catalog::encode(change) };
        self.at_meta(&message, || self.planned(keyspace, change), until).await
    }

    /// Changes a keyspace's row, as leaseholder of the meta range.
    pub(super) async fn planned(&self, keyspace: &str, change: &Change) -> Result<Vec<u8>, CreateEnded> {
        let unsound = |why| CreateEnded::Refused(KvRefusal::Unsound(why));
        let (row, row_at) = self.strong(&catalog::keyspace_key(keyspace)).await?;
        let row = row.ok_or_else(|| CreateEnded::Refused(KvRefusal::NoSuchKeyspace(keyspace.to_owned())))?;
        let space = catalog::decode::<Keyspace>(&row).map_err(unsound)?;
        if super::pools::is_of_pool(keyspace) && matches!(change, Change::Split { .. } | Change::Wish { .. })
        {
            let why =
                format!("keyspace {keyspace} is a pool's own: it has three replicas and one range for ever");
            return Err(CreateEnded::Refused(KvRefusal::NotAllowed(why)));
        }
        let (numbers, numbers_at) = self.strong(&next_key()).await?;
        let numbers = numbers.ok_or_else(|| unsound("the meta range has no next numbers".to_owned()))?;
        let next = catalog::decode::<Next>(&numbers).map_err(unsound)?;
        let to: Vec<&NodeId> = match change {
            Change::Move { to, .. } => vec![to],
            Change::Places { places, .. } => places.iter().map(|place| &place.node).collect(),
            _ => Vec::new(),
        };
        let snapshot = self.0.parts.policy.snapshots();
        for node in to {
            let may = snapshot.load().permits(&node.region, Use::Hold, &space.class);
            may.map_err(|why| CreateEnded::Refused(KvRefusal::NotAllowed(why)))?;
        }
        match catalog::changed(&space, next, change).map_err(CreateEnded::Refused)? {
            None => Ok(row),
            Some((after, next)) => {
                self.put_row((&after, row_at), (next, numbers_at)).await?;
                Ok(catalog::encode(&after))
            }
        }
    }

    /// Another node asks for a change.
    pub(super) async fn plans(self, call: Call<PlanRange>) -> super::serve::Answer<Vec<u8>> {
        let PlanRange { keyspace, change } = &call.message;
        let answer = match catalog::decode::<Change>(change) {
            Err(why) => Err(KvRefusal::Invalid(format!("a change that cannot be read: {why}"))),
            Ok(change) => match self.planned(keyspace, &change).await {
                Ok(row) => Ok(row),
                Err(CreateEnded::Refused(refusal)) => Err(refusal),
                Err(CreateEnded::At(node)) => {
                    Err(not_now(format!("{node} holds the lease of the meta range")))
                }
                Err(CreateEnded::Unknown(why)) => return Err(Fault::unknown(FaultKind::Deadline(why))),
            },
        };
        super::serve::control(answer)
    }

    /// A leaseholder has found something of a range's replicas.
    pub(super) fn has_found(&self, range: RangeId, found: Found) {
        if !self.0.telling.lock().insert(range) {
            return;
        }
        let here = self.clone();
        self.0.parts.runtime.spawn(async move {
            here.tells_meta(range, found).await;
            here.0.telling.lock().remove(&range);
        });
    }

    async fn tells_meta(&self, range: RangeId, found: Found) {
        if range == META {
            let Found::Left(replicas) = found else { return };
            // Whoever holds the lease has found it. If it moved meanwhile, it is found again.
            return drop(self.left_meta(&replicas).await);
        }
        let Some((space, _)) = self.of_range(range) else { return };
        let change = match found {
            Found::Begun => Change::Begun(range),
            Found::Left(replicas) => Change::Left { range, replicas },
            Found::Quarantined(replica) => Change::Rebuild { range, replica },
        };
        match self.plan(&space.name, &change, Instant::now() + PLAN_WITHIN).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => tracing::debug!(range = range.0, %refusal, "not told; it is told again"),
            Err(fault) => tracing::debug!(range = range.0, %fault, "not told; it is told again"),
        }
    }

    /// The keyspace of a range, and its row.
    pub(super) fn of_range(&self, range: RangeId) -> Option<(Keyspace, catalog::RangeRow)> {
        let spaces = self.0.keyspaces.read();
        spaces.values().find_map(|space| Some((space.clone(), space.row(range)?.clone())))
    }

    // ---- leases ----------------------------------------------------------------------------------

    pub(super) async fn transfers(self, call: Call<TransferLease>) -> super::serve::Answer<u64> {
        let record = Record::told("range.transfer_lease", "", Outcome::Begun)
            .on(format!("range {}", call.message.range))
            .with("to", call.message.to.to_string());
        let (from, by_node) = (call.from.clone(), call.from.node.is_some());
        let message = if by_node { call.message } else { TransferLease { hops: 0, ..call.message } };
        super::serve::control(self.told_of(&from, record, self.transfer(&message, call.within)).await?)
    }

    async fn transfer(&self, message: &TransferLease, within: Duration) -> Ended<u64> {
        let until = Instant::now() + within.mul_f32(0.95);
        let range = RangeId(message.range);
        let host = match self.host() {
            Ok(host) => host,
            Err(refusal) => return Ok(Err(refusal)),
        };
        loop {
            let row = match range {
                META => self.0.meta.read().clone(),
                range => self.of_range(range).map(|(_, row)| row),
            };
            let wanted = row.map(|row| row.seats);
            // A replica that is only coming knows nothing of its range yet.
            let here = match host.group(range) {
                Some(group) => {
                    let replica = group.replica().await;
                    Some(replica.descriptor())
                        .filter(|known| !known.is_empty())
                        .map(|known| known.seats.clone())
                }
                None => None,
            };
            let Some(seats) = here.or(wanted.clone()) else {
                let why = format!("there is no range {}; `rhumb range ls` lists them", range.0);
                return Ok(Err(KvRefusal::Invalid(why)));
            };
            if let Some(refusal) = holds_no_lease(range, &message.to, &seats, &wanted.unwrap_or_default()) {
                return Ok(Err(refusal));
            }
            let to = match host.give_lease(range, &message.to).await {
                Ok(replica) => return Ok(Ok(replica.0)),
                Err(NotWritten::NoReplica) => self.nearest(&seats),
                Err(not) => match came_of::<u64>(not, &self.0.parts.me)? {
                    Ok(replica) => return Ok(Ok(replica)),
                    Err(Not::Refused(refusal)) => return Ok(Err(refusal)),
                    Err(Not::At(node)) => vec![node],
                    Err(Not::Again) => Vec::new(),
                },
            };
            let next = TransferLease { hops: message.hops + 1, ..message.clone() };
            let class = DataClass::control();
            if let Some(outcome) = self.pass_on(&to, &next, message.hops.min(MAX_HOPS), &class, until).await {
                return outcome;
            }
            if Instant::now() + AGAIN_AFTER >= until {
                let why = "the leaseholder was not reached, or does not hear of that node, or that node's replica is far behind or does \
                           not vote yet";
                return Ok(Err(not_now(why)));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    // ---- moves -----------------------------------------------------------------------------------

    pub(super) async fn moves(self, call: Call<MoveReplica>) -> super::serve::Answer<Moved> {
        let message = &call.message;
        let record = Record::told("range.move", "", Outcome::Begun)
            .on(format!("range {}", message.range))
            .with("from", message.from.to_string())
            .with("to", message.to.to_string());
        super::serve::control(self.told_of(&call.from, record, self.moved(message, call.within)).await?)
    }

    async fn moved(&self, message: &MoveReplica, within: Duration) -> Ended<Moved> {
        let until = Instant::now() + within.mul_f32(0.95);
        let (range, invalid) = (RangeId(message.range), |why: String| Ok(Err(KvRefusal::Invalid(why))));
        if range == META {
            let why = "replicas of the meta range do not move: they stand on the founding nodes. A node that lost its disk \
                       gets its replica anew by itself";
            return invalid(why.to_owned());
        }
        let Some((space, _)) = self.of_range(range) else {
            return invalid(format!("there is no range {}; `rhumb range ls` lists them", range.0));
        };
        if !self.0.parts.founding.nodes().contains(&message.from) {
            return invalid(format!("there is no node {}; `rhumb status` lists the nodes", message.from));
        }
        let Some(store) = self.0.founders.read().get(&message.to).map(|founder| founder.store) else {
            return invalid(format!(
                "node {} is not known to the meta range; `rhumb status` lists the nodes",
                message.to
            ));
        };
        let change = Change::Move { range, from: message.from.clone(), to: message.to.clone(), store };
        if let Err(refusal) = self.plan(&space.name, &change, until).await? {
            return Ok(Err(refusal));
        }
        // The leaseholder does the rest, whether or not anybody waits for it.
        while Instant::now() + AGAIN_AFTER < until {
            tokio::time::sleep(AGAIN_AFTER).await;
            let row = self.of_range(range).map(|(_, row)| row);
            let is_there = |row: &catalog::RangeRow| row.seats.iter().any(|seat| seat.store == store);
            if row.is_some_and(|row| is_there(&row) && row.leaving.is_empty()) {
                return Ok(Ok(Moved::Done));
            }
        }
        Ok(Ok(Moved::Underway))
    }

    // ---- where keys are --------------------------------------------------------------------------

    pub(super) async fn tells_where(self, call: Call<WhereIs>) -> super::serve::Answer<RangeBounds> {
        let WhereIs { class, keyspace, key } = call.message;
        let found = self.bounds(&keyspace, &class, key).await;
        Ok((found, class))
    }

    async fn bounds(
        &self,
        keyspace: &str,
        class: &DataClass,
        key: Vec<u8>,
    ) -> Result<RangeBounds, KvRefusal> {
        let (space, host) = (self.keyspace(keyspace, class)?, self.host()?);
        let key = UserKey::new(key).map_err(|error| KvRefusal::Invalid(error.to_string()))?;
        let range = host.range_of(KeyspaceId(space.id), &key);
        let group = range.and_then(|range| host.group(range));
        let group = group.ok_or_else(|| not_now("no replica of that key's range is here"))?;
        let replica = group.replica().await;
        let descriptor = replica.descriptor();
        if !descriptor.holds(&key) {
            return Err(not_now("the range was split a moment ago"));
        }
        let to = descriptor.to.as_ref().map(|to| to.as_bytes().to_vec());
        Ok(RangeBounds { range: descriptor.range.0, from: descriptor.from.as_bytes().to_vec(), to })
    }

    /// What an operator does is told before it is done and after. Of what a node passes on the first node tells.
    pub(super) async fn told_of<T>(
        &self,
        from: &rhumb_transport::Peer,
        record: Record,
        done: impl Future<Output = Ended<T>>,
    ) -> Ended<T> {
        if from.node.is_some() {
            return done.await;
        }
        let begun = audit::begin(&self.0.parts.log, from, record).await?;
        let ended = done.await;
        match &ended {
            Ok(Ok(_)) => drop(begun.ended(Outcome::Done, None).await?),
            Ok(Err(refusal)) => drop(begun.ended(Outcome::Refused, Some(refusal.to_string())).await?),
            Err(fault) => drop(begun.ended(Outcome::Failed, Some(fault.to_string())).await?),
        }
        ended
    }
}

/// Why the replica of a node cannot be given the lease of a range, by the range's seats and those that are wanted.
fn holds_no_lease(range: RangeId, to: &NodeId, seats: &[Seat], wanted: &[Seat]) -> Option<KvRefusal> {
    let votes = |seats: &[Seat]| seats.iter().any(|seat| seat.node == *to && seat.votes);
    if votes(seats) {
        return None;
    }
    let range = range.0;
    if votes(wanted) {
        let why = format!(
            "the replica of range {range} on node {to} is on its way and does not vote yet: it holds no lease before"
        );
        return Some(not_now(why));
    }
    let nodes = |which: &dyn Fn(&&Seat) -> bool| {
        seats.iter().filter(which).map(|seat| seat.node.to_string()).collect::<Vec<_>>().join(", ")
    };
    let why = match seats.iter().any(|seat| seat.node == *to) {
        true => format!(
            "the replica of range {range} on node {to} is a learner, and only one that votes holds the lease; those on {} do",
            nodes(&|seat| seat.votes)
        ),
        false => format!("node {to} has no replica of range {range}; {} have", nodes(&|_| true)),
    };
    Some(KvRefusal::Invalid(why))
}

/// Why something was not done here.
pub(super) enum Not {
    Refused(KvRefusal),
    At(NodeId),
    Again,
}

impl Not {
    /// There, unless that is here, where it will be well in a moment.
    pub(super) fn at(node: NodeId, me: &NodeId) -> Self {
        if node == *me { Self::Again } else { Self::At(node) }
    }
}

pub(super) fn came_of<T>(not: NotWritten, me: &NodeId) -> Result<Result<T, Not>, Fault> {
    match not {
        NotWritten::Leaseholder(seat) => Ok(Err(Not::at(seat.node, me))),
        NotWritten::Unknown(why) | NotWritten::Stopped(why) => {
            let why = format!("whether it was done is not known: {why}");
            Err(Fault::unknown(FaultKind::Deadline(why)))
        }
        NotWritten::Refused(RangeRefusal::Frozen) => Ok(Err(Not::Refused(not_now(RangeRefusal::Frozen)))),
        NotWritten::NoReplica
        | NotWritten::Refused(_)
        | NotWritten::Pressed(_)
        | NotWritten::Condition { .. }
        | NotWritten::Void => Ok(Err(Not::Again)),
    }
}

/// The ranges behind a weak handle: what a host holds must not keep it alive.
pub(super) fn of(weak: &Weak<Inner>) -> Option<Ranges> {
    weak.upgrade().map(Ranges)
}

#[cfg(test)]
mod tests {
    use rhumb_actors::ranges::ReplicaId;
    use rhumb_core::StoreId;

    use super::*;

    fn seat(replica: u64, votes: bool) -> Seat {
        let node = format!("eu/n{replica}").parse().expect("a node");
        Seat { replica: ReplicaId(replica), node, store: StoreId(u128::from(replica)), votes }
    }

    #[test]
    fn a_lease_is_given_to_who_votes_and_to_who_comes_not_yet() {
        let seats = [seat(1, true), seat(2, false), seat(3, false)];
        let wanted = [seat(1, true), seat(2, true), seat(3, false), seat(4, true)];
        let why = |node: &str| {
            let refusal = holds_no_lease(RangeId(2), &node.parse().expect("a node"), &seats, &wanted)?;
            Some((refusal.code(), refusal.to_string()))
        };
        assert_eq!(why("eu/n1"), None);
        for comes in ["eu/n2", "eu/n4"] {
            let (code, said) = why(comes).expect("it does not vote");
            assert!(code == "not_now" && said.contains("does not vote yet"), "{said}");
        }
        let (code, said) = why("eu/n3").expect("it is a learner");
        assert!(
            code == "invalid" && said.ends_with("only one that votes holds the lease; those on eu/n1 do"),
            "{said}"
        );
        let (code, said) = why("eu/n5").expect("there is none");
        assert_eq!(
            (code, said.as_str()),
            ("invalid", "node eu/n5 has no replica of range 2; eu/n1, eu/n2, eu/n3 have")
        );
    }
}
