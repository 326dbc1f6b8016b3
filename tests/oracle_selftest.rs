//! The stand-in for Oracle Database is asked by Oracle's own thin drivers, the
//! one for Python and the one for Rust: they log in, change passwords in every
//! way there is, read rows, and are told each refusal by its number.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use lab::{Authority, OracleOptions, OracleServer, Result, process, wait_until};
use oracledb::{Config, Connection, Error, ErrorKind};
use serde_json::{Value, json};

const OLD: &str = "Old-And-Tired-1";
const NEW: &str = "New-And-Fresh-2";

/// Names and passwords that break whoever quotes by hand.
const HOSTILE: [(&str, &str); 6] = [
    ("with blanks", "white space"),
    ("o'hara; DROP USER app --", "it's :1 /* no bind */ --"),
    ("Größe \u{1F4A3}", "spaß ﬁ\u{1F4A3}"),
    ("user[proxy]", "{x} %s $1 \\n \\"),
    ("a/b@c", "a/b@c"),
    ("mixed Case", " leading and trailing "),
];

fn start() -> Result<OracleServer> {
    let server = OracleServer::start(OracleOptions::default())?;
    server.create_user("APP", OLD)?;
    server.create_admin("BOSS", OLD)?;
    Ok(server)
}

/// What the driver for Python is told: the number of the error, or nothing.
fn code(server: &OracleServer, asked: Value) -> Result<Option<String>> {
    Ok(server.python(asked)?.get("code").and_then(Value::as_str).map(str::to_owned))
}

fn refused(server: &OracleServer, number: &str, asked: Value) -> Result<()> {
    assert_eq!(code(server, asked)?.as_deref(), Some(number));
    Ok(())
}

fn done(server: &OracleServer, asked: Value) -> Result<()> {
    let told = server.python(asked)?;
    assert!(told["code"].is_null(), "{told}");
    Ok(())
}

fn app(password: &str) -> Value {
    json!({"user": "app", "password": password})
}

/// The same with one thing to do.
fn app_with(password: &str, what: &str, value: &str) -> Value {
    json!({"user": "app", "password": password, what: value})
}

fn boss(statement: &str) -> Value {
    json!({"user": "boss", "password": OLD, "statement": statement})
}

#[test]
fn right_is_told_from_wrong() -> Result<()> {
    let begun = Instant::now();
    let server = start()?;
    assert!(server.accepts("APP", OLD)?);
    assert_eq!(server.failed_logins(), 0);
    assert!(!server.accepts("APP", NEW)?);
    assert!(!server.accepts("NOBODY", OLD)?);
    assert_eq!(server.failed_logins(), 2);
    for (user, password) in HOSTILE {
        server.create_user(user, password)?;
        assert!(server.accepts(user, password)?, "{user:?} was not let in");
        assert!(oracledb::connect(rust(&server, &format!("\"{user}\""), password)?).is_ok(), "{user:?} was not let in");
        assert!(!server.accepts(user, OLD)?);
    }
    // An unquoted name is folded, a quoted one is not, and what is no name fits nobody.
    done(&server, json!({"user": "aPP", "password": OLD}))?;
    refused(&server, "ORA-01017", json!({"user": "\"app\"", "password": OLD}))?;
    refused(&server, "ORA-01017", json!({"user": "with blanks", "password": "white space"}))?;
    assert!(begun.elapsed() < Duration::from_secs(60));
    Ok(())
}

#[test]
fn the_listener_knows_one_service_and_one_sid() -> Result<()> {
    let server = start()?;
    let connect = |data: &str| {
        let address = format!("(ADDRESS=(PROTOCOL=tcp)(HOST=127.0.0.1)(PORT={}))", server.port());
        let connect = format!("(DESCRIPTION={address}(CONNECT_DATA={data}))");
        json!({"user": "app", "password": OLD, "connect": connect})
    };
    done(&server, connect("(SERVICE_NAME=Lab.Test)"))?;
    done(&server, connect("(SID=lab)"))?;
    // More than fits into the first packet.
    done(&server, connect(&format!("(SERVICE_NAME=lab.test)(CONNECTION_ID_PREFIX={})", "x".repeat(250))))?;
    for (data, number) in [("(SERVICE_NAME=other)", "12514"), ("(SID=other)", "12505")] {
        let told = server.python(connect(data))?;
        assert!(told["text"].as_str().is_some_and(|text| text.contains(&format!("ORA-{number}"))), "{told}");
    }
    assert_eq!(server.failed_logins(), 0);
    Ok(())
}

