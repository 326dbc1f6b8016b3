//! The lab keeps its own promises: its servers start, tell right from wrong
//! passwords, take hostile names, and are gone afterwards.

#![expect(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

use std::{
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use lab::{
    AccountOptions, Authority, Direction, Fault, Flavor, MysqlOptions, MysqlServer, Postgresql, PostgresqlOptions,
    Proxy, Result, mariadb, mysql, wait_until,
};

const SOON: Duration = Duration::from_secs(5);

/// Names and passwords that break whoever quotes by hand.
const HOSTILE: [&str; 6] =
    ["o'hara", "a\"b", "back\\slash", "semi;drop table x--", "spaß $1 :'x' %s", "line\nbreak\t`tick`"];

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let done = work();
    println!("{what}: {:.3} s", begun.elapsed().as_secs_f64());
    done
}

fn gone(id: u32) -> bool {
    !Path::new(&format!("/proc/{id}")).exists()
}

#[test]
fn postgresql_tells_right_from_wrong() -> Result<()> {
    let server = timed("postgresql start", || Postgresql::start(PostgresqlOptions::default()))?;
    assert_eq!(server.sql("SELECT 1, 'two'; SHOW fsync;")?, "1|two\noff");
    server.create_role("app", "first")?;
    assert!(timed("postgresql accepts", || server.accepts("app", "first"))?);
    assert_eq!(server.failed_logins(), 0);
    assert!(!server.accepts("app", "second")?);
    assert!(!server.accepts("nobody", "first")?);
    assert_eq!(server.failed_logins(), 2);
    assert!(server.accepts(server.admin().login, server.admin().password)?);
    for hostile in HOSTILE {
        server.create_role(hostile, hostile)?;
        assert!(server.accepts(hostile, hostile)?, "{hostile:?} was not let in");
        assert!(!server.accepts(hostile, "other")?);
    }
    server.set_password("app", "third")?;
    assert!(server.accepts("app", "third")?);
    server.sql("ALTER ROLE app NOLOGIN;")?;
    assert!(server.accepts("app", "third").is_err(), "a role that may not log in is neither right nor wrong");
    Ok(())
}

#[test]
fn postgresql_log_shows_statements_but_not_the_labs_own_secrets() -> Result<()> {
    let server = Postgresql::start(PostgresqlOptions::default())?;
    server.create_role("app", "unseen-by-the-log")?;
    assert!(server.create_role("app", "unseen-even-in-an-error").is_err());
    server.sql("ALTER ROLE app PASSWORD 'seen-by-the-log';")?;
    let log = server.log();
    assert!(log.contains("seen-by-the-log"), "{log}");
    assert!(!log.contains("unseen-"), "{log}");
    assert!(!log.contains("FATAL") && !log.contains("PANIC") && !log.contains("WARNING"), "{log}");
    Ok(())
}

#[test]
fn postgresql_can_be_reconfigured_stopped_and_paused() -> Result<()> {
    let mut server = Postgresql::start(PostgresqlOptions::default())?;
    server.create_role("app", "right")?;
    server.add_hba("hostssl all app 127.0.0.1/32 trust")?;
    assert!(server.accepts("app", "wrong")?, "trust asks for no password");
    server.set_parameter("synchronous_standby_names", "nobody")?;
    assert_eq!(server.sql("SHOW synchronous_standby_names;")?, "nobody");
    server.reset_parameter("synchronous_standby_names")?;
    assert_eq!(server.sql("SHOW synchronous_standby_names;")?, "");
    server.stop()?;
    assert!(server.accepts("app", "right").is_err(), "a stopped server gives no answer");
    server.restart()?;
    assert!(server.accepts("app", "right")?);
    let id = server.process_id().expect("it runs");
    server.pause();
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it exists");
    assert!(state.contains(") T "), "{state}");
    server.resume();
    assert!(server.accepts("app", "right")?);
    server.pause();
    drop(server);
    assert!(gone(id), "a paused server is stopped all the same");
    Ok(())
}

