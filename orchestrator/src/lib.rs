//! Turnlock's orchestrator: records in, rotations conducted, proof committed.
//!
//! `rotate.rs` tells one rotation from record to commit, `settle.rs` the same
//! after a crash; everything else serves those two.

pub mod backup;
mod budget;
pub mod catalogue;
pub mod child;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod container;
pub mod daemon;
pub mod drift;
pub mod durable;
pub mod engine;
pub mod explain;
pub mod failure;
pub mod fleet;
pub mod formats;
pub mod generate;
pub mod hooks;
mod https;
pub mod lease;
mod log;
mod moment;
mod observe;
pub mod plan;
mod process;
pub mod record;
mod report;
pub mod resolve;
pub mod rotate;
pub mod rotators;
pub mod schedule;
pub mod secret_policy;
pub mod settle;
pub mod stage;
pub mod vault;
