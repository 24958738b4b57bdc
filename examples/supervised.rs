//! A worker that panics: it is made anew with growing pauses, and when it panics too often, its parent
//! begins anew as well.

use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::TestMesh;

/// Divides a hundred. Nobody checks the divisor.
#[remote(name = "example.Divide", class = "control", reply = u32)]
struct Divide {
    by: u32,
}

struct Worker;

#[remote_actor(name = "example.worker", class = "control", accepts(Divide))]
impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Divide> for Worker {
    type Result = u32;

    fn handle(&mut self, divide: Divide, _: &mut Context<Self>) -> u32 {
        100 / divide.by
    }
}

/// How many workers' jobs the office has given out in this life.
#[remote(name = "example.Assign", class = "control", reply = u32)]
struct Assign;

#[derive(Default)]
struct Office {
    assigned: u32,
}

#[remote_actor(name = "example.office", class = "control", accepts(Assign))]
impl Actor for Office {
    type Context = Context<Self>;
}

impl Handler<Assign> for Office {
    type Result = u32;

    fn handle(&mut self, _: Assign, _: &mut Context<Self>) -> u32 {
        self.assigned += 1;
        self.assigned
    }
}

fn main() -> anyhow::Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    rhumb::testing::run(async {
        let restarts = Restarts { intensity: 2, rest: Duration::from_secs(5), ..Restarts::default() };
        // The worker `office-1/a` is a child of the office `office-1`.
        let office_of = |worker: &str| worker.split('/').next().unwrap_or_default().to_owned();
        let workers = Host::new(|_| Worker).restarts(restarts).child_of::<Office>(office_of);
        let offices = Host::new(|_| Office::default());
        let mesh = TestMesh::of(["us-east"]).host(workers).host(offices).start().await?;
        let (worker, office) = (
            mesh.at("us-east").actor::<Worker>("office-1/a"),
            mesh.at("us-east").actor::<Office>("office-1"),
        );

        office.ask(Assign).await?;
        println!("the office has assigned {} jobs", office.ask(Assign).await?);
        for by in [4, 0, 5, 0, 0] {
            match worker.ask(Divide { by }).await {
                Ok(share) => println!("100 / {by} = {share}"),
                Err(fault) => println!("100 / {by}: {fault}"),
            }
        }
        if let Err(fault) = worker.ask(Divide { by: 4 }).await {
            println!(
                "the worker rests: {} (again in {:?})",
                fault.kind,
                fault.retry_after.unwrap_or_default()
            );
        }
        println!("the office began anew: it has assigned {} job", office.ask(Assign).await?);
        tokio::time::sleep(Duration::from_secs(5)).await;
        println!("after its rest: 100 / 4 = {}", worker.ask(Divide { by: 4 }).await?);
        Ok(())
    })
}
