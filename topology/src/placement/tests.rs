use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::matrix::RegionMap;
use crate::policy::{Policy, Use};

const POLICY: &str = r#"
version = 7

[jurisdictions]
eu = ["eu-central", "eu-west", "eu-south"]
us = ["us-east", "us-south"]
ap = ["ap-southeast", "ap-northeast"]
sky = ["mars", "moon", "venus", "sun"]

[classes.inventory]
hold  = ["all"]
read  = ["all"]
carry = ["all"]

[classes.european]
hold  = ["jurisdiction:eu"]
read  = ["all"]
carry = ["all"]

[classes.two]
hold  = ["us-east", "eu-central"]
read  = ["all"]
carry = ["all"]

[classes.seen]
hold  = []
read  = ["all"]
carry = ["all"]
"#;

/// Nodes by name; `!` behind one: it is lost, `?`: its disk is not known, `*3`: it has three replicas.
fn sites(text: &str) -> Vec<Site> {
    let site = |word: &str| {
        let (name, disk) = match word.strip_suffix('!') {
            Some(name) => (name, Disk::Lost(Duration::from_secs(40))),
            None => match word.strip_suffix('?') {
                Some(name) => (name, Disk::Unknown),
                None => (word, Disk::Known),
            },
        };
        let (name, replicas) = name.split_once('*').unwrap_or((name, "0"));
        Site { node: name.parse().expect("a node"), disk, replicas: replicas.parse().expect("a number") }
    };
    text.split_whitespace().map(site).collect()
}

fn snapshot(sites: &[Site]) -> PolicySnapshot {
    PolicySnapshot::compile(
        Policy::parse(POLICY).expect("a good policy"),
        sites.iter().map(|site| &site.node.region),
        1_000,
    )
}

fn planned(sites: &[Site], class: &str, wish: &Wish) -> Result<Plan, NoPlan> {
    let (map, class, policy) = (RegionMap::default(), class.parse().expect("a class"), snapshot(sites));
    let distances = |from: &Region, to: &Region| map.rtt(from, to).ok();
    plan(&Ground { sites, distances: &distances, policy: &policy, class: &class }, wish)
}

fn shown(plan: Result<Plan, NoPlan>) -> String {
    let plan = match plan {
        Ok(plan) => plan,
        Err(none) => return format!("no plan: {none}\n"),
    };
    let mut text = String::new();
    for seat in plan.voters.iter().chain(&plan.learners).chain([&plan.leaseholder]) {
        text.push_str(&format!("{:<11} {}: {}\n", seat.role, seat.node, seat.why));
    }
    text.push_str(&format!("{}\n", plan.survives));
    for other in &plan.rejected {
        text.push_str(&format!("not {:<11} {}: {}\n", other.role, other.node, other.why));
    }
    text
}

fn check(nodes: &str, class: &str, wish: &Wish, want: Expect) {
    want.assert_eq(&shown(planned(&sites(nodes), class, wish)));
}

fn auto() -> Wish {
    Wish { learners: Learners::Auto, ..Wish::default() }
}

const SIX: &str = "us-east/n1 us-south/n1 eu-central/n1 eu-west/n1 ap-southeast/n1 ap-northeast/n1";

