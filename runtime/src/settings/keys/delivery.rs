//! Idempotency keys, letters and dead letters.

use super::{DAY, GIB, HOUR, MIB, MINUTE, SECOND, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{bytes, count, millis};

pub(super) const DELIVERY: Section = Section {
    name: "delivery",
    what: "Asks that run once a key, tells that arrive for sure, and dead letters.",
    keys: &[
        Key::new(
            "delivery.keys",
            count(1, 10_000_000, "keys"),
            field!(delivery.keys),
            "Idempotency keys that are kept or run. Further ones are refused; one program has at most a quarter.",
        ),
        Key::new(
            "delivery.key_bytes",
            bytes(MIB, 64 * GIB),
            field!(delivery.key_bytes),
            "Bytes of their answers, in memory and on disk. An answer for which there is no room is not kept: its key is, \
             and whoever asks again is told so.",
        ),
        Key::new(
            "delivery.keys_kept",
            millis(MINUTE, 365 * DAY),
            field!(delivery.keys_kept),
            "How long a key is kept after it was answered. Later it runs again: nobody may retry for longer.",
        ),
        Key::new(
            "delivery.letters",
            count(1, 50_000, "letters"),
            field!(delivery.letters),
            "Letters that may wait for one node. Further ones are refused.",
        ),
        Key::new(
            "delivery.letter_bytes",
            bytes(MIB, 16 * GIB),
            field!(delivery.letter_bytes),
            "Bytes of letters that may wait for one node, in memory and on disk.",
        ),
        Key::new(
            "delivery.letters_kept",
            millis(MINUTE, 365 * DAY),
            field!(delivery.letters_kept),
            "A letter that is older becomes a dead letter.",
        ),
        Key::new(
            "delivery.attempts",
            count(1, 1_000, "attempts"),
            field!(delivery.attempts),
            "A letter whose handler has panicked or not answered so often becomes a dead letter.",
        ),
        Key::new(
            "delivery.retry",
            millis(10, MINUTE),
            field!(delivery.retry),
            "The wait after a letter's first failure; it doubles with each further one.",
        ),
        Key::new(
            "delivery.longest_retry",
            millis(SECOND, HOUR),
            field!(delivery.longest_retry),
            "The longest wait between two attempts.",
        ),
        Key::new(
            "delivery.dead_letters",
            count(1, 1_000_000, "letters"),
            field!(delivery.dead),
            "Dead letters that are kept. None is dropped by itself: when the queue is full, what cannot be delivered \
             holds up its channel.",
        ),
        Key::new(
            "delivery.dead_letter_bytes",
            bytes(MIB, 16 * GIB),
            field!(delivery.dead_bytes),
            "Bytes of them.",
        ),
    ],
};
