//! Pools come into being: at their home, once.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::rng::Seed;
use rhumb_core::{NodeId, Now, Region};
use rhumb_storage::Batch;
use rhumb_topology::{Founding, split_over_nodes};
use sha2::{Digest, Sha256};

use super::{Answer, Book, Effect, Out, Request, Site, Token};
use crate::escrow::ledger::Ledger;
use crate::escrow::messages::{CreatePool, Durability, PoolCreated, PoolSpec, Refusal, Reserve, Standing};
use crate::escrow::pool::Pool;
use crate::escrow::records::{PoolMore, PoolRow, Right};
use crate::escrow::settings::EscrowSettings;

impl Book {
    pub(super) fn create(
        &mut self,
        now: Now,
        token: Token,
        request: CreatePool,
        allowed: &[Region],
        out: &mut Out,
    ) {
        let home = self.site.home(&request.name);
        if home != self.site.me {
            let request = Request::Create { request, allowed: allowed.to_vec() };
            return out.send(Effect::Forward { token, to: home, request });
        }
        let name = request.name.clone();
        let answer = match self.pools.contains_key(&name) {
            true => self.again(&request, out),
            false => self.mint(now, request, allowed, out),
        };
        out.send(Effect::Reply { token, answer: answer.map(Answer::Created) });
        self.touch(now, &name, out);
    }

    /// The pool exists: the same body is the same answer.
    fn again(&mut self, request: &CreatePool, out: &mut Out) -> Result<PoolCreated, Refusal> {
        let pool = self.pools.get_mut(&request.name).expect("the caller has just found it");
        let row = pool.ledger.pool();
        let same = match row.body {
            Some(body) => body == body_of(request),
            // Rebuilt from what peers knew: the request itself is lost.
            None => row.class == request.class && row.supply == request.supply && covers(row, request),
        };
        if !same {
            return Err(Refusal::PoolExists(Box::new(pool.ledger.spec())));
        }
        if canary::sings(Canary::MintTwice) {
            let mut batch = Batch::new();
            pool.ledger.mint_again(&mut batch);
            out.persist(batch);
        }
        if pool.ledger.counts().of(Right::Unit).minted == 0 {
            return Err(Refusal::Restored);
        }
        let spec = pool.ledger.spec();
        Ok(self.site.created(spec))
    }

    fn mint(
        &mut self,
        now: Now,
        request: CreatePool,
        allowed: &[Region],
        out: &mut Out,
    ) -> Result<PoolCreated, Refusal> {
        let weights = self.site.weights(&request, allowed)?;
        match self.custody.standing() {
            Standing::Proven => {}
            Standing::Unproven => return Err(Refusal::Unproven),
            Standing::Restored => return Err(Refusal::Restored),
        }
        if self.pools.len() >= self.site.settings.max_pools {
            return Err(Refusal::Overloaded { retry_after: std::time::Duration::from_secs(60) });
        }
        let row = PoolRow {
            class: request.class.clone(),
            supply: request.supply,
            weights,
            created: now.hybrid,
            body: Some(body_of(&request)),
            durability: self.site.durability(),
            debt_ceiling: request.debt,
            more: PoolMore { reserve: request.reserve.clone(), per_customer: request.per_customer },
        };
        self.site.check_terms(&row)?;
        let others = self.site.others(&row);
        let ledger = Ledger::new(request.name.clone(), row, others.clone(), self.custody.life());
        let mut ledger = ledger.cleared(self.custody.clears_new());
        let created = self.site.created(ledger.spec());
        let mut batch = Batch::new();
        ledger.mint(&created.shares, &mut batch);
        out.persist(batch);
        let pool = Pool::new(self.site.me.clone(), ledger, others, &self.site.settings);
        self.pools.insert(request.name, pool);
        Ok(created)
    }
}

/// What would be answered to the creation of a pool in a range, at its home, if there is none of its name.
///
/// # Errors
/// Why it would be refused.
pub fn would_create(
    home: &NodeId,
    founding: &Founding,
    settings: &EscrowSettings,
    request: &CreatePool,
    allowed: &[Region],
) -> Result<PoolCreated, Refusal> {
    let (now, mut out) = (Now::default(), Out::default());
    let book = Book::in_range(home.clone(), founding.clone(), settings.clone(), std::iter::empty(), now);
    let mut book = book.map_err(|error| Refusal::Invalid(error.to_string()))?;
    book.start(now, &Seed::new(0), &mut out);
    book.mint(now, request.clone(), allowed, &mut out)
}

