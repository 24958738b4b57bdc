//! `rhumb dead-letters`: what could not be delivered.
//!
//! * It decides: whom to ask, and how the answer looks.
//! * It never does: settle a letter that was not named, or show one past the gates.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use serde::Serialize;

use super::connect::{Connect, nodes_from};
use super::output::{Done, Failure, Output};
use crate::client::{Ask, MeshClient};
use crate::mesh::dead_letters::{DeadLetters, ListDeadLetters, Listed, SettleDeadLetter, ShowDeadLetter};

/// How long to wait for a node.
const WITHIN: Duration = Duration::from_secs(10);

/// What could not be delivered: list it, show it, send it again, drop it.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the dead letters of one node, or of all.
    List(List),
    /// Show what one says, and to whom.
    Show(Show),
    /// Send one again.
    Retry(Retry),
    /// Drop one for good.
    Drop(Drop),
}

/// List the dead letters of one node, or of all.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb dead-letters list\n  rhumb dead-letters list --node us-east/n1 -o json\n\nA dead letter is with the node that told it. Ends with 3 when a node did not answer."
)]
pub struct List {
    /// Only of this node.
    #[arg(long, value_name = "REGION/NODE")]
    node: Option<NodeId>,
    #[command(flatten)]
    connect: Connect,
}

/// Which letter.
#[derive(Debug, Args)]
struct Which {
    /// The letter, as the list says it.
    #[arg(value_name = "LETTER")]
    letter: String,
    /// The node whose outbox it was in.
    #[arg(long, value_name = "REGION/NODE")]
    node: NodeId,
    #[command(flatten)]
    connect: Connect,
}

/// Show what a dead letter says, and to whom.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb dead-letters show 1790000000000-7 --node us-east/n1\n\nThe message is shown as it is encoded. It is data of its class: the policy may keep it from you."
)]
pub struct Show {
    #[command(flatten)]
    which: Which,
}

/// Send a dead letter again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb dead-letters retry 1790000000000-7 --node us-east/n1\n\nIt goes as a new letter, behind those of its channel. One that was given up for its age may have had its effect: it then has it again."
)]
pub struct Retry {
    #[command(flatten)]
    which: Which,
}

/// Drop a dead letter for good.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb dead-letters drop 1790000000000-7 --node us-east/n1")]
pub struct Drop {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Serialize)]
struct ListAnswer {
    nodes: Vec<DeadLetters>,
    silent: Vec<Silent>,
}

#[derive(Debug, Serialize)]
struct Silent {
    node: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct ShowAnswer {
    node: String,
    #[serde(flatten)]
    letter: Listed,
    target: String,
    stream: String,
    /// The encoded message, in hexadecimal digits.
    body: String,
}

#[derive(Debug, Serialize)]
struct SettleAnswer {
    node: String,
    letter: String,
    done: &'static str,
}

impl DeadLettersCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Show(Show { which }) => which.show(output).await,
            Self::Retry(Retry { which }) => which.settle(true, output).await,
            Self::Drop(Drop { which }) => which.settle(false, output).await,
        }
    }
}

impl List {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let nodes = match &self.node {
            Some(node) => vec![node.clone()],
            None => nodes_from(client.directory(), |_| true),
        };
        let mut answer = ListAnswer { nodes: Vec::new(), silent: Vec::new() };
        for node in &nodes {
            match listed(&client, node).await {
                Ok(list) => answer.nodes.push(list),
                Err(fault) => answer.silent.push(Silent { node: node.to_string(), why: fault.to_string() }),
            }
        }
        client.close().await;
        output.answer(&answer, &answer);
        Ok(if answer.silent.is_empty() { Done::Well } else { Done::InPart })
    }
}

/// All dead letters of a node, part after part.
async fn listed(client: &MeshClient, node: &NodeId) -> Result<DeadLetters, Fault> {
    let mut all = DeadLetters { node: node.to_string(), ..DeadLetters::default() };
    loop {
        let after = all.letters.last().map(|last| last.letter.clone()).unwrap_or_default();
        let text = client.ask(node, &ListDeadLetters { after }, WITHIN).await?;
        let part: DeadLetters = serde_json::from_str(&text)
            .map_err(|error| Fault::ran(FaultKind::Handler(format!("its answer is not one: {error}"))))?;
        let more = part.more && !part.letters.is_empty();
        all.letters.extend(part.letters);
        if !more {
            return Ok(all);
        }
    }
}

impl Which {
    async fn show(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let shown = self.shown(&client).await;
        client.close().await;
        let shown = shown?;
        output.answer(&shown, &shown);
        Ok(Done::Well)
    }

