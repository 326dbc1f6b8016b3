//! Keeper Commander's own Python beside Turnlock: the same records and options
//! go to both. Where Commander works, plugin and values are equal; where it is
//! known to be wrong, the difference is the documented one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

#[path = "../world.rs"]
mod world;

mod commander;
mod files;
mod generator;
mod plugins;
mod resolution;
mod rotate;
