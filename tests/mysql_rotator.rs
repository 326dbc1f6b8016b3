//! `turnlock-mysql` alone, in one-shot mode, against a real MariaDB and a real
//! MySQL. Every outcome is asserted by logging in with the vendor's own client.

#![expect(clippy::indexing_slicing, reason = "a missing field of a JSON value is null, and null fails the assertion")]

use lab::{
    AccountOptions, Direction, Fault, Flavor, MysqlOptions, MysqlServer, Output, Proxy, Result, Turnlock, mariadb,
    mysql, process,
};
use serde_json::{Value, json};

const OLD: &str = "Old-Pw-1!";
const NEW: &str = "New-Pw-2!";

/// Exit statuses of one-shot mode.
const DONE: i32 = 0;
const USAGE: i32 = 2;
const NOTHING_CHANGED: i32 = 3;
const LIVE: i32 = 4;
const UNKNOWN: i32 = 5;

/// Names and passwords that break whoever quotes by hand.
const HOSTILE: [&str; 9] = [
    "o'hara''s",
    "a\"b`c",
    r"back\slash\\",
    r"\'; DROP USER x; --",
    "semi;drop table x--",
    "100%_ /* */ #",
    "line\nbreak\ttab\u{1a}",
    "spaß",
    "' OR '1'='1",
];

const SQL_MODES: [&str; 4] = ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"];

fn both() -> Result<[MysqlServer; 2]> {
    both_with(&[])
}

fn both_with(settings: &[&str]) -> Result<[MysqlServer; 2]> {
    let options = || MysqlOptions {
        settings: settings.iter().map(|line| (*line).to_owned()).collect(),
        ..MysqlOptions::default()
    };
    Ok([mariadb::start(options())?, mysql::start(options())?])
}

fn account(server: &MysqlServer, login: &str) -> Value {
    json!({
        "host": server.host(),
        "port": server.port(),
        "login": login,
        "ca": server.ca_path(),
    })
}

fn with(mut account: Value, more: Value) -> Value {
    if let (Value::Object(account), Value::Object(more)) = (&mut account, more) {
        account.extend(more);
    }
    account
}

fn run(operation: &str, params: &Value) -> Result<(Output, Value)> {
    let home = Turnlock::new()?;
    let mut command = home.program("turnlock-mysql", &[operation])?;
    let output = process::run(&mut command, params.to_string().as_bytes())?;
    let line = output.stdout.lines().last().unwrap_or("null").to_owned();
    Ok((output, serde_json::from_str(&line).unwrap_or_default()))
}

fn change(account: Value, current: &str, next: &str) -> Value {
    json!({"account": account, "current": {"password": current}, "next": {"password": next}})
}

fn by_admin(server: &MysqlServer, account: Value, next: &str) -> Value {
    let admin = server.admin();
    json!({
        "account": account,
        "next": {"password": next},
        "admin": {"login": admin.login, "credential": {"password": admin.password}},
    })
}

#[track_caller]
fn rotated(params: &Value) -> Result<Value> {
    let (output, last) = run("rotate", params)?;
    assert_eq!(output.status, DONE, "{last}");
    Ok(last)
}

#[track_caller]
fn refused(params: &Value, kind: &str, status: i32) -> Result<Value> {
    let (output, last) = run("rotate", params)?;
    assert_eq!(output.status, status, "{last}");
    assert_eq!(last["error"]["data"]["kind"], kind, "{last}");
    Ok(last)
}

fn verify(account: Value, password: &str) -> Result<Value> {
    Ok(run("verify", &json!({"account": account, "credential": {"password": password}}))?.1)
}

fn check(account: Value, current: &str) -> Result<Value> {
    Ok(run("check", &json!({"account": account, "current": {"password": current}}))?.1)
}

fn findings(check: &Value) -> String {
    check["findings"].to_string()
}

fn create(server: &MysqlServer, user: &str, clauses: &str) -> Result<()> {
    let options = AccountOptions { plugin: None, clauses };
    server.create_account(user, "%", OLD, options)
}

#[test]
fn an_account_changes_itself_without_a_single_refused_log_in() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        let last = rotated(&change(account(&server, "app"), OLD, NEW))?;
        assert_eq!(last["verified"], true);
        assert_eq!(server.failed_logins(), 0, "{}", server.log());
        assert!(server.accepts("app", NEW)?);
        assert!(!server.accepts("app", OLD)?);
    }
    Ok(())
}

