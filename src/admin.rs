//! The admin listener: what an orchestrator asks (`/healthz`, `/readyz`), what Prometheus collects (`/metrics`), and what
//! an operator wants to see (`/config`, `/`).
//!
//! 1. It has an address of its own, and is never part of a public listener.
//! 2. Whoever does not bring the token, or without one asks for another machine, learns only whether the gateway is alive
//!    and ready (`admin/access.rs`).
//! 3. It only shows: nothing can be changed here, and no session, cookie, claim or key is shown.
//! 4. It runs beside the request path, on the control runtime, over few connections with short limits, so that whoever
//!    asks too much or too slowly gets in nobody's way.

mod access;
mod exposition;
mod page;
mod process;
mod readiness;
mod socket;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::config::AdminConfig;
use crate::proxy::{Gateway, Tunnels};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Now, Timestamp};
use access::{AdminAccess, Denied};
use readiness::Readiness;
use socket::{AdminSocket, AdminStream};

/// How many connections are served at a time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send a request's head, and stay idle between two.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may live, so that one that does not read its answer does not stay.
const LIFE: Duration = Duration::from_secs(600);
/// The bound of a request's head.
const MAX_BUFFER: usize = 16 * 1024;
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const FOREIGN: &str = "without a token, this is for who asks 127.0.0.1, [::1] or localhost, by that name\n";

/// How long to wait when the system has no descriptor left for a connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What the admin listener shows of the gateway that runs beside it.
pub struct Subject {
    /// The configuration in force, ready for use.
    pub gateway: Box<dyn Fn() -> Arc<Gateway> + Send + Sync>,
    /// Whether all workers are alive.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the gateway is about to end.
    pub is_draining: Box<dyn Fn() -> bool + Send + Sync>,
    /// What became of reloads.
    pub reloads: Box<dyn Fn() -> ReloadReport + Send + Sync>,
    /// WebSockets.
    pub tunnels: Arc<Tunnels>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Client connections, and what became of those who made them.
    pub connections: Box<dyn Fn() -> ConnectionReport + Send + Sync>,
    /// How many workers there are.
    pub workers: usize,
}

/// Client connections.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// How many are open.
    pub open: usize,
    /// How many there may be.
    pub bound: usize,
    /// What became of those who arrived, by outcome.
    pub outcomes: [(&'static str, u64); 6],
    /// What clients of HTTP/2 did that they should not.
    pub http2: Http2Report,
    /// Certificates that were read again, and those that could not be used.
    pub certificates: [(&'static str, u64); 2],
    /// When the first of the listeners' certificates expires.
    pub not_after: Option<Timestamp>,
}

/// What clients of HTTP/2 did that they should not.
#[derive(Clone, Copy, Debug)]
pub struct Http2Report {
    /// Streams that ended before their responses.
    pub resets: u64,
    /// How often reading a connection was put off for that.
    pub pauses: u64,
    /// Connections that were ended for that, or because the protocol was broken.
    pub ended: u64,
}

/// What became of reloads.
#[derive(Clone, Copy, Debug)]
pub struct ReloadReport {
    /// How many were carried out.
    pub done: u64,
    /// How many changed nothing because something was wrong.
    pub failed: u64,
    /// When the configuration in force came into force.
    pub last: Timestamp,
    /// Its number; the first is 1.
    pub generation: u64,
}

/// The running listener; it ends when this is dropped.
#[derive(Debug)]
pub struct Admin {
    socket: Arc<AdminSocket>,
    _task: AbortOnDropHandle<()>,
}

/// What all connections share.
struct Office {
    subject: Subject,
    readiness: Readiness,
    access: AdminAccess,
    began: Now,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    /// Starts listening as `config` says, on `passed` if the process before this one has passed its socket on. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// Returns an error if the address cannot be had.
    pub fn start(config: &AdminConfig, passed: Option<OwnedFd>, subject: Subject) -> io::Result<Self> {
        let socket = Arc::new(AdminSocket::open(&config.address, passed)?);
        let readiness = Readiness::default();
        let office = Office { subject, readiness, access: AdminAccess::of(config), began: Clock.now() };
        let task = tokio::spawn(accept(Arc::clone(&socket), Arc::new(office)));
        Ok(Self { socket, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.socket.address()
    }

    /// Its socket once more, to be passed to the process that takes over.
    ///
    /// # Errors
    /// Returns an error if there is no descriptor left for it.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.descriptor()
    }

    /// Ends it, and leaves its socket to the process that has taken over.
    pub fn leave(self) {
        self.socket.leave();
    }
}

async fn accept(socket: Arc<AdminSocket>, office: Arc<Office>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with the listener, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        // Never closed, so there is always a permit in the end.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let office = Arc::clone(&office);
        match socket.accept().await {
            Ok(AdminStream::Tcp(stream)) => {
                connections.spawn(serve(stream, office, place));
            }
            Ok(AdminStream::Unix(stream)) => {
                connections.spawn(serve(stream, office, place));
            }
            Err(error) => {
                tracing::debug!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    office: Arc<Office>,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let office = Arc::clone(&office);
        async move {
            let (parts, _) = request.into_parts();
            Ok::<_, Infallible>(office.answer(&parts.method, parts.uri.path(), &parts.headers).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever is cut off by the end of its connection's life asks again.
    if let Ok(Err(error)) = tokio::time::timeout(LIFE, connection).await {
        tracing::debug!(%error, "an admin connection ended");
    }
}

impl Office {
    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/healthz" => return self.health(),
            "/readyz" => return self.ready().await,
            _ => {}
        }
        match self.access.check(headers) {
            Ok(()) => {}
            Err(Denied::Token) => {
                let mut answer = text(StatusCode::UNAUTHORIZED, PLAIN, "this needs the token of `[admin]`\n");
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return answer;
            }
            Err(Denied::Host) => return text(StatusCode::MISDIRECTED_REQUEST, PLAIN, FOREIGN),
        }
        let gateway = (self.subject.gateway)();
        match path {
            "/" => text(StatusCode::OK, "text/html; charset=utf-8", page::page(&gateway)),
            "/metrics" => self.metrics(&gateway),
            "/config" => text(StatusCode::OK, JSON, gateway.source.as_json().to_string()),
            _ => text(StatusCode::NOT_FOUND, PLAIN, "there are /healthz, /readyz, /metrics and /config\n"),
        }
    }

    fn health(&self) -> Answer {
        let alive = (self.subject.is_alive)();
        let (status, word) = verdict(alive, "alive", "stuck");
        json(status, &json!({ "status": word, "checks": { "workers": word } }))
    }

    async fn ready(&self) -> Answer {
        let is_draining = (self.subject.is_draining)();
        let report = self.readiness.report(&(self.subject.gateway)()).await;
        let (status, word) = verdict(report.is_ready() && !is_draining, "ready", "not ready");
        let serving = if is_draining { "draining" } else { "ok" };
        let checks = json!({ "serving": serving, "stores": report.stores, "upstreams": report.upstreams });
        json(status, &json!({ "status": word, "checks": checks }))
    }

    fn metrics(&self, gateway: &Gateway) -> Answer {
        match exposition::exposition(&self.subject, gateway, self.began) {
            Ok(metrics) => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n")
            }
        }
    }
}

fn verdict(good: bool, yes: &'static str, no: &'static str) -> (StatusCode, &'static str) {
    if good { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    text(status, JSON, format!("{value:#}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("workers", &self.workers).finish_non_exhaustive()
    }
}
