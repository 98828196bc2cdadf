//! The record of a request: what the metrics count when it is answered, and one line of the access log when its response
//! has been sent. If the client disconnects before there is a response ([`PendingResponse`]), both say so with nginx's
//! status 499; nothing is sent.
//!
//! The record reads no clock that handling the request does not read anyway, except once at the end if there is a line
//! to write.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Version};

use super::model::{Gateway, Route, Visitor};
use super::observer::Observer;
use super::request::Sanitized;
use crate::session::{LookupSource, Resolution, UserState};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{RequestTimes, RequestVerdict, RouteMetrics};
use crate::telemetry::trace::Trace;
use crate::time::{Clock, Now};

/// The status of a request whose client disconnected before there was a response.
const GONE: u16 = 499;

/// The record of a request that is being handled.
#[derive(Debug)]
pub(super) struct RequestRecord {
    id: HeaderValue,
    trace: Option<Trace>,
    started: Now,
    /// Whether there will be a line of the access log.
    is_logged: bool,
    /// The client's address, if the line shows it.
    client: Option<IpAddr>,
    request: Option<RequestFacts>,
    route: Option<Arc<Route>>,
    status: u16,
    verdict: RequestVerdict,
    /// The verdict in one word, or the cause of a refusal.
    label: Option<&'static str>,
    /// Why the request is not let through with a session.
    reason: Option<&'static str>,
    /// The session's public reference.
    session: Option<HeaderValue>,
    cache: LookupSource,
    pub(super) reissue: bool,
    /// The outcome of the upstream's session commands.
    pub(super) change: Option<&'static str>,
    pub(super) upstream: Option<Arc<str>>,
    /// The bytes that the client sent through a tunnel.
    received: Option<u64>,
    /// Why a tunnel, or a body that the gateway ended, was closed.
    closed: Option<&'static str>,
    /// Details that the client is not sent.
    pub(super) detail: Option<String>,
    /// The time spent waiting for the store.
    pub(super) store: Duration,
    /// When the request was sent to the upstream.
    pub(super) sent: Option<Instant>,
    /// When the upstream's response head arrived, or its failure was known.
    pub(super) heard: Option<Instant>,
    /// When the upstream's session commands were applied.
    answered: Option<Instant>,
}

/// The request itself, for the access log.
#[derive(Debug)]
struct RequestFacts {
    method: Method,
    host: String,
    target: PathAndQuery,
    protocol: Version,
}

/// A client that waits for its response. If it is dropped before [`PendingResponse::complete`], the client has
/// disconnected.
#[derive(Debug)]
pub(super) struct PendingResponse<'r> {
    pub(super) record: &'r mut RequestRecord,
    gateway: &'r Gateway,
    worker: usize,
}

/// A record that is written to the access log when its response has been sent.
#[derive(Debug)]
pub(super) struct LogEntry {
    record: RequestRecord,
    log: Arc<AccessLog>,
    worker: usize,
}

impl RequestRecord {
    pub(super) fn new(id: HeaderValue, trace: Option<Trace>, started: Now, is_logged: bool) -> Self {
        Self {
            id,
            trace,
            started,
            is_logged,
            client: None,
            request: None,
            route: None,
            status: StatusCode::OK.as_u16(),
            verdict: RequestVerdict::Refused,
            label: None,
            reason: None,
            session: None,
            cache: LookupSource::NotLookedUp,
            reissue: false,
            change: None,
            upstream: None,
            received: None,
            closed: None,
            detail: None,
            store: Duration::ZERO,
            sent: None,
            heard: None,
            answered: None,
        }
    }

