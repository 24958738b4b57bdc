//! What customers set out to do: something new, something once more, or all that is left.
//!
//! * It decides: orders and their keys, drawn from the customer's own seed.
//! * It never does: make a key twice by accident; words that others type too are taken on purpose.

use std::time::Duration;

use rhumb_actors::escrow::messages::Hold;
use rhumb_actors::escrow::{CustomerTag, Key, Request};
use rhumb_core::PoolName;
use rhumb_core::limits::MAX_SUPPLY;

use super::agenda::SECOND;
use super::customer::{Fate, Order, Purpose};
use super::oracle::{KeyFacts, KeyIndex};
use super::world::{Event, World};

const DAY_MS: u64 = 24 * 3_600_000;

impl World {
    pub(super) fn order_something(&mut self, customer: usize) {
        let trade = &self.plan.trade;
        let who = &mut self.customers[customer];
        let pool = who.rng.below(self.plan.pools.len() as u64) as usize;
        let supply = self.plan.pools[pool].bodies[0].supply;
        let most = ((supply as f64 * trade.qty) as u64).max(1);
        let qty = who.rng.between(1, most);
        let ttl = trade.ttl(&mut who.rng);
        let fate = match who.rng.unit() {
            draw if draw < trade.confirmed => Fate::Confirm,
            draw if draw < trade.confirmed + trade.released => Fate::Release,
            _ => Fate::Abandon,
        };
        let (made, stale) = (who.rng.chance(trade.made), who.rng.chance(trade.stale_keys));
        let region = who.region;
        let key = self.new_key(customer, pool, region, made || stale, stale);
        let (name, limit) = self.terms_of(pool);
        // A few people buy all the time, now and then more than they may.
        let buyer = limit.map(|_| format!("buyer {}", self.customers[customer].rng.below(4)));
        let buyer = buyer.map(|who| CustomerTag::of(&name, &who).expect("a valid name"));
        let qty = limit.map_or(qty, |limit| qty.min(limit + 1));
        let greed = self.plan.trade.greedy;
        let greedy = greed > 0.0 && self.customers[customer].rng.chance(greed);
        let qty = if greedy { MAX_SUPPLY } else { qty };
        let request = Hold {
            pool: self.plan.pools[pool].bodies[0].name.clone(),
            qty,
            ttl,
            key: self.oracle.key(key).key.clone(),
            hops: 0,
            customer: buyer,
        };
        let order = Order { key, request, pool, region, fate, hold: None, tries: 0, part: None, echo: false };
        self.ask_for_hold(customer, order);
    }

    /// The name of a pool, and the most that one customer may have of it.
    fn terms_of(&self, pool: usize) -> (PoolName, Option<u64>) {
        let body = &self.plan.pools[pool].bodies[0];
        (body.name.clone(), body.per_customer)
    }

    fn new_key(&mut self, customer: usize, pool: usize, region: usize, made: bool, stale: bool) -> KeyIndex {
        let who = &mut self.customers[customer];
        if made {
            // A client library takes its time from the node it is connected to, so to speak.
            let home =
                self.plan.region_of.iter().position(|r| *r == region).expect("every region has a node");
            let age = if stale { DAY_MS + 60_000 + who.rng.below(DAY_MS) } else { 0 };
            return self.made_key(customer, pool, home, age);
        }
        if who.rng.chance(self.plan.trade.twins) {
            // What people type by hand others type too: a word of few, here and in other regions.
            let word = format!("word-{pool}-{}", who.rng.below(5));
            return self.oracle.raw_key(Key::Raw(word), pool, region);
        }
        who.made += 1;
        let key = Key::Raw(format!("c{customer}x{}", who.made));
        self.oracle.new_key(KeyFacts::new(key, pool, region))
    }

