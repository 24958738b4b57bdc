//! What peers send.

use bytes::Bytes;
use rhumb::clock::{chrony, ntp};
use rhumb::escrow::{
    AttestPool, Confirm, CreatePool, Held, Hold, ListPools, PEER_MESSAGE, PeerMessage, PoolAttested,
    PoolCreated, PoolList, PoolView, ReadRow, Refusal, Release, Return, Returned, Row, Settled, ShowPool,
};
use rhumb::mesh::clock::{AskWall, ClockReset, DrillClock, Drilled, ResetClock};
use rhumb::mesh::dead_letters::DeadLetters;
use rhumb::mesh::status::{AskStatus, MeshStatus};
use rhumb_actors::audit::messages::{
    AuditRefusal, AuditView, CheckBundle, Checked, Cosign, EntryPage, EraseSubject, Erased, KeyReplaced,
    Mark, NextStatement, Prove, ProveBatch, Proven, ProvenBatch, ReadEntries, ReplaceKey, ShowAudit,
    ShowMark, State, Uncosigned,
};
use rhumb_actors::escrow::messages::{AskLedger, LEDGER_WORD, LedgerAnswer, LedgerWord};
use rhumb_actors::failover::messages::{BEAT, Beat, FenceRead, ListRegions, ReadFences, RegionList};
use rhumb_actors::placement::messages::{ApplyPlacement, PlacementView, PlanPlacement};
use rhumb_actors::ranges::lifecycle::{LiveKeyspace, Lived};
use rhumb_actors::ranges::messages::{
    CheckRange, Consent, CreateKeyspace, Found, Introduce, KvRead, KvRefusal, KvWrite, KvWritten,
    ListKeyspaces, ListRanges, MoveReplica, Moved, PlanRange, RANGE_WORD, RangeBounds, RangeChecked,
    RangeWord, Rejoin, Rejoined, SplitDone, SplitRange, TransferLease, WhereIs,
};
use rhumb_actors::ranges::snapshots::{
    CreateSnapshot, ExportSnapshot, Exportable, RemoveSnapshot, SnapshotTaken,
};
use rhumb_actors::ranges::subjects;
use rhumb_actors::remote::Remote;
use rhumb_actors::version::messages::{Finalize, SaidVersion, SayVersion, ShowVersion, VersionView};
use rhumb_core::codec;
use rhumb_core::wire::{self, Wire};
use rhumb_transport::control::{ControlMessage, WireFault};
use rhumb_transport::envelope::{Deframer, FIXED, Frame};
use rhumb_transport::gathering::{self, Refused};
use rhumb_transport::hello::Hello;
use rhumb_transport::{Certificate, RevocationList};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The cap of the lane that bytes come over.
const CAP: usize = 1 << 20;
/// Where the checksum of a frame stands.
const CHECKSUM: std::ops::Range<usize> = 68..FIXED;

/// Frames, as they come over a lane in pieces; and one frame whose checksum is made right.
pub(super) fn envelope(bytes: &[u8]) {
    let (mut deframer, mut rest) = (Deframer::new(CAP), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + usize::from(rest[0])));
        deframer.feed(piece);
        rest = after;
        while let Ok(Some(frame)) = deframer.next_frame() {
            assert!(frame.len() <= CAP, "no frame is over its cap");
            one_frame(frame);
        }
    }
    if bytes.len() >= FIXED {
        let mut frame = bytes.to_vec();
        let head = usize::from(u16::from_be_bytes([frame[6], frame[7]])).clamp(FIXED, frame.len());
        let body = u32::try_from(frame.len() - head).expect("an input is small");
        frame[6..8].copy_from_slice(&u16::try_from(head).unwrap_or(u16::MAX).to_be_bytes());
        frame[8..12].copy_from_slice(&body.to_be_bytes());
        frame[CHECKSUM].fill(0);
        let crc = crc32c::crc32c(&frame);
        frame[CHECKSUM].copy_from_slice(&crc.to_be_bytes());
        one_frame(frame.into());
    }
}

fn one_frame(bytes: Bytes) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    if frame.head_len() <= rhumb_transport::envelope::MAX_HEAD {
        assert_eq!(Frame::decode(frame.encode()).as_ref(), Ok(&frame), "what was read writes back");
    }
}

/// A HELLO.
pub(super) fn hello(bytes: &[u8]) {
    let Ok(hello) = Hello::from_bytes(bytes) else { return };
    let again = hello.to_bytes().expect("what was read is small enough to write");
    assert_eq!(Hello::from_bytes(&again).as_ref(), Ok(&hello));
}

/// A message of the control stream, and a fault.
pub(super) fn control(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<ControlMessage>(bytes) {
        let again = codec::encode(&message).expect("what was read can be written");
        assert_eq!(codec::decode::<ControlMessage>(&again).as_ref(), Ok(&message));
    }
    if let Ok(fault) = WireFault::decode(bytes) {
        let again = WireFault::encode(&fault).expect("a fault can always be written");
        WireFault::decode(&again).expect("and read");
    }
}

