//! How a range's replicas come to stand where they are wanted: one step at a time, each a thing that may have been done already.
//!
//! * It decides: the next step from what is wanted, what the range's log says of its seats (on which leases rest) and who takes
//!   part in consensus. A replica that comes learns first, and votes only if that is wanted; one that is to vote no more stays as
//!   a learner.
//! * It never does: take a voter out before all that are wanted vote (but for one whose successor is to stand on the same disk),
//!   change two voters at once, or have a learner vote.
//! * Invariant: whatever is done of the steps when a leaseholder dies, the next one goes on from what is so.
//!
//! Leases and consensus count their voters apart: the range's own command changes the one, openraft's membership the other. A new
//! replica votes in consensus first and counts for leases after it; one that leaves counts for leases no more before it stops to
//! vote. Neither rests on the other for safety: consensus changes by joint majorities, leases by one voter at a time under a new number.

use std::collections::BTreeSet;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Region, StoreId};

use super::replica::{ReplicaId, Seat};

/// Who takes part in consensus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Those that vote; in the midst of a change those before and after it.
    pub voters: BTreeSet<ReplicaId>,
    /// All.
    pub all: BTreeSet<ReplicaId>,
    /// Whether no change is under way.
    pub settled: bool,
}

/// Where replicas of a range are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// There.
    pub seats: Vec<Seat>,
    /// These are to leave.
    pub leaving: Vec<Seat>,
    /// Whether the range is not known yet to have begun.
    pub unborn: bool,
    /// The highest number of a replica of it that whoever wants this knew of; none: the highest of these.
    pub known: Option<ReplicaId>,
    /// Where most is written, and the lease is best held; none: anywhere.
    pub home: Option<Region>,
}

/// What a leaseholder does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It says that the range has begun.
    Begun,
    /// It proposes these seats.
    Reseat(Vec<Seat>),
    /// It takes this replica into consensus, without a vote.
    Learn(Seat),
    /// These vote in consensus.
    Vote(BTreeSet<ReplicaId>),
    /// This replica, which does not vote, takes part in consensus no more.
    Forget(ReplicaId),
    /// It gives its lease to one of these, as it is to leave or they are at home.
    Give(Vec<Seat>),
    /// It says that these have left.
    Left(Vec<ReplicaId>),
}

