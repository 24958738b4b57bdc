//! What customers know: an independent ledger of receipts.
//!
//! * It decides: what may be concluded from answers, and whether answers contradict each other or the
//!   counters. A call without an answer *may* have run, now or later: it is never counted as done and
//!   never as not done.
//! * It never does: look into a machine.
//! * Invariant: `certain <= true <= certain + maybe`, for each node's sales and for its returns.

use std::collections::BTreeMap;

use rhumb_actors::escrow::{CustomerTag, Held, HoldId, Key, Returned};
use rhumb_core::{HybridTime, Incarnation};

use super::agenda::Micros;
use super::plan::MAX_NODES;
use super::violation::{Checked, Invariant, Violation, demand};

/// Names a key that was used, in the oracle.
pub type KeyIndex = usize;
/// Names a hold that was heard of, in the oracle.
pub type HoldIndex = usize;
/// Names a return that was asked for, in the oracle.
pub type ReturnIndex = usize;

/// One idempotency key, as its user knows it.
#[derive(Debug)]
pub struct KeyFacts {
    /// The key.
    pub key: Key,
    /// The pool it was used for, by number.
    pub pool: usize,
    /// The region in which it was used; a raw key means something only there.
    pub region: usize,
    /// From when on it is older than a day, if ever.
    pub stale_since: Option<Micros>,
    /// The hold it stands for, once heard.
    pub hold: Option<HoldIndex>,
    /// Whether it was used with two different bodies.
    pub two_bodies: bool,
    /// The node that remembers it may have forgotten: an old disk, or its time is over.
    pub forgotten: bool,
}

impl KeyFacts {
    /// A key that is used for the first time.
    #[must_use]
    pub fn new(key: Key, pool: usize, region: usize) -> Self {
        Self { key, pool, region, stale_since: None, hold: None, two_bodies: false, forgotten: false }
    }
}

/// What is known of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sale {
    /// Nobody has asked for it.
    #[default]
    Unasked,
    /// It was asked for, and no answer says how it went.
    Maybe,
    /// There is a receipt.
    Certain,
    /// The hold ended otherwise.
    Never,
}

/// How a hold is known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was sold.
    Confirmed,
    /// It was given back.
    Released,
    /// Its time was over.
    Expired,
}

/// One hold that a customer was told of.
#[derive(Debug)]
pub struct HoldFacts {
    /// Its name.
    pub id: HoldId,
    /// Of which pool, by number.
    pub pool: usize,
    /// The node that owns it.
    pub owner: usize,
    /// Units.
    pub qty: u64,
    /// When its owner may give it back.
    pub expires: HybridTime,
    /// The key it was made under.
    pub key: KeyIndex,
    /// For whom it is.
    pub customer: Option<CustomerTag>,
    /// Units of it given back after the sale, by receipts.
    pub returned: u64,
    /// Units of it that were asked to be given back, without an answer.
    pub returning: u64,
    /// What is known of its sale.
    pub sale: Sale,
    /// Whether anybody asked to release it.
    pub release_asked: bool,
    /// How it ended, and when an answer first said so.
    pub ended: Option<(End, Micros)>,
    /// Its owner's disk went back in time since: anything may be said of it.
    pub void: bool,
    /// A day has passed since: it may be forgotten.
    pub aged: bool,
}

/// One return that somebody asked for.
#[derive(Debug)]
pub struct ReturnFacts {
    /// Of which sale.
    pub hold: HoldIndex,
    /// The key it is asked for under, each time.
    pub key: Key,
    /// How many units; the rest, if it does not say.
    pub asked: Option<u64>,
    /// The most that it can be.
    most: u64,
    /// How many it was.
    answered: Option<u64>,
}

/// One node's sales of one pool, in units.
#[derive(Debug, Clone, Copy, Default)]
struct Sales {
    /// What an operator attested of the time before the node's disk was restored.
    base: u64,
    /// Sold by receipts.
    certain: u64,
    /// Asked for without an answer.
    maybe: u64,
    /// Given back by receipts.
    returned: u64,
    /// Asked to be given back without an answer, at most.
    returning: u64,
    /// Not comparable now: restored and not attested.
    suspended: bool,
}

/// The ledger of receipts.
#[derive(Debug, Default)]
pub struct Oracle {
    keys: Vec<KeyFacts>,
    holds: Vec<HoldFacts>,
    by_id: BTreeMap<HoldId, HoldIndex>,
    returns: Vec<ReturnFacts>,
    sales: Vec<[Sales; MAX_NODES]>,
    supplies: Vec<u64>,
    /// Lives of nodes whose disks were lost: what they held is void.
    dead: Vec<(usize, usize, Incarnation)>,
    /// When a day passed.
    day: Option<Micros>,
    /// Whether sales are forgotten when it does.
    forgets_sales: bool,
}

