//! What one replica asks another: bytes out, bytes in.
//!
//! * It never does: wait for ever, or have one entry after the other under way where many can be.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt, future, stream};
use openraft::entry::RaftEntry;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, RaftNetworkFactory, RaftNetworkV2};
use rhumb_core::HybridTime;
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Record, VersionKey};

use super::feed::Feeds;
use super::log::sized;
use super::machine::Image;
use super::types::{self, Types, Vote};
use super::wire::{self, Answered, Asked, Line, Named, Standing};
use super::{Around, Damage};
use crate::ranges::RangeSettings;
use crate::ranges::collect::{InUse, Part};
use crate::ranges::replica::{RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::span::Span;

/// Requests that are under way to one follower.
const PIPELINE: usize = 32;
/// Bytes of rows in one message.
const ROWS_BYTES: usize = 256 << 10;
/// Messages with rows that are under way to one follower.
const ROWS_AT_ONCE: usize = 4;
/// How long a message with rows may take.
const ROWS_WITHIN: Duration = Duration::from_secs(10);

/// The slowest way that entries are sent over, in bytes a second: what one message takes there it has, besides the round trip.
const SLOWEST: u64 = 128 << 10;

/// How long a follower has for an answer to `bytes` of entries. Consensus says how often it sends heartbeats, and no more: a
/// follower may be farther away than that, and a way that has been quiet carries little at first, so that some hundred
/// kilobytes take several round trips. Who is lost is told by its link and its store's support, not by this.
fn patience(asked: Duration, support: Duration, bytes: usize) -> Duration {
    asked.max(support) + under_way(bytes)
}

/// How long so many bytes are under way, besides the round trip.
pub(super) fn under_way(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1_000 / SLOWEST)
}

/// Makes what asks a replica.
pub(super) struct Network<R: AsyncRuntime> {
    pub(super) range: RangeId,
    pub(super) me: ReplicaId,
    pub(super) around: Around,
    pub(super) settings: RangeSettings,
    pub(super) in_use: InUse,
    pub(super) feeds: Arc<Feeds<R>>,
}

/// What asks one replica.
pub(super) struct To<R: AsyncRuntime> {
    range: RangeId,
    me: ReplicaId,
    seat: Seat,
    around: Around,
    settings: RangeSettings,
    in_use: InUse,
    feeds: Arc<Feeds<R>>,
}

// Derived, it would ask the same of the runtime.
impl<R: AsyncRuntime> Clone for To<R> {
    fn clone(&self) -> Self {
        Self {
            range: self.range,
            me: self.me,
            seat: self.seat.clone(),
            around: self.around.clone(),
            settings: self.settings,
            in_use: self.in_use.clone(),
            feeds: Arc::clone(&self.feeds),
        }
    }
}

type Rpc<T, R> = Result<T, RPCError<Types<R>>>;

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = To<R>;

    async fn new_client(&mut self, _: u64, seat: &Seat) -> To<R> {
        To {
            range: self.range,
            me: self.me,
            seat: seat.clone(),
            around: self.around.clone(),
            settings: self.settings,
            in_use: self.in_use.clone(),
            feeds: Arc::clone(&self.feeds),
        }
    }
}

