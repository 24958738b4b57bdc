//! A node that hosts the counter of the tests of actors that move.

use std::process::ExitCode;

use rhumb_tests::counter::counters;

#[tokio::main]
async fn main() -> ExitCode {
    rhumb::cli::serve::node_program(|node| node.host(counters())).await
}
