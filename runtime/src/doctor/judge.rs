//! What facts mean for a node.
//!
//! * It decides: the bounds between well, warning and failure, and the advice for each.
//! * It never does: look at the machine, or advise what has to be guessed: commands are whole.

use std::time::Duration;

use rhumb_transport::identity::Age;

use super::{Certified, Check, DataDirectory, Facts, Port, Syncs, Unmeasured, Verdict, Wants};
use crate::clock::discipline::Discipline;
use crate::settings::units::{duration_text, size_text};

/// Files that a node may need: tables of RocksDB, its logs, sockets.
const FILES: u64 = 16_384;
/// With fewer than this even an idle node may fail.
const FEW_FILES: u64 = 1_024;
/// A sync that takes longer than this in 1 of 100 makes sales slow.
const SLOW_SYNC: Duration = Duration::from_millis(25);
/// A disk as slow as this keeps no promise of time.
const STUCK_SYNC: Duration = Duration::from_millis(500);
/// No disk that keeps what it is given is faster than this.
const NO_SYNC: Duration = Duration::from_micros(10);
/// Bytes that a node needs besides its write-ahead log, before compaction can take its course.
const SPACE: u64 = 1 << 30;
/// Memory of a node besides its caches and tables.
const PROCESS: u64 = 256 << 20;
const DAY: i64 = 24 * 3600;

pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let wants = match &facts.settings {
        Some(Ok(wants)) => *wants,
        Some(Err(_)) | None => Wants::default(),
    };
    let mut checks: Vec<Check> = facts.settings.iter().map(settings).collect();
    checks.extend(facts.udp.map(|(receive, send)| udp(receive, send, &wants)));
    checks.extend(facts.files.map(|(soft, hard)| files(soft, hard)));
    checks.extend(facts.clock.map(|it| clock(&it, &wants)));
    checks.extend(facts.disk.as_ref().map(|it| disk(it.as_ref())));
    checks.extend(facts.space.map(|(free, total)| space(free, total, &wants)));
    checks.extend(facts.memory.map(|(available, total)| memory(available, total, &wants)));
    checks.extend(facts.certificate.as_ref().map(|it| certificate(it.as_ref())));
    checks.extend(facts.data.as_ref().map(|(path, it)| data(&path.display().to_string(), *it)));
    let runs = facts.data.as_ref().is_some_and(|(_, it)| *it == DataDirectory::InUse);
    checks.extend(
        facts.ports.iter().map(|(what, address, port)| self::port(what, &address.to_string(), port, runs)),
    );
    checks
}

/// A check that is well unless one of these holds, the worst first.
fn check(name: &'static str, found: String, right: String, worst_first: [(bool, Verdict, &str); 2]) -> Check {
    let hit = worst_first.into_iter().find(|(holds, ..)| *holds);
    let (verdict, advice) = hit.map_or((Verdict::Ok, None), |(_, verdict, do_this)| {
        (verdict, (!do_this.is_empty()).then(|| do_this.to_owned()))
    });
    Check { name, verdict, found, right, advice }
}

fn settings(found: &Result<Wants, Vec<String>>) -> Check {
    let right = "settings without a fault".to_owned();
    match found {
        Ok(_) => check("settings", "no fault".to_owned(), right, NEVER),
        Err(faults) => {
            let advice = "mend them, and look with `rhumb config check --config DIR`";
            check("settings", faults.join("; "), right, [(true, Verdict::Fail, advice), NEVER[1]])
        }
    }
}

const NEVER: [(bool, Verdict, &str); 2] = [(false, Verdict::Ok, ""), (false, Verdict::Ok, "")];

