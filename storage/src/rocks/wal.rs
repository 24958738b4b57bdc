//! Reads RocksDB's log format, in which its write-ahead log and its manifest are written: physical
//! records in blocks, logical records, and for the former write batches with our commit records.
//! Pure: it is given a file's bytes.
//!
//! It exists because RocksDB does not tell damage from a torn tail: a flipped bit in a length, or a
//! zeroed header, makes it drop what comes after in silence; and where a flipped bit turns a type into
//! a recyclable one, it reads the same record for ever (11.8.1, `log_reader.cc`).
//! Format: RocksDB wiki "Write Ahead Log File Format", `db/log_format.h` and
//! `db/write_batch.cc`. Each block of 32 KiB holds records of checksum (4, masked CRC-32C of what
//! follows the length), length (2), type (1), for recyclable types log number (4), payload.

use crate::commit::CommitRecord;
use crate::keys;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Where in a record the bytes begin that its checksum is of.
const CHECKED: usize = 6;
const RECYCLABLE_HEADER: usize = 11;

/// What is added to a rotated checksum before it is stored.
pub(super) const MASK: u32 = 0xa282_ead8;

const HEADER_CUT: &str = "a header is cut off";
const CUT: &str = "a record is cut off";
const CUT_FOREIGN: &str = "a record of a type that is not in use is cut off";
const ZEROS: &str = "zeros or an unused type in place of a record";
/// More zeros than an edit of a manifest ends with by itself.
const FADED: usize = 32;
const UNFINISHED: &str = "a record is not finished";

/// What stands in a log, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole logical record.
    Record {
        /// Where its first physical record begins.
        offset: u64,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// Bytes that are no record. Reading went on at the next whole one.
    Damage {
        /// Where they begin.
        offset: u64,
        /// What is wrong with them.
        what: &'static str,
        /// Whether a write that was cut short by a crash would look like this, were it the last thing
        /// in the file.
        torn: bool,
    },
}

/// Gives what stands in the log with this number.
pub(super) fn read(log: &[u8], number: u64, mut found: impl FnMut(Found)) {
    let mut reader = Reader { log, number, at: 0, fragment: None, resyncing: false };
    while let Some(next) = reader.next() {
        found(next);
    }
}

/// One physical record.
struct Physical<'a> {
    kind: Kind,
    payload: &'a [u8],
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// What carries no batch: time-stamp sizes, the predecessor's number, what may be ignored.
    Other,
}

struct Reader<'a> {
    log: &'a [u8],
    number: u64,
    at: usize,
    /// A logical record that is not finished: where it began, and its bytes.
    fragment: Option<(usize, Vec<u8>)>,
    /// After damage, ends of records whose beginning was lost are no damage of their own.
    resyncing: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Found> {
        loop {
            let left = BLOCK - self.at % BLOCK;
            if left < HEADER {
                self.at += left;
            }
            if self.at >= self.log.len() {
                let (began, _) = self.fragment.take()?;
                return Some(damage(began, UNFINISHED, true));
            }
            match physical(self.log, self.number, self.at) {
                Ok(record) => {
                    let began = self.at;
                    self.at = record.end;
                    if let Some(found) = self.assemble(began, &record) {
                        return Some(found);
                    }
                }
                Err(what) => return Some(self.resync(what)),
            }
        }
    }

    /// Adds a physical record to the logical one it belongs to.
    fn assemble(&mut self, began: usize, record: &Physical<'_>) -> Option<Found> {
        match (record.kind, self.fragment.take()) {
            (Kind::Other, fragment) => {
                self.fragment = fragment;
                None
            }
            (Kind::Full | Kind::First, Some((unfinished, _))) => {
                // Read this one again, without the one that was cut off before it.
                self.at = began;
                Some(damage(unfinished, UNFINISHED, false))
            }
            (Kind::Full, None) => {
                self.resyncing = false;
                Some(whole(began, record.payload.to_vec()))
            }
            (Kind::First, None) => {
                self.resyncing = false;
                self.fragment = Some((began, record.payload.to_vec()));
                None
            }
            (Kind::Middle | Kind::Last, None) if self.resyncing => None,
            (Kind::Middle | Kind::Last, None) => {
                self.resyncing = true;
                Some(damage(began, "the beginning of a record is missing", false))
            }
            (kind, Some((first, mut bytes))) => {
                bytes.extend_from_slice(record.payload);
                if kind == Kind::Last {
                    return Some(whole(first, bytes));
                }
                self.fragment = Some((first, bytes));
                None
            }
        }
    }

    /// Finds the next whole record after a damaged one: at any byte of this block, for a damaged
    /// length says nothing of where it ends, else at the next block.
    fn resync(&mut self, what: &'static str) -> Found {
        let damaged = self.at;
        let block_end = (damaged / BLOCK + 1) * BLOCK;
        self.fragment = None;
        self.resyncing = true;
        let last = block_end.min(self.log.len());
        self.at = (damaged + 1..last).find(|&at| physical(self.log, self.number, at).is_ok()).unwrap_or(last);
        let rest = &self.log[damaged..];
        let torn = match what {
            HEADER_CUT => true,
            CUT => !whole_by_another_length(rest),
            ZEROS => rest.iter().all(|&byte| byte == 0),
            _ => false,
        };
        damage(damaged, what, torn)
    }
}