fn unreachable<R: AsyncRuntime>(why: impl ToString) -> RPCError<Types<R>> {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn strange<R: AsyncRuntime>(answered: &Answered) -> RPCError<Types<R>> {
    RPCError::Network(NetworkError::from_string(format!("{answered:?} answers another question")))
}

/// What a follower says to entries.
fn appended<R: AsyncRuntime>(answered: Answered) -> Rpc<AppendEntriesResponse<Types<R>>, R> {
    match answered {
        Answered::Appended => Ok(AppendEntriesResponse::Success),
        Answered::AppendedUpTo(id) => Ok(AppendEntriesResponse::PartialSuccess(id.map(Into::into))),
        Answered::Conflict => Ok(AppendEntriesResponse::Conflict),
        Answered::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
        other => Err(strange(&other)),
    }
}

impl<R: AsyncRuntime> To<R> {
    /// It is asked now; the answer comes with the future.
    fn ask(
        &self,
        asked: &Asked,
        within: Duration,
    ) -> impl Future<Output = Result<Answered, String>> + Send + use<R> {
        let question = wire::encode(asked);
        let within = match asked {
            Asked::Append { .. } => patience(within, self.settings.support, question.len()),
            _ => within,
        };
        let answer = self.around.carry.ask(&self.seat, self.range, self.me, question, within);
        async move { wire::decode(&answer.await?) }
    }

    fn append(
        &self,
        rpc: &AppendEntriesRequest<Types<R>>,
        within: Duration,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<Types<R>>, R>> + Send + use<R> {
        let asked = Asked::Append {
            vote: (&rpc.vote).into(),
            previous: rpc.prev_log_id.as_ref().map(Into::into),
            lines: rpc.entries.iter().map(Line::from).collect(),
            commit: rpc.leader_commit.as_ref().map(Into::into),
        };
        let answer = self.ask(&asked, within);
        async move { appended(answer.await.map_err(unreachable)?) }
    }

    /// Sends entries, or none to say what is committed, or has them sent by who feeds this one: all that is replicated, so that a leader which
    /// does not reach a learner itself has nothing to wait for. What nothing is known to stand before goes directly, and so do heartbeats: they find
    /// what a feeder only says that the learner has, and a way more would make them late.
    fn send(
        &self,
        rpc: &AppendEntriesRequest<Types<R>>,
        is_heartbeat: bool,
        within: Duration,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<Types<R>>, R>> + Send + use<R> {
        let previous = rpc.prev_log_id.as_ref().filter(|_| !is_heartbeat);
        let named = previous.map(|previous| Named::behind(previous, &rpc.entries));
        let fed = named.and_then(|named| Some((named, self.feeds.feeder(self.seat.replica)?)));
        match fed {
            None => Either::Left(self.append(rpc, within)),
            Some((named, feeder)) => Either::Right(self.feed(rpc, named, feeder, within)),
        }
    }

    /// Has entries sent by a feeder. Where nothing comes of it, they are sent directly when they are sent again, which is at once.
    fn feed(
        &self,
        rpc: &AppendEntriesRequest<Types<R>>,
        named: Named,
        feeder: Seat,
        within: Duration,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<Types<R>>, R>> + Send + use<R> {
        let (entries, bytes) = (rpc.entries.len(), rpc.entries.iter().map(sized).sum());
        let asked = Asked::Feed {
            to: self.seat.replica.0,
            vote: (&rpc.vote).into(),
            previous: rpc.prev_log_id.as_ref().map(Into::into),
            named,
            commit: rpc.leader_commit.as_ref().map(Into::into),
        };
        let within = patience(within, self.settings.support, bytes);
        let answer = self.around.carry.ask(&feeder, self.range, self.me, wire::encode(&asked), within);
        let (feeds, learner) = (Arc::clone(&self.feeds), self.seat.replica);
        async move {
            let answered = answer.await.and_then(|answer| wire::decode::<Answered>(&answer));
            match answered {
                Ok(Answered::NotFed(why)) | Err(why) => {
                    feeds.failed(learner, feeder.replica);
                    let why = format!(
                        "replica {} does not feed it, which it is sent from here: {why}",
                        feeder.replica
                    );
                    Err(RPCError::Network(NetworkError::from_string(why)))
                }
                Ok(answered) => {
                    let answer = appended(answered);
                    if matches!(answer, Ok(AppendEntriesResponse::Success)) {
                        feeds.fed(entries, bytes);
                    }
                    answer
                }
            }
        }
    }

    async fn votes(
        &self,
        rpc: VoteRequest<Types<R>>,
        pre: bool,
        within: Duration,
    ) -> Rpc<VoteResponse<Types<R>>, R> {
        let asked = Asked::Vote {
            vote: (&rpc.vote).into(),
            last: rpc.last_log_id.as_ref().map(Into::into),
            transfer: rpc.leadership_transfer,
            pre,
        };
        match self.ask(&asked, within).await.map_err(unreachable)? {
            Answered::Vote { vote, granted, last, .. } => {
                Ok(VoteResponse::new(Vote::from(vote), last.map(Into::into), granted))
            }
            other => Err(strange(&other)),
        }
    }

    /// Sends the rows of a snapshot. All that is written later is above its highest time, and is left out. Nothing is collected
    /// meanwhile; what was before belongs to it no more, or it is not sent.
    async fn send_rows(&self, image: &Image) -> Result<(), String> {
        let replica = RangeReplica::recover(self.settings, &image.0)?;
        let threshold = replica.applied().threshold;
        let sent = self.in_use.sends(threshold, replica.descriptor().to.as_ref());
        let _sent = sent.ok_or("rows of the state were collected: another one is taken")?;
        // Up to the threshold there is also what a sender of rows to this replica had collected.
        let (descriptor, newest) = (replica.descriptor().clone(), replica.applied().newest.max(threshold));
        let (keyspace, span) = (descriptor.keyspace, Span::of_range(&descriptor));
        let latest = HybridTime::from_bits(u64::MAX);
        let first = VersionKey { keyspace, key: descriptor.from.clone(), at: latest };
        let mut next = Some(first.encode());
        // Who has nothing yet knows no end.
        let end = descriptor.to.clone().map(|key| VersionKey { keyspace, key, at: latest }.encode());
        let mut under_way = FuturesUnordered::new();
        while let Some(from) = next.take() {
            if under_way.len() == ROWS_AT_ONCE {
                kept(under_way.next().await)?;
            }
            let (mut rows, mut bytes, mut fault) = (Vec::new(), 0, None);
            let walked = self.around.disk.walk(Family::Mvcc, &from, &mut |row, value| {
                if bytes >= ROWS_BYTES {
                    next = Some(row.to_vec());
                    return false;
                }
                if !span.holds(row) {
                    return false;
                }
                match VersionKey::decode(row) {
                    Ok(key) if key.at <= newest => {
                        if let Err(why) = Record::decode(row, value) {
                            fault = Some(why.to_string());
                            return false;
                        }
                        bytes += row.len() + value.len();
                        rows.push((row.to_vec(), value.to_vec()));
                    }
                    Ok(_) => {}
                    Err(why) => {
                        fault = Some(why.to_string());
                        return false;
                    }
                }
                true
            });
            walked.map_err(|fault| fault.to_string())?;
            if let Some(fault) = fault {
                let why = format!("a row of the range cannot be read: {fault}");
                Damage { why: why.clone(), rows_alone: true }.found(self.range, &self.around.damages);
                return Err(why);
            }
            // A part without rows says that there are none.
            let part = Part { from, to: next.clone().or_else(|| end.clone()), threshold, rows };
            under_way.push(self.ask(&Asked::Rows(part), ROWS_WITHIN));
        }
        while let Some(answer) = under_way.next().await {
            kept(Some(answer))?;
        }
        Ok(())
    }
}

/// Whether rows were kept.
fn kept(answer: Option<Result<Answered, String>>) -> Result<(), String> {
    match answer.transpose()? {
        None | Some(Answered::Kept) => Ok(()),
        Some(other) => Err(format!("{other:?} answers rows")),
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for To<R> {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<Types<R>>, R> {
        self.append(&rpc, option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> future::BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<Types<R>>, R>>, R>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + Send + Unpin + 'static,
    {
        let this = self.clone();
        let within = option.hard_ttl();
        // openraft's heartbeats are streams that say that they have one request; those of its replication do not say how many.
        let is_heartbeat = input.size_hint() == (1, Some(1));
        let answers = input
            .map(move |rpc| {
                let previous = rpc.prev_log_id;
                let last = rpc.entries.last().map(|entry| entry.log_id()).or(previous);
                let answer = this.send(&rpc, is_heartbeat, within);
                async move {
                    let answer = answer.await?;
                    let whole = match &answer {
                        AppendEntriesResponse::PartialSuccess(upto) => *upto == last,
                        _ => true,
                    };
                    Ok((answer.into_stream_result(previous, last), whole))
                }
            })
            .buffered(PIPELINE);
        // What comes after a failure says nothing: the stream is begun anew.
        let begun = Some((Box::pin(answers), None));
        let until_failure = stream::unfold(begun, |state| async move {
            let (mut answers, reached) = state?;
            match answers.next().await? {
                // What this one follows was there when the ones before it were answered: it came before them.
                Ok((Err(StreamAppendError::Conflict(at)), _)) if Some(at) <= reached => {
                    let why = "a request has overtaken another one on the way";
                    Some((Err(RPCError::Network(NetworkError::from_string(why))), None))
                }
                Ok((Ok(upto), whole)) => Some((Ok(Ok(upto)), whole.then_some((answers, upto.max(reached))))),
                Ok((Err(error), _)) => Some((Ok(Err(error)), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        let answers: BoxStream<'s, _> = until_failure.boxed();
        future::ready(Ok(answers)).boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<Types<R>>, R> {
        self.votes(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<Types<R>>, R> {
        self.votes(rpc, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<types::Leader, u64, Seat, Image>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let sent = async {
            self.send_rows(&snapshot.snapshot).await?;
            let standing = Standing::of(snapshot.meta.last_log_id, &snapshot.meta.last_membership);
            let state = snapshot.snapshot.0.clone().into();
            let asked = Asked::Snapshot { vote: (&vote).into(), standing, state };
            self.ask(&asked, ROWS_WITHIN).await
        };
        let (sent, cancelled) = (std::pin::pin!(sent), std::pin::pin!(cancel));
        let sent = match future::select(sent, cancelled).await {
            future::Either::Left((sent, _)) => sent,
            future::Either::Right((closed, _)) => return Err(StreamingError::Closed(closed)),
        };
        match sent.map_err(|why| StreamingError::Unreachable(Unreachable::from_string(why)))? {
            Answered::Installed(vote) => Ok(SnapshotResponse::new(Vote::from(vote))),
            other => {
                let why = format!("{other:?} answers a snapshot");
                Err(StreamingError::Network(NetworkError::from_string(why)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<Types<R>>, R> {
        let last = rpc.last_log_id().map(Into::into);
        let asked = Asked::Lead { vote: rpc.from_leader().into(), to: *rpc.to_node_id(), last };
        match self.ask(&asked, option.hard_ttl()).await.map_err(unreachable)? {
            Answered::Leads => Ok(Ok(())),
            Answered::DoesNotLead(why) => Err(unreachable(why)),
            other => Err(strange(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_time_to_cross_the_farthest_way_and_a_slow_one() {
        let ms = Duration::from_millis;
        let (heartbeat, support) = (ms(300), ms(3_000));
        // Sydney and Frankfurt are 250 ms apart; 55 KB take three round trips on a quiet way.
        assert!(patience(heartbeat, support, 55_000) > ms(750));
        assert_eq!(patience(heartbeat, support, 0), support);
        assert_eq!(patience(heartbeat, support, 1 << 20), support + ms(8_000));
        assert_eq!(patience(support * 2, support, 0), support * 2, "consensus may ask for more");
    }
}
