//! All settings of a folder at once: every region, every environment, every node.
//!
//! * It decides: which files are there to be checked, and which a node would never read.
//! * It never does: look at one region only because another has faults.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rhumb_core::{NodeId, Region};

use super::fault::{Fault, Faults, Place};
use super::keys::SECTIONS;
use super::layer;
use super::source::{GLOBAL, Source};

/// What was checked, and is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The nodes whose settings are well.
    pub nodes: BTreeSet<NodeId>,
    /// The files that they read.
    pub files: BTreeSet<String>,
    /// What is no fault, and probably not what was meant.
    pub notes: Vec<String>,
}

/// Checks these regions, or all that have a file, each in this environment, or in every one that has a
/// file.
///
/// # Errors
/// Every fault of every layer of every region.
pub fn check(dir: &Path, regions: &[Region], env: Option<&str>) -> Result<Checked, Faults> {
    let mut faults = Faults { dir: dir.to_owned(), faults: Vec::new() };
    let global = layer::file(SECTIONS, dir, GLOBAL, 1, "--config names the folder that holds it");
    let names = global.entries.iter().map(|(dotted, _)| dotted);
    let founding = names.filter_map(|dotted| dotted.strip_prefix("mesh.founding.")?.parse::<NodeId>().ok());
    let founding: BTreeSet<Region> = founding.map(|node| node.region).collect();
    let present: BTreeSet<Region> =
        founding.iter().filter(|region| dir.join(format!("{region}.toml")).is_file()).cloned().collect();
    let chosen: BTreeSet<Region> = match (regions, present.is_empty()) {
        ([], false) => present.clone(),
        ([], true) => founding.clone(),
        (given, _) => given.iter().cloned().collect(),
    };
    if chosen.is_empty() {
        faults.faults = global.faults;
        let what = "no region is known: list the nodes under [mesh.founding], or give --region";
        faults.faults.push(Fault::new(Place::whole(GLOBAL), what));
        return Err(faults);
    }
    let mut checked = Checked { nodes: BTreeSet::new(), files: BTreeSet::new(), notes: Vec::new() };
    let mut known = BTreeSet::new();
    for source in chosen.iter().flat_map(|region| sources(dir, region, env)) {
        checked.files.extend(source.files());
        let read = source.read();
        known.extend(read.policy_file());
        match read.check() {
            Ok(nodes) => checked.nodes.extend(nodes.into_iter().map(|node| node.me)),
            Err(more) => faults.merge(more),
        }
    }
    if !faults.faults.is_empty() {
        return Err(faults);
    }
    known.extend(checked.files.iter().cloned());
    known.extend(founding.iter().map(|region| format!("{region}.toml")));
    let absent = founding.difference(&present).filter(|_| regions.is_empty());
    checked
        .notes
        .extend(absent.map(|region| format!("there is no {region}.toml here: {region} is not checked")));
    let strange =
        toml_files(dir).into_iter().map(|stem| format!("{stem}.toml")).filter(|file| !known.contains(file));
    checked.notes.extend(strange.map(|file| format!("{file} is read by no node: no region has this name")));
    Ok(checked)
}

/// A region's layers in each environment.
fn sources(dir: &Path, region: &Region, env: Option<&str>) -> Vec<Source> {
    let envs = match env {
        Some(env) => vec![env.to_owned()],
        None => toml_files(&dir.join(region.as_str())),
    };
    if envs.is_empty() {
        return vec![Source::new(dir, region, None)];
    }
    envs.iter().map(|env| Source::new(dir, region, Some(env))).collect()
}

/// The names of a folder's TOML files, without `.toml`, sorted. None where there is no such folder.
fn toml_files(dir: &Path) -> Vec<String> {
    let Ok(listed) = fs::read_dir(dir) else { return Vec::new() };
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    names
}
