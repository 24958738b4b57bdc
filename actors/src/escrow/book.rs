//! The escrow machine of one node: all its pools, its keys, and its standing.
//!
//! * It decides: every answer of `EscrowRegion`, what is persisted before it, and what peers are told.
//! * It never does: read a clock, draw entropy, await, or read storage once it has recovered: the book
//!   is the image of the records. A request for another node is handed out as [`Effect::Forward`].
//! * Invariant: a change is persisted before any effect that tells of it ([`Effects::send`] waits), so
//!   a crash can undo nothing that anybody was told.

mod attesting;
mod creating;
mod holding;
mod levelling;
mod reconciling;
mod settling;
mod timing;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{DataClass, Effects, HybridTime, Incarnation, Mono, NodeId, Now, PoolName, StoreId};
use rhumb_storage::{Batch, CommitNumber};
use rhumb_topology::{Founding, pool_home};

use self::attesting::Round;
pub use self::creating::would_create;
pub use self::words::{Answer, Effect, Input, Request, Stranded, Token};
use super::custody::Custody;
use super::keys::Keys;
use super::ledger::Ledger;
use super::levelled::Levelled;
use super::messages::{Durability, Key, PoolView, Reconciled, Refusal, Row, Standing};
use super::pool::{Pool, mono_of};
use super::reconcile::Reconciliations;
use super::records::{Image, KeyRow, PoolImage, PoolRow, RecoverError, Right};
use super::settings::EscrowSettings;

/// Out-buffer of the machine.
pub type Out = Effects<Batch, Effect>;

/// Holds that expire, and records that are forgotten, in one step of one pool.
const CHUNK: usize = 256;
/// The same of a ledger in a range, whose batches are smaller.
const CHUNK_IN_RANGE: usize = 32;
/// A step leaves pools that are due for the next one rather than push past this.
const ROOM: usize = 8_192;

/// Where a life takes place, and the settings under which it does.
#[derive(Debug)]
struct Site {
    me: NodeId,
    founding: Founding,
    settings: EscrowSettings,
    /// The rows are those of one owner's ledger of one pool, and stand in a range: nobody has to vouch for a disk, and
    /// nothing is answered before it is known that no other one writes them.
    in_range: bool,
}

/// The escrow machine of one node.
#[derive(Debug)]
pub struct Book {
    site: Site,
    custody: Custody,
    pools: BTreeMap<PoolName, Pool>,
    keys: Keys,
    rounds: BTreeMap<PoolName, Round>,
    /// Where a caller waits.
    waiting: BTreeMap<Token, PoolName>,
    /// Keys that are remembered only if the home of their pool knows it.
    trials: BTreeMap<Token, Key>,
    /// The number of the next hold of this life.
    next_hold: u64,
    /// Holds remembered, over all pools.
    holds: usize,
    /// What holds' secrets are drawn from, from the beginning of the life.
    secrets: Option<Rng>,
    timers: BTreeSet<(Mono, PoolName)>,
    ignored: u64,
}

impl Book {
    /// Takes up the records of a disk that was opened at a commit, for a new life.
    ///
    /// # Errors
    /// [`RecoverError`] when a record cannot be read, records contradict each other, or this node is
    /// not a founder.
    pub fn recover(
        me: NodeId,
        founding: Founding,
        store: StoreId,
        settings: EscrowSettings,
        records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        opened: CommitNumber,
        now: Now,
    ) -> Result<Self, RecoverError> {
        if !founding.contains(&me) {
            return Err(RecoverError::NotAFounder(me));
        }
        let image = Image::read(records)?;
        let peers = founding.nodes().iter().filter(|node| **node != me).cloned().collect();
        let custody = Custody::recovered(store, image.node, image.witnessed, peers, opened, now);
        let site = Site { me, founding, settings, in_range: false };
        Self::of(site, image.pools, image.keys, custody)
    }

    /// Takes up the rows of one owner's ledger of one pool, as they stand in a range.
    ///
    /// # Errors
    /// As [`Book::recover`].
    pub fn in_range(
        owner: NodeId,
        founding: Founding,
        settings: EscrowSettings,
        records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        now: Now,
    ) -> Result<Self, RecoverError> {
        if !founding.contains(&owner) {
            return Err(RecoverError::NotAFounder(owner));
        }
        let image = Image::read(records)?;
        let alone = (BTreeMap::new(), Vec::new(), CommitNumber(0));
        let custody = Custody::recovered(StoreId(0), image.node, alone.0, alone.1, alone.2, now);
        let site = Site { me: owner, founding, settings, in_range: true };
        Self::of(site, image.pools, image.keys, custody)
    }

