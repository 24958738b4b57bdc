//! The world: one thread, one heap of timed events, and the auditor after each of them.
//!
//! * It decides: what happens next, and stops at the first broken promise.
//! * It never does: read a clock or draw entropy of the machine it runs on. Two runs of one seed are
//!   the same, event by event.
//! * Invariant: a node sees the world only through packets, its clocks, its disk and its connections.

use std::time::Duration;

use rhumb_actors::escrow::forecast::Forecast;
use rhumb_actors::escrow::messages::PeerMessage;
use rhumb_actors::escrow::{Answer, EscrowSettings, Initiative, Input, LevelPolicy, Refusal, Request};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Delivery, HybridTime, NodeId};

use super::agenda::{Agenda, MS, Micros, SECOND};
use super::audit::{Audit, Counters, Reserved};
use super::customer::{Call, Customer};
use super::fault::{Mischief, Trouble};
use super::net::Net;
use super::node::{Caller, Node, Stepped, Surroundings};
use super::oracle::Oracle;
use super::plan::{Levelling, Plan, PoolPlan};
use super::trace::{Keep, Trace};
use super::violation::Checked;
use super::words::Words;

/// How a call or a question ends, as the one who asked sees it.
#[derive(Debug, Clone)]
pub enum Word {
    /// The node's answer or refusal.
    Said(Result<Answer, Refusal>),
    /// Something else happened.
    Fault(Delivery),
}

/// When an answer was given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// The time of the node that it comes from.
    pub(super) sent: HybridTime,
    /// The time of the node that said it: who passes it on has another one, and does not take this where it is too far ahead.
    pub(super) said: HybridTime,
}

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of a peer arrives.
    Peer { from: usize, to: usize, sent: HybridTime, message: PeerMessage },
    /// A question arrives.
    Ask { to: usize, caller: Caller, sent: Option<HybridTime>, within: Micros, request: Request },
    /// An answer arrives.
    Answer { caller: Caller, from: usize, times: Times, word: Word },
    /// A sync of a disk ends.
    Synced { node: usize, life: u32 },
    /// A node's alarm rings.
    Alarm { node: usize, life: u32 },
    /// A node is looked at: its wall clock was stepped.
    Wake { node: usize },
    /// The time of a question that was passed on is over.
    ForwardOver { node: usize, life: u32, forward: u64 },
    /// The time of a node for its row is over.
    ReadOver { node: usize, life: u32, from: usize, pool: usize, number: u64 },
    /// A node notices that a connection came or went.
    Link { node: usize, peer: usize },
    /// A node begins to live.
    Begin { node: usize },
    /// A customer's patience with a call is over.
    CallOver { call: usize },
    /// A node hears that nobody waits for a call any more.
    Abandoned { node: usize, call: usize },
    /// A customer does something.
    Act { customer: usize },
    /// A creator tries.
    Create { pool: usize, creator: usize },
    /// An operator looks after a node whose disk was restored.
    Attest { node: usize },
    /// Something goes wrong.
    Trouble(Trouble),
    /// Everything heals.
    Heal,
    /// What was held when the world healed is given back.
    Expire,
    /// Is all sold, and everybody answered?
    Survey,
}

/// A world.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) agenda: Agenda<Event>,
    pub(super) trace: Trace,
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    pub(super) around: Surroundings,
    pub(super) audits: Vec<Audit>,
    pub(super) oracle: Oracle,
    pub(super) words: Words,
    pub(super) customers: Vec<Customer>,
    pub(super) calls: Vec<Call>,
    pub(super) mischief: Mischief,
    /// For each pool and creator, whether it has its answer.
    pub(super) created: Vec<Vec<bool>>,
    /// For each pool, when a creator was first told that it exists.
    pub(super) exists: Vec<Option<Micros>>,
    /// What the operator says was sold, by pool and node.
    pub(super) attested: Vec<Vec<Option<u64>>>,
    pub(super) healed: Option<Micros>,
    /// Units sold at the last survey that found more than the one before, and when that was.
    pub(super) progress: (u64, Micros),
    /// How far right clocks are ahead of true time since the world healed, in milliseconds.
    pub(super) ahead_ms: u64,
    disks: Vec<Rng>,
    pub(super) finished: bool,
}

