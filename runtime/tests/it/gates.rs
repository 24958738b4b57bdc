//! Data stays home, whichever way one tries to take it out. Each test is one way round.

use std::sync::Arc;
use std::time::Duration;

use actix::MailboxError;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

const POLICY: &str = r#"
version = 1

[jurisdictions]
eu = ["eu", "eu-north"]
us = ["us"]
ap = ["ap"]

[classes.personal]
hold = ["jurisdiction:eu"]
read = ["jurisdiction:eu"]
carry = ["jurisdiction:eu"]

[classes.inventory]
hold = ["all"]
read = ["all"]
carry = ["all"]

# May be asked for from the us, and stays in the eu: what is carried there cannot come back.
[classes.request]
hold = ["jurisdiction:eu"]
read = ["jurisdiction:eu"]
carry = ["all"]
"#;

const SECRET: &str = "ada-lovelace-1815";

#[remote(name = "test.Store", class = "personal", reply = ())]
#[derive(Clone)]
struct Store {
    name: String,
}

/// Asks for a count of persons: no personal data in it, nor in an honest answer.
#[remote(name = "test.Count", class = "inventory", reply = Vec<String>)]
struct Count {
    honest: bool,
}

/// Asks the archive to pass something on to an actor elsewhere.
#[remote(name = "test.Leak", class = "request", reply_class = "control", reply = String, audience = "everyone")]
struct Leak {
    how: String,
    to: MeshAddr<Archive>,
}

/// Asks the archive to break in a way that has the secret in its text.
#[remote(name = "test.Crash", class = "inventory", reply = Vec<String>)]
struct Crash;

/// A message that says of itself, in its body, what class it is of.
#[remote(name = "test.Labelled", class = by(class), reply = ())]
struct Labelled {
    class: DataClass,
    text: String,
}

/// Three questions about a person, of which two say nothing of what their answers are.
#[remote(name = "test.Get", class = "control", reply = String)]
struct Get;

#[remote(name = "test.Find", class = looked_up, reply = String)]
struct Find;

#[remote(name = "test.Exists", class = "control", reply_class = "control", reply = bool)]
struct Exists;

/// A person, whose state is the secret.
struct Person;

#[remote_actor(name = "test.person", class = "personal", accepts(Get, Find, Exists))]
impl Actor for Person {
    type Context = Context<Self>;
}

impl Handler<Get> for Person {
    type Result = String;

    fn handle(&mut self, _: Get, _: &mut Context<Self>) -> String {
        SECRET.to_owned()
    }
}

impl Handler<Find> for Person {
    type Result = String;

    fn handle(&mut self, _: Find, _: &mut Context<Self>) -> String {
        SECRET.to_owned()
    }
}

impl Handler<Exists> for Person {
    type Result = bool;

    fn handle(&mut self, _: Exists, _: &mut Context<Self>) -> bool {
        true
    }
}

/// Lets a clerk look a person up, and says of itself that its answer is nobody's data.
#[remote(name = "test.Consult", class = "personal", reply_class = "control", reply = String)]
struct Consult {
    whom: MeshAddr<Person>,
}

/// Lets a clerk ask another clerk.
#[remote(name = "test.Delegate", class = "request", reply_class = "control", reply = String)]
struct Delegate {
    to: MeshAddr<Clerk>,
    whom: MeshAddr<Person>,
}

/// Its answer is as the question is; the clerk says that it were less.
#[remote(name = "test.Belittle", class = "request", reply = String)]
struct Belittle;

struct Clerk;

#[remote_actor(name = "test.clerk", class = "inventory", accepts(Consult, Delegate, Belittle))]
impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Consult> for Clerk {
    type Result = Reply<String>;

    fn handle(&mut self, consult: Consult, _: &mut Context<Self>) -> Reply<String> {
        Reply::later(async move { consult.whom.ask(Find).await.unwrap_or_else(|fault| fault.to_string()) })
    }
}

