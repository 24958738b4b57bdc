//! A drill: an operator has the keeper of a node's clock see another wall clock for a while, to see that the node refuses
//! strong paths, says so, and goes on by itself.
//!
//! * It decides: how far and how long a drill may go.
//! * It never does: move the wall clock or hybrid time, outlast the time that was asked for (the clock ends it, not this
//!   task), or begin before it is in the audit log.

use std::time::Duration;

use rhumb_actors::audit::AuditHandle;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::clock::Freeze;
use rhumb_core::{DataClass, Fault, FaultKind, Mono};
use tokio::time::sleep;

use super::Watch;
use crate::clock::keeping::{Drill, Keeping};
use crate::mesh::clock::{DrillClock, Drilled, FARTHEST_DRILL, LONGEST_DRILL};
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::supervisor::audit;

/// How often it is looked whether strong paths stand.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long after its end a drill waits for them.
const STANDS_WITHIN: Duration = Duration::from_secs(10);

/// Serves [`DrillClock`].
pub(in crate::supervisor) fn serve(
    registry: &mut Registry,
    watch: &Watch,
    log: &AuditHandle,
) -> Result<(), ServedTwice> {
    let (watch, log) = (watch.clone(), log.clone());
    registry.serve(move |call: Call<DrillClock>| {
        let (watch, log) = (watch.clone(), log.clone());
        // In a task: who asked may go, and how it ended is told all the same.
        let drills = async move { drilled(&watch, &log, call).await };
        async move {
            let done = tokio::spawn(drills).await;
            let done =
                done.unwrap_or_else(|panic| Err(Fault::unknown(FaultKind::Panicked(panic.to_string()))));
            Ok((done?, DataClass::control()))
        }
    })
}

fn bounded(asked: &DrillClock) -> Result<Duration, String> {
    let lasts = Duration::from_millis(asked.for_ms);
    if lasts.is_zero() || lasts > LONGEST_DRILL {
        return Err(format!("a drill lasts {lasts:?}: expected 1ms to {LONGEST_DRILL:?}"));
    }
    if asked.ahead_ms == 0 || Duration::from_millis(asked.ahead_ms.unsigned_abs()) > FARTHEST_DRILL {
        let ahead = asked.ahead_ms;
        return Err(format!(
            "a drill shows a clock that is {ahead} ms ahead: expected up to an hour either way, and not 0"
        ));
    }
    Ok(lasts)
}

async fn drilled(
    watch: &Watch,
    log: &AuditHandle,
    call: Call<DrillClock>,
) -> Result<Result<Drilled, String>, Fault> {
    let asked = call.message;
    let lasts = match bounded(&asked) {
        Ok(lasts) => lasts,
        Err(why) => return Ok(Err(why)),
    };
    let keeping = watch.clock.keeping();
    let keeping =
        keeping.ok_or_else(|| Fault::not_sent(FaultKind::Handler("this clock has no keeper".into())))?;
    if let Some(freeze) = watch.clock.frozen() {
        return Ok(Err(format!("strong paths are refused here already, and this is no drill: {freeze}")));
    }
    let record = Record::told("clock.drill", "", Outcome::Begun)
        .on(format!("node {}", watch.me))
        .with("ahead_ms", asked.ahead_ms.to_string())
        .with("for_ms", asked.for_ms.to_string());
    let begun = audit::begin(log, &call.from, record).await?;
    let now = watch.clock.mono();
    let until = now.plus(lasts);
    if let Err(other) = keeping.begin(now, Drill { ahead_ms: asked.ahead_ms, until }) {
        let left = other.until.since(now);
        let why = format!("another drill is under way here for {left:?}: try again after it");
        begun.ended(Outcome::Refused, Some(why.clone())).await?;
        return Ok(Err(why));
    }
    tracing::warn!(
        by = %call.from.principal,
        ahead_ms = asked.ahead_ms,
        ?lasts,
        "a drill: the keeper of this node's clock is shown another one"
    );
    let (froze, stood) = watch.see(keeping, now, until).await;
    let (outcome, why) = match (&froze, stood) {
        (Some((after, freeze)), Some(stood)) => {
            (Outcome::Done, format!("frozen after {after:?} ({freeze}); stood again {stood:?} after its end"))
        }
        (Some((_, freeze)), None) => {
            (Outcome::Failed, format!("frozen ({freeze}), and not standing {STANDS_WITHIN:?} after its end"))
        }
        (None, _) => (Outcome::Failed, "strong paths were never frozen".to_owned()),
    };
    let entry = begun.ended(outcome, Some(why)).await?;
    let millis = |duration: Duration| duration.as_millis() as u64;
    Ok(Ok(Drilled {
        froze_after_ms: froze.as_ref().map(|(after, _)| millis(*after)),
        why: froze.map_or_else(String::new, |(_, freeze)| freeze.to_string()),
        stood_after_ms: stood.map(millis),
        entry,
    }))
}

impl Watch {
    /// Watches a drill: after how long strong paths were frozen, and how long after its end they stood.
    async fn see(
        &self,
        keeping: &Keeping,
        began: Mono,
        until: Mono,
    ) -> (Option<(Duration, Freeze)>, Option<Duration>) {
        let mut froze: Option<(Duration, Freeze)> = None;
        while keeping.drill(self.clock.mono()).is_some() {
            self.tell(self.clock.looked());
            if froze.is_none() {
                froze = self.clock.strong_time().err().map(|why| (self.clock.mono().since(began), why));
            }
            sleep(LOOK_EVERY).await;
        }
        loop {
            self.tell(self.clock.looked());
            let since = self.clock.mono().since(until);
            match self.clock.strong_time() {
                Ok(_) => return (froze, Some(since)),
                Err(_) if since > STANDS_WITHIN => return (froze, None),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_bounded_in_time_and_in_how_far_it_goes() {
        let asked = |ahead_ms, for_ms| bounded(&DrillClock { ahead_ms, for_ms });
        assert_eq!(asked(-450, 5_000), Ok(Duration::from_secs(5)));
        assert_eq!(asked(3_600_000, 60_000), Ok(LONGEST_DRILL));
        for (ahead_ms, for_ms, what) in [
            (450, 0, "expected 1ms"),
            (450, 60_001, "to 60s"),
            (0, 1, "and not 0"),
            (-3_600_001, 1, "an hour"),
        ] {
            let told = asked(ahead_ms, for_ms).expect_err("it is not allowed");
            assert!(told.contains(what), "{told}");
        }
    }
}
