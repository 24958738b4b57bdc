//! What a version says: a value or that there is none, and a header with room for what is coming.
//!
//! | bytes | what | if flag |
//! |---|---|---|
//! | 1 | format, 1 | |
//! | 1 | flags | |
//! | 16 | the transaction whose intent it is | 2 |
//! | 4 | schema version of the value, big-endian | 4 |
//! | 8 | hybrid time from which on it reads as absent, big-endian | 8 |
//! | 1 + n | length and name of the subject | 16 |
//! | 16 + 12 | key that the value is sealed under, and the nonce | 32 |
//! | any | the value; none if flag 1 (deleted) | |
//! | 4 | CRC-32C of the row's key and of all that stands before, big-endian | |
//!
//! * It decides: the bytes, and that no others are a record: a flag that is not known here is refused, not skipped.
//! * Invariant: what is read writes back as the same bytes; a record under another key than its own is refused.

use std::fmt;

use rhumb_core::HybridTime;
use thiserror::Error;

const FORMAT: u8 = 1;
const DELETED: u8 = 1;
const INTENT: u8 = 2;
const SCHEMA: u8 = 4;
const EXPIRES: u8 = 8;
const SUBJECT: u8 = 16;
const SEALED: u8 = 32;
const KNOWN: u8 = DELETED | INTENT | SCHEMA | EXPIRES | SUBJECT | SEALED;
const CHECKSUM_BYTES: usize = 4;

/// Whom the data is about. Its text form does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject(String);

/// A subject's name has none or too many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a subject of {0} bytes: it takes 1 to 255")]
pub struct SubjectTooLong(pub usize);

impl Subject {
    /// The subject of a name.
    ///
    /// # Errors
    /// [`SubjectTooLong`], also of an empty one.
    pub fn new(name: &str) -> Result<Self, SubjectTooLong> {
        if (1..=255).contains(&name.len()) {
            Ok(Self(name.to_owned()))
        } else {
            Err(SubjectTooLong(name.len()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({} bytes)", self.0.len())
    }
}

/// A version that a transaction has written and not yet decided. This version of the format has room for it; nothing
/// writes one yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent(pub u128);

/// Under what a value is sealed, which was done before it was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The key.
    pub key: [u8; 16],
    /// The nonce.
    pub nonce: [u8; 12],
}

/// What stands before a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Whose intent it is, if it is one.
    pub intent: Option<Intent>,
    /// Which version of its schema the value is written in.
    pub schema: Option<u32>,
    /// From when on it reads as absent.
    pub expires: Option<HybridTime>,
    /// Whom it is about.
    pub subject: Option<Subject>,
    /// Under what it is sealed.
    pub sealed: Option<Sealed>,
}

/// What a version says.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The header.
    pub header: Header,
    /// The value; none: the key was deleted.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value.as_ref().map(Vec::len);
        f.debug_struct("Record").field("header", &self.header).field("bytes", &bytes).finish()
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It is shorter than any record.
    #[error("{0} bytes are no record")]
    Short(usize),
    /// It is not what was written, or stands under another key.
    #[error(
        "its checksum does not match: it is damaged, or stands under another key than it was written under"
    )]
    Checksum,
    /// A later build wrote it.
    #[error("its format is {0}, and this build reads {FORMAT}: it was written by a later one")]
    Format(u8),
    /// A later build wrote it.
    #[error("its flags {0:#04x} are not all known to this build: it was written by a later one")]
    Flags(u8),
    /// A part of its header is not whole.
    #[error("its {0} is not whole")]
    Part(&'static str),
    /// A deleted key has no value, schema, expiry or seal.
    #[error("it is a deletion and says something of a value")]
    Deletion,
}

impl Record {
    /// A value with an empty header.
    #[must_use]
    pub fn put(value: impl Into<Vec<u8>>) -> Self {
        Self { header: Header::default(), value: Some(value.into()) }
    }

    /// That the key was deleted.
    #[must_use]
    pub fn deleted() -> Self {
        Self { header: Header::default(), value: None }
    }

