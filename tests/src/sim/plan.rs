//! What one seed is about: its mesh, its pools, its customers and how bad its world is.
//!
//! Swarm style (Groce et al., "Swarm testing", ISSTA 2012): a seed does not get a little of every
//! fault but its own mix, some kinds often and others not at all, because faults hide one another.
//!
//! * It decides: everything that is drawn once.
//! * It never does: depend on what happens later.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_actors::escrow::forecast::Method;
use rhumb_actors::escrow::messages::KEY_RETENTION;
use rhumb_actors::escrow::{CreatePool, Durability, Initiative, PoolSpec, Reserve};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use rhumb_topology::{Founding, pool_home};

use super::agenda::{MS, Micros, SECOND};
use super::net::Weather;

/// Nodes a simulated mesh may have.
pub const MAX_NODES: usize = 6;

/// What passes in a night.
pub const NIGHT: Duration = Duration::from_secs(25 * 3_600);

const REGIONS: [&str; 5] = ["us-east", "eu-central", "ap-southeast", "sa-east", "ca-central"];

/// Nodes in each region. What DESIGN.md asks for (2+1+1) and what breaks assumptions.
const SHAPES: [&[usize]; 10] = [
    &[1, 1, 1],
    &[1, 1, 1],
    &[2, 1, 1],
    &[2, 1, 1],
    &[1, 1, 1, 1, 1],
    &[1, 1],
    &[2, 2],
    &[3],
    &[2, 3, 1],
    &[1],
];

/// What one seed is about.
#[derive(Debug)]
pub struct Plan {
    /// The nodes, in the order of the founding list.
    pub nodes: Vec<NodeId>,
    /// For each node the number of its region.
    pub region_of: Vec<usize>,
    /// The regions.
    pub regions: Vec<Region>,
    /// The founding list.
    pub founding: Founding,
    /// For each node how fast its clock runs, in parts per million above true time.
    pub drift_ppm: Vec<i64>,
    /// What is for sale.
    pub pools: Vec<PoolPlan>,
    /// Who buys.
    pub trade: Trade,
    /// What goes wrong.
    pub faults: Faults,
    /// How rights are levelled.
    pub levelling: Levelling,
    /// How long after its sale a unit may be returned. A day later it is forgotten: before a night of 25
    /// hours is over, if this is an hour or less.
    pub returns: Duration,
}

/// One pool, and who creates it.
#[derive(Debug)]
pub struct PoolPlan {
    /// What creators ask for: one body, or two that differ.
    pub bodies: Vec<CreatePool>,
    /// Where policy lets it be held.
    pub allowed: Vec<Region>,
    /// Region, body and time of each attempt to create it.
    pub creators: Vec<(usize, usize, Micros)>,
    /// The node that must mint it.
    pub home: usize,
}

/// What customers do. Shares are between 0 and 1.
#[derive(Debug)]
pub struct Trade {
    /// How many there are.
    pub customers: usize,
    /// Mean pause between two things that one customer does.
    pub pause: Micros,
    /// Holds that are confirmed.
    pub confirmed: f64,
    /// Holds that are released; the rest is abandoned.
    pub released: f64,
    /// Keys that a client library made; the rest is raw.
    pub made: f64,
    /// Unanswered holds that are asked again.
    pub again: f64,
    /// Of those, the share that is asked again in another region.
    pub elsewhere: f64,
    /// Finished orders that are asked for or settled once more, or otherwise than before.
    pub echoes: f64,
    /// Keys used again with another body.
    pub other_body: f64,
    /// Raw keys that other customers use as well.
    pub twins: f64,
    /// Orders with a key that was made more than a day ago.
    pub stale_keys: f64,
    /// Sales of which something is returned.
    pub returned: f64,
    /// Attempts to settle a hold by a guess.
    pub guesses: f64,
    /// Orders of more than there can be.
    pub greedy: f64,
    /// Customers that all go to one region.
    pub crowd: f64,
    /// Longest time to live of a hold, in milliseconds.
    pub ttl_ms: u64,
    /// Largest number of units in one order, at most this share of the supply.
    pub qty: f64,
}

