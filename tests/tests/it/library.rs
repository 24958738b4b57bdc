//! The guide to the library shows code that is compiled and run, and leaves out no key and no fault.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::documents::{blocks, file};

const GUIDE: &str = "docs/library.md";

/// The Rust that is compiled: the guide's own tests, and the examples.
fn compiled() -> Vec<String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let paths = fs::read_dir(examples).expect("examples").map(|entry| entry.expect("an entry").path());
    let sources = paths.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let mut all: Vec<_> = sources.map(|path| fs::read_to_string(path).expect("a source")).collect();
    all.push(file("runtime/tests/it/guide.rs"));
    all
}

#[test]
fn the_rust_of_the_guide_stands_in_a_program_or_a_test() {
    let (shown, compiled) = (blocks(GUIDE, "rust"), compiled());
    assert!(shown.len() >= 12, "the guide shows code");
    for block in shown {
        assert!(compiled.iter().any(|source| source.contains(&block)), "this is compiled nowhere:\n{block}");
    }
}

#[test]
fn every_kind_of_fault_has_a_row_in_the_guide() {
    let source = file("core/src/fault.rs");
    let (_, kinds) = source.split_once("pub enum FaultKind {\n").expect("the kinds");
    let (kinds, _) = kinds.split_once("\n}\n").expect("their end");
    let name = |line: &str| -> Option<String> {
        let line = line.strip_prefix("    ")?;
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        name.starts_with(|c: char| c.is_ascii_uppercase()).then_some(name)
    };
    let kinds: BTreeSet<String> = kinds.lines().filter_map(name).collect();
    assert!(kinds.len() >= 21, "{kinds:?}");
    let guide = file(GUIDE);
    let (_, table) = guide.split_once("| kind | when |").expect("a table of faults");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    assert_eq!(table.lines().filter_map(row).collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn every_key_of_the_attributes_has_a_row_in_the_guide() {
    let guide = file(GUIDE);
    for (attribute, source) in [("remote", "remote.rs"), ("remote_actor", "actor.rs")] {
        let source = file(&format!("actors/derive/src/{source}"));
        let (_, keys) = source.split_once("const KNOWN: &[&str] = &[").expect("the keys");
        let (keys, _) = keys.split_once(']').expect("their end");
        let keys: Vec<&str> = keys.split('"').skip(1).step_by(2).collect();
        assert!(keys.len() >= 7, "{keys:?}");
        let (_, table) = guide.split_once(&format!("| key of `#[{attribute}]` |")).expect("a table");
        let (table, _) = table.split_once("\n\n").expect("its end");
        for key in keys {
            let has = |line: &str| {
                let rest = line.strip_prefix("| `").and_then(|line| line.strip_prefix(key));
                rest.is_some_and(|rest| rest.starts_with([' ', '`', '(']))
            };
            assert!(table.lines().any(has), "#[{attribute}]: no row for {key}");
        }
    }
}