impl World {
    /// The world of a seed, before its first event.
    #[must_use]
    pub fn new(number: u64, keep: Keep) -> Self {
        let seed = Seed::new(number);
        let plan = Plan::draw(&seed);
        let count = plan.nodes.len();
        let mut stores = seed.child("stores").rng();
        let nodes = plan
            .nodes
            .iter()
            .zip(&plan.drift_ppm)
            .map(|(id, drift)| Node::new(id.clone(), *drift, &mut stores));
        let around = Surroundings {
            founding: plan.founding.clone(),
            settings: (0..count).map(|node| settings(&plan, node)).collect(),
            window: plan.faults.window,
        };
        let audits = plan.pools.iter().map(|pool| {
            let bodies = pool.bodies.iter().map(|body| (body.supply, body.debt)).collect();
            Audit::new(count, bodies, reserved(&plan, pool))
        });
        let customers =
            (0..plan.trade.customers).map(|i| Customer::draw(&seed.child(format!("customer {i}")), &plan));
        let mut net = Net::new(&seed.child("net"), &plan.region_of);
        (net.weather, net.customer_weather) = (plan.faults.weather, plan.faults.customer_weather);
        let mut world = Self {
            agenda: Agenda::default(),
            trace: Trace::new(keep),
            net,
            nodes: nodes.collect(),
            around,
            audits: audits.collect(),
            oracle: Oracle::new(plan.pools.len(), plan.forgets_sales()),
            words: Words::new(plan.pools.len()),
            customers: customers.collect(),
            calls: Vec::new(),
            mischief: Mischief::new(&seed.child("mischief")),
            created: plan.pools.iter().map(|pool| vec![false; pool.creators.len()]).collect(),
            exists: vec![None; plan.pools.len()],
            attested: vec![vec![None; count]; plan.pools.len()],
            healed: None,
            progress: (0, 0),
            ahead_ms: 0,
            disks: (0..count).map(|i| seed.child(format!("disk {i}")).rng()).collect(),
            finished: false,
            plan,
        };
        world.prepare();
        world
    }

    /// Everything that is known from the beginning to happen.
    fn prepare(&mut self) {
        for node in 0..self.nodes.len() {
            self.agenda.at(node as Micros, Event::Begin { node });
        }
        for customer in 0..self.customers.len() {
            let first = self.customers[customer].pause(&self.plan.trade);
            self.agenda.at(SECOND / 2 + first, Event::Act { customer });
        }
        for (pool, plan) in self.plan.pools.iter().enumerate() {
            for (creator, (_, _, at)) in plan.creators.iter().enumerate() {
                self.agenda.at(*at, Event::Create { pool, creator });
            }
        }
        self.plan_trouble();
        self.agenda.at(self.plan.faults.until, Event::Heal);
    }

    /// Lets everything happen until all is sold after healing, or a promise is broken.
    ///
    /// # Errors
    /// The broken promise.
    pub fn run(&mut self) -> Checked {
        while !self.finished {
            let Some(event) = self.agenda.pop() else { break };
            self.happen(event)?;
        }
        Ok(())
    }

