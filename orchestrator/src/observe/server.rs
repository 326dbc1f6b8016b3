//! `/metrics` and `/health`, for those who watch a daemon.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::SignedDuration;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{History, Overview, metrics};
use crate::durable;
use crate::failure::Failure;
use crate::vault::{RecordState, Vault};

/// How many may ask at once.
const CALLERS: usize = 16;
/// How long one may take to ask, and to be answered.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How often a file is written.
const KEPT_EVERY: Duration = Duration::from_secs(15);
/// A daemon that has not moved for so long is dead.
const BEATS_WITHIN: Duration = Duration::from_secs(60);
/// Figures are taken anew when they are older than this, and than so many
/// times what it took to take them.
const FRESH: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// A vault that is watched.
pub(crate) struct Watch {
    vault: Arc<dyn Vault>,
    /// How late a record may be before that is a fault.
    overdue_limit: SignedDuration,
    beat: Mutex<Instant>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    history: History,
    figures: Option<Figures>,
}

struct Figures {
    text: String,
    taken: Instant,
    took: Duration,
}

impl Watch {
    /// A vault in which a daemon works.
    pub(crate) fn new(vault: Arc<dyn Vault>, overdue_limit: SignedDuration) -> Arc<Self> {
        Arc::new(Self { vault, overdue_limit, beat: Mutex::new(Instant::now()), seen: Mutex::default() })
    }

    /// The daemon lives.
    pub(crate) fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// All figures, some moments old at most.
    pub(crate) fn metrics(&self) -> Result<String, Failure> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(figures) = &seen.figures
            && figures.taken.elapsed() < FRESH.max(figures.took * SHARE)
        {
            return Ok(figures.text.clone());
        }
        let taken = Instant::now();
        seen.history.read_on(self.vault.as_ref())?;
        let text = metrics::text(&Overview::take(self.vault.as_ref())?, &seen.history)?;
        seen.figures = Some(Figures { text: text.clone(), taken, took: taken.elapsed() });
        Ok(text)
    }

    /// Whether all is well, and what is not.
    fn health(&self) -> (bool, serde_json::Value) {
        let beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let alive = beat < BEATS_WITHIN;
        let scheduler = json!({"ok": alive, "last_seen_seconds": beat.as_secs()});
        let overview = match Overview::take(self.vault.as_ref()) {
            Ok(overview) => overview,
            // Its words may name paths, which are nobody's business here.
            Err(_) => return (false, json!({"ok": false, "vault": {"ok": false}, "scheduler": scheduler})),
        };
        let in_time = overview.latest() <= self.overdue_limit;
        let overdue = json!({"ok": in_time, "records": overview.overdue().count(), "latest_seconds": overview.latest().as_secs()});
        let ok = alive && in_time;
        let parked = overview.count(RecordState::Parked);
        (ok, json!({"ok": ok, "vault": {"ok": true}, "scheduler": scheduler, "overdue": overdue, "parked": parked}))
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/metrics" => match self.metrics() {
                Ok(text) => said(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the vault cannot be read\n"),
            },
            "/health" => {
                let (ok, health) = self.health();
                let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                said(status, "application/json", format!("{health}\n"))
            }
            _ => plain(StatusCode::NOT_FOUND, "/metrics or /health\n"),
        }
    }
}

/// Keeps a file up to date, for node_exporter's textfile collector.
pub(crate) async fn keep(file: PathBuf, watch: Arc<Watch>, trouble: impl Fn(&Failure)) {
    loop {
        let written = tokio::task::block_in_place(|| {
            let text = watch.metrics()?;
            durable::write_for_all(&file, text.as_bytes())
                .map_err(|error| Failure::new(format!("{} cannot be written", file.display())).caused_by(&error))
        });
        if let Err(failure) = &written {
            trouble(failure);
        }
        tokio::time::sleep(KEPT_EVERY).await;
    }
}

/// Listens at an address.
///
/// # Errors
/// When it is taken or not ours.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("nobody can be answered at {address}"))
            .caused_by(&error)
            .hint("name a free port with --metrics-listen 127.0.0.1:PORT")
    })
}

/// Answers whoever asks, until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, watch: Arc<Watch>) {
    let places = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: the next moment is another one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let watch = Arc::clone(&watch);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request: Request<Incoming>| {
                let answer = tokio::task::block_in_place(|| watch.answer(&request));
                async move { Ok::<_, Infallible>(answer) }
            });
            let call = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WITHIN)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever hangs up or takes too long has no answer, and that is all.
            let _ = tokio::time::timeout(CALL_WITHIN, call).await;
        });
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    said(status, "text/plain; charset=utf-8", text.to_owned())
}

fn said(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
