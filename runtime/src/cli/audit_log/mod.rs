//! `rhumb audit`: read, prove, verify, check and erase in a node's audit log.
//!
//! * It decides: what is asked of which node, and how answers look.
//! * It never does: believe a node where it verifies. `verify` opens no connection.

pub mod certify;
pub mod export;
mod follow;
pub mod forward;
pub mod prove;
pub mod read;
mod sealed;
pub mod tend;
pub mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::audit::messages::{
    AuditRefusal, AuditView, EntryView, Mark, ReadEntries, ShowAudit, ShowMark,
};
use rhumb_actors::remote::Remote;
use rhumb_core::{FaultKind, NodeId};
use rhumb_verify::record::Entry;
use serde::Serialize;
use serde_json::Value;

use super::connect::{Connect, nodes_from};
use super::output::{Done, Failure, Output, rfc3339};
use crate::client::{Ask, MeshClient, ask_until_known};

/// What is shown instead of a record whose body is not what was sealed.
const CHANGED: &str = "(changed on the disk: `rhumb audit fsck` names what)";
/// How long a question may take.
const WITHIN: Duration = Duration::from_secs(15);

/// Read, prove, verify, check and erase in the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the last entries.
    Tail(read::Tail),
    /// Show entries by what they are.
    Query(read::Query),
    /// Show how a log stands: its key, its last published checkpoint, and how far it is cosigned.
    Checkpoint(read::Checkpoint),
    /// Prove that entries are in the log, or that it only grew.
    Prove(prove::Prove),
    /// Write a log, or a part of it, to files.
    Export(export::Export),
    /// Pass entries on to a syslog server, as they become durable.
    Forward(forward::Forward),
    /// Verify a proof or an exported log, offline, by the keys of a policy file.
    Verify(verify::Verify),
    /// Hash everything that a log has on disk again, open every body that can be opened, and compare.
    Fsck(tend::Fsck),
    /// Have a node of each region sign one statement: a quorum certificate.
    Certify(certify::Certify),
    /// Verify a quorum certificate, offline, by the keys of a file.
    Certificate(certify::VerifyCertificate),
    /// Have a node believe another key of a peer's log.
    ReplaceKey(tend::ReplaceKey),
    /// Erase a subject in one node's log: destroy the key that its records are sealed under.
    EraseSubject(tend::EraseSubject),
}

impl AuditCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Tail(tail) => tail.run(output).await,
            Self::Query(query) => query.run(output).await,
            Self::Checkpoint(checkpoint) => checkpoint.run(output).await,
            Self::Prove(prove) => prove.run(output).await,
            Self::Export(export) => export.run(output).await,
            Self::Forward(forward) => forward.run(output).await,
            Self::Verify(verify) => verify.run(output),
            Self::Fsck(fsck) => fsck.run(output).await,
            Self::Certify(certify) => certify.run(output).await,
            Self::Certificate(certificate) => certificate.run(output),
            Self::ReplaceKey(replace) => replace.run(output).await,
            Self::EraseSubject(erase) => erase.run(output).await,
        }
    }
}

/// Whose log, and who asks.
#[derive(Debug, Args)]
struct Whose {
    /// The node whose log it is; unless given, the first of the region that the operator stands in.
    #[arg(long, value_name = "REGION/NODE")]
    node: Option<NodeId>,
    #[command(flatten)]
    connect: Connect,
}

impl Whose {
    async fn log(&self) -> Result<RemoteLog, Failure> {
        let client = self.connect.operator().await?;
        let known = nodes_from(client.directory(), |node| node.region == *client.region());
        let node = match &self.node {
            Some(node) if !client.directory().knows(node) => {
                return Err(Failure::Usage(format!(
                    "node {node} is not among those that this command knows"
                )));
            }
            Some(node) => node.clone(),
            None => known.first().cloned().ok_or_else(|| Failure::local("no node is known"))?,
        };
        Ok(RemoteLog { client, node })
    }
}

