//! Replicas that are not to be believed: what is told of them, and what becomes of what they held.
//!
//! * It decides: nothing of them. Hosts find and stop them, the meta range's row says what comes in their place.
//! * It never does: have rows of a replica that was quarantined cleared away before they are set aside, or keep what is aside for longer
//!   than [`KEPT`], or more than [`MOST`] replicas' rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::catalog::META;
use rhumb_actors::ranges::comparing::Verdict;
use rhumb_actors::ranges::host::{Checked, NotWritten, Noticed};
use rhumb_actors::ranges::messages::{CheckRange, KvRefusal, RangeChecked, RangeView};
use rhumb_actors::ranges::raft::Disk;
use rhumb_actors::ranges::span::Span;
use rhumb_actors::ranges::{RangeId, RangeReplica, ReplicaId};
use rhumb_core::DataClass;
use rhumb_storage::Family;
use tokio::time::Instant;

use super::plan::{AGAIN_AFTER, Ended, Not, came_of};
use super::serve::{Answer, control};
use super::{Ranges, not_now};
use crate::mesh::registry::Call;
use crate::metrics::exposition::Page;

/// Where rows of quarantined replicas are set aside, in the data directory.
const ASIDE: &str = "quarantine";
/// For how long: seven days.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Of so many replicas at most: the oldest go first.
const MOST: usize = 8;
/// How often it is looked for what is older.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// What could not be set aside is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Bytes of rows between two pauses while they are set aside.
const BYTES_AT_ONCE: usize = 256 << 10;
/// That pause.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a call is passed on.
const MAX_HOPS: u32 = 4;
/// What a file ends in while it is written. It is nobody's evidence: it counts for none of [`MOST`], and one that was left behind goes
/// with its age.
const PART: &str = "part";
/// The first line of what is set aside.
const HEAD: &[u8] = b"rhumb quarantined rows 1\n";

/// What this node knows of its replicas that are not as they should be.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    /// How comparisons ended.
    compared: Mutex<BTreeMap<&'static str, u64>>,
    /// What was found damaged, by where it was.
    damaged: Mutex<BTreeMap<&'static str, u64>>,
    /// What became of replicas.
    became: Mutex<BTreeMap<&'static str, u64>>,
    /// What is just being set aside.
    setting: Mutex<BTreeSet<RangeId>>,
}

fn one_more(counts: &Mutex<BTreeMap<&'static str, u64>>, what: &'static str) {
    *counts.lock().entry(what).or_default() += 1;
}

impl Ranges {
    /// A host has noticed something of a range.
    pub(super) fn has_noticed(&self, range: RangeId, noticed: Noticed) {
        let integrity = &self.0.integrity;
        let record = |action: &str| {
            let by = format!("node {}", self.0.parts.me);
            Record::told(action, by, Outcome::Done)
                .on(format!("range {}", range.0))
                .with("keyspace", self.name_of(range))
        };
        let (record, halts) = match noticed {
            Noticed::Compared(Checked { round, verdict }) => {
                let word = match &verdict {
                    Verdict::Waits => return,
                    Verdict::Same => "same",
                    Verdict::Odd(_) => "odd",
                    Verdict::Undecided => "undecided",
                };
                one_more(&integrity.compared, word);
                if verdict == Verdict::Same {
                    return;
                }
                let odd: Vec<_> = match &verdict {
                    Verdict::Odd(odd) => odd.iter().map(ToString::to_string).collect(),
                    _ => Vec::new(),
                };
                let (odd, index) = (odd.join(","), round.index);
                let all: Vec<_> =
                    round.answers.iter().map(|(replica, digest)| format!("{replica}={digest}")).collect();
                tracing::error!(range = range.0, index, odd, "replicas of a range differ");
                let record = record("range.differs").with("index", index.to_string()).with("odd", odd);
                (record.with("verdict", word).with("digests", all.join(",")), None)
            }
            Noticed::Damaged { on_the_way, why } => {
                one_more(&integrity.damaged, if on_the_way { "way" } else { "disk" });
                tracing::error!(range = range.0, on_the_way, why, "what belongs to a range is damaged");
                let place = if on_the_way { "on the way here" } else { "on this disk" };
                (record("range.damaged").with("where", place).with("why", why), None)
            }
            Noticed::Quarantined { replica, why } => {
                one_more(&integrity.became, "quarantined");
                tracing::error!(range = range.0, %replica, why, "a replica is quarantined");
                let halts = (range == META).then(|| {
                    format!(
                        "the replica of the meta range is not to be believed ({why}): the node goes by what stands there. \
                         Replace its disk (`rhumb mesh new-disk`)"
                    )
                });
                let record = record("range.quarantined").with("replica", replica.to_string());
                (record.with("why", why), halts)
            }
            Noticed::Rebuilt { old, new } => {
                one_more(&integrity.became, "rebuilt");
                tracing::warn!(range = range.0, %old, %new, "a replica that was quarantined is rebuilt");
                let record = record("range.rebuilt").with("replica", new.to_string());
                (record.with("instead_of", old.to_string()), None)
            }
        };
        let (log, halt) = (self.0.parts.log.clone(), self.0.parts.halt.clone());
        self.0.parts.runtime.spawn(async move {
            if let Err(error) = log.append(record, None).await {
                tracing::warn!(%error, "what was found of a range cannot be logged");
            }
            if let Some(why) = halts {
                halt.now(why);
            }
        });
    }

