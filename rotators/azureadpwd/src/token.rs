//! The log-in of an application: its proof for a token (Microsoft: "OAuth 2.0
//! client credentials flow", "Microsoft Entra authentication and authorization
//! error codes").

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::{Zeroize, Zeroizing};

use crate::application::{Application, Proof};
use crate::assertion::Identity;
use crate::cloud::Endpoints;
use crate::web::{Answer, Question, Service, cleared, headers};

/// A token, and what it says of its bearer.
pub(crate) struct Token {
    secret: Secret,
    /// Nothing where the token cannot be read: it is not written for us.
    pub(crate) claims: Option<Claims>,
}

/// What a token says of its bearer (Microsoft: "Access token claims reference").
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Claims {
    /// Permissions of applications, by name.
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Roles in the directory, by id.
    #[serde(default)]
    pub(crate) wids: Vec<String>,
    /// The application's principal in its tenant.
    #[cfg_attr(not(feature = "rbac"), expect(dead_code, reason = "asked for by `rbac` only"))]
    #[serde(default)]
    pub(crate) oid: Option<String>,
}

impl Token {
    /// The header that shows it, which nobody prints.
    pub(crate) fn bearer(&self) -> Result<HeaderValue, Fault> {
        let mut text = Zeroizing::new(String::with_capacity(8 * 1024));
        text.push_str("Bearer ");
        #[expect(clippy::disallowed_methods, reason = "the service is shown the token it issued")]
        text.push_str(self.secret.expose());
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Fault::new(Kind::Unsupported, "Entra ID gave a token that holds what no header can")
                .hint("check login_endpoint, and what stands in between")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The token itself, for a library that wants it.
    #[cfg(feature = "rbac")]
    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Logs the application in.
pub(crate) async fn log_in(
    login: &Service,
    endpoints: &Endpoints,
    application: &Application<'_>,
    scope: &str,
    until: Instant,
) -> Result<Token, Fault> {
    let id = application.id;
    let mut form = Zeroizing::new(String::with_capacity(16 * 1024));
    let mut field = |name: &str, value: &str| {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        form.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    };
    field("grant_type", "client_credentials");
    field("client_id", id);
    field("scope", scope);
    #[expect(clippy::disallowed_methods, reason = "the application proves itself, over TLS")]
    match application.proof {
        Proof::Secret(secret) => field("client_secret", secret.expose()),
        Proof::Certificate(pem) => {
            field("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
            field("client_assertion", Identity::read(pem)?.assertion(id, &endpoints.audience)?.expose());
        }
    }
    let question = Question {
        method: Method::POST,
        url: endpoints.login.clone(),
        headers: headers("application/x-www-form-urlencoded"),
        body: cleared(Zeroizing::new(std::mem::take(&mut *form).into_bytes())),
    };
    let answer = login.ask(&question, until).await?;
    if !answer.status.is_success() {
        return Err(refusal(login, id, &answer));
    }
    let garbage = || {
        Fault::new(Kind::Unsupported, format!("{} answered the log-in, but not with a token", login.name))
            .hint("check azure_cloud and login_endpoint, and what stands in between")
    };
    let mut told: Told = serde_json::from_slice(answer.body()).map_err(|_| garbage())?;
    if !told.token_type.eq_ignore_ascii_case("bearer") || told.access_token.is_empty() {
        told.access_token.zeroize();
        return Err(garbage());
    }
    let claims = claims(&told.access_token);
    Ok(Token { secret: Secret::new(told.access_token), claims })
}

#[derive(Deserialize)]
struct Told {
    token_type: String,
    access_token: String,
}

/// The middle of a JWT. Who bears it need not believe it, only its reader.
fn claims(token: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// A log-in that was refused, told by the service's own numbers.
fn refusal(login: &Service, id: &str, answer: &Answer) -> Fault {
    let told = answer.json().unwrap_or_default();
    let words = told.get("error_description").and_then(Value::as_str).unwrap_or_default();
    let Some(name) = told.get("error").and_then(Value::as_str) else {
        return login.unexpected(answer);
    };
    let first = told.get("error_codes").and_then(Value::as_array).and_then(|codes| codes.first()?.as_u64());
    let (kind, message, hint) = match first {
        Some(7_000_215) => (
            Kind::Authentication,
            format!("Entra ID refused the secret of the application \"{id}\""),
            "correct azure_secret: it is the value of the client secret, not the secret's id",
        ),
        Some(7_000_222) => (
            Kind::Authentication,
            format!("the secret of the application \"{id}\" has expired"),
            "add a client secret to the application, and write its value into azure_secret",
        ),
        Some(700_016 | 7_000_112 | 7_000_229 | 500_011) => (
            Kind::NotFound,
            format!("the tenant does not know the application \"{id}\", or has it disabled"),
            "check azure_client_id, azure_tenant_id and azure_cloud, and that the tenant's admin has consented",
        ),
        Some(90_002 | 90_130) => (
            Kind::NotFound,
            "Entra ID does not know this tenant".to_owned(),
            "check azure_tenant_id and azure_cloud: each cloud has tenants of its own",
        ),
        Some(700_027 | 50_012 | 5_002_730) => (
            Kind::Authentication,
            format!("Entra ID refused the certificate of the application \"{id}\""),
            "upload the certificate to the application, and check that it has not expired",
        ),
        Some(700_024 | 700_021) => (
            Kind::Authentication,
            format!("Entra ID finds the assertion of the application \"{id}\" too old or too new"),
            "set this machine's clock",
        ),
        Some(53_003 | 53_000..=53_002 | 530_003) => (
            Kind::Permission,
            format!("a rule of conditional access keeps the application \"{id}\" out"),
            "let it in from this machine; the cause names the rule's answer",
        ),
        _ if answer.is_busy() => return login.unexpected(answer),
        _ if ["invalid_client", "unauthorized_client", "access_denied"].contains(&name) => {
            (Kind::Authentication, format!("Entra ID did not let the application \"{id}\" in"), "the cause says why")
        }
        _ => (Kind::Unsupported, format!("Entra ID gave the application \"{id}\" no token"), "the cause says why"),
    };
    said(Fault::new(kind, message).hint(hint), if words.is_empty() { name } else { words })
}

/// The same failure with a service's words as its cause.
pub(crate) fn said(mut fault: Fault, words: &str) -> Fault {
    fault.causes.extend(Some(one_line(words)).filter(|words| !words.is_empty()));
    fault
}

/// A service's words, short enough to be read, and none at all where they
/// repeat what we said to it: every token and every assertion begins like this.
fn one_line(text: &str) -> String {
    if text.contains("eyJ") {
        return String::new();
    }
    let clean: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(600).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_where_they_can_be() {
        let body = URL_SAFE_NO_PAD.encode(r#"{"roles": ["User.Read.All"], "wids": ["a"], "oid": "o", "exp": 1}"#);
        let claims = claims(&format!("h.{body}.s")).unwrap();
        assert_eq!(
            (claims.roles.as_slice(), claims.wids.as_slice()),
            (&["User.Read.All".to_owned()][..], &["a".to_owned()][..])
        );
        for opaque in ["", "opaque", "a.b.c", "a.e30", "..", "a.bm8.c"] {
            assert_eq!(super::claims(opaque).is_some(), opaque == "a.e30", "{opaque}");
        }
    }

    #[test]
    fn what_a_service_says_is_one_short_line() {
        assert_eq!(one_line("AADSTS1: no.\r\nTrace ID: 1\u{1b}[31m"), "AADSTS1: no. Trace ID: 1 [31m");
        assert!(one_line(&"x".repeat(10_000)).len() <= 600);
        assert_eq!(one_line("no such user, Bearer eyJhbGciOi.eyJhdWQi.x"), "");
    }
}
