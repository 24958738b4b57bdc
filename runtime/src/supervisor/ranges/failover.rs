//! Where failover meets the world: nodes tell each other that they are there, read the fences in the meta range, and whoever
//! holds the lease of that changes them.
//!
//! * It decides: whom to tell and ask, and how often. Who is lost, and what a fence becomes, is the machines'
//!   ([`rhumb_actors::failover`]).
//! * It never does: beat while this node's clock is refused or stands still, for what it may do rests on it; change a fence that is not what
//!   was read, or before that is in the audit log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::failover::messages::{
    BEAT, Beat, FenceRead, ListRegions, NodeStands, ReadFences, RegionList,
};
use rhumb_actors::failover::{
    Change, Coordinator, FailoverSettings, Fence, Holder, Observer, Row, Stands, State, Table, stands_still,
};
use rhumb_actors::ranges::catalog::{self, FENCES, FENCES_END, META};
use rhumb_actors::ranges::host::{NotRead, NotWritten, Rowed};
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::ranges::{Ask, Condition, Consistency, Op};
use rhumb_core::{DataClass, Delivery, HybridTime, Mono, NodeId};
use rhumb_storage::mvcc::{Limit, Record as KvRecord, UserKey};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::catalog::CreateEnded;
use super::plan::Ended;
use super::{Parts, Ranges, not_now};
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::metrics::exposition::Page;

/// How long a reading of all fences may take.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a change of a fence may take. What came of it is read afterwards.
const CHANGE_WITHIN: Duration = Duration::from_secs(4);
/// More rows than nodes of any mesh.
const ALL: Limit = Limit { rows: 10_000, bytes: 4 << 20 };

/// When any fence was last written, and each: whose, when, and its bytes.
type Scanned = (Option<HybridTime>, Vec<(NodeId, HybridTime, Vec<u8>)>);

/// What this node knows of who is there.
pub(super) struct Failover {
    settings: FailoverSettings,
    observer: Mutex<Observer>,
    coordinator: Mutex<Coordinator>,
    /// How nodes stood when that was last said in the log. This node said so if it coordinates.
    told: Mutex<BTreeMap<NodeId, State>>,
    joined: AtomicU64,
    fenced: AtomicU64,
    away: AtomicU64,
    returned: AtomicU64,
}

impl Failover {
    pub(super) fn new(parts: &Parts) -> Self {
        let settings = FailoverSettings { max_offset: parts.max_offset, ..FailoverSettings::default() };
        let (nodes, now) = (parts.founding.nodes(), parts.clock.mono());
        Self {
            settings,
            observer: Mutex::new(Observer::new(&parts.me, nodes.iter().cloned(), settings, now)),
            coordinator: Mutex::new(Coordinator::new(nodes.iter().cloned(), settings, now)),
            told: Mutex::default(),
            joined: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            away: AtomicU64::new(0),
            returned: AtomicU64::new(0),
        }
    }

    fn heard(&self, now: Mono, from: &NodeId, word: Beat) {
        self.observer.lock().heard(now, from);
        self.coordinator.lock().heard(now, from, word);
    }
}

/// Serves the messages of failover.
pub(super) fn serve(registry: &mut Registry, ranges: &Ranges) -> Result<(), ServedTwice> {
    let here = ranges.clone();
    registry.hear(BEAT, move |call: Call<Beat>| {
        if let Some(node) = &call.from.node {
            here.0.failover.heard(here.0.parts.clock.mono(), node, call.message);
        }
        Ok(())
    })?;
    let here = ranges.clone();
    registry.serve(move |_: Call<ReadFences>| {
        let here = here.clone();
        async move { super::serve::control(here.fences().await.map_err(elsewhere)) }
    })?;
    let here = ranges.clone();
    registry.serve(move |call: Call<ListRegions>| {
        let here = here.clone();
        async move {
            // Whoever was asked by a node is the last one who is asked.
            if call.from.node.is_some() {
                return super::serve::control(here.region_list().await.map_err(elsewhere));
            }
            let until = Instant::now() + call.within.mul_f32(0.9);
            let listed = here.at_meta(&call.message, || here.region_list(), until).await;
            super::serve::control(or_nobody_says(listed)?)
        }
    })
}

/// What another node is told that asked the wrong one.
fn elsewhere(ended: CreateEnded) -> KvRefusal {
    match ended {
        CreateEnded::Refused(refusal) => refusal,
        CreateEnded::At(node) => not_now(format!("{node} holds the lease of the meta range")),
        CreateEnded::Unknown(why) => not_now(why),
    }
}

