//! Where answers are heard: what each answer to each call means for the oracle, and what creators
//! and operators do.
//!
//! * It decides: which promise an answer touches.
//! * It never does: trust an answer over the ledger of receipts.

use rhumb_actors::escrow::messages::{AttestPool, Return};
use rhumb_actors::escrow::{Answer, Input, PoolCreated, Refusal, Request, Settled, Standing, Token};
use rhumb_core::HybridTime;

use super::agenda::{MS, SECOND};
use super::customer::{Call, Purpose};
use super::node::Caller;
use super::oracle::{End, HoldIndex, KeyIndex, ReturnIndex};
use super::violation::{Checked, Invariant, demand};
use super::world::{Event, Word, World, said};

/// How many returns are asked for once more when a node is attested.
const AGAIN: usize = 4;

impl World {
    /// Somebody outside hears an answer.
    pub(super) fn heard(&mut self, call: usize, sent: HybridTime, word: Word) -> Checked {
        let now = self.now();
        self.trace.note(now, "heard", &[call as u64, said(&word)], || {
            format!("call {call} ({:?}): {word:?}", self.calls[call].purpose)
        });
        match (&word, self.calls[call].purpose) {
            (Word::Said(answer), Purpose::Hold { key, qty }) => {
                self.hold_answered(call, key, qty, sent, answer)?
            }
            (Word::Said(answer), Purpose::Confirm(hold) | Purpose::Release(hold)) => {
                self.settling_answered(call, hold, sent, answer)?;
            }
            (Word::Said(answer), Purpose::Return(part)) => self.return_answered(call, part, sent, answer)?,
            (Word::Said(answer), Purpose::Guess(hold)) => self.guess_answered(hold, answer)?,
            (Word::Said(answer), Purpose::Create { creator }) => {
                self.create_answered(call, creator, answer)?
            }
            (Word::Said(answer), Purpose::Attest { node, sold }) => {
                self.attest_answered(call, node, sold, answer)
            }
            (Word::Fault(_), _) => {}
        }
        self.resume(call, &word);
        Ok(())
    }

    fn hold_answered(
        &mut self,
        call: usize,
        key: KeyIndex,
        qty: u64,
        sent: HybridTime,
        answer: &Result<Answer, Refusal>,
    ) -> Checked {
        let Call { pool, asked, buyer, .. } = self.calls[call];
        let now = self.now();
        match answer {
            Ok(Answer::Held(held)) => {
                let owner = self.number(&held.hold.owner);
                let hold = self.oracle.held(key, qty, held, buyer, owner, asked)?;
                self.check_held(hold)?;
                self.check_limit(hold)
            }
            Err(Refusal::KeyReused) => {
                let facts = self.oracle.key(key);
                demand(facts.two_bodies, Invariant::OneKeyOneHold, || {
                    format!("{} was used with one body and called reused", facts.key)
                })
            }
            Err(Refusal::KeyExpired) => {
                let facts = self.oracle.key(key);
                // A restored node refuses keys that are older than its restoration.
                let restored = self.nodes.iter().any(|node| node.was_restored);
                demand(
                    facts.stale_since.is_some() || facts.forgotten || restored,
                    Invariant::Retention,
                    || format!("{} was refused before its time", facts.key),
                )
            }
            Err(Refusal::HoldExpired(id)) => self.ended_by_name(id, End::Expired, sent),
            Err(Refusal::HoldReleased(id)) => self.ended_by_name(id, End::Released, sent),
            Err(Refusal::NoSuchPool(name)) => {
                let known = self.exists[pool].is_some_and(|since| since < asked);
                let lost = self.nodes[self.plan.pools[pool].home].was_restored;
                demand(!known || lost, Invariant::Acknowledged, || {
                    format!("{name} was created and is not known at {now}")
                })
            }
            _ => Ok(()),
        }
    }

