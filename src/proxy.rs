//! A request's way through the gateway. [`handle`] tells it; each step has a file of its own, and a type that only the
//! step before it can make: [`Inbound`] → [`Sanitized`] → [`Admitted`] → [`Outbound`].

mod admit;
mod body;
mod bond;
mod csrf;
mod door;
mod edit;
mod forward;
mod grpc;
mod handover;
mod inbound;
mod inject;
mod limit;
mod mapping;
mod order;
mod peer;
mod record;
mod redirect;
mod refusal;
mod rehearsal;
mod request_id;
mod respond;
mod rewrite;
mod snapshot;
mod upgrade;
mod visit;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, COOKIE};
use http::{HeaderValue, Request, Response, Version};
use smallvec::SmallVec;
use tracing::{Instrument as _, debug_span};

pub use admit::{Admitted, Visitor};
pub use body::ResponseBody;
pub use door::{Door, Rule, Secured};
pub use handover::{Duplex, Handed, Handover};
pub use inbound::{Inbound, Sanitized};
pub use inject::{Injection, Outbound, inject};
pub use mapping::map;
pub use peer::Peer;
pub use refusal::Refusal;
pub(crate) use rehearsal::{Ending, Known, Rehearsal, rehearse};
pub use request_id::RequestIds;
pub use snapshot::{Snapshot, Worker};
pub use upgrade::Tunnels;

use crate::claims::Requirement;
use crate::config::{
    Access, Destination, HeaderEdits, HeaderRule, Limits, LoginTemplate, Source, StreamsConfig, Timeouts,
    Traces,
};
use crate::headers::{REQUEST_ID, Scrub};
use crate::rate::{Limiter, Meter};
use crate::route::Router;
use crate::session::{Place, Realm, Reissuing, Resolution, Source as Asked, UserState, cookie};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::telemetry::throttle::Throttle;
use crate::time::{Clock, Now};
use crate::upstream::{ClientBody, Pace, Upstream};
use bond::Bond;
use edit::{Facts, Prepared};
use record::{Record, Waiting};
use refusal::Style;
use respond::Renewal;
use upgrade::{Handshake, Tunnel};

/// What all workers share: the configuration, ready for use.
#[derive(Debug)]
pub struct Gateway {
    /// Finds routes.
    pub router: Router<Route>,
    /// What clients may not say.
    pub scrub: Arc<Scrub>,
    /// The upstreams, by index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The names of the cookies that no upstream is to see.
    pub hidden_cookies: Vec<String>,
    /// The budget of injected headers.
    pub max_header_bytes: usize,
    /// Where each request writes a line, if it does.
    pub access_log: Option<Arc<AccessLog>>,
    /// What requests without a trace get.
    pub traces: Traces,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// The same, of requests that no route takes.
    pub unrouted: RouteMetrics,
    /// Failed requests are logged this often, where no access log says what failed.
    pub failures: Throttle,
    /// The kinds of sessions.
    pub realms: Vec<Arc<Realm>>,
    /// What the configuration said.
    pub source: Source,
    /// The most that a client may ask for at once.
    pub limits: Limits,
    /// How long clients are waited for.
    pub timeouts: Timeouts,
    /// How often a client may ask for anything.
    pub rate: Option<Limiter>,
    /// How often a client may name a session that is none.
    pub misses: Option<Limiter>,
    /// How often a client may reset what it has asked for over HTTP/2.
    pub resets: Option<Arc<Limiter>>,
}

impl Gateway {
    /// What holds addresses to a rate: whose it is (a route's, or none: everybody's), which one, and it.
    pub fn limiters(&self) -> impl Iterator<Item = (Option<&str>, &'static str, &Limiter)> {
        let (rate, misses, resets) = (self.rate.as_ref(), self.misses.as_ref(), self.resets.as_deref());
        let general = [("rate", rate), ("misses", misses), ("reset_rate", resets)];
        let general = general.into_iter().map(|(which, limiter)| (None, which, limiter));
        let own = self.router.all().map(|route| (Some(route.name.as_str()), "rate", route.rate.as_ref()));
        let all = general.chain(own);
        all.filter_map(|(route, which, limiter)| Some((route, which, limiter?)))
    }

    /// How fast clients have to send bodies.
    fn pace(&self) -> Pace {
        Pace { limit: self.timeouts.body, rate: self.timeouts.body_rate }
    }
}

