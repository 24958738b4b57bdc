//! Three nodes that each believe what they like of who writes which ledger, and one range that does what its conditions
//! say: late, or without telling, where faults make it so.
//!
//! After the faults one node may be gone for ever. Everybody then believes the same, and all that is left is to be sold.

mod audit;
mod range;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::effects::Release as Out;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, DataClass, Effects, HybridTime, Mono, NodeId, Now, PoolName};
use rhumb_topology::{Founding, pool_home};

use self::range::Range;
use crate::escrow::messages::{
    Confirm, CreatePool, Durability, Hold, HoldId, Key, PeerMessage, ReadRow, Refusal, Release,
};
use crate::escrow::settings::EscrowSettings;
use crate::escrow::tenure::{Became, Came, Tenure, Want};
use crate::escrow::{Answer, Book, Effect, Input, Request, Token};

const EPOCH_MS: u64 = 1_763_700_000_000;
/// Until when there are faults, and until when the world runs.
const HEALED_MS: u64 = 30_000;
const END_MS: u64 = 150_000;
const SUPPLY: u64 = 240;
const TTL: Duration = Duration::from_secs(4);
/// Clocks differ by less than this.
const SKEW_MS: u64 = 200;

/// What was tried.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Runs in which a node was lost for good.
    pub(crate) lost: u64,
    /// Times that another node than before began to write a ledger.
    pub(crate) successions: u64,
    /// Writers that found out that they are none any more.
    pub(crate) deposed: u64,
    /// Writes of which nobody knew.
    pub(crate) unsettled: u64,
    /// Writes that took effect, or did not, long after they were given up.
    pub(crate) late: u64,
    /// Holds that were settled by another writer than the one who made them.
    pub(crate) settled_elsewhere: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, more: &Self) {
        self.lost += more.lost;
        self.successions += more.successions;
        self.deposed += more.deposed;
        self.unsettled += more.unsettled;
        self.late += more.late;
        self.settled_elsewhere += more.settled_elsewhere;
    }
}

/// A ledger that a node writes, or wants to. `book` is there once its rows were read.
struct Ledger {
    tenure: Tenure,
    book: Option<Book>,
    barrier: Barrier<Effect>,
    busy: bool,
    callers: BTreeMap<Token, Caller>,
    last_token: u64,
    tick: Option<u64>,
}

/// Which ledger, at which node, since which opening.
type At = (usize, usize, u64);

#[derive(Debug, Clone)]
enum Caller {
    Customer(u64),
    Ledger(At, Token),
    Reader(At, usize, u64),
}

#[derive(Debug, Clone)]
enum Event {
    Applies(At, Want, bool),
    Comes(At, Came),
    Loads(At),
    Says { to: (usize, usize), from: usize, message: PeerMessage },
    Asks { to: (usize, usize), request: Request, caller: Caller, until: u64 },
    Answers(Caller, Option<Result<Answer, Refusal>>),
    Ticks(At),
    Customer,
    Trouble,
    Follows(usize, usize),
    Heals,
}

/// What a customer asked for.
#[derive(Debug, Clone)]
enum Wish {
    Hold,
    Confirm(HoldId),
    Release(HoldId),
}

/// A hold that a customer was told of.
#[derive(Debug, Clone)]
struct Told {
    qty: u64,
    expires: HybridTime,
    /// Whether somebody was asked to confirm, or to release it; whether that was answered.
    confirming: bool,
    releasing: bool,
    sold: bool,
    /// Since which opening its writer was it.
    by: u64,
}

pub(crate) struct World {
    rng: Rng,
    now: u64,
    serial: u64,
    events: BTreeMap<(u64, u64), Event>,
    founding: Founding,
    nodes: Vec<NodeId>,
    pool: PoolName,
    settings: EscrowSettings,
    range: Range,
    alive: Vec<bool>,
    skew: Vec<u64>,
    /// Nodes that do not reach the range, or hear nothing from it.
    cut: BTreeSet<usize>,
    views: Vec<Vec<usize>>,
    ledgers: BTreeMap<(usize, usize), (u64, Ledger)>,
    openings: u64,
    wishes: BTreeMap<u64, Wish>,
    told: BTreeMap<HoldId, Told>,
    tally: Tally,
}

pub(crate) fn run(seed: u64) -> Result<Tally, String> {
    let mut world = World::new(seed);
    world.at(0, Event::Trouble);
    world.at(200, Event::Customer);
    world.at(HEALED_MS, Event::Heals);
    while let Some(((at, _), event)) = world.events.pop_first() {
        if at > END_MS {
            break;
        }
        world.now = at;
        world.act(event)?;
    }
    world.audit(true)?;
    Ok(world.tally)
}

