//! Tokens: golden bytes, what is refused, and who serves them.

use std::time::Duration;

use rhumb_core::{ClusterId, Epoch, Guarantee, HybridTime};
use ring::signature::Ed25519KeyPair;

use super::cases::{Case, ask, at, follower, moment, put, refused};
use crate::ranges::lease::{Moment, RangeRefusal};
use crate::ranges::token::{Token, TokenError, TokenKey, TokenKeys};
use crate::ranges::{Ask, Consistency, Elsewhere, ReplicaId};

fn key(cluster: u128, seed: u8) -> TokenKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes");
    TokenKey::new(ClusterId(cluster), pair)
}

const SEEN: Token = Token { epoch: Epoch(3), at: HybridTime::ZERO };

fn seen() -> Token {
    Token { at: HybridTime::from_bits(0x0199_8877_6655_0007), ..SEEN }
}

#[test]
fn a_token_of_any_region_is_read_by_all() {
    let keys = TokenKeys::new(ClusterId(7), [key(7, 1).public(), key(7, 2).public()]);
    for seed in [1, 2] {
        let bytes = key(7, seed).sign(seen());
        assert_eq!(keys.read(&bytes), Ok(seen()));
        assert_eq!(bytes.len(), 85, "it is small");
    }
}

#[test]
fn the_bytes_of_a_token_never_change() {
    let bytes = key(7, 1).sign(seen());
    let said = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0x01, 0x99, 0x88, 0x77, 0x66, 0x55, 0x00, 0x07];
    assert_eq!(bytes[..17], said);
    // Of the public part 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c.
    assert_eq!(bytes[17..21], [0x34, 0x75, 0x0f, 0x98]);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_token_is_refused() {
    let keys = TokenKeys::new(ClusterId(7), [key(7, 1).public()]);
    let bytes = key(7, 1).sign(seen());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.read(&flipped).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(keys.read(&bytes[..cut]), Err(TokenError::Length(cut)));
    }
    assert_eq!(keys.read(&[bytes.as_slice(), b"x"].concat()), Err(TokenError::Length(86)));
}

#[test]
fn another_meshs_token_and_another_formats_are_refused_by_name() {
    let keys = TokenKeys::new(ClusterId(7), [key(7, 1).public()]);
    assert_eq!(keys.read(&key(7, 2).sign(seen())), Err(TokenError::UnknownKey));
    assert_eq!(
        keys.read(&key(8, 1).sign(seen())),
        Err(TokenError::Signature),
        "the same key in another mesh"
    );
    let mut later = key(7, 1).sign(seen());
    later[0] = 2;
    assert_eq!(keys.read(&later), Err(TokenError::Format(2)));
}

#[test]
fn a_token_by_a_key_that_was_replaced_is_refused_by_name_unless_it_is_there_again() {
    let cluster = ClusterId(7);
    let first = TokenKeys::new(cluster, [key(7, 1).public(), key(7, 2).public()]);
    let next = TokenKeys::new(cluster, [key(7, 3).public(), key(7, 2).public()]);
    let next = next.after(&first, [key(7, 1).public()]);
    let old = key(7, 1).sign(seen());
    assert_eq!(first.read(&old), Ok(seen()));
    assert_eq!(next.read(&old), Err(TokenError::Replaced));
    let mut changed = old;
    changed[16] ^= 1;
    assert_eq!(next.read(&changed), Err(TokenError::Signature), "it was never signed so");
    assert_eq!(next.read(&key(7, 4).sign(seen())), Err(TokenError::UnknownKey));
    // It is remembered when other keys follow.
    let third = TokenKeys::new(cluster, [key(7, 3).public(), key(7, 4).public()]);
    let third = third.after(&next, [key(7, 2).public()]);
    assert_eq!([1, 2].map(|seed| third.read(&key(7, seed).sign(seen()))), [Err(TokenError::Replaced); 2]);
    let again = TokenKeys::new(cluster, [key(7, 1).public()]).after(&third, [key(7, 3).public()]);
    assert_eq!(again.read(&old), Ok(seen()));
}