#[test]
fn postgresql_refuses_plain_text_and_wrong_names() -> Result<()> {
    let options = PostgresqlOptions { names: vec!["elsewhere.test".to_owned()], ..PostgresqlOptions::default() };
    let server = Postgresql::start(options)?;
    let error = server.accepts("admin", server.admin().password).expect_err("the name is wrong");
    assert!(error.to_string().contains("does not match host name"), "{error}");
    Ok(())
}

#[test]
fn servers_die_with_their_owner() -> Result<()> {
    let server = Postgresql::start(PostgresqlOptions::default())?;
    let id = server.process_id().expect("it runs");
    let backends = lab::process::children(id);
    assert!(!backends.is_empty());
    let place = server.socket_directory().to_owned();
    timed("postgresql drop", || {
        drop(server);
        Ok(())
    })?;
    assert!(gone(id) && !place.exists());
    wait_until("the backends to go", SOON, || backends.iter().all(|id| gone(*id)).then_some(()))
}

/// Re-runs this test program as a child that starts a server, and kills the child in the worst way.
#[test]
fn servers_die_with_a_killed_harness() -> Result<()> {
    if let Some(report) = lab::process::environment("LAB_SELFTEST_REPORT") {
        let server = Postgresql::start(PostgresqlOptions::default())?;
        let told = format!("{} {} .", server.process_id().expect("it runs"), server.socket_directory().display());
        lab::process::write_file(Path::new(&report), told)?;
        return wait_until("the SIGKILL", Duration::from_secs(60), || None);
    }
    let place = tempfile::tempdir().expect("a directory");
    let report = place.path().join("report");
    let mut harness = lab::process::command(std::env::current_exe().expect("this program"))
        .args(["--exact", "servers_die_with_a_killed_harness"])
        .env("LAB_SELFTEST_REPORT", &report)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let told = wait_until("the child's server", Duration::from_secs(30), || {
        std::fs::read_to_string(&report).ok().filter(|told| told.ends_with('.'))
    });
    let place_of = |told: &str| {
        let mut words = told.split(' ');
        Some((words.next()?.parse::<u32>().ok()?, Path::new(words.next()?).to_owned()))
    };
    let server = told.as_deref().ok().and_then(place_of);
    let was_alive = server.as_ref().is_some_and(|(id, directory)| !gone(*id) && directory.exists());
    harness.kill().expect("it was alive");
    harness.wait().expect("it is dead");
    let (id, directory) = server.expect("the child told");
    assert!(was_alive);
    wait_until("the server to follow", SOON, || (gone(id) && !directory.exists()).then_some(()))
}

