//! The admin listener: health and readiness checks (`/healthz`, `/readyz`), metrics for Prometheus (`/metrics`), and the
//! configuration and an overview for operators (`/config`, `/`).
//!
//! 1. It has its own address, and is never part of a public listener.
//! 2. Requests without the token get only the health and readiness checks. On a TCP listener without a token, so do
//!    requests for a host other than this machine (`admin/access.rs`).
//! 3. It is read-only, and shows no session, cookie, claim or key.
//! 4. It runs on the control runtime. The number of its connections and their duration are limited, so that its clients
//!    cannot slow down requests.

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

/// Maximum number of connections served at a time. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Timeout for receiving a request head, and for the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum duration of a connection, which also ends connections whose clients do not read the response.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Maximum size of a request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Response to a request for another host if no token is configured.
const OTHER_HOST: &str = "without a token, the host of the URL must be 127.0.0.1, [::1] or localhost\n";

/// Pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The functions and counters through which the admin listener reads the gateway's state.
pub struct AdminSources {
    /// Returns the current gateway.
    pub gateway: Box<dyn Fn() -> Arc<Gateway> + Send + Sync>,
    /// Returns whether all workers are alive.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
    /// Returns whether the gateway is draining.
    pub is_draining: Box<dyn Fn() -> bool + Send + Sync>,
    /// Returns the outcomes of reloads.
    pub reloads: Box<dyn Fn() -> ReloadReport + Send + Sync>,
    /// Counters of WebSocket tunnels.
    pub tunnels: Arc<Tunnels>,
    /// Counters and histograms of requests.
    pub metrics: Arc<Metrics>,
    /// Returns the state and counters of client connections.
    pub connections: Box<dyn Fn() -> ConnectionReport + Send + Sync>,
    /// Number of workers.
    pub workers: usize,
}

