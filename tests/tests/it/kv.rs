//! Keys and values of the real program: what the pages about them show is what there is, and any bytes come back as they were.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rhumb_tests::cluster::{DevMesh, program};
use serde_json::Value;

use crate::documents::{fenced, file};

const THREE: &str = "us-east,eu-central,ap-southeast";
const PAGE: &str = "docs/kv.md";
/// What operators do with them.
const OPERATORS_PAGE: &str = "docs/operations/snapshots.md";
/// Between what one block prints and the next one.
const BETWEEN: &str = "==== the next block ====";

/// Whether a line is one that is shown: `…` stands for anything.
fn is_shown(shown: &str, line: &str) -> bool {
    match shown.split_once('…') {
        None => shown == line,
        Some((before, after)) => {
            let inner = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            inner.is_some_and(|inner| !inner.is_empty())
        }
    }
}

/// The commands of a page, and what it shows that each block of them prints.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    for (tag, text) in fenced(page) {
        match (tag.as_str(), blocks.last_mut()) {
            ("shell", _) => blocks.push((text, String::new())),
            // What a block prints stands behind it.
            ("text", Some((_, shown))) => *shown = text,
            (other, _) => panic!("{page} has a block of {other:?}, which nobody runs"),
        }
    }
    blocks
}

/// Runs the commands of a page, one after the other, and compares what they print.
fn prints_what_it_shows(mesh: &DevMesh, page: &str) {
    let blocks = blocks(page);
    let script: String = blocks.iter().map(|(block, _)| format!("{block}echo '{BETWEEN}'\n")).collect();
    let programs = program().parent().map(Path::to_owned).expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new("timeout")
        .args(["--kill-after=10", "120", "bash", "-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("RHUMB_DATA", mesh.data())
        .current_dir(mesh.directory())
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{page}: {}\n{out}\n{error}", ran.status);
    for ((block, shown), printed) in blocks.iter().zip(out.split(&format!("{BETWEEN}\n"))) {
        let lines: (Vec<&str>, Vec<&str>) = (printed.lines().collect(), shown.lines().collect());
        let same = lines.0.len() == lines.1.len()
            && lines.1.iter().zip(&lines.0).all(|(shown, line)| is_shown(shown, line));
        assert!(same, "{page} shows\n{shown}\nbelow\n{block}\nand it prints\n{printed}\n{error}");
    }
}

#[test]
fn every_block_of_the_pages_about_keys_and_values_runs_and_prints_what_it_shows() {
    assert!(blocks(PAGE).len() > 10 && blocks(OPERATORS_PAGE).len() > 3);
    let mesh = DevMesh::start(THREE, "off");
    prints_what_it_shows(&mesh, PAGE);
    // The policy of `dev` has the class of the page; what was erased is.
    assert!(mesh.rhumb(&["kv", "get", "people", "ann/address"]).json["refused"]["code"] == "erased");
    prints_what_it_shows(&mesh, OPERATORS_PAGE);
}

/// The codes that the program knows are those that the page explains.
#[test]
fn every_code_of_a_refusal_is_explained() {
    let page = file(PAGE);
    let table = page.split("## When it is refused").nth(1).expect("its last part");
    let codes = file("actors/src/ranges/messages.rs");
    let codes = codes.split("pub fn code(").nth(1).expect("codes").split("\n    }\n").next().expect("an end");
    let codes: Vec<&str> = codes.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes {
        assert!(table.contains(&format!("`{code}`")), "{PAGE} does not explain {code}");
    }
}

/// Runs the program, with this on its standard input.
fn pipe(mesh: &DevMesh, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).env("RHUMB_DATA", mesh.data()).current_dir(mesh.directory());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn any_bytes_are_a_key_and_a_value_and_come_back_as_they_were() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let all: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let at = |name: &str| mesh.directory().join(name);
    let text = |path: &PathBuf| path.to_str().expect("a path is text").to_owned();
    std::fs::write(at("in"), &all).expect("written");
    mesh.ok(&["kv", "put", "profiles", "--base64", "AP8", "--file", &text(&at("in"))]);
    let told = mesh.ok(&["kv", "get", "profiles", "--base64", "AP8=", "--out", &text(&at("out"))]);
    assert_eq!(std::fs::read(at("out")).expect("it was written"), all);
    assert_eq!(
        (told["rows"][0]["value_base64"].is_null(), &told["rows"][0]["key_base64"]),
        (true, &"AP8".into())
    );
    let raw = pipe(&mesh, &["kv", "get", "profiles", "--base64", "AP8", "--out", "-"], b"");
    assert!(raw.status.success() && raw.stdout == all, "{} bytes", raw.stdout.len());
    let both = mesh.rhumb(&["kv", "get", "profiles", "--base64", "AP8", "--out", "-"]);
    assert_eq!((both.code, both.json["usage"].is_object()), (2, true), "{}", both.text);
    let none = mesh.rhumb(&["kv", "get", "profiles", "none", "--out", &text(&at("none"))]);
    assert_eq!((none.code, at("none").exists()), (5, false), "{}", none.text);
    let wrong = mesh.rhumb(&["kv", "put", "profiles", "--base64", "a", "b"]);
    assert_eq!((wrong.code, wrong.json["usage"].is_object()), (2, true), "{}", wrong.text);

    // From standard input, one by one and many at once; each with its own condition and expiry.
    let put = pipe(&mesh, &["kv", "put", "profiles", "ann", "--file", "-", "-o", "json"], b"\x00one\n");
    let version =
        serde_json::from_slice::<Value>(&put.stdout).expect("json")["version"].as_u64().expect("one");
    let ops = |condition: &str| {
        format!(
            "{{\"key\": \"ann\", \"value_base64\": \"_-8\", \"expires\": \"1h\", {condition}}}\n\
             {{\"key_base64\": \"/wA=\", \"value\": \"two\", \"schema\": 3, \"if_absent\": true}}\n\
             {{\"key_base64\": \"AP8\", \"delete\": true}}\n"
        )
    };
    let batch = ["kv", "batch", "profiles", "--ops", "-", "-o", "json"];
    let refused = pipe(&mesh, &batch, ops("\"if_version\": 7").as_bytes());
    let told: Value = serde_json::from_slice(&refused.stdout).expect("json");
    assert_eq!(
        (refused.status.code(), &told["refused"]["code"]),
        (Some(1), &"condition_failed".into()),
        "{told}"
    );
    assert_eq!(mesh.rhumb(&["kv", "get", "profiles", "--base64", "_wA"]).code, 5, "all or none");
    let written = pipe(&mesh, &batch, ops(&format!("\"if_version\": {version}")).as_bytes());
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stdout));
    let scan = mesh.ok(&["kv", "scan", "profiles", "--base64"]);
    let rows: Vec<_> = scan["rows"].as_array().expect("rows").iter().collect();
    let shown: Vec<_> =
        rows.iter().map(|row| (row["key_base64"].as_str(), row["value_base64"].as_str())).collect();
    assert_eq!(shown, [(Some("YW5u"), Some("_-8")), (Some("_wA"), Some("dHdv"))], "{scan}");
    assert!(rows[0]["expires_ms"].is_u64() && rows[1]["schema"] == 3, "{scan}");
    let line = mesh.directory().join("wrong.jsonl");
    std::fs::write(&line, "{\"key\": \"a\"}\n").expect("written");
    let wrong = mesh.rhumb(&["kv", "batch", "profiles", "--ops", &text(&line)]);
    assert_eq!(wrong.code, 2, "{}", wrong.text);
    assert!(wrong.text.contains("line 1: neither a value nor"), "{}", wrong.text);

    // Where there is more is said in base64 too, and so is where a range is split.
    let first = mesh.ok(&["kv", "scan", "profiles", "--base64", "--limit", "1"]);
    let next = first["next_base64"].as_str().expect("there is more");
    let rest = mesh.ok(&["kv", "scan", "profiles", "--base64", "--from", next]);
    assert_eq!(rest["rows"].as_array().map(Vec::len), Some(1), "{rest}");
    mesh.ok(&["range", "split", "profiles", "--base64", "--at", "_wA"]);
    let both = mesh.ok(&["kv", "scan", "profiles", "--base64"]);
    assert_eq!(both["rows"].as_array().map(Vec::len), Some(2), "{both}");
}
