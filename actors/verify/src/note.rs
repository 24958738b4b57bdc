//! Signed notes (`c2sp.org/signed-note`), with Ed25519 signatures and Ed25519 cosignatures
//! (`c2sp.org/tlog-cosignature`, version 1).
//!
//! * It decides: whether bytes are a note, and whether a key has signed it.
//! * It never does: trust a text without a key that was given from outside, or fail because of signatures
//!   of others.
//! * Invariant: a signature that claims a known key's name and id and does not verify condemns the note.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use thiserror::Error;

use crate::hash::sha256;

/// Bytes of a note at most.
pub const MAX_NOTE: usize = 256 << 10;
/// Signatures that a note may carry.
pub const MAX_SIGNATURES: usize = 64;
/// Bytes of a key's name at most.
pub const MAX_NAME: usize = 255;

/// What a signature is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// Ed25519 over the text.
    Ed25519 = 0x01,
    /// Ed25519 over `cosignature/v1`, a time and the text: a log witness's.
    Cosignature = 0x04,
}

/// Why bytes are no note.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoNote {
    /// Too long.
    #[error("a note of {0} bytes, more than {MAX_NOTE}")]
    TooLong(usize),
    /// Too many signatures.
    #[error("a note with {0} signatures, more than {MAX_SIGNATURES}")]
    TooMany(usize),
    /// Control characters.
    #[error("a note has no control characters but the ends of lines")]
    Control,
    /// No empty line between text and signatures.
    #[error("a note has an empty line between its text and its signatures")]
    NoSignatures,
    /// A line that is no signature.
    #[error("{0:?} is no signature line: \"— NAME BASE64\"")]
    Line(String),
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key that it claims to be of.
    pub name: String,
    /// That key's id.
    pub id: u32,
    /// What follows the id.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    /// The line, with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id.to_be_bytes()[..], &self.bytes].concat();
        writeln!(f, "— {} {}", self.name, BASE64_STANDARD.encode(bytes))
    }
}

impl FromStr for Signature {
    type Err = NoNote;

    fn from_str(line: &str) -> Result<Self, NoNote> {
        let read = || {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = BASE64_STANDARD.decode(signature).ok()?;
            let (id, bytes) = bytes.split_first_chunk::<4>()?;
            let fits = is_name(name) && !bytes.is_empty();
            fits.then(|| Self { name: name.to_owned(), id: u32::from_be_bytes(*id), bytes: bytes.to_vec() })
        };
        read().ok_or_else(|| NoNote::Line(line.chars().take(80).collect()))
    }
}

/// A text and signatures that claim to be of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its last end of line.
    pub text: String,
    /// Whoever claims to have signed it.
    pub signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note. Nothing of it is trusted by that.
    ///
    /// # Errors
    /// [`NoNote`].
    pub fn parse(note: &str) -> Result<Self, NoNote> {
        if note.len() > MAX_NOTE {
            return Err(NoNote::TooLong(note.len()));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoNote::Control);
        }
        let end = note.rfind("\n\n").ok_or(NoNote::NoSignatures)?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoNote::NoSignatures)?;
        let count = lines.split('\n').count();
        if count > MAX_SIGNATURES {
            return Err(NoNote::TooMany(count));
        }
        let signatures = lines.split('\n').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// A text that is no verifier key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoKey {
    /// Not three parts, or not what they should be.
    #[error("{0:?} is no verifier key: NAME+ID+BASE64 with an Ed25519 key of type 1 or 4")]
    Form(String),
    /// Its id is not that of its name and key.
    #[error("the verifier key of {name} says id {said:08x}, and its name and key have {computed:08x}")]
    Id {
        /// Whose.
        name: String,
        /// What it says.
        said: u32,
        /// What it should say.
        computed: u32,
    },
}

/// A signature of a known key that does not verify.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the signature of {0} does not verify: the note was changed, or is not of that key")]
pub struct Forged(pub String);

