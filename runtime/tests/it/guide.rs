//! What `docs/library.md` shows, compiled and run: its Rust stands here (or in `examples/`), line for
//! line, and `tests/tests/it/library.rs` compares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb::client::kv::{Kv, KvCondition, KvError, KvWritten};
use rhumb::mesh::Because;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};
use serde::{Deserialize, Serialize};

/// Puts so many of an article into a cart.
#[remote(
    name = "shop.Add",
    class = "inventory",
    reply = Result<Total, CartError>,
    idempotent,
    deadline = "500ms",
    key = order
)]
struct Add {
    order: String,
    article: String,
    quantity: u32,
    #[since(2)]
    engraving: Option<String>,
    #[since(3, may_drop)]
    hint: String,
}

/// What a cart comes to.
#[grows]
#[derive(Debug, PartialEq, Eq)]
struct Total {
    articles: u32,
    #[since(2, may_drop)]
    weight_grams: u64,
}

/// Why something does not go into a cart.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, Wire)]
enum CartError {
    NoSuchArticle,
    #[since(2)]
    Closed,
}

/// Asks a cart to let another one have what is in it.
#[remote(name = "shop.MergeInto", class = "inventory", reply = String)]
struct MergeInto {
    other: MeshAddr<Carts>,
}

/// Prices have changed: of several that wait, the newest is enough.
#[remote(name = "shop.Reprice", class = "inventory", reply = (), coalesce)]
struct Reprice;

protocol! {
    /// Carts, one for each customer.
    Carts = "shop.cart", class "inventory": Add, MergeInto, Reprice;
}

struct Cart {
    /// By order, so that an order that comes twice counts once.
    orders: BTreeMap<String, u32>,
}

#[remote_actor(serves = Carts, mailbox = 64, overflow = "coalesce")]
impl Actor for Cart {
    type Context = Context<Self>;
}

impl Handler<Add> for Cart {
    type Result = Result<Total, CartError>;

    fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Self::Result {
        if add.article.is_empty() {
            return Err(CartError::NoSuchArticle);
        }
        self.orders.insert(add.order, add.quantity);
        Ok(Total { articles: self.orders.values().sum(), weight_grams: 0 })
    }
}

impl Handler<MergeInto> for Cart {
    type Result = Reply<String>;

    fn handle(&mut self, merge: MergeInto, _: &mut Context<Self>) -> Self::Result {
        let orders = std::mem::take(&mut self.orders);
        Reply::later(async move {
            for (order, quantity) in orders {
                let add =
                    Add { order, article: "tea".into(), quantity, engraving: None, hint: String::new() };
                // Not longer than our own caller waits, and under no looser class.
                if let Err(fault) = merge.other.ask(add).await {
                    return fault.to_string();
                }
            }
            format!("merged into {}", merge.other)
        })
    }
}

impl Handler<Reprice> for Cart {
    type Result = ();

    fn handle(&mut self, _: Reprice, _: &mut Context<Self>) {}
}

fn carts() -> Host<Cart> {
    Host::new(|_: &Activation| Cart { orders: BTreeMap::new() })
        .idle(Duration::from_secs(600))
        .memory(256 << 20)
        .footprint(|cart| cart.orders.len() as u64 * 64)
        .restarts(Restarts { intensity: 3, ..Restarts::default() })
}

async fn addresses(mesh: &Mesh, eu: &Region) -> Result<(), Fault> {
    // One actor for the key, in whichever region the mesh puts it.
    let cart: MeshAddr<Carts> = mesh.actor("ada");
    // The only one of its type.
    let _: MeshAddr<Carts> = mesh.singleton();
    // Strictly in a region: another actor than the one above, and never elsewhere.
    let strict = mesh.actor_in::<Carts>(eu, "ada");
    // An address goes inside a message, and is asked from there.
    cart.ask(MergeInto { other: strict }).await?;
    // For code that was written for local actix.
    let _: Recipient<Reprice> = cart.recipient();
    Ok(())
}

/// Whether the article is in the cart now; nobody knows is an answer too.
async fn put(cart: &MeshAddr<Carts>, add: Add) -> Option<bool> {
    match cart.ask(add).within(Duration::from_millis(300)).await {
        Ok(Ok(_total)) => Some(true),
        // A refusal: the cart's own answer.
        Ok(Err(CartError::NoSuchArticle | CartError::Closed)) => Some(false),
        // A fault: what happened instead of an answer.
        Err(fault) => match fault.delivery() {
            Delivery::NotSent | Delivery::Ran => Some(false),
            Delivery::Unknown => None,
        },
    }
}

async fn reprice(mesh: &Mesh, cart: &MeshAddr<Carts>, regions: &[Region]) -> Result<u64, Fault> {
    // Returns when the mailbox has taken it; a full one says so, and when to come again.
    if let Err(Fault { kind: FaultKind::Full(_), retry_after, .. }) = cart.tell(Reprice).await {
        tokio::time::sleep(retry_after.unwrap_or_default()).await;
        cart.tell(Reprice).await?;
    }
    // To all carts that are awake in these regions; one answer a node.
    let outcomes = mesh.broadcast::<Carts, _>(regions, Reprice).await;
    Ok(outcomes.into_iter().filter_map(|node| node.outcome.ok()).map(|(taken, _)| taken).sum())
}

