//! The name of an actor: its type, its key, and whether it must live in one region.

use std::fmt;
use std::sync::Arc;

use rhumb_core::{Fault, FaultKind, Region};
use sha2::{Digest, Sha256};

/// What stands before a key when it is hashed.
const DOMAIN: &str = "rhumb-actor-v1\n";

/// How the keys of equal actors begin: no key of an address does.
const EQUAL: char = '\u{1}';

/// Bytes that a key may have.
pub const MAX_KEY: usize = 200;

/// Which actor, wherever it may live. As text `cart/42`, or `cart@eu-west/42` for one that lives
/// strictly in a region. The key of a singleton is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The name without the key, for what travels or is written without the class of the key.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown { kind: self.kind, region: self.region.clone(), tag: tag(self.kind, &self.key) }
    }

    /// The name as text, with the key, as an envelope says it.
    pub(crate) fn target(&self) -> String {
        if self.is_equal() {
            return format!("{}?", self.kind);
        }
        let region = self.region.as_ref().map(Region::as_str);
        let bytes = self.kind.len() + region.map_or(0, |region| 1 + region.len()) + 1 + self.key.len();
        let mut text = String::with_capacity(bytes);
        text.push_str(self.kind);
        for part in region.iter().flat_map(|region| ["@", *region]).chain(["/", &*self.key]) {
            text.push_str(part);
        }
        text
    }

    /// One of the equal actors of a type on whichever node, of which there is no other name: no address can have this
    /// key.
    pub(crate) fn equal(kind: &'static str, number: Option<usize>) -> Self {
        let number = number.map_or_else(String::new, |number| number.to_string());
        Self::new(kind, None, &format!("{EQUAL}{number}"))
    }

    /// Whether it is one of those.
    pub(crate) fn is_equal(&self) -> bool {
        self.key.starts_with(EQUAL)
    }

    /// Whether the key can be one.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.key.len() <= MAX_KEY && !self.key.chars().any(char::is_control) {
            return Ok(());
        }
        let why = format!("a key of {} is at most {MAX_KEY} bytes without control characters", self.kind);
        Err(Fault::not_sent(FaultKind::NotHosted(why)))
    }
}

/// The first 64 bits of the SHA-256 of a key, in its type.
fn tag(kind: &str, key: &str) -> u64 {
    let mut hash = Sha256::new_with_prefix(DOMAIN);
    for part in [kind, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let first = hash.finalize()[..8].try_into().expect("a SHA-256 has 32 bytes");
    u64::from_be_bytes(first)
}

/// An actor's name with a number in place of its key, as `cart#0d1f…` or `cart@eu-west#0d1f…`: the same
/// on every node. A key may be data (an address, a person's number), and faults, logs, the chain of
/// callers and the question where an actor lives travel without its class. The number does not give the
/// key back; who guesses a key can see whether it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shown {
    pub(crate) kind: &'static str,
    pub(crate) region: Option<Region>,
    pub(crate) tag: u64,
}

impl Shown {
    /// What follows from the key, as text.
    pub(crate) fn tag(&self) -> String {
        format!("{:016x}", self.tag)
    }

    /// Reads one: the type, the region if there is one, and the number.
    pub(crate) fn parse(text: &str) -> Option<(&str, Option<&str>, u64)> {
        let (head, tag) = text.split_once('#')?;
        let tag = (tag.len() == 16).then(|| u64::from_str_radix(tag, 16).ok())??;
        let (kind, region) = head.split_once('@').map_or((head, None), |(kind, region)| (kind, Some(region)));
        Some((kind, region, tag))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{}@{region}#{:016x}", self.kind, self.tag),
            None => write!(f, "{}#{:016x}", self.kind, self.tag),
        }
    }
}

/// As [`ActorId::shown`]: what is printed for people who look for a fault goes into logs.
impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({})", self.shown())
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target())
    }
}

/// Whom a request is for, as the envelope says it: one actor, (`cart*`) all of a type that are awake on
/// the node, or (`cart?`) any of the equal ones there.
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
    Any,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if let Some(kind) = text.strip_suffix('*')
            && !kind.contains('/')
        {
            return Some(Self { kind, region: None, whom: Whom::All });
        }
        if let Some(kind) = text.strip_suffix('?')
            && !kind.contains('/')
        {
            return Some(Self { kind, region: None, whom: Whom::Any });
        }
        let (head, key) = text.split_once('/')?;
        let (kind, region) = head.split_once('@').map_or((head, None), |(kind, region)| (kind, Some(region)));
        Some(Self { kind, region, whom: Whom::One(key) })
    }

    /// As it is written where the key must not be: see [`ActorId::shown`].
    pub(crate) fn shown(&self) -> String {
        let region = self.region.map(|region| format!("@{region}")).unwrap_or_default();
        match self.whom {
            Whom::One(key) => format!("{}{region}#{:016x}", self.kind, tag(self.kind, key)),
            Whom::All => format!("{}*", self.kind),
            Whom::Any => format!("{}?", self.kind),
        }
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
            let text = id.to_string();
            let target = Target::parse(&text).expect("a target");
            let region = target.region.map(|region| Region::new(region).expect("valid"));
            let Whom::One(key) = target.whom else { panic!("{text}") };
            assert_eq!((target.kind, ActorId::new("cart", region, key)), ("cart", id));
        }
        assert_eq!(Target::parse(&Target::all("cart")).map(|t| t.whom), Some(Whom::All));
        let any = ActorId::equal("cart", Some(3));
        assert!(any.check().is_err(), "it is no address");
        assert_eq!(Target::parse(&any.to_string()).map(|t| t.whom), Some(Whom::Any));
        assert_eq!(Target::parse("nothing"), None);
    }

    #[test]
    fn an_actor_is_shown_without_its_key_and_the_same_in_every_build() {
        let eu = Region::new("eu-west").expect("valid");
        let shown = |kind, region, key| ActorId::new(kind, region, key).shown().to_string();
        assert_eq!(shown("cart", None, "42"), "cart#7c617b2c883ffa3a");
        assert_eq!(shown("cart", Some(eu), "42"), "cart@eu-west#7c617b2c883ffa3a");
        for (target, as_shown) in [
            ("cart/42", "cart#7c617b2c883ffa3a"),
            ("cart@eu-west/42", "cart@eu-west#7c617b2c883ffa3a"),
            ("cart*", "cart*"),
            ("cart?", "cart?"),
        ] {
            assert_eq!(Target::parse(target).expect("a target").shown(), as_shown);
        }
        let all = [shown("cart", None, "43"), shown("car", None, "t42"), shown("cart", None, "")];
        let parsed = Shown::parse("cart@eu-west#00000000000000ff");
        assert_eq!(parsed, Some(("cart", Some("eu-west"), 255)));
        assert_eq!(Shown::parse("cart#ff"), None);
        assert!(all.iter().all(|other| *other != shown("cart", None, "42")), "{all:?}");
    }

    #[test]
    fn a_key_that_cannot_be_one_is_refused() {
        let too_long = ActorId::new("cart", None, &"x".repeat(MAX_KEY + 1));
        let odd = ActorId::new("cart", None, "a\nb");
        assert!(too_long.check().is_err() && odd.check().is_err());
        assert!(ActorId::new("cart", None, "ä b").check().is_ok());
    }
}
