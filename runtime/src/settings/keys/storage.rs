//! The hot store.

use super::{GIB, KIB, MIB, SECOND, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{bytes, count, millis};

pub(super) const STORAGE: Section = Section {
    name: "storage",
    what: "The hot store: its queue before each write, and RocksDB below it.",
    keys: &[
        Key::new(
            "storage.max_waiting",
            count(1, 1_000_000, "batches"),
            field!(hot.max_waiting),
            "Batches that may wait to be written or synced.",
        ),
        Key::new(
            "storage.max_waiting_bytes",
            bytes(MIB, 4 * GIB),
            field!(hot.max_waiting_bytes),
            "Bytes of batches that may wait to be written or synced; also the largest batch.",
        ),
        Key::new(
            "storage.max_group_bytes",
            bytes(64 * KIB, GIB),
            field!(hot.max_group_bytes),
            "Bytes after which one write takes no further batch.",
        ),
        Key::new(
            "storage.pressure_age",
            millis(10, 10 * SECOND),
            field!(hot.pressure_age),
            "How old RocksDB's word on its pressure may be.",
        ),
        Key::new(
            "storage.retry_after",
            millis(1, 10 * SECOND),
            field!(hot.retry_after),
            "When a refused caller is told to try again.",
        ),
        Key::new(
            "storage.slow_by",
            millis(0, 10 * SECOND),
            field!(hot.slow_by),
            "How long each put into a keyspace waits while the store's pressure is yellow. From orange on they are refused.",
        ),
        Key::new(
            "storage.block_cache",
            bytes(MIB, 1_024 * GIB),
            field!(rocks.block_cache_bytes),
            "The cache of blocks of tables, for all families together.",
        ),
        Key::new(
            "storage.memtable",
            bytes(MIB, GIB),
            field!(rocks.memtable_bytes),
            "Memory tables of one family, before they are written to disk.",
        ),
        Key::new(
            "storage.write_ahead_log",
            bytes(MIB, 64 * GIB),
            field!(rocks.log_bytes),
            "The write-ahead log, before the oldest family is written to disk. All of it is read at each start.",
        ),
        Key::new(
            "storage.verify_at_open",
            bytes(0, 1_024 * GIB),
            field!(rocks.verify_bytes),
            "At a start all blocks of all tables are read and checked if the tables are no larger than this, which takes about 3 s a GiB; of larger ones the footers and indexes are, and each block when it is read.",
        ),
    ],
};
