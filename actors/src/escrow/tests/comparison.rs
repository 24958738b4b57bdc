//! The levelling policies side by side, in one small deterministic world: who refuses least, and who
//! moves rights least often. `docs/decisions/0015-who-moves-rights.md` has the table and what follows.

use std::fmt::Write as _;

use expect_test::expect;

use super::world::World;
use crate::escrow::policy::Initiative;

/// Units for sale: a tenth more than are asked for, so that every refusal is a false one.
const SUPPLY: u64 = 3_300;
/// Requests, of so many units each, so many milliseconds apart: 200 units a second for 15 seconds.
const REQUESTS: u64 = 600;
const QTY: u64 = 5;
const GAP_MS: u64 = 25;

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
        at: |i| ["ap", "eu", "us"][(i / 200 % 3) as usize],
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

fn run(initiative: Initiative, demand: &Demand) -> Outcome {
    let mut world = World::new();
    for line in [&format!("levels {}", initiative.name()), "foresee"] {
        world.run(line);
    }
    world.run(&format!("mint concert {SUPPLY} weights={}", demand.weights));
    world.run("latency 50ms");
    world.run("tick 1s");
    let mut outcome = Outcome::default();
    for i in 0..REQUESTS {
        let at = (demand.at)(i);
        let events = world.run(&format!("hold h{i} {at} {QTY} ttl=1h"));
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
    for demand in &DEMANDS {
        for initiative in [Initiative::Pull, Initiative::Push, Initiative::Hybrid] {
            let Outcome { refused, waited, moves, units } = run(initiative, demand);
            let name = initiative.name();
            writeln!(table, "{:<10} {name:<7} {refused:>7} {waited:>7} {moves:>6} {units:>7}", demand.name)
                .expect("a string");
        }
    }
    expect![[r#"
        demand     policy  refused  waited  moves   units
        skewed     pull          0       0      7    1551
        skewed     push          0       0     10    1324
        skewed     hybrid        0       0      7    1551
        elsewhere  pull          0      30     21    3300
        elsewhere  push          0      14     19    3300
        elsewhere  hybrid        0      14     14    3300
        wandering  pull          0       0     10    3056
        wandering  push          0       0     11    2878
        wandering  hybrid        0       0      9    2726
        even       pull          0       0      0       0
        even       push          0       0      0       0
        even       hybrid        0       0      0       0
    "#]]
    .assert_eq(&table);
}
