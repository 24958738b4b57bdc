//! Which fields are not shown.
//!
//! * It decides: by a field's name alone. A name is words, separated by anything but letters and digits:
//!   `subject.email`, `idempotency_key` and `user-id` have two each. One hidden word hides the value.
//! * It never does: look at a value, or into the text of a line. So what may be personal or secret goes
//!   into a field with such a name, and never into the text.
//! * Invariant: a hidden value is never formatted: not into a line, and not into a span.

use std::collections::BTreeSet;

use crate::settings::FieldWord;

/// What stands in the place of a hidden value.
pub(in crate::telemetry) const REDACTED: &str = "[redacted]";

/// The words that always hide. `docs/settings.md` lists them under `log.redact`.
const HIDDEN: [&str; 15] = [
    "secret",
    "password",
    "passphrase",
    "token",
    "key",
    "pem",
    "credential",
    "authorization",
    "cookie",
    "subject",
    "customer",
    "person",
    "user",
    "email",
    "phone",
];

/// The words that hide a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::telemetry) struct Redaction(BTreeSet<String>);

impl Redaction {
    /// The words that always do, and these.
    pub(in crate::telemetry) fn with(more: &[FieldWord]) -> Self {
        let more = more.iter().map(FieldWord::as_str);
        Self(HIDDEN.into_iter().chain(more).map(str::to_owned).collect())
    }

    /// Whether the value of a field of this name is hidden. One is not more than many: `keys` is `key`.
    pub(in crate::telemetry) fn hides(&self, name: &str) -> bool {
        name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
            let word = word.to_ascii_lowercase();
            self.0.contains(&word) || word.strip_suffix('s').is_some_and(|one| self.0.contains(one))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hidden_word_in_a_name_hides_its_value() {
        let redaction = Redaction::with(&[]);
        for name in [
            "secret",
            "key",
            "idempotency_key",
            "keys",
            "subject.email",
            "subject.anything",
            "user-id",
            "API_TOKEN",
            "credentials",
        ] {
            assert!(redaction.hides(name), "{name}");
        }
        for name in ["", "node", "monkey", "keyspace", "peer", "usage"] {
            assert!(!redaction.hides(name), "{name}");
        }
    }

    #[test]
    fn settings_add_words_and_take_none_away() {
        let words = [FieldWord::try_from("iban".to_owned()).expect("a word")];
        let redaction = Redaction::with(&words);
        assert!(redaction.hides("payer.iban") && redaction.hides("secret"));
        assert!(!Redaction::with(&[]).hides("payer.iban"));
    }

    #[test]
    fn the_settings_page_names_every_hidden_word() {
        let page = crate::settings::reference();
        let row = page.lines().find(|line| line.contains("`log.redact`")).expect("it is a key");
        for word in HIDDEN {
            assert!(row.contains(&format!("`{word}`")), "{word}");
        }
    }
}