    /// What is held and sold for certain never exceeds what was minted, here and in the mesh.
    fn check_held(&self, hold: HoldIndex) -> Checked {
        let (pool, owner) = (self.oracle.hold(hold).pool, self.oracle.hold(hold).owner);
        let sure = |node: usize| self.oracle.surely_held(pool, node, self.nodes[node].clock.last());
        let row = self.audits[pool].row(owner);
        let here = sure(owner);
        let comparable = self.nodes[owner].life.is_some() && !row.suspended;
        demand(!comparable || here <= row.present.held(), Invariant::Receipts, || {
            format!("customers hold {here} at node {owner}, which counts {}", row.present.held())
        })?;
        let held: u64 = (0..self.nodes.len()).map(sure).sum();
        let (sold, most) = (self.oracle.receipts(pool), self.audits[pool].most());
        demand(held + sold <= most, Invariant::NeverOversold, || {
            format!("customers hold {held} and have bought {sold} of {most}")
        })
    }

    /// What the customer of a hold has for certain is no more than one may have.
    fn check_limit(&self, hold: HoldIndex) -> Checked {
        let facts = self.oracle.hold(hold);
        let limit = self.plan.pools[facts.pool].bodies[0].per_customer;
        let (Some(limit), Some(customer)) = (limit, facts.customer) else { return Ok(()) };
        let has = self.oracle.surely_has(facts.pool, customer, |node| self.nodes[node].clock.last());
        demand(has <= limit, Invariant::CustomerLimit, || {
            format!("{customer} has {has} for certain, and may have {limit}: {facts:?}")
        })
    }

    /// Units were to come back.
    fn return_answered(
        &mut self,
        call: usize,
        part: ReturnIndex,
        sent: HybridTime,
        answer: &Result<Answer, Refusal>,
    ) -> Checked {
        let hold = self.oracle.giving_back(part).hold;
        match answer {
            Ok(Answer::Returned(returned)) => {
                self.oracle.returned(part, returned)?;
                let (pool, owner) = (self.oracle.hold(hold).pool, self.oracle.hold(hold).owner);
                self.oracle.explains(pool, owner, self.audits[pool].row(owner).perhaps.sold())
            }
            Err(Refusal::HoldNotConfirmed(_) | Refusal::HoldReleased(_) | Refusal::HoldExpired(_)) => {
                let facts = self.oracle.hold(hold);
                demand(facts.void, Invariant::OneEnd, || {
                    format!("{} was sold, and at {sent} call {call} was told {answer:?}", facts.id)
                })
            }
            Err(Refusal::NoSuchHold(_) | Refusal::NoSuchPool(_)) => self.oracle.unknown(hold),
            Err(Refusal::ReturnClosed { .. }) if self.healed.is_none() => {
                let facts = self.oracle.hold(hold);
                let over = self.plan.returns.is_zero() || self.oracle.has_slept();
                demand(facts.void || over, Invariant::Retention, || {
                    format!("{} can be returned no more, before its time", facts.id)
                })
            }
            _ => Ok(()),
        }
    }

    /// Who does not know a hold's secret is told that there is no such hold.
    fn guess_answered(&self, hold: HoldIndex, answer: &Result<Answer, Refusal>) -> Checked {
        let told = matches!(
            answer,
            Ok(_)
                | Err(Refusal::HoldExpired(_)
                    | Refusal::HoldReleased(_)
                    | Refusal::HoldConfirmed(_)
                    | Refusal::HoldNotConfirmed(_))
        );
        demand(!told, Invariant::Secret, || {
            format!("{} was guessed at and answered {answer:?}", self.oracle.hold(hold).id)
        })
    }