    async fn shown(&self, client: &MeshClient) -> Result<ShowAnswer, Failure> {
        let list = listed(client, &self.node).await?;
        let letter = list.letters.into_iter().find(|listed| listed.letter == self.letter);
        let letter = letter.ok_or_else(|| {
            Failure::local(format!("there is no dead letter {} at {}", self.letter, self.node))
        })?;
        let class = DataClass::read(&letter.class).map_err(Failure::local)?;
        let asked = ShowDeadLetter { class, letter: self.letter.clone() };
        let shown = client.ask(&self.node, &asked, WITHIN).await?.map_err(Failure::local)?;
        let body = shown.body.iter().map(|byte| format!("{byte:02x}")).collect();
        let node = self.node.to_string();
        Ok(ShowAnswer { node, letter, target: shown.target, stream: shown.stream, body })
    }

    async fn settle(self, retry: bool, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let asked = SettleDeadLetter { letter: self.letter.clone(), retry };
        let settled = client.ask(&self.node, &asked, WITHIN).await;
        client.close().await;
        settled?.map_err(Failure::local)?;
        let done = if retry { "sent again" } else { "dropped" };
        let answer = SettleAnswer { node: self.node.to_string(), letter: self.letter, done };
        output.answer(&answer, format!("{} of {}: {done}", answer.letter, answer.node));
        Ok(Done::Well)
    }
}

impl fmt::Display for ListAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.nodes.iter().map(|node| node.letters.len()).sum();
        write!(f, "{count} dead {}", if count == 1 { "letter" } else { "letters" })?;
        for node in &self.nodes {
            for of in &node.letters {
                write!(
                    f,
                    "\n{} of {}: {} to {} at {}, class {}, {} bytes\n    {}",
                    of.letter, node.node, of.message, of.actor, of.to, of.class, of.bytes, of.reason
                )?;
            }
        }
        for silent in &self.silent {
            write!(f, "\n{} did not answer: {}", silent.node, silent.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for ShowAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.letter;
        write!(
            f,
            "letter    {} of {}\nmessage   {}, class {}\nto        {} at {}\nstream    {:?}\nwritten   {} ms\n\
             died      {} ms\nreason    {}\nfailures  {}\nbody      {}",
            of.letter,
            self.node,
            of.message,
            of.class,
            self.target,
            of.to,
            self.stream,
            of.written_ms,
            of.died_ms,
            of.reason,
            of.failures,
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn listed() -> Listed {
        Listed {
            letter: "1790000000000-7".into(),
            to: "eu/n1".into(),
            actor: "shop.cart#00000000000000ff".into(),
            message: "shop.Add".into(),
            class: "inventory".into(),
            reason: "the peer does not know the message \"shop.Add\"".into(),
            failures: 0,
            written_ms: 1,
            died_ms: 2,
            bytes: 3,
        }
    }

    #[test]
    fn a_list_says_of_each_letter_whose_it_is_where_it_was_to_go_and_why_it_did_not() {
        let node = DeadLetters { node: "us/n1".into(), letters: vec![listed()], more: false };
        let silent = vec![Silent { node: "ap/n1".into(), why: "unreachable".into() }];
        let answer = ListAnswer { nodes: vec![node], silent };
        expect![[r#"
            1 dead letter
            1790000000000-7 of us/n1: shop.Add to shop.cart#00000000000000ff at eu/n1, class inventory, 3 bytes
                the peer does not know the message "shop.Add"
            ap/n1 did not answer: unreachable"#]]
        .assert_eq(&answer.to_string());
        expect![[r#"{"nodes":[{"node":"us/n1","letters":[{"letter":"1790000000000-7","to":"eu/n1","actor":"shop.cart#00000000000000ff","message":"shop.Add","class":"inventory","reason":"the peer does not know the message \"shop.Add\"","failures":0,"written_ms":1,"died_ms":2,"bytes":3}],"more":false}],"silent":[{"node":"ap/n1","why":"unreachable"}]}"#]]
        .assert_eq(&serde_json::to_string(&answer).expect("serialises"));
    }

    #[test]
    fn a_letter_is_shown_with_its_key_and_its_bytes() {
        let shown = ShowAnswer {
            node: "us/n1".into(),
            letter: listed(),
            target: "shop.cart/ada".into(),
            stream: String::new(),
            body: "0aff".into(),
        };
        expect![[r#"
            letter    1790000000000-7 of us/n1
            message   shop.Add, class inventory
            to        shop.cart/ada at eu/n1
            stream    ""
            written   1 ms
            died      2 ms
            reason    the peer does not know the message "shop.Add"
            failures  0
            body      0aff"#]]
        .assert_eq(&shown.to_string());
    }
}
