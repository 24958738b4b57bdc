//! The shell of the load generator: a task for each customer, one for the arrivals, a thread for the
//! receipts. It decides nothing; the plan and the customers do.
//!
//! Bounds: [`UNDER_WAY`] customers at a time (who comes beyond that is turned away and counted), and
//! a bounded queue of receipts, for which customers wait rather than lose one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::escrow::messages::{Confirm, CustomerTag, Hold, Key};
use rhumb_actors::remote::Remote;
use rhumb_core::rng::Seed;
use rhumb_core::{Delivery, Fault, NodeId, PoolName, Region};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::customer::{Customer, Next, State};
use super::plan::{Arrival, Plan, Schedule};
use super::receipts::{LedgerError, LedgerWriter, Receipt};
use super::requests::Listed;
use super::tally::Tally;
use crate::client::key::KeyMaker;
use crate::client::{Ask, now_ms};

/// Customers at a time.
pub const UNDER_WAY: usize = 16_384;
/// Receipts that wait to be written.
const RECEIPTS_WAITING: usize = 8_192;

/// Why a load could not be made.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The receipts cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A region of the mix has no node.
    #[error("region {0} is to get customers and has no node here")]
    NoNode(Region),
    /// The plan makes no load.
    #[error("a load needs a rate above 0 and a region with weight above 0")]
    NoLoad,
    /// A task or thread of the generator died.
    #[error("the load generator failed: {0}")]
    Died(String),
}

/// A load to make.
#[derive(Debug)]
pub struct Load {
    /// On which pool.
    pub pool: PoolName,
    /// Who comes when.
    pub plan: Plan,
    /// Requests to make, in place of those that the plan would draw.
    pub requests: Option<Vec<Listed>>,
    /// Drawn from this seed.
    pub seed: Seed,
    /// For how long customers come; without end (until stopped) if `None`.
    pub lasts: Option<Duration>,
    /// The nodes that each region's customers ask, in turn.
    pub nodes: BTreeMap<Region, Vec<NodeId>>,
    /// Where the receipts are written: a file that is not there yet.
    pub receipts: PathBuf,
}

/// A load that is being made. Dropping it gives up every customer.
#[derive(Debug)]
pub struct Running {
    books: Arc<Mutex<Books>>,
    stop: watch::Sender<bool>,
    give_up: watch::Sender<bool>,
    customers: Arc<Semaphore>,
    arrivals: tokio::task::JoinHandle<()>,
    writer: thread::JoinHandle<Result<(), LedgerError>>,
}

#[derive(Debug, Default)]
struct Books {
    tally: Tally,
    waiters: Vec<Waiter>,
}

/// Somebody waits for a region to serve a hold that was asked after a time.
#[derive(Debug)]
struct Waiter {
    region: Region,
    asked_after: Instant,
    tell: oneshot::Sender<Instant>,
}

