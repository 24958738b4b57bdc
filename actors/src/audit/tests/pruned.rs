//! A pruned log on a disk, sound or not.

use rhumb_verify::hash::leaf;
use rhumb_verify::proof;
use rhumb_verify::tile::WIDTH;

use super::disk::{Kept, Running, now, signer};
use crate::audit::log::MAX_PRUNED;
use crate::audit::read;
use crate::audit::rows::{self, Rows, Unsound};

/// The retention of a running log.
const RETENTION_MS: u64 = 60_000;

/// A log of some entries, all published, of which everything that may go is pruned.
fn pruned(entries: u64) -> Running {
    let mut running = Running::new();
    running.append(entries);
    running.tick(1_000);
    while running.prune(RETENTION_MS + entries + 1_000) > 0 {}
    running
}

/// All that a check finds.
fn faults(rows: &Kept) -> Vec<String> {
    let (size, mut faults) = (read::size(rows).unwrap_or(0), Vec::new());
    for bundle in rows::mark(rows).unwrap_or(0) / WIDTH..=size / WIDTH {
        faults.extend(read::check_bundle(rows, bundle).expect("the disk answers").1);
    }
    faults.extend(read::check_signed(rows, signer().key(), &[]).expect("the disk answers"));
    faults
}

#[test]
fn what_is_pruned_is_gone_and_what_is_kept_is_proved_as_before() {
    let size = 66_700;
    let mut whole = Running::new();
    whole.append(size);
    let whole = whole.kept();
    let kept = pruned(size).kept();
    let mark = size / WIDTH * WIDTH;
    assert_eq!(rows::mark(&kept), Ok(mark));
    for key in whole.0.keys() {
        let number = || u64::from_be_bytes(*key.last_chunk().expect("a number"));
        let gone = match key[0] {
            b'e' | b'b' => number() < mark,
            b't' => (number() + 1) << (8 * (u32::from(key[1]) + 1)) <= mark,
            _ => false,
        };
        assert_eq!(kept.0.contains_key(key), !gone, "{key:?}");
    }
    let log = kept.log().expect("it is sound");
    assert_eq!((log.status().mark, log.status().entries), (mark, size));
    assert_eq!(faults(&kept), [""; 0]);
    let root = super::super::log::root_of(&whole, size).expect("whole");
    for index in [mark, mark + 1, size - 1] {
        let path = read::inclusion(&kept, index, size).expect("it is kept");
        assert_eq!(path, read::inclusion(&whole, index, size).expect("it is there"));
        let entry = rows::entry(&kept, index).expect("it is kept");
        assert_eq!(proof::inclusion(&leaf(&entry), index, size, &path, &root), Ok(()));
    }
    for old in [mark, mark + 1, size - 1, size] {
        assert_eq!(read::consistency(&kept, old, size), read::consistency(&whole, old, size));
    }
    for index in [0, 255, mark - 1] {
        assert_eq!(rows::entry(&kept, index), Err(Unsound::Pruned { mark }));
    }
    assert_eq!(read::inclusion(&kept, 0, size), Err(Unsound::Pruned { mark }));
    assert_eq!(read::consistency(&kept, 300, size), Err(Unsound::Pruned { mark }));
    assert_eq!(read::check_bundle(&kept, 0), Ok((Vec::new(), Vec::new())), "what was pruned is no fault");
}