/// What goes wrong until the world heals. Each mean is the mean time between two such faults; zero
/// means never.
#[derive(Debug, Default)]
pub struct Faults {
    /// When everything heals.
    pub until: Micros,
    /// Between nodes.
    pub weather: Weather,
    /// Between customers and nodes.
    pub customer_weather: Weather,
    /// A node loses power.
    pub crash: Micros,
    /// How long it is down, on average.
    pub down: Micros,
    /// Share of restarts that are followed by another crash at once, before the node is proven.
    pub again: f64,
    /// One direction between two nodes is cut.
    pub one_way: Micros,
    /// A node is cut off from all others.
    pub isolation: Micros,
    /// How long cuts last, on average.
    pub cut: Micros,
    /// A wall clock is stepped.
    pub step: Micros,
    /// By at most so many milliseconds.
    pub step_ms: u64,
    /// A process is stopped for a while and goes on.
    pub pause: Micros,
    /// A connection is lost and comes back, with no packet lost.
    pub flap: Micros,
    /// A day passes on all clocks.
    pub night: bool,
    /// When a node is lost for ever.
    pub loss: Option<Micros>,
    /// When an old copy of a disk is put back.
    pub restore: Option<Micros>,
    /// How many nodes' disks are put back, one after the other.
    pub restores: u64,
    /// How long after that its operator begins to attest.
    pub operator: Micros,
    /// Shortest and longest sync of a disk.
    pub sync: (Micros, Micros),
    /// How many batches a node has under way.
    pub window: usize,
    /// Whether messages to a peer that is believed to be gone are dropped at the sender, as the real
    /// transport does.
    pub strict: bool,
}

/// What of the levelling policy a seed varies.
#[derive(Debug)]
pub struct Levelling {
    /// Units a node below which the tail begins.
    pub tail_floor: u64,
    /// Where buyers stand once the world has healed: one region, or all.
    pub closing_region: Option<usize>,
    /// By whom rights are moved ahead of need, by node.
    pub initiative: Vec<Initiative>,
    /// How each node forecasts demand.
    pub method: Vec<Method>,
    /// Season and slot of those who forecast by it.
    pub season: (Micros, Micros),
    /// How often homes add up their pools' rows.
    pub reconcile: Micros,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: &Seed) -> Self {
        let mut rng = seed.child("mesh").rng();
        let shape = *rng.pick(&SHAPES).expect("there are shapes");
        let (nodes, founding) = mesh(shape);
        let regions: Vec<Region> = founding.regions().into_iter().cloned().collect();
        let region_of = nodes
            .iter()
            .map(|node| regions.iter().position(|r| *r == node.region).expect("its region is listed"))
            .collect();
        let worst = *rng.pick(&[0i64, 50, 500, 20_000]).expect("there are drifts");
        let drift_ppm = nodes.iter().map(|_| rng.between(0, 2 * worst as u64) as i64 - worst).collect();
        let mut pools = pools(&mut seed.child("pools").rng(), &founding, &regions);
        let mut terms = seed.child("terms").rng();
        pools.iter_mut().for_each(|pool| pool.set_terms(&mut terms, &nodes));
        let single = nodes.len() == 1;
        let mut levels = seed.child("levelling").rng();
        let mut retention = seed.child("retention").rng();
        let returns = *retention.pick(&[0, 1, 24]).expect("there are times");
        let mut faults = Faults::draw(&mut seed.child("faults").rng(), single);
        faults.night |= retention.chance(0.12);
        faults.draw_restores(&mut seed.child("several disks").rng(), nodes.len() as u64);
        let mut trade = Trade::draw(&mut seed.child("trade").rng(), &mut seed.child("returns").rng());
        trade.greedy = some(&mut seed.child("greed").rng(), 0.3) * 0.2;
        let mut policies = seed.child("policies").rng();
        let initiative = initiatives(&mut policies, nodes.len());
        let method = methods(&mut policies, nodes.len());
        Self {
            levelling: Levelling {
                tail_floor: *levels.pick(&[0, 1, 2, 4, 8, 32]).expect("there are floors"),
                closing_region: levels.chance(0.6).then(|| levels.below(regions.len() as u64) as usize),
                initiative,
                method,
                season: (MS * policies.between(300, 3_000), MS * policies.between(50, 400)),
                reconcile: MS * policies.between(200, 4_000),
            },
            trade,
            faults,
            returns: Duration::from_secs(returns * 3_600),
            nodes,
            region_of,
            regions,
            founding,
            drift_ppm,
            pools,
        }
    }
}

impl Plan {
    /// Whether a night is long enough for a sale to be forgotten.
    #[must_use]
    pub fn forgets_sales(&self) -> bool {
        self.returns <= NIGHT - KEY_RETENTION
    }
}

