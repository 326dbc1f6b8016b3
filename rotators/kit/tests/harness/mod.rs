//! The fixture's programs and their targets.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod program;
#[cfg(unix)]
mod unix;

use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use program::{Ended, Serving, kind_and_applied};
#[cfg(unix)]
pub(crate) use unix::{call_at_terminal, call_closed, terminal};

/// The device that keeps nothing.
pub(crate) const NULL: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

pub(crate) const OLD: &str = "old-canary-1111";
pub(crate) const NEW: &str = "new-canary-2222";

/// A file that holds a password, and what was asked of it.
pub(crate) struct Target {
    pub(crate) directory: TempDir,
}

impl Target {
    pub(crate) fn holding(text: &str) -> Self {
        let target = Self { directory: TempDir::new().unwrap() };
        target.put("password", text);
        target
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let mut file = File::create(self.directory.path().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    pub(crate) fn holds(&self) -> String {
        read_to_string(self.path()).unwrap()
    }

    pub(crate) fn of(&self, name: &str) -> String {
        read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// What was asked of it, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.of("password.log").lines().map(str::to_owned).collect()
    }

    /// An account of the fixture `database`, with more fields.
    pub(crate) fn account(&self, more: Value) -> Value {
        let mut account = json!({"target": self.path(), "login": "app"});
        merge(&mut account, more);
        account
    }

    /// Params of `apply` and of `rotate`.
    pub(crate) fn change(&self, more: Value) -> Value {
        json!({
            "protocol": 1,
            "deadline_ms": 15_000,
            "account": self.account(more),
            "current": {"password": OLD},
            "next": {"password": NEW},
            "attempt": "a-1",
        })
    }
}

pub(crate) fn merge(into: &mut Value, more: Value) {
    let (Value::Object(into), Value::Object(more)) = (into, more) else {
        return;
    };
    into.extend(more);
}

#[expect(clippy::disallowed_methods, reason = "the tests' one place that starts a fixture")]
fn fixture(plugin: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kit-fixture"));
    #[cfg(unix)]
    unix::name(&mut command, plugin);
    #[cfg(windows)]
    assert_eq!(plugin, "database", "only Unix lets a caller choose the name");
    command.args(arguments).env_clear().current_dir("/");
    command
}

/// One-shot: arguments and standard input in, everything else out.
pub(crate) fn call(plugin: &str, arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
    call_into(plugin, arguments, input, Stdio::piped())
}

/// One-shot, with another standard output.
pub(crate) fn call_into(plugin: &str, arguments: &[&str], input: impl AsRef<[u8]>, stdout: impl Into<Stdio>) -> Ended {
    program::call(&mut fixture(plugin, arguments), input, stdout)
}

impl Serving {
    pub(crate) fn start(plugin: &str) -> Self {
        Self::of(&mut fixture(plugin, &["serve"]))
    }
}

/// Something to write to.
pub(crate) fn opened(path: &str) -> File {
    File::options().write(true).open(path).unwrap()
}

/// Params whose secret is still to be made.
pub(crate) fn without_next(mut params: Value) -> String {
    params.as_object_mut().unwrap().remove("next");
    params.to_string()
}

/// The same account with a shorter list of hosts.
pub(crate) fn only(account: &Value, hosts: &[&str]) -> Value {
    let mut account = account.clone();
    account["hosts"] = json!(hosts);
    account
}