    fn settling_answered(
        &mut self,
        call: usize,
        hold: HoldIndex,
        sent: HybridTime,
        answer: &Result<Answer, Refusal>,
    ) -> Checked {
        let now = self.now();
        match (answer, self.calls[call].purpose) {
            (Ok(Answer::Settled(Settled { hold: id, qty })), purpose) => {
                let facts = self.oracle.hold(hold);
                demand(*id == facts.id && *qty == facts.qty, Invariant::OneEnd, || {
                    format!("{} was settled as {qty} of {id}", facts.id)
                })?;
                let end = if matches!(purpose, Purpose::Confirm(_)) { End::Confirmed } else { End::Released };
                self.oracle.ended(hold, end, sent, now)?;
                let (pool, owner) = (self.oracle.hold(hold).pool, self.oracle.hold(hold).owner);
                self.oracle.explains(pool, owner, self.audits[pool].row(owner).perhaps.sold())
            }
            (Err(Refusal::HoldExpired(_)), _) => self.oracle.ended(hold, End::Expired, sent, now),
            (Err(Refusal::HoldReleased(_)), _) => self.oracle.ended(hold, End::Released, sent, now),
            (Err(Refusal::HoldConfirmed(_)), _) => self.oracle.ended(hold, End::Confirmed, sent, now),
            (Err(Refusal::NoSuchHold(_) | Refusal::NoSuchPool(_)), _) => self.oracle.unknown(hold),
            _ => Ok(()),
        }
    }

    fn ended_by_name(&mut self, id: &rhumb_actors::escrow::HoldId, end: End, sent: HybridTime) -> Checked {
        let now = self.now();
        match self.oracle.find(id) {
            Some(hold) => self.oracle.ended(hold, end, sent, now),
            None => Ok(()),
        }
    }

    // ---- creators --------------------------------------------------------------------------------

    /// A creator tries to create its pool, and again until it is told what became of it.
    pub(super) fn create(&mut self, pool: usize, creator: usize) -> Checked {
        if self.created[pool][creator] {
            return Ok(());
        }
        let plan = &self.plan.pools[pool];
        let (region, body, _) = plan.creators[creator];
        let near = |n: &usize| self.plan.region_of[*n] == region && !self.nodes[*n].lost;
        let there: Vec<usize> = (0..self.nodes.len()).filter(near).collect();
        // A creator whose region is lost goes elsewhere.
        let node = match there.len() {
            0 => self.calls.len() % self.nodes.len(),
            count => there[self.calls.len() % count],
        };
        let request = Request::Create { request: plan.bodies[body].clone(), allowed: plan.allowed.clone() };
        self.outside_call(Purpose::Create { creator }, pool, region, node, request);
        self.agenda.after(400 * MS, Event::Create { pool, creator });
        Ok(())
    }

    fn outside_call(&mut self, purpose: Purpose, pool: usize, region: usize, node: usize, request: Request) {
        let call = self.calls.len();
        let asked = self.now();
        self.calls.push(Call {
            customer: None,
            purpose,
            pool,
            region,
            node,
            asked,
            buyer: None,
            answered: false,
        });
        self.send_request(region, node, call, 2 * SECOND, request);
    }

    fn create_answered(&mut self, call: usize, creator: usize, answer: &Result<Answer, Refusal>) -> Checked {
        let (pool, now) = (self.calls[call].pool, self.now());
        let plan = &self.plan.pools[pool];
        let body = &plan.bodies[plan.creators[creator].1];
        match answer {
            Ok(Answer::Created(PoolCreated { spec, home, shares })) => {
                let right = plan.is(creator, spec) && plan.is_fair(spec, shares);
                demand(right, Invariant::MintedOnce, || {
                    format!("{body:?} was created as {spec:?} with shares {shares:?}")
                })?;
                let minted = self.audits[pool].minted();
                demand(
                    minted == Some((spec.supply, spec.debt)) && self.number(home) == plan.home,
                    Invariant::MintedOnce,
                    || format!("{spec:?} at {home}, but {minted:?} are minted"),
                )?;
            }
            Err(Refusal::PoolExists(spec)) => {
                demand(!plan.is(creator, spec), Invariant::MintedOnce, || {
                    format!("{body:?} is said to exist with another body")
                })?;
            }
            _ => return Ok(()),
        }
        self.created[pool][creator] = true;
        self.exists[pool].get_or_insert(now);
        Ok(())
    }

