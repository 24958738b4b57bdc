//! Two builds of one protocol in one mesh: one has a newer field, the other a message less. They talk
//! both ways, and what cannot be understood is refused by name.

use rhumb::host::HostError;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

mod old {
    use rhumb::prelude::*;

    #[remote(name = "shop.Add", class = "control", reply = Receipt)]
    pub(super) struct Add {
        pub(super) article: String,
    }

    #[grows]
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Receipt {
        pub(super) text: String,
    }

    /// Laid out otherwise in the newer build, by mistake.
    #[remote(name = "shop.Skewed", class = "control", reply = u32)]
    pub(super) struct Skewed {
        pub(super) number: u32,
    }

    pub(super) struct Shop;

    #[remote_actor(name = "shop", class = "control", accepts(Add, Skewed))]
    impl Actor for Shop {
        type Context = Context<Self>;
    }

    impl Handler<Add> for Shop {
        type Result = Reply<Receipt>;

        fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Self::Result {
            Reply::ready(Receipt { text: format!("old: {}", add.article) })
        }
    }

    impl Handler<Skewed> for Shop {
        type Result = u32;

        fn handle(&mut self, skewed: Skewed, _: &mut Context<Self>) -> u32 {
            skewed.number
        }
    }
}

mod new {
    use rhumb::prelude::*;

    #[remote(name = "shop.Add", class = "control", reply = Receipt)]
    pub(super) struct Add {
        pub(super) article: String,
        #[since(2)]
        pub(super) quantity: u32,
        #[since(2, may_drop)]
        pub(super) wish: Option<String>,
    }

    #[grows]
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Receipt {
        pub(super) text: String,
        #[since(2, may_drop)]
        pub(super) number: Option<u64>,
    }

    #[remote(name = "shop.Remove", class = "control", reply = u32)]
    pub(super) struct Remove {
        pub(super) article: String,
    }

    #[remote(name = "shop.Skewed", class = "control", reply = u32)]
    pub(super) struct Skewed {
        pub(super) number: u64,
    }

    pub(super) struct Shop;

    #[remote_actor(name = "shop", class = "control", accepts(Add, Remove, Skewed))]
    impl Actor for Shop {
        type Context = Context<Self>;
    }

    impl Handler<Add> for Shop {
        type Result = Reply<Receipt>;

        fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Self::Result {
            let text = format!("new: {} of {} ({:?})", add.quantity, add.article, add.wish);
            Reply::ready(Receipt { text, number: Some(7) })
        }
    }

    impl Handler<Remove> for Shop {
        type Result = u32;

        fn handle(&mut self, remove: Remove, _: &mut Context<Self>) -> u32 {
            remove.article.len() as u32
        }
    }

    impl Handler<Skewed> for Shop {
        type Result = u32;

        fn handle(&mut self, _: Skewed, _: &mut Context<Self>) -> u32 {
            0
        }
    }
}

async fn mesh() -> TestMesh {
    TestMesh::of(["us", "eu"])
        .host_at("us", Host::new(|_: &_| old::Shop))
        .host_at("eu", Host::new(|_: &_| new::Shop))
        .start()
        .await
        .expect("starts")
}

fn of_new(mesh: &TestMesh) -> MeshAddr<new::Shop> {
    mesh.at("us").actor_in(&"eu".parse().expect("a region"), "a")
}

fn of_old(mesh: &TestMesh) -> MeshAddr<old::Shop> {
    mesh.at("eu").actor_in(&"us".parse().expect("a region"), "a")
}

/// The same actor, addressed in the words of the other build.
fn as_old(mesh: &TestMesh) -> MeshAddr<old::Shop> {
    mesh.at("us").actor_in(&"eu".parse().expect("a region"), "a")
}

fn as_new(mesh: &TestMesh) -> MeshAddr<new::Shop> {
    mesh.at("eu").actor_in(&"us".parse().expect("a region"), "a")
}

#[test]
fn an_older_and_a_newer_build_talk_both_ways() {
    run(async {
        let mesh = mesh().await;
        let receipt = as_old(&mesh).ask(old::Add { article: "tea".into() }).await.expect("answered");
        assert_eq!(receipt.text, "new: 0 of tea (None)", "what the older one does not say has its default");
        let plain = new::Add { article: "tea".into(), quantity: 0, wish: None };
        let receipt = as_new(&mesh).ask(plain).await.expect("answered");
        assert_eq!(receipt, new::Receipt { text: "old: tea".into(), number: None });
        let wish = new::Add { article: "tea".into(), quantity: 0, wish: Some("hot".into()) };
        as_new(&mesh).ask(wish).await.expect("a wish may be dropped");
        let _ = (of_new(&mesh), of_old(&mesh));
    });
}

#[test]
fn what_an_older_build_must_not_miss_is_refused_by_name() {
    run(async {
        let mesh = mesh().await;
        let three = new::Add { article: "tea".into(), quantity: 3, wish: None };
        let fault = as_new(&mesh).ask(three).await.expect_err("it would sell one");
        assert_eq!(fault.delivery(), Delivery::NotSent);
        let text = fault.to_string();
        assert!(text.contains("shop.Add") && text.contains("since 2"), "{text}");
    });
}

#[test]
fn a_message_that_the_older_build_lacks_is_refused_before_it_is_sent() {
    run(async {
        let mesh = mesh().await;
        let fault =
            as_new(&mesh).ask(new::Remove { article: "tea".into() }).await.expect_err("unknown there");
        assert_eq!(fault.kind, FaultKind::UnknownMessage("shop.Remove".into()));
        assert_eq!(fault.delivery(), Delivery::NotSent);
        assert_eq!(of_new(&mesh).ask(new::Remove { article: "tea".into() }).await, Ok(3));
    });
}

#[test]
fn a_message_laid_out_otherwise_is_refused_and_never_read_as_something_else() {
    run(async {
        let mesh = mesh().await;
        let (a, b) = (
            as_new(&mesh).ask(new::Skewed { number: 1 << 40 }).await.expect_err("skewed"),
            as_old(&mesh).ask(old::Skewed { number: 1 }).await.expect_err("skewed"),
        );
        for fault in [a, b] {
            assert!(matches!(&fault.kind, FaultKind::Skew { name, .. } if name == "shop.Skewed"), "{fault}");
            assert_eq!(fault.delivery(), Delivery::NotSent);
        }
    });
}

/// Accepts the newer build's message in the older build's mesh.
struct Store;

#[remote_actor(name = "store", class = "control", accepts(new::Skewed))]
impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<new::Skewed> for Store {
    type Result = u32;

    fn handle(&mut self, _: new::Skewed, _: &mut Context<Self>) -> u32 {
        0
    }
}

#[test]
fn a_node_whose_types_lay_one_name_out_differently_does_not_start() {
    run(async {
        let both = TestMesh::of(["us"]).host(Host::new(|_: &_| old::Shop)).host(Host::new(|_: &_| Store));
        let error = both.start().await.err().expect("it is refused");
        let error = error.downcast_ref::<HostError>().expect("by its hosts");
        let (one, other, message) = ("shop", "store", "shop.Skewed");
        assert_eq!(*error, HostError::TwoLayouts { message, one, other });
    });
}
