//! The known bugs of this machine, let out one by one: a story must notice each. Compiled where the
//! feature `canaries` is on; the simulator of the test rooms hunts the same ones through faults.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rhumb_core::canary::{self, Canary};

use super::check;
use super::disks::RESTORED_VOUCHER;
use super::levelling::{ONE_DEMAND, REFUSED_IS_NO_DEMAND};
use super::terms::{RETURN_AFTER_ATTESTATION, TAIL_THAT_STAYS};

fn caught(bug: Canary, story: &str) {
    check(story);
    canary::let_out(Some(bug));
    let outcome = catch_unwind(AssertUnwindSafe(|| check(story)));
    canary::let_out(None);
    assert!(outcome.is_err(), "{} sings, and the story does not notice", bug.name());
}

/// Rights move twice from us to eu, and what was said is said again.
const MOVES: &str = r"
    mint concert 100 weights=us:1
    hold h1 eu 10   -> held at eu
    tick 1s
    hold h2 eu 20   -> held at eu
    tick 30s
    restart us
    tick 30s
    show us         -> available=70 granted-eu=30
    show eu         -> held=30 accepted-us=30";

#[test]
fn a_grant_that_is_added_is_noticed() {
    caught(Canary::ReceiverAdds, MOVES);
}

#[test]
fn a_grant_that_overwrites_is_noticed() {
    // An older word of us arrives after a newer one.
    caught(
        Canary::ReceiverOverwrites,
        r"
        mint concert 100 weights=us:1
        hold h1 eu 10   -> held at eu
        latency 3s
        heal us eu
        latency 10ms
        hold h2 eu 20
        tick 5s         -> held at eu
        show eu         -> accepted-us=30",
    );
}

#[test]
fn a_donor_that_does_not_look_is_noticed() {
    caught(
        Canary::GrantWithoutCheck,
        r"
        mint concert 100 weights=us:1
        hold h1 us 90   -> held at us
        hold h2 eu 20   -> exhausted
        show us         -> available=0 held=90",
    );
}

#[test]
fn a_donor_that_takes_back_is_noticed() {
    caught(
        Canary::DonorTakesBack,
        r"
        mint concert 100 weights=us:1
        latency 100ms
        tick 1s
        hold h1 eu 20
        # The grant is on its way when somebody else asks the donor.
        tick 150ms
        hold h2 us 1    -> held at us
        tick 1s         -> held at eu
        show us         -> available=79 granted-eu=20
        show eu         -> held=20",
    );
}

#[test]
fn holds_that_stay_available_are_noticed() {
    caught(
        Canary::HoldsNotSubtracted,
        r"
        mint concert 100 weights=us:1
        hold h1 us 60   -> held at us
        hold h2 us 60   -> exhausted",
    );
}

#[test]
fn units_that_come_back_twice_are_noticed() {
    caught(
        Canary::DoubleCreditOnExpiry,
        r"
        mint concert 100 weights=us:1
        hold h1 us 60 ttl=1s   -> held at us
        tick 2s                -> expired h1
        show us                -> available=100",
    );
}

#[test]
fn minting_twice_is_noticed() {
    caught(Canary::MintTwice, "mint concert 100\nmint concert 100\nshow us -> minted=100");
}

#[test]
fn calling_the_unreachable_sold_out_is_noticed() {
    caught(
        Canary::SoldOutForUnreachable,
        r"
        tail 10
        mint concert 25
        tick 1s
        cut us ap
        hold h1 ap 1    -> unreachable",
    );
    caught(
        Canary::SoldOutForUnreachable,
        r"
        mint concert 30
        cut us ap
        cut eu ap
        hold h1 ap 10   -> held at ap
        hold h2 ap 1    -> exhausted",
    );
}

#[test]
fn an_old_key_that_runs_again_is_noticed() {
    caught(
        Canary::ExpiredKeyRunsAgain,
        r"
        mint concert 100 weights=us:1
        hold h1 us 4 ttl=1s   -> held at us
        tick 25h              -> expired h1
        again h1 us           -> key_expired",
    );
}

#[test]
fn a_restored_disk_that_spends_is_noticed() {
    caught(
        Canary::RestoredDiskSpends,
        r"
        mint concert 90
        tick 2s
        copy us
        hold h1 us 30   -> held at us
        tick 2s
        restore us
        hold h2 us 30   -> restored",
    );
}

#[test]
fn a_donor_that_gives_what_it_has_not_is_noticed() {
    caught(
        Canary::PushWithoutCheck,
        r"
        levels push
        foresee
        mint concert 300 weights=us:1,ap:0
        hold h1 ap 10   -> held at ap
        tick 2s
        hold h2 ap 10   -> held at ap
        tick 2s
        show us         -> false=0",
    );
}