#[test]
fn a_password_is_changed_in_three_ways_and_only_one_is_a_statement() -> Result<()> {
    let server = start()?;
    done(&server, app_with(OLD, "new", NEW))?;
    assert!(!server.accepts("APP", OLD)?);
    assert!(server.accepts("APP", NEW)?);
    done(&server, app_with(NEW, "call", OLD))?;
    assert!(!server.accepts("APP", NEW)?);
    assert!(server.accepts("APP", OLD)?);
    assert!(server.statements()?.is_empty(), "a password travelled in a statement");
    let statement = format!("ALTER USER app IDENTIFIED BY \"{NEW}\" REPLACE \"{OLD}\"");
    done(&server, app_with(OLD, "statement", &statement))?;
    assert!(!server.accepts("APP", OLD)?);
    assert!(server.accepts("APP", NEW)?);
    assert_eq!(server.statements()?, [json!({"user": "APP", "text": statement})]);
    let ways: Vec<Value> = server.changes()?.iter().map(|change| change["way"].clone()).collect();
    assert_eq!(ways, ["login", "call", "sql"]);
    assert!(!server.log().contains(OLD) && !server.log().contains(NEW));
    Ok(())
}

#[test]
fn hostile_names_and_passwords_survive_a_statement() -> Result<()> {
    let server = start()?;
    for (user, password) in HOSTILE {
        server.create_user(user, OLD)?;
        let statement = format!("ALTER USER \"{user}\" IDENTIFIED BY \"{password}\" REPLACE \"{OLD}\"");
        done(&server, json!({"user": format!("\"{user}\""), "password": OLD, "statement": statement}))?;
        assert!(server.accepts(user, password)? && !server.accepts(user, OLD)?);
        server.set(user, json!({"password": OLD}))?;
        let connection = oracledb::connect(rust(&server, &format!("\"{user}\""), OLD)?).expect("it is let in");
        connection.execute(&statement, &[]).expect("it is understood");
        assert!(server.accepts(user, password)? && !server.accepts(user, OLD)?);
    }
    Ok(())
}

#[test]
fn a_wrong_old_password_changes_nothing() -> Result<()> {
    let server = start()?;
    refused(&server, "ORA-01017", app_with("wrong", "new", NEW))?;
    refused(&server, "ORA-28008", json!({"user": "app", "password": OLD, "old": "wrong", "call": NEW}))?;
    let statement = format!("ALTER USER app IDENTIFIED BY \"{NEW}\" REPLACE \"wrong\"");
    refused(&server, "ORA-28008", app_with(OLD, "statement", &statement))?;
    assert_eq!(server.state("APP")?["history"], json!([OLD]));
    // The server does not compare when somebody else's password is changed.
    done(&server, boss(&statement))?;
    assert!(server.accepts("APP", NEW)?);
    Ok(())
}

#[test]
fn rights_are_asked() -> Result<()> {
    let server = start()?;
    server.create_user("lower", OLD)?;
    let alter = |name: &str| format!("ALTER USER {name} IDENTIFIED BY \"{NEW}\"");
    for name in ["boss", "\"lower\"", "nobody"] {
        refused(&server, "ORA-01031", app_with(OLD, "statement", &alter(name)))?;
    }
    refused(&server, "ORA-01031", app_with(OLD, "statement", "ALTER USER app ACCOUNT UNLOCK"))?;
    refused(&server, "ORA-01918", boss(&alter("nobody")))?;
    refused(&server, "ORA-01918", boss(&alter("lower")))?;
    done(&server, boss(&alter("\"lower\"")))?;
    assert!(server.accepts("lower", NEW)?);
    assert!(server.accepts("APP", OLD)?);
    server.set("APP", json!({"privileges": []}))?;
    refused(&server, "ORA-01045", app(OLD))?;
    server.drop_user("APP")?;
    refused(&server, "ORA-01017", app(OLD))
}

