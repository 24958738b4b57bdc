//! The tables of a document: what is between `<!-- bench NAME -->` and `<!-- /bench -->` is replaced by
//! the results of that work, so that no figure there was typed by hand; and where the name is `bars`, by all bars.
//!
//! * It decides: what a work's table shows.
//! * It never does: touch what is outside of the marks, or a table without results.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Context;

use super::{Written, ahead, bars, counterpart, figure, floors, measured};
use crate::sample::{Outcome, Unit};

const END: &str = "<!-- /bench -->";
/// Rounds that a document's figures are the medians of, at least.
const ROUNDS: usize = 5;

/// The document with the tables of these works: their names and results.
///
/// # Errors
/// A mark has no end, or results are those of a part: of some systems, of short rounds or of too few, of a share of an amount;
/// or they are of several builds.
pub fn replace(document: &str, works: &[(&str, Vec<Written>)]) -> anyhow::Result<String> {
    let builds =
        works.iter().flat_map(|(_, results)| results).filter_map(|r| r.outcome.versions.get("rhumb"));
    let builds: BTreeSet<_> = builds.collect();
    anyhow::ensure!(builds.len() <= 1, "results are of several builds, {builds:?}: measure all of it again");
    let mut text = document.to_owned();
    for (name, results) in works.iter().filter(|(_, results)| !results.is_empty()) {
        whole(results).with_context(|| format!("{name}: measure all of it again, or take its file away"))?;
        fill(&mut text, name, &section(results))?;
    }
    fill(&mut text, "bars", &summary(works))?;
    Ok(text)
}

/// Puts this between the marks of that name, where the document has them.
fn fill(text: &mut String, name: &str, with: &str) -> anyhow::Result<()> {
    let begin = format!("<!-- bench {name} -->");
    let Some(at) = text.find(&begin) else { return Ok(()) };
    let from = at + begin.len();
    let length = text[from..].find(END).with_context(|| format!("{begin} has no {END}"))?;
    text.replace_range(from..from + length, &format!("\n{with}"));
    Ok(())
}

/// All bars, those that are missed first.
fn summary(works: &[(&str, Vec<Written>)]) -> String {
    let of_work = |(_, results): &(&str, Vec<Written>)| {
        bars::sentences(&results.iter().map(|r| r.outcome.clone()).collect::<Vec<_>>())
    };
    let all: Vec<_> = works.iter().flat_map(of_work).collect();
    let (missed, met): (Vec<&String>, Vec<_>) = all.iter().partition(|said| said.contains("MISSED"));
    let list = |said: Vec<&String>| said.into_iter().map(|said| format!("- {said}\n")).collect::<String>();
    let (misses, of) = (missed.len(), all.len());
    format!("{misses} of {of} bars are missed:\n\n{}\nThe others:\n\n{}", list(missed), list(met))
}

/// Whether these are results of all systems, in full rounds and enough of them. What their command says besides the work is
/// what it left out.
fn whole(results: &[Written]) -> anyhow::Result<()> {
    let command = &results[0].conditions.command;
    let left = ["SYSTEMS=", "MILLIS=", "BENCHFLAGS="].into_iter().find(|said| command.contains(said));
    anyhow::ensure!(left.is_none(), "these are results of a part, by `{command}`");
    let rounds = results.iter().map(|r| r.outcome.rounds).max().unwrap_or(0);
    anyhow::ensure!(rounds >= ROUNDS, "{rounds} rounds are not enough, by `{command}`");
    Ok(())
}

/// A work's table, with its conditions and notes below.
fn section(results: &[Written]) -> String {
    let outcomes: Vec<_> = results.iter().map(|r| r.outcome.clone()).collect();
    let mut text = rows(&outcomes);
    let conditions = &results[0].conditions;
    writeln!(
        text,
        "\n`{}`: {} rounds, interleaved; {} cores, {}, Linux {}, {}, load before {:.2}. Spread is (highest − lowest) / median.",
        conditions.command,
        outcomes[0].rounds,
        conditions.cores,
        conditions.cpu,
        conditions.kernel,
        conditions.compiler,
        conditions.load_before
    )
    .ok();
    writeln!(text).ok();
    for line in super::made_of(&outcomes) {
        writeln!(text, "- {line}").ok();
    }
    for (what, sentence) in floors::sentences(&outcomes) {
        writeln!(text, "- {what}: {sentence}").ok();
    }
    for sentence in bars::sentences(&outcomes) {
        writeln!(text, "- Bar: {sentence}").ok();
    }
    for sentence in bars::beside(&outcomes) {
        writeln!(text, "- Beside the bars: {sentence}").ok();
    }
    text
}