impl World {
    fn new(seed: u64) -> Self {
        let nodes: Vec<NodeId> =
            ["ap/n1", "eu/n1", "us/n1"].map(|name| name.parse().expect("an id")).to_vec();
        let founding = Founding::new(nodes.clone()).expect("three nodes");
        let mut rng = Seed::new(seed).child("succession").rng();
        let skew = nodes.iter().map(|_| rng.below(SKEW_MS)).collect();
        let mut world = Self {
            rng,
            now: 0,
            serial: 0,
            events: BTreeMap::new(),
            alive: vec![true; nodes.len()],
            views: vec![(0..nodes.len()).collect(); nodes.len()],
            nodes,
            founding,
            pool: PoolName::new("concert").expect("valid"),
            settings: EscrowSettings { reconcile: Duration::from_secs(7), ..EscrowSettings::default() },
            range: Range::default(),
            skew,
            cut: BTreeSet::new(),
            ledgers: BTreeMap::new(),
            openings: 0,
            wishes: BTreeMap::new(),
            told: BTreeMap::new(),
            tally: Tally::default(),
        };
        for node in 0..world.nodes.len() {
            world.open(node, node);
        }
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    fn soon(&mut self, low: u64, high: u64, event: Event) {
        let at = self.now + self.rng.between(low, high);
        self.at(at, event);
    }

    fn clock(&self, node: usize) -> Now {
        let ms = self.now + self.skew[node];
        Now { hybrid: HybridTime::new(EPOCH_MS + ms, 0), mono: Mono::millis(1_000 + ms) }
    }

    fn act(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Applies(at, want, tells) => return self.applies(at, want, tells),
            Event::Comes(at, came) => self.comes(at, came)?,
            Event::Loads(at) => self.loads(at)?,
            Event::Ticks(at) => {
                if let Some(ledger) = self.ledger(at) {
                    ledger.tick = None;
                }
                self.step(at, Input::Tick)?;
            }
            Event::Says { to, from, message } => {
                let from = self.nodes[from].clone();
                if let Some(at) = self.opened(to) {
                    self.step(at, Input::Peer { from, message })?;
                }
            }
            Event::Asks { to, request, caller, until } => self.asked(to, request, caller, until)?,
            Event::Answers(caller, answer) => self.answered(caller, answer)?,
            Event::Customer => self.customer(),
            Event::Trouble => self.trouble(),
            Event::Follows(node, owner) => self.follows(node, owner),
            Event::Heals => self.heals(),
        }
        Ok(())
    }

    // ---- who writes ----------------------------------------------------------------------------

    fn opened(&self, of: (usize, usize)) -> Option<At> {
        self.ledgers.get(&of).map(|(opening, _)| (of.0, of.1, *opening))
    }

    fn ledger(&mut self, (node, owner, opening): At) -> Option<&mut Ledger> {
        let (since, ledger) = self.ledgers.get_mut(&(node, owner))?;
        (*since == opening).then_some(ledger)
    }

    fn open(&mut self, node: usize, owner: usize) {
        if !self.alive[node] || self.ledgers.contains_key(&(node, owner)) {
            return;
        }
        self.openings += 1;
        let ledger = Ledger {
            tenure: Tenure::new(self.nodes[node].clone(), self.openings),
            book: None,
            barrier: Barrier::default(),
            busy: false,
            callers: BTreeMap::new(),
            last_token: 0,
            tick: None,
        };
        self.ledgers.insert((node, owner), (self.openings, ledger));
        self.goes_on((node, owner, self.openings));
    }

    /// A node does what it believes.
    fn follows(&mut self, node: usize, owner: usize) {
        if self.views[node][owner] == node {
            self.open(node, owner);
        } else {
            self.ledgers.remove(&(node, owner));
        }
    }

    fn trouble(&mut self) {
        if self.now >= HEALED_MS {
            return;
        }
        let node = self.rng.below(3) as usize;
        match self.rng.below(10) {
            0 if self.alive.iter().all(|alive| *alive) && self.now > 8_000 => {
                self.alive[node] = false;
                self.tally.lost += 1;
                self.ledgers.retain(|(at, _), _| *at != node);
            }
            // It begins again.
            1 => self.ledgers.retain(|(at, _), _| *at != node),
            2 | 3 => drop(self.cut.insert(node)),
            4 => self.cut.clear(),
            _ => {
                let (owner, host) = (self.rng.below(3) as usize, self.rng.below(3) as usize);
                self.views[node][owner] = host;
            }
        }
        for owner in 0..3 {
            for node in 0..3 {
                self.soon(0, 2_500, Event::Follows(node, owner));
            }
        }
        self.soon(200, 2_500, Event::Trouble);
    }

