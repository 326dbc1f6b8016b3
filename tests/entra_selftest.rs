//! The lab's stand-in for Entra ID and Graph keeps its own promises: somebody
//! else's clients get in and get answers, and what the services refuse it
//! refuses, too.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation of a test program is its failure"
)]

use lab::{Entra, entra::ApplicationCertificate};
use serde_json::{Value, json};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const APPLICATION: &str = "7d3e9a10-5c1b-4b6e-9a57-0c6a4f1d2b33";
const SECRET: &str = "an-Application's~Secret+1/2=";
const OLD: &str = "Old-And-Tired-1";

fn tenant() -> Entra {
    let entra = Entra::start(&NAMES).unwrap();
    entra.create_application(APPLICATION, SECRET).unwrap();
    entra.create_user("app@contoso.example", OLD).unwrap();
    entra
}

/// Asks Graph as the application, through MSAL and requests.
fn graph(entra: &Entra, method: &str, path: &str, body: Value) -> (Value, Value) {
    let told = entra
        .through_msal(&json!({
            "application": APPLICATION, "secret": SECRET, "method": method, "path": path, "body": body,
        }))
        .unwrap();
    (told["status"].clone(), told["body"].clone())
}

fn profile(password: &str) -> Value {
    json!({"passwordProfile": {"forceChangePasswordNextSignIn": false, "password": password}})
}

#[test]
fn msal_gets_in_as_an_application_and_is_told_what_is_wrong() {
    let entra = tenant();
    let number = |question: Value| entra.through_msal(&question).unwrap()["number"].as_i64();
    assert_eq!(number(json!({"application": APPLICATION, "secret": SECRET})), None);
    assert_eq!(number(json!({"application": APPLICATION, "secret": "wrong"})), Some(7_000_215));
    assert_eq!(number(json!({"application": "nobody", "secret": SECRET})), Some(700_016));
    entra.set_application(APPLICATION, json!({"expired": true})).unwrap();
    assert_eq!(number(json!({"application": APPLICATION, "secret": SECRET})), Some(7_000_222));
    assert_eq!(entra.failed_logins(), 1);

    let (own, other) = (ApplicationCertificate::new().unwrap(), ApplicationCertificate::new().unwrap());
    entra.set_application(APPLICATION, json!({"certificate": own.certificate})).unwrap();
    let with = |certificate: &ApplicationCertificate, key: &ApplicationCertificate| json!({"application": APPLICATION, "key": key.key, "certificate": certificate.certificate});
    assert_eq!(number(with(&own, &own)), None);
    assert_eq!(number(with(&other, &other)), Some(700_027), "an unknown certificate");
    assert_eq!(number(with(&own, &other)), Some(700_027), "another key's signature");
}

#[test]
fn msal_gets_in_as_a_user_with_the_password_that_works() {
    let mut entra = tenant();
    let user = "App@contoso.example";
    assert!(entra.accepts(user, OLD).unwrap());
    assert!(!entra.accepts(user, "Another-One-2").unwrap());
    assert!(!entra.accepts("nobody@contoso.example", OLD).unwrap());
    assert_eq!(graph(&entra, "PATCH", "/v1.0/users/app@contoso.example", profile("Another-One-2")).0, 204);
    assert!(entra.accepts(user, "Another-One-2").unwrap() && !entra.accepts(user, OLD).unwrap());
    entra.set_user(user, json!({"enabled": false})).unwrap();
    assert!(entra.accepts(user, "Another-One-2").is_err(), "a disabled user gives no answer");
    entra.set_user(user, json!({"enabled": true})).unwrap();
    entra.stop().unwrap();
    assert!(entra.accepts(user, OLD).is_err(), "a stopped service gives no answer");
    entra.restart().unwrap();
    assert!(entra.accepts(user, OLD).unwrap(), "it is what it was told to be");
}

