//! Following a node's log: its entries as they become durable, one page after the other, also over its restarts.
//!
//! * It decides: when a node is asked again, when records are opened, and whether the log is still the one that was
//!   followed.
//! * It never does: give an entry that is not durable, or keep a page. What was erased meanwhile would still be in it.
//! * Invariant: each page is asked for together with the entry before it, which must be the one that was given last. A log
//!   that was rewritten or went back is an error, and not followed further.

use std::time::Duration;

use rhumb_actors::audit::messages::{AuditRefusal, EntryPage, EntryView, READ_AT_ONCE, ReadEntries};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Fault, FaultKind};
use rhumb_verify::hash::{Hash, leaf};
use tokio::time::{Instant, sleep};

use super::super::output::{Failure, Output};
use super::{RemoteLog, decoded};

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a node with nothing new is left alone: between half of it and all.
const POLL: Duration = Duration::from_millis(500);
/// The same for a node that does not answer: doubled each time, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long readings of others wait for something else to be opened with.
const READS_WAIT: Duration = Duration::from_secs(30);
/// The action of a reading.
const READ: &str = "audit.read";

/// How far a log was followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the next entry.
    pub(super) next: u64,
    /// The leaf of the one before it, where it was seen.
    pub(super) last: Option<Hash>,
}

impl Place {
    /// The place behind these entries.
    pub(super) fn after(self, views: &[EntryView]) -> Self {
        let behind = |last: &EntryView| Self { next: last.index + 1, last: Some(leaf(&last.entry)) };
        views.last().map_or(self, behind)
    }
}

/// Follows a log.
pub(super) struct Follower<'a> {
    log: &'a RemoteLog,
    output: &'a Output,
    place: Place,
    reads: Option<Reads>,
    jitter: Rng,
    silent: Silence,
}

impl<'a> Follower<'a> {
    /// From this place on; with records, where they can be opened.
    pub(super) fn new(log: &'a RemoteLog, output: &'a Output, place: Place, records: bool) -> Self {
        let reads = records.then(Reads::default);
        let jitter = Seed::from_entropy().rng();
        Self { log, output, place, reads, jitter, silent: Silence::default() }
    }

    /// How far it has come.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// From here on.
    pub(super) fn go_to(&mut self, place: Place) {
        self.place = place;
    }

