//! What chrony says of the clock that it keeps: its report `tracking`, as `chronyc tracking` asks for it.
//!
//! * It decides: how wrong the clock may be by chrony's word: what is still to be corrected, half of the way to its
//!   source and back, and what it has gathered on that way.
//! * It never does: change anything. The question is one that chrony answers to everybody on this machine.
//!
//! Source: `candm.h` of chrony 4, protocol version 6. A question is as long as its answer, lest a server be made to
//! send more than it was sent.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_actors::clock::Kernel;
use rhumb_core::rng::Seed;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const TRACKING: u16 = 33;
const TRACKING_REPLY: u16 = 5;
/// The length of an answer, and so of the question: a head of 28 bytes and the report.
const LENGTH: usize = 104;

/// A question with this number.
#[must_use]
pub fn question(sequence: u32) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    (packet[0], packet[1]) = (VERSION, REQUEST);
    packet[4..6].copy_from_slice(&TRACKING.to_be_bytes());
    packet[8..12].copy_from_slice(&sequence.to_be_bytes());
    packet
}

/// Reads the answer to a question with this number; none where it is not one.
#[must_use]
pub fn read(packet: &[u8], sequence: u32) -> Option<Kernel> {
    let packet: &[u8; LENGTH] = packet.get(..LENGTH)?.try_into().ok()?;
    let short = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let long = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    let head = (packet[0], packet[1], short(4), short(6), short(8), long(16));
    if head != (VERSION, REPLY, TRACKING, TRACKING_REPLY, 0, sequence) {
        return None;
    }
    // Reference id 28, address 32, stratum 52, leap 54, reference time 56, then nine numbers of four bytes.
    let [left, delay, dispersion] = [68, 92, 96].map(|at| float(long(at)));
    let error = left.abs() + delay.abs() / 2.0 + dispersion.abs();
    Some(Kernel { disciplined: short(54) != 3, max_error: Duration::try_from_secs_f64(error).ok()? })
}

/// chrony's own form of a number: 7 bits of exponent and 25 of coefficient, both signed.
fn float(bits: u32) -> f64 {
    let exponent = (bits as i32) >> 25;
    let coefficient = ((bits << 7) as i32) >> 7;
    f64::from(coefficient) * f64::from(exponent - 25).exp2()
}

/// Asks the chrony of this machine; none where there is none, or it does not answer.
pub(crate) async fn ask(at: SocketAddr, within: Duration) -> Option<Kernel> {
    let sequence = Seed::from_entropy().rng().u64() as u32;
    let exchange = async {
        let any: SocketAddr =
            if at.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { ([0, 0, 0, 0, 0, 0, 0, 1], 0).into() };
        let socket = UdpSocket::bind(any).await.ok()?;
        socket.connect(at).await.ok()?;
        socket.send(&question(sequence)).await.ok()?;
        let mut packet = [0; 512];
        let length = socket.recv(&mut packet).await.ok()?;
        read(&packet[..length], sequence)
    };
    timeout(within, exchange).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What chrony 4.3 answered question 7 with, kept in step by another one on the same machine. `chronyc tracking`
    /// said then: 1.1 µs fast, root delay 4.5 µs, root dispersion 0.7 µs.
    const ANSWERED: &str = "060200000021000500000000000000000000000700000000000000007f0000017f000001000000000000000000\
        00000000010000000b0000000000006b028cd31ac375cddd6df228cf750deed8a5a29cf682fa89eb05173bfac4f2f6e0984520daabe512\
        04818d20";

    fn answered() -> Vec<u8> {
        let digits: Vec<u8> = ANSWERED.bytes().collect();
        let byte = |pair: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")
        };
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn what_chrony_says_is_read() {
        let said = read(&answered(), 7).expect("an answer");
        assert!(said.disciplined, "{said:?}");
        let nanos = said.max_error.as_nanos();
        assert!((3_800..4_200).contains(&nanos), "1.1 + 4.5 / 2 + 0.7 µs: {nanos} ns");
        let mut lost = answered();
        lost[55] = 3;
        // 0.5 is 2^23 by 2^(1 - 25).
        lost[96..100].copy_from_slice(&(1_u32 << 25 | 1 << 23).to_be_bytes());
        let said = read(&lost, 7).expect("an answer");
        assert!(!said.disciplined && (500_003..500_004).contains(&said.max_error.as_micros()), "{said:?}");
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        assert_eq!(read(&answered(), 8), None, "another question's");
        assert!((0..LENGTH).all(|length| read(&answered()[..length], 7).is_none()));
        for at in [0, 1, 5, 7, 9] {
            let mut packet = answered();
            packet[at] ^= 1;
            assert_eq!(read(&packet, 7), None, "byte {at}");
        }
        assert_eq!(question(7).len(), answered().len(), "an answer is no longer than its question");
    }

    #[test]
    fn its_numbers_have_their_own_form() {
        for (bits, value) in
            [(0, 0.0), (1 << 25 | 1 << 23, 0.5), (0x01ff_ffff, -0.5_f64.powi(25)), (25 << 25 | 3, 3.0)]
        {
            assert_eq!(float(bits), value, "{bits:#x}");
        }
    }
}
