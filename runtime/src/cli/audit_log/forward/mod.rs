//! `rhumb audit forward`: a log's entries to a syslog server, as they become durable.
//!
//! * It decides (`Sent`): from where it goes on after a connection has ended.
//! * It never does: move the mark beyond what a server's kernel has acknowledged, or keep entries while there is no server:
//!   they are read when they can be sent, so that nothing of a subject that was erased meanwhile is.
//! * Invariant: the mark is behind everything that was acknowledged, and never beyond; what syslog cannot say, whether a
//!   server has kept a message, nobody here claims to know (`docs/audit.md`).

mod mark;
mod syslog;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rhumb_actors::audit::messages::EntryView;
use rhumb_verify::Key;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use self::mark::Mark;
use self::syslog::Source;
use self::wire::{Address, Server, Wire};
use super::super::args::whole;
use super::super::output::{Done, Failure, Output};
use super::Whose;
use super::follow::{Follower, Place};

/// What was sent within this time goes again when a connection is reset: the server's kernel had it, the server perhaps not.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a batch that is on its way is waited for when it is asked to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait between attempts to connect, doubled each time, up to the second.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Pass entries on to a syslog server, as they become durable.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit forward --syslog tcp://127.0.0.1:601 --state siem.state\n  rhumb audit forward --syslog tls://siem.example:6514 --ca siem-ca.pem --state siem.state --records\n\nMessages are those of RFC 5424, each behind its length (RFC 6587). It goes on until Ctrl-C (130) or SIGTERM (0), over restarts of the node and of the server; started again with the same --state it goes on where it was. Syslog has no acknowledgements: docs/audit.md says what can be lost and what comes twice.\n\nThe outcome and the trace stand in records, so these are opened, which an entry `audit.read` tells, and only an operator of the log's own region may do; what they say of somebody is sent only with --records. With --entries-only nothing is opened."
)]
pub struct Forward {
    /// The server: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    syslog: Address,
    /// The authorities (PEM) of which one must have signed the certificate of a tls:// server.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where it is written how far it has come.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Where there is no such file yet: from this number on.
    #[arg(long, value_name = "INDEX", value_parser = whole::<u64>)]
    from: Option<u64>,
    /// Also send what the records say: who, to what, from where.
    #[arg(long, conflicts_with = "entries_only")]
    records: bool,
    /// Send only what entries say, which is no secret, and open no record.
    #[arg(long)]
    entries_only: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct Forwarded {
    node: String,
    syslog: String,
    /// Messages that were sent, those that were sent again among them.
    sent: u64,
    /// The number of the first entry that was not sent.
    next: u64,
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, syslog, sent, next } = self;
        write!(
            f,
            "{sent} messages of the log of {node} were sent to {syslog}; on from entry {next} next time"
        )
    }
}

impl Forward {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let server = Server::new(&self.syslog, self.ca.as_deref())?;
        let log = self.whose.log().await?;
        let view = log.view().await?;
        let origin = view.key.parse::<Key>().map_err(Failure::local)?.name;
        let (mark, place) = Mark::open(&self.state, &origin)?;
        let place = match (place, self.from) {
            (Some(Place { next, .. }), Some(_)) => {
                let state = self.state.display();
                return Err(Failure::Usage(format!("--from is for a first time; {state} says entry {next}")));
            }
            (Some(place), None) => place,
            // Of a pruned log from its first entry.
            (None, from) => {
                let pruned = log.mark().await?.mark;
                Place { next: from.unwrap_or(pruned), last: None }
            }
        };
        let mut stop = Stop::new()?;
        output.note(format!("the log of {} goes to {} from entry {} on", log.node, self.syslog, place.next));
        let mut passing = Passing {
            source: Source::new(&log.node, &origin),
            follower: Follower::new(&log, output, place, !self.entries_only),
            texts: self.records,
            mark,
            sent: Sent::default(),
            count: 0,
        };
        let ended = passing.run(&server, &self.syslog, &mut stop, output).await;
        let (sent, next) = (passing.count, passing.follower.place().next);
        drop(passing);
        log.close().await;
        let done = ended?;
        let answer = Forwarded { node: log.node.to_string(), syslog: self.syslog.to_string(), sent, next };
        output.answer(&answer, &answer);
        Ok(done)
    }
}

/// How it is asked to stop.
struct Stop {
    int: Signal,
    term: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::local);
        Ok(Self { int: listen(SignalKind::interrupt())?, term: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) -> Done {
        tokio::select! {
            _ = self.int.recv() => Done::Stopped,
            _ = self.term.recv() => Done::Well,
        }
    }
}

/// Why nothing more goes over a connection.
enum Broken {
    /// The server has ended it in order, and has read all that its kernel had.
    Ended,
    /// It was reset, or was silent for too long.
    Reset(io::Error),
    /// There is nothing more to be passed on, to whichever server.
    For(Failure),
    /// Somebody asked for a stop.
    Stopped(Done),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::For(failure)
    }
}

/// A log on its way to a server.
struct Passing<'a> {
    source: Source,
    follower: Follower<'a>,
    texts: bool,
    mark: Mark,
    sent: Sent,
    count: u64,
}

