//! What happens to the regions during the demo, and when.
//!
//! * It decides: at which point of the sale a region is killed, started again, cut off and healed.
//! * It never does: kill or cut anything.
//! * Invariant: each act comes once; a region that is killed is started again, and a cut ends.

use std::time::Duration;

/// How long the killed region stays down.
pub const DOWN_FOR: Duration = Duration::from_secs(3);
/// How long the cut lasts.
pub const CUT_FOR: Duration = Duration::from_secs(5);

/// Something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// One region's process is killed with SIGKILL.
    Kill,
    /// It is started again.
    StartAgain,
    /// Another region is cut off from the rest.
    CutOff,
    /// The cut ends.
    Heal,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Scene {
    /// Waits for its share of the sale.
    #[default]
    Ahead,
    /// Under way since.
    Since(Duration),
    Over,
}

/// The script of one demo.
#[derive(Debug, Clone)]
pub struct Script {
    seats: u64,
    kill: Scene,
    cut: Scene,
}

impl Script {
    /// The script for a sale of so many seats: the kill at a quarter, the cut at half.
    #[must_use]
    pub fn new(seats: u64) -> Self {
        Self { seats, kill: Scene::default(), cut: Scene::default() }
    }

    /// What happens now, if anything; to be asked again until it is nothing.
    pub fn step(&mut self, now: Duration, sold: u64) -> Option<Act> {
        let sold = u128::from(sold);
        let (quarter, half) = (sold * 4 >= self.seats.into(), sold * 2 >= self.seats.into());
        scene(&mut self.kill, quarter, now, DOWN_FOR, (Act::Kill, Act::StartAgain))
            .or_else(|| scene(&mut self.cut, half, now, CUT_FOR, (Act::CutOff, Act::Heal)))
    }

    /// Whether a region is down or cut off now.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        [self.kill, self.cut].iter().any(|scene| matches!(scene, Scene::Since(_)))
    }

    /// Whether everything has happened.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.kill == Scene::Over && self.cut == Scene::Over
    }
}

fn scene(scene: &mut Scene, due: bool, now: Duration, lasts: Duration, acts: (Act, Act)) -> Option<Act> {
    match *scene {
        Scene::Ahead if due => {
            *scene = Scene::Since(now);
            Some(acts.0)
        }
        Scene::Since(began) if now >= began + lasts => {
            *scene = Scene::Over;
            Some(acts.1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of `second:sold`, and the acts as `second:act`.
    fn check(seats: u64, steps: &str, want: &str) {
        let mut script = Script::new(seats);
        let mut acts = Vec::new();
        for step in steps.split_whitespace() {
            let (second, sold) = step.split_once(':').expect("second:sold");
            let now = Duration::from_secs(second.parse().expect("a number"));
            while let Some(act) = script.step(now, sold.parse().expect("a number")) {
                acts.push(format!("{second}:{act:?}"));
            }
        }
        assert_eq!(acts.join(" "), want);
        assert_eq!(script.is_over(), acts.len() == 4);
    }

    #[test]
    fn the_kill_comes_at_a_quarter_and_the_cut_at_half() {
        check(
            100,
            "0:0 1:24 2:25 4:30 5:40 6:49 7:50 11:70 12:80 99:100",
            "2:Kill 5:StartAgain 7:CutOff 12:Heal",
        );
    }

    #[test]
    fn a_quick_sale_has_both_at_once() {
        check(10, "0:9 3:10 5:10", "0:Kill 0:CutOff 3:StartAgain 5:Heal");
    }

    #[test]
    fn a_sale_that_stalls_after_the_kill_leaves_nothing_under_way() {
        let mut script = Script::new(100);
        assert_eq!(script.step(Duration::ZERO, 25), Some(Act::Kill));
        assert!(script.is_under_way());
        assert_eq!(script.step(DOWN_FOR, 0), Some(Act::StartAgain));
        assert!(!script.is_under_way() && !script.is_over(), "the cut is not due and never will be");
    }

    #[test]
    fn nothing_happens_in_a_sale_that_does_not_start() {
        check(10, "0:0 100:2", "");
    }
}
