//! PostgreSQL 15: a function that does the same work as a hold, in one statement and so in one transaction,
//! with `fsync` and `synchronous_commit` on. Prepared once a connection, as a driver does.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::window::{Dialect, Line, drive as obey};
use super::{Keys, SUPPLY, TTL_MS};

/// The tables and the function. No index on `expires`: that would only cost. Two that ask at once under one
/// key: the second fails at the unique key, and its transaction with it.
pub const SCHEMA: &str = r"
CREATE TABLE pool (name text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0));
CREATE TABLE hold (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pool text NOT NULL, qty bigint NOT NULL,
                   expires timestamptz NOT NULL, key text NOT NULL UNIQUE);
CREATE FUNCTION take(wanted text, units bigint, ttl_ms bigint, idempotency text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE number bigint;
BEGIN
  SELECT id INTO number FROM hold WHERE key = idempotency;
  IF FOUND THEN RETURN number; END IF;
  UPDATE pool SET available = available - units WHERE name = wanted AND available >= units;
  IF NOT FOUND THEN RETURN 0; END IF;
  INSERT INTO hold (pool, qty, expires, key)
    VALUES (wanted, units, now() + ttl_ms * interval '1 millisecond', idempotency) RETURNING id INTO number;
  RETURN number;
END $$;";

const STATEMENT: &str = "SELECT take($1, $2::text::bigint, $3::text::bigint, $4)";

/// The extended protocol, version 3: bind, execute and sync for each hold.
struct Extended {
    keys: Keys,
}

/// A message: its letter, its length, its body.
fn message(out: &mut BytesMut, letter: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(letter);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - at).expect("a short message");
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// Takes a whole message from the front.
fn next(come: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let length = u32::from_be_bytes(come.get(1..5)?.try_into().ok()?) as usize;
    if come.len() < 1 + length {
        return None;
    }
    let letter = come.get_u8();
    let mut body = come.split_to(length);
    body.advance(4);
    Some((letter, body))
}

impl Dialect for Extended {
    fn put(&mut self, out: &mut BytesMut) {
        let (ttl, key) = (TTL_MS.to_string(), self.keys.next());
        message(out, b'B', |out| {
            text(out, "");
            text(out, "take");
            out.put_u16(0);
            out.put_u16(4);
            for parameter in [&b"seats"[..], b"1", ttl.as_bytes(), &key] {
                out.put_u32(u32::try_from(parameter.len()).expect("short"));
                out.put_slice(parameter);
            }
            out.put_u16(0);
        });
        message(out, b'E', |out| {
            text(out, "");
            out.put_u32(0);
        });
        message(out, b'S', |_| ());
    }

    fn take(&mut self, come: &mut BytesMut) -> anyhow::Result<Option<bool>> {
        // An answer ends with `Z`; it is looked for before anything is taken.
        if !ends(come) {
            return Ok(None);
        }
        let mut right = false;
        while let Some((letter, body)) = next(come) {
            match letter {
                // One column: its length, then its digits.
                b'D' => right = body.get(6).is_some_and(|digit| (b'1'..=b'9').contains(digit)),
                b'E' => anyhow::bail!("postgres: {}", String::from_utf8_lossy(&body)),
                b'Z' => return Ok(Some(right)),
                _ => {}
            }
        }
        anyhow::bail!("an answer without an end")
    }
}

fn ends(come: &[u8]) -> bool {
    let mut rest = come;
    while let Some(head) = rest.get(1..5) {
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        match rest.get(1 + length..) {
            Some(_) if rest[0] == b'Z' => return true,
            Some(after) => rest = after,
            None => return false,
        }
    }
    false
}

async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut out = BytesMut::new();
    message(&mut out, 0, |out| {
        out.put_u32(3 << 16);
        for word in ["user", "postgres", "database", "postgres", ""] {
            text(out, word);
        }
    });
    // The first message has no letter.
    out.advance(1);
    stream.write_all_buf(&mut out).await?;
    until_ready(&mut stream).await?;
    Ok(stream)
}

async fn until_ready(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut come = BytesMut::new();
    loop {
        while let Some((letter, body)) = next(&mut come) {
            match letter {
                b'Z' => return Ok(()),
                b'E' => anyhow::bail!("postgres: {}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
        anyhow::ensure!(stream.read_buf(&mut come).await? > 0, "postgres closed the connection");
    }
}

async fn open(address: &str) -> anyhow::Result<Line<Extended>> {
    let mut stream = connect(address).await?;
    let mut out = BytesMut::new();
    message(&mut out, b'P', |out| {
        text(out, "take");
        text(out, STATEMENT);
        out.put_u16(0);
    });
    message(&mut out, b'S', |_| ());
    stream.write_all_buf(&mut out).await?;
    until_ready(&mut stream).await?;
    Ok(Line { stream, dialect: Extended { keys: Keys::default() } })
}

/// Makes the tables and the pool, once the server answers.
///
/// # Errors
/// It does not.
pub async fn prepare(address: &str) -> anyhow::Result<()> {
    let mut stream = connect(address).await?;
    for statement in [SCHEMA, &format!("INSERT INTO pool VALUES ('seats', {SUPPLY})")] {
        let mut out = BytesMut::new();
        message(&mut out, b'Q', |out| text(out, statement));
        stream.write_all_buf(&mut out).await?;
        until_ready(&mut stream).await?;
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
        let mut extended = Extended { keys: Keys::default() };
        let mut whole = BytesMut::new();
        message(&mut whole, b'2', |_| ());
        message(&mut whole, b'D', |out| {
            out.put_u16(1);
            out.put_u32(1);
            out.put_u8(b'7');
        });
        message(&mut whole, b'Z', |out| out.put_u8(b'I'));
        let mut come = BytesMut::from(&whole[..whole.len() - 1]);
        assert_eq!(extended.take(&mut come).expect("no fault"), None);
        come.put_slice(&whole[whole.len() - 1..]);
        assert_eq!(extended.take(&mut come).expect("no fault"), Some(true));
        assert!(come.is_empty());
    }
}
