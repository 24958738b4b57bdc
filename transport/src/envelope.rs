//! The frame in which a message travels: a fixed header of 72 bytes written by hand, optional fields,
//! the body. No codec is needed to read it, so that a node can refuse what it cannot decode.
//!
//! ```text
//!  0  2  magic "Rh"                    28  4  deadline, ms that remain
//!  2  1  version (1)                   32  8  hybrid time
//!  3  1  kind: 1 ask 2 tell 3 reply    40  1  guarantee so far or achieved
//!            4 fault 5 post            41  1  guarantee required
//!            6 posts 7 taken
//!  4  1  codec of the body             42  1  trace flags
//!  5  1  flags: bit 0 traced           43  1  reserved, 0
//!  6  2  length of header and fields   44 16  trace id
//!  8  4  length of the body            60  8  span id
//! 12  8  id of the call                68  4  CRC-32C of all the rest
//! 20  8  reserved, 0                   72     fields: type u8, length u16, value
//! ```
//! All numbers are big-endian. Fields of unknown type are skipped; a longer header is read by length.
//!
//! * It decides: whether bytes are a frame, and what it says.
//! * It never does: allocate what a length claims before the cap is checked, or panic on any bytes.
//! * Invariant: damage that leaves lengths untrustworthy is [`Broken`] and ends the connection; a frame
//!   that is whole but says nonsense is a fault of that message alone.

mod deframe;
mod reader;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use rhumb_core::{DataClass, Epoch, Guarantee, HybridTime};
use thiserror::Error;

use crate::message::TraceContext;

pub use deframe::Deframer;
use deframe::Lengths;
use reader::Reader;

/// Bytes of the fixed header.
pub const FIXED: usize = 72;
/// Bytes of header and fields at most.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of a message name at most.
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a target at most.
pub const MAX_TARGET_BYTES: usize = 512;
/// Callers that a frame names at most: a longer chain of calls is a cycle that is not seen.
pub const MAX_CALLERS: usize = 32;

/// The longest deadline that a frame can say; a longer one is sent as this.
pub const MAX_DEADLINE: Duration = Duration::from_millis(u32::MAX as u64);

const MAGIC: u16 = 0x5268;
const VERSION: u8 = 1;
const CRC_AT: usize = 68;
const TRACED: u8 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A call that wants an answer.
    Ask = 1,
    /// A call that wants none.
    Tell = 2,
    /// A handler's answer.
    Reply = 3,
    /// What happened instead of an answer; the body is a [`crate::control::WireFault`].
    Fault = 4,
    /// A call that is answered as soon as the receiver's mailbox has taken it.
    Post = 5,
    /// Many posts under one head, answered together: see [`crate::gathering`]. Since protocol version 2.
    Posts = 6,
    /// The calls with these ids have their answer, which says nothing but that they were taken; its own id
    /// is 0. Since protocol version 2.
    Taken = 7,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        let known = [Self::Ask, Self::Tell, Self::Reply, Self::Fault, Self::Post, Self::Posts, Self::Taken];
        known.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether somebody waits for an answer to it.
    #[must_use]
    pub fn wants_answer(self) -> bool {
        matches!(self, Self::Ask | Self::Post | Self::Posts)
    }
}

/// One message in its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// The codec of the body.
    pub codec: u8,
    /// The call, unique within one connection and direction of calling.
    pub id: u64,
    /// Time that remains, in whole milliseconds rounded up; at most 49 days. Zero in answers.
    pub deadline: Duration,
    /// The sender's hybrid time.
    pub hybrid: HybridTime,
    /// The guarantee so far (calls) or achieved (answers).
    pub guarantee: Guarantee,
    /// The guarantee required.
    pub required: Guarantee,
    /// The sender's trace.
    pub trace: Option<TraceContext>,
    /// The stable name of the message; empty in answers.
    pub name: ByteString,
    /// The class of the body.
    pub class: DataClass,
    /// The idempotency key.
    pub key: Option<String>,
    /// The epoch that the caller believes in.
    pub epoch: Option<Epoch>,
    /// The callers, outermost first.
    pub chain: Vec<String>,
    /// The actor of the receiving node that is meant.
    pub target: Option<ByteString>,
    /// The encoded message.
    pub body: Bytes,
}

/// Bytes that are not a frame: nothing after them can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    /// They do not begin as a frame does.
    #[error("frame begins with {0:#06x} instead of {MAGIC:#06x}")]
    Magic(u16),
    /// A frame of another version.
    #[error("frame of version {0}, this node reads version {VERSION}")]
    Version(u8),
    /// A header that is too short or too long to be one.
    #[error("header of {0} bytes, expected {FIXED} to {MAX_HEAD}")]
    Head(usize),
    /// Larger than may be.
    #[error("frame of {bytes} bytes is over the cap of {cap}")]
    OverCap {
        /// What its lengths claim.
        bytes: usize,
        /// What may be.
        cap: usize,
    },
    /// Shorter than its lengths claim, or longer.
    #[error("frame of {got} bytes claims {claimed}")]
    Length {
        /// What is there.
        got: usize,
        /// What its lengths claim.
        claimed: usize,
    },
    /// The checksum does not match.
    #[error("frame has checksum {got:#010x} and says {said:#010x}")]
    Checksum {
        /// Computed.
        got: u32,
        /// In the header.
        said: u32,
    },
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The connection cannot go on.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// This message cannot be understood; the next one may be.
    #[error("message {name:?} (call {id}): {reason}")]
    Message {
        /// What it is, if that is known.
        kind: Option<FrameKind>,
        /// The call.
        id: u64,
        /// The message name, as far as it could be read.
        name: String,
        /// What was wrong.
        reason: String,
    },
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Field {
    Name = 1,
    Class = 2,
    Key = 3,
    Epoch = 4,
    Caller = 5,
    Target = 6,
}

