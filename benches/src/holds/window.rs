//! Keeps so many requests under way on a connection whose answers come in the order of the requests: one
//! loop, one write for all that may go, no task a request. The best that a pipelining client can do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::HoldLoad;
use crate::process::{Orders, say};
use crate::sample::{Latencies, Sample};

/// What is said over a connection.
pub trait Dialect {
    /// Appends a request.
    fn put(&mut self, out: &mut BytesMut);
    /// Takes a whole answer from the front, if it is there; whether it is the right one.
    ///
    /// # Errors
    /// What came is no answer.
    fn take(&mut self, come: &mut BytesMut) -> anyhow::Result<Option<bool>>;
}

/// A connection on which a dialect is spoken.
pub struct Line<D> {
    /// The connection.
    pub stream: TcpStream,
    /// What is spoken.
    pub dialect: D,
}

impl<D: Dialect> Line<D> {
    /// Keeps `width` requests under way until `end`; counts from `begin`.
    async fn window(
        &mut self,
        width: usize,
        begin: Instant,
        end: Instant,
    ) -> anyhow::Result<(Latencies, u64)> {
        let (mut come, mut out) = (BytesMut::with_capacity(1 << 16), BytesMut::new());
        let (mut latencies, mut failed) = (Latencies::default(), 0);
        let mut sent: VecDeque<Instant> = VecDeque::with_capacity(width);
        let now = Instant::now();
        for _ in 0..width {
            self.dialect.put(&mut out);
            sent.push_back(now);
        }
        while !sent.is_empty() {
            if !out.is_empty() {
                self.stream.write_all_buf(&mut out).await?;
            }
            anyhow::ensure!(self.stream.read_buf(&mut come).await? > 0, "the server closed the connection");
            let now = Instant::now();
            while let Some(right) = self.dialect.take(&mut come)? {
                let at = sent.pop_front().ok_or_else(|| anyhow::anyhow!("an answer to no request"))?;
                if at >= begin && right {
                    latencies.record_many((now - at).as_nanos() as u64, 1);
                }
                failed += u64::from(!right);
                if now < end {
                    self.dialect.put(&mut out);
                    sent.push_back(now);
                }
            }
        }
        Ok((latencies, failed))
    }
}

/// Obeys orders over connections that this opens.
///
/// # Errors
/// A connection fails.
pub async fn drive<D, F>(open: impl Fn() -> F) -> anyhow::Result<()>
where
    D: Dialect,
    F: Future<Output = anyhow::Result<Line<D>>>,
{
    let mut lines = vec![open().await?];
    say(&"ready")?;
    let mut orders = Orders::default();
    while let Some(load) = orders.next::<HoldLoad>().await? {
        let (connections, width) = if load.each { (load.concurrency, 1) } else { (1, load.concurrency) };
        while lines.len() < connections {
            lines.push(open().await?);
        }
        say(&round(&mut lines[..connections], width, load.millis).await?)?;
    }
    Ok(())
}

async fn round<D: Dialect>(lines: &mut [Line<D>], width: usize, millis: u64) -> anyhow::Result<Sample> {
    let begin = Instant::now() + Duration::from_millis(100);
    let end = begin + Duration::from_millis(millis);
    let each = try_join_all(lines.iter_mut().map(|line| line.window(width, begin, end))).await?;
    let (mut all, mut failed) = (Latencies::default(), 0);
    for (latencies, wrong) in each {
        all.add(&latencies);
        failed += wrong;
    }
    Ok(all.sample(failed, (Instant::now() - begin).as_secs_f64()))
}
