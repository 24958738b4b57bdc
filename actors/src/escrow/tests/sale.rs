//! A whole sale: most of the demand stands where the smallest share is, and rights must follow it.

use std::collections::BTreeMap;

use rhumb_core::rng::Seed;

use super::world::World;

/// Units for sale.
const SUPPLY: u64 = 2_000;
/// Requests for one unit, every 5 ms: of ten, six at ap, which has a fifth of the units.
const AT: [&str; 10] = ["ap", "us", "ap", "eu", "ap", "ap", "us", "ap", "eu", "ap"];

/// What a sale came to.
#[derive(Debug, Default)]
struct Sale {
    /// Refusals before so much was sold, by node and reason.
    early: BTreeMap<(String, String), u64>,
    late: u64,
    seconds: u64,
}

/// Sells until all is sold: of five holds about two are confirmed, the others expire after 3 s.
fn sell(world: &mut World, latency: &str) -> Sale {
    for line in ["foresee", "tail 32", &format!("latency {latency}")] {
        world.run(line);
    }
    world.run(&format!("mint concert {SUPPLY} weights=us:50,eu:30,ap:20"));
    world.run("tick 1s");
    let mut sale = Sale::default();
    let mut buyers = Seed::new(1).child("buyers").rng();
    let mut open: Vec<(u64, String)> = Vec::new();
    for i in 0..40_000u64 {
        let at = AT[(i % 10) as usize];
        let label = format!("h{i}");
        let events = world.run(&format!("hold {label} {at} 1 ttl=3s"));
        note(&mut sale, at, world.sold(), &events);
        open.push((i + 200, label));
        let (due, later): (Vec<_>, Vec<_>) = open.into_iter().partition(|(when, _)| *when <= i);
        open = later;
        for (_, label) in due {
            if buyers.chance(0.4) && world.is_held(&label) {
                world.run(&format!("confirm {label}"));
            }
        }
        let events = world.run("tick 5ms");
        note(&mut sale, at, world.sold(), &events);
        if world.sold() == SUPPLY {
            sale.seconds = i / 200;
            return sale;
        }
    }
    let rows = world.rows("concert");
    panic!("after 200 s {} of {SUPPLY} are sold: {sale:?} {rows:#?}", world.sold());
}

fn note(sale: &mut Sale, at: &str, sold: u64, events: &[String]) {
    let refused = |event: &&String| !event.starts_with("held") && !event.starts_with("expired");
    for event in events.iter().filter(refused) {
        if sold < SUPPLY / 2 {
            *sale.early.entry((at.to_owned(), event.clone())).or_default() += 1;
        } else {
            sale.late += 1;
        }
    }
}

#[test]
fn rights_follow_demand_to_the_smallest_share() {
    let mut world = World::new();
    let sale = sell(&mut world, "107ms");
    assert!(sale.early.is_empty(), "nobody is refused while half is left: {sale:?}");
    let rows = world.rows("concert");
    let moved: u64 = rows.values().flat_map(|row| row.granted.values()).sum();
    assert!(moved < 3 * SUPPLY, "rights swing to and fro: {moved} were moved to sell {SUPPLY}");
    let refused: u64 = rows.values().map(|row| row.tallies.false_refusals).sum();
    println!("{sale:?}, {moved} rights moved, {refused} false refusals");
}
