//! A client for one's own admin HTTP: enough to ask whether a node is ready.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest an answer may be.
const MAX_ANSWER: u64 = 4 << 20;

/// The status code and body of `GET path`, within the given time.
///
/// # Errors
/// When nobody listens, the answer is not HTTP, or the time is over.
pub async fn get(address: SocketAddr, path: &str, within: Duration) -> std::io::Result<(u16, String)> {
    timeout(within, exchange(address, path)).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not an HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(bad)?;
    Ok((code, body.to_owned()))
}
