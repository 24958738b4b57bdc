//! The meta range: who founds it, and what follows from what stands in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rhumb_actors::ranges::catalog::{
    self, ERASED, Founder, KEYSPACES, Keyspace, META, META_KEYSPACE, META_ROW, NODES, Next, PURGED, RangeRow,
};
use rhumb_actors::ranges::host::NotWritten;
use rhumb_actors::ranges::messages::{CreateKeyspace, Found, Introduce, Introduced, KeyspaceView, KvRefusal};
use rhumb_actors::ranges::{Condition, Op, RangeId, RangeReplica, ReplicaId, Seat, TokenKeys};
use rhumb_core::{DataClass, Fault, HybridTime, NodeId};
use rhumb_storage::Family;
use rhumb_storage::mvcc::{KeyspaceId, Limit, Record, Snapshot, UserKey};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::version::is_version;
use super::{Ranges, not_now};

/// How often the meta range is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks of which one follows also what has not changed.
const AGAIN: u32 = 4;
/// Looks without a meta range here after which this node asks whether it has lost its disk.
const REJOINS: u32 = 8;
/// How long another node may take to say who it is.
pub(super) const WITHIN: Duration = Duration::from_secs(3);
/// How long a replica that a split begins may be missing: until then the one that it is split from is behind.
const SPLIT_COMES_WITHIN: Duration = Duration::from_secs(10);
/// The highest time.
const LATEST: u64 = u64::MAX;