#[test]
fn of_very_many_keys_that_were_replaced_the_latest_are_remembered() {
    let none = TokenKeys::new(ClusterId(7), []);
    let many = (1..=70).fold(none, |before, seed| {
        TokenKeys::new(ClusterId(7), []).after(&before, [key(7, seed).public(), key(7, 1).public()])
    });
    let remembered = |seed| many.read(&key(7, seed).sign(seen())) == Err(TokenError::Replaced);
    assert_eq!((1..=70).filter(|seed| remembered(*seed)).count(), 64);
    assert!(remembered(70) && remembered(1) && !remembered(2), "those that were replaced last");
}

#[test]
fn what_is_seen_with_two_tokens_is_what_either_has_seen() {
    let earlier = Token { epoch: Epoch(2), at: HybridTime::from_bits(9) };
    let both = earlier.and(SEEN);
    assert_eq!(both, Token { epoch: Epoch(3), at: HybridTime::from_bits(9) });
    assert_eq!(both, SEEN.and(earlier));
}

/// An eventual read with this token, and the token that its answer gives.
fn eventually(case: &Case, seen: u64) -> Result<(Option<HybridTime>, HybridTime), Elsewhere> {
    let token = Some(Token { epoch: Epoch(0), at: at(seen) });
    let asked = Ask { token, ..ask("a", Consistency::Eventual) };
    let reading = case.replica.begin(&moment(30), Epoch(0), asked.clone())?;
    let (found, level, _) = case.read(&moment(30), asked)?;
    assert_eq!(level, Guarantee::Eventual);
    Ok((found, case.replica.finish(&moment(30), Epoch(0), reading, ())?.token.at))
}

#[test]
fn whoever_has_applied_what_a_token_stands_for_serves_it_though_it_is_not_closed() {
    let (mut holder, mut follower) = follower();
    assert!(follower.replica.closed() < at(10), "what it has applied is not closed yet");
    assert_eq!(eventually(&follower, 10), Ok((Some(at(10)), at(10))));
    let next = holder.replica.propose_write(&moment(20), put("a")).expect("it holds the lease");
    assert!(matches!(eventually(&follower, 20), Err(Elsewhere::Leaseholder(_))), "it has not come to it");
    follower.apply(&next);
    assert_eq!(eventually(&follower, 20), Ok((Some(at(20)), at(20))));
    // Who was shown it does not read on where it is not there yet.
    let (_, shown) = eventually(&follower, 10).expect("served");
    assert_eq!(shown, at(20));
}

#[test]
fn a_token_that_is_a_little_ahead_of_the_leaseholders_clock_waits_for_it() {
    let case = Case::leaseholder();
    let with =
        |ms| Ask { token: Some(Token { epoch: Epoch(0), at: at(ms) }), ..ask("a", Consistency::Strong) };
    assert_eq!(refused(case.read(&moment(20), with(30))), RangeRefusal::Ahead(at(30)));
    assert!(case.read(&moment(31), with(30)).is_ok());
    // Clocks do not differ by as much as this.
    assert_eq!(refused(case.read(&moment(20), with(521))), RangeRefusal::InTheFuture(at(521)));
}

#[test]
fn a_replica_that_alone_may_be_asked_says_what_is_lacking() {
    let (_, follower) = follower();
    let near = |consistency| Ask {
        token: Some(Token { epoch: Epoch(0), at: at(20) }),
        nearest_only: true,
        ..ask("a", consistency)
    };
    let minute = Consistency::Bounded(Duration::from_secs(60));
    for consistency in [Consistency::Eventual, minute] {
        assert_eq!(refused(follower.read(&moment(30), near(consistency))), RangeRefusal::NotReached(at(20)));
    }
    let frozen = Moment { frozen: true, ..moment(30) };
    assert_eq!(refused(follower.read(&frozen, near(minute))), RangeRefusal::Frozen, "it is not too old");
    let strong = refused(follower.read(&moment(30), near(Consistency::Strong)));
    assert_eq!(strong, RangeRefusal::NotLeaseholder(Some(ReplicaId(0))));
}
