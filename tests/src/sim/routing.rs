//! Packets, what machines want done, and connections.
//!
//! * It decides: nothing; the network decides what arrives, the machines what is said.
//! * It never does: let a clock take a time that is too far ahead, or answer an ask twice.

use std::time::Duration;

use rhumb_actors::escrow::messages::PeerMessage;
use rhumb_actors::escrow::{Answer, Effect, Input, ReadRow, Refusal, Request, Token};
use rhumb_core::{Delivery, HybridTime, PoolName};

use super::agenda::Micros;
use super::net::Arrivals;
use super::node::{Asked, Caller};
use super::plan::PoolPlan;
use super::violation::{Checked, Invariant, demand};
use super::world::{Event, Times, Word, World, said};

impl World {
    pub(super) fn peer_message(
        &mut self,
        from: usize,
        to: usize,
        sent: HybridTime,
        message: PeerMessage,
    ) -> Checked {
        let now = self.now();
        let node = &self.nodes[to];
        if node.life.is_none() {
            return Ok(());
        }
        node.clock.hear(now, sent);
        let (kind, numbers) = digest(&message);
        self.trace.note(
            now,
            kind,
            &[from as u64, to as u64, numbers[0], numbers[1], numbers[2], numbers[3]],
            || format!("{} → {}: {}", self.nodes[from].id, self.nodes[to].id, brief(&message)),
        );
        let before = self.hear_word(to, from, &message);
        let ignored = |world: &Self| world.nodes[to].life.as_ref().map(|life| life.book.ignored());
        let passed_over = ignored(self);
        let id = self.nodes[from].id.clone();
        self.step(to, Input::Peer { from: id, message })?;
        if let Some(before) = before.filter(|_| ignored(self) != passed_over) {
            self.unhear(to, from, before);
        }
        Ok(())
    }

    pub(super) fn ask(
        &mut self,
        to: usize,
        caller: Caller,
        sent: Option<HybridTime>,
        within: Micros,
        request: Request,
    ) -> Checked {
        let now = self.now();
        if self.nodes[to].life.is_none() {
            // Nobody listens: some callers are told, others wait in vain.
            if self.mischief.coin() {
                self.reply(to, caller, Times::default(), Word::Fault(Delivery::NotSent));
            }
            return Ok(());
        }
        let node = &mut self.nodes[to];
        if let Some(sent) = sent {
            node.clock.hear(now, sent);
        }
        let (kind, number) = asked(&request);
        self.trace
            .note(now, kind, &[to as u64, number], || format!("{caller:?} asks {}: {request:?}", node.id));
        let until = node.clock.mono(now).plus(Duration::from_micros(within));
        if let Request::Hold(hold) = &request {
            self.note_demand(to, hold);
        }
        let pools = &self.plan.pools;
        let pool =
            pools.iter().position(|pool| pool.bodies[0].name == *request.pool()).expect("one of the plan's");
        let life = self.nodes[to].life.as_mut().expect("it lives");
        let input = life.asked(Asked { caller, pool, until: now + within }, request, until);
        self.step(to, input)
    }

    pub(super) fn answer(&mut self, caller: Caller, from: usize, times: Times, word: Word) -> Checked {
        match caller {
            Caller::Outside { call, .. } => self.heard(call, times.said, word),
            Caller::Node { node, life, forward } if self.lives(node, life) => {
                let now = self.now();
                let asker = &mut self.nodes[node];
                asker.clock.hear(now, times.sent);
                let life = asker.life.as_mut().expect("it lives");
                if let Some(token) = life.forwards.remove(&forward) {
                    self.trace.note(now, "passed", &[node as u64, from as u64, said(&word)], || {
                        format!("{} → {}: {word:?}", self.nodes[from].id, self.nodes[node].id)
                    });
                    return self.passed_on(node, token, Some(times.said), word);
                }
                Ok(())
            }
            Caller::Reader { node, life, pool, number } if self.lives(node, life) => {
                let (now, Word::Said(answer)) = (self.now(), word) else { return Ok(()) };
                self.nodes[node].clock.hear(now, times.sent);
                self.row_read(node, from, pool, number, Some(answer))
            }
            Caller::Node { .. } | Caller::Reader { .. } => Ok(()),
        }
    }

    pub(super) fn forward_over(&mut self, node: usize, forward: u64) -> Checked {
        let life = self.nodes[node].life.as_mut().expect("checked by the caller");
        if let Some(token) = life.forwards.remove(&forward) {
            return self.passed_on(node, token, None, Word::Fault(Delivery::Unknown));
        }
        Ok(())
    }