#[test]
fn a_wrong_current_secret_changes_nothing() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        refused(&change(account(&server, "app"), "wrong-one", NEW), "authentication", NOTHING_CHANGED)?;
        assert!(server.accepts("app", OLD)?);
    }
    Ok(())
}

#[test]
fn a_second_run_with_the_old_secret_is_harmless() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        let params = change(account(&server, "app"), OLD, NEW);
        rotated(&params)?;
        let again = rotated(&params)?;
        assert!(again["warnings"].to_string().contains("already"), "{again}");
        refused(&change(account(&server, "app"), OLD, "Third-Pw-3!"), "authentication", NOTHING_CHANGED)?;
        assert!(server.accepts("app", NEW)?);
    }
    Ok(())
}

#[test]
fn hostile_names_and_passwords_arrive_as_they_are_in_every_sql_mode() -> Result<()> {
    for server in both()? {
        for (round, mode) in SQL_MODES.iter().enumerate() {
            let login = |index: usize, hostile: &str| format!("{round}{index}{hostile}");
            let long = format!("x'{}", r"\".repeat(98));
            server.sql("SET GLOBAL sql_mode = '';")?;
            for (index, hostile) in HOSTILE.iter().enumerate() {
                create(&server, &login(index, hostile), "")?;
            }
            create(&server, &login(0, "long"), "")?;
            // Whoever logs in from now on gets it.
            server.sql(&format!("SET GLOBAL sql_mode = '{mode}';"))?;
            for (index, hostile) in HOSTILE.iter().enumerate() {
                let login = login(index, hostile);
                let next = format!("{hostile}-😀-Pw-2 ");
                rotated(&change(account(&server, &login), OLD, &next))?;
                assert!(server.accepts(&login, &next)?, "{mode}: {hostile:?}");
                // Now as the current one, and by the admin, who names the row.
                rotated(&change(account(&server, &login), &next, NEW))?;
                rotated(&by_admin(&server, account(&server, &login), &next))?;
                assert!(server.accepts(&login, &next)?, "{mode}: {hostile:?}");
            }
            let login = login(0, "long");
            rotated(&change(account(&server, &login), OLD, &long))?;
            assert!(server.accepts(&login, &long)?);
        }
        assert_eq!(server.failed_logins(), 0);
    }
    Ok(())
}

#[test]
fn hostile_passwords_arrive_where_mariadb_must_see_them() -> Result<()> {
    let server = mariadb::start(MysqlOptions::default())?;
    create(&server, "app", "")?;
    server.sql("INSTALL SONAME 'simple_password_check';")?;
    let mut current = OLD.to_owned();
    for mode in SQL_MODES {
        server.sql(&format!("SET GLOBAL sql_mode = '{mode}';"))?;
        for hostile in HOSTILE {
            let next = format!("{hostile}-😀-Pw-2-{mode}");
            rotated(&change(account(&server, "app"), &current, &next))?;
            assert!(server.accepts("app", &next)?, "{mode}: {hostile:?}");
            current = next;
        }
    }
    Ok(())
}

#[test]
fn a_server_that_ignores_the_clients_character_set_is_told_again() -> Result<()> {
    // MySQL 9 has no such option any more.
    let server = mariadb::start(MysqlOptions {
        settings: vec!["character-set-server = latin1".to_owned(), "skip-character-set-client-handshake".to_owned()],
        ..MysqlOptions::default()
    })?;
    create(&server, "app", "")?;
    rotated(&change(account(&server, "app"), OLD, "Grüße-😀-2\\"))?;
    assert!(server.accepts("app", "Grüße-😀-2\\")?);
    server.sql("INSTALL SONAME 'simple_password_check';")?;
    rotated(&change(account(&server, "app"), "Grüße-😀-2\\", "Grüße-😀-3\\"))?;
    assert!(server.accepts("app", "Grüße-😀-3\\")?);
    Ok(())
}

#[test]
fn nul_and_emptiness_are_refused_before_anything_is_sent() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        for next in ["", "a\0b"] {
            refused(&change(account(&server, "app"), OLD, next), "invalid_input", USAGE)?;
        }
        assert!(server.accepts("app", OLD)?);
    }
    Ok(())
}

