//! The program `rhumb`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rhumb::cli::main()
}
