//! Descriptions as realistic rotators give them, for the tests of this crate.

use serde_json::{Value, json};
use turnlock_protocol::{Describe, Hosts, Origin, Overlap, PasswordLimits, Traits, VerifyBy};

use super::Catalogue;

pub(crate) fn describe(plugin: &str, schema: Value) -> Describe {
    Describe {
        plugin: plugin.into(),
        version: "0.0.0".into(),
        summary: "a fixture".into(),
        schema,
        default_port: None,
        ports: Vec::new(),
        url_schemes: Vec::new(),
        environment: Vec::new(),
        traits: Traits::password(),
    }
}

fn account(kind: &str) -> Value {
    json!({ "type": kind, "x-turnlock": "account" })
}

fn secret(mark: &str) -> Value {
    json!({ "type": "string", "writeOnly": true, "x-turnlock": mark })
}

fn secret_as(mark: &str, field: &str) -> Value {
    json!({ "type": "string", "writeOnly": true, "x-turnlock": mark, "x-turnlock-field": field })
}

fn tls() -> Value {
    json!({ "type": ["string", "null"], "enum": ["verify-full", "verify-ca", "require", "disable"], "x-turnlock": "account" })
}

/// A database's description: host, port, login, password, tls, ca, and more.
fn database(plugin: &str, port: u16, required: &[&str], more: Value) -> Describe {
    let mut properties = json!({
        "host": account("string"), "port": account("integer"), "login": account("string"),
        "password": secret("write-back"), "tls": tls(), "ca": account("string"),
    });
    if let (Value::Object(properties), Value::Object(more)) = (&mut properties, more) {
        properties.extend(more);
    }
    let mut describe = describe(plugin, json!({ "type": "object", "properties": properties, "required": required }));
    describe.default_port = Some(port);
    describe
}

pub(crate) fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new();
    for describe in all() {
        catalogue.insert(describe).unwrap();
    }
    catalogue
}

fn all() -> Vec<Describe> {
    let three = ["host", "login", "password"];
    let mut postgresql = database(
        "postgresql",
        5432,
        &three,
        json!({ "db": account("string"), "unix_socket": account("string"), "valid_days": account("integer") }),
    );
    postgresql.url_schemes = vec!["postgres".into(), "postgresql".into()];
    let mysql = database(
        "mysql",
        3306,
        &three,
        json!({ "user_host": account("string"), "dual_password": account("boolean"), "all_hosts": account("boolean") }),
    );
    let mssql = database(
        "mssql",
        1433,
        &["login", "password"],
        json!({ "db": account("string"), "instance": account("string"), "contained": account("boolean") }),
    );
    let mut oracle = database(
        "oracle",
        1521,
        &["login", "password"],
        json!({ "db": account("string"), "sid": account("string"), "dsn": account("string") }),
    );
    oracle.traits.password = PasswordLimits { min_length: None, max_length: Some(30), forbidden: "\"\0".to_owned() };
    let mut adpasswd = database(
        "adpasswd",
        636,
        &three,
        json!({ "userdn": account("string"), "base_dn": account("string"),
            "tls_verify": { "type": "string", "x-turnlock": "account" } }),
    );
    adpasswd.traits.lockout_sensitive = true;
    adpasswd.traits.lockout_window_ms = 1_800_000;
    let ssh = database("ssh", 22, &three, json!({ "known_host": account("string"), "jump": account("string") }));

    let mut sshkey = describe(
        "sshkey",
        json!({
            "type": "object",
            "properties": {
                "hosts": { "type": "array", "items": { "type": "string" }, "x-turnlock": "account" },
                "port": account("integer"), "login": account("string"), "known_host": account("string"),
                "private_key": secret("write-back"), "public_key": secret("write-back"),
                "passphrase": secret("write-back"),
            },
            "required": ["login"],
        }),
    );
    sshkey.default_port = Some(22);
    sshkey.traits = Traits {
        origin: Origin::Rotator,
        overlap: Overlap::Both,
        needs_current: false,
        hosts: Hosts::Many,
        finish: true,
        ..Traits::password()
    };

    let mut awskey = describe(
        "awskey",
        json!({
            "type": "object",
            "properties": {
                "login": account("string"), "aws_profile": account("string"), "aws_assume_role": account("string"),
                "aws_sync_profile": account("string"), "endpoint": account("string"), "region": account("string"),
                "aws_key_id": secret_as("write-back", "access_key_id"),
                "aws_key_secret": secret_as("write-back", "secret_access_key"),
            },
            "required": ["login", "aws_key_id"],
        }),
    );
    awskey.traits = Traits {
        origin: Origin::Target,
        overlap: Overlap::Both,
        needs_current: false,
        admin_reset: false,
        finish: true,
        ..Traits::password()
    };

    let mut azureadpwd = describe(
        "azureadpwd",
        json!({
            "type": "object",
            "properties": {
                "login": account("string"), "azure_tenant_id": account("string"),
                "azure_cloud": { "type": "string", "enum": ["global", "usgov", "china"], "x-turnlock": "account" },
                "azure_client_id": secret_as("admin", "login"),
                "azure_secret": secret_as("admin", "client_secret"),
                "password": secret("write-back"),
            },
            "required": ["login", "azure_tenant_id"],
        }),
    );
    azureadpwd.traits = Traits { needs_current: false, verify: VerifyBy::None, ..Traits::password() };

    let mut noop = describe(
        "noop",
        json!({
            "type": "object",
            "properties": { "login": account("string"), "password": secret("write-back") },
            "required": [],
        }),
    );
    noop.traits = Traits { needs_current: false, admin_reset: false, verify: VerifyBy::None, ..Traits::password() };

    vec![postgresql, mysql, mssql, oracle, adpasswd, ssh, sshkey, awskey, azureadpwd, noop]
}
