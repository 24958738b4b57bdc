//! Leases that go where most is written: the home of a keyspace (`rhumb placement apply --home`).
//!
//! * It decides: when a leaseholder elsewhere gives its lease to a replica at home. The lease was held elsewhere for a while, home has been well for
//!   as long (who comes and goes does not take it along each time), and all replicas stand where they are wanted.
//! * It never does: give the leases of all ranges at once, or that of one again soon: if it has come back, that had a reason.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::{Epoch, HybridTime, StoreId};

use super::replica::{RangeId, Seat};
use super::seating::Wanted;

/// Leases that are given within a second at most: each is a pause for who writes.
const AT_ONCE: usize = 10;
/// For how many times as long as home must have been well a range rests whose lease was given.
const RESTS: u32 = 3;

/// What a host remembers of it.
#[derive(Debug)]
pub struct Homing {
    after: Duration,
    /// The epochs of stores that are supported, and since when they are seen in them.
    well: BTreeMap<StoreId, (Epoch, HybridTime)>,
    /// When leases were given.
    given: BTreeMap<RangeId, HybridTime>,
}

/// A range as its leaseholder sees it.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// When.
    pub now: HybridTime,
    /// The range.
    pub range: RangeId,
    /// Where its replicas are wanted.
    pub wanted: &'a Wanted,
    /// Where they stand.
    pub here: &'a [Seat],
    /// The leaseholder's store.
    pub me: StoreId,
    /// Since when it has the lease.
    pub since: HybridTime,
}