    fn of(
        site: Site,
        images: BTreeMap<PoolName, PoolImage>,
        keys: BTreeMap<Key, KeyRow>,
        custody: Custody,
    ) -> Result<Self, RecoverError> {
        let mut pools = BTreeMap::new();
        for (name, records) in images {
            let row = records.pool.as_ref().ok_or_else(|| RecoverError::NoPool(name.clone()))?;
            let (home, others) = (site.home(&name), site.others(row));
            let ledger = Ledger::recovered(name.clone(), records, others.clone(), custody.life())?;
            pools.insert(name, Pool::new(home, ledger, others, &site.settings));
        }
        Ok(Self {
            site,
            custody,
            holds: pools.values().map(|pool: &Pool| pool.ledger.holds().len()).sum(),
            pools,
            keys: Keys::recovered(keys),
            rounds: BTreeMap::new(),
            waiting: BTreeMap::new(),
            trials: BTreeMap::new(),
            next_hold: 1,
            secrets: None,
            timers: BTreeSet::new(),
            ignored: 0,
        })
    }

    /// Begins the life: its number is durable before anything of it is served. The secrets of its holds
    /// come from a seed that nobody else knows.
    pub fn start(&mut self, now: Now, seed: &Seed, out: &mut Out) {
        self.secrets = Some(seed.child("hold secrets").rng());
        let mut batch = Batch::new();
        self.custody.start(&mut batch);
        out.persist(batch);
        self.standing_changed(now, out);
        self.beat(now, out);
    }

