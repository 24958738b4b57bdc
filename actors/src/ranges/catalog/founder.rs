//! The row of a founding node.
//!
//! * It decides: in which format it is written, by the cluster version that its node has seen.
//! * It never does: write a format that the version does not allow.

use rhumb_core::StoreId;
use rhumb_core::{ClusterVersion, codec};
use serde::{Deserialize, Serialize};

use super::ROW;
use crate::version::Formats;
use crate::version::formats::readable;

/// A founding node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its disk.
    pub store: StoreId,
    /// The public key of its tokens.
    pub tokens: Vec<u8>,
    /// The cluster version that it had seen, in the format after the last one.
    #[cfg(feature = "canaries")]
    saw: Option<ClusterVersion>,
}

#[derive(Serialize, Deserialize)]
enum Row {
    V1 {
        store: StoreId,
        tokens: Vec<u8>,
    },
    /// What only tests write.
    #[cfg(feature = "canaries")]
    Next {
        store: StoreId,
        tokens: Vec<u8>,
        saw: ClusterVersion,
    },
}

impl Founder {
    /// A node of this disk and key, as it says so at this version.
    #[must_use]
    pub fn new(store: StoreId, tokens: Vec<u8>, version: ClusterVersion) -> Self {
        let _ = version;
        Self {
            store,
            tokens,
            #[cfg(feature = "canaries")]
            saw: (version > rhumb_core::Knows::RELEASE.newest).then_some(version),
        }
    }

    /// Its row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { store, tokens, .. } = self.clone();
        #[cfg(feature = "canaries")]
        let row = match self.saw {
            Some(saw) => Row::Next { store, tokens, saw },
            None => Row::V1 { store, tokens },
        };
        #[cfg(not(feature = "canaries"))]
        let row = Row::V1 { store, tokens };
        codec::encode(&row).expect("a row of the meta range is within the codec's limits").to_vec()
    }

    /// The node of a row, for whoever reads by these formats.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8], formats: &Formats) -> Result<Self, String> {
        let format = readable(ROW, bytes).map_err(|unknown| unknown.to_string())?;
        formats.reads(ROW, format).map_err(|unknown| unknown.to_string())?;
        let row = codec::decode(bytes).map_err(|error| error.to_string())?;
        Ok(match row {
            Row::V1 { store, tokens } => Self {
                store,
                tokens,
                #[cfg(feature = "canaries")]
                saw: None,
            },
            #[cfg(feature = "canaries")]
            Row::Next { store, tokens, saw } => Self { store, tokens, saw: Some(saw) },
        })
    }
}
