//! What the README shows is what there is: its program is the example's, its commands run as they
//! stand, its two `make` targets exist.

use rhumb_tests::cluster::{DevMesh, eventually};

use crate::documents::{blocks, file};

const README: &str = "README.md";

#[test]
fn the_programs_in_the_readme_are_the_examples() {
    let hosting = file("examples/hello_region.rs");
    let buying = file("examples/buy_a_seat.rs");
    let buying = buying.split_once("\n\n").expect("docs, then code").1;
    assert_eq!(blocks(README, "rust"), [hosting, buying.to_owned()]);
}

#[test]
fn the_two_commands_of_the_readme_are_targets() {
    let commands = blocks(README, "sh").concat();
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
    let console = blocks(README, "console").concat();
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
