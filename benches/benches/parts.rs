//! The small parts, each alone: `cargo bench`, or `cargo bench -- NAME` for those with NAME in theirs.
//!
//! Each is run in batches of about a millisecond; what is printed are the fastest batch, the median and the
//! 99th percentile of their means. No threads but RocksDB's own; what waits for a disk says so.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mimalloc::MiMalloc;
use rhumb::escrow::{CreatePool, Hold};
use rhumb::seed::Seed;
use rhumb_actors::escrow::book::{Book, Input, Out, Request, Token};
use rhumb_actors::escrow::{EscrowSettings, Key};
use rhumb_core::effects::Release;
use rhumb_core::{
    Barrier, DataClass, Direction, Epoch, Gate, Guarantee, HybridClock, HybridTime, Mono, NodeId, Now,
    Passage, PoolName, Region, StoreId, codec,
};
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, CommitNumber, Family, RocksEngine, Store};
use rhumb_topology::Founding;
use rhumb_topology::policy::{Policy, PolicySnapshot};
use rhumb_transport::TraceContext;
use rhumb_transport::envelope::{Frame, FrameKind};

/// As the program `rhumb` has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long each part is measured.
const EACH: Duration = Duration::from_millis(600);
/// How long a batch is, about.
const BATCH: Duration = Duration::from_millis(1);

/// Measures one part if its name is asked for, and prints a line.
fn part(wanted: &[String], name: &str, mut run: impl FnMut()) {
    if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
        return;
    }
    let begin = Instant::now();
    let mut runs = 0_u32;
    while begin.elapsed() < BATCH {
        run();
        runs += 1;
    }
    let (end, mut means) = (Instant::now() + EACH, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        (0..runs).for_each(|_| run());
        means.push(begin.elapsed().as_nanos() as f64 / f64::from(runs));
    }
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((means.len() - 1) as f64 * share) as usize];
    println!("{name:<28} {:>12.1} {:>12.1} {:>12.1}", at(0.0), at(0.5), at(0.99));
}

fn main() {
    // Cargo says `--bench`; all else are names.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!("{:<28} {:>12} {:>12} {:>12}", "ns", "fastest", "median", "p99");
    hybrid_time(&wanted);
    envelope(&wanted);
    coding(&wanted);
    gate(&wanted);
    ledger(&wanted);
    commit(&wanted);
}

fn hybrid_time(wanted: &[String]) {
    let never = HybridTime::new((1 << 48) - 1, 0);
    let clock = HybridClock::new(never, Duration::from_millis(500));
    part(wanted, "hybrid time: tick", || {
        black_box(clock.tick(black_box(1_700_000_000_000)).ok());
    });
    part(wanted, "hybrid time: merge", || {
        let seen = clock.last();
        black_box(clock.merge(black_box(seen.millis()), seen).ok());
    });
}

fn frame(class: &DataClass) -> Frame {
    Frame {
        kind: FrameKind::Ask,
        codec: 1,
        id: 7,
        deadline: Duration::from_secs(5),
        hybrid: HybridTime::new(1_700_000_000_000, 1),
        guarantee: Guarantee::STRONGEST,
        required: Guarantee::Eventual,
        trace: Some(TraceContext { trace_id: 1, span_id: 2, flags: 0 }),
        name: "bench.Echo".into(),
        class: class.clone(),
        key: None,
        epoch: Some(Epoch(3)),
        chain: vec!["cart/42".into()],
        target: Some("bench.echo/bench".into()),
        body: Bytes::from(vec![7; 64]),
    }
}

fn envelope(wanted: &[String]) {
    let frame = frame(&DataClass::control());
    let bytes = frame.encode();
    part(wanted, "envelope: encode 64 B", || {
        black_box(frame.encode());
    });
    part(wanted, "envelope: decode 64 B", || {
        black_box(Frame::decode(bytes.clone()).expect("a frame"));
    });
}

fn node() -> NodeId {
    NodeId::new("here", "n1").expect("a name")
}

fn key(number: u64) -> Key {
    Key::Made { home: node(), created_ms: WALL_MS, nonce: format!("{number:024}") }
}

fn hold(number: u64) -> Hold {
    let pool = PoolName::new("seats").expect("a name");
    Hold { pool, qty: 1, ttl: None, key: key(number), hops: 0, customer: None }
}

fn coding(wanted: &[String]) {
    let hold = hold(1);
    let bytes = codec::encode(&hold).expect("encodes");
    part(wanted, "codec: encode a hold", || {
        black_box(codec::encode(&hold).expect("encodes"));
    });
    part(wanted, "codec: decode a hold", || {
        black_box(codec::decode::<Hold>(&bytes).expect("decodes"));
    });
}