/// What a route leads to.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs.
    pub name: String,
    /// What is counted and timed of it.
    pub metrics: RouteMetrics,
    /// Its rule.
    pub access: Access,
    /// Whose sessions it takes.
    pub realm: Option<Arc<Realm>>,
    /// Claims that must hold.
    pub require: Vec<Requirement>,
    /// Where a browser without a session is sent.
    pub login: Option<LoginTemplate>,
    /// Headers to inject of the session.
    pub headers: Vec<HeaderRule>,
    /// Headers to inject of the client's certificate.
    pub certificate_headers: Vec<HeaderRule>,
    /// Where sessions of its realm remember what its mapping makes of them.
    pub mapping: Option<Place>,
    /// Whether the upstream may change the session.
    pub writes: bool,
    /// Whether flash messages are taken out and handed over.
    pub flash: bool,
    /// Whether unsafe methods must prove that they come from this site.
    pub csrf: bool,
    /// What goes on for long: WebSockets, streams of events.
    pub streams: StreamsConfig,
    /// What is done to the headers of what is forwarded.
    pub request_headers: HeaderEdits,
    /// What is done to the headers of every answer.
    pub response_headers: HeaderEdits,
    /// How often a client may ask for it.
    pub rate: Option<Limiter>,
    /// Where requests go.
    pub destination: Destination,
}

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival<'r> {
    peer: &'r Peer,
    id: &'r HeaderValue,
    /// How it is told that it is refused.
    style: Style,
    now: Now,
}

