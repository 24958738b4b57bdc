//! The spans of calls: who is whose parent, what is said of them, and what is not kept.

use std::time::Duration;

use opentelemetry::Value;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::SpanData;
use rhumb::prelude::*;
use rhumb::telemetry::sampling::Share;
use rhumb::telemetry::{Spans, Tracer, layer};
use rhumb::testing::{TestMesh, run};
use rhumb_transport::TraceContext;
use tracing_subscriber::layer::SubscriberExt;

/// A customer's name: data, which must be in no span.
const NAME: &str = "ada-lovelace";

#[remote(name = "test.shop.Buy", class = "control", reply = u32)]
struct Buy {
    then: Option<MeshAddr<Shop>>,
    who: String,
    panics: bool,
}

#[remote(name = "test.shop.Note", class = "control", reply = ())]
struct Note;

struct Shop;

#[remote_actor(name = "test.shop", class = "control", accepts(Buy, Note))]
impl Actor for Shop {
    type Context = Context<Self>;
}

impl Handler<Buy> for Shop {
    type Result = Reply<u32>;

    fn handle(&mut self, buy: Buy, _: &mut Context<Self>) -> Self::Result {
        assert!(!buy.panics, "as asked");
        Reply::later(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let counting = tracing::info_span!("counting");
            counting.in_scope(|| tracing::info!("counted"));
            let Some(next) = buy.then else {
                // As if out of a replica nearby.
                call().expect("a handler has a call").rests_on(Guarantee::Snapshot);
                return 1;
            };
            next.ask(Buy { then: None, who: buy.who, panics: false }).await.map_or(0, |sum| sum + 1)
        })
    }
}

impl Handler<Note> for Shop {
    type Result = ();

    fn handle(&mut self, _: Note, _: &mut Context<Self>) {}
}

/// A mesh of two regions that keeps this share of traces, and where their spans are.
async fn shops(share: Share) -> (TestMesh, Spans) {
    let spans = Spans::with_capacity(10_000);
    let mesh = TestMesh::of(["us", "eu"]).host(Host::new(|_: &_| Shop)).traced(share, &spans);
    (mesh.start().await.expect("starts"), spans)
}

fn shop(mesh: &TestMesh, at: &str, region: &str) -> MeshAddr<Shop> {
    mesh.at(at).actor_in(&region.parse().expect("a region"), NAME)
}

fn buy(then: Option<MeshAddr<Shop>>) -> Buy {
    Buy { then, who: NAME.to_owned(), panics: false }
}

/// A program whose own spans go with those of the mesh.
fn program(share: Share, spans: &Spans) -> tracing::subscriber::DefaultGuard {
    let tracer = Tracer::new("us", "us/n1", None, share, spans.clone());
    tracing::subscriber::set_default(tracing_subscriber::registry().with(layer(&tracer)))
}

/// Everything that has ended, as soon as `count` spans have.
async fn ended(spans: &Spans, count: usize) -> Vec<SpanData> {
    let mut all = spans.take();
    for _ in 0..1_000 {
        if all.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        all.extend(spans.take());
    }
    all
}

/// The spans as a tree: each with its kind and node, what is below it further in, by name.
fn tree(spans: &[SpanData]) -> String {
    fn below(parent: &[u8], depth: usize, spans: &[SpanData], out: &mut String) {
        let mut here: Vec<&SpanData> =
            spans.iter().filter(|span| span.parent_span_id.to_bytes() == *parent).collect();
        here.sort_by_key(|span| (span.name.clone(), span.start_time));
        for span in here {
            let kind = match span.span_kind {
                SpanKind::Internal => "",
                SpanKind::Client => " CLIENT",
                SpanKind::Server => " SERVER",
                SpanKind::Producer => " PRODUCER",
                SpanKind::Consumer => " CONSUMER",
            };
            let node = attribute(span, "rhumb.node");
            out.push_str(&format!("{}{}{kind} {node}\n", "  ".repeat(depth), span.name));
            below(&span.span_context.span_id().to_bytes(), depth + 1, spans, out);
        }
    }
    let mut out = String::new();
    below(&[0; 8], 0, spans, &mut out);
    out
}

fn attribute(span: &SpanData, key: &str) -> String {
    let held = span.attributes.iter().find(|held| held.key.as_str() == key);
    held.map_or_else(String::new, |held| held.value.to_string())
}