/// Who asks changes nothing: where the leaseholder does not answer, nobody says how the nodes stand, and that is all.
fn or_nobody_says(listed: Ended<RegionList>) -> Ended<RegionList> {
    let why = match listed {
        Ok(Err(KvRefusal::NotNow { why, .. })) => why,
        Err(fault) if fault.delivery() == Delivery::Unknown => fault.kind.to_string(),
        said => return said,
    };
    let needs = "how the nodes stand is said by who holds the lease of the meta range, which takes a majority of its replicas";
    Ok(Err(not_now(format!("{needs}: {why}"))))
}

impl Ranges {
    /// Watches the other nodes, and keeps the fences. It does not end.
    pub(super) async fn fails_over(&self) {
        tokio::join!(self.beats(), self.keeps_permit(), self.coordinates());
    }

    /// Says each second that this node is there, and whom it does not hear.
    async fn beats(&self) {
        let Parts { me, founding, clock, mesh, time_is_good, .. } = &self.0.parts;
        let mut every = self.every();
        loop {
            every.tick().await;
            let now = clock.mono();
            let word = self.0.failover.observer.lock().look(now);
            {
                let mut coordinator = self.0.failover.coordinator.lock();
                coordinator.heard(now, me, word.clone());
                coordinator.look(now);
            }
            if !time_is_good() || stands_still(clock.now(), self.wall_ms()) {
                continue;
            }
            for node in founding.nodes().iter().filter(|node| *node != me) {
                if let Err(fault) = mesh.tell_node(node, BEAT, &word, DataClass::control()) {
                    tracing::trace!(to = %node, %fault, "no beat to it");
                }
            }
        }
    }

    /// Reads all fences each second: what this node may act by.
    async fn keeps_permit(&self) {
        let clock = &self.0.parts.clock;
        let mut every = self.every();
        loop {
            every.tick().await;
            let asked = clock.now();
            // Whatever fails is tried again in a second, under a new question: the permit counts from that.
            let Ok(Some(rows)) = tokio::time::timeout(READ_WITHIN, self.read_fences()).await else {
                continue;
            };
            let row = |said: FenceRead| Ok((said.node, catalog::decode::<Fence>(&said.row)?));
            match rows.into_iter().map(row).collect::<Result<Vec<_>, String>>() {
                Ok(rows) => {
                    self.0.parts.owners.read(asked, Table::new(rows));
                }
                Err(why) => return self.0.parts.halt.now(format!("a fence in the meta range: {why}")),
            }
        }
    }

    /// Changes the fences, while this node holds the lease of the meta range.
    async fn coordinates(&self) {
        let mut every = self.every();
        loop {
            every.tick().await;
            let Failover { coordinator, .. } = &self.0.failover;
            match self.fence_rows().await {
                Ok((all_at, rows)) => coordinator.lock().read(self.0.parts.clock.now(), all_at, rows),
                Err(_) => {
                    coordinator.lock().deposed();
                    self.0.failover.told.lock().clear();
                    continue;
                }
            }
            self.tell_of_nodes();
            let change = coordinator.lock().decide(self.0.parts.clock.now());
            if let Some(change) = change {
                if change.joins() {
                    // Others may wait for theirs.
                    every.reset_immediately();
                }
                self.change(change).await;
            }
        }
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(self.0.parts.clock.wall_micros() / 1_000).unwrap_or(0)
    }

    /// All fences, from the leaseholder of the meta range, if it is known and answers.
    async fn read_fences(&self) -> Option<Vec<FenceRead>> {
        let node = match self.fences().await {
            Ok(rows) => return Some(rows),
            Err(CreateEnded::At(node)) => node,
            Err(_) => return None,
        };
        let mesh = &self.0.parts.mesh;
        let asked = mesh.ask_node_untraced(&node, &ReadFences {}, DataClass::control(), READ_WITHIN).await;
        asked.ok()?.0.ok()
    }

    fn every(&self) -> tokio::time::Interval {
        let mut every = interval(self.0.failover.settings.beat);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every
    }

    /// The rows of all fences, as the leaseholder of the meta range reads them.
    async fn fence_rows(&self) -> Result<(Option<HybridTime>, BTreeMap<NodeId, Row>), CreateEnded> {
        let (all_at, rows) = self.scan_fences().await?;
        let row = |(node, version, value): (NodeId, _, Vec<u8>)| {
            let fence = catalog::decode::<Fence>(&value).map_err(unsound)?;
            Ok((node, Row { fence, version: Some(version) }))
        };
        Ok((all_at, rows.into_iter().map(row).collect::<Result<_, CreateEnded>>()?))
    }

