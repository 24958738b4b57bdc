//! Pools with terms: debt, a reserve, a limit a customer; sales that are returned; holds that are named
//! by who was told of them.

use super::check;
use crate::escrow::Refusal;

// ---- debt --------------------------------------------------------------------------------------

#[test]
fn debt_is_sold_when_no_unit_is_left_and_never_beyond_its_ceiling() {
    check(
        r"
        mint concert 10 weights=us:1 debt=3
        show us         -> available=10 debt=3
        hold h1 us 8    -> held at us
        hold h2 us 4    -> held at us, 2 on debt
        show us         -> available=0 held=10 debt=1 owed=2
        hold h3 us 2    -> exhausted
        hold h4 us 1    -> held at us, 1 on debt
        confirm h1      -> sold 8
        confirm h2      -> sold 4
        confirm h4      -> sold 1
        hold h5 us 1    -> sold_out
        show us         -> sold=10 drawn=3 debt=0
        again h2 us     -> held at us, 2 on debt",
    );
}

#[test]
fn debt_is_not_touched_while_a_unit_can_come() {
    check(
        r"
        mint concert 30 weights=us:1,eu:1,ap:1 debt=5
        hold h1 eu 25   -> held at eu
        show eu         -> held=25 owed=0
        hold h2 eu 6    ->
        tick 100ms      -> held at eu, 1 on debt
        show us         -> debt=4 available=0
        show eu         -> held=30 owed=1 debt=0",
    );
}

#[test]
fn units_whose_time_has_come_are_sold_before_debt() {
    check(
        r"
        mint concert 10 weights=us:1 debt=10
        hold h1 us 10 ttl=5s   -> held at us
        # Nobody has looked at the clock since.
        clock us +10s
        hold h2 us 10          -> held at us, expired h1
        show us                -> debt=10 owed=0 held=10",
    );
}

#[test]
fn debt_rights_go_to_where_they_are_needed() {
    check(
        r"
        mint concert 9 weights=ap:1 debt=4
        hold h1 ap 9    -> held at ap
        hold h2 eu 3    ->
        tick 100ms      -> held at eu, 3 on debt
        hold h3 ap 2    -> exhausted
        hold h4 ap 1    -> held at ap, 1 on debt
        hold h5 us 1    -> exhausted
        release h2      -> released 3
        tick 1s
        hold h6 ap 3    -> held at ap, 3 on debt
        show eu         -> debt=0 owed=0",
    );
}

#[test]
fn debt_that_is_given_back_is_there_again() {
    check(
        r"
        mint concert 2 weights=us:1 debt=2
        hold h1 us 4 ttl=2s   -> held at us, 2 on debt
        tick 2s               -> expired h1
        show us               -> available=2 debt=2 drawn=0
        hold h2 us 4          -> held at us, 2 on debt
        confirm h2            -> sold 4
        return h2 1           -> returned 1, 3 left
        show us               -> available=0 debt=1 repaid=1 returned=0
        return h2 2 key=b     -> returned 2, 1 left
        show us               -> available=1 debt=2 repaid=2 returned=1",
    );
}

#[test]
fn in_the_tail_debt_is_drawn_at_home() {
    check(
        r"
        tail 10
        mint concert 12 weights=eu:1 debt=3
        tick 2s
        show us         -> available=12 debt=3
        hold h1 ap 14   -> held at us, 2 on debt
        hold h2 eu 1    -> held at us, 1 on debt
        confirm h1      -> sold 14
        confirm h2      -> sold 1
        tick 2s
        hold h3 eu 1    -> sold_out",
    );
}

#[test]
fn a_cut_off_node_draws_only_the_debt_it_has() {
    check(
        r"
        mint concert 20 weights=us:1,eu:1 debt=5
        cut us eu
        cut us ap
        hold h1 us 13   -> held at us, 3 on debt
        hold h2 eu 11   -> exhausted
        hold h3 eu 10   -> held at eu
        heal us eu
        hold h4 eu 2    -> held at eu, 2 on debt
        hold h5 us 1    -> exhausted",
    );
}

