//! For whose sake the machine's effects are, where that call's trace is kept. The machine knows nothing
//! of it.
//!
//! * It decides: that a request for rights is for the ask that has waited longest for units of that pool
//!   (the others are named beside it), and that what is said to a peer at once is for what it has said.
//! * It never does: keep anything for a call whose trace is not kept, or change what is sent.
//! * Invariant: an ask that waits is known here until its answer is pushed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rhumb_core::{NodeId, PoolName, Ticket};

use super::Asked;
use crate::escrow::book::{Effect, Token};
use crate::escrow::messages::{Level, PeerMessage};
use crate::span::Span;

/// How many of those who also wait are named beside the one who has waited longest.
const OTHERS: usize = 8;
/// How many syncs are remembered: as many batches are under way.
const SYNCS: usize = super::WINDOW;

/// For whom something is done.
#[derive(Debug, Clone)]
pub struct Sake {
    /// The call.
    pub span: Span,
    /// Who else waits for it.
    pub others: Vec<Span>,
}

/// An effect of the machine, and for whose sake it is.
pub(super) struct Sent {
    pub(super) effect: Effect,
    sake: Option<Sake>,
    /// It waits for a batch.
    commit: Option<(Ticket, Span)>,
}

/// When a sync began and how long it took.
pub(super) type Sync = (Instant, Duration);

/// The last syncs, each with the highest batch that it made durable.
#[derive(Clone, Default)]
pub(super) struct Syncs(Arc<Mutex<VecDeque<(Ticket, Sync)>>>);

impl Syncs {
    pub(super) fn covered(&self, ticket: Ticket, sync: Sync) {
        let mut syncs = self.0.lock();
        if syncs.len() == SYNCS {
            syncs.pop_front();
        }
        syncs.push_back((ticket, sync));
    }

    fn of(&self, ticket: Ticket) -> Option<Sync> {
        self.0.lock().iter().find(|(covered, _)| *covered >= ticket).map(|(_, sync)| *sync)
    }
}

/// What is known of the calls whose traces are kept.
#[derive(Default)]
pub(super) struct Trail {
    /// What the step under way was said by a peer.
    heard: Option<(NodeId, PoolName, Span)>,
    waiting: BTreeMap<Token, Waiting>,
    pub(super) syncs: Syncs,
}

struct Waiting {
    pool: PoolName,
    span: Span,
    stage: Option<Span>,
}

impl Trail {
    /// A hold is about to be asked of the machine. It may have to wait.
    pub(super) fn asks(&mut self, token: Token, pool: &PoolName, span: &Span) {
        self.waiting.insert(token, Waiting { pool: pool.clone(), span: span.clone(), stage: None });
    }

    /// It has been asked: if it was not answered, it waits for units from now on.
    pub(super) fn asked(&mut self, token: Token) {
        if let Some(waiting) = self.waiting.get_mut(&token) {
            waiting.stage = Some(waiting.span.part("wait for rights"));
        }
    }

    /// A peer's message is about to be told to the machine.
    pub(super) fn hears(&mut self, from: &NodeId, message: &PeerMessage, span: &Span) {
        if let PeerMessage::Level(level) = message {
            self.heard = Some((from.clone(), level.spec.name.clone(), span.clone()));
        }
    }

    /// It has been told.
    pub(super) fn heard(&mut self) {
        self.heard = None;
    }

    /// Notes for whose sake an effect is, and whether it waits for a batch.
    pub(super) fn note(
        &mut self,
        effect: Effect,
        waits: Option<Ticket>,
        asks: &HashMap<Token, Asked>,
    ) -> Sent {
        let sake = self.sake(&effect, asks);
        let commit =
            waits.zip(sake.as_ref()).map(|(ticket, sake)| (ticket, sake.span.part("storage commit")));
        Sent { effect, sake, commit }
    }

    fn sake(&mut self, effect: &Effect, asks: &HashMap<Token, Asked>) -> Option<Sake> {
        match effect {
            Effect::Reply { token, .. } | Effect::Forward { token, .. } => {
                self.waiting.remove(token);
                let span = asks.get(token)?.span.clone()?;
                Some(Sake { span, others: Vec::new() })
            }
            Effect::Peer { to, message: PeerMessage::Level(level) } => {
                self.answers(to, level).or_else(|| self.needs(level))
            }
            Effect::Peer { .. } | Effect::Read { .. } | Effect::Alarm { .. } => None,
        }
    }

    /// What is said at once to whom one has heard.
    fn answers(&self, to: &NodeId, level: &Level) -> Option<Sake> {
        let (from, pool, span) = self.heard.as_ref()?;
        let answers = from == to && *pool == level.spec.name;
        answers.then(|| Sake { span: span.clone(), others: Vec::new() })
    }

    /// Who waits for what is asked for.
    fn needs(&self, level: &Level) -> Option<Sake> {
        if level.need <= level.accepted && level.debt.need <= level.debt.accepted {
            return None;
        }
        let mut waiting = self.waiting.values().filter(|waiting| waiting.pool == level.spec.name);
        let span = waiting.next()?.span.clone();
        Some(Sake { span, others: waiting.take(OTHERS).map(|waiting| waiting.span.clone()).collect() })
    }

    /// The effect's batch is durable, if it had to wait for one: says how long that took.
    pub(super) fn performs(&self, sent: Sent) -> (Effect, Option<Sake>) {
        if let Some((ticket, commit)) = &sent.commit
            && let Some((began, took)) = self.syncs.of(*ticket)
        {
            commit.passed("fsync", began, took);
        }
        (sent.effect, sent.sake)
    }
}