/// The name of what is served under none: replies.
const REPLY: &str = "";

/// What a source of time or chrony answers: the first byte says which, the rest is it.
pub(super) fn time(bytes: &[u8]) {
    let Some((which, packet)) = bytes.split_first() else { return };
    if which % 2 == 0 {
        let cookie =
            packet.get(24..32).and_then(|cookie| cookie.try_into().ok()).map_or(0, u64::from_be_bytes);
        if let Ok(answer) = ntp::read(packet, cookie) {
            // Its first bit tells 2036 from 1968.
            assert!((-61_505_152_000_000..4_233_462_144_000_000).contains(&answer.shown), "{answer:?}");
            assert!(ntp::read(packet, cookie ^ 1).is_err(), "it answers one question");
        }
    } else {
        let sequence =
            packet.get(16..20).and_then(|number| number.try_into().ok()).map_or(0, u32::from_be_bytes);
        if chrony::read(packet, sequence).is_some() {
            assert_eq!(chrony::read(packet, sequence ^ 1), None, "it answers one question");
        }
    }
}

/// What reads a message's bytes.
type Reads = fn(&[u8]);

/// Messages that a node serves, by name, and replies. The kept inputs know their numbers: what is new stands last.
const MESSAGES: [(&str, Reads); 103] = [
    (CreatePool::NAME, one::<CreatePool>),
    (Hold::NAME, one::<Hold>),
    (Confirm::NAME, one::<Confirm>),
    (Release::NAME, one::<Release>),
    (Return::NAME, one::<Return>),
    (ShowPool::NAME, one::<ShowPool>),
    (ReadRow::NAME, one::<ReadRow>),
    (AttestPool::NAME, one::<AttestPool>),
    (ListPools::NAME, one::<ListPools>),
    (PEER_MESSAGE, one::<PeerMessage>),
    (REPLY, one::<Result<PoolCreated, Refusal>>),
    (REPLY, one::<Result<Held, Refusal>>),
    (REPLY, one::<Result<Settled, Refusal>>),
    (REPLY, one::<Result<Returned, Refusal>>),
    (REPLY, one::<Result<PoolView, Refusal>>),
    (REPLY, one::<Result<Row, Refusal>>),
    (REPLY, one::<Result<PoolAttested, Refusal>>),
    (REPLY, one::<Result<PoolList, Refusal>>),
    (AskStatus::NAME, one::<AskStatus>),
    (REPLY, of_the_mesh),
    (Cosign::NAME, one::<Cosign>),
    (ShowAudit::NAME, one::<ShowAudit>),
    (ReadEntries::NAME, one::<ReadEntries>),
    (Prove::NAME, one::<Prove>),
    (CheckBundle::NAME, one::<CheckBundle>),
    (EraseSubject::NAME, one::<EraseSubject>),
    (REPLY, one::<Result<String, Uncosigned>>),
    (REPLY, one::<Result<AuditView, AuditRefusal>>),
    (REPLY, one::<Result<EntryPage, AuditRefusal>>),
    (REPLY, one::<Result<Proven, AuditRefusal>>),
    (REPLY, one::<Result<Checked, AuditRefusal>>),
    (REPLY, one::<Result<Erased, AuditRefusal>>),
    (ProveBatch::NAME, one::<ProveBatch>),
    (NextStatement::NAME, one::<NextStatement>),
    (State::NAME, one::<State>),
    (ReplaceKey::NAME, one::<ReplaceKey>),
    (REPLY, one::<Result<ProvenBatch, AuditRefusal>>),
    (REPLY, one::<Result<KeyReplaced, AuditRefusal>>),
    (REPLY, one::<Result<String, AuditRefusal>>),
    (ShowMark::NAME, one::<ShowMark>),
    (REPLY, one::<Result<Mark, AuditRefusal>>),
    (AskWall::NAME, one::<AskWall>),
    (REPLY, one::<i64>),
    (DrillClock::NAME, one::<DrillClock>),
    (REPLY, one::<Result<Drilled, String>>),
    (RANGE_WORD, one::<RangeWord>),
    (Consent::NAME, one::<Consent>),
    (REPLY, one::<Result<Vec<u8>, String>>),
    (Introduce::NAME, one::<Introduce>),
    (Found::NAME, one::<Found>),
    (REPLY, one::<Result<(), KvRefusal>>),
    (CreateKeyspace::NAME, one::<CreateKeyspace>),
    (ListKeyspaces::NAME, one::<ListKeyspaces>),
    (ListRanges::NAME, one::<ListRanges>),
    (SplitRange::NAME, one::<SplitRange>),
    (REPLY, one::<Result<SplitDone, KvRefusal>>),
    (TransferLease::NAME, one::<TransferLease>),
    (MoveReplica::NAME, one::<MoveReplica>),
    (REPLY, one::<Result<Moved, KvRefusal>>),
    (PlanRange::NAME, one::<PlanRange>),
    (Rejoin::NAME, one::<Rejoin>),
    (REPLY, one::<Result<Rejoined, KvRefusal>>),
    (PlanPlacement::NAME, one::<PlanPlacement>),
    (ApplyPlacement::NAME, one::<ApplyPlacement>),
    (REPLY, one::<Result<PlacementView, KvRefusal>>),
    (WhereIs::NAME, one::<WhereIs>),
    (REPLY, one::<Result<RangeBounds, KvRefusal>>),
    (KvRead::NAME, one::<KvRead>),
    (KvWrite::NAME, one::<KvWrite>),
    (REPLY, one::<Result<KvWritten, KvRefusal>>),
    (BEAT, one::<Beat>),
    (ReadFences::NAME, one::<ReadFences>),
    (REPLY, one::<Result<Vec<FenceRead>, KvRefusal>>),
    (ListRegions::NAME, one::<ListRegions>),
    (REPLY, one::<Result<RegionList, KvRefusal>>),
    (LiveKeyspace::NAME, one::<LiveKeyspace>),
    (REPLY, one::<Result<Lived, KvRefusal>>),
    (CreateSnapshot::NAME, one::<CreateSnapshot>),
    (REPLY, one::<Result<SnapshotTaken, KvRefusal>>),
    (RemoveSnapshot::NAME, one::<RemoveSnapshot>),
    (ExportSnapshot::NAME, one::<ExportSnapshot>),
    (REPLY, one::<Result<Exportable, KvRefusal>>),
    (subjects::KeepKey::NAME, one::<subjects::KeepKey>),
    (subjects::HandKey::NAME, one::<subjects::HandKey>),
    (REPLY, one::<Result<subjects::Handed, KvRefusal>>),
    (subjects::WhichKeys::NAME, one::<subjects::WhichKeys>),
    (REPLY, one::<Result<Vec<Vec<u8>>, KvRefusal>>),
    (subjects::CondemnKeys::NAME, one::<subjects::CondemnKeys>),
    (subjects::DestroyKeys::NAME, one::<subjects::DestroyKeys>),
    (subjects::EraseSubject::NAME, one::<subjects::EraseSubject>),
    (REPLY, one::<Result<subjects::SubjectErased, KvRefusal>>),
    (SayVersion::NAME, one::<SayVersion>),
    (REPLY, one::<Result<SaidVersion, KvRefusal>>),
    (ShowVersion::NAME, one::<ShowVersion>),
    (Finalize::NAME, one::<Finalize>),
    (REPLY, one::<Result<VersionView, KvRefusal>>),
    (CheckRange::NAME, one::<CheckRange>),
    (REPLY, one::<Result<RangeChecked, KvRefusal>>),
    (AskLedger::NAME, one::<AskLedger>),
    (REPLY, one::<Result<LedgerAnswer, Refusal>>),
    (LEDGER_WORD, one::<LedgerWord>),
    (ResetClock::NAME, one::<ResetClock>),
    (REPLY, one::<Result<ClockReset, String>>),
];

