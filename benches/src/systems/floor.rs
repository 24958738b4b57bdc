//! The floors: quinn with mutual TLS and nothing above it. What an actor runtime costs is what it is
//! slower than these.
//!
//! * `framed`: one stream, frames of `length u32, number u64, body`. One loop on one thread reads all
//!   that has come, answers all of it with one write, and so does the other side. No task, no channel,
//!   no wake-up a request. Tells are frames that are counted and not answered, written in batches.
//! * `streams`: a bidirectional stream a request, a task a stream.
//!
//! Socket buffers and the window of a connection are as large as Rhumb's by default, the window of a stream four times that.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::obey;
use crate::caller::{Caller, Pace};
use crate::process::{Orders, say};
use crate::sample::{Latencies, Load, Sample, Verb};
use crate::tls::{NAME, Tls};

const ALPN: &str = "bench-floor";
const HEAD: usize = 12;
/// The number of a frame that is told.
const NOTE: u64 = u64::MAX;
/// The number of a frame that is answered with how many have been told.
const ARRIVED: u64 = u64::MAX - 1;
/// Bytes that are written at once.
const BATCH: usize = 64 << 10;
/// So that neither side waits for flow control.
const WINDOW: u32 = 8 << 20;
/// Bytes asked of the operating system for each buffer of a socket.
const BUFFER: usize = 8 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(VarInt::from_u32(WINDOW));
    config.receive_window(VarInt::from_u32(4 * WINDOW));
    config.max_concurrent_bidi_streams(VarInt::from_u32(1_024));
    config.send_fairness(false);
    Arc::new(config)
}

fn endpoint(server: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime))?)
}

fn server(dir: &Path) -> anyhow::Result<Endpoint> {
    let tls = QuicServerConfig::try_from(Tls(dir.to_owned()).server(ALPN)?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport());
    endpoint(Some(config))
}

async fn client(dir: &Path, address: &str) -> anyhow::Result<(Endpoint, Connection)> {
    let tls = QuicClientConfig::try_from(Tls(dir.to_owned()).client(ALPN)?)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());
    let endpoint = endpoint(None)?;
    let connection = endpoint.connect_with(config, address.parse()?, NAME)?.await?;
    Ok((endpoint, connection))
}

/// Serves one connection after the other with `each`, until standard input closes.
pub(crate) async fn serve<F>(dir: &Path, each: impl Fn(Connection) -> F) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let endpoint = server(dir)?;
    say(&endpoint.local_addr()?.to_string())?;
    let closed = Orders::default().until_closed();
    tokio::pin!(closed);
    loop {
        tokio::select! {
            end = &mut closed => return end,
            incoming = endpoint.accept() => {
                let connection = incoming.context("the endpoint is closed")?.await?;
                tokio::spawn(each(connection));
            }
        }
    }
}

/// Serves framed streams.
///
/// # Errors
/// It cannot.
pub async fn serve_framed(dir: &Path) -> anyhow::Result<()> {
    serve(dir, |connection| async move {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(async move { echo_frames(send, recv).await.ok() });
        }
    })
    .await
}

async fn echo_frames(mut send: SendStream, mut recv: RecvStream) -> anyhow::Result<()> {
    let (mut come, mut out, mut arrived) = (BytesMut::new(), BytesMut::new(), 0_u64);
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        come.extend_from_slice(&chunk.bytes);
        while let Some((number, body)) = frame(&mut come) {
            match number {
                NOTE => arrived += 1,
                ARRIVED => put(&mut out, ARRIVED, &arrived.to_be_bytes()),
                _ => put(&mut out, number, &body),
            }
        }
        if !out.is_empty() {
            send.write_chunk(out.split().freeze()).await?;
        }
    }
    Ok(())
}

/// Takes a whole frame from the front.
pub(crate) fn frame(come: &mut BytesMut) -> Option<(u64, BytesMut)> {
    let length = u32::from_be_bytes(come.get(..4)?.try_into().ok()?) as usize;
    if come.len() < HEAD + length {
        return None;
    }
    come.advance(4);
    let number = come.get_u64();
    Some((number, come.split_to(length)))
}

pub(crate) fn put(out: &mut BytesMut, number: u64, body: &[u8]) {
    out.put_u32(u32::try_from(body.len()).expect("a body of this bench"));
    out.put_u64(number);
    out.put_slice(body);
}

/// Drives a framed stream.
///
/// # Errors
/// The connection fails.
pub async fn drive_framed(dir: &Path, address: &str) -> anyhow::Result<()> {
    let (_endpoint, connection) = client(dir, address).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    say(&"ready")?;
    let (mut orders, mut pace) = (Orders::default(), Pace::default());
    while let Some(load) = orders.next::<Load>().await? {
        match load.verb {
            Verb::Ask => say(&window(&mut send, &mut recv, load).await?)?,
            Verb::Tell => say(&notes(&mut send, &mut recv, load, &mut pace).await?)?,
            Verb::Freeze { .. } => anyhow::bail!("a floor has no fault of its own"),
        }
    }
    Ok(())
}

