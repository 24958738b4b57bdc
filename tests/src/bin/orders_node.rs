//! A node that hosts the shop of the tests of delivery.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    use rhumb_tests::orders::{desks, warehouses};
    rhumb::cli::serve::node_program(|node| node.host(desks()).host(warehouses())).await
}
