//! What a handler writes in a call whose answer, or whose being done, is kept: durable with that, or not at all.
//!
//! * It decides: whether there still is a batch to write to, and how much goes into it.
//! * It never does: write. The rows and letters of a call that failed are dropped with it.
//! * Invariant: what is read of an actor's rows is as its last answered call left it, durable or not yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_actors::delivery::{Letter, rows};
use rhumb_core::{Fault, FaultKind};
use rhumb_storage::Batch;

/// Bytes that one call may write.
pub(crate) const MAX_WRITES: usize = 1 << 20;
/// Letters that one call may write.
pub(crate) const MAX_LETTERS: usize = 256;
/// Bytes that the key of a row may have.
const MAX_ROW_KEY: usize = 256;

type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a call has written so far.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// By their keys on disk; none is a delete.
    pub(crate) rows: Rows,
    pub(crate) letters: Vec<Letter>,
    bytes: usize,
}

/// What a call writes, until its answer. Cloneable; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Staged(Arc<Mutex<Option<Written>>>);

impl Staged {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Written::default()))))
    }

    /// Puts or deletes a row of an actor.
    pub(crate) fn row(&self, actor: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        if key.len() > MAX_ROW_KEY {
            return Err(too_large(key.len(), MAX_ROW_KEY));
        }
        self.add(key.len() + value.map_or(0, <[u8]>::len), |written| {
            written.rows.insert(rows::actor_key(actor, key), value.map(<[u8]>::to_vec));
        })
    }

    /// Encloses a letter.
    pub(crate) fn letter(&self, letter: Letter) -> Result<(), Fault> {
        if self.0.lock().as_ref().is_some_and(|written| written.letters.len() >= MAX_LETTERS) {
            return Err(Fault::not_sent(FaultKind::Full(format!(
                "the batch of one call ({MAX_LETTERS} letters)"
            ))));
        }
        self.add(letter.bytes(), |written| written.letters.push(letter))
    }

    /// The call has been answered: nothing can be written any more.
    pub(crate) fn close(&self) -> Written {
        self.0.lock().take().unwrap_or_default()
    }

    fn add(&self, bytes: usize, add: impl FnOnce(&mut Written)) -> Result<(), Fault> {
        let mut open = self.0.lock();
        let answered =
            || Fault::not_sent(FaultKind::Handler("the call has been answered: its batch is closed".into()));
        let written = open.as_mut().ok_or_else(answered)?;
        if written.bytes + bytes > MAX_WRITES {
            return Err(too_large(written.bytes + bytes, MAX_WRITES));
        }
        written.bytes += bytes;
        add(written);
        Ok(())
    }
}

fn too_large(bytes: usize, limit: usize) -> Fault {
    Fault::not_sent(FaultKind::TooLarge { bytes: bytes as u64, limit: limit as u64 })
}

/// Rows that are answered for and not yet known durable, over those on disk.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    rows: Mutex<Laid>,
}

#[derive(Debug, Default)]
struct Laid {
    /// How many calls have laid rows.
    calls: u64,
    /// Each row, and which of them laid it.
    rows: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
}

/// Names the rows of one call.
#[derive(Debug)]
pub(crate) struct Above {
    number: u64,
    keys: Vec<Vec<u8>>,
}

impl Unwritten {
    /// These are answered for from now on.
    pub(crate) fn lay(&self, rows: &Rows) -> Above {
        let mut all = self.rows.lock();
        all.calls += 1;
        let number = all.calls;
        for (key, value) in rows {
            all.rows.insert(key.clone(), (number, value.clone()));
        }
        Above { number, keys: rows.keys().cloned().collect() }
    }

    /// They are on disk, or never will be.
    pub(crate) fn lift(&self, above: &Above) {
        let mut all = self.rows.lock();
        for key in &above.keys {
            if all.rows.get(key).is_some_and(|(number, _)| *number == above.number) {
                all.rows.remove(key);
            }
        }
    }

    /// The rows with this prefix, put over those that `read` finds on disk.
    pub(crate) fn over<E>(
        &self,
        prefix: &[u8],
        read: impl FnOnce() -> Result<BTreeMap<Vec<u8>, Vec<u8>>, E>,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, E> {
        let all = self.rows.lock();
        let above: Rows = all
            .rows
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (_, value))| (key.clone(), value.clone()))
            .collect();
        // Before the disk is read: what becomes durable meanwhile is found there.
        drop(all);
        let mut found = read()?;
        for (key, value) in above {
            match value {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        Ok(found)
    }
}

/// Puts rows into a batch.
pub(crate) fn put(batch: &mut Batch, rows: Rows) {
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(rhumb_actors::delivery::rows::FAMILY, key, value),
            None => batch.delete(rhumb_actors::delivery::rows::FAMILY, key),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_call_writes_until_it_is_answered_and_no_more_than_its_bound() {
        let staged = Staged::new();
        staged.row("t/1", b"a", Some(b"1")).expect("there is room");
        let large = staged.row("t/1", b"b", Some(&vec![0; MAX_WRITES])).expect_err("too large");
        assert!(matches!(large.kind, FaultKind::TooLarge { .. }));
        assert!(staged.row("t/1", &[0; 300], None).is_err());
        assert_eq!(staged.clone().close().rows.len(), 1);
        assert!(staged.row("t/1", b"a", None).expect_err("closed").to_string().contains("answered"));
        assert!(staged.close().rows.is_empty());
    }

    #[test]
    fn what_is_answered_for_is_read_before_it_is_on_disk_and_the_last_one_counts() {
        let unwritten = Unwritten::default();
        let row = |key: &str, value: Option<&str>| {
            (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
        };
        let disk = || Ok::<_, Infallible>(BTreeMap::from([(b"a1".to_vec(), b"disk".to_vec())]));
        let read = || {
            let Ok(found) = unwritten.over(b"a", disk);
            found.into_iter().map(|(key, value)| [key, value].concat()).collect::<Vec<_>>()
        };
        let first = unwritten.lay(&Rows::from([row("a1", Some("one")), row("b1", Some("x"))]));
        let second = unwritten.lay(&Rows::from([row("a1", Some("two")), row("a2", Some("new"))]));
        assert_eq!(read(), [b"a1two".to_vec(), b"a2new".to_vec()]);
        unwritten.lift(&first);
        assert_eq!(read(), [b"a1two".to_vec(), b"a2new".to_vec()]);
        let third = unwritten.lay(&Rows::from([row("a1", None)]));
        unwritten.lift(&second);
        assert!(read().is_empty());
        unwritten.lift(&third);
        assert_eq!(read(), [b"a1disk".to_vec()]);
    }
}