#[test]
fn each_call_of_a_chain_says_what_its_answer_rests_on() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let (us, eu) = (shop(&mesh, "us", "us"), shop(&mesh, "us", "eu"));
        assert_eq!(us.ask(buy(Some(eu.clone()))).await, Ok(2));
        eu.tell(Note).await.expect("taken");
        let weak = eu.ask(buy(None)).requiring(Guarantee::Serializable).await;
        weak.expect_err("it rests on less");
        let all = ended(&spans, 30).await;
        let mut said: Vec<String> = Vec::new();
        for span in all.iter().filter(|span| span.span_kind != SpanKind::Internal) {
            let level = attribute(span, "rhumb.guarantee");
            said.push(format!("{} {:?} {level}", span.name, span.span_kind));
        }
        said.sort();
        assert_eq!(
            said,
            [
                "process test.shop.Note Consumer ",
                "send test.shop.Note Producer strict_serializable",
                // What its asker did not take says nothing there.
                "test.shop/Buy Client ",
                "test.shop/Buy Client snapshot",
                "test.shop/Buy Client snapshot",
                "test.shop/Buy Server snapshot",
                "test.shop/Buy Server snapshot",
                "test.shop/Buy Server snapshot",
            ]
        );
    });
}

#[test]
fn a_call_to_another_region_is_one_trace_with_its_parts_below_it() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let _program = program(Share::ALL, &spans);
        assert_eq!(shop(&mesh, "us", "eu").ask(buy(None)).await, Ok(1));
        let all = ended(&spans, 11).await;
        expect_test::expect![[r#"
            test.shop/Buy CLIENT us/n1
              decode us/n1
              egress gate us/n1
              encode us/n1
              test.shop/Buy SERVER eu/n1
                decode eu/n1
                egress gate eu/n1
                encode eu/n1
                handler eu/n1
                  counting eu/n1
                ingress gate eu/n1
                queue eu/n1
        "#]]
        .assert_eq(&tree(&all));
        let trace = all[0].span_context.trace_id();
        for span in &all {
            assert_eq!(span.span_context.trace_id(), trace, "{span:?}");
            assert!(span.start_time <= span.end_time, "{span:?}");
            for key in ["rhumb.region", "rhumb.node", "rhumb.data.class", "rhumb.hybrid_time"] {
                assert!(!attribute(span, key).is_empty(), "{key} of {span:?}");
            }
            assert!(!format!("{span:?}").contains(NAME), "data in {span:?}");
        }
    });
}

#[test]
fn the_sides_of_an_ask_say_how_it_went_and_with_whom() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        shop(&mesh, "us", "eu").ask(buy(None)).await.expect("answered");
        let panics = Buy { panics: true, ..buy(None) };
        shop(&mesh, "us", "eu").ask(panics).await.expect_err("it panics");
        let all = ended(&spans, 18).await;
        let said = |kind: SpanKind, key: &str| {
            let mut said: Vec<String> =
                all.iter().filter(|span| span.span_kind == kind).map(|span| attribute(span, key)).collect();
            said.sort();
            said
        };
        for kind in [SpanKind::Client, SpanKind::Server] {
            assert_eq!(said(kind.clone(), "rpc.system.name"), ["rhumb", "rhumb"]);
            assert_eq!(said(kind.clone(), "rpc.method"), ["test.shop/Buy", "test.shop/Buy"]);
            assert_eq!(said(kind.clone(), "rpc.response.status_code"), ["ok", "panicked"]);
            assert_eq!(said(kind, "error.type"), ["", "panicked"]);
        }
        assert_eq!(said(SpanKind::Client, "rhumb.peer.region"), ["eu", "eu"]);
        assert!(said(SpanKind::Client, "server.port").iter().all(|port| !port.is_empty()));
        let failed =
            all.iter().filter(|span| matches!(span.status, opentelemetry::trace::Status::Error { .. }));
        assert_eq!(failed.count(), 2);
    });
}

#[test]
fn what_a_handler_asks_is_below_the_handler_and_a_local_ask_encodes_nothing() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let _program = program(Share::ALL, &spans);
        let back = shop(&mesh, "us", "us");
        assert_eq!(shop(&mesh, "us", "us").ask(buy(Some(shop(&mesh, "us", "eu")))).await, Ok(2));
        let all = ended(&spans, 16).await;
        let shown = tree(&all);
        let nested = shown.lines().find(|line| line.trim_start().starts_with("test.shop/Buy SERVER eu"));
        let depth =
            nested.expect("the second hop").len() - nested.expect("the second hop").trim_start().len();
        assert_eq!(depth / 2, 4, "client, server, handler, client, server:\n{shown}");
        assert_eq!(shown.matches("\n    encode us/n1").count(), 0, "{shown}");
        drop(back);
    });
}

#[test]
fn a_tell_is_sent_by_a_producer_and_processed_by_a_consumer() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let _program = program(Share::ALL, &spans);
        shop(&mesh, "us", "eu").tell(Note).await.expect("taken");
        let all = ended(&spans, 8).await;
        expect_test::expect![[r#"
            send test.shop.Note PRODUCER us/n1
              egress gate us/n1
              encode us/n1
              process test.shop.Note CONSUMER eu/n1
                decode eu/n1
                egress gate eu/n1
                handler eu/n1
                ingress gate eu/n1
                queue eu/n1
        "#]]
        .assert_eq(&tree(&all));
    });
}

