//! One pool on one node: its ledger, what peers last said of it, and who waits for units.
//!
//! * It decides: when a peer is to be told something, and whom to ask for rights (by the policy's
//!   plan).
//! * It never does: change a right except through the ledger, or remember anything that a crash may
//!   not take: all of it besides the ledger is relearned.
//! * Invariant: what is said is cumulative or the latest, so every message may be lost, doubled or
//!   late.

mod customer;
mod debt;
mod planning;
mod reserve;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::{HybridTime, Incarnation, Mono, NodeId, Now};

use super::book::Token;
use super::forecast::{AskedLately, Forecast, Forecaster, per_second};
use super::ledger::Ledger;
use super::levelled::Levelled;
use super::messages::{
    DebtFigures, DebtLevel, Figures, Hold, Key, Level, PoolSpec, PoolView, Refusal, Row, Standing, Tallies,
};
use super::policy::Known;
use super::reconcile::Reconciliation;
use super::records::{LinkRow, Right};
use super::settings::EscrowSettings;

/// A hold that waits for units.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) token: Token,
    pub(crate) hold: Hold,
    pub(crate) until: Mono,
}

/// What was last said to a peer, and when.
#[derive(Debug, Clone, Copy)]
struct Said {
    at: Mono,
    figures: Figures,
}

/// What stands between this node and one other of the pool, besides rights.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// What it says it has accepted from here, ever.
    pub(crate) acknowledged: u64,
    /// What it is asked to have granted here, ever; no more than was accepted: nothing is asked.
    need: u64,
    /// The most it is known to have sold.
    pub(crate) consumed: u64,
    /// The most it is known to have got back after its sale.
    pub(crate) returned: u64,
    pub(crate) debt: DebtLine,
    pub(crate) heard: Option<(Mono, Figures)>,
    /// It can not be reached.
    pub(crate) down: bool,
    said: Option<Said>,
    /// Something is new to it.
    news: bool,
    /// Since when it has been told that something is needed.
    needed: Option<Mono>,
    /// What it last asked for in vain, units and debt rights, and when it was answered.
    in_vain: Option<((u64, u64), Mono)>,
}

/// The same of debt rights.
#[derive(Debug, Default)]
pub(crate) struct DebtLine {
    pub(crate) acknowledged: u64,
    need: u64,
    pub(crate) consumed: u64,
    pub(crate) returned: u64,
}

/// One pool on one node.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) home: NodeId,
    pub(crate) ledger: Ledger,
    pub(crate) lines: BTreeMap<NodeId, Line>,
    demand: Box<dyn Forecaster>,
    ahead: Duration,
    pub(crate) parked: VecDeque<Parked>,
    /// Holds on their way to the pool's home, and until when.
    pub(crate) forwards: BTreeMap<Token, Mono>,
    /// The home said that it has nothing: believed until then.
    pub(crate) home_empty_until: Mono,
    pub(crate) tallies: Tallies,
    pub(crate) standing: Standing,
    pub(crate) levelled: Levelled,
    pub(crate) reconciliation: Reconciliation,
    /// At its home, whether it was in its tail when that was last looked at; elsewhere, the home's last word.
    in_tail: bool,
    /// Keys whose demand was counted lately.
    counted: AskedLately,
    planned: Option<Mono>,
    asked: Option<Mono>,
    /// When it is to be looked at again: its entry in the book's timers.
    pub(crate) wake: Option<Mono>,
}

impl Pool {
    pub(crate) fn new(home: NodeId, ledger: Ledger, others: Vec<NodeId>, settings: &EscrowSettings) -> Self {
        let reconciliation = Reconciliation::new(&ledger);
        Self {
            home,
            ledger,
            lines: others.into_iter().map(|node| (node, Line::default())).collect(),
            demand: settings.forecast.begin(),
            ahead: settings.level.horizon,
            parked: VecDeque::new(),
            forwards: BTreeMap::new(),
            home_empty_until: Mono::default(),
            tallies: Tallies::default(),
            standing: Standing::Unproven,
            levelled: Levelled::default(),
            reconciliation,
            in_tail: false,
            counted: AskedLately::default(),
            planned: None,
            asked: None,
            wake: None,
        }
    }

