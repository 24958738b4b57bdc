//! Files of histories.
//!
//! * It decides: nothing; which lines are operations is [`operation`](crate::operation)'s.
//! * It never does: leave out a line, or read on behind one that is none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::operation::Operation;

/// Reads a file of lines.
///
/// # Errors
/// It cannot be read, or a line, by its number, is no operation, or none of the batch that it says.
pub fn read(file: &Path) -> anyhow::Result<Vec<Operation>> {
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let mut batches = BTreeMap::new();
    let parsed = BufReader::new(opened).lines().zip(1..).map(|(line, number)| {
        let parsed = Operation::parse(&line?).and_then(|one| one.is_of(&mut batches).map(|()| one));
        parsed.with_context(|| format!("{}:{number}", file.display()))
    });
    parsed.collect()
}

/// Writes a file of lines, in place of what was there.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, history: &[Operation]) -> anyhow::Result<()> {
    let written = || {
        let mut lines = BufWriter::new(File::create(file)?);
        history.iter().try_for_each(|one| writeln!(lines, "{one}"))?;
        lines.flush()
    };
    written().with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sound;

    #[test]
    fn a_history_comes_back_from_its_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let history = sound::history();
        let lines: Vec<String> = history.iter().map(Operation::line).collect();
        write(&file, &history).expect("written");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), lines.join("\n") + "\n");
        assert_eq!(read(&file).expect("read"), history);
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        let swap = json!({"process": 1, "op": "cas", "key": "k", "value": [2, 3], "call_ns": 30, "return_ns": 34,
                          "outcome": "ok"});
        assert_eq!(json(&lines[5]), swap);
        assert!(lines[7].contains("\"return_ns\":null"), "{}", lines[7]);
        // Of a batch each key has a line.
        let half = json!({"process": 1, "op": "cas", "key": "l", "batch": 2, "value": [null, 1], "call_ns": 86,
                          "return_ns": 88, "outcome": "ok"});
        assert_eq!(json(&lines[19]), half);
    }

    #[test]
    fn what_is_no_history_is_refused_with_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let lines: Vec<String> = sound::history().iter().map(Operation::line).collect();
        let check = |second: String, says: &str| {
            std::fs::write(&file, format!("{}\n{second}", lines[19])).expect("written");
            let bad = format!("{:#}", read(&file).expect_err(says));
            assert!(bad.contains("history.jsonl:2") && bad.contains(says), "{bad}");
        };
        check(lines[1].replace("write", "append"), "expected read, write, cas or delete");
        check(lines[20].replace("\"call_ns\":86", "\"call_ns\":85"), "expected one process, call_ns");
        check(lines[20].replace("\"key\":\"m\"", "\"key\":\"l\""), "has key l twice");
    }
}