impl Handler<Delegate> for Clerk {
    type Result = Reply<String>;

    fn handle(&mut self, delegate: Delegate, _: &mut Context<Self>) -> Reply<String> {
        Reply::later(async move {
            let consult = Consult { whom: delegate.whom };
            delegate.to.ask(consult).await.unwrap_or_else(|fault| fault.to_string())
        })
    }
}

impl Handler<Belittle> for Clerk {
    type Result = String;

    fn handle(&mut self, _: Belittle, _: &mut Context<Self>) -> String {
        call().expect("a call").answer_under(DataClass::control());
        SECRET.to_owned()
    }
}

struct Archive;

#[remote_actor(
    name = "test.archive",
    class = "inventory",
    accepts(Store, Count, Leak, Crash, Labelled, Chain)
)]
impl Actor for Archive {
    type Context = Context<Self>;
}

impl Handler<Store> for Archive {
    type Result = ();

    fn handle(&mut self, _: Store, _: &mut Context<Self>) {}
}

impl Handler<Labelled> for Archive {
    type Result = ();

    fn handle(&mut self, _: Labelled, _: &mut Context<Self>) {}
}

impl Handler<Count> for Archive {
    type Result = Vec<String>;

    fn handle(&mut self, count: Count, _: &mut Context<Self>) -> Vec<String> {
        if count.honest {
            return vec!["1".to_owned()];
        }
        call().expect("a call").answer_under(DataClass::new("personal").expect("valid"));
        vec![SECRET.to_owned()]
    }
}

impl Handler<Crash> for Archive {
    type Result = Vec<String>;

    fn handle(&mut self, _: Crash, _: &mut Context<Self>) -> Vec<String> {
        panic!("no such person: {SECRET}")
    }
}

impl Handler<Leak> for Archive {
    type Result = Reply<String>;

    fn handle(&mut self, leak: Leak, context: &mut Context<Self>) -> Reply<String> {
        let _ = context;
        Reply::later(async move {
            let labelled = |class: &str| Labelled {
                class: DataClass::new(class).expect("valid"),
                text: SECRET.to_owned(),
            };
            let text = |outcome: Result<(), Fault>| {
                outcome.map_or_else(|fault| fault.to_string(), |()| "LEAKED".into())
            };
            match leak.how.as_str() {
                "as it is" => text(leak.to.ask(Store { name: SECRET.into() }).await),
                "lowered" => text(leak.to.ask(labelled("inventory")).await),
                "back" => text(leak.to.ask(leak_back(&leak.to)).await.map(drop)),
                "slow" => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    "slow".to_owned()
                }
                "chain" => leak.to.ask(Chain).await.expect("answered"),
                "told" => text(leak.to.tell(labelled("inventory")).await),
                "recipient" => match leak.to.recipient::<Labelled>().send(labelled("inventory")).await {
                    Ok(()) => "LEAKED".into(),
                    Err(MailboxError::Closed) => "closed".into(),
                    Err(MailboxError::Timeout) => "timeout".into(),
                },
                "broadcast" => {
                    let mesh = call().expect("a call").mesh().clone();
                    let to = ["us", "ap"].map(|region| region.parse().expect("a region"));
                    let outcomes = mesh.broadcast::<Archive, _>(&to, labelled("inventory")).await;
                    let lines = outcomes.into_iter().map(|one| match one.outcome {
                        Ok((taken, _)) => format!("LEAKED to {taken}"),
                        Err(fault) => fault.to_string(),
                    });
                    lines.collect::<Vec<_>>().join("; ")
                }
                other => panic!("no way {other:?}"),
            }
        })
    }
}

fn leak_back(to: &MeshAddr<Archive>) -> Leak {
    Leak { how: "slow".to_owned(), to: to.clone() }
}

/// Asks who called.
#[remote(name = "test.Chain", class = "request", reply_class = "control", reply = String)]
struct Chain;

impl Handler<Chain> for Archive {
    type Result = String;

