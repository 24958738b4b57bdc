//! Values whose consistency level is part of their type.
//!
//! * It decides: which level may stand for which other one, and what two values make together.
//! * It never does: make a value stronger. What is weaker than it is needed is read again from its authority, by whoever can
//!   (`rhumb::client::kv::Kv::upgrade`), and is another value then.
//! * Invariant: a `Consistent<T, L>` came from an answer that said `L` or better of itself ([`Consistent::at_least`]), or out
//!   of such values by [`map`](Consistent::map), [`zip`](Consistent::zip) and [`downgrade`](Consistent::downgrade), none of
//!   which raises a level.
//!
//! They stand in this room because both who reads (clients) and who is sent values (actors) speak of levels, and neither owns
//! them. The level is a word of the compiler's alone: a `Consistent<T, L>` is a `T` in memory. It has no `Serialize`: what
//! travels is a value, and its level goes with the message that carries it, where the receiver's node checks it before the
//! handler runs (`#[remote(.., requires = "snapshot")]`).
//!
//! A function that says which level it needs:
//!
//! ```
//! use rhumb_core::consistent::{AtLeast, Consistent, Eventual, Level, Snapshot, StrictSerializable};
//! use rhumb_core::Guarantee;
//!
//! /// Money moves by what is so now.
//! fn charge(balance: &Consistent<u64, StrictSerializable>, cents: u64) -> bool {
//!     *balance.value() >= cents
//! }
//!
//! /// A page may be a little behind, and must be of one moment.
//! fn shows<L: AtLeast<Snapshot>>(name: &Consistent<String, L>) -> &str {
//!     name.value()
//! }
//!
//! let balance = Consistent::<_, StrictSerializable>::at_least(500, Guarantee::StrictSerializable)?;
//! assert!(charge(&balance, 300));
//! let name = Consistent::<_, Snapshot>::at_least("ann".to_owned(), Guarantee::Serializable)?;
//! assert_eq!(shows(&name), "ann");
//!
//! // Two together are as good as the weaker one, also in their type.
//! let both: Consistent<(String, u64), Snapshot> = name.zip(balance);
//! let cached: Consistent<_, Eventual> = both.downgrade();
//! assert_eq!(cached.level(), Guarantee::Eventual);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What does not compile. A level that is too weak for a function:
//!
//! ```compile_fail,E0308
//! use rhumb_core::consistent::{Consistent, StrictSerializable};
//!
//! fn charge(balance: &Consistent<u64, StrictSerializable>) {}
//!
//! charge(&Consistent::eventual(500));
//! ```
//!
//! and for one that takes several:
//!
//! ```compile_fail,E0277
//! use rhumb_core::consistent::{AtLeast, Consistent, Snapshot};
//!
//! fn shows<L: AtLeast<Snapshot>>(name: &Consistent<String, L>) {}
//!
//! shows(&Consistent::eventual("ann".to_owned()));
//! ```
//!
//! A downgrade that would be an upgrade:
//!
//! ```compile_fail,E0277
//! use rhumb_core::consistent::{Consistent, Eventual, Snapshot};
//!
//! let name: Consistent<_, Eventual> = Consistent::eventual("ann");
//! let better: Consistent<_, Snapshot> = name.downgrade();
//! ```
//!
//! Two values whose weaker half is too weak:
//!
//! ```compile_fail,E0308
//! use rhumb_core::Guarantee;
//! use rhumb_core::consistent::{Consistent, Snapshot, StrictSerializable};
//!
//! let strong = Consistent::<_, StrictSerializable>::at_least(1, Guarantee::StrictSerializable).unwrap();
//! let both: Consistent<_, Snapshot> = strong.zip(Consistent::eventual(2));
//! ```
//!
//! A value out of nothing, and a level of one's own:
//!
//! ```compile_fail,E0451
//! use rhumb_core::consistent::{Consistent, StrictSerializable};
//!
//! let made_up: Consistent<u64, StrictSerializable> = Consistent { value: 500, level: std::marker::PhantomData };
//! ```
//!
//! ```compile_fail,E0277
//! use rhumb_core::Guarantee;
//! use rhumb_core::consistent::Level;
//!
//! #[derive(Debug, Clone, Copy, PartialEq, Eq)]
//! enum Better {}
//!
//! impl Level for Better {
//!     const LEVEL: Guarantee = Guarantee::StrictSerializable;
//! }
//! ```

