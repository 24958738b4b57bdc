//! The floor of a durable hold: framed QUIC with mutual TLS into synced RocksDB batches of records of the
//! same sizes, and no actor, no gate, no ledger, no key that is looked for.
//!
//! One thread reads and answers, as the framed floor of asks does; one commits: whatever waits becomes one
//! write and one sync. RocksDB is set up as Rhumb sets it up, by the same code.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::{Condvar, Mutex};
use quinn::{RecvStream, SendStream};
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Engine, Family, Ops, RocksEngine};
use tokio::sync::mpsc;

use crate::systems::floor::{frame, put, serve as serve_quic};

/// Sizes of what Rhumb writes for a hold in a pool `seats` at a node `here/n1`: the hold, the key. They
/// follow from `actors/src/escrow/records.rs`.
const HOLD: (usize, usize) = (23, 26);
const KEY: (usize, usize) = (44, 45);
/// What storage writes once a group: its number.
const COMMIT: (usize, usize) = (6, 24);
/// Bytes of an answer: what Rhumb's `Held` comes to.
const ANSWER: [u8; 48] = [7; 48];

/// Requests that wait for the committer, each with the way back.
#[derive(Default)]
struct Waiting {
    requests: Vec<(u64, mpsc::UnboundedSender<Vec<u64>>)>,
    closed: bool,
}

struct Committer {
    waiting: Mutex<Waiting>,
    some: Condvar,
}

impl Committer {
    fn take(&self, numbers: Vec<u64>, back: &mpsc::UnboundedSender<Vec<u64>>) {
        let mut waiting = self.waiting.lock();
        waiting.requests.extend(numbers.into_iter().map(|number| (number, back.clone())));
        self.some.notify_one();
    }

    /// Commits all that waits, again and again, until nothing more comes.
    fn run(&self, engine: &RocksEngine) -> anyhow::Result<()> {
        let mut serial = 0_u64;
        loop {
            let group = {
                let mut waiting = self.waiting.lock();
                while waiting.requests.is_empty() {
                    if waiting.closed {
                        return Ok(());
                    }
                    self.some.wait(&mut waiting);
                }
                std::mem::take(&mut waiting.requests)
            };
            write(engine, &mut serial, group.len())?;
            engine.sync()?;
            answer(group);
        }
    }
}

/// A record whose keys are not sorted, as Rhumb's idempotency keys are random.
fn record(kind: u8, size: usize, serial: u64) -> Vec<u8> {
    let mut record = vec![kind; size];
    record[1..9].copy_from_slice(&scattered(serial).to_be_bytes());
    record
}

/// SplitMix64's finaliser.
fn scattered(serial: u64) -> u64 {
    let mut word = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn write(engine: &RocksEngine, serial: &mut u64, holds: usize) -> anyhow::Result<()> {
    let mut records = Vec::with_capacity(2 * holds);
    for _ in 0..holds {
        *serial += 1;
        let mut hold = vec![b'h'; HOLD.0];
        hold[HOLD.0 - 8..].copy_from_slice(&serial.to_be_bytes());
        records.push((hold, vec![1; HOLD.1]));
        records.push((record(b'k', KEY.0, *serial), vec![2; KEY.1]));
    }
    let (commit, number) = (vec![b'c'; COMMIT.0], vec![3; COMMIT.1]);
    let mut ops = Ops::new();
    for (key, value) in &records {
        ops.put(Family::Escrow, key, value);
    }
    ops.put(Family::Meta, &commit, &number);
    Ok(engine.write(&ops)?)
}

/// One message a connection, whatever the number of its answers.
fn answer(group: Vec<(u64, mpsc::UnboundedSender<Vec<u64>>)>) {
    let mut each: Vec<(mpsc::UnboundedSender<Vec<u64>>, Vec<u64>)> = Vec::new();
    for (number, back) in group {
        match each.iter_mut().find(|(known, _)| known.same_channel(&back)) {
            Some((_, numbers)) => numbers.push(number),
            None => each.push((back, vec![number])),
        }
    }
    for (back, numbers) in each {
        // A connection that has gone needs no answer.
        back.send(numbers).ok();
    }
}

async fn hold_frames(
    committer: Arc<Committer>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> anyhow::Result<()> {
    let (mut come, mut out) = (BytesMut::new(), BytesMut::new());
    let (back, mut durable) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            chunk = recv.read_chunk(usize::MAX, true) => {
                let Some(chunk) = chunk? else { return Ok(()) };
                come.extend_from_slice(&chunk.bytes);
                let mut numbers = Vec::new();
                while let Some((number, _)) = frame(&mut come) {
                    numbers.push(number);
                }
                committer.take(numbers, &back);
            }
            Some(numbers) = durable.recv() => {
                numbers.into_iter().for_each(|number| put(&mut out, number, &ANSWER));
                send.write_chunk(out.split().freeze()).await?;
            }
        }
    }
}

/// Serves holds to framed streams.
///
/// # Errors
/// It cannot.
pub async fn serve(dir: &Path) -> anyhow::Result<()> {
    let engine = RocksEngine::open(&dir.join("hot"), &RocksSettings::default(), true)?;
    let committer = Arc::new(Committer { waiting: Mutex::default(), some: Condvar::new() });
    let thread = {
        let committer = Arc::clone(&committer);
        std::thread::Builder::new().name("bench-commit".into()).spawn(move || committer.run(&engine))?
    };
    let served = serve_quic(dir, |connection| {
        let committer = Arc::clone(&committer);
        async move {
            while let Ok((send, recv)) = connection.accept_bi().await {
                let committer = Arc::clone(&committer);
                tokio::spawn(async move { hold_frames(committer, send, recv).await.ok() });
            }
        }
    });
    let served = served.await;
    committer.waiting.lock().closed = true;
    committer.some.notify_one();
    thread.join().map_err(|_| anyhow::anyhow!("the committer panicked"))??;
    served
}
