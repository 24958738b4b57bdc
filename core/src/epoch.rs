//! Numbers that only rise. The higher one may write.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! rising {
    ($(#[$doc:meta])* $ty:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $ty(pub u64);

        impl $ty {
            /// The next higher one.
            ///
            /// # Panics
            /// When the number is spent, which would take longer than the machine lives.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("an epoch of 64 bits is never spent"))
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

rising!(
    /// Authority to write: at most one epoch writes, and storage refuses a lower one.
    Epoch
);
rising!(
    /// One life of a node or replica on one disk. Restored or emptied disks begin a new one.
    Incarnation
);