    fn made_key(&mut self, customer: usize, pool: usize, home: usize, age_ms: u64) -> KeyIndex {
        let who = &mut self.customers[customer];
        who.made += 1;
        let nonce = format!("c{customer}x{}", who.made);
        let created_ms = self.nodes[home].clock.wall_ms(self.agenda.now()) - age_ms;
        let key = Key::Made { home: self.nodes[home].id.clone(), created_ms, nonce };
        let mut facts = KeyFacts::new(key, pool, self.plan.region_of[home]);
        facts.stale_since = (age_ms > 0).then_some(0);
        self.oracle.new_key(facts)
    }

    pub(super) fn ask_again_about_the_past(&mut self, customer: usize) {
        let who = &mut self.customers[customer];
        let mut order = who.rng.pick(&who.past).expect("checked by the caller").clone();
        (order.echo, order.tries) = (true, 0);
        match order.hold {
            // The same return once more, or another part of the sale.
            Some(_) if order.fate == Fate::Return => {
                order.part = order.part.filter(|_| who.rng.chance(0.7));
                self.settle(customer, order);
            }
            Some(hold) if who.rng.chance(0.6) => {
                order.fate = if who.rng.chance(0.5) { Fate::Confirm } else { Fate::Release };
                order.hold = Some(hold);
                self.settle(customer, order);
            }
            _ => {
                order.hold = None;
                if who.rng.chance(self.plan.trade.other_body) {
                    order.request.qty += 1;
                    self.oracle.another_body(order.key);
                }
                self.ask_for_hold(customer, order);
            }
        }
    }

    /// After healing, everything must go: as much as possible at a time, and confirmed. Only nodes
    /// that can sell are asked; the key is theirs, for a raw key may belong to a node that is lost.
    pub(super) fn buy_what_is_left(&mut self, customer: usize) {
        let region = self.plan.levelling.closing_region.unwrap_or(self.customers[customer].region);
        let open = self.open_to(customer);
        if open.is_empty() {
            // Units may come back: a return from before the world healed is still on its way.
            return self.agenda.after(SECOND, Event::Act { customer });
        }
        let who = &mut self.customers[customer];
        let &pool = who.rng.pick(&open).expect("some pool is open");
        let able: Vec<usize> = (0..self.nodes.len()).filter(|node| self.sells(*node, pool)).collect();
        let near: Vec<usize> =
            able.iter().copied().filter(|node| self.plan.region_of[*node] == region).collect();
        let who = &mut self.customers[customer];
        let Some(&node) = who.rng.pick(if near.is_empty() { &able } else { &near }) else {
            return self.next_act(customer, false);
        };
        let supply = self.plan.pools[pool].bodies[0].supply;
        let qty = who.appetite.clamp(1, (supply / 8).max(1));
        let key = self.made_key(customer, pool, node, 0);
        // In the end everybody buys once.
        let (name, limit) = self.terms_of(pool);
        let buyer =
            limit.map(|_| CustomerTag::of(&name, &format!("{customer} {key}")).expect("a valid name"));
        let qty = limit.map_or(qty, |limit| qty.min(limit));
        let request = Hold {
            pool: self.plan.pools[pool].bodies[0].name.clone(),
            qty,
            ttl: Some(Duration::from_secs(4)),
            key: self.oracle.key(key).key.clone(),
            hops: 0,
            customer: buyer,
        };
        let (fate, region) = (Fate::Confirm, self.plan.region_of[node]);
        let order = Order { key, request, pool, region, fate, hold: None, tries: 0, part: None, echo: false };
        let (purpose, request) = (Purpose::Hold { key, qty }, Request::Hold(order.request.clone()));
        self.call(customer, order, node, purpose, request);
    }

    /// The pools that a customer asks for: not those that it was told are sold out, as long as they are.
    fn open_to(&self, customer: usize) -> Vec<usize> {
        let told = &self.customers[customer].sold_out;
        let over = |pool: usize| self.audits[pool].sold() >= self.audits[pool].most();
        (0..self.plan.pools.len()).filter(|pool| !told.contains(pool) || !over(*pool)).collect()
    }

    /// What was asked for before the world healed is forgotten.
    pub(super) fn start_afresh(&mut self) {
        for customer in &mut self.customers {
            (customer.order, customer.waits_for, customer.appetite) = (None, None, u64::MAX);
        }
    }
}
