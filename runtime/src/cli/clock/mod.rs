//! `rhumb clock`: how far the clocks of the mesh may be wrong, and a drill that shows what happens when one is.
//!
//! * It decides: whom to ask, and how the answer looks.
//! * It never does: move a clock. A drill shows a node's keeper another one, for as long as it is told, and is in that
//!   node's audit log.

mod reset;
mod translate;

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_core::NodeId;
use serde::Serialize;

use self::reset::Reset;
use self::translate::Translate;
use super::args::duration;
use super::connect::{Connect, knows, nodes_from};
use super::output::{Done, Failure, Output};
use super::status::{Table, gathered};
use crate::client::{Ask, MeshClient};
use crate::mesh::clock::{DrillClock, Drilled, FARTHEST_DRILL, LONGEST_DRILL};
use crate::mesh::status::{ClockPeer, ClockSource, ClockStatus, ClockWord, MeshStatus, Silent};

/// What a drill takes besides its own time, at most.
const BESIDES: Duration = Duration::from_secs(20);
/// How long the others have to tell how they stand.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);

/// How far the clocks of the mesh may be wrong: show it, try what happens.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Show every node's clock: offset, uncertainty, drift, sources, and whether strong paths stand.
    Status(Status),
    /// Show one node another clock for a while, and see it refuse strong paths and go on.
    Drill(Drill),
    /// Have nodes forget what they know of their clocks, under a new epoch that clients learn from their tokens.
    Reset(Reset),
    /// Say what a time of another clock may have meant: of systems that do not speak hybrid time, or smear leap seconds.
    Translate(Translate),
}

/// Show every node's clock.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb clock status\n  rhumb clock status --check -o json\n\nEnds with 0 also when strong paths are refused somewhere; with --check, with 5 then, and when a node does not answer."
)]
pub struct Status {
    /// End with code 5 unless every node answers and refuses no strong paths.
    #[arg(long)]
    check: bool,
    /// How long the asked node waits for each of the others.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    within: Duration,
    #[command(flatten)]
    connect: Connect,
}

/// Show one node another clock for a while, and see it refuse strong paths and go on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb clock drill --node us-east/n1\n  rhumb clock drill --node us-east/n1 --offset 10m --behind --for 30s\n\nNeither the wall clock nor hybrid time is moved: only what judges them sees another clock. Strong paths of that one node are refused meanwhile, nothing else is. The drill is in the node's audit log. Ends with 5 unless the node froze, stood again, and no other node froze."
)]
pub struct Drill {
    /// The node.
    #[arg(long, value_name = "REGION/NODE")]
    node: NodeId,
    /// By how much the clock that it is shown is ahead; twice mesh.max_offset unless given, since over a long way less may
    /// be explained by the round trip.
    #[arg(long, value_name = "TIME", value_parser = drill_offset)]
    offset: Option<Duration>,
    /// It is behind, not ahead.
    #[arg(long)]
    behind: bool,
    /// For how long: a minute at most.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = drill_time)]
    lasts: Duration,
    #[command(flatten)]
    connect: Connect,
}

/// How long a drill may last.
fn drill_time(text: &str) -> Result<Duration, String> {
    let time = duration(text).ok().filter(|time| !time.is_zero() && *time <= LONGEST_DRILL);
    time.ok_or_else(|| format!("{text:?} is not how long a drill may last: expected 1ms to 60s, such as 5s"))
}

/// How far off a clock may be that a drill shows.
fn drill_offset(text: &str) -> Result<Duration, String> {
    let offset = duration(text).ok().filter(|offset| !offset.is_zero() && *offset <= FARTHEST_DRILL);
    offset.ok_or_else(|| {
        format!("{text:?} is not how far off a clock may be shown: expected 1ms to 1h, and --behind for one that is behind")
    })
}

impl ClockCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Status(status) => status.run(output).await,
            Self::Drill(drill) => drill.run(output).await,
            Self::Reset(reset) => reset.run(output).await,
            Self::Translate(translate) => Ok(translate.run(output)),
        }
    }
}

#[derive(Debug, Serialize)]
struct StatusAnswer {
    asked: String,
    nodes: Vec<NodeClock>,
    silent: Vec<Silent>,
}

#[derive(Debug, Serialize)]
struct NodeClock {
    node: String,
    #[serde(flatten)]
    clock: ClockStatus,
}

#[derive(Debug, Serialize)]
struct DrillAnswer {
    node: String,
    ahead_ms: i64,
    for_ms: u64,
    froze_after_ms: Option<u64>,
    why: Option<String>,
    stood_after_ms: Option<u64>,
    /// The entry in the node's audit log that says how it ended.
    entry: u64,
    /// Other nodes that froze meanwhile.
    others_froze: Vec<String>,
}

