//! The keeper, case by case.

use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Epoch, HybridTime, Mono, NodeId};

use crate::clock::keeper::EPOCH_KEY;
use crate::clock::{
    ClockKeeper, ClockSettings, Doubt, Effect, EpochRow, Freeze, Input, Kernel, Out, Reading, ResetRefusal,
    Sample, Standing, Verdict,
};

/// True time when a case begins, in microseconds since 1970.
const BEGIN: i64 = 1_763_700_000_000_000;
const MS: i64 = 1_000;
const SECOND: i64 = 1_000_000;

/// One node: its monotonic clock is true, its wall clock is `wrong` by so much.
struct Case {
    keeper: ClockKeeper,
    /// Microseconds since the beginning.
    at: i64,
    wrong: i64,
    hybrid: HybridTime,
    out: Out,
    said: Vec<Effect>,
}

impl Case {
    fn of(sources: usize, peers: usize) -> Self {
        let names = (0..sources).map(|at| format!("ntp-{at}")).collect();
        let settings = ClockSettings { sources: names, peers, ..ClockSettings::default() };
        Self::with(ClockKeeper::new(settings, None, HybridTime::ZERO))
    }

    fn with(keeper: ClockKeeper) -> Self {
        Self { keeper, at: 0, wrong: 0, hybrid: HybridTime::ZERO, out: Out::default(), said: Vec::new() }
    }

    fn now(&self) -> Reading {
        let mono = Mono(Duration::from_micros(self.at as u64));
        Reading { mono, wall: BEGIN + self.at + self.wrong, hybrid: self.hybrid }
    }

    fn step(&mut self, input: Input) {
        self.keeper.step(self.now(), input, &mut self.out);
        let mut barrier = Barrier::default();
        let mut tickets = Vec::new();
        let said = &mut self.said;
        barrier.absorb(&mut self.out, |release| match release {
            Release::Persist(ticket, _) => tickets.push(ticket),
            Release::Perform(effect) => said.push(effect),
        });
        tickets.into_iter().for_each(|ticket| barrier.durable(ticket, |effect| self.said.push(effect)));
    }

    /// A sample with this offset from true time and round trip, in milliseconds.
    fn sample(&self, off_ms: i64, trip_ms: u64) -> Sample {
        let received = self.now().mono;
        let sent = Mono(received.0.saturating_sub(Duration::from_millis(trip_ms)));
        let shown = BEGIN + self.at - trip_ms as i64 * MS / 2 + off_ms * MS;
        Sample { sent, received, shown, error: Duration::from_millis(1) }
    }

    fn hears(&mut self, source: usize, off_ms: i64) {
        let sample = self.sample(off_ms, 10);
        self.step(Input::Sampled(source, sample));
    }

    fn later(&mut self, micros: i64) {
        self.at += micros;
        self.step(Input::Tick);
    }

    fn standing(&self) -> Standing {
        self.keeper.standing(self.now())
    }

    fn freeze(&self) -> Freeze {
        self.keeper.frozen(self.now()).expect("strong paths are frozen")
    }
}

fn three_agree() -> Case {
    let mut case = Case::of(3, 0);
    case.later(SECOND);
    (0..3).for_each(|source| case.hears(source, 0));
    case
}

#[test]
fn sources_that_agree_make_a_synchronised_clock() {
    let case = three_agree();
    assert_eq!(case.standing(), Standing::Synchronised);
    let report = case.keeper.report(case.now());
    let offset = report.offset.expect("they agree");
    assert!(offset.contains(0) && offset.half_width() < 7 * MS, "{offset:?}");
    assert!(report.sources.iter().all(|source| source.verdict == Verdict::Agrees));
}

#[test]
fn too_few_sources_freeze_and_say_how_many_are_needed() {
    let mut case = Case::of(3, 0);
    case.later(SECOND);
    assert_eq!(case.freeze(), Freeze::NeverAgreed { heard: 0, needed: 2 });
    case.hears(0, 0);
    assert_eq!(case.freeze(), Freeze::NeverAgreed { heard: 1, needed: 2 });
    case.hears(1, 0);
    assert_eq!(case.standing(), Standing::Degraded(vec![Doubt::Silent("ntp-2".into())]));
}

#[test]
fn of_two_that_were_heard_either_may_be_the_liar() {
    let mut case = Case::of(3, 0);
    case.later(SECOND);
    case.hears(0, 0);
    case.hears(1, 150);
    let offset = case.keeper.report(case.now()).offset.expect("one of them is right");
    assert!(offset.contains(0) && offset.contains(150 * MS), "{offset:?}");
    case.hears(2, 0);
    let offset = case.keeper.report(case.now()).offset.expect("two of them are right");
    assert!(offset.contains(0) && !offset.contains(150 * MS), "{offset:?}");
}

