//! The SDK's HTTP: one client, believed by the kit's rules, that follows
//! nobody, keeps no connection and sends nothing twice by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_iam::config::http::{HttpRequest, HttpResponse};
use aws_sdk_iam::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, redirect, retry};
use turnlock_kit::tls::Mode;
use turnlock_kit::{Fault, Kind};

use crate::place::Place;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// More than any answer that is meant for us has.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// How AWS is reached.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    client: Client,
    /// By how many seconds AWS's clock is ahead of ours, as it last said.
    ahead: Arc<AtomicI64>,
    /// How far AWS is believed, for people.
    pub(crate) believed: &'static str,
    /// Where it is asked, for people.
    pub(crate) name: String,
}

impl Web {
    /// # Errors
    /// `tls` where the trusted authorities cannot be read, or nothing would
    /// protect secrets on their way.
    pub(crate) fn open(place: &Place) -> Result<Self, Fault> {
        let (host, effective) = place.believed()?;
        let mode = effective.mode().unwrap_or(Mode::VerifyFull);
        let client = Client::builder()
            .tls_backend_preconfigured(place.tls.client_config_by_address(mode)?)
            // What we say is for one service, not for whom that service names.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            // On a connection that was used before, a request may be sent twice.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_WITHIN)
            .referer(false)
            .build()
            .map_err(|error| Fault::new(Kind::Internal, "no HTTPS client could be made").caused_by(&error))?;
        Ok(Self { client, ahead: Arc::default(), believed: effective.believed(), name: format!("AWS ({host})") })
    }

    /// By how many seconds AWS's clock is ahead of ours.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let unsendable = |what: &'static str| ConnectorError::user(what.into());
        let body = request.body().bytes().ok_or_else(|| unsendable("a body that is no text"))?.to_vec();
        let method = Method::from_bytes(request.method().as_bytes()).map_err(|_| unsendable("an unknown method"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers().iter() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable("an impossible header"))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| unsendable("an impossible header"))?);
        }
        let request = self.client.request(method, request.uri()).headers(headers).body(body);
        let mut response = request.send().await.map_err(failed)?;
        let mut body = Vec::with_capacity(16 * 1024);
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err(ConnectorError::other("the answer has more than 1 MiB".into(), None));
            }
            body.extend_from_slice(&part);
        }
        let status = StatusCode::try_from(response.status().as_u16())
            .map_err(|_| ConnectorError::other("an impossible status".into(), None))?;
        // As a stream, because the SDK would write what it can see into its log: secrets of new keys.
        let mut answer = HttpResponse::new(status, SdkBody::from_body_1_x(Body::from(body)));
        for (name, value) in response.headers() {
            if let Ok(value) = value.to_str() {
                // A header that the SDK cannot take is none that it needs.
                let _ = answer.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
            }
        }
        self.hear_the_time(&answer);
        Ok(answer)
    }

    fn hear_the_time(&self, answer: &HttpResponse) {
        let date =
            answer.headers().get("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date {
            self.ahead.store(date.secs() - DateTime::from(SystemTime::now()).secs(), Ordering::Relaxed);
        }
    }
}

/// What the failure of a request proves, in the SDK's words.
fn failed(error: reqwest::Error) -> ConnectorError {
    // An address names the account, which the message does already.
    let error = error.without_url();
    if error.is_connect() {
        ConnectorError::io(error.into()).never_connected()
    } else if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}

impl HttpConnector for Web {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let web = self.clone();
        HttpConnectorFuture::new(async move { web.send(request).await })
    }
}

impl HttpClient for Web {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
