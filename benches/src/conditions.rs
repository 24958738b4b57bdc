//! Under which conditions results were measured: what a reader needs to measure them again, or to know
//! why theirs differ.
//!
//! * It decides: which packages' versions a system's result names.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The versions that this program was built with.
const LOCK: &str = include_str!("../Cargo.lock");

/// The machine, and the command that measures this again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// What to type in the repository's root.
    pub command: String,
    /// Processors that this program may use.
    pub cores: usize,
    /// Their model.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// What compiled all that is in one program, but for what `bench` starts of others' packages.
    #[serde(default)]
    pub compiler: String,
    /// Processes that ran or wanted to, on the average of the minute before: at 0 the machine was idle.
    pub load_before: f64,
}

impl Conditions {
    /// Those of this machine now.
    #[must_use]
    pub fn here(command: String) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| {
                line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
            })
            .unwrap_or_default();
        Self {
            command,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: said("rustc", &["--version"])
                .map_or_else(String::new, |said| said.split(" (").next().unwrap_or_default().to_owned()),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

impl Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, cores, cpu, kernel, compiler, load_before } = self;
        write!(f, "{command}: {cores} cores, {cpu}, Linux {kernel}, {compiler}, load before {load_before:.2}")
    }
}

/// Versions by package.
pub type Versions = BTreeMap<String, String>;

/// The versions of what a system is made of, by the system's name in results.
#[must_use]
pub fn versions(system: &str) -> Versions {
    let packages: &[&str] = match system {
        "rhumb" | "rhumb-each" | "rhumb-apart" | "rhumb-awaited" => {
            &["rhumb", "actix", "mimalloc", "quinn", "quinn-proto", "rustls", "tokio"]
        }
        "floor" => &["quinn", "quinn-proto", "rustls", "rocksdb"],
        "quinn-framed" | "quinn-streams" => &["quinn", "quinn-proto", "rustls"],
        "tonic" | "tonic-one" => &["tonic", "h2", "hyper", "rustls"],
        "ractor_cluster" | "ractor_cluster-one" => &["ractor", "ractor_cluster", "rustls"],
        "ractor" => &["ractor"],
        "kameo" | "kameo-one" => &["kameo", "libp2p", "quinn"],
        "actix-telepathy" => &["actix", "actix-telepathy"],
        "actix" => &["actix", "actix-rt"],
        "coerce" | "coerce-one" => &["coerce"],
        "uhlc" => &["uhlc"],
        "batches" => &["rocksdb"],
        "ct-merkle" => &["ct-merkle", "sha2"],
        _ => &[],
    };
    let mut versions: Versions = packages
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), locked(LOCK, name)?.to_owned())))
        .collect();
    if let Some(version) = versions.get_mut("rhumb")
        && let Some(commit) = commit()
    {
        *version = format!("{version} ({commit})");
    }
    versions
}

/// A package's version in a lock file; the highest where there are several.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let head = format!("name = \"{name}\"\nversion = \"");
    let number =
        |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    lock.split("[[package]]\n")
        .filter_map(|package| package.strip_prefix(head.as_str())?.split('"').next())
        .max_by_key(|version| number(version))
}

fn commit() -> Option<String> {
    said("git", &["describe", "--always", "--dirty", "--exclude=*"])
}

/// What a command says, if it can be asked.
fn said(command: &str, with: &[&str]) -> Option<String> {
    let said = Command::new(command).args(with).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    (said.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_of_a_package_is_found_in_a_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"h2\"\nversion = \"0.3.26\"\n\n[[package]]\nname = \"h2\"\nversion = \"0.4.12\"\n";
        assert_eq!(locked(lock, "h2"), Some("0.4.12"));
        assert_eq!(locked(lock, "h"), None);
    }

    #[test]
    fn the_versions_of_every_system_are_known() {
        for system in [
            "rhumb",
            "quinn-framed",
            "tonic",
            "ractor_cluster",
            "kameo",
            "actix-telepathy",
            "coerce",
            "uhlc",
            "batches",
            "ct-merkle",
        ] {
            assert!(!versions(system).is_empty(), "{system}");
        }
    }
}
