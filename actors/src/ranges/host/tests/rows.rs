//! What replicas show in the end: the same, however much each has collected.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::{HybridTime, StoreId};
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Record, UserKey, VersionKey};

use super::net;
use crate::ranges::raft::disk::Row;
use crate::ranges::{RangeId, RangeReplica};

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

/// All replicas of a range show the same, at their highest threshold and above: every one applied all, in the end. They stand
/// where they are wanted, and where none stands, there are no rows.
pub(super) fn same_rows(net: &net::Shared) -> Result<(), String> {
    let net = net.lock();
    let mut found: BTreeMap<RangeId, Vec<(StoreId, HybridTime, Vec<Row>)>> = BTreeMap::new();
    for (number, node) in net.nodes.iter().enumerate() {
        let host = node.host.as_ref().ok_or_else(|| format!("node {number} does not serve in the end"))?;
        let mut rows = host.rows(Family::Mvcc);
        let mut here = BTreeSet::new();
        for (_, state) in host.rows(Family::Raft).iter().filter(|(key, _)| key.starts_with(b"a")) {
            let replica = RangeReplica::recover(net::settings().range, state)?;
            let descriptor = replica.descriptor();
            let key = |row: &Row| VersionKey::decode(&row.0).map(|version| version.key);
            let (own, others) =
                rows.into_iter().partition(|row| key(row).is_ok_and(|key| descriptor.holds(&key)));
            rows = others;
            here.insert(descriptor.range);
            found.entry(descriptor.range).or_default().push((host.store(), replica.applied().threshold, own));
        }
        if !rows.is_empty() {
            return Err(format!("node {number} has {} rows of no range of its own in the end", rows.len()));
        }
        let Some(catalog) = &net.catalog else { continue };
        if !catalog.is_settled() {
            return Err(format!("in the end ranges are not as they are wanted: {:?}", catalog.space.ranges));
        }
        let wanted = catalog.space.ranges.iter().filter(|row| row.begun);
        let wanted = wanted.filter(|row| row.seats.iter().any(|seat| seat.store == host.store()));
        let wanted: BTreeSet<_> = wanted.map(|row| row.range).collect();
        if wanted != here {
            return Err(format!(
                "node {number} has replicas of {here:?} in the end, and {wanted:?} are wanted"
            ));
        }
    }
    found.values().try_for_each(|replicas| same(replicas))
}

fn same(replicas: &[(StoreId, HybridTime, Vec<Row>)]) -> Result<(), String> {
    let threshold = replicas.iter().map(|(_, threshold, _)| *threshold).max().unwrap_or_default();
    let mut first: Option<(StoreId, Shown)> = None;
    for (store, _, rows) in replicas {
        let shows = shown(rows, threshold)?;
        match &first {
            None => first = Some((*store, shows)),
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