    /// Answers whoever asked under this token, with what was said here or at this time elsewhere.
    fn end_ask(&mut self, node: usize, token: u64, elsewhere: Option<HybridTime>, word: Word) {
        let now = self.now();
        let Some(life) = &mut self.nodes[node].life else { return };
        if let Some(ask) = life.asks.remove(&token) {
            let sent = self.nodes[node].now(now).hybrid;
            self.reply(node, ask.caller, Times { sent, said: elsewhere.unwrap_or(sent) }, word);
        }
    }

    fn reply(&mut self, from: usize, caller: Caller, times: Times, word: Word) {
        let now = self.now();
        let arrivals = match caller {
            Caller::Outside { region, .. } => self.net.with_customer(now, region, from),
            Caller::Node { node, .. } | Caller::Reader { node, .. } => {
                self.net.between_nodes(now, from, node)
            }
        };
        self.deliver(arrivals, |word| Event::Answer { caller, from, times, word }, word);
    }

    fn deliver<T: Clone>(&mut self, arrivals: Arrivals, event: impl Fn(T) -> Event, what: T) {
        match arrivals {
            [Some(first), Some(second)] => {
                self.agenda.at(first, event(what.clone()));
                self.agenda.at(second, event(what));
            }
            [Some(at), None] | [None, Some(at)] => self.agenda.at(at, event(what)),
            [None, None] => {}
        }
    }

    /// A caller outside sends a request.
    pub(super) fn send_request(
        &mut self,
        region: usize,
        to: usize,
        call: usize,
        within: Micros,
        request: Request,
    ) {
        let arrivals = self.net.with_customer(self.now(), region, to);
        let caller = Caller::Outside { call, region };
        self.deliver(arrivals, |request| Event::Ask { to, caller, sent: None, within, request }, request);
    }

    // ---- what machines want done -----------------------------------------------------------------

    pub(super) fn perform(&mut self, node: usize, effect: Effect) -> Checked {
        let now = self.now();
        match effect {
            Effect::Reply { token: Token(token), answer } => {
                self.end_ask(node, token, None, Word::Said(answer));
            }
            Effect::Peer { to, message } => {
                let to = self.number(&to);
                if self.connected(node, to) || !self.plan.faults.strict {
                    let sent = self.nodes[node].now(now).hybrid;
                    let arrivals = self.net.between_nodes(now, node, to);
                    self.deliver(arrivals, |message| Event::Peer { from: node, to, sent, message }, message);
                }
            }
            Effect::Read { pool, to, number, within } => {
                let to = self.number(&to);
                self.read(node, to, pool, number, within)?;
            }
            Effect::Alarm { pool, found } => {
                return demand(false, Invariant::Reconciled, || {
                    format!("node {node} reconciled {pool} and found {found:?}")
                });
            }
            Effect::Forward { token: Token(token), to, request, .. } => {
                let to = self.number(&to);
                self.forward(node, token, to, request)?;
            }
        }
        Ok(())
    }

    /// A home asks a node for its row of a pool.
    fn read(&mut self, node: usize, to: usize, name: PoolName, number: u64, within: Duration) -> Checked {
        let of_plan = |pool: &PoolPlan| pool.bodies[0].name == name;
        let pool = self.plan.pools.iter().position(of_plan).expect("one of the plan's");
        if !self.connected(node, to) {
            return self.row_read(node, to, pool, number, None);
        }
        let now = self.now();
        let life = self.nodes[node].lives;
        let sent = Some(self.nodes[node].now(now).hybrid);
        let within = within.as_micros() as Micros;
        let caller = Caller::Reader { node, life, pool, number };
        self.agenda.after(within, Event::ReadOver { node, life, from: to, pool, number });
        let arrivals = self.net.between_nodes(now, node, to);
        let request = Request::ReadRow(ReadRow { pool: name });
        self.deliver(arrivals, |request| Event::Ask { to, caller, sent, within, request }, request);
        Ok(())
    }

    /// What came of a reading.
    pub(super) fn row_read(
        &mut self,
        node: usize,
        from: usize,
        pool: usize,
        number: u64,
        answer: Option<Result<Answer, Refusal>>,
    ) -> Checked {
        let (from, pool) = (self.nodes[from].id.clone(), self.plan.pools[pool].bodies[0].name.clone());
        self.step(node, Input::RowRead { from, pool, number, answer })
    }

    fn forward(&mut self, node: usize, token: u64, to: usize, request: Request) -> Checked {
        if !self.connected(node, to) {
            return self.passed_on(node, token, None, Word::Fault(Delivery::NotSent));
        }
        let now = self.now();
        let lives = self.nodes[node].lives;
        let sent = Some(self.nodes[node].now(now).hybrid);
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        let Some(within) = life.asks.get(&token).map(|ask| ask.until.saturating_sub(now)) else {
            return Ok(());
        };
        let forward = life.forwarded(token);
        let caller = Caller::Node { node, life: lives, forward };
        self.agenda.after(within, Event::ForwardOver { node, life: lives, forward });
        let arrivals = self.net.between_nodes(now, node, to);
        self.deliver(arrivals, |request| Event::Ask { to, caller, sent, within, request }, request);
        Ok(())
    }

