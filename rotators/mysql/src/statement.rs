//! The texts that are sent. Passwords have to be literals: neither server
//! takes a parameter, a hexadecimal literal or an expression there.

use turnlock_kit::{Fault, Kind};
use zeroize::Zeroizing;

/// MySQL or MariaDB, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) is_mariadb: bool,
    pub(crate) version: (u16, u16, u16),
    /// As the server calls itself, for people.
    pub(crate) text: String,
}

impl Server {
    /// From the greeting's version. MariaDB puts `5.5.5-` before its own for
    /// the sake of old replicas.
    pub(crate) fn named(greeting: &str) -> Self {
        let is_mariadb = greeting.contains("MariaDB");
        let own = match greeting.strip_prefix("5.5.5-") {
            Some(rest) if is_mariadb => rest,
            _ => greeting,
        };
        let mut numbers = own.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            is_mariadb,
            version: (next(), next(), next()),
            text: if is_mariadb { own.to_owned() } else { format!("MySQL {own}") },
        }
    }

    /// Whether a change may, and under PASSWORD REQUIRE CURRENT must, say the
    /// password that is replaced.
    pub(crate) fn takes_replace(&self) -> bool {
        !self.is_mariadb && self.version >= (8, 0, 13)
    }

    /// Whether an account can have two passwords.
    pub(crate) fn has_dual_passwords(&self) -> bool {
        !self.is_mariadb && self.version >= (8, 0, 14)
    }

    /// Whether one statement changes several accounts all or none.
    pub(crate) fn changes_many_at_once(&self) -> bool {
        !self.is_mariadb && self.version >= (8, 0, 0)
    }
}

/// One row of the server's table of accounts: `'user'@'host'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) user: String,
    pub(crate) host: String,
}

impl std::fmt::Display for AccountRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}'@'{}'", self.user, self.host)
    }
}

/// How literals are written for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quoting {
    /// Whether a backslash begins an escape (not under `NO_BACKSLASH_ESCAPES`).
    pub(crate) backslash_escapes: bool,
    /// Whether the server certainly reads UTF-8.
    pub(crate) surely_utf8: bool,
}

impl Quoting {
    /// A text between single quotes, which are quotes under `ANSI_QUOTES` too.
    /// The quote itself is doubled, which every mode understands.
    pub(crate) fn literal(self, text: &str) -> Result<Zeroizing<String>, Fault> {
        if text.contains('\0') {
            return Err(Fault::new(Kind::InvalidInput, "a name or a password cannot hold a NUL character"));
        }
        if !self.surely_utf8 && !text.is_ascii() {
            return Err(Fault::new(
                Kind::Unsupported,
                "the password has expired, and until it is changed the server does not tell how it reads characters beyond ASCII",
            )
            .hint("draw a password of ASCII characters only, or name an admin record"));
        }
        let mut quoted = Zeroizing::new(String::with_capacity(text.len() * 2 + 2));
        quoted.push('\'');
        for c in text.chars() {
            if c == '\'' || (c == '\\' && self.backslash_escapes) {
                quoted.push(c);
            }
            quoted.push(c);
        }
        quoted.push('\'');
        Ok(quoted)
    }

    pub(crate) fn account(self, row: &AccountRow) -> Result<String, Fault> {
        Ok(format!("{}@{}", *self.literal(&row.user)?, *self.literal(&row.host)?))
    }
}

/// Whose password changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The one of the account that is logged in.
    Own,
    /// Another's, by an administrator.
    Rows(Vec<AccountRow>),
}

/// What MariaDB gets: the password, or what it would make of it.
pub(crate) enum Proof<'a> {
    Password(&'a str),
    Verifier(String),
}

/// The secrets of a change.
#[derive(Clone, Copy)]
pub(crate) struct Secrets<'a> {
    pub(crate) next: &'a str,
    /// What is replaced, where the account changes itself.
    pub(crate) old: &'a str,
    /// For MariaDB, one for each row; the password itself where there is none.
    pub(crate) proofs: &'a [Proof<'a>],
}

