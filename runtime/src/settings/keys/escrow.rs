//! How rights are levelled, and how much a node keeps in memory. None of it bears on safety.

use super::{HOUR, MINUTE, SECOND, Section, field};
use rhumb_actors::escrow::Initiative;
use rhumb_actors::escrow::forecast::Method;

use crate::settings::draft::{Held, Text};
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, count, millis};

pub(super) const ESCROW: Section = Section {
    name: "escrow",
    what: "Pools, their rights, and how rights are levelled between nodes.",
    keys: &[
        Key::new(
            "escrow.level_policy",
            Kind::Choice(&["pull", "push", "hybrid"]),
            field!(escrow.level.initiative),
            "Who moves rights ahead of need: `pull`: a node in need asks; `push`: a donor gives, unasked, towards the \
             demand that is forecast elsewhere; `hybrid`: both. A node with a buyer waiting asks in any case.",
        )
        .running(),
        Key::new(
            "escrow.high_water",
            millis(0, 24 * HOUR),
            field!(escrow.level.high_water),
            "Under `hybrid` a donor gives unasked only what covers more than this of its own demand.",
        )
        .running(),
        Key::new(
            "escrow.forecaster",
            Kind::Choice(&["ewma", "seasonal-naive"]),
            field!(escrow.forecast.method),
            "How demand is forecast: `ewma`: it goes on as it has been lately; `seasonal-naive`: as it went a season \
             ago, once a whole season was seen (in this life of the node). A change begins with nothing seen.",
        )
        .running(),
        Key::new(
            "escrow.season",
            millis(MINUTE, 31 * 24 * HOUR),
            field!(escrow.forecast.season),
            "After so long demand repeats itself, for `seasonal-naive`.",
        )
        .running(),
        Key::new(
            "escrow.season_slot",
            millis(SECOND, 24 * HOUR),
            field!(escrow.forecast.slot),
            "A season is remembered in slots of this length, at most 1,008 of them: slots are longer where there would \
             be more.",
        )
        .running(),
        Key::new(
            "escrow.reconcile",
            millis(SECOND, 24 * HOUR),
            field!(escrow.reconcile),
            "How often the home of a pool reads all nodes' rows, and raises an alarm when units have appeared or \
             vanished.",
        )
        .running(),
        Key::new(
            "escrow.tail_floor",
            count(0, 1_000_000, "units"),
            field!(escrow.level.tail_floor),
            "Below so many unsold units a node, those that remain gather at the pool's home, until half as many again \
             are unsold. 0: never. The home's setting counts.",
        )
        .running(),
        Key::new(
            "escrow.horizon",
            millis(100, HOUR),
            field!(escrow.level.horizon),
            "A node that asks for rights asks for so much of its own demand; a donor gives so much of the receiver's.",
        )
        .running(),
        Key::new(
            "escrow.low_water",
            millis(0, HOUR),
            field!(escrow.level.low_water),
            "A node asks before it runs out, when what it has covers less than this of its demand.",
        )
        .running(),
        Key::new(
            "escrow.reserve",
            millis(0, HOUR),
            field!(escrow.level.reserve),
            "A donor keeps so much of its own demand, but never more than half of what it has.",
        )
        .running(),
        Key::new(
            "escrow.clearly_more",
            count(1, 1_000, "times"),
            field!(escrow.level.clearly_more),
            "Before anybody waits, rights move only from nodes whose units last more than so many times as long as the \
             receiver's.",
        )
        .running(),
        Key::new(
            "escrow.ask_spacing",
            millis(10, 10 * SECOND),
            field!(escrow.level.ask_spacing),
            "Plans while somebody waits lie at least so far apart.",
        )
        .running(),
        Key::new(
            "escrow.plan_spacing",
            millis(10, MINUTE),
            field!(escrow.level.plan_spacing),
            "Plans while nobody waits lie at least so far apart.",
        )
        .running(),
        Key::new(
            "escrow.resend",
            millis(50, MINUTE),
            field!(escrow.resend),
            "What a peer has not acknowledged is said again after this.",
        )
        .running(),
        Key::new(
            "escrow.gossip",
            millis(50, MINUTE),
            field!(escrow.gossip),
            "Changed figures are told to peers after this.",
        )
        .running(),
        Key::new(
            "escrow.tail_gossip",
            millis(50, MINUTE),
            field!(escrow.tail_gossip),
            "The same while the pool's home owns the tail.",
        )
        .running(),
        Key::new(
            "escrow.idle_gossip",
            millis(50, HOUR),
            field!(escrow.idle_gossip),
            "A pool in which nothing changes is still spoken of after this.",
        )
        .running(),
        Key::new(
            "escrow.fresh",
            millis(100, 5 * MINUTE),
            field!(escrow.fresh),
            "A peer's figures younger than this are believed to be its present ones.",
        )
        .running(),
        Key::new(
            "escrow.tail_word",
            millis(10, MINUTE),
            field!(escrow.tail_word),
            "The home's word that it has nothing is believed for this long while it owns the tail.",
        )
        .running(),
        Key::new(
            "escrow.park",
            millis(10, MINUTE),
            field!(escrow.park),
            "The longest that a hold waits for rights to arrive.",
        )
        .running(),
        Key::new(
            "escrow.max_parked",
            count(1, 1_000_000, "holds"),
            field!(escrow.max_parked),
            "Holds of one pool that may wait for rights.",
        )
        .running(),
        Key::new(
            "escrow.max_forwards",
            count(1, 1_000_000, "holds"),
            field!(escrow.max_forwards),
            "Holds of one pool that may be on their way to its home.",
        )
        .running(),
        Key::new(
            "escrow.max_pools",
            count(1, 1_000_000, "pools"),
            field!(escrow.max_pools),
            "Pools that the node may know.",
        )
        .running(),
        Key::new(
            "escrow.max_keys",
            count(1, 100_000_000, "keys"),
            field!(escrow.max_keys),
            "Idempotency keys that the node remembers, each for 24 hours, in memory. Beyond it new holds are \
             refused as overloaded; those of pools that the node does not know, beyond half of it.",
        )
        .running(),
        Key::new(
            "escrow.max_holds",
            count(1, 100_000_000, "holds"),
            field!(escrow.max_holds),
            "Holds that the node remembers, in memory: each for 24 hours after its end, a sale for `escrow.returns` \
             besides. Beyond it new holds are refused (`too_many_holds`).",
        )
        .running(),
        Key::new(
            "escrow.beat",
            millis(100, 10 * SECOND),
            field!(escrow.beat),
            "How often a node says how far its disk has come. A copy of a disk that is younger than this passes \
             for the disk.",
        )
        .running(),
        Key::new(
            "escrow.prove",
            millis(20, 10 * SECOND),
            field!(escrow.prove),
            "How often a node that is not proven yet asks its peers for their word.",
        )
        .running(),
        Key::new(
            "escrow.returns",
            millis(0, 366 * 24 * HOUR),
            field!(escrow.returns),
            "How long after its sale a unit may be returned. A sale is remembered for 24 hours more, in memory.",
        )
        .running(),
    ],
};

impl Text for Initiative {
    fn parse(text: &str) -> Result<Self, String> {
        [Self::Pull, Self::Push, Self::Hybrid]
            .into_iter()
            .find(|one| one.name() == text)
            .ok_or_else(String::new)
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }
}

impl Text for Method {
    fn parse(text: &str) -> Result<Self, String> {
        [Self::Ewma, Self::SeasonalNaive].into_iter().find(|one| one.name() == text).ok_or_else(String::new)
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }
}
