//! Microsoft Graph: whom a login means, and the one change (Microsoft: "Update
//! user", "authenticationMethod: resetPassword", "Microsoft Graph error
//! responses and resource types", "Microsoft Graph throttling guidance").

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

use crate::cloud::below;
use crate::rights;
use crate::token::{Token, said};
use crate::web::{Answer, Question, Service, cleared, headers};
use crate::{Account, Reset};

/// The id that every password has among its user's methods of authentication.
const PASSWORD_METHOD: &str = "28c10230-6103-485e-b985-444c60001490";

/// What needs no escape in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// Graph, and who speaks there.
pub(crate) struct Graph<'a> {
    pub(crate) service: &'a Service,
    pub(crate) endpoint: &'a Url,
    pub(crate) token: &'a Token,
    pub(crate) account: &'a Account,
}

/// The user that a login means, as far as the application may know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    pub(crate) id: String,
    user_principal_name: String,
    pub(crate) account_enabled: Option<bool>,
    pub(crate) user_type: Option<String>,
    pub(crate) on_premises_sync_enabled: Option<bool>,
}

/// Why a change was not made, or may not have been.
pub(crate) struct Refusal {
    pub(crate) fault: Fault,
    /// Nothing changed for certain.
    pub(crate) is_definite: bool,
}

/// The answers that prove a single sending changed nothing: the service gives
/// them instead of processing a request (400 "cannot process", 401, 403, 404,
/// 429 "the requests fail"). A gateway's own page has no such code, and 5xx
/// may come after the change.
const DEFINITE_REFUSALS: &[(StatusCode, &[&str])] = &[
    (StatusCode::BAD_REQUEST, &["Request_BadRequest", "BadRequest", "invalidRequest"]),
    (StatusCode::UNAUTHORIZED, &["InvalidAuthenticationToken", "unauthenticated"]),
    (StatusCode::FORBIDDEN, &["Authorization_RequestDenied", "accessDenied"]),
    (StatusCode::NOT_FOUND, &["Request_ResourceNotFound", "ResourceNotFound", "itemNotFound"]),
];

