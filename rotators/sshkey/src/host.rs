//! One host: a log-in with a key, and its file of authorised keys, read and
//! replaced by the host's own `sh`.

use turnlock_kit::{Credential, Fault, Kind};
use turnlock_secureshell::keys::PrivateKey;
use turnlock_secureshell::{Connection, Place, Proof, Session};

use crate::Account;

/// A host that let us in.
pub(crate) struct Host<'a> {
    account: &'a Account,
    name: &'a str,
    session: Session,
}

/// The file as it was read.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) content: Vec<u8>,
    /// What `cksum` said of it.
    sum: String,
}

/// How a file was not replaced.
pub(crate) enum NotReplaced {
    /// Surely nothing changed.
    Unchanged(Fault),
    /// Nobody knows.
    Unknown(Fault),
}

/// Both scripts read the file's place from their first line. Links are
/// followed, so that the file and not the link is replaced. No single quote
/// and no exclamation mark may stand in them.
const FIND: &str = r#"LC_ALL=C; export LC_ALL; umask 077
IFS= read -r path; [ -n "$path" ] || path=.ssh/authorized_keys
case $path in /*) ;; *) path=$HOME/$path ;; esac
file=$(readlink -f -- "$path" 2>/dev/null) || file=$path
sum() { if [ -f "$file" ]; then cksum <"$file"; else echo none; fi; }
"#;

const READ: &str = r#"echo "turnlock: $(sum)"; [ ! -f "$file" ] || exec cat -- "$file""#;

/// The new content is whole beside the file, with its owner and mode, before
/// it takes its place; and it does so only if the file is still what was read.
const REPLACE: &str = r#"IFS= read -r seen; IFS= read -r size
[ -f "$file" ] || exit 70
new=$(mktemp "${file%/*}/.authorized_keys.XXXXXX") || exit 71
trap "rm -f -- \"\$new\"" EXIT
cp -p -- "$file" "$new" && cat >"$new" || exit 72
[ "$(wc -c <"$new")" -eq "$size" ] || exit 73
sync -- "$new" 2>/dev/null
[ "$(sum)" = "$seen" ] || exit 75
mv -f -- "$new" "$file" || exit 74
echo "turnlock: done""#;

impl<'a> Host<'a> {
    /// Logs in with a key.
    pub(crate) async fn log_in(
        account: &'a Account,
        name: &'a str,
        key: &PrivateKey,
        route: &Credential,
    ) -> Result<Self, Fault> {
        let place = Place::parse(name, account.port)?;
        let connection = Connection::open(&place.host, place.port, &account.access, route).await?;
        let session = connection.log_in(&account.login, Proof::Key(key)).await;
        Ok(Self { account, name, session: session.map_err(turnlock_secureshell::NotIn::into_fault)? })
    }

    pub(crate) fn server(&self) -> &str {
        self.session.server()
    }

    pub(crate) fn protection(&self) -> &str {
        self.session.protection()
    }

    /// Reads the file. One that is not there is empty.
    pub(crate) async fn read(&self) -> Result<Keys, Fault> {
        let ran = self.session.run(&command(READ), format!("{}\n", self.path()).as_bytes()).await?;
        let end = ran.stdout.iter().position(|byte| *byte == b'\n');
        let (first, rest) = ran.stdout.split_at_checked(end.unwrap_or(0)).unwrap_or_default();
        let sum = std::str::from_utf8(first).ok().and_then(|first| first.strip_prefix("turnlock: "));
        match (sum, ran.status) {
            (Some(sum), Some(0)) => {
                Ok(Keys { sum: sum.to_owned(), content: rest.get(1..).unwrap_or_default().to_vec() })
            }
            _ => {
                let mut fault = Fault::new(
                    Kind::Unsupported,
                    format!("the authorised keys of \"{}\" at {} cannot be read", self.account.login, self.name),
                )
                .hint("a key with a forced command, or an account without a shell, cannot edit its own file");
                fault.causes.extend(String::from_utf8_lossy(&ran.stderr).lines().take(5).map(str::to_owned));
                Err(fault)
            }
        }
    }

    /// Puts new content in the place of what was read.
    pub(crate) async fn replace(&self, read: &Keys, content: &[u8]) -> Result<(), NotReplaced> {
        let mut stdin = format!("{}\n{}\n{}\n", self.path(), read.sum, content.len()).into_bytes();
        stdin.extend_from_slice(content);
        let ran = self.session.run(&command(REPLACE), &stdin).await.map_err(NotReplaced::Unknown)?;
        if ran.status == Some(0) && ran.stdout.ends_with(b"turnlock: done\n") {
            return Ok(());
        }
        let (kind, why) = match ran.status {
            Some(70) => (Kind::Conflict, "the file is gone"),
            Some(71) => (Kind::Permission, "no file can be made beside it"),
            Some(72) => (Kind::Permission, "the new file cannot be written"),
            Some(73) => (Kind::Unreachable, "it did not arrive whole"),
            Some(75) => (Kind::Conflict, "somebody else edits it at this moment"),
            _ => (Kind::Internal, "it did not end well"),
        };
        let mut fault = Fault::new(kind, format!("the authorised keys at {} were not replaced: {why}", self.name));
        fault.causes.extend(String::from_utf8_lossy(&ran.stderr).lines().take(5).map(str::to_owned));
        // These statuses come before the file's name is touched.
        Err(match ran.status {
            Some(70..=73 | 75) => NotReplaced::Unchanged(fault),
            _ => NotReplaced::Unknown(fault),
        })
    }

    fn path(&self) -> &str {
        self.account.authorized_keys.as_deref().unwrap_or_default()
    }
}

impl NotReplaced {
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Unchanged(fault) | Self::Unknown(fault) => fault,
        }
    }
}

/// No secret is in it, and nothing of the record.
fn command(script: &str) -> String {
    format!("exec sh -c '{FIND}{script}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_are_one_word_for_every_shell() {
        for script in [FIND, READ, REPLACE] {
            assert!(!script.contains(['\'', '!']) || script == READ, "{script}");
        }
    }
}