    pub(crate) fn supply(&self) -> u64 {
        self.ledger.pool().supply
    }

    /// Units not known to be sold, by all nodes' own counts. It falls as units are sold, and rises only
    /// when some are returned.
    pub(crate) fn unsold(&self) -> u64 {
        let own = self.ledger.counts().of(Right::Unit);
        let sold = self.lines.values().map(|line| line.consumed.saturating_sub(line.returned)).sum::<u64>()
            + own.consumed.saturating_sub(own.returned);
        self.supply().saturating_sub(sold)
    }

    /// Whether this node is the pool's home.
    pub(crate) fn is_home(&self) -> bool {
        !self.lines.contains_key(&self.home)
    }

    /// Whether the home owns what is left. Only the home finds that out: two nodes may know of different
    /// sales for ever, where one that sold is lost. Never in a pool that limits what one customer may have:
    /// there holds are decided at their customers' homes, and units go to them.
    pub(crate) fn is_tail(&self, settings: &EscrowSettings) -> bool {
        if !self.is_home() {
            return self.in_tail;
        }
        self.ledger.pool().more.per_customer.is_none()
            && !self.lines.is_empty()
            && settings.level.is_tail(self.unsold(), self.lines.len() + 1, self.in_tail)
    }

    /// Takes the home's word on the tail.
    pub(crate) fn heard_of_tail(&mut self, from: &NodeId, tail: bool) {
        if *from == self.home {
            self.in_tail = tail;
        }
    }

    /// Remembers whether it is in its tail now: it leaves it later than it enters it. Its home tells all
    /// others when that changes.
    pub(crate) fn look_at_tail(&mut self, settings: &EscrowSettings) {
        let is = self.is_tail(settings);
        if is != self.in_tail {
            self.in_tail = is;
            self.lines.values_mut().for_each(|line| line.news = true);
        }
    }

    pub(crate) fn may_spend(&self) -> bool {
        self.standing == Standing::Proven
    }

    /// What this node says of itself.
    pub(crate) fn figures(&mut self, now: Mono) -> Figures {
        let if_proven = |units| if self.may_spend() { units } else { 0 };
        let available = if_proven(self.ledger.available(Right::Unit));
        let (units, debt) = (self.ledger.counts().of(Right::Unit), self.ledger.counts().of(Right::Debt));
        Figures {
            consumed: units.consumed,
            available,
            held: self.ledger.holds().held(Right::Unit),
            returned: units.returned,
            reserved: self.ledger.reserve_left().min(available),
            debt: DebtFigures {
                consumed: debt.consumed,
                returned: debt.returned,
                available: if_proven(self.ledger.available(Right::Debt)),
                held: self.ledger.holds().held(Right::Debt),
            },
            demand: self.demand(now).min(MAX_SUPPLY),
        }
    }

    /// So many units are asked for now, under this key. Asked for again they are no demand again.
    pub(crate) fn asked_for(&mut self, now: Mono, key: &Key, units: u64) {
        if self.counted.is_new(key) || canary::sings(Canary::RetryIsDemand) {
            self.demand.observe(now, units);
        }
    }

    /// Units a second that will be asked for within the horizon.
    pub(crate) fn demand(&mut self, now: Mono) -> u64 {
        per_second(self.demand.as_mut(), now, self.ahead)
    }

    /// Goes on under other settings. Another forecaster begins without what the last one saw.
    pub(crate) fn configure(&mut self, before: &Forecast, settings: &EscrowSettings) {
        self.ahead = settings.level.horizon;
        if settings.forecast != *before {
            self.demand = settings.forecast.begin();
        }
    }

    pub(crate) fn row(&self, settings: &EscrowSettings) -> Row {
        Row {
            tallies: self.tallies.clone(),
            standing: self.standing,
            receipts: self.reconciliation.receipts(),
            reserved: self.reserved(settings),
            ..self.ledger.row()
        }
    }

