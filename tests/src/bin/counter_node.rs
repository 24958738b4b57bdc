//! A node that hosts the counter of the tests of actors that move, and a clerk who reaches its keyspaces.

use std::process::ExitCode;

use rhumb_tests::clerk::clerks;
use rhumb_tests::counter::counters;

#[tokio::main]
async fn main() -> ExitCode {
    rhumb::cli::serve::node_program(|node| node.host(counters()).host(clerks())).await
}
