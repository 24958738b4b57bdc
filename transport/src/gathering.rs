//! Tells to one actor that share one head on the wire, and what became of each.
//!
//! A sender that does not wait for each of its tells puts them into a [`Gathering`], which waits on its
//! lane as one message. The lane's writer takes what has gathered by then; what is told later begins
//! another. One answer says of all of them that they were taken, or which were not ([`Refused`]).
//!
//! * It decides: how many messages share a head, and which bytes are which message.
//! * It never does: wait, or send.
//! * Invariants: the messages keep their order; what was taken for sending takes no more in, so that
//!   whoever gathered knows by its own count which messages one answer is about.
//!
//! ```text
//! the messages:  length u32, big-endian, then the message; one after the other
//! the answer:    empty when all were taken; else runs of messages with one fault, encoded
//! ```

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use rhumb_core::{Fault, FaultKind};

use crate::codec::{decode, encode};
use crate::control::WireFault;

/// The protocol version since which peers understand gathered tells, and answers that are for many.
pub const SINCE_VERSION: u16 = 2;
/// Messages under one head at most.
pub const MAX_GATHERED: usize = 256;
/// Bytes of gathered messages at most, their lengths included. What is larger goes by itself.
pub const GATHERED_BYTES: usize = 32 << 10;
/// Bytes before each message.
const LENGTH: usize = 4;

/// Messages that wait under one head. A handle on each side: whoever gathers, and the lane.
#[derive(Debug, Default)]
pub struct Gathering(Mutex<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    bytes: BytesMut,
    count: usize,
    sealed: bool,
}

impl Gathering {
    /// Whether a message of so many bytes can be gathered at all.
    #[must_use]
    pub fn fits(bytes: usize) -> bool {
        bytes + LENGTH <= GATHERED_BYTES
    }

    /// Puts one more message in. False when it takes no more: it is full, or has been taken.
    #[must_use]
    pub fn push(&self, message: &[u8]) -> bool {
        let mut gathered = self.0.lock();
        let room = GATHERED_BYTES - gathered.bytes.len().min(GATHERED_BYTES);
        if gathered.sealed || gathered.count == MAX_GATHERED || message.len() + LENGTH > room {
            return false;
        }
        gathered.bytes.put_u32(u32::try_from(message.len()).expect("it fits into 32 KiB"));
        gathered.bytes.put_slice(message);
        gathered.count += 1;
        true
    }

    /// Takes no more in.
    pub(crate) fn seal(&self) {
        self.0.lock().sealed = true;
    }

    /// How many bytes have gathered.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().bytes.len()
    }

    /// All that has gathered. It takes no more in.
    pub(crate) fn take(&self) -> Bytes {
        let mut gathered = self.0.lock();
        gathered.sealed = true;
        gathered.bytes.split().freeze()
    }
}

/// Where each message is in a body of gathered ones.
///
/// # Errors
/// What is wrong, when it is no such body.
pub fn messages(body: &[u8]) -> Result<Vec<Range<usize>>, String> {
    if body.len() > GATHERED_BYTES {
        return Err(format!("{} bytes under one head, at most {GATHERED_BYTES}", body.len()));
    }
    let (mut all, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let length = body[at..].split_first_chunk().map(|(length, _)| u32::from_be_bytes(*length));
        let length = length.ok_or_else(|| format!("{} bytes before a message's length", body.len() - at))?;
        let range = at + LENGTH..at + LENGTH + length as usize;
        if range.end > body.len() {
            return Err(format!("a message of {length} bytes where {} are left", body.len() - at - LENGTH));
        }
        if all.len() == MAX_GATHERED {
            return Err(format!("more than {MAX_GATHERED} messages under one head"));
        }
        at = range.end;
        all.push(range);
    }
    if all.is_empty() { Err("no message under its head".to_owned()) } else { Ok(all) }
}

/// The gathered messages that were not taken, each with its fault.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Runs of messages that follow each other and have one fault: the first, how many, and the fault.
    runs: Vec<(u32, u32, Fault)>,
}

impl Refused {
    /// The message at this position, behind all that were noted before, was not taken.
    pub fn note(&mut self, at: usize, fault: Fault) {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        match self.runs.last_mut() {
            Some((first, count, same)) if *first + *count == at && *same == fault => *count += 1,
            _ => self.runs.push((at, 1, fault)),
        }
    }

    /// Each message that was not taken, by its position, in order.
    pub fn each(&self) -> impl Iterator<Item = (usize, &Fault)> {
        self.runs.iter().flat_map(|(first, count, fault)| {
            let first = *first as usize;
            (first..first + *count as usize).map(move |at| (at, fault))
        })
    }

    /// The body of the answer. Empty when all were taken.
    ///
    /// # Errors
    /// A fault that cannot be encoded, which no fault is.
    pub fn encode(&self) -> Result<Bytes, Fault> {
        if self.runs.is_empty() {
            return Ok(Bytes::new());
        }
        let broken = |error: crate::CodecError| {
            Fault::ran(FaultKind::Decode { name: "what was not taken".to_owned(), reason: error.to_string() })
        };
        let runs = self.runs.iter().map(|(first, count, fault)| {
            WireFault::encode(fault).map(|fault| (*first, *count, fault.to_vec()))
        });
        encode(&runs.collect::<Result<Vec<_>, _>>().map_err(broken)?).map_err(broken)
    }