/// A node's log, over the mesh.
struct RemoteLog {
    client: MeshClient,
    node: NodeId,
}

impl RemoteLog {
    async fn ask<M, T>(&self, message: &M) -> Result<T, Failure>
    where
        M: Remote<Reply = Result<T, AuditRefusal>> + Sync,
    {
        let within = WITHIN.max(M::DEADLINE);
        Ok(ask_until_known(&self.client, &self.node, message, within).await??)
    }

    /// Asks once. Who asks again and again says so when there is no answer.
    async fn ask_once<M, T>(&self, message: &M, within: Duration) -> Result<T, Failure>
    where
        M: Remote<Reply = Result<T, AuditRefusal>> + Sync,
    {
        Ok(self.client.ask(&self.node, message, within).await??)
    }

    async fn view(&self) -> Result<AuditView, Failure> {
        self.ask(&ShowAudit { nonce: Vec::new() }).await
    }

    /// From where on it has its entries. A node that knows nothing of that yet has them all.
    async fn mark(&self) -> Result<Mark, Failure> {
        match self.ask(&ShowMark {}).await {
            Err(Failure::Fault(fault)) if matches!(fault.kind, FaultKind::UnknownMessage(_)) => {
                Ok(Mark::default())
            }
            mark => mark,
        }
    }

    /// Entries from one number to before another, a page at a time: as far as the node has them, which it says.
    async fn entries(
        &self,
        (from, to): (u64, u64),
        records: bool,
        subject: &str,
        mut each: impl FnMut(EntryView) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut from = from;
        while from < to {
            let limit = to - from;
            let subject = subject.to_owned();
            let page = self.ask(&ReadEntries { from, limit, records, subject }).await?;
            if page.next <= from {
                break;
            }
            from = page.next;
            page.page.into_iter().try_for_each(&mut each)?;
        }
        Ok(from)
    }

    async fn close(&self) {
        self.client.close().await;
    }
}

/// One entry, as answers show it.
#[derive(Debug, Serialize)]
struct Shown {
    index: u64,
    time: String,
    time_ms: u64,
    action: String,
    /// What it commits to, in base64.
    commitment: String,
    /// The record, where it was asked for and can be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Value>,
    /// It was asked for, and nobody can open it any more.
    #[serde(skip_serializing_if = "is_false")]
    shut: bool,
    /// It was asked for, and is not what was sealed.
    #[serde(skip_serializing_if = "is_false")]
    changed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Shown {
    fn of(view: &EntryView) -> Result<Self, Failure> {
        let entry = decoded(view)?;
        let record = match view.record.as_slice() {
            [] => None,
            bytes => Some(serde_json::from_slice(bytes).map_err(Failure::local)?),
        };
        Ok(Self {
            index: view.index,
            time: rfc3339(entry.millis()),
            time_ms: entry.millis(),
            action: entry.action.clone(),
            commitment: entry.commitment.to_string(),
            record,
            shut: view.shut,
            changed: view.changed,
        })
    }

    fn line(&self) -> String {
        let said = match &self.record {
            Some(record) => record.to_string(),
            None if self.shut => "(erased)".to_owned(),
            None if self.changed => CHANGED.to_owned(),
            None => String::new(),
        };
        format!("{:>8}  {}  {:<20} {said}", self.index, self.time, self.action).trim_end().to_owned()
    }
}

/// The entry of a view. What was shown beside it is checked against it.
fn decoded(view: &EntryView) -> Result<Entry, Failure> {
    let entry = Entry::decode(&view.entry).map_err(|why| {
        Failure::local(format!("the node gave an entry {} that is none: {why}", view.index))
    })?;
    if let (Some(salt), false) = (view.salt.first_chunk::<32>(), view.record.is_empty()) {
        entry.commits_to(salt, &view.record).map_err(|why| {
            Failure::local(format!("the node gave another record for entry {}: {why}", view.index))
        })?;
    }
    Ok(entry)
}
