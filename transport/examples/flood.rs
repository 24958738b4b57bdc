//! What a flood of connection attempts costs a peer that is connected already. `make flood` runs it.
//!
//! A node, a peer that asks it at a quarter of what it could, and a stranger on a thread of its own who attempts a
//! thousand connections a second, each up to the end of its handshake, where it has no certificate to show. It is
//! bounded: by its rate, its time, and the attempts that it has under way.
//!
//! * It never does: assert, or leave the loopback. It prints what it measured, and whether that is within the bar.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rhumb_core::{
    ClusterId, DataClass, Fault, Gate, GateRefusal, Guarantee, HybridTime, NodeId, Passage, Principal,
    Region, Role,
};
use rhumb_transport::issue::{Authority, Validity};
use rhumb_transport::{
    Answer, Headers, Identity, Inbound, Peer, Regions, Reply, Request, Transport, TransportSettings,
    TrustDomain,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

const ATTEMPTS_A_SECOND: u32 = 1_000;
/// Attempts a second that must have been made, or what they cost says nothing.
const LEAST_ATTEMPTS: f64 = 900.0;
/// Attempts under way at once, at most.
const MOST: usize = 2_000;
const LASTS: Duration = Duration::from_secs(8);
const AT_ONCE: usize = 64;

/// Lets everything pass.
struct Open;

impl Gate for Open {
    fn check(&self, _: Passage<'_>) -> Result<(), GateRefusal> {
        Ok(())
    }
}

/// Answers with what it is asked.
struct Echo;

impl Inbound for Echo {
    fn deliver(&self, _: &Arc<Peer>, request: Request, answer: Answer) {
        answer.reply(Reply {
            class: request.class,
            body: request.body,
            hybrid: HybridTime::ZERO,
            guarantee: Guarantee::STRONGEST,
            trace: None,
        });
    }
}

fn start(authority: &Authority, id: &NodeId, regions: &[Region]) -> anyhow::Result<Transport> {
    let who = Principal { role: Role::Node, region: id.region.clone(), name: id.name.to_string() };
    let issued = authority.issue(&who, Validity::for_the_next(Duration::from_secs(3_600)))?;
    let identity = Identity {
        cluster: ClusterId(7),
        node: Some(id.clone()),
        founding_hash: [1; 32],
        manifest: Vec::new(),
        public_key: Vec::new(),
        incarnation: 1,
        build: "flood".into(),
    };
    Ok(Transport::bind(
        "127.0.0.1:0".parse()?,
        &issued.credentials()?,
        Regions::of(regions.iter().cloned()),
        identity,
        TransportSettings::default(),
        Arc::new(Open),
        Arc::new(Echo),
    )?)
}

fn question() -> Request {
    Request::ask(
        "echo",
        DataClass::control(),
        Bytes::from_static(&[7; 100]),
        Headers::within(Duration::from_secs(1)),
    )
}

/// Answers a second when so many ask, each again as soon as it is answered.
async fn peak(asker: &Transport, to: &NodeId) -> f64 {
    let until = Instant::now() + LASTS;
    let mut askers = JoinSet::new();
    for pair in 0..AT_ONCE as u64 {
        let (asker, to) = (asker.clone(), to.clone());
        askers.spawn(async move {
            let mut answered = 0_u64;
            while Instant::now() < until {
                answered += u64::from(asker.ask(&to, pair, question()).await.is_ok());
            }
            answered
        });
    }
    askers.join_all().await.into_iter().sum::<u64>() as f64 / LASTS.as_secs_f64()
}

/// Answers a second, and the 99th percentile of their time, when so many are asked a second whatever comes back.
async fn loaded(asker: &Transport, to: &NodeId, a_second: f64) -> (f64, Duration) {
    let (done, mut ended) = mpsc::channel::<(Result<Reply, Fault>, Duration)>(1 << 16);
    let begun = Instant::now();
    for nth in 0..(a_second * LASTS.as_secs_f64()) as u64 {
        let due = begun + Duration::from_secs_f64(nth as f64 / a_second);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let (asker, to, done) = (asker.clone(), to.clone(), done.clone());
        tokio::spawn(async move {
            let outcome = asker.ask(&to, nth, question()).await;
            done.send((outcome, due.elapsed())).await.ok();
        });
    }
    let lasted = begun.elapsed();
    drop(done);
    let mut took = Vec::new();
    while let Some((outcome, time)) = ended.recv().await {
        took.extend(outcome.is_ok().then_some(time));
    }
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    (took.len() as f64 / lasted.as_secs_f64(), p99)
}

/// The stranger, until it is told to end.
async fn flood(
    authority: CertificateDer<'static>,
    at: SocketAddr,
    name: String,
    ends: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let mut tls =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
    tls.alpn_protocols = vec![b"rhumb/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    let (room, mut every) =
        (Arc::new(Semaphore::new(MOST)), interval(Duration::from_secs(1) / ATTEMPTS_A_SECOND));
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !ends.load(Ordering::Relaxed) {
        every.tick().await;
        let Ok(room) = Arc::clone(&room).try_acquire_owned() else { continue };
        let connecting = endpoint.connect_with(config.clone(), at, &name)?;
        made.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _room = room;
            // It is let in nowhere; where it fails is the node's business.
            if let Ok(connection) = connecting.await {
                connection.closed().await;
            }
        });
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let two_hours = Validity::for_the_next(Duration::from_secs(7_200));
    let authority = Authority::create(TrustDomain::new("mesh.example")?, two_hours)?;
    let (node, peer): (NodeId, NodeId) = ("us-east/n1".parse()?, "eu-central/n1".parse()?);
    let regions = [node.region.clone(), peer.region.clone()];
    let (attacked, asker) = (start(&authority, &node, &regions)?, start(&authority, &peer, &regions)?);
    let at = attacked.local_addr()?;
    asker.add_peer(node.clone(), at);
    anyhow::ensure!(asker.connected(&node, Duration::from_secs(10)).await, "the two are not connected");

    let most = peak(&asker, &node).await;
    println!("{AT_ONCE} at once, as fast as answered: {most:.0} answers/s");
    let quarter = most / 4.0;
    let (quiet, p99) = loaded(&asker, &node, quarter).await;
    println!("a quarter of that, in quiet:      {quiet:.0} answers/s, p99 {p99:.0?}");
    let (ends, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let stranger = {
        let (ends, made) = (Arc::clone(&ends), Arc::clone(&made));
        let name = format!("{}.{}.mesh.example", node.name, node.region);
        let root = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(flood(root, at, name, ends, made)))
    };
    let begun = Instant::now();
    let (flooded, p99) = loaded(&asker, &node, quarter).await;
    let attempts = made.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    ends.store(true, Ordering::Relaxed);
    println!(
        "the same, in the flood:           {flooded:.0} answers/s, p99 {p99:.0?}, {attempts:.0} attempts/s"
    );
    stranger.join().map_err(|_| anyhow::anyhow!("the stranger panicked"))??;
    asker.close().await;
    attacked.close().await;
    let cost = 100.0 * (1.0 - flooded / quiet);
    println!("the flood costs {cost:.1} % of the peer's throughput (bar: at most 20 %)");
    let is_flood = attempts >= LEAST_ATTEMPTS;
    let what = if is_flood { "a flood" } else { "no flood: this machine shows nothing" };
    println!("{attempts:.0} attempts/s were made: {what} (bar: at least {LEAST_ATTEMPTS:.0})");
    Ok(if is_flood && cost <= 20.0 { ExitCode::SUCCESS } else { ExitCode::from(5) })
}
