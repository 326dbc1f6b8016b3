//! The vocabulary of the rotator protocol, version 1.
//!
//! A rotator is one small program that changes one kind of credential on one
//! kind of target. It reads JSON from standard input and writes JSON to
//! standard output; `PROTOCOL.md` tells the whole story. This crate holds the
//! words both sides speak and nothing else: no input or output, no vault, no
//! rotator.
//!
//! - [`Secret`], [`Credential`]: the only places where a secret lives
//! - [`message`]: the frames, one a line
//! - [`operation`]: the params and results of each operation
//! - [`Describe`], [`Traits`]: what a rotator says of itself
//! - [`Fault`]: what went wrong, and what is known of the target afterwards
//! - [`Policy`]: what a new secret must look like, and how one is drawn

mod describe;
mod fault;
pub mod message;
pub mod operation;
mod policy;
mod secret;

pub use describe::{Describe, Hosts, Mark, Origin, Overlap, PasswordLimits, Traits, VerifyBy};
pub use fault::{Applied, Fault, Kind};
pub use message::{Incoming, Malformed, RequestId};
pub use operation::Operation;
pub use policy::{Class, Count, Policy, PolicyError, RandomSource};
pub use secret::{Credential, Secret};

/// The protocol versions this crate speaks.
pub const VERSIONS: &[u32] = &[1];

/// The longest line either side may send, in bytes, without its line end.
pub const MAX_LINE: usize = 1 << 20;

/// How long a rotator may take to say `hello`, in milliseconds.
pub const HELLO_WITHIN_MS: u64 = 5_000;

/// The field names of a credential that have a meaning beyond one plugin.
pub mod field {
    /// A password; in a record its standard password field.
    pub const PASSWORD: &str = "password";
    /// A private key in OpenSSH or PEM form; in a record its keyPair.
    pub const PRIVATE_KEY: &str = "private_key";
    /// The public key belonging to [`PRIVATE_KEY`].
    pub const PUBLIC_KEY: &str = "public_key";
    /// The passphrase that protects [`PRIVATE_KEY`].
    pub const PASSPHRASE: &str = "passphrase";
}