fn udp(receive: u64, send: u64, wants: &Wants) -> Check {
    let want = wants.socket_buffer;
    let too_small = [("net.core.rmem_max", receive), ("net.core.wmem_max", send)];
    let mut raise: Vec<String> = Vec::new();
    raise.extend(too_small.iter().filter(|(_, now)| *now < want).map(|(key, _)| format!("{key}={want}")));
    let advice = format!(
        "printf '%s\\n' {} > /etc/sysctl.d/60-rhumb.conf && sysctl -p /etc/sysctl.d/60-rhumb.conf",
        raise.join(" ")
    );
    let found = format!("net.core.rmem_max={receive} net.core.wmem_max={send}");
    let right = format!("at least {want} each (transport.socket_buffer): smaller ones lose bursts");
    check("udp buffers", found, right, [(!raise.is_empty(), Verdict::Warn, &advice), NEVER[1]])
}

fn files(soft: u64, hard: u64) -> Check {
    let advice = if hard >= FILES {
        format!("ulimit -n {FILES}; in a unit of systemd: LimitNOFILE={FILES}")
    } else {
        format!(
            "in a unit of systemd: LimitNOFILE={FILES}; elsewhere raise nofile in /etc/security/limits.conf"
        )
    };
    let found = format!("{soft} (at most {hard})");
    let right = format!("at least {FILES} open files");
    check(
        "open files",
        found,
        right,
        [(soft < FEW_FILES, Verdict::Fail, &advice), (soft < FILES, Verdict::Warn, &advice)],
    )
}

fn clock(clock: &Discipline, wants: &Wants) -> Check {
    let half = wants.max_offset / 2;
    let found = format!(
        "{}, at most {:?} off, probably {:?}",
        if clock.disciplined { "disciplined" } else { "not disciplined" },
        clock.max_error,
        clock.estimated_error
    );
    let right = format!(
        "kept in step, at most {} off: half of mesh.max_offset, beyond which peers refuse this node's time",
        duration_text(half)
    );
    let start = "run one time service: apt-get install chrony && systemctl enable --now chrony; then `chronyc tracking`";
    let nearer = "look at `chronyc tracking` and `chronyc sources`: choose a nearer server, or more of them";
    check(
        "clock",
        found,
        right,
        [(!clock.disciplined, Verdict::Fail, start), (clock.max_error > half, Verdict::Warn, nearer)],
    )
}

fn disk(syncs: Result<&Syncs, &Unmeasured>) -> Check {
    let right =
        format!("99 of 100 syncs within {}, and none faster than a disk can be", duration_text(SLOW_SYNC));
    let syncs = match syncs {
        Ok(syncs) => syncs,
        Err(why) => {
            let (why, advice) = match why {
                Unmeasured::Denied(why) => {
                    (why, "let the user that runs the node own the data directory: chown -R rhumb: DIR")
                }
                Unmeasured::Stuck(why) => {
                    (why, "look with `dmesg` and `findmnt -T DIR`: the disk does not answer; replace it")
                }
            };
            return check("disk", why.clone(), right, [(true, Verdict::Fail, advice), NEVER[1]]);
        }
    };
    let found = format!("{} syncs: p50 {:.1?}, p99 {:.1?}", syncs.count, syncs.p50, syncs.p99);
    let slow =
        "use a local disk with its own write cache and power-loss protection; every sale waits for one sync";
    let lies = "it is kept in memory, or the file system does not wait for the disk: a power cut loses \
                acknowledged writes. Look with `findmnt -T DIR`";
    let (fail, warn) = (syncs.p99 > STUCK_SYNC, syncs.p99 > SLOW_SYNC);
    let advice = if fail || warn { slow } else { lies };
    check(
        "disk",
        found,
        right,
        [(fail, Verdict::Fail, slow), (warn || syncs.p50 < NO_SYNC, Verdict::Warn, advice)],
    )
}

fn space(free: u64, total: u64, wants: &Wants) -> Check {
    let need = wants.log + SPACE;
    let advice = "free some, or move the data: a node whose disk is full stops";
    let found = format!("{} of {} free", about(free), about(total));
    let right = format!("at least {} and a tenth of all", about(need));
    check(
        "free space",
        found,
        right,
        [(free < need, Verdict::Fail, advice), (free < total / 10, Verdict::Warn, advice)],
    )
}