/// Somebody's public key, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name: of a log its origin, of a log witness its own.
    pub name: String,
    /// What it signs.
    pub algorithm: Algorithm,
    /// Ed25519, as in RFC 8032.
    pub public: [u8; 32],
}

/// What a key's signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// When it was given, in seconds since the Unix epoch; cosignatures have that.
    pub at: Option<u64>,
}

impl Key {
    /// The id: the first bytes of a hash of name, type and key.
    #[must_use]
    pub fn id(&self) -> u32 {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[self.algorithm as u8], &self.public]);
        u32::from_be_bytes(*hash.0.first_chunk().expect("a hash is longer"))
    }

    /// What this key says of a note; `None` if it has not signed it.
    ///
    /// # Errors
    /// [`Forged`].
    pub fn verify(&self, note: &Note) -> Result<Option<Signed>, Forged> {
        let (id, mut signed) = (self.id(), None);
        for signature in note.signatures.iter().filter(|s| s.name == self.name && s.id == id) {
            signed = Some(self.check(&note.text, &signature.bytes).ok_or_else(|| Forged(self.name.clone()))?);
        }
        Ok(signed)
    }

    fn check(&self, text: &str, signature: &[u8]) -> Option<Signed> {
        let (at, message, signature) = match self.algorithm {
            Algorithm::Ed25519 => (None, text.to_owned(), signature),
            Algorithm::Cosignature => {
                let (at, signature) = signature.split_first_chunk::<8>()?;
                let at = u64::from_be_bytes(*at);
                (Some(at).filter(|at| i64::try_from(*at).is_ok()), cosigned(at, text), signature)
            }
        };
        if self.algorithm == Algorithm::Cosignature && at.is_none() {
            return None;
        }
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        key.verify(message.as_bytes(), signature).ok().map(|()| Signed { at })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = [&[self.algorithm as u8][..], &self.public].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id(), BASE64_STANDARD.encode(material))
    }
}

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (id, material) = rest.split_once('+')?;
            let hex = id.len() == 8 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let said = u32::from_str_radix(id, 16).ok().filter(|_| hex && is_name(name))?;
            let material = BASE64_STANDARD.decode(material).ok()?;
            let (algorithm, public) = material.split_first()?;
            let algorithm = match algorithm {
                0x01 => Algorithm::Ed25519,
                0x04 => Algorithm::Cosignature,
                _ => return None,
            };
            Some((Self { name: name.to_owned(), algorithm, public: public.try_into().ok()? }, said))
        };
        let (key, said) = read().ok_or_else(|| NoKey::Form(text.chars().take(160).collect()))?;
        let computed = key.id();
        if said == computed { Ok(key) } else { Err(NoKey::Id { name: key.name, said, computed }) }
    }
}

/// Signs notes.
pub struct Signer {
    key: Key,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key)
    }
}

impl Signer {
    /// A signer of this name.
    ///
    /// # Panics
    /// When the name is not one: empty, with white space or a plus, or over [`MAX_NAME`] bytes.
    #[must_use]
    pub fn new(name: &str, algorithm: Algorithm, pair: Ed25519KeyPair) -> Self {
        assert!(is_name(name), "{name:?} cannot be the name of a key");
        let public = pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
        Self { key: Key { name: name.to_owned(), algorithm, public }, pair }
    }

    /// Its public side.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its signature of a text. A cosignature says that it was given then, in seconds since the Unix epoch.
    #[must_use]
    pub fn sign(&self, text: &str, at: u64) -> Signature {
        let bytes = match self.key.algorithm {
            Algorithm::Ed25519 => self.pair.sign(text.as_bytes()).as_ref().to_vec(),
            Algorithm::Cosignature => {
                let signature = self.pair.sign(cosigned(at, text).as_bytes());
                [&at.to_be_bytes()[..], signature.as_ref()].concat()
            }
        };
        Signature { name: self.key.name.clone(), id: self.key.id(), bytes }
    }
}

fn cosigned(at: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {at}\n{text}")
}

/// Whether a key may be called so.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.chars().any(|c| c.is_whitespace() || c == '+' || c < ' ')
}
