//! The objects that requests use: the gateway as configured, its routes, and the visitor and exchange of a request.

use std::net::IpAddr;
use std::sync::Arc;

use crate::claims::Requirement;
use crate::config::{
    Access, ConfigSource, Destination, HeaderEdits, HeaderRule, Limits, LoginTemplate, StreamsConfig,
    Timeouts, Traces,
};
use crate::headers::Scrub;
use crate::rate::Limiter;
use crate::route::Router;
use crate::session::{Active, MappingSlot, Realm, UserState};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, RequestVerdict, RouteMetrics};
use crate::telemetry::throttle::Throttle;
use crate::upstream::{self, MinBodyRate, Upstream};

use super::rewrite::PublicSite;

/// One configuration, ready for use, shared by all workers.
#[derive(Debug)]
pub struct Gateway {
    /// Finds the route of a request.
    pub router: Router<Route>,
    /// The request headers that clients may not send.
    pub scrub: Arc<Scrub>,
    /// The upstreams, by index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The names of the cookies that no upstream receives.
    pub hidden_cookies: Vec<String>,
    /// Limit on the headers from claims, on those from the client's certificate, and on `X-Session-Flash`, each, names and
    /// values together, in bytes.
    pub max_header_bytes: usize,
    /// The access log, if one is configured.
    pub access_log: Option<Arc<AccessLog>>,
    /// The treatment of requests without trace context.
    pub traces: Traces,
    /// Counters and timers of the whole gateway.
    pub metrics: Arc<Metrics>,
    /// Counters and timers of requests that match no route.
    pub unrouted: RouteMetrics,
    /// Limits how often failed requests are logged if there is no access log.
    pub failures: Throttle,
    /// The session realms.
    pub realms: Vec<Arc<Realm>>,
    /// The configuration as it was written.
    pub source: ConfigSource,
    /// Limits on a client's requests.
    pub limits: Limits,
    /// Timeouts for what clients send.
    pub timeouts: Timeouts,
    /// Limit on requests, per client.
    pub rate: Option<Limiter>,
    /// Limit on lookups of unknown session ids, per client.
    pub misses: Option<Arc<Limiter>>,
    /// Limit on HTTP/2 stream resets, per client.
    pub resets: Option<Arc<Limiter>>,
}

impl Gateway {
    /// Returns every per-client limiter with the name of its route (`None` for the whole gateway) and its kind.
    pub fn limiters(&self) -> impl Iterator<Item = (Option<&str>, &'static str, &Limiter)> {
        let (rate, misses, resets) = (self.rate.as_ref(), self.misses.as_deref(), self.resets.as_deref());
        let general = [("rate", rate), ("misses", misses), ("reset_rate", resets)];
        let general = general.into_iter().map(|(which, limiter)| (None, which, limiter));
        let of_routes =
            self.router.all().map(|route| (Some(route.name.as_str()), "rate", route.rate.as_ref()));
        let all = general.chain(of_routes);
        all.filter_map(|(route, which, limiter)| Some((route, which, limiter?)))
    }

    /// Returns the minimum rate at which clients must send bodies.
    pub(super) fn min_rate(&self) -> MinBodyRate {
        MinBodyRate { limit: self.timeouts.body, rate: self.timeouts.body_rate }
    }
}

/// A route: its access rule, and the handling of its requests.
#[derive(Debug)]
pub struct Route {
    /// The name in logs and metrics.
    pub name: String,
    /// Counters and timers of its requests.
    pub metrics: RouteMetrics,
    /// The access rule.
    pub access: Access,
    /// The session realm of this route.
    pub realm: Option<Arc<Realm>>,
    /// Conditions that the session's claims must meet.
    pub require: Vec<Requirement>,
    /// The log-in page to which browsers without a logged-in user are redirected.
    pub login: Option<LoginTemplate>,
    /// Headers injected from the session's claims.
    pub headers: Vec<HeaderRule>,
    /// Headers injected from the client's certificate.
    pub certificate_headers: Vec<HeaderRule>,
    /// The slot in which a cached session keeps the headers that this route's `headers` map it to.
    pub mapping: Option<MappingSlot>,
    /// Whether the upstream may change the session.
    pub writes: bool,
    /// Whether flash messages are removed from the session and sent to the upstream.
    pub flash: bool,
    /// Whether requests with unsafe methods must prove that they come from this site.
    pub csrf: bool,
    /// Settings of WebSockets and event streams.
    pub streams: StreamsConfig,
    /// Edits of the headers of forwarded requests.
    pub request_headers: HeaderEdits,
    /// Edits of the headers of every response.
    pub response_headers: HeaderEdits,
    /// Limit on requests for this route, per client.
    pub rate: Option<Limiter>,
    /// The upstream, redirect or constant response.
    pub destination: Destination,
}

/// The sender of a request, as determined by the route's access rule.
#[derive(Debug)]
pub enum Visitor {
    /// A client on a public route, where sessions are not looked up.
    Public,
    /// A client without a session.
    Anonymous,
    /// A client whose cookies name several live sessions, or more sessions than are looked up, so that it is unknown
    /// which one is the user's. Served as a client without a session, but not logged out.
    Ambiguous,
    /// A client whose session could not be looked up.
    Unknown,
    /// A client with a session.
    Session(Box<Active>),
}

impl Visitor {
    /// Returns the verdict for the access log and the metrics.
    pub(super) fn verdict(&self) -> RequestVerdict {
        match self {
            Self::Public => RequestVerdict::Public,
            Self::Anonymous | Self::Ambiguous => RequestVerdict::Anonymous,
            Self::Unknown => RequestVerdict::Unavailable,
            Self::Session(active) if active.session.user() == UserState::Guest => RequestVerdict::Guest,
            Self::Session(_) => RequestVerdict::Active,
        }
    }

    /// Returns the value of `X-Session-Status`.
    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Public | Self::Anonymous | Self::Ambiguous => "anonymous",
            Self::Unknown => "unavailable",
            Self::Session(active) if active.session.user() == UserState::Guest => "guest",
            Self::Session(_) => "active",
        }
    }

    /// Returns the session, if there is one.
    pub(super) fn active(&self) -> Option<&Active> {
        match self {
            Self::Session(active) => Some(active),
            Self::Public | Self::Anonymous | Self::Ambiguous | Self::Unknown => None,
        }
    }
}

/// The properties of a forwarded request that its response depends on.
#[derive(Debug)]
pub struct Exchange {
    pub(super) visitor: Visitor,
    pub(super) route: Arc<Route>,
    /// Whether the client used TLS.
    pub(super) secure: bool,
    /// The client's address, if it is known.
    pub(super) client: Option<IpAddr>,
    /// The public site for which paths in the response are rewritten; `None` if the route does not rewrite them.
    pub(super) site: Option<PublicSite>,
    /// Whether the client accepts trailers.
    pub(super) trailers: bool,
}

impl Exchange {
    /// Returns the affinity key that keeps a session, or a client without a session, on one server.
    pub(super) fn affinity(&self) -> u64 {
        match self.visitor.active() {
            Some(active) => active.session.reference().affinity(),
            None => self.client.map_or(0, upstream::affinity),
        }
    }
}