/// Tells many things to one cart; says how many of them its mailbox took.
async fn reprice_often(cart: &MeshAddr<Carts>, times: u64) -> Result<u64, Fault> {
    let mut teller = cart.teller::<Reprice>();
    for _ in 0..times {
        // Waits only when 256 have no answer yet. An error is of this one alone: it was not sent.
        teller.tell(Reprice).await?;
    }
    let told = teller.close().await;
    for failed in &told.failed {
        tracing::warn!(number = failed.number, fault = %failed.fault, "not repriced");
    }
    Ok(told.taken)
}

async fn until_it_ends(cart: &MeshAddr<Carts>) -> Result<Option<Ended>, Fault> {
    let mut watch = cart.watch().await?;
    while let Some(seen) = watch.next().await {
        match seen {
            Seen::Terminal(how) => return Ok(Some(how)),
            // Nobody can say whether it lives: not an end.
            Seen::Unreachable | Seen::Reachable => {}
        }
    }
    Ok(None)
}

const POLICY_OF_THREE: &str = r#"
version = 1

[jurisdictions]
world = ["ap-south", "eu-west", "us-east"]

[classes.inventory]
hold = ["all"]
read = ["all"]
carry = ["all"]
"#;

const POLICY: &str = r#"
version = 1

[jurisdictions]
eu = ["eu-west"]
us = ["us-east"]

[classes.inventory]
hold = ["all"]
read = ["all"]
carry = ["all"]
"#;

fn add(order: &str) -> Add {
    Add { order: order.into(), article: "tea".into(), quantity: 2, engraving: None, hint: String::new() }
}

#[test]
fn a_cut_link_is_a_typed_fault() {
    run(async {
        let mesh = TestMesh::of(["us-east", "eu-west"]).policy(POLICY).host(carts()).start().await;
        let mesh = mesh.expect("it starts");
        mesh.delay("us-east", "eu-west", Duration::from_millis(40));
        let cart = mesh.at("us-east").actor_in::<Carts>(&"eu-west".parse().expect("a region"), "ada");
        assert_eq!(put(&cart, add("order-1")).await, Some(true));

        mesh.cut("us-east", "eu-west");
        assert_eq!(put(&cart, add("order-2")).await, None, "it may have arrived");
        // Now five minutes pass, in no time.
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(put(&cart, add("order-3")).await, Some(false), "it was not sent");

        mesh.heal("us-east", "eu-west");
        mesh.reachable("us-east", "eu-west").await;
        assert_eq!(put(&cart, add("order-2")).await, Some(true), "idempotent: asked again");
    });
}

#[test]
fn what_the_guide_shows_of_addresses_tells_and_watches_runs() {
    run(async {
        let mesh = TestMesh::of(["us-east", "eu-west"]).policy(POLICY).host(carts()).start().await;
        let mesh = mesh.expect("it starts");
        let eu: Region = "eu-west".parse().expect("a region");
        let ada = mesh.at("us-east").actor::<Carts>("ada");
        assert_eq!(put(&ada, add("order-1")).await, Some(true));
        assert_eq!(put(&ada, Add { article: String::new(), ..add("order-2") }).await, Some(false));
        addresses(mesh.at("us-east"), &eu).await.expect("merged");
        let strict = mesh.at("us-east").actor_in::<Carts>(&eu, "ada");
        let total = strict.ask(add("order-9")).await.expect("answered");
        assert_eq!(total, Ok(Total { articles: 4, weight_grams: 0 }), "order-1 came over");
        assert_eq!(reprice(mesh.at("us-east"), &ada, &[eu]).await, Ok(2), "both live in eu-west");
        assert_eq!(reprice_often(&ada, 1_000).await, Ok(1_000), "each was in the mailbox");
        let watched = tokio::time::timeout(Duration::from_secs(60), until_it_ends(&ada)).await;
        assert!(watched.is_err(), "it lives");
    });
}

fn narrow() -> Host<Cart> {
    // Where it begins, and what it never leaves, however long questions take.
    let admission = Admission { first: 8, least: 2, most: 256, ..Admission::default() };
    Host::new(|_: &Activation| Cart { orders: BTreeMap::new() }).admission(admission)
}

fn quotes() -> Host<Cart> {
    Host::new(|_: &Activation| Cart { orders: BTreeMap::new() }).equals(2)
}

async fn quote(mesh: &Mesh, add: Add) -> Result<Result<Total, CartError>, Fault> {
    // Of those of this region, unless they fail or cost four times as much; and a second one if the first is late.
    mesh.any::<Cart>().ask(add).retried().hedged().await
}