fn gate(wanted: &[String]) {
    let text = "version = 1\n[jurisdictions]\nhere = [\"here\"]\nthere = [\"there\"]\n\
                [classes.inventory]\nhold = [\"all\"]\nread = [\"all\"]\ncarry = [\"all\"]\n";
    let regions = ["here", "there"].map(|name| Region::new(name).expect("a name"));
    let policy = PolicySnapshot::compile(Policy::parse(text).expect("a policy"), &regions, WALL_MS);
    let check = |class: &DataClass| {
        let passage = Passage { direction: Direction::Egress, class, from: &regions[0], to: &regions[1] };
        assert!(black_box(&policy).check(passage).is_ok());
    };
    let (control, inventory) = (DataClass::control(), DataClass::new("inventory").expect("a name"));
    part(wanted, "gate: class control", || check(&control));
    part(wanted, "gate: a class of the policy", || check(&inventory));
}

const WALL_MS: u64 = 1_767_225_600_000;

/// A book of one node with one pool, and all that its shell keeps for it.
struct Desk {
    book: Book,
    out: Out,
    barrier: Barrier<rhumb_actors::escrow::Effect>,
    next: u64,
}

impl Desk {
    fn new() -> Self {
        let settings = EscrowSettings { max_keys: usize::MAX, ..EscrowSettings::default() };
        let founding = Founding::new([node()]).expect("one node");
        let book = Book::recover(
            node(),
            founding,
            StoreId(1),
            settings,
            std::iter::empty(),
            CommitNumber(0),
            Self::now(0),
        );
        let mut desk =
            Self { book: book.expect("empty"), out: Out::default(), barrier: Barrier::default(), next: 0 };
        desk.book.start(Self::now(0), &Seed::new(1), &mut desk.out);
        desk.settle();
        let request = CreatePool {
            name: PoolName::new("seats").expect("a name"),
            class: DataClass::new("inventory").expect("a name"),
            supply: 1 << 40,
            weights: Default::default(),
            debt: 0,
            reserve: None,
            per_customer: None,
            durability: Default::default(),
        };
        let allowed = vec![node().region];
        desk.ask(Request::Create { request, allowed });
        desk
    }

    /// A tick of time each step, as a busy node has.
    fn now(step: u64) -> Now {
        let micros = Duration::from_micros(20 * step);
        Now { hybrid: HybridTime::new(WALL_MS, 0).plus(micros), mono: Mono(micros) }
    }

    fn ask(&mut self, request: Request) {
        self.next += 1;
        let now = Self::now(self.next);
        let until = now.mono.plus(Duration::from_secs(5));
        self.book.step(now, Input::Ask { token: Token(self.next), request, until }, &mut self.out);
        black_box(self.book.next_deadline(now));
        self.settle();
    }

    /// What was persisted is durable at once.
    fn settle(&mut self) {
        let mut last = None;
        self.barrier.absorb(&mut self.out, |release| match release {
            Release::Persist(ticket, batch) => last = Some((ticket, black_box(batch))),
            Release::Perform(effect) => drop(black_box(effect)),
        });
        if let Some((ticket, _)) = last {
            self.book.durable(CommitNumber(ticket.0));
            self.barrier.durable(ticket, |effect| drop(black_box(effect)));
        }
    }
}

fn ledger(wanted: &[String]) {
    let mut desk = Desk::new();
    part(wanted, "ledger: hold", || {
        let hold = hold(desk.next);
        desk.ask(Request::Hold(hold));
    });
    let (_, holds) = desk.book.remembered();
    assert!(holds as u64 + 1 == desk.next, "{holds} holds of {} asks", desk.next - 1);
}

fn commit(wanted: &[String]) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = RocksEngine::open(dir.path(), &RocksSettings::default(), true).expect("opens");
    let store = Store::open(engine).expect("opens");
    let mut serial = 0_u64;
    let mut batch = || {
        serial += 1;
        let mut batch = Batch::new();
        batch.put(Family::Escrow, format!("h{serial:022}"), vec![1; 26]);
        batch.put(Family::Escrow, format!("k{serial:043}"), vec![2; 45]);
        batch
    };
    part(wanted, "batch: make one of a hold", || {
        black_box(batch());
    });
    for size in [1, 64] {
        part(wanted, &format!("batch: write {size}, no sync"), || {
            let batches: Vec<Batch> = (0..size).map(|_| batch()).collect();
            store.write_group(batches.iter()).expect("writes");
        });
        part(wanted, &format!("batch: write {size} and sync"), || {
            let batches: Vec<Batch> = (0..size).map(|_| batch()).collect();
            store.write_group(batches.iter()).expect("writes");
            store.sync().expect("syncs");
        });
    }
}
