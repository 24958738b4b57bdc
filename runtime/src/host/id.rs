//! The name of an actor: its type, its key, and whether it must live in one region.

use std::fmt;
use std::sync::Arc;

use rhumb_core::{Fault, FaultKind, Region};

/// Bytes that a key may have.
pub const MAX_KEY: usize = 200;

/// Which actor, wherever it may live. As text `cart/42`, or `cart@eu-west/42` for one that lives
/// strictly in a region. The key of a singleton is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId {
    pub(crate) kind: &'static str,
    pub(crate) region: Option<Region>,
    pub(crate) key: Arc<str>,
}

impl ActorId {
    /// An actor of this type.
    #[must_use]
    pub(crate) fn new(kind: &'static str, region: Option<Region>, key: &str) -> Self {
        Self { kind, region, key: key.into() }
    }

    /// The stable name of its type.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its key; empty for a singleton.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The only region it may live in, if it is strict.
    #[must_use]
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// Whether the key can be one.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.key.len() <= MAX_KEY && !self.key.chars().any(char::is_control) {
            return Ok(());
        }
        let why = format!("a key of {} is at most {MAX_KEY} bytes without control characters", self.kind);
        Err(Fault::not_sent(FaultKind::NotHosted(why)))
    }

    /// Whether this text names it.
    pub(crate) fn is(&self, text: &str) -> bool {
        Target::parse(text).is_some_and(|target| {
            target.kind == self.kind
                && target.region == self.region.as_ref().map(Region::as_str)
                && target.whom == Whom::One(&self.key)
        })
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{}@{region}/{}", self.kind, self.key),
            None => write!(f, "{}/{}", self.kind, self.key),
        }
    }
}

/// Whom a request is for, as the envelope says it: one actor, or (`cart*`) all of a type that are
/// awake on the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) kind: &'a str,
    pub(crate) region: Option<&'a str>,
    pub(crate) whom: Whom<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whom<'a> {
    One(&'a str),
    All,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if let Some(kind) = text.strip_suffix('*')
            && !kind.contains('/')
        {
            return Some(Self { kind, region: None, whom: Whom::All });
        }
        let (head, key) = text.split_once('/')?;
        let (kind, region) = head.split_once('@').map_or((head, None), |(kind, region)| (kind, Some(region)));
        Some(Self { kind, region, whom: Whom::One(key) })
    }

    pub(crate) fn all(kind: &str) -> String {
        format!("{kind}*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        let eu = Region::new("eu-west").expect("valid");
        for (region, key) in [(None, "42"), (Some(eu), "a/b@c*"), (None, "")] {
            let id = ActorId::new("cart", region, key);
            assert!(id.is(&id.to_string()), "{id}");
            assert!(!id.is("cart/other") && !id.is("other/42") && !id.is("cart*"));
        }
        assert_eq!(Target::parse(&Target::all("cart")).map(|t| t.whom), Some(Whom::All));
        assert_eq!(Target::parse("nothing"), None);
    }

    #[test]
    fn a_key_that_cannot_be_one_is_refused() {
        let too_long = ActorId::new("cart", None, &"x".repeat(MAX_KEY + 1));
        let odd = ActorId::new("cart", None, "a\nb");
        assert!(too_long.check().is_err() && odd.check().is_err());
        assert!(ActorId::new("cart", None, "ä b").check().is_ok());
    }
}
