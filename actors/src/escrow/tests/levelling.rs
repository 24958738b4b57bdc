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