impl Graph<'_> {
    /// Looks the user up; nothing where the application may not, which a
    /// change does not need.
    ///
    /// # Errors
    /// `not_found` where there is no such user, and where Graph finds another one.
    pub(crate) async fn user(&self, until: Instant) -> Result<Option<User>, Fault> {
        let select = "?$select=id,userPrincipalName,accountEnabled,userType,onPremisesSyncEnabled";
        let url = below(self.endpoint, &format!("v1.0/{}{select}", place_of(&self.account.login)?))?;
        let question = self.question(Method::GET, url, Zeroizing::default())?;
        let answer = self.service.ask(&question, until).await?;
        if answer.status == StatusCode::FORBIDDEN && code(&answer).is_some() {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(self.fault(&answer).0);
        }
        let user: User = serde_json::from_slice(answer.body()).map_err(|_| self.service.unexpected(&answer))?;
        let login = self.account.login.trim();
        let is_meant =
            [&user.id, &user.user_principal_name].into_iter().any(|name| name.to_lowercase() == login.to_lowercase());
        if is_meant && place_of(&user.id).is_ok() {
            return Ok(Some(user));
        }
        Err(Fault::new(Kind::NotFound, format!("asked for \"{login}\", Graph tells of somebody else"))
            .hint("write the user principal name or the object id into the record's login"))
    }

    /// Sends the one change. Tells how long the service made us wait before it.
    pub(crate) async fn change(&self, user: Option<&User>, next: &Secret, until: Instant) -> Result<Duration, Refusal> {
        let never_sent = |fault| Refusal { fault, is_definite: true };
        let question = self.question_of_change(user, next).map_err(never_sent)?;
        let mut waited = Duration::ZERO;
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let answer = self.service.send(&question).await.map_err(|error| Refusal {
                fault: self.service.unanswered(&error),
                is_definite: error.was_never_sent(),
            })?;
            let wait = answer.wait(tries);
            // 429 alone is documented as not processed: 5xx are not sent again.
            if answer.status != StatusCode::TOO_MANY_REQUESTS || tries > 3 || Instant::now() + wait > until {
                break answer;
            }
            sleep(wait).await;
            waited += wait;
        };
        match (answer.status, self.account.azure_reset) {
            (StatusCode::NO_CONTENT | StatusCode::OK, Reset::Profile) => Ok(waited),
            (StatusCode::ACCEPTED, Reset::AuthenticationMethods) => {
                self.done(&answer, until).await.map_err(|fault| Refusal { fault, is_definite: false })?;
                Ok(waited)
            }
            _ => {
                let (fault, is_definite) = self.fault(&answer);
                Err(Refusal { fault, is_definite })
            }
        }
    }

    fn question_of_change(&self, user: Option<&User>, next: &Secret) -> Result<Question, Fault> {
        let who = place_of(user.map_or(self.account.login.as_str(), |user| user.id.as_str()))?;
        // Never longer than this, so that no part of it is left where it grew.
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        let written = match self.account.azure_reset {
            Reset::Profile => serde_json::to_writer(&mut *body, &Profile::of(next)),
            Reset::AuthenticationMethods => serde_json::to_writer(&mut *body, &NewPassword { new_password: next }),
        };
        written.map_err(|_| Fault::new(Kind::Internal, "the change could not be written as JSON"))?;
        let (method, path) = match self.account.azure_reset {
            Reset::Profile => (Method::PATCH, format!("v1.0/{who}")),
            Reset::AuthenticationMethods => {
                (Method::POST, format!("v1.0/{who}/authentication/methods/{PASSWORD_METHOD}/resetPassword"))
            }
        };
        self.question(method, below(self.endpoint, &path)?, body)
    }

    fn question(&self, method: Method, url: Url, body: Zeroizing<Vec<u8>>) -> Result<Question, Fault> {
        let mut headers = if body.is_empty() { HeaderMap::new() } else { headers("application/json") };
        headers.insert(AUTHORIZATION, self.token.bearer()?);
        Ok(Question { method, url, headers, body: cleared(body) })
    }

    /// Waits for a reset that Graph only began, until it has ended well.
    async fn done(&self, answer: &Answer, until: Instant) -> Result<(), Fault> {
        let login = &self.account.login;
        let unsure = |what: &str| {
            Fault::new(Kind::Timeout, format!("the reset of \"{login}\" was begun, and {what}"))
                .hint("turnlock recover sends the same password again")
        };
        let place = answer.location.as_deref().and_then(|place| Url::parse(place).ok());
        let place = place.ok_or_else(|| unsure("Graph did not say where its end is told"))?;
        // Wherever it points, it is asked of the service that we believe.
        let path = place.path().trim_start_matches('/');
        let own = self.endpoint.path().trim_matches('/');
        let path = path.strip_prefix(own).unwrap_or(path).trim_start_matches('/');
        let query = place.query().map(|query| format!("?{query}")).unwrap_or_default();
        let url = below(self.endpoint, &format!("{path}{query}"))?;
        let question = self.question(Method::GET, url, Zeroizing::default())?;
        loop {
            let answer = self.service.ask(&question, until).await?;
            let told = answer.json().unwrap_or_default();
            match told.get("status").and_then(serde_json::Value::as_str) {
                Some("succeeded") => return Ok(()),
                Some("notStarted" | "running") => {}
                Some(other) => {
                    let detail = told.get("statusDetail").and_then(serde_json::Value::as_str).unwrap_or_default();
                    return Err(said(unsure(&format!("Graph says that it ended as \"{other}\"")), detail));
                }
                None => return Err(self.fault(&answer).0),
            }
            let wait = answer.retry_after.unwrap_or(Duration::from_millis(500));
            if Instant::now() + wait > until {
                return Err(unsure("it had not ended in time"));
            }
            sleep(wait).await;
        }
    }

    /// What Graph's refusal means, and whether it proves that nothing changed.
    fn fault(&self, answer: &Answer) -> (Fault, bool) {
        let (name, login) = (&self.service.name, &self.account.login);
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return (self.service.unexpected(answer), true);
        }
        let Some(code) = code(answer) else {
            return (self.service.unexpected(answer), false);
        };
        let told = answer.json().unwrap_or_default();
        let words = told.pointer("/error/message").and_then(serde_json::Value::as_str).unwrap_or_default();
        let is_definite =
            DEFINITE_REFUSALS.iter().any(|(status, codes)| *status == answer.status && codes.contains(&code.as_str()));
        let fault = match answer.status {
            _ if !is_definite => self.service.unexpected(answer),
            StatusCode::FORBIDDEN => Fault::new(
                Kind::Permission,
                format!("{name} does not let the application reset the password of \"{login}\""),
            )
            .hint(rights::missing(self.account.azure_reset)),
            StatusCode::NOT_FOUND => Fault::new(Kind::NotFound, format!("{name} knows no user \"{login}\""))
                .hint("write the user principal name or the object id into the record's login, guests' with #EXT#"),
            StatusCode::UNAUTHORIZED => {
                Fault::new(Kind::Authentication, format!("{name} does not take the token that Entra ID gave"))
                    .hint("check azure_cloud and graph_endpoint: each cloud has tokens of its own")
            }
            _ if words.to_ascii_lowercase().contains("password") => {
                Fault::new(Kind::Policy, format!("{name} takes no such password for \"{login}\""))
                    .hint("the cause names the rule; supply another password, or let one be made")
            }
            _ => Fault::new(Kind::InvalidInput, format!("{name} does not understand the reset of \"{login}\""))
                .hint("the cause says why"),
        };
        (said(said(fault, &code), words), is_definite)
    }
}

