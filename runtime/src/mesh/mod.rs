//! Calling actors of other nodes by message type: encode, send, decode.
//!
//! * It decides: which class a message travels under, when the caller does not say.
//! * It never does: retry, or let a call wait without a deadline.
//! * Invariant: every call ends with the reply or a typed fault.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rhumb_actors::remote::Remote;
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use rhumb_transport::{Headers, Request, Transport, decode, encode};
use serde::Serialize;

use crate::clock::NodeClock;

pub mod registry;

/// The other nodes, as actors here see them. Cloneable; all clones are one mesh.
#[derive(Clone)]
pub struct Mesh {
    transport: Arc<OnceLock<Transport>>,
    clock: NodeClock,
}

impl Mesh {
    /// A mesh whose transport is not bound yet: until then every call is `Unreachable`.
    #[must_use]
    pub fn new(clock: NodeClock) -> Self {
        Self { transport: Arc::default(), clock }
    }

    /// The transport is bound.
    pub fn bound(&self, transport: Transport) {
        assert!(self.transport.set(transport).is_ok(), "a mesh is bound once");
    }

    /// The transport, once it is bound.
    #[must_use]
    pub fn transport(&self) -> Option<&Transport> {
        self.transport.get()
    }

    /// Asks the actor that serves `M` on another node. Gives the reply and the class of the data in it.
    ///
    /// # Errors
    /// A typed fault that says whether the handler may have run.
    pub async fn ask<M: Remote>(
        &self,
        to: &NodeId,
        message: &M,
        class: DataClass,
        within: Duration,
    ) -> Result<(M::Reply, DataClass), Fault> {
        let request = Request::ask(M::NAME, class, self.encoded(M::NAME, message)?, self.headers(within));
        let reply = self.ready(to)?.ask(to, lane_of(M::NAME), request).await?;
        // A peer whose clock is too far ahead is not believed; its answer is still an answer.
        self.clock.merge(reply.hybrid).ok();
        Ok((decoded(M::NAME, &reply.body)?, reply.class))
    }

    /// Tells the actor that serves `name` on another node; nobody waits.
    ///
    /// # Errors
    /// A typed fault: it was not sent.
    pub fn tell<M: Serialize>(
        &self,
        to: &NodeId,
        name: &'static str,
        message: &M,
        class: DataClass,
    ) -> Result<(), Fault> {
        let body = self.encoded(name, message)?;
        let request = Request::tell(name, class, body, self.headers(Duration::from_secs(5)));
        self.ready(to)?.tell(to, lane_of(name), request)
    }

    fn headers(&self, within: Duration) -> Headers {
        Headers { hybrid: self.clock.now().hybrid, ..Headers::within(within) }
    }

    fn encoded<M: Serialize>(&self, name: &str, message: &M) -> Result<bytes::Bytes, Fault> {
        encode(message)
            .map_err(|e| Fault::not_sent(FaultKind::Decode { name: name.to_owned(), reason: e.to_string() }))
    }

    fn ready(&self, to: &NodeId) -> Result<&Transport, Fault> {
        let unbound =
            || Fault::not_sent(FaultKind::Unreachable(format!("{to}: this node is still starting")));
        self.transport.get().ok_or_else(unbound)
    }
}

/// Decodes a reply. The handler has run, whatever its bytes say.
fn decoded<T: serde::de::DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, Fault> {
    decode(body).map_err(|e| {
        Fault::ran(FaultKind::Decode { name: format!("reply of {name}"), reason: e.to_string() })
    })
}

/// The sender's half of a pair: messages of one name keep their order.
fn lane_of(name: &str) -> u64 {
    registry::fnv(name.bytes())
}