    /// The same, for whoever asks.
    async fn fences(&self) -> Result<Vec<FenceRead>, CreateEnded> {
        let (_, rows) = self.scan_fences().await?;
        Ok(rows.into_iter().map(|(node, _, row)| FenceRead { node, row }).collect())
    }

    /// When any fence was last written, and each: whose, when, and its bytes.
    async fn scan_fences(&self) -> Result<Scanned, CreateEnded> {
        let key = |text: &str| UserKey::new(text).expect("short");
        let ask = Ask {
            from: key(FENCES),
            to: Some(key(FENCES_END)),
            consistency: Consistency::Strong,
            token: None,
            nearest_only: false,
            fallback: false,
        };
        let host = self.host().map_err(CreateEnded::Refused)?;
        let mut page = match host.read(META, ask, ALL).await {
            Ok(answer) => match answer.value {
                Rowed::Many(page) if page.next.is_none() => page,
                _ => return Err(unsound("there are more fences than nodes".to_owned())),
            },
            Err(NotRead::Leaseholder(seat)) => return Err(CreateEnded::At(seat.node)),
            Err(NotRead::Refused(refusal)) => return Err(CreateEnded::Refused(not_now(refusal))),
            Err(NotRead::NoReplica) => {
                return Err(CreateEnded::Refused(not_now("there is no meta range here yet")));
            }
            Err(NotRead::Unsound(why)) => return Err(unsound(why)),
        };
        let one = |(key, version): (UserKey, rhumb_storage::mvcc::Version)| {
            let name = String::from_utf8_lossy(key.as_bytes()).into_owned();
            let node = name.strip_prefix(FENCES).unwrap_or_default().parse::<NodeId>();
            let node = node.map_err(|error| unsound(format!("a fence of no node: {error}")))?;
            Ok((node, version.at, version.record.value.unwrap_or_default()))
        };
        let all = page.rows.iter().position(|(key, _)| *key == catalog::fences_key());
        let all_at = all.map(|at| page.rows.remove(at).1.at);
        Ok((all_at, page.rows.into_iter().map(one).collect::<Result<_, CreateEnded>>()?))
    }

    /// Changes a fence, if it is still what was read. What came of it is read again.
    async fn change(&self, change: Change) {
        let joins = change.joins();
        let Change { node, all_at, from, to, silent_to } = change;
        let (action, counter) = match to.holder {
            _ if joins => ("failover.join", &self.0.failover.joined),
            Holder::Nobody => ("failover.fence", &self.0.failover.fenced),
            Holder::Others => ("failover.away", &self.0.failover.away),
            Holder::Itself => ("failover.return", &self.0.failover.returned),
        };
        let silent: Vec<_> = silent_to.iter().map(ToString::to_string).collect();
        let record = Record::told(action, format!("node {}", self.0.parts.me), Outcome::Begun)
            .on(format!("node {node}"))
            .with("epoch", to.epoch.to_string())
            .with("silent_to", silent.join(", "));
        // With a first row nobody loses anything.
        let log = (!joins).then_some(&self.0.parts.log);
        if let Some(log) = log
            && let Err(error) = log.append(record.clone(), None).await
        {
            return tracing::warn!(%node, %error, "its fence is not changed: that cannot be logged");
        }
        let put = |key, read_at: Option<HybridTime>, value| Op {
            key,
            condition: Some(read_at.map_or(Condition::Absent, Condition::Version)),
            record: KvRecord::put(value),
        };
        let ops = vec![
            put(catalog::fence_key(&node), from.version, catalog::encode(&to)),
            put(catalog::fences_key(), all_at, Vec::new()),
        ];
        let Ok(host) = self.host() else { return };
        let (outcome, why) = match tokio::time::timeout(CHANGE_WITHIN, host.write(META, ops)).await {
            Ok(Ok(_)) => {
                counter.fetch_add(1, Ordering::Relaxed);
                let epoch = to.epoch;
                if joins {
                    tracing::info!(%node, "it has a fence from now on");
                } else {
                    let holder = to.holder;
                    tracing::warn!(%node, ?holder, %epoch, silent_to = ?silent, "its fence is changed");
                }
                (Outcome::Done, None)
            }
            Ok(Err(NotWritten::Unknown(why) | NotWritten::Stopped(why))) => (Outcome::Failed, Some(why)),
            Ok(Err(_)) => {
                (Outcome::Refused, Some("it was changed, or the lease moved, meanwhile".to_owned()))
            }
            Err(_) => (Outcome::Failed, Some("consensus took too long; what came of it is read".to_owned())),
        };
        let record = Record { outcome, ..record };
        let record = why.into_iter().fold(record, |record, why| record.with("why", why));
        if let Some(log) = log
            && let Err(error) = log.append(record, None).await
        {
            tracing::warn!(%node, %error, "how the change of its fence ended cannot be logged");
        }
    }