    /// The trace so far.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    pub(super) fn number(&self, id: &NodeId) -> usize {
        self.plan.nodes.iter().position(|node| node == id).expect("machines name founders only")
    }

    pub(super) fn now(&self) -> Micros {
        self.agenda.now()
    }

    fn happen(&mut self, event: Event) -> Checked {
        if let Some(until) = self.stopped(&event) {
            self.agenda.at(until, event);
            return Ok(());
        }
        match event {
            Event::Peer { from, to, sent, message } => self.peer_message(from, to, sent, message),
            Event::Ask { to, caller, sent, within, request } => self.ask(to, caller, sent, within, request),
            Event::Answer { caller, from, times, word } => self.answer(caller, from, times, word),
            Event::Synced { node, life } if self.lives(node, life) => self.synced(node),
            Event::Alarm { node, life } if self.lives(node, life) => self.alarm(node),
            Event::ForwardOver { node, life, forward } if self.lives(node, life) => {
                self.forward_over(node, forward)
            }
            Event::ReadOver { node, life, from, pool, number } if self.lives(node, life) => {
                self.row_read(node, from, pool, number, None)
            }
            Event::Synced { .. }
            | Event::Alarm { .. }
            | Event::ForwardOver { .. }
            | Event::ReadOver { .. } => Ok(()),
            Event::Link { node, peer } => self.link(node, peer),
            Event::Begin { node } => self.begin(node),
            Event::Wake { node } => self.step(node, Input::Tick),
            Event::CallOver { call } => self.call_over(call),
            Event::Abandoned { node, call } => self.abandoned(node, call),
            Event::Act { customer } => self.act(customer),
            Event::Create { pool, creator } => self.create(pool, creator),
            Event::Attest { node } => self.attest(node),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Heal => self.heal(),
            Event::Expire => self.expire_all(),
            Event::Survey => self.survey(),
        }
    }

    /// Until when an event must wait because its node is stopped.
    fn stopped(&self, event: &Event) -> Option<Micros> {
        let node = match event {
            Event::Peer { to, .. } | Event::Ask { to, .. } => *to,
            Event::Answer { caller: Caller::Node { node, .. } | Caller::Reader { node, .. }, .. } => *node,
            Event::Alarm { node, .. }
            | Event::ForwardOver { node, .. }
            | Event::ReadOver { node, .. }
            | Event::Link { node, .. }
            | Event::Wake { node }
            | Event::Abandoned { node, .. } => *node,
            _ => return None,
        };
        Some(self.nodes[node].stopped_until).filter(|until| *until > self.now())
    }

    pub(super) fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].lives == life && self.nodes[node].life.is_some()
    }

    // ---- what happens to nodes -----------------------------------------------------------------

    fn begin(&mut self, node: usize) -> Checked {
        if self.nodes[node].lost || self.nodes[node].life.is_some() {
            return Ok(());
        }
        let now = self.now();
        self.trace.note(now, "begin", &[node as u64], || format!("{}", self.nodes[node].id));
        self.words.forget(node);
        let mut done = Stepped::default();
        self.nodes[node].begin(now, node, &self.around, &mut done)?;
        self.nodes[node].life.as_mut().expect("it has just begun").alarm = None;
        let rows = self.rows(node);
        for (pool, row) in rows.iter().enumerate() {
            self.audits[pool].recovered(node, *row)?;
        }
        self.nodes[node].life.as_mut().expect("it has just begun").first_rows = rows;
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.notice(node, peer);
            self.notice(peer, node);
        }
        self.after(node, done)
    }

    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].life.is_none() {
            return;
        }
        let now = self.now();
        self.trace.note(now, "crash", &[node as u64], || format!("{}", self.nodes[node].id));
        self.nodes[node].crash(&mut self.disks[node]);
        self.nodes[node].stopped_until = 0;
        self.audits.iter_mut().for_each(|audit| audit.crashed(node));
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.notice(peer, node);
        }
    }

    pub(super) fn step(&mut self, node: usize, input: Input) -> Checked {
        let now = self.now();
        let mut done = Stepped::default();
        self.nodes[node].step(now, input, &mut done);
        self.after(node, done)
    }

    /// The rows of a node's machine, pool by pool.
    fn rows(&self, node: usize) -> Vec<Counters> {
        let Some(life) = &self.nodes[node].life else { return Vec::new() };
        let row = |pool: &super::plan::PoolPlan| {
            let row = life.book.row(&pool.bodies[0].name);
            row.map_or_else(Counters::default, |row| Counters::of(&row, &self.plan.nodes))
        };
        self.plan.pools.iter().map(row).collect()
    }

    /// Shows the auditor what a step changed, and does what the machine wants done.
    fn after(&mut self, node: usize, mut done: Stepped) -> Checked {
        let now = self.now();
        let was: Vec<Counters> = self.audits.iter().map(|audit| audit.row(node).present).collect();
        if let Some(first) = done.persisted {
            let rows = self.rows(node);
            for (pool, row) in rows.iter().enumerate() {
                self.check_debt(pool, node, &was[pool], row)?;
                self.audits[pool].changed(node, *row)?;
                self.oracle.explains(pool, node, row.sold())?;
                if let Some((supply, debt)) = self.audits[pool].minted() {
                    self.oracle.minted(pool, supply + debt);
                }
            }
            if let Some(life) = &mut self.nodes[node].life {
                life.keep_rows(first, rows);
            }
        }
        self.check_said(node, &was, &done.said)?;
        for token in done.sold_out.drain(..) {
            self.check_sold_out(node, token)?;
        }
        if let Some(life) = self.nodes[node].life.as_mut().filter(|life| done.wrote && !life.syncing) {
            life.syncing = true;
            let (low, high) = self.plan.faults.sync;
            let wait = if self.healed.is_some() { low } else { self.disks[node].between(low, high) };
            self.agenda.after(wait, Event::Synced { node, life: self.nodes[node].lives });
        }
        for effect in done.effects.drain(..) {
            self.perform(node, effect)?;
        }
        self.arm(node, now);
        Ok(())
    }

    fn arm(&mut self, node: usize, now: Micros) {
        let Some(wanted) = self.nodes[node].wants(now) else { return };
        let lives = self.nodes[node].lives;
        let life = self.nodes[node].life.as_mut().expect("only the living want anything");
        // The production shell waits at least a millisecond.
        let at = wanted.max(now + MS);
        if life.alarm.is_none_or(|alarm| at < alarm) {
            life.alarm = Some(at);
            self.agenda.at(at, Event::Alarm { node, life: lives });
        }
    }

    fn alarm(&mut self, node: usize) -> Checked {
        let now = self.now();
        let life = self.nodes[node].life.as_mut().expect("checked by the caller");
        if life.alarm.is_some_and(|alarm| alarm <= now) {
            life.alarm = None;
        }
        if self.nodes[node].wants(now).is_some_and(|at| at <= now) {
            self.trace.note(now, "tick", &[node as u64], || format!("{}", self.nodes[node].id));
            return self.step(node, Input::Tick);
        }
        self.arm(node, now);
        Ok(())
    }

    fn synced(&mut self, node: usize) -> Checked {
        let now = self.now();
        self.trace.note(now, "synced", &[node as u64], || format!("{}", self.nodes[node].id));
        let mut done = Stepped::default();
        let life = self.nodes[node].life.as_mut().expect("checked by the caller");
        let durable = life.synced(&mut done)?;
        for (pool, audit) in self.audits.iter_mut().enumerate() {
            let certain = durable.certain.as_ref().map_or(audit.row(node).durable, |rows| rows[pool]);
            let perhaps = durable.perhaps.as_ref().map_or(certain, |rows| rows[pool]);
            audit.durable(node, certain, perhaps);
        }
        self.after(node, done)
    }
}

