//! What there is to say of a request: what the metrics count when it is answered, and one line of the access log when
//! its response has gone. If its client has gone before, both say so ([`Waiting`]), with the status that nginx has made
//! customary; nothing is sent.
//!
//! No clock is read for it that the request's way does not read anyway, but one at its end if there is a line to write.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Version};

use super::admit::Visitor;
use super::inbound::Sanitized;
use super::refusal::Refusal;
use super::{Gateway, Route};
use crate::session::Source;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{NONE, RouteMetrics, Times, Verdict};
use crate::telemetry::trace::Trace;
use crate::time::{Clock, Now};

/// The status of a request whose client has hung up before there was an answer.
const GONE: u16 = 499;

/// A request's record in the making.
#[derive(Debug)]
pub(super) struct Record {
    id: HeaderValue,
    trace: Option<Trace>,
    started: Now,
    asked: Option<Asked>,
    route: Option<Arc<Route>>,
    status: u16,
    verdict: Verdict,
    /// What the gateway made of it: the verdict's word, or the cause of a refusal.
    label: &'static str,
    /// Why there is no session.
    pub(super) reason: &'static str,
    /// The session's public name.
    pub(super) session: Option<HeaderValue>,
    pub(super) cache: Source,
    pub(super) reissue: bool,
    /// What the upstream's order came to.
    pub(super) change: &'static str,
    pub(super) upstream: Option<Arc<str>>,
    /// Of a tunnel: the bytes that the client sent.
    pub(super) received: Option<u64>,
    /// Of a tunnel, or a body that could have gone on: why it ended.
    pub(super) closed: Option<&'static str>,
    /// What the client is not told.
    pub(super) detail: Option<String>,
    /// Time spent waiting for the store.
    pub(super) store: Duration,
    /// When the request went to the upstream.
    pub(super) sent: Option<Instant>,
    /// When the upstream had answered, or failed to.
    pub(super) heard: Option<Instant>,
    /// When all was known that the response's head says.
    answered: Option<Instant>,
}

/// What was asked, and by whom; only the access log wants to know.
#[derive(Debug)]
struct Asked {
    client: Option<IpAddr>,
    method: Method,
    host: String,
    target: PathAndQuery,
    protocol: Version,
}

/// A client that waits for an answer. Dropped before there is one, it has hung up.
#[derive(Debug)]
pub(super) struct Waiting<'r> {
    pub(super) record: &'r mut Record,
    gateway: &'r Gateway,
    worker: usize,
}

/// A record on its way to the access log.
#[derive(Debug)]
pub(super) struct Entry {
    record: Record,
    log: Arc<AccessLog>,
    worker: usize,
}