    fn handle(&mut self, _: Chain, _: &mut Context<Self>) -> String {
        call().expect("a call").chain().join(">")
    }
}

async fn mesh() -> TestMesh {
    let places = ["us", "eu", "eu-north", "ap"];
    let mesh = TestMesh::of(places).policy(POLICY).host(Host::new(|_: &_| Archive));
    let mesh = mesh.host(Host::new(|_: &_| Person)).host(Host::new(|_: &_| Clerk));
    mesh.start().await.expect("starts")
}

fn archive(mesh: &TestMesh, from: &str, region: &str) -> MeshAddr<Archive> {
    mesh.at(from).actor_in(&region.parse().expect("a region"), "a")
}

fn person(mesh: &TestMesh, from: &str) -> MeshAddr<Person> {
    mesh.at(from).actor_in(&"eu".parse().expect("a region"), "p")
}

fn clerk(mesh: &TestMesh, from: &str, key: &str) -> MeshAddr<Clerk> {
    mesh.at(from).actor_in(&"eu".parse().expect("a region"), key)
}

fn personal() -> Store {
    Store { name: SECRET.to_owned() }
}

#[test]
fn labelled_data_goes_where_policy_lets_it_and_nowhere_else() {
    run(async {
        let mesh = mesh().await;
        archive(&mesh, "eu", "eu-north").ask(personal()).await.expect("within the eu");
        for (from, to) in [("eu", "us"), ("us", "eu"), ("us", "ap")] {
            let fault = archive(&mesh, from, to).ask(personal()).await.expect_err("not out, and not in");
            assert!(matches!(fault.kind, FaultKind::Gate(_)), "{from} {to}: {fault}");
            assert_eq!(fault.delivery(), Delivery::NotSent);
        }
        let unknown = Labelled { class: DataClass::new("secret").expect("valid"), text: SECRET.into() };
        let fault = archive(&mesh, "eu", "eu-north").ask(unknown).await.expect_err("no rule, no way");
        assert!(fault.to_string().contains("has no class secret"), "{fault}");
    });
}

#[test]
fn without_a_policy_labelled_data_stays_on_its_node() {
    run(async {
        let mesh = TestMesh::of(["us", "eu"]).host(Host::new(|_: &_| Archive)).start().await.expect("starts");
        // The actor itself has a class, so that no node may even hold it.
        let fault = archive(&mesh, "us", "eu").ask(Count { honest: true }).await.expect_err("no policy");
        assert!(fault.to_string().contains("no policy is loaded"), "{fault}");
    });
}

#[test]
fn a_reply_larger_than_the_requests_class_does_not_leave() {
    run(async {
        let mesh = mesh().await;
        let far = archive(&mesh, "us", "eu");
        assert_eq!(far.ask(Count { honest: true }).await, Ok(vec!["1".to_owned()]));
        let fault = far.ask(Count { honest: false }).await.expect_err("personal data");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::Ran);
        assert!(!fault.to_string().contains(SECRET));
        let near = archive(&mesh, "eu-north", "eu");
        assert_eq!(near.ask(Count { honest: false }).await, Ok(vec![SECRET.to_owned()]));
    });
}

#[test]
fn what_an_actor_answers_is_of_its_states_class_unless_the_message_says_otherwise() {
    run(async {
        let mesh = mesh().await;
        assert_eq!(person(&mesh, "eu-north").ask(Get).await, Ok(SECRET.to_owned()));
        let fault = person(&mesh, "us").ask(Get).await.expect_err("a person's data stays in the eu");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::Ran);
        assert_eq!(person(&mesh, "us").ask(Exists).await, Ok(true), "who declares it takes it upon him");
    });
}

#[test]
fn a_message_whose_class_its_actor_knows_has_the_class_of_that_actors_state() {
    run(async {
        let mesh = mesh().await;
        assert_eq!(person(&mesh, "eu-north").ask(Find).await, Ok(SECRET.to_owned()));
        assert_eq!(person(&mesh, "eu").ask(Find).await, Ok(SECRET.to_owned()));
        let fault = person(&mesh, "us").ask(Find).await.expect_err("it is personal");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::NotSent);
    });
}

