//! A node that hosts the counter of the tests of actors that move. It writes the count as the client whose certificate is in the
//! folder `COUNTER_IDENTITY`, at the nodes `COUNTER_NODES` (`region/node=address`, with commas).

use std::path::Path;
use std::process::ExitCode;

use rhumb::client::MeshClient;
use rhumb_tests::counter::{counters, directory};

#[tokio::main]
async fn main() -> ExitCode {
    let said = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let client = MeshClient::new(Path::new(&said("COUNTER_IDENTITY")), directory(&said("COUNTER_NODES")));
    let counters = counters(client.expect("a client's certificate"));
    rhumb::cli::serve::node_program(|node| node.host(counters)).await
}
