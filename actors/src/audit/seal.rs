//! Bodies and keys, sealed: a record and its salt under its subject's key, that key under the wrapping key of a
//! jurisdiction.
//!
//! ```text
//! body     0   1  version, 1
//!          1  16  the id of the subject's key
//!          17     ChaCha20-Poly1305 of the salt (32 bytes) and the record
//! wrapped  0   1  version, 1
//!          1   4  generation of the wrapping key (big-endian)
//!          5   1  length of the jurisdiction's name
//!          6   n  the jurisdiction's name
//!                 ChaCha20-Poly1305 of the subject's key (32 bytes) and the subject
//! ```
//!
//! Each is encrypted under a key of its own, HMAC-SHA256 of the entry's commitment (of the id, for a wrapped
//! key) under the key above it, and so with nonce 0: nothing is counted, and no random nonce can come twice.
//! What stands before the ciphertext is authenticated with it, and so is the commitment (the id).
//!
//! * It decides: the bytes.
//! * It never does: draw a key or a salt, keep a key longer than it needs it, or print one.

use std::fmt;

use rhumb_verify::Hash;
use rhumb_verify::record::{SALT, commitment};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const KEY: usize = 32;
const TAG: usize = 16;
const BODY_HEAD: usize = 1 + 16;

/// Names the key of a subject, and says nothing of who that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A secret key, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Zeroizing<[u8; KEY]>);

impl SecretKey {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// The key for one thing alone.
    fn only_for(&self, what: &[u8], of: &[u8]) -> LessSafeKey {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0[..]));
        context.update(what);
        context.update(of);
        let key = UnboundKey::new(&CHACHA20_POLY1305, context.sign().as_ref());
        LessSafeKey::new(key.expect("a hash of 32 bytes is a key of this cipher"))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Why something sealed cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unopened {
    /// It is too short, or of another version.
    #[error("it is not sealed as this version seals: {0} bytes")]
    Form(usize),
    /// It was changed, or is of another entry or key.
    #[error("it was changed, or was sealed under another key or for another entry")]
    Changed,
}

fn lock(key: &LessSafeKey, head: &[u8], of: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
    let (nonce, aad) = (Nonce::assume_unique_for_key([0; 12]), Aad::from([head, of].concat()));
    key.seal_in_place_append_tag(nonce, aad, &mut bytes).expect("far shorter than the cipher's limit");
    bytes
}

fn unlock(key: &LessSafeKey, head: &[u8], of: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let (nonce, aad) = (Nonce::assume_unique_for_key([0; 12]), Aad::from([head, of].concat()));
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = key.open_in_place(nonce, aad, &mut bytes).map_err(|_| Unopened::Changed)?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// Seals a record for its subject. Gives what the entry commits to, and the body.
#[must_use]
pub fn seal(key: &SecretKey, id: KeyId, salt: &[u8; SALT], record: &[u8]) -> (Hash, Vec<u8>) {
    let commitment = commitment(salt, record);
    let head = [&[VERSION][..], &id.0].concat();
    let only = key.only_for(b"rhumb body\n", &commitment.0);
    let sealed = lock(&only, &head, &commitment.0, [&salt[..], record].concat());
    (commitment, [head, sealed].concat())
}

/// Under whose key a body is sealed.
///
/// # Errors
/// [`Unopened::Form`].
pub fn sealed_under(body: &[u8]) -> Result<KeyId, Unopened> {
    let known = body.len() >= BODY_HEAD + SALT + TAG && body[0] == VERSION;
    let id = body.get(1..BODY_HEAD).filter(|_| known).and_then(|id| id.try_into().ok());
    id.map(KeyId).ok_or(Unopened::Form(body.len()))
}

/// The record of an entry, and its salt.
pub type Opened = ([u8; SALT], Zeroizing<Vec<u8>>);

/// Opens the body of the entry that commits to this.
///
/// # Errors
/// [`Unopened`].
pub fn open(key: &SecretKey, commits_to: &Hash, body: &[u8]) -> Result<Opened, Unopened> {
    sealed_under(body)?;
    let (head, sealed) = body.split_at(BODY_HEAD);
    let opened = unlock(&key.only_for(b"rhumb body\n", &commits_to.0), head, &commits_to.0, sealed)?;
    let (salt, record) = opened.split_first_chunk::<SALT>().ok_or(Unopened::Changed)?;
    if commitment(salt, record) != *commits_to {
        return Err(Unopened::Changed);
    }
    Ok((*salt, Zeroizing::new(record.to_vec())))
}

/// Seals a value that stands in one place alone. `place` is all that is said of it in the clear, with what was drawn for
/// this one writing: two values of one place would have one key and one nonce.
#[must_use]
pub fn seal_value(key: &SecretKey, place: &[u8], value: Vec<u8>) -> Vec<u8> {
    lock(&key.only_for(b"rhumb value\n", place), b"", place, value)
}

/// Opens the value of this place.
///
/// # Errors
/// [`Unopened::Changed`]: it was changed, or belongs under another key or in another place.
pub fn open_value(key: &SecretKey, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    unlock(&key.only_for(b"rhumb value\n", place), b"", place, sealed)
}

/// Which wrapping key: of which jurisdiction, and the how manieth of its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrappedBy {
    /// The jurisdiction's name, of 1 to 255 bytes.
    pub jurisdiction: String,
    /// Counts its keys from 1.
    pub generation: u32,
}