fn tells_right_from_wrong(mut server: MysqlServer) -> Result<()> {
    assert_eq!(server.sql("SELECT 1, 'two';")?, "1\ttwo");
    server.create_account("app", "127.0.0.1", "first", AccountOptions::default())?;
    assert!(timed("accepts", || server.accepts("app", "first"))?);
    assert_eq!(server.failed_logins(), 0, "{}", server.log());
    assert!(!server.accepts("app", "second")?);
    assert!(!server.accepts("nobody", "first")?);
    assert!(!server.accepts("root", "")?, "no account without a password is left");
    assert_eq!(server.failed_logins(), 3, "{}", server.log());
    assert!(server.accepts(server.admin().login, server.admin().password)?);
    for hostile in HOSTILE {
        server.create_account(hostile, "127.0.0.1", hostile, AccountOptions::default())?;
        assert!(server.accepts(hostile, hostile)?, "{hostile:?} was not let in");
        assert!(!server.accepts(hostile, "other")?);
    }
    let expired = AccountOptions { clauses: "PASSWORD EXPIRE", ..AccountOptions::default() };
    server.create_account("expired", "%", "right", expired)?;
    assert!(!server.accepts("expired", "wrong")?);
    assert!(server.accepts("expired", "right")?, "an expired password is still the right one");
    let locked = AccountOptions { clauses: "ACCOUNT LOCK", ..AccountOptions::default() };
    server.create_account("locked", "%", "right", locked)?;
    assert!(server.accepts("locked", "right").is_err(), "locked is neither right nor wrong");
    let secure = AccountOptions { clauses: "REQUIRE SSL", ..AccountOptions::default() };
    server.create_account("secure", "127.0.0.1", "right", secure)?;
    assert!(server.accepts("secure", "right")?);
    assert_eq!(server.sql("SELECT @@general_log;")?, "0");
    server.set_general_log(true)?;
    server.sql("SELECT 'seen by the general log';")?;
    server.set_general_log(false)?;
    assert!(server.general_log().contains("seen by the general log"));
    assert!(!server.log().contains("[ERROR]"), "{}", server.log());
    server.stop()?;
    assert!(server.accepts("app", "first").is_err(), "a stopped server gives no answer");
    timed("restart", || server.restart())?;
    assert!(server.accepts("app", "first")?);
    server.pause();
    server.resume();
    assert!(server.accepts("app", "first")?);
    let id = server.process_id();
    drop(server);
    assert!(id.is_some_and(gone));
    Ok(())
}

#[test]
fn mariadb_tells_right_from_wrong() -> Result<()> {
    let server = timed("mariadb start", || mariadb::start(MysqlOptions::default()))?;
    assert_eq!(server.flavor(), Flavor::Mariadb);
    println!("{}", server.sql("SELECT VERSION(), @@have_ssl, @@version_ssl_library;")?);
    let ed25519 = AccountOptions { plugin: Some("ed25519"), ..AccountOptions::default() };
    server.create_account("modern", "127.0.0.1", "right", ed25519)?;
    assert_eq!(server.sql("SELECT plugin FROM mysql.user WHERE user = 'modern';")?, "ed25519");
    assert!(server.accepts("modern", "right")?);
    assert!(!server.accepts("modern", "wrong")?);
    drop(server);
    tells_right_from_wrong(mariadb::start(MysqlOptions::default())?)
}

#[test]
fn mysql_tells_right_from_wrong() -> Result<()> {
    let server = timed("mysql start", || mysql::start(MysqlOptions::default()))?;
    assert_eq!(server.flavor(), Flavor::Mysql);
    println!("{}", server.sql("SELECT VERSION(), @@default_authentication_plugin;").unwrap_or_default());
    let plugin = AccountOptions { plugin: Some("caching_sha2_password"), clauses: "PASSWORD REQUIRE CURRENT" };
    server.create_account("modern", "127.0.0.1", "right", plugin)?;
    assert_eq!(server.sql("SELECT plugin FROM mysql.user WHERE user = 'modern';")?, "caching_sha2_password");
    tells_right_from_wrong(server)
}

#[test]
fn mysql_family_checks_names() -> Result<()> {
    let options = MysqlOptions { names: vec!["elsewhere.test".to_owned()], ..MysqlOptions::default() };
    let server = mariadb::start(options).expect("the lab's client is only asked later");
    let error = server.accepts("admin", server.admin().password).expect_err("the name is wrong");
    assert!(error.to_string().contains("SSL"), "{error}");
    Ok(())
}

#[test]
fn authorities_are_strangers_to_each_other() -> Result<()> {
    let (one, other) = (Authority::new()?, Authority::new()?);
    let place = tempfile::tempdir().expect("a directory");
    let certificate = place.path().join("server.crt");
    lab::process::write_file(&certificate, one.issue(&["localhost", "127.0.0.1"])?.certificate)?;
    for (authority, trusted) in [(&one, true), (&other, false)] {
        let root = authority.write_to(&place.path().join("ca.crt"))?;
        let mut openssl = lab::process::clean_command("openssl");
        openssl.args(["verify", "-purpose", "sslserver", "-verify_ip", "127.0.0.1"]).arg("-CAfile").arg(root);
        assert_eq!(lab::process::run(openssl.arg(&certificate), b"")?.succeeded(), trusted);
    }
    Ok(())
}

