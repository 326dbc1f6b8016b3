//! What the rotators `ssh` and `sshkey` share: a connection to a host that is
//! believed before anything is shown to it, a log-in, and programs at the
//! other end.
//!
//! ```no_run
//! # use turnlock_kit::{Credential, Fault, Secret};
//! # use turnlock_secureshell::{Access, Connection, NotIn, Proof};
//! # async fn example(access: &Access, credential: &Credential, password: &Secret) -> Result<(), Fault> {
//! let connection = Connection::open("web1.example.com", 22, access, credential).await?;
//! let session = connection.log_in("app", Proof::Password(password)).await.map_err(NotIn::into_fault)?;
//! let ran = session.run("id -un", b"").await?;
//! assert_eq!(ran.status, Some(0));
//! # Ok(())
//! # }
//! ```

mod connection;
mod known_hosts;
mod login;
mod program;
mod route;
mod trust;

pub use connection::Connection;
pub use login::{ForcedChange, LoggedIn, NotIn, Proof, private_key};
pub use program::{Program, Ran, Session, Terminal};
pub use route::{JUMP_PASSPHRASE, JUMP_PASSWORD, JUMP_PRIVATE_KEY, Place};
pub use russh::keys;
pub use trust::Access;