#[test]
fn only_what_is_old_by_each_entry_goes_and_only_so_much_at_once() {
    let mut running = Running::new();
    let bundles = MAX_PRUNED + 4;
    running.append(bundles * WIDTH + 10);
    assert_eq!(running.prune(RETENTION_MS * 2), 0, "nothing is published");
    running.tick(1_000);
    assert_eq!(running.prune(RETENTION_MS - 1), 0, "the clock has not run so long");
    // An entry is written in the millisecond of its number: the last one of the second bundle is not old enough.
    assert_eq!(running.prune(RETENTION_MS + 511), 1);
    assert_eq!(running.log.mark(), 256);
    assert_eq!(running.prune(RETENTION_MS + 512), 1);
    assert_eq!(running.prune(RETENTION_MS * 2), MAX_PRUNED);
    assert_eq!(running.prune(RETENTION_MS * 2), 2);
    assert_eq!(running.prune(RETENTION_MS * 2), 0, "the last one is no whole bundle");
    assert_eq!(running.log.mark(), bundles * WIDTH);
    running.append(1_000);
    assert_eq!(running.prune(RETENTION_MS * 2), 0, "what is new is not published");
    let (kept, log) = (running.kept(), running.kept().log().expect("it is sound"));
    assert_eq!((log.status().entries, log.mark()), (running.log.status().entries, running.log.mark()));
    assert_eq!(faults(&kept), [""; 0]);
}

#[test]
fn one_flipped_bit_in_what_is_kept_is_found_and_named() {
    // Two hashes of pruned tiles at level 1, and one at level 2 with three at level 1.
    for (size, tiles) in [(600, vec![(1, 0)]), (66_400, vec![(1, 1), (2, 0)])] {
        let kept = pruned(size).kept();
        assert_eq!(faults(&kept), [""; 0]);
        for (level, number) in tiles {
            let key = rows::tile_key(level, number);
            for byte in 0..kept.0[&key].len() {
                let found = faults(&kept.flipped(&key, byte));
                let path = format!("tile/{level}/{number:03}.p/");
                let at = format!("number {} of its level", number * WIDTH + byte as u64 / 32);
                let named = found.iter().any(|fault| fault.contains(&path) && fault.contains(&at));
                assert!(named, "byte {byte} of {path}: {found:?}");
                assert!(kept.flipped(&key, byte).log().is_ok(), "what stands beside the mark will do");
            }
        }
        for byte in 0..kept.0[rows::MARK].len() {
            let changed = kept.flipped(rows::MARK, byte);
            assert!(!faults(&changed).is_empty(), "byte {byte} of the mark of {size}");
            assert!(changed.log().is_err(), "byte {byte} of the mark of {size}");
        }
        for index in [size / WIDTH * WIDTH, size - 1] {
            assert!(!faults(&kept.flipped(&rows::entry_key(index), 20)).is_empty(), "entry {index}");
            assert!(!faults(&kept.without(&rows::entry_key(index))).is_empty(), "entry {index}");
        }
    }
}

#[test]
fn what_is_not_sound_is_not_pruned_and_a_mark_that_cannot_be_stops_the_log() {
    let mut running = Running::new();
    running.append(600);
    running.tick(1_000);
    let sound = running.kept();
    let prunable = running.log.prunable(now(RETENTION_MS * 2)).expect("something is old");
    assert_eq!(read::old(&sound, &prunable).map(|old| old.len()), Ok(2));
    let changed = sound.flipped(&rows::entry_key(300), 20);
    let fault = Unsound::OtherHash { path: "tile/0/001".to_owned(), number: 300 };
    assert_eq!(read::old(&changed, &prunable), Err(fault));
    assert_eq!(read::old(&sound.without(&rows::entry_key(300)), &prunable), Err(Unsound::Hole(300)));

    let kept = pruned(600).kept();
    for mark in
        [&b"short"[..], &[0; 7], &300_u64.to_be_bytes(), &u64::MAX.to_be_bytes(), &512_u64.to_be_bytes()]
    {
        let mut changed = kept.clone();
        changed.0.insert(rows::MARK.to_vec(), mark.to_vec());
        assert_eq!(changed.log().err(), Some(Unsound::NoMark), "{mark:?}");
    }
    assert_eq!(kept.without(rows::MARK).log().err(), Some(Unsound::NoTile("tile/0/000".to_owned())));
    // A log that was pruned beyond what anybody has published was not pruned by this machine.
    assert_eq!(kept.without(rows::PUBLISHED).log().err(), Some(Unsound::NoMark));
    assert!(kept.row(rows::SIGNED).expect("readable").is_some());
}
