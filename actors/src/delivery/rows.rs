//! What delivery keeps on disk, in the family of the outbox.
//!
//! | key | value |
//! |---|---|
//! | `k` digest | an idempotency key that was answered |
//! | `l` epoch sequence | a letter that is to be delivered |
//! | `d` epoch sequence | a dead letter |
//! | `m` source `/` epoch sequence | a letter of another node that is settled here |
//! | `f` source | the letter of that node below which all are settled or given up |
//! | `s` length actor row | what an actor wrote of itself in a call |
//!
//! Numbers are big-endian. Each value is an enum of versions, to which versions are only appended.
//!
//! * It decides: the bytes.
//! * Invariant: what is written reads back the same; a row that cannot be read stops recovery.

use rhumb_core::codec::{Bincode, Codec};
use rhumb_core::{Incarnation, NodeId};
use rhumb_storage::{Batch, Family};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::keys::{Key, KeyRow};
use super::letter::{DeadLetter, Letter, LetterId};

/// The family in which all of it stands.
pub const FAMILY: Family = Family::Outbox;

/// A row that cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("delivery row {key} cannot be read: {reason}")]
pub struct Unreadable {
    /// Its key, escaped.
    pub key: String,
    /// What was wrong.
    pub reason: String,
}

/// A value: the version of its layout, then the layout.
#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

/// A row, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// An idempotency key.
    Key(Key, KeyRow),
    /// A letter.
    Letter(LetterId, Letter),
    /// A dead letter.
    Dead(LetterId, DeadLetter),
    /// A letter of another node, settled here.
    Settled(NodeId, LetterId),
    /// Below which all letters of another node are settled or given up.
    Floor(NodeId, LetterId),
}

fn put<T: Serialize>(batch: &mut Batch, key: Vec<u8>, value: T) {
    let bytes = Bincode::encode(&Versioned::V1(value)).expect("rows are within the codec's limits");
    batch.put(FAMILY, key, bytes);
}

fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let Versioned::V1(value) = Bincode::decode(bytes).map_err(|error| error.to_string())?;
    Ok(value)
}

fn numbered(letter: u8, before: &str, id: LetterId) -> Vec<u8> {
    [&[letter], before.as_bytes(), &id.epoch.0.to_be_bytes(), &id.sequence.to_be_bytes()].concat()
}

fn id(bytes: &[u8]) -> Option<LetterId> {
    let (epoch, sequence) = bytes.split_first_chunk::<8>()?;
    let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
    Some(LetterId { epoch: Incarnation(u64::from_be_bytes(*epoch)), sequence })
}

fn settled_key(source: &NodeId, id: LetterId) -> Vec<u8> {
    numbered(b'm', &format!("{source}\n"), id)
}

/// Keeps an answered key.
pub fn put_key(batch: &mut Batch, key: Key, row: &KeyRow) {
    put(batch, [b"k", &key.0[..]].concat(), row);
}

/// Forgets a key.
pub fn delete_key(batch: &mut Batch, key: Key) {
    batch.delete(FAMILY, [b"k", &key.0[..]].concat());
}

/// Keeps a letter.
pub fn put_letter(batch: &mut Batch, id: LetterId, letter: &Letter) {
    put(batch, numbered(b'l', "", id), letter);
}

/// Forgets a letter.
pub fn delete_letter(batch: &mut Batch, id: LetterId) {
    batch.delete(FAMILY, numbered(b'l', "", id));
}

/// Keeps a dead letter.
pub fn put_dead(batch: &mut Batch, id: LetterId, dead: &DeadLetter) {
    put(batch, numbered(b'd', "", id), dead);
}

/// Forgets a dead letter.
pub fn delete_dead(batch: &mut Batch, id: LetterId) {
    batch.delete(FAMILY, numbered(b'd', "", id));
}

/// Notes that a letter of another node is settled.
pub fn put_settled(batch: &mut Batch, source: &NodeId, id: LetterId) {
    batch.put(FAMILY, settled_key(source, id), b"");
}

/// Forgets that note.
pub fn delete_settled(batch: &mut Batch, source: &NodeId, id: LetterId) {
    batch.delete(FAMILY, settled_key(source, id));
}

/// Notes below which all letters of another node are settled or given up.
pub fn put_floor(batch: &mut Batch, source: &NodeId, floor: LetterId) {
    put(batch, [b"f", source.to_string().as_bytes()].concat(), floor);
}

/// Before the keys of all rows of one actor.
#[must_use]
pub fn of_actor(actor: &str) -> Vec<u8> {
    let bytes = u16::try_from(actor.len()).expect("the name of an actor is short").to_be_bytes();
    [b"s", &bytes[..], actor.as_bytes()].concat()
}

/// The key of one row of an actor.
#[must_use]
pub fn actor_key(actor: &str, row: &[u8]) -> Vec<u8> {
    [&of_actor(actor)[..], row].concat()
}

/// Reads a row; none where it is an actor's own.
///
/// # Errors
/// [`Unreadable`].
pub fn read(key: &[u8], bytes: &[u8]) -> Result<Option<Row>, Unreadable> {
    let unreadable = |reason: String| Unreadable { key: key.escape_ascii().to_string(), reason };
    let name = || unreadable("its key is none".to_owned());
    let (letter, rest) = key.split_first().ok_or_else(name)?;
    let row = match letter {
        b's' => return Ok(None),
        b'k' => Row::Key(Key(rest.try_into().map_err(|_| name())?), value(bytes).map_err(unreadable)?),
        b'l' => Row::Letter(id(rest).ok_or_else(name)?, value(bytes).map_err(unreadable)?),
        b'd' => Row::Dead(id(rest).ok_or_else(name)?, value(bytes).map_err(unreadable)?),
        b'f' => Row::Floor(node(rest).ok_or_else(name)?, value(bytes).map_err(unreadable)?),
        b'm' => {
            let (source, number) = rest.len().checked_sub(16).map(|at| rest.split_at(at)).ok_or_else(name)?;
            let source = source.strip_suffix(b"\n").and_then(node).ok_or_else(name)?;
            Row::Settled(source, id(number).ok_or_else(name)?)
        }
        _ => return Err(name()),
    };
    Ok(Some(row))
}

fn node(bytes: &[u8]) -> Option<NodeId> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