    /// The value, as of this time: none of a deleted key, and none from its expiry on.
    #[must_use]
    pub fn live(&self, at: HybridTime) -> Option<&[u8]> {
        let expired = self.header.expires.is_some_and(|expires| expires <= at);
        self.value.as_deref().filter(|_| !expired)
    }

    /// Its bytes under a row's key.
    ///
    /// # Panics
    /// When it is a deletion and its header says something of a value: its writer made it up.
    #[must_use]
    pub fn encode(&self, row: &[u8]) -> Vec<u8> {
        let Header { intent, schema, expires, subject, sealed } = &self.header;
        assert!(
            self.value.is_some() || (schema.is_none() && expires.is_none() && sealed.is_none()),
            "a deletion says nothing of a value"
        );
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(value.len() + 64);
        bytes.extend([FORMAT, 0]);
        let mut flags = if self.value.is_none() { DELETED } else { 0 };
        if let Some(Intent(transaction)) = intent {
            flags |= INTENT;
            bytes.extend(transaction.to_be_bytes());
        }
        if let Some(schema) = schema {
            flags |= SCHEMA;
            bytes.extend(schema.to_be_bytes());
        }
        if let Some(expires) = expires {
            flags |= EXPIRES;
            bytes.extend(expires.to_bits().to_be_bytes());
        }
        if let Some(Subject(name)) = subject {
            flags |= SUBJECT;
            bytes.push(u8::try_from(name.len()).expect("a subject has at most 255 bytes"));
            bytes.extend(name.as_bytes());
        }
        if let Some(Sealed { key, nonce }) = sealed {
            flags |= SEALED;
            bytes.extend(key);
            bytes.extend(nonce);
        }
        bytes[1] = flags;
        bytes.extend(value);
        let checksum = checksum(row, &bytes);
        bytes.extend(checksum);
        bytes
    }

    /// The record of these bytes under a row's key.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(row: &[u8], bytes: &[u8]) -> Result<Self, RecordError> {
        let short = RecordError::Short(bytes.len());
        let (said, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
        let ([format, flags], mut rest) = said.split_first_chunk::<2>().ok_or(short)?;
        if *sum != checksum(row, said) {
            return Err(RecordError::Checksum);
        }
        if *format != FORMAT {
            return Err(RecordError::Format(*format));
        }
        if flags & !KNOWN != 0 {
            return Err(RecordError::Flags(*flags));
        }
        let has = |flag: u8| flags & flag != 0;
        let mut header = Header::default();
        if has(INTENT) {
            header.intent = Some(Intent(u128::from_be_bytes(part(&mut rest, "transaction")?)));
        }
        if has(SCHEMA) {
            header.schema = Some(u32::from_be_bytes(part(&mut rest, "schema version")?));
        }
        if has(EXPIRES) {
            header.expires = Some(HybridTime::from_bits(u64::from_be_bytes(part(&mut rest, "expiry")?)));
        }
        if has(SUBJECT) {
            header.subject = Some(subject(&mut rest)?);
        }
        if has(SEALED) {
            header.sealed = Some(Sealed { key: part(&mut rest, "key")?, nonce: part(&mut rest, "nonce")? });
        }
        if has(DELETED) && (!rest.is_empty() || flags & (SCHEMA | EXPIRES | SEALED) != 0) {
            return Err(RecordError::Deletion);
        }
        Ok(Self { header, value: (!has(DELETED)).then(|| rest.to_vec()) })
    }
}

fn part<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], RecordError> {
    let (part, after) = rest.split_first_chunk::<N>().ok_or(RecordError::Part(what))?;
    *rest = after;
    Ok(*part)
}

fn subject(rest: &mut &[u8]) -> Result<Subject, RecordError> {
    let not_whole = RecordError::Part("subject");
    let [length] = part::<1>(rest, "subject")?;
    let (name, after) = rest.split_at_checked(usize::from(length)).ok_or(not_whole)?;
    *rest = after;
    std::str::from_utf8(name).ok().and_then(|name| Subject::new(name).ok()).ok_or(not_whole)
}

/// Of the key as well: a value under a key that is not its own is damage too.
fn checksum(row: &[u8], said: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(row), said).to_be_bytes()
}