    fn heals(&mut self) {
        self.cut.clear();
        let alive = &self.alive;
        let acts = |owner: usize| (0..3).map(|n| (owner + n) % 3).find(|n| alive[*n]).expect("two are left");
        let view: Vec<usize> = (0..3).map(acts).collect();
        self.views = vec![view; 3];
        for (node, owner) in (0..9).map(|n| (n / 3, n % 3)) {
            self.at(self.now, Event::Follows(node, owner));
        }
    }

    // ---- a ledger and its range ----------------------------------------------------------------

    fn goes_on(&mut self, at: At) {
        let Some(ledger) = self.ledger(at).filter(|ledger| !ledger.busy) else { return };
        let Some(want) = ledger.tenure.want() else { return };
        ledger.busy = true;
        if self.cut.contains(&at.0) && self.rng.chance(0.5) {
            return self.soon(100, 400, Event::Comes(at, Came::Unsettled));
        }
        let faulty = self.now < HEALED_MS;
        if faulty && matches!(want, Want::Write { .. }) && self.rng.chance(0.06) {
            self.tally.late += 1;
            self.soon(50, 300, Event::Comes(at, Came::Unsettled));
            return self.soon(200, 5_000, Event::Applies(at, want, false));
        }
        let is_lost = self.cut.contains(&at.0) || faulty && self.rng.chance(0.08);
        let tells = !is_lost;
        self.soon(1, 40, Event::Applies(at, want, tells));
        if !tells {
            self.tally.unsettled += 1;
            self.soon(100, 400, Event::Comes(at, Came::Unsettled));
        }
    }

    fn applies(&mut self, at: At, want: Want, tells: bool) -> Result<(), String> {
        let owner = self.nodes[at.1].clone();
        let came = match want {
            Want::Look => Came::Head(self.range.head(&owner)),
            Want::Write { when, head, rows } => {
                let written = self.range.write(&owner, when, &head, &rows)?;
                if written.is_some() && head.seq == 0 && head.epoch.0 > 1 {
                    self.tally.successions += 1;
                }
                if written.is_some() && self.range.writes().is_multiple_of(16) {
                    self.audit(false)?;
                }
                written.map_or(Came::Unsettled, Came::Written)
            }
        };
        if tells {
            self.soon(1, 40, Event::Comes(at, came));
        }
        Ok(())
    }

    fn comes(&mut self, at: At, came: Came) -> Result<(), String> {
        let Some(ledger) = self.ledger(at).filter(|ledger| ledger.busy) else { return Ok(()) };
        ledger.busy = false;
        match ledger.tenure.came(came) {
            Became::Same => {}
            Became::Seated => self.soon(1, 60, Event::Loads(at)),
            Became::Durable(ticket) => {
                let mut effects = Vec::new();
                ledger.barrier.durable(ticket, |effect| effects.push(effect));
                for effect in effects {
                    self.perform(at, effect)?;
                }
            }
            Became::Succeeded(_) | Became::Refused(_) => {
                self.tally.deposed += 1;
                self.ledgers.remove(&(at.0, at.1));
                self.soon(500, 1_500, Event::Follows(at.0, at.1));
            }
        }
        self.goes_on(at);
        Ok(())
    }

    fn loads(&mut self, at: At) -> Result<(), String> {
        if self.ledger(at).is_none() {
            return Ok(());
        }
        let owner = self.nodes[at.1].clone();
        let now = self.clock(at.0);
        let rows = self.range.rows(&owner).into_iter();
        let book = Book::in_range(owner, self.founding.clone(), self.settings.clone(), rows, now);
        let mut book = book.map_err(|error| format!("the rows of {}: {error}", self.nodes[at.1]))?;
        let mut out = Effects::with_capacity(rhumb_core::limits::MAX_EFFECTS);
        book.start(now, &Seed::new(at.2).child("secrets"), &mut out);
        if let Some(ledger) = self.ledger(at) {
            ledger.book = Some(book);
        }
        self.settles(at, &mut out)?;
        if pool_home(&self.founding, &self.pool) == &self.nodes[at.1] {
            let request = CreatePool {
                name: self.pool.clone(),
                class: DataClass::new("inventory").expect("valid"),
                supply: SUPPLY,
                weights: BTreeMap::new(),
                debt: 0,
                reserve: None,
                per_customer: None,
                durability: Durability::Quorum,
            };
            let allowed = self.founding.regions().into_iter().cloned().collect();
            self.ask(at, Request::Create { request, allowed }, Caller::Customer(0), self.now + 5_000)?;
        }
        Ok(())
    }