/// What became of the last record of a manifest, whose checksum does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A crash has kept its length and lost its last bytes: zeros stand for them.
    Torn,
    /// All fits with this bit set, which is among the zeros at its end: by its place in the record, and the bit.
    Lost(usize, u8),
    /// It was changed.
    Changed,
}

/// What became of a record that is the last one of its file, from its header on. An edit of a manifest may end with a few zeros
/// that are its own, but one flipped bit of it is known by the checksum; what no flipped bit explains was not written whole.
pub(super) fn fate(rest: &[u8]) -> Fate {
    let Some((header, payload)) = rest.split_first_chunk::<HEADER>() else { return Fate::Changed };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let zeros = payload.iter().rev().take_while(|byte| **byte == 0).count();
    if length != payload.len() || zeros == 0 {
        return Fate::Changed;
    }
    if zeros >= FADED {
        return Fate::Torn;
    }
    let said = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let covered = &rest[CHECKED..];
    let found = crc32c::crc32c(covered);
    if (0..32).any(|bit| unmask(said ^ 1 << bit) == found) {
        return Fate::Changed;
    }
    match flipped(unmask(said) ^ found, covered.len()) {
        Some((back, bit)) if back < zeros => Fate::Lost(rest.len() - 1 - back, bit),
        Some(_) => Fate::Changed,
        None => Fate::Torn,
    }
}

/// Which one bit of so many bytes, if it were flipped, would change their checksum so: how many bytes before the last one, and
/// the bit. The checksum of a difference is the difference of the checksums.
fn flipped(difference: u32, bytes: usize) -> Option<(usize, u8)> {
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    let past_a_byte =
        |crc: u32| (0..8).fold(crc, |crc, _| if crc & 1 == 1 { crc >> 1 ^ CASTAGNOLI } else { crc >> 1 });
    let mut of_bits: [u32; 8] = std::array::from_fn(|bit| past_a_byte(1 << bit));
    for back in 0..bytes {
        if let Some(bit) = of_bits.iter().position(|crc| *crc == difference) {
            return Some((back, 1 << bit));
        }
        of_bits = of_bits.map(past_a_byte);
    }
    None
}

/// Whether what a length calls cut off is a whole record of another length. The checksum does not cover
/// the length: this tells a damaged length from a torn record.
fn whole_by_another_length(rest: &[u8]) -> bool {
    let Some((header, payload)) = rest.split_first_chunk::<HEADER>() else { return false };
    let wanted = unmask(u32::from_le_bytes([header[0], header[1], header[2], header[3]]));
    let mut crc = crc32c::crc32c(&header[6..]);
    payload.iter().any(|&byte| {
        let whole = crc == wanted;
        crc = crc32c::crc32c_append(crc, &[byte]);
        whole || crc == wanted
    })
}