#[test]
fn debt_survives_a_restart_and_an_old_disk() {
    check(
        r"
        mint concert 10 weights=us:1 debt=4
        hold h1 us 12      -> held at us, 2 on debt
        confirm h1         -> sold 12
        restart us
        show us            -> sold=10 drawn=2 debt=2
        tick 2s
        copy us
        hold h2 eu 1       ->
        tick 100ms         -> held at eu, 1 on debt
        tick 2s
        restore us
        tick 1s
        standing us        -> restored
        attest us sold=15  -> wrong_attestation: 15 sold is too many: the node had rights to sell 13
        attest us sold=11  -> wrong_attestation: 11 sold is too few: 12 are known to be sold there
        attest us sold=12  -> attested, 0 available
        show us            -> drawn=2 debt=1",
    );
}

// ---- returns -----------------------------------------------------------------------------------

#[test]
fn a_sale_is_returned_in_parts_and_its_units_are_sold_again() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 10     -> held at us
        confirm h1        -> sold 10
        hold h2 us 1      -> sold_out
        return h1 3       -> returned 3, 7 left
        show us           -> available=3 sold=10 returned=3
        hold h3 us 3      -> held at us
        return h1 key=b   -> returned 7, 0 left
        return h1 key=c   -> return_too_much
        show us           -> available=7 held=3 returned=10",
    );
}

#[test]
fn a_return_runs_once_under_one_key() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 6         -> held at us
        confirm h1           -> sold 6
        return h1 2 key=a    -> returned 2, 4 left
        return h1 2 key=a    -> returned 2, 4 left
        return h1 1 key=a    -> key_reused
        return h1 key=a      -> key_reused
        restart us
        return h1 2 key=a    -> returned 2, 4 left
        return h1 2 key=b    -> returned 2, 2 left
        show us              -> returned=4 available=8",
    );
}

#[test]
fn only_what_was_sold_is_returned() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 2 ttl=2s   -> held at us
        hold h2 us 2          -> held at us
        hold h3 us 2          -> held at us
        return h2             -> hold_not_confirmed
        release h2            -> released 2
        return h2             -> hold_released
        tick 2s               -> expired h1
        return h1             -> hold_expired
        confirm h3            -> sold 2
        return h3 0           -> invalid: 0 units: give 1 to 2, or none for all of them
        return h3 3           -> return_too_much
        return h3 2 at=eu     -> returned 2, 0 left
        confirm h3            -> sold 2
        show us               -> available=10",
    );
}

#[test]
fn a_sale_can_be_returned_for_a_day_and_is_forgotten_a_day_later() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 4       -> held at us
        confirm h1         -> sold 4
        tick 23h
        return h1 1        -> returned 1, 3 left
        tick 2h
        return h1 1        -> returned 1, 3 left
        return h1 1 key=b  -> return_closed
        tick 24h
        return h1 1        -> no_such_hold
        show us            -> available=7",
    );
}

/// A return is booked on a disk that is lost, counted by the operator, and asked for again.
pub(super) const RETURN_AFTER_ATTESTATION: &str = r"
        mint concert 10 weights=us:1
        hold h1 us 4       -> held at us
        confirm h1         -> sold 4
        tick 2s
        copy us
        return h1 2        -> returned 2, 2 left
        tick 2s
        restore us
        tick 1s
        attest us sold=2   -> attested, 8 available
        return h1 2        -> return_closed
        return h1 1 key=b  -> return_closed
        hold h2 us 8       -> held at us
        confirm h2         -> sold 8
        return h2 1 key=c  -> returned 1, 7 left";

#[test]
fn a_sale_from_before_a_restored_disk_is_not_returned() {
    check(RETURN_AFTER_ATTESTATION);
}

#[test]
fn a_sale_comes_back_in_32_parts_at_most() {
    let mut story =
        String::from("mint concert 40 weights=us:1\nhold h1 us 40 -> held at us\nconfirm h1 -> sold 40\n");
    for part in 1..32 {
        story += &format!("return h1 1 key=k{part} -> returned 1, {} left\n", 40 - part);
    }
    story += "return h1 1 key=x -> invalid: a sale comes back in 32 parts at most, and this is the last: give back all 9\n";
    story += "return h1 key=x -> returned 9, 0 left";
    check(&story);
}

// ---- the reserve -------------------------------------------------------------------------------

#[test]
fn a_reserve_is_for_the_others() {
    check(
        r"
        mint concert 100 weights=us:1,eu:1 reserve=ap:40 -> ap=40 eu=30 us=30
        hold h1 ap 1    -> held at ap
        show ap         -> available=40 reserved=40 held=1
        hold h2 eu 35   -> held at eu
        show ap         -> available=34 reserved=34
        show us         -> available=30 granted-eu=30",
    );
}

