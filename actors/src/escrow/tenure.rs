//! Who writes one owner's ledger of one pool, where its rows stand in a range (`durability=quorum`).
//!
//! Beside the rows there is one more, the *head*: under which epoch they are written, by whom, and how often they have
//! been. Every write is a batch that also writes the head, under the condition that this is as the writer last left it.
//!
//! * It decides: what is written next and under which condition; what came of a write of which nobody knows; that
//!   another one writes by now; that it ends over a write that its range will never take.
//! * It never does: take a time or a fence for a proof that it still writes; write anything else under a sequence
//!   number that was offered to the range before; say that a batch is durable which the range has not.
//! * Invariant: an epoch has one writer, for the head names who raised it and only a head that is as it was read is
//!   raised. What one writer wrote and nobody has acknowledged is either seen by its successor or never comes to be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Epoch, HybridTime, NodeId, PoolName, Ticket, codec};
use rhumb_storage::{Batch, Family};
use rhumb_topology::{Founding, pool_home};
use serde::{Deserialize, Serialize};

use super::messages::PoolSpec;
use super::records::Image;

/// Rows of one write, without the head: a batch of a range has at most 256.
const MAX_ROWS: usize = 200;
/// Bytes of one write: a batch of a range has at most 256 KiB.
const MAX_BYTES: usize = 160 << 10;

/// Who writes a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// It rises each time that somebody begins to write.
    pub epoch: Epoch,
    /// How many writes there were under it.
    pub seq: u64,
    /// Who writes under it.
    pub host: NodeId,
    /// When that node began, by its own count: no two of its beginnings have the same.
    pub opening: u64,
}

#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Head),
}

impl Head {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Versioned::V1(self.clone())).expect("a head is small").to_vec()
    }

    /// The head of bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Versioned::V1(head) = codec::decode(bytes).map_err(|error| error.to_string())?;
        Ok(head)
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.epoch, &self.host, self.opening) == (other.epoch, &other.host, other.opening)
    }
}

/// Where the rows of an owner's ledger stand in the range of its pool. The first of these keys is the head's.
#[must_use]
pub fn rows_of(owner: &NodeId) -> (Vec<u8>, Vec<u8>) {
    let bounds = |end: u8| format!("{owner}").into_bytes().into_iter().chain([end]).collect();
    (bounds(0), bounds(1))
}

/// The key of one row of an owner's ledger.
#[must_use]
pub fn key_of(owner: &NodeId, record: &[u8]) -> Vec<u8> {
    let mut key = rows_of(owner).0;
    key.extend(record);
    key
}

/// The key of the row that says what a pool is: its home wrote it when it minted.
#[must_use]
pub fn spec_key(founding: &Founding, pool: &PoolName) -> Vec<u8> {
    key_of(pool_home(founding, pool), format!("p{pool}").as_bytes())
}

/// What a pool is, by that row.
///
/// # Errors
/// What is wrong with it.
pub fn spec_of(pool: &PoolName, row: &[u8]) -> Result<PoolSpec, String> {
    let record = (format!("p{pool}").into_bytes(), row.to_vec());
    let mut image = Image::read([record].into_iter()).map_err(|error| error.to_string())?;
    let row = image.pools.remove(pool).and_then(|image| image.pool).ok_or("it is another pool's")?;
    Ok(row.spec(pool))
}

/// Rows to write, each once: the key within the ledger, and the value; none to remove it.
pub type Rows = Arc<BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// What the head must be for a write to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If {
    /// It is not there.
    Absent,
    /// It was last written at this version.
    At(HybridTime),
    /// Whatever it is: only a mutant says so.
    Any,
}

/// What is to be done next. One thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Read the head strongly, then say [`Came::Head`].
    Look,
    /// Write these rows and this head in one batch.
    Write {
        /// Under this condition.
        when: If,
        /// The head.
        head: Head,
        /// The rows.
        rows: Rows,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// The batch was written, at this version.
    Written(HybridTime),
    /// Nothing was, or nobody knows; or the head could not be read.
    Unsettled,
    /// Nothing was written, or read, and the range will not do it as often as it is asked: why.
    Refused(String),
    /// The head, and its version, as a strong read that began after [`Want::Look`] has it.
    Head(Option<(Head, HybridTime)>),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// Nothing yet.
    Same,
    /// This one writes the ledger now: its rows are to be read, and stay as they are meanwhile.
    Seated,
    /// All batches up to this one are durable, and nobody else wrote before them.
    Durable(Ticket),
    /// Another one writes by now: nothing that is not durable will ever be.
    Succeeded(Option<Head>),
    /// The range does not take what was to be written, for this reason. It writes no more: who begins anew, this node or another,
    /// raises the epoch first, and with that nothing that is not durable will ever be.
    Refused(String),
}

#[derive(Debug)]
struct Flight {
    upto: Ticket,
    rows: Rows,
}

#[derive(Debug)]
enum State {
    /// What was read of the head, if it is to be raised by what was offered then.
    Claiming(Option<(Head, If)>),
    Seated {
        head: Head,
        at: HybridTime,
    },
    Over,
}

/// One node's hold on a ledger, from its beginning to its end. See the module's words.
#[derive(Debug)]
pub struct Tenure {
    host: NodeId,
    opening: u64,
    state: State,
    waiting: VecDeque<(Ticket, Batch)>,
    flight: Option<Flight>,
    /// What came of the last write is not known: the head is looked at first.
    unsure: bool,
}

