//! Holds: who answers, and what.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::rng::Rng;
use rhumb_core::{Mono, NodeId, Now, PoolName};
use rhumb_storage::Batch;
use rhumb_topology::owner_among;

use super::{Answer, Book, Effect, Out, Request, Site, Token, persist};
use crate::escrow::custody::Custody;
use crate::escrow::keys::{Keys, abroad, body, check_age};
use crate::escrow::ledger::Order;
use crate::escrow::messages::{DEFAULT_TTL, Held, Hold, HoldId, Key, MAX_TTL, Refusal, Standing};
use crate::escrow::pool::{Parked, Pool, mono_of};
use crate::escrow::records::{HoldNumber, KeyRow, Outcome, Records, Stage};

/// The kind under which keys given by hand have their node within the region.
const RAW_KEY: &str = "raw-key";
/// The shortest and the longest time after which it is suggested to ask again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What becomes of a hold request now.
enum Verdict {
    Answer(Result<Held, Refusal>),
    /// To the node that remembers the key.
    Forward(NodeId, Hold),
    /// To the home of the pool or of the customer, for good.
    Delegate(NodeId, Hold),
    /// Units may arrive.
    Wait,
}

impl Verdict {
    /// Whether units were asked for that this node could sell, were they here. What makes no sense, or may
    /// not be had, is not asked for; what is passed on is asked for elsewhere.
    fn is_demand(&self) -> bool {
        matches!(self, Self::Wait | Self::Answer(Ok(_) | Err(Refusal::SoldOut)))
    }
}

/// The part of a book that one hold request sees.
struct Desk<'a> {
    site: &'a Site,
    custody: &'a Custody,
    keys: &'a mut Keys,
    next_hold: &'a mut u64,
    /// Holds remembered, over all pools.
    holds: &'a mut usize,
    secrets: &'a mut Rng,
    pool: Option<&'a mut Pool>,
    batch: Batch,
}

impl Book {
    pub(super) fn hold(&mut self, now: Now, token: Token, hold: Hold, until: Mono, out: &mut Out) {
        let name = hold.pool.clone();
        // Units whose hold's time has come are there: nobody is refused, or served on debt, beside them.
        self.expire(now, &name, out);
        let (known, stranger) = (self.keys.contains(&hold.key), !self.pools.contains_key(&name));
        let (verdict, batch) = self.desk(&name, |desk| desk.decide(now, &hold));
        persist(batch, out);
        if verdict.is_demand() && (!known || canary::sings(Canary::RetryIsDemand))
            || canary::sings(Canary::RefusedIsDemand)
        {
            self.asked_for(now, &hold);
        }
        if matches!(verdict, Verdict::Delegate(..)) {
            self.on_trial(token, &hold.key, known, stranger);
        }
        match verdict {
            Verdict::Wait => self.park(now, token, hold, until, out),
            verdict => self.perform(token, hold.qty, &name, until, verdict, out),
        }
        self.touch(now, &name, out);
    }

    /// What is asked for here is demand here.
    fn asked_for(&mut self, now: Now, hold: &Hold) {
        let me = &self.site.me;
        let here = self.pools.get_mut(&hold.pool).filter(|pool| pool.is_sold_here(hold, me));
        let Some(pool) = here else { return };
        let units = hold.qty.min(pool.supply());
        pool.asked_for(now.mono, &hold.key, units);
    }

    /// A hold is passed on. If this is the first that is heard of its key, and of its pool nothing is known,
    /// the key is forgotten again should the home say that there is no such pool. Once it is passed on a
    /// second time it stays: an answer to one says nothing of what the other may still do.
    fn on_trial(&mut self, token: Token, key: &Key, known: bool, stranger: bool) {
        if known {
            self.trials.retain(|_, tried| tried != key);
        } else if stranger && self.trials.len() < self.site.settings.max_forwards {
            self.trials.insert(token, key.clone());
        }
    }