impl WrappedBy {
    fn head(&self) -> Vec<u8> {
        let length = u8::try_from(self.jurisdiction.len()).expect("a jurisdiction's name is short");
        let mut head = vec![VERSION];
        head.extend(self.generation.to_be_bytes());
        head.push(length);
        head.extend(self.jurisdiction.as_bytes());
        head
    }

    fn of(wrapped: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (version, rest) = wrapped.split_first()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first()?;
        let (name, sealed) = rest.split_at_checked(usize::from(*length))?;
        let jurisdiction = std::str::from_utf8(name).ok().filter(|_| *version == VERSION)?.to_owned();
        let by = Self { jurisdiction, generation: u32::from_be_bytes(*generation) };
        Some((by, &wrapped[..wrapped.len() - sealed.len()], sealed))
    }
}

/// Wraps a subject's key.
///
/// # Panics
/// When the jurisdiction's name has more than 255 bytes.
#[must_use]
pub fn wrap(wrapping: &SecretKey, by: &WrappedBy, id: KeyId, key: &SecretKey, subject: &str) -> Vec<u8> {
    let head = by.head();
    let only = wrapping.only_for(b"rhumb wrapped key\n", &id.0);
    let sealed = lock(&only, &head, &id.0, [&key.bytes()[..], subject.as_bytes()].concat());
    [head, sealed].concat()
}

/// By which key a key is wrapped.
///
/// # Errors
/// [`Unopened::Form`].
pub fn wrapped_by(wrapped: &[u8]) -> Result<WrappedBy, Unopened> {
    let parts = WrappedBy::of(wrapped).filter(|(.., sealed)| sealed.len() >= KEY + TAG);
    parts.map(|(by, ..)| by).ok_or(Unopened::Form(wrapped.len()))
}

/// Unwraps a subject's key. Gives it and the subject.
///
/// # Errors
/// [`Unopened`].
pub fn unwrap(wrapping: &SecretKey, id: KeyId, wrapped: &[u8]) -> Result<(SecretKey, String), Unopened> {
    let (_, head, sealed) = WrappedBy::of(wrapped).ok_or(Unopened::Form(wrapped.len()))?;
    let opened = unlock(&wrapping.only_for(b"rhumb wrapped key\n", &id.0), head, &id.0, sealed)?;
    let (key, subject) = opened.split_first_chunk::<KEY>().ok_or(Unopened::Changed)?;
    let subject = std::str::from_utf8(subject).map_err(|_| Unopened::Changed)?;
    Ok((SecretKey::new(*key), subject.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by(generation: u32) -> WrappedBy {
        WrappedBy { jurisdiction: "eu".into(), generation }
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_by_its_key_alone_and_only_unchanged(
            key: [u8; 32], other: [u8; 32], id: [u8; 16], salt: [u8; SALT],
            record in prop::collection::vec(any::<u8>(), 0..200), flip: prop::sample::Index,
        ) {
            let (key, other) = (SecretKey::new(key), SecretKey::new(other));
            let (commits_to, body) = seal(&key, KeyId(id), &salt, &record);
            prop_assert_eq!(sealed_under(&body), Ok(KeyId(id)));
            let (opened_salt, opened) = open(&key, &commits_to, &body).expect("its own");
            prop_assert_eq!((opened_salt, opened.as_slice()), (salt, record.as_slice()));
            prop_assert!(key == other || open(&other, &commits_to, &body) == Err(Unopened::Changed));
            let mut changed = body.clone();
            changed[flip.index(body.len())] ^= 1;
            prop_assert!(open(&key, &commits_to, &changed).is_err());
            let (elsewhere, _) = seal(&key, KeyId(id), &[salt[0].wrapping_add(1); SALT], b"another");
            prop_assert_eq!(open(&key, &elsewhere, &body), Err(Unopened::Changed));
        }

        #[test]
        fn a_wrapped_key_is_unwrapped_by_its_generation_alone_and_only_unchanged(
            wrapping: [u8; 32], other: [u8; 32], id: [u8; 16], key: [u8; 32], subject in "\\PC{0,40}",
            flip: prop::sample::Index,
        ) {
            let (wrapping, other) = (SecretKey::new(wrapping), SecretKey::new(other));
            let wrapped = wrap(&wrapping, &by(7), KeyId(id), &SecretKey::new(key), &subject);
            prop_assert_eq!(wrapped_by(&wrapped), Ok(by(7)));
            let whole = (SecretKey::new(key), subject.clone());
            prop_assert_eq!(unwrap(&wrapping, KeyId(id), &wrapped), Ok(whole));
            prop_assert!(wrapping == other || unwrap(&other, KeyId(id), &wrapped) == Err(Unopened::Changed));
            let mut changed = wrapped.clone();
            changed[flip.index(wrapped.len())] ^= 1;
            prop_assert!(unwrap(&wrapping, KeyId(id), &changed).is_err());
        }

        #[test]
        fn bytes_from_anywhere_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let key = SecretKey::new([7; 32]);
            prop_assert!(open(&key, &commitment(&[0; SALT], b""), &bytes).is_err());
            prop_assert!(unwrap(&key, KeyId([0; 16]), &bytes).is_err());
            wrapped_by(&bytes).ok();
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", SecretKey::new([3; 32])), "SecretKey(..)");
    }
}
