//! The shared credentials file of AWS's tools. It is replaced as a whole or
//! not at all, kept from others, and what it held before is kept beside it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::time::{Instant, sleep};
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

use crate::profiles;

/// How long others may hold the file.
const PATIENCE: Duration = Duration::from_secs(3);
/// No credentials file is larger.
const MOST_BYTES: u64 = 1024 * 1024;

/// Where it is.
#[derive(Debug)]
pub(crate) struct CredentialsFile {
    path: PathBuf,
}

impl CredentialsFile {
    /// The one that AWS's tools would read here.
    pub(crate) fn of_this_user() -> Result<Self, Fault> {
        #[expect(
            clippy::disallowed_methods,
            reason = "declared in ENVIRONMENT, and told to every program of this user"
        )]
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = variable("AWS_SHARED_CREDENTIALS_FILE")
            .or_else(|| Some(variable("HOME")?.join(".aws/credentials")))
            .ok_or_else(|| {
                Fault::new(Kind::InvalidInput, "it is not known where the shared credentials file is")
                    .hint("set AWS_SHARED_CREDENTIALS_FILE or HOME")
            })?;
        // Where it is a link, what it points to is replaced and not the link.
        Ok(Self { path: fs::canonicalize(&path).unwrap_or(path) })
    }

    /// Whether the key of a rotation could be put there now.
    pub(crate) fn can_be_written(&self) -> Result<(), Fault> {
        match fs::metadata(&self.path) {
            Ok(found) if found.permissions().mode() & 0o200 == 0 => Err(self.is_read_only()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    /// Gives this profile, and no other, this key.
    ///
    /// # Errors
    /// A file that is locked, read-only or not understood; then it is as it was.
    pub(crate) async fn put(&self, profile: &str, id: &str, secret: &Secret) -> Result<(), Fault> {
        let file = self.locked().await?;
        let old = self.read(&file)?;
        #[expect(clippy::disallowed_methods, reason = "the file is where AWS's tools look for it")]
        let new = profiles::with_key(&old, profile, id, secret.expose()).map_err(|what| {
            Fault::new(Kind::Conflict, format!("{} was not changed: {what}", self.path.display()))
                .hint("correct the file or aws_sync_profile, then turnlock recover")
        })?;
        if *new == *old {
            return Ok(());
        }
        if !old.is_empty() {
            self.replace(&self.beside(".turnlock.bak"), &old, &file)?;
        }
        self.replace(&self.path, &new, &file)
    }

    /// The file, held against everybody else who locks it.
    async fn locked(&self) -> Result<File, Fault> {
        self.can_be_written()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let file = self.open()?;
            match file.try_lock() {
                // Whoever held it may have put another one in its place.
                Ok(()) if self.is_still(&file) => return Ok(file),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(self.failed("locked", &error)),
            }
            if Instant::now() >= until {
                let message = format!("another program holds {} locked", self.path.display());
                return Err(Fault { retryable: true, ..Fault::new(Kind::Conflict, message) }
                    .hint("when it has ended: turnlock recover"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn open(&self) -> Result<File, Fault> {
        if let Some(directory) = self.path.parent().filter(|directory| !directory.exists()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|error| self.failed("made", &error))?;
        }
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        opened.map_err(|error| self.failed("opened", &error))
    }

    fn is_still(&self, file: &File) -> bool {
        let inode = |found: fs::Metadata| (found.dev(), found.ino());
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(found)) => inode(held) == inode(found),
            _ => false,
        }
    }

    fn read(&self, mut file: &File) -> Result<Zeroizing<String>, Fault> {
        let size = file.metadata().map_err(|error| self.failed("read", &error))?.len();
        if size > MOST_BYTES {
            return Err(Fault::new(
                Kind::Conflict,
                format!("{} is no credentials file: it is too large", self.path.display()),
            ));
        }
        // Room for all of it, so that no copy is left where it grew.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        file.read_to_end(&mut bytes).map_err(|error| self.failed("read", &error))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Fault::new(Kind::Conflict, format!("{} was not changed: it is not UTF-8", self.path.display()))
                .hint("write the file as UTF-8, then turnlock recover")
        })?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Puts a text in the place of a file: there as a whole, and durable.
    fn replace(&self, path: &Path, text: &str, like: &File) -> Result<(), Fault> {
        let new = self.beside(".turnlock.new");
        let written = || -> std::io::Result<()> {
            // What a run that was killed has left.
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            if geteuid().is_root() {
                let owner = like.metadata()?;
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        };
        written().map_err(|error| {
            let _ = fs::remove_file(&new);
            self.failed("replaced", &error)
        })
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        self.path.with_file_name(name)
    }

    fn is_read_only(&self) -> Fault {
        Fault::new(Kind::Permission, format!("{} is read-only", self.path.display()))
            .hint("make it writable, then turnlock recover")
    }

    fn failed(&self, done: &str, error: &std::io::Error) -> Fault {
        if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
            return self.is_read_only().caused_by(error);
        }
        Fault::new(Kind::Conflict, format!("{} could not be {done}", self.path.display()))
            .caused_by(error)
            .hint("then turnlock recover")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a broken expectation of a test is its failure")]

    use super::*;

    fn in_a_directory(text: Option<&str>) -> (tempfile::TempDir, CredentialsFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aws/credentials");
        if let Some(text) = text {
            fs::create_dir(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        (directory, CredentialsFile { path })
    }

    async fn put(file: &CredentialsFile) -> Result<(), Fault> {
        file.put("deploy", "AKIANEW", &Secret::new("new-secret".to_owned())).await
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_file_is_made_replaced_kept_and_closed_to_others() {
        let (_directory, file) = in_a_directory(None);
        put(&file).await.unwrap();
        let text = "[deploy]\naws_access_key_id = AKIANEW\naws_secret_access_key = new-secret\n";
        assert_eq!((fs::read_to_string(&file.path).unwrap().as_str(), mode(&file.path)), (text, 0o600));
        assert!(!file.beside(".turnlock.bak").exists());

        let before = "[other]\naws_access_key_id = AKIAOTHER\n";
        let (_directory, file) = in_a_directory(Some(before));
        put(&file).await.unwrap();
        put(&file).await.unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), format!("{before}\n{text}"));
        let backup = file.beside(".turnlock.bak");
        assert_eq!(
            (fs::read_to_string(&backup).unwrap().as_str(), mode(&backup), mode(&file.path)),
            (before, 0o600, 0o600)
        );
        assert_eq!(fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_file_that_is_held_read_only_or_no_text_stays_as_it_was() {
        let before = "[deploy]\naws_access_key_id = AKIAOLD\n";
        let (_directory, file) = in_a_directory(Some(before));
        let held = File::open(&file.path).unwrap();
        held.lock().unwrap();
        let refused = put(&file).await.unwrap_err();
        assert!(refused.message.contains("locked") && refused.retryable, "{refused:?}");
        drop(held);
        fs::set_permissions(&file.path, Permissions::from_mode(0o444)).unwrap();
        assert_eq!(put(&file).await.unwrap_err().kind, Kind::Permission);
        assert_eq!((fs::read_to_string(&file.path).unwrap().as_str(), mode(&file.path)), (before, 0o444));
        let (_directory, file) = in_a_directory(None);
        fs::create_dir(file.path.parent().unwrap()).unwrap();
        File::create(&file.path).unwrap().write_all(b"[deploy]\n# \xff\n").unwrap();
        assert!(put(&file).await.unwrap_err().message.contains("UTF-8"));
    }
}
