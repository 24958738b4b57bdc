//! What the README shows is what there is: its program is the example's, its commands run as they
//! stand, its two `make` targets exist.

use std::path::Path;
use std::process::{Command, Stdio};

use rhumb_tests::cluster::{DevMesh, eventually, free_port, program};

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
fn the_one_block_that_is_not_run_starts_jaeger() {
    let blocks = blocks(README, "bash");
    assert!(blocks.len() == 1 && blocks[0].starts_with("docker run "), "{blocks:?}");
    assert!(file("Makefile").contains("\ntrace-phoenix: "), "who checks it instead");
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

#[test]
fn the_mesh_of_three_processes_runs_block_by_block_as_it_stands() {
    let blocks = blocks(README, "shell");
    assert_eq!(blocks.len(), 6, "from nothing to a mesh that was restarted and stopped");
    let mut script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo \"block {number}\"\n{block}"));
    }
    for port in ["7001", "7002", "7003"] {
        script = script.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", free_port()));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let programs = program().parent().map(Path::to_owned).expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    // A mesh that is never ready must not wait for ever: the script waits in loops.
    let ran = Command::new("timeout")
        .args(["--kill-after=10", "120", "bash", "-c", &script])
        .env("PATH", path)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (told(&ran.stdout), told(&ran.stderr));
    assert!(ran.status.success(), "{}\n{out}\n{error}", ran.status);
    assert!(out.contains("3 of 3 nodes ready") && out.contains("2 of 3 nodes ready"), "{out}");
    let holds: Vec<&str> = out.lines().filter(|line| line.starts_with("concert/eu-central/n1/")).collect();
    assert!(holds.len() == 2 && holds[0] == holds[1], "the same key gives the same hold: {out}");
}