#[test]
fn an_answer_got_under_the_calls_own_class_is_not_forgotten() {
    run(async {
        let mesh = mesh().await;
        let delegate = || Delegate { to: clerk(&mesh, "eu", "b"), whom: person(&mesh, "eu") };
        assert_eq!(clerk(&mesh, "eu", "a").ask(delegate()).await, Ok(SECRET.to_owned()));
        let fault = clerk(&mesh, "us", "a").ask(delegate()).await.expect_err("it rests on personal data");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
    });
}

#[test]
fn a_handler_cannot_answer_under_less_than_its_message_declares() {
    run(async {
        let mesh = mesh().await;
        for from in ["us", "eu"] {
            let fault = clerk(&mesh, from, "a").ask(Belittle).await.expect_err("the answer is a request's");
            assert!(matches!(fault.kind, FaultKind::ClassLowered { .. }), "{fault}");
            assert_eq!(fault.delivery(), Delivery::Ran);
        }
    });
}

#[test]
fn a_handler_cannot_pass_on_what_it_was_told_under_a_looser_class() {
    run(async {
        let mesh = mesh().await;
        let to = archive(&mesh, "us", "ap");
        for how in ["as it is", "lowered", "told"] {
            let leak = Leak { how: how.into(), to: to.clone() };
            let outcome = archive(&mesh, "us", "eu").ask(leak).await.expect("answered");
            assert!(
                outcome.contains("class") && !outcome.contains("LEAKED") && !outcome.contains(SECRET),
                "{how}: {outcome}"
            );
        }
    });
}

#[test]
fn neither_a_recipient_nor_a_broadcast_is_a_way_round() {
    run(async {
        let mesh = mesh().await;
        // Somebody is awake to be broadcast to.
        for region in ["us", "ap"] {
            archive(&mesh, region, region).ask(Count { honest: true }).await.expect("awake");
        }
        let to = archive(&mesh, "us", "ap");
        let ask = |how: &str| Leak { how: how.into(), to: to.clone() };
        let far = archive(&mesh, "us", "eu");
        assert_eq!(far.ask(ask("recipient")).await, Ok("closed".to_owned()));
        let outcome = far.ask(ask("broadcast")).await.expect("answered");
        assert!(!outcome.contains("LEAKED") && outcome.contains("class"), "{outcome}");
        let to = ["us", "eu-north"].map(|region| region.parse().expect("a region"));
        let outcomes = mesh.at("eu").broadcast::<Archive, _>(&to, personal()).await;
        let gated: Vec<_> =
            outcomes.into_iter().map(|one| (one.node.region.to_string(), one.outcome.is_ok())).collect();
        assert_eq!(gated, [("eu-north".to_owned(), true), ("us".to_owned(), false)]);
    });
}

#[test]
fn a_program_watches_no_actor_whose_state_its_region_may_not_see() {
    run(async {
        let mesh = mesh().await;
        let eu = "eu".parse().expect("a region");
        let watch = |region: &str| mesh.client(region, "shop").actor_in::<Person>(&eu, "p");
        watch("eu-north").watch().await.expect("in the eu");
        let fault = watch("us").watch().await.expect_err("outside");
        assert!(matches!(fault.kind, FaultKind::Unauthorized(_)), "{fault}");
    });
}

#[test]
fn a_program_broadcasts_nothing() {
    run(async {
        let mesh = mesh().await;
        archive(&mesh, "us", "us").ask(Count { honest: true }).await.expect("awake");
        let us = ["us".parse().expect("a region")];
        let outcomes = mesh.client("us", "shop").broadcast::<Archive, _>(&us, Crash).await;
        let [one] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert!(matches!(&one.outcome, Err(Fault { kind: FaultKind::Unauthorized(_), .. })), "{outcomes:?}");
    });
}