/// State and counters of client connections.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// Number of open connections.
    pub open: usize,
    /// Maximum number of open connections.
    pub limit: usize,
    /// Counters of client connections and TLS handshakes, by outcome.
    pub outcomes: [(&'static str, u64); 6],
    /// Counters of HTTP/2 misuse.
    pub http2: Http2Report,
    /// Counters of certificate reloads, by outcome.
    pub certificates: [(&'static str, u64); 2],
    /// When the first of the listeners' certificates expires.
    pub not_after: Option<Timestamp>,
}

/// Counters of HTTP/2 misuse by clients.
#[derive(Clone, Copy, Debug)]
pub struct Http2Report {
    /// Streams that clients ended before the response was complete.
    pub resets: u64,
    /// Times that a connection was paused because its address had reset too many streams.
    pub pauses: u64,
    /// Connections closed because the client violated the protocol or exceeded a limit.
    pub ended: u64,
}

/// Outcomes of reloads.
#[derive(Clone, Copy, Debug)]
pub struct ReloadReport {
    /// Reloads that were applied.
    pub done: u64,
    /// Reloads that failed and changed nothing.
    pub failed: u64,
    /// When the current configuration was applied.
    pub last: Timestamp,
    /// Number of the current configuration; the first is 1.
    pub generation: u64,
}

/// The running admin listener, which stops when this is dropped.
#[derive(Debug)]
pub struct Admin {
    socket: Arc<AdminSocket>,
    _task: AbortOnDropHandle<()>,
}

/// State shared by all connections.
struct AdminState {
    sources: AdminSources,
    readiness: Readiness,
    access: AdminAccess,
    started: Now,
}

type AdminResponse = Response<Full<Bytes>>;

impl Admin {
    /// Starts the admin listener of `config`, on the socket `inherited` if there is one. Must be called within a runtime.
    ///
    /// # Errors
    /// Returns an error if the address cannot be bound.
    pub fn start(
        config: &AdminConfig,
        inherited: Option<OwnedFd>,
        sources: AdminSources,
    ) -> io::Result<Self> {
        let socket = Arc::new(AdminSocket::open(&config.address, inherited)?);
        let access = AdminAccess::from_config(config);
        let state = AdminState { sources, readiness: Readiness::default(), access, started: Clock.now() };
        let task = tokio::spawn(accept(Arc::clone(&socket), Arc::new(state)));
        Ok(Self { socket, _task: AbortOnDropHandle::new(task) })
    }

    /// Returns the address that the listener is bound to.
    pub fn address(&self) -> &str {
        self.socket.address()
    }

    /// Duplicates the socket, for the process that replaces this one.
    ///
    /// # Errors
    /// Returns an error if the limit on open files is reached.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.descriptor()
    }

    /// Stops the listener, and leaves its socket file to the process that has taken over.
    pub fn hand_over(self) {
        self.socket.hand_over();
    }

    /// Takes over the socket file, if it is one of `owned` by the process that this one has replaced.
    ///
    /// # Errors
    /// Returns an error if the file's metadata cannot be read.
    pub fn take_over(&self, owned: &[(u64, u64)]) -> io::Result<()> {
        self.socket.take_over(owned)
    }

    /// Returns the device and inode of the socket file, if this process removes it at the end.
    pub fn owned_file(&self) -> Option<(u64, u64)> {
        self.socket.owned_file()
    }
}

async fn accept(socket: Arc<AdminSocket>, state: Arc<AdminState>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropping the set, with the listener, ends every connection.
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed, so this does not fail.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        match socket.accept().await {
            Ok(AdminStream::Tcp(stream)) => {
                connections.spawn(serve(stream, state, permit));
            }
            Ok(AdminStream::Unix(stream)) => {
                connections.spawn(serve(stream, state, permit));
            }
            Err(error) => {
                tracing::debug!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<AdminState>,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, _) = request.into_parts();
            Ok::<_, Infallible>(state.handle(&parts.method, parts.uri.path(), &parts.headers).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // On timeout the connection is closed; clients reconnect.
    if let Ok(Err(error)) = tokio::time::timeout(MAX_AGE, connection).await {
        tracing::debug!(%error, "an admin connection ended");
    }
}

impl AdminState {
    async fn handle(&self, method: &Method, path: &str, headers: &HeaderMap) -> AdminResponse {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/healthz" => return self.health(),
            "/readyz" => return self.ready().await,
            _ => {}
        }
        match self.access.check(headers) {
            Ok(()) => {}
            Err(Denied::Token) => {
                let message = "the token of `[admin]` is required\n";
                let mut response = text(StatusCode::UNAUTHORIZED, PLAIN, message);
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return response;
            }
            Err(Denied::Host) => return text(StatusCode::MISDIRECTED_REQUEST, PLAIN, OTHER_HOST),
        }
        let gateway = (self.sources.gateway)();
        match path {
            "/" => text(StatusCode::OK, "text/html; charset=utf-8", page::page(&gateway)),
            "/metrics" => self.metrics(&gateway),
            "/config" => text(StatusCode::OK, JSON, gateway.source.as_json().to_string()),
            _ => {
                text(StatusCode::NOT_FOUND, PLAIN, "the paths are /healthz, /readyz, /metrics and /config\n")
            }
        }
    }

    fn health(&self) -> AdminResponse {
        let alive = (self.sources.is_alive)();
        let (status, word) = check_result(alive, "alive", "stuck");
        json(status, &json!({ "status": word, "checks": { "workers": word } }))
    }

    async fn ready(&self) -> AdminResponse {
        let is_draining = (self.sources.is_draining)();
        let report = self.readiness.report(&(self.sources.gateway)()).await;
        let (status, word) = check_result(report.is_ready() && !is_draining, "ready", "not ready");
        let serving = if is_draining { "draining" } else { "ok" };
        let checks = json!({ "serving": serving, "stores": report.stores, "upstreams": report.upstreams });
        json(status, &json!({ "status": word, "checks": checks }))
    }

    fn metrics(&self, gateway: &Gateway) -> AdminResponse {
        match exposition::exposition(&self.sources, gateway, self.started) {
            Ok(metrics) => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n")
            }
        }
    }
}

/// Returns the status code and the word for the result of a check.
fn check_result(passed: bool, yes: &'static str, no: &'static str) -> (StatusCode, &'static str) {
    if passed { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) }
}

fn json(status: StatusCode, value: &Value) -> AdminResponse {
    text(status, JSON, format!("{value:#}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl fmt::Debug for AdminSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminSources").field("workers", &self.workers).finish_non_exhaustive()
    }
}