use std::fmt;
use std::marker::PhantomData;

use thiserror::Error;

use crate::guarantee::Guarantee;

mod sealed {
    pub trait Sealed {}
}

/// A consistency level, as a type: [`StrictSerializable`] > [`Serializable`] > [`Snapshot`] > [`ReadCommitted`] >
/// [`Eventual`]. There are no others.
pub trait Level: sealed::Sealed + fmt::Debug + Copy + Eq + Send + Sync + 'static {
    /// The same, as a value.
    const LEVEL: Guarantee;
}

/// A level that is `L` or better: what `L` is enough for, it is enough for.
#[diagnostic::on_unimplemented(
    message = "a value that is `{Self}` may be weaker than `{L}`",
    note = "read it at that level, or read it again from its authority: `Kv::upgrade`"
)]
pub trait AtLeast<L: Level>: Level {}

/// What a value of this level and one of level `L` make together: the weaker of the two.
pub trait Compose<L: Level>: Level {
    /// It.
    type Weaker: Level;
}

macro_rules! levels {
    ($($(#[$doc:meta])* $level:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $level {}

            impl sealed::Sealed for $level {}

            impl Level for $level {
                const LEVEL: Guarantee = Guarantee::$level;
            }
        )+
        levels!(@ranks $($level),+);
    };
    // Strongest first: each against itself and all that are weaker.
    (@ranks $level:ident $(, $weaker:ident)*) => {
        impl AtLeast<$level> for $level {}

        impl Compose<$level> for $level {
            type Weaker = $level;
        }

        $(
            impl AtLeast<$weaker> for $level {}

            impl Compose<$weaker> for $level {
                type Weaker = $weaker;
            }

            impl Compose<$level> for $weaker {
                type Weaker = $weaker;
            }
        )*
        levels!(@ranks $($weaker),*);
    };
    (@ranks) => {};
}

levels! {
    /// A strong read or write within one range.
    StrictSerializable,
    /// Transactions over ranges.
    Serializable,
    /// As-of and bounded-stale reads: one state, some time ago.
    Snapshot,
    /// Only from other services' labels.
    ReadCommitted,
    /// Caches, eventual reads, anything unsigned.
    Eventual,
}

/// A value, and how it was read, as a part of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Consistent<T, L: Level> {
    value: T,
    level: PhantomData<fn() -> L>,
}

/// A value is weaker than it has to be. It is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the value is {achieved}, and {required} is needed: read it at that level, or read it again from its authority"
)]
pub struct Weaker<T> {
    /// The value.
    pub value: T,
    /// What it has to be.
    pub required: Guarantee,
    /// What it is.
    pub achieved: Guarantee,
}

impl<T> Consistent<T, Eventual> {
    /// Any value: nothing is promised of it.
    #[must_use]
    pub const fn eventual(value: T) -> Self {
        Self { value, level: PhantomData }
    }
}

