//! The way of a read or a write: here, or on to the node that can.
//!
//! * It decides: where a call goes on to, what is tried again, and how a refusal is told.
//! * It never does: try again what may have been written, or pass a call on more often than `MAX_HOPS` ([`passing`](super::passing)).

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_actors::ranges::catalog::{Keyspace, META};
use rhumb_actors::ranges::host::{NotRead, NotWritten, Rowed};
use rhumb_actors::ranges::lifecycle::Life;
use rhumb_actors::ranges::messages::{
    KvAnswer, KvCondition, KvOp, KvRead, KvRefusal, KvRow, KvWrite, KvWritten, Lifetimes, MAX_BYTES, MAX_OPS,
    MAX_ROWS, Needs,
};
use rhumb_actors::ranges::raft::Pressed;
use rhumb_actors::ranges::token::TokenError;
use rhumb_actors::ranges::{Answer, Ask, Condition, Consistency, Op, RangeId, RangeRefusal, Seat, Token};
use rhumb_actors::ranges::{sealing, subjects};
use rhumb_core::{DataClass, Fault, FaultKind, HybridTime, NodeId};
use rhumb_storage::mvcc::{KeyspaceId, Limit, Record, Subject, UserKey, Version, VersionKey};
use tokio::time::Instant;

use super::bounds::Bounded;
use super::lifetimes::{lasts, may_last};
use super::subjects::{Seals, is_personal, seal};
use super::{Ranges, not_now};

/// How long something is waited for that will be well in a moment.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How long it takes a node to hear of a new keyspace. Who reads or writes has found it somewhere.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// How long it takes a node to read the key of another one that has just joined.
const KEY_AFTER: Duration = Duration::from_secs(1);

pub(super) type Outcome<T> = Result<Result<T, KvRefusal>, Fault>;

impl Ranges {
    /// The keyspace of this name, if the call came under its class.
    pub(super) fn keyspace(&self, name: &str, class: &DataClass) -> Result<Keyspace, KvRefusal> {
        // Before its ranges have started a node knows of none.
        self.host()?;
        let space = self.0.keyspaces.read().get(name).cloned();
        let space = space.ok_or_else(|| KvRefusal::NoSuchKeyspace(name.to_owned()))?;
        if space.class == *class { Ok(space) } else { Err(KvRefusal::WrongClass(space.class)) }
    }

    /// The same, once it is known here.
    async fn heard_of(&self, name: &str, class: &DataClass, until: Instant) -> Result<Keyspace, KvRefusal> {
        let until = until.min(Instant::now() + KNOWN_AFTER);
        loop {
            match self.keyspace(name, class) {
                Err(KvRefusal::NoSuchKeyspace(_)) if Instant::now() + AGAIN_AFTER < until => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                known => return known,
            }
        }
    }

