//! A store of profiles in three regions. One region after the other dies and comes back; meanwhile profiles are edited, and
//! who has edited one reads its own edit from every region, by a token that it takes along:
//!
//! ```text
//! cargo run -p rhumb-examples --bin profile-store
//! ```
//!
//! It starts its three nodes itself, each a process of this program, with a WAN of published round trips between them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{self, Kv, KvCondition, KvFound, NotUpgraded};
use rhumb::consistent::{Eventual, StrictSerializable};
use rhumb::dev::{DevMesh, DevOptions, WanChoice};
use rhumb::prelude::*;
use rhumb::telemetry::TelemetrySettings;

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];
const PROFILE: &[u8] = b"profile/ann";
/// How long the store may take to be well again after a region has died.
const WELL_WITHIN: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A page shows a profile as it is nearby: any level does.
fn shown(profile: &Consistent<KvFound, Eventual>) -> String {
    String::from_utf8_lossy(profile.value().bytes().unwrap_or_default()).into_owned()
}

/// An edit is made by what the profile is now: what is only shown somewhere does not compile here.
fn edited(profile: &Consistent<KvFound, StrictSerializable>, city: &str) -> (String, KvCondition) {
    let condition = profile.value().version().map_or(KvCondition::Absent, KvCondition::Version);
    (format!("ann lives in {city}"), condition)
}

/// Edits the profile once: reads it nearby, upgrades that, and writes on condition that it is still so.
async fn edit_once(store: &Kv<'_>, city: &str) -> Result<(), NotUpgraded> {
    let profile = match store.upgrade(store.eventual(PROFILE).await?).await {
        Ok(profile) => profile,
        // Somebody else has edited it meanwhile: what it is now is here as well.
        Err(NotUpgraded::Conflict(conflict)) => conflict.now,
        Err(error) => return Err(error),
    };
    let (text, condition) = edited(&profile, city);
    // An edit of which nobody had heard whether it was made: it was.
    if profile.value().bytes() != Some(text.as_bytes()) {
        store.put_if(PROFILE, text.as_bytes(), condition).await?;
    }
    Ok(())
}

/// Edits the profile, however long a region that has died is in the way.
async fn edit(store: &Kv<'_>, city: &str) -> anyhow::Result<()> {
    let tried = async {
        while let Err(error) = edit_once(store, city).await {
            println!("  not yet: {error}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::time::timeout(WELL_WITHIN, tried).await.context("the store is not well again in time")
}

/// The store, for somebody who stands in a region.
async fn open<'a>(client: &'a MeshClient, region: &str) -> anyhow::Result<Kv<'a>> {
    Ok(Kv::open(client, "profiles", Some(&Region::new(region)?)).await?)
}

/// Reads the profile for somebody who stands in a region and has this token.
async fn read(
    client: &MeshClient,
    region: &str,
    token: Vec<u8>,
) -> anyhow::Result<Consistent<KvFound, Eventual>> {
    let tried = async {
        loop {
            let profile = async {
                let store = open(client, region).await?;
                store.goes_on(token.clone());
                anyhow::Ok(store.eventual(PROFILE).await?)
            };
            match profile.await {
                Ok(profile) => return profile,
                Err(error) => println!("  not yet: {error:#}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::time::timeout(WELL_WITHIN, tried).await.context("it could not be read in time")
}

/// What was seen.
#[derive(Default)]
struct Seen {
    edits: u32,
    reads: u32,
    stale: u32,
}

impl Seen {
    /// Edits the profile from one region, and reads it from all with the token that the edit gave.
    async fn round(&mut self, client: &MeshClient, from: &str, city: &str) -> anyhow::Result<Vec<u8>> {
        let store = open(client, from).await?;
        edit(&store, city).await?;
        self.edits += 1;
        println!("{from} edits: ann lives in {city}");
        for region in REGIONS {
            let profile = read(client, region, store.token()).await?;
            let (text, found) = (shown(&profile), profile.value());
            let fresh = text == format!("ann lives in {city}");
            self.reads += 1;
            self.stale += u32::from(!fresh);
            println!(
                "  {region} reads: {text}, {}, {:.1} s old, from {}{}",
                found.level,
                found.age.as_secs_f64(),
                found.region,
                if fresh { "" } else { " (stale!)" },
            );
        }
        Ok(store.token())
    }
}

/// Where nobody writes for a while, every region has the profile itself.
async fn settles(client: &MeshClient, token: Vec<u8>) -> anyhow::Result<()> {
    for region in REGIONS {
        let home = async {
            loop {
                let profile = read(client, region, token.clone()).await?;
                if profile.value().region.as_str() == region {
                    return anyhow::Ok(profile);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        let profile =
            tokio::time::timeout(WELL_WITHIN, home).await.context("no replica here has caught up")??;
        println!("{region} reads at home: {}", shown(&profile));
    }
    Ok(())
}

async fn story(mesh: &DevMesh) -> anyhow::Result<Seen> {
    let directory = Directory::of(mesh.nodes().iter().map(|node| (node.id(), node.quic)).collect());
    let operator = MeshClient::new(mesh.operator_identity(), directory.clone())?;
    kv::create(&operator, "profiles", &DataClass::new("inventory")?, 3).await?;
    operator.close().await;
    let client = MeshClient::new(mesh.client_identity(), directory)?;
    client.connect_all().await?;
    let mut seen = Seen::default();
    let mut token = seen.round(&client, "us-east", "Boston").await?;
    let cities = [("Berlin", "Lyon"), ("Osaka", "Perth"), ("Quito", "Lima")];
    for (dies, (city, next)) in REGIONS.into_iter().zip(cities) {
        let node = NodeId::new(dies, "n1")?;
        let alive = REGIONS.into_iter().find(|region| *region != dies).context("three regions")?;
        mesh.kill(&node).await?;
        println!("{dies} dies");
        seen.round(&client, alive, city).await?;
        mesh.start_again(&node).await?;
        println!("{dies} is back");
        token = seen.round(&client, dies, next).await?;
    }
    settles(&client, token).await?;
    client.close().await;
    Ok(seen)
}

async fn run() -> anyhow::Result<()> {
    let data = std::env::temp_dir().join(format!("profile-store-{}", std::process::id()));
    let regions = REGIONS.map(|name| Region::new(name).map(|region| (region, 1)));
    let options = DevOptions {
        regions: regions.into_iter().collect::<Result<_, _>>()?,
        data: data.clone(),
        wan: WanChoice::Published,
        ready_file: None,
        settings: Vec::new(),
        restart: false,
        traces: TelemetrySettings::default(),
    };
    let mesh = DevMesh::start(options, &std::env::current_exe()?).await?;
    let story = story(&mesh).await;
    mesh.stop().await;
    std::fs::remove_dir_all(&data)?;
    let Seen { edits, reads, stale } = story?;
    println!("{edits} edits, {reads} reads with a token while regions died: {stale} did not see the edit");
    ensure!((edits, reads) == (7, 21), "the story was not told to its end");
    if stale > 0 {
        bail!("a read with a token did not see what the token stands for");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|command| command == "serve") {
        return rhumb::cli::serve::node_program(|node| node).await;
    }
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