impl Record {
    pub(super) fn new(id: HeaderValue, trace: Option<Trace>, started: Now) -> Self {
        Self {
            id,
            trace,
            started,
            asked: None,
            route: None,
            status: StatusCode::OK.as_u16(),
            verdict: Verdict::Refused,
            label: NONE,
            reason: NONE,
            session: None,
            cache: Source::Unasked,
            reissue: false,
            change: NONE,
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

    /// Takes down what was asked, and by whom.
    pub(super) fn asked(&mut self, request: &Sanitized) {
        self.asked = Some(Asked {
            client: request.origin().client,
            method: request.method().clone(),
            host: request.host().to_owned(),
            target: request.target().clone(),
            protocol: request.version(),
        });
    }

    pub(super) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    pub(super) fn admitted(&mut self, visitor: &Visitor) {
        self.verdict = visitor.verdict();
        self.label = self.verdict.label();
    }

    /// The request's trace.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// The id of the request's trace, for logs.
    pub(super) fn trace_id(&self) -> &str {
        self.trace.as_ref().map_or(NONE, Trace::id)
    }

    /// The gateway answers itself. What is the fault of neither the client nor the session is logged, if the access log
    /// does not say it already.
    pub(super) fn refused(&mut self, gateway: &Gateway, refusal: &Refusal) {
        self.verdict = Verdict::Refused;
        self.label = refusal.label();
        gateway.metrics.refused(self.label);
        if refusal.status().is_server_error()
            && gateway.access_log.is_none()
            && let Some(suppressed) = gateway.failures.pass(Clock.mono())
        {
            let id = self.id.to_str().unwrap_or_default();
            let (trace, detail) = (self.trace_id(), self.detail.as_deref());
            tracing::warn!(id, trace, cause = self.label, detail, suppressed, "a request failed");
        }
    }

    /// The store was asked once more, after the upstream had answered.
    pub(super) fn ordered(&mut self) {
        let now = Clock.mono();
        self.store += now.saturating_duration_since(self.heard.unwrap_or(now));
        self.answered = Some(now);
    }

    /// The response's head is made: what the metrics count is known.
    pub(super) fn answered(&mut self, gateway: &Gateway, status: StatusCode) {
        self.status = status.as_u16();
        // What is done after the upstream's answer takes a microsecond, which is not worth a look at the clock.
        let answered = self.answered.or(self.heard).unwrap_or_else(|| Clock.mono());
        let times = Times {
            total: answered.saturating_duration_since(self.started.mono),
            store: self.store,
            upstream: self.upstream_time(),
        };
        self.metrics(gateway).answered(status, self.verdict, times);
    }

    /// The client has hung up.
    fn gone(&mut self, gateway: &Gateway) {
        let now = Clock.mono();
        self.status = GONE;
        self.verdict = Verdict::Gone;
        self.label = self.verdict.label();
        self.heard = self.heard.or(self.sent.map(|_| now));
        self.metrics(gateway).gone(now.saturating_duration_since(self.started.mono));
    }

    fn metrics<'r>(&'r self, gateway: &'r Gateway) -> &'r RouteMetrics {
        self.route.as_deref().map_or(&gateway.unrouted, |route| &route.metrics)
    }

    fn upstream_time(&self) -> Option<Duration> {
        Some(self.heard?.saturating_duration_since(self.sent?))
    }

    /// Writes its line of the access log, as one of `worker`.
    fn write(&self, log: &AccessLog, worker: usize, bytes: u64, complete: bool) {
        let took = Clock.mono().saturating_duration_since(self.started.mono);
        log.write(worker, self.started.wall.plus(took), |line| {
            line.text("id", self.id.as_bytes());
            if let Some(trace) = &self.trace {
                line.text("trace", trace.id().as_bytes()).text("span", trace.span().as_bytes());
            }
            if let Some(asked) = &self.asked {
                match asked.client {
                    Some(client) => line.plain("client", client),
                    None => line.text("client", b"unknown"),
                };
                line.text("method", asked.method.as_str().as_bytes())
                    .text("protocol", protocol(asked.protocol))
                    .text("host", asked.host.as_bytes())
                    // Without the query, which may hold what is nobody's business.
                    .text("path", asked.target.path().as_bytes());
            }
            line.text("route", self.route.as_deref().map_or(NONE, |route| &route.name).as_bytes())
                .number("status", self.status.into())
                .text("verdict", self.label.as_bytes())
                .text("reason", self.reason.as_bytes());
            if let Some(session) = &self.session {
                line.text("session", session.as_bytes());
            }
            line.text("cache", self.cache.label().as_bytes())
                .flag("reissue", self.reissue)
                .text("change", self.change.as_bytes());
            if let Some(upstream) = &self.upstream {
                line.text("upstream", upstream.as_bytes());
            }
            line.number("bytes", bytes).flag("complete", complete);
            if let Some(received) = self.received {
                line.number("received", received);
            }
            if let Some(closed) = self.closed {
                line.text("closed", closed.as_bytes());
            }
            line.millis("ms", took)
                .millis("store_ms", self.store)
                .millis("upstream_ms", self.upstream_time().unwrap_or_default());
            if let Some(detail) = &self.detail {
                line.text("detail", detail.as_bytes());
            }
        });
    }

    /// On its way to `log`, as a line of `worker`.
    pub(super) fn into_entry(self, log: &Arc<AccessLog>, worker: usize) -> Entry {
        Entry { record: self, log: Arc::clone(log), worker }
    }
}

impl<'r> Waiting<'r> {
    /// The client of `record`, whose request `worker` answers as `gateway` says.
    pub(super) fn new(record: &'r mut Record, gateway: &'r Gateway, worker: usize) -> Self {
        Self { record, gateway, worker }
    }

    /// There is an answer; what becomes of it, its body sees.
    pub(super) fn over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.record.gone(self.gateway);
        if let Some(log) = &self.gateway.access_log {
            self.record.write(log, self.worker, 0, false);
        }
    }
}

impl Entry {
    /// Why a body, or a tunnel, that could have gone on has ended.
    pub(super) fn closed(&mut self, why: &'static str) {
        self.record.closed = Some(why);
    }

    /// How many bytes a tunnel's client has sent.
    pub(super) fn received(&mut self, bytes: u64) {
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