    /// One step.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Out) {
        let tells = matches!(input, Input::Ask { .. } | Input::RowRead { .. })
            || self.pools.values().any(|pool| !pool.parked.is_empty());
        self.act(now, input, out);
        // Another one may write this ledger by now, and know better: its head is looked at before anything is answered,
        // and before rows are said to contradict each other.
        if self.site.in_range && tells && !canary::sings(Canary::SucceededAnswers) {
            out.persist_first(Batch::new());
        }
    }

    fn act(&mut self, now: Now, input: Input, out: &mut Out) {
        match input {
            Input::Ask { token, request, until } => self.ask(now, token, request, until, out),
            Input::Abandoned(token) => self.abandoned(token),
            Input::Forwarded { token, refusal } => self.forwarded(now, token, refusal.as_ref(), out),
            Input::RowRead { from, pool, number, answer } => {
                self.row_read(now, &from, &pool, number, answer, out);
            }
            Input::Peer { from, message } => self.peer(now, &from, message, out),
            Input::PeerUp(node) => self.reachable(now, &node, true, out),
            Input::PeerDown(node) => self.reachable(now, &node, false, out),
            Input::Tick => self.tick(now, out),
        }
    }

    /// Goes on under other settings. None of them bears on what is durable; how far clocks may differ
    /// stays as it was when the life began.
    pub fn configure(&mut self, settings: EscrowSettings) {
        let before = self.site.settings.forecast;
        self.site.settings = EscrowSettings { max_offset: self.site.settings.max_offset, ..settings };
        self.pools.values_mut().for_each(|pool| pool.configure(&before, &self.site.settings));
    }

    /// Everything up to this commit is durable.
    pub fn durable(&mut self, number: CommitNumber) {
        self.custody.durable(number);
    }

    /// When the machine wants [`Input::Tick`].
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Mono> {
        let keys = self.keys.next_forgotten().map(|time| mono_of(now, HybridTime::new(time.millis() + 1, 0)));
        let pools = self.timers.first().map(|(at, _)| *at);
        let rounds = self.rounds.values().filter_map(Round::next_deadline).min();
        let beat = self.custody.next_beat(&self.site.settings);
        [keys, pools, rounds, beat].into_iter().flatten().min()
    }

    /// The class of a pool's data.
    #[must_use]
    pub fn class_of(&self, pool: &PoolName) -> Option<&DataClass> {
        self.pools.get(pool).map(|pool| &pool.ledger.pool().class)
    }

    /// The pools this node knows.
    pub fn pools(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.keys()
    }

    /// This node's exact row of a pool.
    #[must_use]
    pub fn row(&self, pool: &PoolName) -> Option<Row> {
        self.pools.get(pool).map(|pool| pool.row(&self.site.settings))
    }

    /// Whether this node may create pools and sell what is not in need of attestation.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.custody.standing()
    }

    /// What is known here of a peer's disk: the latest life in which it was believed, and its highest
    /// durable commit number in that life.
    #[must_use]
    pub fn witnessed(&self, peer: &NodeId) -> Option<(Incarnation, u64)> {
        self.custody.witnessed(peer)
    }

    /// This life of the node.
    #[must_use]
    pub fn life(&self) -> Incarnation {
        self.custody.life()
    }

    /// Messages of peers that were passed over because they contradict what is known: an older life
    /// that was disowned, a pool of another shape, a node with no part in it.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Keys remembered, and holds remembered.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.keys.len(), self.holds)
    }

    /// Rights in a pool that nobody can sell at present, as far as this node knows.
    #[must_use]
    pub fn stranded(&self, pool: &PoolName) -> Stranded {
        let Some(pool) = self.pools.get(pool) else { return Stranded::default() };
        let mut stranded = Stranded::default();
        if !pool.may_spend() {
            stranded.here = pool.ledger.available(Right::Unit) + pool.ledger.holds().held(Right::Unit);
        }
        for (node, line) in pool.lines.iter().filter(|(_, line)| line.down) {
            let on_the_way = pool.ledger.link(node).units.granted.saturating_sub(line.acknowledged);
            stranded.away += line.heard.map_or(0, |(_, figures)| figures.available) + on_the_way;
        }
        stranded
    }

    /// Units of a pool, over all nodes; 0 if it is not known here.
    #[must_use]
    pub fn supply(&self, pool: &PoolName) -> u64 {
        self.pools.get(pool).map_or(0, Pool::supply)
    }

    /// What was counted of the levelling of a pool.
    #[must_use]
    pub fn levelled(&self, pool: &PoolName) -> Levelled {
        self.pools.get(pool).map(Pool::levelled).unwrap_or_default()
    }

    /// What came of the last reconciliation of a pool here, and how often what did: its home alone
    /// reconciles a pool.
    #[must_use]
    pub fn reconciled(&self, pool: &PoolName, now: Mono) -> (Option<Reconciled>, Reconciliations) {
        let of = |pool: &Pool| (pool.reconciliation.last(now), pool.reconciliation.counts());
        self.pools.get(pool).map(of).unwrap_or_default()
    }

    /// How far a hold of this node has come.
    #[cfg(test)]
    pub(crate) fn stage(&self, hold: &super::messages::HoldId) -> Option<super::records::Stage> {
        let holds = self.pools.get(&hold.pool)?.ledger.holds();
        holds.find((hold.incarnation, hold.number)).map(|row| row.stage)
    }

    // ---- steps ---------------------------------------------------------------------------------

    fn ask(&mut self, now: Now, token: Token, request: Request, until: Mono, out: &mut Out) {
        let answer = match request {
            Request::Hold(hold) => return self.hold(now, token, hold, until, out),
            Request::Create { request, allowed } => return self.create(now, token, request, &allowed, out),
            Request::Attest(attest) => return self.attest(now, token, attest, until, out),
            Request::Confirm(confirm) => return self.confirm(now, token, confirm, out),
            Request::Release(release) => return self.release(now, token, release, out),
            Request::Return(request) => return self.give_back(now, token, request, out),
            Request::Show(show) => self.view(now, show.pool).map(|view| Answer::View(Box::new(view))),
            Request::ReadRow(read) => self.read_row(read.pool).map(|row| Answer::Row(Box::new(row))),
        };
        out.send(Effect::Reply { token, answer });
    }

    /// The row of a pool. A disk that may be old can not say that there is none: the lost one may have
    /// granted what its peers have accepted, and an empty row beside theirs would be an alarm.
    pub(crate) fn read_row(&self, name: PoolName) -> Result<Row, Refusal> {
        match (self.row(&name), self.custody.standing()) {
            (Some(row), _) => Ok(row),
            (None, Standing::Proven) => Err(Refusal::NoSuchPool(name)),
            (None, Standing::Unproven) => Err(Refusal::Unproven),
            (None, Standing::Restored) => Err(Refusal::Restored),
        }
    }

    fn view(&self, now: Now, name: PoolName) -> Result<PoolView, Refusal> {
        let Some(pool) = self.pools.get(&name) else { return Err(Refusal::NoSuchPool(name)) };
        Ok(pool.view(&self.site.me, now.mono, &self.site.settings))
    }

    fn abandoned(&mut self, token: Token) {
        self.trials.remove(&token);
        let Some(name) = self.waiting.remove(&token) else { return };
        if let Some(pool) = self.pools.get_mut(&name) {
            pool.parked.retain(|parked| parked.token != token);
            pool.forwards.remove(&token);
        }
        self.drop_waiter(&name, token);
    }

    fn forwarded(&mut self, now: Now, token: Token, refusal: Option<&Refusal>, out: &mut Out) {
        self.tried(token, refusal, out);
        let Some(name) = self.waiting.remove(&token) else { return };
        let Some(pool) = self.pools.get_mut(&name) else { return };
        let ours = pool.forwards.remove(&token).is_some();
        if ours && matches!(refusal, Some(Refusal::Exhausted { .. })) {
            pool.home_empty_until = now.mono.plus(self.site.settings.tail_word);
        }
        self.touch(now, &name, out);
    }

    /// The other nodes of the mesh.
    pub fn peers(&self) -> impl Iterator<Item = &NodeId> {
        self.site.founding.nodes().iter().filter(|node| **node != self.site.me)
    }
}

impl Site {
    fn durability(&self) -> Durability {
        if self.in_range { Durability::Quorum } else { Durability::Local }
    }

    fn chunk(&self) -> usize {
        if self.in_range { CHUNK_IN_RANGE } else { CHUNK }
    }

    fn home(&self, pool: &PoolName) -> NodeId {
        pool_home(&self.founding, pool).clone()
    }

    /// The other nodes of a pool: those in regions it has a weight in, be it zero.
    fn others(&self, pool: &PoolRow) -> Vec<NodeId> {
        let part = |node: &&NodeId| **node != self.me && pool.weights.contains_key(&node.region);
        self.founding.nodes().iter().filter(part).cloned().collect()
    }
}

/// Persists a batch that has something in it.
fn persist(batch: Batch, out: &mut Out) {
    if !batch.is_empty() {
        out.persist(batch);
    }
}
