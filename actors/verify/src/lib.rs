//! Verifies transparency logs in C2SP's formats, such as the audit log that each region of a Rhumb mesh
//! keeps: given an origin's and its witnesses' keys it trusts nobody.
//!
//! * It decides: whether an entry is in a log, whether one state of a log is a continuation of another,
//!   who has signed a checkpoint, and whether those suffice.
//! * It never does: read a file, a clock or the network, or take a length or a count on trust before it is
//!   bounded.
//! * Invariant: everything here is computed from hashes and signatures by the definitions of RFC 6962 and
//!   RFC 9162 (section 2.1); a proof with too many hashes is refused as one with too few.
//!
//! | what | format |
//! |---|---|
//! | [`hash`], [`proof`], [`batch`] | Merkle tree hashes and proofs: RFC 6962 section 2.1, RFC 9162 sections 2.1.3.2 and 2.1.4.2 |
//! | [`tile`] | `c2sp.org/tlog-tiles`: paths, bundles of entries, and proofs computed from tiles |
//! | [`note`] | `c2sp.org/signed-note`, and `c2sp.org/tlog-cosignature` with Ed25519 |
//! | [`checkpoint`] | `c2sp.org/tlog-checkpoint` |
//! | [`policy`] | `c2sp.org/tlog-policy`: which witnesses suffice |
//! | [`tlog_proof`] | `c2sp.org/tlog-proof` |
//! | [`batch_proof`] | the same of many entries at once |
//! | [`export`] | a log as static files, whole or pruned |
//! | [`growth`] | that a log only grew, as `c2sp.org/tlog-witness` writes it |
//! | [`handed`] | why a text is none of these three |
//! | [`light`] | a client that follows a log by its checkpoints alone |
//! | [`record`] | what an entry of a Rhumb log is, and the record that it commits to |
//! | [`statement`] | statements that several signed: quorum certificates |

pub mod batch;
pub mod batch_proof;
pub mod checkpoint;
pub mod export;
pub mod growth;
pub mod handed;
pub mod hash;
pub mod light;
pub mod note;
pub mod policy;
pub mod proof;
pub mod record;
pub mod statement;
pub mod tile;
pub mod tlog_proof;

pub use checkpoint::Checkpoint;
pub use hash::Hash;
pub use note::{Key, Note};
pub use policy::Policy;
