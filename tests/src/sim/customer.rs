//! Customers: they hold, confirm, release, abandon, lose patience, ask again here and elsewhere, and
//! now and then do what they should not.
//!
//! * It decides: what one customer does next, from its own seed.
//! * It never does: know anything but answers. What follows from an answer is the oracle's business.
//! * Invariant: one customer has one call under way; late answers count all the same.

use std::collections::BTreeSet;

use rhumb_actors::escrow::messages::{Confirm, Hold, Release, Return};
use rhumb_actors::escrow::{CustomerTag, HoldId, Key, Refusal, Request};
use rhumb_core::Delivery;
use rhumb_core::rng::{Rng, Seed};

use super::agenda::{MS, Micros, SECOND};
use super::oracle::{HoldIndex, KeyIndex, ReturnIndex, Sale};
use super::plan::{Plan, Trade};
use super::violation::Checked;
use super::world::{Event, Word, World};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To hold so many units under this key.
    Hold {
        /// The key.
        key: KeyIndex,
        /// How many.
        qty: u64,
    },
    /// To confirm this hold.
    Confirm(HoldIndex),
    /// To release this hold.
    Release(HoldIndex),
    /// To give back a part of a sale.
    Return(ReturnIndex),
    /// To confirm this hold without knowing its secret.
    Guess(HoldIndex),
    /// To create a pool.
    Create {
        /// Which creator.
        creator: usize,
    },
    /// To attest a restored node.
    Attest {
        /// Which node.
        node: usize,
        /// What the operator says it has sold.
        sold: u64,
    },
}

/// One call of somebody outside.
#[derive(Debug)]
pub struct Call {
    /// The customer who waits for it, if one does.
    pub customer: Option<usize>,
    /// What for.
    pub purpose: Purpose,
    /// About which pool.
    pub pool: usize,
    /// The region in which it was made.
    pub region: usize,
    /// The node that was asked.
    pub node: usize,
    /// When it was made.
    pub asked: Micros,
    /// For whom it asks for a hold, if it does and says so.
    pub buyer: Option<CustomerTag>,
    /// An answer came in time.
    pub answered: bool,
}

/// What a customer means to do with a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Confirm,
    Release,
    Abandon,
    Return,
}

/// One purchase.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) key: KeyIndex,
    pub(super) request: Hold,
    pub(super) pool: usize,
    pub(super) region: usize,
    pub(super) fate: Fate,
    pub(super) hold: Option<HoldIndex>,
    pub(super) tries: u32,
    /// The part of the sale that is to be given back, once it has been asked for.
    pub(super) part: Option<ReturnIndex>,
    /// It was finished before, and is only asked about again.
    pub(super) echo: bool,
}

/// One customer.
#[derive(Debug)]
pub struct Customer {
    pub(super) rng: Rng,
    pub(super) region: usize,
    pub(super) order: Option<Order>,
    pub(super) past: Vec<Order>,
    pub(super) waits_for: Option<usize>,
    /// Units to ask for when everything must go.
    pub(super) appetite: u64,
    /// Pools that it was told are sold out, since the world has healed.
    pub(super) sold_out: BTreeSet<usize>,
    pub(super) made: u64,
}

/// Finished orders that a customer remembers.
const MEMORY: usize = 16;

impl Customer {
    /// A customer of this seed.
    #[must_use]
    pub fn draw(seed: &Seed, plan: &Plan) -> Self {
        let mut rng = seed.rng();
        let anywhere = rng.below(plan.regions.len() as u64) as usize;
        let region = if rng.chance(plan.trade.crowd) { 0 } else { anywhere };
        Self {
            rng,
            region,
            order: None,
            past: Vec::new(),
            waits_for: None,
            appetite: u64::MAX,
            sold_out: BTreeSet::new(),
            made: 0,
        }
    }

    /// How long it does nothing now.
    pub fn pause(&mut self, trade: &Trade) -> Micros {
        (self.rng.exponential(trade.pause as f64) as Micros).min(4 * SECOND) + MS
    }

    fn finish(&mut self, order: Order) {
        if self.past.len() == MEMORY {
            self.past.remove(0);
        }
        self.past.push(order);
    }
}

impl World {
    /// A customer does the next thing.
    pub(super) fn act(&mut self, customer: usize) -> Checked {
        if self.customers[customer].waits_for.is_some() {
            return Ok(());
        }
        match self.customers[customer].order.take() {
            None if self.healed.is_some() => self.buy_what_is_left(customer),
            None if self.echoes(customer) => self.ask_again_about_the_past(customer),
            None => self.order_something(customer),
            Some(order) if order.hold.is_none() => self.ask_for_hold(customer, order),
            Some(order) => self.settle(customer, order),
        }
        Ok(())
    }

