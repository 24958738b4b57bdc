//! Before its story begins, a seed shows the parts that look ahead what it has drawn, and compares them
//! with oracles written from their definitions: forecasters, the levelling plan, the tail, the advice.
//!
//! * It decides: whether a forecast, a plan or a risk is what its definition says.
//! * It never does: use a formula of the code it looks at. A moving average is a sum over all requests, a
//!   season a look into the list of them, a probability a sum of its terms.
//! * Invariant: it draws from seeds of its own, so that no story depends on it.

use std::time::Duration;

use rhumb_actors::escrow::advise::{enough, exceeds};
use rhumb_actors::escrow::forecast::{Forecast, Method};
use rhumb_actors::escrow::policy::{Known, Move, Peer, View};
use rhumb_actors::escrow::{Initiative, LevelPolicy};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Mono, NodeId};

use super::violation::{Checked, Invariant, demand};

/// Requests that a forecaster is shown, and plans that are drawn.
const DRAWS: usize = 24;
/// A request: when, in milliseconds, and how many units.
type Asked = (u64, u64);

/// Shows everything that looks ahead what this seed has drawn.
///
/// # Errors
/// The definition that something does not keep to.
pub fn check(seed: &Seed) -> Checked {
    let rng = |label: &str| seed.child("foresight").child(label).rng();
    lately(&mut rng("lately"))?;
    season(&mut rng("season"))?;
    plans(&mut rng("plans"))?;
    tail(&mut rng("tail"))?;
    advice(&mut rng("advice"))
}

// ---- forecasts ---------------------------------------------------------------------------------

/// Units a second by a moving average over quarters of a second, each new one counting a quarter: a unit
/// counts for one a second in the quarter after its own, and for three quarters of that after each more.
fn average(asked: &[Asked], now: u64) -> f64 {
    let quarters = |ms: u64| ms / 250;
    let weight = |at: u64| match quarters(now) - quarters(at) {
        0 => 0.0,
        passed => 0.75f64.powi(i32::try_from(passed - 1).expect("a short story")),
    };
    asked.iter().map(|(at, units)| *units as f64 * weight(*at)).sum()
}

fn lately(rng: &mut Rng) -> Checked {
    let mut forecaster = Forecast::default().begin();
    let pause = *rng.pick(&[30, 300, 3_000]).expect("there are pauses");
    let (mut asked, mut now) = (Vec::new(), 0);
    for _ in 0..DRAWS {
        now += rng.exponential(f64::from(pause)).min(20_000.0) as u64;
        let units = rng.between(1, 40);
        forecaster.observe(Mono::millis(now), units);
        asked.push((now, units));
        now += rng.below(2_000);
        let ahead = rng.between(1, 8_000);
        let got = forecaster.forecast(Mono::millis(now), Duration::from_millis(ahead));
        close(got, average(&asked, now) * ahead as f64 / 1_000.0, "the average", &asked)?;
    }
    Ok(())
}

fn season(rng: &mut Rng) -> Checked {
    let (slot, slots) = (rng.between(50, 400), rng.between(2, 12));
    let season = slot * slots + rng.below(slot);
    let [season_long, slot_long] = [season, slot].map(Duration::from_millis);
    let forecast = Forecast { method: Method::SeasonalNaive, season: season_long, slot: slot_long };
    let mut forecaster = forecast.begin();
    let (mut asked, mut now) = (Vec::new(), rng.below(10 * slot));
    let first = now / slot + 1;
    for _ in 0..2 * DRAWS {
        let units = rng.between(1, 40);
        forecaster.observe(Mono::millis(now), units);
        asked.push((now, units));
        now += rng.below(slot);
        let ahead = rng.between(1, 2 * slot * slots);
        let got = forecaster.forecast(Mono::millis(now), Duration::from_millis(ahead));
        let want = match (now / slot).checked_sub(first) {
            Some(seen) if seen >= slots => last_season(&asked, now, ahead, (slot, slots)),
            _ => average(&asked, now) * ahead as f64 / 1_000.0,
        };
        close(got, want, "the last season", &asked)?;
        now += rng.below(slot);
    }
    Ok(())
}

