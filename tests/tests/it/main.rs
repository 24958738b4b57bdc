//! The integration tests of the workspace, in one binary.

mod baddisk;
mod clockstep;
mod cluster;
mod directions;
mod documents;
mod examples;
mod fleet;
mod host;
mod identity;
mod library;
mod powercut;
mod readme;
mod scene;
mod settings;
mod sim;
mod soak;
mod stranger;
mod supervision;
mod traces;
