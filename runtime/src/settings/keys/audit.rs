//! The audit log: where its keys are, when checkpoints are made, and who must have cosigned them.

use super::{DAY, HOUR, SECOND, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, count, millis};

pub(super) const AUDIT: Section = Section {
    name: "audit",
    what: "The audit log of each node.",
    keys: &[
        Key::new(
            "audit.keys",
            Kind::Text { form: "a folder", example: "/etc/rhumb/audit-keys" },
            field!(audit_keys),
            "The folder of the keys that wrap subjects' keys, with a folder in it for each node; `audit-keys` beside \
             `nodes.*.identity` unless given. It is never below the data directory, and belongs into no copy of it: \
             erasing a subject destroys a key here. A relative path begins at the settings' folder.",
        ),
        Key::new(
            "audit.interval",
            millis(10, HOUR),
            field!(audit.log.interval),
            "The time between two checkpoints while entries come.",
        ),
        Key::new(
            "audit.ask_again",
            millis(100, HOUR),
            field!(audit.log.ask_again),
            "The time after which a log witness that has not answered is asked again.",
        ),
        Key::new(
            "audit.quorum",
            count(0, 64, "regions"),
            field!(audit.quorum),
            "In how many other regions a node must have cosigned before a checkpoint counts as published; in all \
             others where there are fewer.",
        ),
        Key::new(
            "audit.max_subjects",
            count(1, 100_000_000, "subjects"),
            field!(audit.max_subjects),
            "Subjects whose keys a node keeps, in memory too: some 300 bytes each. Records about further ones are \
             refused.",
        ),
        Key::new(
            "audit.retention",
            millis(DAY, 36_525 * DAY),
            field!(audit.log.retention),
            "How old an entry is before it is pruned: seven years unless set. It goes with its record when the published \
             checkpoint is of it and every log witness has cosigned that, in whole bundles of 256, and cannot be had back.",
        ),
        Key::new(
            "audit.check_every",
            millis(SECOND / 10, HOUR),
            field!(audit.check_every),
            "The time between two bundles of 256 entries that are hashed again and compared in the background.",
        ),
    ],
};