    /// What was passed on came back.
    pub(super) fn tried(&mut self, token: Token, refusal: Option<&Refusal>, out: &mut Out) {
        let Some(key) = self.trials.remove(&token) else { return };
        if matches!(refusal, Some(Refusal::NoSuchPool(_))) {
            let mut batch = Batch::new();
            self.keys.forget(&key);
            batch.forget_key(&key);
            persist(batch, out);
        }
    }

    fn desk<T>(&mut self, name: &PoolName, act: impl FnOnce(&mut Desk<'_>) -> T) -> (T, Batch) {
        let mut desk = Desk {
            site: &self.site,
            custody: &self.custody,
            keys: &mut self.keys,
            next_hold: &mut self.next_hold,
            holds: &mut self.holds,
            secrets: self.secrets.as_mut().expect("a life begins with a seed"),
            pool: self.pools.get_mut(name),
            batch: Batch::new(),
        };
        let done = act(&mut desk);
        (done, desk.batch)
    }

    fn perform(
        &mut self,
        token: Token,
        qty: u64,
        name: &PoolName,
        until: Mono,
        verdict: Verdict,
        out: &mut Out,
    ) {
        let pool = self.pools.get_mut(name);
        match verdict {
            Verdict::Answer(answer) => {
                if let (Some(pool), Err(refusal)) = (pool, &answer) {
                    pool.refused(refusal, qty);
                }
                out.send(Effect::Reply { token, answer: answer.map(Answer::Held) });
            }
            Verdict::Forward(to, hold) => {
                if let Some(pool) = pool {
                    pool.tallies.forwarded += 1;
                }
                out.send(Effect::Forward { token, to, request: Request::Hold(hold) });
            }
            Verdict::Delegate(to, hold) => {
                if let Some(pool) = pool {
                    pool.tallies.forwarded += 1;
                    pool.forwards.insert(token, until);
                    self.waiting.insert(token, name.clone());
                }
                out.send(Effect::Forward { token, to, request: Request::Hold(hold) });
            }
            Verdict::Wait => unreachable!("the caller parks what waits"),
        }
    }

    fn park(&mut self, now: Now, token: Token, hold: Hold, until: Mono, out: &mut Out) {
        let settings = &self.site.settings;
        let pool = self.pools.get_mut(&hold.pool).expect("only holds of known pools wait");
        let refusal = if pool.is_hopeless(now.mono, settings) {
            Refusal::Exhausted { retry_after: retry_after(pool, now) }
        } else if pool.parked.len() >= settings.max_parked {
            Refusal::Overloaded { retry_after: RETRY.0 }
        } else {
            let until = until.min(now.mono.plus(settings.park));
            self.waiting.insert(token, hold.pool.clone());
            return pool.parked.push_back(Parked { token, hold, until });
        };
        let refusal = self.unreachable_or(refusal, &hold.pool);
        let (qty, name) = (hold.qty, hold.pool);
        self.perform(token, qty, &name, until, Verdict::Answer(Err(refusal)), out);
    }

    /// Serves those who wait, first come first, each as far as units reach; refuses those whose time
    /// is over, and all of them when nothing can come. Thousands may wait while a pool's last units change
    /// hands: whoever can have nothing yet costs a comparison, not a decision.
    pub(super) fn serve(&mut self, now: Now, name: &PoolName, out: &mut Out) {
        let settings = &self.site.settings;
        let Some(pool) = self.pools.get_mut(name).filter(|pool| !pool.parked.is_empty()) else { return };
        let all = pool.keeps_nobody(now.mono, settings);
        let hopeless = all && pool.is_hopeless(now.mono, settings);
        let mut here = pool.to_be_had(settings);
        let ripe = |waiter: &Parked, here: u64| all || waiter.hold.qty <= here || waiter.until <= now.mono;
        if !pool.parked.iter().any(|waiter| ripe(waiter, here)) {
            return;
        }
        let parked = std::mem::take(&mut pool.parked);
        let mut kept = VecDeque::with_capacity(parked.len());
        // Who asks again under the key of one who was served has the same answer.
        let mut served = BTreeSet::new();
        for waiter in parked {
            if !ripe(&waiter, here) && !served.contains(&waiter.hold.key) {
                kept.push_back(waiter);
                continue;
            }
            let (mut verdict, batch) = self.desk(name, |desk| desk.decide(now, &waiter.hold));
            persist(batch, out);
            here = self.pools.get(name).map_or(0, |pool| pool.to_be_had(&self.site.settings));
            if matches!(verdict, Verdict::Wait) {
                if !hopeless && now.mono < waiter.until {
                    kept.push_back(waiter);
                    continue;
                }
                let exhausted = Refusal::Exhausted { retry_after: retry_after(&self.pools[name], now) };
                verdict = Verdict::Answer(Err(self.unreachable_or(exhausted, name)));
            }
            self.waiting.remove(&waiter.token);
            self.perform(waiter.token, waiter.hold.qty, name, waiter.until, verdict, out);
            served.insert(waiter.hold.key);
        }
        if let Some(pool) = self.pools.get_mut(name) {
            pool.parked = kept;
        }
    }

    /// The bug of calling "sold out" what cannot be reached.
    fn unreachable_or(&self, refusal: Refusal, name: &PoolName) -> Refusal {
        let silent =
            || self.pools.get(name).is_some_and(|pool| pool.lines.keys().any(|n| self.custody.is_down(n)));
        if canary::sings(Canary::SoldOutForUnreachable) && silent() { Refusal::SoldOut } else { refusal }
    }
}

impl Desk<'_> {
    /// In this order: does it make sense; is it ours; was it answered before; may this node answer;
    /// are there units.
    fn decide(&mut self, now: Now, hold: &Hold) -> Verdict {
        match self.consider(now, hold) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Answer(Err(refusal)),
        }
    }

    fn consider(&mut self, now: Now, hold: &Hold) -> Result<Verdict, Refusal> {
        let ttl = check_shape(hold)?;
        if let Some(verdict) = self.site.route(hold)? {
            return Ok(verdict);
        }
        check_age(&hold.key, now.hybrid, self.site.settings.max_offset)?;
        let body = body(hold);
        if let Some(row) = self.keys.recall(&hold.key, &body)? {
            let row = row.clone();
            return self.recall(hold, row);
        }
        self.check_standing(hold)?;
        if self.keys.len() >= self.site.settings.max_keys {
            return Err(Refusal::Overloaded { retry_after: RETRY.1 });
        }
        let me = &self.site.me;
        let Some(pool) = self.pool.as_deref_mut() else {
            let home = self.site.home(&hold.pool);
            if home == *me {
                return Err(Refusal::NoSuchPool(hold.pool.clone()));
            }
            if hold.hops >= 2 {
                // The pool is new, and this node has not heard of it yet.
                return Err(Refusal::Exhausted { retry_after: RETRY.0 });
            }
            // Names that nobody has minted leave room for the keys of pools that are for sale here.
            if self.keys.len() >= self.site.settings.max_keys / 2 {
                return Err(Refusal::Overloaded { retry_after: RETRY.1 });
            }
            return Ok(self.delegate(now, hold, body, home));
        };
        let most = pool.supply() + pool.ledger.pool().debt_ceiling;
        if hold.qty > most {
            return Err(Refusal::Invalid(format!("{} units of a pool of {most}", hold.qty)));
        }
        if let Some(home) = pool.customer_home(hold, me)? {
            if hold.hops >= 3 {
                return Err(Refusal::Invalid(format!(
                    "this customer's home in pool {} is not {me}: nodes disagree on who they are",
                    hold.pool
                )));
            }
            if pool.is_sold_out() {
                return Err(Refusal::SoldOut);
            }
            pool.make_room(now.mono, &self.site.settings)?;
            return Ok(self.delegate(now, hold, body, home));
        }
        if !pool.is_home() && pool.is_tail(&self.site.settings) {
            let home = pool.home.clone();
            self.check_tail(now)?;
            return Ok(self.delegate(now, hold, body, home));
        }
        pool.check_customer(hold)?;
        let most = self.site.settings.max_holds;
        if *self.holds >= most {
            return Err(Refusal::TooManyHolds { most: most as u64 });
        }
        Ok(self.take(now, hold, body, ttl))
    }

    /// Units are here, or all are sold, or some may come.
    fn take(&mut self, now: Now, hold: &Hold, body: [u8; 16], ttl: Duration) -> Verdict {
        let pool = self.pool.as_deref_mut().expect("the caller has seen the pool");
        let settings = &self.site.settings;
        let number: HoldNumber = (self.custody.life(), *self.next_hold);
        let deadline = now.hybrid.plus(ttl);
        let order = Order {
            qty: hold.qty,
            deadline,
            secret: self.secrets.between(1, u64::MAX - 1),
            customer: hold.customer.filter(|_| pool.is_limited()),
            reserved: if canary::sings(Canary::ReserveSells) { 0 } else { pool.reserved(settings) },
            overdraw: pool.may_overdraw(now.mono, settings),
        };
        let sold_out = pool.is_sold_out();
        let Some(row) = pool.ledger.hold(number, order, &mut self.batch) else {
            return if sold_out { Verdict::Answer(Err(Refusal::SoldOut)) } else { Verdict::Wait };
        };
        let overdrawn = row.more.debt;
        *self.next_hold += 1;
        *self.holds += 1;
        pool.tallies.held += 1;
        let outcome = Outcome::Held { pool: hold.pool.clone(), hold: number };
        self.remember(&hold.key, KeyRow { body, seen: now.hybrid, outcome });
        let id = self.site.id(&hold.pool, number, order.secret);
        Verdict::Answer(Ok(Held { hold: id, qty: hold.qty, expires: deadline, overdrawn }))
    }

    /// The key is known: never a second hold.
    fn recall(&self, hold: &Hold, row: KeyRow) -> Result<Verdict, Refusal> {
        match row.outcome {
            Outcome::Forwarded { to } => {
                let key = abroad(&hold.key, &self.site.me, row.seen);
                Ok(Verdict::Delegate(to, passed_on(hold, key)))
            }
            Outcome::Held { pool, hold: number } => {
                let row = self.pool.as_deref().and_then(|pool| pool.ledger.holds().find(number));
                let row = row.ok_or(Refusal::KeyExpired)?;
                let id = self.site.id(&pool, number, row.more.secret);
                match row.stage {
                    Stage::Held | Stage::Committed => {
                        let (qty, expires, overdrawn) = (row.qty, row.deadline, row.more.debt);
                        Ok(Verdict::Answer(Ok(Held { hold: id, qty, expires, overdrawn })))
                    }
                    Stage::Released => Err(Refusal::HoldReleased(id)),
                    Stage::Expired | Stage::Voided => Err(Refusal::HoldExpired(id)),
                }
            }
        }
    }

    fn check_standing(&self, hold: &Hold) -> Result<(), Refusal> {
        let standing = self.pool.as_deref().map_or_else(|| self.custody.standing(), |pool| pool.standing);
        match standing {
            Standing::Proven => {}
            Standing::Unproven => return Err(Refusal::Unproven),
            Standing::Restored => return Err(Refusal::Restored),
        }
        // What a restored disk has lost may include this key.
        match &hold.key {
            Key::Made { created_ms, .. } if self.custody.may_have_lost(*created_ms) => {
                Err(Refusal::KeyExpired)
            }
            _ => Ok(()),
        }
    }

    /// Whether the home of the tail should be asked for this at all.
    fn check_tail(&mut self, now: Now) -> Result<(), Refusal> {
        let pool = self.pool.as_deref_mut().expect("the caller has seen the pool");
        if canary::sings(Canary::SoldOutForUnreachable) && self.custody.is_down(&pool.home) {
            return Err(Refusal::SoldOut);
        }
        if pool.is_sold_out() {
            return Err(Refusal::SoldOut);
        }
        let word = self.site.settings.tail_word;
        let heard = pool.lines.get(&pool.home).and_then(|line| line.heard);
        let dry = heard.is_some_and(|(at, said)| {
            said.available == 0 && said.debt.available == 0 && now.mono.since(at) < word
        });
        if dry || now.mono < pool.home_empty_until {
            return Err(Refusal::Exhausted { retry_after: word });
        }
        pool.make_room(now.mono, &self.site.settings)
    }

    /// Passes a hold on to the home of the pool or of the customer, having written down that its key
    /// lives there now.
    fn delegate(&mut self, now: Now, hold: &Hold, body: [u8; 16], to: NodeId) -> Verdict {
        let key = abroad(&hold.key, &self.site.me, now.hybrid);
        self.remember(
            &hold.key,
            KeyRow { body, seen: now.hybrid, outcome: Outcome::Forwarded { to: to.clone() } },
        );
        Verdict::Delegate(to, passed_on(hold, key))
    }

    fn remember(&mut self, key: &Key, row: KeyRow) {
        self.batch.put_key(key, &row);
        self.keys.insert(key.clone(), row);
    }
}