impl Frame {
    /// An answer's frame: everything that only calls have is empty.
    #[must_use]
    pub fn answer(kind: FrameKind, codec: u8, id: u64, class: DataClass, body: Bytes) -> Self {
        Self {
            kind,
            codec,
            id,
            deadline: Duration::ZERO,
            hybrid: HybridTime::ZERO,
            guarantee: Guarantee::Eventual,
            required: Guarantee::Eventual,
            trace: None,
            name: ByteString::new(),
            class,
            key: None,
            epoch: None,
            chain: Vec::new(),
            target: None,
            body,
        }
    }

    /// Bytes of header and fields. Over [`MAX_HEAD`] the frame must not be encoded.
    #[must_use]
    pub fn head_len(&self) -> usize {
        let text = |s: &str| if s.is_empty() { 0 } else { 3 + s.len() };
        FIXED
            + text(&self.name)
            + text(self.class.as_str())
            + self.key.as_deref().map_or(0, |key| 3 + key.len())
            + self.epoch.map_or(0, |_| 3 + 8)
            + self.chain.iter().map(|caller| 3 + caller.len()).sum::<usize>()
            + self.target.as_deref().map_or(0, |target| 3 + target.len())
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head_len() + self.body.len()
    }

    /// A frame is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends header and fields; the body follows as it is.
    ///
    /// # Panics
    /// When the head is over [`MAX_HEAD`] or the body over 4 GiB, which callers have checked.
    pub fn encode_head(&self, out: &mut BytesMut) {
        let head = self.head_len();
        assert!(head <= MAX_HEAD, "a head of {head} bytes was let through");
        let start = out.len();
        out.reserve(head);
        self.put_fixed(out, head);
        self.put_fields(out);
        debug_assert_eq!(out.len() - start, head, "head_len and encode_head agree");
        let crc = checksum(&out[start..], &self.body);
        out[start + CRC_AT..start + FIXED].copy_from_slice(&crc.to_be_bytes());
    }

    /// The whole frame as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        self.encode_head(&mut out);
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    fn put_fixed(&self, out: &mut BytesMut, head: usize) {
        let trace = self.trace.unwrap_or(TraceContext { trace_id: 0, span_id: 0, flags: 0 });
        let deadline = self.deadline.as_nanos().div_ceil(1_000_000);
        out.put_u16(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(self.codec);
        out.put_u8(if self.trace.is_some() { TRACED } else { 0 });
        out.put_u16(head as u16);
        out.put_u32(u32::try_from(self.body.len()).expect("bodies are capped far below 4 GiB"));
        out.put_u64(self.id);
        out.put_u64(0);
        out.put_u32(u32::try_from(deadline).unwrap_or(u32::MAX));
        out.put_u64(self.hybrid.to_bits());
        out.put_u8(self.guarantee as u8);
        out.put_u8(self.required as u8);
        out.put_u8(trace.flags);
        out.put_u8(0);
        out.put_u128(trace.trace_id);
        out.put_u64(trace.span_id);
        out.put_u32(0);
    }

    fn put_fields(&self, out: &mut BytesMut) {
        let mut field = |field: Field, value: &[u8]| {
            out.put_u8(field as u8);
            out.put_u16(value.len() as u16);
            out.put_slice(value);
        };
        if !self.name.is_empty() {
            field(Field::Name, self.name.as_bytes());
        }
        field(Field::Class, self.class.as_str().as_bytes());
        if let Some(key) = &self.key {
            field(Field::Key, key.as_bytes());
        }
        if let Some(epoch) = self.epoch {
            field(Field::Epoch, &epoch.0.to_be_bytes());
        }
        for caller in &self.chain {
            field(Field::Caller, caller.as_bytes());
        }
        if let Some(target) = &self.target {
            field(Field::Target, target.as_bytes());
        }
    }

    /// Reads one whole frame.
    ///
    /// # Errors
    /// [`FrameError::Broken`] when it is not one, [`FrameError::Message`] when it says nonsense.
    pub fn decode(frame: Bytes) -> Result<Self, FrameError> {
        let lengths =
            Lengths::read(&frame, usize::MAX)?.ok_or(Broken::Length { got: frame.len(), claimed: FIXED })?;
        if frame.len() != lengths.total() {
            return Err(Broken::Length { got: frame.len(), claimed: lengths.total() }.into());
        }
        let said = (&frame[CRC_AT..FIXED]).get_u32();
        let got = checksum(&frame[..lengths.head], &frame[lengths.head..]);
        if got != said {
            return Err(Broken::Checksum { got, said }.into());
        }
        Reader::new(&frame, lengths.head).read(frame.slice(lengths.head..))
    }
}

/// CRC-32C of head and body, the checksum's own bytes taken as zero.
fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&head[..CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &[0; FIXED - CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &head[FIXED..]);
    crc32c::crc32c_append(crc, body)
}

#[cfg(test)]
mod tests;
