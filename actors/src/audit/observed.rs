//! What a node sees and nobody waits for: refusals, and passages that only an exception permits. Of one kind the
//! first in a minute is told at once, the rest as a number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rhumb_core::HybridTime;

use super::flood::Told;
use super::record::{Outcome, Record};
use super::{Flood, NotAppended};

/// A kind of thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// Its name, such as `gate.refused`.
    pub action: &'static str,
    /// Who was refused, or permitted.
    pub peer: String,
    /// By which rule.
    pub rule: String,
    /// Whether it was permitted.
    pub permitted: bool,
}

impl Observed {
    /// Something that was refused.
    #[must_use]
    pub fn refused(action: &'static str, peer: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { action, peer: peer.into(), rule: rule.into(), permitted: false }
    }

    /// Something that only an exception permits.
    #[must_use]
    pub fn permitted(action: &'static str, peer: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { permitted: true, ..Self::refused(action, peer, rule) }
    }
}

/// The record of a telling.
pub(super) fn record(told: Told<Observed>) -> Record {
    let (action, peer, rule, permitted) = match told.kind {
        Some(kind) => (kind.action, kind.peer, kind.rule, kind.permitted),
        None => ("flood.other", String::new(), "kinds beyond the bound".to_owned(), false),
    };
    let outcome = if permitted { Outcome::Done } else { Outcome::Refused };
    Record::told(action, peer, outcome)
        .with("rule", rule)
        .with("count", told.count.to_string())
        .with("minute", told.minute.to_string())
}

/// What is counted until it is told. Cloneable; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Observations {
    flood: Arc<Mutex<Flood<Observed>>>,
    missed: Arc<AtomicU64>,
    folded: Arc<AtomicU64>,
    refused: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Observations {
    pub(super) fn happened(&self, now: HybridTime, kind: Observed, mut tell: impl FnMut(Told<Observed>)) {
        let mut alone = false;
        self.flood.lock().happened(now, kind.clone(), |told| {
            // What a minute that is over leaves is told of kinds as well, but not as a first one.
            alone |= told.count == 1 && told.kind.as_ref().is_none_or(|of| *of == kind);
            tell(told);
        });
        self.folded.fetch_add(u64::from(!alone), Ordering::Relaxed);
    }

    pub(super) fn pass(&self, now: HybridTime, tell: impl FnMut(Told<Observed>)) {
        self.flood.lock().pass(now, tell);
    }

    /// There was no room to tell of so many.
    pub(super) fn missed(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }

    /// A record is not in the log.
    pub(super) fn not_appended(&self, why: &NotAppended) {
        *self.refused.lock().entry(why.code()).or_default() += 1;
    }

    pub(super) fn refused_so_far(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }

    /// Things that happened and were told with others of their kind.
    pub(super) fn folded_so_far(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    pub(super) fn missed_so_far(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_telling_says_who_by_which_rule_and_how_many() {
        let told = |kind| record(Told { kind, count: 7, minute: 9 });
        let refused = told(Some(Observed::refused("gate.refused", "eu", "no rule")));
        assert_eq!(refused.outcome, Outcome::Refused);
        assert_eq!((refused.actor.as_str(), refused.details["rule"].as_str()), ("eu", "no rule"));
        assert_eq!((refused.details["count"].as_str(), refused.details["minute"].as_str()), ("7", "9"));
        let permitted = told(Some(Observed::permitted("gate.permitted", "eu", "law")));
        assert_eq!(permitted.outcome, Outcome::Done);
        assert_eq!(told(None).action, "flood.other");
    }
}
