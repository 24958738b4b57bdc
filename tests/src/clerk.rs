//! A clerk in each region: it reads and writes the keyspaces of its node for whoever asks it, and says what came of it.

use rhumb::client::kv::{Kv, KvError, KvOp, Needs, put};
use rhumb::prelude::*;

/// Does these one after the other: `get KEYSPACE KEY`, `put KEYSPACE KEY VALUE`. What is put is about whom its key names.
#[remote(
    name = "test.clerk.Errand",
    class = by(class),
    reply_class = "control",
    reply = Vec<String>,
    deadline = "30s"
)]
pub struct Errand {
    /// The class of what it is about.
    pub class: DataClass,
    /// What is to be done.
    pub does: Vec<String>,
}

protocol! {
    /// Who runs errands.
    pub Clerks = "test.clerk", class "control": Errand;
}

/// The clerk.
pub struct Clerk;

/// How it is hosted.
#[must_use]
pub fn clerks() -> Host<Clerk> {
    Host::new(|_: &Activation| Clerk)
}

#[remote_actor(serves = Clerks)]
impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Errand> for Clerk {
    type Result = Reply<Vec<String>>;

    fn handle(&mut self, errand: Errand, _: &mut Context<Self>) -> Self::Result {
        Reply::later(async move {
            let mut came = Vec::new();
            for what in &errand.does {
                came.push(does(what).await.unwrap_or_else(told));
            }
            came
        })
    }
}

/// What was read, if it is there; else that nothing is, or that it was put.
async fn does(what: &str) -> Result<String, KvError> {
    let words: Vec<&str> = what.split(' ').collect();
    let kv = Kv::here(call().expect("a handler has a call").mesh(), words[1]).await?;
    let key = words[2].as_bytes();
    if let Some(value) = words.get(3) {
        let subject = kv.class().as_str().starts_with("personal").then(|| words[2].to_owned());
        kv.write(vec![KvOp { subject, ..put(key, value.as_bytes()) }]).await?;
        return Ok("put".to_owned());
    }
    let answer = kv.get(key, Needs::Strong).await?;
    let value = answer.rows.first().map(|row| String::from_utf8_lossy(&row.value).into_owned());
    Ok(value.unwrap_or_else(|| "nothing".to_owned()))
}

fn told(error: KvError) -> String {
    match error {
        KvError::Refused(refusal) => refusal.code().to_owned(),
        KvError::Fault(Fault { kind: FaultKind::ClassLowered { from, to }, .. }) => {
            format!("{from} is no {to}")
        }
        other => other.to_string(),
    }
}