    /// Reads the body of an answer about so many messages.
    ///
    /// # Errors
    /// [`FaultKind::Decode`] when it is none: what became of the messages is not known.
    pub fn decode(body: &[u8], of: usize) -> Result<Self, Fault> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let broken = |reason: String| {
            Fault::unknown(FaultKind::Decode { name: "what was not taken".to_owned(), reason })
        };
        let wire: Vec<(u32, u32, Vec<u8>)> = decode(body).map_err(|error| broken(error.to_string()))?;
        let (mut runs, mut end) = (Vec::new(), 0_u64);
        for (first, count, fault) in wire {
            let after = u64::from(first) + u64::from(count);
            if u64::from(first) < end || count == 0 || after > of as u64 {
                return Err(broken(format!("messages {first} to {after} of {of}, after {end}")));
            }
            end = after;
            runs.push((first, count, WireFault::decode(&fault).map_err(|error| broken(error.to_string()))?));
        }
        Ok(Self { runs })
    }
}

/// Calls that one frame says were taken, at most: it fits into the smallest frame that settings allow.
pub(crate) const MAX_TAKEN: usize = 112;

/// Whether these bytes are ids of calls, and no more than one frame has.
pub(crate) fn are_ids(body: &[u8]) -> bool {
    body.len().is_multiple_of(8) && body.len() <= 8 * MAX_TAKEN
}

/// The calls that were taken, as the body of a frame of kind `Taken`.
pub(crate) fn ids(taken: &[u64]) -> Bytes {
    let mut body = BytesMut::with_capacity(8 * taken.len());
    taken.iter().for_each(|id| body.put_u64(*id));
    body.freeze()
}

/// The calls in a body of [`ids`].
pub(crate) fn taken(mut body: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || (body.len() >= 8).then(|| body.get_u64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_in_order_and_nothing_goes_in_after_it_was_taken() {
        let gathering = Gathering::default();
        assert!(gathering.push(b"one") && gathering.push(b"") && gathering.push(b"three"));
        let body = gathering.take();
        assert_eq!(&body[..], b"\0\0\0\x03one\0\0\0\0\0\0\0\x05three");
        let read: Vec<_> = messages(&body).expect("whole").into_iter().map(|at| body.slice(at)).collect();
        assert_eq!(read, ["one", "", "three"]);
        assert!(!gathering.push(b"late") && gathering.take().is_empty());
    }

    #[test]
    fn a_gathering_is_bounded_in_number_and_in_bytes() {
        let gathering = Gathering::default();
        assert_eq!((0..1_000).filter(|_| gathering.push(b"x")).count(), MAX_GATHERED);
        let gathering = Gathering::default();
        let large = vec![0; GATHERED_BYTES - 2 * LENGTH];
        assert!(gathering.push(&large) && !gathering.push(b"x") && gathering.push(b""));
        assert!(Gathering::fits(large.len() + LENGTH) && !Gathering::fits(large.len() + LENGTH + 1));
    }

    #[test]
    fn a_body_that_is_none_is_refused_and_never_panics() {
        for body in [&b""[..], b"\0\0\0", b"\0\0\0\x02x", b"\0\0\0\x01xy", b"\xff\xff\xff\xffxy"] {
            messages(body).expect_err("no body");
        }
        let many = vec![0; (MAX_GATHERED + 1) * LENGTH];
        messages(&many).expect_err("too many");
        assert_eq!(messages(&many[LENGTH..]).map(|all| all.len()), Ok(MAX_GATHERED));
    }

    #[test]
    fn faults_of_neighbours_are_one_run_and_read_back_each() {
        let full = || Fault::not_sent(FaultKind::Full("the mailbox".into()));
        let mut refused = Refused::default();
        for at in [1, 2, 3] {
            refused.note(at, full());
        }
        refused.note(4, Fault::not_sent(FaultKind::Draining));
        refused.note(6, full());
        assert_eq!(refused.runs.len(), 3);
        let read = Refused::decode(&refused.encode().expect("bytes"), 7).expect("whole");
        assert_eq!(read, refused);
        assert_eq!(read.each().map(|(at, _)| at).collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
        Refused::decode(&refused.encode().expect("bytes"), 6).expect_err("of fewer messages");
        assert_eq!(Refused::decode(b"", 6), Ok(Refused::default()));
        assert_eq!(Refused::default().encode(), Ok(Bytes::new()));
        let fault = Refused::decode(b"\xff\xff", 6).expect_err("nonsense");
        assert_eq!(fault.delivery(), rhumb_core::Delivery::Unknown);
    }

    #[test]
    fn runs_that_overlap_or_are_empty_are_refused() {
        let fault = WireFault::encode(&Fault::not_sent(FaultKind::Draining)).expect("bytes").to_vec();
        let of = |runs: &[(u32, u32)]| {
            let runs: Vec<_> = runs.iter().map(|(first, count)| (*first, *count, fault.clone())).collect();
            Refused::decode(&encode(&runs).expect("bytes"), 10)
        };
        assert!(of(&[(0, 2), (2, 1), (9, 1)]).is_ok());
        for wrong in [&[(0, 2), (1, 1)][..], &[(3, 0)], &[(9, 2)], &[(u32::MAX, u32::MAX)]] {
            of(wrong).expect_err("no such runs");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            for range in messages(&bytes).into_iter().flatten() {
                let _ = &bytes[range];
            }
            let _ = Refused::decode(&bytes, 300).map(|refused| refused.each().count());
            let _ = taken(&bytes).count();
        }
    }

    #[test]
    fn calls_that_were_taken_read_back() {
        let body = ids(&[1, u64::MAX, 7]);
        assert_eq!(body[..9], [0, 0, 0, 0, 0, 0, 0, 1, 255]);
        assert_eq!(taken(&body).collect::<Vec<_>>(), [1, u64::MAX, 7]);
        assert_eq!(taken(&body[..20]).collect::<Vec<_>>(), [1, u64::MAX]);
    }
}