#[test]
fn proxy_fails_on_command() -> Result<()> {
    use std::io::{Read, Write};
    // An echo server is all that bytes need.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let proxy = Proxy::start(target)?;
    let open = || {
        let stream = TcpStream::connect((proxy.host(), proxy.port())).expect("the proxy listens");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        stream
    };
    let echo = |stream: &mut TcpStream, bytes: &[u8]| {
        drop(stream.write_all(bytes));
        let mut back = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (back, "closed"),
                Ok(length) => back.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return (back, "silent");
                }
                Err(_) => return (back, "reset"),
            }
        }
    };
    let mut stream = open();
    assert_eq!(echo(&mut stream, b"whole"), (b"whole".to_vec(), "silent"));
    assert_eq!(proxy.connections(), 1);
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(Fault::Cut { direction, after: 3 })?;
        let (back, end) = echo(&mut open(), b"whole");
        assert!(b"who".starts_with(&back) && end != "silent", "{direction:?}: {back:?} {end}");
        proxy.set(Fault::BlackHole { direction, after: 3 })?;
        let mut stream = open();
        let (back, end) = echo(&mut stream, b"whole");
        assert!(b"who".starts_with(&back) && end == "silent", "{direction:?}: {back:?} {end}");
        assert_eq!(echo(&mut stream, b"more"), (Vec::new(), "silent"));
    }
    assert_eq!(proxy.connections(), 5);
    proxy.set(Fault::Refuse)?;
    let refused = TcpStream::connect((proxy.host(), proxy.port())).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::None)?;
    assert_eq!(echo(&mut open(), b"again"), (b"again".to_vec(), "silent"));
    let each_way = Duration::from_millis(20);
    proxy.set(Fault::Latency { each_way })?;
    let asked = std::time::Instant::now();
    assert_eq!(echo(&mut open(), b"far away"), (b"far away".to_vec(), "silent"));
    assert!(asked.elapsed() >= each_way * 4, "a handshake and an echo are two ways there and back");
    Ok(())
}

/// A rotator of a few lines: greets, asks for the threshold, says yes, ends with status 7.
const TOY: &str = r#"#!/usr/bin/env python3
import json, os, sys
def say(**message): print(json.dumps(message), flush=True)
say(jsonrpc="2.0", method="hello", params={"plugin": "toy", "arguments": sys.argv[1:]})
request = json.loads(sys.stdin.readline())
say(jsonrpc="2.0", id="t1", method="threshold", params={"filler": "x" * 300000})
permit = json.loads(sys.stdin.readline())
open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "changed"), "a").write("x")
say(jsonrpc="2.0", id=request["id"], result={"secret": "hush"})
sys.exit(7)
"#;