impl From<MeshStatus> for StatusAnswer {
    fn from(status: MeshStatus) -> Self {
        let clock = |node: crate::mesh::status::NodeStatus| NodeClock { node: node.node, clock: node.clock };
        Self {
            asked: status.asked,
            nodes: status.nodes.into_iter().map(clock).collect(),
            silent: status.silent,
        }
    }
}

impl StatusAnswer {
    fn well(&self) -> bool {
        self.silent.is_empty() && self.nodes.iter().all(|node| node.clock.frozen.is_none())
    }
}

impl Status {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.client().await?;
        let nodes = nodes_from(client.directory(), |node| node.region == *client.region());
        let status = gathered(&client, nodes, self.within).await;
        client.close().await;
        let answer = StatusAnswer::from(status?);
        output.answer(&answer, &answer);
        Ok(if self.check && !answer.well() { Done::False } else { Done::Well })
    }
}

impl Drill {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let answer = self.drill(&client).await;
        client.close().await;
        let answer = answer?;
        output.answer(&answer, &answer);
        let well = answer.froze_after_ms.is_some() && answer.stood_after_ms.is_some();
        Ok(if well && answer.others_froze.is_empty() { Done::Well } else { Done::False })
    }

    async fn drill(&self, client: &MeshClient) -> Result<DrillAnswer, Failure> {
        knows(client, &self.node)?;
        let before = gathered(client, vec![self.node.clone()], OTHERS_WITHIN).await?;
        let max_offset = before.nodes.first().map_or(0, |node| node.clock.max_offset_ms);
        let offset = self.offset.unwrap_or(Duration::from_millis(max_offset * 2));
        let ahead = i64::try_from(offset.as_millis()).unwrap_or(i64::MAX);
        let ahead_ms = if self.behind { -ahead } else { ahead };
        let for_ms = u64::try_from(self.lasts.as_millis()).unwrap_or(u64::MAX);
        let asked = DrillClock { ahead_ms, for_ms };
        let done = client.ask(&self.node, &asked, self.lasts + BESIDES).await?.map_err(Failure::local)?;
        let after = gathered(client, vec![self.node.clone()], OTHERS_WITHIN).await?;
        let Drilled { froze_after_ms, why, stood_after_ms, entry } = done;
        let why = (!why.is_empty()).then_some(why);
        let others_froze = froze_between(&before, &after, &self.node.to_string());
        let node = self.node.to_string();
        Ok(DrillAnswer { node, ahead_ms, for_ms, froze_after_ms, why, stood_after_ms, entry, others_froze })
    }
}

/// Which nodes but this one were frozen once more between two looks at the mesh.
fn froze_between(before: &MeshStatus, after: &MeshStatus, but: &str) -> Vec<String> {
    let freezes = |status: &MeshStatus, node: &str| {
        status.nodes.iter().find(|of| of.node == node).map(|of| (of.incarnation, of.clock.freezes))
    };
    let others = after.nodes.iter().filter(|of| of.node != but);
    let froze = others.filter(|of| match freezes(before, &of.node) {
        Some((life, freezes)) if life == of.incarnation => of.clock.freezes > freezes,
        _ => of.clock.frozen.is_some(),
    });
    froze.map(|of| of.node.clone()).collect()
}

impl fmt::Display for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = self.nodes.first().map_or(0, |node| node.clock.max_offset_ms);
        let mut text = format!("clocks, as {} gathered them; two may differ by {may} ms\n\n", self.asked);
        let head =
            ["node", "strong paths", "clock", "uncertainty", "p99", "drift", "epoch", "froze", "refused"];
        let mut nodes = Table::new(&head);
        self.nodes.iter().for_each(|node| nodes.row(node_row(node)));
        let silent = |silent: &Silent| vec![silent.node.clone(), "no answer".to_owned()];
        self.silent.iter().for_each(|of| nodes.row(silent(of)));
        nodes.write(&mut text);
        for (node, why) in self.words() {
            text.push_str(&format!("\n{node}: {why}\n"));
        }
        let mut clocks = Table::new(&["seen from", "clock", "ahead by", "wrong by at most", "", "heard"]);
        for NodeClock { node, clock } in &self.nodes {
            clock.peers.iter().for_each(|peer| clocks.row(peer_row(node, peer)));
            clock.sources.iter().for_each(|source| clocks.row(source_row(node, source)));
        }
        text.push('\n');
        clocks.write(&mut text);
        f.write_str(text.trim_end())
    }
}