/// A change: its statements, none of which changes the method of
/// authentication. There is more than one only where the server cannot change
/// several rows at once.
pub(crate) fn change(
    server: &Server,
    quoting: Quoting,
    whose: &Whose,
    secrets: Secrets<'_>,
    retain: bool,
) -> Result<Vec<Zeroizing<String>>, Fault> {
    let names: Vec<Option<String>> = match whose {
        Whose::Own => vec![None],
        Whose::Rows(rows) => rows.iter().map(|row| quoting.account(row).map(Some)).collect::<Result<_, Fault>>()?,
    };
    if server.is_mariadb {
        let plain = Proof::Password(secrets.next);
        let proofs = secrets.proofs.iter().chain(std::iter::repeat(&plain));
        return names.iter().zip(proofs).map(|(name, proof)| set_password(quoting, name.as_deref(), proof)).collect();
    }
    let clauses: Vec<Zeroizing<String>> = names
        .iter()
        .map(|name| identified_by(server, quoting, name.as_deref(), secrets, retain))
        .collect::<Result<_, Fault>>()?;
    let texts: Vec<&str> = clauses.iter().map(|clause| clause.as_str()).collect();
    let at_once = if server.changes_many_at_once() { texts.len().max(1) } else { 1 };
    Ok(texts
        .chunks(at_once)
        .map(|clauses| {
            let clauses = Zeroizing::new(clauses.join(", "));
            Zeroizing::new(format!("ALTER USER {}", *clauses))
        })
        .collect())
}

/// MariaDB: its ALTER USER would turn an ed25519 account into
/// mysql_native_password, and ordinary users may not use it.
fn set_password(quoting: Quoting, name: Option<&str>, proof: &Proof<'_>) -> Result<Zeroizing<String>, Fault> {
    let whose = name.map_or(String::new(), |name| format!(" FOR {name}"));
    Ok(Zeroizing::new(match proof {
        Proof::Password(password) => {
            format!("SET PASSWORD{whose} = PASSWORD({})", *quoting.literal(password)?)
        }
        Proof::Verifier(verifier) => {
            format!("SET PASSWORD{whose} = {}", *quoting.literal(verifier)?)
        }
    }))
}

/// MySQL, without `ALTER USER`.
fn identified_by(
    server: &Server,
    quoting: Quoting,
    name: Option<&str>,
    secrets: Secrets<'_>,
    retain: bool,
) -> Result<Zeroizing<String>, Fault> {
    let next = quoting.literal(secrets.next)?;
    let replace = if name.is_none() && server.takes_replace() {
        let old = quoting.literal(secrets.old)?;
        Zeroizing::new(format!(" REPLACE {}", *old))
    } else {
        Zeroizing::default()
    };
    Ok(Zeroizing::new(format!(
        "{} IDENTIFIED BY {}{}{}",
        name.unwrap_or("USER()"),
        *next,
        *replace,
        if retain { " RETAIN CURRENT PASSWORD" } else { "" },
    )))
}

