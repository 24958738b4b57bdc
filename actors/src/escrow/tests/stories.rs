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
        hold h2 us 4 ahead=501ms   -> invalid: the key says it was made 501 ms in the future; set the clock of the machine that made it",
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

// ---- whose disk is believed --------------------------------------------------------------------

#[test]
fn without_a_peer_to_ask_a_node_that_starts_spends_nothing() {
    check(
        r"
        mint concert 100
        hold h1 us 10 ttl=1s   -> held at us
        cut us eu
        cut us ap
        restart us
        standing us            -> unproven
        hold h2 us 1           -> unproven
        confirm h1             -> unproven
        release h1             -> unproven
        mint other 10          -> unproven
        show us                -> unproven stranded=33+67
        tick 3s                ->
        hold h3 eu 33          -> held at eu
        hold h4 ap 34          -> held at ap
        hold h5 ap 1           -> exhausted
        heal us eu             -> expired h1
        standing us            -> proven
        hold h6 us 1           -> held at us",
    );
}

#[test]
fn every_peer_that_can_be_reached_must_vouch() {
    check(
        r"
        mint concert 100
        tick 2s
        stop us
        cut us eu
        cut us ap
        start us
        latency 100ms
        heal us eu
        heal us ap
        standing us   -> unproven
        tick 150ms
        standing us   -> unproven
        tick 50ms
        standing us   -> proven",
    );
}

#[test]
fn a_lone_node_needs_nobody() {
    check(
        r"
        nodes us/n1
        mint concert 10   -> us=10
        hold h1 us 10     -> held at us
        hold h2 us 1      -> exhausted
        confirm h1        -> sold 10
        restart us
        hold h3 us 1      -> sold_out",
    );
}

#[test]
fn a_restored_disk_sells_nothing_until_it_is_attested() {
    check(
        r"
        mint concert 100
        tick 2s
        copy us
        hold h1 us 20   -> held at us
        confirm h1      -> sold 20
        hold h2 us 5    -> held at us
        tick 2s
        restore us
        standing us     -> restored
        hold h3 us 1    -> restored
        mint other 5    -> restored
        show us         -> stranded=33+0
        hold h4 eu 68 within=1s   ->
        tick 1s         -> exhausted
        attest us sold=19   -> invalid: 19 sold is too few: 20 are known to be sold there
        attest us sold=34   -> invalid: 34 sold is too many: the node had rights to sell 33
        attest us sold=20   -> attested, 13 available
        attest us sold=20   -> attested, 13 available
        standing us     -> proven
        confirm h2      -> no_such_hold
        hold h5 us 13   -> held at us
        tick 2s
        restart us
        standing us     -> proven
        show us         -> held=13 sold=20",
    );
}

#[test]
fn holds_of_the_copy_are_void_and_its_keys_are_not_run_again() {
    check(
        r"
        mint concert 100 weights=us:1
        hold h1 us 20   -> held at us
        tick 2s
        copy us
        confirm h1      -> sold 20
        hold h2 us 30   -> held at us
        confirm h2      -> sold 30
        tick 2s
        restore us
        confirm h1      -> restored
        attest us sold=50   -> attested, 50 available
        confirm h1      -> hold_expired
        stage h1        -> voided
        again h2 us     -> key_expired
        tick 1ms
        hold h3 us 1    -> held at us
        show us         -> available=49 held=1 sold=50",
    );
}

#[test]
fn rights_that_a_lost_life_had_granted_stay_with_the_peer() {
    check(
        r"
        mint concert 100 weights=us:1
        tick 2s
        copy us
        hold h1 eu 40       -> held at eu
        tick 2s
        restore us
        show us             -> restored granted-eu=0
        attest us sold=0    -> attested, 60 available
        show us             -> granted-eu=40 available=60
        hold h2 us 60       -> held at us
        confirm h1          -> sold 40
        confirm h2          -> sold 60",
    );
}

#[test]
fn rights_that_a_lost_life_had_accepted_are_counted_again() {
    check(
        r"
        mint concert 100 weights=us:1
        tick 2s
        copy eu
        hold h1 eu 40       -> held at eu
        confirm h1          -> sold 40
        tick 2s
        restore eu
        standing eu         -> restored
        attest eu sold=40   -> attested, 0 available
        show eu             -> accepted-us=40 sold=40",
    );
}

