//! Passwords of Windows accounts over SMB, as the rotators `windows` and
//! `pspasswd` change them: an encrypted session is the proof of a password, and
//! the remote protocol for accounts (MS-SAMR) changes one, by the account itself
//! or by an administrator.
//!
//! ```no_run
//! # use turnlock_kit::{Fault, Secret, WorkingSet};
//! # use turnlock_samr::{Place, Ready};
//! # async fn example(worker: &WorkingSet<'_>, old: &Secret, new: &Secret) -> Result<(), Fault> {
//! let mut ready = Ready::at(&Place::parse("srv1", 445)?, "app", worker).await?;
//! ready.change("app", old, new).await.map_err(|refusal| refusal.fault)?;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod change;
mod crypt;
mod ntlm;
mod rpc;
mod session;
mod smb;
mod status;

pub use accounts::Rules;
pub use change::{Ready, is_possible, limits, proof};
pub use session::Place;
pub use status::Refusal;