    /// What is known to be wrong with a replica here.
    pub(super) fn condition(&self, range: RangeId, replica: ReplicaId) -> String {
        let Ok(host) = self.host() else { return String::new() };
        if let Some((_, there)) = host.quarantines().into_iter().find(|(of, _)| *of == range) {
            return match there.replica == replica {
                true => format!("quarantined: {}", there.why),
                false => format!("rebuilding, instead of replica {}", there.replica),
            };
        }
        if let Some((.., why)) = host.doubted().into_iter().find(|one| (one.0, one.1) == (range, replica)) {
            return format!("quarantined: {why}; it votes until the range has a quorum without it");
        }
        let suspect = "suspect: replicas differ, and no majority is the same";
        if host.is_suspect(range) { suspect.to_owned() } else { String::new() }
    }

    /// Replicas that are quarantined here and serve nothing.
    pub(super) fn quarantined_views(&self) -> Vec<RangeView> {
        let Ok(host) = self.host() else { return Vec::new() };
        let all = host.quarantines().into_iter().filter(|(range, _)| host.group(*range).is_none());
        let view = |(range, there): (RangeId, rhumb_actors::ranges::quarantine::Quarantine)| RangeView {
            range: range.0,
            keyspace: self.name_of(range),
            replica: there.replica.0,
            node: self.0.parts.me.clone(),
            leads: false,
            leaseholder: false,
            votes: false,
            applied: 0,
            closed_ms: 0,
            nodes: Vec::new(),
            threshold_ms: 0,
            collected: 0,
            condition: self.condition(range, there.replica),
            feeds: Vec::new(),
        };
        all.map(view).collect()
    }

    /// What is not as it should be of replicas here.
    pub(in crate::supervisor) fn damaged(&self) -> Vec<String> {
        let Ok(host) = self.host() else { return Vec::new() };
        let mut all: Vec<_> =
            host.quarantines().into_iter().map(|(range, there)| (range, there.replica)).collect();
        let doubted: Vec<_> =
            host.doubted().into_iter().map(|(range, replica, _)| (range, replica)).collect();
        let groups = host.groups().into_iter().map(|group| (group.range(), group.id()));
        all.extend(groups.filter(|one| host.is_suspect(one.0) || doubted.contains(one)));
        let said = |(range, replica): (RangeId, ReplicaId)| {
            format!("range {}, replica {replica}: {}", range.0, self.condition(range, replica))
        };
        all.into_iter().map(said).collect()
    }

