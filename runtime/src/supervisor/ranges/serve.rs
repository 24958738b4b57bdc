//! What a node's ranges are asked over the mesh.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::placement::messages::{ApplyPlacement, PlanPlacement};
use rhumb_actors::ranges::catalog::{MAX_REPLICATION, META, named};
use rhumb_actors::ranges::lifecycle::LiveKeyspace;
use rhumb_actors::ranges::messages::{
    CheckRange, Consent, CreateKeyspace, Found, Introduce, KeyspaceView, KvAnswer, KvRead, KvRefusal,
    KvWrite, ListKeyspaces, ListRanges, MoveReplica, PlanRange, RANGE_WORD, RangeView, RangeWord, Rejoin,
    SplitRange, TransferLease, WhereIs,
};
use rhumb_actors::ranges::snapshots::{CreateSnapshot, ExportSnapshot, RemoveSnapshot};
use rhumb_actors::ranges::subjects::{CondemnKeys, DestroyKeys, EraseSubject, HandKey, KeepKey, WhichKeys};
use rhumb_actors::ranges::{RangeId, ReplicaId};
use rhumb_actors::version::messages::{Finalize, SayVersion, ShowVersion};
use rhumb_core::{DataClass, Fault, NodeId, Role, codec};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::plan::Ended;
use super::reads::Reader;
use super::{Ranges, pools, staleness};
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::supervisor::audit;

pub(super) type Answer<T> = Result<(Result<T, KvRefusal>, DataClass), Fault>;

pub(super) fn control<T>(answer: Result<T, KvRefusal>) -> Answer<T> {
    Ok((answer, DataClass::control()))
}

/// Serves the messages of ranges.
pub(in crate::supervisor) fn serve(registry: &mut Registry, ranges: &Ranges) -> Result<(), ServedTwice> {
    // All of it on the thread of ranges: what consensus does wakes no other thread on its way.
    let on = ranges.0.parts.runtime.clone();
    let here = ranges.clone();
    registry.serve_on(on.clone(), move |call: Call<Consent>| {
        let class = call.message.class.clone();
        // Put before the next question is taken: a log's entries come in their order.
        let mut answer = Box::pin(here.clone().consents(call));
        let first = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        async move {
            let answer = match first {
                Poll::Ready(answer) => answer,
                Poll::Pending => answer.await,
            };
            Ok((answer, class))
        }
    })?;
    let here = ranges.clone();
    registry.hear(RANGE_WORD, move |call: Call<RangeWord>| {
        let (Some(node), Ok(word)) = (call.from.node.clone(), codec::decode(&call.message.word)) else {
            return Ok(());
        };
        if let Ok(host) = here.host() {
            let (host, runtime) = (host.clone(), here.0.parts.runtime.clone());
            runtime.spawn(async move { host.heard(&node, word).await });
        }
        Ok(())
    })?;
    macro_rules! serves {
        ($message:ty, $method:ident) => {{
            let here = ranges.clone();
            registry.serve_on(on.clone(), move |call: Call<$message>| {
                let here = here.clone();
                async move { here.$method(call).await }
            })?;
        }};
    }
    serves!(Introduce, who);
    serves!(Found, take_seat);
    serves!(CreateKeyspace, create_keyspace);
    serves!(ListKeyspaces, keyspaces);
    serves!(ListRanges, replicas);
    serves!(SplitRange, splits);
    serves!(TransferLease, transfers);
    serves!(MoveReplica, moves);
    serves!(CheckRange, checks_range);
    serves!(PlanRange, plans);
    serves!(Rejoin, rejoins);
    serves!(PlanPlacement, plans_placement);
    serves!(ApplyPlacement, applies_placement);
    serves!(WhereIs, tells_where);
    serves!(KvRead, reads);
    serves!(KvWrite, writes);
    serves!(LiveKeyspace, lives);
    serves!(CreateSnapshot, takes);
    serves!(RemoveSnapshot, removes);
    serves!(ExportSnapshot, exports);
    serves!(KeepKey, keeps_key);
    serves!(HandKey, hands_key);
    serves!(WhichKeys, tells_which);
    serves!(CondemnKeys, condemns);
    serves!(DestroyKeys, destroys);
    serves!(EraseSubject, erases);
    serves!(SayVersion, says_version);
    serves!(ShowVersion, shows_version);
    serves!(Finalize, finalizes);
    super::failover::serve(registry, ranges)
}

