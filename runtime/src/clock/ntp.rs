//! A source of time: an NTP server, asked as a simple client does (RFC 4330; the packet is RFC 5905's, section 7.3).
//!
//! * It decides: whether an answer is one to what was asked, and how wrong the server says that it may be.
//! * It never does: believe a server that says that it is not in step, or set a clock.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_actors::clock::Sample;
use rhumb_core::rng::Seed;
use thiserror::Error;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::NodeClock;

/// The length of a packet without extensions.
const PACKET: usize = 48;
/// No leap second known, version 4, a client asks.
const ASKS: u8 = 0b00_100_011;
/// Between 1900, where its time begins, and 1970.
const FROM_1900: i64 = 2_208_988_800;

/// Why a server's answer is no sample.
#[derive(Debug, Error)]
pub enum NoSample {
    /// It cannot be asked.
    #[error("it cannot be asked: {0}")]
    Unreachable(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// That is no answer to what was asked.
    #[error("its answer is not one: {0}")]
    Malformed(&'static str),
    /// It says itself that it does not know the time.
    #[error("it is not in step itself")]
    NotInStep,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its time when it sent that, in microseconds since the Unix epoch.
    pub shown: i64,
    /// How wrong that may be: half of the way to its own source and back, and what it has gathered on that way.
    pub error: Duration,
}

/// A question with this cookie, which an answer must bear.
#[must_use]
pub fn question(cookie: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = ASKS;
    // Where a client may put its time; a number that nobody can guess does as well, and says less.
    packet[40..].copy_from_slice(&cookie.to_be_bytes());
    packet
}

/// Reads the answer to a question with this cookie.
///
/// # Errors
/// Why it is none.
pub fn read(packet: &[u8], cookie: u64) -> Result<Answer, NoSample> {
    let at = |from: usize| {
        let bytes = packet.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or(NoSample::Malformed("it is shorter than 48 bytes"))
    };
    let (origin, sent) = ((at(24)?, at(28)?), (at(40)?, at(44)?));
    if packet[0] & 0b111 != 4 {
        return Err(NoSample::Malformed("it is not a server's"));
    }
    if (u64::from(origin.0) << 32 | u64::from(origin.1)) != cookie {
        return Err(NoSample::Malformed("it answers another question"));
    }
    let (leap, stratum) = (packet[0] >> 6, packet[1]);
    if leap == 3 || !(1..=15).contains(&stratum) || sent == (0, 0) {
        return Err(NoSample::NotInStep);
    }
    Ok(Answer { shown: unix_micros(sent), error: short(at(4)?) / 2 + short(at(8)?) })
}

/// Seconds since 1900 and their fraction. From 2036 on they begin anew (RFC 4330, section 3).
fn unix_micros((seconds, fraction): (u32, u32)) -> i64 {
    let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
    let micros = (u64::from(fraction) * 1_000_000) >> 32;
    (i64::from(seconds) + era - FROM_1900) * 1_000_000 + micros as i64
}

/// 16 bits of seconds and 16 of their fraction, rounded up.
fn short(bits: u32) -> Duration {
    Duration::from_micros((u64::from(bits) * 1_000_000).div_ceil(1 << 16))
}

/// Asks a server (`HOST:PORT`).
///
/// # Errors
/// Why there is no sample.
pub(crate) async fn ask(clock: &NodeClock, server: &str, within: Duration) -> Result<Sample, NoSample> {
    timeout(within, exchange(clock, server)).await.map_err(|_| NoSample::Silent(within))?
}

async fn exchange(clock: &NodeClock, server: &str) -> Result<Sample, NoSample> {
    let unknown = || std::io::Error::other("its name has no address");
    let to = lookup_host(server).await?.next().ok_or_else(unknown)?;
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    let cookie = Seed::from_entropy().rng().u64();
    let sent = clock.mono();
    socket.send(&question(cookie)).await?;
    let mut packet = [0; 512];
    let length = socket.recv(&mut packet).await?;
    let received = clock.mono();
    let Answer { shown, error } = read(&packet[..length], cookie)?;
    Ok(Sample { sent, received, shown, error })
}

#[cfg(test)]
mod tests {
    use rhumb_core::HybridTime;

    use super::*;

    /// 2026-11-22T06:30:00Z.
    const NOW: i64 = 1_795_329_000_000_000;

    /// An answer of a server whose time is this: root delay 20 ms, root dispersion 5 ms.
    fn answer(cookie: u64, unix: i64) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        (packet[0], packet[1]) = (0b00_100_100, 2);
        packet[4..8].copy_from_slice(&(65_536_u32 / 50).to_be_bytes());
        packet[8..12].copy_from_slice(&(65_536_u32 / 200).to_be_bytes());
        packet[24..32].copy_from_slice(&cookie.to_be_bytes());
        let since_1900 = unix + FROM_1900 * 1_000_000;
        let (seconds, micros) = (since_1900 / 1_000_000, since_1900 % 1_000_000);
        packet[40..44].copy_from_slice(&(seconds as u32).to_be_bytes());
        packet[44..].copy_from_slice(&(((micros << 32) / 1_000_000 + 1) as u32).to_be_bytes());
        packet
    }

    #[test]
    fn an_answer_says_the_time_and_how_wrong_it_may_be() {
        for unix in [NOW, NOW + 123_456, 2_085_978_495_999_999, 2_085_978_497_000_000] {
            let read = read(&answer(7, unix), 7).expect("an answer");
            assert_eq!(read.shown, unix, "also when its seconds begin anew, in 2036");
            let error = read.error.as_micros();
            assert!((14_900..15_000).contains(&error), "half of 20 ms and 5 ms: {error} µs");
        }
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_refused() {
        let changed = |at: usize, to: u8| {
            let mut packet = answer(7, NOW);
            packet[at] = to;
            read(&packet, 7).map_err(|why| why.to_string())
        };
        assert!(changed(2, 9).is_ok());
        assert_eq!(changed(0, 0b00_100_011), Err("its answer is not one: it is not a server's".into()));
        assert_eq!(changed(31, 8), Err("its answer is not one: it answers another question".into()));
        for (at, to) in [(0, 0b11_100_100), (1, 0), (1, 16)] {
            assert_eq!(changed(at, to), Err("it is not in step itself".into()));
        }
        let packet = answer(7, NOW);
        assert!((0..PACKET).all(|length| read(&packet[..length], 7).is_err()));
        let mut silent = packet;
        silent[40..].fill(0);
        assert!(matches!(read(&silent, 7), Err(NoSample::NotInStep)));
    }

    #[tokio::test]
    async fn a_server_is_asked_and_a_silent_one_is_not_waited_for() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("bound").to_string();
        let clock = NodeClock::new(HybridTime::new((1 << 48) - 1, 0), Duration::from_millis(500));
        let answers = async {
            let mut packet = [0; 64];
            let (length, from) = server.recv_from(&mut packet).await.expect("a question");
            assert_eq!((length, packet[0]), (PACKET, ASKS));
            let cookie = u64::from_be_bytes(packet[40..48].try_into().expect("8 bytes"));
            server.send_to(&answer(cookie, NOW), from).await.expect("sent");
        };
        let (sample, ()) = tokio::join!(ask(&clock, &address, Duration::from_secs(30)), answers);
        let sample = sample.expect("it answered");
        assert!(sample.shown == NOW && sample.sent <= sample.received, "{sample:?}");
        let silent = ask(&clock, &address, Duration::from_millis(20)).await;
        assert!(matches!(silent, Err(NoSample::Silent(_))), "{silent:?}");
    }
}
