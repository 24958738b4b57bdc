//! What nodes tell each other of their stores and ranges: it may get lost, and comes again.

use rhumb_core::StoreId;
use serde::{Deserialize, Serialize};

use crate::ranges::propose::SideClosed;
use crate::ranges::support::SupportMessage;

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Of support.
    Support {
        /// Whose word it is.
        from: StoreId,
        /// For which store it is meant.
        to: StoreId,
        /// The word.
        said: SupportMessage,
    },
    /// Of ranges that have been closed beside their logs.
    Closed(Vec<SideClosed>),
}
