//! What nodes tell and ask each other of ledgers that stand in ranges: whoever writes one now is told, and asked, in
//! its owner's stead. Only nodes do.

use rhumb_core::{DataClass, NodeId};
use serde::{Deserialize, Serialize};

use super::{
    Confirm, Held, Hold, PeerMessage, PoolView, ReadRow, Refusal, Release, Return, Returned, Row, Settled,
    ShowPool,
};
use crate::{Wire, grows, remote};

/// Asks an owner's ledger, at the node that writes it. One that does not, or does no longer, says that it is elsewhere.
#[remote(crate = crate, name = "escrow.AskLedger", class = by(class), audience = "nodes", idempotent,
         reply = Result<LedgerAnswer, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskLedger {
    /// The pool's class.
    pub class: DataClass,
    /// Whose ledger.
    pub ledger: NodeId,
    /// What.
    pub asks: LedgerAsk,
}

/// What a ledger is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum LedgerAsk {
    /// Hold units.
    Hold(Hold),
    /// Make a hold a sale.
    Confirm(Confirm),
    /// Give a hold back.
    Release(Release),
    /// Give back units of a sale.
    Return(Return),
    /// Its view of the pool.
    Show(ShowPool),
    /// Its exact row.
    ReadRow(ReadRow),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
#[expect(clippy::large_enum_variant, reason = "one of them lives for as long as it is answered")]
pub enum LedgerAnswer {
    /// To a hold.
    Held(Held),
    /// To a confirmation or a release.
    Settled(Settled),
    /// To a return.
    Returned(Returned),
    /// Its view.
    View(PoolView),
    /// Its row.
    Row(Row),
}

/// What one owner's ledger has to say to another's, whoever writes them. As between nodes, all of it may be lost,
/// doubled or late: a ledger says only what its range has, so the word of a writer that was succeeded stays true.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerWord {
    /// Whose ledger says it.
    pub from: NodeId,
    /// To whose.
    pub to: NodeId,
    /// What.
    pub message: PeerMessage,
}

/// The stable name of [`LedgerWord`] on the wire. It is told, never asked: it has no reply.
pub const LEDGER_WORD: &str = "escrow.LedgerWord";