/// One policy for all nodes, or one for each.
fn initiatives(rng: &mut Rng, nodes: usize) -> Vec<Initiative> {
    const ALL: [Initiative; 3] = [Initiative::Pull, Initiative::Push, Initiative::Hybrid];
    let mut draw = || *rng.pick(&ALL).expect("there are policies");
    let all = draw();
    let mut each: Vec<Initiative> = (0..nodes).map(|_| draw()).collect();
    if rng.chance(0.6) {
        each.fill(all);
    }
    each
}

fn methods(rng: &mut Rng, nodes: usize) -> Vec<Method> {
    let draw = |_| if rng.chance(0.3) { Method::SeasonalNaive } else { Method::Ewma };
    (0..nodes).map(draw).collect()
}

fn mesh(shape: &[usize]) -> (Vec<NodeId>, Founding) {
    let all = shape.iter().zip(REGIONS).flat_map(|(count, region)| {
        (1..=*count).map(move |n| NodeId::new(region, &format!("n{n}")).expect("valid names"))
    });
    let founding = Founding::new(all).expect("1 to 6 distinct nodes");
    (founding.nodes().to_vec(), founding)
}

fn pools(rng: &mut Rng, founding: &Founding, regions: &[Region]) -> Vec<PoolPlan> {
    let count = if rng.chance(0.2) { 2 } else { 1 };
    (0..count).map(|i| pool(rng, i, founding, regions)).collect()
}

fn pool(rng: &mut Rng, number: usize, founding: &Founding, regions: &[Region]) -> PoolPlan {
    let name = PoolName::new(&format!("concert-{number}-{}", rng.below(1_000))).expect("a valid name");
    let home = pool_home(founding, &name);
    let mut allowed = regions.to_vec();
    if rng.chance(0.15) {
        let keep = rng.below(regions.len() as u64) as usize;
        allowed.retain(|region| *region == home.region || *region == regions[keep]);
    }
    let (low, high) = *rng.pick(&[(1, 12), (13, 60), (61, 200), (1_000, 9_000)]).expect("there are sizes");
    let mut body = CreatePool {
        name: name.clone(),
        class: DataClass::new("inventory").expect("a valid name"),
        supply: rng.between(low, high),
        weights: BTreeMap::new(),
        debt: 0,
        reserve: None,
        per_customer: None,
        durability: Durability::Local,
    };
    if rng.chance(0.5) {
        body.weights = allowed.iter().map(|region| (region.clone(), rng.below(6))).collect();
        body.weights.insert(allowed[0].clone(), 1 + rng.below(6));
    }
    let mut bodies = vec![body];
    let mut creators = vec![(rng.below(regions.len() as u64) as usize, 0, rng.below(400) * MS)];
    if rng.chance(0.4) {
        let mut other = bodies[0].clone();
        other.supply += u64::from(rng.chance(0.5));
        let body = usize::from(other != bodies[0]);
        bodies.extend((body == 1).then_some(other));
        creators.push((rng.below(regions.len() as u64) as usize, body, creators[0].2 + rng.below(200) * MS));
    }
    let home = founding.nodes().iter().position(|node| node == home).expect("homes are founders");
    PoolPlan { bodies, allowed, creators, home }
}

impl PoolPlan {
    /// Draws what the pool has beyond units and weights. From a seed of its own: the rest of a story does
    /// not depend on it.
    fn set_terms(&mut self, rng: &mut Rng, nodes: &[NodeId]) {
        let supply = self.bodies[0].supply;
        let debt = rng.between(1, (supply / 3).max(2));
        let units = rng.between(1, (supply / 2).max(1));
        let limit = rng.between(1, (supply / 5).max(3));
        let part: Vec<&NodeId> = nodes.iter().filter(|node| self.has_part(node)).collect();
        let holder = *rng.pick(&part).expect("a pool has a node");
        let reserve = Reserve { node: holder.clone(), units };
        let may_reserve = part.len() > 1 && units < supply;
        let (owes, reserves, limits) = (rng.chance(0.35), rng.chance(0.25), rng.chance(0.25));
        for body in &mut self.bodies {
            body.debt = if owes { debt } else { 0 };
            body.reserve = (reserves && may_reserve).then(|| reserve.clone());
            body.per_customer = limits.then_some(limit);
        }
    }