#[test]
fn a_peer_that_has_accepted_more_than_was_granted_stops_the_donor() {
    // The copy is younger than the last beat, so nobody's number gives it away.
    check(
        r"
        mint concert 100 weights=us:1
        cut us ap
        tick 2s
        copy us
        hold h1 eu 40   -> held at eu
        restore us
        standing us     -> restored",
    );
}

#[test]
fn a_worse_answer_that_comes_late_still_counts() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        cut us eu
        hold h1 us 20   -> held at us
        confirm h1      -> sold 20
        tick 3s
        # eu has not heard of the sale; ap has, but is away when us comes back.
        cut us ap
        stop us
        heal us eu
        restore us
        standing us     -> proven
        heal us ap
        standing us     -> restored",
    );
}

#[test]
fn a_crash_before_the_proof_does_not_launder_a_disk() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        hold h1 us 20   -> held at us
        confirm h1      -> sold 20
        tick 3s
        cut us eu
        cut us ap
        restore us
        standing us     -> unproven
        restart us
        restart us
        restart us
        restart us
        restart us
        restart us
        restart us
        restart us
        heal us eu
        standing us     -> restored",
    );
}

#[test]
fn an_emptied_home_does_not_mint_again() {
    check(
        r"
        mint concert 90
        tick 2s
        hold h1 us 30   -> held at us
        confirm h1      -> sold 30
        tick 2s
        empty us
        standing us     -> restored
        mint concert 90 -> restored
        attest us sold=30   -> attested, 0 available
        standing us     -> proven
        mint concert 90 -> ap=30 eu=30 us=30
        mint concert 91 -> pool_exists
        hold h2 us 5    -> held at us
        show us         -> minted=90 sold=30",
    );
}

#[test]
fn an_attestation_waits_for_every_peer() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        hold h1 us 20      -> held at us
        tick 2s
        restore us
        cut us ap
        attest us sold=0   ->
        attest us sold=1   -> invalid: 0 sold is being attested already: wait for it
        tick 5s            -> overloaded
        hold h2 us 1       -> restored
        heal us ap
        attest us sold=0   -> attested, 30 available",
    );
}

#[test]
fn grants_of_a_disowned_life_are_refused_when_they_arrive_late() {
    check(
        r"
        mint concert 90 weights=us:1
        tick 2s
        copy us
        hold h0 us 1               -> held at us
        tick 2s
        latency 30s
        # The need is under way, then the grant, while us loses its disk.
        hold h1 eu 40 within=5s    ->
        tick 5s                    -> exhausted
        tick 28s
        show us            -> granted-eu=40
        silence us eu
        latency 0s
        restore us
        standing us        -> restored
        heal us eu
        show eu            -> accepted-us=0
        attest us sold=0   -> attested, 90 available
        tick 60s
        show eu            -> available=0 accepted-us=0",
    );
}

#[test]
fn every_pool_must_be_attested_before_the_node_is_whole() {
    check(
        r"
        mint concert 90
        mint fair 30
        tick 2s
        copy us
        hold h1 us 20            -> held at us
        tick 2s
        restore us
        attest us sold=0         -> attested, 30 available
        standing us              -> restored
        hold h2 us 1             -> held at us
        hold h3 us 1 pool=fair   -> restored
        attest us sold=0 pool=fair -> attested, 10 available
        standing us              -> proven
        hold h4 us 1 pool=fair   -> held at us
        attest eu sold=0         -> invalid: eu/n1 does not run on a restored disk: there is nothing to attest",
    );
}

#[test]
fn an_attestation_ends_when_the_node_is_whole() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        hold h1 us 20              -> held at us
        tick 2s
        restore us
        mint other 10 weights=us:1 -> restored
        # Peers are slow to answer about a pool that nobody knows; meanwhile the node is whole again. What
        # they say late must not void what is held of a pool of that name which is made later.
        latency 30s
        attest us sold=0 pool=other ->
        latency 0s
        attest us sold=0           -> no_such_pool, attested, 30 available
        mint other 10 weights=us:1
        hold h2 us 1 pool=other    -> held at us
        tick 31s
        standing us                -> proven
        confirm h2                 -> sold 1",
    );
}

