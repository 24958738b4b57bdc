//! A stranger's crate, outside of this workspace, that depends on the library with the lines that the
//! documents give: it is made from the `file://` address of a clone, built and run. The clone is made of
//! the files as they are now, so that a change is tested before it is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = r#"
use rhumb::prelude::*;
use rhumb::testing::TestMesh;

#[remote(name = "stranger.Double", class = "control", reply = u32)]
struct Double {
    number: u32,
}

struct Doubler;

#[remote_actor(name = "stranger.doubler", class = "control", accepts(Double))]
impl Actor for Doubler {
    type Context = Context<Self>;
}

impl Handler<Double> for Doubler {
    type Result = u32;

    fn handle(&mut self, double: Double, _: &mut Context<Self>) -> u32 {
        2 * double.number
    }
}

#[tokio::main]
async fn main() {
    let mesh = TestMesh::of(["us-east", "eu-west"]).host(Host::new(|_: &_| Doubler)).start().await.expect("starts");
    let far = mesh.at("us-east").actor_in::<Doubler>(&"eu-west".parse().expect("a region"), "a");
    println!("doubled: {}", far.ask(Double { number: 21 }).await.expect("answered"));
}
"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// A clone of this repository's tracked files as they are now. The same files give the same commit, so
/// that a second run builds nothing anew. Each test has its own.
fn clone(name: &str) -> PathBuf {
    let (from, to) = (repository(), program_folder().join("stranger").join(name));
    if to.exists() {
        fs::remove_dir_all(&to).expect("removed");
    }
    let listed = git(&from, &["ls-files", "-z"]);
    for file in listed.split('\0').filter(|file| from.join(file).is_file()) {
        let copy = to.join(file);
        fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        fs::copy(from.join(file), copy).expect("copied");
    }
    git(&to, &["init", "--quiet"]);
    git(&to, &["add", "--all", "--force"]);
    git(&to, &["commit", "--quiet", "--message", "As it is now"]);
    to
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
        .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What the documents say to write for the library without RocksDB, or with it.
fn dependency(line_has: &str) -> String {
    let guide = fs::read_to_string(repository().join("docs/library.md")).expect("the guide");
    let fits = |line: &&str| {
        line.starts_with("rhumb = { git = ")
            && line.contains("default-features = false") == (line_has == "client")
    };
    let line = guide.lines().find(fits).unwrap_or_else(|| panic!("the guide has no line for {line_has}"));
    let (before, rest) = line.split_once("git = \"").expect("a git address");
    let (_, after) = rest.split_once('"').expect("its end");
    format!("{before}git = \"file://{}\"{after}", clone(line_has).display())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test of its own build is not meant for another crate's.
    for (name, _) in std::env::vars_os() {
        let own = name.to_string_lossy();
        if own.starts_with("CARGO_PKG") || own.starts_with("CARGO_MANIFEST") || own == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn builds_and_runs(features: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let manifest = format!(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n\n[profile.dev]\ndebug = false\n",
        dependency(features)
    );
    fs::create_dir(dir.path().join("src")).expect("a folder");
    fs::write(dir.path().join("Cargo.toml"), manifest).expect("written");
    fs::write(dir.path().join("src/main.rs"), PROGRAM).expect("written");
    // The versions that this repository was tested with.
    fs::copy(repository().join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("copied");
    let target = program_folder().join("stranger");
    let output = cargo()
        .args(["run", "--quiet"])
        .current_dir(dir.path())
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .expect("cargo runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out, "doubled: 42\n", "{err}");
}

/// Where the tests' own builds lie, so that a second run finds the first one's.
fn program_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned()
}

#[test]
fn a_crate_outside_builds_against_the_library_without_rocksdb() {
    builds_and_runs("client");
}

#[test]
fn a_crate_outside_builds_against_the_whole_library() {
    if std::env::var_os("RHUMB_FULL").is_none() {
        // It compiles RocksDB once more: `make check-full` does it.
        return;
    }
    builds_and_runs("rocks");
}
