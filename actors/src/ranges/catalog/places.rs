//! What becomes of a range's row when its replicas are wanted elsewhere.
//!
//! * It decides: which seats stay, come and leave, and under which numbers.
//! * It never does: give a number a second time, or have one come back that has left: only one that is still leaving.

use rhumb_core::{NodeId, StoreId};

use super::{KvRefusal, MOVE_AGAIN, Next, Place, RangeRow, ReplicaId, Seat};

/// A replica moves from a node to another one's disk: whether that is news.
pub(super) fn moved(
    row: &mut RangeRow,
    next: &mut Next,
    (from, to, store): (&NodeId, &NodeId, StoreId),
) -> Result<bool, KvRefusal> {
    let comes = row.seats.iter().any(|seat| seat.store == store);
    let leaves = row.leaving.iter().any(|seat| seat.node == *from);
    if comes && leaves {
        return Ok(false);
    }
    // Whoever asks again has not heard that it is done.
    if comes && row.leaving.is_empty() && !row.seats.iter().any(|seat| seat.node == *from) {
        return Ok(false);
    }
    let invalid = |why: String| Err(KvRefusal::Invalid(why));
    // One that comes may come elsewhere instead, or not at all.
    let coming = row.seats.iter().find(|seat| seat.node == *from).map(|seat| seat.replica);
    let instead = coming.is_some_and(|coming| row.joined.last() == Some(&coming));
    let leaves_there = row.leaving.iter().position(|seat| seat.store == store);
    if !row.leaving.is_empty() && !instead || !row.begun {
        let why = format!("a replica of range {} is moving already, or the range has not begun", row.range.0);
        return Err(KvRefusal::NotNow { why, retry_after: MOVE_AGAIN });
    }
    if comes {
        return invalid(format!("node {to} has a replica of range {} already", row.range.0));
    }
    let Some(at) = row.seats.iter().position(|seat| seat.node == *from) else {
        let nodes: Vec<_> = row.seats.iter().map(|seat| seat.node.to_string()).collect();
        return invalid(format!(
            "node {from} has no replica of range {}; {} have",
            row.range.0,
            nodes.join(", ")
        ));
    };
    let leaving = row.seats.remove(at);
    match leaves_there {
        // It is taken back: whoever was to leave stays who it is.
        Some(back) => {
            let back = row.leaving.remove(back);
            row.seats.push(back);
        }
        None => comes_to(row, next, &Place { node: to.clone(), store, votes: leaving.votes }),
    }
    row.leaving.push(leaving);
    Ok(true)
}

/// A replica is not to be believed: another one takes its place on its disk. Whether that is news. One is rebuilt at a time; what else
/// is on its way does not stand against it: a move to one that has stopped would wait for good.
pub(super) fn rebuilt(row: &mut RangeRow, next: &mut Next, replica: ReplicaId) -> Result<bool, KvRefusal> {
    let Some(at) = row.seats.iter().position(|seat| seat.replica == replica) else { return Ok(false) };
    let follows = |old: &Seat| row.seats.iter().any(|seat| seat.store == old.store);
    if row.leaving.iter().any(follows) || !row.begun {
        let why = format!(
            "a replica of range {} is being rebuilt already, or the range has not begun",
            row.range.0
        );
        return Err(KvRefusal::NotNow { why, retry_after: MOVE_AGAIN });
    }
    if !row.seats.iter().any(|seat| seat.votes && seat.replica != replica) {
        return Err(KvRefusal::Invalid(format!(
            "replica {replica} of range {} is the only one that votes: there is nothing to rebuild it from",
            row.range.0
        )));
    }
    // Whoever comes in a move that is under way stays the last one that came: it may come elsewhere instead.
    let coming = row.joined.last().copied().filter(|last| !row.leaving.is_empty() && *last != replica);
    let leaving = row.seats.remove(at);
    let Seat { node, store, votes, .. } = leaving.clone();
    comes_to(row, next, &Place { node, store, votes });
    if let Some(coming) = coming {
        row.joined.retain(|joined| *joined != coming);
        row.joined.push(coming);
    }
    row.leaving.push(leaving);
    Ok(true)
}

/// Replicas are wanted in these places, and nowhere else: whether that is news.
pub(super) fn set(row: &mut RangeRow, next: &mut Next, places: &[Place]) -> Result<bool, KvRefusal> {
    let invalid = |why: &str| Err(KvRefusal::Invalid(why.to_owned()));
    if !places.iter().any(|place| place.votes) {
        return invalid("no places: expected at least one voter");
    }
    if places.iter().enumerate().any(|(at, one)| places[..at].iter().any(|other| other.node == one.node)) {
        return invalid("a node twice: expected each once");
    }
    if !row.begun {
        let why = format!("range {} has not begun", row.range.0);
        return Err(KvRefusal::NotNow { why, retry_after: MOVE_AGAIN });
    }
    let before = row.clone();
    let wanted = |seat: &Seat| places.iter().find(|place| place.store == seat.store);
    let (stays, goes): (Vec<_>, Vec<_>) =
        std::mem::take(&mut row.seats).into_iter().partition(|seat| wanted(seat).is_some());
    // One that another one follows on its disk does not come back.
    let followed = |seat: &Seat| stays.iter().any(|other: &Seat| other.store == seat.store);
    let (back, still): (Vec<_>, Vec<_>) = std::mem::take(&mut row.leaving)
        .into_iter()
        .partition(|seat| wanted(seat).is_some() && !followed(seat));
    row.leaving = still.into_iter().chain(goes).collect();
    for seat in stays.into_iter().chain(back) {
        let votes = wanted(&seat).is_some_and(|place| place.votes);
        // It begins no longer as the range was created.
        if votes != seat.votes && !row.joined.contains(&seat.replica) {
            row.joined.push(seat.replica);
        }
        row.seats.push(Seat { votes, ..seat });
    }
    row.seats.sort_by_key(|seat| seat.replica);
    for place in places {
        if !row.seats.iter().any(|seat| seat.store == place.store) {
            comes_to(row, next, place);
        }
    }
    Ok(*row != before)
}

/// Replicas have left: whether that is news. Of one that stays after all it is not so.
pub(super) fn left(row: &mut RangeRow, replicas: &[ReplicaId]) -> bool {
    let gone: Vec<_> =
        row.leaving.iter().map(|seat| seat.replica).filter(|replica| replicas.contains(replica)).collect();
    row.leaving.retain(|seat| !gone.contains(&seat.replica));
    row.left.extend(&gone);
    !gone.is_empty()
}

fn comes_to(row: &mut RangeRow, next: &mut Next, place: &Place) {
    let replica = ReplicaId(next.replica);
    next.replica += 1;
    let Place { node, store, votes } = place.clone();
    row.seats.push(Seat { replica, node, store, votes });
    row.joined.push(replica);
}
