//! Whatever is asked in whatever order, units are neither made nor lost. The interpreter checks the
//! invariants I1 to I5 after every line; here proptest writes the lines.

use proptest::prelude::*;

use super::world::World;

const NODES: [&str; 4] = ["us/n1", "us/n2", "eu/n1", "ap/n1"];

#[derive(Debug, Clone)]
enum Act {
    Hold { at: usize, qty: u64, ttl_s: u64 },
    End { hold: usize, confirm: bool, at: usize },
    Retry { hold: usize, at: usize },
    Tick { ms: u64 },
    Sever { a: usize, b: usize, noticed: bool },
    Mend { a: usize, b: usize },
    Restart { at: usize },
    Crash { at: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let node = 0..NODES.len();
    prop_oneof![
        6 => (node.clone(), 1..9u64, 1..8u64).prop_map(|(at, qty, ttl_s)| Act::Hold { at, qty, ttl_s }),
        5 => (0..40usize, any::<bool>(), node.clone())
            .prop_map(|(hold, confirm, at)| Act::End { hold, confirm, at }),
        2 => (0..40usize, node.clone()).prop_map(|(hold, at)| Act::Retry { hold, at }),
        4 => (1..4_000u64).prop_map(|ms| Act::Tick { ms }),
        1 => (node.clone(), node.clone(), any::<bool>()).prop_map(|(a, b, noticed)| Act::Sever { a, b, noticed }),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Act::Mend { a, b }),
        1 => node.clone().prop_map(|at| Act::Restart { at }),
        1 => node.prop_map(|at| Act::Crash { at }),
    ]
}

fn run(tail: u64, latency_ms: u64, acts: &[Act]) -> World {
    let mut world = World::new();
    world.run(&format!("nodes {}", NODES.join(" ")));
    world.run(&format!("tail {tail}"));
    world.run("mint concert 60 weights=us:50,eu:30,ap:20 at=us/n1 home=us/n1");
    world.run(&format!("latency {latency_ms}ms"));
    for (i, act) in acts.iter().enumerate() {
        match act {
            Act::Hold { at, qty, ttl_s } => {
                world.run(&format!("hold h{i} {} {qty} ttl={ttl_s}s", NODES[*at]));
            }
            Act::End { hold, confirm, at } if world.is_held(&format!("h{hold}")) => {
                let verb = if *confirm { "confirm" } else { "release" };
                world.run(&format!("{verb} h{hold} at={}", NODES[*at]));
            }
            Act::Retry { hold, at } if world.is_held(&format!("h{hold}")) => {
                world.run(&format!("again h{hold} {}", NODES[*at]));
            }
            Act::Tick { ms } => {
                world.run(&format!("tick {ms}ms"));
            }
            Act::Sever { a, b, noticed } if a != b => {
                let verb = if *noticed { "cut" } else { "silence" };
                world.run(&format!("{verb} {} {}", NODES[*a], NODES[*b]));
            }
            Act::Mend { a, b } if a != b => {
                world.run(&format!("heal {} {}", NODES[*a], NODES[*b]));
            }
            Act::Restart { at } => {
                world.run(&format!("restart {}", NODES[*at]));
            }
            Act::Crash { at } => {
                world.run(&format!("crash {}", NODES[*at]));
                world.run(&format!("start {}", NODES[*at]));
            }
            _ => {}
        }
    }
    world
}

fn heal(world: &mut World) {
    for a in NODES {
        for b in NODES {
            if a != b {
                world.run(&format!("heal {a} {b}"));
            }
        }
    }
    world.run("latency 0s");
    world.run("tick 30s");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn units_are_neither_made_nor_lost(
        tail in prop_oneof![Just(0), Just(3)],
        latency_ms in prop_oneof![Just(0), 1..300u64],
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let mut world = run(tail, latency_ms, &acts);
        heal(&mut world);
        let rows = world.rows("concert");
        let left: u64 = rows.values().map(|row| row.available).sum();
        prop_assert_eq!(rows.values().map(|row| row.held).sum::<u64>(), 0, "every hold has ended");
        prop_assert_eq!(left + world.sold(), 60, "what is not sold can be sold");
        // And it can: one customer buys all that is left, wherever it lies.
        if left > 0 {
            world.run(&format!("hold last ap/n1 {left} ttl=60s"));
            world.run("tick 2s");
            prop_assert!(world.is_held("last"), "{} units are left and none can be held", left);
        }
    }
}