#[test]
fn voters_stand_in_three_regions_around_the_one_with_the_nearest_quorum_and_others_are_read_at_learners() {
    check(
        SIX,
        "inventory",
        &auto(),
        expect![[r#"
        voter       eu-west/n1: region eu-west is where the lease is best held
        voter       eu-central/n1: region eu-central is 13 ms from eu-west
        voter       us-east/n1: region us-east is 75 ms from eu-west
        learner     ap-northeast/n1: reads near ap-northeast: no voter stands there, and the nearest one, us-east/n1, is 166 ms away
        learner     ap-southeast/n1: reads near ap-southeast: no voter stands there, and the nearest one, us-east/n1, is 214 ms away
        learner     us-south/n1: reads near us-south: no voter stands there, and the nearest one, us-east/n1, is 31 ms away
        leaseholder eu-west/n1: a write waits 13 ms for the nearest quorum, and all readers together are 706 ms away
        any one region may be lost; any one node may be lost
        not voter       ap-northeast/n1: farther: 243 ms from eu-west, and us-east is 75 ms
        not voter       ap-southeast/n1: farther: 261 ms from eu-west, and us-east is 75 ms
        not voter       us-south/n1: farther: 113 ms from eu-west, and us-east is 75 ms
        not leaseholder eu-central/n1: all readers together are 709 ms from eu-central, and 706 ms from eu-west
        not leaseholder us-east/n1: from us-east a write waits 31 ms for the nearest quorum, from eu-west 13 ms
        not leaseholder us-south/n1: from us-south a write waits 31 ms for the nearest quorum, from eu-west 13 ms
        not leaseholder ap-northeast/n1: from ap-northeast a write waits 115 ms for the nearest quorum, from eu-west 13 ms
        not leaseholder ap-southeast/n1: from ap-southeast a write waits 115 ms for the nearest quorum, from eu-west 13 ms
    "#]],
    );
}

#[test]
fn the_lease_is_where_home_is_and_the_policy_bars_whom_it_bars() {
    let home = Some("eu-west".parse().expect("a region"));
    check(
        SIX,
        "inventory",
        &Wish { home: home.clone(), ..Wish::default() },
        expect![[r#"
        voter       eu-west/n1: region eu-west is where the lease is best held
        voter       eu-central/n1: region eu-central is 13 ms from eu-west
        voter       us-east/n1: region us-east is 75 ms from eu-west
        leaseholder eu-west/n1: region eu-west was said to be home; a write waits 13 ms for the nearest quorum
        any one region may be lost; any one node may be lost
        not voter       ap-northeast/n1: farther: 243 ms from eu-west, and us-east is 75 ms
        not voter       ap-southeast/n1: farther: 261 ms from eu-west, and us-east is 75 ms
        not voter       us-south/n1: farther: 113 ms from eu-west, and us-east is 75 ms
    "#]],
    );
    check(
        SIX,
        "european",
        &auto(),
        expect![[r#"
        voter       eu-west/n1: region eu-west is where the lease is best held
        voter       eu-central/n1: region eu-central is 13 ms from eu-west
        leaseholder eu-west/n1: a write waits 13 ms for the nearest quorum, and all readers together are 706 ms away
        the loss of eu-central or eu-west stops writes and strong reads; no node may be lost
        not voter       ap-northeast/n1: policy version 7: region ap-northeast may not hold class european
        not voter       ap-southeast/n1: policy version 7: region ap-southeast may not hold class european
        not voter       us-east/n1: policy version 7: region us-east may not hold class european
        not voter       us-south/n1: policy version 7: region us-south may not hold class european
        not leaseholder eu-central/n1: all readers together are 709 ms from eu-central, and 706 ms from eu-west
    "#]],
    );
    let away = Some("us-east".parse().expect("a region"));
    check(
        SIX,
        "european",
        &Wish { home: away, ..Wish::default() },
        expect![[r#"
        no plan: no node of region us-east may hold the class, so the lease cannot be there: eu-central, eu-west may
    "#]],
    );
}

#[test]
fn where_the_policy_has_no_three_regions_it_is_said_what_is_lived_through() {
    let nodes = "us-east/n1 us-east/n2 eu-central/n1 ap-southeast/n1";
    check(
        nodes,
        "two",
        &auto(),
        expect![[r#"
        voter       us-east/n1: region us-east is where the lease is best held
        voter       eu-central/n1: region eu-central is 91 ms from us-east
        voter       us-east/n2: another one in region us-east: no region without a voter was left, or none was wanted
        leaseholder us-east/n1: a write waits 1 ms for the nearest quorum, and all readers together are 305 ms away
        the loss of eu-central is lived through, that of us-east stops writes and strong reads; any one node may be lost
        not voter       ap-southeast/n1: policy version 7: region ap-southeast may not hold class two
        not leaseholder eu-central/n1: from eu-central a write waits 91 ms for the nearest quorum, from us-east 1 ms
    "#]],
    );
    check(
        nodes,
        "two",
        &Wish { survive: Some(Survive::Region), ..Wish::default() },
        expect![[r#"
        no plan: 3 voters in eu-central, us-east do not live through the loss of any one region, and no others are to be had: eu-central, us-east may hold the class. Three regions and an odd number of voters would do; without --survive the plan says what it lives through
    "#]],
    );
    let zone = Wish { survive: Some(Survive::Zone), ..Wish::default() };
    check(
        "us-east/n1 us-east/n2 us-east/n3 eu-central/n1",
        "inventory",
        &zone,
        expect![[r#"
            voter       us-east/n1: region us-east is where the lease is best held
            voter       us-east/n2: another one in region us-east: no region without a voter was left, or none was wanted
            voter       us-east/n3: another one in region us-east: no region without a voter was left, or none was wanted
            leaseholder us-east/n1: a write waits 1 ms for the nearest quorum, and all readers together are 91 ms away
            the loss of us-east stops writes and strong reads; any one node may be lost
            not voter       eu-central/n1: region eu-central is farther from us-east than those with voters
            not leaseholder eu-central/n1: from eu-central a write waits 91 ms for the nearest quorum, from us-east 1 ms
        "#]],
    );
}

#[test]
fn who_is_lost_has_no_disk_or_is_full_of_replicas_comes_last() {
    check(
        "us-east/n1*4 us-east/n2*1 eu-central/n1! eu-central/n2 ap-southeast/n1 eu-west/n1?",
        "inventory",
        &auto(),
        expect![[r#"
            voter       eu-central/n2: region eu-central is where the lease is best held
            voter       us-east/n2: region us-east is 91 ms from eu-central
            voter       ap-southeast/n1: region ap-southeast is 250 ms from eu-central
            leaseholder eu-central/n2: a write waits 91 ms for the nearest quorum, and all readers together are 353 ms away
            any one region may be lost; any one node may be lost
            not voter       eu-central/n1: it has not been reached for 40 s
            not learner     eu-central/n1: it has not been reached for 40 s
            not voter       eu-west/n1: it has not said yet which disk it has
            not voter       us-east/n1: same region: us-east/n2 (with fewer replicas) is there already, and a second one would not help against a region's loss
            not learner     us-east/n1: region us-east reads at its voter on us-east/n2
            not leaseholder us-east/n2: all readers together are 380 ms from us-east, and 353 ms from eu-central
            not leaseholder ap-southeast/n1: from ap-southeast a write waits 214 ms for the nearest quorum, from eu-central 91 ms
        "#]],
    );
    check(
        "us-east/n1 eu-central/n1! ap-southeast/n1",
        "inventory",
        &Wish::default(),
        expect![[r#"
            voter       us-east/n1: region us-east is where the lease is best held
            voter       ap-southeast/n1: region ap-southeast is 214 ms from us-east
            voter       eu-central/n1: region eu-central is 91 ms from us-east; it has not been reached for 40 s, and no other node may stand in
            leaseholder us-east/n1: a write waits 91 ms for the nearest quorum, and all readers together are 305 ms away
            any one region may be lost; any one node may be lost
            not leaseholder ap-southeast/n1: from ap-southeast a write waits 214 ms for the nearest quorum, from us-east 91 ms
        "#]],
    );
    check(
        "us-east/n1 us-east/n2 eu-central/n1! ap-southeast/n1",
        "inventory",
        &Wish::default(),
        expect![[r#"
            voter       us-east/n1: region us-east is where the lease is best held
            voter       ap-southeast/n1: region ap-southeast is 214 ms from us-east
            voter       eu-central/n1: region eu-central is 91 ms from us-east; it has not been reached for 40 s
            leaseholder us-east/n1: a write waits 91 ms for the nearest quorum, and all readers together are 305 ms away
            any one region may be lost; any one node may be lost
            not voter       us-east/n2: same region: us-east/n1 is there already, and a second one would not help against a region's loss
            not leaseholder ap-southeast/n1: from ap-southeast a write waits 214 ms for the nearest quorum, from us-east 91 ms
        "#]],
    );
    check(
        "mars/n1 moon/n1 venus/n1 sun/n1",
        "inventory",
        &Wish::default(),
        expect![[r#"
            voter       mars/n1: region mars is where the lease is best held
            voter       moon/n1: how far region moon is from mars the latency matrix does not say
            voter       sun/n1: how far region sun is from mars the latency matrix does not say
            leaseholder mars/n1: how far its nearest quorum is the latency matrix does not say
            any one region may be lost; any one node may be lost
            not voter       venus/n1: how far it is from mars the latency matrix does not say
            not leaseholder moon/n1: no better than mars, which comes first by name
            not leaseholder sun/n1: no better than mars, which comes first by name
            not leaseholder venus/n1: no better than mars, which comes first by name
        "#]],
    );
}

#[test]
fn what_is_not_known_is_refused() {
    check(
        SIX,
        "unheard-of",
        &auto(),
        expect![[r#"
        no plan: 1 replicas were asked for and 0 of 6 nodes may hold the class: policy version 7 has no class unheard-of
    "#]],
    );
    check(
        SIX,
        "seen",
        &auto(),
        expect![[r#"
        no plan: 1 replicas were asked for and 0 of 6 nodes may hold the class: policy version 7: region ap-northeast may not hold class seen; policy version 7: region ap-southeast may not hold class seen; policy version 7: region eu-central may not hold class seen; policy version 7: region eu-west may not hold class seen; policy version 7: region us-east may not hold class seen; policy version 7: region us-south may not hold class seen
    "#]],
    );
    check(
        SIX,
        "control",
        &auto(),
        expect![[r#"
        no plan: class control is the mesh's own, on the founding nodes: expected a class of the policy; `rhumb policy show FILE` lists those of its file
    "#]],
    );
    check(
        SIX,
        "two",
        &Wish { replication: 3, ..Wish::default() },
        expect![[r#"
        no plan: 3 replicas were asked for and 2 of 6 nodes may hold the class: policy version 7: region ap-northeast may not hold class two; policy version 7: region ap-southeast may not hold class two; policy version 7: region eu-west may not hold class two; policy version 7: region us-south may not hold class two
    "#]],
    );
    let (sites, class) = (sites(SIX), "inventory".parse().expect("a class"));
    let none = PolicySnapshot::none();
    let ground = Ground { sites: &sites, distances: &|_, _| None, policy: &none, class: &class };
    expect![[r#"
        no plan: no policy is loaded, and without one no labelled data is held anywhere
    "#]]
    .assert_eq(&shown(plan(&ground, &auto())));
}

#[test]
fn who_is_gone_is_replaced_in_another_region_and_a_learner_in_its_own() {
    let check = |nodes: &str, class: &str, role, want: &str| {
        let (map, sites) = (RegionMap::default(), sites(nodes));
        let (class, policy) = (class.parse().expect("a class"), snapshot(&sites));
        let distances = |from: &Region, to: &Region| map.rtt(from, to).ok();
        let ground = Ground { sites: &sites, distances: &distances, policy: &policy, class: &class };
        let (stay, gone) = ([sites[0].node.clone(), sites[1].node.clone()], sites[2].node.clone());
        let said = stand_in(&ground, &stay, &gone, role);
        let said = said.map_or_else(|none| none, |chosen| format!("{}: {}", chosen.node, chosen.why));
        assert_eq!(said, want);
    };
    let three = "us-east/n1 eu-central/n1 ap-southeast/n1!";
    let five = format!("{three} us-south/n1 us-east/n2");
    check(&five, "inventory", Role::Voter, "us-south/n1: region us-south has none and is 31 ms from us-east");
    check(
        &format!("{five} ap-southeast/n2"),
        "inventory",
        Role::Voter,
        "ap-southeast/n2: in the region of ap-southeast/n1",
    );
    let four = format!("{three} us-east/n2 us-south/n1! eu-west/n1?");
    let beside = "us-east/n2: beside us-east/n1: no region without a replica may hold the class";
    check(&four, "inventory", Role::Voter, beside);
    check(&five, "two", Role::Voter, beside);
    let none = |place: &str, class: &str| format!("{place} may hold class {class} and has no replica");
    check(three, "inventory", Role::Voter, &none("no other node that is reached", "inventory"));
    check(&five, "unheard-of", Role::Voter, &none("no other node that is reached", "unheard-of"));
    let there = "no other node of region ap-southeast that is reached";
    check(&five, "inventory", Role::Learner, &none(there, "inventory"));
}

const REGIONS: [&str; 7] =
    ["us-east", "us-south", "eu-central", "eu-west", "ap-southeast", "ap-northeast", "moon"];

fn any_sites() -> impl Strategy<Value = Vec<Site>> {
    let site =
        (0..REGIONS.len(), 1..4_u8, 0..8_u8, 0..5_u32).prop_map(|(region, name, disk, replicas)| Site {
            node: NodeId::new(REGIONS[region], &format!("n{name}")).expect("valid"),
            disk: match disk {
                0 => Disk::Unknown,
                1 => Disk::Lost(Duration::from_secs(9)),
                _ => Disk::Known,
            },
            replicas,
        });
    proptest::collection::vec(site, 0..12).prop_map(|mut sites| {
        sites.sort_by(|one, other| one.node.cmp(&other.node));
        sites.dedup_by(|one, other| one.node == other.node);
        sites
    })
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let survive = prop_oneof![Just(None), Just(Some(Survive::Region)), Just(Some(Survive::Zone))];
    let learners = prop_oneof![Just(Learners::None), Just(Learners::Auto)];
    (0..6_u32, survive, learners, proptest::option::of(0..REGIONS.len())).prop_map(
        |(replication, survive, learners, home)| Wish {
            replication,
            survive,
            learners,
            home: home.map(|home| REGIONS[home].parse().expect("a region")),
        },
    )
}

proptest! {
    #[test]
    fn no_seat_is_where_the_policy_says_no_and_every_node_is_answered_for(
        sites in any_sites(), wish in any_wish(), class in 0..5_usize, turn in 0..12_usize,
    ) {
        let name = ["inventory", "european", "two", "seen", "unheard-of"][class];
        let made = planned(&sites, name, &wish);
        let mut turned = sites.clone();
        let by = turn % turned.len().max(1);
        turned.rotate_left(by);
        prop_assert_eq!(&planned(&turned, name, &wish), &made, "the order of the sites does not matter");
        let policy = snapshot(&sites);
        let class: DataClass = name.parse().expect("a class");
        let may = |region: &Region| policy.permits(region, Use::Hold, &class).is_ok();
        if !sites.iter().any(|site| may(&site.node.region)) {
            prop_assert!(made.is_err());
        }
        let Ok(plan) = made else { return Ok(()) };
        let seats: Vec<_> = plan.voters.iter().chain(&plan.learners).collect();
        let nodes: BTreeSet<_> = seats.iter().map(|seat| &seat.node).collect();
        prop_assert_eq!(nodes.len(), seats.len(), "no node has two");
        let voting: BTreeSet<_> = plan.voters.iter().map(|seat| &seat.node.region).collect();
        for seat in &seats {
            prop_assert!(may(&seat.node.region), "{} may not hold it", seat.node);
            let site = sites.iter().find(|site| site.node == seat.node).expect("a site");
            prop_assert!(site.disk != Disk::Unknown);
            prop_assert!(seat.role == Role::Voter || (!voting.contains(&seat.node.region) && site.disk == Disk::Known));
        }
        prop_assert!(plan.voters.iter().any(|voter| voter.node == plan.leaseholder.node));
        for site in &sites {
            let answered = plan.rejected.iter().any(|other| other.node == site.node);
            prop_assert!(answered || nodes.contains(&site.node), "{} is not spoken of", site.node);
        }
        for region in &plan.may_lose {
            let left = plan.voters.iter().filter(|voter| voter.node.region != *region).count();
            prop_assert!(left > plan.voters.len() / 2);
        }
        let regions: BTreeSet<_> = sites
            .iter()
            .filter(|site| may(&site.node.region) && site.disk != Disk::Unknown)
            .map(|site| &site.node.region)
            .collect();
        if regions.len() >= 3 && plan.voters.len() == 3 && wish.survive != Some(Survive::Zone) {
            prop_assert_eq!(plan.may_lose.len(), 3, "three voters in three regions: any one may be lost");
        }
    }
}
