//! Who may set the policy: an operator's Ed25519 key signs the file, every node's settings name the
//! public keys that are accepted. During a rotation both the old and the new one are listed.
//!
//! * It decides: whether these bytes were signed by an accepted key.
//! * It never does: draw entropy (the 32 secret bytes are an argument) or parse what is not signed.
//!
//! The signature covers `rhumb-policy-v1`, a line feed, and the file's bytes as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{MAX_POLICY_BYTES, Policy, PolicyError, PolicyErrors};

/// What is signed begins with this line, so that no signature for another purpose passes for one.
const DOMAIN: &[u8] = b"rhumb-policy-v1\n";
/// The first line of a signature file.
const HEADER: &str = "rhumb-policy-signature-v1";
/// PKCS#8 version 1 of an Ed25519 private key, up to its 32 secret bytes (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why a key was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The text of a public key is not one.
    #[error("an operator's public key is 64 hexadecimal digits, not {0:?}")]
    Public(String),
    /// The bytes of a private key are not one.
    #[error("not an Ed25519 private key in PKCS#8: {0}")]
    Private(String),
}

/// Why a signature was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The signature file is malformed.
    #[error(
        "the policy's signature file is malformed: line {line} should be {want:?}; write it with `rhumb policy sign`"
    )]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What stands there in a good one.
        want: &'static str,
    },
    /// It was signed by a key that is not accepted here.
    #[error("the policy is signed by operator key {key}, which is not accepted here: {accepted}")]
    UnknownKey {
        /// The key it names.
        key: KeyId,
        /// Those that are accepted, for the message.
        accepted: String,
    },
    /// The key is accepted, but did not sign these bytes.
    #[error(
        "the policy's signature by operator key {0} is not over these bytes: the file was changed after it was signed"
    )]
    Forged(KeyId),
}

/// Why a policy file was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyRejected {
    /// Nobody accepted vouches for it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is signed, but has faults.
    #[error(transparent)]
    Text(#[from] PolicyErrors),
}

/// A short name of a public key: the first eight bytes of its SHA-256, as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct KeyId([u8; 8]);

/// An operator's public key, accepted in settings as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorPublicKey([u8; 32]);

/// The public keys that are accepted. None accepted: no policy is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorKeys(BTreeMap<KeyId, OperatorPublicKey>);

/// An operator's private key.
pub struct OperatorKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

/// A policy that an accepted key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    /// The policy.
    pub policy: Policy,
    /// Who signed it.
    pub signed_by: KeyId,
    /// The SHA-256 of its file.
    pub digest: [u8; 32],
}

impl OperatorKey {
    /// The key of 32 secret bytes, which the caller draws from the operating system's entropy.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are an Ed25519 seed");
        Self { pair, seed }
    }

    /// The key of a PKCS#8 document (DER), with or without its public half.
    ///
    /// # Errors
    /// [`KeyError::Private`] when it is none of Ed25519.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let refused = |why: &dyn fmt::Display| KeyError::Private(why.to_string());
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|error| refused(&error))?;
        // The secret stands behind the algorithm in either version of the document.
        let inner = [0x04, 0x22, 0x04, 0x20];
        let at = der.windows(4).position(|four| four == inner).map(|i| i + 4);
        let seed = at.and_then(|i| der.get(i..i + 32)).and_then(|seed| seed.try_into().ok());
        let key = Self::from_seed(seed.ok_or_else(|| refused(&"it has no 32-byte secret"))?);
        if key.pair.public_key().as_ref() != pair.public_key().as_ref() {
            return Err(refused(&"its secret does not stand where it should"));
        }
        Ok(key)
    }

    /// The key as a PKCS#8 document (DER, version 1; `openssl pkey -inform DER` reads it). Secret.
    #[must_use]
    pub fn to_pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.seed].concat()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> OperatorPublicKey {
        let bytes = self.pair.public_key().as_ref().try_into();
        OperatorPublicKey(bytes.expect("an Ed25519 public key has 32 bytes"))
    }

    /// The text of a signature file for a policy file's bytes: three lines, of which the second is
    /// `key` and the signer's [`KeyId`], and the third `signature` and 128 hexadecimal digits.
    #[must_use]
    pub fn sign(&self, policy: &[u8]) -> String {
        let signature = self.pair.sign(&[DOMAIN, policy].concat());
        format!("{HEADER}\nkey {}\nsignature {}\n", self.public().id(), hex(signature.as_ref()))
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({})", self.public().id())
    }
}

impl OperatorPublicKey {
    /// Its short name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let hash: [u8; 32] = Sha256::digest(self.0).into();
        KeyId(std::array::from_fn(|i| hash[i]))
    }
}

impl fmt::Display for OperatorPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for OperatorPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorPublicKey({self})")
    }
}

impl FromStr for OperatorPublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        unhex(text).map(Self).ok_or_else(|| KeyError::Public(text.chars().take(80).collect()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl FromIterator<OperatorPublicKey> for OperatorKeys {
    fn from_iter<I: IntoIterator<Item = OperatorPublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }
}

impl SignedPolicy {
    /// Takes a policy file if one of the accepted keys has signed exactly these bytes. What is not
    /// signed is not parsed.
    ///
    /// # Errors
    /// [`PolicyRejected`] says whether the signature or the text is at fault.
    pub fn verify(bytes: &[u8], signature: &str, keys: &OperatorKeys) -> Result<Self, PolicyRejected> {
        if bytes.len() > MAX_POLICY_BYTES {
            let what = format!("the file has {} bytes: at most {MAX_POLICY_BYTES} are read", bytes.len());
            return Err(one_fault(1, what).into());
        }
        let (id, signature) = parse_signature(signature)?;
        let Some(key) = keys.0.get(&id) else {
            let accepted: Vec<String> = keys.0.keys().map(ToString::to_string).collect();
            let accepted = match accepted.len() {
                0 => "settings accept no operator key".to_owned(),
                _ => format!("settings accept {}", accepted.join(", ")),
            };
            return Err(SignatureError::UnknownKey { key: id, accepted }.into());
        };
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(&[DOMAIN, bytes].concat(), &signature)
            .map_err(|_unspecified| SignatureError::Forged(id))?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            one_fault(line, "the file is not UTF-8 from here on".into())
        })?;
        Ok(Self { policy: Policy::parse(text)?, signed_by: id, digest: Sha256::digest(bytes).into() })
    }
}

fn one_fault(line: usize, what: String) -> PolicyErrors {
    PolicyErrors(vec![PolicyError { line, column: 1, what }])
}

fn parse_signature(text: &str) -> Result<(KeyId, [u8; 64]), SignatureError> {
    let malformed = |line, want| SignatureError::Malformed { line, want };
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(malformed(1, HEADER));
    }
    let id = lines.next().and_then(|line| line.strip_prefix("key ")).and_then(unhex);
    let id = id.ok_or_else(|| malformed(2, "key <16 hexadecimal digits>"))?;
    let signature = lines.next().and_then(|line| line.strip_prefix("signature ")).and_then(unhex);
    let signature = signature.ok_or_else(|| malformed(3, "signature <128 hexadecimal digits>"))?;
    if lines.next().is_some() {
        return Err(malformed(4, "the end of the file"));
    }
    Ok((KeyId(id), signature))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes from lower-case hexadecimal digits.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