    fn echoes(&mut self, customer: usize) -> bool {
        let who = &mut self.customers[customer];
        !who.past.is_empty() && who.rng.chance(self.plan.trade.echoes)
    }

    // ---- asking ----------------------------------------------------------------------------------

    pub(super) fn ask_for_hold(&mut self, customer: usize, order: Order) {
        let node = self.some_node_in(customer, order.region);
        let purpose = Purpose::Hold { key: order.key, qty: order.request.qty };
        let request = Request::Hold(order.request.clone());
        self.call(customer, order, node, purpose, request);
    }

    pub(super) fn settle(&mut self, customer: usize, mut order: Order) {
        let hold = order.hold.expect("a hold is settled");
        let id: HoldId = self.oracle.hold(hold).id.clone();
        let who = &mut self.customers[customer];
        // Mostly its owner is asked, now and then anybody.
        let node = if who.rng.chance(0.7) {
            self.oracle.hold(hold).owner
        } else {
            who.rng.below(self.nodes.len() as u64) as usize
        };
        let guesses = self.plan.trade.guesses;
        if guesses > 0.0 && who.rng.chance(guesses) {
            let hold_id = HoldId { secret: id.secret ^ 1 << who.rng.below(64), ..id };
            let request = Request::Confirm(Confirm { hold: hold_id });
            return self.call(customer, order, node, Purpose::Guess(hold), request);
        }
        let (purpose, request) = match order.fate {
            Fate::Return => {
                let part = self.part_of(customer, &mut order);
                let facts = self.oracle.giving_back(part);
                let request = Return { hold: id, qty: facts.asked, key: facts.key.clone() };
                (Purpose::Return(part), Request::Return(request))
            }
            Fate::Release => {
                self.oracle.asks_release(hold);
                (Purpose::Release(hold), Request::Release(Release { hold: id }))
            }
            Fate::Confirm | Fate::Abandon => {
                self.oracle.asks_sale(hold);
                (Purpose::Confirm(hold), Request::Confirm(Confirm { hold: id }))
            }
        };
        self.call(customer, order, node, purpose, request);
    }

    /// What the customer gives back of a sale: drawn once, and asked for under one key.
    fn part_of(&mut self, customer: usize, order: &mut Order) -> ReturnIndex {
        let hold = order.hold.expect("a sale is returned");
        let rng = &mut self.customers[customer].rng;
        let qty = self.oracle.hold(hold).qty;
        let asked = rng.chance(0.8).then(|| rng.between(1, qty.div_ceil(3)));
        let oracle = &mut self.oracle;
        *order.part.get_or_insert_with(|| oracle.asks_return(hold, asked))
    }

    pub(super) fn call(
        &mut self,
        customer: usize,
        mut order: Order,
        node: usize,
        purpose: Purpose,
        request: Request,
    ) {
        let who = &mut self.customers[customer];
        order.tries += 1;
        let (pool, region) = (order.pool, who.region);
        let within = MS * who.rng.between(200, 2_500);
        let call = self.calls.len();
        let buyer = order.request.customer;
        who.order = Some(order);
        who.waits_for = Some(call);
        let asked = self.now();
        self.calls.push(Call {
            customer: Some(customer),
            purpose,
            pool,
            region,
            node,
            asked,
            buyer,
            answered: false,
        });
        self.agenda.after(within, Event::CallOver { call });
        self.send_request(region, node, call, within, request);
    }

    fn some_node_in(&mut self, customer: usize, region: usize) -> usize {
        let there: Vec<usize> = (0..self.nodes.len()).filter(|n| self.plan.region_of[*n] == region).collect();
        *self.customers[customer].rng.pick(&there).expect("every region has a node")
    }

    // ---- what comes of it ------------------------------------------------------------------------

    /// A call's time is over.
    pub(super) fn call_over(&mut self, call: usize) -> Checked {
        let Call { customer: Some(customer), answered: false, node, .. } = self.calls[call] else {
            return Ok(());
        };
        if self.customers[customer].rng.chance(0.3) {
            self.agenda.after(20 * MS, Event::Abandoned { node, call });
        }
        if self.customers[customer].waits_for == Some(call) {
            self.wants_less(customer);
            self.failed(customer, call);
        }
        Ok(())
    }

