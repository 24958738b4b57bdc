//! Whose disk is believed, told as stories: a node that starts among peers, a disk put back from a copy,
//! and what an attestation makes whole. `us` stands for the node us/n1, which is the home of every pool
//! unless a line says otherwise.

use super::check;

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
        attest us sold=19   -> wrong_attestation: 19 sold is too few: 20 are known to be sold there
        attest us sold=34   -> wrong_attestation: 34 sold is too many: the node had rights to sell 33
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
fn a_restored_node_of_a_mesh_without_pools_is_told_that_it_is_whole_though_nothing_is_attested() {
    check(
        r"
        tick 2s
        copy us
        mint concert 90
        tick 2s
        restore us
        mint fair 10 weights=us:1    -> restored
        attest us sold=0 pool=fair   -> no_such_pool
        standing us                  -> restored
        attest us sold=0             -> attested, 30 available
        standing us                  -> proven",
    );
    check(
        r"
        tick 2s
        copy us
        tick 2s
        restore us
        mint concert 90              -> restored
        standing us                  -> restored
        attest us sold=0             -> invalid: no node keeps rights of a pool concert-0, so nothing is attested of it; but nor is anything left to attest of any other one, and all nodes have vouched: us/n1 is whole again
        standing us                  -> proven",
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

/// Two disks are put back, and what the one had granted the other nobody knows any more.
pub(super) const RESTORED_VOUCHER: &str = r"
        mint concert 300 weights=us:1
        tick 2s
        copy us
        copy eu
        hold h1 eu 10       -> held at eu
        confirm h1          -> sold 10
        tick 2s
        restore us
        restore eu
        standing us         -> restored
        standing eu         -> restored
        attest us sold=0    -> cannot_vouch eu restored
        attest eu sold=10   -> cannot_vouch us restored
        hold h2 us 1        -> restored
        hold h3 eu 1        -> restored";

#[test]
fn a_restored_node_does_not_vouch_for_another() {
    check(RESTORED_VOUCHER);
}

#[test]
fn a_node_that_is_attested_vouches_for_the_next() {
    check(
        r"
        mint concert 300 weights=us:1
        tick 2s
        copy us
        copy eu
        hold h1 eu 10       -> held at eu
        confirm h1          -> sold 10
        tick 2s
        restore us
        attest us sold=0    -> attested, 290 available
        tick 2s
        restore eu
        standing eu         -> restored
        attest eu sold=10   -> attested, 0 available
        hold h2 us 290      -> held at us",
    );
}

#[test]
fn a_node_that_is_not_proven_yet_is_waited_for_and_named() {
    check(
        r"
        mint concert 90
        tick 2s
        copy us
        hold h1 us 20      -> held at us
        tick 2s
        restore us
        stall ap
        # What ap says waits for its disk.
        hold h2 ap 1       ->
        restart eu
        standing eu        -> unproven
        attest us sold=0   ->
        tick 5s            -> cannot_vouch eu unproven
        sync ap            -> held at ap
        standing eu        -> proven
        attest us sold=0   -> attested, 30 available",
    );
}

#[test]
fn who_vouches_says_which_of_its_lives_to_refuse() {
    check(
        r"
        mint concert 90 weights=us:1
        tick 2s
        copy us
        copy eu
        hold h0 us 1               -> held at us
        tick 2s
        latency 30s
        # The need is under way, then the grant, while us loses its disk.
        hold h1 eu 40 within=5s    ->
        tick 5s                    -> exhausted
        tick 28s
        show us            -> granted-eu=40
        keep us eu
        silence us eu
        latency 0s
        restore us
        heal us eu
        attest us sold=0   -> attested, 90 available
        tick 2s
        # The copy of eu does not know that a life of us is over.
        restore eu
        standing eu        -> restored
        attest eu sold=0   -> attested, 0 available
        late us eu
        show eu            -> available=0 accepted-us=0",
    );
}
