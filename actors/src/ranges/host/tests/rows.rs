//! What replicas show in the end: the same, however much each has collected.

use std::collections::BTreeMap;

use rhumb_core::{HybridTime, StoreId};
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Record, UserKey, VersionKey};

use super::net::{self, RANGE};
use crate::ranges::RangeReplica;
use crate::ranges::raft::disk::Row;

/// What a key was at the last threshold, and all that was written to it since.
type Shown = BTreeMap<UserKey, Vec<(HybridTime, Record)>>;

/// What can be read of these rows by whoever may.
fn shown(rows: &[Row], threshold: HybridTime) -> Result<Shown, String> {
    let (mut all, mut decided) = (Shown::new(), None);
    for (row, value) in rows {
        let VersionKey { key, at, .. } = VersionKey::decode(row).map_err(|error| error.to_string())?;
        if decided.as_ref() == Some(&key) {
            continue;
        }
        let record = Record::decode(row, value).map_err(|error| error.to_string())?;
        if at <= threshold {
            decided = Some(key.clone());
        }
        if at > threshold || record.live(threshold).is_some() {
            all.entry(key).or_default().push((at, record));
        }
    }
    Ok(all)
}

/// All replicas show the same, at their highest threshold and above: every one applied all, in the end.
pub(super) fn same_rows(net: &net::Shared) -> Result<(), String> {
    let net = net.lock();
    let mut found: Vec<(StoreId, HybridTime, Vec<Row>)> = Vec::new();
    for (number, node) in net.nodes.iter().enumerate() {
        let host = node.host.as_ref().ok_or_else(|| format!("node {number} does not serve in the end"))?;
        let states = host.rows(Family::Raft);
        let state = states.iter().find(|(key, _)| *key == RangeReplica::row_key(RANGE));
        let (_, state) = state.ok_or_else(|| format!("node {number} has no replica in the end"))?;
        let replica = RangeReplica::recover(net::settings().range, state)?;
        found.push((host.store(), replica.applied().threshold, host.rows(Family::Mvcc)));
    }
    let threshold = found.iter().map(|(_, threshold, _)| *threshold).max().unwrap_or_default();
    let mut first: Option<(StoreId, Shown)> = None;
    for (store, _, rows) in found {
        let shows = shown(&rows, threshold)?;
        match &first {
            None => first = Some((store, shows)),
            Some((_, before)) if *before == shows => {}
            Some((other, before)) => {
                return Err(format!(
                    "from {threshold} on store {} shows {before:?} in the end, and store {} {shows:?}",
                    other.0, store.0
                ));
            }
        }
    }
    Ok(())
}
