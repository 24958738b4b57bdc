//! The library as its users use it: real actors in meshes of several regions inside one test.

mod addresses;
mod bare_actix;
mod context;
mod delivery;
mod fairness;
mod gates;
mod guide;
mod levels;
mod mailboxes;
mod moving;
mod resilience;
mod restarts;
mod sleep;
mod spans;
mod tellers;
mod versions;
mod watching;
