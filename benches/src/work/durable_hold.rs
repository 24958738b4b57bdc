//! Durable holds: a client in a process of its own, a server, a disk that has synced, an answer.
//!
//! Each round starts all systems anew, with empty tables. What has many callers has them once on one
//! connection, and once on a connection each.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use futures::FutureExt;
use rhumb::dev::DevMesh;

use super::{Scope, Work};
use crate::conditions::versions;
use crate::holds::server::Server;
use crate::holds::{HoldLoad, Holder};
use crate::process::Side;
use crate::sample::{Load, Outcome, Sample, Verb};
use crate::systems::System;
use crate::tls::Tls;

/// This work.
pub const WORK: Work = Work {
    name: "durable-hold",
    title: "Durable hold, from another process to a synced disk and back",
    run: |scope| run(scope).boxed_local(),
};
const NAME: &str = WORK.name;
/// What a request and an answer of the floor have: about what Rhumb's have.
const PAYLOAD: usize = 64;

/// The names of all who keep holds, in results.
pub(super) const KEEPERS: [&str; 6] = ["rhumb", "rhumb-each", "redis", "redis-each", "postgres", "floor"];

/// Who keeps holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Rhumb,
    Redis,
    Postgres,
    Floor,
}

impl Keeper {
    const ALL: [Self; 4] = [Self::Rhumb, Self::Redis, Self::Postgres, Self::Floor];

    /// Its name in results.
    fn called(self, each: bool) -> &'static str {
        match (self, each) {
            (Self::Rhumb, false) => "rhumb",
            (Self::Rhumb, true) => "rhumb-each",
            (Self::Redis, false) => "redis",
            (Self::Redis, true) => "redis-each",
            (Self::Postgres, _) => "postgres",
            (Self::Floor, _) => "floor",
        }
    }

    /// Of its server and of what the bench made of it.
    fn versions(self) -> crate::conditions::Versions {
        let said = match self {
            Self::Rhumb | Self::Floor => return versions(self.called(false)),
            Self::Redis => Command::new("redis-server").arg("--version").output(),
            Self::Postgres => Command::new("/usr/lib/postgresql/15/bin/postgres").arg("--version").output(),
        };
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        let is_version =
            |word: &&str| word.trim_start_matches("v=").starts_with(|c: char| c.is_ascii_digit());
        let version = said.split_whitespace().find(is_version).unwrap_or("unknown").trim_start_matches("v=");
        [(self.called(false).to_owned(), version.to_owned())].into()
    }

    fn note(self, each: bool) -> String {
        let who = match self {
            Self::Rhumb => {
                "QUIC, mutual TLS, gates, context, metrics on; keys of 24 random letters; one record a hold and one a key"
            }
            Self::Redis => {
                "Redis 7, plain TCP, appendfsync always, a script that refuses below zero, keeps the key for a day and the expiry in a sorted set"
            }
            Self::Postgres => {
                "PostgreSQL 15, plain TCP, defaults (fsync, synchronous_commit on), a function that does the same, prepared"
            }
            Self::Floor => {
                "framed QUIC, mutual TLS, into synced RocksDB batches of records of the same sizes; no actor, no gate, no ledger, no look at the key"
            }
        };
        let how = if each { "a connection each" } else { "one connection, all in flight on it" };
        format!("{who}; {how}")
    }

    /// The loads that it is put under: concurrency, and whether each has a connection.
    fn loads(self, scope: &Scope) -> Vec<(usize, bool)> {
        let on_one = [(1, false), (16, false), (256, false)];
        let mut loads = match self {
            Self::Rhumb | Self::Redis => [&on_one[..], &[(16, true), (256, true)]].concat(),
            Self::Postgres => vec![(1, true), (16, true), (256, true)],
            Self::Floor => on_one.to_vec(),
        };
        loads.retain(|(_, each)| scope.has(self.called(*each)));
        loads
    }
}

enum Serving {
    Mesh(DevMesh),
    Theirs(Server),
    Ours(Side),
}

/// A keeper with both its sides running.
struct Standing {
    serving: Serving,
    driver: Side,
    /// It takes orders as the framed floor does.
    framed: bool,
}

fn holder(holder: Holder, dir: &Path, address: &str) -> anyhow::Result<Side> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["hold", holder.name()]).arg(dir).arg(address);
    Side::spawn(command.into())
}

