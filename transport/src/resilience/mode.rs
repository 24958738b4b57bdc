//! How much a node does at present: all that it is asked, or less.
//!
//! The four modes are steps of a staircase. Down it goes as soon as a sign has lasted a little, one or two steps at once;
//! up only after it has been calm for longer, and by way of a recovery in which what was left out is taken up again. A
//! sign that has tripped must fall to half of what tripped it before it is gone: without either, a node at the edge would
//! change its mode with every look.
//!
//! * It decides: the mode.
//! * It never does: leave anything out itself. Services subscribe, and know what can wait.

use std::time::Duration;

use rhumb_core::Mono;

/// How much a node does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Only what must be.
    Floor,
    /// What can wait is left out.
    Degraded,
    /// All, and what was left out is taken up again little by little.
    Recovery,
    /// All.
    #[default]
    Target,
}

impl Mode {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Floor, Self::Degraded, Self::Recovery, Self::Target];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Degraded => "degraded",
            Self::Recovery => "recovery",
            Self::Target => "target",
        }
    }
}

/// When a node changes its mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeSettings {
    /// How long a sign lasts before the node does less.
    pub worse_after: Duration,
    /// How long it has been gone before the node recovers.
    pub calm_after: Duration,
    /// How long a recovery lasts without one.
    pub steady_after: Duration,
    /// A larger share of questions turned away than this is a sign, 0 to 1.
    pub shed: f64,
    /// One larger than this is a grave one.
    pub shed_most: f64,
}

impl Default for ModeSettings {
    fn default() -> Self {
        Self {
            worse_after: Duration::from_secs(3),
            calm_after: Duration::from_secs(10),
            steady_after: Duration::from_secs(30),
            shed: 0.05,
            shed_most: 0.5,
        }
    }
}

/// Questions since the last look of which a share says something.
const LEAST_ASKED: u64 = 20;
/// One peer of more than so many may be away.
const FEW: u32 = 8;

/// What a look at the node shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signs {
    /// Questions to doors since the last look.
    pub asked: u64,
    /// The share of those that were turned away, 0 to 1.
    pub shed: f64,
    /// How hard the store is pressed: 0 not at all, 1 a little, 2 only what must be durable, 3 it takes nothing.
    pub store: u8,
    /// Peers that should be connected.
    pub peers: u32,
    /// Those that are.
    pub connected: u32,
}

/// What a sign is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Questions are turned away.
    Admission,
    /// The store is pressed.
    Store,
    /// Peers are not connected.
    Links,
}

impl Sign {
    /// It in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "questions are turned away",
            Self::Store => "the store is pressed",
            Self::Links => "peers are not connected",
        }
    }
}

/// How grave what is seen is. Signs of the same gravity: the first of [`Sign`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    Calm,
    Pressed,
    Grave,
}

/// The mode of one node.
#[derive(Debug)]
pub struct Modes {
    settings: ModeSettings,
    mode: Mode,
    why: Option<Sign>,
    /// Where it wants to go, and since when.
    wants: Option<(Mode, Mono)>,
}