impl Passing<'_> {
    /// Passes on until somebody asks for a stop, or that makes no sense any more.
    async fn run(
        &mut self,
        server: &Server,
        address: &Address,
        stop: &mut Stop,
        output: &Output,
    ) -> Result<Done, Failure> {
        let (mut wait, mut silent) = (WAIT.0, false);
        loop {
            let connected = tokio::select! {
                connected = server.connect() => connected,
                done = stop.asked() => return Ok(done),
            };
            match connected {
                Ok(mut wire) => {
                    if silent {
                        let next = self.follower.place().next;
                        output.note(format!("{address} is there again; on from entry {next}"));
                    }
                    silent = false;
                    let before = self.count;
                    let broken = self.over(&mut wire, stop).await;
                    // A server that takes nothing is no better than one that is not there.
                    if self.count > before {
                        wait = WAIT.0;
                    }
                    wire.close().await;
                    let why = match broken {
                        Broken::For(failure) => return Err(failure),
                        Broken::Stopped(done) => return Ok(done),
                        Broken::Ended => {
                            self.sent = Sent::default();
                            "it ended the connection".to_owned()
                        }
                        Broken::Reset(error) => format!("{error}; {} entries go again", self.back()?),
                    };
                    output.note(format!("{address}: {why}"));
                }
                Err(error) => {
                    if !silent {
                        output.note(format!("{address} is not reached ({error}); it is tried again"));
                    }
                    silent = true;
                }
            }
            tokio::select! {
                () = sleep(wait) => {}
                done = stop.asked() => return Ok(done),
            }
            wait = (wait * 2).min(WAIT.1);
        }
    }

    /// Passes on over a connection until it is broken.
    async fn over(&mut self, wire: &mut Wire, stop: &mut Stop) -> Broken {
        loop {
            let views = tokio::select! {
                // An end that is known already comes before what is new.
                biased;
                ended = wire.ended() => return ended.map_or_else(Broken::Reset, |()| Broken::Ended),
                done = stop.asked() => return Broken::Stopped(done),
                views = self.follower.next() => views,
            };
            // What is on its way is not left there: it would come twice.
            let mut told = None;
            let asked = async {
                told = Some(stop.asked().await);
                sleep(STOP_WITHIN).await;
            };
            let passed = tokio::select! {
                passed = self.pass(wire, views) => passed,
                () = asked => Ok(()),
            };
            if let Err(broken) = passed {
                return broken;
            }
            // Also when the batch ended well after it was said.
            if let Some(done) = told {
                return Broken::Stopped(done);
            }
        }
    }

    async fn pass(&mut self, wire: &mut Wire, views: Result<Vec<EntryView>, Failure>) -> Result<(), Broken> {
        let views = views?;
        let frames: Vec<_> =
            views.iter().map(|view| self.source.frame(view, self.texts)).collect::<Result<_, _>>()?;
        let before = self.follower.place();
        self.sent.begins(Instant::now(), before);
        wire.settled(&frames.concat()).await.map_err(Broken::Reset)?;
        self.sent.settled(Instant::now());
        self.follower.go_to(before.after(&views));
        self.count += views.len() as u64;
        self.mark.write(self.follower.place())?;
        Ok(())
    }

    /// Goes back to what a server that reset its connection may not have read: how many entries that is.
    fn back(&mut self) -> Result<u64, Failure> {
        let from = self.follower.place();
        let to = self.sent.back(Instant::now()).unwrap_or(from);
        self.follower.go_to(to);
        // Before anything else is sent: who is started again now must not go on behind it.
        self.mark.write(to)?;
        Ok(from.next - to.next)
    }
}

/// What was sent lately over connections that were not ended in order.
#[derive(Debug, Default)]
struct Sent {
    /// Of each batch: when it was taken (was begun, where it is under way), and from which place it goes.
    lately: VecDeque<(Instant, Place)>,
}

impl Sent {
    /// A batch is about to be sent.
    fn begins(&mut self, now: Instant, from: Place) {
        while self.lately.front().is_some_and(|(at, _)| *at + AGAIN < now) {
            self.lately.pop_front();
        }
        self.lately.push_back((now, from));
    }

    /// The last batch was taken: what is unread of it may be for as long from now on.
    fn settled(&mut self, now: Instant) {
        if let Some((at, _)) = self.lately.back_mut() {
            *at = now;
        }
    }

    /// From where it goes again.
    fn back(&mut self, now: Instant) -> Option<Place> {
        let late = |(at, _): &&(Instant, Place)| *at + AGAIN >= now;
        let to = self.lately.iter().find(late).or(self.lately.back()).map(|(_, place)| *place);
        self.lately.clear();
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_reset_what_was_sent_lately_goes_again_once() {
        let (mut sent, begin) = (Sent::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let place = |next| Place { next, last: None };
        assert_eq!(sent.back(at(0)), None);
        // A batch that was taken slowly may be unread from when it was taken.
        sent.begins(at(0), place(0));
        sent.settled(at(40));
        sent.begins(at(40), place(256));
        assert_eq!(sent.back(at(42)), Some(place(0)));
        for (seconds, next) in [(0, 0), (10, 5), (29, 9), (35, 12)] {
            sent.begins(at(seconds), place(next));
        }
        assert_eq!(sent.back(at(40)), Some(place(5)));
        assert_eq!(sent.back(at(40)), None, "it is on its way again");
        sent.begins(at(50), place(5));
        assert_eq!(sent.back(at(200)), Some(place(5)), "the last batch may never have been acknowledged");
    }
}
