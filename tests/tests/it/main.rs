//! The integration tests of the workspace, in one binary.

mod cluster;
mod directions;
mod identity;
mod readme;
mod settings;
mod sim;
mod stranger;
