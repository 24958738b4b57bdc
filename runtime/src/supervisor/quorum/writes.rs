//! One ledger, from when this node begins to write it until it does no more.
//!
//! * It decides: how long is waited before something is tried again.
//! * It never does: decide what is written, or what came of it ([`Tenure`] does); or say that a batch is durable of
//!   which the tenure has not said so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rhumb_actors::escrow::tenure::{Became, Came, Head, Tenure, Want};
use rhumb_actors::escrow::{Book, EscrowHandle, EscrowRegion, Keeps};
use rhumb_actors::storage::Done;
use rhumb_core::{DataClass, Epoch, Gate, NodeId, PoolName, Ticket};
use rhumb_storage::{Batch, CommitError, CommitNumber, Fenced};
use tokio::sync::mpsc;

use super::Quorum;
use super::world::LedgerWorld;
use crate::supervisor::ranges::Unread;

/// Batches of one ledger that may wait for the range: more than asks may be under way in it.
const BATCHES: usize = 32_768;
/// After how long it is tried again what could not be done, or of which nobody knows.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// For how long whoever asks is told that its range takes no more of a ledger, before it is taken up anew.
const REFUSED_FOR: Duration = Duration::from_secs(1);

type Of = (PoolName, NodeId);

/// Takes a ledger's batches to the task that writes them.
struct Writer(mpsc::Sender<(Batch, Done)>);

impl Keeps for Writer {
    fn write(&self, batch: Batch, done: Done) -> Result<(), &'static str> {
        self.0.try_send((batch, done)).map_err(|_| "its range takes no more of the ledger's batches")
    }

    /// Each batch by itself: how many go into one write is the tenure's to say.
    fn window(&self) -> usize {
        BATCHES
    }
}