impl Ranges {
    /// Founds the meta range if there is none, and begins the replicas that it says are here. It does not end.
    pub(super) async fn follow(&self) {
        let (mut seen, mut told, mut missing) = (None, BTreeSet::new(), BTreeMap::new());
        let founds = self.0.parts.founding.nodes().first() == Some(&self.0.parts.me);
        let mut to_tell: Vec<NodeId> = Vec::new();
        let (mut settled, mut looks, mut without) = (false, 0_u32, 0_u32);
        let started = self.0.parts.clock.hybrid();
        loop {
            let Ok(host) = self.host() else { return };
            match host.group(META) {
                None => {
                    if founds {
                        self.found().await;
                    }
                    without += 1;
                    if host.group(META).is_none() && without.is_multiple_of(REJOINS) {
                        self.rejoin().await;
                    }
                }
                Some(group) => {
                    let (applied, seats) = {
                        let replica = group.replica().await;
                        (replica.applied().index, replica.descriptor().seats.clone())
                    };
                    if founds && !settled {
                        to_tell = others(&seats, &self.0.parts.me);
                        settled = true;
                    }
                    self.tell_seats(&seats, &mut to_tell).await;
                    self.introduce().await;
                    let changed = seen != Some(applied);
                    if changed {
                        match self.read_catalog() {
                            Ok(()) => {
                                seen = Some(applied);
                                self.0.catalog_read.fetch_or(applied > 0, Ordering::Relaxed);
                            }
                            Err(why) => return self.0.parts.halt.now(format!("the meta range: {why}")),
                        }
                        if let Err(why) = self.follow_version().await {
                            return self.0.parts.halt.now(format!("the cluster version: {why}"));
                        }
                    }
                    // What has been read is all up to what is closed: nothing older comes any more.
                    if !self.0.caught_up.load(Ordering::Relaxed) && group.replica().await.closed() > started {
                        self.0
                            .caught_up
                            .store(seen == Some(group.replica().await.applied().index), Ordering::Relaxed);
                    }
                    looks = if changed { 0 } else { looks + 1 };
                    // What could not be done is tried again; else what stands there has been followed.
                    if changed || looks.is_multiple_of(AGAIN) || !missing.is_empty() {
                        self.begin_replicas(&mut told, &mut missing).await;
                        self.say_retentions();
                        self.destroy_condemned();
                        self.clear_purged();
                        self.purge_over().await;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Who this node is.
    pub(super) fn introduced(&self) -> Introduced {
        let on_disk = self.0.disk.get(Family::Raft, &RangeReplica::row_key(META));
        // A disk that cannot be read may have one.
        let has_meta = on_disk.map_or(true, |row| row.is_some());
        Introduced { store: self.0.parts.store_id, has_meta, tokens: self.0.tokens.public() }
    }

    /// Asks all founding nodes who they are, and founds the meta range if none of them has one. One that cannot be asked
    /// may have one.
    async fn found(&self) {
        let mut seats = Vec::new();
        for (number, node) in self.0.parts.founding.nodes().iter().enumerate() {
            let Some(introduced) = self.ask_who(node).await else { return };
            if introduced.has_meta {
                tracing::debug!(%node, "it has the meta range and this node has not: its disk is a new one");
                return;
            }
            let replica = ReplicaId(number as u64 + 1);
            seats.push(Seat { replica, node: node.clone(), store: introduced.store, votes: true });
        }
        let Ok(host) = self.host() else { return };
        match host.create(catalog::meta(seats)).await {
            Ok(()) => {
                self.0.catalog_read.store(true, Ordering::Relaxed);
                tracing::info!("the meta range is founded");
            }
            Err(error) => tracing::warn!(%error, "the meta range is not founded yet"),
        }
    }

    /// Whether there may be a meta range, as far as other nodes say.
    pub(super) async fn others_may_have_meta(&self, within: Duration) -> bool {
        let nodes = self.0.parts.founding.nodes().iter().filter(|node| **node != self.0.parts.me);
        let asked = nodes.map(|node| tokio::time::timeout(within, self.ask_who(node)));
        let said = futures::future::join_all(asked).await;
        let said: Vec<_> = said.into_iter().map(|who| who.ok().flatten().map(|who| who.has_meta)).collect();
        may_have_meta(&said)
    }

    async fn ask_who(&self, node: &NodeId) -> Option<Introduced> {
        if *node == self.0.parts.me {
            return Some(self.introduced());
        }
        let asked =
            self.0.parts.mesh.ask_node_untraced(node, &Introduce {}, DataClass::control(), WITHIN).await;
        asked.ok()?.0.ok()
    }

    /// Tells the others of their seats, until each has its replica.
    async fn tell_seats(&self, seats: &[Seat], to_tell: &mut Vec<NodeId>) {
        for node in std::mem::take(to_tell) {
            let said = seats.iter().map(|seat| (seat.replica.0, seat.node.clone(), seat.store)).collect();
            let found = Found { seats: said };
            let told = self.0.parts.mesh.ask_node_untraced(&node, &found, DataClass::control(), WITHIN).await;
            match told {
                // It is not reached, or its disk is not proven yet.
                told if is_told_again(&told) => to_tell.push(node),
                Ok((Err(refusal), _)) => {
                    tracing::warn!(%node, %refusal, "it does not take its seat in the meta range");
                }
                _ => {}
            }
        }
    }

    /// The founder of the meta range says where this node's seat is.
    pub(super) async fn seated(&self, from: &NodeId, found: Found) -> Result<(), KvRefusal> {
        if self.0.parts.founding.nodes().first() != Some(from) {
            let why = "only the first node of the founding list founds the meta range";
            return Err(KvRefusal::NotAllowed(why.to_owned()));
        }
        let seat = |(replica, node, store)| Seat { replica: ReplicaId(replica), node, store, votes: true };
        let descriptor = catalog::meta(found.seats.into_iter().map(seat).collect());
        let created = self.host()?.create(descriptor).await;
        // A replica that is there from the beginning of the range knows what stood in it then: nothing.
        self.0.catalog_read.fetch_or(created.is_ok(), Ordering::Relaxed);
        created.map_err(|error| KvRefusal::NotAllowed(error.to_string()))
    }

    /// Says in the meta range which disk this node has, and with which key it signs tokens.
    async fn introduce(&self) {
        let me = &self.0.parts.me;
        let version = self.0.version.formats.active();
        let mine = Founder::new(self.0.parts.store_id, self.0.tokens.public(), version);
        let known = self.0.founders.read().get(me).cloned();
        let Ok(host) = self.host() else { return };
        if known.as_ref() == Some(&mine) {
            return;
        }
        let record = Record::put(mine.encode());
        let op = Op { key: catalog::node_key(me), condition: None, record };
        let written = tokio::time::timeout(WITHIN, host.write(META, vec![op])).await;
        if let Ok(Err(NotWritten::Leaseholder(seat))) = written {
            // The one who can write it writes it for this node.
            self.hand_in(&seat.node, &mine).await;
        }
    }

    async fn hand_in(&self, to: &NodeId, mine: &Founder) {
        use rhumb_actors::ranges::messages::{KvOp, KvWrite};
        let key = catalog::node_key(&self.0.parts.me).as_bytes().to_vec();
        let value = Some(mine.encode());
        let op = KvOp { key, value, condition: None, schema: None, subject: None, lasts: None };
        let class = DataClass::control();
        let write = KvWrite { class: class.clone(), keyspace: "meta".to_owned(), ops: vec![op], hops: 1 };
        if let Err(fault) = self.0.parts.mesh.ask_node_untraced(to, &write, class, WITHIN).await {
            tracing::debug!(%to, %fault, "not introduced yet");
        }
    }

    /// Reads what stands in the meta range here.
    pub(super) fn read_catalog(&self) -> Result<(), String> {
        let latest = HybridTime::from_bits(LATEST);
        let disk = &*self.0.disk;
        let snapshot = Snapshot::new(disk, META_KEYSPACE, latest, HybridTime::ZERO);
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        let limit = Limit { rows: usize::MAX, bytes: usize::MAX };
        let page = snapshot.scan(&UserKey::default(), None, limit).map_err(|error| error.to_string())?;
        let (mut keyspaces, mut founders, mut meta) = (BTreeMap::new(), BTreeMap::new(), None);
        let (mut erased, mut purged) = (Vec::new(), Vec::new());
        // First of all: a build that does not know the version says so, and not what it cannot read.
        if let Some((_, version)) = page.rows.iter().find(|(key, _)| is_version(key.as_bytes())) {
            self.0.version.read(version.record.value.as_deref().unwrap_or_default())?;
        }
        for (key, version) in page.rows {
            let name = String::from_utf8_lossy(key.as_bytes()).into_owned();
            let value = version.record.value.unwrap_or_default();
            if let Some(name) = name.strip_prefix(KEYSPACES) {
                keyspaces.insert(name.to_owned(), catalog::decode::<Keyspace>(&value)?);
            } else if let Some(node) = name.strip_prefix(NODES) {
                let node: NodeId = node.parse().map_err(|error| format!("{error}"))?;
                founders.insert(node, Founder::decode(&value, &self.0.version.formats)?);
            } else if name.starts_with(PURGED) {
                purged.push(catalog::decode::<Keyspace>(&value)?);
            } else if let Some(id) = name.strip_prefix(ERASED) {
                erased.push(catalog::erased_id(id).ok_or("the id of an erased key cannot be read")?);
            } else if name == META_ROW {
                meta = Some(catalog::decode::<RangeRow>(&value)?);
            }
        }
        {
            let mut classes = self.0.classes.write();
            for space in keyspaces.values().chain(&purged) {
                classes.extend(space.ranges.iter().map(|row| (row.range, space.class.clone())));
            }
        }
        // What was erased is closed before anything that was read with it is served.
        self.0.subjects.lock().condemn(erased);
        let own = self.0.tokens.public();
        let keys = founders.values().map(|founder| founder.tokens.clone()).chain([own]);
        let keys = TokenKeys::new(self.0.parts.cluster, keys);
        self.0.tokens.believe(keys, replaced(&self.0.founders.read(), &founders));
        *self.0.keyspaces.write() = keyspaces;
        *self.0.purged.write() = purged;
        *self.0.founders.write() = founders;
        *self.0.meta.write() = meta;
        Ok(())
    }

    /// Has the replicas here that the meta range says should be: begins those that have a seat and are missing, says where the
    /// others are wanted, and clears away those that have left.
    async fn begin_replicas(&self, told: &mut BTreeSet<String>, missing: &mut BTreeMap<RangeId, Instant>) {
        let Ok(host) = self.host() else { return };
        let me = self.0.parts.store_id;
        let meta = self.0.meta.read().clone();
        if let (Some(row), Some(group)) = (meta, host.group(META)) {
            host.want(META, row.wanted());
            if row.left.contains(&group.id()) {
                self.clear_away(META, group.id());
            }
        }
        let spaces: Vec<Keyspace> = self.0.keyspaces.read().values().cloned().collect();
        for space in spaces {
            for row in &space.ranges {
                host.want(row.range, space.wanted(row));
                let mine = row.seats.iter().find(|seat| seat.store == me);
                if let Some(replica) = host.quarantined(row.range).filter(|one| row.left.contains(one)) {
                    self.clear_quarantined(row.range, replica);
                    continue;
                }
                match (host.group(row.range), mine) {
                    (Some(group), _) if row.left.contains(&group.id()) => {
                        self.clear_away(row.range, group.id());
                    }
                    (Some(_), _) => drop(missing.remove(&row.range)),
                    (None, Some(seat)) if row.begun => {
                        self.begin_replica(&space, row, seat.replica, told, missing).await;
                    }
                    (None, _) => {}
                }
            }
        }
    }

    fn clear_away(&self, range: RangeId, replica: ReplicaId) {
        let Ok(host) = self.host().cloned() else { return };
        tracing::info!(range = range.0, %replica, "it has left its range and is cleared away");
        // Rows that are on their way to a follower are waited for; nobody else is.
        self.0.parts.runtime.spawn(async move {
            if let Err(error) = host.clear(range, replica).await {
                tracing::error!(range = range.0, %error, "its rows are not cleared away yet");
            }
        });
    }

    async fn begin_replica(
        &self,
        space: &Keyspace,
        row: &RangeRow,
        replica: ReplicaId,
        told: &mut BTreeSet<String>,
        missing: &mut BTreeMap<RangeId, Instant>,
    ) {
        let Ok(host) = self.host() else { return };
        // Whoever planned it has asked the policy too; both must say yes.
        if !self.0.parts.policy.permits(&self.0.parts.me.region, Use::Hold, &space.class) {
            if told.insert(space.name.clone()) {
                tracing::warn!(keyspace = space.name, class = %space.class, "its class may not be held here: no replica");
            }
            return;
        }
        let joins = row.joined.contains(&replica);
        // The replica that it is split from brings it, unless that one was sent what came after the split.
        let since = *missing.entry(row.range).or_insert_with(Instant::now);
        if row.parent.is_some() && !joins && since.elapsed() < SPLIT_COMES_WITHIN {
            return;
        }
        let begun = match row.is_as_created() {
            false => {
                let all = row.seats.iter().chain(&row.leaving).cloned().collect();
                host.join(row.range, KeyspaceId(space.id), all).await
            }
            true => host.create(space.descriptor(row)).await,
        };
        if let Err(error) = begun {
            tracing::error!(keyspace = space.name, range = row.range.0, %error, "its replica does not start");
        }
    }

    /// Creates a keyspace: at the leaseholder of the meta range.
    pub(super) async fn create(&self, asked: &CreateKeyspace) -> Result<KeyspaceView, CreateEnded> {
        let CreateKeyspace { name, class, replication, lifetimes, placement } = asked;
        let host = self.host().map_err(CreateEnded::Refused)?;
        let group = host.group(META).ok_or_else(|| {
            CreateEnded::Refused(not_now("there is no meta range yet: all founding nodes have to be up once"))
        })?;
        let seats = group.replica().await.descriptor().seats.clone();
        // What is read here is what the leaseholder reads: the write under it holds only if nobody came between.
        let refused = CreateEnded::Refused;
        let (key, next_key) = (catalog::keyspace_key(name), next_key());
        let (found, _) = self.strong(&key).await?;
        if let Some(value) = found {
            let space = catalog::decode::<Keyspace>(&value).map_err(KvRefusal::Unsound).map_err(refused)?;
            let same = space.class == *class && space.replication == *replication;
            let same = same && space.lifetimes == *lifetimes && space.placement == *placement;
            let exists = KvRefusal::Exists {
                class: space.class.clone(),
                replication: space.replication,
                lifetimes: space.lifetimes,
                placement: space.placement.clone(),
            };
            return if same { Ok(space.view()) } else { Err(refused(exists)) };
        }
        let places = self.places_of_new(&seats, class, &placement.wish(*replication)).map_err(refused)?;
        let (numbers, version) = self.strong(&next_key).await?;
        let next = match numbers {
            Some(value) => catalog::decode::<Next>(&value).map_err(KvRefusal::Unsound).map_err(refused)?,
            None => catalog::first_numbers(seats.len()),
        };
        let wanted = (*replication, placement.clone());
        let (space, after) = catalog::created(name, class, wanted, *lifetimes, next, places);
        self.put_row((&space, None), (after, version)).await?;
        Ok(space.view())
    }

    /// Writes a keyspace's row and the next numbers, if both are still what was read.
    pub(super) async fn put_row(
        &self,
        (space, read_at): (&Keyspace, Option<HybridTime>),
        (next, numbers_at): (Next, Option<HybridTime>),
    ) -> Result<(), CreateEnded> {
        let put = |key: UserKey, read_at: Option<HybridTime>, value| Op {
            key,
            condition: Some(read_at.map_or(Condition::Absent, Condition::Version)),
            record: Record::put(value),
        };
        let ops = vec![
            put(catalog::keyspace_key(&space.name), read_at, catalog::encode(space)),
            put(next_key(), numbers_at, catalog::encode(&next)),
        ];
        let ops = if space.purged { super::lifecycle::purged(space, ops) } else { ops };
        let host = self.host().map_err(CreateEnded::Refused)?;
        match host.write(META, ops).await {
            Ok(_) => Ok(()),
            Err(NotWritten::Unknown(why) | NotWritten::Stopped(why)) => Err(CreateEnded::Unknown(why)),
            Err(NotWritten::Leaseholder(seat)) => Err(CreateEnded::At(seat.node)),
            Err(_) => {
                let why = "another keyspace was changed, or the lease moved, meanwhile";
                Err(CreateEnded::Refused(not_now(why)))
            }
        }
    }

    /// What a key of the meta range is, read as its leaseholder.
    pub(super) async fn strong(
        &self,
        key: &UserKey,
    ) -> Result<(Option<Vec<u8>>, Option<HybridTime>), CreateEnded> {
        use rhumb_actors::ranges::host::{NotRead, Rowed};
        use rhumb_actors::ranges::{Ask, Consistency};
        let ask = Ask {
            from: key.clone(),
            to: None,
            consistency: Consistency::Strong,
            token: None,
            nearest_only: false,
            fallback: false,
        };
        let host = self.host().map_err(CreateEnded::Refused)?;
        match host.read(META, ask, Limit { rows: 1, bytes: 1 }).await {
            Ok(answer) => match answer.value {
                Rowed::One(Some(version)) => Ok((version.record.value, Some(version.at))),
                _ => Ok((None, None)),
            },
            Err(NotRead::Leaseholder(seat)) => Err(CreateEnded::At(seat.node)),
            Err(NotRead::Refused(refusal)) => Err(CreateEnded::Refused(not_now(refusal))),
            Err(NotRead::NoReplica) => Err(CreateEnded::Refused(not_now("there is no meta range here yet"))),
            Err(NotRead::Unsound(why)) => Err(CreateEnded::Refused(KvRefusal::Unsound(why))),
        }
    }
}

/// Whether a node is told of its seat again.
fn is_told_again<T>(told: &Result<(Result<(), KvRefusal>, T), Fault>) -> bool {
    matches!(told, Err(_) | Ok((Err(KvRefusal::NotNow { .. }), _)))
}

/// Whether the other founding nodes may have a meta range, by what each has said: one does, or so many could not be asked that those
/// who say that they have none are, with this node, no majority.
fn may_have_meta(said: &[Option<bool>]) -> bool {
    let (nodes, without) = (1 + said.len(), 1 + said.iter().filter(|said| **said == Some(false)).count());
    said.contains(&Some(true)) || without <= nodes / 2
}

/// The keys of tokens in whose place the same nodes have others now.
fn replaced(before: &BTreeMap<NodeId, Founder>, now: &BTreeMap<NodeId, Founder>) -> Vec<Vec<u8>> {
    let other = |(node, was): (&NodeId, &Founder)| {
        now.get(node).is_some_and(|now| now.tokens != was.tokens).then(|| was.tokens.clone())
    };
    before.iter().filter_map(other).collect()
}

/// Why no keyspace was created here.
pub(super) enum CreateEnded {
    /// It is refused.
    Refused(KvRefusal),
    /// This node can.
    At(NodeId),
    /// It may have been.
    Unknown(String),
}

pub(super) fn next_key() -> UserKey {
    UserKey::new(catalog::NEXT).expect("short")
}

fn others(seats: &[Seat], me: &NodeId) -> Vec<NodeId> {
    seats.iter().map(|seat| seat.node.clone()).filter(|node| node != me).collect()
}

#[cfg(test)]
mod tests {
    use rhumb_core::{ClusterVersion, FaultKind, StoreId};

    use super::*;

    #[test]
    fn nodes_that_cannot_be_asked_may_have_a_catalog_unless_a_majority_has_none() {
        let (has, none, silent) = (Some(true), Some(false), None);
        assert!(!may_have_meta(&[]), "a mesh of one node");
        for said in [&[silent][..], &[silent, silent], &[none, has], &[silent, has], &[none, silent, silent]]
        {
            assert!(may_have_meta(said), "{said:?}");
        }
        for said in [&[none][..], &[none, silent], &[none, none], &[none, none, silent]] {
            assert!(!may_have_meta(said), "{said:?}");
        }
    }

    #[test]
    fn only_a_node_that_has_another_key_has_replaced_one() {
        let row = |&(node, disk, key): &(&str, u128, u8)| {
            let founder = Founder::new(StoreId(disk), vec![key; 32], ClusterVersion::FIRST);
            (node.parse().expect("a node"), founder)
        };
        let rows = |said: &[(&str, u128, u8)]| said.iter().map(row).collect();
        let before = rows(&[("ap/n1", 1, 1), ("eu/n1", 2, 2), ("us/n1", 3, 3), ("us/n2", 4, 4)]);
        // One is not to be seen just now, one is on a new disk, one is new.
        let now = rows(&[("eu/n1", 2, 5), ("eu/n2", 6, 6), ("us/n1", 7, 3), ("us/n2", 4, 4)]);
        assert_eq!(replaced(&before, &now), [vec![2; 32]]);
    }

    #[test]
    fn a_node_that_cannot_take_its_seat_yet_is_told_of_it_again() {
        let unreachable = Fault::not_sent(FaultKind::Unreachable("it has not started".to_owned()));
        assert!(is_told_again::<()>(&Err(unreachable)));
        assert!(is_told_again(&Ok((Err(not_now("its disk is not proven yet")), ()))));
        assert!(!is_told_again(&Ok((Err(KvRefusal::NotAllowed("it has another one".to_owned())), ()))));
        assert!(!is_told_again(&Ok((Ok(()), ()))));
    }
}