/// What a pool's plan says of its reserve.
fn reserved(plan: &Plan, pool: &PoolPlan) -> Option<Reserved> {
    let reserve = pool.bodies[0].reserve.as_ref()?;
    let holder = plan.nodes.iter().position(|node| *node == reserve.node).expect("it is of the mesh");
    let nodes = plan.nodes.iter().filter(|node| pool.has_part(node)).count() as u64;
    let floor = if pool.bodies[0].per_customer.is_some() { 0 } else { plan.levelling.tail_floor };
    let gives = plan.levelling.initiative[holder] != Initiative::Pull;
    Some(Reserved { holder, units: reserve.units, gives, tail: floor * nodes, vague: false })
}

fn settings(plan: &Plan, node: usize) -> EscrowSettings {
    let Levelling { tail_floor, initiative, method, season, reconcile, .. } = &plan.levelling;
    let (season, slot) = (Duration::from_micros(season.0), Duration::from_micros(season.1));
    EscrowSettings {
        level: LevelPolicy {
            tail_floor: *tail_floor,
            initiative: initiative[node],
            ..LevelPolicy::default()
        },
        forecast: Forecast { method: method[node], season, slot },
        reconcile: Duration::from_micros(*reconcile),
        returns: plan.returns,
        ..EscrowSettings::default()
    }
}

/// What a word says, as a number for the hash.
pub(super) fn said(word: &Word) -> u64 {
    match word {
        Word::Fault(delivery) => *delivery as u64,
        Word::Said(Ok(Answer::Held(held))) => 100 + held.hold.number,
        Word::Said(Ok(Answer::Settled(settled))) => 200 + settled.hold.number,
        Word::Said(Ok(Answer::Returned(returned))) => 1_000 + (returned.hold.number << 8 | returned.left),
        Word::Said(Ok(_)) => 300,
        Word::Said(Err(refusal)) => {
            400 + u64::from(refusal.code().as_bytes()[0]) + refusal.code().len() as u64 * 256
        }
    }
}
