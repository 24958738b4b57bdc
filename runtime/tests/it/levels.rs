//! What a message rests on goes with it, and a handler that requires more does not run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rhumb::consistent::{Snapshot, StrictSerializable};
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

/// Charges what is owed. Nobody is charged by what a balance was.
#[remote(name = "test.Charge", class = "control", reply = String, requires = "snapshot", idempotent)]
struct Charge {
    cents: u64,
}

/// Has a shop charge, by a price that it has read so.
#[remote(name = "test.Sell", class = "control", reply = String)]
struct Sell {
    till: MeshAddr<Till>,
    read: u8,
    said: Option<u8>,
    tell: bool,
}

struct Till {
    ran: Arc<AtomicU32>,
}

#[remote_actor(name = "test.till", class = "control", accepts(Charge))]
impl Actor for Till {
    type Context = Context<Self>;
}

impl Handler<Charge> for Till {
    type Result = String;

    fn handle(&mut self, charge: Charge, _: &mut Context<Self>) -> String {
        self.ran.fetch_add(1, Ordering::SeqCst);
        let rests_on = call().expect("a handler has a call").guarantee();
        // What a message carries is as good as its sender says, and no better.
        let cents = Consistent::<_, Snapshot>::at_least(charge.cents, rests_on).expect("it was checked");
        let strong = Consistent::<_, StrictSerializable>::at_least(charge.cents, rests_on);
        format!("{} charged by {rests_on}, strongly: {}", cents.into_value(), strong.is_ok())
    }
}

struct Shop;

#[remote_actor(name = "test.shop", class = "control", accepts(Sell))]
impl Actor for Shop {
    type Context = Context<Self>;
}

fn level(number: u8) -> Guarantee {
    Guarantee::ALL[usize::from(number)]
}

impl Handler<Sell> for Shop {
    type Result = Reply<String>;

    fn handle(&mut self, sell: Sell, _: &mut Context<Self>) -> Self::Result {
        let till = sell.till;
        Reply::later(async move {
            let here = call().expect("a handler has a call");
            if sell.tell {
                // Two tells that would share a head, and between them the call reads something.
                let mut teller = till.teller();
                teller.tell(Charge { cents: 1 }).await.expect("on its way");
                here.rests_on(level(sell.read));
                let second = teller.tell(Charge { cents: 2 }).await.expect_err("it is too weak");
                return format!("{} taken, then: {second}", teller.close().await.taken);
            }
            here.rests_on(level(sell.read));
            let charge = Charge { cents: 300 };
            let ask = till.ask(charge);
            let ask = match sell.said {
                Some(said) => ask.resting_on(level(said)),
                None => ask,
            };
            ask.await.unwrap_or_else(|fault| fault.to_string())
        })
    }
}

/// What an older build says, which knows of no requirement.
mod older {
    use rhumb::prelude::*;

    #[remote(name = "test.Charge", class = "control", reply = String, idempotent)]
    pub(super) struct Charge {
        pub(super) cents: u64,
    }

    protocol! {
        pub(super) Tills = "test.till", class "control": Charge;
    }
}

struct World {
    mesh: TestMesh,
    till: MeshAddr<Till>,
    ran: Arc<AtomicU32>,
}

impl World {
    /// The shop is in `us`, and the till where it is said.
    async fn with_till_in(region: &str) -> Self {
        let ran = Arc::new(AtomicU32::new(0));
        let counts = Arc::clone(&ran);
        let till = Host::new(move |_: &Activation| Till { ran: Arc::clone(&counts) });
        let shop = Host::new(|_: &Activation| Shop);
        let mesh = TestMesh::of(["us", "eu"]).host(till).host(shop).start().await.expect("it starts");
        let till = mesh.at("us").actor_in(&region.parse().expect("a region"), "till");
        Self { mesh, till, ran }
    }

    async fn sell(&self, read: u8, said: Option<u8>, tell: bool) -> String {
        let sell = Sell { till: self.till.clone(), read, said, tell };
        let shop = self.mesh.at("us").actor_in::<Shop>(&"us".parse().expect("a region"), "shop");
        shop.ask(sell).within(Duration::from_secs(2)).await.expect("answered")
    }

    fn ran(&self) -> u32 {
        self.ran.load(Ordering::SeqCst)
    }
}

const EVENTUAL: u8 = 0;
const SNAPSHOT: u8 = 2;
const STRONGEST: u8 = 4;

#[test]
fn what_a_call_has_read_goes_with_what_it_asks_and_the_handler_does_not_run_by_less_than_it_requires() {
    run(async {
        for region in ["us", "eu"] {
            let world = World::with_till_in(region).await;
            assert_eq!(
                world.sell(STRONGEST, None, false).await,
                "300 charged by strict serializable, strongly: true",
                "{region}"
            );
            assert_eq!(
                world.sell(SNAPSHOT, None, false).await,
                "300 charged by snapshot, strongly: false",
                "{region}"
            );
            assert_eq!(world.ran(), 2, "{region}");
            let refused = "the guarantee achieved is eventual, required is snapshot (outcome: not sent)";
            assert_eq!(world.sell(EVENTUAL, None, false).await, refused, "{region}");
            assert_eq!(world.sell(STRONGEST, Some(EVENTUAL), false).await, refused, "{region}");
            let tells = format!("1 taken, then: {refused}");
            assert_eq!(world.sell(EVENTUAL, None, true).await, tells, "{region}");
            // Time passes when nothing else can be done: what was taken has been handled.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(world.ran(), 3, "{region}: no handler ran by what was too weak");
            // What was read again may be said to be better than what else the call has read.
            assert_eq!(
                world.sell(EVENTUAL, Some(STRONGEST), false).await,
                "300 charged by strict serializable, strongly: true",
                "{region}"
            );
        }
    });
}

#[test]
fn a_question_whose_answer_could_not_be_good_enough_is_not_sent() {
    run(async {
        let world = World::with_till_in("eu").await;
        let ask = world.till.ask(Charge { cents: 1 }).resting_on(Guarantee::Snapshot);
        let fault = ask.requiring(Guarantee::Serializable).await.expect_err("it is weaker");
        assert_eq!((fault.delivery(), world.ran()), (Delivery::NotSent, 0), "{fault}");
    });
}

#[test]
fn the_node_of_the_handler_asks_for_itself_whatever_its_caller_knows() {
    run(async {
        let world = World::with_till_in("eu").await;
        let till = world.mesh.at("us").actor_in::<older::Tills>(&"eu".parse().expect("a region"), "till");
        let ask = till.ask(older::Charge { cents: 1 }).resting_on(Guarantee::ReadCommitted);
        let fault = ask.await.expect_err("it is too weak");
        let (required, achieved) = (Guarantee::Snapshot, Guarantee::ReadCommitted);
        assert_eq!((fault.delivery(), world.ran()), (Delivery::NotSent, 0), "{fault}");
        assert_eq!(fault.kind, FaultKind::Guarantee { required, achieved });
        till.ask(older::Charge { cents: 1 }).await.expect("it rests on nothing weak");
        assert_eq!(world.ran(), 1);
    });
}
