//! Whether the parts of a node go on, judged by the signs that they give.
//!
//! * It decides: which part is late, which is stuck, whether the node may call itself ready, and when the
//!   process has to end because a part stays stuck.
//! * It never does: read a clock, look at a part itself, or end anything.
//! * Invariant: a part is stuck only by time that this watchdog saw pass. When it was stopped itself (a
//!   stopped process, a paused machine), that time counts against nobody.

use std::fmt;
use std::time::Duration;

use rhumb_core::Mono;

/// A look is this many times later than the one before: then the watchdog itself did not run.
const ABSENT_AFTER: u32 = 8;

/// What a part's sign says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A number that rises all the time, also when there is nothing to do.
    Beat,
    /// A number that is odd while work is under way, and rises when it begins and when it ends.
    Turn,
}

/// A part of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// As it is told.
    pub(super) name: String,
    pub(super) sign: Sign,
    /// Standing still for so long is told.
    pub(super) late: Duration,
    /// Standing still for so long is being stuck.
    pub(super) stuck: Duration,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// A part has stood still for long, and may be well.
    Late(Standstill),
    /// A part is stuck: the node is not ready.
    Stuck(Standstill),
    /// A part that was late or stuck goes on.
    GoesOn(Standstill),
}

/// A part that stands, or stood, still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standstill {
    pub(super) part: String,
    pub(super) lasting: Duration,
}

impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has stood still for {:?}", self.part, self.lasting)
    }
}

/// How the node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is stuck.
    Content,
    /// This is stuck, the longest of all.
    Stuck(Standstill),
    /// It was stuck for too long: the process has to end.
    End(Standstill),
}

/// Judges the parts of one process.
#[derive(Debug)]
pub(super) struct Watchdog {
    parts: Vec<Seen>,
    every: Duration,
    end_after: Duration,
    looked: Option<Mono>,
}

#[derive(Debug)]
struct Seen {
    part: Part,
    sign: u64,
    since: Mono,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Told {
    Nothing,
    Late,
    Stuck,
}

impl Watchdog {
    /// A watchdog that looks this often, and ends the process when a part has been stuck for `end_after`.
    pub(super) fn new(parts: Vec<Part>, every: Duration, end_after: Duration) -> Self {
        let seen = |part| Seen { part, sign: 0, since: Mono::default(), told: Told::Nothing };
        Self { parts: parts.into_iter().map(seen).collect(), every, end_after, looked: None }
    }

    /// Looks at the signs, in the order of the parts.
    pub(super) fn look(&mut self, now: Mono, signs: &[u64], out: &mut Vec<Notice>) -> Verdict {
        debug_assert_eq!(signs.len(), self.parts.len(), "each part gives one sign");
        let absent = self.absence(now);
        self.looked = Some(now);
        let mut longest: Option<(Standstill, Duration)> = None;
        for (seen, sign) in self.parts.iter_mut().zip(signs) {
            let Some(standstill) = seen.look(now, absent, *sign, out) else { continue };
            let over = standstill.lasting - seen.part.stuck;
            if longest.as_ref().is_none_or(|(_, longest)| over > *longest) {
                longest = Some((standstill, over));
            }
        }
        match longest {
            None => Verdict::Content,
            Some((standstill, over)) if over >= self.end_after => Verdict::End(standstill),
            Some((standstill, _)) => Verdict::Stuck(standstill),
        }
    }

    /// How much of the time since the last look counts against nobody.
    fn absence(&self, now: Mono) -> Option<Duration> {
        let gap = now.since(self.looked?);
        Some(if gap > self.every * ABSENT_AFTER { gap - self.every } else { Duration::ZERO })
    }
}

impl Seen {
    /// The standstill, if it is stuck. `absent` is none at the first look.
    fn look(
        &mut self,
        now: Mono,
        absent: Option<Duration>,
        sign: u64,
        out: &mut Vec<Notice>,
    ) -> Option<Standstill> {
        let moves = sign != self.sign || (self.part.sign == Sign::Turn && sign.is_multiple_of(2));
        if moves || absent.is_none() {
            if self.told > Told::Nothing {
                out.push(Notice::GoesOn(self.standstill(now)));
            }
            (self.sign, self.since, self.told) = (sign, now, Told::Nothing);
            return None;
        }
        self.since = self.since.plus(absent.unwrap_or_default());
        let standstill = self.standstill(now);
        if standstill.lasting >= self.part.stuck {
            self.tell(Told::Stuck, || Notice::Stuck(standstill.clone()), out);
            return Some(standstill);
        }
        if standstill.lasting >= self.part.late {
            self.tell(Told::Late, || Notice::Late(standstill), out);
        }
        None
    }

    fn tell(&mut self, what: Told, notice: impl FnOnce() -> Notice, out: &mut Vec<Notice>) {
        if self.told < what {
            self.told = what;
            out.push(notice());
        }
    }

