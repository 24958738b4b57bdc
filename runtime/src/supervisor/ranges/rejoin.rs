//! A node of the founding list whose disk was lost: it has its replica of the meta range replaced, and with that all others.
//!
//! * It decides: whom the node asks, and that only the holder of the meta range's lease changes its row.
//! * It never does: bring a replica back under the number of one whose disk is gone, found a second meta range, or take a node's word
//!   for another node's disk.
//! * Invariant: the old replica leaves after the new one votes, one voter at a time ([`seating`](rhumb_actors::ranges::seating)): a
//!   majority that has all that was acknowledged is there throughout.

use rhumb_actors::ranges::catalog::{self, Founder, META, META_KEYSPACE, META_ROW, Next, RangeRow};
use rhumb_actors::ranges::host::NotWritten;
use rhumb_actors::ranges::messages::{KvRefusal, Rejoin, Rejoined};
use rhumb_actors::ranges::{Condition, Op, ReplicaId, Seat};
use rhumb_core::{DataClass, HybridTime, NodeId};
use rhumb_storage::mvcc::{Record, UserKey};
use tokio::time::Instant;

use super::catalog::{CreateEnded, WITHIN, next_key};
use super::serve::{Answer, control};
use super::{Ranges, not_now};
use crate::mesh::registry::Call;

/// How often a question is passed on.
const MAX_HOPS: u32 = 3;

impl Ranges {
    /// This node has no replica of the meta range. If there is one, and it has a seat of it on another disk, that one is replaced.
    pub(super) async fn rejoin(&self) {
        let Ok(host) = self.host() else { return };
        let me = &self.0.parts.me;
        let asks = Rejoin {
            node: me.clone(),
            store: self.0.parts.store_id,
            tokens: self.0.tokens.public(),
            hops: 0,
        };
        for node in self.0.parts.founding.nodes().iter().filter(|node| *node != me) {
            let asked = self.0.parts.mesh.ask_node_untraced(node, &asks, DataClass::control(), WITHIN).await;
            let seats = match asked {
                Ok((Ok(Rejoined { seats }), _)) => seats,
                Ok((Err(refusal), _)) => {
                    tracing::debug!(%node, %refusal, "the meta range is not rejoined yet");
                    continue;
                }
                Err(_) => continue,
            };
            let seat =
                |(replica, node, store, votes)| Seat { replica: ReplicaId(replica), node, store, votes };
            let seats: Vec<_> = seats.into_iter().map(seat).collect();
            match host.join(META, META_KEYSPACE, seats).await {
                Ok(()) => tracing::warn!(
                    "this disk is a new one: the node's replicas are replaced, the meta range's first"
                ),
                Err(error) => tracing::warn!(%error, "the meta range is not rejoined yet"),
            }
            return;
        }
    }

    /// Another node's disk is a new one.
    pub(super) async fn rejoins(self, call: Call<Rejoin>) -> Answer<Rejoined> {
        let asked = &call.message;
        let of_it = call.from.node.as_ref() == Some(&asked.node);
        let passed_on = asked.hops > 0 && call.from.node.as_ref().is_some_and(|node| self.is_founder(node));
        if !(of_it || passed_on) || !self.is_founder(&asked.node) {
            let why = "only a node of the founding list says which disk it has, and only its own";
            return control(Err(KvRefusal::NotAllowed(why.to_owned())));
        }
        if self.host().map(|host| host.group(META).is_none()).unwrap_or(true) {
            return control(Err(not_now("there is no meta range here")));
        }
        let until = Instant::now() + call.within.mul_f32(0.9);
        let next = Rejoin { hops: asked.hops + 1, ..asked.clone() };
        if next.hops > MAX_HOPS {
            return control(Err(not_now("the nodes do not agree on who holds the lease of the meta range")));
        }
        control(self.at_meta(&next, || self.rejoined(asked), until).await?)
    }

    fn is_founder(&self, node: &NodeId) -> bool {
        self.0.parts.founding.contains(node)
    }

