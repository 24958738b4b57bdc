//! Reads that must be in the audit log: answers under a class whose rule says so (`audit_reads`).
//!
//! * It decides: which answers that leave this node are told of before they go, and what is told of them.
//! * It never does: let such an answer go whose entry is not durable, or tell of what an actor is called.
//! * What one actor of a node asks another of the same node is no read: nothing leaves the node.

use std::sync::Arc;

use rhumb_actors::audit::AuditHandle;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_core::{Fault, FaultKind};
use rhumb_transport::{Answer, Peer, Reply, Request, TraceContext};
use tokio::runtime::Handle;

use super::Mesh;
use crate::host::id::Target;

/// Under which action a read stands in the log.
const ACTION: &str = "data.read";
/// Reads of keyspaces are told of by the ranges, which know of which keys they were; writes, and what nodes that may hold the
/// class ask each other to keep their replicas and keys the same, are no reads.
const NO_READS: [&str; 7] = [
    "kv.Read",
    "kv.Write",
    "range.Consent",
    "subject.Keep",
    "subject.Hand",
    "subject.Which",
    "subject.Erase",
];

impl Mesh {
    /// An answer to a peer that tells of itself first, where reads of its class are to be told of.
    pub(super) fn told_of_first(
        &self,
        from: &Arc<Peer>,
        request: &Request,
        answer: Answer,
        runtime: &Handle,
    ) -> Answer {
        let audited = self.policy().is_some_and(|policy| policy.audits_any_reads());
        if !audited || !answer.is_wanted() || NO_READS.contains(&&*request.name) {
            return answer;
        }
        let target = request.headers.target.as_deref().and_then(Target::parse).map(|target| target.shown());
        let read = Read {
            mesh: self.clone(),
            from: Arc::clone(from),
            message: request.name.to_string(),
            resource: target.unwrap_or_default(),
            trace: request.headers.trace.filter(TraceContext::is_sampled),
        };
        let runtime = runtime.clone();
        answer.through(move |reply, onward| {
            let marked = read.mesh.policy().is_none_or(|policy| policy.audits_reads(&reply.class));
            if marked {
                runtime.spawn(read.tell(reply, onward));
            } else {
                onward.reply(reply);
            }
        })
    }
}

/// What somebody has asked, who may get an answer that is told of.
struct Read {
    mesh: Mesh,
    from: Arc<Peer>,
    message: String,
    resource: String,
    trace: Option<TraceContext>,
}

impl Read {
    /// Tells of an answer, and lets it go once that is durable.
    async fn tell(self, reply: Reply, onward: Answer) {
        match self.append(self.mesh.audit(), &reply).await {
            Ok(()) => onward.reply(reply),
            Err(why) => onward.fault(Fault::ran(FaultKind::Storage(format!(
                "a read of class {} is not shown without its entry in the audit log: {why}",
                reply.class
            )))),
        }
    }

    async fn append(&self, log: Option<&AuditHandle>, reply: &Reply) -> Result<(), String> {
        let log = log.ok_or("this node has none")?;
        let reader = self.from.principal.to_string();
        let mut record = Record::told(ACTION, reader.clone(), Outcome::Done)
            .on(self.resource.clone())
            .with("class", reply.class.as_str())
            .with("message", self.message.clone());
        record.address = self.from.address.to_string();
        record.trace = self.trace.map(|trace| format!("{:032x}", trace.trace_id)).unwrap_or_default();
        log.append(record, Some(&reader)).await.map(drop).map_err(|why| why.to_string())
    }
}
