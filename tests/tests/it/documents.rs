//! The repository's documents, as tests read them.

use std::fs;
use std::path::PathBuf;

/// A file of the repository.
pub(crate) fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A document's fenced blocks of one language.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    fenced(document).into_iter().filter(|(tag, _)| tag == language).map(|(_, text)| text).collect()
}

/// A document's fenced blocks, each with its language.
pub(crate) fn fenced(document: &str) -> Vec<(String, String)> {
    let text = file(document);
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(tag)) => open = Some((tag.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, text)), None) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    found
}
