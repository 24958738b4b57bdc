//! The examples print what the guide to the library shows; the cart's nodes and its client run through
//! the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rhumb_tests::cluster::{DevMesh, alone, beside};

use crate::documents::blocks;

/// What the guide shows that a program prints.
fn shown(name: &str) -> String {
    let command = format!("$ cargo run -q -p rhumb-examples --bin {name}\n");
    let blocks = blocks("docs/library.md", "console");
    let shown = blocks.iter().find_map(|block| block.strip_prefix(&command));
    shown.unwrap_or_else(|| panic!("the guide does not show {name}")).to_owned()
}

fn prints(program: &Path, arguments: &[PathBuf]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_examples_print_what_the_guide_shows() {
    for name in ["hello-region", "cart", "supervised", "partition", "lottery", "orders"] {
        assert_eq!(prints(&beside(name), &[]), shown(name), "{name}");
    }
}

#[test]
fn a_store_reads_its_writes_from_any_region_while_regions_die() {
    let _alone = alone();
    let printed = prints(&beside("profile-store"), &[]);
    let lines = |what: &str| printed.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
    for region in ["us-east", "eu-central", "ap-southeast"] {
        for what in ["dies", "is back"] {
            assert_eq!(lines(&format!("{region} {what}")).len(), 1, "{printed}");
        }
        let reads = lines(&format!("  {region} reads: ann lives in "));
        assert_eq!(reads.len(), 7, "{printed}");
        // Right after an edit the replica nearby is behind the token: who leads answers, and says so.
        assert!(reads.iter().all(|read| read.contains(", from ") && read.contains(" s old, ")), "{printed}");
        assert_eq!(lines(&format!("{region} reads at home: ann lives in Lima")).len(), 1, "{printed}");
    }
    let summary = "7 edits, 21 reads with a token while regions died: 0 did not see the edit";
    assert_eq!(printed.lines().last(), Some(summary), "{printed}");
}

#[test]
fn the_readme_shows_what_its_program_prints() {
    let printed = prints(&beside("hello-region"), &[]);
    assert!(blocks("README.md", "text").contains(&printed), "{printed}");
}

#[test]
fn a_program_outside_calls_actors_of_nodes_of_ones_own() {
    let mesh = DevMesh::start_with(beside("cart-node"), "us-east,eu-central,ap-southeast", "off");
    assert_eq!(prints(&beside("cart-client"), &[mesh.data()]), shown("cart-client"));
}
