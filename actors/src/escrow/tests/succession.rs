//! Ledgers in a range, in a simulated world: who writes them, what is acknowledged, and what becomes of it when the one
//! who did is lost.

mod world;

use rhumb_core::{HybridTime, NodeId, Ticket};
use rhumb_storage::{Batch, Family};

use self::world::Tally;
use crate::escrow::tenure::{Became, Came, If, Tenure, Want};

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_SUCCESSION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[test]
fn no_unit_is_sold_twice_and_no_acknowledged_hold_is_lost_whoever_writes() {
    let mut sum = Tally::default();
    for seed in 0..seeds() {
        let tally = world::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        sum.add(&tally);
    }
    println!("{sum:?}");
    for count in [sum.lost, sum.successions, sum.deposed, sum.unsettled, sum.late, sum.settled_elsewhere] {
        assert!(count > 10, "the world has not tried it: {sum:?}");
    }
}

#[test]
fn what_the_range_refuses_for_good_is_offered_once_and_ends_the_tenure() {
    let owner: NodeId = "us/n1".parse().expect("a node");
    let seated = || {
        let mut tenure = Tenure::new(owner.clone(), 1);
        assert_eq!(tenure.want(), Some(Want::Look));
        assert_eq!(tenure.came(Came::Head(None)), Became::Same);
        assert!(matches!(tenure.want(), Some(Want::Write { when: If::Absent, .. })));
        tenure
    };
    // As it claims the ledger.
    let (mut claims, why) = (seated(), "it is too large".to_owned());
    assert_eq!(claims.came(Came::Refused(why.clone())), Became::Refused(why.clone()));
    assert_eq!(claims.want(), None);
    // As it writes: neither that batch nor what waits behind it is ever said to be durable.
    let mut writes = seated();
    assert_eq!(writes.came(Came::Written(HybridTime::from_bits(7 << 16))), Became::Seated);
    for ticket in 1..=2 {
        let mut batch = Batch::new();
        batch.put(Family::Escrow, format!("h{ticket}"), "row");
        assert_eq!(writes.offer(Ticket(ticket), batch), None);
    }
    assert!(matches!(writes.want(), Some(Want::Write { .. })));
    assert_eq!(writes.came(Came::Refused(why.clone())), Became::Refused(why));
    assert_eq!(writes.want(), None);
    assert_eq!(writes.came(Came::Written(HybridTime::from_bits(8 << 16))), Became::Same);
}

#[test]
fn one_seed_is_one_story() {
    assert_eq!(world::run(5), world::run(5));
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_succession_is_caught() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rhumb_core::canary::{self, Canary};

    for &bug in Canary::OF_SUCCESSION {
        canary::let_out(Some(bug));
        let caught = (0..200).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| world::run(seed))) {
            Ok(Ok(_)) => None,
            Ok(Err(broken)) => Some((seed, broken)),
            Err(_) => Some((seed, "an assertion of the machine".to_owned())),
        });
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(world::run(seed).err(), None, "seed {seed} is clean without {}", bug.name());
    }
}
