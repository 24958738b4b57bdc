//! What a client has seen, in a word that it carries from one region to another: its next read sees that too.
//!
//! * It decides: the bytes, and whether they are a token of this mesh.
//! * It never does: say anything of keys, values or places. A token is the epoch of the clock and a time, and is opaque to who
//!   carries it.
//! * Invariant: a token that nobody of the mesh has signed is refused, with the reason. One that was made up could ask for
//!   nothing worse than a read at the leaseholder.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 1 |
//! | 8 | epoch of the clock, big-endian |
//! | 8 | hybrid time, big-endian |
//! | 4 | which key: the first bytes of the SHA-256 of its public part |
//! | 64 | Ed25519 over `rhumb token 1`, a zero, the cluster id and the 21 bytes above |

use std::collections::{BTreeMap, VecDeque};

use rhumb_core::{ClusterId, Epoch, HybridTime};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const FORMAT: u8 = 1;
const SAID: usize = 21;
const SIGNED: usize = SAID + 64;

/// What a client has seen: all up to this time, in this epoch of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The epoch of the clock of who says so. A later one tells the client that the clock was reset. Hybrid time goes on rising then, so that
    /// of two tokens the one of the later time has seen what the other has, whatever their epochs.
    pub epoch: Epoch,
    /// The time.
    pub at: HybridTime,
}

impl Token {
    /// What is seen with both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { epoch: self.epoch.max(other.epoch), at: self.at.max(other.at) }
    }
}

/// A token as a client carries it.
pub type SignedToken = [u8; SIGNED];

/// Why bytes are no token of this mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is not as long as tokens are.
    #[error("a token has {SIGNED} bytes, and this one {0}: it was cut, or is something else")]
    Length(usize),
    /// A later build made it.
    #[error("the token's format is {0}, and this build reads {FORMAT}: ask a node of a later build")]
    Format(u8),
    /// It is signed by a key in whose place its node has another one since.
    #[error(
        "the token is signed with a key that its node has replaced since: read without it, and go on with the token of that answer"
    )]
    Replaced,
    /// No node's key is this one, as far as is known here.
    #[error(
        "the token is signed with a key that is not known here: it is of a node that has just joined and will be known in a moment, or another \
         mesh's, or of a node that has had another key for long; if it is still refused after some seconds, read without it"
    )]
    UnknownKey,
    /// It is not what was signed.
    #[error("the token's signature does not fit: it was changed, or is another mesh's")]
    Signature,
}

/// A node's key, with which it signs tokens. A region has none of its own: see `docs/decisions/0074`.
#[derive(Debug)]
pub struct TokenKey {
    cluster: ClusterId,
    pair: Ed25519KeyPair,
}

impl TokenKey {
    /// A node's key in a mesh.
    #[must_use]
    pub fn new(cluster: ClusterId, pair: Ed25519KeyPair) -> Self {
        Self { cluster, pair }
    }

    /// The key of these secret bytes.
    ///
    /// # Panics
    /// Never: all 32 bytes are a key.
    #[must_use]
    pub fn from_seed(cluster: ClusterId, seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("all 32 bytes are a key");
        Self::new(cluster, pair)
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A token, signed.
    #[must_use]
    pub fn sign(&self, token: Token) -> SignedToken {
        let mut bytes = [0; SIGNED];
        bytes[0] = FORMAT;
        bytes[1..9].copy_from_slice(&token.epoch.0.to_be_bytes());
        bytes[9..17].copy_from_slice(&token.at.to_bits().to_be_bytes());
        bytes[17..SAID].copy_from_slice(&short(&self.public()));
        let signature = self.pair.sign(&signed(self.cluster, &bytes[..SAID]));
        bytes[SAID..].copy_from_slice(signature.as_ref());
        bytes
    }
}

/// How many keys are remembered that nodes had before.
const MAX_REPLACED: usize = 64;

/// Whose tokens are believed.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    cluster: ClusterId,
    keys: BTreeMap<[u8; 4], Vec<u8>>,
    /// Those that nodes had before: a token by one is not believed, and its bearer is told why.
    replaced: VecDeque<([u8; 4], Vec<u8>)>,
}

impl TokenKeys {
    /// The public keys of a mesh's nodes; of a node whose key is being replaced both.
    #[must_use]
    pub fn new(cluster: ClusterId, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { cluster, keys: numbered(keys).collect(), replaced: VecDeque::new() }
    }

    /// These keys, in place of those that `before` had. Nodes have had others in place of these `replaced` ones since: the latest of all that were
    /// replaced are remembered.
    #[must_use]
    pub fn after(self, before: &Self, replaced: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut all = before.replaced.clone();
        for (number, key) in numbered(replaced) {
            all.retain(|(known, _)| *known != number);
            all.push_back((number, key));
        }
        all.drain(..all.len().saturating_sub(MAX_REPLACED));
        Self { replaced: all, ..self }
    }

    /// The token of these bytes.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self, bytes: &[u8]) -> Result<Token, TokenError> {
        let bytes: &SignedToken = bytes.try_into().map_err(|_| TokenError::Length(bytes.len()))?;
        if bytes[0] != FORMAT {
            return Err(TokenError::Format(bytes[0]));
        }
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
        let number = &bytes[17..SAID];
        // A node may have a former key again.
        let replaced = || self.replaced.iter().find(|(known, _)| known == number);
        let (key, is_present) = match self.keys.get(number) {
            Some(key) => (key, true),
            None => (&replaced().ok_or(TokenError::UnknownKey)?.1, false),
        };
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&signed(self.cluster, &bytes[..SAID]), &bytes[SAID..])
            .map_err(|_| TokenError::Signature)?;
        if !is_present {
            return Err(TokenError::Replaced);
        }
        Ok(Token { epoch: Epoch(word(1)), at: HybridTime::from_bits(word(9)) })
    }
}

fn numbered(keys: impl IntoIterator<Item = Vec<u8>>) -> impl Iterator<Item = ([u8; 4], Vec<u8>)> {
    keys.into_iter().map(|key| (short(&key), key))
}

fn signed(cluster: ClusterId, said: &[u8]) -> Vec<u8> {
    [b"rhumb token 1\0".as_slice(), &cluster.0.to_be_bytes(), said].concat()
}

fn short(public: &[u8]) -> [u8; 4] {
    let digest = Sha256::digest(public);
    [digest[0], digest[1], digest[2], digest[3]]
}
