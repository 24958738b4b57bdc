//! What actix does not do for actors, and the runtime therefore does itself: mailboxes that are really
//! bounded, restarts after a panic, fairness among the actors of an arbiter, sleep, and the context of
//! a call.
//!
//! * It decides: when an instance of an actor is made, fed, put to sleep and made anew.
//! * It never does: encode anything, or know on which node an actor belongs.
//! * Invariant: every message that was let in ends in its handler, or in a typed fault for whoever
//!   waits for its answer.
//!
//! The machines are `mailbox`, `life` and [`restarts`]; [`cell`] is the shell that keeps one actor,
//! [`home`] that which keeps a type.

pub mod admission;
pub mod arbiters;
pub mod call;
pub mod cell;
pub mod home;
mod hosting;
pub mod id;
mod life;
mod mailbox;
mod moving;
pub(crate) mod owed;
pub(crate) mod packed;
pub mod pump;
mod reply;
pub mod restarts;
pub mod watch;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use rhumb_actors::remote::{Audience, Hosted};
use rhumb_core::{Epoch, Fault};
use thiserror::Error;
use tokio::time::Instant;

use self::admission::{Admitted, Door};
use self::arbiters::{Arbiters, Blocked};
use self::home::Home;
use self::id::{ActorId, Shown};
use self::watch::End;
use crate::mesh::Mesh;
use crate::mesh::dispatch::Incoming;

pub use call::{Call, call};
pub use home::BASE_FOOTPRINT;
pub use hosting::{Activation, Host, MEMORY};
pub use reply::{ActorReply, Reply};
pub use restarts::Restarts;
pub use rhumb_transport::resilience::limit::LimitSettings as Admission;

/// When to ask an actor again whose mailbox was full.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Actor types that cannot be hosted together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// Two types have one name.
    #[error("the actor type {0:?} is hosted twice: every name belongs to one type")]
    Twice(&'static str),
    /// One type calls another that nobody hosts.
    #[error(
        "the actor type {by:?} needs actors of type {needs:?}, which this node does not host: add Host::new for it"
    )]
    Missing {
        /// Which one needs it.
        by: &'static str,
        /// Which one is missing.
        needs: &'static str,
    },
    /// Two types accept a message of one name and lay it out, or its reply, differently.
    #[error(
        "the actor types {one:?} and {other:?} accept the message {message:?} in two layouts: every name belongs to one message"
    )]
    TwoLayouts {
        /// The message's name.
        message: &'static str,
        /// One of the types.
        one: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// A name is no name.
    #[error("{0:?} cannot name an actor type: use lower-case letters, digits, '-', '.' and '_'")]
    Name(&'static str),
}

/// One actor type on one node, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeReport {
    /// Its name.
    pub kind: &'static str,
    /// Actors that are awake.
    pub live: u64,
    /// Messages that wait in mailboxes.
    pub waiting: usize,
    /// Those in the fullest mailbox.
    pub fullest: usize,
    /// Messages for which each mailbox has room.
    pub capacity: usize,
    /// How long the first of all that wait has waited; none where none waits.
    pub oldest: Option<Duration>,
    /// Bytes of all that are awake, as far as they say.
    pub bytes: u64,
    /// Instances made since the start.
    pub activations: u64,
    /// Instances put to sleep since the start.
    pub passivations: u64,
    /// Panics since the start.
    pub panics: u64,
    /// Actors that panicked too often, since the start.
    pub gave_up: u64,
    /// Messages that a full mailbox refused or dropped, since the start.
    pub overflows: u64,
    /// Messages that were told, taken, and then dropped: they gave way to others, their actor gave up, or
    /// the node stopped. Since the start.
    pub dropped: u64,
    /// Of its door; none where it has none.
    pub admission: Option<Admitted>,
}