    /// What was passed on came back, or did not: the caller is told, then the machine.
    fn passed_on(&mut self, node: usize, token: u64, said: Option<HybridTime>, word: Word) -> Checked {
        let refusal = match &word {
            Word::Said(answer) => answer.as_ref().err().cloned(),
            Word::Fault(_) => None,
        };
        self.end_ask(node, token, said, word);
        self.step(node, Input::Forwarded { token: Token(token), refusal })
    }

    pub(super) fn check_sold_out(&self, node: usize, token: u64) -> Checked {
        let ask = self.nodes[node].life.as_ref().and_then(|life| life.asks.get(&token));
        ask.map_or(Ok(()), |ask| self.audits[ask.pool].sold_out(node))
    }

    // ---- connections -----------------------------------------------------------------------------

    fn connected(&self, node: usize, peer: usize) -> bool {
        let life = self.nodes[node].life.as_ref();
        life.is_some_and(|life| life.links[peer] == Some(self.nodes[peer].lives))
    }

    /// A node will notice, after a while, how things stand with a peer.
    pub(super) fn notice(&mut self, node: usize, peer: usize) {
        let whole = self.whole(node, peer);
        let wait = self.mischief.notices(whole);
        self.agenda.after(wait, Event::Link { node, peer });
    }

    /// Whether there can be a connection: it needs both directions.
    fn whole(&self, node: usize, peer: usize) -> bool {
        self.nodes[node].life.is_some()
            && self.nodes[peer].life.is_some()
            && self.net.open(node, peer)
            && self.net.open(peer, node)
    }

    /// A node's machine is about to be told whether a peer can be reached.
    fn tells(&mut self, node: usize, peer: usize, up: bool) {
        if let Some(life) = &mut self.nodes[node].life {
            life.told_up[peer] = up;
        }
    }

    pub(super) fn link(&mut self, node: usize, peer: usize) -> Checked {
        let whole = self.whole(node, peer).then_some(self.nodes[peer].lives);
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        let before = std::mem::replace(&mut life.links[peer], whole);
        // A dial that failed is told, also when there was no connection before.
        if before == whole && whole.is_some() {
            return Ok(());
        }
        let now = self.now();
        self.trace.note(now, "link", &[node as u64, peer as u64, u64::from(whole.is_some())], || {
            let state = if whole.is_some() { "up" } else { "down" };
            format!("{} sees {} {state}", self.nodes[node].id, self.nodes[peer].id)
        });
        let id = self.nodes[peer].id.clone();
        if before.is_some() || whole.is_none() {
            self.tells(node, peer, false);
            self.step(node, Input::PeerDown(id.clone()))?;
        }
        if whole.is_some() {
            self.tells(node, peer, true);
            self.step(node, Input::PeerUp(id))?;
        }
        Ok(())
    }
}

/// A message in numbers, for the hash.
fn digest(message: &PeerMessage) -> (&'static str, [u64; 4]) {
    match message {
        PeerMessage::Level(l) => {
            let debt = l.debt.granted << 40 ^ l.debt.accepted << 20 ^ l.debt.need;
            let figures = l.figures.consumed ^ l.figures.available << 20 ^ l.figures.returned << 40;
            ("level", [l.granted, l.accepted, l.need ^ debt, figures])
        }
        PeerMessage::Beat(b) => ("beat", [b.incarnation.0, b.durable, u64::from(b.prove), 0]),
        PeerMessage::Witnessed(w) => ("witness", [w.incarnation.0, w.highest, 0, 0]),
        PeerMessage::Disown(d) => ("disown", [d.before.0, 0, 0, 0]),
        PeerMessage::Disowned(d) => ("disowned", [d.before.0, d.accepted, d.granted, d.standing as u64]),
    }
}

fn brief(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Level(l) => format!(
            "{} granted={} accepted={} need={} life={:x} {:?} {:?}",
            l.spec.name, l.granted, l.accepted, l.need, l.incarnation.0, l.figures, l.debt
        ),
        other => format!("{other:?}"),
    }
}

fn asked(request: &Request) -> (&'static str, u64) {
    match request {
        Request::Create { request, .. } => ("create", request.supply),
        Request::Show(_) => ("show", 0),
        Request::ReadRow(_) => ("row", 0),
        Request::Hold(hold) => ("hold", hold.qty << 8 | u64::from(hold.hops)),
        Request::Confirm(confirm) => ("confirm", confirm.hold.number),
        Request::Release(release) => ("release", release.hold.number),
        Request::Return(request) => ("return", request.hold.number << 8 | request.qty.unwrap_or(0)),
        Request::Attest(attest) => ("attest", attest.sold),
    }
}