impl Quorum {
    /// Takes a ledger over, reads its rows, and writes what it changes, until another one does.
    pub(super) async fn writes(self, of: Of, class: DataClass, opening: u64) {
        let mut tenure = Tenure::new(self.0.parts.me.clone(), opening);
        loop {
            let Some(want) = tenure.want() else { return };
            match tenure.came(self.does(&of, &class, want).await) {
                Became::Seated => break,
                Became::Refused(why) => return self.refused(&of, opening, &why).await,
                Became::Same | Became::Durable(_) | Became::Succeeded(_) => {}
            }
        }
        let rows = loop {
            match self.0.parts.ranges.ledger_rows((&of.0, &class), &of.1).await {
                Ok(rows) => break rows,
                Err(Unread::Refused(why)) => return self.refused(&of, opening, &why).await,
                Err(Unread::NotNow(why)) => {
                    tracing::debug!(pool = %of.0, owner = %of.1, why, "its rows could not be read yet")
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        // They were read page by page: whoever took the ledger over meanwhile has written between two of them.
        tenure.offer(Ticket(0), Batch::new());
        while let Some(want) = tenure.want() {
            match tenure.came(self.does(&of, &class, want).await) {
                Became::Durable(_) => break,
                Became::Succeeded(_) => return self.close(&of, Some(opening), "it was taken over at once"),
                Became::Refused(why) => return self.refused(&of, opening, &why).await,
                Became::Same | Became::Seated => {}
            }
        }
        let (founding, settings) = (self.0.parts.founding.clone(), self.0.parts.settings.clone());
        let (count, now) = (rows.len(), self.0.parts.clock.now());
        let book = match Book::in_range(of.1.clone(), founding, settings, rows.into_iter(), now) {
            Ok(book) => book,
            Err(error) => {
                tracing::error!(pool = %of.0, owner = %of.1, %error, "its ledger cannot be taken up: it sells nothing");
                // As long as it stands so nobody is helped by trying.
                return std::future::pending().await;
            }
        };
        let epoch = tenure.epoch().unwrap_or_default();
        tracing::info!(pool = %of.0, owner = %of.1, %epoch, rows = count, "its ledger is written here now");
        let (sender, mut batches) = mpsc::channel(BATCHES);
        let handle = self.starts(book, &of, class.clone(), opening, Writer(sender));
        let ours = {
            let mut ledgers = self.0.ledgers.lock();
            let ledger = ledgers.get_mut(&of).filter(|ledger| ledger.opening == opening);
            ledger.map(|ledger| ledger.handle = Some(handle.clone())).is_some()
        };
        if !ours {
            return handle.stop().await;
        }
        let by = match self.keeps(&of, &class, tenure, &mut batches).await {
            Ok(by) => by,
            Err(why) => return self.refused(&of, opening, &why).await,
        };
        let by = by.map_or("nobody".to_owned(), |head| format!("{} under epoch {}", head.host, head.epoch));
        self.close(&of, Some(opening), &format!("it is written by {by}"));
    }

    /// Its range will not take what a ledger writes, or give what it reads, as often as it is asked: whoever waits for it, or asks it in the next
    /// moment, is told so. Then it is taken up anew, without what was not taken.
    async fn refused(&self, of: &Of, opening: u64, why: &str) {
        tracing::error!(pool = %of.0, owner = %of.1, why, "its range does not serve its ledger");
        let handle = {
            let mut ledgers = self.0.ledgers.lock();
            let ledger = ledgers.get_mut(of).filter(|ledger| ledger.opening == opening);
            let Some(ledger) = ledger else { return };
            ledger.refused.set(why.to_owned()).ok();
            ledger.handle.take()
        };
        if let Some(handle) = handle {
            handle.stop().await;
        }
        tokio::time::sleep(REFUSED_FOR).await;
        self.close(of, Some(opening), why);
    }

    fn starts(&self, book: Book, of: &Of, class: DataClass, opening: u64, writer: Writer) -> EscrowHandle {
        let world = LedgerWorld::new(self.clone(), of.clone(), class, opening);
        let (region, counts) = (self.0.parts.me.region.clone(), EscrowRegion::backlog());
        let (backlog, gate) = (Arc::clone(&counts), Arc::new(self.0.parts.policy.clone()) as Arc<dyn Gate>);
        let address = <EscrowRegion as actix::Actor>::start_in_arbiter(&self.0.parts.arbiter, move |_| {
            EscrowRegion::new(book, region, writer, counts, gate, Arc::new(world))
        });
        EscrowHandle::new(address, backlog)
    }

    /// Writes batches until another one writes the ledger: it is told who, if that is known. Or until nobody has any more, or its
    /// range does not take one: why.
    async fn keeps(
        &self,
        of: &Of,
        class: &DataClass,
        mut tenure: Tenure,
        batches: &mut mpsc::Receiver<(Batch, Done)>,
    ) -> Result<Option<Head>, String> {
        let (mut waiting, mut last) = (VecDeque::<(Ticket, Done)>::new(), Ticket(0));
        let settle = |waiting: &mut VecDeque<(Ticket, Done)>, upto: Ticket| {
            while let Some((ticket, done)) = waiting.pop_front_if(|(ticket, _)| *ticket <= upto) {
                done(Ok(CommitNumber(ticket.0)));
            }
        };
        loop {
            let wants = loop {
                while let Ok((batch, done)) = batches.try_recv() {
                    last = Ticket(last.0 + 1);
                    waiting.push_back((last, done));
                    if let Some(durable) = tenure.offer(last, batch) {
                        settle(&mut waiting, durable);
                    }
                }
                match tenure.want() {
                    Some(want) => break want,
                    None => {
                        let Some((batch, done)) = batches.recv().await else { return Ok(None) };
                        last = Ticket(last.0 + 1);
                        waiting.push_back((last, done));
                        if let Some(durable) = tenure.offer(last, batch) {
                            settle(&mut waiting, durable);
                        }
                    }
                }
            };
            match tenure.came(self.does(of, class, wants).await) {
                Became::Same | Became::Seated => {}
                Became::Durable(upto) => settle(&mut waiting, upto),
                Became::Refused(why) => return Err(why),
                Became::Succeeded(by) => {
                    let known = by.as_ref().map_or(Epoch::default(), |head| head.epoch);
                    let key = rhumb_actors::escrow::tenure::key_of(&of.1, b"");
                    for (_, done) in waiting {
                        let fenced = Fenced { key: key.clone(), given: Epoch::default(), known };
                        done(Err(CommitError::Fenced(fenced)));
                    }
                    return Ok(by);
                }
            }
        }
    }

    /// Does what a tenure wants. What did not come to be, as far as anybody knows, is looked at in a moment.
    async fn does(&self, of: &Of, class: &DataClass, want: Want) -> Came {
        match self.0.parts.ranges.ledger((&of.0, class), &of.1, want).await {
            Ok(came) => came,
            Err(why) => {
                tracing::debug!(pool = %of.0, owner = %of.1, why, "a ledger in its range: it is looked at again");
                tokio::time::sleep(AGAIN_AFTER).await;
                Came::Unsettled
            }
        }
    }
}
