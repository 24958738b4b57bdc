//! What the machine promises, told as stories. `us` stands for the node us/n1, which is the home of
//! every pool unless a line says otherwise.

use super::check;

// ---- creation ----------------------------------------------------------------------------------

#[test]
fn a_pool_is_minted_once_and_its_parts_sum_exactly() {
    check(
        r"
        mint concert 100 weights=us:50,eu:30,ap:20   -> ap=20 eu=30 us=50
        show us  -> available=50 minted=100 granted-eu=30 granted-ap=20
        show eu  -> available=30 minted=0 accepted-us=30
        show ap  -> available=20
        mint fair 100   -> ap=34 eu=33 us=33",
    );
}

#[test]
fn the_same_body_again_is_the_same_answer_and_mints_nothing() {
    check(
        r"
        mint concert 100          -> ap=34 eu=33 us=33
        hold h1 us 10             -> held at us
        mint concert 100          -> ap=34 eu=33 us=33
        mint concert 100 at=eu    -> ap=34 eu=33 us=33
        show us                   -> minted=100 available=23",
    );
}

#[test]
fn another_body_under_the_same_name_is_refused() {
    check(
        r"
        mint concert 100               -> ap=34 eu=33 us=33
        mint concert 101               -> pool_exists
        mint concert 100 class=other   -> pool_exists
        mint concert 100 weights=us:1  -> pool_exists
        show us                        -> minted=100",
    );
}

#[test]
fn without_its_home_a_pool_is_not_created() {
    check(
        r"
        cut us eu
        mint concert 100 at=eu   -> unreachable
        cut us ap
        mint concert 100 at=us   -> ap=34 eu=33 us=33
        show eu                  -> unknown
        heal us eu
        show eu                  -> available=33
        heal us ap
        show ap                  -> available=34",
    );
}

#[test]
fn policy_says_which_regions_have_a_part() {
    check(
        r"
        mint a 10 weights=us:1,ap:1 allowed=us,eu   -> not_allowed ap
        mint b 10 allowed=eu,ap                     -> not_allowed us
        mint c 10 weights=us:1,mars:1               -> invalid: region mars has no node: the mesh has ap, eu, us
        mint d 10 weights=us:0                      -> invalid: all weights are zero: give at least one region some
        mint e 0                                    -> invalid: a supply of 0: give 1 to 281474976710656 units
        mint concert 10 allowed=us,eu               -> eu=5 us=5
        show ap                                     -> unknown",
    );
}

#[test]
fn a_region_is_the_sum_of_its_nodes() {
    check(
        r"
        nodes us/n1 us/n2 eu/n1 ap/n1
        mint concert 100 weights=us:50,eu:30,ap:20   -> ap=20 eu=30 us/n1=25 us/n2=25
        hold h1 us/n2 25   -> held at us
        hold h2 us/n2 5    -> held at us
        show us/n2         -> available=0 held=30",
    );
}

// ---- holds -------------------------------------------------------------------------------------

#[test]
fn an_expired_hold_returns_its_seats_once() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 40 ttl=5s   -> held at us
        show us                -> available=60 held=40
        tick 4999ms            ->
        tick 1ms               -> expired h1
        show us                -> available=100 held=0 expired=1
        tick 60s               ->
        show us                -> available=100 held=0 expired=1",
    );
}

#[test]
fn a_confirmed_hold_is_sold_and_never_expires() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 40 ttl=5s   -> held at us
        confirm h1             -> sold 40
        confirm h1             -> sold 40
        release h1             -> hold_confirmed
        tick 10s               ->
        show us                -> available=60 held=0 sold=40",
    );
}

#[test]
fn a_hold_that_has_expired_can_not_be_confirmed() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 40 ttl=5s   -> held at us
        tick 5s                -> expired h1
        confirm h1             -> hold_expired
        release h1             -> hold_expired
        again h1 us            -> hold_expired
        show us                -> available=100 sold=0",
    );
}

#[test]
fn a_hold_is_released_once() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 40   -> held at us
        release h1      -> released 40
        release h1      -> released 40
        confirm h1      -> hold_released
        again h1 us     -> hold_released
        show us         -> available=100 held=0",
    );
}

#[test]
fn only_its_owner_ends_a_hold() {
    check(
        r"
        mint concert 100
        hold h1 us 10      -> held at us
        confirm h1 at=ap   -> sold 10
        hold h2 eu 10      -> held at eu
        cut us eu
        confirm h2 at=us   -> unreachable
        release h2 at=eu   -> released 10",
    );
}

