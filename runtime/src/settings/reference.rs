//! The reference of all keys, as Markdown: `docs/settings.md` is this text.

use std::fmt::Write as _;

use super::draft::Draft;
use super::key::Key;
use super::keys::SECTIONS;
use super::rules::RULES;

const HEAD: &str = "# Settings

Written by `rhumb config reference`; a test compares the two.

A node reads its settings in layers. A later layer overrides single keys of an earlier one:

1. what is built in,
2. `global.toml`, in the folder given with `--config`,
3. `REGION.toml`, given with `--region`,
4. `REGION/ENV.toml`, given with `--env`,
5. the environment: `RHUMB__SECTION__KEY`, in capitals. The names of nodes and regions are written with `_` for
   `-`: `RHUMB__NODES__N1__ADMIN`, `RHUMB__MESH__FOUNDING__US_EAST__N1`. Lists are separated by commas.

A file or variable with an unknown key, or with a value of the wrong type or out of its range, is refused, and so is
every node that would read it: `rhumb config check` tells all faults at once, each with file, line and column.

Durations and sizes are texts with a unit: `\"250ms\"`, `\"3s\"`, `\"5m\"`, `\"2h\"`, `\"1d\"`; `\"512B\"`, `\"64KiB\"`, `\"8MiB\"`, `\"1GiB\"`.
Ends of a range are allowed values. In names, `NODE` stands for a node of the region and `REGION/NODE`, in quotes, for
a node of the mesh.

A key marked *running* changes in a running node: write the file, then send SIGHUP. All others wait for the next
start, and the node's log names them. A reload with a fault changes nothing.
";

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let fresh = Draft::default();
    for section in SECTIONS {
        write!(page, "\n## `{}`\n\n{}\n\n", section.name, section.what).ok();
        page.push_str("| key | takes | built in | | meaning |\n|---|---|---|---|---|\n");
        for key in section.keys {
            row(&mut page, key, &fresh);
        }
    }
    page.push_str("\n## Between keys\n\n");
    for rule in RULES {
        writeln!(page, "- {rule}.").ok();
    }
    page
}

fn row(page: &mut String, key: &Key, fresh: &Draft) {
    let name = key.name.replace("*/*", "\"REGION/NODE\"").replace('*', "NODE");
    let built_in = match (key.needed, (key.field.get)(fresh)) {
        (true, _) => "*must be set*".to_owned(),
        (false, Some(value)) => format!("`{}`", key.shown(&value)),
        (false, None) => String::new(),
    };
    let marks = [(key.running, "running"), (key.secret, "secret")];
    let marks: Vec<&str> = marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
    writeln!(
        page,
        "| `{name}` | {} | {built_in} | {} | {} |",
        key.kind.expected(),
        marks.join(", "),
        key.what
    )
    .ok();
}
