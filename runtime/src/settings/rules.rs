//! What must hold between keys.
//!
//! * It decides: whether values that are each right go together.
//! * It never does: judge by a value that is faulty itself: such a rule is left out.

use std::fmt;

use rhumb_core::NodeId;

use super::draft::Draft;
use super::key::Key;
use super::keys::{SECTIONS, keys};
use super::kind::Value;
use super::units::size_text;

/// A rule between keys.
pub(super) enum Rule {
    /// So many times one key is at most, or less than, another.
    Order { times: u32, small: &'static str, less: bool, large: &'static str, why: &'static str },
    /// Anything else: what is wrong, if something is.
    Other { keys: &'static [&'static str], says: &'static str, broken: fn(&Draft, &NodeId) -> Option<String> },
}

const fn at_most(small: &'static str, large: &'static str, why: &'static str) -> Rule {
    Rule::Order { times: 1, small, less: false, large, why }
}

const fn less(small: &'static str, large: &'static str, why: &'static str) -> Rule {
    Rule::Order { times: 1, small, less: true, large, why }
}

/// All rules. A key without its last part stands for every key below it.
pub(super) static RULES: &[Rule] = &[
    Rule::Other {
        keys: &["mesh.founding"],
        says: "`mesh.founding` has the node itself, and at most 64 nodes",
        broken: |draft, me| match draft.founders() {
            Err(wrong) => Some(wrong),
            Ok(founding) if founding.contains(me) => None,
            Ok(founding) => Some(format!(
                "mesh.founding does not list this node, {me} (`nodes.{}` of {}.toml, unless --node says which): it \
                 lists {founding}",
                me.name, me.region
            )),
        },
    },
    Rule::Other {
        keys: &["nodes.*.dial", "mesh.founding"],
        says: "`nodes.NODE.dial` has other nodes of `mesh.founding`",
        broken: |draft, me| {
            let stranger =
                draft.dial.keys().find(|node| *node == me || !draft.founding.contains_key(node))?;
            Some(format!(
                "nodes.{}.dial: {stranger} is no peer; expected REGION/NODE of mesh.founding",
                me.name
            ))
        },
    },
    Rule::Other {
        keys: &["audit.keys", "nodes.*.data"],
        says: "`audit.keys` is not below `nodes.NODE.data`: a copy of the one must not have the other",
        broken: |draft, _| {
            let (keys, data) = (draft.audit_keys.as_ref()?, draft.data.as_ref()?);
            keys.starts_with(data).then(|| {
                format!(
                    "audit.keys is {} and lies below the data directory {}: expected a folder elsewhere",
                    keys.display(),
                    data.display()
                )
            })
        },
    },
    Rule::Other {
        keys: &["clock.sources"],
        says: "`clock.sources` names each server once, 16 at most: two voices of one are not two that agree",
        broken: |draft, _| {
            let sources = &draft.time.sources;
            let twice = sources.iter().enumerate().find(|(at, source)| sources[..*at].contains(source));
            match twice {
                Some((_, source)) => Some(format!("clock.sources names {} twice", source.as_str())),
                None if sources.len() > 16 => {
                    Some(format!("clock.sources names {} servers, expected 16 at most", sources.len()))
                }
                None => None,
            }
        },
    },
    Rule::Other {
        keys: &["transport.connection_window", "transport.lanes", "transport.stream_window"],
        says: "(`transport.lanes` + 2) × `transport.stream_window` ≤ `transport.connection_window`: no \
               stalled lane stops the others",
        broken: |Draft { transport, .. }, _| {
            let needed = (u64::from(transport.lanes) + 2) * u64::from(transport.stream_window);
            let window = u64::from(transport.connection_window);
            (needed > window).then(|| {
                format!(
                    "transport.connection_window is \"{}\" and must be at least (transport.lanes + 2) × \
                     transport.stream_window, which is \"{}\"",
                    size_text(window),
                    size_text(needed)
                )
            })
        },
    },
    at_most("transport.max_frame", "transport.max_large_frame", ""),
    Rule::Order {
        times: 3,
        small: "transport.probe_interval",
        less: false,
        large: "transport.silence_limit",
        why: "one lost probe is no silence",
    },
    less("transport.silence_limit", "transport.idle_timeout", "calls fail before the connection goes"),
    at_most("transport.connect_backoff_min", "transport.connect_backoff_max", ""),
    Rule::Order {
        times: 2,
        small: "mesh.max_offset",
        less: false,
        large: "ranges.support",
        why: "a leaseholder stops serving so much before its support ends",
    },
    at_most("escrow.low_water", "escrow.horizon", "who has just got rights does not ask again"),
    at_most("escrow.low_water", "escrow.high_water", "who gives is not in need"),
    at_most("escrow.season_slot", "escrow.season", ""),
    at_most("escrow.ask_spacing", "escrow.plan_spacing", "who waits is not looked at less often"),
    less("escrow.gossip", "escrow.fresh", "figures that are told in time are believed"),
    at_most("escrow.tail_gossip", "escrow.gossip", ""),
    at_most("escrow.gossip", "escrow.idle_gossip", ""),
    at_most("storage.max_group_bytes", "storage.max_waiting_bytes", ""),
];

impl Rule {
    /// The keys that it is about; `*` stands for the node that is looked at.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        match self {
            Self::Order { small, large, .. } => vec![large, small],
            Self::Other { keys, .. } => keys.to_vec(),
        }
    }

    /// What is wrong, and what would be right.
    pub(super) fn broken(&self, draft: &Draft, me: &NodeId) -> Option<String> {
        let (times, small, less, large) = match self {
            Self::Order { times, small, less, large, .. } => (*times, small, *less, large),
            Self::Other { broken, .. } => return broken(draft, me),
        };
        let ((small, low), (large, high)) = (value(draft, small)?, value(draft, large)?);
        let measured = measure(&low)? * u128::from(times);
        let holds = if less { measured < measure(&high)? } else { measured <= measure(&high)? };
        let than = if less { "more than" } else { "at least" };
        let times = times_text(times);
        (!holds).then(|| {
            let (low, high) = (small.kind.show(&low), large.kind.show(&high));
            format!("{} is {high} and must be {than} {times}{}, which is {low}", large.name, small.name)
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { says, .. } => f.write_str(says),
            Self::Order { times, small, less, large, why } => {
                let sign = if *less { '<' } else { '≤' };
                write!(f, "{}`{small}` {sign} `{large}`", times_text(*times))?;
                if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
            }
        }
    }
}

fn times_text(times: u32) -> String {
    if times == 1 { String::new() } else { format!("{times} × ") }
}

fn value(draft: &Draft, name: &str) -> Option<(&'static Key, Value)> {
    let key = keys(SECTIONS).find(|key| key.name == name)?;
    Some((key, (key.field.get)(draft)?))
}

fn measure(value: &Value) -> Option<u128> {
    match value {
        Value::Number(number) => Some(u128::from(*number)),
        Value::Span(span) => Some(span.as_millis()),
        Value::Text(_) | Value::Texts(_) => None,
    }
}
