//! turnlock
