//! The fuzzers' kept inputs (`fuzz/corpus/`), through the same ways in. An input that once broke something lies there
//! with the others.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use rhumb_core::rng::Seed;
use rhumb_tests::entries::{ENTRIES, Entry};
use rhumb_tests::peak;

/// How often each input is changed a little and taken again.
const CHANGES: u64 = 60;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

fn inputs(entry: &Entry) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(entry.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.expect("readable").path();
            (path.display().to_string(), fs::read(&path).expect("readable"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn taken(entry: Entry, what: &str, bytes: &[u8]) {
    let escaped: String = bytes.escape_ascii().to_string().chars().take(2000).collect();
    let ended = catch_unwind(|| peak::of(|| (entry.take)(bytes)));
    let Ok(most) = ended else { panic!("{what} breaks {}: {escaped}", entry.name) };
    assert!(most <= peak::MOST, "{what} makes {} take {most} bytes: {escaped}", entry.name);
}

#[test]
fn what_an_input_takes_in_memory_is_seen() {
    let most = peak::of(|| drop(std::hint::black_box(vec![7_u8; 5 << 20])));
    assert!((5 << 20..6 << 20).contains(&most), "{most}");
}

#[test]
fn every_kept_input_of_the_fuzzers_is_taken_and_breaks_nothing() {
    for entry in ENTRIES {
        for (name, bytes) in inputs(&entry) {
            taken(entry, &name, &bytes);
        }
    }
}

#[test]
fn inputs_that_differ_a_little_from_the_kept_ones_break_nothing() {
    for entry in ENTRIES {
        for (name, bytes) in inputs(&entry) {
            let file = name.rsplit('/').next().unwrap_or_default();
            let mut rng = Seed::new(7).child(entry.name).child(file).rng();
            for change in 0..CHANGES {
                let mut bytes = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(bytes.len().max(1) as u64) as usize;
                    match rng.below(4) {
                        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
                        1 => bytes.truncate(at),
                        2 if at < bytes.len() => bytes[at] = [0, 251, 252, 253, 255][rng.below(5) as usize],
                        _ => bytes.insert(at.min(bytes.len()), rng.below(256) as u8),
                    }
                }
                taken(entry, &format!("{name}, change {change}"), &bytes);
            }
        }
    }
}

#[test]
fn every_way_in_has_its_inputs_and_every_folder_of_inputs_its_way_in() {
    let folders =
        fs::read_dir(corpus()).expect("the corpora").map(|folder| folder.expect("readable").file_name());
    let mut folders: Vec<String> = folders.map(|name| name.to_string_lossy().into_owned()).collect();
    folders.sort();
    assert_eq!(folders, ENTRIES.map(|entry| entry.name));
    let few =
        ENTRIES.iter().filter(|entry| inputs(entry).len() < 2).map(|entry| entry.name).collect::<Vec<_>>();
    assert!(few.is_empty(), "too few inputs: {few:?}");
}
