//! Redis 7 with `appendfsync always`: a script that does the same work as a hold.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::window::{Dialect, Line, drive as obey};
use super::{Keys, SUPPLY, TTL_MS};

/// One hold: known key → the same answer; not below zero; the key for a day; the expiry in a sorted set,
/// whose member is the hold itself. It costs three writes, which the append-only file has as one
/// transaction. The hold's number stands in for Rhumb's id and secret.
pub const SCRIPT: &str = r"
local known = redis.call('GET', KEYS[2])
if known then return tonumber(known) end
local qty = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') < qty then return 0 end
local left = redis.call('DECRBY', KEYS[1], qty)
redis.call('SET', KEYS[2], left, 'EX', 86400)
redis.call('ZADD', KEYS[3], ARGV[2], left .. ':' .. ARGV[1])
return left";

const POOL: &str = "pool:seats";
const HOLDS: &str = "holds:seats";

/// What is spoken with Redis: `EVALSHA`, and integers in answer.
struct Resp {
    sha: String,
    keys: Keys,
}

fn command(out: &mut BytesMut, parts: &[&[u8]]) {
    out.put_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.put_slice(format!("${}\r\n", part.len()).as_bytes());
        out.put_slice(part);
        out.put_slice(b"\r\n");
    }
}

/// Takes a line from the front.
fn line(come: &mut BytesMut) -> Option<BytesMut> {
    let end = come.windows(2).position(|two| two == b"\r\n")?;
    let line = come.split_to(end);
    come.advance(2);
    Some(line)
}

impl Dialect for Resp {
    fn put(&mut self, out: &mut BytesMut) {
        let mut key = *b"key:------------------------";
        key[4..].copy_from_slice(&self.keys.next());
        let deadline = crate::holds::server::wall_millis() + TTL_MS;
        let (sha, deadline) = (self.sha.as_bytes(), deadline.to_string());
        let keys: [&[u8]; 3] = [POOL.as_bytes(), &key, HOLDS.as_bytes()];
        command(out, &[b"EVALSHA", sha, b"3", keys[0], keys[1], keys[2], b"1", deadline.as_bytes()]);
    }

    fn take(&mut self, come: &mut BytesMut) -> anyhow::Result<Option<bool>> {
        let Some(line) = line(come) else { return Ok(None) };
        match line.first() {
            Some(b':') => Ok(Some(line.get(1).is_some_and(|digit| (b'1'..=b'9').contains(digit)))),
            _ => anyhow::bail!("redis answered {:?}", String::from_utf8_lossy(&line)),
        }
    }
}

async fn open(address: &str) -> anyhow::Result<Line<Resp>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let sha = said(&mut stream, &[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]).await?;
    Ok(Line { stream, dialect: Resp { sha, keys: Keys::default() } })
}

/// Says a command, and gives the last line of the answer.
async fn said(stream: &mut TcpStream, parts: &[&[u8]]) -> anyhow::Result<String> {
    let (mut out, mut come) = (BytesMut::new(), BytesMut::new());
    command(&mut out, parts);
    stream.write_all_buf(&mut out).await?;
    let mut bulk = false;
    loop {
        while let Some(line) = line(&mut come) {
            let text = String::from_utf8_lossy(&line).into_owned();
            match line.first() {
                Some(b'$') => bulk = true,
                Some(b'-') => anyhow::bail!("redis: {text}"),
                _ if bulk => return Ok(text),
                _ => return Ok(text[1..].to_owned()),
            }
        }
        anyhow::ensure!(stream.read_buf(&mut come).await? > 0, "redis closed the connection");
    }
}

/// Makes the pool, and checks that the server syncs as it should.
///
/// # Errors
/// It does not.
pub async fn prepare(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    said(&mut stream, &[b"SET", POOL.as_bytes(), SUPPLY.to_string().as_bytes()]).await?;
    let mut info = BytesMut::new();
    command(&mut info, &[b"CONFIG", b"GET", b"appendfsync"]);
    stream.write_all_buf(&mut info).await?;
    let mut come = BytesMut::new();
    while !come.ends_with(b"always\r\n") {
        anyhow::ensure!(come.len() < 200, "redis does not sync each write: {come:?}");
        anyhow::ensure!(stream.read_buf(&mut come).await? > 0, "redis closed the connection");
    }
    Ok(())
}

/// Drives.
///
/// # Errors
/// A connection fails.
pub async fn drive(address: &str) -> anyhow::Result<()> {
    obey(|| open(address)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_when_it_is_whole() {
        let mut resp = Resp { sha: "sha".into(), keys: Keys::default() };
        let mut come = BytesMut::from(&b":12"[..]);
        assert_eq!(resp.take(&mut come).expect("no fault"), None);
        come.put_slice(b"\r\n:0\r\n-ERR no\r\n");
        assert_eq!(resp.take(&mut come).expect("no fault"), Some(true));
        assert_eq!(resp.take(&mut come).expect("no fault"), Some(false), "sold out");
        assert!(resp.take(&mut come).is_err());
    }
}
