//! Orders that count once a key, and a warehouse that is told of each for sure, also while its region is cut off.

use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "example.Place", class = "control", reply = u32, key = order)]
struct Place {
    order: String,
}

#[remote(name = "example.Ship", class = "control", reply = ())]
struct Ship {
    order: String,
}

#[remote(name = "example.Shipped", class = "control", reply = Vec<String>, idempotent)]
struct Shipped;

struct Desk {
    placed: u32,
}

#[remote_actor(name = "example.desk", class = "control", accepts(Place))]
impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Place> for Desk {
    type Result = Reply<u32>;

    fn handle(&mut self, place: Place, _: &mut Context<Self>) -> Self::Result {
        self.placed += 1;
        let (placed, call) = (self.placed, call().expect("a handler is called"));
        Reply::later(async move {
            // The row, the letter and the answer are durable together, or none of them is.
            call.put("placed", placed.to_be_bytes()).expect("it has a key");
            let eu = "eu-west".parse().expect("a region");
            let warehouse = call.mesh().actor_in::<Warehouse>(&eu, "1");
            warehouse.tell(Ship { order: place.order }).durably().await.expect("there is room");
            placed
        })
    }
}

struct Warehouse(Vec<String>);

#[remote_actor(name = "example.warehouse", class = "control", accepts(Ship, Shipped))]
impl Actor for Warehouse {
    type Context = Context<Self>;
}

impl Handler<Ship> for Warehouse {
    type Result = ();

    fn handle(&mut self, ship: Ship, _: &mut Context<Self>) {
        self.0.push(ship.order);
        let row = self.0.join(" ");
        call().expect("a handler is called").put("shipped", row).expect("it was told durably");
    }
}

impl Handler<Shipped> for Warehouse {
    type Result = Vec<String>;

    fn handle(&mut self, _: Shipped, _: &mut Context<Self>) -> Vec<String> {
        self.0.clone()
    }
}

fn desks() -> Host<Desk> {
    Host::new(|at: &Activation| {
        // As its last answered call left it, whatever has become of its node since.
        let rows = at.rows().expect("the store answers");
        let placed = rows.get(&b"placed"[..]).and_then(|row| row.as_slice().try_into().ok());
        Desk { placed: placed.map_or(0, u32::from_be_bytes) }
    })
}

fn main() -> anyhow::Result<()> {
    run(async {
        let warehouses = Host::new(|at: &Activation| {
            let rows = at.rows().expect("the store answers");
            let shipped = rows.get(&b"shipped"[..]).map(|row| String::from_utf8_lossy(row));
            Warehouse(shipped.iter().flat_map(|orders| orders.split(' ')).map(str::to_owned).collect())
        });
        let mesh = TestMesh::of(["us-east", "eu-west"]).host(desks()).host(warehouses).start().await?;
        let desk = mesh.at("us-east").actor_in::<Desk>(&"us-east".parse()?, "1");
        mesh.cut("us-east", "eu-west");
        for order in ["tea", "milk", "tea"] {
            let placed = desk.ask(Place { order: order.into() }).await?;
            println!("{order}: {placed} placed");
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        mesh.heal("us-east", "eu-west");
        mesh.reachable("us-east", "eu-west").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let warehouse = mesh.at("us-east").actor_in::<Warehouse>(&"eu-west".parse()?, "1");
        println!("an hour later, healed: {:?} shipped", warehouse.ask(Shipped).await?);
        Ok(())
    })
}