    pub(crate) fn view(&self, me: &NodeId, now: Mono, settings: &EscrowSettings) -> PoolView {
        let heard = |(node, line): (&NodeId, &Line)| {
            line.heard.map(|(at, figures)| (node.clone(), (figures, now.since(at))))
        };
        PoolView {
            spec: self.ledger.spec(),
            home: self.home.clone(),
            node: me.clone(),
            row: self.row(settings),
            others: self.lines.iter().filter_map(heard).collect(),
            tail: self.is_tail(settings),
            reconciled: self.reconciliation.last(now),
        }
    }

    /// Counts a refused hold.
    pub(crate) fn refused(&mut self, refusal: &Refusal, qty: u64) {
        *self.tallies.refused.entry(refusal.code().to_owned()).or_default() += 1;
        let short =
            matches!(refusal, Refusal::SoldOut | Refusal::Exhausted { .. } | Refusal::Overloaded { .. });
        let spare = |line: &Line| line.heard.is_some_and(|(_, figures)| figures.available >= qty);
        if short && self.lines.values().any(spare) {
            self.tallies.false_refusals += 1;
        }
    }

    // ---- levelling -----------------------------------------------------------------------------

    /// Something is new to this peer: it is told at once.
    pub(crate) fn tell(&mut self, peer: &NodeId) {
        if let Some(line) = self.lines.get_mut(peer) {
            line.news = true;
        }
    }

    /// A peer asked for what there is not to give: it waits for a word, and is told once. Two nodes that
    /// both want what neither has would answer each other for ever.
    pub(crate) fn tell_in_vain(&mut self, peer: &NodeId, asked: (u64, u64), now: Mono, again: Duration) {
        let Some(line) = self.lines.get_mut(peer) else { return };
        if line.in_vain.is_none_or(|(before, at)| before != asked || now >= at.plus(again)) {
            line.in_vain = Some((asked, now));
            line.news = true;
        }
    }

    /// Units that those who wait want.
    fn wanted(&self) -> u64 {
        self.parked.iter().map(|parked| parked.hold.qty).fold(0, u64::saturating_add)
    }

    /// Whether all of those who wait are to be answered now, units or none: this node may sell nothing, has
    /// nothing left to wait for, or has to pass them on.
    pub(crate) fn keeps_nobody(&self, now: Mono, settings: &EscrowSettings) -> bool {
        !self.may_spend()
            || self.is_sold_out()
            || (self.is_tail(settings) && !self.is_home())
            || self.is_hopeless(now, settings)
    }

    /// Units that a hold may find here, those on debt among them.
    pub(crate) fn to_be_had(&self, settings: &EscrowSettings) -> u64 {
        self.sellable(settings).saturating_add(self.ledger.available(Right::Debt))
    }

    /// Whether no unit can come from any other node now: each has just said so, or cannot be reached.
    pub(crate) fn is_dry(&self, now: Mono, settings: &EscrowSettings) -> bool {
        let dry = |known: Known| settings.level.spare(known) == 0;
        self.lines.values().all(|line| line.down || line.known(now, settings.fresh).is_some_and(dry))
    }

    /// Whether nothing at all can come from any other node now, on debt neither.
    pub(crate) fn is_hopeless(&self, now: Mono, settings: &EscrowSettings) -> bool {
        self.is_dry(now, settings) && self.no_debt_can_come(now, settings)
    }

    /// The messages that are due to other nodes of the pool.
    pub(crate) fn levels(
        &mut self,
        now: Mono,
        life: Incarnation,
        settings: &EscrowSettings,
    ) -> Vec<(NodeId, Level)> {
        // A node that does not know its own rights has nothing to say of them.
        if !self.may_spend() {
            return Vec::new();
        }
        let figures = self.figures(now);
        let (gossip, tail) = (self.gossip(settings), self.is_tail(settings));
        let mut spec: Option<PoolSpec> = None;
        let mut levels = Vec::new();
        for (node, line) in &mut self.lines {
            let row = self.ledger.link(node);
            if line.due(&row, figures, gossip, settings) > now {
                continue;
            }
            (line.said, line.news) = (Some(Said { at: now, figures }), false);
            if line.need > row.units.accepted {
                line.needed.get_or_insert(now);
            }
            let level = Level {
                spec: spec.get_or_insert_with(|| self.ledger.spec()).clone(),
                incarnation: life,
                granted: row.units.granted,
                accepted: row.units.accepted,
                need: line.need.max(row.units.accepted),
                figures,
                debt: DebtLevel {
                    granted: row.more.granted,
                    accepted: row.more.accepted,
                    need: line.debt.need.max(row.more.accepted),
                },
                tail,
            };
            levels.push((node.clone(), level));
        }
        levels
    }

