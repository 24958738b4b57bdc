//! Tokens, signed and read: a signature is dear, and what was seen is often what was seen a moment ago.
//!
//! * It never does: believe a token of which it has not checked these very bytes under the present keys.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_actors::ranges::token::{SignedToken, TokenError};
use rhumb_actors::ranges::{Token, TokenKey, TokenKeys};

/// Tokens that are remembered, signed or read: what was not asked for among the last so many is forgotten.
const REMEMBERED: usize = 1_024;

/// What was computed lately. The older half goes when the younger one is full.
#[derive(Debug)]
struct Lately<K, V> {
    younger: BTreeMap<K, V>,
    older: BTreeMap<K, V>,
}

impl<K, V> Default for Lately<K, V> {
    fn default() -> Self {
        Self { younger: BTreeMap::new(), older: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V: Copy> Lately<K, V> {
    fn find(&mut self, key: &K) -> Option<V> {
        if let Some(found) = self.younger.get(key) {
            return Some(*found);
        }
        let found = self.older.remove(key)?;
        self.keep(*key, found);
        Some(found)
    }

    fn keep(&mut self, key: K, value: V) {
        if self.younger.len() >= REMEMBERED / 2 {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, value);
    }
}

/// A node's tokens.
pub(super) struct Tokens {
    key: TokenKey,
    keys: ArcSwap<TokenKeys>,
    signed: Mutex<Lately<(u64, u64), SignedToken>>,
    read: Mutex<Lately<SignedToken, Token>>,
}

impl Tokens {
    /// Those of a node that signs with this key and believes it alone.
    pub(super) fn new(key: TokenKey, keys: TokenKeys) -> Self {
        Self { key, keys: ArcSwap::from_pointee(keys), signed: Mutex::default(), read: Mutex::default() }
    }

    /// The public part of the key.
    pub(super) fn public(&self) -> Vec<u8> {
        self.key.public()
    }

    /// Believes these keys from now on, and no others. Nodes had the replaced ones before, and have others since.
    pub(super) fn believe(&self, keys: TokenKeys, replaced: impl IntoIterator<Item = Vec<u8>>) {
        // What was read under the old keys is read again. Whoever reads holds the lock, and keeps nothing across this.
        let mut read = self.read.lock();
        let keys = keys.after(&self.keys.load(), replaced);
        self.keys.store(keys.into());
        *read = Lately::default();
    }

    /// A token, signed.
    pub(super) fn sign(&self, token: Token) -> SignedToken {
        let what = (token.epoch.0, token.at.to_bits());
        let mut signed = self.signed.lock();
        if let Some(known) = signed.find(&what) {
            return known;
        }
        let fresh = self.key.sign(token);
        signed.keep(what, fresh);
        fresh
    }

    /// The token of these bytes.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Token, TokenError> {
        let whole: Option<&SignedToken> = bytes.try_into().ok();
        let mut read = self.read.lock();
        if let Some(known) = whole.and_then(|whole| read.find(whole)) {
            return Ok(known);
        }
        let token = self.keys.load().read(bytes)?;
        if let Some(whole) = whole {
            read.keep(*whole, token);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{ClusterId, Epoch, HybridTime};

    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn token(at: u64) -> Token {
        Token { epoch: Epoch(1), at: HybridTime::from_bits(at) }
    }

    fn tokens() -> Tokens {
        let key = TokenKey::from_seed(CLUSTER, &[1; 32]);
        let keys = TokenKeys::new(CLUSTER, [key.public()]);
        Tokens::new(key, keys)
    }

    #[test]
    fn what_is_remembered_is_what_would_be_computed() {
        let tokens = tokens();
        let plain = TokenKey::from_seed(CLUSTER, &[1; 32]);
        for round in 0..2 {
            for at in 0..3 * REMEMBERED as u64 {
                let signed = tokens.sign(token(at % 700));
                assert_eq!(signed, plain.sign(token(at % 700)), "round {round}, {at}");
                assert_eq!(tokens.read(&signed), Ok(token(at % 700)));
            }
        }
        assert!(tokens.read.lock().younger.len() <= REMEMBERED / 2);
    }

    #[test]
    fn a_changed_token_is_refused_also_when_the_whole_one_is_remembered() {
        let tokens = tokens();
        let signed = tokens.sign(token(5));
        assert_eq!(tokens.read(&signed), Ok(token(5)));
        for at in 0..signed.len() {
            let mut changed = signed;
            changed[at] ^= 1;
            assert!(tokens.read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(tokens.read(&signed[1..]), Err(TokenError::Length(signed.len() - 1)));
    }

    #[test]
    fn what_was_read_under_a_key_is_not_believed_without_it() {
        let tokens = tokens();
        let signed = tokens.sign(token(5));
        assert_eq!(tokens.read(&signed), Ok(token(5)));
        let other = TokenKeys::new(CLUSTER, [TokenKey::from_seed(CLUSTER, &[2; 32]).public()]);
        tokens.believe(other.clone(), []);
        assert_eq!(tokens.read(&signed), Err(TokenError::UnknownKey));
        tokens.believe(other.clone(), [tokens.public()]);
        tokens.believe(other, []);
        assert_eq!(tokens.read(&signed), Err(TokenError::Replaced), "and it is remembered");
    }
}