#[test]
fn failed_log_ins_lock_and_an_admin_unlocks() -> Result<()> {
    let server = start()?;
    for _ in 0..9 {
        assert!(!server.accepts("APP", "wrong")?);
    }
    assert!(server.accepts("APP", OLD)?);
    assert_eq!(server.state("APP")?["failures"], 0);
    server.set_profile(json!({"attempts": 2}))?;
    assert!(!server.accepts("APP", "wrong")?);
    assert!(!server.accepts("APP", "wrong")?);
    assert_eq!(server.state("APP")?["status"], "LOCKED(TIMED)");
    refused(&server, "ORA-28000", app(OLD))?;
    refused(&server, "ORA-28000", app_with(OLD, "new", NEW))?;
    done(&server, boss(&format!("ALTER USER app IDENTIFIED BY \"{NEW}\" ACCOUNT UNLOCK")))?;
    assert!(server.accepts("APP", NEW)?);
    done(&server, boss("ALTER USER app ACCOUNT LOCK"))?;
    assert_eq!(server.state("APP")?["status"], "LOCKED");
    assert!(server.accepts("APP", NEW).is_err(), "a locked user is neither right nor wrong");
    Ok(())
}

#[test]
fn an_expired_password_opens_only_with_a_new_one() -> Result<()> {
    let server = start()?;
    done(&server, boss("ALTER USER app PASSWORD EXPIRE"))?;
    refused(&server, "ORA-28001", app(OLD))?;
    refused(&server, "ORA-01017", app("wrong"))?;
    done(&server, app_with(OLD, "new", NEW))?;
    assert_eq!(server.state("APP")?["status"], "OPEN");
    server.set("APP", json!({"expired": "EXPIRED(GRACE)"}))?;
    let told = server.python(app(NEW))?;
    assert_eq!((&told["code"], &told["warning"]), (&Value::Null, &json!("ORA-28002")), "{told}");
    Ok(())
}

#[test]
fn the_profile_judges_new_passwords_in_every_way() -> Result<()> {
    let server = start()?;
    server.set_profile(json!({"verify": {"length": 12}, "remembered": 3}))?;
    let ways = |new: &str| {
        let statement = format!("ALTER USER app IDENTIFIED BY \"{new}\" REPLACE \"{OLD}\"");
        [app_with(OLD, "new", new), app_with(OLD, "call", new), app_with(OLD, "statement", &statement)]
    };
    for (new, number) in [("Short-1", "ORA-28003"), ("no-digits-and-no-capitals", "ORA-28003"), (OLD, "ORA-28007")] {
        for asked in ways(new) {
            let told = server.python(asked)?;
            assert_eq!(told["code"], number, "{told}");
            assert_eq!(told["text"].as_str().is_some_and(|text| text.contains("ORA-20001")), number == "ORA-28003");
        }
    }
    let [login, call, statement] = ways(&"Aa1-".repeat(8));
    refused(&server, "ORA-00988", login)?;
    refused(&server, "ORA-00988", call)?;
    refused(&server, "ORA-00972", statement)?;
    refused(&server, "ORA-28221", app_with(OLD, "statement", &format!("ALTER USER app IDENTIFIED BY \"{NEW}\"")))?;
    done(&server, boss(&format!("ALTER USER boss IDENTIFIED BY \"{OLD}x\"")))?;
    server.set_database(json!({"read_only": true}))?;
    for asked in ways(NEW) {
        refused(&server, "ORA-16000", asked)?;
    }
    server.set_database(json!({"read_only": false, "longest": 1024}))?;
    let long = "Aa1-".repeat(256);
    done(&server, app_with(OLD, "new", &long))?;
    assert!(server.accepts("APP", &long)?);
    Ok(())
}

