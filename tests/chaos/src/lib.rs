//! Fault campaigns. Real servers with accounts, a vault with their records, and
//! rotations that meet every fault a seed draws: kills, pauses, broken networks,
//! full and lying disks, clocks that jump, other runs, people who edit.
//!
//! After every round the servers themselves are asked, through their vendors'
//! clients, which of the vault's secrets they accept (`check.rs`). No line of
//! Turnlock judges itself: its programs are run, never linked.
//!
//! Everything a round decides comes from one number (`plan.rs`), so a round can
//! be drawn again and made smaller (`shrink.rs`). What does not repeat is when
//! the kernel lets which process run: the same faults fall at the same places
//! of a conversation, but not at the same microsecond.

mod campaign;
mod check;
mod figures;
mod lane;
mod plan;
mod round;
mod shrink;
mod target;

pub use campaign::{Broken, Campaign, Ended, replay};
pub use figures::Figures;
pub use plan::Case;
pub use target::{Fields, Kind, Target};
