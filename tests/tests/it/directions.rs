//! Imports go one way only. Reads `cargo metadata`, so that a new edge cannot slip in with a change of
//! a manifest.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each room may import, and what only its tests may (`dev`). A room that is not listed may not exist.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("rhumb-core", &[][..]),
        ("rhumb-topology", &["rhumb-core"]),
        ("rhumb-transport", &["rhumb-core"]),
        ("rhumb-storage", &["rhumb-core"]),
        ("rhumb-derive", &[]),
        // An auditor reads all that it trusts: nothing of ours.
        ("rhumb-verify", &[]),
        // It judges what was seen of all others, and sees none of them.
        ("rhumb-histories", &["rhumb-core"]),
        // What openraft imports in place of a crate of that name (docs/decisions/0043).
        ("base2histogram", &[]),
        (
            "rhumb-actors",
            &[
                "rhumb-core",
                "rhumb-derive",
                "rhumb-verify",
                "rhumb-topology",
                "rhumb-transport",
                "rhumb-storage",
                "dev rhumb-histories",
            ],
        ),
        (
            "rhumb",
            &[
                "rhumb-core",
                "rhumb-topology",
                "rhumb-transport",
                "rhumb-storage",
                "rhumb-actors",
                "rhumb-verify",
            ],
        ),
        ("rhumb-examples", &["rhumb"]),
        (
            "rhumb-tests",
            &[
                "rhumb-core",
                "rhumb-verify",
                "rhumb-topology",
                "rhumb-transport",
                "rhumb-storage",
                "rhumb-actors",
                "rhumb-histories",
                "rhumb",
            ],
        ),
    ])
}

/// The edges of the workspace that go up, sideways or to nowhere.
fn wrong_edges(metadata: &Value) -> Vec<String> {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is no room"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            // A crate may name itself among its dev-dependencies, to switch its own features on.
            let is_dev = dependency["kind"] == "dev";
            let listed = |may: &&str| *may == on || (is_dev && may.strip_prefix("dev ") == Some(on));
            if on.starts_with("rhumb") && on != name && !may.iter().any(listed) {
                wrong.push(format!("{name} imports {on}"));
            }
        }
    }
    wrong
}

#[test]
fn imports_go_one_way_only() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    assert!(metadata["packages"].as_array().is_some_and(|packages| packages.len() >= 8));
    assert_eq!(wrong_edges(&metadata), Vec::<String>::new());
}

#[test]
fn an_edge_that_goes_up_or_sideways_is_named() {
    let metadata = serde_json::json!({ "packages": [
        { "name": "rhumb-storage", "dependencies": [{ "name": "rhumb-transport" }, { "name": "serde" }] },
        { "name": "rhumb-core", "dependencies": [{ "name": "rhumb" }] },
        { "name": "rhumb-attic", "dependencies": [] },
        { "name": "rhumb-actors", "dependencies": [
            { "name": "rhumb-histories", "kind": "dev" }, { "name": "rhumb-histories", "kind": null },
        ]},
    ]});
    assert_eq!(
        wrong_edges(&metadata),
        [
            "rhumb-storage imports rhumb-transport",
            "rhumb-core imports rhumb",
            "rhumb-attic is no room",
            "rhumb-actors imports rhumb-histories"
        ]
    );
}