#[test]
fn an_old_password_that_is_phased_out_opens_until_that_ends() -> Result<()> {
    let server = start()?;
    server.set_profile(json!({"rollover": true}))?;
    done(&server, app_with(OLD, "new", NEW))?;
    assert!(server.accepts("APP", OLD)? && server.accepts("APP", NEW)?);
    assert_eq!(server.state("APP")?["status"], "OPEN & IN ROLLOVER");
    done(&server, json!({"user": "app", "password": NEW, "old": OLD, "call": NEW}))?;
    done(&server, boss("ALTER USER app EXPIRE PASSWORD ROLLOVER PERIOD"))?;
    assert!(!server.accepts("APP", OLD)?);
    assert!(server.accepts("APP", NEW)?);
    Ok(())
}

#[test]
fn what_the_drivers_cannot_do_is_demanded() -> Result<()> {
    let server = start()?;
    server.set_database(json!({"old_verifiers": true}))?;
    refused(&server, "ORA-01017", app(OLD))?;
    server.set_database(json!({"old_verifiers": false, "encryption_required": true}))?;
    let told = server.python(app(OLD))?;
    assert!(told["text"].as_str().is_some_and(|text| text.contains("DPY-3001")), "{told}");
    server.set_database(json!({"encryption_required": false}))?;
    done(&server, app(OLD))
}

#[test]
fn statements_are_read_like_oracle_reads_them() -> Result<()> {
    let server = start()?;
    for (statement, number) in [
        ("ALTER USER app IDENTIFIED BY \"x\";", "ORA-00911"),
        ("ALTER USER app IDENTIFIED BY 'x'", "ORA-00988"),
        ("ALTER USER app IDENTIFIED BY 1x", "ORA-00988"),
        ("ALTER USER app IDENTIFIED BY \"\"", "ORA-01741"),
        ("ALTER USER app IDENTIFIED BY x QUOTA", "ORA-00922"),
        ("ALTER USER 'app' IDENTIFIED BY x", "ORA-00987"),
        ("ALTER USER app", "ORA-00922"),
        ("DROP USER app", "ORA-01031"),
        ("SELECT * FROM dba_users", "ORA-00936"),
        ("SELECT nothing FROM user_users", "ORA-00904"),
        ("SELECT profile FROM user_users", "ORA-00904"),
        ("SELECT username FROM dba_users", "ORA-00942"),
    ] {
        let told = server.python(app_with(OLD, "statement", statement))?;
        assert_eq!(told["code"], number, "{statement}: {told}");
    }
    assert!(server.accepts("APP", OLD)?);
    let statement = "/* hint */ alter -- comment\n user \"APP\" identified by MixedCase replace \"Old-And-Tired-1\"";
    done(&server, app_with(OLD, "statement", statement))?;
    assert!(server.accepts("APP", "MixedCase")? && !server.accepts("APP", "MIXEDCASE")?);
    Ok(())
}

#[test]
fn rows_are_read() -> Result<()> {
    let server = start()?;
    let rows = |statement: &str, binds: &[&str]| -> Result<Value> {
        let told = server.python(json!({"user": "boss", "password": OLD, "statement": statement, "binds": binds}))?;
        assert!(told["code"].is_null(), "{statement}: {told}");
        Ok(told["rows"].clone())
    };
    assert_eq!(rows("SELECT 1, USER, 'text' FROM dual", &[])?, json!([[1, "BOSS", "text"]]));
    let right = "SELECT privilege FROM session_privs WHERE privilege = 'ALTER USER'";
    assert_eq!(rows(right, &[])?, json!([["ALTER USER"]]));
    let of_app = "SELECT account_status, lock_date, expiry_date FROM dba_users WHERE username = :1";
    assert_eq!(rows(of_app, &["APP"])?, json!([["OPEN", null, "2099-01-31 00:00:00"]]));
    assert_eq!(rows(of_app, &["app"])?, json!([]));
    let everybody = json!([["APP", "DEFAULT"], ["BOSS", "DEFAULT"]]);
    assert_eq!(rows("SELECT username, profile FROM dba_users", &[])?, everybody);
    assert_eq!(rows("SELECT version_full FROM product_component_version", &[])?, json!([["19.12.0.0.0"]]));
    let limit = "SELECT limit FROM user_password_limits WHERE resource_name = 'FAILED_LOGIN_ATTEMPTS'";
    assert_eq!(rows(limit, &[])?, json!([["10"]]));
    Ok(())
}