#[test]
fn an_admin_resets_another_account() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        rotated(&by_admin(&server, account(&server, "app"), NEW))?;
        assert!(server.accepts("app", NEW)?);
        assert_eq!(server.failed_logins(), 0);
        refused(&by_admin(&server, account(&server, "nobody"), NEW), "not_found", NOTHING_CHANGED)?;
        refused(
            &by_admin(&server, with(account(&server, "app"), json!({"user_host": "10.9.9.9"})), NEW),
            "not_found",
            NOTHING_CHANGED,
        )?;
    }
    Ok(())
}

#[test]
fn an_admin_needs_just_the_documented_rights() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        create(&server, "bare", "")?;
        let by_bare = |account: Value| {
            json!({
                "account": account,
                "next": {"password": NEW},
                "admin": {"login": "bare", "credential": {"password": OLD}},
            })
        };
        refused(&by_bare(account(&server, "app")), "permission", NOTHING_CHANGED)?;
        let named = with(account(&server, "app"), json!({"user_host": "%"}));
        refused(&by_bare(named.clone()), "permission", NOTHING_CHANGED)?;
        assert!(server.accepts("app", OLD)?);
        server.sql(match server.flavor() {
            Flavor::Mariadb => "GRANT UPDATE ON mysql.* TO bare@'%';",
            Flavor::Mysql => "GRANT CREATE USER ON *.* TO bare@'%';",
        })?;
        rotated(&by_bare(named))?;
        server.sql("GRANT SELECT ON mysql.user TO bare@'%';")?;
        let mut second = by_bare(account(&server, "app"));
        second["next"]["password"] = json!("Third-Pw-3!");
        rotated(&second)?;
        assert!(server.accepts("app", "Third-Pw-3!")?);
    }
    Ok(())
}

#[test]
fn several_rows_are_named_or_changed_all() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        server.create_account("app", "127.0.0.1", OLD, AccountOptions::default())?;
        server.create_account("app", "10.0.0.%", OLD, AccountOptions::default())?;
        let stored =
            || server.sql("SELECT Host, authentication_string FROM mysql.user WHERE User = 'app' ORDER BY Host;");
        let before = stored()?;
        let fault = refused(&by_admin(&server, account(&server, "app"), NEW), "invalid_input", USAGE)?;
        assert!(fault.to_string().contains("'app'@'10.0.0.%'"), "{fault}");
        assert_eq!(stored()?, before);

        // The own row only, although `%` would match too.
        rotated(&change(account(&server, "app"), OLD, NEW))?;
        let own = stored()?;
        let changed = |old: &str, new: &str| old.lines().zip(new.lines()).filter(|(a, b)| a != b).count();
        assert_eq!(changed(&before, &own), 1);
        refused(
            &change(with(account(&server, "app"), json!({"user_host": "%"})), NEW, OLD),
            "conflict",
            NOTHING_CHANGED,
        )?;

        let all = with(account(&server, "app"), json!({"all_hosts": true}));
        refused(&change(all.clone(), NEW, "x"), "invalid_input", USAGE)?;
        rotated(&by_admin(&server, all, "All-Pw-4!"))?;
        assert_eq!(changed(&own, &stored()?), 3);
        assert!(server.accepts("app", "All-Pw-4!")?);
    }
    Ok(())
}

#[test]
fn the_method_of_authentication_stays() -> Result<()> {
    for server in both()? {
        let (plugin, clauses) = match server.flavor() {
            Flavor::Mariadb => ("ed25519", "SELECT plugin FROM mysql.user WHERE User = 'app';"),
            Flavor::Mysql => ("sha256_password", "SELECT plugin FROM mysql.user WHERE User = 'app';"),
        };
        let options = AccountOptions { plugin: Some(plugin), clauses: "" };
        server.create_account("app", "%", OLD, options)?;
        for (current, next) in [(OLD, NEW), (NEW, "a password of more than thirty-two characters 3!")] {
            rotated(&change(account(&server, "app"), current, next))?;
            assert_eq!(server.sql(clauses)?, plugin);
        }
        rotated(&by_admin(&server, account(&server, "app"), OLD))?;
        assert_eq!(server.sql(clauses)?, plugin);
        for tls in [json!({}), json!({"tls": "disable"})] {
            let account = with(account(&server, "app"), tls);
            assert_eq!(verify(account.clone(), OLD)?["verdict"], "accepted");
            assert_eq!(verify(account, NEW)?["verdict"], "refused");
        }
    }
    Ok(())
}

