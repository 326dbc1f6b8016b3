//! What the application may do to resources in Azure, told by Azure Resource
//! Manager. The library that Microsoft made for it is asked through our own
//! connection, which is believed like every other one and follows nobody.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::auth::{AccessToken, TokenCredential};
use azure_core::error::{Error, ErrorKind};
use azure_core::headers::Headers;
use azure_core::{Body, HttpClient, Request, Response, RetryOptions, StatusCode, TransportOptions};
use azure_mgmt_authorization::package_2022_04_01::Client;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use time::OffsetDateTime;
use tokio::time::Instant;
use turnlock_kit::{Admin, Fault, Finding, Kind, Severity};

use crate::application::Application;
use crate::web::{Question, Service};
use crate::{Account, Session, token};

/// More of them say nothing new.
const MOST: usize = 50;

/// The roles that the application holds in the record's subscription. Not
/// being told is no failure of a check.
pub(crate) async fn findings(
    account: &Account,
    admin: Option<&Admin>,
    session: &Session,
    until: Instant,
) -> Vec<Finding> {
    let Some(subscription) = account.azure_subscription_id.as_deref() else {
        let message = "azure_subscription_id names no subscription to look for roles in".to_owned();
        return vec![Finding { severity: Severity::Info, message }];
    };
    let (severity, message) = match roles(account, admin, session, subscription, until).await {
        Ok(roles) if roles.is_empty() => (Severity::Info, "the application holds no roles in Azure".to_owned()),
        // A reset needs none of them.
        Ok(roles) => (
            if roles.iter().all(|role| role.starts_with("Reader ")) { Severity::Info } else { Severity::Warning },
            format!("the application may do far more than reset passwords, in Azure: {}", roles.join(", ")),
        ),
        Err(fault) => {
            let causes: String = fault.causes.iter().map(|cause| format!(": {cause}")).collect();
            (Severity::Info, format!("the application's roles in Azure are not known: {}{causes}", fault.message))
        }
    };
    vec![Finding { severity, message }]
}

/// Each role by its name and where it is held.
async fn roles(
    account: &Account,
    admin: Option<&Admin>,
    session: &Session,
    subscription: &str,
    until: Instant,
) -> Result<Vec<String>, Fault> {
    let application = Application::of(admin)?;
    let endpoints = &session.endpoints;
    if !subscription.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(Fault::new(Kind::InvalidInput, "azure_subscription_id is no subscription's id"));
    }
    let token = token::log_in(&session.login, endpoints, &application, &endpoints.management_scope, until).await?;
    let principal = token.claims.as_ref().and_then(|claims| claims.oid.clone());
    let principal = principal.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
    let principal = principal.ok_or_else(|| Fault::new(Kind::Unsupported, "the token does not tell whose it is"))?;
    let service = Service::open(&account.tls, &endpoints.management, "Azure Resource Manager")?;
    let through = Through { service, endpoint: endpoints.management.clone() };
    let unread = |error: Error| Fault::new(Kind::Unsupported, "Azure Resource Manager did not tell").caused_by(&error);

    #[expect(clippy::disallowed_methods, reason = "the library shows the service the token it issued")]
    let bearer = Bearer(azure_core::auth::Secret::new(token.secret().expose().to_owned()));
    let client = Client::builder(Arc::new(bearer))
        .endpoint(endpoints.management.clone())
        .retry(RetryOptions::none())
        .transport(TransportOptions::new(Arc::new(through)))
        .build()
        .map_err(unread)?;
    let assignments = client.role_assignments_client().list_for_subscription(subscription);
    let mut pages = assignments.filter(format!("principalId eq '{principal}'")).into_stream();
    let mut roles = Vec::new();
    while let Some(page) = pages.next().await {
        for held in page.map_err(unread)?.value.into_iter().filter_map(|assignment| assignment.properties) {
            if roles.len() == MOST {
                return Ok(roles);
            }
            // Asked for by its whole id, the library asks for another address.
            let id = held.role_definition_id.rsplit('/').next().unwrap_or_default().to_owned();
            let asked = client.role_definitions_client().get(format!("subscriptions/{subscription}"), id.clone());
            let role = asked.await.ok().and_then(|role| role.properties?.role_name);
            let name = role.unwrap_or_else(|| format!("role {id}"));
            roles.push(format!("{name} (at {})", held.scope.unwrap_or_else(|| "an unknown place".to_owned())));
        }
    }
    Ok(roles)
}

/// A token that was issued already.
#[derive(Debug)]
struct Bearer(azure_core::auth::Secret);

#[async_trait]
impl TokenCredential for Bearer {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        // Used at once: nobody looks at when it ends.
        Ok(AccessToken::new(self.0.clone(), OffsetDateTime::UNIX_EPOCH))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

/// The library's requests through our own connection.
#[derive(Debug)]
struct Through {
    service: Service,
    endpoint: Url,
}

#[async_trait]
impl HttpClient for Through {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<Response> {
        let refused = |what: &'static str| Error::message(ErrorKind::Other, what);
        // The next page's address is the service's own word, and so may lead anywhere.
        if request.url().origin() != self.endpoint.origin() || *request.method() != azure_core::Method::Get {
            return Err(refused("the service sends us to another place, which is not followed"));
        }
        let Body::Bytes(body) = request.body() else {
            return Err(refused("the library sends what it should not"));
        };
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers().iter() {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| refused("the library made no header"))?;
            let mut value = HeaderValue::from_str(value.as_str()).map_err(|_| refused("the library made no header"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let question = Question { method: Method::GET, url: request.url().clone(), headers, body: body.clone() };
        let answer = self.service.send(&question).await.map_err(|error| {
            let fault = self.service.unanswered(&error);
            Error::message(ErrorKind::Io, format!("{}: {}", fault.message, fault.causes.join(": ")))
        })?;
        let status = StatusCode::try_from(answer.status.as_u16()).map_err(|_| refused("no status is this"))?;
        let body = Bytes::copy_from_slice(answer.body());
        Ok(Response::new(status, Headers::new(), Box::pin(stream::once(async { Ok(body) }))))
    }
}
