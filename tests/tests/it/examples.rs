//! The examples print what the guide to the library shows; the cart's nodes and its client run through
//! the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rhumb_tests::cluster::{DevMesh, beside};

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
    for name in ["hello-region", "cart", "supervised", "partition", "orders"] {
        assert_eq!(prints(&beside(name), &[]), shown(name), "{name}");
    }
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