impl Standing {
    async fn start(keeper: Keeper, dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let theirs = |server: Server, who| {
            let driver = holder(who, dir, &server.address)?;
            anyhow::Ok((Serving::Theirs(server), driver))
        };
        let (serving, mut driver) = match keeper {
            Keeper::Rhumb => {
                let mesh = crate::mesh::start(dir).await?;
                crate::holds::rhumb::prepare(&mesh).await?;
                (Serving::Mesh(mesh), holder(Holder::Rhumb, dir, "")?)
            }
            Keeper::Redis => theirs(Server::redis().await?, Holder::Redis)?,
            Keeper::Postgres => theirs(Server::postgres().await?, Holder::Postgres)?,
            Keeper::Floor => {
                Tls::make(dir)?;
                let mut server = holder(Holder::FloorServer, dir, "")?;
                let address: String = server.said().await.context("the server of the floor")?;
                let folder = dir.to_str().context("a folder whose name is text")?;
                let arguments = [System::QuinnFramed.name(), "drive", folder, &address];
                (Serving::Ours(server), Side::start(&arguments)?)
            }
        };
        let ready: String = driver.said().await?;
        anyhow::ensure!(ready == "ready", "the driver said {ready:?}");
        Ok(Self { serving, driver, framed: keeper == Keeper::Floor })
    }

    async fn round(&mut self, (concurrency, each): (usize, bool), millis: u64) -> anyhow::Result<Sample> {
        if self.framed {
            self.driver.tell(&Load { verb: Verb::Ask, concurrency, payload: PAYLOAD, millis }).await?;
        } else {
            self.driver.tell(&HoldLoad { concurrency, each, millis }).await?;
        }
        self.driver.said().await
    }

    async fn stop(self) {
        self.driver.end().await;
        match self.serving {
            Serving::Mesh(mesh) => mesh.stop().await,
            Serving::Theirs(server) => server.stop().await,
            Serving::Ours(server) => server.end().await,
        }
    }
}

/// What came of one keeper: samples of each of its loads, or why there are none.
#[derive(Default)]
struct Came {
    samples: Vec<Vec<Sample>>,
    missing: Option<String>,
}

/// A keeper that is not installed is said to be missing; the others are measured.
async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let effort = scope.effort;
    let mut came: Vec<Came> = Keeper::ALL.map(|_| Came::default()).into();
    for round in 0..effort.rounds {
        for turn in 0..Keeper::ALL.len() {
            let at = (turn + round) % Keeper::ALL.len();
            let keeper = Keeper::ALL[at];
            let loads = keeper.loads(&scope);
            if came[at].missing.is_none() && !loads.is_empty() {
                let one = once(keeper, &loads, effort.millis).await.with_context(|| keeper.called(false));
                match one {
                    Ok(one) => {
                        came[at].samples.resize(one.len(), Vec::new());
                        came[at].samples.iter_mut().zip(one).for_each(|(all, one)| all.push(one));
                    }
                    Err(error) if matches!(keeper, Keeper::Redis | Keeper::Postgres) => {
                        eprintln!("{NAME}: not measured: {error:#}");
                        came[at].missing = Some(format!("{error:#}"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        eprintln!("{NAME}: round {} of {}", round + 1, effort.rounds);
    }
    Ok(outcomes(&came, &scope))
}

/// One round of one keeper, all its loads.
async fn once(keeper: Keeper, loads: &[(usize, bool)], millis: u64) -> anyhow::Result<Vec<Sample>> {
    let dir = tempfile::tempdir()?;
    let mut standing = Standing::start(keeper, dir.path()).await?;
    let mut samples = Vec::new();
    for &load in loads {
        match standing.round(load, millis).await {
            Ok(sample) => samples.push(sample),
            Err(error) => {
                standing.stop().await;
                return Err(error.context(format!("{load:?}")));
            }
        }
    }
    standing.stop().await;
    Ok(samples)
}

fn outcomes(came: &[Came], scope: &Scope) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (keeper, came) in Keeper::ALL.iter().zip(came) {
        let versions = keeper.versions();
        for (number, (concurrency, each)) in keeper.loads(scope).into_iter().enumerate() {
            let load = Load { verb: Verb::Ask, concurrency, payload: PAYLOAD, millis: 0 };
            let samples = came.samples.get(number).map_or(&[][..], Vec::as_slice);
            let note = match &came.missing {
                Some(why) => format!("not measured: {why}"),
                None => keeper.note(each),
            };
            let outcome = Outcome::of(NAME, keeper.called(each), load, samples).noted(note);
            outcomes.push(Outcome { versions: versions.clone(), ..outcome });
        }
    }
    outcomes.sort_by_key(|outcome| outcome.concurrency);
    outcomes
}