    // ---- operators -------------------------------------------------------------------------------

    /// An operator looks after a node with a restored disk: once it knows that it is, it says what the
    /// node had sold, by receipts.
    pub(super) fn attest(&mut self, node: usize) -> Checked {
        if !self.may_be_attested(node) {
            return Ok(());
        }
        self.agenda.after(300 * MS, Event::Attest { node });
        let Some(life) = &self.nodes[node].life else { return Ok(()) };
        if life.book.standing() != Standing::Unproven {
            (0..self.plan.pools.len()).for_each(|pool| self.attest_pool(node, pool));
        }
        Ok(())
    }

    fn attest_pool(&mut self, node: usize, pool: usize) {
        let row = self.audits[pool].row(node);
        if !row.suspended {
            if !self.knows(pool, node) || row.present.proven {
                return;
            }
            // It was attested, but the node has started again before its other pools were: then it asks
            // again, for its disk might have been restored again.
            self.suspend(pool, node);
        }
        let sold = *self.attested[pool][node].get_or_insert_with(|| self.oracle.attestable(pool, node));
        self.audits[pool].attesting(node);
        let name = self.plan.pools[pool].bodies[0].name.clone();
        let request = Request::Attest(AttestPool { pool: name, node: self.nodes[node].id.clone(), sold });
        let region = self.plan.region_of[node];
        self.outside_call(Purpose::Attest { node, sold }, pool, region, node, request);
    }

    fn proven(&self, pool: usize, node: usize) -> bool {
        self.nodes[node].life.is_some() && self.audits[pool].row(node).present.proven
    }

    fn attest_answered(&mut self, call: usize, node: usize, sold: u64, answer: &Result<Answer, Refusal>) {
        let pool = self.calls[call].pool;
        let done = match answer {
            // An answer to an operator of an earlier time says nothing of this one.
            Ok(Answer::Attested(_)) => self.attested[pool][node] == Some(sold) && self.proven(pool, node),
            Err(Refusal::NoSuchPool(_)) => {
                self.exists[pool].is_none() || !self.plan.pools[pool].has_part(&self.plan.nodes[node])
            }
            // Some sales that the operator thought possible were not, or units would have been sold twice:
            // it believes the machine, which says last how many there can have been.
            // Or it had not heard that units came back, which nobody who can be asked has heard either.
            Err(Refusal::WrongAttestation { least, most, .. }) => {
                if self.attested[pool][node] == Some(sold) {
                    self.attested[pool][node] = Some(if sold < *least { *least } else { *most });
                }
                false
            }
            _ => false,
        };
        if done && self.audits[pool].row(node).suspended {
            self.audits[pool].attested(node);
            self.oracle.attested(pool, node, sold);
            self.return_once_more(pool, node);
        }
    }

    /// Who gave something back before a disk was lost asks again once the node is back: the operator's
    /// number has counted it.
    fn return_once_more(&mut self, pool: usize, node: usize) {
        let parts: Vec<ReturnIndex> = self.oracle.returns_of(pool, node).rev().take(AGAIN).collect();
        for part in parts {
            let facts = self.oracle.giving_back(part);
            let hold = self.oracle.hold(facts.hold).id.clone();
            let request = Return { hold, qty: facts.asked, key: facts.key.clone() };
            let region = self.plan.region_of[node];
            self.outside_call(Purpose::Return(part), pool, region, node, Request::Return(request));
        }
    }

    /// A node hears that nobody waits for a call any more.
    pub(super) fn abandoned(&mut self, node: usize, call: usize) -> Checked {
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        let same = |caller: &Caller| matches!(caller, Caller::Outside { call: c, .. } if *c == call);
        let Some(token) = life.asks.iter().find(|(_, ask)| same(&ask.caller)).map(|(token, _)| *token) else {
            return Ok(());
        };
        life.asks.remove(&token);
        self.step(node, Input::Abandoned(Token(token)))
    }
}
