//! How calls are retried, and held back from where they fail.

use super::{MINUTE, SECOND, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, count, millis};

pub(super) const RESILIENCE: Section = Section {
    name: "resilience",
    what: "How this node's calls to actors of other nodes are retried, and held back from where they fail; when it does less.",
    keys: &[
        Key::new(
            "resilience.retry_share",
            Kind::Share,
            field!(resilience.retries.share),
            "Retries within ten seconds, for each call that may be retried.",
        ),
        Key::new(
            "resilience.retry_least",
            count(0, 10_000, "retries a second"),
            field!(resilience.retries.least),
            "Retries besides these, however few calls there are.",
        ),
        Key::new(
            "resilience.backoff_min",
            millis(1, MINUTE),
            field!(resilience.backoff_min),
            "The pause before the first retry of a call; it doubles. Half of it is drawn.",
        ),
        Key::new(
            "resilience.backoff_max",
            millis(1, 10 * MINUTE),
            field!(resilience.backoff_max),
            "The longest pause before a retry.",
        ),
        Key::new(
            "resilience.hedge_share",
            Kind::Share,
            field!(resilience.hedges.share),
            "Hedges within ten seconds, for each question that may be hedged.",
        ),
        Key::new(
            "resilience.hedge_least",
            count(0, 10_000, "hedges a second"),
            field!(resilience.hedges.least),
            "Hedges besides these.",
        ),
        Key::new(
            "resilience.breakers",
            Kind::Choice(&["on", "off"]),
            field!(resilience.breakers),
            "Whether calls are held back from a node, or from a type of actors there, of which too many have failed.",
        ),
        Key::new(
            "resilience.breaker_run",
            count(1, 100_000, "failures"),
            field!(resilience.breaker.run),
            "So many failures in a row trip a breaker.",
        ),
        Key::new(
            "resilience.breaker_success",
            Kind::Share,
            field!(resilience.breaker.least_success),
            "A smaller share of successes than this trips it too.",
        ),
        Key::new(
            "resilience.breaker_calls",
            count(1, 1_000_000, "calls"),
            field!(resilience.breaker.least_calls),
            "Among at least so many.",
        ),
        Key::new(
            "resilience.breaker_window",
            millis(100, 10 * MINUTE),
            field!(resilience.breaker.window),
            "Within this time.",
        ),
        Key::new(
            "resilience.breaker_shut",
            millis(10, 10 * MINUTE),
            field!(resilience.breaker.shut),
            "How long a tripped breaker lets no call through; then one, whose outcome decides. Half of it is drawn.",
        ),
        Key::new(
            "resilience.breaker_longest",
            millis(10, 10 * MINUTE),
            field!(resilience.breaker.longest),
            "That time doubles with each such call that fails, up to this.",
        ),
        Key::new(
            "resilience.mode_worse_after",
            millis(SECOND, 10 * MINUTE),
            field!(resilience.mode.worse_after),
            "How long a sign (questions turned away, a pressed store, peers that are not connected) lasts before the node \
             does less.",
        ),
        Key::new(
            "resilience.mode_calm_after",
            millis(SECOND, 60 * MINUTE),
            field!(resilience.mode.calm_after),
            "How long it has been gone before the node recovers.",
        ),
        Key::new(
            "resilience.mode_steady_after",
            millis(SECOND, 60 * MINUTE),
            field!(resilience.mode.steady_after),
            "How long a recovery lasts before the node does all again.",
        ),
        Key::new(
            "resilience.mode_shed",
            Kind::Share,
            field!(resilience.mode.shed),
            "A larger share of questions turned away by their type's admission is such a sign.",
        ),
        Key::new(
            "resilience.mode_shed_most",
            Kind::Share,
            field!(resilience.mode.shed_most),
            "One larger than this takes the node to its floor.",
        ),
    ],
};
