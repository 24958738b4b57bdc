//! A model of tied requests beside hedged ones (Dean, Barroso, "The tail at scale", 2013), for decision 0031: one asker,
//! equal targets of one thread each, whose questions now and then take very long. It runs the machines that calls run:
//! the choice of [`super::balance`] and the lateness and budget of [`super::hedge`].
//!
//! Tied: a question goes to two targets, the second one two ways of a message later; whichever begins it first tells the
//! other, which drops it if it has not begun. Hedged: a second one is asked only when the first is late, and whoever has
//! not begun is told when the answer is there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::rng::{Rng, Seed};

use super::balance::{Candidate, Cost, choose};
use super::budget::BudgetSettings;
use super::hedge::Hedges;

const TARGETS: usize = 4;
/// Microseconds: what a question takes on average, what one in two hundred takes, and one way of a message.
const TAKES: f64 = 1_000.0;
const STALLS: f64 = 30_000.0;
const STALLED: f64 = 0.005;
const WAY: u64 = 250;
const ASKED: usize = 60_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Once,
    Hedged,
    Tied,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Asked(usize),
    Arrives(usize, usize),
    Done(usize, usize),
    Dropped(usize, usize),
    Late(usize),
    Answered(usize, usize),
}

struct Question {
    asked: u64,
    to: [Option<usize>; 2],
    answered: bool,
}

/// What became of the questions, in microseconds, and for each of them what ran and what was sent.
#[derive(Debug, Clone, Copy)]
struct Found {
    p50: u64,
    p99: u64,
    p999: u64,
    ran: f64,
    sent: f64,
}

struct World {
    way: Way,
    rng: Rng,
    draws: Rng,
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    scheduled: usize,
    questions: Vec<Question>,
    /// What waits at each target, and what it does.
    queues: [VecDeque<usize>; TARGETS],
    busy: [bool; TARGETS],
    costs: [Cost; TARGETS],
    hedges: Hedges,
    took: Vec<u64>,
    ran: usize,
    sent: usize,
}

impl World {
    fn at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    /// The best target but this one.
    fn best(&mut self, now: u64, but: Option<usize>) -> usize {
        let left: Vec<usize> = (0..TARGETS).filter(|at| Some(*at) != but).collect();
        let of = |at: &usize| Candidate { cost: &self.costs[*at], is_near: true, is_open: true };
        let candidates: Vec<_> = left.iter().map(of).collect();
        left[choose(&candidates, mono(now), &mut self.draws).expect("there are some")]
    }

    fn send(&mut self, now: u64, question: usize, copy: usize, later: u64) {
        let first = self.questions[question].to[0];
        let target = self.best(now, first.filter(|_| copy == 1));
        self.questions[question].to[copy] = Some(target);
        self.costs[target].asked();
        self.sent += 1;
        self.at(now + later + WAY, Event::Arrives(target, question));
    }

    fn begin(&mut self, now: u64, target: usize) {
        let Some(question) = self.queues[target].pop_front() else { return };
        self.busy[target] = true;
        self.ran += 1;
        let mean = if self.rng.unit() < STALLED { STALLS } else { TAKES };
        let takes = self.rng.exponential(mean) as u64;
        self.at(now + takes, Event::Done(target, question));
        if self.way == Way::Tied {
            for other in self.questions[question].to.into_iter().flatten().filter(|to| *to != target) {
                self.sent += 1;
                self.at(now + WAY, Event::Dropped(other, question));
            }
        }
    }

    fn happens(&mut self, now: u64, event: Event) {
        match event {
            Event::Asked(question) => {
                self.send(now, question, 0, 0);
                match self.way {
                    Way::Once => {}
                    Way::Tied => self.send(now, question, 1, 2 * WAY),
                    Way::Hedged => {
                        if let Some(late) = self.hedges.asked(mono(now)) {
                            self.at(now + late.as_micros() as u64, Event::Late(question));
                        }
                    }
                }
            }
            Event::Late(question) => {
                if !self.questions[question].answered && self.hedges.hedges(mono(now)) {
                    self.send(now, question, 1, 0);
                }
            }
            Event::Arrives(target, question) => {
                self.queues[target].push_back(question);
                if !self.busy[target] {
                    self.begin(now, target);
                }
            }
            Event::Dropped(target, question) => {
                let before = self.queues[target].len();
                self.queues[target].retain(|waiting| *waiting != question);
                if self.queues[target].len() < before {
                    self.costs[target].answered(mono(now), Duration::from_micros(2 * WAY));
                }
            }
            Event::Done(target, question) => {
                self.busy[target] = false;
                self.at(now + WAY, Event::Answered(target, question));
                self.begin(now, target);
            }
            Event::Answered(target, question) => {
                let asked = self.questions[question].asked;
                let took = Duration::from_micros(now - asked);
                self.costs[target].answered(mono(now), took);
                if std::mem::replace(&mut self.questions[question].answered, true) {
                    return;
                }
                self.took.push(now - asked);
                self.hedges.answered(took);
                if self.way == Way::Hedged {
                    for other in self.questions[question].to.into_iter().flatten().filter(|to| *to != target)
                    {
                        self.sent += 1;
                        self.at(now + WAY, Event::Dropped(other, question));
                    }
                }
            }
        }
    }
}

fn mono(us: u64) -> Mono {
    Mono(Duration::from_micros(us))
}

/// Asks at this share of what the targets can do, 0 to 1.
fn play(way: Way, load: f64) -> Found {
    let seed = Seed::new(11);
    let mut arrivals = seed.child("arrivals").rng();
    let mut world = World {
        way,
        rng: seed.child("takes").rng(),
        draws: seed.child("draws").rng(),
        events: BinaryHeap::new(),
        scheduled: 0,
        questions: Vec::new(),
        queues: Default::default(),
        busy: [false; TARGETS],
        costs: Default::default(),
        hedges: Hedges::new(BudgetSettings { share: 0.05, least: 1 }),
        took: Vec::new(),
        ran: 0,
        sent: 0,
    };
    let mean = TAKES * (1.0 - STALLED) + STALLS * STALLED;
    let mut at = 0.0;
    for question in 0..ASKED {
        at += arrivals.exponential(mean / (TARGETS as f64 * load));
        world.questions.push(Question { asked: at as u64, to: [None; 2], answered: false });
        world.at(at as u64, Event::Asked(question));
    }
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        world.happens(now, event);
    }
    assert_eq!(world.took.len(), ASKED, "each is answered");
    world.took.sort_unstable();
    let p = |thousandths: usize| world.took[ASKED * thousandths / 1_000];
    let each = |count: usize| count as f64 / ASKED as f64;
    Found { p50: p(500), p99: p(990), p999: p(999), ran: each(world.ran), sent: each(world.sent) }
}

/// Decision 0031 quotes what this prints.
#[test]
fn a_tie_adds_less_to_a_hedge_than_that_gains_and_costs_three_messages_and_a_quarter_more_work() {
    for load in [0.3, 0.5, 0.7] {
        let [once, hedged, tied] = [Way::Once, Way::Hedged, Way::Tied].map(|way| play(way, load));
        println!("{load}:\n once {once:?}\n hedged {hedged:?}\n tied {tied:?}");
        assert!(once.p99 - hedged.p99 > hedged.p99 - tied.p99 && hedged.p999 > tied.p999, "at {load}");
        assert!(hedged.ran < 1.05 && hedged.sent < 1.15, "at {load}");
        assert!(tied.ran > 1.25 && tied.sent > 3.0, "at {load}");
        assert!(load < 0.5 || tied.p50 > once.p50, "at {load} half of all wait for longer");
    }
}
