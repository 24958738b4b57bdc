//! Appends to a node's audit log, each waited for until it is durable: the actor, its storage and RocksDB as
//! `rhumb serve` has them, without a mesh around. Beside it the same rows through the same storage by whoever calls:
//! no actor, no record, no salt, no seal, no leaf, no tile, no checkpoint.
//!
//! Every round begins with an empty store.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rhumb::clock::NodeClock;
use rhumb_actors::audit::messages::{Cosign, Uncosigned};
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::seal::{SecretKey, WrappedBy};
use rhumb_actors::audit::{AuditHandle, AuditLogger, AuditSettings, Machines, Shared, Signing, World, rows};
use rhumb_actors::storage::{StorageActor, StorageHandle};
use rhumb_core::{HybridTime, NodeId, Now};
use rhumb_storage::hot::HotSettings;
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, HotStore, RocksEngine, Store};
use tokio::sync::oneshot;

use crate::inside::{Measured, Order, obey};
use crate::sample::{Latencies, Sample};

/// What precedes every round and is not counted.
const WARM: Duration = Duration::from_millis(100);
const DOMAIN: &str = "bench.example";
const ACTION: &str = "bench.append";

/// The world around a log without a mesh.
struct Alone(NodeClock);

impl World for Alone {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn cosign(&self, _: &NodeId, _: Cosign) -> BoxFuture<'static, Option<Result<String, Uncosigned>>> {
        async { None }.boxed()
    }

    fn make(&self, _: WrappedBy) -> BoxFuture<'static, Result<SecretKey, String>> {
        async { Ok(SecretKey::new([7; 32])) }.boxed()
    }

    fn destroy(&self, _: WrappedBy) -> BoxFuture<'static, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn halt(&self, reason: String) {
        panic!("{reason}");
    }
}

/// A store with its actor, and what was started for them.
struct Standing {
    store: HotStore,
    storage: StorageHandle,
    arbiters: Vec<ArbiterHandle>,
}

impl Standing {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let engine = RocksEngine::open(&dir.join("hot"), &RocksSettings::default(), true)?;
        let store = HotStore::start(Store::open(engine)?, HotSettings::default(), |fault| panic!("{fault}"))?;
        let (here, writes) = (Arbiter::new().handle(), StorageActor::backlog());
        let (given, counts) = (store.clone(), Arc::clone(&writes));
        let storage = StorageActor::start_in_arbiter(&here, |_| StorageActor::new(given, counts));
        Ok(Self { store, storage: StorageHandle::new(storage, writes), arbiters: vec![here] })
    }

    fn log(&mut self) -> anyhow::Result<AuditHandle> {
        let me: NodeId = "here/n1".parse()?;
        let signing = Signing::of(&SecretKey::new([9; 32]), DOMAIN, &me);
        let settings = AuditSettings::default();
        let nodes = [me.clone()];
        let machines = Machines::recover(DOMAIN, &me, nodes, &signing, Vec::new(), settings, &self.store)?;
        let never = HybridTime::new((1 << 48) - 1, 0);
        let world = Arc::new(Alone(NodeClock::new(never, Duration::from_millis(500))));
        let (there, shared) = (Arbiter::new().handle(), Shared::default());
        let (to, store, counts) = (self.storage.clone(), self.store.clone(), shared.clone());
        let log = AuditLogger::start_in_arbiter(&there, move |_| {
            AuditLogger::new(machines, signing, to, store, &counts, world)
        });
        self.arbiters.push(there);
        Ok(AuditHandle::new(log, shared))
    }

    fn stop(self) -> anyhow::Result<()> {
        let stats = self.store.close(Duration::from_secs(10));
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        stats.map(drop).context("the store closes")
    }
}

/// So many callers, each waiting for its own.
async fn drive<F: Future<Output = bool>>(concurrency: usize, millis: u64, once: impl Fn() -> F) -> Sample {
    let begin = Instant::now() + WARM;
    let end = begin + Duration::from_millis(millis);
    let caller = || async {
        let (mut latencies, mut failed, mut at) = (Latencies::default(), 0, Instant::now());
        while at < end {
            let well = once().await;
            let now = Instant::now();
            match well {
                _ if at < begin => {}
                true => latencies.record((now - at).as_nanos() as u64),
                false => failed += 1,
            }
            at = now;
        }
        (latencies, failed)
    };
    let mut each: FuturesUnordered<_> = (0..concurrency).map(|_| caller()).collect();
    let (mut all, mut failed) = (Latencies::default(), 0);
    while let Some((latencies, wrong)) = each.next().await {
        all.add(&latencies);
        failed += wrong;
    }
    all.sample(failed, (Instant::now() - begin).as_secs_f64())
}

fn record() -> Record {
    Record::told(ACTION, "operator here/ann", Outcome::Done).on("pool concert")
}

fn obeyed(round: impl AsyncFn(&mut Standing, usize, u64) -> anyhow::Result<Sample>) -> anyhow::Result<()> {
    let system = System::new();
    obey(|order| {
        let Order::Append { concurrency, millis } = order else {
            anyhow::bail!("only appends are measured here")
        };
        let dir = tempfile::tempdir()?;
        system.block_on(async {
            let mut standing = Standing::start(dir.path())?;
            let sample = round(&mut standing, concurrency, millis).await;
            standing.stop()?;
            Ok(Measured::of(sample?))
        })
    })
}

/// Obeys orders in this process: appends to the log.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn ours() -> anyhow::Result<()> {
    obeyed(async |standing, concurrency, millis| {
        let log = standing.log()?;
        // The first one makes the keys.
        log.append(record(), None).await?;
        Ok(drive(concurrency, millis, || async { log.append(record(), None).await.is_ok() }).await)
    })
}

/// Obeys orders in this process: writes the same rows.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn batches() -> anyhow::Result<()> {
    obeyed(async |standing, concurrency, millis| {
        // What one append leaves on the disk; the next ones are of the same sizes.
        let log = standing.log()?;
        let last = log.append(record(), None).await?;
        let row = |key: &[u8]| rows::Rows::row(&standing.store, key)?.context("what was appended is there");
        let (entry, body) = (row(&rows::entry_key(last))?, row(&rows::body_key(last))?);
        let next = std::cell::Cell::new(last + 1);
        let once = || {
            let index = next.replace(next.get() + 1);
            let (mut batch, (done, durable)) = (Batch::new(), oneshot::channel());
            rows::put_entry(&mut batch, index, &entry, &body, &[]);
            let taken = standing.storage.write(batch, Box::new(move |result| drop(done.send(result))));
            async move { taken.is_ok() && matches!(durable.await, Ok(Ok(_))) }
        };
        Ok(drive(concurrency, millis, once).await)
    })
}
