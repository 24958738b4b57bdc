//! The dead letters of a node's outbox: what an operator asks of them.
//!
//! * It decides: what is told of a letter under which class. A list is `control`: an actor's type and number, no key
//!   and no message. The rest is shown under the letter's own class, and the gates judge it.

use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::delivery::LetterId;
use rhumb_actors::{Wire, remote};
use rhumb_core::{DataClass, Fault, FaultKind};
use rhumb_transport::Peer;
use serde::{Deserialize, Serialize};

use super::registry::{Call, Registry, ServedTwice};
use super::{Mesh, told};

/// Dead letters in one answer.
pub const LISTED_AT_ONCE: usize = 1_000;

/// Which dead letters are there? Answered with a [`DeadLetters`], as JSON.
#[remote(
    name = "mesh.DeadLetters",
    class = "control",
    reply = String,
    idempotent,
    audience = "operators",
    crate = rhumb_actors
)]
pub struct ListDeadLetters {
    /// Those after this one; all of them if empty.
    pub after: String,
}

/// Show one. Its class says under what.
#[remote(
    name = "mesh.ShowDeadLetter",
    class = by(class),
    reply = Result<Shown, String>,
    idempotent,
    audience = "operators",
    crate = rhumb_actors
)]
pub struct ShowDeadLetter {
    /// The letter's class, as the list says it.
    pub class: DataClass,
    /// Which.
    pub letter: String,
}

/// Send one again, or drop it for good.
#[remote(
    name = "mesh.SettleDeadLetter",
    class = "control",
    reply = Result<(), String>,
    audience = "operators",
    crate = rhumb_actors
)]
pub struct SettleDeadLetter {
    /// Which.
    pub letter: String,
    /// Send it again; otherwise it is dropped.
    pub retry: bool,
}

/// What a letter says, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub struct Shown {
    /// The actor, with its key.
    pub target: String,
    /// The sender's stream.
    pub stream: String,
    /// The message, as it is encoded.
    pub body: Vec<u8>,
}

/// Dead letters of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetters {
    /// The node in whose outbox they were.
    pub node: String,
    /// In the order in which they were written.
    pub letters: Vec<Listed>,
    /// There are more after the last one.
    pub more: bool,
}

/// A dead letter, in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// Which.
    pub letter: String,
    /// The node that it was for.
    pub to: String,
    /// The actor's type, and a number in place of its key.
    pub actor: String,
    /// The name of the message.
    pub message: String,
    /// Its class.
    pub class: String,
    /// Why it was given up.
    pub reason: String,
    /// How often its handler failed, in the node's last life.
    pub failures: u32,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_ms: u64,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub died_ms: u64,
    /// Bytes of the message.
    pub bytes: u64,
}

impl Mesh {
    /// The dead letters of this node's outbox; at most [`LISTED_AT_ONCE`].
    ///
    /// # Errors
    /// This side has no outbox, or stops.
    pub async fn dead_letters(&self) -> Result<Vec<Listed>, Fault> {
        Ok(self.listed(None).await?.letters)
    }

    async fn listed(&self, after: Option<LetterId>) -> Result<DeadLetters, Fault> {
        let delivery = self.delivery().ok_or_else(gone)?;
        let node = self.node().map(ToString::to_string).unwrap_or_default();
        let list = delivery.look(move |machines| {
            let mut letters: Vec<_> = machines
                .outbox
                .dead()
                .filter(|(id, _)| after.is_none_or(|after| *id > after))
                .take(LISTED_AT_ONCE + 1)
                .map(|(id, dead)| Listed {
                    letter: id.to_string(),
                    to: dead.letter.to.to_string(),
                    actor: dead.letter.shown.clone(),
                    message: dead.letter.name.clone(),
                    class: dead.letter.class.to_string(),
                    reason: dead.reason.clone(),
                    failures: dead.failures,
                    written_ms: dead.letter.written.millis(),
                    died_ms: dead.died.millis(),
                    bytes: dead.letter.body.len() as u64,
                })
                .collect();
            let more = letters.len() > LISTED_AT_ONCE;
            letters.truncate(LISTED_AT_ONCE);
            DeadLetters { node, letters, more }
        });
        list.await.ok_or_else(gone)
    }

    async fn shown(&self, asked: ShowDeadLetter) -> Result<Result<Shown, String>, Fault> {
        let id: LetterId = match asked.letter.parse() {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        let class = asked.class;
        let delivery = self.delivery().ok_or_else(gone)?;
        let shown = delivery.look(move |machines| {
            let dead = machines.outbox.dead().find(|(other, _)| *other == id).map(|(_, dead)| dead);
            // Under another class than its own, nothing is told of it.
            let dead = dead.filter(|dead| dead.letter.class == class);
            let dead = dead.ok_or_else(|| format!("there is no dead letter {id} of class {class} here"))?;
            let letter = &dead.letter;
            let (target, stream) = (letter.target.clone(), letter.stream.clone());
            Ok(Shown { target, stream, body: letter.body.clone() })
        });
        shown.await.ok_or_else(gone)
    }

    /// Settles one, as an operator asks for: told in the audit log before it is done, and before it is acknowledged.
    async fn settled(&self, asked: SettleDeadLetter, by: &Peer) -> Result<Result<(), String>, Fault> {
        let id: LetterId = match asked.letter.parse() {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        let delivery = self.delivery().ok_or_else(gone)?;
        let action = if asked.retry { "dead_letter.retry" } else { "dead_letter.drop" };
        let record = Record::told(action, "", Outcome::Begun).on(format!("letter {id}"));
        // A mesh inside a test has no log.
        let begun = match self.audit() {
            Some(log) => Some(told::begin(log, by, record).await?),
            None => None,
        };
        let settled = match delivery.settle(id, asked.retry).await {
            Err(Fault { kind: FaultKind::Handler(why), .. }) => Ok(Err(why)),
            settled => settled.map(Ok),
        };
        if let Some(begun) = begun {
            let (outcome, why) = match &settled {
                Ok(Ok(())) => (Outcome::Done, None),
                Ok(Err(why)) => (Outcome::Refused, Some(why.clone())),
                Err(fault) => (Outcome::Failed, Some(fault.to_string())),
            };
            begun.ended(outcome, why).await?;
        }
        settled
    }
}

fn gone() -> Fault {
    Fault::not_sent(FaultKind::Handler("there is no outbox here, or the node stops".to_owned()))
}

/// Serves what operators ask of dead letters.
///
/// # Errors
/// [`ServedTwice`].
pub(crate) fn serve(registry: &mut Registry, mesh: &Mesh) -> Result<(), ServedTwice> {
    let at = mesh.clone();
    registry.serve(move |call: Call<ListDeadLetters>| {
        let at = at.clone();
        async move {
            let after = call.message.after.parse().ok();
            let list = at.listed(after).await?;
            let text = serde_json::to_string(&list);
            let text = text.map_err(|error| Fault::ran(FaultKind::Handler(error.to_string())))?;
            Ok((text, DataClass::control()))
        }
    })?;
    let at = mesh.clone();
    registry.serve(move |call: Call<ShowDeadLetter>| {
        let at = at.clone();
        async move {
            if call.message.class != call.class {
                let (from, to) = (call.message.class, call.class);
                return Err(Fault::not_sent(FaultKind::ClassLowered { from, to }));
            }
            Ok((at.shown(call.message).await?, call.class))
        }
    })?;
    let at = mesh.clone();
    registry.serve(move |call: Call<SettleDeadLetter>| {
        let at = at.clone();
        async move { Ok((at.settled(call.message, &call.from).await?, DataClass::control())) }
    })
}