/// The next step of a leaseholder on a store; none: all is as it is wanted, or waits. `near` says whether a replica has nearly all
/// of the log.
#[must_use]
pub fn next(
    wanted: &Wanted,
    here: &[Seat],
    members: &Members,
    me: StoreId,
    near: impl Fn(ReplicaId) -> bool,
) -> Option<Step> {
    if wanted.unborn {
        return Some(Step::Begun);
    }
    // Who comes has the highest number: what is wanted here is of before.
    let known = wanted.seats.iter().chain(&wanted.leaving).map(|seat| seat.replica).max().max(wanted.known);
    if here.iter().any(|seat| Some(seat.replica) > known) {
        return None;
    }
    let seat = |replica: ReplicaId| here.iter().find(|seat| seat.replica == replica);
    // One that is rebuilt on its disk begins there when the old one is gone: that one is let go first, and is said to have left.
    let follows = |old: &Seat| wanted.seats.iter().any(|coming| coming.store == old.store);
    let gone = |old: &&Seat| seat(old.replica).is_none() && !members.all.contains(&old.replica);
    let rebuilt: Vec<_> = wanted.leaving.iter().filter(|old| follows(old)).collect();
    let out: Vec<_> = rebuilt.iter().filter(|old| gone(old)).map(|old| old.replica).collect();
    if !out.is_empty() {
        return Some(Step::Left(out));
    }
    // It has stopped: whatever else is to change waits for it in vain.
    if let Some(step) = rebuilt.iter().find_map(|old| goes(old.replica, here, members)) {
        return Some(step);
    }
    // One that does not come near keeps those that leave, and none of the others that come.
    let mut waits = false;
    for coming in &wanted.seats {
        let replica = coming.replica;
        let Some(seat) = seat(replica) else {
            if here.iter().any(|seat| seat.store == coming.store) {
                continue;
            }
            let mut seats = here.to_vec();
            seats.push(Seat { votes: false, ..coming.clone() });
            return Some(Step::Reseat(seats));
        };
        if !members.all.contains(&replica) {
            return Some(Step::Learn(coming.clone()));
        }
        let votes = coming.votes || canary::sings(Canary::LearnerVotes);
        if votes && !members.voters.contains(&replica) {
            if !near(replica) {
                waits = true;
                continue;
            }
            let voters = members.voters.iter().copied().chain([replica]).collect();
            return Some(Step::Vote(voters));
        }
        if coming.votes && !seat.votes {
            return Some(Step::Reseat(voting(here, replica, true)));
        }
    }
    if waits {
        return None;
    }
    // All that are to vote do. Who is here and not wanted was let go of before, and brought back by one who had not heard of it.
    let stays = |replica: ReplicaId| wanted.seats.iter().find(|seat| seat.replica == replica);
    let votes = |replica: ReplicaId| stays(replica).is_some_and(|seat| seat.votes);
    if let Some(mine) = here.iter().find(|seat| seat.store == me)
        && mine.votes
        && !votes(mine.replica)
    {
        return Some(Step::Give(wanted.seats.iter().filter(|seat| seat.votes).cloned().collect()));
    }
    let all: BTreeSet<_> = here.iter().map(|seat| seat.replica).chain(members.all.iter().copied()).collect();
    for replica in all.into_iter().filter(|replica| !votes(*replica)) {
        if stays(replica).is_some() && !is_voter(replica, here, members) {
            continue;
        }
        if let Some(step) = goes(replica, here, members) {
            return Some(step);
        }
    }
    if !members.settled {
        // Whoever began the change died in the midst of it.
        let voters = wanted.seats.iter().filter(|seat| seat.votes).map(|seat| seat.replica);
        return Some(Step::Vote(voters.collect()));
    }
    let left: Vec<_> = wanted.leaving.iter().map(|seat| seat.replica).collect();
    (!left.is_empty()).then_some(Step::Left(left))
}

/// Whether it votes, for leases or in consensus.
fn is_voter(replica: ReplicaId, here: &[Seat], members: &Members) -> bool {
    members.voters.contains(&replica) || here.iter().any(|seat| seat.replica == replica && seat.votes)
}

/// The next step of a replica on its way out; none: it is gone. One that stays as a learner takes part no more once it does not
/// vote in consensus, until it is taken in again.
fn goes(replica: ReplicaId, here: &[Seat], members: &Members) -> Option<Step> {
    let seat = here.iter().find(|seat| seat.replica == replica);
    if seat.is_some_and(|seat| seat.votes) {
        return Some(Step::Reseat(voting(here, replica, false)));
    }
    if members.voters.contains(&replica) {
        let voters = members.voters.iter().copied().filter(|voter| *voter != replica).collect();
        return Some(Step::Vote(voters));
    }
    if members.all.contains(&replica) {
        return Some(Step::Forget(replica));
    }
    seat.map(|_| Step::Reseat(here.iter().filter(|seat| seat.replica != replica).cloned().collect()))
}