#[test]
fn the_new_password_is_not_in_the_servers_general_log() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        server.set_general_log(true)?;
        rotated(&change(account(&server, "app"), OLD, NEW))?;
        rotated(&by_admin(&server, account(&server, "app"), "Third-Pw-3!"))?;
        let log = server.general_log();
        assert!(log.contains("turnlock") || log.contains("CURRENT_USER"), "{log}");
        for secret in [OLD, NEW, "Third-Pw-3!"] {
            assert!(!log.contains(secret), "{log}");
        }
    }
    Ok(())
}

#[test]
fn an_expired_password_renews_itself() -> Result<()> {
    for mode in ["", "NO_BACKSLASH_ESCAPES"] {
        let mode = format!("sql-mode = {mode}");
        for server in both_with(&[&mode, "disconnect-on-expired-password = ON"])? {
            create(&server, "app", "PASSWORD EXPIRE")?;
            let verdict = verify(account(&server, "app"), OLD)?;
            assert_eq!(verdict, json!({"verdict": "accepted", "state": "expired"}));
            assert_eq!(verify(account(&server, "app"), NEW)?["verdict"], "refused");
            let checked = check(account(&server, "app"), OLD)?;
            assert!(findings(&checked).contains("expired"), "{checked}");

            let next = r"back\slash'\\2";
            rotated(&change(account(&server, "app"), OLD, next))?;
            assert_eq!(verify(account(&server, "app"), next)?, json!({"verdict": "accepted"}));
            assert!(server.accepts("app", next)?);
        }
    }
    Ok(())
}

#[test]
fn a_locked_account_is_locked_out_and_never_refused() -> Result<()> {
    for server in both()? {
        create(&server, "app", "ACCOUNT LOCK")?;
        let verdict = verify(account(&server, "app"), OLD)?;
        assert_eq!(verdict["error"]["data"]["kind"], "locked_out", "{verdict}");
        refused(&change(account(&server, "app"), OLD, NEW), "locked_out", NOTHING_CHANGED)?;
        let clauses = match server.flavor() {
            Flavor::Mariadb => {
                server.sql("SET GLOBAL max_password_errors = 2;")?;
                ""
            }
            Flavor::Mysql => "FAILED_LOGIN_ATTEMPTS 2 PASSWORD_LOCK_TIME 1",
        };
        create(&server, "two", clauses)?;
        verify(account(&server, "two"), NEW)?;
        verify(account(&server, "two"), NEW)?;
        let verdict = verify(account(&server, "two"), OLD)?;
        assert_eq!(verdict["error"]["data"]["kind"], "locked_out", "{verdict}");
    }
    Ok(())
}

#[test]
fn mariadb_accounts_beyond_one_password() -> Result<()> {
    let server = mariadb::start(MysqlOptions::default())?;
    server.sql(&format!(
        "CREATE USER sock@'%' IDENTIFIED VIA unix_socket;\
         CREATE USER multi@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('{OLD}') OR ed25519 USING PASSWORD('{OLD}');"
    ))?;
    let fault = verify(account(&server, "sock"), OLD)?;
    assert_eq!(fault["error"]["data"]["kind"], "unsupported", "{fault}");
    refused(&by_admin(&server, account(&server, "sock"), NEW), "unsupported", NOTHING_CHANGED)?;
    let checked = check(account(&server, "multi"), OLD)?;
    assert!(findings(&checked).contains("only the first"), "{checked}");
    rotated(&change(account(&server, "multi"), OLD, NEW))?;
    assert_eq!(verify(account(&server, "multi"), NEW)?["verdict"], "accepted");
    Ok(())
}

#[test]
fn the_policy_refuses_tells_its_rules_and_changes_nothing() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        server.sql(match server.flavor() {
            Flavor::Mariadb => "INSTALL SONAME 'simple_password_check';",
            Flavor::Mysql => "INSTALL COMPONENT 'file://component_validate_password';",
        })?;
        for params in
            [change(account(&server, "app"), OLD, "weak-pw"), by_admin(&server, account(&server, "app"), "weak-pw")]
        {
            let fault = refused(&params, "policy", NOTHING_CHANGED)?;
            assert_eq!(fault["error"]["data"]["applied"], "no");
            assert_eq!(fault["error"]["data"]["learned"]["min_length"], 8, "{fault}");
            assert!(!fault.to_string().contains("weak-pw"), "{fault}");
        }
        assert!(server.accepts("app", OLD)?);
        rotated(&change(account(&server, "app"), OLD, NEW))?;
    }
    Ok(())
}

