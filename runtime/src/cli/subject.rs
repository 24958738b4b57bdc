//! `rhumb subject`: whom values are about.

use std::fmt;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::subjects::{EraseSubject, SubjectErased};
use rhumb_core::DataClass;
use serde::Serialize;

use super::connect::{Connect, ask_in_time};
use super::output::{Done, Failure, Output};
use crate::client::kv::nearest_first;

/// Subjects: whom the values of personal classes are about.
#[derive(Debug, Subcommand)]
pub enum SubjectCommand {
    /// Erase a subject: destroy the keys that its values are sealed under, on every node.
    Erase(Erase),
}

/// Erase a subject: destroy the keys that its values are sealed under, on every node.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb subject erase ann --class personal\n\nIts values can be read by nobody from then on, from no node, no older copy of a disk and no snapshot; their keys (names) stay until they are deleted. Ends with 5 while a node has not said that it has destroyed the keys: the same again goes on. What was read or copied out in the clear before is not erased, and what audit logs say of the subject is erased with `rhumb audit erase-subject`."
)]
pub struct Erase {
    /// Whom, as `rhumb kv put --subject` named it.
    subject: String,
    /// The class of the data.
    #[arg(long, default_value = "personal")]
    class: DataClass,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct ErasedAnswer {
    class: DataClass,
    /// Whether every node has said so.
    erased: bool,
    /// The ids of the keys that were found.
    keys: Vec<String>,
    /// Nodes that have destroyed them, or never had them.
    done: Vec<String>,
    pending: Vec<String>,
    /// The node that was asked, and the entry of its log that says so.
    node: String,
    entry: u64,
}

impl fmt::Display for ErasedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, done, pending, node, entry, .. } = self;
        let said = format!("{} keys, {} nodes, entry {entry} of {node}", keys.len(), done.len());
        match (pending.as_slice(), keys.as_slice()) {
            ([], []) => write!(f, "there is no key of this subject on any node ({said})"),
            ([], _) => write!(f, "erased: the subject's keys are destroyed on every node ({said})"),
            (pending, _) => {
                let pending = pending.join(", ");
                write!(f, "NOT ERASED YET: {pending} did not say so ({said}): ask again when it is up")
            }
        }
    }
}

impl SubjectCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Erase(erase) => erase.run(output).await,
        }
    }
}

impl Erase {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let message = EraseSubject { class: self.class.clone(), subject: self.subject };
        let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
        client.close().await;
        let SubjectErased { keys, done, pending, entry } = asked.answer??;
        let names = |nodes: &[rhumb_core::NodeId]| nodes.iter().map(ToString::to_string).collect();
        let answer = ErasedAnswer {
            class: self.class,
            erased: pending.is_empty(),
            keys,
            done: names(&done),
            pending: names(&pending),
            node: asked.node.to_string(),
            entry,
        };
        output.answer(&answer, &answer);
        Ok(if answer.erased { Done::Well } else { Done::False })
    }
}