    /// Says in the log who stands otherwise than before.
    fn tell_of_nodes(&self) {
        let Failover { coordinator, told, .. } = &self.0.failover;
        let stands = coordinator.lock().stands(self.0.parts.clock.mono());
        let mut told = told.lock();
        for Stands { node, state, silent_to, .. } in stands {
            let before = told.insert(node.clone(), state).unwrap_or(State::Alive);
            if before != state {
                let (state, before) = (state.name(), before.name());
                tracing::info!(%node, state, before, ?silent_to, "a node stands otherwise");
            }
        }
    }

    /// How all nodes stand, as the leaseholder of the meta range sees it.
    async fn region_list(&self) -> Result<RegionList, CreateEnded> {
        // Whether it holds the lease now, and with it whether what it knows is the present.
        let (all_at, rows) = self.fence_rows().await?;
        let clock = &self.0.parts.clock;
        let mut coordinator = self.0.failover.coordinator.lock();
        coordinator.read(clock.now(), all_at, rows);
        let one = |stands: Stands| NodeStands {
            node: stands.node,
            state: stands.state,
            epoch: stands.fence.epoch.0,
            silent_to: stands.silent_to,
            heard_by: stands.heard_by,
        };
        let nodes = coordinator.stands(clock.mono()).into_iter().map(one).collect();
        Ok(RegionList { by: self.0.parts.me.clone(), nodes })
    }

    /// What this node tells of failover.
    pub(super) fn tell_failover(&self, page: &mut Page) {
        let Failover { coordinator, joined, fenced, away, returned, .. } = &self.0.failover;
        let Parts { clock, owners, .. } = &self.0.parts;
        let (table, permitted) = (owners.last(), owners.permit().is_some());
        let help = "Whether this node has read all fences lately and may act by them";
        page.gauge("rhumb_failover_permit", help, f64::from(u8::from(permitted)));
        let nodes: Vec<(String, u64)> = self
            .0
            .parts
            .founding
            .nodes()
            .iter()
            .map(|node| (node.to_string(), table.fence(node).epoch.0))
            .collect();
        let epochs: Vec<(&str, u64)> = nodes.iter().map(|(node, epoch)| (node.as_str(), *epoch)).collect();
        let help = "The epoch of each node's fence, as this node has read it";
        page.gauges("rhumb_failover_epoch", help, "node", &epochs);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let changes = [
            ("join", load(joined)),
            ("fence", load(fenced)),
            ("away", load(away)),
            ("return", load(returned)),
        ];
        page.counters("rhumb_failover_changes", "Fences that this node changed, by what to", "to", &changes);
        let coordinator = coordinator.lock();
        if coordinator.coordinates() {
            let stands = coordinator.stands(clock.mono());
            let count = |state: State| stands.iter().filter(|one| one.state == state).count() as u64;
            let states: Vec<_> = State::ALL.iter().map(|state| (state.name(), count(*state))).collect();
            let help = "Nodes by how they stand, as the node sees it that holds the lease of the meta range";
            page.gauges("rhumb_failover_nodes", help, "state", &states);
        }
    }
}

fn unsound(why: String) -> CreateEnded {
    CreateEnded::Refused(KvRefusal::Unsound(why))
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Fault, FaultKind};

    use super::*;

    #[test]
    fn where_the_leaseholder_does_not_answer_nobody_says_how_the_nodes_stand() {
        let lost = || FaultKind::Deadline("waiting for the answer".to_owned());
        for listed in [Ok(Err(not_now("it is not in force"))), Err(Fault::unknown(lost()))] {
            let said = or_nobody_says(listed).expect("an answer").expect_err("nobody says it");
            assert!(said.code() == "not_now" && said.to_string().contains("takes a majority"), "{said}");
        }
        assert_eq!(or_nobody_says(Err(Fault::ran(lost()))), Err(Fault::ran(lost())));
        let unsound = || Ok(Err(KvRefusal::Unsound("a fence of no node".to_owned())));
        assert_eq!(or_nobody_says(unsound()), unsound());
    }
}