fn voting(here: &[Seat], replica: ReplicaId, votes: bool) -> Vec<Seat> {
    let change = |seat: &Seat| Seat {
        votes: if seat.replica == replica { votes } else { seat.votes },
        ..seat.clone()
    };
    here.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(replica: u64, votes: bool) -> Seat {
        let node = format!("eu/n{replica}").parse().expect("a node");
        Seat { replica: ReplicaId(replica), node, store: StoreId(u128::from(replica)), votes }
    }

    /// Takes the steps, one after the other, as a range would: what it says of each.
    fn taken(wanted: &Wanted, me: u64) -> Vec<String> {
        let mut here: Vec<Seat> = (1..=3).map(|replica| seat(replica, true)).collect();
        let all: BTreeSet<_> = here.iter().map(|seat| seat.replica).collect();
        let mut members = Members { voters: all.clone(), all, settled: true };
        let (mut me, mut said) = (StoreId(u128::from(me)), Vec::new());
        for _ in 0..20 {
            let Some(step) = next(wanted, &here, &members, me, |_| true) else { break };
            let numbers =
                |all: &BTreeSet<ReplicaId>| all.iter().map(|one| one.0.to_string()).collect::<String>();
            match step {
                Step::Reseat(seats) => {
                    let voters = |seats: &[Seat]| -> BTreeSet<_> {
                        seats.iter().filter(|seat| seat.votes).map(|seat| seat.replica).collect()
                    };
                    assert!(voters(&here).symmetric_difference(&voters(&seats)).count() <= 1, "{seats:?}");
                    let all = seats.iter().map(|seat| seat.replica).collect();
                    said.push(format!("seats {} voting {}", numbers(&all), numbers(&voters(&seats))));
                    here = seats;
                }
                Step::Learn(seat) => {
                    said.push(format!("learns {}", seat.replica));
                    members.all.insert(seat.replica);
                }
                Step::Vote(voters) => {
                    said.push(format!("vote {}", numbers(&voters)));
                    members.all.retain(|one| voters.contains(one) || !members.voters.contains(one));
                    members.voters = voters;
                }
                Step::Forget(replica) => {
                    said.push(format!("forgets {replica}"));
                    members.all.remove(&replica);
                }
                Step::Give(all) => {
                    let to = all.into_iter().next().expect("somebody stays");
                    said.push(format!("gives to {}", to.replica));
                    me = to.store;
                }
                Step::Left(all) => {
                    said.push(format!("left {}", numbers(&all.into_iter().collect())));
                    break;
                }
                Step::Begun => {
                    said.push("begun".to_owned());
                    break;
                }
            }
        }
        said
    }

    #[test]
    fn a_replica_moves_one_voter_at_a_time() {
        let moves = Wanted {
            seats: vec![seat(1, true), seat(2, true), seat(4, true)],
            leaving: vec![seat(3, true)],
            ..Wanted::default()
        };
        let steps = [
            "seats 1234 voting 123",
            "learns 4",
            "vote 1234",
            "seats 1234 voting 1234",
            "seats 1234 voting 124",
            "vote 124",
            "seats 124 voting 124",
            "left 3",
        ];
        assert_eq!(taken(&moves, 1), steps);
        let mut gives = steps.to_vec();
        gives.insert(4, "gives to 1");
        assert_eq!(taken(&moves, 3), gives, "the leaseholder leaves");
        let stays = Wanted { seats: (1..=3).map(|one| seat(one, true)).collect(), ..Wanted::default() };
        assert!(taken(&stays, 1).is_empty());
        assert_eq!(taken(&Wanted { unborn: true, ..stays }, 1), ["begun"]);
    }

    #[test]
    fn one_that_is_rebuilt_on_its_disk_is_let_go_of_before_its_successor_comes() {
        let new = Seat { store: StoreId(3), ..seat(4, true) };
        let wanted = Wanted {
            seats: vec![seat(1, true), seat(2, true), new.clone()],
            leaving: vec![seat(3, true)],
            ..Wanted::default()
        };
        let steps = ["seats 123 voting 12", "vote 12", "seats 12 voting 12", "left 3"];
        assert_eq!(taken(&wanted, 1), steps);
        let here: Vec<_> = (1..=2).map(|one| seat(one, true)).collect();
        let all: BTreeSet<_> = here.iter().map(|seat| seat.replica).collect();
        let members = Members { voters: all.clone(), all, settled: true };
        let wanted = Wanted { leaving: Vec::new(), ..wanted };
        let seats = [here.clone(), vec![Seat { votes: false, ..new }]].concat();
        let step = next(&wanted, &here, &members, StoreId(1), |_| true);
        assert_eq!(step, Some(Step::Reseat(seats)), "its disk is free");
    }

    #[test]
    fn a_newcomer_that_has_stopped_is_rebuilt_and_its_move_goes_on() {
        // 3 was to move to the disk of 4; 4 has stopped before it voted, and 5 takes its place there.
        let new = Seat { store: StoreId(4), ..seat(5, true) };
        let wanted = Wanted {
            seats: vec![seat(1, true), seat(2, true), new],
            leaving: vec![seat(3, true), seat(4, true)],
            ..Wanted::default()
        };
        let here: Vec<_> = (1..=4).map(|one| seat(one, one < 4)).collect();
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let members = Members { voters: numbers(&[1, 2, 3]), all: numbers(&[1, 2, 3, 4]), settled: true };
        let step = next(&wanted, &here, &members, StoreId(1), |_| false);
        assert_eq!(step, Some(Step::Forget(ReplicaId(4))));
        let members = Members { all: numbers(&[1, 2, 3]), ..members };
        let step = next(&wanted, &here, &members, StoreId(1), |_| false);
        assert_eq!(step, Some(Step::Reseat(here[..3].to_vec())));
        let step = next(&wanted, &here[..3], &members, StoreId(1), |_| false);
        assert_eq!(step, Some(Step::Left(vec![ReplicaId(4)])), "3 stays until 5 has come");
    }

    #[test]
    fn one_that_does_not_come_near_keeps_no_other_newcomer() {
        let seats: Vec<_> = (1..=5).map(|one| seat(one, true)).collect();
        let wanted = Wanted { seats, leaving: vec![seat(6, true)], ..Wanted::default() };
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let all = numbers(&[1, 2, 3, 4, 5, 6]);
        let here: Vec<_> = (1..=6).map(|one| seat(one, one != 4 && one != 5)).collect();
        let members = Members { voters: numbers(&[1, 2, 3, 6]), all, settled: true };
        let step = next(&wanted, &here, &members, StoreId(1), |replica| replica != ReplicaId(4));
        assert_eq!(step, Some(Step::Vote(numbers(&[1, 2, 3, 5, 6]))));
        let here: Vec<_> = (1..=6).map(|one| seat(one, one != 4)).collect();
        let members = Members { voters: numbers(&[1, 2, 3, 5, 6]), ..members };
        let step = next(&wanted, &here, &members, StoreId(1), |replica| replica != ReplicaId(4));
        assert_eq!(step, None, "6 leaves when 4 has come");
    }

    #[test]
    fn a_learner_never_votes_and_who_is_promoted_votes_before_another_one_stops() {
        let learns = Wanted {
            seats: vec![seat(1, true), seat(2, true), seat(3, true), seat(4, false)],
            ..Wanted::default()
        };
        assert_eq!(taken(&learns, 1), ["seats 1234 voting 123", "learns 4"]);
        // 4 is to vote instead of 3, which stays.
        let swaps = Wanted {
            seats: vec![seat(1, true), seat(2, true), seat(3, false), seat(4, true)],
            ..Wanted::default()
        };
        let steps = [
            "seats 1234 voting 123",
            "learns 4",
            "vote 1234",
            "seats 1234 voting 1234",
            "seats 1234 voting 124",
            "vote 124",
            "learns 3",
        ];
        assert_eq!(taken(&swaps, 1), steps);
        let mut gives = steps.to_vec();
        gives.insert(4, "gives to 1");
        assert_eq!(taken(&swaps, 3), gives, "the leaseholder is to vote no more");
        let goes = Wanted {
            seats: (1..=2).map(|one| seat(one, true)).collect(),
            leaving: vec![seat(3, true)],
            ..Wanted::default()
        };
        let steps = ["seats 123 voting 12", "vote 12", "seats 12 voting 12", "left 3"];
        assert_eq!(taken(&goes, 1), steps, "nobody comes for it");
    }

    #[test]
    fn a_move_is_taken_back_wherever_it_is() {
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let back = Wanted {
            seats: (1..=3).map(|one| seat(one, true)).collect(),
            leaving: vec![seat(4, true)],
            ..Wanted::default()
        };
        // The node of 4 is lost: it never came near.
        let here: Vec<_> = (1..=4).map(|one| seat(one, one < 4)).collect();
        let members = Members { voters: numbers(&[1, 2, 3]), all: numbers(&[1, 2, 3, 4]), settled: true };
        let step = next(&back, &here, &members, StoreId(1), |_| false);
        assert_eq!(step, Some(Step::Forget(ReplicaId(4))));
        // It had come, and 3 was out already: 3 comes back under its own number.
        let here = [seat(1, true), seat(2, true), seat(4, true)];
        let members = Members { voters: numbers(&[1, 2, 4]), all: numbers(&[1, 2, 4]), settled: true };
        let step = next(&back, &here, &members, StoreId(1), |_| true);
        let seats = vec![seat(1, true), seat(2, true), seat(4, true), seat(3, false)];
        assert_eq!(step, Some(Step::Reseat(seats)));
    }

    #[test]
    fn who_was_let_go_of_and_brought_back_by_a_late_leaseholder_goes_again() {
        let wanted = Wanted {
            seats: (1..=3).map(|one| seat(one, true)).collect(),
            known: Some(ReplicaId(4)),
            ..Wanted::default()
        };
        let here: Vec<_> = (1..=4).map(|one| seat(one, one < 4)).collect();
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let members = Members { voters: numbers(&[1, 2, 3]), all: numbers(&[1, 2, 3]), settled: true };
        let step = next(&wanted, &here, &members, StoreId(1), |_| true);
        assert_eq!(step, Some(Step::Reseat(here[..3].to_vec())));
    }

    #[test]
    fn what_was_begun_goes_on() {
        let wanted = Wanted { seats: (1..=3).map(|one| seat(one, true)).collect(), ..Wanted::default() };
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let members = Members { voters: numbers(&[1, 2, 3, 4]), all: numbers(&[1, 2, 3, 4]), settled: false };
        let step = next(&wanted, &wanted.seats, &members, StoreId(1), |_| true);
        assert_eq!(step, Some(Step::Vote(numbers(&[1, 2, 3]))));
        let far = Wanted { seats: (1..=4).map(|one| seat(one, true)).collect(), ..Wanted::default() };
        let here: Vec<_> = (1..=4).map(|one| seat(one, one < 4)).collect();
        let members = Members { voters: numbers(&[1, 2, 3]), all: numbers(&[1, 2, 3, 4]), settled: true };
        assert_eq!(next(&far, &here, &members, StoreId(1), |_| false), None, "it has not come near yet");
    }

    #[test]
    fn who_has_left_is_not_brought_back_by_what_was_wanted_before() {
        let before = Wanted { seats: (1..=3).map(|one| seat(one, true)).collect(), ..Wanted::default() };
        let here = [seat(1, true), seat(2, true), seat(4, true)];
        let all: BTreeSet<_> = here.iter().map(|seat| seat.replica).collect();
        let members = Members { voters: all.clone(), all, settled: true };
        assert_eq!(next(&before, &here, &members, StoreId(1), |_| true), None);
        // In the midst of it: who knows of the newcomer by its seat alone takes nothing back.
        let numbers = |all: &[u64]| all.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let here = [seat(1, true), seat(2, true), seat(3, false), seat(4, true)];
        let members = Members { voters: numbers(&[1, 2, 3, 4]), all: numbers(&[1, 2, 3, 4]), settled: false };
        assert_eq!(next(&before, &here, &members, StoreId(1), |_| true), None);
    }
}
