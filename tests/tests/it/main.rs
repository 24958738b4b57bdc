//! The integration tests of the workspace, in one binary.

mod audit;
mod audit_out;
mod baddisk;
mod busy;
mod chaos;
mod clocks;
mod clockstep;
mod cluster;
mod corpora;
mod delivery;
mod directions;
mod documents;
mod examples;
mod failover;
mod fleet;
mod host;
mod hostile;
mod identity;
mod integrity;
mod kv;
mod lettercut;
mod levels;
mod library;
mod modes;
mod moving;
mod one_mesh;
mod personal;
mod placement;
mod powercut;
mod pruned;
mod quorum;
mod ranges;
mod readme;
mod reads;
mod scene;
mod settings;
mod sim;
mod soak;
mod stranger;
mod supervision;
mod traces;
mod upgrade;

/// What readers of outside bytes take in memory is seen by [`corpora`].
#[global_allocator]
static ALLOCATOR: rhumb_tests::peak::Counting = rhumb_tests::peak::Counting;