impl Site {
    /// Where a hold goes first: to the node that remembers its key.
    fn route(&self, hold: &Hold) -> Result<Option<Verdict>, Refusal> {
        if self.in_range && hold.hops <= 1 {
            // Whoever has passed it to this ledger knows which of them remembers the key.
            return Ok(None);
        }
        let keeper = match &hold.key {
            Key::Made { home, .. } if !self.founding.contains(home) => {
                return Err(Refusal::Invalid(format!(
                    "the key names {home}, which is not a node of this mesh"
                )));
            }
            Key::Made { home, .. } => home,
            Key::Raw(text) => {
                let here = self.founding.nodes_in(&self.me.region);
                owner_among(here, RAW_KEY, text).expect("this node stands in its region")
            }
        };
        let made = matches!(hold.key, Key::Made { .. });
        match hold.hops {
            0 | 1 if *keeper == self.me => Ok(None),
            0 => Ok(Some(Verdict::Forward(keeper.clone(), Hold { hops: 1, ..hold.clone() }))),
            2 if made && self.home(&hold.pool) == self.me => Ok(None),
            // Whether this node is the customer's home is looked at with the pool in hand.
            2 | 3 if made && hold.customer.is_some() => Ok(None),
            hops => Err(Refusal::Invalid(format!(
                "passed on {hops} times, this hold should not have come to {}: nodes disagree on who they are",
                self.me
            ))),
        }
    }

