//! The levelling policies side by side, in one small deterministic world: who refuses least, and who
//! moves rights least often. `docs/decisions/0015-who-moves-rights.md` has the table and what follows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect;

use super::world::World;
use crate::escrow::policy::Initiative;

/// Units for sale; far more than are asked for, so that every refusal is a false one.
const SUPPLY: u64 = 20_000;
/// Milliseconds between two requests.
const GAP_MS: u64 = 5;

/// Where and when units are asked for: the region of a request, by its number.
struct Demand {
    name: &'static str,
    weights: &'static str,
    at: fn(u64) -> &'static str,
}

const DEMANDS: [Demand; 4] = [
    // Six of ten at ap, which has a fifth.
    Demand {
        name: "skewed",
        weights: "us:50,eu:30,ap:20",
        at: |i| ["ap", "us", "ap", "eu", "ap", "ap", "us", "ap", "eu", "ap"][(i % 10) as usize],
    },
    // All at a region without a share.
    Demand { name: "elsewhere", weights: "us:1,eu:1,ap:0", at: |_| "ap" },
    // The crowd moves on every five seconds; every region has little.
    Demand {
        name: "wandering",
        weights: "us:1,eu:1,ap:1",
        at: |i| ["ap", "eu", "us"][(i / 1_000 % 3) as usize],
    },
    // Everywhere alike: nothing needs to move.
    Demand { name: "even", weights: "us:1,eu:1,ap:1", at: |i| ["ap", "eu", "us"][(i % 3) as usize] },
];

/// What a policy came to.
#[derive(Default)]
struct Outcome {
    refused: u64,
    waited: u64,
    moves: u64,
    units: u64,
}

fn run(initiative: Initiative, demand: &Demand, supply: u64, requests: u64) -> Outcome {
    let mut world = World::new();
    for line in [&format!("levels {}", initiative.name()), "foresee"] {
        world.run(line);
    }
    world.run(&format!("mint concert {supply} weights={}", demand.weights));
    world.run("latency 50ms");
    world.run("tick 1s");
    let mut outcome = Outcome::default();
    for i in 0..requests {
        let at = (demand.at)(i);
        let events = world.run(&format!("hold h{i} {at} 1 ttl=1h"));
        outcome.waited += u64::from(!events.iter().any(|event| event.starts_with("held")));
        let later = world.run(&format!("tick {GAP_MS}ms"));
        outcome.refused += events.iter().chain(&later).filter(|event| *event == "exhausted").count() as u64;
    }
    let moved = world.levelled("concert").into_values().flat_map(|levelled| levelled.moved);
    let out = |(way, _): &((_, _), _)| matches!(way, (crate::escrow::levelled::Direction::Out, _));
    for (_, moved) in moved.filter(out) {
        outcome.moves += moved.moves;
        outcome.units += moved.units;
    }
    outcome
}

#[test]
fn policies_side_by_side() {
    let mut table = format!(
        "{:<10} {:<7} {:>7} {:>7} {:>6} {:>7}\n",
        "demand", "policy", "refused", "waited", "moves", "units"
    );
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for demand in &DEMANDS {
        for initiative in [Initiative::Pull, Initiative::Push, Initiative::Hybrid] {
            let Outcome { refused, waited, moves, units } = run(initiative, demand, SUPPLY, 3_000);
            let name = initiative.name();
            writeln!(table, "{:<10} {name:<7} {refused:>7} {waited:>7} {moves:>6} {units:>7}", demand.name)
                .expect("a string");
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + refused + waited, sum.1 + moves);
        }
    }
    expect![[r#""#]].assert_eq(&table);
}