/// What was asked for a season before the time ahead, at most a season of it: each slot as it went the last
/// time that it was over.
fn last_season(asked: &[Asked], now: u64, ahead: u64, (slot, slots): (u64, u64)) -> f64 {
    let until = now + ahead.min(slot * slots);
    let of = |number: u64| -> u64 {
        let inside = |at: &u64| (number * slot..(number + 1) * slot).contains(at);
        asked.iter().filter(|(at, _)| inside(at)).map(|(_, units)| units).sum()
    };
    let share = |number: u64| {
        let overlap = until.min((number + 1) * slot) - now.max(number * slot);
        let back = (number - now / slot) / slots + 1;
        of(number - back * slots) as f64 * overlap as f64 / slot as f64
    };
    (now / slot..until.div_ceil(slot)).map(share).sum()
}

fn close(got: u64, want: f64, what: &str, asked: &[Asked]) -> Checked {
    // Rounded to a whole unit, from thousandths of units a second that are rounded down.
    demand((got as f64 - want).abs() <= 0.6, Invariant::Forecast, || {
        format!("{got} are forecast, {what} says {want:.3}, of {asked:?}")
    })
}

// ---- plans -------------------------------------------------------------------------------------

fn plans(rng: &mut Rng) -> Checked {
    for _ in 0..DRAWS {
        let initiative =
            *rng.pick(&[Initiative::Pull, Initiative::Push, Initiative::Hybrid]).expect("there are three");
        let count = rng.between(1, 4);
        let peers: Vec<Peer> = (0..count).map(|number| peer(rng, number)).collect();
        let me = known(rng);
        let parked = if rng.chance(0.3) { rng.between(1, 200) } else { 0 };
        let view = View { available: me.available, parked, demand: me.demand, peers: &peers };
        let policy = LevelPolicy { initiative, ..LevelPolicy::default() };
        let moves = policy.plan(view);
        for found in kept_to(&view, &policy, &moves) {
            let what = || format!("{found}: {initiative:?} {view:?} plans {moves:?}");
            demand(false, Invariant::Levelling, what)?;
        }
    }
    Ok(())
}

fn known(rng: &mut Rng) -> Known {
    let most = *rng.pick(&[20, 400, 8_000]).expect("there are sizes");
    Known { available: rng.below(most), demand: rng.below(600) }
}

fn peer(rng: &mut Rng, number: u64) -> Peer {
    let node = NodeId::new("elsewhere", &format!("n{number}")).expect("a valid name");
    let known = rng.chance(0.9).then(|| known(rng));
    Peer { node, known, in_transit: if rng.chance(0.2) { rng.below(500) } else { 0 } }
}

/// What a plan does that its policy does not let it, in words.
fn kept_to(view: &View<'_>, policy: &LevelPolicy, moves: &[Move]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut given = 0;
    let me = Known { available: view.available, demand: view.demand };
    for (at, a_move) in moves.iter().enumerate() {
        let (Move::Ask { node, units } | Move::Give { node, units }) = a_move;
        let peer = view.peers.iter().find(|peer| peer.node == *node).expect("a plan names peers");
        let twice = moves[..at].iter().any(|other| match (other, a_move) {
            (Move::Ask { node, .. }, Move::Ask { node: same, .. })
            | (Move::Give { node, .. }, Move::Give { node: same, .. }) => node == same,
            _ => false,
        });
        found.extend((*units == 0 || twice).then_some("nobody is named twice, or for nothing"));
        if let Move::Give { .. } = a_move {
            given += units;
            found.extend(wrong_gift(view, policy, (peer, *units)));
        } else if view.parked <= view.available {
            found.extend(wrong_ask(me, policy, (peer, *units)));
        }
    }
    let mark = if policy.initiative == Initiative::Hybrid { mark_of(me, policy.high_water) } else { 0 };
    let below = given > 0 && u128::from(me.available.saturating_sub(given)) * 1_000 < mark;
    found.extend(below.then_some("nobody gives what is below its high-water mark"));
    found
}