#[test]
fn a_hold_that_makes_no_sense_is_refused_with_what_would() {
    check(
        r"
        mint concert 100
        hold a us 0            -> invalid: 0 units: give 1 to 281474976710656
        hold b us 1 ttl=25h    -> invalid: a hold of 90000s: give 1 ms to 86400 s
        hold c us 1 ttl=0ms    -> invalid: a hold of 0ns: give 1 ms to 86400 s
        hold d us 101          -> invalid: 101 units of a pool of 100
        hold e us 1 hops=2 made=eu   -> held at us
        hold f eu 1 hops=2 made=eu   -> invalid: passed on 2 times, this hold should not have come to eu/n1: nodes disagree on who they are
        hold g us 1 made=mars  -> invalid: the key names mars/n1, which is not a node of this mesh",
    );
}

#[test]
fn a_hold_finds_the_home_of_a_pool_that_this_node_does_not_know() {
    check(
        r"
        hold h0 us 1                  -> no_such_pool
        mint concert 10 allowed=us    -> us=10
        hold h1 ap 4                  -> held at us
        again h1 ap                   -> held at us
        show us                       -> available=6
        confirm h1 at=ap              -> sold 4",
    );
}

// ---- keys --------------------------------------------------------------------------------------

#[test]
fn the_same_key_never_holds_twice_wherever_it_is_asked() {
    check(
        r"
        mint concert 100
        hold h1 us 4   -> held at us
        again h1 us    -> held at us
        again h1 eu    -> held at us
        again h1 ap    -> held at us
        confirm h1     -> sold 4
        again h1 eu    -> held at us
        show us        -> available=29 held=0 sold=4
        show eu        -> available=33 held=0",
    );
}

#[test]
fn a_key_with_another_body_is_refused() {
    check(
        r"
        mint concert 100
        hold h1 us 4         -> held at us
        again h1 us qty=5    -> key_reused
        again h1 eu qty=5    -> key_reused
        show us              -> held=4",
    );
}

#[test]
fn a_key_whose_home_is_out_of_reach_is_not_run_elsewhere() {
    check(
        r"
        mint concert 100
        cut us eu
        hold h1 us 4 made=eu   -> unreachable
        show us                -> held=0
        heal us eu
        again h1 us            -> held at eu",
    );
}

#[test]
fn a_refusal_is_not_what_a_key_remembers() {
    check(
        r"
        mint concert 10 weights=us:1
        hold h1 us 10 ttl=5s   -> held at us
        hold h2 us 5           -> exhausted
        tick 5s                -> expired h1
        again h2 us            -> held at us",
    );
}

#[test]
fn a_key_older_than_the_retention_is_not_run_again() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 4 ttl=1s   -> held at us
        tick 2s               -> expired h1
        tick 23h
        again h1 us           -> hold_expired
        tick 2h
        again h1 us           -> key_expired
        stage h1              -> forgotten
        show us               -> available=100 held=0",
    );
}

#[test]
fn a_key_from_the_future_is_refused() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 4 ahead=500ms   -> held at us
        hold h2 us 4 ahead=501ms   -> invalid: the key says it was made 501 ms in the future; set the clock of the machine that made it, or this node's",
    );
}

#[test]
fn a_key_given_by_hand_counts_within_its_region() {
    check(
        r"
        nodes us/n1 us/n2 eu/n1
        mint concert 100
        hold h1 us/n1 4 key=mine   -> held at us
        again h1 us/n2             -> held at us
        hold h2 eu 4 key=mine      -> held at eu
        show eu                    -> held=4
        again h1 us/n1 qty=5       -> key_reused",
    );
}

#[test]
fn a_hold_that_waits_is_not_doubled_by_its_own_retry() {
    check(
        r"
        mint concert 10 weights=eu:1
        latency 100ms
        hold h1 us 4 within=5s    ->
        again h1 us               ->
        tick 1s                   -> held at us, held at us
        show us                   -> held=4",
    );
}

// ---- levelling ---------------------------------------------------------------------------------

#[test]
fn rights_come_when_a_node_runs_out() {
    check(
        r"
        mint concert 100 weights=us:1,eu:1
        latency 100ms
        hold h1 ap 30   ->
        tick 200ms      -> held at ap
        show ap         -> held=30
        show eu         -> granted-ap=30",
    );
}

#[test]
fn a_hold_larger_than_any_part_gathers_what_it_needs() {
    check(
        r"
        mint concert 90
        hold h1 ap 90   -> held at ap
        show ap         -> held=90 available=0
        hold h2 us 1    -> exhausted
        confirm h1      -> sold 90
        tick 1s
        hold h3 us 1    -> sold_out",
    );
}

