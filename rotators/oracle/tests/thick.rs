//! With the feature `thick`, an account may ask for Oracle's own libraries.
//! They cannot be had where these tests run.

use lab::process;
use serde_json::{Value, json};

#[test]
fn without_instant_client_the_way_out_is_told() {
    let params = json!({
        "protocol": 1,
        "deadline_ms": 30_000,
        "account": {"login": "app", "host": "127.0.0.1", "port": 1, "db": "lab.test", "driver": "thick"},
        "credential": {"password": "Old-And-Tired-1"},
    });
    let mut verify = process::clean_command(env!("CARGO_BIN_EXE_turnlock-oracle"));
    let output = process::run(verify.arg("verify"), params.to_string().as_bytes()).unwrap();
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_ne!(output.status, 0, "{told}");
    // Where the libraries are there, nobody listens at that port.
    let unreachable = told["error"]["data"]["kind"] == "unreachable";
    assert!(unreachable || told.to_string().contains("Instant Client was not found"), "{told}");
}
