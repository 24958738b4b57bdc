//! What is logged, how, how often, and what of it is not shown.

use std::fmt;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::draft::Text;

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Which events.
    pub filter: LogFilter,
    /// In which form.
    pub format: LogFormat,
    /// How many lines of one place in the code are written within the window. The others are counted.
    pub burst: u32,
    /// How long lines of one place are counted together.
    pub window: Duration,
    /// Words in the names of fields whose values are not shown, besides those that are built in.
    pub redact: Vec<FieldWord>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: LogFilter::default(),
            format: LogFormat::default(),
            burst: 50,
            window: Duration::from_secs(10),
            redact: Vec::new(),
        }
    }
}

/// A word in the name of a field: lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldWord(String);

impl FieldWord {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FieldWord {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.is_empty() || !text.chars().all(is_word) {
            return Err(format!("{text:?} is no word: use lower-case letters and digits"));
        }
        Ok(Self(text))
    }
}

impl Text for FieldWord {
    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A `tracing` filter that is known to parse, such as `info` or `rhumb=debug,warn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter. The consensus library tells each election and vote: of it only warnings are told, unless it is named.
    #[must_use]
    pub fn filter(&self) -> EnvFilter {
        let quiet = matches!(self.0.as_str(), "info" | "debug" | "trace");
        EnvFilter::new(if quiet { format!("{},openraft=warn", self.0) } else { self.0.clone() })
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        EnvFilter::try_new(&text).map(|_| Self(text)).map_err(|error| error.to_string())
    }
}

impl Text for LogFilter {
    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Text for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(String::new()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}