    /// The customer goes on after an answer.
    pub(super) fn resume(&mut self, call: usize, word: &Word) {
        let Some(customer) = self.calls[call].customer else { return };
        if self.customers[customer].waits_for != Some(call) {
            return;
        }
        self.calls[call].answered = true;
        match word {
            Word::Fault(Delivery::NotSent | Delivery::Unknown | Delivery::Ran) => self.failed(customer, call),
            Word::Said(_) if matches!(self.calls[call].purpose, Purpose::Guess(_)) => {
                self.failed(customer, call);
            }
            Word::Said(Err(refusal)) if may_pass(refusal) => {
                self.wants_less(customer);
                self.failed(customer, call);
            }
            Word::Said(answer) => {
                let pool = self.calls[call].pool;
                if matches!(answer, Err(Refusal::SoldOut)) && self.healed.is_some() {
                    self.customers[customer].sold_out.insert(pool);
                }
                self.succeeded(customer, call);
            }
        }
    }

    fn succeeded(&mut self, customer: usize, call: usize) {
        let who = &mut self.customers[customer];
        who.waits_for = None;
        let mut order = who.order.take().expect("a customer who waits has an order");
        let held = match self.calls[call].purpose {
            Purpose::Hold { key, .. } => self.oracle.key(key).hold,
            _ => None,
        };
        let confirmed = matches!(self.calls[call].purpose, Purpose::Confirm(_));
        let returned = self.plan.trade.returned;
        let returns = confirmed && returned > 0.0 && self.healed.is_none() && who.rng.chance(returned);
        if returns && order.hold.is_some_and(|hold| self.oracle.hold(hold).sale == Sale::Certain) {
            (order.fate, order.part, order.tries) = (Fate::Return, None, 0);
            who.order = Some(order);
            return self.next_act(customer, true);
        }
        // The same return once more, or another part of the sale.
        if matches!(self.calls[call].purpose, Purpose::Return(_)) && who.rng.chance(0.5) {
            order.part = order.part.filter(|_| who.rng.chance(0.6));
            order.tries = 0;
            who.order = Some(order);
            return self.next_act(customer, true);
        }
        let settles = held.is_some() && order.fate != Fate::Abandon && !order.echo;
        order.hold = held.or(order.hold);
        if held.is_some() {
            who.appetite = order.request.qty.saturating_mul(2);
        }
        if settles {
            order.tries = 0;
            who.order = Some(order);
        } else {
            who.finish(order);
        }
        self.next_act(customer, true);
    }

    fn wants_less(&mut self, customer: usize) {
        let who = &mut self.customers[customer];
        who.appetite = who.order.as_ref().map_or(1, |order| order.request.qty / 3).max(1);
    }

    fn failed(&mut self, customer: usize, call: usize) {
        let who = &mut self.customers[customer];
        who.waits_for = None;
        let mut order = who.order.take().expect("a customer who waits has an order");
        let settling = !matches!(self.calls[call].purpose, Purpose::Hold { .. });
        let again = match (settling, self.healed.is_some()) {
            (true, _) => order.tries < 8,
            // A new order for less is better than the same once more.
            (false, true) => false,
            (false, false) => order.tries < 5 && who.rng.chance(self.plan.trade.again),
        };
        if !again {
            who.finish(order);
        } else {
            if !settling && who.rng.chance(self.plan.trade.elsewhere) {
                let region = who.rng.below(self.plan.regions.len() as u64) as usize;
                self.go_elsewhere(&mut order, region);
            }
            self.customers[customer].order = Some(order);
        }
        self.next_act(customer, false);
    }

    /// The same request goes to another region. A key made by a client library is the same there; one
    /// given by hand is another.
    fn go_elsewhere(&mut self, order: &mut Order, region: usize) {
        if region == order.region {
            return;
        }
        order.region = region;
        if let Key::Raw(_) = order.request.key {
            let (key, pool) = (order.request.key.clone(), order.pool);
            order.key = self.oracle.raw_key(key, pool, region);
        }
    }

    /// After healing, whoever was served goes on at once, and whoever was not waits a little.
    pub(super) fn next_act(&mut self, customer: usize, served: bool) {
        let mut pause = self.customers[customer].pause(&self.plan.trade);
        if self.healed.is_some() {
            pause = if served { pause.min(150 * MS) } else { pause.clamp(300 * MS, 700 * MS) };
        }
        self.agenda.after(pause, Event::Act { customer });
    }
}

/// Whether it may make sense to ask the same again.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Exhausted { .. }
            | Refusal::Overloaded { .. }
            | Refusal::Unproven
            | Refusal::Restored
            | Refusal::NoSuchPool(_)
    )
}