    fn step(&mut self, at: At, input: Input) -> Result<(), String> {
        let now = self.clock(at.0);
        let Some(book) = self.ledger(at).and_then(|ledger| ledger.book.as_mut()) else { return Ok(()) };
        let mut out = Effects::with_capacity(rhumb_core::limits::MAX_EFFECTS);
        book.step(now, input, &mut out);
        self.settles(at, &mut out)
    }

    fn settles(&mut self, at: At, out: &mut crate::escrow::Out) -> Result<(), String> {
        let mut effects = Vec::new();
        let now = self.clock(at.0);
        let Some(ledger) = self.ledger(at) else { return Ok(()) };
        let mut offered = Vec::new();
        ledger.barrier.absorb(out, |release| match release {
            Out::Persist(ticket, batch) => offered.push((ticket, batch)),
            Out::Perform(effect) => effects.push(effect),
        });
        for (ticket, batch) in offered {
            if let Some(durable) = ledger.tenure.offer(ticket, batch) {
                ledger.barrier.durable(durable, |effect| effects.push(effect));
            }
        }
        let deadline = ledger.book.as_ref().and_then(|book| book.next_deadline(now));
        let wait = deadline.map(|at| at.since(now.mono).as_millis() as u64 + 1);
        let due = wait.map(|wait| self.now + wait);
        let Some(ledger) = self.ledger(at) else { return Ok(()) };
        if let Some(due) = due.filter(|due| ledger.tick.is_none_or(|tick| tick > *due)) {
            ledger.tick = Some(due);
            self.at(due, Event::Ticks(at));
        }
        for effect in effects {
            self.perform(at, effect)?;
        }
        self.goes_on(at);
        Ok(())
    }

    fn perform(&mut self, at: At, effect: Effect) -> Result<(), String> {
        let index = |node: &NodeId| self.nodes.iter().position(|one| one == node).expect("a founder");
        match effect {
            Effect::Reply { token, answer } => {
                let Some(caller) = self.ledger(at).and_then(|ledger| ledger.callers.remove(&token)) else {
                    return Ok(());
                };
                if let Caller::Customer(wish) = caller {
                    // What a customer hears is true when it is said.
                    return self.heard(wish, answer, at.2);
                }
                self.soon(1, 60, Event::Answers(caller, Some(answer)));
            }
            Effect::Forward { token, to, request } => {
                let owner = index(&to);
                let host = self.views[at.0][owner];
                let until = self.now + 1_500;
                self.soon(
                    1,
                    60,
                    Event::Asks { to: (host, owner), request, caller: Caller::Ledger(at, token), until },
                );
                self.soon(1_600, 1_700, Event::Answers(Caller::Ledger(at, token), None));
            }
            Effect::Read { pool, to, number, within } => {
                let owner = index(&to);
                let host = self.views[at.0][owner];
                let request = Request::ReadRow(ReadRow { pool });
                let caller = Caller::Reader(at, owner, number);
                let until = self.now + within.as_millis() as u64;
                self.soon(1, 60, Event::Asks { to: (host, owner), request, caller: caller.clone(), until });
                self.at(until, Event::Answers(caller, None));
            }
            Effect::Peer { to, message } => {
                let owner = index(&to);
                let host = self.views[at.0][owner];
                if !self.rng.chance(0.1) {
                    self.soon(1, 60, Event::Says { to: (host, owner), from: at.1, message });
                }
            }
            Effect::Alarm { found, .. } => return Err(format!("a reconciliation: {found:?}")),
        }
        Ok(())
    }

    fn asked(
        &mut self,
        to: (usize, usize),
        request: Request,
        caller: Caller,
        until: u64,
    ) -> Result<(), String> {
        match self.opened(to) {
            Some(at) => self.ask(at, request, caller, until),
            None => Ok(()),
        }
    }

