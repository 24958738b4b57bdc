//! A shop of two actors in two regions, for tests of delivery: a desk that takes each order once, and tells a
//! warehouse of it for sure.

use std::time::Duration;

use rhumb::prelude::*;

/// Places an order: once a key, and the warehouse is told with it.
#[remote(name = "orders.Place", class = "inventory", reply = u32, key = order)]
pub struct Place {
    /// The order's key.
    pub order: String,
    /// What is told.
    pub number: u32,
}

/// Tells the warehouse what it has never heard of.
#[remote(name = "orders.Misplace", class = "inventory", reply = (), key = order)]
pub struct Misplace {
    /// The order's key.
    pub order: String,
}

/// Tells the warehouse of its own region, which takes its time.
#[remote(name = "orders.Stock", class = "inventory", reply = (), key = order)]
pub struct Stock {
    /// The order's key.
    pub order: String,
    /// What is told.
    pub number: u32,
}

/// Ships an order, at once or after a while.
#[remote(name = "orders.Ship", class = "inventory", reply = ())]
pub struct Ship {
    number: u32,
    slowly: bool,
}

/// How long it takes to ship slowly.
const SLOWLY: Duration = Duration::from_secs(2);

/// What no warehouse serves.
#[remote(name = "orders.Burn", class = "inventory", reply = ())]
pub struct Burn;

/// What was shipped, in order.
#[remote(name = "orders.Shipped", class = "inventory", reply = Vec<u32>, idempotent)]
pub struct Shipped;

protocol! {
    /// Where orders are placed.
    pub Desks = "orders.desk", class "inventory": Place, Misplace, Stock;
}

protocol! {
    /// Where they are shipped.
    pub Warehouses = "orders.warehouse", class "inventory": Ship, Shipped;
}

protocol! {
    /// A warehouse that knows more than there is.
    pub LaterWarehouses = "orders.warehouse", class "inventory": Ship, Shipped, Burn;
}

/// The desk.
pub struct Desk {
    placed: u32,
}

/// The warehouse.
pub struct Warehouse {
    shipped: Vec<u32>,
}

fn numbers(row: Option<&Vec<u8>>) -> Vec<u32> {
    let chunks = row.map(|row| row.chunks_exact(4)).into_iter().flatten();
    chunks.map(|number| u32::from_be_bytes([number[0], number[1], number[2], number[3]])).collect()
}

/// How desks are hosted.
#[must_use]
pub fn desks() -> Host<Desk> {
    Host::new(|at: &Activation| {
        let rows = at.rows().expect("the store answers");
        Desk { placed: numbers(rows.get(&b"placed"[..])).first().copied().unwrap_or(0) }
    })
}

/// How warehouses are hosted.
#[must_use]
pub fn warehouses() -> Host<Warehouse> {
    Host::new(|at: &Activation| {
        let rows = at.rows().expect("the store answers");
        Warehouse { shipped: numbers(rows.get(&b"shipped"[..])) }
    })
}

#[remote_actor(serves = Desks)]
impl Actor for Desk {
    type Context = Context<Self>;
}

#[remote_actor(serves = Warehouses)]
impl Actor for Warehouse {
    type Context = Context<Self>;
}

fn abroad<A: rhumb::__private::remote::Addressed>() -> MeshAddr<A> {
    let mesh = call().expect("it is called").mesh().clone();
    mesh.actor_in(&"eu-central".parse().expect("a region"), "1")
}

impl Handler<Place> for Desk {
    type Result = Reply<u32>;

    fn handle(&mut self, place: Place, _: &mut Context<Self>) -> Reply<u32> {
        self.placed += 1;
        let placed = self.placed;
        call().expect("it is called").put("placed", placed.to_be_bytes()).expect("it is kept");
        Reply::later(async move {
            let told =
                abroad::<Warehouses>().tell(Ship { number: place.number, slowly: false }).durably().await;
            told.expect("there is room");
            placed
        })
    }
}

impl Handler<Misplace> for Desk {
    type Result = Reply<()>;

    fn handle(&mut self, _: Misplace, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(async move {
            abroad::<LaterWarehouses>().tell(Burn).durably().await.expect("there is room");
        })
    }
}

impl Handler<Stock> for Desk {
    type Result = Reply<()>;

    fn handle(&mut self, stock: Stock, _: &mut Context<Self>) -> Reply<()> {
        let mesh = call().expect("it is called").mesh().clone();
        let own = mesh.actor_in::<Warehouses>(mesh.region(), "1");
        Reply::later(async move {
            own.tell(Ship { number: stock.number, slowly: true }).durably().await.expect("there is room");
        })
    }
}

impl Handler<Ship> for Warehouse {
    type Result = Reply<()>;

    fn handle(&mut self, ship: Ship, _: &mut Context<Self>) -> Reply<()> {
        self.shipped.push(ship.number);
        let row: Vec<u8> = self.shipped.iter().flat_map(|number| number.to_be_bytes()).collect();
        call().expect("it is called").put("shipped", row).expect("it is kept");
        Reply::later(async move {
            if ship.slowly {
                tokio::time::sleep(SLOWLY).await;
            }
        })
    }
}

impl Handler<Shipped> for Warehouse {
    type Result = Vec<u32>;

    fn handle(&mut self, _: Shipped, _: &mut Context<Self>) -> Vec<u32> {
        self.shipped.clone()
    }
}