impl StatusAnswer {
    fn words(&self) -> impl Iterator<Item = (&str, String)> {
        let frozen = |clock: &ClockStatus| {
            let ClockWord { message, .. } = clock.frozen.as_ref()?;
            Some(format!("strong paths are refused: {message}"))
        };
        let drill = |clock: &ClockStatus| {
            let drill = clock.drill.as_ref()?;
            Some(format!(
                "a drill shows its keeper a clock that is {} ms ahead, for {} ms more",
                drill.ahead_ms, drill.left_ms
            ))
        };
        let of_nodes = self.nodes.iter().flat_map(move |NodeClock { node, clock }| {
            let doubts = clock.doubts.iter().map(|doubt| doubt.message.clone());
            let words = frozen(clock).into_iter().chain(drill(clock)).chain(doubts);
            words.map(move |word| (node.as_str(), word))
        });
        of_nodes.chain(self.silent.iter().map(|silent| (silent.node.as_str(), silent.why.clone())))
    }
}

fn node_row(NodeClock { node, clock }: &NodeClock) -> Vec<String> {
    let strong = match (&clock.frozen, clock.standing.as_str()) {
        (Some(_), _) => "REFUSED",
        (None, "") => "-",
        (None, _) => "stand",
    };
    let drift = clock.drift_ppm.map(|(low, high)| format!("{low} to {high} ppm"));
    vec![
        node.clone(),
        strong.to_owned(),
        clock.standing.clone(),
        known(clock.uncertainty_us.map(ms)),
        known(clock.uncertainty_p99_us.map(ms)),
        known(drift),
        clock.epoch.to_string(),
        clock.freezes.to_string(),
        clock.refused.to_string(),
    ]
}

fn peer_row(from: &str, peer: &ClockPeer) -> Vec<String> {
    vec![
        from.to_owned(),
        peer.node.clone(),
        signed(peer.offset_us),
        ms(peer.error_us),
        if peer.off { "OFF" } else { "near" }.to_owned(),
        ago(peer.age_ms),
    ]
}

fn source_row(from: &str, source: &ClockSource) -> Vec<String> {
    vec![
        from.to_owned(),
        source.name.clone(),
        known(source.offset_us.map(signed)),
        known(source.error_us.map(ms)),
        source.verdict.clone(),
        known(source.age_ms.map(ago)),
    ]
}

fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn ms(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1e3)
}

fn signed(micros: i64) -> String {
    format!("{:+.1} ms", micros as f64 / 1e3)
}

fn ago(ms: u64) -> String {
    format!("{:.1} s ago", ms as f64 / 1e3)
}

