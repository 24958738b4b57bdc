//! Kinds of data with a residency policy.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{NameError, name, validated};

name!(
    /// A kind of data with a residency policy, such as `inventory` or `personal`. What the policy
    /// does not name is refused. The class `control` is the mesh's own traffic (membership, clocks,
    /// health): it carries no user data and is allowed without a policy.
    DataClass, "data class"
);

/// The name of the mesh's own class.
pub const CONTROL: &str = "control";

impl DataClass {
    /// The mesh's own class, `control`.
    #[must_use]
    pub fn control() -> Self {
        Self(CONTROL.into())
    }

    /// Whether this is the mesh's own class.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.as_str() == CONTROL
    }
}
