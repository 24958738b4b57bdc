//! The shell: three nodes in one process, each with its own store, and a network of handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, System};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rhumb_core::{HybridTime, Mono, NodeId, Now};
use rhumb_storage::hot::HotSettings;
use rhumb_storage::{HotStore, MemoryDisk, MemoryEngine, Store};
use rhumb_verify::record::Entry;
use rhumb_verify::{Note, Policy};

use crate::audit::log::LogSettings;
use crate::audit::messages::{AuditView, Cosign, Uncosigned};
use crate::audit::record::{Outcome, Record};
use crate::audit::roots::COSIGNED;
use crate::audit::seal::{SecretKey, WrappedBy};
use crate::audit::{
    AuditHandle, AuditLogger, AuditSettings, Looked, Machines, NotAppended, Observed, Shared, Signing, World,
    read, rows,
};
use crate::storage::{StorageActor, StorageHandle};

const DOMAIN: &str = "mesh.example";

/// Handles by node, and which are cut off.
#[derive(Default)]
struct Net {
    handles: Mutex<BTreeMap<NodeId, AuditHandle>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

/// What outlives a node: its disk, and the files of its wrapping keys.
struct Place {
    me: NodeId,
    seed: SecretKey,
    disk: MemoryDisk,
    keys: Arc<Mutex<BTreeMap<WrappedBy, SecretKey>>>,
    retention: Duration,
}

struct Around {
    net: Arc<Net>,
    keys: Arc<Mutex<BTreeMap<WrappedBy, SecretKey>>>,
    /// Ten milliseconds pass whenever somebody looks.
    time: AtomicU64,
}

impl World for Around {
    fn now(&self) -> Now {
        let ms = 1_000_000 + self.time.fetch_add(10, Ordering::Relaxed);
        Now { hybrid: HybridTime::new(ms, 0), mono: Mono::millis(ms) }
    }

    fn cosign(
        &self,
        witness: &NodeId,
        ask: Cosign,
    ) -> BoxFuture<'static, Option<Result<String, Uncosigned>>> {
        let there = self.net.handles.lock().get(witness).cloned();
        let there = there.filter(|_| !self.net.cut.lock().contains(witness));
        async move {
            match there {
                Some(there) => there.cosign(ask).await,
                None => None,
            }
        }
        .boxed()
    }

    fn make(&self, by: WrappedBy) -> BoxFuture<'static, Result<SecretKey, String>> {
        let mut keys = self.keys.lock();
        let next = keys.len() as u8 + 1;
        let key = keys.entry(by).or_insert_with(|| SecretKey::new([next; 32])).clone();
        async move { Ok(key) }.boxed()
    }

    fn destroy(&self, by: WrappedBy) -> BoxFuture<'static, Result<(), String>> {
        self.keys.lock().remove(&by);
        async move { Ok(()) }.boxed()
    }

    fn halt(&self, reason: String) {
        assert!(std::thread::panicking(), "{reason}");
    }
}

fn nodes() -> [NodeId; 3] {
    ["us/n1", "eu/n1", "ap/n1"].map(|node| node.parse().expect("a node"))
}

impl Place {
    fn new(number: u8) -> Self {
        let me = nodes()[usize::from(number)].clone();
        Self {
            me,
            seed: SecretKey::new([number + 40; 32]),
            disk: MemoryDisk::new(),
            keys: Arc::default(),
            retention: LogSettings::default().retention,
        }
    }

    fn signing(&self) -> Signing {
        Signing::of(&self.seed, DOMAIN, &self.me)
    }

