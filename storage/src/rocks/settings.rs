//! How RocksDB is set up.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, Options,
};

use crate::batch::Family;
use crate::engine::Pressure;

/// Sizes and thresholds of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksSettings {
    /// Bytes of the cache of blocks, shared by all families.
    pub block_cache_bytes: usize,
    /// Bytes of memory tables per family before they are written to disk.
    pub memtable_bytes: usize,
    /// Bytes of the log before the oldest family is written to disk.
    pub log_bytes: u64,
    /// On opening, all blocks of tables are read and their checksums checked if the tables have no
    /// more bytes than this; else only their footers and indexes are.
    pub verify_bytes: u64,
}

impl Default for RocksSettings {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            memtable_bytes: 16 << 20,
            log_bytes: 128 << 20,
            verify_bytes: 128 << 20,
        }
    }
}

/// Immutable memory tables above which writes stop.
const MEMTABLES: u64 = 4;
/// Files at level 0 at which RocksDB slows writes down, and stops them.
const L0_SLOWDOWN: u64 = 20;
const L0_STOP: u64 = 36;
/// Bytes of pending compaction at which RocksDB slows writes down, and stops them.
const PENDING_SOFT: u64 = 64 << 30;
const PENDING_HARD: u64 = 256 << 30;

impl RocksSettings {
    /// How hard a family with these properties is pressed: *yellow* halfway to where RocksDB slows
    /// down, *orange* where it does, *red* at four fifths of the way to where it stops.
    pub(super) fn pressure_of(&self, pending_bytes: u64, l0_files: u64, immutable: u64) -> Pressure {
        if pending_bytes >= PENDING_HARD / 5 * 4 || l0_files >= L0_STOP / 5 * 4 || immutable >= MEMTABLES {
            Pressure::Red
        } else if pending_bytes >= PENDING_SOFT || l0_files >= L0_SLOWDOWN || immutable >= MEMTABLES - 1 {
            Pressure::Orange
        } else if pending_bytes >= PENDING_SOFT / 2 || l0_files >= L0_SLOWDOWN / 5 * 3 || immutable >= 2 {
            Pressure::Yellow
        } else {
            Pressure::Green
        }
    }

    pub(super) fn options(&self, create: bool, recovery: DBRecoveryMode) -> Options {
        let mut options = Options::default();
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        options.set_error_if_exists(false);
        options.set_paranoid_checks(true);
        options.set_wal_recovery_mode(recovery);
        options.set_recycle_log_file_num(0);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_total_wal_size(self.log_bytes);
        options.set_enable_pipelined_write(true);
        options.set_max_open_files(-1);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(4 << 20);
        options.set_stats_dump_period_sec(0);
        options
    }

    pub(super) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.block_cache_bytes);
        // RocksDB insists on a family called `default`; nothing is ever put there.
        let names = std::iter::once("default").chain(Family::ALL.map(Family::name));
        names.map(|name| ColumnFamilyDescriptor::new(name, self.family_options(&cache))).collect()
    }

    fn family_options(&self, cache: &Cache) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(false);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.memtable_bytes);
        options.set_max_write_buffer_number(MEMTABLES as i32 + 1);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_level_zero_slowdown_writes_trigger(L0_SLOWDOWN as i32);
        options.set_level_zero_stop_writes_trigger(L0_STOP as i32);
        options.set_soft_pending_compaction_bytes_limit(PENDING_SOFT as usize);
        options.set_hard_pending_compaction_bytes_limit(PENDING_HARD as usize);
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_property_alone_raises_the_level() {
        let settings = RocksSettings::default();
        let levels = |f: &dyn Fn(u64) -> Pressure, at: [u64; 4]| at.map(f);
        let all = [Pressure::Green, Pressure::Yellow, Pressure::Orange, Pressure::Red];
        assert_eq!(levels(&|n| settings.pressure_of(0, n, 0), [11, 12, 20, 28]), all);
        assert_eq!(levels(&|n| settings.pressure_of(n << 30, 0, 0), [31, 32, 64, 205]), all);
        assert_eq!(levels(&|n| settings.pressure_of(0, 0, n), [1, 2, 3, 4]), all);
    }
}
