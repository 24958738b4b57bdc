//! The check of everything that the log has on disk, a bundle at a time: on demand, and all the time in the
//! background.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::audit::messages::Checked;
use rhumb_actors::audit::rows::{self, Unsound};
use rhumb_actors::audit::{AuditHandle, Looked, read};
use rhumb_storage::HotStore;
use rhumb_verify::record::Entry;
use rhumb_verify::tile::WIDTH;
use rhumb_verify::{Checkpoint, Key, Note};
use tokio::task::{JoinHandle, spawn_blocking};

/// Faults that are kept of one pass over the log: a disk that is all wrong says so in so many.
const KEPT: usize = 64;

/// What checks in the background have found. Cloneable; all clones are one.
#[derive(Debug, Clone, Default)]
pub(in crate::supervisor) struct Findings(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    checked: u64,
    /// Of the last whole pass, and of the present one.
    last: Vec<String>,
    present: Vec<String>,
}

impl Findings {
    /// Bundles checked, and what was found.
    pub(in crate::supervisor) fn now(&self) -> (u64, Vec<String>) {
        let found = self.0.lock();
        let mut faults = found.present.clone();
        faults.extend(found.last.iter().filter(|fault| !found.present.contains(fault)).cloned());
        (found.checked, faults)
    }

    fn add(&self, checked: &Checked) {
        let mut found = self.0.lock();
        found.checked += 1;
        for fault in &checked.faults {
            let known = found.last.contains(fault) || found.present.contains(fault);
            if !known {
                tracing::error!(fault, "the audit log on this disk is not sound");
            }
            if found.present.len() < KEPT && !found.present.contains(fault) {
                found.present.push(fault.clone());
            }
        }
        if checked.next.is_none() {
            found.last = std::mem::take(&mut found.present);
        }
    }
}

/// Checks a bundle, or the first one where it was pruned; with the last one also what was signed and cosigned.
///
/// # Errors
/// The disk does not answer.
pub(super) async fn bundle(
    log: &AuditHandle,
    store: &HotStore,
    key: &Key,
    bundle: u64,
) -> Result<Checked, Unsound> {
    let (there, own) = (store.clone(), key.clone());
    let (logs, witnesses) = log
        .believed()
        .await
        .ok_or_else(|| Unsound::Disk("the audit actor does not say whose keys it believes".to_owned()))?;
    let read = spawn_blocking(move || {
        // Where the mark cannot be read, that is what the check finds.
        let bundle = bundle.max(rows::mark(&there).unwrap_or(0) / WIDTH);
        let (stored, mut faults) = read::check_bundle(&there, bundle)?;
        let entries = read::size(&there)?;
        let next = Some(bundle + 1).filter(|next| next * WIDTH < entries);
        if next.is_none() {
            faults.extend(read::check_signed(&there, &own, &witnesses)?);
            faults.extend(cosigned(&there, &logs)?);
        }
        Ok((stored, faults, next))
    });
    let (stored, mut faults, next) =
        read.await.unwrap_or_else(|panic| Err(Unsound::Disk(panic.to_string())))?;
    let mut checked = Checked { next, entries: stored.len() as u64, ..Checked::default() };
    let (mut of, mut bodies) = (Vec::new(), Vec::new());
    for one in stored.into_iter().filter(|one| !one.body.is_empty()) {
        // What is no entry was named already.
        if let Ok(entry) = Entry::decode(&one.entry) {
            of.push(one.index);
            bodies.push((entry.commitment, one.body));
        }
    }
    let looked = log.open(bodies).await.unwrap_or_default();
    for (index, looked) in of.into_iter().zip(looked) {
        match looked {
            Looked::Opened(..) => checked.opened += 1,
            Looked::Shut => {}
            Looked::Changed(why) => faults.push(format!("the body of entry {index}: {why}")),
        }
    }
    checked.faults = faults;
    Ok(checked)
}

