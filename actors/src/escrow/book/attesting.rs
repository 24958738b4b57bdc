//! A restored node comes back: an operator says what it had sold, and every peer first refuses what
//! its lost lives may still have under way, then says what it knows.
//!
//! * It decides: when every peer has vouched, and when none of that can come of a round.
//! * It never does: take a count from a peer whose own disk is not proven in that pool.
//! * Invariant: who vouches was proven when it did. If its disk is put back later it must be attested, and
//!   learns then, from the node that it vouched for, which lives to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Incarnation, Mono, NodeId, Now, PoolName};
use rhumb_storage::Batch;

use super::{Answer, Book, Effect, Out, Request, Token, persist};
use crate::escrow::ledger::attest::Word;
use crate::escrow::messages::{
    AttestPool, DebtWord, Disown, Disowned, PeerMessage, PoolAttested, Refusal, Standing,
};
use crate::escrow::pool::Pool;

/// A peer that has not answered is asked again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// Operators who may wait for one pool at the same time.
const MAX_WAITERS: usize = 64;

/// Peers are asked what they know of one pool.
#[derive(Debug)]
pub(super) struct Round {
    sold: u64,
    answers: BTreeMap<NodeId, Disowned>,
    /// Who has answered and may not vouch, and why not.
    unable: BTreeMap<NodeId, Standing>,
    waiters: Vec<(Token, Mono)>,
    asked: Option<Mono>,
}

impl Round {
    fn begin_again(&mut self) {
        self.answers.clear();
        self.unable.clear();
        self.asked = None;
    }

    /// Takes down what a peer said. Of one whose own disk is not believed, that it can not vouch.
    fn hear(&mut self, from: &NodeId, said: Disowned) {
        self.unable.remove(from);
        if said.standing == Standing::Proven {
            self.answers.insert(from.clone(), said);
        } else if !self.answers.contains_key(from) {
            self.unable.insert(from.clone(), said.standing);
        }
    }

    /// Why nothing can come of it now, if a peer has said so: of those who will not be proven by waiting,
    /// or of any.
    fn hindered(&self, for_good: bool) -> Option<Refusal> {
        let lasting = |standing: &Standing| !for_good || *standing == Standing::Restored;
        let (node, standing) = self.unable.iter().find(|(_, standing)| lasting(standing))?;
        Some(Refusal::CannotVouch { node: node.clone(), standing: *standing })
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let again = self.asked.map_or(Mono::default(), |asked| asked.plus(AGAIN));
        self.waiters.iter().map(|(_, until)| *until).chain([again]).min()
    }
}

impl Book {
    pub(super) fn attest(&mut self, now: Now, token: Token, attest: AttestPool, until: Mono, out: &mut Out) {
        if attest.node != self.site.me && self.site.founding.contains(&attest.node) {
            let to = attest.node.clone();
            return out.send(Effect::Forward { token, to, request: Request::Attest(attest) });
        }
        let name = attest.pool.clone();
        match self.may_attest(attest) {
            Ok(Some(row)) => out.send(Effect::Reply { token, answer: Ok(Answer::Attested(Box::new(row))) }),
            Ok(None) => {
                let round = self.rounds.get_mut(&name).expect("a round was opened for it");
                round.waiters.push((token, until));
                self.waiting.insert(token, name);
                self.press_rounds(now, out);
                self.conclude_rounds(now, out);
            }
            Err(refusal) => out.send(Effect::Reply { token, answer: Err(refusal) }),
        }
    }

    /// The answer, if it was given before; nothing, if a round is open now.
    fn may_attest(&mut self, attest: AttestPool) -> Result<Option<PoolAttested>, Refusal> {
        let AttestPool { pool: name, node, sold } = attest;
        if node != self.site.me {
            return Err(Refusal::Invalid(format!("{node} is not a node of this mesh")));
        }
        let pool = self.pools.get(&name);
        match pool.map_or_else(|| self.custody.standing(), |pool| pool.standing) {
            Standing::Unproven => return Err(Refusal::Unproven),
            Standing::Proven => return self.attested_before(name, sold).map(Some),
            Standing::Restored => {}
        }
        let round = self.rounds.entry(name).or_insert_with(|| Round {
            sold,
            answers: BTreeMap::new(),
            unable: BTreeMap::new(),
            waiters: Vec::new(),
            asked: None,
        });
        if round.sold != sold {
            return Err(Refusal::Invalid(format!(
                "{} sold is being attested already: wait for it",
                round.sold
            )));
        }
        if round.waiters.len() >= MAX_WAITERS {
            return Err(Refusal::Overloaded { retry_after: AGAIN });
        }
        Ok(None)
    }

