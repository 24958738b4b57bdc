//! Keyspaces for the actors of this node: what they ask does not leave it where a replica here can answer.

use std::sync::Weak;
use std::time::Duration;

use rhumb_actors::ranges::messages::{KeyspaceView, KvAnswer, KvRead, KvRefusal, KvWrite, KvWritten};
use rhumb_core::{Fault, FaultKind};

use super::reads::Reader;
use super::{Inner, Ranges, not_now, pools};
use crate::mesh::keyspaces::{Asked, Keyspaces};

/// The ranges of this node, while it runs.
pub(in crate::supervisor) struct ForActors(Weak<Inner>);

impl Ranges {
    /// For the actors of this node.
    pub(in crate::supervisor) fn for_actors(&self) -> ForActors {
        ForActors(std::sync::Arc::downgrade(&self.0))
    }
}

impl ForActors {
    /// Does it where consensus is.
    fn there<T: Send + 'static, W>(
        &self,
        keyspace: &str,
        work: impl FnOnce(Ranges) -> W + Send + 'static,
    ) -> Asked<T>
    where
        W: Future<Output = Result<Result<T, KvRefusal>, Fault>> + Send + 'static,
    {
        let (ranges, may) = (self.0.upgrade().map(Ranges), pools::only_nodes(keyspace, false));
        Box::pin(async move {
            if let Err(refusal) = may {
                return Ok(Err(refusal));
            }
            let Some(ranges) = ranges else { return Err(Fault::not_sent(FaultKind::Draining)) };
            let runtime = ranges.0.parts.runtime.clone();
            runtime.spawn(work(ranges)).await.unwrap_or_else(|_| Err(Fault::unknown(FaultKind::Draining)))
        })
    }
}

impl Keyspaces for ForActors {
    fn list(&self) -> Result<Vec<KeyspaceView>, KvRefusal> {
        let ranges = self.0.upgrade().ok_or_else(|| not_now("the node stops"))?;
        Ranges(ranges).views()
    }

    fn read(&self, message: KvRead, by: Option<String>, within: Duration) -> Asked<KvAnswer> {
        let name = message.keyspace.clone();
        self.there(
            &name,
            move |ranges| async move { ranges.read_for(&Reader::Here(by), message, within).await },
        )
    }

    fn write(&self, message: KvWrite, within: Duration) -> Asked<KvWritten> {
        let name = message.keyspace.clone();
        self.there(&name, move |ranges| async move { ranges.write(message, within).await })
    }
}

#[cfg(test)]
mod tests {
    use rhumb_actors::ranges::messages::Needs;
    use rhumb_core::{DataClass, Delivery};

    use super::*;

    #[tokio::test]
    async fn what_is_a_pools_own_is_neither_read_nor_written_for_an_actor() {
        let (stopped, class) = (ForActors(Weak::new()), DataClass::new("inventory").expect("a class"));
        let within = Duration::from_secs(1);
        let read = |keyspace: &str| KvRead {
            class: class.clone(),
            keyspace: keyspace.to_owned(),
            from: Vec::new(),
            to: None,
            limit: 1,
            needs: Needs::Eventual,
            token: Vec::new(),
            nearest_only: false,
            fallback: false,
            hops: 0,
            as_stored: false,
        };
        let write = |keyspace: &str| {
            let (class, keyspace) = (class.clone(), keyspace.to_owned());
            KvWrite { class, keyspace, ops: Vec::new(), hops: 0 }
        };
        let answer = stopped.read(read("pool/concert"), None, within).await;
        assert!(matches!(answer, Ok(Err(KvRefusal::NotAllowed(_)))), "{answer:?}");
        let answer = stopped.write(write("pool/concert"), within).await;
        assert!(matches!(answer, Ok(Err(KvRefusal::NotAllowed(_)))), "{answer:?}");
        // Of any other the node is asked, which has stopped.
        let faults = [
            stopped.read(read("things"), None, within).await.map(drop),
            stopped.write(write("things"), within).await.map(drop),
        ];
        for fault in faults {
            let fault = fault.expect_err("it has stopped");
            assert_eq!((fault.delivery(), fault.kind), (Delivery::NotSent, FaultKind::Draining));
        }
    }
}
