//! With the feature `rbac`, `check` tells what the application may do to
//! resources in Azure, and being told nothing is no failure.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation of a test program is its failure"
)]

use lab::{Entra, entra::TENANT, process};
use serde_json::{Value, json};

const APPLICATION: &str = "7d3e9a10-5c1b-4b6e-9a57-0c6a4f1d2b33";
const SECRET: &str = "an-Application's~Secret+1/2=";
const SUBSCRIPTION: &str = "33333333-4444-5555-6666-777777777777";

fn tenant() -> Entra {
    let entra = Entra::start(&["127.0.0.1"]).unwrap();
    entra.create_application(APPLICATION, SECRET).unwrap();
    entra.create_user("app@contoso.example", "Old-And-Tired-1").unwrap();
    entra
}

/// What `check` says of Azure.
fn found(entra: &Entra, subscription: Option<&str>) -> Value {
    let place = format!("https://127.0.0.1:{}", entra.port());
    let params = json!({
        "protocol": 1,
        "deadline_ms": 30_000,
        "account": {
            "login": "app@contoso.example", "azure_tenant_id": TENANT, "ca": entra.ca_path(),
            "login_endpoint": place, "graph_endpoint": place, "management_endpoint": place,
            "azure_subscription_id": subscription,
        },
        "current": {},
        "admin": {"login": APPLICATION, "credential": {"client_secret": SECRET}},
    });
    let mut check = process::clean_command(env!("CARGO_BIN_EXE_turnlock-azureadpwd"));
    let output = process::run(check.arg("check"), params.to_string().as_bytes()).unwrap();
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    assert!(!output.stdout.contains(SECRET) && !output.stdout.contains("eyJ"), "{}", output.stdout);
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let findings = told["findings"].as_array().unwrap();
    let of_azure = |finding: &&Value| ["Azure", "subscription"].iter().any(|word| finding.to_string().contains(word));
    findings.iter().find(of_azure).cloned().unwrap()
}

#[test]
fn roles_in_azure_are_a_warning() {
    let entra = tenant();
    let told = found(&entra, Some(SUBSCRIPTION));
    assert!(told["severity"] == "info" && told.to_string().contains("holds no roles"), "{told}");
    entra.set_application(APPLICATION, json!({"azure": ["Owner", "Storage Blob Data Reader"]})).unwrap();
    let told = found(&entra, Some(SUBSCRIPTION));
    assert_eq!(told["severity"], "warning", "{told}");
    for word in ["far more", "Owner", "Storage Blob Data Reader", SUBSCRIPTION] {
        assert!(told.to_string().contains(word), "{told}");
    }
}

#[test]
fn not_being_told_is_no_failure() {
    let entra = tenant();
    let told = found(&entra, None);
    assert!(told["severity"] == "info" && told.to_string().contains("azure_subscription_id"), "{told}");
    let elsewhere = tenant();
    for (subscription, fault) in [
        (SUBSCRIPTION, json!({"what": "status", "status": 403, "code": "AuthorizationFailed"})),
        (SUBSCRIPTION, json!({"what": "body", "body": "<html>"})),
        (SUBSCRIPTION, json!({"what": "huge", "bytes": 3_000_000})),
        (SUBSCRIPTION, json!({"what": "cut before"})),
        (SUBSCRIPTION, json!({"what": "redirect", "to": format!("https://127.0.0.1:{}", elsewhere.port())})),
        (
            SUBSCRIPTION,
            json!({"what": "body", "body": json!({
                "value": [], "nextLink": format!("https://127.0.0.1:{}/subscriptions/1", elsewhere.port()),
            }).to_string()}),
        ),
        ("../other", json!({"what": "cut before"})),
    ] {
        entra.fault("azure", fault.clone(), 1).unwrap();
        let told = found(&entra, Some(subscription));
        assert!(told["severity"] == "info" && told.to_string().contains("not known"), "{fault}: {told}");
        entra.heal().unwrap();
    }
    assert_eq!(elsewhere.log(), "ready\n", "somebody else was spoken to");
}
