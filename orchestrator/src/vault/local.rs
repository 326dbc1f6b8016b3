//! The embedded vault.
