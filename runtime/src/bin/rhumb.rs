//! The program `rhumb`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Faster than the C library's where many threads give back what others took, as here (docs/performance.md). RocksDB
/// allocates with it too. Who embeds the library has whichever they choose: the library names none.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    rhumb::cli::main()
}