/// The code of an error that Graph gave.
fn code(answer: &Answer) -> Option<String> {
    answer.json()?.pointer("/error/code")?.as_str().map(str::to_owned)
}

/// Where a user is found, whatever is in the login: the `#` of a guest would
/// end the address, and a `$` at the beginning is a function's ("Get a user").
fn place_of(login: &str) -> Result<String, Fault> {
    let login = login.trim();
    if login.is_empty() || login == "." || login == ".." {
        return Err(Fault::new(Kind::InvalidInput, format!("{login:?} cannot be the login of a user"))
            .hint("write the user principal name or the object id into the record's login"));
    }
    if login.starts_with('$') {
        let quoted = login.replace('\'', "''");
        return Ok(format!("users('{}')", utf8_percent_encode(&quoted, SEGMENT)));
    }
    Ok(format!("users/{}", utf8_percent_encode(login, SEGMENT)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    password_profile: PasswordProfile<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PasswordProfile<'a> {
    force_change_password_next_sign_in: bool,
    password: &'a Secret,
}

impl<'a> Profile<'a> {
    fn of(password: &'a Secret) -> Self {
        Self { password_profile: PasswordProfile { force_change_password_next_sign_in: false, password } }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewPassword<'a> {
    new_password: &'a Secret,
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn address(login: &str) -> Url {
        below(&Url::parse("https://graph.microsoft.com/").unwrap(), &format!("v1.0/{}", place_of(login).unwrap()))
            .unwrap()
    }

    #[test]
    fn a_guest_is_addressed_whole() {
        let guest = "ann_partner.example#EXT#@contoso.onmicrosoft.com";
        let path = "/v1.0/users/ann_partner.example%23EXT%23@contoso.onmicrosoft.com";
        assert_eq!((address(guest).path(), address(guest).fragment()), (path, None));
        for nobody in ["", " ", ".", ".."] {
            assert_eq!(place_of(nobody).unwrap_err().kind, Kind::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn any_login_is_one_segment_and_comes_back_as_it_is(login in "[#/?%$.&'\\\\a ]{1,12}|\\PC{1,20}") {
            let trimmed = login.trim();
            prop_assume!(!trimmed.is_empty() && trimmed != "." && trimmed != "..");
            let url = address(&login);
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            let escaped = match trimmed.starts_with('$') {
                true => segments[1].strip_prefix("users('").and_then(|rest| rest.strip_suffix("')")).unwrap(),
                false => segments[2],
            };
            prop_assert_eq!(segments.len(), if trimmed.starts_with('$') { 2 } else { 3 });
            let login = percent_decode_str(escaped).decode_utf8().unwrap();
            prop_assert_eq!(login, if trimmed.starts_with('$') { trimmed.replace('\'', "''") } else { trimmed.to_owned() });
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