    fn attested_before(&self, name: PoolName, sold: u64) -> Result<PoolAttested, Refusal> {
        let Some(pool) = self.pools.get(&name) else { return Err(Refusal::NoSuchPool(name)) };
        match pool.ledger.counts().attested {
            Some(attested) if attested == sold => {
                Ok(PoolAttested { pool: name, row: pool.row(&self.site.settings) })
            }
            _ => Err(Refusal::Invalid(format!(
                "{} does not run on a restored disk: there is nothing to attest",
                self.site.me
            ))),
        }
    }

    /// Asks who has not answered, and lets go who waited long enough.
    pub(super) fn press_rounds(&mut self, now: Now, out: &mut Out) {
        let before = self.custody.life();
        for (name, round) in &mut self.rounds {
            let late: Vec<Token> = round
                .waiters
                .iter()
                .filter(|(_, until)| *until <= now.mono)
                .map(|(token, _)| *token)
                .collect();
            round.waiters.retain(|(token, _)| !late.contains(token));
            for token in late {
                self.waiting.remove(&token);
                let answer = Err(round.hindered(false).unwrap_or(Refusal::Overloaded { retry_after: AGAIN }));
                out.send(Effect::Reply { token, answer });
            }
            if round.asked.is_some_and(|asked| now.mono < asked.plus(AGAIN)) {
                continue;
            }
            round.asked = Some(now.mono);
            for node in self.site.founding.nodes() {
                if *node != self.site.me && !round.answers.contains_key(node) {
                    let message = PeerMessage::Disown(Disown { before, pool: name.clone() });
                    out.send(Effect::Peer { to: node.clone(), message });
                }
            }
        }
        self.rounds.retain(|_, round| !round.waiters.is_empty());
    }

    pub(super) fn drop_waiter(&mut self, name: &PoolName, token: Token) {
        let Some(round) = self.rounds.get_mut(name) else { return };
        round.waiters.retain(|(waiter, _)| *waiter != token);
        if round.waiters.is_empty() {
            self.rounds.remove(name);
        }
    }

    /// A peer wants its earlier lives refused: durably, and only then it is told what is known here. A
    /// node whose own disk is not believed says only that.
    pub(super) fn disown(&mut self, now: Now, from: &NodeId, disown: &Disown, out: &mut Out) {
        let mut batch = Batch::new();
        self.custody.disown(now.mono, from, disown.before, &mut batch);
        persist(batch, out);
        let pool = self.pools.get(&disown.pool);
        let in_pool = |pool: &Pool| self.custody.standing_in(pool.ledger.counts().cleared);
        let standing = pool.map_or_else(|| self.custody.standing(), in_pool);
        let standing = if canary::sings(Canary::RestoredVouches) { Standing::Proven } else { standing };
        let pool = pool.filter(|_| standing == Standing::Proven);
        let link = pool.map(|pool| pool.ledger.link(from)).unwrap_or_default();
        let line = pool.and_then(|pool| pool.lines.get(from));
        let message = PeerMessage::Disowned(Disowned {
            before: disown.before,
            pool: disown.pool.clone(),
            spec: pool.map(|pool| pool.ledger.spec()),
            accepted: link.units.accepted,
            granted: link.units.granted,
            life: self.custody.witnessed(from).map_or(Incarnation(0), |(life, _)| life),
            consumed: line.map_or(0, |line| line.consumed),
            returned: line.map_or(0, |line| line.returned),
            debt: DebtWord {
                accepted: link.more.accepted,
                granted: link.more.granted,
                consumed: line.map_or(0, |line| line.debt.consumed),
                returned: line.map_or(0, |line| line.debt.returned),
            },
            pools: self
                .pools
                .iter()
                .filter(|(_, p)| p.lines.contains_key(from))
                .map(|(n, _)| n.clone())
                .collect(),
            standing,
            refuse_before: self.custody.floor().unwrap_or_default(),
        });
        out.send(Effect::Peer { to: from.clone(), message });
    }

    pub(super) fn disowned(&mut self, now: Now, from: &NodeId, said: Disowned, out: &mut Out) {
        let Some(round) = self.rounds.get_mut(&said.pool) else { return };
        if said.before != self.custody.life() {
            return;
        }
        let mut batch = Batch::new();
        if self.custody.outlived(said.life, &mut batch) {
            // Every peer must refuse the later lives as well: all are asked again.
            persist(batch, out);
            self.rounds.values_mut().for_each(Round::begin_again);
            self.standing_changed(now, out);
            return;
        }
        // The disk that was lost may have known that this peer's earlier lives are over.
        if said.refuse_before > Incarnation::default() {
            self.custody.disown(now.mono, from, said.refuse_before, &mut batch);
            persist(batch, out);
        }
        round.hear(from, said);
        self.conclude_rounds(now, out);
    }