impl Load {
    /// Lets customers come.
    ///
    /// # Errors
    /// [`LoadError`], before any customer came.
    pub fn start<A: Ask>(mut self, ask: Arc<A>) -> Result<Running, LoadError> {
        let drawn = self.requests.is_none();
        if drawn && self.plan.rate == 0 || self.plan.mix.iter().all(|(_, weight)| *weight == 0) {
            return Err(LoadError::NoLoad);
        }
        for (region, weight) in &self.plan.mix {
            if *weight > 0 && self.nodes.get(region).is_none_or(Vec::is_empty) {
                return Err(LoadError::NoNode(region.clone()));
            }
        }
        let ledger = LedgerWriter::create(&self.receipts, &self.pool, now_ms())?;
        let (receipts, queue) = mpsc::channel(RECEIPTS_WAITING);
        let writer = thread::Builder::new()
            .name("receipts".into())
            .spawn(move || write_receipts(ledger, queue))
            .map_err(|e| LoadError::Died(e.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let (give_up, given_up) = watch::channel(false);
        let books = Arc::new(Mutex::new(Books::default()));
        let customers = Arc::new(Semaphore::new(UNDER_WAY));
        let schedule = match self.requests.take() {
            Some(requests) => Schedule::listed(self.plan.clone(), requests, &self.seed),
            None => Schedule::new(self.plan.clone(), &self.seed),
        };
        let shop = Shop { ask, load: self, books: Arc::clone(&books), receipts, given_up };
        let arrivals = tokio::spawn(arrivals(Arc::new(shop), schedule, Arc::clone(&customers), stopped));
        Ok(Running { books, stop, give_up, customers, arrivals, writer })
    }
}

impl Running {
    /// Looks at what the customers met so far. The generator waits meanwhile: be short.
    pub fn look<R>(&self, with: impl FnOnce(&Tally) -> R) -> R {
        with(&self.books.lock().tally)
    }

    /// Tells when a node of this region answers the next hold that is asked from now on.
    #[must_use]
    pub fn next_hold_in(&self, region: Region) -> oneshot::Receiver<Instant> {
        let (tell, told) = oneshot::channel();
        self.books.lock().waiters.push(Waiter { region, asked_after: Instant::now(), tell });
        told
    }

    /// Whether no more customers come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.arrivals.is_finished()
    }

    /// Lets no more customers come. Those under way go on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops, waits until every story has ended (calls of unknown outcome are asked again until
    /// somebody answers), but not longer than `within`, and closes the receipts.
    ///
    /// # Errors
    /// [`LoadError`] when receipts were lost or a task died.
    pub async fn settle(self, within: Duration) -> Result<Tally, LoadError> {
        self.stop();
        let Self { books, stop: _stop, give_up, customers, arrivals, writer } = self;
        arrivals.await.map_err(|e| LoadError::Died(e.to_string()))?;
        let all = u32::try_from(UNDER_WAY).expect("a small number");
        if tokio::time::timeout(within, customers.acquire_many(all)).await.is_err() {
            give_up.send_replace(true);
            // Nobody waits for anything but the queue of receipts now.
            let _all = customers.acquire_many(all).await.map_err(|e| LoadError::Died(e.to_string()))?;
        }
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        joined
            .map_err(|e| LoadError::Died(e.to_string()))?
            .map_err(|_| LoadError::Died("the thread that writes receipts panicked".into()))??;
        let tally = books.lock().tally.clone();
        Ok(tally)
    }
}

/// A receipt to write, and whom to tell when the operating system has it.
struct Entry {
    receipt: Receipt,
    written: oneshot::Sender<()>,
}

/// What customers share.
struct Shop<A> {
    ask: Arc<A>,
    load: Load,
    books: Arc<Mutex<Books>>,
    receipts: mpsc::Sender<Entry>,
    given_up: watch::Receiver<bool>,
}

async fn arrivals<A: Ask>(
    shop: Arc<Shop<A>>,
    schedule: Schedule,
    room: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let start = Instant::now();
    let mut keys = KeyMaker::new(&shop.load.seed);
    for arrival in schedule {
        if shop.load.lasts.is_some_and(|lasts| arrival.at > lasts) {
            return;
        }
        let due = start + arrival.at;
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep_until(due) => {}
        }
        let nodes = &shop.load.nodes[&arrival.region];
        let node = nodes[arrival.number as usize % nodes.len()].clone();
        let key = keys.make(node.clone(), now_ms());
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => {
                shop.books.lock().tally.came(&arrival.region);
                tokio::spawn(Visit { shop: Arc::clone(&shop), arrival, node, key, due }.live(permit));
            }
            Err(_) => shop.books.lock().tally.region(&arrival.region).turned_away += 1,
        }
    }
}

/// One customer's visit.
struct Visit<A> {
    shop: Arc<Shop<A>>,
    arrival: Arrival,
    node: NodeId,
    key: Key,
    due: Instant,
}

impl<A: Ask> Visit<A> {
    async fn live(self, permit: OwnedSemaphorePermit) {
        let mut customer = Customer::new(self.arrival.intent);
        let mut given_up = self.shop.given_up.clone();
        let asked_ms = now_ms();
        tokio::select! {
            // The generator is dropped, or waited long enough.
            _ = given_up.wait_for(|up| *up) => {}
            () = self.play(&mut customer, asked_ms) => {}
        }
        let qty = self.arrival.qty;
        self.shop.books.lock().tally.ended(&self.arrival.region, qty, customer.state());
        self.write(customer.state(), asked_ms).await;
        drop(permit);
    }

    async fn play(&self, customer: &mut Customer, asked_ms: u64) {
        let mut next = Next::Hold { after: Duration::ZERO };
        loop {
            next = match next {
                Next::End => return,
                Next::Hold { after } => {
                    self.pause(after).await;
                    let next = self.hold(customer).await;
                    if matches!(next, Next::Confirm { .. }) {
                        self.write(customer.state(), asked_ms).await;
                    }
                    next
                }
                Next::Confirm { hold, after } => {
                    self.pause(after).await;
                    let message = Confirm { hold };
                    let answer = self.shop.ask.ask(&self.node, &message, Confirm::DEADLINE).await;
                    if is_lost(&answer) {
                        self.shop.books.lock().tally.region(&self.arrival.region).lost_confirms += 1;
                    }
                    customer.confirm_answered(answer)
                }
            };
            if customer.is_unknown() {
                self.shop.books.lock().tally.region(&self.arrival.region).asked_again += 1;
            }
        }
    }