impl Modes {
    /// At its target.
    #[must_use]
    pub fn new(settings: ModeSettings) -> Self {
        Self { settings, mode: Mode::Target, why: None, wants: None }
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What sign it is in a lesser mode for.
    #[must_use]
    pub fn why(&self) -> Option<Sign> {
        self.why
    }

    /// What a look shows. Gives the new mode where it changes.
    pub fn look(&mut self, now: Mono, signs: &Signs) -> Option<Mode> {
        let (gravity, sign) = self.judge(signs);
        let (wanted, after) = match (self.mode, gravity) {
            (Mode::Floor, Gravity::Grave) => (Mode::Floor, Duration::ZERO),
            (Mode::Floor, Gravity::Pressed) => (Mode::Degraded, self.settings.calm_after),
            (Mode::Floor | Mode::Degraded, Gravity::Calm) => (Mode::Recovery, self.settings.calm_after),
            (Mode::Recovery, Gravity::Calm) => (Mode::Target, self.settings.steady_after),
            (Mode::Target, Gravity::Calm) => (Mode::Target, Duration::ZERO),
            (_, Gravity::Grave) => (Mode::Floor, self.settings.worse_after),
            (_, Gravity::Pressed) => (Mode::Degraded, self.settings.worse_after),
        };
        if wanted == self.mode {
            self.wants = None;
            return None;
        }
        let since = match self.wants {
            Some((same, since)) if same == wanted => since,
            _ => now,
        };
        self.wants = Some((wanted, since));
        if now.since(since) < after {
            return None;
        }
        (self.mode, self.why, self.wants) = (wanted, sign, None);
        Some(wanted)
    }

    /// The gravest of what is seen, and which sign that is.
    fn judge(&self, signs: &Signs) -> (Gravity, Option<Sign>) {
        // What has tripped is gone only below half of that. A share of a few says nothing.
        let shed = |limit: f64, tripped: bool| {
            signs.asked >= LEAST_ASKED && signs.shed > if tripped { limit / 2.0 } else { limit }
        };
        let is_less = matches!(self.mode, Mode::Floor | Mode::Degraded);
        let graded = |grave: bool, pressed: bool| match (grave, pressed) {
            (true, _) => Gravity::Grave,
            (false, true) => Gravity::Pressed,
            (false, false) => Gravity::Calm,
        };
        let missing = signs.peers.saturating_sub(signs.connected);
        let each = [
            (
                graded(
                    shed(self.settings.shed_most, self.mode == Mode::Floor),
                    shed(self.settings.shed, is_less),
                ),
                Sign::Admission,
            ),
            (graded(signs.store >= 3, signs.store >= if is_less { 1 } else { 2 }), Sign::Store),
            // Without any peer a node cannot ask anybody for anything.
            (graded(missing > 0 && signs.connected == 0, missing * FEW > signs.peers), Sign::Links),
        ];
        let gravest = each.into_iter().fold((Gravity::Calm, None), |gravest, (gravity, sign)| {
            if gravity > gravest.0 { (gravity, Some(sign)) } else { gravest }
        });
        (gravest.0, gravest.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays a story, a look a second: `calm`, `shed=PERCENT` of many, `few=PERCENT` of three, `store=LEVEL`, `links=CONNECTED/PEERS`, each `*N` for N
    /// seconds. Gives the changes, each with the second at which it came.
    fn play(story: &str) -> String {
        let (mut modes, mut second, mut told) = (Modes::new(ModeSettings::default()), 0_u64, Vec::new());
        for word in story.split_whitespace() {
            let (sign, seconds) = word.split_once('*').expect("for so long");
            let mut signs = Signs { asked: 1_000, peers: 2, connected: 2, ..Signs::default() };
            match sign.split_once('=') {
                None => assert_eq!(sign, "calm"),
                Some(("shed", percent)) => signs.shed = percent.parse::<f64>().expect("a share") / 100.0,
                Some(("few", percent)) => {
                    signs.asked = 3;
                    signs.shed = percent.parse::<f64>().expect("a share") / 100.0;
                }
                Some(("store", level)) => signs.store = level.parse().expect("a level"),
                Some(("links", of)) => {
                    let (connected, peers) = of.split_once('/').expect("of how many");
                    signs.connected = connected.parse().expect("a number");
                    signs.peers = peers.parse().expect("a number");
                }
                Some(other) => panic!("{other:?}"),
            }
            for _ in 0..seconds.parse::<u64>().expect("seconds") {
                if let Some(mode) = modes.look(Mono::millis(second * 1_000), &signs) {
                    let why = modes.why().map_or(String::new(), |sign| format!(": {}", sign.name()));
                    told.push(format!("{second}s {}{why}", mode.name()));
                }
                second += 1;
            }
        }
        told.join("; ")
    }

    #[test]
    fn a_sign_must_last_before_a_node_does_less_and_be_gone_for_longer_before_it_does_more() {
        assert_eq!(play("calm*5 shed=20*3 calm*5"), "", "two seconds are nothing");
        assert_eq!(
            play("calm*5 shed=20*10 calm*60"),
            "8s degraded: questions are turned away; 25s recovery; 56s target"
        );
    }

    #[test]
    fn each_sign_counts_and_the_gravest_decides() {
        assert_eq!(play("store=1*9"), "");
        assert_eq!(play("store=2*9"), "3s degraded: the store is pressed");
        assert_eq!(play("store=3*9"), "3s floor: the store is pressed");
        assert_eq!(play("links=1/2*9"), "3s degraded: peers are not connected");
        assert_eq!(play("links=0/2*9"), "3s floor: peers are not connected");
        assert_eq!(play("links=0/0*9"), "", "a node alone misses nobody");
        assert_eq!(play("links=30/31*9"), "", "one of many");
        assert_eq!(play("links=20/31*9"), "3s degraded: peers are not connected");
        assert_eq!(play("shed=60*9"), "3s floor: questions are turned away");
        assert_eq!(play("few=60*9"), "", "two of three a second are no overload");
    }

    #[test]
    fn at_the_edge_of_a_threshold_the_mode_stays() {
        let wavering = "shed=6*4 ".to_owned() + &"shed=4*8 shed=6*1 ".repeat(20);
        assert_eq!(play(&wavering), "3s degraded: questions are turned away");
        assert_eq!(play("shed=6*4 shed=2*11"), "3s degraded: questions are turned away; 14s recovery");
        assert_eq!(play("store=2*4 store=1*60"), "3s degraded: the store is pressed", "not yet gone");
    }

    #[test]
    fn from_the_floor_it_goes_up_by_steps_and_a_recovery_may_fail() {
        assert_eq!(
            play("shed=60*4 shed=20*11 calm*11 shed=20*4 calm*60"),
            "3s floor: questions are turned away; 14s degraded: questions are turned away; 25s recovery; \
             29s degraded: questions are turned away; 40s recovery; 71s target"
        );
    }

    proptest! {
        #[test]
        fn it_never_changes_twice_within_the_shortest_of_its_times(looks in prop::collection::vec((0.0..1.0f64, 0..4u8, 0..3u32), 1..300)) {
            let settings = ModeSettings::default();
            let (mut modes, mut last) = (Modes::new(settings), None::<u64>);
            for (second, (shed, store, connected)) in (0..).zip(looks) {
                let signs = Signs { asked: 100, shed, store, peers: 2, connected };
                if modes.look(Mono::millis(second * 1_000), &signs).is_some() {
                    if let Some(last) = last {
                        prop_assert!(second - last >= settings.worse_after.as_secs());
                    }
                    last = Some(second);
                }
            }
        }
    }
}