/// What of other logs was cosigned must still be what their keys, as they are or were pinned, have signed.
fn cosigned(store: &HotStore, logs: &[Key]) -> Result<Vec<String>, Unsound> {
    let mut faults = Vec::new();
    for (origin, note) in rows::with(store, b"w")? {
        let (origin, note) = (String::from_utf8_lossy(&origin), String::from_utf8_lossy(&note));
        let parsed = Note::parse(&note).map_err(|why| why.to_string());
        let checkpoint =
            parsed.and_then(|note| note.text.parse::<Checkpoint>().map_err(|why| why.to_string()));
        let named = |why: String| format!("what was cosigned of {origin}: {why}");
        match checkpoint {
            Ok(checkpoint) if checkpoint.origin == origin => {
                let wrong: Vec<_> = logs
                    .iter()
                    .filter(|log| log.name == origin)
                    .map(|log| read::check_cosigned(log, &note))
                    .collect();
                // One of its keys has signed it, or each says why not.
                if wrong.iter().all(Option::is_some) {
                    let unknown = || named("no key of that log is pinned".to_owned());
                    faults.push(wrong.into_iter().flatten().next().unwrap_or_else(unknown));
                }
            }
            Ok(_) => faults.push(named("it is of another log".to_owned())),
            Err(why) => faults.push(named(why)),
        }
    }
    Ok(faults)
}

/// Goes over the log again and again, a bundle each `every`.
pub(in crate::supervisor) fn keep_checking(
    log: AuditHandle,
    store: HotStore,
    key: Key,
    every: Duration,
    findings: Findings,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (mut every, mut next) = (tokio::time::interval(every), 0);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            match bundle(&log, &store, &key, next).await {
                Ok(checked) => {
                    next = checked.next.unwrap_or(0);
                    findings.add(&checked);
                }
                // The store says so itself, and stops the node.
                Err(why) => tracing::warn!(%why, "the audit log was not checked"),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use rhumb_actors::audit::Signing;
    use rhumb_actors::audit::seal::SecretKey;
    use rhumb_storage::hot::HotSettings;
    use rhumb_storage::{Batch, MemoryDisk, MemoryEngine, Store};
    use rhumb_verify::hash;

    use super::*;

    #[test]
    fn one_flipped_bit_in_what_was_cosigned_of_another_log_is_found_and_named() {
        let signing = |seed| {
            let node = "eu/n1".parse().expect("a node");
            Signing::of(&SecretKey::new([seed; 32]), "mesh.example", &node).log
        };
        let (log, before) = (signing(1), signing(2));
        let (origin, root) = (log.key().name.clone(), hash::leaf(b"one"));
        let text = Checkpoint { origin: origin.clone(), size: 1, root, extensions: Vec::new() }.to_string();
        let note =
            |text: &str| Note { text: text.to_owned(), signatures: vec![log.sign(text, 0)] }.to_string();
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("an empty disk");
        let store =
            HotStore::start(store, HotSettings::default(), |fault| panic!("{fault}")).expect("starts");
        let found = |note: &[u8], logs: &[Key]| {
            let mut batch = Batch::new();
            batch.put(rhumb_storage::Family::Audit, rows::witnessed_key(&origin), note);
            let (done, written) = std::sync::mpsc::sync_channel(1);
            let done = Box::new(move |result| drop(done.send(result)));
            store.submit(batch, rhumb_storage::Durability::Durable, done).expect("room");
            written.recv().expect("an answer").expect("written");
            cosigned(&store, logs).expect("the disk answers")
        };
        let note = note(&text);
        let keys = [log.key().clone(), before.key().clone()];
        assert_eq!(found(note.as_bytes(), &keys), [""; 0]);
        for byte in 0..note.len() {
            let mut changed = note.clone().into_bytes();
            changed[byte] ^= 1;
            let faults = found(&changed, &keys);
            assert!(faults.iter().any(|fault| fault.contains(&origin)), "byte {byte}: {faults:?}");
        }
        assert!(found(note.as_bytes(), &keys[1..])[0].contains("its log has not signed it"));
        assert!(found(note.as_bytes(), &[])[0].contains("no key of that log is pinned"));
    }
}
