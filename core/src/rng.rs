//! Seeded randomness with labelled children: one more draw here shifts nothing there.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng, TryRngCore};
use sha2::{Digest, Sha256};

/// A seed from which labelled children and generators are derived. Equal seeds and labels give equal
/// numbers on every platform (ChaCha8 under SHA-256 derivation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root seed of a number, as printed by a failing simulation.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(Sha256::digest(number.to_be_bytes()).into())
    }

    /// A seed from the operating system's entropy. For shells only.
    ///
    /// # Panics
    /// When the operating system has no entropy to give.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one door through which entropy comes in")]
    pub fn from_entropy() -> Self {
        let mut bytes = [0; 32];
        rand_core::OsRng.unwrap_err().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The child seed of a label.
    #[must_use]
    pub fn child(&self, label: impl AsRef<[u8]>) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(label.as_ref());
        Self(hash.finalize().into())
    }

    /// A generator of this seed.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng(ChaCha8Rng::from_seed(self.0))
    }
}

/// A deterministic generator. Not `Clone`: two readers of one stream are two labelled children.
#[derive(Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits.
    pub fn u128(&mut self) -> u128 {
        (u128::from(self.u64()) << 64) | u128::from(self.u64())
    }

    /// A number in `0..bound` (0 when the bound is 0). Bias below 2⁻³² for bounds below 2³².
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high && high - low < u64::MAX);
        low + self.below(high - low + 1)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// An exponentially distributed number with the given mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// One of the items, or `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_independent_of_each_others_draws() {
        let seed = Seed::new(7);
        let mut a = seed.child("net").rng();
        let first = a.u64();
        let mut b = seed.child("disk").rng();
        for _ in 0..100 {
            b.u64();
        }
        assert_eq!(seed.child("net").rng().u64(), first);
        assert_ne!(seed.child("disk").rng().u64(), first);
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // A changed stream would make every recorded failing seed worthless.
        let mut rng = Seed::new(1).child("x").rng();
        let drawn = [rng.u64(), rng.u64()];
        assert_eq!(drawn, GOLDEN, "the stream changed: {drawn:?}");
    }
    const GOLDEN: [u64; 2] = [2_495_346_364_140_285_107, 8_104_766_775_660_319_963];

    #[test]
    fn below_stays_below() {
        let mut rng = Seed::new(3).rng();
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }
}
