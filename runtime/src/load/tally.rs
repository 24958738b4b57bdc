//! What the customers of each region met, counted as they tell it.
//!
//! * It decides: what is counted where. A hold's latency runs from the time the customer came by the
//!   schedule, whatever the generator or the service did since, to the answer.
//! * It never does: read a server's counters.
//! * Invariant: every customer who came is counted once as come and once by how the story ended, or
//!   is still under way.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::{NodeId, Region};

use super::customer::State;
use super::histogram::Histogram;
use crate::client::fault_code;

/// What the customers of one region met.
#[derive(Debug, Clone, Default)]
pub struct RegionTally {
    /// Customers who came.
    pub came: u64,
    /// Customers whom the generator could not play, because too many were under way already.
    pub turned_away: u64,
    /// Holds they were given.
    pub held: u64,
    /// Units they bought.
    pub bought: u64,
    /// Stories that ended with a refusal, by its code.
    pub refused: BTreeMap<String, u64>,
    /// Stories that ended because there was no service, by the kind of fault.
    pub unserved: BTreeMap<String, u64>,
    /// Holds left to expire.
    pub abandoned: u64,
    /// Holds that ended before they were confirmed.
    pub lapsed: u64,
    /// Promises that the service broke.
    pub broken: u64,
    /// Calls asked again because nobody had told what became of them.
    pub asked_again: u64,
    /// Holds asked for of which a fault said that the outcome is unknown.
    pub lost_holds: u64,
    /// Confirmations of the same kind.
    pub lost_confirms: u64,
    /// Stories given up without an answer.
    pub unknown: u64,
    /// How long holds took that were given.
    pub hold_latency: Histogram,
    /// How long refusals took.
    pub refusal_latency: Histogram,
}

/// What all customers met.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// By the region that they asked.
    pub regions: BTreeMap<Region, RegionTally>,
    /// Units sold, by the node that owned the hold.
    pub sold_by: BTreeMap<NodeId, u64>,
    /// Holds given, by the node that owns them.
    pub held_by: BTreeMap<NodeId, u64>,
    /// Units sold in all.
    pub sold: u64,
    /// Stories under way.
    pub under_way: u64,
}

impl Tally {
    /// What the customers of a region met.
    pub fn region(&mut self, region: &Region) -> &mut RegionTally {
        if !self.regions.contains_key(region) {
            self.regions.insert(region.clone(), RegionTally::default());
        }
        self.regions.get_mut(region).expect("inserted above")
    }

    /// A customer came.
    pub fn came(&mut self, region: &Region) {
        self.region(region).came += 1;
        self.under_way += 1;
    }

    /// A hold was answered after so long.
    pub fn hold_answered(&mut self, region: &Region, state: &State, latency: Duration) {
        let tally = self.region(region);
        match state {
            State::Abandoned(held) | State::Confirming(held) => {
                tally.held += 1;
                tally.hold_latency.record(latency);
                *self.held_by.entry(held.hold.owner.clone()).or_default() += 1;
            }
            State::Refused(_) => tally.refusal_latency.record(latency),
            _ => {}
        }
    }

    /// A story ended, or was given up.
    pub fn ended(&mut self, region: &Region, qty: u64, state: &State) {
        self.under_way -= 1;
        if let State::Sold(held) = state {
            *self.sold_by.entry(held.hold.owner.clone()).or_default() += qty;
            self.sold += qty;
        }
        let tally = self.region(region);
        match state {
            State::Sold(_) => tally.bought += qty,
            State::Refused(refusal) => *tally.refused.entry(refusal.code().into()).or_default() += 1,
            State::Unserved(kind) => *tally.unserved.entry(fault_code(kind).into()).or_default() += 1,
            State::Abandoned(_) => tally.abandoned += 1,
            State::Lapsed(_) => tally.lapsed += 1,
            State::Broken(..) => tally.broken += 1,
            State::Asking | State::HoldUnknown | State::Confirming(_) => tally.unknown += 1,
        }
    }

    /// Every region's sum.
    #[must_use]
    pub fn total(&self) -> RegionTally {
        let mut sum = RegionTally::default();
        for tally in self.regions.values() {
            sum.add(tally);
        }
        sum
    }

    /// Units sold by the nodes of a region.
    #[must_use]
    pub fn sold_in(&self, region: &Region) -> u64 {
        in_region(&self.sold_by, region)
    }

    /// Holds given by the nodes of a region.
    #[must_use]
    pub fn held_in(&self, region: &Region) -> u64 {
        in_region(&self.held_by, region)
    }
}

fn in_region(by_node: &BTreeMap<NodeId, u64>, region: &Region) -> u64 {
    by_node.iter().filter(|(node, _)| node.region == *region).map(|(_, n)| n).sum()
}

impl RegionTally {
    /// Holds that expired, as the customers know it: left to expire, or too late to confirm.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.abandoned + self.lapsed
    }

    fn add(&mut self, other: &Self) {
        self.came += other.came;
        self.turned_away += other.turned_away;
        self.held += other.held;
        self.bought += other.bought;
        self.abandoned += other.abandoned;
        self.lapsed += other.lapsed;
        self.broken += other.broken;
        self.asked_again += other.asked_again;
        self.lost_holds += other.lost_holds;
        self.lost_confirms += other.lost_confirms;
        self.unknown += other.unknown;
        for (mine, theirs) in [(&mut self.refused, &other.refused), (&mut self.unserved, &other.unserved)] {
            for (code, count) in theirs {
                *mine.entry(code.clone()).or_default() += count;
            }
        }
        self.hold_latency.merge(&other.hold_latency);
        self.refusal_latency.merge(&other.refusal_latency);
    }
}

#[cfg(test)]
mod tests {
    use rhumb_actors::escrow::messages::{Held, Refusal};
    use rhumb_core::{FaultKind, HybridTime};

    use super::*;

    #[test]
    fn every_story_is_counted_where_it_belongs() {
        let (us, eu) = (Region::new("us").expect("valid"), Region::new("eu").expect("valid"));
        let hold = "concert/eu/n1/a/1".parse().expect("a hold id");
        let held = Held { hold, qty: 2, expires: HybridTime::ZERO, overdrawn: 0 };
        let mut tally = Tally::default();
        let ends = [
            State::Sold(held.clone()),
            State::Abandoned(held.clone()),
            State::Lapsed(held.hold.clone()),
            State::Refused(Refusal::SoldOut),
            State::Unserved(FaultKind::Draining),
            State::HoldUnknown,
        ];
        for end in &ends {
            tally.came(&us);
            tally.hold_answered(&us, end, Duration::from_millis(1));
            tally.ended(&us, 2, end);
        }
        tally.came(&eu);
        let total = tally.total();
        assert_eq!((total.came, tally.under_way), (7, 1));
        assert_eq!((total.bought, total.expired(), total.unknown), (2, 2, 1));
        assert_eq!(total.refused["sold_out"] + total.unserved["draining"], 2);
        assert_eq!(
            (tally.sold_in(&eu), tally.sold_in(&us), tally.sold),
            (2, 0, 2),
            "eu's node sold it to us"
        );
        assert_eq!((total.hold_latency.count(), total.refusal_latency.count()), (1, 1));
    }
}
