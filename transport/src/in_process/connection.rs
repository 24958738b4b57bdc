//! The tasks of one end of a connection: a writer a lane, the control stream, a reader, and the watch.
//! The first that ends in error ends the link.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::cable::{Cable, Parcel};
use crate::lanes::lane_of;
use crate::link::{End, unread};

/// A link over a cable.
pub(crate) type Link = crate::link::Link<Cable>;

/// Bytes that a lane sends at once.
const BATCH_BYTES: usize = 256 << 10;

/// Serves one end of a connection until it ends. When this returns, nothing of it is delivered any
/// more, every call has failed, and the peer was reported gone.
pub(crate) async fn serve(link: Arc<Link>) -> End {
    let mut tasks = JoinSet::new();
    tasks.spawn(hear(Arc::clone(&link)));
    tasks.spawn(watch(Arc::clone(&link)));
    tasks.spawn(speak(Arc::clone(&link)));
    for lane in 0..link.lanes.len() {
        tasks.spawn(write_lane(Arc::clone(&link), lane));
    }
    let end = loop {
        let ended = tokio::select! {
            biased;
            end = link.wire.ended() => break end,
            ended = tasks.join_next() => ended,
        };
        match ended {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(end))) => break end,
            Some(Err(panic)) => break End::Internal(panic.to_string()),
            None => break End::Internal("every task has ended".to_owned()),
        }
    };
    link.close(&end);
    tasks.shutdown().await;
    end
}

async fn hear(link: Arc<Link>) -> Result<(), End> {
    loop {
        match link.wire.receive().await {
            Parcel::Frame(lane, bytes) => link.take_up(lane, bytes)?,
            Parcel::Large(bytes, taken) => {
                let lane = lane_of(bytes.len() as u64, link.agreement.lanes);
                link.take_up(lane, bytes)?;
                // Who sent it may have given up; it was taken up all the same.
                let _ = taken.send(());
            }
            Parcel::LaneEnds => link.lane_ended(),
            Parcel::Said(message) => link.told(message),
            Parcel::Close(End::Replaced) => return Err(End::Replaced),
            Parcel::Close(End::Lost(_) | End::Left) => return Err(End::Left),
            Parcel::Close(end) => return Err(End::Lost(format!("closed by the peer: {end}"))),
        }
        consume_budget().await;
    }
}

async fn speak(link: Arc<Link>) -> Result<(), End> {
    loop {
        link.wire.until_awake().await;
        let messages = link.what_to_say();
        if messages.is_empty() {
            link.say.notified().await;
        }
        for message in messages {
            link.wire.send(None, 0, Parcel::Said(message));
        }
    }
}

async fn write_lane(link: Arc<Link>, index: usize) -> Result<(), End> {
    let lane = &link.lanes[index];
    let mut batch = Vec::new();
    loop {
        lane.ready().await;
        // Asked last: a node that froze while it had nothing to send sends nothing.
        link.wire.until_may_send(index).await;
        if !lane.next(BATCH_BYTES, &mut batch).await {
            link.wire.send(Some(index), 0, Parcel::LaneEnds);
            return Ok(());
        }
        link.leaving(&mut batch, |frame| {
            link.wire.send(Some(index), frame.len(), Parcel::Frame(index, frame.encode()));
        });
        consume_budget().await;
    }
}

async fn watch(link: Arc<Link>) -> Result<(), End> {
    let limit = link.node.settings.silence_limit;
    tokio::select! {
        () = link.wire.until_silent(limit) => Err(End::Silent(limit)),
        () = link.unread.notified() => Err(unread()),
    }
}
