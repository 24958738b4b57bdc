//! What a group needs of a store.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_storage::hot::{Done, Left, LetIn};
use rhumb_storage::mvcc::Rows;
use rhumb_storage::{Batch, CommitError, Family, HotStore, Refusal, StorageFault};

/// How long it waits at least before it offers again what found no room.
const A_MOMENT: Duration = Duration::from_millis(2);

/// The store falls behind, and lets nothing in that is new. What was let in before comes to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressed {
    /// By what.
    pub why: String,
    /// When it may be better.
    pub retry_after: Duration,
}

/// Where rows are.
pub trait Disk: Send + Sync + 'static {
    /// What a write of so many bytes meets that nobody has proposed yet, and whose caller has so much time. It is inside until what is
    /// given is dropped: when it has ended, not when its caller gives up.
    ///
    /// # Errors
    /// [`Pressed`].
    fn door(&self, bytes: usize, within: Duration) -> Result<LetIn, Pressed>;

    /// Makes a batch durable, then calls. The future ends when the batch is taken, or refused, of which it was told then; batches become
    /// durable in the order in which they are taken, and after one that has failed none does.
    fn durably(&self, batch: Batch, done: Done) -> BoxFuture<'static, ()>;

    /// Writes a batch: it is visible when the future ends, and durable with the next one that is made so.
    fn visibly(&self, batch: Batch) -> BoxFuture<'static, Result<(), String>>;

    /// A value, as last written.
    ///
    /// # Errors
    /// A fault of reading.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault>;

    /// Gives keys from this one on, in order, until `f` answers `false`.
    ///
    /// # Errors
    /// A fault of reading.
    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault>;
}

impl Rows for dyn Disk {
    fn walk(&self, from: &[u8], f: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StorageFault> {
        Disk::walk(self, Family::Mvcc, from, f)
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows with this prefix.
///
/// # Errors
/// A fault of reading.
pub fn rows(disk: &dyn Disk, family: Family, prefix: &[u8]) -> Result<Vec<Row>, StorageFault> {
    let mut rows = Vec::new();
    disk.walk(family, prefix, &mut |key, value| {
        let of_it = key.starts_with(prefix);
        if of_it {
            rows.push((key.to_vec(), value.to_vec()));
        }
        of_it
    })?;
    Ok(rows)
}

/// Bytes after which a batch takes no more: with the largest write besides it is still one that every store takes (`storage.max_waiting_bytes`,
/// 1 MiB at least).
pub(super) const BATCH_BYTES: usize = 512 << 10;

/// The node's own store. What must be durable goes with all other batches of the node; what must be visible is written at once,
/// on the caller's thread.
pub struct HotDisk(HotStore);

impl HotDisk {
    /// This store.
    #[must_use]
    pub fn new(store: HotStore) -> Self {
        Self(store)
    }
}

/// Offers a batch until it is taken or never will be.
async fn offered(offer: impl Fn(Batch, Done) -> Result<(), Box<Left>>, batch: Batch, done: Done) {
    let (mut batch, mut done) = (batch, done);
    while let Err(left) = offer(batch, done) {
        match left.why {
            Refusal::Full { retry_after } | Refusal::Pressed { retry_after, .. } => {
                (batch, done) = (left.batch, left.done);
                tokio::time::sleep(retry_after.max(A_MOMENT)).await;
            }
            never => return (left.done)(Err(CommitError::Refused(never))),
        }
    }
}

impl Disk for HotDisk {
    fn door(&self, bytes: usize, within: Duration) -> Result<LetIn, Pressed> {
        self.0.door(bytes, within).or_else(|refusal| match refusal {
            Refusal::Full { retry_after } => {
                Err(Pressed { why: "as much waits for the disk as may".to_owned(), retry_after })
            }
            Refusal::Pressed { level, retry_after } => {
                let level = format!("{level:?}").to_lowercase();
                Err(Pressed { why: format!("the store's pressure is {level}"), retry_after })
            }
            Refusal::Late { takes, retry_after } => {
                let why = format!(
                    "what waits for the disk takes {} ms, and less than half of the call's time is left for it",
                    takes.as_millis()
                );
                Err(Pressed { why, retry_after })
            }
            // Whoever writes is told why.
            Refusal::TooLarge { .. } | Refusal::Closed | Refusal::Poisoned(_) => Ok(LetIn::default()),
        })
    }

    fn durably(&self, batch: Batch, done: Done) -> BoxFuture<'static, ()> {
        let store = self.0.clone();
        offered(move |batch, done| store.offer_begun(batch, done), batch, done).boxed()
    }

    fn visibly(&self, batch: Batch) -> BoxFuture<'static, Result<(), String>> {
        let store = self.0.clone();
        async move {
            let (said, heard) = futures::channel::oneshot::channel();
            let done = Box::new(move |outcome| drop(said.send(outcome)));
            offered(|batch, done| store.offer_here(batch, done), batch, done).await;
            let outcome = heard.await.map_err(|_| "the store is gone".to_owned())?;
            outcome.map(drop).map_err(|error: CommitError| error.to_string())
        }
        .boxed()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.0.get(family, key)
    }

    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.0.walk(family, from, f)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_storage::hot::HotSettings;
    use rhumb_storage::{MemoryDisk, MemoryEngine, Pressure, Store};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let waited = tokio::time::timeout(SOON, async {
            while !holds() {
                tokio::time::sleep(A_MOMENT).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    #[tokio::test]
    async fn a_pressed_store_lets_nothing_new_in_and_what_was_let_in_comes_to_its_end() {
        let pressed = MemoryDisk::new();
        let store = Store::open(MemoryEngine::open(&pressed)).expect("a sound disk");
        let settings = HotSettings { pressure_age: A_MOMENT, ..HotSettings::default() };
        let (retry_after, slow_by) = (settings.retry_after, settings.slow_by);
        let disk = HotDisk::new(HotStore::start(store, settings, |fault| panic!("{fault}")).expect("starts"));
        let door = || disk.door(1, SOON).map(|let_in| let_in.wait);
        assert_eq!(door(), Ok(Duration::ZERO));

        pressed.press(Pressure::Orange);
        let why = "the store's pressure is orange".to_owned();
        eventually("it is shut", || door() == Err(Pressed { why: why.clone(), retry_after })).await;
        let row = |key: &str| {
            let mut batch = Batch::new();
            batch.put(Family::Raft, key, "value");
            batch
        };
        let (said, heard) = futures::channel::oneshot::channel();
        disk.durably(row("an entry"), Box::new(move |done| said.send(done.is_ok()).expect("somebody waits")))
            .await;
        assert_eq!(heard.await, Ok(true), "what was proposed");
        let applied = tokio::time::timeout(SOON, disk.visibly(row("what it does"))).await;
        assert_eq!(applied, Ok(Ok(())), "what it does is done");

        pressed.press(Pressure::Yellow);
        eventually("it is slow", || door() == Ok(slow_by)).await;
        pressed.press(Pressure::Green);
        eventually("it is open", || door() == Ok(Duration::ZERO)).await;
    }
}