impl Homing {
    /// Home is to have been well for so long, and the lease elsewhere.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after, well: BTreeMap::new(), given: BTreeMap::new() }
    }

    /// A store is supported in this epoch, or in none.
    pub fn saw(&mut self, now: HybridTime, store: StoreId, epoch: Option<Epoch>) {
        match (epoch, self.well.get(&store)) {
            (Some(epoch), Some((known, _))) if *known == epoch => {}
            (Some(epoch), _) => {
                self.well.insert(store, (epoch, now));
            }
            (None, _) => {
                self.well.remove(&store);
            }
        }
    }

    /// To whom the lease is to be given, the first one that takes it; none: it stays. `can` says whether a replica has nearly all of the log.
    pub fn next(&mut self, look: &Look<'_>, can: impl Fn(&Seat) -> bool) -> Option<Vec<Seat>> {
        let Look { now, range, wanted, here, me, since } = *look;
        let home = wanted.home.as_ref()?;
        let is_home = |seat: &&Seat| seat.node.region == *home;
        let stands = wanted.leaving.is_empty()
            && wanted.seats.len() == here.len()
            && wanted.seats.iter().all(|seat| here.contains(seat));
        let long = |since: HybridTime| since.plus(self.after) <= now;
        if !stands || !long(since) || here.iter().filter(is_home).any(|seat| seat.store == me) {
            return None;
        }
        let rests = self.after * RESTS;
        self.given.retain(|_, at| at.plus(rests) > now);
        let just_now = self.given.values().filter(|at| at.plus(Duration::from_secs(1)) > now).count();
        if just_now >= AT_ONCE || self.given.contains_key(&range) {
            return None;
        }
        let is_well = |seat: &Seat| self.well.get(&seat.store).is_some_and(|(_, since)| long(*since));
        let takes = |seat: &&Seat| seat.votes && is_well(seat) && can(seat);
        let mut there: Vec<_> = here.iter().filter(is_home).filter(takes).cloned().collect();
        // Leases of many ranges are spread over those that are there.
        let first = usize::try_from(range.0).unwrap_or_default().checked_rem(there.len())?;
        there.rotate_left(first);
        self.given.insert(range, now);
        Some(there)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::Region;

    use super::*;
    use crate::ranges::replica::ReplicaId;

    const AFTER: Duration = Duration::from_secs(30);

    fn at(secs: u64) -> HybridTime {
        HybridTime::new(1_000_000 + secs * 1_000, 0)
    }

    fn seat(region: &str, replica: u64, votes: bool) -> Seat {
        let node = format!("{region}/n{replica}").parse().expect("a node");
        Seat { replica: ReplicaId(replica), node, store: StoreId(u128::from(replica)), votes }
    }

    fn here() -> Vec<Seat> {
        vec![seat("eu", 1, true), seat("us", 2, true), seat("us", 3, true), seat("us", 4, false)]
    }

    fn wanted(home: &str) -> Wanted {
        Wanted { home: Some(Region::new(home).expect("a region")), seats: here(), ..Wanted::default() }
    }

    /// To which replicas the lease of a range is given that replica 1 has had since the beginning.
    fn given(homing: &mut Homing, range: u64, secs: u64, can: impl Fn(&Seat) -> bool) -> Vec<u64> {
        let (wanted, here) = (wanted("us"), here());
        let (range, now) = (RangeId(range), at(secs));
        let look = Look { now, range, wanted: &wanted, here: &here, me: StoreId(1), since: at(0) };
        let given = homing.next(&look, can).unwrap_or_default();
        given.iter().map(|seat| seat.replica.0).collect()
    }

    /// Home is seen from the beginning on.
    fn seen() -> Homing {
        let mut homing = Homing::new(AFTER);
        (2..=4).for_each(|store| homing.saw(at(0), StoreId(store), Some(Epoch(1))));
        homing
    }

    #[test]
    fn a_lease_goes_to_who_votes_at_home_when_both_have_lasted() {
        assert!(given(&mut seen(), 2, 29, |_| true).is_empty(), "it has just come here");
        assert_eq!(given(&mut seen(), 2, 30, |_| true), [2, 3], "not to the learner");
        assert_eq!(given(&mut seen(), 3, 30, |_| true), [3, 2], "another range's to another one");
        assert_eq!(given(&mut seen(), 2, 30, |seat| seat.replica != ReplicaId(2)), [3]);
        assert!(given(&mut seen(), 2, 30, |_| false).is_empty());
        let mut homing = seen();
        homing.saw(at(10), StoreId(2), None);
        homing.saw(at(11), StoreId(2), Some(Epoch(1)));
        homing.saw(at(12), StoreId(3), Some(Epoch(2)));
        assert!(given(&mut homing, 2, 40, |_| true).is_empty(), "home has come back only now");
        assert_eq!(given(&mut homing, 2, 41, |_| true), [2]);
    }

    #[test]
    fn a_lease_stays_where_it_is_at_home_or_has_none_or_something_is_under_way() {
        let (us, here) = (wanted("us"), here());
        let look =
            Look { now: at(60), range: RangeId(2), wanted: &us, here: &here, me: StoreId(1), since: at(0) };
        let goes = |look: &Look<'_>| seen().next(look, |_| true).is_some();
        assert!(goes(&look));
        assert!(!goes(&Look { me: StoreId(3), ..look }), "it is at home");
        assert!(!goes(&Look { wanted: &wanted("ap"), ..look }), "nobody stands there");
        assert!(!goes(&Look { wanted: &Wanted { home: None, ..us.clone() }, ..look }));
        let comes = Wanted { seats: [here.clone(), vec![seat("ap", 5, true)]].concat(), ..us.clone() };
        assert!(!goes(&Look { wanted: &comes, ..look }), "one is to come");
        let leaves = Wanted { leaving: vec![seat("ap", 5, true)], ..us.clone() };
        assert!(!goes(&Look { wanted: &leaves, ..look }), "one is to leave");
    }

    #[test]
    fn a_few_go_at_once_and_each_rests_afterwards() {
        let mut homing = seen();
        let gone = |homing: &mut Homing, secs| {
            (0..25).filter(|range| !given(homing, *range, secs, |_| true).is_empty()).count()
        };
        assert_eq!([30, 30, 31, 32, 33].map(|secs| gone(&mut homing, secs)), [10, 0, 10, 5, 0]);
        assert_eq!(gone(&mut homing, 30 + 89), 0, "they have come back, and rest");
        assert_eq!(gone(&mut homing, 30 + 90), 10);
    }
}