impl Tenure {
    /// Begins to take a ledger over. No two beginnings of a node have the same number.
    #[must_use]
    pub fn new(host: NodeId, opening: u64) -> Self {
        let (waiting, flight) = (VecDeque::new(), None);
        Self { host, opening, state: State::Claiming(None), waiting, flight, unsure: false }
    }

    /// A batch is to be written after all before it. An empty one asks whether this one writes still. Gives what is
    /// durable at once, which nothing is.
    pub fn offer(&mut self, ticket: Ticket, batch: Batch) -> Option<Ticket> {
        self.waiting.push_back((ticket, batch));
        canary::sings(Canary::AnsweredBeforeRange).then_some(ticket)
    }

    /// What to do next, if there is something. To be asked again when that has come.
    pub fn want(&mut self) -> Option<Want> {
        match &self.state {
            State::Over => None,
            State::Claiming(None) => Some(Want::Look),
            State::Claiming(Some(_)) if self.unsure => Some(Want::Look),
            State::Claiming(Some((head, when))) => {
                Some(Want::Write { when: *when, head: head.clone(), rows: Rows::default() })
            }
            State::Seated { head, at } => {
                if self.flight.is_none() {
                    self.flight = take(&mut self.waiting);
                }
                let flight = self.flight.as_ref()?;
                if self.unsure || flight.rows.is_empty() {
                    return Some(Want::Look);
                }
                let when = if canary::sings(Canary::HeadNotAsked) { If::Any } else { If::At(*at) };
                let head = Head { seq: head.seq + 1, ..head.clone() };
                Some(Want::Write { when, head, rows: Arc::clone(&flight.rows) })
            }
        }
    }

    /// What was wanted has come.
    pub fn came(&mut self, came: Came) -> Became {
        match (std::mem::replace(&mut self.state, State::Over), came) {
            (State::Over, _) => Became::Same,
            (state, Came::Unsettled) => {
                self.state = state;
                self.unsure = true;
                Became::Same
            }
            (_, Came::Refused(why)) => Became::Refused(why),
            (State::Claiming(Some((head, _))), Came::Written(at)) => self.seated(head, at),
            (State::Claiming(claim), Came::Head(found)) => match (claim, found) {
                (Some((claim, _)), Some((found, at))) if claim == found => self.seated(found, at),
                (_, found) => {
                    self.unsure = false;
                    self.state = State::Claiming(Some(self.claim(found)));
                    Became::Same
                }
            },
            (State::Claiming(None), Came::Written(_)) => unreachable!("nothing was to be written"),
            (State::Seated { head, .. }, Came::Written(at)) => self.wrote(head, at),
            (State::Seated { head, at }, Came::Head(found)) => self.looked((head, at), found),
        }
    }

    /// Under which epoch it writes.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match &self.state {
            State::Seated { head, .. } => Some(head.epoch),
            _ => None,
        }
    }

    fn claim(&self, found: Option<(Head, HybridTime)>) -> (Head, If) {
        let (epoch, when) = match found {
            None => (Epoch(1), If::Absent),
            Some((head, at)) => (head.epoch.next(), If::At(at)),
        };
        (Head { epoch, seq: 0, host: self.host.clone(), opening: self.opening }, when)
    }

    fn seated(&mut self, head: Head, at: HybridTime) -> Became {
        self.unsure = false;
        self.state = State::Seated { head, at };
        Became::Seated
    }

    /// What was under way is in the range.
    fn wrote(&mut self, head: Head, at: HybridTime) -> Became {
        let flight = self.flight.take().expect("only what is under way is written");
        self.unsure = false;
        self.state = State::Seated { head: Head { seq: head.seq + 1, ..head }, at };
        Became::Durable(flight.upto)
    }

    fn looked(&mut self, (head, at): (Head, HybridTime), found: Option<(Head, HybridTime)>) -> Became {
        let ours = found.as_ref().filter(|(found, _)| found.is_of(&head));
        let Some((found, found_at)) = ours else {
            return Became::Succeeded(found.map(|(head, _)| head));
        };
        let under_way = self.flight.as_ref().is_some_and(|flight| !flight.rows.is_empty());
        if under_way && found.seq == head.seq + 1 {
            let at = *found_at;
            return self.wrote(head, at);
        }
        assert_eq!(found.seq, head.seq, "nobody but this one writes under its epoch");
        self.unsure = false;
        self.state = State::Seated { head, at };
        if under_way {
            // It may still come to be: the same is offered again, and one of the two takes effect.
            return Became::Same;
        }
        self.flight.take().map_or(Became::Same, |flight| Became::Durable(flight.upto))
    }
}

/// The next write: as many batches as go into one.
fn take(waiting: &mut VecDeque<(Ticket, Batch)>) -> Option<Flight> {
    let (mut upto, mut rows, mut bytes) = (None, BTreeMap::new(), 0);
    while let Some((ticket, batch)) = waiting.front() {
        let more = batch.writes().count();
        bytes += batch.bytes();
        if upto.is_some() && (rows.len() + more > MAX_ROWS || bytes > MAX_BYTES) {
            break;
        }
        for (family, key, value) in batch.writes() {
            debug_assert_eq!(family, Family::Escrow, "a ledger writes nothing else");
            rows.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
        upto = Some(*ticket);
        waiting.pop_front();
    }
    Some(Flight { upto: upto?, rows: Arc::new(rows) })
}