/// A home, whatever the type of its actors.
pub(crate) trait AnyHome: Send + Sync {
    fn kind(&self) -> &'static str;
    /// The class of the state of its actors.
    fn class(&self) -> &'static str;
    fn needs(&self) -> Vec<&'static str>;
    /// Name, version and layout of each message.
    fn messages(&self) -> Vec<(&'static str, u16, u64)>;
    fn audience(&self, name: &str) -> Option<Audience>;
    /// Whether an ask of this name that has a key runs once for it.
    fn runs_once(&self, name: &str) -> bool;
    /// Lets in only so many questions at once, where it was told to.
    fn door(&self) -> Option<&Arc<Door>>;
    /// One of its equal actors, each in turn; none where it has none.
    fn equal(&self) -> Option<ActorId>;
    /// A message of an actor or program of this node: a boxed [`packed::Packed`].
    fn local(
        &self,
        id: &ActorId,
        name: &'static str,
        packed: Box<dyn Any + Send>,
        now: Instant,
    ) -> Result<(), Fault>;
    /// A message of another node.
    fn remote(&self, id: ActorId, incoming: Incoming);
    /// A message of another node for all that are awake.
    fn remote_all(&self, incoming: Incoming);
    /// Adds a watch of an actor for which this node may act.
    fn watch(&self, actor: &Shown) -> Result<End, Fault>;
    fn child_gave_up(&self, key: &str, child: &ActorId);
    fn parent_begins_anew(&self, parent: &ActorId);
    fn report(&self) -> TypeReport;
    /// Whether its actors move.
    fn moves(&self) -> bool;
    /// Whether this node may take a message for an actor, as far as that depends on who acts for it.
    fn may_take(&self, id: &ActorId) -> Result<(), Fault>;
    /// The epoch that a caller may name.
    fn epoch(&self, id: &ActorId) -> Epoch;
    /// The fences were read, or may not be acted by any more: instances that may begin nothing go, a few at a time.
    fn let_go(&self) -> BoxFuture<'_, ()>;
    fn close(&self);
}

type Start = Box<dyn FnOnce(&Mesh, Weak<Hosts>, &Arc<Arbiters>) -> Arc<dyn AnyHome> + Send>;

/// The actor types that a node will host.
#[derive(Default)]
pub struct HostList(Vec<(&'static str, Start)>);

impl HostList {
    /// One more type.
    pub fn add<A: Hosted>(&mut self, host: Host<A>) {
        let start: Start = Box::new(move |mesh, hosts, arbiters| {
            Home::start(host, mesh.clone(), hosts, Arc::clone(arbiters)) as Arc<dyn AnyHome>
        });
        self.0.push((A::TYPE, start));
    }
}

/// The actor types that a node hosts.
pub struct Hosts {
    homes: BTreeMap<&'static str, Arc<dyn AnyHome>>,
    arbiters: Arc<Arbiters>,
}

impl Hosts {
    /// Starts all types of a list.
    ///
    /// # Errors
    /// [`HostError`] names the type that is there twice, or missing.
    pub(crate) fn start(list: HostList, mesh: &Mesh, arbiters: Arbiters) -> Result<Arc<Self>, HostError> {
        let arbiters = Arc::new(arbiters);
        for (at, (kind, _)) in list.0.iter().enumerate() {
            if list.0[..at].iter().any(|(other, _)| other == kind) {
                return Err(HostError::Twice(kind));
            }
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
            if kind.is_empty() || !kind.chars().all(fine) {
                return Err(HostError::Name(kind));
            }
        }
        let hosts = Arc::new_cyclic(|hosts: &Weak<Self>| {
            let start = |(kind, start): (_, Start)| (kind, start(mesh, Weak::clone(hosts), &arbiters));
            let homes = list.0.into_iter().map(start).collect();
            Self { homes, arbiters: Arc::clone(&arbiters) }
        });
        for home in hosts.homes.values() {
            for needs in home.needs() {
                if !hosts.homes.contains_key(needs) {
                    return Err(HostError::Missing { by: home.kind(), needs });
                }
            }
        }
        hosts.one_layout_a_name()?;
        Ok(hosts)
    }

    /// What a node says of a message holds for all types that accept it.
    fn one_layout_a_name(&self) -> Result<(), HostError> {
        let mut known = BTreeMap::new();
        for home in self.homes.values() {
            for (message, _, layout) in home.messages() {
                let (one, first) = *known.entry(message).or_insert((home.kind(), layout));
                if first != layout {
                    return Err(HostError::TwoLayouts { message, one, other: home.kind() });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn home(&self, kind: &str) -> Option<&Arc<dyn AnyHome>> {
        self.homes.get(kind)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn AnyHome>> {
        self.homes.values()
    }

    /// What there is to say of each type.
    #[must_use]
    pub fn report(&self) -> Vec<TypeReport> {
        self.homes.values().map(|home| home.report()).collect()
    }

    /// Arbiters that work on one message for too long, now.
    #[must_use]
    pub fn blocked(&self) -> Vec<Blocked> {
        self.arbiters.blocked()
    }

    /// How often an arbiter was found blocked, since the start.
    #[must_use]
    pub fn times_blocked(&self) -> u64 {
        self.arbiters.times_blocked()
    }

    /// Takes in nothing more, and waits (not longer than this) until every instance has gone: what they
    /// do as they stop is done. Gives the types of which some have not.
    pub async fn close(&self, within: Duration) -> Vec<String> {
        self.homes.values().for_each(|home| home.close());
        let gone = async {
            while self.homes.values().any(|home| home.report().live > 0) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(within, gone).await.is_err() {
            tracing::warn!("actors are still busy; the node stops without them");
        }
        let busy = |home: &Arc<dyn AnyHome>| {
            let report = home.report();
            (report.live > 0).then(|| format!("{} of actor {} are still busy", report.live, report.kind))
        };
        self.homes.values().filter_map(busy).collect()
    }

    /// Takes in nothing more.
    pub(crate) fn close_now(&self) {
        self.homes.values().for_each(|home| home.close());
    }

    pub(crate) fn stop(&self) {
        self.arbiters.stop();
    }

    fn child_gave_up(&self, kind: &str, key: &str, child: &ActorId) {
        if let Some(home) = self.home(kind) {
            home.child_gave_up(key, child);
        }
    }

    fn parent_begins_anew(&self, parent: &ActorId) {
        self.homes.values().for_each(|home| home.parent_begins_anew(parent));
    }
}