    /// Whether a pool is what this creator asked for. Without weights, all allowed regions weigh the
    /// same.
    #[must_use]
    pub fn is(&self, creator: usize, spec: &PoolSpec) -> bool {
        let body = &self.bodies[self.creators[creator].1];
        let mut weights = body.weights.clone();
        if weights.is_empty() {
            weights = self.allowed.iter().map(|region| (region.clone(), 1)).collect();
        }
        spec.name == body.name
            && spec.class == body.class
            && spec.supply == body.supply
            && spec.weights == weights
            && (spec.debt, &spec.reserve, spec.per_customer) == (body.debt, &body.reserve, body.per_customer)
    }

    /// Whether a node's region has a part in the pool.
    #[must_use]
    pub fn has_part(&self, node: &NodeId) -> bool {
        let weights = &self.bodies[0].weights;
        if weights.is_empty() {
            self.allowed.contains(&node.region)
        } else {
            weights.contains_key(&node.region)
        }
    }

    /// Whether first shares sum to the supply, and each region's is its quota of what is not in reserve,
    /// rounded up or down.
    #[must_use]
    pub fn is_fair(&self, spec: &PoolSpec, shares: &BTreeMap<NodeId, u64>) -> bool {
        let all: u128 = spec.weights.values().map(|weight| u128::from(*weight)).sum();
        let fair = |(region, weight): (&Region, &u64)| {
            let units: u64 = shares.iter().filter(|(node, _)| node.region == *region).map(|(_, n)| n).sum();
            let here = spec.reserve.as_ref().filter(|reserve| reserve.node.region == *region);
            let units = units.saturating_sub(here.map_or(0, |reserve| reserve.units));
            let reserved = spec.reserve.as_ref().map_or(0, |reserve| reserve.units);
            let quota = u128::from(spec.supply - reserved) * u128::from(*weight);
            (quota / all..=quota.div_ceil(all)).contains(&u128::from(units))
        };
        shares.values().sum::<u64>() == spec.supply && spec.weights.iter().all(fair)
    }
}

impl Trade {
    fn draw(rng: &mut Rng, returns: &mut Rng) -> Self {
        let confirmed = *rng.pick(&[0.1, 0.4, 0.8]).expect("there are shares");
        Self {
            customers: rng.between(2, 9) as usize,
            pause: MS * rng.between(20, 300),
            confirmed,
            released: (1.0 - confirmed) * rng.unit(),
            made: *rng.pick(&[0.0, 0.5, 0.8, 1.0]).expect("there are shares"),
            again: *rng.pick(&[0.3, 0.9]).expect("there are shares"),
            elsewhere: rng.unit() * 0.7,
            echoes: some(rng, 0.6) * 0.3,
            other_body: some(rng, 0.3) * 0.2,
            twins: some(rng, 0.4),
            stale_keys: some(rng, 0.3) * 0.2,
            returned: some(returns, 0.5) * 0.8,
            guesses: some(returns, 0.3) * 0.2,
            greedy: 0.0,
            crowd: *rng.pick(&[0.0, 0.6, 1.0]).expect("there are shares"),
            ttl_ms: *rng.pick(&[300, 1_500, 6_000]).expect("there are times"),
            qty: *rng.pick(&[0.0, 0.03, 0.2]).expect("there are sizes"),
        }
    }

    /// How long the next hold is to live; now and then the default.
    pub fn ttl(&self, rng: &mut Rng) -> Option<Duration> {
        (!rng.chance(0.03)).then(|| Duration::from_millis(rng.between(100, self.ttl_ms)))
    }
}

