//! Looks at the machine: `/proc`, the kernel's clock, a file that is synced, addresses that are bound.
//!
//! What cannot be looked at is left out, so that a check is not made up.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rhumb_core::{NodeName, Principal, Region, Role};
use rhumb_storage::Family;
use rhumb_storage::rocks::RocksSettings;
use rhumb_transport::TransportSettings;
use rustix::process::{Resource, getrlimit};

use super::{Certified, DataDirectory, Facts, Port, Syncs, Unmeasured, Wants};
use crate::clock::{discipline, now_millis};
use crate::identity::Found;
use crate::secrets::FirstOf;
use crate::settings::{IdentitySource, Settings, Source};

/// Bytes of each append, as a small batch has.
const BLOCK: usize = 4 << 10;
/// Appends that are measured at most.
const APPENDS: usize = 200;
/// How long is measured at most.
const MEASURE_WITHIN: Duration = Duration::from_secs(2);
/// A disk on which that has not ended by then is stuck.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// What the doctor is asked about.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The settings of a node: their folder, its region, its name where there are several, and the
    /// environment.
    pub node: Option<(PathBuf, Region, Option<NodeName>, Option<String>)>,
    /// The folder whose disk is measured where no settings say it.
    pub data: PathBuf,
}

impl Facts {
    /// Looks at this machine, which may take a few seconds: it blocks.
    #[must_use]
    pub fn gather(asked: &Asked) -> Self {
        let loaded = asked
            .node
            .as_ref()
            .map(|(dir, region, node, env)| Source::new(dir, region, env.as_deref()).load(node.as_ref()));
        let node = loaded.as_ref().and_then(|loaded| loaded.as_ref().ok());
        let data = node.map_or(&asked.data, |settings| &settings.node.data);
        let disk = nearest(data);
        Self {
            settings: loaded.as_ref().map(|loaded| match loaded {
                Ok(settings) => Ok(Wants::of(&settings.rocks, &settings.transport, settings.max_offset)),
                Err(faults) => Err(faults.faults.iter().map(ToString::to_string).collect()),
            }),
            udp: sysctl("net/core/rmem_max").zip(sysctl("net/core/wmem_max")),
            files: Some(files()),
            clock: discipline::read(),
            disk: Some(measured(&disk, GIVE_UP_AFTER, syncs)),
            space: space(&disk),
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            // Of an agent's, nothing lies here to be looked at.
            certificate: node.filter(|node| node.identity.source == IdentitySource::Files).map(certificate),
            data: node.map(|settings| (settings.node.data.clone(), look_into(&settings.node.data))),
            ports: node.map(ports).unwrap_or_default(),
        }
    }
}

impl Wants {
    pub(super) fn of(rocks: &RocksSettings, transport: &TransportSettings, max_offset: Duration) -> Self {
        Self {
            socket_buffer: transport.socket_buffer as u64,
            max_offset,
            // Each family may fill one table while another is written to the disk.
            memory: (rocks.block_cache_bytes + 2 * Family::ALL.len() * rocks.memtable_bytes) as u64,
            log: rocks.log_bytes,
        }
    }
}

fn sysctl(key: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?.trim().parse().ok()
}

fn files() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

/// The folder, or the nearest above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let here = || PathBuf::from(".");
    let found = path.ancestors().find(|above| above.is_dir()).map_or_else(here, Path::to_owned);
    if found.as_os_str().is_empty() { here() } else { found }
}

/// Measures on a thread of its own, for a disk that is stuck lets go of nobody.
fn measured(
    folder: &Path,
    within: Duration,
    measure: impl FnOnce(&Path) -> io::Result<Syncs> + Send + 'static,
) -> Result<Syncs, Unmeasured> {
    let (tell, told) = mpsc::sync_channel(1);
    let on = folder.to_owned();
    let begun = thread::Builder::new().name("rhumb-doctor".into()).spawn(move || tell.send(measure(&on)));
    let denied = |error: io::Error| Unmeasured::Denied(format!("{}: {error}", folder.display()));
    begun.map_err(denied)?;
    let stuck = |_| Unmeasured::Stuck(format!("{}: no end of syncs within {within:?}", folder.display()));
    told.recv_timeout(within).map_err(stuck)?.map_err(denied)
}

