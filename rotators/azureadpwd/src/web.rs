//! One service over HTTPS: believed by the kit's rules, never followed to
//! another place, never asked again behind our back.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url, redirect, retry};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use turnlock_kit::tls::{self, Effective, Tls};
use turnlock_kit::{Fault, Kind};
use zeroize::Zeroizing;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// More than any answer that is meant for us has.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// How often something that changes nothing is asked.
const TRIES: u32 = 4;

/// A service, and what it is called for people.
#[derive(Debug)]
pub(crate) struct Service {
    client: Client,
    pub(crate) name: String,
    /// How far it is believed, for people.
    pub(crate) believed: &'static str,
}

/// What is sent.
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What came back, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) location: Option<String>,
    body: Zeroizing<Vec<u8>>,
}

impl Service {
    /// # Errors
    /// `tls` where the trusted authorities cannot be read.
    pub(crate) fn open(tls: &Tls, endpoint: &Url, what: &str) -> Result<Self, Fault> {
        let host = endpoint.host_str().unwrap_or_default();
        let effective = tls.effective(host.trim_matches(['[', ']']));
        let Some(mode) = effective.mode().filter(|_| effective != Effective::Clear) else {
            return Err(Fault::new(Kind::Tls, format!("{what} is told secrets, which must not travel in clear"))
                .hint("leave out `tls = disable`"));
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls.client_config_by_address(mode)?)
            .https_only(true)
            // A bearer's token is for one service, not for whom that service names.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            // On a connection that was used before, a request may be sent twice.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_WITHIN)
            .referer(false)
            .user_agent(concat!("turnlock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Fault::new(Kind::Internal, "no HTTPS client could be made").caused_by(&error))?;
        let port = endpoint.port().map(|port| format!(":{port}")).unwrap_or_default();
        let believed =
            if effective == Effective::Opportunistic { "certificate not verified" } else { effective.believed() };
        Ok(Self { client, name: format!("{what} ({host}{port})"), believed })
    }

    /// Asks what may be asked twice: again where the service was too busy, and
    /// when it said so.
    pub(crate) async fn ask(&self, question: &Question, until: Instant) -> Result<Answer, Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.send(question).await.map_err(|error| self.unanswered(&error))?;
            let wait = answer.wait(tries);
            if !answer.is_busy() || tries == TRIES || Instant::now() + wait > until {
                return Ok(answer);
            }
            sleep(wait).await;
        }
    }

    /// Sends once, and reads the whole answer.
    pub(crate) async fn send(&self, question: &Question) -> Result<Answer, Unanswered> {
        let request = self
            .client
            .request(question.method.clone(), question.url.clone())
            .headers(question.headers.clone())
            .body(question.body.clone());
        let mut response = request.send().await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let retry_after = text(RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let mut answer = Answer {
            status: response.status(),
            retry_after,
            location: text(LOCATION),
            body: Zeroizing::new(Vec::with_capacity(16 * 1024)),
        };
        while let Some(part) = response.chunk().await? {
            if answer.body.len() + part.len() > LONGEST_ANSWER {
                return Err(Unanswered::TooLong(answer.status));
            }
            answer.body.extend_from_slice(&part);
        }
        Ok(answer)
    }

    /// A question that got no answer.
    pub(crate) fn unanswered(&self, error: &Unanswered) -> Fault {
        let name = &self.name;
        let error = match error {
            Unanswered::TooLong(status) => {
                return Fault::new(Kind::Unsupported, format!("{name} answered {status} and more than 1 MiB"))
                    .hint("check the endpoints, and what stands in between");
            }
            Unanswered::By(error) => error,
        };
        let fault = match error {
            error if tls::is_to_blame(error) => Fault::new(Kind::Tls, format!("no trusted TLS connection to {name}"))
                .hint("give the record the service's authority as `ca`, or its certificate's name as `server_name`"),
            error if error.is_connect() => Fault::new(Kind::Unreachable, format!("{name} could not be reached")),
            error if error.is_timeout() => Fault::new(Kind::Timeout, format!("{name} did not answer in time")),
            _ => Fault::new(Kind::Unreachable, format!("{name} did not end its answer")),
        };
        fault.caused_by(error)
    }

    /// An answer that nobody expects of this service.
    pub(crate) fn unexpected(&self, answer: &Answer) -> Fault {
        let (name, status) = (&self.name, answer.status);
        let hint = "check the endpoints, and what stands in between";
        if status.is_redirection() {
            let host = answer.location.as_deref().and_then(|place| Url::parse(place).ok());
            let host = host.as_ref().and_then(Url::host_str).unwrap_or("another place").to_owned();
            let message =
                format!("{name} sends us to {host}, which is not followed: what we would say there is secret");
            return Fault::new(Kind::Unsupported, message).hint(hint);
        }
        if answer.is_busy() {
            let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let kind = if busy { Kind::RateLimited } else { Kind::Unreachable };
            let mut fault = Fault::new(kind, format!("{name} answered {status}"));
            if let Some(after) = answer.retry_after {
                fault.retry_after_ms = u64::try_from(after.as_millis()).ok();
                fault = fault.hint(format!("try again in {} s", after.as_secs()));
            }
            return fault;
        }
        Fault::new(Kind::Unsupported, format!("{name} answered {status}, and nothing that it is known for")).hint(hint)
    }
}

impl Answer {
    /// Refused for now, by the service or by what stands before it.
    pub(crate) fn is_busy(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error()
    }

    /// How long to wait before the next try.
    pub(crate) fn wait(&self, tries: u32) -> Duration {
        self.retry_after.unwrap_or(Duration::from_secs(1 << tries.min(4)))
    }

    /// Its body as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Its body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It is longer than anything meant for us.
    TooLong(StatusCode),
    /// The connection failed.
    By(reqwest::Error),
}

impl From<reqwest::Error> for Unanswered {
    fn from(error: reqwest::Error) -> Self {
        // An address names the account, which the message does already.
        Self::By(error.without_url())
    }
}

impl Unanswered {
    /// Whether nothing can have been sent: there never was a connection.
    pub(crate) fn was_never_sent(&self) -> bool {
        matches!(self, Self::By(error) if error.is_connect())
    }
}

/// Headers of a question, with the kind of its body.
pub(crate) fn headers(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers
}

/// A body that is cleared when it was sent.
pub(crate) fn cleared(body: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(body)
}