impl Faults {
    fn draw(rng: &mut Rng, single: bool) -> Self {
        let until = SECOND * rng.between(3, 9);
        let late = *rng.pick(&[500, 3_000, 9_000]).expect("there are delays");
        let weather = Weather {
            loss: some(rng, 0.6) * 0.3,
            twice: some(rng, 0.5) * 0.25,
            late: some(rng, 0.5) * 0.3,
            late_by: MS * rng.between(50, late),
        };
        let customer_weather =
            Weather { loss: some(rng, 0.5) * 0.2, twice: some(rng, 0.4) * 0.15, ..weather };
        let slow = *rng.pick(&[2, 10, 60, 400]).expect("there are disks");
        // An old disk is told by its peers; a mesh that also lost one of them can not attest it.
        let fate = rng.unit();
        Self {
            until,
            weather,
            customer_weather,
            crash: often(rng, 0.6, 300, 4_000),
            down: MS * rng.between(20, 2_500),
            again: some(rng, 0.5) * 0.5,
            one_way: often(rng, if single { 0.0 } else { 0.5 }, 300, 3_000),
            isolation: often(rng, if single { 0.0 } else { 0.4 }, 500, 4_000),
            cut: MS * rng.between(50, 4_000),
            step: often(rng, 0.35, 300, 3_000),
            step_ms: *rng.pick(&[40, 400, 20_000]).expect("there are steps"),
            pause: often(rng, 0.25, 500, 4_000),
            flap: often(rng, if single { 0.0 } else { 0.25 }, 200, 2_000),
            night: rng.chance(0.08),
            loss: (!single && fate < 0.15).then(|| rng.between(MS * 500, until)),
            restore: (!single && fate > 0.7).then(|| rng.between(SECOND, until)),
            restores: 1,
            operator: 300 * MS,
            sync: (slow * 50, slow * MS),
            window: *rng.pick(&[1, 2, 64]).expect("there are windows"),
            strict: rng.chance(0.5),
        }
    }

    /// Draws whether the disks of several nodes are put back, and whether their operator is quick enough to
    /// attest one before the next. From a seed of its own: the rest of a story does not depend on it.
    fn draw_restores(&mut self, rng: &mut Rng, nodes: u64) {
        if self.restore.is_some() && rng.chance(0.5) {
            self.restores = rng.between(2, nodes);
            self.operator = *rng.pick(&[300 * MS, 4 * SECOND, 12 * SECOND]).expect("there are operators");
        }
    }
}

/// With this probability a number between 0 and 1, else zero: a fault that is not part of the mix.
fn some(rng: &mut Rng, probability: f64) -> f64 {
    let amount = rng.unit();
    if rng.chance(probability) { amount } else { 0.0 }
}

/// With this probability a mean time between the two, in milliseconds; else never.
fn often(rng: &mut Rng, probability: f64, low: u64, high: u64) -> Micros {
    let mean = MS * rng.between(low, high);
    if rng.chance(probability) { mean } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_and_every_fault_is_drawn_by_some_seed_and_left_out_by_another() {
        let plans: Vec<Plan> = (0..300).map(|n| Plan::draw(&Seed::new(n))).collect();
        let both = |what: &str, f: &dyn Fn(&Plan) -> bool| {
            let with = plans.iter().filter(|plan| f(plan)).count();
            assert!(with > 5 && with < plans.len(), "{what}: {with} of {}", plans.len());
        };
        both("a single node", &|p| p.nodes.len() == 1);
        both("2+1+1", &|p| p.nodes.len() == 4 && p.regions.len() == 3);
        both("five regions", &|p| p.regions.len() == 5);
        both("two pools", &|p| p.pools.len() == 2);
        both("created twice alike", &|p| p.pools[0].creators.len() == 2 && p.pools[0].bodies.len() == 1);
        both("created twice otherwise", &|p| p.pools[0].bodies.len() == 2);
        both("crash", &|p| p.faults.crash > 0);
        both("one way", &|p| p.faults.one_way > 0);
        both("clock step", &|p| p.faults.step > 0);
        both("lost node", &|p| p.faults.loss.is_some());
        both("old disk", &|p| p.faults.restore.is_some());
        both("two old disks", &|p| p.faults.restores > 1);
        both("orders of too much", &|p| p.trade.greedy > 0.0);
        both("a night", &|p| p.faults.night);
        both("sales that are forgotten in a night", &|p| p.faults.night && p.forgets_sales());
        both("sales that are not", &|p| p.faults.night && !p.forgets_sales());
        both("no returns at all", &|p| p.returns.is_zero());
        both("all push", &|p| p.levelling.initiative.iter().all(|i| *i == Initiative::Push));
        both("policies differ", &|p| p.levelling.initiative.iter().any(|i| *i != p.levelling.initiative[0]));
        both("a seasonal forecast", &|p| p.levelling.method.contains(&Method::SeasonalNaive));
        both("debt", &|p| p.pools[0].bodies[0].debt > 0);
        both("a reserve", &|p| p.pools[0].bodies[0].reserve.is_some());
        both("a limit a customer", &|p| p.pools[0].bodies[0].per_customer.is_some());
        both("returns", &|p| p.trade.returned > 0.0);
        both("guesses", &|p| p.trade.guesses > 0.0);
        both("loss of packets", &|p| p.faults.weather.loss > 0.0);
    }
}
