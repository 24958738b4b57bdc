//! What this node has stated together with other regions: its signatures for quorum certificates
//! ([`rhumb_verify::statement`]).
//!
//! | key | value |
//! |---|---|
//! | `s` kind, space, subject | the statement that was signed last of that chain, as text |
//!
//! * It decides: whether this node signs a statement.
//! * It never does: sign what it does not itself know to be so, two statements of one number, a number below one that it
//!   signed, or the beginning of a second chain; or sign before what it signs is durable.
//! * Invariant: two certificates of one number and two values have no honest node in common.
//!
//! A node may have missed some of a chain, so it signs what follows a statement that it does not know. Whoever has both
//! certificates sees whether the one follows the other.

use std::collections::BTreeMap;

use rhumb_core::effects::Effects;
use rhumb_storage::{Batch, Family};
use rhumb_verify::Hash;
use rhumb_verify::statement::{NOTHING, Statement};
use thiserror::Error;

use super::rows::Unsound;

/// Chains of which the last statement is kept.
pub const MAX_CHAINS: usize = 4_096;

/// Who waits for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the statements want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign this text, and give the signature to whoever waits.
    Sign {
        /// Who.
        token: Token,
        /// The statement's text.
        text: String,
    },
    /// Refuse.
    Refuse {
        /// Whom.
        token: Token,
        /// Why.
        why: Unstated,
    },
}

/// Why a statement is not signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unstated {
    /// It is none.
    #[error("{0}")]
    Unreadable(String),
    /// It is of another mesh.
    #[error("it is of the mesh {got}, and this is {want}")]
    OtherMesh {
        /// Of which.
        got: String,
        /// Which this is.
        want: String,
    },
    /// This node knows nothing of it.
    #[error("this node knows of no {kind} {subject} that it could state")]
    Unknown {
        /// Its kind.
        kind: String,
        /// Of what.
        subject: String,
    },
    /// It is not so.
    #[error("it states number {got}, {stated}; this node knows number {number}, {value}")]
    NotSo {
        /// Its number.
        got: u64,
        /// What it states.
        stated: Hash,
        /// The number that this node knows.
        number: u64,
        /// And what of it.
        value: Hash,
    },
    /// A later one was signed.
    #[error("number {0} was signed already, and none below it is any more")]
    Behind(u64),
    /// Another one of the same number was signed.
    #[error("another statement of number {0} was signed already: to sign this one too would be a fork")]
    Forked(u64),
    /// It begins a chain that has begun.
    #[error("it follows nothing, and number {0} of its chain was signed already: name that, or a later one")]
    Begun(u64),
    /// Too many chains.
    #[error("this node keeps {MAX_CHAINS} chains of statements and no more")]
    TooMany,
}

/// The statements of one node.
#[derive(Debug)]
pub struct Statements {
    mesh: String,
    last: BTreeMap<(String, String), Statement>,
}