    /// A life of the node on this disk.
    fn start(&self, net: &Arc<Net>) -> (AuditHandle, HotStore) {
        let store = Store::open(MemoryEngine::open(&self.disk)).expect("a sound disk");
        let store =
            HotStore::start(store, HotSettings::default(), |fault| panic!("{fault}")).expect("starts");
        let wrapping = self.keys.lock().iter().map(|(by, key)| (by.clone(), key.clone())).collect();
        let settings = AuditSettings {
            log: LogSettings {
                interval: Duration::from_millis(20),
                ask_again: Duration::from_millis(200),
                retention: self.retention,
            },
            ..AuditSettings::default()
        };
        let signing = self.signing();
        let machines = Machines::recover(DOMAIN, &self.me, nodes(), &signing, wrapping, settings, &store);
        let machines = machines.expect("a sound disk");
        let writes = StorageActor::backlog();
        let storage = StorageActor::new(store.clone(), Arc::clone(&writes)).start();
        let storage = StorageHandle::new(storage, writes);
        let world = Arc::new(Around {
            net: Arc::clone(net),
            keys: Arc::clone(&self.keys),
            time: AtomicU64::new(store.durable().0 * 1_000),
        });
        let shared = Shared::default();
        let actor = AuditLogger::new(machines, signing, storage, store.clone(), &shared, world).start();
        let handle = AuditHandle::new(actor, shared);
        net.handles.lock().insert(self.me.clone(), handle.clone());
        (handle, store)
    }
}

/// Every node shows every other its key.
fn greet(places: &[Place], net: &Net) {
    for place in places {
        for other in places.iter().filter(|other| other.me != place.me) {
            let there = net.handles.lock()[&place.me].clone();
            there.shown(&other.me, &other.signing().public());
        }
    }
}

fn done(action: &str) -> Record {
    Record::told(action, "operator us/ann", Outcome::Done).on("pool concert")
}

