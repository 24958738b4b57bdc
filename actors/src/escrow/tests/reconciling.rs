//! Stories of reconciliation: what a home finds when it adds up all rows, and what it must not say.

use super::check;

#[test]
fn a_pool_at_rest_adds_up_exactly() {
    check(
        r"
        reconcile 10s
        mint concert 90
        hold h1 eu 40 ttl=1h   -> held at eu
        confirm h1             -> sold 40
        hold h2 ap 5 ttl=1h    -> held at ap
        reconciled us          -> never
        tick 30s
        reconciled us          -> drift=0 readings=2 torn=0 incomplete=0 alarms=0
        reconciled eu          -> never",
    );
}

#[test]
fn rights_on_their_way_are_not_missing() {
    check(
        r"
        reconcile 10s
        mint concert 90 weights=us:1
        tick 3s
        silence us eu
        hold h1 eu 10
        tick 8s         -> exhausted
        heal us eu
        tick 10s
        reconciled us   -> drift=0 alarms=0",
    );
}

#[test]
fn a_pool_that_never_rests_is_torn_and_no_alarm() {
    // A row changes between any two readings.
    let busy: String = (0..50).map(|i| format!("hold h{i} eu 1 ttl=1h -> held at eu\ntick 50ms\n")).collect();
    check(&format!(
        "reconcile 1s\nmint concert 900\nlatency 100ms\ntick 500ms\n{busy}reconciled us -> drift=unknown readings=5 exact=0 alarms=0"
    ));
}

#[test]
fn a_node_that_cannot_be_reached_leaves_the_sum_unknown() {
    check(
        r"
        reconcile 10s
        mint concert 90
        cut us eu
        tick 11s
        reconciled us   -> drift=unknown readings=0 missing= eu exact=0 incomplete=1 alarms=0
        heal us eu
        silence us ap
        tick 12s
        reconciled us   -> drift=unknown readings=1 ap incomplete=2
        heal us ap
        tick 10s
        reconciled us   -> drift=0 exact=1",
    );
}

#[test]
fn a_node_alone_adds_up_its_own_row() {
    check(
        r"
        nodes us/n1
        reconcile 5s
        mint concert 30
        hold h1 us 10   -> held at us
        tick 6s
        reconciled us   -> drift=0 readings=1 exact=1",
    );
}

#[test]
fn an_attested_node_adds_up_by_the_operators_word() {
    check(
        r"
        reconcile 5s
        mint concert 90
        tick 2s
        copy eu
        hold h1 eu 30 ttl=1h   -> held at eu
        confirm h1             -> sold 30
        tick 2s
        restore eu
        tick 6s
        reconciled us          -> drift=unknown eu
        attest eu sold=30      -> attested, 0 available
        tick 10s
        reconciled us          -> drift=0 alarms=0",
    );
}

#[test]
fn an_old_disk_does_not_say_that_there_is_no_such_pool() {
    // It may have granted what its peers have accepted: an empty row would be an alarm.
    check(
        r"
        tick 2s
        copy us
        mint concert 90 allowed=us,eu
        read us         -> proven row
        read ap         -> no_such_pool
        cut us eu
        cut us ap
        restore us
        standing us     -> unproven
        read us         -> unproven
        heal us eu
        standing us     -> restored
        # Eu has told it of the pool; the row says itself that it is not to be added up.
        read us         -> restored row",
    );
}
