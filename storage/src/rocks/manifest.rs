//! Reads from RocksDB's manifest which logs it still asks for. Pure: it is given the manifest's records.
//!
//! It exists because RocksDB deletes logs that it no longer needs one by one, from more than one thread: after a
//! crash an older one may stand there whose successors are gone. That is no hole in what was promised.
//!
//! * It decides: the number below which no log is needed.
//! * It never does: guess. An edit that it cannot read counts for nothing, so that more logs are judged.
//!
//! Format: `db/version_edit.h` and `.cc` of RocksDB 11.8. An edit is a list of tags, each with its fields:
//! numbers as varints, strings with their length before them; of an atomic group all edits count, or none.

const COMPARATOR: u64 = 1;
const MIN_LOG_TO_KEEP: u64 = 10;
const NEW_FILE: u64 = 103;
const IN_ATOMIC_GROUP: u64 = 300;
/// A field of a new file that ends them.
const LAST_FIELD: u64 = 1;
/// From here on a tag is followed by a string, and may be ignored.
const IGNORABLE: u64 = 1 << 13;

/// Follows the edits of a manifest.
#[derive(Debug, Default)]
pub(super) struct Asked {
    oldest: u64,
    /// Of a group that is not complete yet.
    in_group: u64,
}

impl Asked {
    /// Takes note of the next edit.
    pub(super) fn see(&mut self, edit: &[u8]) {
        let Some((oldest, left_in_group)) = read(edit) else { return };
        self.in_group = self.in_group.max(oldest);
        if left_in_group == 0 {
            self.oldest = self.oldest.max(std::mem::take(&mut self.in_group));
        }
    }

    /// No log with a lower number is needed.
    pub(super) fn oldest_log(&self) -> u64 {
        self.oldest
    }
}

/// The log number to keep from on, 0 where the edit has none, and how many edits of its group are to come.
fn read(mut edit: &[u8]) -> Option<(u64, u64)> {
    let (mut oldest, mut left_in_group) = (0, 0);
    while !edit.is_empty() {
        match number(&mut edit)? {
            MIN_LOG_TO_KEEP => oldest = number(&mut edit)?,
            IN_ATOMIC_GROUP => left_in_group = number(&mut edit)?,
            // Log number, next file, last sequence, previous log, family, highest family.
            2 | 3 | 4 | 9 | 200 | 203 => _ = number(&mut edit)?,
            // A level, and a compaction's cursor or a deleted file's number.
            5 => _ = (number(&mut edit)?, string(&mut edit)?),
            6 => _ = (number(&mut edit)?, number(&mut edit)?),
            COMPARATOR | 201 => string(&mut edit)?,
            202 => {}
            NEW_FILE => new_file(&mut edit)?,
            IGNORABLE.. => string(&mut edit)?,
            _ => return None,
        }
    }
    Some((oldest, left_in_group))
}

fn new_file(edit: &mut &[u8]) -> Option<()> {
    // Level, number and size; the first and the last key; their sequence numbers.
    _ = (number(edit)?, number(edit)?, number(edit)?);
    string(edit)?;
    string(edit)?;
    _ = (number(edit)?, number(edit)?);
    while number(edit)? != LAST_FIELD {
        string(edit)?;
    }
    Some(())
}

fn number(edit: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = edit.split_first()?;
        *edit = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn string(edit: &mut &[u8]) -> Option<()> {
    let length = usize::try_from(number(edit)?).ok()?;
    *edit = edit.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(edits: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        let mut asked = Asked::default();
        edits.into_iter().for_each(|edit| asked.see(edit));
        asked.oldest_log()
    }

    #[test]
    fn the_highest_number_to_keep_counts_among_other_tags() {
        let edit: &[u8] = &[2, 7, 1, 3, b'c', b'm', b'p', 10, 0x96, 1, 200, 1, 3];
        assert_eq!(asked([edit]), 150);
        assert_eq!(asked([edit, &[10, 9]]), 150, "it never falls");
        // A new table: level 0, number 8, 100 bytes, two keys, two sequences, a field of two bytes, the end.
        let table: &[u8] = &[103, 0, 8, 100, 1, b'a', 1, b'z', 5, 6, 2, 2, 0, 0, 1, 10, 200, 1];
        assert_eq!(asked([table]), 200);
        let ignorable: &[u8] = &[0x81, 0x40, 2, 1, 1, 10, 4];
        assert_eq!(asked([ignorable]), 4);
    }

    #[test]
    fn an_edit_that_cannot_be_read_counts_for_nothing() {
        let unreadable: [&[u8]; 4] = [&[10, 7, 77], &[10, 0x80], &[1, 9, b'c'], &[10, 7, 103, 0]];
        for edit in unreadable {
            assert_eq!(asked([edit]), 0, "{edit:?}");
        }
    }

    #[test]
    fn a_group_counts_when_it_is_complete() {
        const HIGH: [u8; 2] = [0xac, 0x02];
        let member = |left: u8, oldest: u8| [HIGH.as_slice(), &[left, 10, oldest]].concat();
        let (first, last) = (member(1, 9), member(0, 5));
        assert_eq!(asked([first.as_slice()]), 0);
        assert_eq!(asked([first.as_slice(), &last]), 9);
    }
}