    async fn hold(&self, customer: &mut Customer) -> Next {
        let (qty, ttl) = (self.arrival.qty, self.shop.load.plan.ttl);
        let (pool, key) = (self.shop.load.pool.clone(), self.key.clone());
        let tag = |user: &str| CustomerTag::of(&pool, user).expect("users of a file are plain text");
        let tag = self.arrival.user.as_deref().map(tag);
        let message = Hold { pool, qty, ttl: Some(ttl), key, hops: 0, customer: tag };
        let asked = Instant::now();
        let answer = self.shop.ask.ask(&self.node, &message, Hold::DEADLINE).await;
        let lost = u64::from(is_lost(&answer));
        let next = customer.hold_answered(answer);
        let mut books = self.shop.books.lock();
        books.tally.region(&self.arrival.region).lost_holds += lost;
        books.tally.hold_answered(&self.arrival.region, customer.state(), self.due.elapsed());
        if let State::Abandoned(held) | State::Confirming(held) = customer.state() {
            books.tell(&held.hold.owner.region, asked);
        }
        next
    }

    async fn pause(&self, after: Duration) {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
    }

    /// Writes the story down, and waits until the operating system has it.
    async fn write(&self, state: &State, asked_ms: u64) {
        let (key, region) = (self.key.to_string(), self.arrival.region.clone());
        let receipt = Receipt::of(key, region, self.arrival.qty, asked_ms, now_ms(), state);
        let (written, done) = oneshot::channel();
        if self.shop.receipts.send(Entry { receipt, written }).await.is_ok() {
            // It fails only when the writer has; `settle` tells why.
            done.await.ok();
        }
    }
}

impl Books {
    fn tell(&mut self, region: &Region, asked: Instant) {
        let now = Instant::now();
        for waiter in self.waiters.extract_if(.., |w| w.region == *region && asked >= w.asked_after) {
            // Who no longer waits does not mind.
            let _ = waiter.tell.send(now);
        }
    }
}

/// Whether nobody told what became of a call.
fn is_lost<T>(answer: &Result<T, Fault>) -> bool {
    matches!(answer, Err(fault) if fault.delivery() == Delivery::Unknown)
}