impl Oracle {
    /// An empty ledger of so many pools; a night lets sales be forgotten, or only what was not sold.
    #[must_use]
    pub fn new(pools: usize, forgets_sales: bool) -> Self {
        let sales = vec![[Sales::default(); MAX_NODES]; pools];
        Self { sales, supplies: vec![u64::MAX; pools], forgets_sales, ..Self::default() }
    }

    /// How many units of a pool can be sold, on debt too, as soon as it is known.
    pub fn minted(&mut self, pool: usize, most: u64) {
        self.supplies[pool] = most;
    }

    /// A key is about to be used for the first time.
    pub fn new_key(&mut self, facts: KeyFacts) -> KeyIndex {
        self.keys.push(facts);
        self.keys.len() - 1
    }

    /// A raw key is about to be used in a region, perhaps not for the first time.
    pub fn raw_key(&mut self, key: Key, pool: usize, region: usize) -> KeyIndex {
        let known = self.keys.iter().position(|facts| facts.region == region && facts.key == key);
        match known {
            Some(known) => {
                // Perhaps with another body than the last time it was used there.
                self.keys[known].two_bodies = true;
                known
            }
            None => self.new_key(KeyFacts::new(key, pool, region)),
        }
    }

    /// A key.
    #[must_use]
    pub fn key(&self, key: KeyIndex) -> &KeyFacts {
        &self.keys[key]
    }

    /// A key is about to be used with another body.
    pub fn another_body(&mut self, key: KeyIndex) {
        self.keys[key].two_bodies = true;
    }

    /// A hold.
    #[must_use]
    pub fn hold(&self, hold: HoldIndex) -> &HoldFacts {
        &self.holds[hold]
    }

    /// A customer is about to ask for a sale.
    pub fn asks_sale(&mut self, hold: HoldIndex) {
        let facts = &mut self.holds[hold];
        if facts.sale == Sale::Unasked {
            facts.sale = Sale::Maybe;
            if !facts.void {
                self.sales[facts.pool][facts.owner].maybe += facts.qty;
            }
        }
    }

    /// A customer is about to ask for a release.
    pub fn asks_release(&mut self, hold: HoldIndex) {
        self.holds[hold].release_asked = true;
    }

    /// A customer is about to ask that units of a sale be taken back, for the first time.
    pub fn asks_return(&mut self, hold: HoldIndex, asked: Option<u64>) -> ReturnIndex {
        let facts = &mut self.holds[hold];
        let most = asked.unwrap_or(facts.qty).min(facts.qty);
        facts.returning += most;
        if !facts.void {
            self.sales[facts.pool][facts.owner].returning += most;
        }
        let key = Key::Raw(format!("return {}", self.returns.len()));
        self.returns.push(ReturnFacts { hold, key, asked, most, answered: None });
        self.returns.len() - 1
    }

    /// A return.
    #[must_use]
    pub fn giving_back(&self, index: ReturnIndex) -> &ReturnFacts {
        &self.returns[index]
    }