async fn leave_out_what_can_wait(mesh: &Mesh, suggests: &AtomicBool) {
    let mut modes = mesh.modes();
    while modes.changed().await.is_ok() {
        let mode = *modes.borrow_and_update();
        // Nobody misses a suggestion while there is not room for orders.
        suggests.store(matches!(mode, Mode::Target | Mode::Recovery), Ordering::Relaxed);
    }
}

#[test]
fn what_the_guide_shows_of_load_runs() {
    run(async {
        let mesh = TestMesh::of(["us-east"]).policy(POLICY).host(narrow()).start().await.expect("it starts");
        let cart = mesh.at("us-east").actor::<Carts>("ada");
        assert_eq!(put(&cart, add("order-1")).await, Some(true));
        let suggests = AtomicBool::new(true);
        let watching = leave_out_what_can_wait(mesh.at("us-east"), &suggests);
        let watched = tokio::time::timeout(Duration::from_secs(60), watching).await;
        assert!(watched.is_err() && suggests.load(Ordering::Relaxed), "nothing is amiss");
        let mesh = TestMesh::of(["us-east", "eu-west"])
            .policy(POLICY)
            .host(quotes())
            .start()
            .await
            .expect("it starts");
        let quoted = quote(mesh.at("us-east"), add("order-1")).await.expect("answered");
        assert_eq!(quoted, Ok(Total { articles: 2, weight_grams: 0 }));
    });
}

/// Draws the next number.
#[remote(name = "shop.Draw", class = "inventory", reply = (u64, u32), idempotent)]
struct Draw;

/// Draws numbers, alone in its mesh.
struct Lottery {
    epoch: Epoch,
    drawn: u32,
}

#[remote_actor(name = "shop.lottery", class = "inventory", accepts(Draw))]
impl Actor for Lottery {
    type Context = Context<Self>;
}

impl Handler<Draw> for Lottery {
    type Result = Reply<(u64, u32)>;

    fn handle(&mut self, _: Draw, _: &mut Context<Self>) -> Self::Result {
        self.drawn += 1;
        Reply::ready((self.epoch.0, self.drawn))
    }
}

fn lotteries() -> Host<Lottery> {
    // Higher than that of every instance on another node before it.
    Host::new(|at: &Activation| Lottery { epoch: at.epoch, drawn: 0 }).moves()
}

/// Who draws, each time that this changes.
async fn tell_who_draws(lottery: &MeshAddr<Lottery>, changes: usize) -> Result<Vec<String>, Fault> {
    let (mut watch, mut told) = (lottery.watch_owner()?, Vec::new());
    while let Some(owned) = watch.next().await? {
        told.push(match (owned.node, owned.because) {
            (Some(node), _) => format!("{node} under {}", owned.epoch),
            (None, Because::Fenced(lost)) => format!("nobody: {lost} is fenced"),
            (None, why) => format!("nobody: {why:?}"),
        });
        if told.len() == changes {
            break;
        }
    }
    Ok(told)
}

/// Puts the epoch of an instance where its state is. From then on no instance before it writes there: each writes on condition of
/// the version that it has read or written last.
async fn claim(store: &Kv<'_>, key: &[u8], epoch: Epoch) -> Result<Option<KvWritten>, KvError> {
    let row = store.strong(key).await?;
    let (last, rest) = match row.value().bytes() {
        Some(bytes) => bytes.split_first_chunk().expect("an epoch and what follows"),
        None => (&[0; 8], &[][..]),
    };
    if u64::from_be_bytes(*last) > epoch.0 {
        return Ok(None);
    }
    let claimed = [&epoch.0.to_be_bytes()[..], rest].concat();
    let condition = row.value().version().map_or(KvCondition::Absent, KvCondition::Version);
    store.put_if(key, &claimed, condition).await.map(Some)
}

#[test]
fn what_the_guide_shows_of_actors_that_move_runs() {
    run(async {
        let _compiled = claim;
        let mesh = TestMesh::of(["ap-south", "eu-west", "us-east"]).policy(POLICY_OF_THREE).host(lotteries());
        let mesh = mesh.moving().start().await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let lottery = mesh.at("us-east").singleton::<Lottery>();
        let owner = lottery.owner().await.expect("one");
        assert_eq!(lottery.ask(Draw).await, Ok((1, 1)));

        // It is lost: nobody acts, and when whoever did has surely stopped, another one does.
        let lost = owner.region.as_str();
        let watcher = ["ap-south", "eu-west"].into_iter().find(|region| *region != lost).expect("one");
        let watched = lottery.on(mesh.at(watcher));
        let told = tokio::spawn(async move { tell_who_draws(&watched, 3).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        mesh.fence(lost);
        tokio::time::sleep(Duration::from_secs(5)).await;
        mesh.replace(lost);
        let told = told.await.expect("no panic").expect("told");
        assert_eq!(told[..2], [format!("{owner} under 1"), format!("nobody: {owner} is fenced")]);
        assert!(told[2].ends_with(" under 3") && !told[2].starts_with(&owner.to_string()), "{told:?}");
        let drawn = lottery.ask(Draw).retried().within(Duration::from_secs(10)).await;
        assert_eq!(drawn, Ok((3, 1)));
    });
}
