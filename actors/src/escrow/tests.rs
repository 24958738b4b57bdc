//! Checks of the escrow machine: stories told to a small interpreter, golden bytes, and properties.

#[cfg(feature = "canaries")]
mod canaries;
mod comparison;
mod conservation;
mod disks;
mod golden;
mod levelling;
mod reconciling;
mod sale;
mod stories;
mod succession;
mod terms;
mod world;

use world::check;
