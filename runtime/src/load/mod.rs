//! An open-loop load generator for pools, with customers who keep their own receipts.
//!
//! * It decides: when customers come and what they do (`plan`, `requests`, `customer`: pure), and what they write
//!   down (`receipts`, `tally`).
//! * It never does: wait for the service before the next customer comes, or count from anything but
//!   the answers that customers got.
//! * Invariant: it ends by itself. Stories that have no answer by then are told as unknown.

pub mod customer;
pub mod histogram;
pub mod plan;
pub mod receipts;
pub mod requests;
pub mod run;
pub mod tally;

pub use plan::{Burst, Plan, Spacing};
pub use run::{Load, LoadError, Running};
pub use tally::{RegionTally, Tally};
