//! The range: rows with versions, and batches under a condition, one after the other.

use std::collections::BTreeMap;

use rhumb_core::{Epoch, HybridTime, NodeId};

use crate::escrow::tenure::{Head, If, Rows, key_of, rows_of};

#[derive(Debug, Default)]
pub(super) struct Range {
    rows: BTreeMap<Vec<u8>, (Vec<u8>, HybridTime)>,
    writes: u64,
    /// Who writes a ledger under which epoch.
    writers: BTreeMap<(NodeId, Epoch), (NodeId, u64)>,
}

impl Range {
    pub(super) fn head(&self, owner: &NodeId) -> Option<(Head, HybridTime)> {
        let (bytes, at) = self.rows.get(&key_of(owner, b""))?;
        Some((Head::decode(bytes).expect("a head"), *at))
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// The version, if the condition held.
    pub(super) fn write(
        &mut self,
        owner: &NodeId,
        when: If,
        head: &Head,
        rows: &Rows,
    ) -> Result<Option<HybridTime>, String> {
        let found = self.head(owner);
        let holds = match when {
            If::Any => true,
            If::Absent => found.is_none(),
            If::At(at) => found.as_ref().is_some_and(|(_, found)| *found == at),
        };
        if !holds {
            return Ok(None);
        }
        if found.is_some_and(|(found, _)| found.epoch > head.epoch) {
            return Err(format!(
                "{} writes the ledger of {owner} under {:?}, which is over",
                head.host, head.epoch
            ));
        }
        let writer = (head.host.clone(), head.opening);
        let first = self.writers.entry((owner.clone(), head.epoch)).or_insert_with(|| writer.clone());
        if *first != writer {
            return Err(format!("{first:?} and {writer:?} write the ledger of {owner} under one epoch"));
        }
        self.writes += 1;
        let at = HybridTime::from_bits(self.writes);
        for (record, value) in rows.iter() {
            match value {
                Some(value) => drop(self.rows.insert(key_of(owner, record), (value.clone(), at))),
                None => drop(self.rows.remove(&key_of(owner, record))),
            }
        }
        self.rows.insert(key_of(owner, b""), (head.encode(), at));
        Ok(Some(at))
    }

    /// An owner's rows without the head.
    pub(super) fn rows(&self, owner: &NodeId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (from, to) = rows_of(owner);
        let rows = self.rows.range(from.clone()..to).filter(|(key, _)| **key != from);
        rows.map(|(key, (value, _))| (key[from.len()..].to_vec(), value.clone())).collect()
    }
}