    /// All returns of sales that a node made of a pool.
    pub fn returns_of(&self, pool: usize, owner: usize) -> impl DoubleEndedIterator<Item = ReturnIndex> + '_ {
        let its = move |part: &ReturnFacts| {
            let facts = &self.holds[part.hold];
            facts.pool == pool && facts.owner == owner
        };
        self.returns.iter().enumerate().filter(move |(_, part)| its(part)).map(|(index, _)| index)
    }

    /// An answer says how many units were taken back.
    ///
    /// # Errors
    /// The promise that this breaks.
    pub fn returned(&mut self, index: ReturnIndex, said: &Returned) -> Checked {
        let part = &self.returns[index];
        let facts = &self.holds[part.hold];
        let right = said.hold == facts.id && part.asked.is_none_or(|asked| asked == said.qty);
        demand(right, Invariant::OneEnd, || format!("{part:?} was answered with {said:?}"))?;
        let before = part.answered;
        demand(facts.void || before.is_none_or(|qty| qty == said.qty), Invariant::OneEnd, || {
            format!("{part:?} was answered otherwise before: {said:?}")
        })?;
        if before.is_some() {
            return Ok(());
        }
        let (hold, most) = (part.hold, part.most);
        self.returns[index].answered = Some(said.qty);
        let facts = &mut self.holds[hold];
        facts.returning -= most;
        facts.returned += said.qty;
        if !facts.void {
            let sales = &mut self.sales[facts.pool][facts.owner];
            sales.returning -= most;
            sales.returned += said.qty;
        }
        demand(facts.void || facts.returned <= facts.qty, Invariant::OneEnd, || {
            format!("more was taken back than was sold: {facts:?}")
        })
    }

    /// A key was answered with a hold, by a call that was made at `asked`.
    ///
    /// # Errors
    /// The promise that this breaks.
    pub fn held(
        &mut self,
        key: KeyIndex,
        qty: u64,
        held: &Held,
        customer: Option<CustomerTag>,
        owner: usize,
        asked: Micros,
    ) -> Result<HoldIndex, Violation> {
        let facts = &self.keys[key];
        let stale = facts.stale_since.is_some_and(|since| since <= asked);
        demand(!stale, Invariant::Retention, || format!("{} is a day old and was run: {held:?}", facts.key))?;
        demand(held.qty == qty, Invariant::OneKeyOneHold, || {
            format!("{} asked for {qty} and was given {held:?}", facts.key)
        })?;
        if let Some(&known) = self.by_id.get(&held.hold) {
            self.same_hold(known, key, held, asked)?;
            self.keys[key].hold = Some(known);
            return Ok(known);
        }
        if let Some(earlier) = facts.hold {
            let excused = facts.forgotten || self.holds[earlier].void;
            demand(excused, Invariant::OneKeyOneHold, || {
                format!("{} was {} and is now {}", facts.key, self.holds[earlier].id, held.hold)
            })?;
        }
        let void = self.dead.contains(&(facts.pool, owner, held.hold.incarnation));
        let aged = self.day.is_some_and(|day| asked < day);
        let hold = self.holds.len();
        self.by_id.insert(held.hold.clone(), hold);
        self.holds.push(HoldFacts {
            id: held.hold.clone(),
            pool: facts.pool,
            owner,
            qty,
            expires: held.expires,
            key,
            customer,
            returned: 0,
            returning: 0,
            sale: Sale::Unasked,
            release_asked: false,
            ended: None,
            void,
            aged,
        });
        self.keys[key].hold = Some(hold);
        Ok(hold)
    }

    fn same_hold(&self, known: HoldIndex, key: KeyIndex, held: &Held, asked: Micros) -> Checked {
        let facts = &self.holds[known];
        demand(facts.key == key, Invariant::OneKeyOneHold, || {
            format!("{} was given to {} and to {}", held.hold, self.keys[facts.key].key, self.keys[key].key)
        })?;
        demand(facts.qty == held.qty && facts.expires == held.expires, Invariant::OneKeyOneHold, || {
            format!("{} changed: {facts:?}, {held:?}", held.hold)
        })?;
        let gone = facts.ended.is_some_and(|(end, heard)| end != End::Confirmed && heard < asked);
        demand(facts.void || !gone, Invariant::OneEnd, || {
            format!("{} was answered as held after it had ended: {facts:?}", held.hold)
        })
    }

    /// An answer says how a hold ended, at the hybrid time of who said it first.
    ///
    /// # Errors
    /// The promise that this breaks.
    pub fn ended(&mut self, hold: HoldIndex, end: End, said: HybridTime, heard: Micros) -> Checked {
        let facts = &mut self.holds[hold];
        let asked = match end {
            End::Confirmed => facts.sale != Sale::Unasked,
            End::Released => facts.release_asked,
            End::Expired => said >= facts.expires,
        };
        let (was, _) = *facts.ended.get_or_insert((end, heard));
        self.book_end(hold, end);
        let facts = &self.holds[hold];
        demand(facts.void || was == end, Invariant::OneEnd, || {
            format!("{} ended as {was:?} and as {end:?}", facts.id)
        })?;
        demand(facts.void || asked, Invariant::NotBeforeItsTime, || {
            format!("{} ended as {end:?} at {said}, unasked: {facts:?}", facts.id)
        })?;
        let (pool, total) = (facts.pool, self.receipts(facts.pool));
        demand(total <= self.supplies[pool], Invariant::NeverOversold, || {
            format!("there are receipts for {total} of {}", self.supplies[pool])
        })
    }

    /// Books a receipt, or that there will be none. A receipt is a receipt, also from a lost disk.
    fn book_end(&mut self, hold: HoldIndex, end: End) {
        let facts = &mut self.holds[hold];
        if facts.sale == Sale::Certain {
            return;
        }
        let sales = &mut self.sales[facts.pool][facts.owner];
        if !facts.void && facts.sale == Sale::Maybe {
            sales.maybe -= facts.qty;
        }
        if !facts.void && end == End::Confirmed {
            sales.certain += facts.qty;
        }
        facts.sale = if end == End::Confirmed { Sale::Certain } else { Sale::Never };
    }

    /// The hold of a name, if a customer was told of it.
    #[must_use]
    pub fn find(&self, id: &HoldId) -> Option<HoldIndex> {
        self.by_id.get(id).copied()
    }

    /// An answer says that there is no such hold, though there was.
    ///
    /// # Errors
    /// [`Invariant::Acknowledged`] unless the hold may have been lost or forgotten.
    pub fn unknown(&mut self, hold: HoldIndex) -> Checked {
        let facts = &self.holds[hold];
        let forgotten = facts.aged && (facts.sale != Sale::Certain || self.forgets_sales);
        demand(facts.void || forgotten, Invariant::Acknowledged, || {
            format!("{} was acknowledged and is not known any more: {facts:?}", facts.id)
        })
    }

    /// Compares what a node counts as sold and not given back with the receipts: it may be neither more
    /// nor less than receipts and open calls can explain. Of a count on disk: every receipt of a sale and
    /// of a return must be there.
    ///
    /// # Errors
    /// [`Invariant::Receipts`].
    pub fn explains(&self, pool: usize, node: usize, sold: u64) -> Checked {
        let sales = &self.sales[pool][node];
        let most = sales.base + sales.certain + sales.maybe;
        let least = sales.base + sales.certain;
        let there = sold + sales.returned <= most && sold + sales.returned + sales.returning >= least;
        demand(sales.suspended || there, Invariant::Receipts, || {
            format!("node {node} counts {sold} sold, customers know of {sales:?}")
        })
    }

    /// What a customer has of a pool for certain: held at this time of the owner's clock, or bought and not
    /// given back.
    #[must_use]
    pub fn surely_has(&self, pool: usize, customer: CustomerTag, clock: impl Fn(usize) -> HybridTime) -> u64 {
        let theirs = |hold: &&HoldFacts| hold.pool == pool && hold.customer == Some(customer) && !hold.void;
        let has = |hold: &HoldFacts| match hold.sale {
            Sale::Certain => hold.qty.saturating_sub(hold.returned + hold.returning),
            Sale::Unasked if hold.is_held(clock(hold.owner)) => hold.qty,
            _ => 0,
        };
        self.holds.iter().filter(theirs).map(has).sum()
    }

    /// Units of a node's holds that are held for certain at this time of its clock.
    #[must_use]
    pub fn surely_held(&self, pool: usize, node: usize, clock: HybridTime) -> u64 {
        let sure =
            |hold: &&HoldFacts| hold.pool == pool && hold.owner == node && !hold.void && hold.is_held(clock);
        self.holds.iter().filter(sure).map(|hold| hold.qty).sum()
    }

    /// Units of a pool for which there are receipts, without what was or may have been given back.
    #[must_use]
    pub fn receipts(&self, pool: usize) -> u64 {
        let sold = |hold: &&HoldFacts| hold.pool == pool && hold.sale == Sale::Certain;
        let kept = |hold: &HoldFacts| hold.qty.saturating_sub(hold.returned + hold.returning);
        self.holds.iter().filter(sold).map(kept).sum()
    }

    /// What an operator says of a restored node: all it has sold by receipts, and all that it may
    /// have sold, without what was given back by receipts.
    #[must_use]
    pub fn attestable(&self, pool: usize, node: usize) -> u64 {
        let sold = |hold: &&HoldFacts| {
            hold.pool == pool && hold.owner == node && matches!(hold.sale, Sale::Certain | Sale::Maybe)
        };
        self.holds.iter().filter(sold).map(|hold| hold.qty.saturating_sub(hold.returned)).sum()
    }

    /// A node's disk went back in time: what these lives of it said of a pool may be undone until an
    /// operator has spoken.
    pub fn restored(&mut self, pool: usize, node: usize, lives: &[Incarnation]) {
        self.dead.extend(lives.iter().map(|life| (pool, node, *life)));
        let theirs = |hold: &&mut HoldFacts| hold.pool == pool && hold.owner == node;
        self.holds.iter_mut().filter(theirs).for_each(|hold| hold.void = true);
        self.keys.iter_mut().filter(|key| key.pool == pool).for_each(|key| key.forgotten = true);
        self.sales[pool][node] = Sales { suspended: true, ..Sales::default() };
    }

    /// An operator's word for a pool of a restored node has been accepted.
    pub fn attested(&mut self, pool: usize, node: usize, sold: u64) {
        let sales = &mut self.sales[pool][node];
        (sales.base, sales.suspended) = (sold, false);
    }

    /// Whether a day has passed.
    #[must_use]
    pub fn has_slept(&self) -> bool {
        self.day.is_some()
    }

    /// A day passes: what is remembered for a day may be forgotten.
    pub fn day_passed(&mut self, at: Micros) {
        self.day = Some(at);
        self.holds.iter_mut().for_each(|hold| hold.aged = true);
        for key in &mut self.keys {
            match key.key {
                Key::Raw(_) => key.forgotten = true,
                Key::Made { .. } => key.stale_since = key.stale_since.or(Some(at)),
            }
        }
    }
}

impl HoldFacts {
    /// Whether it is held for certain at this time of its owner's clock.
    fn is_held(&self, clock: HybridTime) -> bool {
        self.sale == Sale::Unasked && !self.release_asked && self.ended.is_none() && clock < self.expires
    }
}