fn rows(outcomes: &[Outcome]) -> String {
    let unit = outcomes[0].unit;
    let latencies = outcomes.iter().any(|o| o.p50_us > 0.0);
    let rates = unit != Unit::PerSecond && outcomes.iter().any(|o| o.ops_per_s > 0.0);
    let told = outcomes.iter().any(|o| o.failed + o.lost > 0);
    let columns = [
        (true, "system"),
        (true, "in flight"),
        (true, "bytes"),
        (true, unit.symbol()),
        (rates, "ops/s"),
        (latencies, "p50 µs"),
        (latencies, "p99 µs"),
        (true, "spread"),
        (told, "failed"),
        (told, "lost"),
        (true, "Rhumb is"),
    ];
    let row = |cells: [String; 11]| {
        let shown = cells.into_iter().zip(columns).filter(|(_, (shown, _))| *shown).map(|(cell, _)| cell);
        format!("| {} |\n", shown.collect::<Vec<_>>().join(" | "))
    };
    let mut text = row(columns.map(|(_, name)| name.to_owned()));
    text += &row(columns.map(|(_, name)| if name == "system" { "---" } else { "---:" }.to_owned()));
    for o in outcomes {
        let ours = o.system == counterpart(&o.system);
        let name = if ours { format!("**{}**", o.system) } else { o.system.clone() };
        if o.rounds == 0 {
            // It failed before it had a figure: below the table stands how.
            let mut cells = std::array::from_fn(|_| String::new());
            cells[..4].clone_from_slice(&[
                name,
                o.concurrency.to_string(),
                o.payload.to_string(),
                "not measured".to_owned(),
            ]);
            text += &row(cells);
            continue;
        }
        let unit = if o.unit == unit { String::new() } else { format!(" {}", o.unit.symbol()) };
        text += &row([
            name,
            o.concurrency.to_string(),
            o.payload.to_string(),
            figure(o) + &unit,
            measured(o.ops_per_s),
            measured(o.p50_us),
            measured(o.p99_us),
            format!("{:.0} %", o.spread * 100.0),
            o.failed.to_string(),
            o.lost.to_string(),
            ahead(o, outcomes).unwrap_or_default(),
        ]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::report::tests::outcome;

    fn written(system: &str, ops: u64) -> Written {
        let outcome = Outcome { rounds: 5, ..outcome(system, ops) };
        Written { outcome, conditions: Conditions::default() }
    }

    #[test]
    fn only_what_is_between_the_marks_of_a_work_with_results_is_replaced() {
        let document = "a\n<!-- bench remote-ask -->\nold\n<!-- /bench -->\nb\n<!-- bench other -->\nkept\n<!-- /bench -->\n";
        let works =
            [("remote-ask", vec![written("rhumb", 3_000), written("tonic", 1_000)]), ("other", Vec::new())];
        let new = replace(document, &works).expect("marks that end");
        assert!(new.starts_with("a\n<!-- bench remote-ask -->\n| system | in flight"), "{new}");
        assert!(new.contains("| **rhumb** | 16 | 64 | 3,000 | 12.5 | 1,234 | 0 % |  |\n"), "{new}");
        assert!(new.contains("| tonic | 16 | 64 | 1,000 | 12.5 | 1,234 | 0 % | 3.00× |\n"), "{new}");
        let mut failed = written("kameo", 0);
        failed.outcome.rounds = 0;
        let works = [("remote-ask", vec![written("rhumb", 3_000), failed])];
        let new = replace(document, &works).expect("marks that end");
        assert!(new.contains("| kameo | 16 | 64 | not measured |  |  |  |  |\n"), "{new}");
        assert!(
            !new.contains("old") && new.ends_with("<!-- bench other -->\nkept\n<!-- /bench -->\n"),
            "{new}"
        );
        assert_eq!(replace(&new, &works).expect("marks that end"), new);
        assert!(replace("<!-- bench remote-ask -->", &works).is_err());
    }

    #[test]
    fn all_bars_are_told_in_one_place_and_of_one_build() {
        let document = "<!-- bench bars -->\n<!-- /bench -->";
        let works = |build: &str| {
            let mut of = [written("rhumb", 3_000), written("tonic", 4_000), written("coerce", 1_000)];
            let versions = |name: &str| [("rhumb".to_owned(), name.to_owned())].into();
            (of[0].outcome.versions, of[1].outcome.versions) = (versions("1"), versions(build));
            [("remote-ask", of.to_vec())]
        };
        let told = replace(document, &works("1")).expect("one build");
        let missed =
            "1 of 2 bars are missed:\n\n- remote-ask, 16 in flight: 0.75 times tonic; bar 1.00: MISSED\n";
        assert!(told.contains(missed), "{told}");
        assert!(told.contains("The others:\n\n- remote-ask, 16 in flight: 3.00 times coerce"), "{told}");
        assert!(replace(document, &works("2")).is_err());
    }

    #[test]
    fn results_of_a_part_do_not_come_into_a_document() {
        let document = "<!-- bench remote-ask -->\n<!-- /bench -->";
        let by = |command: &str, rounds| {
            let mut part = written("rhumb", 3_000);
            (part.conditions.command, part.outcome.rounds) = (command.into(), rounds);
            replace(document, &[("remote-ask", vec![part])])
        };
        assert!(by("make bench ONLY=remote-ask", 5).is_ok());
        assert!(by("make bench ONLY=remote-ask ROUNDS=7", 7).is_ok());
        assert!(by("make bench ONLY=remote-ask ROUNDS=2", 2).is_err());
        for left in ["SYSTEMS=rhumb,tonic", "MILLIS=300", "BENCHFLAGS='--scale 0.1'"] {
            assert!(by(&format!("make bench ONLY=remote-ask {left}"), 5).is_err(), "{left}");
        }
    }

    #[test]
    fn what_was_noted_of_one_load_alone_is_said() {
        let at = |concurrency, note: &str| {
            let mut one = written("uhlc", 1_000);
            (one.outcome.concurrency, one.outcome.note) = (concurrency, note.into());
            one
        };
        let text = section(&[at(1, "ahead ms 0"), at(2, "ahead ms 254")]);
        assert!(text.contains("- uhlc: ahead ms 0. uhlc "), "{text}");
        assert!(text.contains("- uhlc, 2 in flight, 64 bytes: ahead ms 254\n"), "{text}");
        let text = section(&[at(1, "the same"), at(2, "the same")]);
        assert_eq!(text.matches("the same").count(), 1, "{text}");
    }
}
