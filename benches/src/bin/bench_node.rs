//! A node that hosts the actor of this bench: `bench-node serve --config DIR --region R`, as
//! `rhumb serve` is used.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use rhumb::prelude::*;
use rhumb_benches::inside;
use rhumb_benches::protocol::{Apart, Arrived, Echo, Echoes, Note};

/// As the program `rhumb` has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

macro_rules! echoes {
    ($($actor:ident serves $protocol:ident;)*) => { $(
        #[derive(Default)]
        struct $actor {
            arrived: u64,
        }

        #[remote_actor(serves = $protocol)]
        impl Actor for $actor {
            type Context = Context<Self>;
        }

        impl Handler<Echo> for $actor {
            type Result = Reply<Blob>;

            fn handle(&mut self, echo: Echo, _: &mut Context<Self>) -> Self::Result {
                Reply::ready(echo.body)
            }
        }

        impl Handler<Note> for $actor {
            type Result = Reply<()>;

            fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Self::Result {
                self.arrived += 1;
                Reply::ready(())
            }
        }

        impl Handler<Arrived> for $actor {
            type Result = Reply<u64>;

            fn handle(&mut self, _: Arrived, _: &mut Context<Self>) -> Self::Result {
                Reply::ready(self.arrived)
            }
        }
    )* };
}
echoes! {
    BesideLinks serves Echoes;
    OnItsOwn serves Apart;
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let echoes = Host::new(|_: &Activation| BesideLinks::default()).beside_links();
    let apart = Host::new(|_: &Activation| OnItsOwn::default());
    runtime.block_on(rhumb::cli::serve::node_program(|node| {
        inside::rhumb::hosted(node.host(echoes).host(apart))
    }))
}