#[test]
fn its_holder_does_not_sell_the_reserve() {
    check(
        r"
        mint concert 20 weights=us:1 reserve=ap:5   -> ap=5 eu=0 us=15
        hold h1 us 15   -> held at us
        hold h2 ap 1    -> exhausted
        hold h3 eu 5    -> held at eu
        show ap         -> available=0 reserved=0",
    );
}

#[test]
fn in_the_tail_the_reserve_comes_home() {
    check(
        r"
        tail 10
        mint concert 60 weights=us:1 reserve=ap:20
        hold h1 us 40   -> held at us
        confirm h1      -> sold 40
        tick 2s
        show ap         -> available=0 reserved=0
        show us         -> available=20
        hold h2 ap 20   -> held at us",
    );
}

#[test]
fn an_attested_holder_of_the_reserve_has_no_more_of_it_than_is_left() {
    check(
        r"
        mint concert 100 weights=us:1,eu:1 reserve=ap:40
        tick 2s
        copy ap
        hold h1 eu 45     -> held at eu
        tick 2s
        show ap           -> available=25 reserved=25
        restore ap
        tick 1s
        attest ap sold=0  -> attested, 25 available
        show ap           -> available=25 reserved=25
        hold h2 us 35     -> held at us
        show ap           -> available=5 reserved=5",
    );
}

#[test]
fn a_reserve_at_the_home_is_restored_without_the_first_split() {
    check(
        r"
        mint concert 100 weights=us:1,eu:1 reserve=us:40 home=us
        tick 2s
        copy us
        hold h1 eu 45     -> held at eu
        tick 2s
        restore us
        tick 1s
        attest us sold=0  -> attested, 55 available
        show us           -> available=55 reserved=25",
    );
}

#[test]
fn a_reserve_that_makes_no_sense_is_refused_with_what_would() {
    check(
        r"
        mint a 10 reserve=us:10                    -> invalid: a reserve of 10: give 1 to 9 of the 10 units
        mint b 10 weights=us:1,eu:1 allowed=us,eu reserve=ap:2  -> invalid: ap/n1 can not hold the reserve: the pool's nodes are eu/n1, us/n1
        mint c 10 allowed=us reserve=us:2          -> invalid: us/n1 is the pool's only node: a reserve is for other nodes
        mint d 10 limit=0                          -> invalid: 0 units a customer: give at least 1, or no limit
        mint concert 10 reserve=us:2 debt=3        -> ap=3 eu=3 us=4
        mint concert 10 reserve=us:3 debt=3        -> pool_exists
        mint concert 10 reserve=us:2 debt=4        -> pool_exists
        mint concert 10 reserve=us:2 debt=3 limit=2 -> pool_exists
        mint concert 10 reserve=us:2 debt=3        -> ap=3 eu=3 us=4",
    );
}

// ---- the tail ----------------------------------------------------------------------------------

#[test]
fn what_is_returned_near_the_floor_does_not_end_the_tail() {
    check(TAIL_THAT_STAYS);
}

/// A tail begins below thirty units, and ends at half as many again.
pub(super) const TAIL_THAT_STAYS: &str = r"
        tail 10
        mint concert 60 weights=us:1
        hold h1 us 31        -> held at us
        confirm h1           -> sold 31
        tick 2s
        view us              -> tail=true
        return h1 3          -> returned 3, 28 left
        tick 2s
        view us              -> tail=true
        view eu              -> tail=true
        return h1 13 key=b   -> returned 13, 15 left
        tick 2s
        view us              -> tail=false
        view eu              -> tail=false";

#[test]
fn who_cannot_know_that_a_tail_has_begun_takes_the_homes_word() {
    check(
        r"
        tail 10
        mint concert 60 weights=us:1,eu:1
        tick 2s
        cut eu ap
        hold h1 eu 30        -> held at eu
        confirm h1           -> sold 30
        hold h2 us 1         -> held at us
        confirm h2           -> sold 1
        tick 2s
        # What eu sold, ap can not hear: it is told of the tail.
        hold h3 ap 29        -> held at us
        view ap              -> tail=true
        show us              -> granted-ap=0 held=29
        confirm h3 at=ap     -> sold 29",
    );
}

// ---- what is remembered ------------------------------------------------------------------------

