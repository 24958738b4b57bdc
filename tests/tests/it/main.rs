//! The integration tests of the workspace, in one binary.

mod cluster;
mod directions;
mod readme;
mod sim;
mod stranger;