#[test]
fn a_key_shows_in_no_fault_no_chain_and_no_debug_text() {
    run(async {
        let mesh = mesh().await;
        let secret = archive(&mesh, "us", "eu").id().clone();
        assert!(!format!("{secret:?}{}", secret.shown()).contains("/a"));
        let secret = |from: &str| -> MeshAddr<Archive> {
            mesh.at(from).actor_in(&"eu".parse().expect("a region"), SECRET)
        };
        let to = secret("us");
        let back = to.ask(Leak { how: "back".into(), to: to.clone() }).await.expect("answered");
        assert!(back.contains("in this chain") && !back.contains(SECRET), "{back}");
        let slow = to.ask(Leak { how: "slow".into(), to: to.clone() }).within(Duration::from_millis(10));
        let late = slow.await.expect_err("too late");
        assert!(matches!(late.kind, FaultKind::Deadline(_)), "{late}");
        let crash = to.ask(Crash).await.expect_err("it panicked");
        let gate = secret("eu-north").on(mesh.at("us")).ask(personal()).await.expect_err("not in");
        for fault in [late, crash, gate] {
            assert!(!format!("{fault} {fault:?}").contains(SECRET), "{fault:?}");
        }
        let onward = archive(&mesh, "us", "eu-north");
        let chain = to.ask(Leak { how: "chain".into(), to: onward }).await.expect("answered");
        assert!(chain.contains("test.archive@eu#") && !chain.contains(SECRET), "{chain}");
        assert!(!format!("{to:?} {:?}", to.id()).contains(SECRET));
    });
}

#[test]
fn nothing_is_passed_through_a_third_region() {
    run(async {
        let mesh = mesh().await;
        // The way between the two is cut: there is no other one, not even within the eu.
        mesh.cut("eu", "eu-north");
        let fault = archive(&mesh, "eu", "eu-north").ask(personal()).await.expect_err("unreachable");
        assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
        // Nor does a node take in what belongs to another.
        let elsewhere = mesh.at("ap").actor_in::<Archive>(&"eu".parse().expect("a region"), "a");
        assert_eq!(elsewhere.owner().await.map(|node| node.to_string()), Ok("eu/n1".to_owned()));
    });
}

#[test]
fn the_text_of_an_error_quotes_nothing() {
    run(async {
        let mesh = mesh().await;
        let fault = archive(&mesh, "us", "eu").ask(Crash).await.expect_err("it panicked");
        assert!(matches!(fault.kind, FaultKind::Panicked(_)), "{fault}");
        assert!(!format!("{fault:?}").contains(SECRET), "{fault:?}");
    });
}

#[test]
fn nothing_that_is_traced_or_logged_quotes_a_message() {
    let spoken = Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = Arc::clone(&spoken);
    let writer = move || Lines(Arc::clone(&to));
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, || {
        run(async {
            let mesh = mesh().await;
            archive(&mesh, "eu", "eu-north").ask(personal()).await.expect("within the eu");
            archive(&mesh, "eu", "us").ask(personal()).await.expect_err("not out");
            archive(&mesh, "us", "eu").ask(Crash).await.expect_err("it panicked");
            let secret = mesh.at("us").actor_in::<Archive>(&"eu".parse().expect("a region"), SECRET);
            let mut watch = secret.watch().await.expect("watched");
            for _ in 0..30 {
                secret.ask(Crash).within(Duration::from_secs(60)).await.expect_err("it panicked");
            }
            assert_eq!(watch.next().await, Some(Seen::Terminal(Ended::Failed)));
            archive(&mesh, "us", "eu").ask(Count { honest: false }).await.expect_err("not out");
            mesh.cut("us", "eu");
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
    });
    let spoken = String::from_utf8(spoken.lock().expect("no panic").clone()).expect("text");
    assert!(spoken.contains("panicked"), "something was logged: {spoken}");
    assert!(!spoken.contains(SECRET), "{spoken}");
}

struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
