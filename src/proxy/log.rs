//! The record of a request. It updates the metrics when the response head is complete, and writes one line of the access
//! log when the response has been sent. If the client disconnects before the response head is complete
//! ([`PendingResponse`]), the metrics and the log record nginx's status 499.
//!
//! For a forwarded request whose session is fresh in the cache and is not changed, the record needs three readings of
//! the clock besides the start of the request: before forwarding, after it, and to write the line.

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

/// The status of a request whose client disconnected before the response began, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The record of a request that is being handled.
#[derive(Debug)]
pub(super) struct RequestRecord {
    id: HeaderValue,
    trace: Option<Trace>,
    started: Now,
    /// Whether a line of the access log will be written.
    is_logged: bool,
    /// The client's address, if the access log is on.
    client: Option<IpAddr>,
    request: Option<RequestFacts>,
    route: Option<Arc<Route>>,
    status: u16,
    verdict: RequestVerdict,
    /// The label of the verdict, or of the refusal.
    label: Option<&'static str>,
    /// The reason why the request has no session or no user.
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
    /// The reason why a tunnel was closed, or why the gateway ended a body.
    closed: Option<&'static str>,
    /// Details for the log only.
    pub(super) detail: Option<String>,
    /// The time spent waiting for the store.
    pub(super) store: Duration,
    /// When forwarding began, before a server was chosen and connected to.
    pub(super) sent_at: Option<Instant>,
    /// When the upstream's response head arrived, or forwarding failed.
    pub(super) responded_at: Option<Instant>,
    /// When the upstream's session commands were applied.
    commands_applied_at: Option<Instant>,
}

/// The fields of the request for the access log.
#[derive(Debug)]
struct RequestFacts {
    method: Method,
    host: String,
    target: PathAndQuery,
    protocol: Version,
}

/// A guard that exists while a client waits for its response. Dropping it without calling [`PendingResponse::complete`]
/// means that the client has disconnected.
#[derive(Debug)]
pub(super) struct PendingResponse<'r> {
    pub(super) record: &'r mut RequestRecord,
    gateway: &'r Gateway,
    worker: usize,
}

/// A record to be written to the access log when its response has been sent.
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
            sent_at: None,
            responded_at: None,
            commands_applied_at: None,
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

    /// Records a refusal. Logs server errors, unless the access log records them anyway.
    pub(super) fn record_refusal(&mut self, gateway: &Gateway, label: &'static str, status: StatusCode) {
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

    /// Records that the client at `address` sent an invalid request head.
    pub(super) fn record_rejection(&mut self, address: Option<IpAddr>) {
        self.client = address.filter(|_| self.is_logged);
    }

    /// Records that the upstream's session commands were applied, and the time that the store took.
    pub(super) fn record_session_write(&mut self) {
        let now = Clock.mono();
        self.store += now.saturating_duration_since(self.responded_at.unwrap_or(now));
        self.commands_applied_at = Some(now);
    }

    /// Updates the metrics, when the response head is complete.
    pub(super) fn record_response(&mut self, gateway: &Gateway, status: StatusCode) {
        self.status = status.as_u16();
        // The steps after the upstream's response take about a microsecond, so the clock is not read again.
        let completed_at = self.commands_applied_at.or(self.responded_at).unwrap_or_else(|| Clock.mono());
        let times = RequestTimes {
            total: completed_at.saturating_duration_since(self.started.mono),
            store: self.store,
            upstream: self.upstream_time(),
        };
        self.metrics(gateway).record_response(status, self.verdict, times);
    }

    /// Counts a request whose client has disconnected.
    fn record_disconnect(&mut self, gateway: &Gateway) {
        let now = Clock.mono();
        self.status = CLIENT_CLOSED_REQUEST;
        self.verdict = RequestVerdict::Gone;
        self.label = Some(self.verdict.label());
        self.responded_at = self.responded_at.or(self.sent_at.map(|_| now));
        self.metrics(gateway).record_disconnect(now.saturating_duration_since(self.started.mono));
    }

    fn metrics<'r>(&'r self, gateway: &'r Gateway) -> &'r RouteMetrics {
        self.route.as_deref().map_or(&gateway.unrouted, |route| &route.metrics)
    }

    fn upstream_time(&self) -> Option<Duration> {
        Some(self.responded_at?.saturating_duration_since(self.sent_at?))
    }

    /// Writes the line of the access log for worker number `worker`.
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
                    // The query is omitted, since it may contain secrets.
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

    /// Returns the entry to be written to `log` when the response has been sent.
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
                self.session = self.is_logged.then(|| active.session.headers().reference.clone());
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

    /// Defuses the guard, since the response has begun. The response's body records whether it reaches the client.
    pub(super) fn complete(self) {
        std::mem::forget(self);
    }
}

impl Drop for PendingResponse<'_> {
    fn drop(&mut self) {
        self.record.record_disconnect(self.gateway);
        if let Some(log) = &self.gateway.access_log {
            self.record.write(log, self.worker, 0, false);
        }
    }
}

impl LogEntry {
    /// Records the reason why a tunnel was closed, or why the gateway ended a body.
    pub(super) fn set_closed(&mut self, reason: &'static str) {
        self.record.closed = Some(reason);
    }

    /// Records the number of bytes that a tunnel's client has sent.
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