    fn id(&self, pool: &PoolName, (incarnation, number): HoldNumber, secret: u64) -> HoldId {
        HoldId { pool: pool.clone(), owner: self.me.clone(), incarnation, number, secret }
    }
}

/// The hold under the key that it has abroad, with one more node behind it.
fn passed_on(hold: &Hold, key: Key) -> Hold {
    Hold { key, hops: (hold.hops + 1).max(2), ..hold.clone() }
}

fn check_shape(hold: &Hold) -> Result<Duration, Refusal> {
    if !(1..=MAX_SUPPLY).contains(&hold.qty) {
        return Err(Refusal::Invalid(format!("{} units: give 1 to {MAX_SUPPLY}", hold.qty)));
    }
    let ttl = hold.ttl.unwrap_or(DEFAULT_TTL);
    if ttl < Duration::from_millis(1) || ttl > MAX_TTL {
        let most = MAX_TTL.as_secs();
        return Err(Refusal::Invalid(format!("a hold of {ttl:?}: give 1 ms to {most} s")));
    }
    Ok(ttl)
}

/// When the next hold here expires, if it does soon.
fn retry_after(pool: &Pool, now: Now) -> Duration {
    let next = pool.ledger.holds().next_deadline().map(|at| mono_of(now, at).since(now.mono));
    next.unwrap_or(Duration::from_secs(1)).clamp(RETRY.0, RETRY.1)
}