async fn until(handle: &AuditHandle, what: &str, holds: impl Fn(&AuditView) -> bool) -> AuditView {
    for _ in 0..2_000 {
        let view = handle.view().await.expect("it says how it stands");
        if holds(&view) {
            return view;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never {what}: {:#?}", handle.view().await);
}

#[test]
fn what_is_appended_is_durable_cosigned_by_the_other_regions_and_goes_on_after_a_restart() {
    System::new().block_on(async {
        let net = Arc::new(Net::default());
        let places: Vec<_> = (0..3).map(Place::new).collect();
        let started: Vec<_> = places.iter().map(|place| place.start(&net)).collect();
        let (log, store) = &started[0];
        let first = log.append(done("pool.create"), Some("operator us/ann")).await.expect("appended");
        let entry = Entry::decode(&read::stored(store, first).expect("it is there").entry).expect("an entry");
        assert_eq!(entry.action, "pool.create");
        let alone = until(log, "signed", |view| view.signed > first).await;
        assert_eq!((alone.published, alone.policy.as_str()), (0, ""), "nobody is known yet");
        greet(&places, &net);
        // The keys that were pinned are entries too.
        let all = |view: &AuditView| view.published == 3 && view.witnesses.values().all(|size| *size == 3);
        let view = until(log, "published and cosigned by both", |view| view.entries == 3 && all(view)).await;
        assert_eq!(view.witnesses.len(), 2, "{view:?}");
        let policy = Policy::parse(&view.policy).expect("a policy");
        let trusted = policy.trusts(&Note::parse(&view.published_note).expect("a note")).expect("trusted");
        assert_eq!(trusted.checkpoint.size, 3);
        assert!(!trusted.cosigned.is_empty());
        net.cut.lock().insert(nodes()[1].clone());
        let index = log.append(done("pool.create"), None).await.expect("the log goes on");
        let view = until(log, "published without one", |view| view.published > index).await;
        let behind = view.witnesses.iter().find(|(name, _)| name.contains(".eu.")).expect("known").1;
        assert_eq!(*behind, 3, "it says how far it is cosigned");
        let (before, published) = (view.entries, view.published_note);
        let restarted = Place::new(0);
        restarted.disk.restore(&places[0].disk.snapshot());
        *restarted.keys.lock() = places[0].keys.lock().clone();
        let (log, _) = restarted.start(&net);
        let view = until(&log, "recovered", |_| true).await;
        assert_eq!((view.entries, view.broken, view.published_note), (before, None, published));
        net.cut.lock().clear();
        let index = log.append(done("pool.create"), Some("operator us/ann")).await.expect("appended");
        until(&log, "published by both", |view| view.witnesses.values().all(|size| *size > index)).await;
    });
}

#[test]
fn an_erased_subjects_record_stays_shut_and_the_others_open() {
    System::new().block_on(async {
        let (net, place) = (Arc::new(Net::default()), Place::new(0));
        let (log, store) = place.start(&net);
        let ann = log.append(done("pool.create"), Some("ann")).await.expect("appended");
        let bob = log.append(done("pool.create"), Some("bob")).await.expect("appended");
        let bodies = |store: &HotStore| {
            [ann, bob].map(|index| {
                let stored = read::stored(store, index).expect("it is there");
                (Entry::decode(&stored.entry).expect("an entry").commitment, stored.body)
            })
        };
        let both = log.open(bodies(&store).to_vec()).await.expect("answers");
        assert!(both.iter().all(|one| matches!(one, Looked::Opened(..))), "{both:?}");
        let key = log.subject("ann").await.expect("a key");
        assert_eq!(log.erase("ann").await, Ok(Some(key)));
        assert_eq!(log.erase("ann").await, Ok(None), "once is enough");
        let generations: Vec<_> = place.keys.lock().keys().map(|by| by.generation).collect();
        assert_eq!(generations, [2], "the old wrapping key is destroyed");
        let looked = log.open(bodies(&store).to_vec()).await.expect("answers");
        assert!(matches!(&looked[..], [Looked::Shut, Looked::Opened(..)]), "{looked:?}");
        let mut changed = bodies(&store).to_vec();
        changed[1].1[40] ^= 1;
        let looked = log.open(changed).await.expect("answers");
        assert!(matches!(looked[1], Looked::Changed(_)), "{looked:?}");
        let (found, faults) = read::check_bundle(&store, 0).expect("the disk answers");
        assert_eq!((found.len(), faults), (2, Vec::new()), "proofs need no body");
    });
}

#[test]
fn what_cannot_be_sealed_is_refused_and_what_is_seen_often_is_told_once() {
    System::new().block_on(async {
        let (net, place) = (Arc::new(Net::default()), Place::new(0));
        let (log, _) = place.start(&net);
        let refused = log.append(done("Pool Create"), None).await;
        assert!(matches!(refused, Err(NotAppended::Record(_))), "{refused:?}");
        let refused = log.append(done("pool.create"), Some("")).await;
        assert!(matches!(refused, Err(NotAppended::Key(_))), "{refused:?}");
        for _ in 0..1_000 {
            let kind = Observed::refused("gate.refused", "eu to us", "no policy");
            log.observe(HybridTime::new(60_000, 0), kind);
        }
        let index = log.append(done("pool.create"), None).await.expect("appended");
        assert!(index <= 2, "a flood fills no disk: {index}");
        assert_eq!(log.view().await.expect("answers").missed, 0);
    });
}

#[test]
fn a_peer_that_shows_another_key_is_not_believed() {
    System::new().block_on(async {
        let net = Arc::new(Net::default());
        let places: Vec<_> = (0..3).map(Place::new).collect();
        let started: Vec<_> = places.iter().map(|place| place.start(&net)).collect();
        greet(&places, &net);
        let log = &started[0].0;
        until(log, "published", |view| view.published > 0).await;
        log.shown(&nodes()[1], &[9; 32]);
        let view = until(log, "told", |view| !view.refused.is_empty()).await;
        assert_eq!(view.refused, ["eu/n1"]);
        let wrong = Cosign { old: 0, proof: vec![1; 31], note: String::new() };
        assert!(matches!(log.cosign(wrong).await, Some(Err(Uncosigned::Unreadable(_)))));
        let stranger = Cosign { old: 0, proof: Vec::new(), note: "x\n0\n\n\n".to_owned() };
        assert!(matches!(log.cosign(stranger).await, Some(Err(Uncosigned::Unreadable(_)))));
    });
}

#[test]
fn a_checkpoint_that_was_cosigned_stands_in_the_witnesss_own_log_when_it_stops() {
    System::new().block_on(async {
        let net = Arc::new(Net::default());
        let places: Vec<_> = (0..3).map(Place::new).collect();
        let started: Vec<_> = places.iter().map(|place| place.start(&net)).collect();
        let (log, (witness, store)) = (&started[0].0, &started[1]);
        log.append(done("pool.create"), None).await.expect("appended");
        greet(&places, &net);
        until(log, "cosigned by both", |view| {
            view.witnesses.len() == 2 && view.witnesses.values().all(|size| *size > 0)
        })
        .await;
        witness.part();
        let last = witness.append(done("node.stop"), None).await.expect("appended");
        let mut told = Vec::new();
        for index in 0..last {
            let stored = read::stored(store, index).expect("it is there");
            let entry = Entry::decode(&stored.entry).expect("an entry");
            if entry.action == COSIGNED {
                told.push((entry.commitment, stored.body));
            }
        }
        let key = places[0].signing().log.key().clone();
        let opened = witness.open(told).await.expect("answers");
        let of = opened.iter().find_map(|one| {
            let Looked::Opened(_, record) = one else { panic!("{one:?}") };
            Some(Record::parse(record).expect("a record")).filter(|record| record.resource == key.name)
        });
        let note = of.expect("the first node's is among them").details.remove("note").expect("a note");
        let note = Note::parse(&note).expect("a note");
        assert!(matches!(key.verify(&note), Ok(Some(_))), "with the log's own signature");
        witness.part();
        let again = witness.append(done("node.stop"), None).await.expect("appended");
        assert!(again <= last + 3, "what was told is not told again: {last}, {again}");
    });
}

#[test]
fn an_entry_is_among_the_durable_ones_from_when_its_append_is_answered_on() {
    System::new().block_on(async {
        let (net, place) = (Arc::new(Net::default()), Place::new(0));
        let (log, store) = place.start(&net);
        let first = log.append(done("pool.create"), None).await.expect("appended");
        assert!(log.durable().await > Some(first), "the node shows what it has answered for");
        let more = (0..50).map(|_| log.append(done("pool.create"), None));
        let indices = futures::future::try_join_all(more).await.expect("appended");
        let last = indices.into_iter().max().expect("fifty");
        let durable = log.durable().await.expect("it says so");
        assert!(durable > last && durable <= read::size(&store).expect("a number"), "{durable}, {last}");
    });
}

#[test]
fn what_is_old_is_pruned_and_that_it_is_is_told_before_and_after() {
    System::new().block_on(async {
        let net = Arc::new(Net::default());
        let mut places: Vec<_> = (0..3).map(Place::new).collect();
        places[0].retention = Duration::from_secs(2);
        let started: Vec<_> = places.iter().map(|place| place.start(&net)).collect();
        let (log, store) = &started[0];
        for _ in 0..520 {
            log.append(done("pool.create"), Some("operator us/ann")).await.expect("appended");
        }
        assert_eq!(log.report().await.expect("answers").mark, 0, "nothing is published");
        greet(&places, &net);
        let mut report = log.report().await.expect("answers");
        for _ in 0..4_000 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            // Its witnesses' clocks go on when they are asked.
            log.append(done("pool.create"), None).await.expect("appended");
            report = log.report().await.expect("answers");
            if report.mark > 0 && report.appended.get("audit.prune") >= Some(&2) {
                break;
            }
        }
        let mark = report.mark;
        assert!(mark >= 256, "{report:?}");
        assert!(report.witnesses.len() == 2 && !report.broken, "{report:?}");
        assert_eq!(
            read::stored(store, 0),
            Err(rows::Unsound::Pruned { mark: rows::mark(store).expect("a mark") })
        );
        // What was told last is durable when something that came after it is.
        log.append(done("pool.create"), None).await.expect("appended");
        let mut told = Vec::new();
        for index in mark..log.view().await.expect("answers").entries {
            let Ok(stored) = read::stored(store, index) else { continue };
            let entry = Entry::decode(&stored.entry).expect("an entry");
            if entry.action == "audit.prune" {
                told.push((entry.commitment, stored.body));
            }
        }
        let opened = log.open(told).await.expect("answers");
        let records: Vec<_> = opened
            .iter()
            .map(|one| match one {
                Looked::Opened(_, record) => Record::parse(record).expect("a record"),
                shut => panic!("{shut:?}"),
            })
            .collect();
        let outcomes: Vec<_> = records.iter().take(2).map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Begun, Outcome::Done], "{records:?}");
        assert_eq!(records[0].resource, format!("entries 0 to {}", records[0].details["mark"]));
        let mark = rows::mark(store).expect("a mark");
        for bundle in mark / 256..mark / 256 + 2 {
            assert_eq!(read::check_bundle(store, bundle).expect("the disk answers").1, [""; 0]);
        }
    });
}
