//! How much a message matters where there is not room for all.

/// How much a message matters: under load the lowest are turned away first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be done later, or not at all.
    Low,
    /// Is to be done.
    #[default]
    Normal,
    /// Goes on when nothing else does.
    High,
}