/// The names of all messages that are taken in here.
#[must_use]
pub fn messages() -> Vec<&'static str> {
    let named = MESSAGES.iter().map(|(name, _)| *name).filter(|name| *name != REPLY);
    named.chain(rhumb::entry::questions_of_the_mesh().map(|(name, _)| name)).collect()
}

/// Every message that nodes and programs send, and every reply: the first byte says which, the rest is it.
pub(super) fn message(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    MESSAGES[usize::from(*which) % MESSAGES.len()].1(body);
}

/// What stands under the head of gathered tells, and the answers to it.
pub(super) fn gathered(bytes: &[u8]) {
    if let Ok(messages) = gathering::messages(bytes) {
        assert!(messages.len() <= gathering::MAX_GATHERED);
        assert!(messages.is_sorted_by(|one, next| one.end < next.start), "none is in another");
    }
    if let Ok(refused) = Refused::decode(bytes, gathering::MAX_GATHERED) {
        assert!(refused.each().count() <= gathering::MAX_GATHERED, "no more than were asked for");
    }
}

/// Certificates and lists of revocations, as they lie in files and come in handshakes.
pub(super) fn certificate(bytes: &[u8]) {
    let _ = Certificate::all_of(bytes);
    let _ = Certificate::read(&bytes.to_vec().into());
    let _ = RevocationList::all_of(bytes);
}

/// A value of one type, after its mark.
fn one<T: Wire + Serialize + DeserializeOwned>(body: &[u8]) {
    let bytes = [&wire::prefix::<T>().to_be_bytes(), body].concat();
    let Ok(value) = wire::decode::<T>(&bytes) else { return };
    let again = wire::encode(&value).expect("what was read can be written");
    let value = wire::decode::<T>(&again).expect("and read again");
    assert_eq!(wire::encode(&value).expect("and written"), again, "as the same bytes");
}

fn of_the_mesh(body: &[u8]) {
    for (_, reads) in rhumb::entry::questions_of_the_mesh() {
        reads(body);
    }
    let _ = rhumb::entry::is_an_answer_of_the_mesh(body);
    let _ = serde_json::from_slice::<MeshStatus>(body);
    let _ = serde_json::from_slice::<DeadLetters>(body);
}
