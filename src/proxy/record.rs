//! What there is to say of a request when it is over: one line of the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Version};

use super::inbound::Sanitized;
use crate::session::Source;
use crate::session::reference::Ref;
use crate::time::Clock;

/// A request's line in the making.
#[derive(Debug)]
pub(super) struct Record {
    id: HeaderValue,
    started: Instant,
    client: Option<IpAddr>,
    method: Method,
    /// What the client speaks.
    protocol: &'static str,
    host: String,
    /// Without the query, which may hold what is nobody's business.
    path: String,
    pub(super) route: String,
    pub(super) status: StatusCode,
    /// What the gateway made of it: `active`, `anonymous`, `public`, or the cause of a refusal.
    pub(super) verdict: &'static str,
    /// Why there is no session.
    pub(super) reason: &'static str,
    pub(super) session: Option<Ref>,
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
    pub(super) store_time: Duration,
    pub(super) upstream_time: Duration,
}

impl Record {
    pub(super) fn new(id: HeaderValue, started: Instant) -> Self {
        Self {
            id,
            started,
            client: None,
            method: Method::GET,
            protocol: "-",
            host: String::new(),
            path: String::new(),
            route: String::new(),
            status: StatusCode::OK,
            verdict: "-",
            reason: "-",
            session: None,
            cache: Source::Unasked,
            reissue: false,
            change: "-",
            upstream: None,
            received: None,
            closed: None,
            detail: None,
            store_time: Duration::ZERO,
            upstream_time: Duration::ZERO,
        }
    }

    /// Takes down what was asked, and by whom.
    pub(super) fn request(&mut self, request: &Sanitized) {
        self.client = Some(request.origin().client);
        self.method = request.method().clone();
        self.protocol = match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        };
        request.host().clone_into(&mut self.host);
        request.path().clone_into(&mut self.path);
    }

    /// Writes the line.
    pub(super) fn write(self, bytes: u64, complete: bool) {
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let round = |duration: Duration| (millis(duration) * 1000.0).round() / 1000.0;
        tracing::info!(
            target: "access",
            id = self.id.to_str().unwrap_or_default(),
            client = self.client.map(tracing::field::display),
            method = self.method.as_str(),
            protocol = self.protocol,
            host = self.host,
            path = self.path,
            route = self.route,
            status = self.status.as_u16(),
            verdict = self.verdict,
            reason = self.reason,
            session = self.session.map(tracing::field::display),
            cache = self.cache.label(),
            reissue = self.reissue,
            change = self.change,
            upstream = self.upstream.as_deref(),
            bytes,
            complete,
            received = self.received,
            closed = self.closed,
            ms = round(Clock.mono().saturating_duration_since(self.started)),
            store_ms = round(self.store_time),
            upstream_ms = round(self.upstream_time),
            detail = self.detail,
            "request"
        );
    }
}
