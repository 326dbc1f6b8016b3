//! Commander's plugins against the lab's servers, and Turnlock for the same
//! accounts. Its other plugins cannot run here: ssh fails on this Python, the
//! directory ones and windows need what only their vendors have.

use lab::{AccountOptions, MysqlOptions, Postgresql, PostgresqlOptions, mariadb};
use serde_json::{Value, json};

use crate::commander::ask_one;
use crate::world::{Fields, World};

const OLD: &str = "Old-Secret-1";
const NEW: &str = "New-Secret-2";

fn commander(plugin: &str, port: u16, login: &str, more: Value) -> bool {
    let mut kwargs = json!({"host": "127.0.0.1", "port": port, "login": login, "password": OLD});
    kwargs.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let answer = ask_one(json!({"ask": "run", "plugin": plugin, "kwargs": kwargs, "new_password": NEW}));
    assert!(answer.get("crashed").is_none(), "{answer}");
    answer["done"] == true
}

/// Turnlock for the same account; the password it has then.
fn turnlock(world: &World, login: &str, url: String, options: &[String], password: &str) -> String {
    let fields = Fields { login: login.to_owned(), url: Some(url), custom: options.to_vec() };
    world.add(login, &fields, password);
    world.ok(&["rotate", login]);
    world.ok(&["show", login, "--field", "password"]).stdout.trim_end().to_owned()
}

#[test]
fn postgresql() {
    let server = Postgresql::start(PostgresqlOptions::default()).unwrap();
    let world = World::new();
    let ca = format!("turnlock:ca={}", server.ca_path().display());
    let url = format!("postgres://127.0.0.1:{}/postgres", server.port());

    // Where it works, both leave the account with the new password alone.
    server.create_role("app", OLD).unwrap();
    assert!(commander("postgresql", server.port(), "app", json!({})));
    assert!(server.accepts("app", NEW).unwrap() && !server.accepts("app", OLD).unwrap());
    let password = turnlock(&world, "app", url.clone(), std::slice::from_ref(&ca), NEW);
    assert!(server.accepts("app", &password).unwrap() && !server.accepts("app", NEW).unwrap());

    // A role that may not connect to `postgres` is out of its reach.
    server.create_role("apart", OLD).unwrap();
    server.sql("CREATE DATABASE apart; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO admin;").unwrap();
    assert!(!commander("postgresql", server.port(), "apart", json!({})));
    assert!(server.sql("SELECT 1").is_ok());
    let elsewhere = format!("postgres://127.0.0.1:{}", server.port());
    let password = turnlock(&world, "apart", elsewhere, &[ca], OLD);
    assert_ne!(password, OLD);
}

#[test]
fn mariadb_server() {
    let server = mariadb::start(MysqlOptions::default()).unwrap();
    let world = World::new();
    let ca = format!("turnlock:ca={}", server.ca_path().display());
    let url = format!("mariadb://127.0.0.1:{}", server.port());

    // With the right to change others, it changes itself, too.
    server.create_account("mighty", "%", OLD, AccountOptions::default()).unwrap();
    server.sql("GRANT CREATE USER ON *.* TO mighty@'%'").unwrap();
    assert!(commander("mysql", server.port(), "mighty", json!({})));
    assert!(server.accepts("mighty", NEW).unwrap() && !server.accepts("mighty", OLD).unwrap());
    let password = turnlock(&world, "mighty", url.clone(), std::slice::from_ref(&ca), NEW);
    assert!(server.accepts("mighty", &password).unwrap() && !server.accepts("mighty", NEW).unwrap());

    // An ordinary account cannot, though it may; nor one whose host is not `%`.
    server.create_account("plain", "%", OLD, AccountOptions::default()).unwrap();
    assert!(!commander("mysql", server.port(), "plain", json!({})));
    assert!(server.accepts("plain", OLD).unwrap());
    let password = turnlock(&world, "plain", url, &[ca], OLD);
    assert!(server.accepts("plain", &password).unwrap() && !server.accepts("plain", OLD).unwrap());
}