#[test]
fn an_outlier_is_left_out_and_named() {
    let mut case = Case::of(3, 0);
    case.later(SECOND);
    case.hears(0, 0);
    case.hears(1, 900);
    case.hears(2, 2);
    assert_eq!(case.standing(), Standing::Degraded(vec![Doubt::Outlier("ntp-1".into())]));
    assert!(case.keeper.bounds(case.now().mono).expect("two agree").contains(BEGIN + case.at));
}

#[test]
fn uncertainty_grows_until_strong_paths_freeze() {
    let mut case = three_agree();
    // 200 ppm of 970 s are 194 ms; with the first 6 ms that is the 200 ms that are tolerated.
    case.later(900 * SECOND);
    let Standing::Degraded(doubts) = case.standing() else { panic!("it stands: {:?}", case.standing()) };
    assert!(doubts.iter().any(|doubt| matches!(doubt, Doubt::Far(_))), "{doubts:?}");
    case.later(100 * SECOND);
    assert!(matches!(case.freeze(), Freeze::Beyond { off, .. } if off > Duration::from_millis(200)));
    (0..2).for_each(|source| case.hears(source, 0));
    assert_eq!(case.keeper.frozen(case.now()), None, "and stand again when sources are heard");
}

#[test]
fn a_step_of_the_wall_clock_is_seen_before_the_next_sample() {
    let mut case = three_agree();
    case.wrong = 190 * MS;
    assert_eq!(case.keeper.frozen(case.now()), None);
    case.wrong = 210 * MS;
    assert!(matches!(case.freeze(), Freeze::Beyond { .. }), "nobody told the keeper of the step");
    case.wrong = -210 * MS;
    assert!(matches!(case.freeze(), Freeze::Beyond { .. }));
}

#[test]
fn who_was_too_far_off_must_come_well_within() {
    let mut case = three_agree();
    case.wrong = 220 * MS;
    case.later(MS);
    case.wrong = 180 * MS;
    case.later(MS);
    assert!(matches!(case.freeze(), Freeze::Beyond { .. }), "180 ms was fine before");
    case.wrong = 100 * MS;
    case.later(MS);
    assert_eq!(case.keeper.frozen(case.now()), None);
    let kinds: Vec<_> =
        case.said.iter().map(|effect| matches!(effect, Effect::Became(Standing::Frozen(_)))).collect();
    assert_eq!(
        kinds.iter().filter(|frozen| **frozen).count(),
        2,
        "told at the start and once more: {:?}",
        case.said
    );
}

#[test]
fn a_clock_that_runs_away_raises_the_alarm_of_drift() {
    let mut case = Case::of(3, 0);
    // The sources gain 600 µs a second on the node's clock: it is that slow.
    for minute in 0..10 {
        case.later(60 * SECOND);
        // Its wall clock is kept in step.
        case.wrong = minute * 36 * MS;
        (0..3).for_each(|source| case.hears(source, minute * 36));
    }
    let Standing::Degraded(doubts) = case.standing() else { panic!("{:?}", case.standing()) };
    let drift = doubts.iter().find_map(|doubt| match doubt {
        Doubt::Drifts { ppm, max_ppm: 200 } => Some(*ppm),
        _ => None,
    });
    let (low, high) = drift.unwrap_or_else(|| panic!("{doubts:?}"));
    assert!((201..=600).contains(&low) && (600..700).contains(&high), "{low} to {high} ppm");
}

#[test]
fn without_sources_only_peers_are_asked() {
    let peer = |n: usize| NodeId::new("us", &format!("n{n}")).expect("valid");
    let mut case = Case::of(0, 2);
    assert_eq!(case.standing(), Standing::Degraded(vec![Doubt::NoSources]));
    case.later(SECOND);
    let off = case.sample(700, 40);
    case.step(Input::Compared(peer(1), off));
    assert_eq!(case.keeper.frozen(case.now()), None, "one of two: it may be that one's clock");
    case.step(Input::Compared(peer(2), off));
    assert_eq!(case.freeze(), Freeze::OffPeers { off: 2, of: 2, limit: Duration::from_millis(400) });
    case.wrong = 700 * MS;
    assert_eq!(case.keeper.frozen(case.now()), None, "it was set right");
}

#[test]
fn a_peer_counts_only_beyond_half_the_round_trip() {
    let peer = NodeId::new("us", "n1").expect("valid");
    let mut case = Case::of(0, 1);
    case.later(5 * SECOND);
    // 420 ms off, of which a round trip of 60 ms may explain 30.
    let vague = case.sample(420, 60);
    case.step(Input::Compared(peer.clone(), vague));
    assert_eq!(case.keeper.frozen(case.now()), None);
    let exact = case.sample(420, 10);
    case.step(Input::Compared(peer, exact));
    assert!(matches!(case.freeze(), Freeze::OffPeers { off: 1, of: 1, .. }));
}