/// Ends what `RETAIN CURRENT PASSWORD` left.
pub(crate) fn discard(quoting: Quoting, whose: &Whose) -> Result<String, Fault> {
    let rows = match whose {
        Whose::Own => return Ok("ALTER USER USER() DISCARD OLD PASSWORD".to_owned()),
        Whose::Rows(rows) => rows,
    };
    let parts: Result<Vec<_>, Fault> =
        rows.iter().map(|row| Ok(format!("{} DISCARD OLD PASSWORD", quoting.account(row)?))).collect();
    Ok(format!("ALTER USER {}", parts?.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The servers' own rule for a literal between single quotes: what it
    /// means, and what is left behind it.
    fn read_literal(sql: &str, backslash_escapes: bool) -> Option<(String, &str)> {
        let mut rest = sql.strip_prefix('\'')?.chars();
        let mut text = String::new();
        loop {
            match rest.next()? {
                '\\' if backslash_escapes => text.push(rest.next()?),
                '\'' if rest.as_str().starts_with('\'') => {
                    rest.next();
                    text.push('\'');
                }
                '\'' => return Some((text, rest.as_str())),
                c => text.push(c),
            }
        }
    }

    fn quoting(backslash_escapes: bool) -> Quoting {
        Quoting { backslash_escapes, surely_utf8: true }
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("'".to_owned()),
            Just("\\".to_owned()),
            Just("\"".to_owned()),
            Just("`".to_owned()),
            Just("';-- ".to_owned()),
            Just("%".to_owned()),
            Just("ü😀".to_owned()),
            "[ -~]{1,4}",
            "[^\0]{1,3}",
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_literal_means_its_text_and_nothing_is_left(text in hostile(), escapes: bool) {
            let sql = quoting(escapes).literal(&text).unwrap();
            prop_assert_eq!(read_literal(&sql, escapes), Some((text, "")));
        }

        #[test]
        fn every_literal_of_a_change_is_where_it_belongs(
            user in hostile(), host in hostile(), next in hostile(), escapes: bool, mariadb: bool,
        ) {
            let server = Server::named(if mariadb { "5.5.5-10.11.6-MariaDB-1" } else { "9.1.0" });
            let row = AccountRow { user: user.clone(), host: host.clone() };
            let sql = change(
                &server, quoting(escapes), &Whose::Rows(vec![row]),
                Secrets { next: &next, old: "", proofs: &[] }, false,
            ).unwrap();
            let words = if mariadb {
                ["SET PASSWORD FOR ", " = PASSWORD(", ")"]
            } else {
                ["ALTER USER ", " IDENTIFIED BY ", ""]
            };
            let rest = sql[0].strip_prefix(words[0]).unwrap();
            let (read_user, rest) = read_literal(rest, escapes).unwrap();
            let (read_host, rest) = read_literal(rest.strip_prefix('@').unwrap(), escapes).unwrap();
            let (read_next, rest) = read_literal(rest.strip_prefix(words[1]).unwrap(), escapes).unwrap();
            prop_assert_eq!((read_user, read_host, read_next, rest), (user, host, next, words[2]));
        }
    }

    #[test]
    fn nul_is_refused() {
        let fault = quoting(true).literal("a\0b").unwrap_err();
        assert_eq!(fault.kind, Kind::InvalidInput);
    }

    #[test]
    fn servers_are_told_apart_by_their_greeting() {
        let cases = [
            ("5.5.5-10.11.19-MariaDB-0+deb12u1", true, (10, 11, 19)),
            ("11.4.2-MariaDB-ubu2404-log", true, (11, 4, 2)),
            ("8.0.36-28", false, (8, 0, 36)),
            ("9.7.4-1", false, (9, 7, 4)),
            ("5.7.mysql_aurora.2.11.2", false, (5, 7, 0)),
        ];
        for (greeting, is_mariadb, version) in cases {
            let server = Server::named(greeting);
            assert_eq!((server.is_mariadb, server.version), (is_mariadb, version));
        }
    }

    #[test]
    fn one_statement_for_each_kind_of_change() {
        let rows = |hosts: &[&str]| {
            Whose::Rows(hosts.iter().map(|host| AccountRow { user: "app".into(), host: (*host).into() }).collect())
        };
        let text = |server: &str, whose: &Whose, retain| {
            change(
                &Server::named(server),
                quoting(true),
                whose,
                Secrets { next: "new", old: "old", proofs: &[] },
                retain,
            )
            .unwrap()
            .iter()
            .map(|sql| sql.to_string())
            .collect::<Vec<_>>()
        };
        let maria = "5.5.5-10.11.6-MariaDB";
        assert_eq!(
            text("9.1.0", &Whose::Own, true),
            ["ALTER USER USER() IDENTIFIED BY 'new' REPLACE 'old' RETAIN CURRENT PASSWORD"]
        );
        assert_eq!(text("5.7.44", &Whose::Own, false), ["ALTER USER USER() IDENTIFIED BY 'new'"]);
        assert_eq!(
            text("8.4.0", &rows(&["%", "10.%"]), false),
            ["ALTER USER 'app'@'%' IDENTIFIED BY 'new', 'app'@'10.%' IDENTIFIED BY 'new'"]
        );
        assert_eq!(text("5.7.44", &rows(&["%", "10.%"]), false).len(), 2);
        assert_eq!(text(maria, &Whose::Own, false), ["SET PASSWORD = PASSWORD('new')"]);
        assert_eq!(text(maria, &rows(&["%"]), false), ["SET PASSWORD FOR 'app'@'%' = PASSWORD('new')"]);
        assert_eq!(
            discard(quoting(true), &rows(&["%", "::1"])).unwrap(),
            "ALTER USER 'app'@'%' DISCARD OLD PASSWORD, 'app'@'::1' DISCARD OLD PASSWORD"
        );
    }
}
