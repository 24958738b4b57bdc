//! The macros, used as a user would.

mod actors;
mod growth;
