//! Who moves rights ahead of need, and what is counted of it.

use super::check;

#[test]
fn a_donor_that_pushes_gives_before_anybody_asks() {
    // Ten units a second are asked for at ap, which has none; nobody waits for the second ten.
    let story = |policy: &str, moved: &str| {
        let holds: String = (0..40).map(|i| format!("hold h{i} ap 1 ttl=10m\ntick 100ms\n")).collect();
        format!(
            "levels {policy}\nforesee\nmint concert 900 weights=us:1,ap:0\nlatency 20ms\n{holds}moved ap -> {moved}"
        )
    };
    check(&story("push", "in-pull=6/6 in-push=3/70"));
    check(&story("pull", "in-pull=6/80"));
}

#[test]
fn one_key_that_is_asked_again_is_one_demand() {
    check(ONE_DEMAND);
}

/// Nobody sells; a buyer asks again and again under one key, and another region gives no more for it.
pub(super) const ONE_DEMAND: &str = r"
        levels push
        foresee
        mint concert 300 weights=us:1,ap:0
        hold h1 ap 4    -> held at ap
        again h1 ap     -> held at ap
        again h1 ap     -> held at ap
        again h1 ap     -> held at ap
        again h1 ap     -> held at ap
        tick 1s
        moved ap        -> in-pull=1/4 in-push=1/8";

#[test]
fn what_is_refused_is_no_demand() {
    check(REFUSED_IS_NO_DEMAND);
}

/// What makes no sense, and what a customer may not have, moves no rights.
pub(super) const REFUSED_IS_NO_DEMAND: &str = r"
        foresee
        levels hybrid
        mint concert 3000
        hold h1 eu 3001                 -> invalid: 3001 units of a pool of 3000
        tick 400ms
        hold h2 eu 3001                 -> invalid: 3001 units of a pool of 3000
        tick 400ms
        hold h3 eu 18446744073709551615 -> invalid: 18446744073709551615 units: give 1 to 281474976710656
        tick 400ms
        hold h7 eu 18446744073709551615 -> invalid: 18446744073709551615 units: give 1 to 281474976710656
        tick 400ms
        mint fair 3000 limit=2
        hold h4 us 3 for=alice pool=fair -> customer_limit
        hold h5 us 3 for=alice pool=fair -> customer_limit
        hold h6 us 3 pool=fair -> invalid: one customer may have 2 units of pool fair-4: say for whom the hold is
        tick 5s
        show us                         -> available=1000
        show eu                         -> available=1000
        show us fair                    -> available=1000
        show eu fair                    -> available=1000";

#[test]
fn who_only_pulls_gives_nothing_unasked() {
    check(
        r"
        levels pull
        foresee
        mint concert 300 weights=us:1,ap:0
        hold h1 ap 1    -> held at ap
        tick 5s
        moved us        -> out-pull=2/5",
    );
}

#[test]
fn figures_that_no_pool_can_have_are_passed_over() {
    check(
        r"
        foresee
        mint concert 90 debt=5
        hold h1 us 3           -> held at us
        tick 2s
        lie us eu consumed     -> ignored
        lie us eu returned     -> ignored
        lie us eu available    -> ignored
        lie us eu held         -> ignored
        lie us eu demand       -> ignored
        lie us eu reserved     -> ignored
        lie us eu debt         -> ignored
        cut us eu
        tick 1s
        hold h2 eu 30          -> held at eu",
    );
}
