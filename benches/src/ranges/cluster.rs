//! Three of etcd's members: as `etcd` is installed, on loopback, in directories of their own, with TLS and certificates both
//! ways everywhere, and its own settings for everything else. Stopped by their pids.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::page;
use super::relay::Relays;
use crate::tls::Tls;

const MEMBERS: usize = 3;
/// How long they may take to elect one.
const SOON: Duration = Duration::from_secs(30);

struct Member {
    child: Child,
    client: SocketAddr,
    metrics: SocketAddr,
}

/// A cluster of three.
pub struct Cluster {
    members: Vec<Member>,
    relays: Option<Relays>,
    log: PathBuf,
}

/// The version that is installed.
///
/// # Errors
/// None is.
pub fn version() -> anyhow::Result<String> {
    let said = std::process::Command::new("etcd").arg("--version").output();
    let said = said.context("etcd is missing: apt-get install etcd-server")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.with_context(|| format!("etcd --version says {text:?}"))?.trim().to_owned())
}

/// Ports that were free a moment ago, all of them at once.
fn addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let all = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let all: Vec<_> = all.collect::<std::io::Result<_>>()?;
    all.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

impl Cluster {
    /// Starts it in a folder, where it finds certificates; with relays between members if one is to be cut off. One leads
    /// when this returns.
    ///
    /// # Errors
    /// etcd is not installed, or does not start.
    pub async fn start(dir: &Path, cuttable: bool) -> anyhow::Result<Self> {
        version()?;
        std::fs::create_dir_all(dir)?;
        let tls = Tls::make(dir)?;
        let all = addresses(3 * MEMBERS)?;
        let (clients, peers, metrics) = (&all[..3], &all[3..6], &all[6..]);
        let relays = if cuttable { Some(Relays::start(peers).await?) } else { None };
        let advertised = relays.as_ref().map_or_else(|| peers.to_vec(), Relays::addresses);
        let cluster: Vec<_> =
            advertised.iter().enumerate().map(|(n, at)| format!("member{n}=https://{at}")).collect();
        let log = dir.join("etcd.log");
        let mut members = Vec::new();
        for n in 0..MEMBERS {
            let file = || std::fs::OpenOptions::new().create(true).append(true).open(&log);
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("member{n}"), "--initial-cluster", &cluster.join(",")]);
            command.args(["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error"]);
            for (flag, at) in [
                ("--listen-client-urls", clients[n]),
                ("--advertise-client-urls", clients[n]),
                ("--listen-peer-urls", peers[n]),
                ("--initial-advertise-peer-urls", advertised[n]),
            ] {
                command.args([flag, &format!("https://{at}")]);
            }
            command.args(["--listen-metrics-urls", &format!("http://{}", metrics[n])]);
            command.args(["--client-cert-auth", "--peer-client-cert-auth", "--data-dir"]);
            command.arg(dir.join(format!("member{n}")));
            for (flag, file) in [
                ("--trusted-ca-file", "ca.pem"),
                ("--cert-file", "cert.pem"),
                ("--key-file", "key.pem"),
                ("--peer-trusted-ca-file", "ca.pem"),
                ("--peer-cert-file", "cert.pem"),
                ("--peer-key-file", "key.pem"),
            ] {
                command.arg(flag).arg(tls.0.join(file));
            }
            let child =
                command.stdin(Stdio::null()).stdout(file()?).stderr(file()?).kill_on_drop(true).spawn()?;
            members.push(Member { child, client: clients[n], metrics: metrics[n] });
        }
        let cluster = Self { members, relays, log };
        if let Some(relays) = &cluster.relays {
            relays
                .between(&cluster.members.iter().filter_map(|member| member.child.id()).collect::<Vec<_>>());
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    /// The member that leads, when all know of one.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let until = Instant::now() + SOON;
        loop {
            let (mut leader, mut know) = (None, 0);
            for (n, member) in self.members.iter().enumerate() {
                let Ok(page) = page::read(member.metrics).await else { continue };
                know += usize::from(page::sum(&page, "etcd_server_has_leader") > 0.0);
                if page::sum(&page, "etcd_server_is_leader") > 0.0 {
                    leader = Some(n);
                }
            }
            if let Some(leader) = leader.filter(|_| know == MEMBERS) {
                return Ok(leader);
            }
            if Instant::now() > until {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(3).collect();
                anyhow::bail!("etcd elects nobody; its log ends with {last:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Another member than this one.
    #[must_use]
    pub fn other(than: usize) -> usize {
        usize::from(than == 0)
    }

    /// Where clients find a member.
    #[must_use]
    pub fn address(&self, member: usize) -> String {
        self.members[member].client.to_string()
    }

    /// The process of a member.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self, member: usize) -> anyhow::Result<u32> {
        self.members[member].child.id().context("the member has ended")
    }

    /// Kills a member with SIGKILL.
    ///
    /// # Errors
    /// It cannot be.
    pub async fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        Ok(self.members[member].child.kill().await?)
    }

    /// Cuts a member off from the others, both ways. Clients still reach it.
    ///
    /// # Errors
    /// There are no relays.
    pub fn cut_off(&self, member: usize) -> anyhow::Result<()> {
        self.relays.as_ref().context("members without relays cannot be cut off")?.cut_off(member);
        Ok(())
    }

    /// How often all members together have synced: their logs, and the files of their keys and values.
    ///
    /// # Errors
    /// A member does not say.
    pub async fn syncs(&self) -> anyhow::Result<f64> {
        let mut all = 0.0;
        for member in &self.members {
            let page = page::read(member.metrics).await?;
            all += page::sum(&page, "etcd_disk_wal_fsync_duration_seconds_count");
            all += page::sum(&page, "etcd_disk_backend_commit_duration_seconds_count");
        }
        Ok(all)
    }

    /// Kills all members: what they have is not needed any more.
    pub async fn end(mut self) {
        for member in &mut self.members {
            member.child.kill().await.ok();
        }
    }
}
