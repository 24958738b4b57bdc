//! Rhumb beside its peers, measured in one run: interleaved rounds, two processes or more a system.

pub mod audit;
pub mod caller;
pub mod conditions;
pub mod figures;
pub mod holds;
pub mod inside;
pub mod mesh;
pub mod octets;
pub mod paced;
pub mod proc;
pub mod process;
pub mod protocol;
pub mod ranges;
pub mod report;
pub mod sample;
pub mod systems;
pub mod threads;
pub mod tls;
pub mod work;