/// An orchestrator in miniature, as a process of its own so that it can be killed.
const HOST: &str = r#"
import json, subprocess, sys
child = subprocess.Popen([sys.argv[1], "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def tell(**message):
    try: child.stdin.write(json.dumps(message).encode() + b"\n"); child.stdin.flush()
    except BrokenPipeError: pass
def hear(): return json.loads(child.stdout.readline() or "null")
print(json.dumps(hear()), flush=True)
tell(jsonrpc="2.0", id=1, method="apply", params={"password": "hush"})
ask = hear()
print("asked", len(ask["params"]["filler"]) if ask else None, flush=True)
tell(jsonrpc="2.0", id="t1", result={"proceed": True})
print(json.dumps(hear()), flush=True)
print("status", child.wait(), flush=True)
"#;

#[test]
fn interposer_passes_on_and_kills_where_told() -> Result<()> {
    use lab::interposer::{Interposer, Kill, MessageDirection, Victim, When};
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a directory");
    let toy = place.path().join("turnlock-toy");
    lab::process::write_file(&toy, TOY)?;
    std::fs::set_permissions(&toy, std::fs::Permissions::from_mode(0o755)).expect("it is mine");
    let plugins = place.path().join("plugins");
    std::fs::create_dir(&plugins).expect("it is new");
    let changed = || std::fs::read_to_string(place.path().join("changed")).unwrap_or_default().len();
    let host = || {
        let mut python = lab::process::clean_command("python3");
        python.args(["-c", HOST]).arg(plugins.join("turnlock-toy"));
        lab::process::run(&mut python, b"")
    };

    let interposer = Interposer::install(&plugins, &toy, None)?;
    let output = host()?;
    assert!(output.stdout.ends_with("status 7\n") && output.stdout.contains("asked 300000"), "{output:?}");
    assert!(output.stdout.contains("\"arguments\": [\"serve\"]"), "{output:?}");
    assert_eq!(changed(), 1);
    let seen: Vec<_> = interposer
        .log()?
        .into_iter()
        .map(|message| (message.direction, message.number, message.kind, message.method.unwrap_or_default()))
        .collect();
    let (to, from) = (MessageDirection::ToRotator, MessageDirection::FromRotator);
    let entry = |direction, number, kind: &str, method: &str| (direction, number, kind.to_owned(), method.to_owned());
    let expected = [
        entry(from, 1, "notification", "hello"),
        entry(to, 1, "request", "apply"),
        entry(from, 2, "request", "threshold"),
        entry(to, 2, "result", ""),
        entry(from, 3, "result", ""),
    ];
    assert_eq!(seen.len(), expected.len());
    assert!(expected.iter().all(|entry| seen.contains(entry)), "{seen:?}");
    let text = std::fs::read_to_string(plugins.join("interposer.log")).expect("it was written");
    assert!(!text.contains("hush"));

    let kill = |victim, direction, number, when| Some(Kill { victim, direction, number, when });
    // The permit never arrives, so nothing is changed; the host sees the end of the stream.
    interposer.configure(&toy, kill(Victim::Rotator, to, 2, When::Before))?;
    let output = host()?;
    assert!(output.stdout.contains("null\nstatus 137"), "{output:?}");
    assert!(interposer.has_killed());
    assert_eq!(changed(), 1);
    // The same again runs clean: the kill is claimed.
    assert!(host()?.stdout.ends_with("status 7\n"));
    assert_eq!(changed(), 2);
    // The host dies after it has given the permit; the rotator finishes.
    interposer.configure(&toy, kill(Victim::Orchestrator, to, 2, When::After))?;
    assert_eq!(host()?.status, 137);
    wait_until("the rotator to finish", SOON, || (changed() == 3).then_some(()))?;
    // The result was passed on before the rotator died.
    interposer.configure(&toy, kill(Victim::Rotator, from, 3, When::After))?;
    let output = host()?;
    assert!(output.stdout.contains("hush") && output.stdout.ends_with("status 137\n"), "{output:?}");
    // The result is the one thing the host never hears.
    interposer.configure(&toy, kill(Victim::Rotator, from, 3, When::Before))?;
    let output = host()?;
    assert!(!output.stdout.contains("hush") && output.stdout.ends_with("null\nstatus 137\n"), "{output:?}");
    assert_eq!(changed(), 5);
    Ok(())
}

#[test]
fn interposer_starts_at_once() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory");
    let real = lab::process::need_program("true")?;
    lab::interposer::Interposer::install(place.path(), &real, None)?;
    let time = |program: &Path| {
        let begun = Instant::now();
        for _ in 0..20 {
            let status = lab::process::command(program).stdin(std::process::Stdio::null()).status();
            assert!(status.expect("it starts").success());
        }
        begun.elapsed() / 20
    };
    println!("plain {:?}, interposed {:?}", time(&real), time(&place.path().join("true")));
    Ok(())
}
