//! A node that hosts the actors of this bench: `bench-node serve --config DIR --region R`, as
//! `rhumb serve` is used.

use std::process::ExitCode;

use rhumb::prelude::*;
use rhumb_benches::inside;
use rhumb_benches::protocol::{Echo, Echoes};

struct Echoer;

#[remote_actor(serves = Echoes)]
impl Actor for Echoer {
    type Context = Context<Self>;
}

impl Handler<Echo> for Echoer {
    type Result = Reply<Vec<u8>>;

    fn handle(&mut self, echo: Echo, _: &mut Context<Self>) -> Self::Result {
        Reply::ready(echo.body)
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let echoes = Host::new(|_: &Activation| Echoer);
    runtime.block_on(rhumb::cli::serve::node_program(|node| inside::rhumb::hosted(node.host(echoes))))
}
