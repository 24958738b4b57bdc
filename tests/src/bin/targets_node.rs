//! A node that hosts what hostile bytes are aimed at.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rhumb::cli::serve::node_program(|node| node.host(rhumb_tests::targets::targets())).await
}
