use super::*;
use crate::commit::CommitNumber;

/// A well-formed write batch with one put of this value under the key `commit` of family 1.
pub(crate) fn batch(value: &[u8]) -> Vec<u8> {
    let mut bytes = [7_u64.to_le_bytes().as_slice(), &1_u32.to_le_bytes()].concat();
    bytes.extend([0x5, 1]);
    for string in [keys::COMMIT, value] {
        put_varint(&mut bytes, string.len());
        bytes.extend(string);
    }
    bytes
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Writes records as RocksDB does.
#[derive(Default)]
struct Writer {
    log: Vec<u8>,
    recycling: Option<u32>,
}

impl Writer {
    fn add(&mut self, mut record: &[u8]) {
        let header = if self.recycling.is_some() { RECYCLABLE_HEADER } else { HEADER };
        let mut first = true;
        loop {
            let left = BLOCK - self.log.len() % BLOCK;
            if left < header {
                self.log.resize(self.log.len() + left, 0);
                continue;
            }
            let (now, rest) = record.split_at(record.len().min(left - header));
            let kind = match (first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.physical(kind, now);
            (record, first) = (rest, false);
            if record.is_empty() {
                return;
            }
        }
    }

    fn physical(&mut self, kind: u8, payload: &[u8]) {
        let number = self.recycling.map(u32::to_le_bytes);
        let kind = if number.is_some() { kind + 4 } else { kind };
        let body = [&[kind][..], number.as_ref().map_or(&[][..], |n| n), payload].concat();
        let crc = crc32c::crc32c(&body).rotate_left(17).wrapping_add(MASK);
        self.log.extend(crc.to_le_bytes());
        self.log.extend((payload.len() as u16).to_le_bytes());
        self.log.extend(body);
    }
}

/// Records of sizes that meet every way to be split over blocks.
fn records() -> Vec<Vec<u8>> {
    let sizes = [10, 300, BLOCK - HEADER - 10 - 300 - 3 * HEADER - 3, 50, 3 * BLOCK, 1, 7, 900];
    sizes.iter().enumerate().map(|(i, &size)| vec![i as u8 + 1; size]).collect()
}

fn log_of(records: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::default();
    records.iter().for_each(|record| writer.add(record));
    writer.log
}

fn read_all(log: &[u8]) -> Vec<Found> {
    let mut all = Vec::new();
    read(log, 9, |found| all.push(found));
    all
}

fn whole(found: &[Found]) -> Vec<&[u8]> {
    let whole = found.iter().filter_map(|found| match found {
        Found::Record { bytes, .. } => Some(&bytes[..]),
        Found::Damage { .. } => None,
    });
    whole.collect()
}

fn damages(found: &[Found]) -> Vec<(u64, bool)> {
    let damages = found.iter().filter_map(|found| match found {
        Found::Damage { offset, torn, .. } => Some((*offset, *torn)),
        Found::Record { .. } => None,
    });
    damages.collect()
}

#[test]
fn records_read_back_however_they_are_split() {
    let found = read_all(&log_of(&records()));
    assert_eq!(whole(&found), records());
    assert_eq!(damages(&found), []);
}

#[test]
fn recyclable_records_read_back_and_those_of_an_older_log_do_not() {
    let mut writer = Writer { recycling: Some(9), ..Writer::default() };
    records().iter().for_each(|record| writer.add(record));
    assert_eq!(whole(&read_all(&writer.log)), records());
    let mut older = Writer { recycling: Some(8), ..Writer::default() };
    older.add(b"old");
    assert_eq!(damages(&read_all(&older.log)), [(0, false)]);
}

#[test]
fn a_log_cut_anywhere_gives_a_prefix_and_a_torn_tail() {
    let log = log_of(&records());
    let ends: Vec<_> = (1..=records().len()).map(|count| log_of(&records()[..count]).len()).collect();
    let near_an_edge = |at: &usize| at % BLOCK < 20 || at % BLOCK > BLOCK - 20 || at.is_multiple_of(397);
    for cut in (0..log.len()).filter(near_an_edge) {
        let found = read_all(&log[..cut]);
        let kept = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(whole(&found), &records()[..kept], "cut at {cut}");
        assert!(damages(&found).iter().all(|(_, torn)| *torn), "cut at {cut}");
        let clean = cut == 0 || ends.contains(&cut);
        let padding = ends.iter().any(|end| {
            cut > *end && cut <= end.next_multiple_of(BLOCK) && end.next_multiple_of(BLOCK) - end < HEADER
        });
        assert_eq!(damages(&found).is_empty(), clean || padding, "cut at {cut}");
    }
}

#[test]
fn no_flipped_bit_hides_another_record_or_passes_for_torn() {
    let records = records();
    let log = log_of(&records);
    let starts: Vec<_> = (0..records.len()).map(|count| log_of(&records[..count]).len()).collect();
    let interesting =
        |at: &usize| starts.iter().any(|start| (*start..start + 9).contains(at)) || at.is_multiple_of(6007);
    for at in (0..log.len()).filter(interesting) {
        for bit in 0..8 {
            let mut flipped = log.clone();
            flipped[at] ^= 1 << bit;
            let found = read_all(&flipped);
            if damages(&found).is_empty() {
                assert_eq!(whole(&found), records, "byte {at} is padding");
                continue;
            }
            let hit = starts.iter().rposition(|start| *start <= at).expect("the first begins at 0");
            let expected: Vec<_> =
                (0..records.len()).filter(|i| *i != hit).map(|i| &records[i][..]).collect();
            assert_eq!(whole(&found), expected, "byte {at}, bit {bit}");
            let at_end = hit == records.len() - 1;
            assert!(at_end || !damages(&found)[0].1 || whole(&found).len() > hit, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_damaged_length_of_the_last_record_is_not_taken_for_a_torn_one() {
    let records = [b"first".to_vec(), b"last".to_vec()];
    let mut log = log_of(&records);
    let last = log_of(&records[..1]).len();
    log[last + 4] ^= 0x40;
    assert_eq!(damages(&read_all(&log)), [(last as u64, false)]);
    let mut foreign = log_of(&records);
    foreign[last + 6] ^= 0x04;
    foreign.truncate(last + 10);
    assert_eq!(damages(&read_all(&foreign)), [(last as u64, false)], "a type that is not in use");
    let mut torn = log_of(&records);
    torn.pop();
    assert_eq!(damages(&read_all(&torn)), [(last as u64, true)]);
}

#[test]
fn zeros_at_the_end_are_torn_and_zeros_in_the_middle_are_not() {
    let records = [vec![1; 400], vec![2; 400], vec![3; 400]];
    let log = log_of(&records);
    let second = log_of(&records[..1]).len();
    let mut tail = log.clone();
    tail[second..].fill(0);
    assert_eq!(damages(&read_all(&tail)), [(second as u64, true)]);
    let mut preallocated = log.clone();
    preallocated.resize(log.len() + 3 * BLOCK, 0);
    assert!(damages(&read_all(&preallocated)).iter().all(|(_, torn)| *torn));
    assert_eq!(whole(&read_all(&preallocated)).len(), 3);
    let mut middle = log;
    middle[second..second + 407].fill(0);
    let found = read_all(&middle);
    assert_eq!(whole(&found), [&records[0], &records[2]]);
    assert_eq!(damages(&found), [(second as u64, false)]);
}

#[test]
fn a_commit_record_is_found_among_other_operations() {
    let record = CommitRecord { number: CommitNumber(9), durable: CommitNumber(8) };
    let mut bytes = batch(&record.encode());
    assert_eq!(commit_in(&bytes), Some(Some(record)));
    bytes[8..12].copy_from_slice(&3_u32.to_le_bytes());
    assert_eq!(commit_in(&bytes), None, "fewer operations than counted");
    // Log data and a no-op do not count; a delete and a range delete do.
    bytes.extend([0x3, 2, b'x', b'y', 0xd, 0x4, 2, 1, b'k', 0xe, 2, 1, b'a', 1, b'b']);
    assert_eq!(commit_in(&bytes), Some(Some(record)));
    for end in 12..bytes.len() {
        assert!(commit_in(&bytes[..end]).is_none(), "cut at {end}");
    }
    assert_eq!(commit_in(&batch(b"another value")), Some(None));
    assert_eq!(commit_in(b"short"), None);
}

#[test]
fn a_last_record_that_fades_out_is_torn_and_one_flipped_bit_of_it_is_not() {
    for own_zeros in 0..4 {
        let mut writer = Writer::default();
        let payload: Vec<u8> = (1..60).chain(std::iter::repeat_n(0, own_zeros)).collect();
        writer.add(&payload);
        let record = writer.log;
        // The length is judged elsewhere.
        for at in (0..record.len()).filter(|at| !(4..6).contains(at)) {
            for bit in 0..8 {
                let mut changed = record.clone();
                changed[at] ^= 1 << bit;
                match fate(&changed) {
                    Fate::Torn => panic!("bit {bit} of byte {at} passes for a crash, with {own_zeros} zeros"),
                    Fate::Lost(place, lost) => {
                        changed[place] |= lost;
                        assert_eq!(changed, record, "bit {bit} of byte {at}");
                    }
                    Fate::Changed => {}
                }
            }
        }
        for lost in own_zeros + 1..own_zeros + 20 {
            let mut faded = record.clone();
            let from = faded.len() - lost;
            faded[from..].fill(0);
            match fate(&faded) {
                Fate::Torn => {}
                Fate::Lost(place, bit) => {
                    faded[place] |= bit;
                    assert_eq!(faded, record, "{lost} bytes were lost");
                }
                Fate::Changed => panic!("{lost} bytes were lost, and it passes for changed"),
            }
        }
    }
}