impl Site {
    /// The weight of every region that has a part in the pool, be it zero.
    fn weights(&self, request: &CreatePool, allowed: &[Region]) -> Result<BTreeMap<Region, u64>, Refusal> {
        let CreatePool { class, supply, weights, .. } = request;
        if !(1..=MAX_SUPPLY).contains(supply) {
            return Err(Refusal::Invalid(format!("a supply of {supply}: give 1 to {MAX_SUPPLY} units")));
        }
        let known: BTreeSet<&Region> = self.founding.regions().into_iter().collect();
        let may: BTreeSet<&Region> = allowed.iter().filter(|region| known.contains(region)).collect();
        if let Some(region) = weights.keys().find(|region| !known.contains(region)) {
            let known: Vec<&str> = known.iter().map(|region| region.as_str()).collect();
            let known = known.join(", ");
            return Err(Refusal::Invalid(format!("region {region} has no node: the mesh has {known}")));
        }
        let banned = |region: &Region, reason: &str| Refusal::NotAllowed {
            class: class.clone(),
            region: region.clone(),
            reason: reason.to_owned(),
        };
        if let Some(region) = weights.keys().find(|region| !may.contains(region)) {
            return Err(banned(region, "policy does not name it for this class"));
        }
        if !may.contains(&self.me.region) {
            return Err(banned(
                &self.me.region,
                "the pool's home stands there; another name has another home",
            ));
        }
        if !weights.is_empty() && weights.values().all(|weight| *weight == 0) {
            return Err(Refusal::Invalid("all weights are zero: give at least one region some".to_owned()));
        }
        let weight = |region: &Region| match weights.is_empty() {
            true => 1,
            false => weights.get(region).copied().unwrap_or(0),
        };
        Ok(may.into_iter().map(|region| (region.clone(), weight(region))).collect())
    }

    /// The answer to a creation: a pure function of what the pool is.
    pub(super) fn created(&self, spec: PoolSpec) -> PoolCreated {
        let weights: Vec<(Region, u64)> = spec.weights.iter().map(|(r, w)| (r.clone(), *w)).collect();
        let reserved = spec.reserve.as_ref().map_or(0, |reserve| reserve.units);
        let shares = split_over_nodes(spec.supply - reserved, &weights, &self.founding)
            .expect("the weights were checked when the pool was created");
        let part = |(node, _): &(NodeId, u64)| spec.weights.contains_key(&node.region);
        let mut shares: BTreeMap<NodeId, u64> = shares.into_iter().filter(part).collect();
        if let Some(Reserve { node, units }) = &spec.reserve {
            *shares.entry(node.clone()).or_default() += units;
        }
        PoolCreated { home: self.home(&spec.name), shares, spec }
    }

    /// Debt, reserve and limit of a pool that is to be created.
    fn check_terms(&self, row: &PoolRow) -> Result<(), Refusal> {
        let invalid = |what: String| Err(Refusal::Invalid(what));
        if row.debt_ceiling > MAX_SUPPLY {
            return invalid(format!("a debt of {}: give 0 to {MAX_SUPPLY} units", row.debt_ceiling));
        }
        if row.more.per_customer == Some(0) {
            return invalid("0 units a customer: give at least 1, or no limit".to_owned());
        }
        let Some(Reserve { node, units }) = &row.more.reserve else { return Ok(()) };
        let nodes: Vec<&NodeId> =
            self.founding.nodes().iter().filter(|node| row.weights.contains_key(&node.region)).collect();
        if !nodes.contains(&node) {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            return invalid(format!(
                "{node} can not hold the reserve: the pool's nodes are {}",
                nodes.join(", ")
            ));
        }
        if nodes.len() == 1 {
            return invalid(format!("{node} is the pool's only node: a reserve is for other nodes"));
        }
        if !(1..row.supply).contains(units) {
            return invalid(format!(
                "a reserve of {units}: give 1 to {} of the {} units",
                row.supply - 1,
                row.supply
            ));
        }
        Ok(())
    }
}

/// Whether a request's weights and terms are those of a pool, zeros left out.
fn covers(row: &PoolRow, request: &CreatePool) -> bool {
    let terms = (row.debt_ceiling, &row.more.reserve, row.more.per_customer);
    if terms != (request.debt, &request.reserve, request.per_customer) {
        return false;
    }
    let equal = row.weights.values().all(|weight| *weight == 1);
    match request.weights.is_empty() {
        true => equal,
        false => row.weights.iter().all(|(r, w)| request.weights.get(r).copied().unwrap_or(0) == *w),
    }
}

fn body_of(request: &CreatePool) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("rhumb-pool-v1\n{}\n{}\n{}\n", request.name, request.class, request.supply));
    for (region, weight) in &request.weights {
        hash.update(format!("{region}={weight}\n"));
    }
    if request.debt > 0 {
        hash.update(format!("debt {}\n", request.debt));
    }
    if let Some(Reserve { node, units }) = &request.reserve {
        hash.update(format!("reserve {node} {units}\n"));
    }
    if request.durability != Durability::Local {
        hash.update(format!("durability {}\n", request.durability.name()));
    }
    if let Some(limit) = request.per_customer {
        hash.update(format!("per customer {limit}\n"));
    }
    hash.finalize().into()
}