fn memory(available: u64, total: u64, wants: &Wants) -> Check {
    let need = wants.memory + PROCESS;
    let advice = "give the machine more, or set storage.block_cache and storage.memtable smaller";
    let found = format!("{} of {} available", about(available), about(total));
    let right = format!("at least {} (caches, tables, {} for the rest)", about(need), about(PROCESS));
    check(
        "memory",
        found,
        right,
        [(total < need, Verdict::Fail, advice), (available < need, Verdict::Warn, advice)],
    )
}

fn certificate(found: Result<&Certified, &String>) -> Check {
    let right = "this node's own, believed by its peers, with a fifth of its life left".to_owned();
    let certificate = match found {
        Ok(certificate) => certificate,
        Err(why) => {
            let advice = "issue one: rhumb cert issue --ca DIR --node REGION/NAME --out DIR";
            return check("certificate", why.clone(), right, [(true, Verdict::Fail, advice), NEVER[1]]);
        }
    };
    let Certified { holder, expected, age, left, refused } = certificate;
    let node = expected.strip_prefix("node ").unwrap_or(expected);
    let advice =
        format!("rhumb cert issue --ca DIR --node {node} --renew --out DIR; a running node takes it up");
    let mut found = format!("{holder}, {} days left", left.div_euclid(DAY));
    if let Some(why) = refused {
        found = format!("{found}; peers refuse it: {why}");
    }
    let ended = matches!(age, Age::Expired | Age::NotYetValid);
    check(
        "certificate",
        found,
        right,
        [
            (holder != expected || refused.is_some() || ended, Verdict::Fail, &advice),
            (*age == Age::Wearing, Verdict::Warn, &advice),
        ],
    )
}

fn data(path: &str, state: DataDirectory) -> Check {
    let right = "this node's own, whole, and open once".to_owned();
    let restore = "restore both stores from the same moment; or replace the node";
    let found_mesh =
        "a new mesh makes it with `rhumb mesh init`; of an old one, mount the disk that it was on";
    let look = "run this as the user that runs the node";
    let (found, verdict, advice) = match state {
        DataDirectory::Free => ("is there, and free".to_owned(), Verdict::Ok, ""),
        DataDirectory::InUse => ("is in use: the node runs".to_owned(), Verdict::Ok, ""),
        DataDirectory::Empty => ("holds no data of a node".to_owned(), Verdict::Fail, found_mesh),
        DataDirectory::Lacks(store) => (format!("has lost its {store} store"), Verdict::Fail, restore),
        DataDirectory::Closed => ("cannot be looked into".to_owned(), Verdict::Warn, look),
    };
    check("data", format!("{path} {found}"), right, [(verdict != Verdict::Ok, verdict, advice), NEVER[1]])
}

fn port(what: &'static str, address: &str, port: &Port, runs: bool) -> Check {
    let right = "free, or in use by this node".to_owned();
    let who = format!("somebody else has it: ss -lnp | grep {address}");
    let mend = "let the address be one of this machine's (`ip addr`), with a port above 1023".to_owned();
    let (found, failed, advice) = match port {
        Port::Free => ("free".to_owned(), false, ""),
        Port::InUse if runs => ("in use: the node runs".to_owned(), false, ""),
        Port::InUse => ("in use, and the node does not run".to_owned(), true, who.as_str()),
        Port::Denied(why) => (why.clone(), true, mend.as_str()),
    };
    check(what, format!("{address}: {found}"), right, [(failed, Verdict::Fail, advice), NEVER[1]])
}

/// A size to two digits or so, in the largest unit that says it.
fn about(bytes: u64) -> String {
    let unit = [1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= *unit).unwrap_or(1);
    size_text(bytes / unit * unit)
}
