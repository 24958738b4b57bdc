//! Traces of real processes, as a strict collector receives them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use rhumb_tests::cluster::{DevMesh, Ran, ask_admin, eventually, run_with};
use rhumb_tests::otlp::{Collector, Span, whole};

const THREE: &str = "us-east,eu-central,ap-southeast";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A command against a mesh that says where its own spans go.
fn traced(mesh: &DevMesh, endpoint: &str, arguments: &[&str]) -> Ran {
    let data = mesh.data();
    let data = ["--data", data.to_str().expect("a path is text")];
    run_with(&[(ENDPOINT, endpoint)], mesh.directory(), &[arguments, &data].concat())
}

fn trace_id(ran: &Ran) -> String {
    let said = ran.text.lines().find_map(|line| line.strip_prefix("trace_id: "));
    said.unwrap_or_else(|| panic!("it says its trace: {}", ran.text)).to_owned()
}

/// The spans below one, by name, kind and node.
fn below<'a>(trace: &'a [Span], parent: &Span, name: &str, kind: &str, node: &str) -> Vec<&'a Span> {
    let is = |span: &&Span| {
        span.parent == parent.id
            && span.name == name
            && span.kind == kind
            && span.attributes["rhumb.node"].starts_with(node)
    };
    trace.iter().filter(is).collect()
}

/// Whether a way leads down a trace: each step a name, a kind and a node.
fn leads(trace: &[Span], from: &Span, way: &[(&str, &str, &str)]) -> bool {
    let Some(((name, kind, node), rest)) = way.split_first() else { return true };
    below(trace, from, name, kind, node).into_iter().any(|next| leads(trace, next, rest))
}