#[test]
fn mysql_with_require_current_and_history() -> Result<()> {
    let server = mysql::start(MysqlOptions::default())?;
    create(&server, "app", "PASSWORD REQUIRE CURRENT PASSWORD HISTORY 3")?;
    rotated(&change(account(&server, "app"), OLD, NEW))?;
    refused(&change(account(&server, "app"), NEW, OLD), "policy", NOTHING_CHANGED)?;
    assert!(server.accepts("app", NEW)?);
    Ok(())
}

#[test]
fn two_passwords_until_finish() -> Result<()> {
    let server = mysql::start(MysqlOptions::default())?;
    create(&server, "app", "")?;
    let dual = with(account(&server, "app"), json!({"dual_password": true}));
    refused(&change(dual.clone(), OLD, NEW), "permission", NOTHING_CHANGED)?;
    server.sql("GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO app@'%';")?;

    let (output, last) = run("apply", &change(dual.clone(), OLD, NEW))?;
    assert_eq!(output.status, DONE, "{last}");
    assert!(server.accepts("app", OLD)? && server.accepts("app", NEW)?);
    let finish = json!({
        "account": dual,
        "current": {"password": NEW},
        "previous": {"password": OLD},
    });
    for _ in 0..2 {
        let (output, last) = run("finish", &finish)?;
        assert_eq!(output.status, DONE, "{last}");
        assert!(server.accepts("app", NEW)?);
        assert!(!server.accepts("app", OLD)?);
    }
    let last = rotated(&change(dual.clone(), NEW, "Third-Pw-3!"))?;
    assert!(last["finished"].to_string().contains("retained"), "{last}");
    assert!(!server.accepts("app", NEW)?);

    rotated(&by_admin(&server, dual.clone(), "Fourth-Pw-4!"))?;
    assert!(server.accepts("app", "Fourth-Pw-4!")?);
    let plan = run("plan", &json!({"account": dual}))?.1;
    assert_eq!(plan["traits"]["overlap"], "both");
    assert_eq!(plan["traits"]["finish"], true);
    let plan = run("plan", &json!({"account": account(&server, "app")}))?.1;
    assert_eq!(plan["traits"]["overlap"], "none");

    let server = mariadb::start(MysqlOptions::default())?;
    create(&server, "app", "")?;
    let dual = with(account(&server, "app"), json!({"dual_password": true}));
    refused(&change(dual, OLD, NEW), "unsupported", NOTHING_CHANGED)?;
    Ok(())
}

#[test]
fn only_the_right_server_is_believed() -> Result<()> {
    let [one, two] = both()?;
    for (server, other) in [(&one, &two), (&two, &one)] {
        create(server, "app", "")?;
        let base = account(server, "app");
        let to = |more: Value| change(with(base.clone(), more), OLD, NEW);
        refused(&to(json!({"ca": other.ca_path()})), "tls", NOTHING_CHANGED)?;
        refused(&to(json!({"server_name": "db.example.com"})), "tls", NOTHING_CHANGED)?;
        // The system's authorities do not know the lab's.
        refused(&to(json!({"ca": null, "tls": "verify-full"})), "tls", NOTHING_CHANGED)?;
        assert!(server.accepts("app", OLD)?);
        for more in [
            json!({"tls": "verify-ca", "server_name": "db.example.com"}),
            json!({"tls": "require", "ca": null}),
            json!({"server_name": "localhost"}),
            json!({"ca": null}),
            json!({"tls": "disable"}),
        ] {
            let checked = check(with(base.clone(), more.clone()), OLD)?;
            assert_eq!(checked["authenticated"], true, "{more}: {checked}");
            assert_eq!(checked["tls"].is_null(), more["tls"] == "disable", "{checked}");
        }
    }
    for server in both_with(&["require-secure-transport = ON"])? {
        create(&server, "app", "")?;
        let clear = with(account(&server, "app"), json!({"tls": "disable"}));
        // MariaDB does not tell it from a wrong password; the hint does.
        let kind = match server.flavor() {
            Flavor::Mariadb => "authentication",
            Flavor::Mysql => "tls",
        };
        let fault = refused(&change(clear, OLD, NEW), kind, NOTHING_CHANGED)?;
        assert!(fault.to_string().contains("TLS"), "{fault}");
    }
    Ok(())
}