#[test]
fn sold_out_is_only_said_when_it_is_proven() {
    check(
        r"
        mint concert 90
        hold h1 us 30   -> held at us
        hold h2 eu 30   -> held at eu
        hold h3 ap 30   -> held at ap
        confirm h1      -> sold 30
        confirm h2      -> sold 30
        tick 1s
        hold h4 us 1    -> exhausted
        cut us ap
        confirm h3      -> sold 30
        tick 2s
        # ap's sale has not been heard of here.
        hold h5 us 1    -> exhausted
        hold h6 eu 1    -> sold_out
        heal us ap
        hold h7 us 1    -> sold_out",
    );
}

#[test]
fn a_cut_off_node_sells_what_it_holds_and_waits_no_longer_than_it_may() {
    check(
        r"
        mint concert 90
        tick 1s
        cut us ap
        cut eu ap
        hold h1 ap 30    -> held at ap
        hold h2 ap 1     -> exhausted
        show ap          -> stranded=0+60 false=1
        heal us ap
        heal eu ap
        hold h3 ap 1     -> held at ap",
    );
}

#[test]
fn a_silent_peer_is_waited_for_as_long_as_a_hold_may_wait() {
    check(
        r"
        mint concert 90
        silence us ap
        silence eu ap
        tick 5s
        hold h1 ap 30             -> held at ap
        hold h2 ap 1              ->
        tick 1999ms               ->
        tick 1ms                  -> exhausted
        hold h3 ap 1 within=300ms ->
        tick 300ms                -> exhausted",
    );
}

#[test]
fn nobody_waits_beyond_the_bound() {
    check(
        r"
        limit parked 2
        mint concert 90 weights=us:1
        silence us ap
        silence eu ap
        tick 3s
        hold a ap 1   ->
        hold b ap 1   ->
        hold c ap 1   -> overloaded
        leave a
        hold d ap 1   ->
        heal us ap    -> held at ap
        tick 1s       -> held at ap
        show ap       -> held=2",
    );
}

#[test]
fn grants_survive_a_cut_and_arrive_later() {
    check(
        r"
        mint concert 100 weights=us:1
        latency 50ms
        tick 1s
        hold h1 eu 10     ->
        silence us eu
        tick 3s           -> exhausted
        heal us eu
        tick 1s
        show eu           -> available=10
        again h1 eu       -> held at eu",
    );
}

// ---- the tail ----------------------------------------------------------------------------------

#[test]
fn the_last_units_gather_at_home_and_others_pass_holds_on() {
    check(
        r"
        tail 10
        mint concert 100
        hold h1 us 33   -> held at us
        hold h2 eu 33   -> held at eu
        confirm h1      -> sold 33
        confirm h2      -> sold 33
        hold h3 ap 10   -> held at ap
        confirm h3      -> sold 10
        tick 2s
        # 24 are left, fewer than 3 x 10.
        show us         -> available=24
        show ap         -> available=0
        view ap         -> home=us tail=true
        hold h4 ap 20   -> held at us
        hold h5 eu 4    -> held at us
        again h4 ap     -> held at us
        show us         -> held=24 available=0
        confirm h4 at=ap   -> sold 20
        confirm h5 at=eu   -> sold 4
        tick 2s
        hold h6 ap 1    -> sold_out",
    );
}

#[test]
fn an_owner_of_the_tail_that_can_not_be_reached_is_unreachable_and_not_sold_out() {
    check(
        r"
        tail 10
        mint concert 25
        tick 1s
        show us         -> available=25
        cut us ap
        hold h1 ap 1    -> unreachable
        heal us ap
        again h1 ap     -> held at us
        show us         -> held=1",
    );
}

#[test]
fn a_passed_on_key_stays_with_the_home_of_the_pool() {
    check(
        r"
        tail 10
        mint concert 25
        tick 1s
        hold h1 ap 5        -> held at us
        again h1 eu         -> held at us
        hold h2 ap 5 key=x  -> held at us
        again h2 ap         -> held at us
        hold h3 eu 5 key=x  -> held at us
        show us             -> held=15
        restart ap
        tick 1s
        again h1 ap         -> held at us
        again h2 ap         -> held at us
        again h2 ap qty=4   -> key_reused
        show us             -> held=15",
    );
}

#[test]
fn seats_that_expire_elsewhere_come_home_in_the_tail() {
    check(
        r"
        tail 10
        mint concert 60
        hold h1 ap 20 ttl=20s   -> held at ap
        hold h2 us 31           ->
        # ap was asked first, by what it last said; eu is asked 50 ms later.
        tick 50ms               -> held at us
        confirm h2              -> sold 31
        tick 5s
        show us                 -> available=9
        tick 15s                -> expired h1
        show us                 -> available=29
        show ap                 -> available=0",
    );
}

