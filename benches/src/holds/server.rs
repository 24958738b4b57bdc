//! Servers of others, started for one run: on loopback, in a directory of their own, stopped by their pid.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Where Debian puts PostgreSQL.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
/// How long a server may take to listen, or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs.
pub struct Server {
    /// Where it listens.
    pub address: String,
    child: Child,
    _dir: TempDir,
}

/// Milliseconds since 1970.
pub(super) fn wall_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

impl Server {
    /// Redis, whose every write is synced before its answer.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn redis() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = port()?.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server is missing: apt-get install redis-server")?;
        let server = Self { address: format!("127.0.0.1:{port}"), child, _dir: dir };
        server.listens().await?;
        super::redis::prepare(&server.address).await?;
        Ok(server)
    }

    /// PostgreSQL with its defaults, which sync every commit, and room for the connections.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn postgres() -> anyhow::Result<Self> {
        let (dir, user) = (tempfile::tempdir()?, Unprivileged::find()?);
        user.owns(dir.path())?;
        let data = dir.path().join("data");
        let mut init = user.command("initdb")?;
        init.args(["--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "--encoding=UTF8"]);
        let made = init.arg("--pgdata").arg(&data).output().await.context("initdb")?;
        anyhow::ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = port()?.to_string();
        let mut command = user.command("postgres")?;
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=on",
            "synchronous_commit=on",
            "max_connections=300",
            "max_wal_size=4GB",
        ] {
            command.args(["-c", setting]);
        }
        let child = command.args(["-p", &port]).arg("-D").arg(&data).kill_on_drop(true).spawn()?;
        let server = Self { address: format!("127.0.0.1:{port}"), child, _dir: dir };
        server.listens().await?;
        // It listens a moment before it lets anybody in.
        let mut tried = super::postgres::prepare(&server.address).await;
        for _ in 0..50 {
            if tried.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            tried = super::postgres::prepare(&server.address).await;
        }
        tried.map(|()| server)
    }

    async fn listens(&self) -> anyhow::Result<()> {
        let tried = async {
            while TcpStream::connect(&self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = || format!("nothing listens at {}", self.address);
        tokio::time::timeout(PATIENCE, tried).await.with_context(late)
    }

    /// Asks it to stop at once (SIGINT: PostgreSQL's fast shutdown, Redis's own), and kills it if it does
    /// not.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // SAFETY: a signal to a child that has not been waited for, so its pid is its own.
            unsafe { libc::kill(pid, libc::SIGINT) };
        }
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}

/// A port that was free a moment ago.
fn port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Who PostgreSQL runs as: it refuses to run as root.
struct Unprivileged(Option<(u32, u32)>);

impl Unprivileged {
    fn find() -> anyhow::Result<Self> {
        // SAFETY: it has no conditions.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(Self(None));
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let line = line.context("there is no user postgres: apt-get install postgresql-15")?;
        let numbers: Vec<u32> = line.split(':').skip(2).take(2).flat_map(str::parse).collect();
        let [user, group] = numbers[..] else { anyhow::bail!("a user without a number: {line}") };
        Ok(Self(Some((user, group))))
    }

    fn owns(&self, dir: &Path) -> anyhow::Result<()> {
        let Some((user, group)) = self.0 else { return Ok(()) };
        Ok(chown(dir, Some(user), Some(group))?)
    }

    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let beside = PathBuf::from(POSTGRES).join(program);
        anyhow::ensure!(beside.exists(), "{} is missing: apt-get install postgresql-15", beside.display());
        let mut command = Command::new(beside);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/tmp");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}
