//! For how long things of keyspaces are kept.
//!
//! * It decides: which times may be asked for, and what each range of this node is told of them.
//! * It never does: let a range be collected of which it does not know how long it is kept.

use std::time::Duration;

use rhumb_actors::ranges::RangeSettings;
use rhumb_actors::ranges::catalog::META;
use rhumb_actors::ranges::messages::{KvOp, KvRefusal, Lifetimes, RETENTION};

use super::Ranges;
use crate::settings::units::duration_text;

/// The longest time that is kept to, which is as good as for ever.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

impl Ranges {
    /// Whether things may be kept for such times.
    pub(super) fn may_keep(&self, lifetimes: &Lifetimes) -> Result<(), KvRefusal> {
        let settings = RangeSettings { max_offset: self.0.parts.max_offset, ..RangeSettings::default() };
        may_be(lifetimes, settings.least_retention()).map_err(KvRefusal::Invalid)
    }

    /// Tells the ranges here how far back it can be read what was, and which times are held.
    pub(super) fn say_retentions(&self) {
        let Ok(host) = self.host() else { return };
        host.retain(META, RETENTION);
        let now = self.0.parts.clock.last();
        for space in self.0.keyspaces.read().values() {
            let retention = space.lifetimes.retention();
            let held: Vec<_> =
                space.held.iter().filter(|held| held.until > now).map(|held| held.at).collect();
            for row in &space.ranges {
                host.hold(row.range, held.clone());
                host.retain(row.range, retention);
            }
        }
    }
}

/// A write of a value that does not say how long it is there, in a keyspace of these times.
pub(super) fn lasts(said: &KvOp, lifetimes: &Lifetimes) -> Option<Duration> {
    said.lasts.or(lifetimes.ttl.filter(|_| said.value.is_some()))
}

/// What is written of a value that is to be gone at once.
pub(super) fn may_last(said: &KvOp) -> Result<(), String> {
    match said.lasts {
        Some(lasts) if lasts.is_zero() || lasts > LONGEST => {
            let (asked, longest) = (duration_text(lasts), duration_text(LONGEST));
            Err(format!("a value that expires after {asked}: expected 1ms to {longest}"))
        }
        _ => Ok(()),
    }
}

fn may_be(lifetimes: &Lifetimes, least: Duration) -> Result<(), String> {
    let Lifetimes { retention, ttl } = *lifetimes;
    if retention.is_some_and(|retention| retention < least || retention > LONGEST) {
        let asked = retention.map(duration_text).unwrap_or_default();
        let (least, longest) = (duration_text(least), duration_text(LONGEST));
        return Err(format!("a retention of {asked}: expected {least} to {longest}"));
    }
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > LONGEST) {
        let (asked, longest) = (ttl.map(duration_text).unwrap_or_default(), duration_text(LONGEST));
        return Err(format!("a TTL of {asked}: expected 1ms to {longest}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_bounds() {
        let least = RangeSettings::default().least_retention();
        let of = |retention: Option<u64>, ttl: Option<u64>| {
            let times = |ms: Option<u64>| ms.map(Duration::from_millis);
            may_be(&Lifetimes { retention: times(retention), ttl: times(ttl) }, least)
        };
        assert_eq!(of(None, None), Ok(()));
        assert_eq!(of(Some(13_500), Some(1)), Ok(()));
        let short = "a retention of 13499ms: expected 13500ms to 36600d";
        assert_eq!(of(Some(13_499), None), Err(short.to_owned()));
        assert!(of(Some(u64::MAX), None).is_err());
        let none = "a TTL of 0s: expected 1ms to 36600d";
        assert_eq!(of(None, Some(0)), Err(none.to_owned()));
        assert!(of(None, Some(u64::MAX)).is_err());
    }

    #[test]
    fn a_value_says_itself_how_long_it_is_there() {
        let [long, short] = [60, 1].map(Duration::from_secs);
        let put = crate::client::kv::put(b"k", b"v");
        let lifetimes = Lifetimes { ttl: Some(long), ..Lifetimes::default() };
        assert_eq!(lasts(&put, &lifetimes), Some(long));
        assert_eq!(lasts(&KvOp { lasts: Some(short), ..put.clone() }, &lifetimes), Some(short));
        assert_eq!(lasts(&KvOp { value: None, ..put.clone() }, &lifetimes), None);
        assert_eq!(lasts(&put, &Lifetimes::default()), None);
    }
}