/// The physical record at a place, or what is wrong there.
fn physical(log: &[u8], number: u64, at: usize) -> Result<Physical<'_>, &'static str> {
    let block_end = (at / BLOCK + 1) * BLOCK;
    let rest = &log[at..log.len().min(block_end)];
    let cut_off = log.len() < block_end;
    let header = rest.get(..HEADER).ok_or(HEADER_CUT)?;
    let (crc, length, kind) = (
        u32::from_le_bytes([header[0], header[1], header[2], header[3]]),
        usize::from(u16::from_le_bytes([header[4], header[5]])),
        header[6],
    );
    if kind == 0 {
        return Err(ZEROS);
    }
    let (recyclable, kind) = kind_of(kind)?;
    let foreign = recyclable || kind == Kind::Other;
    let header_size = if recyclable { RECYCLABLE_HEADER } else { HEADER };
    let Some(payload) = rest.get(header_size..header_size + length) else {
        return Err(if cut_off && foreign {
            CUT_FOREIGN
        } else if cut_off {
            CUT
        } else {
            "a length reaches beyond its block"
        });
    };
    if unmask(crc) != crc32c::crc32c(&rest[6..header_size + length]) {
        return Err("a checksum does not match");
    }
    if recyclable && rest[HEADER..RECYCLABLE_HEADER] != (number as u32).to_le_bytes() {
        return Err("a record of an older log in its place");
    }
    Ok(Physical { kind, payload, end: at + header_size + length })
}

/// Whether a type is a recyclable one, and what it means here.
fn kind_of(kind: u8) -> Result<(bool, Kind), &'static str> {
    Ok(match kind {
        1 => (false, Kind::Full),
        2 => (false, Kind::First),
        3 => (false, Kind::Middle),
        4 => (false, Kind::Last),
        5 => (true, Kind::Full),
        6 => (true, Kind::First),
        7 => (true, Kind::Middle),
        8 => (true, Kind::Last),
        // Time-stamp sizes, the predecessor's number; from 10 on the lowest bit says "recyclable".
        10 | 11 | 130 | 131 => (kind % 2 == 1, Kind::Other),
        // The highest bit says that a reader may ignore it.
        128.. => (false, Kind::Other),
        9 => return Err("a compressed log, which this program never writes"),
        _ => return Err("an unknown type of record"),
    })
}

/// Checksums are stored rotated and shifted, because the checksum of a string with a checksum in it is
/// weak.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK).rotate_right(17)
}

fn damage(offset: usize, what: &'static str, torn: bool) -> Found {
    Found::Damage { offset: offset as u64, what, torn }
}

fn whole(offset: usize, bytes: Vec<u8>) -> Found {
    Found::Record { offset: offset as u64, bytes }
}

/// The last commit record in a write batch: sequence (8), count (4), then records of a tag and
/// length-prefixed strings. `None` when the batch is not well formed; `Some(None)` when it has none, as
/// the stamp of a directory.
pub(super) fn commit_in(bytes: &[u8]) -> Option<Option<CommitRecord>> {
    let (header, mut rest) = bytes.split_first_chunk::<12>()?;
    let count = u32::from_le_bytes(*header.last_chunk()?);
    let mut commit = None;
    let mut seen = 0;
    while let Some((&tag, after)) = rest.split_first() {
        rest = after;
        // Tag, whether a family's number follows, and how many strings; log data does not count.
        let (family, strings) = match tag {
            0x0 | 0x7 => (false, 1),
            0x1 | 0x2 | 0xf => (false, 2),
            0x4 | 0x8 => (true, 1),
            0x5 | 0x6 | 0xe => (true, 2),
            0x3 => {
                string(&mut rest)?;
                continue;
            }
            0xd => continue,
            _ => return None,
        };
        if family {
            varint(&mut rest)?;
        }
        let key = string(&mut rest)?;
        if strings == 2 {
            let value = string(&mut rest)?;
            if tag == 0x5 && key == keys::COMMIT {
                commit = CommitRecord::decode(value).or(commit);
            }
        }
        seen += 1;
    }
    (seen == count).then_some(commit)
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(rest)? as usize;
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests;
