//! What a shell says of a call whose trace is kept. Who makes the spans is not known here.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A span as whoever makes spans has it.
pub trait Under: Any + fmt::Debug + Send + Sync {
    /// Begins a part of it, which ends when the last clone of what this gives is dropped.
    fn part(&self, name: &'static str) -> Span;
    /// Says of a part of it that is over when it began and how long it took.
    fn passed(&self, name: &'static str, began: Instant, took: Duration);
}

/// A span of a call whose trace is kept. A shell has none for any other call.
#[derive(Clone, Debug)]
pub struct Span(Arc<dyn Under>);

impl Span {
    /// A span of this kind.
    pub fn of(under: impl Under) -> Self {
        Self(Arc::new(under))
    }

    /// As [`Under::part`].
    #[must_use]
    pub fn part(&self, name: &'static str) -> Self {
        self.0.part(name)
    }

    /// As [`Under::passed`].
    pub fn passed(&self, name: &'static str, began: Instant, took: Duration) {
        self.0.passed(name, began, took);
    }

    /// What was given to [`Span::of`], if it is one of these.
    #[must_use]
    pub fn is<T: Under>(&self) -> Option<&T> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}
