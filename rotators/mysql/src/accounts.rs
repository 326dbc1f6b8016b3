//! Which rows of the server's table of accounts a change is about, and what
//! the server says of a row.

use turnlock_kit::{Fault, Kind};

use crate::Account;
use crate::session::Session;
use crate::statement::{AccountRow, Whose};

/// What of `SHOW CREATE USER` is needed here. Its password hash is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// The methods of authentication; MariaDB may have several.
    pub(crate) methods: Vec<String>,
    /// What the server says of the password's age: `PASSWORD EXPIRE …`.
    pub(crate) expiry: Option<String>,
}

impl Description {
    /// Reads both servers' answers:
    /// `… IDENTIFIED WITH 'caching_sha2_password' AS '…' REQUIRE …`,
    /// `… IDENTIFIED BY PASSWORD '*…'`,
    /// `… IDENTIFIED VIA ed25519 USING '…' OR unix_socket …`.
    pub(crate) fn read(text: &str) -> Self {
        let first_word = |text: &str| {
            text.trim_start_matches(['\'', '`'])
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        // The name comes first and may be anything, so the last one counts.
        let proof = text.rsplit_once(" IDENTIFIED ").map_or("", |(_, proof)| proof);
        let methods = if let Some(plugin) = proof.strip_prefix("WITH ") {
            vec![first_word(plugin)]
        } else if let Some(plugins) = proof.strip_prefix("VIA ") {
            plugins.split(" OR ").map(first_word).collect()
        } else if proof.starts_with("BY PASSWORD ") {
            vec!["mysql_native_password".to_owned()]
        } else {
            Vec::new()
        };
        let expiry = proof.rsplit_once(" PASSWORD EXPIRE").map(|(_, rest)| {
            let words: Vec<&str> =
                rest.split_whitespace().take_while(|word| !["ACCOUNT", "PASSWORD", "REQUIRE"].contains(word)).collect();
            words.join(" ").to_lowercase()
        });
        Self { methods, expiry }
    }

    /// Whether the operating system can vouch for a client on a socket.
    pub(crate) fn trusts_the_system(&self) -> bool {
        self.methods.iter().any(|method| ["unix_socket", "auth_socket"].contains(&method.as_str()))
    }
}

/// Whose password is to change. Only reads.
pub(crate) async fn whose(session: &mut Session, account: &Account, by_admin: bool) -> Result<Whose, Fault> {
    let login = &account.login;
    if !by_admin {
        if account.all_hosts {
            return Err(Fault::new(
                Kind::InvalidInput,
                "`all_hosts` needs an admin: an account can change only its own row",
            )
            .hint("name an admin record, or leave out `all_hosts`"));
        }
        return match (&account.user_host, &session.own) {
            (Some(wanted), Some(own)) if !wanted.eq_ignore_ascii_case(&own.host) => Err(Fault::new(
                Kind::Conflict,
                format!("\"{login}\" logs in from here as {own}, not as '{login}'@'{wanted}'"),
            )
            .hint("correct or leave out `user_host`, or name an admin record")),
            _ => Ok(Whose::Own),
        };
    }
    let row = |host: String| AccountRow { user: login.clone(), host };
    if let (Some(host), false) = (&account.user_host, account.all_hosts) {
        return Ok(Whose::Rows(vec![row(host.clone())]));
    }
    let roles = if session.server.is_mariadb { " AND is_role = 'N'" } else { "" };
    let query =
        format!("SELECT Host FROM mysql.user WHERE User = {}{roles} ORDER BY Host", *session.quoting().literal(login)?);
    let rows: Vec<AccountRow> = session
        .execute(&query)
        .await
        .map_err(|trouble| {
            Fault::new(Kind::Permission, format!("the admin may not look up the rows of \"{login}\""))
                .caused_by(&trouble)
                .hint("name the row as `user_host`, or GRANT SELECT ON mysql.user TO the admin")
        })?
        .into_iter()
        .flatten()
        .flatten()
        .map(row)
        .collect();
    match rows.as_slice() {
        [] => Err(Fault::new(Kind::NotFound, format!("the server has no account \"{login}\""))),
        [_, _, ..] if !account.all_hosts => {
            let known: Vec<String> = rows.iter().map(ToString::to_string).collect();
            Err(Fault::new(Kind::InvalidInput, format!("\"{login}\" is several accounts: {}", known.join(", ")))
                .hint("name one row's host as `user_host`, or set `all_hosts = true`"))
        }
        _ => Ok(Whose::Rows(rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_descriptions_are_read() {
        let cases: [(&str, &[&str], Option<&str>); 6] = [
            (
                "CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$x' REQUIRE NONE PASSWORD EXPIRE INTERVAL 90 DAY ACCOUNT UNLOCK",
                &["caching_sha2_password"],
                Some("interval 90 day"),
            ),
            (
                "CREATE USER `a`@`%` IDENTIFIED WITH 'sha256_password' AS '$5$' REQUIRE NONE PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK PASSWORD HISTORY DEFAULT",
                &["sha256_password"],
                Some("default"),
            ),
            (
                "CREATE USER `x IDENTIFIED VIA pam`@`%` IDENTIFIED BY PASSWORD '*45' PASSWORD EXPIRE",
                &["mysql_native_password"],
                Some(""),
            ),
            ("CREATE USER `a`@`%` IDENTIFIED VIA ed25519 USING 'aa' OR unix_socket", &["ed25519", "unix_socket"], None),
            ("CREATE USER `a`@`%` IDENTIFIED VIA unix_socket", &["unix_socket"], None),
            ("CREATE USER `a`@`%`", &[], None),
        ];
        for (text, methods, expiry) in cases {
            let read = Description::read(text);
            assert_eq!(read.methods, methods, "{text}");
            assert_eq!(read.expiry.as_deref(), expiry, "{text}");
        }
    }
}
