//! Turnlock's orchestrator: records in, rotations conducted, proof committed.
//!
//! `rotate.rs` tells one rotation from record to commit, `settle.rs` the same
//! after a crash; everything else serves those two.

pub mod catalogue;
pub mod explain;
pub mod generate;
pub mod keeper;
pub mod plan;
pub mod record;
pub mod resolve;
pub mod secret_policy;
pub mod stage;
pub mod vault;