    /// Closes the rounds that every peer has answered, and those of which nothing can come.
    fn conclude_rounds(&mut self, now: Now, out: &mut Out) {
        let peers = self.site.founding.nodes().len() - 1;
        let full: Vec<PoolName> = self
            .rounds
            .iter()
            .filter(|(_, round)| round.answers.len() == peers || round.hindered(true).is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in full {
            // One that has made the node whole has ended the others.
            let Some(round) = self.rounds.remove(&name) else { continue };
            let answer = match round.hindered(true) {
                Some(refusal) => Err(refusal),
                None => self.conclude(now, &name, &round, out),
            };
            self.answer_waiters(&round, &answer, out);
        }
    }

    fn answer_waiters(&mut self, round: &Round, answer: &Result<PoolAttested, Refusal>, out: &mut Out) {
        for (token, _) in &round.waiters {
            self.waiting.remove(token);
            let answer = answer.clone().map(|done| Answer::Attested(Box::new(done)));
            out.send(Effect::Reply { token: *token, answer });
        }
    }

    fn conclude(
        &mut self,
        now: Now,
        name: &PoolName,
        round: &Round,
        out: &mut Out,
    ) -> Result<PoolAttested, Refusal> {
        if !self.pools.contains_key(name)
            && let Some(spec) = round.answers.values().find_map(|said| said.spec.as_ref())
            // A pool in which this region has no part is none of this node's: there is nothing to attest.
            && spec.weights.contains_key(&self.site.me.region)
        {
            self.learn(spec, out);
        }
        let done = self.take_word(now, name, round, out);
        let is_whole = self.leave_restored(now, round, out);
        self.touch(now, name, out);
        match done {
            // Where there is no pool at all whose rights nodes keep, all peers have vouched for this node nevertheless.
            Err(Refusal::NoSuchPool(name)) if is_whole => {
                return Err(Refusal::Invalid(format!(
                    "no node keeps rights of a pool {name}, so nothing is attested of it; but nor is anything left to attest of any \
                     other one, and all nodes have vouched: {} is whole again",
                    self.site.me
                )));
            }
            done => done?,
        }
        let Some(pool) = self.pools.get(name) else { return Err(Refusal::NoSuchPool(name.clone())) };
        Ok(PoolAttested { pool: name.clone(), row: pool.row(&self.site.settings) })
    }

    fn take_word(&mut self, now: Now, name: &PoolName, round: &Round, out: &mut Out) -> Result<(), Refusal> {
        let Some(pool) = self.pools.get_mut(name) else { return Err(Refusal::NoSuchPool(name.clone())) };
        let (is_home, floor) = (pool.home == self.site.me, self.custody.floor());
        let mut batch = Batch::new();
        let split = if is_home { self.site.created(pool.ledger.spec()).shares } else { BTreeMap::new() };
        let word = Word { sold: round.sold, floor, is_home, split: &split, peers: &round.answers };
        pool.ledger.attest(&word, now.hybrid, &mut batch)?;
        pool.reconciliation.attested(&pool.ledger);
        self.custody.attested_one(now, &mut batch);
        persist(batch, out);
        Ok(())
    }

    /// When all pools that this node or any peer knows are attested, the node is whole again: whether it is by this.
    fn leave_restored(&mut self, now: Now, round: &Round, out: &mut Out) -> bool {
        if self.custody.standing() != Standing::Restored {
            return false;
        }
        let known: BTreeSet<&PoolName> =
            round.answers.values().flat_map(|said| &said.pools).chain(self.pools.keys()).collect();
        let clear = |name: &PoolName| {
            let pool = self.pools.get(name);
            pool.is_some_and(|p| self.custody.standing_in(p.ledger.counts().cleared) == Standing::Proven)
        };
        if !known.into_iter().all(clear) {
            return false;
        }
        let mut batch = Batch::new();
        self.custody.attested_all(&mut batch);
        persist(batch, out);
        self.standing_changed(now, out);
        self.end_rounds(out);
        true
    }

    /// The node is whole: what operators still wait for is decided. A round that went on could take a
    /// pool that is made later for one that was lost, and peers' words of the present life for words of
    /// a lost one.
    fn end_rounds(&mut self, out: &mut Out) {
        for (name, round) in mem::take(&mut self.rounds) {
            let answer = self.attested_before(name, round.sold);
            self.answer_waiters(&round, &answer, out);
        }
    }
}
