//! Every key there is, declared once: from here come parsing, checks, `rhumb config show`, and
//! `docs/settings.md`. The built-in values are those of the rooms' own `Default`s.

mod audit;
mod delivery;
mod escrow;
mod node;
mod ranges;
mod resilience;
mod storage;
mod telemetry;
mod transport;

use super::key::Key;
use super::kind::Kind;

/// A section of the settings: its keys, in the order of the reference.
#[derive(Clone, Copy)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) keys: &'static [Key],
}

/// All sections, in the order of the reference.
pub(super) static SECTIONS: &[Section] = &[
    node::MESH,
    node::NODES,
    node::IDENTITY,
    node::POLICY,
    node::LOG,
    node::CLOCK,
    node::SUPERVISOR,
    transport::TRANSPORT,
    resilience::RESILIENCE,
    escrow::ESCROW,
    delivery::DELIVERY,
    storage::STORAGE,
    ranges::RANGES,
    audit::AUDIT,
    telemetry::TELEMETRY,
];

/// The keys of these sections.
pub(super) fn keys(sections: &'static [Section]) -> impl Iterator<Item = &'static Key> {
    sections.iter().flat_map(|section| section.keys)
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const ADDRESS: Kind = Kind::Text { form: "an IP address and a port", example: "10.0.0.1:7001" };

/// A key's field, by its path in the draft.
macro_rules! field {
    ($($at:ident).+) => {
        Field {
            get: |draft| Held::get(&draft.$($at).+),
            set: |draft, _, value| Held::set(&mut draft.$($at).+, value),
        }
    };
}
use field;