#[test]
fn a_node_remembers_so_many_holds_and_sales_and_says_when_there_is_no_room() {
    check(
        r"
        limit holds 2
        mint concert 10 weights=us:1
        hold h1 us 1      -> held at us
        hold h2 us 1      -> held at us
        hold h3 us 1      -> too_many_holds
        again h1 us       -> held at us
        confirm h2        -> sold 1
        release h1        -> released 1
        hold h4 us 1      -> too_many_holds
        restart us
        hold h5 us 1      -> too_many_holds
        hold h6 eu 1      -> held at eu
        tick 25h
        stage h1          -> forgotten
        hold h7 us 1      -> held at us
        hold h8 us 1      -> too_many_holds
        tick 24h
        stage h2          -> forgotten
        hold h9 us 1      -> held at us",
    );
    assert_eq!(
        Refusal::TooManyHolds { most: 2 }.to_string(),
        "the node remembers 2 holds and sales, as many as it may: ask in another region, or have its operator raise \
         `escrow.max_holds` or shorten `escrow.returns`"
    );
}

#[test]
fn sales_that_can_not_be_returned_are_forgotten_a_day_after_the_sale() {
    check(
        r"
        returns 0s
        mint concert 10 weights=us:1
        hold h1 us 4       -> held at us
        confirm h1         -> sold 4
        tick 1ms
        return h1 1        -> return_closed
        tick 24h
        tick 1s
        stage h1           -> forgotten
        show us            -> available=6 sold=4",
    );
}

// ---- what one customer may have ----------------------------------------------------------------

#[test]
fn a_customer_has_no_more_than_the_limit_wherever_they_ask() {
    check(
        r"
        mint concert 90 limit=4
        hold h1 us 3 for=alice     -> held at eu
        hold h2 eu 2 for=alice     -> customer_limit
        hold h3 eu 1 for=alice     -> held at eu
        hold h4 ap 1 for=alice     -> customer_limit
        hold h5 ap 4 for=bob       -> held at ap
        hold h6 ap 1               -> invalid: one customer may have 4 units of pool concert-0: say for whom the hold is
        again h1 us                -> held at eu
        release h3                 -> released 1
        hold h7 us 1 for=alice     -> held at eu",
    );
}

#[test]
fn what_is_returned_or_expires_may_be_bought_again() {
    check(
        r"
        mint concert 90 limit=3
        hold h1 us 3 for=alice ttl=2s  -> held at eu
        tick 2s                        -> expired h1
        hold h2 us 3 for=alice         -> held at eu
        confirm h2                     -> sold 3
        hold h3 us 1 for=alice         -> customer_limit
        return h2 2                    -> returned 2, 1 left
        hold h4 us 3 for=alice         -> customer_limit
        restart eu
        hold h5 us 2 for=alice         -> held at eu
        confirm h5                     -> sold 2
        tick 50h
        stage h2                       -> forgotten
        hold h6 us 1 for=alice         -> customer_limit
        restart eu
        hold h7 us 1 for=alice         -> customer_limit",
    );
}

#[test]
fn a_customer_whose_home_is_out_of_reach_is_not_served_elsewhere() {
    check(
        r"
        mint concert 90 limit=3
        cut us eu
        hold h1 us 1 for=alice     -> unreachable
        hold h2 us 1 for=bob       -> held at ap
        heal us eu
        again h1 us                -> held at eu",
    );
}

#[test]
fn a_limited_pool_sells_its_last_units_at_its_customers_homes() {
    check(
        r"
        tail 10
        mint concert 6 weights=us:1 limit=6
        tick 2s
        hold h1 eu 5 for=alice     -> held at eu
        hold h2 ap 1 for=bob       -> held at ap
        confirm h1                 -> sold 5
        confirm h2                 -> sold 1
        tick 2s
        hold h3 eu 1 for=alice     -> sold_out",
    );
}

#[test]
fn a_limited_pool_is_found_by_nodes_that_have_no_part_in_it() {
    check(
        r"
        mint concert 10 limit=3 allowed=us,ap home=us
        hold h1 eu 2 for=alice     -> held at ap
        hold h2 eu 2 for=alice     -> customer_limit
        again h1 eu                -> held at ap",
    );
}

// ---- secrets -----------------------------------------------------------------------------------

#[test]
fn whoever_only_guesses_a_hold_can_not_settle_it() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 4            -> held at us
        confirm h1 secret=0     -> no_such_hold
        release h1 secret=1     -> no_such_hold
        confirm h1              -> sold 4
        return h1 secret=7      -> no_such_hold
        return h1               -> returned 4, 0 left",
    );
}
