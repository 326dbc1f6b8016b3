//! What goes wrong inside, before it is known whose file and which direction.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::vault::VaultError;

/// A failure inside the vault; [`Broken::at`] turns it into the caller's words.
#[derive(Debug)]
pub(super) enum Broken {
    Vault(VaultError),
    Sql(rusqlite::Error),
    Damaged(String),
}

/// Something in the file does not fit.
pub(super) fn damaged(what: impl Into<String>) -> Broken {
    Broken::Damaged(what.into())
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<VaultError> for Broken {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl Broken {
    /// The same failure, told about a file and what was being done to it.
    pub(super) fn at(self, path: &Path, doing: &'static str) -> VaultError {
        match self {
            Self::Vault(error) => error,
            Self::Damaged(what) => VaultError::Damaged { path: path.to_owned(), what },
            Self::Sql(error) => sql(&error, path, doing),
        }
    }
}

/// A failure of the operating system.
pub(super) fn io(error: &std::io::Error, path: &Path, doing: &'static str) -> VaultError {
    match error.kind() {
        std::io::ErrorKind::NotFound => VaultError::Missing(path.to_owned()),
        std::io::ErrorKind::AlreadyExists => VaultError::Exists(path.to_owned()),
        _ => VaultError::Storage { doing, why: format!("{}: {error}", path.display()) },
    }
}

/// A failure of the operating system on a file that is not the vault.
pub(super) fn other_io(error: &std::io::Error, path: &Path, doing: &'static str) -> VaultError {
    VaultError::Storage { doing, why: format!("{}: {error}", path.display()) }
}

fn sql(error: &rusqlite::Error, path: &Path, doing: &'static str) -> VaultError {
    let damaged = |what: String| VaultError::Damaged { path: path.to_owned(), what };
    let rusqlite::Error::SqliteFailure(failure, words) = error else {
        // A column of another type, a row that is not there: the schema was altered.
        return damaged(error.to_string());
    };
    let words = words.clone().unwrap_or_else(|| failure.to_string());
    let why = match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => return damaged(words),
        // Our statements are fixed texts: one that SQLite does not understand
        // means that a table or column is not there any more.
        ErrorCode::Unknown if failure.extended_code == rusqlite::ffi::SQLITE_ERROR => {
            return damaged(words);
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => format!(
            "another program has kept {} locked for more than {} seconds",
            path.display(),
            super::file::LOCK_PATIENCE.as_secs()
        ),
        ErrorCode::DiskFull => format!("the disk that holds {} is full", path.display()),
        ErrorCode::ReadOnly => format!("{} or its directory is read-only", path.display()),
        ErrorCode::CannotOpen => {
            format!("{} or the files beside it cannot be opened", path.display())
        }
        _ => format!("{}: {words} ({})", path.display(), failure.extended_code),
    };
    VaultError::Storage { doing, why }
}

/// The same failure once more, for another caller of one batch.
pub(super) fn again(error: &VaultError) -> VaultError {
    match error {
        VaultError::Damaged { path, what } => VaultError::Damaged { path: path.clone(), what: what.clone() },
        VaultError::Storage { doing, why } => VaultError::Storage { doing, why: why.clone() },
        other => VaultError::Storage { doing: "written", why: other.to_string() },
    }
}