impl<T, L: Level> Consistent<T, L> {
    /// A value of which its source says that it is `said`, where that is enough. Whoever gives a level of his own here
    /// vouches for it.
    ///
    /// # Errors
    /// [`Weaker`], with the value.
    pub fn at_least(value: T, said: Guarantee) -> Result<Self, Weaker<T>> {
        if said.meets(L::LEVEL) {
            return Ok(Self { value, level: PhantomData });
        }
        Err(Weaker { value, required: L::LEVEL, achieved: said })
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> Guarantee {
        L::LEVEL
    }

    /// The value.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// The value without its level.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// The same of a reference to the value.
    #[must_use]
    pub const fn as_ref(&self) -> Consistent<&T, L> {
        Consistent { value: &self.value, level: PhantomData }
    }

    /// The same value where less is needed. It costs nothing.
    #[must_use]
    pub fn downgrade<W: Level>(self) -> Consistent<T, W>
    where
        L: AtLeast<W>,
    {
        Consistent { value: self.value, level: PhantomData }
    }

    /// What follows from the value alone. What `f` reads besides is not counted: [`zip`](Self::zip) it first.
    #[must_use]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Consistent<U, L> {
        Consistent { value: f(self.value), level: PhantomData }
    }

    /// Both values, at the weaker of their levels. Each is of its own moment: two strong reads of two keys are no state
    /// that both keys were ever in together. What must be of one moment is read in one read.
    #[must_use]
    pub fn zip<U, M: Level>(self, other: Consistent<U, M>) -> Consistent<(T, U), L::Weaker>
    where
        L: Compose<M>,
    {
        Consistent { value: (self.value, other.value), level: PhantomData }
    }
}

impl<T, E, L: Level> Consistent<Result<T, E>, L> {
    /// The same with the error outside.
    ///
    /// # Errors
    /// The value's.
    pub fn transpose(self) -> Result<Consistent<T, L>, E> {
        self.value.map(|value| Consistent { value, level: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<L: Level>() -> Consistent<u64, L> {
        Consistent::at_least(7, L::LEVEL).expect("enough")
    }

    #[test]
    fn an_answer_is_taken_for_what_it_says_and_for_nothing_better() {
        fn check<L: Level>() {
            for said in Guarantee::ALL {
                let taken = Consistent::<u64, L>::at_least(7, said);
                assert_eq!(taken.is_ok(), said >= L::LEVEL, "{said} as {}", L::LEVEL);
                match taken {
                    Ok(taken) => assert_eq!((taken.level(), taken.into_value()), (L::LEVEL, 7)),
                    Err(Weaker { value, required, achieved }) => {
                        assert_eq!((value, required, achieved), (7, L::LEVEL, said));
                    }
                }
            }
        }
        check::<StrictSerializable>();
        check::<Serializable>();
        check::<Snapshot>();
        check::<ReadCommitted>();
        check::<Eventual>();
    }

    #[test]
    fn the_types_compose_as_the_levels_do() {
        fn pair<L: Compose<M>, M: Level>() {
            let both = at::<L>().zip(at::<M>());
            assert_eq!(both.level(), L::LEVEL.compose(M::LEVEL), "{} with {}", L::LEVEL, M::LEVEL);
        }
        fn with_all<L>()
        where
            L: Compose<StrictSerializable>
                + Compose<Serializable>
                + Compose<Snapshot>
                + Compose<ReadCommitted>
                + Compose<Eventual>,
        {
            pair::<L, StrictSerializable>();
            pair::<L, Serializable>();
            pair::<L, Snapshot>();
            pair::<L, ReadCommitted>();
            pair::<L, Eventual>();
        }
        with_all::<StrictSerializable>();
        with_all::<Serializable>();
        with_all::<Snapshot>();
        with_all::<ReadCommitted>();
        with_all::<Eventual>();
    }

    #[test]
    fn a_level_costs_nothing_and_a_downgrade_keeps_the_value() {
        assert_eq!(size_of::<Consistent<[u8; 3], StrictSerializable>>(), 3);
        let weaker: Consistent<u64, Snapshot> = at::<StrictSerializable>().downgrade();
        let weakest: Consistent<u64, Eventual> = weaker.as_ref().map(|value| value + 1).downgrade();
        assert_eq!((*weaker.value(), *weakest.value()), (7, 8));
        let read: Consistent<Result<u64, &str>, Snapshot> = weaker.map(|_| Err("no number"));
        assert_eq!(read.transpose(), Err("no number"));
    }
}
