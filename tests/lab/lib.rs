//! The lab: real servers that a test starts, asks and throws away.
//!
//! A promise such as "the old password no longer works" is only worth
//! something when a real server says so. So the lab starts PostgreSQL, MariaDB
//! and MySQL as child processes on free loopback ports, with TLS from its own
//! certificate authority, and asks them through their own vendors' clients
//! ([`Postgresql::accepts`], [`MysqlServer::accepts`]). It shares no code with
//! the rotators it judges.
//!
//! A server never outlives the test that started it, however the test ends:
//! dropping the value stops it, and a guard process beside it notices when the
//! test process is gone (a panic in a static, Ctrl-C, SIGKILL) and then ends the
//! server and removes its directory.
//!
//! Beside the servers stand the tools that break things on purpose: [`Proxy`]
//! cuts connections after a chosen byte, [`interposer`] kills a rotator or the
//! orchestrator between two messages, [`shim`] takes away whatever a program
//! had written but not synced.

pub mod aws;
pub mod ca;
mod canaries;
pub mod containers;
mod dns;
pub mod entra;
mod error;
pub mod interposer;
mod ksm;
mod ldif;
pub mod mariadb;
mod mssql;
pub mod mysql;
mod mysql_family;
mod openldap;
mod oracle;
pub mod ports;
mod postgresql;
pub mod process;
mod proxy;
pub mod python;
mod real;
mod samba;
mod server;
pub mod shim;
mod smb;
mod stand_in;
mod template;
mod turnlock;
mod unix_host;
mod webhook;

pub use aws::{AccessKey, Aws};
pub use ca::Authority;
pub use canaries::{Canaries, Found};
pub use dns::NameServer;
pub use entra::Entra;
pub use error::{LabError, Result};
pub use ksm::Ksm;
pub use mssql::{SqlServer, SqlServerOptions};
pub use mysql_family::{AccountOptions, Flavor, MysqlOptions, MysqlServer};
pub use openldap::{Openldap, OpenldapOptions};
pub use oracle::{OracleOptions, OracleServer};
pub use postgresql::{Postgresql, PostgresqlOptions};
pub use process::{Output, wait_until};
pub use proxy::{Direction, Fault, Proxy};
pub use samba::{DomainController, DomainOptions, MINUTE};
pub use smb::{SmbOptions, SmbServer};
pub use turnlock::{Turnlock, bin};
pub use unix_host::{Passwd, RemoteLogin, UnixHost, UnixHostOptions, Watch};
pub use webhook::{Receiver, WEBHOOK_KEY};

/// A login and its password, as the lab's administrators have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// The name to log in with.
    pub login: &'static str,
    /// Its password, the same on every throw-away server.
    pub password: &'static str,
}

/// The administrator of every lab server. Its password is no secret: the server
/// listens on loopback only and lives as long as one test.
pub const ADMIN: Login = Login { login: "admin", password: "Lab-Admin-0-Only-On-Loopback" };