    pub(super) async fn read(&self, message: KvRead, within: Duration) -> Outcome<KvAnswer> {
        let until = Instant::now() + within.mul_f32(0.95);
        let prepared = self.heard_of(&message.keyspace, &message.class, until).await.and_then(|space| {
            space.life.reads()?;
            let (ask, limit) = self.asks(&message)?;
            Ok((space, ask, limit))
        });
        let (mut space, ask, limit) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut bounded = Bounded::of(&message);
        loop {
            renew(&mut space, &self.0.keyspaces.read());
            let host = match self.host() {
                Ok(host) => host,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let (range, there) = self.locate(&space, &ask.from, until).await;
            let read = match range {
                Some(range) => host.read(range, ask.clone(), limit).await,
                None => Err(NotRead::NoReplica),
            };
            if bounded.is_one()
                && read.is_err()
                && let Some(range) = range
            {
                bounded.saw(host.behind(range).await);
            }
            let (to, fallback) = match read {
                Ok(answer) => {
                    let (age, read_at) = (answer.age, Instant::now());
                    let answered = self.answered(&space, answer, &message, until).await;
                    // Keys of subjects may have been waited for. They are here now.
                    let is_late =
                        matches!(message.needs, Needs::Bounded(bound) if age + read_at.elapsed() > bound);
                    if !is_late || answered.is_err() || Instant::now() + AGAIN_AFTER >= until {
                        return Ok(answered);
                    }
                    continue;
                }
                // The nearest one that has a replica, and no other.
                Err(NotRead::NoReplica) if message.nearest_only => {
                    (there.into_iter().take(1).collect(), message.fallback)
                }
                Err(NotRead::NoReplica) => (there, message.fallback),
                Err(NotRead::Refused(refusal @ RangeRefusal::NotLeaseholder(Some(_))))
                    if message.nearest_only =>
                {
                    return Ok(Err(told(refusal)));
                }
                Err(NotRead::Leaseholder(seat)) => (vec![seat.node], message.needs != Needs::Strong),
                Err(NotRead::Refused(refusal)) if passes(&refusal) || bounded.waits(&refusal) => {
                    if Instant::now() + AGAIN_AFTER >= until {
                        return bounded.instead(Ok(Err(told(refusal))));
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
                Err(NotRead::Refused(refusal)) => return Ok(Err(told(refusal))),
                Err(NotRead::Unsound(why)) => {
                    self.0.parts.halt.now(format!("keyspace {}: {why}", space.name));
                    return Ok(Err(KvRefusal::Unsound(why)));
                }
            };
            let next = KvRead { hops: message.hops + 1, fallback, ..message.clone() };
            let asked_until = bounded.asks_until(Instant::now(), until);
            let asked = self.pass_read_on(&to, &next, &space.class, asked_until).await;
            let has_time = Instant::now() + AGAIN_AFTER < until;
            match asked {
                Some(outcome) if !(bounded.goes_on(&outcome) && has_time) => return bounded.instead(outcome),
                _ if has_time => tokio::time::sleep(AGAIN_AFTER).await,
                _ => {
                    let lost = not_now("no replica that could answer was reached");
                    return bounded.instead(Ok(Err(lost)));
                }
            }
        }
    }

    pub(super) async fn write(&self, message: KvWrite, within: Duration) -> Outcome<KvWritten> {
        let until = Instant::now() + within.mul_f32(0.95);
        let prepared = self.heard_of(&message.keyspace, &message.class, until).await;
        let sound = |space: &Keyspace| {
            space.life.writes()?;
            checked(&message.ops).and_then(|()| about(&space.class, &message.ops))
        };
        let mut space = match prepared.and_then(|space| sound(&space).map(|()| space)) {
            Ok(space) => space,
            Err(refusal) => return Ok(Err(refusal)),
        };
        loop {
            renew(&mut space, &self.0.keyspaces.read());
            let ops = match self.ops(&message.ops, &space.lifetimes) {
                Ok(ops) => ops,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let first = ops[0].key.clone();
            let (range, there) = self.locate(&space, &first, until).await;
            let proposed = match range {
                None => Err(Not::NoReplica),
                Some(range) => match self.of_one_range(&space, range, &ops) {
                    Ok(()) => self.propose_in(&space, range, ops, &message.ops, until).await?,
                    Err(refusal) => return Ok(Err(refusal)),
                },
            };
            let to = match proposed {
                Ok(written) => return Ok(Ok(written)),
                Err(Not::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Not::Again(_)) if Instant::now() + AGAIN_AFTER < until => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
                Err(Not::Again(why)) => return Ok(Err(not_now(why))),
                Err(Not::At(seat)) => vec![seat.node],
                Err(Not::NoReplica) => there,
            };
            let next = KvWrite { hops: message.hops + 1, ..message.clone() };
            match self.pass_on(&to, &next, message.hops, &space.class, until).await {
                Some(outcome) => return outcome,
                None if Instant::now() + AGAIN_AFTER < until => tokio::time::sleep(AGAIN_AFTER).await,
                None => return Ok(Err(not_now("no replica that could write was reached"))),
            }
        }
    }

    /// A node says who it is, in the meta range.
    pub(super) async fn introduces(
        &self,
        from: &NodeId,
        message: KvWrite,
        within: Duration,
    ) -> Outcome<KvWritten> {
        let mine = rhumb_actors::ranges::catalog::node_key(from);
        let (ops, until) =
            (self.ops(&message.ops, &Lifetimes::default()), Instant::now() + within.mul_f32(0.95));
        let ops = match ops {
            Ok(ops) if ops.iter().all(|op| op.key == mine) => ops,
            Ok(_) => return Ok(Err(KvRefusal::NotAllowed(format!("node {from} only says who it is")))),
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(self.propose(META, ops, None, until).await?.map_err(|not| match not {
            Not::Refused(refusal) => refusal,
            Not::Again(why) => not_now(why),
            Not::At(_) | Not::NoReplica => not_now("the lease is another node's"),
        }))
    }

    /// Proposes writes of a keyspace: those of a personal class are sealed, by whoever can propose them.
    async fn propose_in(
        &self,
        space: &Keyspace,
        range: RangeId,
        ops: Vec<Op>,
        said: &[KvOp],
        until: Instant,
    ) -> Result<Result<KvWritten, Not>, Fault> {
        // It may have been archived while this waited.
        let now = self.0.keyspaces.read().get(&space.name).map(|now| (now.id, now.life));
        let now = now.filter(|(id, _)| *id == space.id).map(|(_, life)| life);
        let may = now.ok_or_else(|| KvRefusal::NoSuchKeyspace(space.name.clone()));
        if let Err(refusal) = may.and_then(Life::writes) {
            return Ok(Err(Not::Refused(refusal)));
        }
        if !is_personal(&space.class) {
            return self.propose(range, ops, None, until).await;
        }
        let host = match self.host() {
            Ok(host) => host,
            Err(refusal) => return Ok(Err(Not::Refused(refusal))),
        };
        // No key is drawn where nothing can be written.
        if !host.holds(range).await {
            let elsewhere = host.leaseholder(range).await.filter(|seat| seat.node != self.0.parts.me);
            let again = || Not::Again("the lease is not in force here yet".to_owned());
            return Ok(Err(elsewhere.map_or_else(again, Not::At)));
        }
        match self.seals(&space.class, said, until).await {
            Ok(seals) => self.propose(range, ops, Some(seals), until).await,
            Err(refusal) => Ok(Err(Not::Refused(refusal))),
        }
    }

    async fn propose(
        &self,
        range: RangeId,
        ops: Vec<Op>,
        seals: Option<Seals>,
        until: Instant,
    ) -> Result<Result<KvWritten, Not>, Fault> {
        let unknown = |why: String| {
            Fault::unknown(FaultKind::Deadline(format!("whether it was written is not known: {why}")))
        };
        let host = match self.host() {
            Ok(host) => host,
            Err(refusal) => return Ok(Err(Not::Refused(refusal))),
        };
        let within = until.saturating_duration_since(Instant::now());
        let writing = async {
            match seals {
                None => host.write_sealed(range, ops, within, |_, _| ()).await,
                Some(seals) => host.write_sealed(range, ops, within, seal(seals)).await,
            }
        };
        let written = tokio::time::timeout_at(until, writing).await;
        match written.map_err(|_| unknown("consensus took too long".to_owned()))? {
            Ok(written) => Ok(Ok(KvWritten {
                version: written.at,
                region: written.replica.node.region.clone(),
                replica: written.replica.replica.0,
                token: self.0.tokens.sign(written.token).to_vec(),
            })),
            Err(NotWritten::NoReplica) => Ok(Err(Not::NoReplica)),
            Err(NotWritten::Leaseholder(seat)) => Ok(Err(Not::At(seat))),
            Err(NotWritten::Refused(refusal)) if passes(&refusal) => Ok(Err(Not::Again(refusal.to_string()))),
            Err(NotWritten::Refused(refusal)) => Ok(Err(Not::Refused(told(refusal)))),
            Err(NotWritten::Condition { op, found }) => {
                Ok(Err(Not::Refused(KvRefusal::Condition { op: op as u64, found })))
            }
            Err(NotWritten::Pressed(Pressed { why, retry_after })) => {
                let why = format!("node {}: {why}", self.0.parts.me);
                Ok(Err(Not::Refused(KvRefusal::Overloaded { why, retry_after })))
            }
            Err(NotWritten::Void) => Ok(Err(Not::Again("another write came between".to_owned()))),
            Err(NotWritten::Unknown(why) | NotWritten::Stopped(why)) => Err(unknown(why)),
        }
    }

    /// Whether these keys are of one range that is here.
    fn of_one_range(&self, space: &Keyspace, range: RangeId, ops: &[Op]) -> Result<(), KvRefusal> {
        let host = self.host()?;
        let keyspace = KeyspaceId(space.id);
        if ops.iter().all(|op| host.range_of(keyspace, &op.key) == Some(range)) {
            return Ok(());
        }
        let why = "the keys of the batch are of more than one range, and a batch is atomic within one: write them in \
                   several batches";
        Err(KvRefusal::Invalid(why.to_owned()))
    }

    /// What a read asks of a replica.
    fn asks(&self, message: &KvRead) -> Result<(Ask, Limit), KvRefusal> {
        let token = match message.token.as_slice() {
            [] => None,
            bytes => Some(self.0.tokens.read(bytes).map_err(not_believed)?),
        };
        let consistency = match message.needs {
            Needs::Strong => Consistency::Strong,
            Needs::Bounded(bound) => Consistency::Bounded(bound),
            Needs::Eventual => Consistency::Eventual,
            Needs::AsOf(at) => Consistency::AsOf(at),
        };
        let ask = Ask {
            from: key(message.from.clone())?,
            to: message.to.clone().map(key).transpose()?,
            consistency,
            token,
            nearest_only: message.nearest_only,
            fallback: message.fallback,
        };
        let rows = usize::try_from(message.limit.clamp(1, MAX_ROWS)).unwrap_or(1);
        Ok((ask, Limit { rows, bytes: MAX_BYTES }))
    }

    /// What was read, as it is answered. Values of a personal class are opened where they were read.
    async fn answered(
        &self,
        space: &Keyspace,
        answer: Answer<Rowed>,
        message: &KvRead,
        until: Instant,
    ) -> Result<KvAnswer, KvRefusal> {
        let is_one = matches!(answer.value, Rowed::One(_));
        let (found, next) = match answer.value {
            Rowed::One(found) => {
                let key = key(message.from.clone())?;
                (found.map(|version| (key, version)).into_iter().collect(), None)
            }
            Rowed::Many(page) => (page.rows, page.next.map(|key| key.as_bytes().to_vec())),
        };
        let (mut rows, mut erased) = (Vec::with_capacity(found.len()), 0);
        for (key, version) in found {
            if message.as_stored {
                rows.push(stored(space, key, version));
                continue;
            }
            if !is_personal(&space.class) {
                rows.push(row(key, version));
                continue;
            }
            let of = (&space.class, KeyspaceId(space.id));
            match self.opened(of, &key, &version, until).await? {
                Some((value, by)) => rows.push(KvRow {
                    value,
                    subject: Some(by.subject),
                    sealed_under: Some(by.id.to_string()),
                    ..row(key, version)
                }),
                None if is_one => return Err(KvRefusal::Erased),
                None => erased += 1,
            }
        }
        let token: Token = answer.token;
        Ok(KvAnswer {
            rows,
            next,
            level: answer.level,
            at: answer.at,
            age: answer.age,
            region: answer.region,
            replica: answer.replica.replica.0,
            fallback: answer.fallback,
            token: self.0.tokens.sign(token).to_vec(),
            erased,
        })
    }

    fn ops(&self, ops: &[KvOp], lifetimes: &Lifetimes) -> Result<Vec<Op>, KvRefusal> {
        let now = self.0.parts.clock.last();
        ops.iter().map(|said| op(said, now, lifetimes)).collect()
    }
}

/// Why nothing was written here.
enum Not {
    Refused(KvRefusal),
    Again(String),
    At(Seat),
    NoReplica,
}

/// Takes the row of a keyspace as it is by now: its ranges are split and moved while a call goes on. Another one that has its name since is
/// not the one that was asked for.
fn renew(space: &mut Keyspace, keyspaces: &BTreeMap<String, Keyspace>) {
    if let Some(now) = keyspaces.get(&space.name).filter(|now| now.id == space.id) {
        space.clone_from(now);
    }
}

/// Whether it will be well in a moment.
fn passes(refusal: &RangeRefusal) -> bool {
    matches!(
        refusal,
        RangeRefusal::LeaseNotInForce
            | RangeRefusal::InFlight
            | RangeRefusal::Ahead(_)
            | RangeRefusal::NotReached(_)
            | RangeRefusal::Transferring
            | RangeRefusal::NotLeaseholder(_)
            | RangeRefusal::HolderIsSupported
            | RangeRefusal::Outside
            | RangeRefusal::NoVote
            | RangeRefusal::Removed
            | RangeRefusal::Quarantined
    )
}

fn told(refusal: RangeRefusal) -> KvRefusal {
    match refusal {
        RangeRefusal::StalenessBoundViolated { bound_ms, age_ms } => {
            KvRefusal::StalenessBoundViolated { bound_ms, age_ms, retry_after: None }
        }
        RangeRefusal::InTheFuture(_) | RangeRefusal::BelowThreshold(_) => {
            KvRefusal::Time(refusal.to_string())
        }
        RangeRefusal::Outside => KvRefusal::Invalid(refusal.to_string()),
        RangeRefusal::LaterEpoch(_) => KvRefusal::Token(refusal.to_string()),
        passing => not_now(passing),
    }
}

/// Whoever has just joined, or has another key since, has told the meta range, and this node reads it in a moment. Of a made-up token
/// with the number of no key as much is known.
fn not_believed(error: TokenError) -> KvRefusal {
    match error {
        TokenError::UnknownKey => KvRefusal::NotNow { why: error.to_string(), retry_after: KEY_AFTER },
        TokenError::Length(_) | TokenError::Format(_) | TokenError::Replaced | TokenError::Signature => {
            KvRefusal::Token(error.to_string())
        }
    }
}

fn key(bytes: Vec<u8>) -> Result<UserKey, KvRefusal> {
    UserKey::new(bytes).map_err(|error| KvRefusal::Invalid(error.to_string()))
}

fn row(key: UserKey, version: Version) -> KvRow {
    let Version { at, record } = version;
    let header = record.header;
    KvRow {
        key: key.as_bytes().to_vec(),
        value: record.value.unwrap_or_default(),
        version: at,
        schema: header.schema,
        subject: header.subject.map(|subject| subject.as_str().to_owned()),
        expires: header.expires,
        sealed_under: None,
    }
}

/// A row as it stands on disks.
fn stored(space: &Keyspace, key: UserKey, version: Version) -> KvRow {
    let at = VersionKey { keyspace: KeyspaceId(space.id), key: key.clone(), at: version.at };
    let value = version.record.encode(&at.encode());
    let sealed_under = sealing::sealed_under(&version).map(|id| id.to_string());
    KvRow { value, sealed_under, subject: None, ..row(key, version) }
}

fn op(said: &KvOp, now: HybridTime, lifetimes: &Lifetimes) -> Result<Op, KvRefusal> {
    let mut record = said.value.clone().map_or_else(Record::deleted, Record::put);
    if record.value.is_none() && (said.schema.is_some() || said.lasts.is_some()) {
        let why = "a deletion has no schema and does not end: give them with a value";
        return Err(KvRefusal::Invalid(why.to_owned()));
    }
    record.header.schema = said.schema;
    record.header.expires = lasts(said, lifetimes).map(|lasts| now.plus(lasts));
    let subject = said.subject.as_deref().map(Subject::new).transpose();
    record.header.subject = subject.map_err(|error| KvRefusal::Invalid(error.to_string()))?;
    let condition = said.condition.map(|condition| match condition {
        KvCondition::Absent => Condition::Absent,
        KvCondition::Version(at) => Condition::Version(at),
    });
    Ok(Op { key: key(said.key.clone())?, condition, record })
}

/// Whether these writes say whom they are about, where that must be said, and only there: elsewhere it would protect nobody.
fn about(class: &DataClass, ops: &[KvOp]) -> Result<(), KvRefusal> {
    if !is_personal(class) {
        if ops.iter().all(|op| op.subject.is_none()) {
            return Ok(());
        }
        return Err(KvRefusal::Invalid(format!(
            "class {class} is not personal: no value of it is sealed under its subject's key, and erasing the subject would not erase \
             it: leave the subject out (`--subject`), or write to a keyspace of a personal class"
        )));
    }
    for op in ops.iter().filter(|op| op.value.is_some()) {
        let why = || {
            format!(
                "class {class} is personal, and a value says whom it is about, under whose key it is sealed: give \
                 the subject (`--subject ID`)"
            )
        };
        subjects::named(op.subject.as_deref().ok_or_else(|| KvRefusal::Invalid(why()))?)?;
    }
    Ok(())
}

/// Whether these may be one write.
fn checked(ops: &[KvOp]) -> Result<(), KvRefusal> {
    let bytes: usize = ops.iter().map(|op| op.key.len() + op.value.as_ref().map_or(0, Vec::len)).sum();
    let mut keys: Vec<&[u8]> = ops.iter().map(|op| op.key.as_slice()).collect();
    keys.sort_unstable();
    let invalid = |why: String| Err(KvRefusal::Invalid(why));
    if ops.is_empty() || ops.len() > MAX_OPS {
        return invalid(format!("{} writes at once: expected 1 to {MAX_OPS}", ops.len()));
    }
    if bytes > MAX_BYTES {
        return invalid(format!("keys and values of {bytes} bytes at once: expected at most {MAX_BYTES}"));
    }
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("a batch writes a key twice: expected one write of each key".to_owned());
    }
    ops.iter().try_for_each(may_last).or_else(invalid)
}

#[cfg(test)]
mod tests {
    use rhumb_actors::placement::messages::Placement;
    use rhumb_actors::ranges::ReplicaId;
    use rhumb_actors::ranges::catalog::RangeRow;
    use rhumb_core::StoreId;

    use super::*;

    /// A keyspace of this number, with a range on each of these nodes.
    fn space(id: u32, nodes: &[&str]) -> Keyspace {
        let row = |(number, node): (u64, &&str)| {
            let node = node.parse().expect("a node");
            let seat = Seat { replica: ReplicaId(number), node, store: StoreId(1), votes: true };
            RangeRow::created(RangeId(number), vec![seat])
        };
        Keyspace {
            id,
            name: "profiles".to_owned(),
            class: DataClass::new("inventory").expect("a class"),
            replication: 1,
            ranges: (1..).zip(nodes).map(row).collect(),
            lifetimes: Lifetimes::default(),
            life: Life::Active,
            held: Vec::new(),
            purged: false,
            placement: Placement::default(),
        }
    }

    #[test]
    fn a_call_goes_on_by_the_ranges_as_they_are_by_now_of_the_same_keyspace() {
        let (begun, split, moved) =
            (space(7, &["eu/n1"]), space(7, &["eu/n1", "eu/n1"]), space(7, &["us/n1"]));
        let anew = space(8, &["us/n1"]);
        // A keyspace that is gone since, or was made anew, is the one that was asked for as it was last.
        for (now, wanted) in [
            (Some(&begun), &begun),
            (Some(&split), &split),
            (Some(&moved), &moved),
            (Some(&anew), &begun),
            (None, &begun),
        ] {
            let keyspaces = now.map(|now| (now.name.clone(), now.clone())).into_iter().collect();
            let mut space = begun.clone();
            renew(&mut space, &keyspaces);
            assert_eq!(space, *wanted, "{now:?}");
        }
    }

    #[test]
    fn a_batch_of_more_than_may_be_is_refused_with_what_may_be() {
        let op = |number: usize, bytes: usize| KvOp {
            key: format!("key-{number}").into_bytes(),
            value: Some(vec![7; bytes]),
            condition: None,
            schema: None,
            subject: None,
            lasts: None,
        };
        let why = |ops: &[KvOp]| match checked(ops) {
            Ok(()) => String::new(),
            Err(KvRefusal::Invalid(why)) => why,
            Err(other) => panic!("{other}"),
        };
        let many = |count: usize| (0..count).map(|number| op(number, 1)).collect::<Vec<_>>();
        assert_eq!(why(&many(256)), "");
        assert_eq!(why(&many(257)), "257 writes at once: expected 1 to 256");
        assert_eq!(why(&[]), "0 writes at once: expected 1 to 256");
        let large = why(&[op(0, MAX_BYTES)]);
        assert!(large.ends_with("bytes at once: expected at most 262144"), "{large}");
        assert!(why(&[op(1, 1), op(1, 2)]).contains("writes a key twice"));
    }
}