fn write_receipts(mut ledger: LedgerWriter, mut queue: mpsc::Receiver<Entry>) -> Result<(), LedgerError> {
    let mut waiting = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some(Entry { receipt, written }) = next {
            ledger.write(&receipt)?;
            waiting.push(written);
            next = if waiting.len() < RECEIPTS_WAITING { queue.try_recv().ok() } else { None };
        }
        ledger.flush()?;
        for written in waiting.drain(..) {
            // Who was given up meanwhile does not mind.
            written.send(()).ok();
        }
    }
    ledger.flush()
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rhumb_actors::escrow::messages::{Held, HoldId, Refusal, Settled};
    use rhumb_core::rng::Rng;
    use rhumb_core::{FaultKind, HybridTime, Incarnation};

    use super::*;
    use crate::load::Spacing;
    use crate::load::receipts::Ledger;

    /// A pool on one node that loses every so many-th answer after having done what was asked.
    struct LossyPool {
        left: Mutex<u64>,
        holds: Mutex<BTreeMap<Key, HoldId>>,
        sold: AtomicU64,
        settled: Mutex<BTreeMap<HoldId, bool>>,
        losses: Mutex<Rng>,
        silent: bool,
        receipts: PathBuf,
    }

    impl LossyPool {
        fn new(left: u64, silent: bool, receipts: &Path) -> Arc<Self> {
            Arc::new(Self {
                left: Mutex::new(left),
                holds: Mutex::default(),
                sold: AtomicU64::new(0),
                settled: Mutex::default(),
                losses: Mutex::new(Seed::new(1).rng()),
                silent,
                receipts: receipts.to_owned(),
            })
        }

        fn hold(&self, node: &NodeId, message: &Hold) -> Result<Held, Refusal> {
            let mut holds = self.holds.lock();
            let number = holds.len() as u64 + 1;
            let hold = match holds.get(&message.key) {
                Some(hold) => hold.clone(),
                None => {
                    let mut left = self.left.lock();
                    *left = left.checked_sub(1).ok_or(Refusal::SoldOut)?;
                    let (pool, owner) = (message.pool.clone(), node.clone());
                    HoldId { pool, owner, incarnation: Incarnation(1), number, secret: 7 }
                }
            };
            holds.insert(message.key.clone(), hold.clone());
            Ok(Held { hold, qty: 1, expires: HybridTime::new(1, 0), overdrawn: 0 })
        }

        fn confirm(&self, message: &Confirm) -> Result<Settled, Refusal> {
            if message.hold.number.is_multiple_of(16) {
                let ledger = Ledger::read(&self.receipts).expect("it is there");
                let hold = message.hold.to_string();
                let promised = ledger.receipts.values().any(|r| r.hold.as_ref() == Some(&hold));
                assert!(promised, "{hold} is confirmed, and the ledger does not know of it");
            }
            if self.settled.lock().insert(message.hold.clone(), true).is_none() {
                self.sold.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Settled { hold: message.hold.clone(), qty: 1 })
        }
    }

    impl Ask for LossyPool {
        async fn ask<M: Remote + Sync>(
            &self,
            node: &NodeId,
            message: &M,
            _: Duration,
        ) -> Result<M::Reply, Fault> {
            let message = message as &dyn Any;
            let reply: Box<dyn Any + Send> = if let Some(hold) = message.downcast_ref::<Hold>() {
                Box::new(self.hold(node, hold))
            } else {
                Box::new(self.confirm(message.downcast_ref().expect("a confirmation")))
            };
            if self.silent || self.losses.lock().chance(0.3) {
                return Err(Fault::unknown(FaultKind::Deadline("waiting for the reply".into())));
            }
            Ok(*reply.downcast::<M::Reply>().expect("the reply of what was asked"))
        }
    }

    fn load(receipts: PathBuf) -> Load {
        let region = Region::new("us-east").expect("valid");
        let node = NodeId { region: region.clone(), name: "n1".parse().expect("valid") };
        Load {
            pool: PoolName::new("concert").expect("valid"),
            plan: Plan {
                rate: 1_000,
                spacing: Spacing::Exponential,
                burst: None,
                mix: vec![(region.clone(), 1)],
                abandon_percent: 50,
                think: (Duration::ZERO, Duration::from_millis(50)),
                qty: 1,
                ttl: Duration::from_secs(3),
            },
            requests: None,
            seed: Seed::new(9),
            lasts: Some(Duration::from_secs(2)),
            nodes: BTreeMap::from([(region, vec![node])]),
            receipts,
        }
    }

    #[tokio::test]
    async fn receipts_and_tallies_agree_with_a_pool_that_loses_answers() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("receipts.jsonl");
        let pool = LossyPool::new(1_500, false, &path);
        let running = load(path.clone()).start(Arc::clone(&pool)).expect("starts");
        let told = running.next_hold_in(Region::new("us-east").expect("valid"));
        told.await.expect("somebody holds");
        while !running.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let tally = running.settle(Duration::from_secs(60)).await.expect("settles");
        let total = tally.total();
        let ended = total.bought + total.abandoned + total.refused["sold_out"];
        assert_eq!((total.came, total.unknown, tally.under_way), (ended, 0, 0));
        assert!(total.came > 1_800 && total.asked_again > 300, "{total:?}");
        assert_eq!(total.held, 1_500);
        assert_eq!(tally.sold, pool.sold.load(Ordering::Relaxed), "each sale was told, and told once");
        let ledger = Ledger::read(&path).expect("reads");
        assert_eq!(ledger.receipts.len() as u64, total.came);
        let sums = ledger.sums(0..=0).expect("sound");
        assert_eq!((sums.total_sold(), &sums.sold), (u128::from(tally.sold), &tally.sold_by));
        assert!(sums.broken.is_empty() && sums.unknown.is_empty());
    }

    #[tokio::test]
    async fn what_never_gets_an_answer_is_told_as_unknown() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("receipts.jsonl");
        let running = load(path.clone()).start(LossyPool::new(9, true, &path)).expect("starts");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let tally = running.settle(Duration::from_secs(5)).await.expect("gives up");
        let total = tally.total();
        assert!(total.came > 300 && total.unknown == total.came, "{total:?}");
        let sums = Ledger::read(&path).expect("reads").sums(0..=0).expect("sound");
        assert_eq!(sums.unanswered, total.came);
    }

    #[tokio::test]
    async fn a_load_that_cannot_be_made_is_refused_before_anybody_comes() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("receipts.jsonl");
        let pool = LossyPool::new(1, false, &path);
        let mut none = load(path.clone());
        none.plan.rate = 0;
        assert!(matches!(none.start(Arc::clone(&pool)), Err(LoadError::NoLoad)));
        let mut nowhere = load(path);
        nowhere.nodes.clear();
        assert!(matches!(nowhere.start(pool), Err(LoadError::NoNode(_))));
    }
}
