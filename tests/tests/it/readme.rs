//! What the README shows is what there is: its program is the example's, its commands run as they
//! stand, its two `make` targets exist.

use std::fs;
use std::path::PathBuf;

use rhumb_tests::cluster::{DevMesh, eventually};

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The README's fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = file("README.md");
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in readme.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(tag)) => open = Some((tag == language, String::new())),
            (Some(_), Some(_)) => {
                found.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, text)| text))
            }
            (Some((_, text)), None) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    found
}

#[test]
fn the_program_in_the_readme_is_the_example() {
    let example = file("examples/buy_a_seat.rs");
    let code = example.split_once("\n\n").expect("docs, then code").1;
    assert_eq!(blocks("rust"), [code.to_owned()]);
}

#[test]
fn the_two_commands_of_the_readme_are_targets() {
    let commands = blocks("sh").concat();
    let makefile = file("Makefile");
    let targets: Vec<&str> =
        commands.lines().filter_map(|line| line.strip_prefix("make ")?.split(' ').next()).collect();
    assert_eq!(targets, ["demo", "test"]);
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}: ")), "no target {target}");
    }
}

#[test]
fn the_commands_of_the_readme_run_as_they_stand() {
    let console = blocks("console").concat();
    let mut commands = console.lines().filter_map(|line| line.strip_prefix("$ rhumb "));
    let dev: Vec<&str> = commands.next().expect("the first starts the mesh").split(' ').collect();
    let ["dev", "--regions", regions] = dev[..] else { panic!("the first command starts the mesh: {dev:?}") };
    let mesh = DevMesh::start(regions, "published");
    let rest: Vec<Vec<&str>> = commands.map(|line| line.split(' ').collect()).collect();
    assert!(rest.len() >= 4);
    for command in rest {
        // A region learns of a new pool when its first grant has crossed the sea.
        eventually(&command.join(" "), || mesh.rhumb(&command).code == 0);
    }
}