/// All ways that a sale takes whose rights came from another region.
fn ways() -> Vec<Vec<(&'static str, &'static str, &'static str)>> {
    const EU: &str = "eu-central/n1";
    const US: &str = "us-east/n1";
    // `rhumb dev` certifies its people in the first region.
    const CUSTOMER: &str = "ap-southeast/client";
    let asked = vec![("escrow/Hold", "CLIENT", CUSTOMER), ("escrow/Hold", "SERVER", EU)];
    let level = [("send escrow.Level", "PRODUCER", EU), ("process escrow.Level", "CONSUMER", US)];
    let told = [asked.clone(), level.to_vec()].concat();
    let back = [("send escrow.Level", "PRODUCER", US), ("process escrow.Level", "CONSUMER", EU)];
    let with = |way: &[(&'static str, &'static str, &'static str)], more: &[&'static str], node| {
        [way, &more.iter().map(|name| (*name, "INTERNAL", node)).collect::<Vec<_>>()].concat()
    };
    vec![
        with(&asked[..1], &["encode"], CUSTOMER),
        with(&asked, &["ingress gate"], EU),
        with(&asked, &["decode"], EU),
        with(&asked, &["queue"], EU),
        with(&asked, &["handler"], EU),
        with(&asked, &["wait for rights"], EU),
        with(&asked, &["storage commit", "fsync"], EU),
        with(&asked, &["encode"], EU),
        with(&asked, &["egress gate"], EU),
        with(&told[..3], &["egress gate"], EU),
        with(&told, &["queue"], US),
        with(&told, &["storage commit", "fsync"], US),
        with(&[told.clone(), back.to_vec()].concat(), &["queue"], EU),
    ]
}

#[test]
fn a_sale_that_fetched_rights_across_regions_is_one_trace_with_the_right_parents() {
    let collector = Collector::grpc();
    let mesh = DevMesh::start_traced(THREE, "off", &collector.endpoint, &[]);
    let weights = "us-east=1,eu-central=0,ap-southeast=0";
    mesh.ok(&["pool", "create", "shoes", "--supply", "400", "--weights", weights]);
    eventually("eu-central knows the pool", || {
        mesh.rhumb(&["pool", "show", "shoes", "--region", "eu-central"]).code == 0
    });
    let hold = ["hold", "shoes", "--qty", "1", "--region", "eu-central", "-v"];
    let held = traced(&mesh, &collector.endpoint, &hold);
    assert_eq!(held.code, 0, "{}", held.text);
    let id = trace_id(&held);
    let missing = |trace: &[Span]| {
        let first = trace.iter().find(|span| span.parent.is_empty()).cloned();
        let ways = ways().into_iter();
        let Some(first) = first else { return ways.collect::<Vec<_>>() };
        ways.filter(|way| !leads(trace, &first, way)).collect()
    };
    let trace = || collector.trace(&id);
    let mut last = String::new();
    eventually("the whole trace has come", || {
        let trace = trace();
        let (whole, missing) = (whole(&trace), missing(&trace));
        let now = format!("{whole:?} {missing:?} of {}", tree(&trace));
        if now != last && std::env::var_os("RHUMB_SHOW_TRACES").is_some() {
            println!("{now}");
        }
        last = now;
        whole.is_ok() && missing.is_empty()
    });
    println!("{}", tree(&trace()));
    for span in trace() {
        assert!(!format!("{span:?}").contains("shoes"), "a pool's name in {span:?}");
        let class = &span.attributes["rhumb.data.class"];
        assert!(["control", "inventory"].contains(&class.as_str()), "{span:?}");
    }
}

fn tree(trace: &[Span]) -> String {
    fn add(trace: &[Span], parent: &str, depth: usize, out: &mut String) {
        for span in trace.iter().filter(|span| span.parent == parent) {
            let took = (span.times.1 - span.times.0) / 1_000;
            let node = &span.attributes["rhumb.node"];
            out.push_str(&format!("{}{} {} {node} {took} µs\n", "  ".repeat(depth), span.name, span.kind));
            add(trace, &span.id, depth + 1, out);
        }
    }
    let mut out = String::new();
    add(trace, "", 0, &mut out);
    out
}

#[test]
fn over_http_the_same_arrives_and_a_command_without_spans_begins_its_trace_at_the_node() {
    let collector = Collector::http();
    let mesh = DevMesh::start_traced(
        "us-east",
        "off",
        &collector.endpoint,
        &[("RHUMB__TELEMETRY__PROTOCOL", "http")],
    );
    mesh.ok(&["pool", "create", "shoes", "--supply", "10"]);
    // No endpoint of its own: what it says is the id under which the node begins.
    let held = mesh.rhumb(&["hold", "shoes", "--region", "us-east", "-v"]);
    assert_eq!(held.code, 0, "{}", held.text);
    let id = trace_id(&held);
    eventually("the trace has come", || {
        let trace = collector.trace(&id);
        let first = trace.iter().find(|span| span.parent.is_empty());
        first.is_some_and(|span| span.kind == "SERVER") && whole(&trace).is_ok() && trace.len() >= 6
    });
    // What a node says of itself is in a trace of its own.
    eventually("the standing is told", || {
        collector.spans().iter().any(|span| span.name == "standing changed")
    });
}

/// The spans of a node by what became of them.
fn spans_of(mesh: &DevMesh, node: &str) -> BTreeMap<String, u64> {
    let admin = mesh.node(node)["admin"].as_str().expect("a URL").replace("http://", "");
    let (_, page) = ask_admin(&admin, "/metrics").expect("it answers");
    let counts = page.lines().filter_map(|line| {
        let (outcome, count) = line.strip_prefix("rhumb_trace_spans_total{outcome=\"")?.split_once("\"} ")?;
        Some((outcome.to_owned(), count.parse().ok()?))
    });
    counts.collect()
}

/// Sells under load: every call has its answer.
fn sells_under_load(mesh: &DevMesh, directory: &Path) {
    mesh.ok(&["pool", "create", "shoes", "--supply", "100000"]);
    let receipts = directory.join("receipts.jsonl");
    let load = ["load", "escrow", "shoes", "--rate", "100", "--for", "3s", "--seed", "1", "--receipts"];
    let ran = mesh.ok(&[&load[..], &[receipts.to_str().expect("a path is text")]].concat());
    assert!(ran["sold"].as_u64().is_some_and(|sold| sold > 0), "{ran:#}");
    for none in ["lost_holds", "lost_confirms", "unknown", "broken", "turned_away"] {
        assert_eq!(ran[none], 0, "{none} in {ran:#}");
    }
    assert_eq!(ran["unserved"], serde_json::json!({}), "{ran:#}");
}

#[test]
fn a_collector_that_is_not_there_or_does_not_answer_stops_no_call_and_is_counted() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    // It takes connections, and never a word.
    let silent = format!("http://{}", nobody.local_addr().expect("bound"));
    let small = [("RHUMB__TELEMETRY__QUEUE", "64"), ("RHUMB__TELEMETRY__TIMEOUT", "1s")];
    let mesh = DevMesh::start_traced("us-east", "off", &silent, &small);
    sells_under_load(&mesh, mesh.directory());
    eventually("what was dropped is counted", || {
        let spans = spans_of(&mesh, "us-east/n1");
        spans["dropped"] > 0 && spans["failed"] > 0 && spans["exported"] == 0
    });
    drop(mesh);
    drop(nobody);
    let mesh = DevMesh::start_traced("us-east", "off", &silent, &small);
    sells_under_load(&mesh, mesh.directory());
    eventually("what was not taken is counted", || spans_of(&mesh, "us-east/n1")["failed"] > 0);
}