#[test]
fn a_clear_connection_rotates_too_where_the_record_says_so() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        let clear = with(account(&server, "app"), json!({"tls": "disable"}));
        rotated(&change(clear, OLD, NEW))?;
        assert!(server.accepts("app", NEW)?);
        assert_eq!(server.failed_logins(), 0);
    }
    Ok(())
}

#[test]
fn a_socket_serves_unless_the_system_may_vouch() -> Result<()> {
    for server in both()? {
        let plugin = match server.flavor() {
            Flavor::Mariadb => "IDENTIFIED VIA mysql_native_password USING PASSWORD('x') OR unix_socket",
            Flavor::Mysql => "IDENTIFIED WITH auth_socket",
        };
        if server.flavor() == Flavor::Mysql {
            server.sql("INSTALL PLUGIN auth_socket SONAME 'auth_socket.so';")?;
        }
        create(&server, "app", "")?;
        let socket = json!({"unix_socket": server.socket_path()});
        let by_socket = with(account(&server, "app"), socket.clone());
        rotated(&change(by_socket, OLD, NEW))?;
        assert!(server.accepts("app", NEW)?);
        // Whoever runs the tests: the system vouches for that name.
        let me = if process::User::is_root() { "root" } else { "mysql" };
        server.sql(&format!("CREATE USER {me}@'localhost' {plugin};"))?;
        let verdict = verify(with(account(&server, me), socket), "any password")?;
        assert_ne!(verdict["verdict"], "accepted", "{verdict}");
        assert_eq!(verdict["error"]["data"]["kind"], "unsupported", "{verdict}");
    }
    Ok(())
}

#[test]
fn a_server_without_grant_tables_accepts_nothing() -> Result<()> {
    let mut server = mariadb::start(MysqlOptions::default())?;
    create(&server, "app", "")?;
    let loose =
        mariadb::start(MysqlOptions { settings: vec!["skip-grant-tables".to_owned()], ..MysqlOptions::default() })?;
    for password in [OLD, "anything"] {
        let verdict = verify(account(&loose, "app"), password)?;
        assert_eq!(verdict["error"]["data"]["kind"], "unsupported", "{verdict}");
    }
    server.stop()?;
    let verdict = verify(account(&server, "app"), OLD)?;
    assert_eq!(verdict["error"]["data"]["kind"], "unreachable", "{verdict}");
    Ok(())
}

#[test]
fn a_replica_is_named_before_a_change_is_tried() -> Result<()> {
    for server in both()? {
        create(&server, "app", "")?;
        server.sql("SET GLOBAL read_only = 1;")?;
        let checked = check(account(&server, "app"), OLD)?;
        assert_eq!(checked["may_rotate"], "no", "{checked}");
        refused(&change(account(&server, "app"), OLD, NEW), "unsupported", NOTHING_CHANGED)?;
        assert!(server.accepts("app", OLD)?);
    }
    Ok(())
}

#[test]
fn a_connection_cut_anywhere_is_told_as_what_it_is() -> Result<()> {
    let mut seen = std::collections::BTreeMap::new();
    for server in both()? {
        let proxy = Proxy::start((std::net::Ipv4Addr::LOCALHOST, server.port()).into())?;
        for direction in [Direction::ToServer, Direction::ToClient] {
            for after in (0..760).step_by(19) {
                let login = format!("app{}{after}", direction == Direction::ToServer);
                create(&server, &login, "")?;
                proxy.set(Fault::Cut { direction, after })?;
                let through = json!({"port": proxy.port(), "tls": "disable"});
                let params = change(with(account(&server, &login), through), OLD, NEW);
                let (output, last) = run("rotate", &params)?;
                let (old, new) = (server.accepts(&login, OLD)?, server.accepts(&login, NEW)?);
                match output.status {
                    DONE | LIVE => assert!(new && !old, "{last}"),
                    NOTHING_CHANGED => assert!(old && !new, "{last}"),
                    UNKNOWN => assert!(old != new, "{last}"),
                    _ => panic!("{last}"),
                }
                *seen.entry(output.status).or_insert(0) += 1;
            }
        }
    }
    // Every way for it to end has been seen.
    for status in [DONE, NOTHING_CHANGED, UNKNOWN] {
        assert!(seen.contains_key(&status), "{seen:?}");
    }
    Ok(())
}