/// Tells for about as long as the load says.
async fn notes(
    send: &mut SendStream,
    recv: &mut RecvStream,
    load: Load,
    pace: &mut Pace,
) -> anyhow::Result<Sample> {
    if !pace.knows(load) {
        for millis in [0, 100] {
            let sample = tell_all(send, recv, load, pace.count(load, millis)).await?;
            pace.learn(load, &sample);
        }
    }
    let sample = tell_all(send, recv, load, pace.count(load, load.millis)).await?;
    pace.learn(load, &sample);
    Ok(sample)
}

async fn tell_all(
    send: &mut SendStream,
    recv: &mut RecvStream,
    load: Load,
    count: u64,
) -> anyhow::Result<Sample> {
    let body = vec![7_u8; load.payload];
    let before = arrived(send, recv).await?;
    let begin = Instant::now();
    let mut out = BytesMut::with_capacity(2 * BATCH);
    for _ in 0..count {
        put(&mut out, NOTE, &body);
        if out.len() >= BATCH {
            send.write_chunk(out.split().freeze()).await?;
            out.reserve(2 * BATCH);
        }
    }
    send.write_chunk(out.freeze()).await?;
    let ops = arrived(send, recv).await? - before;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Sample { ops, failed: 0, lost: count - ops, seconds, p50_us: 0.0, p99_us: 0.0 })
}

async fn arrived(send: &mut SendStream, recv: &mut RecvStream) -> anyhow::Result<u64> {
    let (mut come, mut out) = (BytesMut::new(), BytesMut::new());
    put(&mut out, ARRIVED, &[]);
    send.write_chunk(out.freeze()).await?;
    loop {
        let chunk = recv.read_chunk(usize::MAX, true).await?.context("the stream ended")?;
        come.extend_from_slice(&chunk.bytes);
        if let Some((_, body)) = frame(&mut come) {
            return Ok(u64::from_be_bytes(body.as_ref().try_into()?));
        }
    }
}

/// Keeps so many frames under way.
async fn window(send: &mut SendStream, recv: &mut RecvStream, load: Load) -> anyhow::Result<Sample> {
    let body = vec![7_u8; load.payload];
    let (begin, end) = span(load);
    let mut sent = vec![Instant::now(); load.concurrency];
    let (mut come, mut out) = (BytesMut::new(), BytesMut::new());
    (0..load.concurrency).for_each(|slot| put(&mut out, slot as u64, &body));
    send.write_chunk(out.split().freeze()).await?;
    let (mut latencies, mut under_way) = (Latencies::default(), load.concurrency);
    while under_way > 0 {
        let chunk = recv.read_chunk(usize::MAX, true).await?.context("the stream ended")?;
        come.extend_from_slice(&chunk.bytes);
        while let Some((slot, _)) = frame(&mut come) {
            let (slot, now) = (slot as usize, Instant::now());
            if sent[slot] >= begin {
                latencies.record((now - sent[slot]).as_nanos() as u64);
            }
            if now < end {
                sent[slot] = now;
                put(&mut out, slot as u64, &body);
            } else {
                under_way -= 1;
            }
        }
        if !out.is_empty() {
            send.write_chunk(out.split().freeze()).await?;
        }
    }
    Ok(latencies.sample(0, (Instant::now() - begin).as_secs_f64()))
}

fn span(load: Load) -> (Instant, Instant) {
    let begin = Instant::now() + Duration::from_millis(100);
    (begin, begin + Duration::from_millis(load.millis))
}

/// Serves a stream a request.
///
/// # Errors
/// It cannot.
pub async fn serve_streams(dir: &Path) -> anyhow::Result<()> {
    serve(dir, |connection| async move {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            tokio::spawn(async move {
                let body = recv.read_to_end(4 << 20).await?;
                send.write_chunk(Bytes::from(body)).await?;
                anyhow::Ok(send.finish()?)
            });
        }
    })
    .await
}

struct Streams(Connection);

impl Caller for Streams {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let (mut send, mut recv) = self.0.open_bi().await?;
        send.write_chunk(Bytes::from(vec![7_u8; payload])).await?;
        send.finish()?;
        let answer = recv.read_to_end(4 << 20).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }
}

/// Drives with a stream a request.
///
/// # Errors
/// The connection fails.
pub async fn drive_streams(dir: &Path, address: &str) -> anyhow::Result<()> {
    let (_endpoint, connection) = client(dir, address).await?;
    obey(Arc::new(Streams(connection))).await
}
