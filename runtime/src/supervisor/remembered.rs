//! What the control store remembers of the mesh, and what settings may not change behind its back.

use anyhow::Context;
use rhumb_actors::version::UnknownVersion;
use rhumb_core::{ClusterVersion, Knows};
use rhumb_storage::ControlStore;
use rhumb_storage::control::LastSeen;
use rhumb_topology::Founding;

/// Refuses a founding list other than the one this node was founded with: the homes of all pools are a
/// function of it.
pub(super) fn founding(control: &dyn ControlStore, now: &Founding) -> anyhow::Result<()> {
    let text = now.to_string();
    match control.last_seen(LastSeen::Topology)? {
        None => control.remember(LastSeen::Topology, text.as_bytes())?,
        Some(seen) => anyhow::ensure!(
            seen == text.as_bytes(),
            "settings: mesh.founding lists {text}, but this node was founded in a mesh of {}; \
             the list never changes, for the homes of all pools follow from it",
            String::from_utf8_lossy(&seen)
        ),
    }
    Ok(())
}

/// Refuses a policy older than one this node has served under.
pub(super) fn policy(control: &dyn ControlStore, version: Option<u64>) -> anyhow::Result<()> {
    let seen = match control.last_seen(LastSeen::Policy)? {
        None => None,
        Some(bytes) => {
            let bytes = bytes.try_into().ok().context("the control store's policy version is not 8 bytes")?;
            Some(u64::from_be_bytes(bytes))
        }
    };
    let Some(version) = version else { return Ok(()) };
    anyhow::ensure!(
        seen.is_none_or(|seen| version >= seen),
        "the policy file has version {version}, but this node has served under version {}: an older policy \
         is not taken back; sign one with a higher version",
        seen.unwrap_or_default()
    );
    Ok(control.remember(LastSeen::Policy, &version.to_be_bytes())?)
}

/// Refuses a build that does not know the cluster version which this disk has served under, or promised to know.
pub(super) fn version(control: &dyn ControlStore, knows: Knows) -> anyhow::Result<()> {
    let version = promised(control)?;
    match knows.has(version) {
        true => Ok(()),
        false => Err(UnknownVersion { version, knows }.into()),
    }
}

/// The cluster version that builds on this disk have to know.
fn promised(control: &dyn ControlStore) -> anyhow::Result<ClusterVersion> {
    let Some(bytes) = control.last_seen(LastSeen::ClusterVersion)? else { return Ok(ClusterVersion::FIRST) };
    let bytes = bytes.try_into().ok().context("the control store's cluster version is not 4 bytes")?;
    Ok(ClusterVersion(u32::from_be_bytes(bytes)))
}

/// From now on builds on this disk have to know this version: durable when it returns. What it remembers now; it never falls.
pub(super) fn promise(control: &dyn ControlStore, version: ClusterVersion) -> anyhow::Result<ClusterVersion> {
    let before = promised(control)?;
    if version > before {
        control.remember(LastSeen::ClusterVersion, &version.0.to_be_bytes())?;
    }
    Ok(version.max(before))
}

#[cfg(test)]
mod tests {
    use rhumb_core::{ClusterId, NodeId, StoreId};
    use rhumb_storage::{DataDir, Expect};

    use super::*;

    #[test]
    fn a_build_that_does_not_know_what_was_promised_is_refused_and_a_promise_never_falls() {
        let folder = tempfile::tempdir().expect("a directory");
        let node = NodeId::new("us-east", "n1").expect("valid");
        let expect = Expect { cluster: ClusterId(1), node, init: Some(StoreId(2)) };
        let [one, two, three] = [1, 2, 3].map(ClusterVersion);
        let knows = |oldest, newest| Knows { oldest, newest };
        {
            let begun = DataDir::begin(folder.path(), &expect).expect("a new directory");
            let control = begun.control();
            version(control, knows(one, one)).expect("nothing was promised");
            assert!(version(control, knows(two, three)).is_err(), "the mesh is at the first one");
            assert_eq!(promise(control, two).expect("written"), two);
            assert_eq!(promise(control, one).expect("nothing to write"), two);
        }
        let begun = DataDir::begin(folder.path(), &expect).expect("it is there");
        let control = begun.control();
        let why = version(control, knows(one, one)).expect_err("it does not know what was promised");
        assert!(why.to_string().contains("start a build that knows cluster version 2"), "{why}");
        version(control, knows(one, two)).expect("it knows it");
        assert!(version(control, knows(three, three)).is_err(), "nor does one that has given it up");
    }
}