/// Whether one who only looks ahead asks a peer for what it should not.
fn wrong_ask(me: Known, policy: &LevelPolicy, (peer, units): (&Peer, u64)) -> Option<&'static str> {
    let Some(known) = peer.known else { return Some("who is silent is asked by those who wait") };
    if policy.initiative == Initiative::Push {
        return Some("who pushes asks for nobody who does not wait");
    }
    if u128::from(me.available) * 1_000 >= mark_of(me, policy.low_water) {
        return Some("who has enough asks for nothing");
    }
    if !lasts_longer(known, me, policy.clearly_more) {
        return Some("only who has clearly more is asked");
    }
    (units > known.available).then_some("nobody is asked for more than they have")
}

fn wrong_gift(view: &View<'_>, policy: &LevelPolicy, (peer, units): (&Peer, u64)) -> Option<&'static str> {
    let Some(known) = peer.known else { return Some("nobody gives to who is silent") };
    let me = Known { available: view.available, demand: view.demand };
    let there = Known { available: known.available + peer.in_transit, ..known };
    if policy.initiative == Initiative::Pull || view.parked > 0 {
        return Some("who pulls, or has somebody waiting, gives nothing");
    }
    if u128::from(there.available) * 1_000 >= mark_of(there, policy.low_water) {
        return Some("who has enough is given nothing");
    }
    if !lasts_longer(me, there, policy.clearly_more) {
        return Some("only who has clearly more gives");
    }
    // A unit either way is rounding.
    let left = u128::from(me.available.saturating_sub(units) + 1) * u128::from(there.demand);
    let made = u128::from((there.available + units).saturating_sub(1)) * u128::from(me.demand);
    (left < made).then_some("nobody gives more cover than they keep")
}

/// What is asked for in this time, in thousandths of units, rounded down to whole ones.
fn mark_of(node: Known, time: Duration) -> u128 {
    u128::from(node.demand) * time.as_millis() / 1_000 * 1_000
}

/// Whether what one has lasts more than so many times as long as what another has.
fn lasts_longer(one: Known, other: Known, times: u64) -> bool {
    let [ones, others] = [(one, other), (other, one)]
        .map(|(of, against)| u128::from(of.available) * u128::from(against.demand));
    ones > others * u128::from(times)
}

/// Units near the floor of the tail are sold and come back.
fn tail(rng: &mut Rng) -> Checked {
    let policy = LevelPolicy { tail_floor: rng.below(40), ..LevelPolicy::default() };
    let nodes = rng.between(1, 6);
    let floor = policy.tail_floor * nodes;
    let (mut unsold, mut was) = (2 * floor, false);
    for _ in 0..4 * DRAWS {
        let step = rng.below(floor / 4 + 2);
        unsold = if rng.chance(0.55) { unsold.saturating_sub(step) } else { unsold + step };
        let is = policy.is_tail(unsold, usize::try_from(nodes).expect("few"), was);
        let right = match (was, is) {
            (false, is) => is == (unsold < floor),
            (true, is) => is == (2 * unsold < 3 * floor),
        };
        demand(right, Invariant::Levelling, || {
            format!("a floor of {floor}, {unsold} unsold: a tail was {was} and is {is}")
        })?;
        was = is;
    }
    Ok(())
}

// ---- advice ------------------------------------------------------------------------------------

/// P(X > n) for a Poisson number: one less the sum of the terms up to n.
fn more_than(rate: f64, n: u64) -> f64 {
    let (mut term, mut sum) = ((-rate).exp(), 0.0);
    for k in 0..=n {
        sum += term;
        term *= rate / (k + 1) as f64;
    }
    1.0 - sum
}

fn advice(rng: &mut Rng) -> Checked {
    let rate = rng.between(1, 2_000) as f64 / 10.0;
    let n = rng.below(2 * rate.ceil() as u64 + 4);
    let (got, want) = (exceeds(rate, n), more_than(rate, n));
    demand((got - want).abs() < 1e-9, Invariant::Advice, || {
        format!("P(X > {n}) at {rate}: {got} and {want}")
    })?;
    let risk = *rng.pick(&[0.2, 0.01, 0.001]).expect("there are risks");
    let units = enough(rate, risk);
    let right = more_than(rate, units) <= risk && (units == 0 || more_than(rate, units - 1) > risk);
    demand(right, Invariant::Advice, || format!("{units} are enough for {rate} at a risk of {risk}"))
}