impl Ranges {
    async fn consents(self, call: Call<Consent>) -> Result<Bytes, String> {
        let Consent { class, range, from, to, question } = call.message;
        let node = call.from.node.clone().ok_or("only replicas ask this")?;
        let range = RangeId(range);
        let known = self.0.classes.read().get(&range).cloned();
        if known.as_ref() != Some(&class) {
            return Err(format!("range {} is not known here as one of class {class}", range.0));
        }
        // The gates have let the message in; whether its data may be kept is another question.
        let region = &self.0.parts.me.region;
        if !self.0.parts.policy.permits(region, Use::Hold, &class) {
            return Err(format!("region {region} may not hold class {class}"));
        }
        let host = self.host().map_err(|refusal| refusal.to_string())?;
        host.asked(&node, range, (ReplicaId(from), ReplicaId(to)), question).await
    }

    async fn who(self, _: Call<Introduce>) -> Answer<rhumb_actors::ranges::messages::Introduced> {
        control(self.host().map(|_| self.introduced()))
    }

    async fn take_seat(self, call: Call<Found>) -> Answer<()> {
        let node = call.from.node.clone();
        let Some(node) = node else {
            return control(Err(KvRefusal::NotAllowed("only nodes found the meta range".to_owned())));
        };
        control(self.seated(&node, call.message).await)
    }

    async fn create_keyspace(self, call: Call<CreateKeyspace>) -> Answer<KeyspaceView> {
        let CreateKeyspace { name, class, replication, lifetimes, .. } = &call.message;
        let by_node = call.from.node.is_some();
        let named = if by_node && pools::is_of_pool(name) { Ok(()) } else { named(name) };
        let may = named.and_then(|()| may_create(class, *replication));
        if let Err(refusal) = may.and_then(|()| self.may_keep(lifetimes)) {
            return control(Err(refusal));
        }
        let record = Record::told("keyspace.create", "", Outcome::Begun)
            .on(format!("keyspace {name}"))
            .with("class", class.to_string());
        // The node that was asked by a person tells of it; the one that does it for that node does not.
        let begun = match by_node {
            true => None,
            false => Some(audit::begin(&self.0.parts.log, &call.from, record).await?),
        };
        let ended = self.created(&call.message, call.within).await;
        if let Some(begun) = begun {
            match &ended {
                Ok(Ok(_)) => drop(begun.ended(Outcome::Done, None).await?),
                Ok(Err(refusal)) => drop(begun.ended(Outcome::Refused, Some(refusal.to_string())).await?),
                Err(fault) => drop(begun.ended(Outcome::Failed, Some(fault.to_string())).await?),
            }
        }
        control(ended?)
    }

    pub(super) async fn created(&self, asked: &CreateKeyspace, within: Duration) -> Ended<KeyspaceView> {
        let until = Instant::now() + within.mul_f32(0.9);
        let here = || self.create(asked);
        let created = self.at_meta(asked, here, until).await?;
        // Whoever asks next here finds it.
        while created.is_ok() && !self.0.keyspaces.read().contains_key(&asked.name) && Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(created)
    }

    async fn keyspaces(self, _: Call<ListKeyspaces>) -> Answer<Vec<KeyspaceView>> {
        control(self.views())
    }

    /// The keyspaces of everybody.
    pub(super) fn views(&self) -> Result<Vec<KeyspaceView>, KvRefusal> {
        self.host()?;
        let spaces = self.0.keyspaces.read();
        let views = spaces.values().filter(|space| !pools::is_of_pool(&space.name)).map(|space| space.view());
        Ok(views.collect())
    }

    async fn replicas(self, _: Call<ListRanges>) -> Answer<Vec<RangeView>> {
        control(self.range_views().await)
    }

