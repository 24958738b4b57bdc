//! Whether a log may be recovered from, given what stands in it. Pure.
//!
//! * It decides: whole (open it strictly), damaged where nothing was promised (drop it from there on),
//!   or damaged below a number that a later record calls durable (refuse).
//! * It never does: touch a file, or believe RocksDB's own judgement of its log.
//! * Invariant: commit numbers of a log rise by one; where they do not, something is missing.

use std::path::{Path, PathBuf};

use super::wal::{self, Found};
use crate::commit::{CommitNumber, CommitRecord};
use crate::fault::EngineOpenError;

/// The first damage of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) what: String,
}

/// What the log holds up to its end or its first damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The last commit before the damage; none if the log holds no commit before it.
    pub(super) held: Option<CommitNumber>,
    /// Where it ends early, if it does.
    pub(super) damage: Option<Damage>,
}

/// Judges a log, file by file in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Judge {
    verdict: Verdict,
    refusal: Option<EngineOpenError>,
}

impl Judge {
    /// Takes note of the next thing found in a file.
    pub(super) fn see(&mut self, file: &Path, found: Found) {
        match found {
            Found::Damage { offset, what, .. } => self.damaged(file, offset, what.into()),
            Found::Record { offset, bytes } => match wal::commit_in(&bytes) {
                None => self.damaged(file, offset, "a write batch cannot be read".into()),
                Some(None) => {}
                Some(Some(record)) => self.commit(file, offset, record),
            },
        }
    }

    fn commit(&mut self, file: &Path, offset: u64, record: CommitRecord) {
        if let Some(held) = self.verdict.held
            && record.number != held.next()
        {
            self.damaged(file, offset, format!("commit {} follows commit {held}", record.number));
        }
        if self.verdict.damage.is_none() {
            self.verdict.held = Some(record.number);
        } else {
            self.named(file, offset, record.durable);
        }
    }

    /// The judgement, once everything was seen.
    pub(super) fn verdict(self) -> Result<Verdict, EngineOpenError> {
        self.refusal.map_or(Ok(self.verdict), Err)
    }

    fn damaged(&mut self, file: &Path, offset: u64, what: String) {
        self.verdict.damage.get_or_insert_with(|| Damage { file: file.to_path_buf(), offset, what });
    }

    /// A record after the damage calls a number durable. Where no commit stands before the damage, the
    /// number of the lost one is not known, and any promise is held to cover it.
    fn named(&mut self, file: &Path, offset: u64, named: CommitNumber) {
        let lost = self.verdict.held.unwrap_or_default().next();
        let Some(damage) = &self.verdict.damage else { return };
        let higher = match &self.refusal {
            Some(EngineOpenError::Damaged { durable, .. }) => named > *durable,
            _ => true,
        };
        if named >= lost && higher {
            self.refusal = Some(EngineOpenError::Damaged {
                file: damage.file.clone(),
                offset: damage.offset,
                what: damage.what.clone(),
                lost,
                durable: named,
                named_in: file.to_path_buf(),
                named_at: offset,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::CommitRecord;

    fn commit(number: u64, durable: u64) -> Found {
        let record = CommitRecord { number: CommitNumber(number), durable: CommitNumber(durable) };
        Found::Record { offset: number * 100, bytes: wal::tests::batch(&record.encode()) }
    }

    const DAMAGE: Found = Found::Damage { offset: 250, what: "a checksum does not match", torn: false };

    fn judge(found: impl IntoIterator<Item = Found>) -> Result<Verdict, EngineOpenError> {
        let mut judge = Judge::default();
        found.into_iter().for_each(|found| judge.see(Path::new("7.log"), found));
        judge.verdict()
    }

    fn lost(found: impl IntoIterator<Item = Found>) -> Option<(u64, u64)> {
        match judge(found) {
            Err(EngineOpenError::Damaged { lost, durable, .. }) => Some((lost.0, durable.0)),
            _ => None,
        }
    }

    #[test]
    fn a_whole_log_holds_its_last_commit() {
        let stamp = Found::Record { offset: 0, bytes: wal::tests::batch(b"no commit record") };
        let whole = judge([stamp, commit(1, 0), commit(2, 1)]);
        assert_eq!(whole, Ok(Verdict { held: Some(CommitNumber(2)), damage: None }));
        assert_eq!(judge([]), Ok(Verdict::default()));
    }

    #[test]
    fn damage_at_the_end_may_be_dropped() {
        let torn = judge([commit(1, 0), commit(2, 1), DAMAGE]).expect("may be dropped");
        assert_eq!(torn.held, Some(CommitNumber(2)));
        assert_eq!(torn.damage.map(|damage| damage.offset), Some(250));
    }

    #[test]
    fn damage_that_no_later_promise_covers_may_be_dropped() {
        assert!(judge([commit(1, 0), commit(2, 1), DAMAGE, commit(4, 2), commit(5, 2)]).is_ok());
    }

    #[test]
    fn damage_below_a_later_promise_is_refused() {
        assert_eq!(lost([commit(1, 0), commit(2, 1), DAMAGE, commit(4, 3)]), Some((3, 3)));
        assert_eq!(lost([commit(2, 1), DAMAGE, commit(4, 2), commit(9, 7)]), Some((3, 7)), "the highest");
        assert_eq!(lost([DAMAGE, commit(2, 1)]), Some((1, 1)), "the number of the lost one is not known");
        assert_eq!(lost([DAMAGE, commit(2, 0)]), None, "nothing was promised yet");
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_damage() {
        let nonsense = Found::Record { offset: 7, bytes: b"nonsense and more".to_vec() };
        assert_eq!(lost([commit(1, 0), nonsense, commit(3, 2)]), Some((2, 2)));
    }

    #[test]
    fn a_hole_in_the_numbers_is_damage() {
        assert_eq!(lost([commit(1, 0), commit(4, 3)]), Some((2, 3)));
        assert!(judge([commit(1, 0), commit(4, 1)]).expect("may be dropped").damage.is_some());
        assert!(judge([commit(5, 0), commit(4, 1)]).is_ok_and(|v| v.damage.is_some()), "numbers rise");
    }
}