    /// Has a node's replica of the meta range replaced, as its leaseholder.
    async fn rejoined(&self, asked: &Rejoin) -> Result<Rejoined, CreateEnded> {
        let refused = CreateEnded::Refused;
        let (row, row_at) = self.meta_row().await?;
        let (numbers, numbers_at) = self.strong(&next_key()).await?;
        let next = match numbers {
            Some(value) => catalog::decode::<Next>(&value).map_err(KvRefusal::Unsound).map_err(refused)?,
            None => catalog::first_numbers(row.seats.len()),
        };
        let seat = row.seats.iter().find(|seat| seat.node == asked.node);
        if seat.is_some_and(|seat| seat.store == asked.store && !row.joined.contains(&seat.replica)) {
            let why = "this disk is the one that it had when the meta range was founded: the founder tells it of its seat";
            return Err(refused(KvRefusal::Invalid(why.to_owned())));
        }
        let to = (&asked.node, &asked.node, asked.store);
        let row = match catalog::moved_to(&row, next, to).map_err(refused)? {
            None => row,
            Some((row, next)) => {
                let version = self.0.version.formats.active();
                let founder = Founder::new(asked.store, asked.tokens.clone(), version);
                let ops = vec![
                    op(meta_key(), Some(row_at), catalog::encode(&row)),
                    op(next_key(), Some(numbers_at), catalog::encode(&next)),
                    op(catalog::node_key(&asked.node), None, founder.encode()),
                ];
                self.put(ops).await?;
                tracing::warn!(node = %asked.node, "it has a new disk: its replica of the meta range is replaced");
                row
            }
        };
        let all = row.seats.iter().chain(&row.leaving);
        let seats = all.map(|seat| (seat.replica.0, seat.node.clone(), seat.store, seat.votes)).collect();
        Ok(Rejoined { seats })
    }

    /// The meta range's own row; until a replica of it was replaced, it is as its log has it.
    async fn meta_row(&self) -> Result<(RangeRow, Option<HybridTime>), CreateEnded> {
        let (row, at) = self.strong(&meta_key()).await?;
        if let Some(row) = row {
            let row = catalog::decode(&row).map_err(KvRefusal::Unsound).map_err(CreateEnded::Refused)?;
            return Ok((row, at));
        }
        let host = self.host().map_err(CreateEnded::Refused)?;
        let none = || CreateEnded::Refused(not_now("there is no meta range here yet"));
        let seats = host.group(META).ok_or_else(none)?.replica().await.descriptor().seats.clone();
        Ok((RangeRow::created(META, seats), None))
    }

    /// Replicas of the meta range have left it, as its leaseholder has found.
    pub(super) async fn left_meta(&self, replicas: &[ReplicaId]) -> Result<(), CreateEnded> {
        let (row, at) = self.meta_row().await?;
        match catalog::without(&row, replicas) {
            None => Ok(()),
            Some(row) => self.put(vec![op(meta_key(), Some(at), catalog::encode(&row))]).await,
        }
    }

    async fn put(&self, ops: Vec<Op>) -> Result<(), CreateEnded> {
        let host = self.host().map_err(CreateEnded::Refused)?;
        match host.write(META, ops).await {
            Ok(_) => Ok(()),
            Err(NotWritten::Unknown(why)) => Err(CreateEnded::Unknown(why)),
            Err(NotWritten::Leaseholder(seat)) => Err(CreateEnded::At(seat.node)),
            Err(_) => {
                let why = "the meta range was changed, or its lease moved, meanwhile";
                Err(CreateEnded::Refused(not_now(why)))
            }
        }
    }
}

pub(super) fn meta_key() -> UserKey {
    UserKey::new(META_ROW).expect("short")
}

/// A write; with a condition, that the key is still what was read.
fn op(key: UserKey, read_at: Option<Option<HybridTime>>, value: Vec<u8>) -> Op {
    let condition = read_at.map(|at| at.map_or(Condition::Absent, Condition::Version));
    Op { key, condition, record: Record::put(value) }
}