#[test]
fn a_restart_while_restored_asks_for_every_attestation_again() {
    check(
        r"
        mint concert 90
        mint fair 30
        tick 2s
        copy us
        hold h1 us 20            -> held at us
        tick 2s
        restore us
        attest us sold=0         -> attested, 30 available
        restart us
        hold h2 us 1             -> restored
        attest us sold=0         -> attested, 30 available
        tick 1s
        hold h3 us 1             -> held at us",
    );
}

#[test]
fn a_restored_disk_with_a_clock_set_back_still_begins_a_later_life() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        restart us
        tick 10s
        mint fair 30
        hold h1 us 30              -> held at us
        confirm h1                 -> sold 30
        hold h2 us 10 pool=fair    -> held at us
        tick 2s
        clock us -10m
        restore us
        standing us                -> restored
        hold h3 us 1 key=a         -> restored
        tick 20s
        # The copy has never heard of fair; its peers say what it was granted.
        show us fair               -> restored
        hold h4 us 1 pool=fair key=b -> restored
        clock us +0s
        tick 1s
        attest us sold=0 pool=fair -> attested, 10 available
        attest us sold=30          -> attested, 0 available
        standing us                -> proven
        again h1 us                -> key_expired
        tick 20s
        mint late 30 home=eu at=eu -> ap=10 eu=10 us=10
        hold h5 us 1 pool=late     -> held at us
        tick 2s
        restart us
        standing us                -> proven",
    );
}

#[test]
fn one_peer_that_vouches_is_not_enough_while_another_is_up() {
    check(
        r"
        mint concert 90
        tick 2s
        stall ap
        # What ap says waits for its disk.
        hold h1 ap 1   ->
        restart us
        standing us    -> unproven
        sync ap        -> held at ap
        standing us    -> proven",
    );
}

#[test]
fn a_copy_with_more_commits_but_of_an_older_life_is_recognised() {
    check(
        r"
        mint concert 90
        copy us early
        tick 60s
        copy us late
        hold h1 us 30        -> held at us
        confirm h1           -> sold 30
        tick 2s
        restore us early
        standing us          -> restored
        attest us sold=30    -> attested, 0 available
        tick 2s
        # This copy counts further than the disk does now, in a life that is over.
        restore us late
        standing us          -> restored
        show us              -> sold=0
        hold h2 us 1         -> restored",
    );
}

#[test]
fn a_home_that_does_not_know_its_own_pool_has_lost_it() {
    // The copy is younger than the last beat: only the peers' knowledge gives it away.
    check(
        r"
        tick 2s
        copy us
        mint concert 90 weights=us:1
        restore us
        standing us          -> restored
        mint concert 90 weights=us:1 -> restored",
    );
}

#[test]
fn what_peers_have_granted_counts_in_an_attestation() {
    check(
        r"
        mint concert 100 weights=us:1
        tick 2s
        copy eu
        hold h1 eu 40       -> held at eu
        confirm h1          -> sold 40
        tick 2s
        cut us eu
        restore eu
        standing eu         -> restored
        heal us eu
        show eu             -> accepted-us=0
        attest eu sold=40   -> attested, 0 available
        show eu             -> accepted-us=40 sold=40",
    );
}

#[test]
fn the_owner_of_a_tail_grants_nothing_more() {
    check(
        r"
        tail 10
        mint concert 60 weights=us:1
        hold h1 us 31    -> held at us
        confirm h1       -> sold 31
        # ap has not heard of the sale yet, and asks for rights; it is told of the tail instead.
        hold h2 ap 5     -> held at us
        show us          -> granted-ap=0 held=5",
    );
}

#[test]
fn a_restored_node_learns_no_pool_in_which_it_has_no_part() {
    check(
        r"
        mint concert 90
        mint fair 30 allowed=us,eu
        tick 2s
        copy ap
        hold h1 ap 10                -> held at ap
        tick 2s
        restore ap
        attest ap sold=0 pool=fair   -> no_such_pool
        show ap fair                 -> unknown
        attest ap sold=0             -> attested, 30 available
        hold h2 ap 1 pool=fair       -> held at us",
    );
}