#[test]
fn of_a_call_that_is_not_kept_there_is_no_span_not_even_one_of_the_program() {
    run(async {
        let (mesh, spans) = shops(Share::NONE).await;
        // The program would keep every trace of its own.
        let _program = program(Share::ALL, &spans);
        assert_eq!(shop(&mesh, "us", "eu").ask(buy(Some(shop(&mesh, "us", "us")))).await, Ok(2));
        shop(&mesh, "us", "us").tell(Note).await.expect("taken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tree(&spans.take()), "");
        // Outside of any call the program's spans are its own.
        tracing::info_span!("startup").in_scope(|| ());
        assert_eq!(spans.take().len(), 1);
    });
}

#[test]
fn a_trace_from_outside_goes_on_and_one_that_is_not_kept_there_is_not_kept_here() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let from = |flags| TraceContext { trace_id: 0xabc, span_id: 0xdef, flags };
        shop(&mesh, "us", "eu").ask(buy(None)).trace(from(0)).await.expect("answered");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(spans.take().len(), 0);
        shop(&mesh, "us", "eu").ask(buy(None)).trace(from(1)).await.expect("answered");
        let all = ended(&spans, 9).await;
        let first = all.iter().find(|span| span.span_kind == SpanKind::Client).expect("a client's span");
        assert_eq!(first.parent_span_id.to_bytes(), 0xdef_u64.to_be_bytes());
        assert_eq!(first.span_context.trace_id().to_bytes(), 0xabc_u128.to_be_bytes());
        assert!(first.parent_span_is_remote);
    });
}

#[test]
fn an_event_in_a_handler_is_told_with_the_span_it_is_in() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let _program = program(Share::ALL, &spans);
        shop(&mesh, "us", "us").ask(buy(None)).await.expect("answered");
        let all = ended(&spans, 5).await;
        let counting = all.iter().find(|span| span.name == "counting").expect("the program's span");
        assert_eq!(counting.events.events[0].name, "counted");
        assert!(counting.attributes.iter().any(|held| held.value == Value::from("control")));
    });
}

#[test]
fn a_program_without_the_layer_is_traced_all_the_same() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        shop(&mesh, "us", "eu").ask(buy(None)).await.expect("answered");
        let shown = tree(&ended(&spans, 10).await);
        assert!(shown.contains("\n    handler eu/n1\n") && !shown.contains("counting"), "{shown}");
    });
}

#[test]
fn a_call_that_comes_back_to_its_caller_says_so_in_its_span() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        let itself = shop(&mesh, "us", "us");
        assert_eq!(itself.ask(buy(Some(itself.clone()))).await, Ok(0), "the shop could not ask itself");
        let all = ended(&spans, 5).await;
        let errors: Vec<String> = all.iter().map(|span| attribute(span, "error.type")).collect();
        assert!(errors.contains(&"cycle".to_owned()), "{}{errors:?}", tree(&all));
    });
}

#[test]
fn a_broadcast_says_how_many_took_it_and_what_went_wrong() {
    run(async {
        let (mesh, spans) = shops(Share::ALL).await;
        shop(&mesh, "us", "eu").ask(buy(None)).await.expect("awake now");
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(spans.take());
        let regions = ["us", "eu"].map(|region| region.parse().expect("a region"));
        let broadcast = async || {
            mesh.at("us").broadcast::<Shop, Note>(&regions, Note).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let all = spans.take();
            let sent = all.into_iter().find(|span| span.span_kind == SpanKind::Producer);
            let sent = sent.expect("a span of the sender");
            ["rhumb.broadcast.taken", "rhumb.broadcast.refused", "error.type"]
                .map(|key| attribute(&sent, key))
        };
        assert_eq!(broadcast().await, ["1", "0", ""]);
        mesh.cut("us", "eu");
        let [taken, refused, error] = broadcast().await;
        assert_eq!((taken.as_str(), refused.as_str()), ("0", "0"));
        assert!(!error.is_empty(), "a node was not reached");
    });
}

#[test]
fn a_flood_of_calls_leaves_room_for_what_went_wrong() {
    run(async {
        let spans = Spans::with_capacity(64);
        let mesh = TestMesh::of(["us"]).host(Host::new(|_: &_| Shop)).traced(Share::ALL, &spans);
        let mesh = mesh.start().await.expect("starts");
        for _ in 0..100 {
            shop(&mesh, "us", "us").ask(buy(None)).await.expect("answered");
        }
        assert!(spans.counts().dropped > 0, "the flood is more than there is room for");
        let panics = Buy { then: None, who: NAME.to_owned(), panics: true };
        shop(&mesh, "us", "us").ask(panics).await.expect_err("it panics");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let all = spans.take();
        assert!(all.iter().any(|span| span.name.contains("restart")), "{}", tree(&all));
    });
}