    /// Returns the request's trace context.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Returns the id of the request's trace, for logs.
    pub(super) fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().map(Trace::id)
    }

    /// Records that the request is refused. Server errors are logged, unless the access log has them already.
    pub(super) fn refused(&mut self, gateway: &Gateway, label: &'static str, status: StatusCode) {
        self.verdict = RequestVerdict::Refused;
        self.label = Some(label);
        gateway.metrics.count_refusal(label);
        if status.is_server_error()
            && gateway.access_log.is_none()
            && let Some(suppressed) = gateway.failures.pass(Clock.mono())
        {
            let id = self.id.to_str().unwrap_or_default();
            let (trace, detail) = (self.trace_id(), self.detail.as_deref());
            tracing::warn!(id, trace, cause = label, detail, suppressed, "a request failed");
        }
    }

    /// Records that the client at `address` sent no valid request head.
    pub(super) fn rejected(&mut self, address: Option<IpAddr>) {
        self.client = address.filter(|_| self.is_logged);
    }

    /// Records that the upstream's session commands were applied, which took the store some time.
    pub(super) fn session_written(&mut self) {
        let now = Clock.mono();
        self.store += now.saturating_duration_since(self.heard.unwrap_or(now));
        self.answered = Some(now);
    }

    /// Counts the request: its response head is complete.
    pub(super) fn answered(&mut self, gateway: &Gateway, status: StatusCode) {
        self.status = status.as_u16();
        // What follows the upstream's response takes a microsecond, which is not worth reading the clock.
        let answered = self.answered.or(self.heard).unwrap_or_else(|| Clock.mono());
        let times = RequestTimes {
            total: answered.saturating_duration_since(self.started.mono),
            store: self.store,
            upstream: self.upstream_time(),
        };
        self.metrics(gateway).record_response(status, self.verdict, times);
    }

    /// Counts a request whose client has disconnected.
    fn gone(&mut self, gateway: &Gateway) {
        let now = Clock.mono();
        self.status = GONE;
        self.verdict = RequestVerdict::Gone;
        self.label = Some(self.verdict.label());
        self.heard = self.heard.or(self.sent.map(|_| now));
        self.metrics(gateway).record_disconnect(now.saturating_duration_since(self.started.mono));
    }

    fn metrics<'r>(&'r self, gateway: &'r Gateway) -> &'r RouteMetrics {
        self.route.as_deref().map_or(&gateway.unrouted, |route| &route.metrics)
    }

    fn upstream_time(&self) -> Option<Duration> {
        Some(self.heard?.saturating_duration_since(self.sent?))
    }

    /// Writes the line of the access log, as one of `worker`.
    fn write(&self, log: &AccessLog, worker: usize, bytes: u64, complete: bool) {
        let took = Clock.mono().saturating_duration_since(self.started.mono);
        log.write(worker, self.started.wall.plus(took), |line| {
            line.text("id", self.id.as_bytes());
            if let Some(trace) = &self.trace {
                line.text("trace", trace.id().as_bytes()).text("span", trace.span().as_bytes());
            }
            if let Some(client) = self.client {
                line.plain("client", client);
            }
            if let Some(request) = &self.request {
                line.text("method", request.method.as_str().as_bytes())
                    .text("protocol", protocol(request.protocol))
                    .text("host", request.host.as_bytes())
                    // Without the query, which may hold secrets.
                    .text("path", request.target.path().as_bytes());
            }
            line.text_if("route", self.route.as_deref().map(|route| &route.name))
                .number("status", self.status.into())
                .text_if("verdict", self.label)
                .text_if("reason", self.reason)
                .text_if("session", self.session.as_ref())
                .text_if("cache", self.cache.label())
                .flag("reissue", self.reissue)
                .text_if("change", self.change)
                .text_if("upstream", self.upstream.as_deref())
                .number("bytes", bytes)
                .flag("complete", complete);
            if let Some(received) = self.received {
                line.number("received", received);
            }
            line.text_if("closed", self.closed).millis("ms", took).millis("store_ms", self.store);
            if let Some(took) = self.upstream_time() {
                line.millis("upstream_ms", took);
            }
            line.text_if("detail", self.detail.as_ref());
        });
    }

    /// Returns the entry of `log` that is written, as a line of `worker`, when the response has been sent.
    pub(super) fn into_entry(self, log: &Arc<AccessLog>, worker: usize) -> LogEntry {
        LogEntry { record: self, log: Arc::clone(log), worker }
    }
}

impl Observer for RequestRecord {
    fn sanitized(&mut self, request: &Sanitized) {
        if self.is_logged {
            self.client = request.origin().client;
            self.request = Some(RequestFacts {
                method: request.method().clone(),
                host: request.host().to_owned(),
                target: request.target().clone(),
                protocol: request.version(),
            });
        }
    }

    fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    fn resolved(&mut self, route: &Route, resolution: &Resolution, source: LookupSource, began: Now) {
        self.cache = source;
        match resolution {
            Resolution::Active(active) => {
                self.session = Some(active.session.headers().reference.clone());
                if route.access.needs_session() && active.session.user() == UserState::Guest {
                    self.reason = Some("guest");
                }
            }
            Resolution::Anonymous(why) => self.reason = Some(why.label()),
            Resolution::Unavailable => self.reason = Some("unavailable"),
            Resolution::Throttled(_) => self.reason = Some("misses"),
        }
        if matches!(source, LookupSource::Miss | LookupSource::Stale) {
            self.store = Clock.mono().saturating_duration_since(began.mono);
        }
    }

    fn admitted(&mut self, visitor: &Visitor) {
        self.verdict = visitor.verdict();
        self.label = Some(self.verdict.label());
    }
}

impl<'r> PendingResponse<'r> {
    pub(super) fn new(record: &'r mut RequestRecord, gateway: &'r Gateway, worker: usize) -> Self {
        Self { record, gateway, worker }
    }

    /// Records that there is a response. Whether it reaches the client is recorded by its body.
    pub(super) fn complete(self) {
        std::mem::forget(self);
    }
}

impl Drop for PendingResponse<'_> {
    fn drop(&mut self) {
        self.record.gone(self.gateway);
        if let Some(log) = &self.gateway.access_log {
            self.record.write(log, self.worker, 0, false);
        }
    }
}

impl LogEntry {
    /// Records why a tunnel, or a body that the gateway ended, was closed.
    pub(super) fn set_closed(&mut self, why: &'static str) {
        self.record.closed = Some(why);
    }

    /// Records how many bytes a tunnel's client has sent.
    pub(super) fn set_received(&mut self, bytes: u64) {
        self.record.received = Some(bytes);
    }

    /// Writes the line.
    pub(super) fn write(self, bytes: u64, complete: bool) {
        self.record.write(&self.log, self.worker, bytes, complete);
    }
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        _ => b"HTTP/1.1",
    }
}
