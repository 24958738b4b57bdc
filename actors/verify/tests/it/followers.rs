//! A client that follows a log.

use rhumb_verify::Policy;
use rhumb_verify::checkpoint::nonce_line;
use rhumb_verify::hash::leaf;
use rhumb_verify::light::{Disbelieved, Follower};

use crate::{checkpoint, continued, leaves, log, witness};

fn follower() -> Follower {
    let policy = format!("log {}\nwitness us {}\nquorum us\n", log().key(), witness("us.example").key());
    Follower::new(Policy::parse(&policy).expect("a policy"))
}

#[test]
fn a_log_that_grows_is_followed_and_nothing_else() {
    let mut follower = follower();
    let mut all = leaves(20);
    let note = |count: usize| checkpoint(&leaves(20)[..count], &["us.example"], &[]);
    follower.next(note(5), &[], None).expect("the first is believed");
    follower.next(note(20), &continued(&mut all, 5), None).expect("it grew");
    follower.next(note(20), &[], None).expect("it did not");
    assert!(matches!(follower.next(note(7), &[], None), Err(Disbelieved::Older { believed: 20, got: 7 })));
    // One entry of the past is another: the signatures are right, the proof cannot be.
    let mut rewritten = leaves(25);
    rewritten[3] = leaf(b"never happened");
    let path = continued(&mut rewritten, 20);
    let forged = checkpoint(&rewritten, &["us.example"], &[]);
    let Err(Disbelieved::NotContinued { evidence, .. }) = follower.next(forged.clone(), &path, None) else {
        panic!("a rewritten log is noticed")
    };
    assert_eq!((evidence.believed, evidence.contradicts), (note(20), forged));
    let fork = checkpoint(&rewritten[..20], &["us.example"], &[]);
    assert!(matches!(follower.next(fork, &[], None), Err(Disbelieved::Forked { size: 20, .. })));
    let alone = checkpoint(&leaves(21), &[], &[]);
    assert!(matches!(follower.next(alone, &[], None), Err(Disbelieved::Distrusted(_))));
    assert_eq!(follower.believed(), Some(&note(20)), "what was believed stays so");
}

#[test]
fn a_demand_for_a_fresh_checkpoint_is_met_by_its_nonce_alone() {
    let (mut follower, all) = (follower(), leaves(2));
    let old = checkpoint(&all, &["us.example"], &[nonce_line(b"yesterday")]);
    assert_eq!(follower.next(old.clone(), &[], Some(b"today")), Err(Disbelieved::Stale));
    follower.next(old, &[], Some(b"yesterday")).expect("that was demanded");
}