    pub(super) fn tell_integrity(&self, page: &mut Page) {
        let counts = |counts: &Mutex<BTreeMap<&'static str, u64>>| {
            counts.lock().iter().map(|(word, count)| (*word, *count)).collect::<Vec<_>>()
        };
        let integrity = &self.0.integrity;
        let help =
            "Comparisons of a range's replicas that this node judged as leaseholder, by what came of them";
        page.counters("rhumb_range_comparisons", help, "outcome", &counts(&integrity.compared));
        let help =
            "Rows, entries and messages of ranges that were not what was written, by where that was found";
        page.counters("rhumb_range_damage", help, "place", &counts(&integrity.damaged));
        let help = "Replicas here that were quarantined, and rebuilt, since the node's start";
        page.counters("rhumb_range_quarantines", help, "became", &counts(&integrity.became));
        let help = "1: the disk was put back, and its ranges do not start before an operator has said what becomes of them";
        page.gauge("rhumb_ranges_old_copy", help, f64::from(u8::from(self.is_old_copy())));
        let Ok(host) = self.host() else { return };
        let quarantined = (host.quarantines().len() + host.doubted().len()) as f64;
        page.gauge(
            "rhumb_range_replicas_quarantined",
            "Replicas here that are quarantined or being rebuilt",
            quarantined,
        );
        let suspect = host.groups().iter().filter(|group| host.is_suspect(group.range())).count();
        let help = "Ranges here whose replicas differ while no majority is the same";
        page.gauge("rhumb_ranges_suspect", help, suspect as f64);
    }

    // ---- asked for -------------------------------------------------------------------------------

    pub(super) async fn checks_range(self, call: Call<CheckRange>) -> Answer<RangeChecked> {
        let record =
            Record::told("range.check", "", Outcome::Begun).on(format!("range {}", call.message.range));
        let (from, by_node) = (call.from.clone(), call.from.node.is_some());
        let message = if by_node { call.message } else { CheckRange { hops: 0, ..call.message } };
        control(self.told_of(&from, record, self.check(&message, call.within)).await?)
    }

    async fn check(&self, message: &CheckRange, within: Duration) -> Ended<RangeChecked> {
        let until = Instant::now() + within.mul_f32(0.9);
        let range = RangeId(message.range);
        let host = match self.host() {
            Ok(host) => host,
            Err(refusal) => return Ok(Err(refusal)),
        };
        loop {
            let seats = match (self.of_range(range), host.group(range)) {
                (_, Some(group)) => group.replica().await.descriptor().seats.clone(),
                (Some((_, row)), None) => row.seats,
                (None, None) => {
                    let why = format!("there is no range {}; `rhumb range ls` lists them", range.0);
                    return Ok(Err(KvRefusal::Invalid(why)));
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            let to = match host.check(range, left.mul_f32(0.8)).await {
                Ok(checked) => return Ok(Ok(said(checked))),
                Err(NotWritten::NoReplica) => self.nearest(&seats),
                Err(not) => match came_of::<RangeChecked>(not, &self.0.parts.me)? {
                    Ok(checked) => return Ok(Ok(checked)),
                    Err(Not::Refused(refusal)) => return Ok(Err(refusal)),
                    Err(Not::At(node)) => vec![node],
                    Err(Not::Again) => Vec::new(),
                },
            };
            let next = CheckRange { hops: message.hops + 1, ..message.clone() };
            let class = DataClass::control();
            if let Some(outcome) = self.pass_on(&to, &next, message.hops.min(MAX_HOPS), &class, until).await {
                return outcome;
            }
            if Instant::now() + AGAIN_AFTER >= until {
                return Ok(Err(not_now("the leaseholder was not reached")));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    // ---- set aside -------------------------------------------------------------------------------

    /// A replica that was quarantined has left its range: what it held is set aside, and cleared away then.
    pub(super) fn clear_quarantined(&self, range: RangeId, replica: ReplicaId) {
        let Ok(host) = self.host().cloned() else { return };
        if !self.0.integrity.setting.lock().insert(range) {
            return;
        }
        let here = self.clone();
        self.0.parts.runtime.spawn(async move {
            let (disk, folder) = (std::sync::Arc::clone(&here.0.disk), here.0.parts.data.join(ASIDE));
            let sets = move || -> Result<PathBuf, String> {
                let path = set_aside(&*disk, &folder, range, replica)?;
                forget(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                Ok(path)
            };
            let set = tokio::task::spawn_blocking(sets).await;
            let set = set.unwrap_or_else(|panic| Err(panic.to_string()));
            let cleared = match set {
                Ok(path) => {
                    tracing::warn!(range = range.0, %replica, path = %path.display(), "what a quarantined replica held is set aside");
                    host.clear(range, replica).await.map_err(|error| error.to_string())
                }
                Err(why) => Err(why),
            };
            if let Err(why) = cleared {
                tracing::error!(range = range.0, why, "a quarantined replica is not set aside yet, and not rebuilt");
                tokio::time::sleep(AGAIN).await;
            }
            here.0.integrity.setting.lock().remove(&range);
        });
    }

    /// Deletes what was set aside long enough ago. It does not end.
    pub(super) async fn forgets_what_is_aside(&self) {
        loop {
            let folder = self.0.parts.data.join(ASIDE);
            let forgotten = tokio::task::spawn_blocking(move || forget(&folder)).await;
            if let Ok(Err(error)) = forgotten {
                tracing::warn!(%error, "what was set aside of quarantined replicas is not deleted yet");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn said(Checked { round, verdict }: Checked) -> RangeChecked {
    let digest = |replica| round.answers.get(replica).map(ToString::to_string);
    let replicas = round.seats.iter().map(|seat| (seat.replica.0, seat.node.clone(), digest(&seat.replica)));
    let odd = match &verdict {
        Verdict::Odd(odd) => odd.iter().map(|replica| replica.0).collect(),
        _ => Vec::new(),
    };
    let undecided = verdict == Verdict::Undecided;
    RangeChecked { index: round.index, replicas: replicas.collect(), odd, undecided }
}

/// Writes all rows of a replica to a file of the folder: behind a line that says what it is, each with its family's name, its key and
/// its value, each part behind its length. What was written for this replica before is written anew.
fn set_aside(disk: &dyn Disk, folder: &Path, range: RangeId, replica: ReplicaId) -> Result<PathBuf, String> {
    let fault = |fault: rhumb_storage::StorageFault| fault.to_string();
    let io = |error: io::Error| format!("{}: {error}", folder.display());
    let path = folder.join(format!("range-{}-replica-{replica}.rows", range.0));
    let state = disk.get(Family::Raft, &RangeReplica::row_key(range)).map_err(fault)?;
    if state.is_none() && path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(io)?;
    let part = path.with_extension(PART);
    let mut file = BufWriter::new(File::create(&part).map_err(io)?);
    file.write_all(HEAD).map_err(io)?;
    for kind in *b"aglmvp" {
        let prefix = [[kind].as_slice(), &range.0.to_be_bytes()].concat();
        copy(disk, Family::Raft, &prefix, &mut file, |row| row.starts_with(&prefix))?;
    }
    if let Some(state) = state {
        let replica = RangeReplica::recover(rhumb_actors::ranges::RangeSettings::default(), &state)?;
        let span = Span::of_range(replica.descriptor());
        copy(disk, Family::Mvcc, span.first(), &mut file, |row| span.holds(row))?;
    }
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    fs::rename(&part, &path).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(path)
}

fn copy(
    disk: &dyn Disk,
    family: Family,
    from: &[u8],
    file: &mut impl Write,
    of_it: impl Fn(&[u8]) -> bool,
) -> Result<(), String> {
    let mut next = Some(from.to_vec());
    while let Some(from) = next.take() {
        let (mut bytes, mut failed) = (0, None);
        let walked = disk.walk(family, &from, &mut |row, value| {
            if !of_it(row) {
                return false;
            }
            if bytes >= BYTES_AT_ONCE {
                next = Some(row.to_vec());
                return false;
            }
            bytes += row.len() + value.len();
            for part in [family.name().as_bytes(), row, value] {
                let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
                if let Err(error) = file.write_all(&length).and_then(|()| file.write_all(part)) {
                    failed = Some(error.to_string());
                    return false;
                }
            }
            true
        });
        walked.map_err(|fault| fault.to_string())?;
        if let Some(why) = failed {
            return Err(why);
        }
        pause();
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which reads no faster than that")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Deletes what was set aside long enough ago, and the oldest of what is more than there is to be.
fn forget(folder: &Path) -> io::Result<()> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut kept = Vec::new();
    for file in files {
        let (path, at) = file.and_then(|file| Ok((file.path(), file.metadata()?.modified()?)))?;
        if at.elapsed().is_ok_and(|age| age >= KEPT) {
            fs::remove_file(path)?;
        } else if path.extension().is_none_or(|ending| ending != PART) {
            kept.push((at, path));
        }
    }
    kept.sort();
    let more = kept.len().saturating_sub(MOST);
    for (_, path) in kept.into_iter().take(more) {
        tracing::warn!(path = %path.display(), most = MOST, "what a quarantined replica held is deleted: others were set aside since");
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_bounded_in_time_and_number_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(forget(&folder.path().join("none")).is_ok(), "nothing was ever set aside");
        for number in 0..MOST as u32 + 3 {
            let file = File::create(folder.path().join(number.to_string())).expect("written");
            let now = file.metadata().and_then(|about| about.modified()).expect("it has a time");
            // The last one is too old, and of the others each is older than the one before.
            let age = if number == MOST as u32 + 2 { KEPT } else { LOOK_EVERY * number };
            file.set_modified(now - age).expect("set");
        }
        // Some are being written just now.
        for number in 0..3 {
            File::create(folder.path().join(format!("range-{number}.part"))).expect("written");
        }
        forget(folder.path()).expect("deleted");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(left.len(), MOST + 3, "what is being written pushes nothing out");
        let is_whole = |file: &io::Result<fs::DirEntry>| {
            file.as_ref().is_ok_and(|file| file.path().extension().is_none())
        };
        let left = left.into_iter().filter(is_whole);
        let number = |file: io::Result<fs::DirEntry>| {
            file.expect("a file").file_name().to_string_lossy().parse::<u32>().expect("a number")
        };
        let left: BTreeSet<_> = left.map(number).collect();
        assert_eq!(left, (0..MOST as u32).collect());
    }
}