#[test]
fn a_few_slow_answers_do_not_let_a_wrong_clock_go_on() {
    let peer = NodeId::new("us", "n1").expect("valid");
    let mut case = Case::of(0, 1);
    case.later(5 * SECOND);
    let exact = case.sample(450, 10);
    case.step(Input::Compared(peer.clone(), exact));
    for _ in 0..4 {
        case.later(SECOND);
        let vague = case.sample(450, 300);
        case.step(Input::Compared(peer.clone(), vague));
        assert!(matches!(case.freeze(), Freeze::OffPeers { .. }), "a slow answer says nothing new");
    }
    case.later(2 * SECOND);
    let vague = case.sample(450, 300);
    case.step(Input::Compared(peer.clone(), vague));
    assert_eq!(case.keeper.frozen(case.now()), None, "what was known is too old by now");
    let exact = case.sample(0, 10);
    case.step(Input::Compared(peer.clone(), exact));
    let report = case.keeper.report(case.now());
    let [of] = &report.peers[..] else { panic!("{report:?}") };
    assert!(of.node == peer && !of.off && of.offset.contains(0) && of.offset.half_width() < 7 * MS, "{of:?}");
}

#[test]
fn another_kind_of_doubt_is_told_and_the_same_one_is_not() {
    let mut case = Case::of(0, 0);
    case.step(Input::Tick);
    case.later(SECOND);
    let told = |case: &Case| case.said.len();
    assert_eq!(told(&case), 1, "{:?}", case.said);
    let kernel = |disciplined, ms| Kernel { disciplined, max_error: Duration::from_millis(ms) };
    case.step(Input::Kernel(kernel(true, 900)));
    case.step(Input::Kernel(kernel(true, 901)));
    assert_eq!(told(&case), 2, "more of the same: {:?}", case.said);
    let doubts = vec![Doubt::NoSources, Doubt::Kernel(Some(Duration::from_millis(900)))];
    assert_eq!(case.said[1], Effect::Became(Standing::Degraded(doubts)));
    case.step(Input::Kernel(kernel(true, 1)));
    assert_eq!(case.said[2..], [Effect::Became(Standing::Degraded(vec![Doubt::NoSources]))]);
}

#[test]
fn the_kernel_may_warn_and_widen_but_never_narrow() {
    let mut case = three_agree();
    let measured = case.keeper.report(case.now()).uncertainty.expect("they agree");
    let kernel = |max_error| Kernel { disciplined: true, max_error: Duration::from_millis(max_error) };
    case.step(Input::Kernel(kernel(0)));
    assert_eq!(case.keeper.report(case.now()).uncertainty, Some(measured), "not narrower");
    case.step(Input::Kernel(kernel(5_000)));
    assert_eq!(case.keeper.report(case.now()).uncertainty, Some(Duration::from_secs(5)));
    let wide = Doubt::Kernel(Some(Duration::from_secs(5)));
    assert_eq!(case.standing(), Standing::Degraded(vec![wide]), "it warns, and freezes nothing");
    case.step(Input::Kernel(Kernel { disciplined: false, max_error: Duration::ZERO }));
    assert_eq!(case.standing(), Standing::Degraded(vec![Doubt::Kernel(None)]));
}

#[test]
fn sleep_widens_what_is_known() {
    let mut case = three_agree();
    case.step(Input::Suspended(Duration::from_secs(3)));
    assert!(matches!(case.freeze(), Freeze::Beyond { .. }), "true time may be three seconds on");
    (0..3).for_each(|source| case.hears(source, 0));
    assert_eq!(case.keeper.frozen(case.now()), None);
}

#[test]
fn a_new_life_waits_for_the_ceiling_of_the_last_one() {
    let settings = ClockSettings::default();
    let ceiling = HybridTime::new((BEGIN / 1_000) as u64 + 250, 0);
    let mut case = Case::with(ClockKeeper::new(settings, None, ceiling));
    assert_eq!(case.freeze(), Freeze::CatchingUp(Duration::from_millis(251)));
    case.later(251 * MS);
    assert_eq!(case.keeper.frozen(case.now()), None);
}

#[test]
fn hybrid_time_too_far_ahead_of_true_time_freezes() {
    let mut case = three_agree();
    let wall = (case.now().wall / 1_000) as u64;
    case.hybrid = HybridTime::new(wall + 290, 7);
    assert_eq!(case.keeper.frozen(case.now()), None, "as far as a node may be that stands");
    case.hybrid = HybridTime::new(wall + 500, 0);
    let Freeze::CatchingUp(waits) = case.freeze() else { panic!("{:?}", case.freeze()) };
    assert!(waits >= Duration::from_millis(200) && waits < Duration::from_millis(215), "{waits:?}");
    let mut alone = Case::of(0, 2);
    alone.hybrid = HybridTime::new((alone.now().wall / 1_000) as u64 + 500, 0);
    assert_eq!(alone.keeper.frozen(alone.now()), None, "as far as a merge may take it");
    alone.hybrid = HybridTime::new(alone.hybrid.millis() + 200, 0);
    assert_eq!(alone.freeze(), Freeze::CatchingUp(Duration::from_millis(200)));
}