    fn gossip(&self, settings: &EscrowSettings) -> Duration {
        if self.is_tail(settings) { settings.tail_gossip } else { settings.gossip }
    }

    /// When this pool is to be looked at again.
    pub(crate) fn next_wake(&mut self, now: Now, settings: &EscrowSettings) -> Option<Mono> {
        let at = |time: HybridTime| mono_of(now, time);
        let parked = self.parked.iter().map(|parked| parked.until).min();
        let forgotten = self
            .ledger
            .holds()
            .next_forgotten(settings.returns)
            .map(|time| at(time).plus(Duration::from_millis(1)));
        let figures = self.figures(now.mono);
        let planning = !self.parked.is_empty() || figures.demand > 0;
        let spacing =
            if self.parked.is_empty() { settings.level.plan_spacing } else { settings.level.ask_spacing };
        let plan = self.planned.filter(|_| planning && self.may_spend()).map(|planned| planned.plus(spacing));
        let expiry = self.ledger.holds().next_deadline().filter(|_| self.may_spend()).map(at);
        // What may not be said yet is not due: a pool that is due and says nothing would be due for ever.
        let told = self.may_spend().then(|| self.next_level(figures, settings)).flatten();
        let reconcile = self.reconciliation.next_deadline();
        [parked, forgotten, plan, expiry, told, reconcile].into_iter().flatten().min()
    }

    fn next_level(&self, figures: Figures, settings: &EscrowSettings) -> Option<Mono> {
        let gossip = self.gossip(settings);
        let due = |(node, line): (&NodeId, &Line)| {
            let row = self.ledger.link(node);
            line.due(&row, figures, gossip, settings)
        };
        self.lines.iter().map(due).min()
    }
}

impl Line {
    /// Whether the peer was told all that is new.
    pub(crate) fn told(&self) -> bool {
        self.said.is_some() && !self.news
    }

    /// Rights granted to the peer that it has not acknowledged.
    fn in_transit(&self, granted: u64) -> u64 {
        granted.saturating_sub(self.acknowledged)
    }

    /// Whether the peer has spoken since it was last told something.
    fn has_answered(&self) -> bool {
        let heard = self.heard.map(|(at, _)| at);
        heard >= self.said.map(|said| said.at)
    }

    /// What is known of the peer now: nothing, if it has been silent.
    fn known(&self, now: Mono, fresh: Duration) -> Option<Known> {
        let figures = self.fresh(now, fresh)?;
        Some(Known { available: figures.available, demand: figures.demand })
    }

    fn fresh(&self, now: Mono, fresh: Duration) -> Option<Figures> {
        let (at, figures) = self.heard.filter(|_| !self.down)?;
        (now.since(at) < fresh).then_some(figures)
    }

    /// When the peer is to be told again. Said often while it matters, and seldom when nothing changes.
    fn due(&self, row: &LinkRow, figures: Figures, gossip: Duration, settings: &EscrowSettings) -> Mono {
        let Some(said) = self.said.filter(|_| !self.news) else { return Mono::default() };
        let open = row.units.granted > self.acknowledged || self.need > row.units.accepted;
        let owed = row.more.granted > self.debt.acknowledged || self.debt.need > row.more.accepted;
        if open || owed {
            said.at.plus(settings.resend)
        } else if said.figures != figures || figures.demand > 0 {
            said.at.plus(gossip)
        } else {
            said.at.plus(settings.idle_gossip)
        }
    }
}

/// When a hybrid time will be reached, if clocks run alike.
pub(crate) fn mono_of(now: Now, time: HybridTime) -> Mono {
    now.mono.plus(Duration::from_millis(time.millis().saturating_sub(now.hybrid.millis())))
}