    /// Waits for the next entries and gives them, at least one. They are given again until [`Follower::go_to`] says that
    /// they are dealt with; so it may be dropped at any time.
    ///
    /// # Errors
    /// The log is not the one that was followed, or who asks may not read it.
    pub(super) async fn next(&mut self) -> Result<Vec<EntryView>, Failure> {
        loop {
            match self.page().await {
                Ok(views) => {
                    if self.silent.ended() {
                        let node = &self.log.node;
                        self.output.note(format!("{node} answers again; on from entry {}", self.place.next));
                    }
                    if !views.is_empty() {
                        return Ok(views);
                    }
                    sleep(self.jittered(POLL)).await;
                }
                Err(failure) if passes(&failure) => {
                    let (first, wait) = self.silent.again();
                    if first {
                        let (node, why) = (&self.log.node, failure.message());
                        self.output.note(format!("{node} does not answer ({why}); it is asked again"));
                    }
                    sleep(self.jittered(wait)).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn jittered(&mut self, longest: Duration) -> Duration {
        let half = longest.as_millis() as u64 / 2;
        Duration::from_millis(half + self.jitter.u64() % half.max(1))
    }

    async fn page(&mut self) -> Result<Vec<EntryView>, Failure> {
        let Place { next, last } = self.place;
        let before = u64::from(last.is_some());
        let page = match self.read(next - before, READ_AT_ONCE, false).await {
            // The entry before is gone, and none that is wanted: there is nothing left to compare with.
            Err(Failure::NotAudited(AuditRefusal::Pruned { mark, .. })) if before == 1 && mark == next => {
                self.place.last = None;
                self.read(next, READ_AT_ONCE, false).await?
            }
            page => page?,
        };
        let views = continued(page, self.place).map_err(|why| {
            Failure::local(format!("the log of {}: {why}; nothing more of it is passed on", self.log.node))
        })?;
        let Some(reads) = &mut self.reads else { return Ok(views) };
        let actions: Vec<String> =
            views.iter().map(|view| decoded(view).map(|entry| entry.action)).collect::<Result<_, _>>()?;
        match reads.judge(Instant::now(), actions.iter().map(String::as_str)) {
            Judged::Pass => Ok(views),
            Judged::Wait => Ok(Vec::new()),
            Judged::Open => {
                let opened = self.read(next, views.len() as u64, true).await?.page;
                // As much as goes into one answer; the rest is the next page.
                let same = opened.iter().zip(&views).all(|(opened, view)| opened.entry == view.entry);
                if !same {
                    return Err(Failure::local(format!(
                        "the log of {} gave other entries when asked again",
                        self.log.node
                    )));
                }
                opened.iter().try_for_each(|view| decoded(view).map(drop))?;
                Ok(opened)
            }
        }
    }

    async fn read(&self, from: u64, limit: u64, records: bool) -> Result<EntryPage, Failure> {
        let page = ReadEntries { from, limit, records, subject: String::new() };
        self.log.ask_once(&page, ANSWER_WITHIN).await
    }
}

/// Whether a failure may be gone when the node is asked again.
fn passes(failure: &Failure) -> bool {
    let never = |fault: &Fault| {
        let kind = &fault.kind;
        matches!(
            kind,
            FaultKind::Unauthorized(_)
                | FaultKind::UnknownMessage(_)
                | FaultKind::Decode { .. }
                | FaultKind::Gate(_)
        )
    };
    match failure {
        Failure::Fault(fault) => !never(fault),
        Failure::NotAudited(AuditRefusal::Overloaded { .. }) => true,
        _ => false,
    }
}

/// The entries of a page behind a place, if the log still has the entry before it.
fn continued(page: EntryPage, place: Place) -> Result<Vec<EntryView>, String> {
    let EntryPage { entries, page: mut views, .. } = page;
    let Some(last) = place.last else { return Ok(views) };
    if entries < place.next {
        return Err(format!(
            "it has {entries} entries, and {} were seen: its disk is an older copy, or was changed",
            place.next
        ));
    }
    let before = place.next - 1;
    match views.first() {
        Some(view) if view.index == before && leaf(&view.entry) == last => {
            views.remove(0);
            Ok(views)
        }
        _ => Err(format!("its entry {before} is another one than was seen: its history was rewritten")),
    }
}

/// Whether a node answers, and when it is asked again.
#[derive(Debug, Default)]
struct Silence {
    tried: u32,
}

impl Silence {
    /// It did not answer: whether that is new, and how long to wait.
    fn again(&mut self) -> (bool, Duration) {
        let wait = AGAIN.0.saturating_mul(1 << self.tried.min(8)).min(AGAIN.1);
        self.tried = self.tried.saturating_add(1);
        (self.tried == 1, wait)
    }

    /// It answers: whether it did not before.
    fn ended(&mut self) -> bool {
        std::mem::take(&mut self.tried) > 0
    }
}

/// When records are opened. That they were is an entry itself: a follower that opened whatever is new would read of its own
/// reading for ever.
#[derive(Debug, Default)]
struct Reads {
    /// Entries that its own readings made and that have not come by.
    own: u64,
    /// Since when readings of others wait.
    since: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// Open the records.
    Open,
    /// They are its own readings: pass them on as they are.
    Pass,
    /// They are readings of others, which may be followed by something else soon.
    Wait,
}

impl Reads {
    fn judge<'a>(&mut self, now: Instant, actions: impl Iterator<Item = &'a str>) -> Judged {
        let (mut all, mut reads) = (0, 0);
        for action in actions {
            all += 1;
            reads += u64::from(action == READ);
        }
        if all == 0 {
            return Judged::Wait;
        }
        if reads == all && reads <= self.own {
            self.own -= reads;
            return Judged::Pass;
        }
        if reads == all && now < *self.since.get_or_insert(now) + READS_WAIT {
            return Judged::Wait;
        }
        self.since = None;
        self.own = self.own.saturating_sub(reads) + 1;
        Judged::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "pool.create";

    #[test]
    fn a_follower_does_not_read_of_its_own_reading_for_ever() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut judge = |seconds, actions: &[&str]| {
            reads.judge(now + Duration::from_secs(seconds), actions.iter().copied())
        };
        assert_eq!(judge(0, &[OTHER, READ]), Judged::Open);
        assert_eq!(judge(1, &[READ]), Judged::Pass, "its own");
        assert_eq!(judge(2, &[]), Judged::Wait);
        assert_eq!(judge(3, &[READ]), Judged::Wait, "another one's");
        assert_eq!(judge(4, &[READ, OTHER]), Judged::Open, "with something else it is opened at once");
        assert_eq!(judge(5, &[READ, READ]), Judged::Wait, "its own and another one's");
        assert_eq!(judge(34, &[READ, READ]), Judged::Wait);
        assert_eq!(judge(35, &[READ, READ]), Judged::Open, "in time also alone");
        assert_eq!(judge(36, &[READ]), Judged::Pass);
    }

    fn page(entries: u64, from: u64, texts: &[&str]) -> EntryPage {
        let view = |(index, text): (u64, &&str)| EntryView {
            index,
            entry: text.as_bytes().to_vec(),
            ..EntryView::default()
        };
        EntryPage { entries, next: 0, page: (from..).zip(texts).map(view).collect() }
    }

    #[test]
    fn a_log_that_went_back_or_was_rewritten_is_not_followed() {
        let start = Place { next: 7, last: None };
        let views = continued(page(9, 7, &["g", "h"]), start).expect("nothing was seen before");
        let place = start.after(&views);
        assert_eq!(place, Place { next: 9, last: Some(leaf(b"h")) });
        assert_eq!(place.after(&[]), place);
        let more = continued(page(10, 8, &["h", "i"]), place).expect("it goes on");
        assert_eq!(more.iter().map(|view| view.index).collect::<Vec<_>>(), [9]);
        assert_eq!(continued(page(9, 8, &["h"]), place), Ok(Vec::new()));
        let why = continued(page(8, 8, &[]), place).expect_err("it lost entries");
        assert!(why.contains("has 8 entries, and 9 were seen"), "{why}");
        let why = continued(page(10, 8, &["x", "i"]), place).expect_err("it has another one");
        assert!(why.contains("entry 8 is another one"), "{why}");
        assert_eq!(continued(page(0, 7, &[]), start), Ok(Vec::new()), "what is not there yet is waited for");
    }

    #[test]
    fn a_silent_node_is_told_once_and_asked_less_and_less_often() {
        let mut silence = Silence::default();
        let told: Vec<_> = (0..7).map(|_| silence.again()).collect();
        let waits: Vec<_> = told.iter().map(|(_, wait)| wait.as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        assert_eq!(told.iter().filter(|(first, _)| *first).count(), 1);
        assert!(silence.ended() && !silence.ended());
    }
}
