//! What is decided about a change before it is made, and said about one that
//! was refused.

use turnlock_kit::tls::is_loopback;
use turnlock_kit::{Fault, Finding, Kind, MayRotate, PasswordLimits, Secret, Severity};
use zeroize::Zeroizing;

use crate::Account;
use crate::session::Session;
use crate::statement::{self, Proof, Whose};
use crate::verifier::verifier;

/// The statements of a change. Only reads.
pub(crate) async fn statements(
    session: &mut Session,
    account: &Account,
    whose: &Whose,
    next: &Secret,
    old: &Secret,
) -> Result<Vec<Zeroizing<String>>, Fault> {
    if account.dual_password && !session.server.has_dual_passwords() {
        return Err(Fault::new(Kind::Unsupported, format!("{} has no dual passwords", session.server.text))
            .hint("leave out `dual_password`, or use MySQL 8.0.14 or later"));
    }
    #[expect(clippy::disallowed_methods, reason = "neither server takes a new password but as text of a statement")]
    let (next, old) = (next.expose(), old.expose());
    if next.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "an empty password would open the account to everybody"));
    }
    if next.contains('\0') {
        return Err(Fault::new(Kind::InvalidInput, "a password cannot hold a NUL character: clients would end there"));
    }
    let proofs = if session.server.is_mariadb && !checks_passwords(session).await {
        let mut proofs = Vec::new();
        for method in methods(session, whose).await {
            proofs.push(match method.and_then(|method| verifier(&method, next)) {
                Some(verifier) => Proof::Verifier(verifier),
                None => Proof::Password(next),
            });
        }
        proofs
    } else {
        Vec::new()
    };
    statement::change(
        &session.server,
        session.quoting(),
        whose,
        statement::Secrets { next, old, proofs: &proofs },
        account.dual_password,
    )
}

/// Whether MariaDB has a plugin that looks at new passwords: then it must see
/// them, and refuses a verifier. While it cannot be asked it may have one.
async fn checks_passwords(session: &mut Session) -> bool {
    let query = "SELECT COUNT(*) FROM information_schema.PLUGINS \
         WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND PLUGIN_STATUS = 'ACTIVE'";
    !session
        .execute(query)
        .await
        .is_ok_and(|rows| rows.first().and_then(|row| row.first()) == Some(&Some("0".to_owned())))
}

/// Each row's method of authentication, where it is known and the only one.
async fn methods(session: &mut Session, whose: &Whose) -> Vec<Option<String>> {
    let rows = match (whose, &session.own) {
        (Whose::Rows(rows), _) => rows.clone(),
        (Whose::Own, Some(own)) => vec![own.clone()],
        (Whose::Own, None) => Vec::new(),
    };
    let mut methods = Vec::new();
    for row in &rows {
        let described = session.describe(row).await;
        methods.push(described.and_then(|description| match description.methods.as_slice() {
            [method] => Some(method.clone()),
            _ => None,
        }));
    }
    methods
}

/// The first rows of a change that stopped half-way, for people.
pub(crate) fn first(whose: &Whose, count: usize) -> String {
    match whose {
        Whose::Own => String::new(),
        Whose::Rows(rows) => {
            let rows: Vec<String> = rows.iter().take(count).map(ToString::to_string).collect();
            rows.join(", ")
        }
    }
}

/// What a person should know before a change.
pub(crate) async fn findings(session: &mut Session, account: &Account, whose: &Whose) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |severity, message: String| findings.push(Finding { severity, message });
    if session.own.is_none() {
        found(Severity::Warning, "the password has expired; a rotation renews it".to_owned());
    }
    if session.read_only {
        found(Severity::Error, "the server is read-only: name the primary, not a replica".to_owned());
    }
    if account.dual_password && !session.server.has_dual_passwords() {
        found(Severity::Error, format!("{} has no dual passwords", session.server.text));
    }
    if session.tls.is_none() && account.unix_socket.is_none() && !is_loopback(&account.host) {
        found(Severity::Warning, "without TLS the statement with the new password can be read on its way".to_owned());
    }
    let rows = match (whose, &session.own) {
        (Whose::Rows(rows), _) => rows.clone(),
        (Whose::Own, Some(own)) => vec![own.clone()],
        (Whose::Own, None) => Vec::new(),
    };
    for row in rows {
        let Some(description) = session.describe(&row).await else {
            continue;
        };
        match description.methods.as_slice() {
            [] => {}
            [method] => {
                found(Severity::Info, format!("{row} authenticates by {method}"));
                if !session.server.is_mariadb && method != "caching_sha2_password" {
                    found(
                        Severity::Warning,
                        format!("{method} is weak and deprecated: move {row} to caching_sha2_password"),
                    );
                }
            }
            several => found(
                Severity::Warning,
                format!(
                    "{row} authenticates by any of {}: only the first one that has a password gets the new one",
                    several.join(", ")
                ),
            ),
        }
        if let Some(expiry) = description.expiry.filter(|expiry| expiry.starts_with("interval")) {
            found(Severity::Info, format!("the password of {row} expires after an {expiry}"));
        }
    }
    findings
}

/// Whether a finding says that a rotation cannot work.
pub(crate) fn forbids(finding: &Finding) -> bool {
    finding.severity == Severity::Error
}

impl Session {
    /// Whether the rights suffice, as far as the grants say it directly.
    /// Rights by a role, or on single tables, are not looked into.
    pub(crate) async fn may_change(&mut self, account: &Account, by_admin: bool) -> MayRotate {
        if !by_admin && !account.dual_password {
            return MayRotate::Yes;
        }
        let Ok(rows) = self.execute("SHOW GRANTS").await else {
            return MayRotate::Unknown;
        };
        let enough: &[&str] = if self.server.is_mariadb {
            &["UPDATE"]
        } else if by_admin {
            &["CREATE USER"]
        } else {
            &["CREATE USER", "APPLICATION_PASSWORD_ADMIN"]
        };
        let granted = rows.iter().flatten().flatten().any(|grant| {
            let Some(rights) = grant.strip_prefix("GRANT ") else {
                return false;
            };
            let Some((rights, on)) = rights.split_once(" ON ") else {
                return false;
            };
            let wide = on.starts_with("*.* ") || (self.server.is_mariadb && on.starts_with("`mysql`.* "));
            wide && rights.split(',').map(str::trim).any(|right| right == "ALL PRIVILEGES" || enough.contains(&right))
        });
        if granted { MayRotate::Yes } else { MayRotate::Unknown }
    }
}

/// A refusal for the password's sake, with the rules the server tells.
pub(crate) async fn with_the_servers_rules(session: &mut Session, mut fault: Fault) -> Fault {
    if fault.kind != Kind::Policy {
        return fault;
    }
    let query = "SHOW VARIABLES WHERE Variable_name LIKE 'validate_password%' \
         OR Variable_name LIKE 'simple_password_check%'";
    let Ok(rows) = session.execute(query).await else {
        return fault;
    };
    for row in rows {
        let mut columns = row.into_iter().flatten();
        let (Some(name), Some(value)) = (columns.next(), columns.next()) else {
            continue;
        };
        let is_length =
            ["validate_password.length", "validate_password_length", "simple_password_check_minimal_length"]
                .contains(&name.as_str());
        if let (true, Ok(length)) = (is_length, value.parse()) {
            let learned = fault.learned.get_or_insert_default();
            **learned = learned.and(&PasswordLimits { min_length: Some(length), ..PasswordLimits::default() });
        }
        fault.causes.push(format!("{name} = {value}"));
    }
    fault
}
