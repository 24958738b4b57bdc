//! Where a node's certificate comes from.

use std::path::PathBuf;

use rhumb_transport::identity::Revocations;

use super::draft::Text;

/// Where a node's certificate comes from, and what missing lists of revocations mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Who gives it.
    pub source: IdentitySource,
    /// The socket of the Workload API, where that gives it.
    pub socket: PathBuf,
    /// What it means that an authority's list of revocations is missing or out of date.
    pub revocations: Revocations,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            source: IdentitySource::default(),
            // Where SPIRE's agent has it.
            socket: "/tmp/spire-agent/public/api.sock".into(),
            revocations: Revocations::default(),
        }
    }
}

/// Who gives a node its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentitySource {
    /// The files in its identity folder.
    #[default]
    Files,
    /// A SPIFFE Workload API.
    WorkloadApi,
}

impl Text for IdentitySource {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "files" => Ok(Self::Files),
            "workload-api" => Ok(Self::WorkloadApi),
            _ => Err(String::new()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Files => "files".to_owned(),
            Self::WorkloadApi => "workload-api".to_owned(),
        }
    }
}

impl Text for Revocations {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "lenient" => Ok(Self::Lenient),
            "strict" => Ok(Self::Strict),
            _ => Err(String::new()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Lenient => "lenient".to_owned(),
            Self::Strict => "strict".to_owned(),
        }
    }
}