/// How long it takes to append to a file and have it on the disk. The file is without a name from the
/// start where the system can do that, and removed in any case.
#[expect(clippy::disallowed_methods, reason = "this is the shell that measures")]
fn syncs(folder: &Path) -> io::Result<Syncs> {
    let path = folder.join(format!(".rhumb-doctor-{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&path)?;
    // An open file lives on without its name, and is gone with this process, however that ends.
    fs::remove_file(&path)?;
    let (block, began) = ([0x5a; BLOCK], Instant::now());
    let mut took = Vec::with_capacity(APPENDS);
    while took.len() < APPENDS && began.elapsed() < MEASURE_WITHIN {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    Ok(Syncs { count: took.len(), p50: at(50), p99: at(99) })
}

fn space(folder: &Path) -> Option<(u64, u64)> {
    let said = rustix::fs::statvfs(folder).ok()?;
    Some((said.f_bavail * said.f_frsize, said.f_blocks * said.f_frsize))
}

fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((of("MemAvailable:")?, of("MemTotal:")?))
}

fn certificate(settings: &Settings) -> Result<Certified, String> {
    let folder = &settings.node.identity;
    let found = Found::read(&FirstOf::environment_and(folder), folder);
    let credentials = found.credentials(settings.identity.revocations).map_err(|error| error.to_string())?;
    let now = now_millis();
    let me = &settings.me;
    let expected =
        Principal { role: Role::Node, region: me.region.clone(), name: me.name.as_str().to_owned() };
    let certificate = credentials.certificate();
    let at = i64::try_from(now / 1000).unwrap_or(i64::MAX);
    Ok(Certified {
        holder: credentials.principal().to_string(),
        expected: expected.to_string(),
        age: certificate.age(at),
        left: certificate.left(at),
        refused: credentials.verify(Duration::from_millis(now)).err().map(|error| error.to_string()),
    })
}

/// Looks at a data directory from outside: at its parts, and whether its lock is held.
fn look_into(folder: &Path) -> DataDirectory {
    let lacks = ["control", "hot"].into_iter().find(|part| !folder.join(part).is_dir());
    let lock = match File::options().write(true).open(folder.join("LOCK")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DataDirectory::Empty,
        Err(_) => return DataDirectory::Closed,
    };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => DataDirectory::InUse,
        Err(TryLockError::Error(_)) => DataDirectory::Closed,
        // It is let go as it is closed.
        Ok(()) => lacks.map_or(DataDirectory::Free, DataDirectory::Lacks),
    }
}

fn ports(settings: &Settings) -> Vec<(&'static str, SocketAddr, Port)> {
    let (quic, admin) = (settings.node.listen, settings.node.admin);
    vec![
        ("quic port", quic, bound(UdpSocket::bind(quic).map(drop))),
        ("admin port", admin, bound(TcpListener::bind(admin).map(drop))),
    ]
}

fn bound(outcome: io::Result<()>) -> Port {
    match outcome {
        Ok(()) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Port::InUse,
        Err(error) => Port::Denied(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_measured_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let syncs = syncs(folder.path()).expect("it can be written to");
        assert!(syncs.count >= 1 && syncs.p50 <= syncs.p99);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
        super::syncs(&folder.path().join("absent")).expect_err("there is no such folder");
    }

    #[test]
    fn a_disk_that_does_not_answer_is_given_up() {
        let (release, held) = mpsc::sync_channel::<()>(0);
        let stuck = measured(Path::new("/data"), Duration::from_millis(1), move |_| {
            held.recv().ok();
            Err(io::Error::other("too late"))
        });
        assert!(matches!(stuck, Err(Unmeasured::Stuck(_))), "{stuck:?}");
        drop(release);
    }

    #[test]
    fn a_data_directory_is_known_from_outside() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        assert_eq!(look_into(at), DataDirectory::Empty);
        let lock = File::create(at.join("LOCK")).expect("created");
        fs::create_dir(at.join("control")).expect("created");
        assert_eq!(look_into(at), DataDirectory::Lacks("hot"));
        fs::create_dir(at.join("hot")).expect("created");
        assert_eq!(look_into(at), DataDirectory::Free);
        lock.lock().expect("locked");
        assert_eq!(look_into(at), DataDirectory::InUse);
    }

    #[test]
    fn memory_is_what_programs_can_have() {
        let meminfo = "MemTotal:       4096 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(memory(meminfo), Some((1 << 20, 4 << 20)));
        assert_eq!(memory("MemTotal: 4096 kB\n"), None);
    }

    #[test]
    fn a_port_that_somebody_has_is_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        assert_eq!(bound(TcpListener::bind(address).map(drop)), Port::InUse);
        drop(taken);
        assert_eq!(bound(TcpListener::bind(address).map(drop)), Port::Free);
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 7001));
        assert!(matches!(bound(UdpSocket::bind(elsewhere).map(drop)), Port::Denied(_)));
    }

    #[test]
    fn what_is_not_there_yet_is_measured_where_it_will_be() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(nearest(&folder.path().join("a/b/c")), folder.path());
        assert_eq!(nearest(Path::new("surely-not-here/b")), Path::new("."));
    }
}