impl fmt::Display for DrillAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, ahead_ms, for_ms, .. } = self;
        writeln!(f, "{node} was shown a clock that is {ahead_ms:+} ms off, for {for_ms} ms")?;
        match (&self.froze_after_ms, &self.why) {
            (Some(after), Some(why)) => writeln!(f, "strong paths were refused after {after} ms: {why}")?,
            _ => writeln!(f, "strong paths were NOT refused: is there anybody to compare it with?")?,
        }
        match self.stood_after_ms {
            Some(after) => writeln!(f, "they stood again {after} ms after its end")?,
            None => writeln!(f, "they do NOT stand again: `rhumb clock status`")?,
        }
        match &self.others_froze[..] {
            [] => writeln!(f, "no other node froze")?,
            froze => writeln!(f, "other nodes froze TOO: {}", froze.join(", "))?,
        }
        write!(f, "entry {} of the audit log of {node} says so", self.entry)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::mesh::status::{ClockDrill, NodeStatus};

    fn mesh() -> MeshStatus {
        let peer = |node: &str, offset_us, off| ClockPeer {
            node: node.into(),
            offset_us,
            error_us: 45_210,
            age_ms: 640,
            off,
        };
        let word = |kind: &str, message: &str| ClockWord { kind: kind.into(), message: message.into() };
        let source = ClockSource {
            name: "ntp-1:123".into(),
            verdict: "agrees".into(),
            offset_us: Some(-1_260),
            error_us: Some(3_000),
            age_ms: Some(9_000),
        };
        let us = ClockStatus {
            max_offset_ms: 500,
            standing: "degraded".into(),
            doubts: vec![word("silent", "ntp-2:123 is not heard")],
            uncertainty_us: Some(4_260),
            uncertainty_p99_us: Some(5_000),
            drift_ppm: Some((-3, 11)),
            sources: vec![
                source,
                ClockSource { name: "ntp-2:123".into(), verdict: "silent".into(), ..ClockSource::default() },
            ],
            peers: vec![peer("eu/n1", 451_000, true)],
            ..ClockStatus::default()
        };
        let eu = ClockStatus {
            standing: "frozen".into(),
            frozen: Some(word("off_peers", "set it right")),
            drill: Some(ClockDrill { ahead_ms: 450, left_ms: 1_200 }),
            peers: vec![peer("us/n1", -451_000, true)],
            freezes: 1,
            refused: 17,
            ..ClockStatus::default()
        };
        let node = |node: &str, clock| NodeStatus { node: node.into(), clock, ..NodeStatus::default() };
        let silent = vec![Silent { node: "ap/n1".into(), why: "unreachable".into(), for_ms: None }];
        MeshStatus { asked: "us/n1".into(), nodes: vec![node("us/n1", us), node("eu/n1", eu)], silent }
    }

    #[test]
    fn the_clocks_are_shown_with_what_each_sees_of_the_others() {
        let answer = StatusAnswer::from(mesh());
        assert!(!answer.well());
        expect![[r#"
            clocks, as us/n1 gathered them; two may differ by 500 ms

            node   strong paths  clock     uncertainty  p99     drift         epoch  froze  refused
            us/n1  stand         degraded  4.3 ms       5.0 ms  -3 to 11 ppm  0      0      0
            eu/n1  REFUSED       frozen    -            -       -             0      1      17
            ap/n1  no answer

            us/n1: ntp-2:123 is not heard

            eu/n1: strong paths are refused: set it right

            eu/n1: a drill shows its keeper a clock that is 450 ms ahead, for 1200 ms more

            ap/n1: unreachable

            seen from  clock      ahead by   wrong by at most          heard
            us/n1      eu/n1      +451.0 ms  45.2 ms           OFF     0.6 s ago
            us/n1      ntp-1:123  -1.3 ms    3.0 ms            agrees  9.0 s ago
            us/n1      ntp-2:123  -          -                 silent  -
            eu/n1      us/n1      -451.0 ms  45.2 ms           OFF     0.6 s ago"#]]
        .assert_eq(&answer.to_string());
    }

    #[test]
    fn a_drill_is_bounded_in_time_and_in_how_far_it_goes() {
        assert_eq!(drill_time("60s"), Ok(LONGEST_DRILL));
        assert_eq!(drill_offset("1h"), Ok(FARTHEST_DRILL));
        for wrong in ["2h", "61s", "0s", "5", "-5s"] {
            let said = drill_time(wrong).expect_err(wrong);
            assert!(said.ends_with("expected 1ms to 60s, such as 5s"), "{said}");
        }
        for wrong in ["2h", "0ms", "-1s"] {
            let said = drill_offset(wrong).expect_err(wrong);
            assert!(said.contains("expected 1ms to 1h"), "{said}");
        }
    }

    #[test]
    fn a_drill_says_whether_others_froze_too() {
        let (before, mut after) = (mesh(), mesh());
        assert!(froze_between(&before, &after, "us/n1").is_empty(), "eu was frozen before");
        after.nodes[1].clock.freezes += 1;
        assert_eq!(froze_between(&before, &after, "us/n1"), ["eu/n1"]);
        assert!(froze_between(&before, &after, "eu/n1").is_empty(), "that is the drill");
        after.nodes[1].incarnation += 1;
        after.nodes[1].clock.freezes = 0;
        assert_eq!(froze_between(&before, &after, "us/n1"), ["eu/n1"], "in another life, and frozen");
        let answer = DrillAnswer {
            node: "us/n1".into(),
            ahead_ms: -450,
            for_ms: 5_000,
            froze_after_ms: Some(1),
            why: Some("it is off".into()),
            stood_after_ms: Some(8),
            entry: 12,
            others_froze: vec!["eu/n1".into()],
        };
        expect![[r#"
            us/n1 was shown a clock that is -450 ms off, for 5000 ms
            strong paths were refused after 1 ms: it is off
            they stood again 8 ms after its end
            other nodes froze TOO: eu/n1
            entry 12 of the audit log of us/n1 says so"#]]
        .assert_eq(&answer.to_string());
        let none = DrillAnswer {
            froze_after_ms: None,
            why: None,
            stood_after_ms: None,
            others_froze: vec![],
            ..answer
        };
        expect![[r#"
            us/n1 was shown a clock that is -450 ms off, for 5000 ms
            strong paths were NOT refused: is there anybody to compare it with?
            they do NOT stand again: `rhumb clock status`
            no other node froze
            entry 12 of the audit log of us/n1 says so"#]]
        .assert_eq(&none.to_string());
    }
}