#[test]
fn faults_strike_before_or_after_the_change() -> Result<()> {
    let mut server = start()?;
    let change = app_with(OLD, "new", NEW);
    server.plan_fault(json!({"at": "change", "moment": "before", "how": "cut"}))?;
    assert!(code(&server, change.clone())?.is_some_and(|code| code.starts_with("DPY-")));
    assert!(server.accepts("APP", OLD)?);
    server
        .plan_fault(json!({"at": "change", "how": "error", "code": 604, "text": "error occurred at recursive SQL"}))?;
    refused(&server, "ORA-00604", change.clone())?;
    assert!(server.accepts("APP", OLD)?);
    server.plan_fault(json!({"at": "change", "moment": "after", "how": "cut"}))?;
    assert!(code(&server, change)?.is_some_and(|code| code.starts_with("DPY-")));
    assert!(server.accepts("APP", NEW)?);
    server.plan_fault(json!({"at": "login", "how": "delay", "seconds": 1}))?;
    let begun = Instant::now();
    assert!(server.accepts("APP", NEW)?);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    server.plan_fault(json!({"at": "login", "moment": "after", "how": "hang"}))?;
    let config = rust(&server, "app", NEW)?;
    let asked = std::thread::spawn(|| oracledb::connect(config).is_ok());
    wait_until("it to hang", Duration::from_secs(10), || server.log().contains("after login: hang").then_some(()))?;
    assert!(!asked.is_finished());
    server.stop()?;
    assert!(!asked.join().expect("it does not panic"));
    server.restart()?;
    assert!(server.plan_fault(json!({"at": "logon", "how": "cut"})).is_err(), "a misspelt fault is none");
    assert!(server.set("APP", json!({"lokced": "LOCKED"})).is_err());
    Ok(())
}

#[test]
fn it_is_stopped_restarted_paused_and_gone() -> Result<()> {
    let mut server = start()?;
    done(&server, app_with(OLD, "new", NEW))?;
    let ports = (server.port(), server.secure_port());
    server.stop()?;
    assert!(server.accepts("APP", NEW).is_err(), "a stopped server gives no answer");
    server.restart()?;
    assert_eq!((server.port(), server.secure_port()), ports);
    assert!(server.accepts("APP", NEW)? && !server.accepts("APP", OLD)?);
    assert_eq!(server.changes()?.len(), 1);
    server.pause();
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).expect("the kernel accepts");
    connection.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a timeout");
    // A packet that nobody sends first would be answered by the connection's end.
    connection.write_all(b"\0\x0a\0\0\x06\0\0\0\0\0").expect("the kernel takes it");
    assert!(connection.read(&mut [0; 8]).is_err(), "a paused server answers");
    server.resume();
    assert_eq!(connection.read(&mut [0; 8]).ok(), Some(0));
    assert!(server.accepts("APP", NEW)?);
    let (place, port) = (server.ca_path(), server.port());
    drop(server);
    assert!(!place.exists());
    wait_until("it to be gone", Duration::from_secs(10), || {
        TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
    })
}

