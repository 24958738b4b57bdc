//! `rhumb audit fsck`, `replace-key` and `erase-subject`.

use std::fmt;

use clap::Args;
use rhumb_actors::audit::messages::{CheckBundle, EraseSubject as Erase, ReplaceKey as Replace};
use rhumb_core::NodeId;
use rhumb_verify::tile::WIDTH;
use serde::Serialize;

use super::super::output::{Done, Failure, Output};
use super::Whose;

/// Hash everything that a log has on disk again, open every body that can be opened, and compare.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit fsck\n  rhumb audit fsck --node eu-central/n1 -o json\n\nEnds with 5 when something is not sound; each fault names the entry, body, tile or checkpoint. A node does the same by itself all the time, slowly. Of a pruned log it checks what is kept: entries from the mark on, and the hashes above the mark against those that stand beside it."
)]
pub struct Fsck {
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct Soundness {
    node: String,
    sound: bool,
    bundles: u64,
    entries: u64,
    /// Bodies that were opened; the others' subjects were erased.
    opened: u64,
    faults: Vec<String>,
}

impl fmt::Display for Soundness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, entries, opened, bundles, .. } = self;
        let verdict = if self.sound { "sound" } else { "NOT SOUND" };
        write!(
            f,
            "{node}: {verdict}: {entries} entries in {bundles} bundles hashed, {opened} bodies opened"
        )?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

impl Fsck {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let node = log.node.to_string();
        let mut found =
            Soundness { node, sound: true, bundles: 0, entries: 0, opened: 0, faults: Vec::new() };
        let mut next = Some(log.mark().await?.mark / WIDTH);
        while let Some(bundle) = next {
            let checked = log.ask(&CheckBundle { bundle }).await?;
            found.bundles += 1;
            found.entries += checked.entries;
            found.opened += checked.opened;
            found.faults.extend(checked.faults);
            next = checked.next;
        }
        log.close().await;
        found.sound = found.faults.is_empty();
        output.answer(&found, &found);
        Ok(if found.sound { Done::Well } else { Done::False })
    }
}

/// Have a node believe another key of a peer's log.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb audit replace-key eu-central/n1 --key 'mesh.example/audit/eu-central/n1+3f1c…+AQ…' --node us-east/n1\n\nFor a peer that lost its audit key, or whose key somebody else may have: its log must still continue what this node cosigned of it. Get the key from the operators of the peer's region, not from the log. Do it at every node of another region that refuses the peer (`refused` in `rhumb audit checkpoint`). A key that was ever seen of another node is refused, and none comes back."
)]
pub struct ReplaceKey {
    /// Whose.
    peer: NodeId,
    /// The key, as `rhumb audit checkpoint --node PEER` shows it.
    #[arg(long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct ReplacedAnswer {
    node: String,
    peer: String,
    key: String,
    before: String,
    /// The entry that says so.
    entry: u64,
}

impl fmt::Display for ReplacedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, peer, key, before, entry } = self;
        write!(f, "{node} believes {key} of {peer} from now on (entry {entry}), and no more {before}")
    }
}

impl ReplaceKey {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let replaced = log.ask(&Replace { node: self.peer.clone(), key: self.key.clone() }).await;
        log.close().await;
        let replaced = replaced?;
        let answer = ReplacedAnswer {
            node: log.node.to_string(),
            peer: self.peer.to_string(),
            key: self.key,
            before: replaced.before,
            entry: replaced.entry,
        };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

/// Erase a subject in one node's log: destroy the key that its records are sealed under.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb audit erase-subject 'operator us-east/ann' --node us-east/n1\n\nEvery proof still verifies; the subject's records can be opened by nobody, from this disk or any older copy of it. A subject that several nodes have records about is erased on each of them. What was copied out before is not erased."
)]
pub struct EraseSubject {
    /// Whom, as records name it.
    subject: String,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct ErasedAnswer {
    node: String,
    subject: String,
    /// The id of the key that was destroyed; null where there was none of this subject.
    key: Option<String>,
    /// The entry that says so.
    entry: u64,
}

impl fmt::Display for ErasedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, subject, entry, .. } = self;
        match &self.key {
            Some(key) => {
                write!(f, "{subject} is erased in the log of {node}: key {key} is destroyed (entry {entry})")
            }
            None => write!(f, "the log of {node} has no key of {subject} (entry {entry})"),
        }
    }
}

impl EraseSubject {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let erased = log.ask(&Erase { subject: self.subject.clone() }).await;
        log.close().await;
        let erased = erased?;
        let answer = ErasedAnswer {
            node: log.node.to_string(),
            subject: self.subject,
            key: erased.key,
            entry: erased.entry,
        };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}
