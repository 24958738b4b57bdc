//! libFuzzer at one of the ways in, which `RHUMB_ENTRY` names: `make fuzz`, or by hand
//! `RHUMB_ENTRY=envelope cargo fuzz run entries fuzz/corpus/envelope`.
#![no_main]

use std::sync::LazyLock;

use rhumb_tests::entries::{ENTRIES, Entry};
use rhumb_tests::peak;

static ENTRY: LazyLock<Entry> = LazyLock::new(|| {
    let name = std::env::var("RHUMB_ENTRY").unwrap_or_default();
    let names: Vec<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
    let entry = ENTRIES.iter().find(|entry| entry.name == name);
    *entry.unwrap_or_else(|| panic!("RHUMB_ENTRY is {name:?}; expected one of {}", names.join(", ")))
});

#[global_allocator]
static ALLOCATOR: peak::Counting = peak::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let most = peak::of(|| (ENTRY.take)(input));
    assert!(most <= peak::MOST, "it takes {most} bytes at its highest, at most {} were to be", peak::MOST);
});