#[test]
fn tls_is_believed_with_the_labs_authority_only() -> Result<()> {
    let server = start()?;
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let stranger = directory.path().join("stranger.crt");
    Authority::new()?.write_to(&stranger)?;
    let connect = format!("tcps://localhost:{}/{}", server.secure_port(), OracleServer::SERVICE);
    let asked = |ca: Value| json!({"user": "app", "password": OLD, "connect": connect, "ca": ca});
    done(&server, asked(json!(server.ca_path())))?;
    for ca in [json!(stranger), Value::Null] {
        let told = server.python(asked(ca))?;
        assert!(told["text"].as_str().is_some_and(|text| text.contains("CERTIFICATE_VERIFY_FAILED")), "{told}");
    }
    // The driver for Rust takes an authority from a file of this name.
    let wallet = |name: &str, ca: &std::path::Path| -> Result<Config> {
        let place = directory.path().join(name);
        std::fs::create_dir(&place).expect("it is new");
        process::write_file(&place.join("ewallet.pem"), std::fs::read(ca).expect("it is there"))?;
        Ok(config("app", OLD, &connect)?.set_wallet_location(place.to_str().expect("it is ASCII")))
    };
    let mut connection = oracledb::connect(wallet("right", &server.ca_path())?).expect("it is believed");
    connection.ping().expect("it answers");
    connection.close().expect("it ends");
    for wrong in [wallet("wrong", &stranger)?, config("app", OLD, &connect)?] {
        let error = oracledb::connect(wrong).map(drop).expect_err("nobody vouches for it").to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
    let tls_at_the_other_port = connect.replace(&server.secure_port().to_string(), &server.port().to_string());
    for connect in [tls_at_the_other_port, format!("127.0.0.1:{}/{}", server.secure_port(), OracleServer::SERVICE)] {
        assert!(oracledb::connect(config("app", OLD, &connect)?).is_err(), "{connect}");
    }
    assert_eq!(server.failed_logins(), 0);
    Ok(())
}

fn config(user: &str, password: &str, connect: &str) -> Result<Config> {
    Config::default()
        .set_credentials(user, password)
        .set_connect_string(connect)
        .map_err(|error| lab::LabError::new(error.to_string()))
}

fn rust(server: &OracleServer, user: &str, password: &str) -> Result<Config> {
    config(user, password, &format!("{}:{}/{}", server.host(), server.port(), OracleServer::SERVICE))
}

/// The number of the server's error that this driver was told.
fn number<T>(done: std::result::Result<T, Error>) -> Option<usize> {
    match done.err()?.kind() {
        ErrorKind::DbError(error) => Some(error.code()),
        other => panic!("no error of the server: {other:?}"),
    }
}

fn text(connection: &Connection, statement: &str, binds: &[&dyn oracledb::ToDbValue]) -> Vec<String> {
    let rows = connection.query(statement, binds).expect("it is understood");
    rows.map(|row| row.and_then(|row| row.get(0)).expect("it is a text")).collect()
}

#[test]
fn the_driver_for_rust_does_the_same() -> Result<()> {
    let server = start()?;
    let connection = oracledb::connect(rust(&server, "app", OLD)?).expect("it is let in");
    connection.ping().expect("it answers");
    assert_eq!(connection.version().expect("it is told").to_string(), "19.12.0.0.0");
    assert_eq!(number(oracledb::connect(rust(&server, "app", "wrong")?)), Some(1017));
    let elsewhere = config("app", OLD, &format!("127.0.0.1:{}/other", server.port()))?;
    assert!(matches!(
        oracledb::connect(elsewhere).map(drop).expect_err("no such service").kind(),
        ErrorKind::InvalidServiceName(..)
    ));
    assert_eq!(number(oracledb::connect(rust(&server, "app", "wrong")?.set_new_password(NEW))), Some(1017));
    oracledb::connect(rust(&server, "app", OLD)?.set_new_password(NEW)).expect("it is let in with a new one");
    assert!(server.accepts("APP", NEW)? && !server.accepts("APP", OLD)?);
    assert_eq!(number(connection.change_password("wrong", OLD)), Some(28008));
    connection.change_password(NEW, OLD).expect("it is changed");
    assert!(server.accepts("APP", OLD)?);
    assert!(server.statements()?.is_empty(), "a password travelled in a statement");
    let statement = format!("ALTER USER app IDENTIFIED BY \"{NEW} :x\" REPLACE \"{OLD}\"");
    connection.execute(&statement, &[]).expect("it is understood");
    assert!(server.accepts("APP", &format!("{NEW} :x"))?);
    assert_eq!(number(connection.execute("ALTER USER boss IDENTIFIED BY x", &[])), Some(1031));
    for _ in 0..2 {
        let right = "SELECT privilege FROM session_privs WHERE privilege = 'CREATE SESSION'";
        assert_eq!(text(&connection, right, &[]), ["CREATE SESSION"]);
    }
    let boss = oracledb::connect(rust(&server, "boss", OLD)?).expect("it is let in");
    assert_eq!(text(&boss, "SELECT account_status FROM dba_users WHERE username = :1", &[&"APP"]), ["OPEN"]);
    server.set("APP", json!({"expired": "EXPIRED(GRACE)", "password": OLD}))?;
    let warned = oracledb::connect(rust(&server, "app", OLD)?).expect("it is let in");
    let warning = warned.last_warning().expect("it is told");
    assert!(warning.is_some_and(|warning| warning.starts_with("ORA-28002")));
    server.set("APP", json!({"expired": "EXPIRED"}))?;
    assert_eq!(number(oracledb::connect(rust(&server, "app", OLD)?)), Some(28001));
    oracledb::connect(rust(&server, "app", OLD)?.set_new_password(NEW)).expect("a new one opens");
    server.plan_fault(json!({"at": "change", "moment": "after", "how": "cut"}))?;
    assert!(connection.execute("ALTER USER app IDENTIFIED BY after_all", &[]).is_err());
    assert!(server.accepts("APP", "after_all")?);
    Ok(())
}

/// A stand-in behind another lab's forwarder: what is tried on it is how a real one is made ready.
#[test]
fn a_real_server_may_take_the_stand_ins_place() -> Result<()> {
    let real = start()?;
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("real.json");
    let about = json!({
        "host": real.host(), "port": real.port(), "tls_port": real.secure_port(), "service": OracleServer::SERVICE,
        "login": "boss", "password": OLD, "ca": real.ca_path(),
    });
    process::write_file(&file, about.to_string())?;
    let before = OracleServer::start(OracleOptions { real: Some(file), ..OracleOptions::default() })?;
    before.set_profile(json!({"attempts": 3}))?;
    assert_eq!(before.failed_logins(), 0);
    for (user, password) in HOSTILE {
        before.create_user(user, password)?;
        assert!(before.accepts(user, password)? && real.accepts(user, password)? && !before.accepts(user, NEW)?);
        before.set(user, json!({"password": NEW}))?;
        assert!(real.accepts(user, NEW)?);
    }
    assert_eq!(before.failed_logins(), HOSTILE.len(), "{}", before.log());
    assert!(before.log().contains("ALTER USER") && !before.log().contains(NEW), "{}", before.log());
    before.create_user("APP", OLD)?;
    for wrong in ["one", "two", "three"] {
        assert!(!before.accepts("APP", wrong)?);
    }
    assert!(before.accepts("APP", OLD).is_err(), "it is locked");
    before.set("APP", json!({"failures": 0, "locked": null}))?;
    assert!(before.accepts("APP", OLD)?);
    let secure = format!("tcps://localhost:{}/{}", before.secure_port(), OracleServer::SERVICE);
    assert_eq!(
        code(&before, json!({"user": "app", "password": OLD, "connect": secure, "ca": before.ca_path()}))?,
        None
    );
    before.create_admin("ROTATOR", OLD)?;
    let reset = format!("ALTER USER app IDENTIFIED BY \"{NEW}\"");
    assert_eq!(code(&before, json!({"user": "rotator", "password": OLD, "statement": reset}))?, None);
    let refused = before.set("APP", json!({"expired": "EXPIRED"})).expect_err("only a stand-in can be told this");
    assert!(refused.to_string().contains("cannot be told"), "{refused}");
    Ok(())
}