    /// The replicas that are here.
    pub(super) async fn range_views(&self) -> Result<Vec<RangeView>, KvRefusal> {
        let host = self.host()?;
        let mut views = Vec::new();
        for group in host.groups() {
            let range = group.range();
            let name = self.name_of(range);
            let (leads, leaseholder) = (group.leads(), host.holds(range).await);
            let replica = group.replica().await;
            // One that has nothing yet knows only what it is to become.
            let seats = Some(replica.descriptor()).filter(|known| !known.is_empty());
            let votes = seats.and_then(|known| known.seat(group.id())).is_some_and(|seat| seat.votes);
            views.push(RangeView {
                range: range.0,
                keyspace: name,
                replica: group.id().0,
                node: self.0.parts.me.clone(),
                leads,
                leaseholder,
                votes,
                applied: replica.applied().index,
                closed_ms: replica.closed().millis(),
                nodes: replica.descriptor().seats.iter().map(|seat| seat.node.clone()).collect(),
                threshold_ms: replica.applied().threshold.millis(),
                collected: host.collected(range),
                condition: self.condition(range, group.id()),
                feeds: group.feeds().into_iter().map(|(learner, feeder)| (learner.0, feeder.0)).collect(),
            });
        }
        views.extend(self.quarantined_views());
        Ok(views)
    }

    /// The name of a range's keyspace.
    pub(super) fn name_of(&self, range: RangeId) -> String {
        if range == META {
            return "meta".to_owned();
        }
        let spaces = self.0.keyspaces.read();
        let of = spaces.values().find(|space| space.row(range).is_some());
        of.map(|space| space.name.clone()).unwrap_or_default()
    }

    async fn reads(self, call: Call<KvRead>) -> Answer<KvAnswer> {
        let (class, within) = (call.message.class.clone(), call.within);
        if let Err(refusal) = pools::only_nodes(&call.message.keyspace, call.from.node.is_some()) {
            return Ok((Err(refusal), class));
        }
        let message = match call.from.principal.role {
            Role::Node => call.message,
            _ => KvRead { hops: 0, fallback: false, ..call.message },
        };
        Ok((self.read_for(&Reader::Peer(&call.from), message, within).await?, class))
    }

    /// Reads for somebody: what is to be told of it is.
    pub(super) async fn read_for(
        &self,
        reader: &Reader<'_>,
        message: KvRead,
        within: Duration,
    ) -> Result<Result<KvAnswer, KvRefusal>, Fault> {
        let (first, asked) = (message.hops == 0, message.clone());
        let outcome = self.read(message, within).await?;
        if let Ok(answer) = &outcome {
            self.told_of_read(reader, &asked, answer).await?;
        }
        if first {
            self.0.staleness.read(asked.needs, &outcome);
        }
        outcome.as_ref().ok().into_iter().for_each(staleness::shown);
        Ok(outcome)
    }

    async fn writes(self, call: Call<KvWrite>) -> Answer<rhumb_actors::ranges::messages::KvWritten> {
        let (class, within) = (call.message.class.clone(), call.within);
        let node: Option<NodeId> = call.from.node.clone();
        if let Err(refusal) = pools::only_nodes(&call.message.keyspace, node.is_some()) {
            return Ok((Err(refusal), class));
        }
        let answer = match node {
            Some(node) if call.message.keyspace == "meta" => {
                self.introduces(&node, call.message, within).await
            }
            Some(_) => self.write(call.message, within).await,
            None => self.write(KvWrite { hops: 0, ..call.message }, within).await,
        };
        Ok((answer?, class))
    }
}

/// Whether such a keyspace may be.
fn may_create(class: &DataClass, replication: u32) -> Result<(), KvRefusal> {
    if replication > MAX_REPLICATION {
        let why = format!("{replication} replicas: expected 1 to {MAX_REPLICATION}");
        return Err(KvRefusal::Invalid(why));
    }
    if class.is_control() {
        let why = "class control is the mesh's own: expected a class of the policy; `rhumb policy show FILE` lists those of its \
                   file";
        return Err(KvRefusal::Invalid(why.to_owned()));
    }
    Ok(())
}