#[test]
fn who_knows_the_time_does_not_follow_a_clock_that_is_wrong() {
    let case = three_agree();
    let ahead = |ms: u64| HybridTime::new((case.now().wall / 1_000) as u64 + ms, 0);
    assert!(case.keeper.may_take(case.now(), ahead(290)), "as far as a node may be that stands");
    assert!(!case.keeper.may_take(case.now(), ahead(310)), "it would have to freeze itself");
    let mut followed = three_agree();
    followed.hybrid = ahead(310);
    assert!(matches!(followed.freeze(), Freeze::CatchingUp(_)));
    let alone = Case::of(0, 2);
    let ahead = |ms: u64| HybridTime::new((alone.now().wall / 1_000) as u64 + ms, 0);
    assert!(
        alone.keeper.may_take(alone.now(), ahead(500)) && !alone.keeper.may_take(alone.now(), ahead(501))
    );
}

#[test]
fn a_reset_waits_for_the_old_bound_and_is_a_new_epoch() {
    let mut case = three_agree();
    let ceiling = HybridTime::new((case.now().wall / 1_000) as u64 + 250, 0);
    case.step(Input::Reset(ceiling, Epoch(0)));
    let Some(Effect::ResetRefused(ResetRefusal::TooEarly(wait))) = case.said.last().cloned() else {
        panic!("{:?}", case.said)
    };
    assert!(wait > Duration::from_millis(750) && wait < Duration::from_millis(770), "{wait:?}");
    case.later(wait.as_micros() as i64 + SECOND);
    (0..3).for_each(|source| case.hears(source, 0));
    case.step(Input::Reset(ceiling, Epoch(0)));
    assert_eq!(case.said.last(), Some(&Effect::EpochDurable(Epoch(1))));
    assert_eq!(
        (case.freeze(), case.keeper.epoch().epoch),
        (Freeze::Resetting, Epoch(0)),
        "not before it is durable"
    );
    case.step(Input::Reset(ceiling, Epoch(0)));
    assert_eq!(case.said.last(), Some(&Effect::ResetRefused(ResetRefusal::UnderWay)));
    case.step(Input::EpochDurable(Epoch(1)));
    assert_eq!(case.keeper.epoch().epoch, Epoch(1));
    assert_eq!(
        case.freeze(),
        Freeze::NeverAgreed { heard: 0, needed: 2 },
        "what was known before is forgotten"
    );
    (0..3).for_each(|source| case.hears(source, 0));
    assert_eq!(case.standing(), Standing::Synchronised);
    assert!(case.keeper.epoch().bound.millis() < (case.now().wall / 1_000) as u64);
}

#[test]
fn nobody_resets_a_clock_without_knowing_the_time() {
    let mut case = Case::of(3, 0);
    case.later(SECOND);
    case.step(Input::Reset(HybridTime::ZERO, Epoch(0)));
    assert_eq!(case.said.last(), Some(&Effect::ResetRefused(ResetRefusal::NoAgreement)));
}

#[test]
fn nobody_resets_a_clock_by_what_a_time_service_said_that_is_gone() {
    let mut case = three_agree();
    let ceiling = HybridTime::new((case.now().wall / 1_000) as u64 + 250, 0);
    case.later(300 * SECOND);
    case.hears(0, 0);
    assert!(case.keeper.bounds(case.now().mono).is_some(), "what was agreed on holds, and grows wider");
    case.step(Input::Reset(ceiling, Epoch(0)));
    let refused = Some(Effect::ResetRefused(ResetRefusal::NoAgreement));
    assert_eq!(case.said.last().cloned(), refused, "of three one was heard");
    case.hears(1, 0);
    case.step(Input::Reset(ceiling, Epoch(0)));
    assert_eq!(case.said.last(), Some(&Effect::EpochDurable(Epoch(1))), "two agree, and one may be wrong");
}

#[test]
fn the_row_of_an_epoch_never_changes() {
    let row = EpochRow { epoch: Epoch(3), bound: HybridTime::new(1_763_700_000_000, 9) };
    let bytes = rhumb_core::codec::encode(&row).expect("encodes");
    assert_eq!(bytes.as_ref(), [3, 253, 9, 0, 0, 69, 182, 164, 154, 1]);
    assert_eq!(EpochRow::read(&bytes), Ok(row));
    assert!((0..bytes.len()).all(|cut| EpochRow::read(&bytes[..cut]).is_err()));
    assert_eq!(EPOCH_KEY, b"clock/epoch");
}
