//! What was asked of a work before it was measured, beside what came out.
//!
//! * It decides: whether a bar is met, and an aim.
//! * It never does: judge what was not measured.

use super::{number, ours, times};
use crate::sample::{Outcome, Unit};

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// So many times as good as this system, under this load: the bar, and the aim.
    Times { system: &'static str, concurrency: usize, bar: f64, aim: f64 },
    /// This figure at most.
    AtMost { system: &'static str, unit: Unit, bar: f64, aim: f64 },
    /// So many times the row of the floor at most.
    Over { floor: &'static str, bar: f64, aim: f64 },
    /// Rhumb's median is at most so many times the better one of these systems', under this load: the bar, and the aim.
    Median { systems: [&'static str; 2], concurrency: usize, bar: f64, aim: f64 },
    /// This figure beside the row at most.
    Figure { system: &'static str, figure: &'static str, bar: f64, aim: f64 },
    /// This figure beside the row is told; at most so much is aimed at.
    Reported { system: &'static str, figure: &'static str, aim: f64 },
    /// This other row of Rhumb's is at least this share of its plain one.
    Share { system: &'static str, bar: f64 },
    /// This figure of that other row is not above the plain one's by more than a hundredth.
    NoMore { system: &'static str, figure: &'static str },
}

use Asked::{AtMost, Figure, Median, NoMore, Over, Reported, Share, Times};

const fn than(system: &'static str, concurrency: usize, bar: f64, aim: f64) -> Asked {
    Times { system, concurrency, bar, aim }
}

const fn at_most(unit: Unit, bar: f64, aim: f64) -> Asked {
    AtMost { system: "rhumb", unit, bar, aim }
}

/// Within one and a half times of bare actix, and within 1.2 times.
const NEAR_ACTIX: (f64, f64) = (1.0 / 1.5, 1.0 / 1.2);

/// Where bar and aim are one, nothing more is aimed at.
const BARS: [(&str, Asked); 69] = [
    ("remote-ask", than("tonic", 16, 1.0, 1.0)),
    ("remote-ask", than("tonic", 256, 1.0, 1.0)),
    ("remote-ask", than("kameo", 16, 1.0, 1.0)),
    ("remote-ask", than("kameo", 256, 1.0, 1.0)),
    ("remote-ask", than("ractor_cluster", 16, 1.0, 1.0)),
    ("remote-ask", than("ractor_cluster", 256, 1.0, 1.0)),
    ("remote-ask", than("coerce", 16, 1.0, 1.0)),
    ("remote-ask", than("coerce", 256, 1.0, 1.0)),
    ("remote-ask", than("quinn-framed", 16, 0.5, 0.7)),
    ("remote-ask", than("quinn-framed", 256, 0.3, 0.5)),
    ("remote-ask", Median { systems: ["quinn-framed", "quinn-streams"], concurrency: 1, bar: 1.6, aim: 1.2 }),
    ("remote-tell", than("tonic", 256, 1.0, 1.0)),
    ("remote-tell", than("tonic", 1, 1.0, 1.0)),
    ("remote-tell", than("ractor_cluster", 256, 1.0, 1.0)),
    ("remote-tell", than("ractor_cluster", 1, 1.0, 1.0)),
    ("remote-tell", than("kameo", 256, 1.0, 1.0)),
    ("remote-tell", than("kameo", 1, 1.0, 1.0)),
    ("remote-tell", than("actix-telepathy", 256, 1.0, 1.0)),
    ("remote-tell", than("actix-telepathy", 1, 1.0, 1.0)),
    ("remote-tell", than("coerce", 256, 1.0, 1.0)),
    ("remote-tell", than("coerce", 1, 1.0, 1.0)),
    ("frozen-peer", at_most(Unit::Millis, 2_000.0, 1_000.0)),
    ("large", than("quinn-streams", 1, 0.8, 0.95)),
    ("large", than("quinn-streams", 4, 0.8, 0.95)),
    ("local-ask-same", than("actix", 1, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("local-ask-same", than("actix", 64, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("local-ask-across", than("actix", 1, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("local-ask-across", than("actix", 64, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("local-tell-same", than("actix", 1, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("local-tell-across", than("actix", 1, NEAR_ACTIX.0, NEAR_ACTIX.1)),
    ("idle-actors", at_most(Unit::Bytes, 1_536.0, 1_024.0)),
    ("idle-actors", at_most(Unit::Micros, 20.0, 10.0)),
    ("durable-hold", than("redis", 1, 1.0, 2.0)),
    ("durable-hold", than("redis", 16, 1.0, 2.0)),
    ("durable-hold", than("redis-each", 16, 1.0, 2.0)),
    ("durable-hold", than("redis", 256, 1.0, 2.0)),
    ("durable-hold", than("redis-each", 256, 1.0, 2.0)),
    ("durable-hold", than("postgres", 256, 20.0, 20.0)),
    ("durable-hold", than("floor", 1, 0.5, 0.8)),
    ("durable-hold", than("floor", 16, 0.5, 0.8)),
    ("durable-hold", than("floor", 256, 0.5, 0.8)),
    ("tracing", Figure { system: "rhumb-1%", figure: "cpu_more_percent", bar: 5.0, aim: 2.0 }),
    ("tracing", Figure { system: "rhumb-100%", figure: "spans_unseen", bar: 0.0, aim: 0.0 }),
    ("tracing", Reported { system: "rhumb-100%", figure: "cpu_us_a_span", aim: 5.0 }),
    ("neighbour", at_most(Unit::Millis, 10.0, 2.0)),
    ("hybrid-tick", than("uhlc", 1, 1.0, 1.0)),
    ("hybrid-tick", than("uhlc", 2, 3.0, 3.0)),
    ("hybrid-tick", Figure { system: "rhumb", figure: "ahead_ms", bar: 1.0, aim: 1.0 }),
    ("hybrid-merge", than("uhlc", 1, 1.0, 1.0)),
    ("hybrid-merge", than("uhlc", 2, 3.0, 3.0)),
    ("hybrid-merge", Figure { system: "rhumb", figure: "ahead_ms", bar: 1.0, aim: 1.0 }),
    ("idle-node", at_most(Unit::Mebibytes, 64.0, 32.0)),
    ("idle-node", at_most(Unit::Percent, 1.0, 1.0)),
    ("start-node", at_most(Unit::Millis, 1_000.0, 300.0)),
    ("range-put", than("etcd", 1, 1.3, 10.0)),
    ("range-put", than("etcd", 64, 3.0, 10.0)),
    ("range-put", than("etcd", 256, 3.0, 10.0)),
    ("range-read", than("etcd", 256, 4.0, 15.0)),
    ("range-read", than("etcd-follower", 256, 8.0, 20.0)),
    ("range-wan", Over { floor: "floor", bar: 1.15, aim: 1.05 }),
    ("range-wan", AtMost { system: "rhumb-follower", unit: Unit::Millis, bar: 2.0, aim: 0.5 }),
    ("range-failover", than("etcd-killed", 1, 1.0, 2.0)),
    ("range-failover", than("etcd-stopped", 1, 1.0, 2.0)),
    ("range-failover", than("etcd-cut", 1, 1.0, 2.0)),
    ("range-8", Share { system: "rhumb-8", bar: 0.9 }),
    ("range-8", NoMore { system: "rhumb-8", figure: "fsyncs_a_put" }),
    ("range-recovery", at_most(Unit::Millis, 5_000.0, 1_000.0)),
    ("range-idle", at_most(Unit::Percent, 15.0, 3.0)),
    ("range-idle", at_most(Unit::Mebibytes, 400.0, 400.0)),
];

/// A sentence for each bar of a work that was measured.
#[must_use]
pub fn sentences(outcomes: &[Outcome]) -> Vec<String> {
    let judged = |o: &Outcome| {
        let of_work = BARS.iter().filter(|(work, _)| *work == o.work);
        of_work.filter_map(|(_, asked)| sentence(o, asked, outcomes)).collect::<Vec<_>>()
    };
    outcomes.iter().filter(|o| best(o, outcomes).rounds > 0).flat_map(judged).collect()
}

/// What of Rhumb's that has no bars of its own is beside those of its plain row: asks and tells of actors on threads of their
/// own.
const BESIDE: &str = "rhumb-apart";

/// A sentence for each load under which [`BESIDE`] was measured: how it compares with what the plain row has bars for.
#[must_use]
pub fn beside(outcomes: &[Outcome]) -> Vec<String> {
    let ours = outcomes.iter().filter(|o| o.system == BESIDE && o.rounds > 0);
    ours.filter_map(|ours| {
        let same = |o: &&Outcome| {
            (&o.work, o.concurrency, o.payload) == (&ours.work, ours.concurrency, ours.payload)
                && o.rounds > 0
        };
        let told: Vec<_> = outcomes.iter().filter(same).filter_map(|o| compared(ours, o, outcomes)).collect();
        (!told.is_empty()).then(|| format!("{}, {BESIDE}: {}", under(ours), told.join(", ")))
    })
    .collect()
}

/// How many times as good as this one ours is, if the plain row has a bar there.
fn compared(ours: &Outcome, with: &Outcome, among: &[Outcome]) -> Option<String> {
    let asked = BARS.iter().find_map(|(work, asked)| match *asked {
        Times { system, concurrency, bar, .. }
            if (*work, system, concurrency) == (&*with.work, &*with.system, with.concurrency) =>
        {
            Some(bar)
        }
        _ => None,
    })?;
    let with = best(with, among);
    let times = (with.value > 0.0).then(|| ours.value / with.value)?;
    Some(format!("{} times {} (asked of rhumb: {})", number(times), with.system, number(asked)))
}

/// A work and the load.
fn under(o: &Outcome) -> String {
    match o.concurrency {
        0 | 1 if o.unit != Unit::PerSecond => o.work.clone(),
        flight if o.work == "remote-tell" => format!("{}, {flight} at once, {} B", o.work, o.payload),
        flight => format!("{}, {flight} in flight", o.work),
    }
}

/// The better row of a peer that was measured on a runtime of one thread, too.
fn best<'a>(o: &'a Outcome, among: &'a [Outcome]) -> &'a Outcome {
    let other = format!("{}-one", o.system);
    let same = |with: &&Outcome| {
        with.system == other
            && (&with.work, with.concurrency, with.payload, with.unit)
                == (&o.work, o.concurrency, o.payload, o.unit)
            && with.value > o.value
    };
    among.iter().find(same).unwrap_or(o)
}

/// The one of these floors that has the lower median, under the load of this outcome.
fn better<'a>(floors: &[&str], of: &Outcome, among: &'a [Outcome]) -> Option<&'a Outcome> {
    let same = |o: &&Outcome| {
        floors.contains(&&*o.system)
            && (&o.work, o.concurrency) == (&of.work, of.concurrency)
            && o.p50_us > 0.0
    };
    among.iter().filter(same).min_by(|a, b| a.p50_us.total_cmp(&b.p50_us))
}

/// What is said of a figure that is no farther from its bar than its rounds, or those of whom it is compared with, differed.
fn near(value: f64, bar: f64, rows: &[&Outcome]) -> &'static str {
    let spread = rows.iter().map(|row| row.spread).fold(0.0, f64::max);
    if (value - bar).abs() < spread * value { ", by less than rounds differed" } else { "" }
}

fn met(bar: bool, aim: Option<bool>) -> &'static str {
    match (bar, aim) {
        (true, Some(true)) => "met, and the aim",
        (true, Some(false)) => "met, the aim missed",
        (true, None) => "met",
        (false, _) => "MISSED",
    }
}

fn sentence(o: &Outcome, asked: &Asked, among: &[Outcome]) -> Option<String> {
    // Above the bar there may be an aim.
    let aimed = |bar: f64, aim: f64| match aim == bar {
        true => String::new(),
        false => format!(", aim {}", number(aim)),
    };
    match *asked {
        Times { system, concurrency, bar, aim } if (&*o.system, o.concurrency) == (system, concurrency) => {
            let against = best(o, among);
            let ratio = times(against, among)?;
            let met = met(ratio >= bar, (aim > bar).then_some(ratio >= aim));
            let rows: Vec<_> = ours(against, among).into_iter().chain([against]).collect();
            let near = near(ratio, bar, &rows);
            let system = &against.system;
            let (ratio, aim, bar) = (number(ratio), aimed(bar, aim), number(bar));
            Some(format!("{}: {ratio} times {system}; bar {bar}{aim}: {met}{near}", under(o)))
        }
        Over { floor, bar, aim } if o.system == floor => {
            let over = 1.0 / times(o, among)?;
            let met = met(over <= bar, Some(over <= aim));
            let (over, bar, aim) = (number(over), number(bar), number(aim));
            Some(format!("{}: {over} times the floor; bar {bar}, aim {aim}: {met}", under(o)))
        }
        AtMost { system, unit, bar, aim } if (&*o.system, o.unit) == (system, unit) => {
            let (value, symbol) = (number(o.value), unit.symbol());
            let met = met(o.value <= bar, (aim < bar).then_some(o.value <= aim));
            let (aim, near) = (aimed(bar, aim), near(o.value, bar, &[o]));
            Some(format!("{}: {value} {symbol}; bar {}{aim}: {met}{near}", under(o), number(bar)))
        }
        Median { systems, concurrency, bar, aim }
            if (&*o.system, o.concurrency) == ("rhumb", concurrency) =>
        {
            let floor = better(&systems, o, among)?;
            let times = o.p50_us / floor.p50_us;
            let met = met(times <= bar, Some(times <= aim));
            let (times, aim, bar) = (number(times), aimed(bar, aim), number(bar));
            Some(format!("{}: a median {times} times {}'s; bar {bar}{aim}: {met}", under(o), floor.system))
        }
        Figure { system, figure, bar, aim } if o.system == system => {
            let value = *o.figures.get(figure)?;
            let met = met(value <= bar, (aim < bar).then_some(value <= aim));
            let (called, aim, bar) = (figure.replace('_', " "), aimed(bar, aim), number(bar));
            let same = among.iter().filter(|other| (&*other.system, &other.work) == (system, &o.work));
            let of = if same.count() > 1 { under(o) } else { o.work.clone() };
            Some(format!("{of}, {system}: {called} {}; bar {bar}{aim}: {met}", number(value)))
        }
        Reported { system, figure, aim } if o.system == system => {
            let value = *o.figures.get(figure)?;
            let met = if value <= aim { "met" } else { "missed" };
            let called = figure.replace('_', " ");
            Some(format!(
                "{}, {system}: {called} {}, reported; aim {}: {met}",
                o.work,
                number(value),
                number(aim)
            ))
        }
        Share { system, bar } if o.system == system => {
            let share = 1.0 / times(o, among)?;
            let met = met(share >= bar, None);
            Some(format!("{}: {} of one range; bar {}: {met}", under(o), number(share), number(bar)))
        }
        NoMore { system, figure } if o.system == system => {
            let same = |other: &&Outcome| other.system == "rhumb" && other.concurrency == o.concurrency;
            let (theirs, ours) = (among.iter().find(same)?.figures.get(figure)?, o.figures.get(figure)?);
            let met = met(*ours <= theirs * 1.01, None);
            let called = figure.replace('_', " ");
            let (ours, theirs) = (number(*ours), number(*theirs));
            Some(format!("{}: {ours} {called}, of one range {theirs}; bar no more: {met}", under(o)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    fn of(work: &str, system: &str, concurrency: usize, ops: u64) -> Outcome {
        Outcome { work: work.into(), concurrency, ..outcome(system, ops) }
    }

    #[test]
    fn a_bar_is_told_with_what_came_out() {
        let all = [of("range-put", "rhumb", 64, 40_000), of("range-put", "etcd", 64, 8_000)];
        assert_eq!(
            sentences(&all),
            ["range-put, 64 in flight: 5.00 times etcd; bar 3.00, aim 10.0: met, the aim missed"]
        );
        let all = [of("range-put", "rhumb", 1, 1_000), of("range-put", "etcd", 1, 1_000)];
        assert!(sentences(&all)[0].ends_with("bar 1.30, aim 10.0: MISSED"), "{:?}", sentences(&all));
        let missing = Outcome { rounds: 0, ..all[1].clone() };
        assert!(sentences(&[all[0].clone(), missing]).is_empty());
    }

    #[test]
    fn a_bar_that_is_nearer_than_rounds_differed_is_called_so() {
        let spread = |spread| {
            let etcd = Outcome { spread, ..of("range-put", "etcd", 64, 10_000) };
            sentences(&[of("range-put", "rhumb", 64, 33_000), etcd]).remove(0)
        };
        assert!(spread(0.08).ends_with(": met, the aim missed"), "{}", spread(0.08));
        assert!(
            spread(0.12).ends_with(": met, the aim missed, by less than rounds differed"),
            "{}",
            spread(0.12)
        );
    }

    #[test]
    fn medians_and_figures_have_bars_too() {
        let ask = |system, p50_us| Outcome { p50_us, ..of("remote-ask", system, 1, 10_000) };
        let said = sentences(&[ask("rhumb", 130.0), ask("quinn-framed", 100.0)]);
        assert_eq!(
            said,
            [
                "remote-ask, 1 in flight: a median 1.30 times quinn-framed's; bar 1.60, aim 1.20: met, the aim missed"
            ]
        );
        // The better one counts, whatever its rate.
        let said = sentences(&[ask("rhumb", 130.0), ask("quinn-framed", 100.0), ask("quinn-streams", 80.0)]);
        assert!(
            said.len() == 1 && said[0].contains("a median 1.62 times quinn-streams's; bar 1.60"),
            "{said:?}"
        );
        assert!(said[0].ends_with("MISSED"), "{said:?}");
        let mut traces = Outcome { unit: Unit::Percent, ..of("tracing", "rhumb-1%", 0, 20_000) };
        traces.figures.insert("cpu_more_percent".into(), 11.7);
        assert_eq!(
            sentences(&[traces]),
            ["tracing, rhumb-1%: cpu more percent 11.7; bar 5.00, aim 2.00: MISSED"]
        );
        let mut all = Outcome { unit: Unit::Percent, ..of("tracing", "rhumb-100%", 0, 20_000) };
        all.figures.insert("cpu_us_a_span".into(), 6.0);
        all.figures.insert("spans_unseen".into(), 0.0);
        assert_eq!(
            sentences(&[all.clone()]),
            [
                "tracing, rhumb-100%: spans unseen 0; bar 0: met",
                "tracing, rhumb-100%: cpu us a span 6.00, reported; aim 5.00: missed"
            ]
        );
        all.figures.insert("spans_unseen".into(), 1.0);
        assert!(sentences(&[all])[0].ends_with("spans unseen 1.00; bar 0: MISSED"));
        let all = [of("remote-ask", "rhumb", 16, 9), of("remote-ask", "coerce", 16, 10)];
        assert_eq!(sentences(&all), ["remote-ask, 16 in flight: 0.90 times coerce; bar 1.00: MISSED"]);
    }

    #[test]
    fn what_has_no_bar_of_its_own_stands_beside_them() {
        let all = [
            of("remote-ask", "rhumb", 16, 200),
            of("remote-ask", "rhumb-apart", 16, 100),
            of("remote-ask", "tonic", 16, 50),
            of("remote-ask", "quinn-framed", 16, 400),
        ];
        let said = beside(&all);
        let tonic = "2.00 times tonic (asked of rhumb: 1.00)";
        let floor = "0.25 times quinn-framed (asked of rhumb: 0.50)";
        assert_eq!(said, [format!("remote-ask, 16 in flight, rhumb-apart: {tonic}, {floor}")]);
        assert!(beside(&all[..1]).is_empty());
        // It is no peer: nobody is asked to be ahead of it.
        assert!(!sentences(&all).iter().any(|said| said.contains("apart")));
    }

    #[test]
    fn the_better_runtime_of_a_peer_counts() {
        let one = |ops| {
            [
                of("remote-ask", "rhumb", 16, 200),
                of("remote-ask", "tonic", 16, 50),
                of("remote-ask", "tonic-one", 16, ops),
            ]
        };
        assert_eq!(sentences(&one(100)), ["remote-ask, 16 in flight: 2.00 times tonic-one; bar 1.00: met"]);
        assert_eq!(sentences(&one(40)), ["remote-ask, 16 in flight: 4.00 times tonic; bar 1.00: met"]);
        let mut failed = one(100);
        (failed[1].rounds, failed[1].value) = (0, 0.0);
        assert_eq!(sentences(&failed), ["remote-ask, 16 in flight: 2.00 times tonic-one; bar 1.00: met"]);
    }

    #[test]
    fn less_is_better_where_it_is() {
        let gap = |system, millis| Outcome {
            unit: Unit::Millis,
            value: millis,
            ..of("range-failover", system, 1, 1)
        };
        let said = sentences(&[gap("rhumb-killed", 2_000.0), gap("etcd-killed", 1_000.0)]);
        assert_eq!(said, ["range-failover: 0.50 times etcd-killed; bar 1.00, aim 2.00: MISSED"]);
        let idle = Outcome { unit: Unit::Percent, value: 2.0, ..of("range-idle", "rhumb", 0, 1) };
        assert_eq!(
            sentences(&[idle]),
            ["range-idle: 2.00 % of a core; bar 15.0, aim 3.00: met, and the aim"]
        );
    }

    #[test]
    fn a_floor_is_what_cannot_be_done_without() {
        let wan = |system, value| Outcome { unit: Unit::Millis, value, ..of("range-wan", system, 1, 1) };
        let said = sentences(&[wan("rhumb", 110.0), wan("floor", 100.0), wan("rhumb-follower", 3.0)]);
        assert_eq!(said[0], "range-wan: 1.10 times the floor; bar 1.15, aim 1.05: met, the aim missed");
        assert_eq!(said[1], "range-wan: 3.00 ms; bar 2.00, aim 0.50: MISSED");
    }

    #[test]
    fn eight_ranges_are_compared_with_one() {
        let mut all = [of("range-8", "rhumb", 64, 1_000), of("range-8", "rhumb-8", 64, 800)];
        all[0].figures.insert("fsyncs_a_put".into(), 0.2);
        all[1].figures.insert("fsyncs_a_put".into(), 0.2);
        let said = sentences(&all);
        assert_eq!(said[0], "range-8, 64 in flight: 0.80 of one range; bar 0.90: MISSED");
        assert!(said[1].ends_with("0.20 fsyncs a put, of one range 0.20; bar no more: met"), "{}", said[1]);
    }
}