#[test]
fn a_home_that_has_nothing_is_not_asked_by_everybody() {
    check(
        r"
        tail 100
        limit forwards 2
        mint concert 6 home=us
        tick 1s
        latency 50ms
        hold h0 us 6
        hold a ap 1   ->
        hold b ap 1   ->
        hold c ap 1   -> overloaded
        tick 200ms    -> exhausted, exhausted
        hold d ap 1   -> exhausted
        tick 1s
        show ap       -> forwarded=2",
    );
}

// ---- restarts ----------------------------------------------------------------------------------

#[test]
fn a_restart_takes_up_what_was_there() {
    check(
        r"
        mint concert 100
        hold h1 us 10 ttl=60s   -> held at us
        hold h2 us 5            -> held at us
        confirm h2              -> sold 5
        restart us
        standing us             -> proven
        show us                 -> available=18 held=10 sold=5 granted-eu=33
        again h1 us             -> held at us
        confirm h1              -> sold 10
        hold h3 us 1            -> held at us",
    );
}

#[test]
fn a_hold_that_was_not_durable_was_not_answered_and_is_gone() {
    check(
        r"
        mint concert 100 weights=us:1
        stall us
        hold h1 us 40   ->
        crash us
        start us
        show us         -> available=100 held=0
        again h1 us     -> held at us
        show us         -> available=60 held=40",
    );
}

#[test]
fn a_grant_that_was_not_durable_never_left() {
    check(
        r"
        mint concert 100 weights=us:1
        stall us
        hold h1 eu 40   ->
        show eu         -> available=0 accepted-us=0
        crash us        -> exhausted
        start us        ->
        again h1 eu     ->
        tick 50ms       -> held at eu
        show us         -> granted-eu=40 available=60
        show eu         -> accepted-us=40",
    );
}

#[test]
fn an_acceptance_that_was_not_durable_is_made_again() {
    check(
        r"
        mint concert 100 weights=us:1
        stall eu
        hold h1 eu 40   ->
        show us         -> granted-eu=40
        sync eu         -> held at eu
        stall eu
        hold h2 eu 30   ->
        crash eu
        start eu
        show eu         -> held=40
        tick 1s
        show us         -> granted-eu=40
        again h2 eu     -> held at eu",
    );
}

#[test]
fn deadlines_pass_while_a_node_is_down() {
    check(
        r"
        mint concert 100
        hold h1 us 10 ttl=5s   -> held at us
        stop us
        tick 10s
        start us               -> expired h1
        confirm h1             -> hold_expired
        show us                -> available=33",
    );
}

#[test]
fn a_pool_that_nobody_has_minted_leaves_no_key_behind() {
    check(
        r"
        stop us
        mint fair 30 at=eu           -> unreachable
        start us
        hold h1 us 1 pool=fair       -> no_such_pool
        hold h2 eu 1 pool=fair       -> no_such_pool
        hold h3 ap 1 pool=fair key=a -> no_such_pool
        keys us                      -> 0
        keys eu                      -> 0
        keys ap                      -> 0
        mint fair 30                 -> ap=10 eu=10 us=10
        again h2 eu                  -> held at eu",
    );
}

#[test]
fn a_key_that_was_passed_on_twice_stays() {
    // One of the two may reach the home when the pool has been minted.
    check(
        r"
        stop us
        mint fair 30 at=eu           -> unreachable
        start us
        latency 1s
        hold h1 eu 1 pool=fair
        again h1 eu
        tick 2s                      -> no_such_pool, no_such_pool
        keys eu                      -> 1
        again h1 eu
        leave h1
        tick 2s
        keys eu                      -> 1",
    );
}

#[test]
fn names_that_nobody_can_look_up_leave_room_for_keys_of_pools() {
    check(
        r"
        limit keys 4
        stop us
        mint fair 30 at=eu           -> unreachable
        mint concert 20 home=eu at=eu weights=eu:1
        hold h1 eu 1 pool=fair       -> unreachable
        hold h2 eu 1 pool=fair       -> unreachable
        hold h3 eu 1 pool=fair       -> overloaded
        keys eu                      -> 2
        hold h4 eu 1                 -> held at eu
        hold h5 eu 1                 -> held at eu
        hold h6 eu 1                 -> overloaded",
    );
}

#[test]
fn what_is_sold_out_is_not_passed_on_to_the_customers_home() {
    check(
        r"
        mint concert 2 limit=2
        hold h1 us 2 for=alice       -> held at eu
        confirm h1                   -> sold 2
        tick 1s
        keys us                      -> 1
        hold h2 us 1 for=alice       -> sold_out
        keys us                      -> 1",
    );
}
