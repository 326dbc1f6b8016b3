//! The account that a rotator under test may change, in a file that always
//! holds the credential that works.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use turnlock_protocol::operation::{Account, Admin};
use turnlock_protocol::{Credential, Policy};
use zeroize::Zeroizing;

use super::{Stopped, broken};
use crate::failure::Failure;
use crate::rotate::duplicate;

/// An account and its file.
pub(super) struct Subject {
    file: PathBuf,
    content: Content,
}

/// What stands in the file: the params of `rotate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    account: Account,
    #[serde(default)]
    current: Credential,
    /// A change that was begun, and may have been made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Credential>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<Admin>,
    #[serde(default)]
    policy: Policy,
}

impl Subject {
    /// Reads the file.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let unusable = |what: String| {
            Failure::usage(format!("the account's file {}: {what}", file.display()))
                .hint("it holds what `turnlock-PLUGIN rotate` reads: account, current, admin, policy")
        };
        let text = Zeroizing::new(fs::read(file).map_err(|error| unusable(error.to_string()))?);
        // What a parser says may repeat a misplaced secret.
        let content = serde_json::from_slice(&text)
            .map_err(|error| unusable(format!("line {}, column {} does not fit", error.line(), error.column())))?;
        Ok(Self { file: file.to_owned(), content })
    }

    pub(super) fn account(&self) -> &Account {
        &self.content.account
    }

    pub(super) fn current(&self) -> &Credential {
        &self.content.current
    }

    pub(super) fn begun(&self) -> Option<&Credential> {
        self.content.next.as_ref()
    }

    pub(super) fn admin(&self) -> Option<Admin> {
        duplicate(&self.content.admin)
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.content.policy
    }

    /// Every secret that may work.
    pub(super) fn credentials(&self) -> impl Iterator<Item = &Credential> {
        let admin = self.content.admin.as_ref().map(|admin| &admin.credential);
        [Some(&self.content.current), self.content.next.as_ref(), admin].into_iter().flatten()
    }

    /// A change is about to begin: nothing may change before this has returned.
    pub(super) fn begin(&mut self, next: Credential) -> Result<(), Stopped> {
        self.content.next = Some(next);
        self.keep()
    }

    /// The change was made: its candidate is the current credential.
    pub(super) fn commit(&mut self) -> Result<(), Stopped> {
        if let Some(next) = self.content.next.take() {
            self.content.current = next;
        }
        self.keep()
    }

    /// The change was not made.
    pub(super) fn abandon(&mut self) -> Result<(), Stopped> {
        self.content.next = None;
        self.keep()
    }

    fn keep(&self) -> Result<(), Stopped> {
        let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
        serde_json::to_writer_pretty(&mut *text, &self.content)
            .map_err(|_| broken("the account cannot be written as JSON"))?;
        text.push(b'\n');
        crate::durable::write(&self.file, &text)
            .map_err(|error| broken(format!("{} cannot be written: {error}", self.file.display())))
    }
}