/// Answers a request of `peer`. Never fails: what goes wrong is an answer too, and a panic stays in its request.
pub async fn handle(worker: &Worker, peer: &Peer, request: Request<ClientBody>) -> Response<ResponseBody> {
    let now = Clock.now();
    let snapshot = worker.snapshot();
    let gateway = &snapshot.gateway;
    let id = worker.ids().of(request.headers());
    let style = Style::of(request.method(), request.headers());
    let version = request.version();
    let trace = worker.traces().place(request.headers(), gateway.traces);
    let mut record = Record::new(id.clone(), trace, now);
    let arrival = Arrival { peer, id: &id, style, now };
    let early = upgrade::may_be_early(&request);
    let span = debug_span!("request", id = id.to_str().unwrap_or_default(), trace = record.trace_id());
    let waiting = Waiting::new(&mut record, gateway, worker.number());
    // Pinned, here and below: to wrap a future in its span would move it, and they are large.
    let story =
        AssertUnwindSafe(pin!(serve(worker, &snapshot, request, arrival, waiting.record)).instrument(span))
            .catch_unwind()
            .await;
    let story = story.unwrap_or_else(|_| {
        let id = id.to_str().unwrap_or_default();
        tracing::error!(id, trace = waiting.record.trace_id(), "a request ended in a panic");
        Err(Refusal::Internal)
    });
    waiting.over();
    let (mut response, tunnel) = story.unwrap_or_else(|refusal| {
        record.refused(gateway, &refusal);
        (refusal.respond(&id, style), None)
    });
    record.answered(gateway, response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    peer.door().mark(response.headers_mut());
    if version == Version::HTTP_2 {
        // There, a connection is not a header's business; what a refusal leaves unread of a body is reset.
        response.headers_mut().remove(CONNECTION);
    } else if early && tunnel.is_none() {
        // What may have come after such a request was not meant as the next one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let entry = gateway.access_log.as_ref().map(|log| Box::new(record.into_entry(log, worker.number())));
    match tunnel {
        Some(tunnel) => worker.open(tunnel, entry),
        None => entry.into_iter().for_each(|entry| response.body_mut().record(entry)),
    }
    response
}

async fn serve(
    worker: &Worker,
    snapshot: &Snapshot,
    request: Request<ClientBody>,
    arrival: Arrival<'_>,
    record: &mut Record,
) -> Result<(Response<ResponseBody>, Option<Tunnel>), Refusal> {
    let gateway = &snapshot.gateway;
    let sanitized =
        Inbound::read(request, &gateway.limits, arrival.peer)?.sanitize(&gateway.scrub, arrival.peer);
    if gateway.access_log.is_some() {
        record.asked(&sanitized);
    }
    if sanitized.scrubbed() > 0 {
        gateway.metrics.scrubbed(sanitized.scrubbed());
    }
    limit::rate(gateway.rate.as_ref(), &sanitized, arrival.now)?;
    arrival.peer.door().admit(arrival.peer, &sanitized)?;
    let route = gateway.router.find(sanitized.host(), sanitized.path(), sanitized.method())?;
    record.routed(route);
    let edits = Prepared::new(&route.response_headers, &Facts::of(&sanitized, arrival.id));
    let passed = pass(worker, snapshot, route, sanitized, arrival, &edits, record).await;
    Ok(passed.unwrap_or_else(|refusal| {
        record.refused(gateway, &refusal);
        let mut response = refusal.respond(arrival.id, arrival.style);
        edits.complete(response.headers_mut());
        (response, None)
    }))
}

/// Takes a request along its route.
async fn pass(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Arc<Route>,
    sanitized: Sanitized,
    Arrival { peer, id, now, .. }: Arrival<'_>,
    edits: &Prepared<'_>,
    record: &mut Record,
) -> Result<(Response<ResponseBody>, Option<Tunnel>), Refusal> {
    let gateway = &snapshot.gateway;
    limit::rate(route.rate.as_ref(), &sanitized, now)?;
    limit::body(&route.destination, &sanitized)?;
    let misses = limit::meter(gateway.misses.as_ref(), &sanitized);
    let resolution =
        pin!(resolve(route, &sanitized, misses, now, record)).instrument(debug_span!("resolve")).await;
    let mut admitted = debug_span!("admit").in_scope(|| admit::admit(sanitized, route, resolution))?;
    record.admitted(admitted.visitor());
    // Before any answer of the route's own: a tunnel that there is none of must not look like one.
    let handshake = Handshake::of(&mut admitted)?;
    if let Some(mut answer) = redirect::answer(&admitted)? {
        edits.complete(answer.headers_mut());
        return Ok((answer, None));
    }
    csrf::check(&admitted)?;
    let visit = visit::visit(&mut admitted, gateway.max_header_bytes).await;
    record.store += visit.took;
    let reissuing = if visit.written { None } else { start_reissue(&admitted, now) };
    record.reissue = reissuing.is_some();
    let injection = Injection {
        max_header_bytes: gateway.max_header_bytes,
        certificate: peer.certificate(),
        request_id: id,
        trace: record.trace(),
        flash: &visit.flash,
        hidden: &gateway.hidden_cookies,
        pace: gateway.pace(),
        scrub: &gateway.scrub,
    };
    let (mut outbound, exchange) = inject(admitted, &injection)?;
    if let Some(handshake) = &handshake {
        handshake.ask(&mut outbound);
    }
    let Some(pool) = snapshot.pools.get(outbound.upstream) else { return Err(Refusal::Internal) };
    record.sent = Some(Clock.mono());
    let answer = pin!(forward::forward(pool, outbound, || exchange.affinity()))
        .instrument(debug_span!("forward"))
        .await;
    record.heard = Some(Clock.mono());
    let mut answer = answer.map_err(|error| {
        record.detail = Some(error.to_string());
        error.refusal()
    })?;
    record.upstream = Some(Arc::clone(&answer.server));
    let ordered = pin!(order::carry_out(answer.response.headers(), route, &exchange, record))
        .instrument(debug_span!("order"))
        .await?;
    let again = visit.written || reissuing.is_some_and(|reissuing| !reissuing.is_gone());
    let renewal = match ordered {
        Some(outcome) => Renewal::Ordered(outcome),
        None if again => Renewal::Again,
        None => Renewal::No,
    };
    let far = answer.far.take();
    let mut response = respond::respond(answer, route, &exchange, &renewal, edits);
    let bond = Bond::new(exchange, &renewal, now.mono);
    let tunnel = match handshake {
        Some(handshake) => handshake.conclude(&mut response, far, bond, &route.streams)?,
        None => {
            bond::bind(&mut response, bond, &route.streams, &worker.stopped);
            None
        }
    };
    Ok((response, tunnel))
}

/// Resolves the session that the request's cookies name. A public route never asks.
async fn resolve(
    route: &Route,
    request: &Sanitized,
    misses: Meter<'_>,
    now: Now,
    record: &mut Record,
) -> Option<Resolution> {
    let realm = route.realm.as_ref().filter(|_| route.access != Access::Public)?;
    let lines = request.headers().get_all(COOKIE).iter();
    let cookies: SmallVec<[&[u8]; 4]> =
        lines.flat_map(|line| cookie::values(line.as_bytes(), realm.cookie_name())).collect();
    let (resolution, source) = realm.resolve(&cookies, misses, now).await;
    record.cache = source;
    match &resolution {
        Resolution::Active(active) => {
            record.session = Some(active.session.headers().reference.clone());
            if route.access.needs_session() && active.session.user() == UserState::Guest {
                record.reason = "guest";
            }
        }
        Resolution::Anonymous(why) => record.reason = why.label(),
        Resolution::Unavailable => record.reason = "unavailable",
        Resolution::Throttled(_) => record.reason = "misses",
    }
    if matches!(source, Asked::Miss | Asked::Stale) {
        record.store = Clock.mono().saturating_duration_since(now.mono);
    }
    Some(resolution)
}

/// Starts the reissue of a session that is due, while the upstream works.
fn start_reissue(admitted: &Admitted, now: Now) -> Option<Reissuing> {
    match (admitted.visitor(), &admitted.route().realm) {
        (Visitor::Session(active), Some(realm)) => {
            active.life.due.map(|due| realm.reissue(&active.session, due, now))
        }
        (Visitor::Session(_) | Visitor::Public | Visitor::Anonymous | Visitor::Unknown, _) => None,
    }
}
