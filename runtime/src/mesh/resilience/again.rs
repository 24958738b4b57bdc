//! Makes a call again that failed.
//!
//! * It decides nothing: [`rhumb_transport::resilience::retry`] does.
//! * It never does: extend the deadline: each attempt carries what is left of it.

use std::sync::atomic::Ordering;

use rhumb_core::Fault;
use rhumb_transport::resilience::retry::Retries;
use tokio::time::Instant;

use super::Resilience;

/// The attempts of a call whose first has failed.
pub(crate) struct Attempts<'a> {
    resilience: &'a Resilience,
    retries: Retries,
    until: Instant,
}

impl<'a> Attempts<'a> {
    /// Those of a call that may or may not be made again when it may have run, and whose caller waits until then.
    pub(crate) fn new(resilience: &'a Resilience, repeats: bool, until: Instant) -> Self {
        Self { resilience, retries: resilience.retries(repeats), until }
    }

    /// One has failed: waits until the next may be made.
    ///
    /// # Errors
    /// None may. The fault of all of them.
    pub(crate) async fn failed(&mut self, fault: Fault) -> Result<(), Fault> {
        let wait = self.resilience.wait(&mut self.retries, fault, self.until)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The last was answered.
    pub(crate) fn answered(self) {
        self.resilience.counts.answered.fetch_add(1, Ordering::Relaxed);
    }
}
