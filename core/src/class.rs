//! Kinds of data with a residency policy.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::ids::{NameError, name, validated};

name!(
    /// A kind of data with a residency policy, such as `inventory` or `personal`. What the policy
    /// does not name is refused. The class `control` is the mesh's own traffic (membership, clocks,
    /// health): it carries no user data and is allowed without a policy.
    DataClass, "data class"
);

/// How many names a thread keeps.
const MAX_LATELY: usize = 16;

thread_local! {
    static LATELY: RefCell<Vec<DataClass>> = const { RefCell::new(Vec::new()) };
}

/// The name of the mesh's own class.
pub const CONTROL: &str = "control";

impl DataClass {
    /// The mesh's own class, `control`.
    #[must_use]
    pub fn control() -> Self {
        static IS: LazyLock<DataClass> = LazyLock::new(|| DataClass(CONTROL.into()));
        IS.clone()
    }

    /// As [`DataClass::new`], for a name that is read again and again, as those of messages are: the few
    /// that a thread has read lately are not made anew.
    ///
    /// # Errors
    /// As for [`DataClass::new`].
    pub fn read(name: &str) -> Result<Self, NameError> {
        LATELY.with_borrow_mut(|lately| {
            if let Some(class) = lately.iter().find(|class| class.as_str() == name) {
                return Ok(class.clone());
            }
            let class = Self::new(name)?;
            lately.truncate(MAX_LATELY - 1);
            lately.insert(0, class.clone());
            Ok(class)
        })
    }

    /// Whether this is the mesh's own class.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.as_str() == CONTROL
    }
}