    fn ask(&mut self, at: At, request: Request, caller: Caller, until: u64) -> Result<(), String> {
        let until = self.clock(at.0).mono.plus(Duration::from_millis(until.saturating_sub(self.now)));
        let Some(ledger) = self.ledger(at).filter(|ledger| ledger.book.is_some()) else { return Ok(()) };
        ledger.last_token += 1;
        let token = Token(ledger.last_token);
        ledger.callers.insert(token, caller);
        self.step(at, Input::Ask { token, request, until })
    }

    fn answered(&mut self, caller: Caller, answer: Option<Result<Answer, Refusal>>) -> Result<(), String> {
        match caller {
            Caller::Customer(_) => unreachable!("customers are answered at once"),
            Caller::Ledger(at, token) => {
                let Some(ledger) = self.ledger(at) else { return Ok(()) };
                let Some(caller) = ledger.callers.remove(&token) else { return Ok(()) };
                let refusal = answer.as_ref().and_then(|answer| answer.clone().err());
                match (caller, answer) {
                    (Caller::Customer(wish), Some(answer)) => self.heard(wish, answer, at.2)?,
                    (Caller::Customer(_), None) => {}
                    (caller, answer) => self.soon(1, 60, Event::Answers(caller, answer)),
                }
                self.step(at, Input::Forwarded { token, refusal })
            }
            Caller::Reader(at, owner, number) => {
                let (from, pool) = (self.nodes[owner].clone(), self.pool.clone());
                self.step(at, Input::RowRead { from, pool, number, answer })
            }
        }
    }

    // ---- customers -----------------------------------------------------------------------------

    fn customer(&mut self) {
        self.soon(20, 120, Event::Customer);
        let entry = self.rng.below(3) as usize;
        if !self.alive[entry] {
            return;
        }
        self.serial += 1;
        let wish = self.serial;
        let open = |told: &&HoldId| {
            let one = &self.told[*told];
            !(one.sold || one.confirming || one.releasing)
        };
        let some = self.told.keys().filter(open).nth(self.rng.below(3) as usize).cloned();
        let (wished, owner, request) = match some {
            Some(hold) if self.rng.chance(0.75) => {
                let owner = self.nodes.iter().position(|node| *node == hold.owner).expect("a founder");
                let told = self.told.get_mut(&hold).expect("just found");
                if self.now < HEALED_MS && self.rng.chance(0.2) {
                    told.releasing = true;
                    (Wish::Release(hold.clone()), owner, Request::Release(Release { hold }))
                } else {
                    told.confirming = true;
                    (Wish::Confirm(hold.clone()), owner, Request::Confirm(Confirm { hold }))
                }
            }
            _ => {
                let created_ms = EPOCH_MS + self.now;
                let key =
                    Key::Made { home: self.nodes[entry].clone(), created_ms, nonce: format!("{wish:016x}") };
                let qty = self.rng.between(1, 3);
                let hold =
                    Hold { pool: self.pool.clone(), qty, ttl: Some(TTL), key, hops: 0, customer: None };
                (Wish::Hold, entry, Request::Hold(hold))
            }
        };
        self.wishes.insert(wish, wished);
        let to = (self.views[entry][owner], owner);
        let until = self.now + 3_000;
        self.soon(1, 60, Event::Asks { to, request, caller: Caller::Customer(wish), until });
    }

    fn heard(&mut self, wish: u64, answer: Result<Answer, Refusal>, by: u64) -> Result<(), String> {
        let Some(wish) = self.wishes.remove(&wish) else { return Ok(()) };
        match (wish, answer) {
            (Wish::Hold, Ok(Answer::Held(held))) => {
                let told = Told {
                    qty: held.qty,
                    expires: held.expires,
                    confirming: false,
                    releasing: false,
                    sold: false,
                    by,
                };
                self.told.insert(held.hold.clone(), told);
                self.is_held(&held.hold)
            }
            (Wish::Confirm(hold), Ok(Answer::Settled(_))) => {
                let told = self.told.get_mut(&hold).expect("only what was told is confirmed");
                told.sold = true;
                self.tally.settled_elsewhere += u64::from(told.by != by);
                self.is_held(&hold)
            }
            (Wish::Confirm(hold) | Wish::Release(hold), Err(refusal)) => {
                let told = &self.told[&hold];
                let over = EPOCH_MS + self.now + 2 * SKEW_MS >= told.expires.millis();
                match refusal {
                    Refusal::HoldExpired(_) if over => Ok(()),
                    Refusal::NoSuchHold(_)
                    | Refusal::HoldExpired(_)
                    | Refusal::HoldReleased(_)
                    | Refusal::HoldConfirmed(_) => Err(format!("of the acknowledged hold {hold}: {refusal}")),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