impl Statements {
    /// The statements on a disk: the values of rows that begin with `s`.
    ///
    /// # Errors
    /// [`Unsound::Statement`]: a node that has forgotten what it signed must sign nothing.
    pub fn recover(mesh: &str, texts: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, Unsound> {
        let mut last = BTreeMap::new();
        for text in texts {
            let read: Result<Statement, _> = String::from_utf8_lossy(&text).parse();
            let read = read.map_err(|why| Unsound::Statement(why.to_string()))?;
            last.insert((read.kind.clone(), read.subject.clone()), read);
        }
        Ok(Self { mesh: mesh.to_owned(), last })
    }

    /// What this node would sign next of a chain where it knows this. `previous`: what it follows, where whoever asks
    /// knows that better than this node.
    #[must_use]
    pub fn next(
        &self,
        (kind, subject): (&str, &str),
        (number, value): (u64, Hash),
        previous: Option<Hash>,
    ) -> Statement {
        let last = self.last.get(&(kind.to_owned(), subject.to_owned()));
        if let Some(last) =
            last.filter(|last| (last.number, last.value) == (number, value) && previous.is_none())
        {
            return last.clone();
        }
        let previous = previous.or(last.map(Statement::hash)).unwrap_or(NOTHING);
        let (mesh, kind, subject) = (self.mesh.clone(), kind.to_owned(), subject.to_owned());
        Statement { mesh, kind, subject, number, value, previous }
    }

    /// Somebody asks for a signature of a statement. `known` says what this node itself knows of its kind and subject.
    pub fn asked(
        &mut self,
        token: Token,
        text: &str,
        known: impl FnOnce(&Statement) -> Option<(u64, Hash)>,
        out: &mut Effects<Batch, Effect>,
    ) {
        match self.judge(text, known) {
            Ok(statement) => {
                let mut batch = Batch::new();
                let key = format!("s{} {}", statement.kind, statement.subject);
                batch.put(Family::Audit, key.into_bytes(), text.as_bytes());
                out.persist(batch);
                self.last.insert((statement.kind.clone(), statement.subject.clone()), statement);
                out.send(Effect::Sign { token, text: text.to_owned() });
            }
            Err(why) => out.send(Effect::Refuse { token, why }),
        }
    }

    fn judge(
        &self,
        text: &str,
        known: impl FnOnce(&Statement) -> Option<(u64, Hash)>,
    ) -> Result<Statement, Unstated> {
        let statement: Statement = text.parse().map_err(|why| Unstated::Unreadable(format!("{why}")))?;
        if statement.mesh != self.mesh {
            return Err(Unstated::OtherMesh { got: statement.mesh, want: self.mesh.clone() });
        }
        let chain = (statement.kind.clone(), statement.subject.clone());
        match self.last.get(&chain) {
            Some(last) if *last == statement => return Ok(statement),
            Some(last) if last.number > statement.number => return Err(Unstated::Behind(last.number)),
            Some(last) if last.number == statement.number => return Err(Unstated::Forked(last.number)),
            Some(last) if statement.previous == NOTHING => return Err(Unstated::Begun(last.number)),
            None if self.last.len() >= MAX_CHAINS => return Err(Unstated::TooMany),
            Some(_) | None => {}
        }
        let (number, value) =
            known(&statement).ok_or(Unstated::Unknown { kind: chain.0, subject: chain.1 })?;
        if (number, value) != (statement.number, statement.value) {
            let (got, stated) = (statement.number, statement.value);
            return Err(Unstated::NotSo { got, stated, number, value });
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::Barrier;
    use rhumb_core::effects::Release;
    use rhumb_verify::hash::sha256;

    use super::*;

    const MESH: &str = "mesh.example";

    fn of(value: &str) -> Hash {
        sha256(&[value.as_bytes()])
    }

    fn statement(number: u64, value: &str, previous: Hash) -> Statement {
        let (kind, subject) = ("policy".to_owned(), "mesh".to_owned());
        Statement { mesh: MESH.to_owned(), kind, subject, number, value: of(value), previous }
    }

    /// What comes of asking, and what is on the disk then.
    fn ask(
        statements: &mut Statements,
        asked: &Statement,
        known: Option<(u64, &str)>,
    ) -> Result<Vec<Vec<u8>>, Unstated> {
        let (mut out, mut barrier, mut written) = (Effects::default(), Barrier::default(), 0);
        let known = known.map(|(number, value)| (number, of(value)));
        statements.asked(Token(7), &asked.to_string(), |_| known, &mut out);
        let (mut last, mut effects) = (None, Vec::new());
        barrier.absorb(&mut out, |release| match release {
            Release::Persist(ticket, _) => (last, written) = (Some(ticket), written + 1),
            Release::Perform(effect) => effects.push(effect),
        });
        assert!(last.is_none() || effects.is_empty(), "nothing is signed before it is durable");
        if let Some(ticket) = last {
            barrier.durable(ticket, |effect| effects.push(effect));
        }
        match effects.pop().expect("an answer") {
            Effect::Sign { text, .. } => Ok(vec![text.into_bytes(); written]),
            Effect::Refuse { why, .. } => Err(why),
        }
    }

    #[test]
    fn a_node_signs_what_it_knows_once_a_number_and_never_goes_back() {
        let mut statements = Statements::recover(MESH, []).expect("nothing");
        let one = statement(1, "a", NOTHING);
        let unknown = Unstated::Unknown { kind: "policy".into(), subject: "mesh".into() };
        assert_eq!(ask(&mut statements, &one, None), Err(unknown));
        let not_so = ask(&mut statements, &one, Some((1, "b")));
        assert!(matches!(not_so, Err(Unstated::NotSo { number: 1, .. })), "{not_so:?}");
        let disk = ask(&mut statements, &one, Some((1, "a"))).expect("signed");
        // In a later life it knows what it signed.
        let mut statements = Statements::recover(MESH, disk).expect("sound");
        assert!(ask(&mut statements, &one, None).is_ok(), "the same again is the same");
        let fork = statement(1, "b", NOTHING);
        assert_eq!(ask(&mut statements, &fork, Some((1, "b"))), Err(Unstated::Forked(1)));
        let again = statement(2, "b", NOTHING);
        assert_eq!(ask(&mut statements, &again, Some((2, "b"))), Err(Unstated::Begun(1)));
        let next = statements.next(("policy", "mesh"), (4, of("d")), None);
        assert_eq!(next, statement(4, "d", one.hash()));
        // It missed two, of which the second one's certificate is at hand.
        let missed = statement(3, "c", of("whatever the second was"));
        let later = statements.next(("policy", "mesh"), (4, of("d")), Some(missed.hash()));
        assert!(ask(&mut statements, &later, Some((4, "d"))).is_ok());
        assert_eq!(ask(&mut statements, &next, Some((4, "d"))), Err(Unstated::Forked(4)));
        assert_eq!(ask(&mut statements, &missed, Some((3, "c"))), Err(Unstated::Behind(4)));
        let elsewhere = Statement { mesh: "other.example".into(), ..later };
        assert!(matches!(ask(&mut statements, &elsewhere, None), Err(Unstated::OtherMesh { .. })));
        assert!(Statements::recover(MESH, [b"rhumb statement/1\n".to_vec()]).is_err(), "forgotten");
    }
}