/// What [`caught`] shows of the world's own audit, for the reconciliation alone: the world looks away.
fn revealed(bug: Canary, story: &str, drift: &str) {
    let run = |audited: bool| {
        let mut world = super::world::World::new();
        world.audited = audited;
        story
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .flat_map(|line| world.run(line))
            .collect()
    };
    let sound: Vec<String> = run(true);
    assert!(!sound.iter().any(|event| event.starts_with("alarm")), "{sound:?}");
    canary::let_out(Some(bug));
    let broken: Vec<String> = run(false);
    canary::let_out(None);
    assert!(broken.iter().any(|event| event == drift), "{} sings: {broken:?}", bug.name());
}

#[test]
fn a_reconciliation_reveals_units_that_came_back_twice() {
    revealed(
        Canary::DoubleCreditOnExpiry,
        r"
        reconcile 5s
        mint concert 90
        hold h1 eu 12 ttl=1s
        tick 20s",
        "alarm 12",
    );
}

#[test]
fn a_reconciliation_reveals_units_that_were_minted_twice() {
    revealed(
        Canary::MintTwice,
        r"
        reconcile 5s
        mint concert 100
        mint concert 100
        tick 10s",
        "alarm 100",
    );
}

#[test]
fn debt_that_is_forgotten_is_noticed() {
    caught(
        Canary::DebtForgotten,
        r"
        mint concert 2 weights=us:1 debt=2
        hold h1 us 4   -> held at us, 2 on debt
        hold h2 us 1   -> exhausted",
    );
}

#[test]
fn a_return_that_is_booked_twice_is_noticed() {
    caught(
        Canary::ReturnTwice,
        r"
        mint concert 10 weights=us:1
        hold h1 us 4    -> held at us
        confirm h1      -> sold 4
        return h1 2     -> returned 2, 2 left
        return h1 2     -> returned 2, 2 left",
    );
}

#[test]
fn a_reserve_that_is_sold_at_its_holder_is_noticed() {
    caught(
        Canary::ReserveSells,
        r"
        mint concert 20 weights=us:1 reserve=ap:5
        hold h1 us 15   -> held at us
        hold h2 ap 1    -> exhausted",
    );
}

#[test]
fn a_customer_without_a_limit_is_noticed() {
    caught(
        Canary::CustomerLimitForgotten,
        r"
        mint concert 20 limit=2
        hold h1 us 2 for=alice   -> held at eu
        hold h2 us 1 for=alice   -> customer_limit",
    );
}

#[test]
fn a_hold_that_anybody_can_settle_is_noticed() {
    caught(
        Canary::SecretNotAsked,
        r"
        mint concert 10 weights=us:1
        hold h1 us 4            -> held at us
        confirm h1 secret=5     -> no_such_hold",
    );
}

#[test]
fn a_return_of_what_was_attested_is_noticed() {
    caught(Canary::ReturnAfterAttest, RETURN_AFTER_ATTESTATION);
}

#[test]
fn a_forgotten_sale_that_frees_its_customer_is_noticed() {
    caught(
        Canary::ForgottenSaleFrees,
        r"
        mint concert 20 limit=2
        hold h1 us 2 for=alice   -> held at eu
        confirm h1               -> sold 2
        tick 49h
        stage h1                 -> forgotten
        hold h2 us 1 for=alice   -> customer_limit",
    );
}

#[test]
fn a_reserve_that_is_counted_as_drawn_is_noticed() {
    caught(
        Canary::ReserveCountedAsDrawn,
        r"
        mint concert 20 weights=us:1 reserve=ap:5
        hold h1 us 15   -> held at us
        hold h2 eu 1    -> held at eu
        hold h3 ap 1    -> exhausted",
    );
}

#[test]
fn debt_that_is_drawn_before_units_is_noticed() {
    caught(
        Canary::DebtBeforeUnits,
        r"
        mint concert 30 weights=us:1,eu:1,ap:1 debt=5
        hold h1 us 12   -> held at us",
    );
}

#[test]
fn demand_that_grows_with_retries_is_noticed() {
    caught(Canary::RetryIsDemand, ONE_DEMAND);
}

#[test]
fn demand_that_grows_with_refusals_is_noticed() {
    caught(Canary::RefusedIsDemand, REFUSED_IS_NO_DEMAND);
}

#[test]
fn a_restored_node_that_vouches_is_noticed() {
    caught(Canary::RestoredVouches, RESTORED_VOUCHER);
}

#[test]
fn a_tail_that_flips_is_noticed() {
    caught(Canary::TailFlips, TAIL_THAT_STAYS);
}

#[test]
fn moves_that_are_counted_twice_are_noticed() {
    caught(
        Canary::MovesMiscounted,
        r"
        levels push
        foresee
        mint concert 300 weights=us:1,ap:0
        hold h1 ap 10   -> held at ap
        tick 2s
        moved ap        -> in-pull=1/10",
    );
}
