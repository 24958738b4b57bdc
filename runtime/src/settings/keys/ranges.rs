//! Ranges of keyspaces.

use super::{GIB, KIB, MINUTE, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, bytes, count, millis};

pub(super) const RANGES: Section = Section {
    name: "ranges",
    what: "Leases of ranges; when ranges are split, and their replicas compared and replaced, without being told to. Of leases, splits, comparisons and feeding each node goes by its own for the ranges whose leases it holds; of replicas the node that holds the lease of the meta range.",
    keys: &[
        Key::new(
            "ranges.support",
            millis(1_000, 2 * MINUTE),
            field!(support),
            "How long the leases of this node outlast the last word between it and a majority of their voters: when it dies, \
             others write after about as long. It asks thrice as often. Longer forgives longer pauses of networks, disks and \
             processes.",
        ),
        Key::new(
            "ranges.split_at",
            Kind::Off { or: &bytes(64 * KIB, 1_024 * GIB) },
            field!(splits.at),
            "A range with more bytes than this, keys and values of all versions, is split where they are halved. It is noticed when a sixteenth of this has been written.",
        ),
        Key::new(
            "ranges.split_load",
            Kind::Off { or: &count(50, 1_000_000, "requests a second") },
            field!(splits.load),
            "A range whose leaseholder is asked more often than this for ten seconds is split where its requests are halved, unless one key has most of them or most of them would be on both sides.",
        ),
        Key::new(
            "ranges.replace_after",
            Kind::Off { or: &millis(5_000, 30 * 24 * 3_600_000) },
            field!(replace_after),
            "A replica whose node has not been reached for so long is replaced, on another node that may hold its class, if there is one and most voters are there. `rhumb placement plan --keyspace` says what lacks a replica.",
        ),
        Key::new(
            "ranges.compare_every",
            Kind::Off { or: &millis(10_000, 30 * 24 * 3_600_000) },
            field!(compare_every),
            "How often all replicas of a range are hashed as they are after one command, and compared: one that differs from most voters is quarantined and rebuilt. Each reads all its rows for that, at 25 MiB/s at most. `rhumb range check` compares at once.",
        ),
        Key::new(
            "ranges.feeding",
            Kind::Choice(&["on", "off"]),
            field!(feeding),
            "Whether learners whose region is much nearer to another replica's than to the leader's get their entries from that one. A node goes by its own for the ranges that it leads.",
        ),
    ],
};