    fn standstill(&self, now: Mono) -> Standstill {
        Standstill { part: self.part.name.clone(), lasting: now.since(self.since) }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    fn parts() -> Vec<Part> {
        let part = |name: &str, sign, late, stuck| Part {
            name: name.to_owned(),
            sign,
            late: Duration::from_secs(late),
            stuck: Duration::from_secs(stuck),
        };
        vec![part("loop", Sign::Beat, 2, 5), part("sync", Sign::Turn, 1, 20)]
    }

    /// Looks at these signs (`second: loop sync`), and tells all that is not contentment.
    fn check(looks: &[(u64, u64, u64)], want: Expect) {
        let mut watchdog = Watchdog::new(parts(), Duration::from_secs(1), Duration::from_secs(10));
        let (mut told, mut out) = (String::new(), Vec::new());
        for (second, beat, turn) in looks {
            let verdict = watchdog.look(Mono(Duration::from_secs(*second)), &[*beat, *turn], &mut out);
            for notice in out.drain(..) {
                writeln!(told, "{second}: {notice:?}").expect("a string");
            }
            if verdict != Verdict::Content {
                writeln!(told, "{second}: {verdict:?}").expect("a string");
            }
        }
        let told = told.replace("Standstill { part: ", "").replace(" })", ")");
        want.assert_eq(&told);
    }

    fn every_second(from: u64, to: u64, beat: u64, turn: u64) -> Vec<(u64, u64, u64)> {
        (from..=to).map(|second| (second, beat, turn)).collect()
    }

    #[test]
    fn what_beats_and_what_has_nothing_to_do_is_well() {
        let beating: Vec<_> = (0..100).map(|second| (second, second, 0)).collect();
        check(&beating, expect![""]);
        let working: Vec<_> = (0..100).map(|second| (second, second, second * 2 + 1)).collect();
        check(&working, expect![""]);
    }

    #[test]
    fn a_loop_that_stands_still_is_late_then_stuck_then_the_end() {
        check(
            &every_second(100, 116, 7, 0),
            expect![[r#"
                102: Late("loop", lasting: 2s)
                105: Stuck("loop", lasting: 5s)
                105: Stuck("loop", lasting: 5s)
                106: Stuck("loop", lasting: 6s)
                107: Stuck("loop", lasting: 7s)
                108: Stuck("loop", lasting: 8s)
                109: Stuck("loop", lasting: 9s)
                110: Stuck("loop", lasting: 10s)
                111: Stuck("loop", lasting: 11s)
                112: Stuck("loop", lasting: 12s)
                113: Stuck("loop", lasting: 13s)
                114: Stuck("loop", lasting: 14s)
                115: End("loop", lasting: 15s)
                116: End("loop", lasting: 16s)
            "#]],
        );
    }

    #[test]
    fn what_goes_on_is_told_once_and_begins_anew() {
        let mut looks = every_second(0, 6, 7, 0);
        looks.extend(every_second(7, 9, 8, 0));
        check(
            &looks,
            expect![[r#"
                2: Late("loop", lasting: 2s)
                5: Stuck("loop", lasting: 5s)
                5: Stuck("loop", lasting: 5s)
                6: Stuck("loop", lasting: 6s)
                7: GoesOn("loop", lasting: 7s)
                9: Late("loop", lasting: 2s)
            "#]],
        );
    }

    #[test]
    fn a_sync_that_is_slow_is_told_and_is_not_stuck() {
        let mut looks: Vec<_> = (0..19).map(|second| (second, second, 1)).collect();
        looks.extend([(19, 19, 2), (20, 20, 2), (21, 21, 3)]);
        check(
            &looks,
            expect![[r#"
                1: Late("sync", lasting: 1s)
                19: GoesOn("sync", lasting: 19s)
            "#]],
        );
    }

    #[test]
    fn time_in_which_the_watchdog_did_not_run_counts_against_nobody() {
        check(
            &[(0, 7, 1), (1, 7, 1), (3_601, 7, 1), (3_602, 8, 1)],
            expect![[r#"
                1: Late("sync", lasting: 1s)
                3601: Late("loop", lasting: 2s)
                3602: GoesOn("loop", lasting: 3s)
            "#]],
        );
    }

    #[test]
    fn the_one_that_is_the_furthest_over_its_bound_is_named() {
        let looks = every_second(0, 22, 7, 1);
        let mut watchdog = Watchdog::new(parts(), Duration::from_secs(1), Duration::from_secs(60));
        let verdicts: Vec<_> = looks
            .iter()
            .map(|(s, beat, turn)| {
                watchdog.look(Mono(Duration::from_secs(*s)), &[*beat, *turn], &mut Vec::new())
            })
            .collect();
        let lasting = Duration::from_secs(22);
        assert_eq!(verdicts.last(), Some(&Verdict::Stuck(Standstill { part: "loop".into(), lasting })));
    }
}