#[test]
fn graph_answers_somebody_elses_client_as_it_is_documented() {
    let entra = tenant();
    let user = "/v1.0/users/app@contoso.example";
    let (status, told) = graph(&entra, "GET", user, Value::Null);
    assert_eq!((status, &told["userPrincipalName"]), (json!(200), &json!("app@contoso.example")));
    let by_id = format!("/v1.0/users/{}", told["id"].as_str().unwrap());
    assert_eq!(graph(&entra, "PATCH", &by_id, profile("Another-One-2")).0, 204);

    for (path, body, status, code) in [
        ("/v1.0/users/nobody@contoso.example", profile("Another-One-3"), 404, "Request_ResourceNotFound"),
        (user, profile("short-1"), 400, "Request_BadRequest"),
        (user, profile("only-small-letters"), 400, "Request_BadRequest"),
        (user, profile("Größe-Und-Länge-1"), 400, "Request_BadRequest"),
        (user, profile("my-App-is-1-app"), 400, "Request_BadRequest"),
        (user, json!({"displayName": "x"}), 400, "Request_BadRequest"),
        (user, json!([]), 400, "BadRequest"),
    ] {
        let (got, told) = graph(&entra, "PATCH", path, body);
        assert_eq!((&got, &told["error"]["code"]), (&json!(status), &json!(code)), "{path}: {told}");
    }
    assert_eq!(entra.user("app@contoso.example", "changes").unwrap(), 1);

    for (rights, status) in [
        (json!({"permissions": []}), 403),
        (json!({"permissions": ["User.Read.All"]}), 403),
        (json!({"permissions": ["User-PasswordProfile.ReadWrite.All"], "roles": []}), 403),
        (json!({"permissions": ["User-PasswordProfile.ReadWrite.All"], "roles": ["User Administrator"]}), 204),
    ] {
        entra.set_application(APPLICATION, rights.clone()).unwrap();
        assert_eq!(graph(&entra, "PATCH", user, profile("Another-One-4")).0, status, "{rights}");
    }
    entra.set_user("app@contoso.example", json!({"administrator": true})).unwrap();
    assert_eq!(graph(&entra, "PATCH", user, profile("Another-One-5")).0, 403);
    let privileged = json!({"roles": ["Privileged Authentication Administrator"]});
    entra.set_application(APPLICATION, privileged).unwrap();
    assert_eq!(graph(&entra, "PATCH", user, profile("Another-One-5")).0, 204);

    // A token that is too old, or another cloud's.
    entra.set(json!({"lifetime": 0})).unwrap();
    let (status, told) = graph(&entra, "PATCH", user, profile("Another-One-6"));
    assert_eq!((status, &told["error"]["code"]), (json!(401), &json!("InvalidAuthenticationToken")));
    entra.set(json!({"cloud": "usgov"})).unwrap();
    let foreign = entra.through_msal(&json!({"application": APPLICATION, "secret": SECRET})).unwrap();
    assert_eq!(foreign["number"], 500_011, "{foreign}");
}

#[test]
fn faults_come_as_often_as_they_were_ordered() {
    let entra = tenant();
    let user = "/v1.0/users/app@contoso.example";
    entra.fault("change", json!({"what": "status", "status": 429, "retry_after": 1}), 1).unwrap();
    assert_eq!(graph(&entra, "PATCH", user, profile("Another-One-2")).0, 429);
    assert_eq!(entra.user("app@contoso.example", "changes").unwrap(), 0);
    assert_eq!(graph(&entra, "PATCH", user, profile("Another-One-2")).0, 204);
    for (what, changes) in [("cut before", 1), ("cut after", 2)] {
        entra.fault("change", json!({"what": what}), 1).unwrap();
        let told = entra
            .through_msal(&json!({
                "application": APPLICATION, "secret": SECRET, "method": "PATCH", "path": user, "body": profile("Another-One-3"),
            }))
            .unwrap();
        assert_eq!(told["number"], -1, "{what}: {told}");
        assert_eq!(entra.user("app@contoso.example", "changes").unwrap(), changes, "{what}");
    }
    entra.fault("token", json!({"what": "status", "status": 503}), 5).unwrap();
    entra.heal().unwrap();
    assert_eq!(graph(&entra, "GET", user, Value::Null).0, 200);
    assert!(!entra.log().contains(OLD) && !entra.log().contains(SECRET));
}
